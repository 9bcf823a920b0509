"""Double deep Q-networks: the action is chosen by one network and valued by the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.approximation.action_menu import MenuValue
from econrl.problem.state_function import Function
from econrl.solvers.off_policy.dqn import DQN


def chosen_value(Q: MenuValue, Q_target: MenuValue, s: Tensor) -> Tensor:
    """Q'(s, argmax_d Q(s, d)): the maximum of noisy values is too high, the value of their best action is not. With
    taste shocks it is the value of the logit policy that Q makes, sum_d P(d) [ Q'(s, d) - sigma log P(d) ]."""
    values, places = Q.by_option(s, Q.Q(s))
    p = Q.mdp.alternatives.probabilities_at(s, values)
    own = Q_target.Q(s).gather(-1, places) + Q.mdp.alternatives.shocks(p)
    return torch.where(p > 0, p * own, 0.0).sum(dim=-1)


@dataclass(frozen=True)
class DoubleDQN(DQN):
    """Double deep Q-network, `dqn` with another target.

        y = r + beta Q'(s', argmax_d' Q(s', d')).

    Source: van Hasselt, Guez and Silver (2016), "Deep reinforcement learning with double Q-learning", AAAI 30.
    """  # fmt: skip

    name = "double_dqn"

    def next_value(self, Q: MenuValue, Q_target: MenuValue) -> Function:
        return lambda s: chosen_value(Q, Q_target, s)
