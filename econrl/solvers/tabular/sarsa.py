"""SARSA: on-policy control on a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from econrl.approximation.finite_mdp import Table
from econrl.solvers.tabular.learner import Step, Tabular


def sarsa_error(Q: Tensor, beta: float, step: Step) -> Tensor:
    """r + beta Q(j, d') - Q(i, d), (E,): tomorrow's action d' is the one that is then taken, exploration and all. With
    taste shocks its shock is part of what it brings."""
    return step.r + beta * (Q[step.j, step.d_next] + step.shock) - Q[step.i, step.d]


@dataclass(frozen=True)
class SARSA(Tabular):
    """SARSA on the model's table (`finite_mdp.py`, `learner.py`): state, action, reward, state, action.

        Q(i, d) <- Q(i, d) + alpha [r + beta Q(j, d') - Q(i, d)]

    It learns the values of the policy that it follows, mistakes included. The share of random actions falls to zero
    over the run, so that this policy becomes the greedy one, and that the optimal one.

    Source: Rummery and Niranjan (1994), "On-line Q-learning using connectionist systems"; Singh, Jaakkola, Littman and
    Szepesvari (2000), "Convergence results for single-step on-policy reinforcement-learning algorithms", Machine
    Learning 38; Sutton and Barto (2018), "Reinforcement Learning: An Introduction", section 6.4.
    """

    name: ClassVar[str] = "sarsa"

    def exploration(self, rate: float) -> float:
        return self.epsilon * rate

    def error(self, Q: Tensor, table: Table, step: Step) -> Tensor:
        return sarsa_error(Q, table.beta, step)
