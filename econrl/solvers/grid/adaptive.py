"""Time iteration on adaptive sparse grids of hierarchical hat functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.hat_grid import HatGrid, factors_of
from econrl.approximation.smolyak_grid import count_points
from econrl.errors import MethodError
from econrl.problem.mdp import MDP
from econrl.solvers.common.memory import require_memory
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Result, Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.grid.collocation import Collocation
from econrl.solvers.grid.fit_grid import fitted
from econrl.solvers.grid.sketch import sketch
from econrl.solvers.grid.time_iteration import Progress, converge, no_euler_equation, outcome

COARSE = 3  # level of the grid for the sketch
INSTALL = "pip install --no-cache-dir 'econrl[sparse]'"


@dataclass(frozen=True)
class Adaptive(Method):
    """Time iteration, as in `time_iteration`, on a sparse grid that is refined where the policy is not linear.

    When the iteration has converged on a grid, each point whose hierarchical surplus, over the largest |z| of the
    function that is interpolated (`forms.py`), exceeds `refine` gets neighbours at half the distance, and the iteration
    goes on; until there are none, or a limit is reached. Levels are counted from 1, the grid of one point.

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
    every: int = 5
    """Iterations from one measurement of the error to the next."""
    nodes: int = 9
    """Quadrature nodes a shock at most."""
    quadrature: float = 1e-8
    """Mean change of the residuals that is accepted for fewer nodes, where no bound binds; where multipliers matter, at
    least 1e-5."""
    memory_limit: float | None = None
    """Bytes that the solver may use; None: half of what is free."""

    def __post_init__(self) -> None:
        for name in ("level", "max_points", "every", "nodes"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("refine", "margin", "quadrature"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        require(self, "max_level", self.max_level >= self.level, "at least `level`")
        require(self, "change", self.change > 0, "positive")

    def refuse(self, mdp: MDP) -> str | None:
        """There must be an Euler equation, and one grid for all time."""
        if mdp.horizon is not None:
            return "a life cycle would need a grid of its own for each period"
        return no_euler_equation(mdp)

    def run(self, mdp: MDP, task: Task) -> Result:
        """Sketch on a coarse grid, iterate, refine, iterate. Raises MethodError where Tasmanian is not installed, and
        SolveError for a grid that does not fit into memory."""
        tasmanian()
        tracker = Tracker(task, HeldOut(task.model, mdp.device))
        self.check_memory(mdp, classic_points(len(mdp.continuous), self.level))
        coarse = Refinement(mdp, min(self.level, COARSE))
        rough = sketch(self, mdp, task, self.describe_grid(mdp, coarse))
        refinement, policy, at = Refinement(mdp, self.level), rough.policy, Progress()
        where = fitted(mdp, policy, self.describe_grid(mdp, coarse), self.margin, False)
        while True:
            description = {**where, **refinement.describe()}
            it = Collocation(self.name, rough.mdp, rough.forms, description, task)
            converge(self, it, policy, tracker, at)
            policy = it.policy
            if at.message or tracker.converged or self.refine == 0:
                break
            points = refinement.refined(it, self.refine, self.max_level)
            if points is None:
                break
            if points > self.max_points:
                at.message = (
                    f"not refined beyond {it.policy.grid.size:,} points: the next grid would have {points:,}, and "
                    f"`max_points` is {self.max_points:,}. Surpluses above {self.refine:g} are left"
                )
                break
            self.check_memory(mdp, points)
        return outcome(it, tracker, at)

    def describe_grid(self, mdp: MDP, refinement: Refinement) -> dict[str, Any]:
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

    def __init__(self, mdp: MDP, level: int):
        self.outputs = mdp.A * mdp.layers
        self.grid = tasmanian().makeLocalPolynomialGrid(len(mdp.continuous), self.outputs, level - 1, 1, "localp")

    @property
    def points(self) -> Tensor:
        return torch.as_tensor(self.grid.getPoints())

    def describe(self) -> dict[str, Any]:
        """The part of the description of `HatGrid` that says which points it has."""
        points = self.points
        top = next(level for level in range(64) if not (points * 2.0 ** (level - 1)).frac().any())
        return {"top": top, "factors": [[n for pair in row for n in pair] for row in factors_of(points, top)]}

    def refined(self, it: Collocation, threshold: float, max_level: int) -> int | None:
        """Add the points that the policy's surpluses ask for; how many there are now, or None where none was added."""
        grid = it.policy.grid
        assert isinstance(grid, HatGrid)
        x = grid.place(self.points.to(it.z))
        layers = [torch.full_like(x[:, 0], layer, dtype=torch.long) for layer in range(it.policy.layers)]
        z = torch.cat([grid.interpolate(it.policy.coefficients, x, layer) for layer in layers])
        self.grid.loadNeededValues(z.T.contiguous().cpu().numpy())
        self.grid.setSurplusRefinement(threshold, -1, "classic", [max_level - 1] * grid.d)
        if self.grid.getNumNeeded() == 0:
            return None
        self.grid.mergeRefinement()
        return int(self.grid.getNumPoints())
