"""Time iteration, or value iteration, on Smolyak grids of Chebyshev polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.smolyak_grid import count_points
from econrl.errors import MethodError
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import require_memory
from econrl.solvers.common.method import each, require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.grid.fit_grid import fitted
from econrl.solvers.grid.time_iterated import TimeIterated
from econrl.solvers.grid.time_iteration_run import time_iteration
from econrl.solvers.grid.value_iteration import value_iteration

DEFAULT_POINTS = 500  # at most, where the level is not given
HIGHEST, COARSE = 7, 1  # level that is taken by default, and of the grid for the sketch


@dataclass(frozen=True)
class Smolyak(TimeIterated):
    """Chebyshev polynomials on a Smolyak grid; an anisotropic one where `level` has an entry a state.

    Where the model has an Euler equation, the policy is iterated on as in `time_iteration`; where it has none, the
    value as in `vi`. Outside the grid the polynomials go on linearly.

    Source: Judd, Maliar, Maliar and Valero (2014), "Smolyak method for solving dynamic economic models", JEDC 44;
    Krueger and Kubler (2004), "Computing equilibrium in OLG models with stochastic production", JEDC 28.
    """

    name: ClassVar[str] = "smolyak"
    warm: ClassVar[bool] = True
    is_fitted: ClassVar[bool] = True

    level: int | tuple[int, ...] | None = None
    """Level mu of the grid, or one for each continuous state; None: the highest with at most 500 points, at least 2."""
    margin: float = 0.25
    """How far the grid may reach beyond the domain, in widths of it; it reaches as far as the states do. Every
    polynomial covers all of the grid, so that reaching far costs accuracy."""
    change: float = 1e-9
    """Largest change of the policy (in shares), and of the value where it is iterated on, at which it ends."""
    howard: int = 200
    """Steps of GMRES at most in each policy evaluation."""
    memory_limit: float | None = None
    """Bytes that the solver may use; None: half of what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "howard", self.howard >= 1, "at least 1")
        require(self, "margin", self.margin >= 0, "at least 0")
        levels = self.level if isinstance(self.level, Sequence) else [0 if self.level is None else self.level]
        require(self, "level", min(levels, default=0) >= 0, "at least 0")

    def levels_of(self, mdp: MDP) -> list[int]:
        """mu_j of each continuous state."""
        d = len(mdp.continuous)
        if self.level is not None:
            return [int(mu) for mu in each(self, "level", self.level, d)]
        fit = [mu for mu in range(2, HIGHEST + 1) if count_points([mu] * d) <= DEFAULT_POINTS]
        return [max(fit, default=2)] * d

    def check_memory(self, mdp: MDP) -> None:
        """Raise SolveError, before anything is allocated, where the grid would not fit."""
        points, layers = count_points(self.levels_of(mdp)), mdp.layers
        functions = 4 * (mdp.horizon or 1) * layers * points * (1 + mdp.A)
        needed = 8.0 * (points**2 * (3 + layers**2) + functions + layers * points * self.howard)
        level, d = max(self.levels_of(mdp), default=0), len(mdp.continuous)
        advice = "Reduce `level`, give states that matter less a lower one, or raise `memory_limit`"
        size = f"{points:,} points of level {level} in {d} dimensions"
        require_memory(self.name, mdp, needed, size, advice, self.memory_limit)

    def describe_grid(self, mdp: MDP, levels: list[int]) -> dict[str, Any]:
        """The description of the grid with these levels, as grid functions take it."""
        columns = mdp.continuous
        return {
            "grid": "smolyak",
            "low": mdp.low[columns].tolist(),
            "high": mdp.high[columns].tolist(),
            "levels": levels,
            "logs": [columns.index(c) for c in mdp.logarithmic],
        }

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """Raises SolveError for a grid that does not fit into memory."""
        self.check_memory(mdp)
        if find_structure(mdp).exists:
            return time_iteration(self, mdp, task, held_out)
        if task.warm_start is not None:
            raise MethodError("smolyak takes no warm_start where the model has no Euler equation")
        return value_iteration(self, mdp, task, held_out)

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The grid of the sketch."""
        return self.describe_grid(mdp, [min(mu, COARSE) for mu in self.levels_of(mdp)])

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The grid, fitted to where the rough policy goes."""
        return fitted(mdp, policy, self.describe_grid(mdp, self.levels_of(mdp)), self.margin, False)
