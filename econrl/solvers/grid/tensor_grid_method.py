"""What the methods on dense grids share: how the grid is described, and whether it fits into memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.approximation.tensor_grid import BASIS, FEWEST
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import CHUNK, require_memory
from econrl.solvers.common.method import Method, each, require
from econrl.solvers.grid.fit_grid import coarse_points, fitted

DEFAULT_WORK = 8_000_000  # points x nodes x coefficients a query that no default exceeds
MOST_WORK = 4 * DEFAULT_WORK  # that `auto` takes on
SWEEPS, SKETCHED = 15, 2.0  # of a stationary model; times that a life is solved, on coarser grids at first
LEAST, SECONDS = 0.1, 1e-6  # of a sweep, for an action, and of a query's coefficient in it, roughly
MOST_ON_A_LINE = 200  # more make second derivatives of a value with kinks noisy
COPIES = 16  # arrays of a chunk's size that second derivatives hold at their peak


@dataclass(frozen=True)
class OnTensorGrid(Method):
    """A method on a tensor grid of the continuous states."""

    most_points: ClassVar[int] = 4096  # by default, in all

    points: int | tuple[int, ...] | None = None
    """Grid points of each continuous state; None: 4,096 in all (1,024 in `time_iteration`; fewer if
    there are many nodes), at most 200 a state."""
    interpolation: str = "cubic"
    """cubic or linear."""
    spacing: float | tuple[float, ...] | None = None
    """0 is uniform, kappa > 0 is e^kappa times as dense at the low end of a state as at its high end; None: such that
    a third of the points lie below the median of a simulation."""
    margin: float = 0.5
    """How far the grid may reach beyond the domain, in widths of it; it reaches as far as the states do."""
    nodes: int = 9
    """Quadrature nodes a shock: many, for a bound may bind at some of them."""
    memory_limit: float | None = None
    """Bytes that the solver may use; None: half of what is free."""

    def __post_init__(self) -> None:
        require(self, "nodes", self.nodes >= 1, "at least 1")
        require(self, "margin", self.margin >= 0, "at least 0")
        require(self, "interpolation", self.interpolation in BASIS, " or ".join(BASIS))

    @property
    def krylov(self) -> int:
        """Steps of GMRES at most in each policy evaluation."""
        raise NotImplementedError

    def describe_grid(self, mdp: MDP) -> dict[str, Any]:
        """The description of `GridValue` and `GridPolicy`."""
        columns = mdp.continuous
        return {
            "low": mdp.low[columns].tolist(),
            "high": mdp.high[columns].tolist(),
            "points": self.points_of(mdp),
            "spacing": [float(kappa) for kappa in each(self, "spacing", self.spacing or 0.0, len(columns))],
            "interpolation": self.interpolation,
        }

    @property
    def is_fitted(self) -> bool:
        """Whether the grid is fitted to where a rough policy goes."""
        return self.margin > 0 or self.spacing is None

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The grid of the rough policy."""
        description = self.describe_grid(mdp)
        return {**description, "points": coarse_points(description)}

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The grid, fitted to where a rough policy goes, with as many points as fit its problem's nodes."""
        self.check_memory(policy.mdp)
        description = {**self.describe_grid(mdp), "points": self.points_of(policy.mdp)}
        return fitted(mdp, policy, description, self.margin, self.spacing is None) if self.is_fitted else description

    def points_of(self, mdp: MDP) -> list[int]:
        """The points of each continuous state: as set, or as many as the work allows."""
        d = len(mdp.continuous)
        if self.points is not None:
            return [int(n) for n in each(self, "points", self.points, d)]
        fewest, taps = FEWEST[self.interpolation], len(BASIS[self.interpolation])
        total = min(self.most_points, DEFAULT_WORK / (len(mdp.nodes) * taps**d))
        each_layer = total / mdp.layers
        return [min(max(int(each_layer ** (1 / max(d, 1)) + 1e-9), fewest), MOST_ON_A_LINE)] * d

    def cost(self, mdp: MDP) -> float:
        """Seconds that grow with points, nodes and coefficients a query, sweeps and pairs of actions; infinite where
        the fewest points are too many."""
        d, options = len(mdp.continuous), len(mdp.options)
        queries = math.prod(self.points_of(mdp)) * mdp.layers * options * len(mdp.nodes)
        work = queries * len(BASIS[self.interpolation]) ** d
        sweeps = SWEEPS if mdp.horizon is None else SKETCHED * mdp.horizon
        each = (LEAST * options + SECONDS * work) * max(len(mdp.free), 1) ** 2
        return 2.0 + sweeps * each if work <= MOST_WORK * options else math.inf

    def reach(self, mdp: MDP) -> float:
        """What cubic splines leave of a smooth policy, n^-4 for n points a side."""
        return float(min(self.points_of(mdp), default=1_000_000)) ** -4

    def check_memory(self, mdp: MDP) -> None:
        """Raise SolveError, before anything is allocated, where the grid would not fit."""
        points = self.points_of(mdp)
        states = math.prod(points) * mdp.layers
        runs = [(n, len(list(same))) for n, same in itertools.groupby(points)]
        sides = " x ".join(f"{n}^{times}" if times > 1 else str(n) for n, times in runs)
        size = f"{states:.3g} grid points ({sides}) and {len(mdp.nodes):,} shock nodes"
        advice = "Reduce `points` (or `nodes`, or the number of states), raise `memory_limit`, or take another method"
        require_memory(self.name, mdp, self.memory(mdp, points), size, advice, self.memory_limit)

    def memory(self, mdp: MDP, points: Sequence[int]) -> float:
        """Bytes needed at the peak, predicted."""
        taps, d = len(BASIS.get(self.interpolation, BASIS["cubic"])), len(points)
        layers = len(mdp.options) * mdp.layers
        states = layers * math.prod(points)
        queries = states * len(mdp.nodes)
        functions = 3 * (mdp.horizon or 1) * layers * math.prod(n + taps - 2 for n in points) * (1 + mdp.A)
        vectors = states * (4 * mdp.S + 8 * mdp.A + 8)
        evaluation = 1.5 * queries * taps**d + states * self.krylov if mdp.horizon is None else 0
        chunk = COPIES * max(CHUNK.get(mdp.device.type, CHUNK["cpu"]), len(mdp.nodes) * taps**d)
        return 8.0 * (functions + vectors + evaluation + chunk)
