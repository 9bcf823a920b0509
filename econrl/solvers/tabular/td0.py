"""TD(0): the value of a policy, on a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.action_menu import TableMenuValue, greedy
from econrl.approximation.constant_shares import ConstantShares
from econrl.approximation.finite_mdp import Table
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.task import Task
from econrl.solvers.tabular.learner import ModelWalk, Step, Tabular


def td_error(V: Tensor, beta: float, step: Step) -> Tensor:
    """r + beta V(j) - V(i), (E,)."""
    return step.r + beta * V[step.j] - V[step.i]


@dataclass(frozen=True)
class TD0(Tabular):
    """One-step temporal-difference prediction on the model's table (`finite_mdp.py`, `learner.py`).

        V(i) <- V(i) + alpha [r + beta V(j) - V(i)]

    It evaluates a policy, and improves nothing: the policy of `warm_start=`, or, where none is given, the best constant
    shares (`constant_shares.py`). The solution is that policy with the value that was learned; `sarsa` and `q_learning`
    also look for a better one.

    Source: Sutton (1988), "Learning to predict by the methods of temporal differences", Machine Learning 3; Sutton and
    Barto (2018), "Reinforcement Learning: An Introduction", section 6.1.
    """

    name: ClassVar[str] = "td0"
    warm: ClassVar[bool] = True
    improves: ClassVar[bool] = False
    tastes: ClassVar[bool] = False  # the one action of a table of its own is not drawn

    def error(self, Q: Tensor, table: Table, step: Step) -> Tensor:
        return td_error(Q.squeeze(-1), table.beta, step)  # there is but one action

    def menu_size(self, mdp: MDP) -> int:
        return 1

    def learner(self, mdp: MDP, task: Task) -> Prediction:
        return Prediction(self, MDP(task.model, "cpu", mdp.dtype, mdp.quadrature), task)

    def held_out(self, task: Task) -> HeldOut:
        return BellmanError(task.model, task.device)


class Prediction(ModelWalk):
    """A walk in which a given policy chooses."""

    def actions(self, s: Tensor, start: ConstantShares) -> Tensor:
        if self.task.warm_start is not None:
            self.policy = self.task.warm_start[0].on(self.mdp)
        else:
            constant = TableMenuValue(self.mdp, 1, **self.description)
            constant.menu = start.u.unsqueeze(0)
            self.policy = greedy(constant)
        return self.policy(s).unsqueeze(1)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        self.value.fit(self.Q)
        return self.policy, self.value


class BellmanError(HeldOut):
    """Judges a value alone: the policy, good or bad, is given."""

    error = HeldOut.bellman
