"""Time iteration on adaptive sparse grids of hierarchical hat functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.grid_functions import CutOffPolicy
from econrl.approximation.hat_grid import HatGrid, factors_of
from econrl.approximation.smolyak_grid import count_points
from econrl.errors import MethodError
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import require_memory
from econrl.solvers.common.method import require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.grid.fit_grid import fitted
from econrl.solvers.grid.time_iterated import TimeIterated
from econrl.solvers.grid.time_iteration_run import TimeIterationRun, no_euler_equation

COARSE = 3  # level of the grid for the sketch
INSTALL = "pip install --no-cache-dir 'econrl[sparse]'"


@dataclass(frozen=True)
class Adaptive(TimeIterated):
    """Time iteration, as in `time_iteration`, on a sparse grid that is refined where the policy is not linear.

    When the iteration has converged on a grid, each point whose hierarchical surplus, over the largest |z| of the
    function that is interpolated (`bounded_forms.py`), exceeds `refine` gets neighbours at half the distance, and the
    iteration goes on; until there are none, or a limit is reached. Levels are counted from 1, the grid of one point.

    Source: Brumm and Scheidegger (2017), "Using adaptive sparse grids to solve high-dimensional dynamic models",
    Econometrica 85; the grids are built and refined by Tasmanian (Stoyanov 2015).
    """

    name: ClassVar[str] = "adaptive"
    warm: ClassVar[bool] = True

    level: int = 3
    """Level of the sparse grid that the refinement begins with."""
    refine: float = 1e-3
    """Surplus above which a point is refined; 0 for none, the classic sparse grid."""
    max_level: int = 8
    """Highest level of a point in any dimension."""
    max_points: int = 3000
    """Points beyond which the grid is not refined."""
    margin: float = 0.25
    """How far the grid may reach beyond the domain, in widths of it; it reaches as far as the states do."""
    change: float = 1e-6
    """Largest change of the policy (in shares) at which the iteration on a grid ends."""
    memory_limit: float | None = None
    """Bytes that the solver may use; None: half of what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("level", "max_points"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("refine", "margin"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        require(self, "max_level", self.max_level >= self.level, "at least `level`")

    def refuse(self, mdp: MDP) -> str | None:
        """There must be an Euler equation, and one grid for all time."""
        if mdp.horizon is not None:
            return "a life cycle would need a grid of its own for each period"
        return no_euler_equation(mdp)

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """Raises MethodError where Tasmanian is not installed, and SolveError for a grid that does not fit into
        memory."""
        tasmanian()
        self.check_memory(mdp, classic_points(len(mdp.continuous), self.level))
        return AdaptiveRun(self, mdp, task, held_out)

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The grid of the sketch."""
        return self.describe_grid(mdp, Refinement(mdp, min(self.level, COARSE)))

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The first grid, fitted to where the rough policy goes."""
        where = fitted(mdp, policy, self.coarse_grid(mdp), self.margin, False)
        return {**where, **Refinement(mdp, self.level).describe()}

    def describe_grid(self, mdp: MDP, refinement: Refinement) -> dict[str, Any]:
        """The description of a refined grid, as grid functions take it."""
        columns = mdp.continuous
        return {
            "grid": "hats",
            "low": mdp.low[columns].tolist(),
            "high": mdp.high[columns].tolist(),
            "logs": [columns.index(c) for c in mdp.logarithmic],
            **refinement.describe(),
        }

    def check_memory(self, mdp: MDP, points: int) -> None:
        """Raise SolveError, before anything is allocated, where the grid would not fit."""
        layers = mdp.layers
        needed = 8.0 * points**2 * (3 + layers**2)
        size = f"{points:,} points in {len(mdp.continuous)} dimensions"
        advice = "Reduce `level` or `max_points`, or raise `refine` or `memory_limit`"
        require_memory(self.name, mdp, needed, size, advice, self.memory_limit)


def tasmanian() -> Any:
    """The library that builds and refines the grids."""
    try:
        import Tasmanian
    except ImportError as error:
        raise MethodError(f"adaptive needs the library Tasmanian, which is not installed: {INSTALL}") from error
    return Tasmanian


def classic_points(d: int, level: int) -> int:
    """Points of the sparse grid of a level."""
    return count_points([level - 1] * d)


class Refinement:
    """Tasmanian's grid: a set of points of [-1, 1]^d, to which others are added where surpluses are large."""

    def __init__(self, mdp: MDP, level: int) -> None:
        self.outputs = mdp.A * mdp.layers
        self.values: list[Tensor] = []
        """What the refinements so far were made for."""
        self.grid = tasmanian().makeLocalPolynomialGrid(len(mdp.continuous), self.outputs, level - 1, 1, "localp")

    @property
    def points(self) -> Tensor:
        """The points (N, d) of the grid."""
        return torch.as_tensor(self.grid.getPoints())

    def describe(self) -> dict[str, Any]:
        """The part of the description of `HatGrid` that says which points it has."""
        points = self.points
        top = next(level for level in range(64) if not (points * 2.0 ** (level - 1)).frac().any())
        return {"top": top, "factors": [[n for pair in row for n in pair] for row in factors_of(points, top)]}

    def refined(self, policy: CutOffPolicy, threshold: float, max_level: int) -> int | None:
        """Add the points that the policy's surpluses ask for; how many there are now, or None where none was added."""
        grid = policy.grid
        assert isinstance(grid, HatGrid)
        x = grid.place(self.points.to(policy.coefficients))
        layers = [torch.full_like(x[:, 0], layer, dtype=torch.long) for layer in range(policy.layers)]
        z = torch.cat([grid.interpolate(policy.coefficients, x, layer) for layer in layers]).cpu()
        if not self.refine(z, threshold, max_level):
            return None
        return int(self.grid.getNumPoints())

    def refine(self, z: Tensor, threshold: float, max_level: int) -> bool:
        """Add points where the surpluses of the values z (outputs, N) at the points exceed the threshold; whether there
        are any."""
        self.values.append(z)
        self.grid.loadNeededValues(z.T.contiguous().numpy())
        self.grid.setSurplusRefinement(threshold, -1, "classic", [max_level - 1] * self.grid.getNumDimensions())
        if self.grid.getNumNeeded() == 0:
            return False
        self.grid.mergeRefinement()
        return True


class AdaptiveRun(TimeIterationRun):
    """Time iteration on grid after grid, each a refinement of the one before it."""

    method: Adaptive

    def begin(self) -> None:
        self.refinement = Refinement(self.mdp, self.method.level)
        self.on_this_grid = False  # whether the iteration has converged on the present grid
        super().begin()

    def step(self) -> None:
        if self.on_this_grid:
            self.go_on_refined()
        super().step()
        self.on_this_grid = self.converged
        if self.converged and self.method.refine > 0:
            self.refine()

    def due(self, step: int) -> bool:
        return self.on_this_grid or super().due(step)

    def refine(self) -> None:
        """Look for points to add; the run has converged where there are none, or too many."""
        method, policy = self.method, self.it.policy
        points = self.refinement.refined(policy, method.refine, method.max_level)
        if points is None:
            return
        if points > method.max_points:
            self.message = (
                f"not refined beyond {policy.grid.size:,} points: the next grid would have {points:,}, and "
                f"`max_points` is {method.max_points:,}. Surpluses above {method.refine:g} are left"
            )
            return
        self.converged = False

    def go_on_refined(self) -> None:
        """The policy on the refined grid, from which the iteration goes on."""
        policy = self.it.policy
        self.method.check_memory(self.mdp, len(self.refinement.points))
        description = {**self.description, **self.refinement.describe()}
        self.make_grid(self.it.mdp, policy.forms.describe(), description)
        self.it.begin(policy)
        self.smallest, self.since = math.inf, 0

    def state(self) -> dict[str, Any]:
        return {**super().state(), "on_this_grid": self.on_this_grid, "refinements": self.refinement.values}

    def restore(self, state: dict[str, Any]) -> None:
        self.refinement, self.on_this_grid = Refinement(self.mdp, self.method.level), state["on_this_grid"]
        for z in state["refinements"]:
            self.refinement.refine(z, self.method.refine, self.method.max_level)
        super().restore(state)
