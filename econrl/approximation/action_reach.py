"""How far random actions may go without leaving the domain."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.simulate import MARGIN

REACHES, STATES = (5.0, 3.0, 1.0, 0.3, 0.1), 2000


def unbounded(mdp: MDP, middle: Tensor, reach: float, x: Tensor) -> Tensor:
    """u = middle + reach x (..., A), and for a choice the option in whose part of [-1, 1] x lies."""
    u = middle + reach * x
    for column, n in mdp.choices:
        u[..., column] = (n * (x[..., column] + 1) / 2).floor().clamp(0, n - 1)
    return u


@torch.no_grad()
def widest_reach(mdp: MDP, middle: Tensor) -> float:
    """The widest reach with which random actions make at most one state of the domain in ten leave it by half of its
    width within a period, beyond those that leave under `middle`: an episode cut off at once teaches nothing."""
    generator = torch.Generator(mdp.device).manual_seed(0)
    s = mdp.sample_box(STATES, generator)
    e = mdp.sample_shocks(s, generator)
    x = 2 * torch.rand(STATES, mdp.A, generator=generator, dtype=s.dtype, device=s.device) - 1

    def leave(reach: float) -> float:
        reached = mdp.transition(s, mdp.act(s, unbounded(mdp, middle, reach, x)), e)
        return float((~mdp.inside(reached, MARGIN)).double().mean())

    most = leave(0.0) + 0.1
    return next((reach for reach in REACHES if leave(reach) <= most), REACHES[-1])
