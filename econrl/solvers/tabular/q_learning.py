"""Q-learning: off-policy control on a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from econrl.approximation.finite_mdp import Table
from econrl.solvers.tabular.learner import Step, Tabular


def q_learning_error(Q: Tensor, table: Table, step: Step) -> Tensor:
    """r + beta max_d' Q(j, d') - Q(i, d), (E,): tomorrow's action is the best one, whatever is done. With taste shocks
    the maximum is their sigma log sum_d' exp(Q / sigma)."""
    return step.r + table.beta * table.best_value(Q[step.j]) - Q[step.i, step.d]


@dataclass(frozen=True)
class QLearning(Tabular):
    """Q-learning on the model's table (`finite_mdp.py`, `learner.py`).

        Q(i, d) <- Q(i, d) + alpha [r + beta max_d' Q(j, d') - Q(i, d)]

    It learns the optimal values while it explores, and with every pair visited without end it converges to them.

    Source: Watkins (1989), "Learning from Delayed Rewards", PhD thesis, Cambridge; Watkins and Dayan (1992),
    "Q-learning", Machine Learning 8; Sutton and Barto (2018), "Reinforcement Learning: An Introduction", section 6.5.
    """

    name: ClassVar[str] = "q_learning"

    def error(self, Q: Tensor, table: Table, step: Step) -> Tensor:
        return q_learning_error(Q, table, step)
