"""Policy iteration on the Euler equation, on dense grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.optimality.find_structure import find_structure
from econrl.optimality.structure import matter
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.grid.collocation import KRYLOV
from econrl.solvers.grid.tensor_grid_method import OnTensorGrid
from econrl.solvers.grid.time_iterated import TimeIterated
from econrl.solvers.grid.time_iteration_run import no_euler_equation, time_iteration

FOR_EULER = 5.0  # times as long as a sweep of value iteration


@dataclass(frozen=True)
class TimeIteration(OnTensorGrid, TimeIterated):
    """Policy iteration on the Euler equation, on a tensor grid.

    At every grid point s, given the policy of tomorrow, today's action a solves

        r_a + E[beta lambda(s'; pi) f_a] = 0,  or the inequality of the bound that binds        (`euler.py`)

    by Newton's method, and becomes the policy of tomorrow; the iterates are extrapolated to their limit (Anderson).
    Interpolated is not the action but a function that is cut off at the bounds (`bounded_forms.py`). The value then
    solves V = r + E[beta V(s')]. A life cycle is solved backwards from its last period, one pass.

    Source: Coleman (1990), "Solving the stochastic growth model by policy-function iteration", J. Business & Economic
    Statistics 8; Judd (1998), "Numerical Methods in Economics", chapter 17.
    """

    name: ClassVar[str] = "time_iteration"
    warm: ClassVar[bool] = True
    most_points: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        OnTensorGrid.__post_init__(self)
        TimeIterated.__post_init__(self)

    @property
    def krylov(self) -> int:
        return KRYLOV

    def cost(self, mdp: MDP) -> float:
        """As that of a grid; Newton's steps on the Euler equation take long, second expectations longer."""
        return super().cost(mdp) * FOR_EULER * (len(mdp.nodes) if matter(find_structure(mdp)) else 1)

    def refuse(self, mdp: MDP) -> str | None:
        """There must be an Euler equation."""
        return no_euler_equation(mdp)

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """Raises SolveError for a grid that does not fit into memory."""
        self.check_memory(mdp.with_quadrature(Quadrature(nodes=1)))  # what the sketch, too, must have
        return time_iteration(self, mdp, task, held_out)
