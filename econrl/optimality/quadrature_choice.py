"""The fewest quadrature nodes that leave the Euler residuals as they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from econrl.optimality.euler import euler_residuals
from econrl.optimality.structure import Structure
from econrl.problem.bellman import bellman_residual, kernel
from econrl.problem.chunks import in_chunks
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER, Quadrature
from econrl.problem.state_function import Function

NODES = (2, 3, 5, 7)  # tried in this order
MOST_PATIENT = 0.999  # what tomorrow is worth today, at most, where errors of a value are added up
KINKED = 1e-5  # change of the residuals accepted for fewer nodes where multipliers matter


@torch.no_grad()
def coarsest(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    most: int,
    tolerance: float,
    look_at_the_clock: Callable[[], None] = lambda: None,
    value: Function | None = None,
) -> MDP:
    """The model with as few quadrature nodes, at most `most` a shock, as change the residuals at s by at most
    `tolerance` in the mean. `value` is the policy's, where utility is recursive."""

    def residuals(mdp: MDP) -> Tensor:
        found = in_chunks(mdp, lambda s: euler_residuals(mdp, structure, policy, s, value=value), s, look_at_the_clock)
        if value is None or mdp.preferences.additive:
            return found
        # What is ahead is no mean of values, so that its own error, which risk aversion magnifies, counts as well, with
        # what it adds up to in all periods.
        ahead = in_chunks(mdp, lambda s: bellman_residual(mdp, policy, value, s), s, look_at_the_clock)
        patience = kernel(mdp, value, s, policy(s).unsqueeze(-2)).sum(dim=-1).mean().clamp(0, MOST_PATIENT)
        return torch.cat([found, (ahead / value(s).abs().mean() / (1 - patience)).unsqueeze(-1)], dim=-1)

    finest = mdp.with_quadrature(FINER)
    reference = residuals(finest)
    for nodes in NODES:
        coarse = mdp.with_quadrature(Quadrature(nodes=nodes))
        if nodes >= most or len(coarse.nodes) >= len(finest.nodes):
            break
        if (residuals(coarse) - reference).abs().mean() <= tolerance:
            return coarse
    return mdp
