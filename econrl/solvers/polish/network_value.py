"""The Bellman equation as residuals of a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from econrl.approximation.networks import ValueNetwork
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.polish.correction_networks import PolishedValue
from econrl.solvers.polish.levenberg_marquardt import Parameters


def bellman_row(mdp: MDP, policy: Function, value: PolishedValue | ValueNetwork, V: Function, s: Tensor) -> Tensor:
    """r + E[beta V(s')] against V(s), (1,) at one state, both in the units of the value: logarithms where it has them,
    so that the equation is nearly linear in what the network says."""
    s = s.unsqueeze(0)
    return value.units.raw(lookahead(mdp, V, s, policy(s))) - value.units.raw(V(s))


def with_weights(network: nn.Module, theta: Parameters) -> Function:
    """The network with the weights theta in place of its own."""
    return lambda x: torch.func.functional_call(network, theta, (x,))
