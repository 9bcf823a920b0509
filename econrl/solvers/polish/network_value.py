"""Small networks fitted by Gauss-Newton: copies of another function, and values by the Bellman equation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from econrl.approximation.networks import ValueNetwork
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.common.task import OutOfTime
from econrl.solvers.polish.correction_networks import PeriodFunction, PolishedValue
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters

Look = Callable[[], None]
"""Raises OutOfTime where no time is left."""


def with_weights(network: nn.Module, theta: Parameters) -> Function:
    """The network with the weights theta in place of its own."""
    return lambda x: torch.func.functional_call(network, theta, (x,))


def imitate(
    function: PeriodFunction, period: int, s: Tensor, z: Tensor, chunk: int, steps: int, look_at_the_clock: Look
) -> None:
    """Fit one network's outputs to z (B, outputs) at the states s (B, S), by at most so many steps."""
    network, features = function.networks[period], function.features(s)

    def gap(theta: Parameters, pair: Tensor) -> Tensor:
        x, wanted = pair.split([features.shape[-1], z.shape[-1]])
        return with_weights(network, theta)(x) - wanted

    solver = GaussNewton(gap, network, chunk, look_at_the_clock=look_at_the_clock)
    solver.fit(torch.cat([features, z], dim=-1).detach(), steps)


def bellman_row(mdp: MDP, policy: Function, value: PolishedValue | ValueNetwork, V: Function, s: Tensor) -> Tensor:
    """r + E[beta V(s')] against V(s), (1,) at one state, both in the units of the value: logarithms where it has them,
    so that the equation is nearly linear in what the network says."""
    s = s.unsqueeze(0)
    return value.units.raw(lookahead(mdp, V, s, policy(s))) - value.units.raw(V(s))


def solve_bellman(
    mdp: MDP,
    policy: Function,
    value: PolishedValue,
    states: Callable[[], Tensor],
    chunk: int,
    steps: int,
    look_at_the_clock: Look,
) -> None:
    """Solve V = r + E[beta V'] for a fixed policy, from the value as it is: so many steps, each on new states, or those
    that the clock allows."""
    network = value.networks[0]

    def residual(theta: Parameters, s: Tensor) -> Tensor:
        return bellman_row(mdp, policy, value, partial(value.by, with_weights(network, theta)), s)

    solver = GaussNewton(residual, network, chunk, look_at_the_clock=look_at_the_clock)
    with contextlib.suppress(OutOfTime):
        for _ in range(steps):
            solver.step(states())
