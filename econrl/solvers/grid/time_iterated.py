"""What the methods that iterate on the Euler equation are asked for, whatever the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import Method, require


@dataclass(frozen=True, kw_only=True)
class TimeIterated(Method):
    """The settings of the methods that iterate on the Euler equation, whatever the grid."""

    recursive: ClassVar[bool] = True

    change: float = 1e-9
    """Largest change of the policy (in shares) at which the iteration ends."""
    every: int = 5
    """Iterations from one measurement of the error to the next."""
    nodes: int = 9
    """Quadrature nodes a shock at most: many, for a bound may bind at some of them."""
    quadrature: float = 1e-8
    """Mean change of the residuals that is accepted for fewer nodes, where no bound binds; where multipliers matter, at
    least 1e-5."""
    sketch_steps: int = 100
    """Iterations, at most, on the coarse grid that tells where to begin; in at most a fifth of the time limit."""

    def __post_init__(self) -> None:
        for name in ("every", "nodes", "sketch_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "change", self.change > 0, "positive")
        require(self, "quadrature", self.quadrature >= 0, "at least 0")

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The description of the grid for the rough policy."""
        raise NotImplementedError

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The description of the grid that is fitted to the rough policy, given in the nodes that it needs."""
        raise NotImplementedError
