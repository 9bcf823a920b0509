"""Value function iteration on a grid, with a continuous choice and Howard's policy evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.grid.tensor_grid_method import OnTensorGrid
from econrl.solvers.grid.value_iteration import value_iteration


@dataclass(frozen=True)
class VI(OnTensorGrid):
    """Value function iteration on a tensor grid; with Howard's evaluation steps, policy iteration.

        improve   pi(s) = argmax_a r(s, a) + E[beta V(f(s, a, e))]     at each grid point, by Newton's method
        evaluate  V(s) = r(s, pi(s)) + E[beta V(f(s, pi(s), e))]       a linear system in V at the grid points, by GMRES

    between which V is interpolated. It stops when neither V nor the policy changes. A life cycle is solved backwards
    from its last period, one improvement a period. Where there are discrete choices, each option has a value of its
    own, and V is the largest (see `grid_functions.py`).

    Source: Howard (1960), "Dynamic Programming and Markov Processes"; Rust (1996), "Numerical dynamic programming in
    economics", Handbook of Computational Economics 1; Judd (1998), "Numerical Methods in Economics", chapter 12.
    """

    name: ClassVar[str] = "vi"
    choices: ClassVar[bool] = True
    recursive: ClassVar[bool] = True
    tastes: ClassVar[bool] = True

    howard: int = 200
    """Steps of GMRES at most in each policy evaluation; 0 is plain value iteration."""
    change: float = 1e-9
    """Largest change of the value (relative) and of the policy (in shares) at which the iteration ends."""
    every: int = 1
    """Iterations from one measurement of the error to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "every", self.every >= 1, "at least 1")
        require(self, "howard", self.howard >= 0, "at least 0")
        require(self, "change", self.change > 0, "positive")

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """Raises SolveError for a grid that does not fit into memory."""
        self.check_memory(mdp)
        return value_iteration(self, mdp, task, held_out)

    @property
    def krylov(self) -> int:
        return self.howard
