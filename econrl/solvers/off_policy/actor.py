"""The deterministic actor: where it begins, how it explores, and how far its actions may go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from econrl.approximation.networks import Actor
from econrl.problem.mdp import MDP

LARGEST_U = 10.0  # a share of 1 - 5e-5: beyond, little is gained, and the network would have to be steeper


def actor_near(mdp: MDP, hidden: Sequence[int], u: Tensor) -> Actor:
    """An actor close to the constant u (A,)."""
    actor = Actor(mdp, hidden).to(mdp.device, mdp.dtype)
    actor.body.start_at(u)
    return actor


def noisy_actions(actor: Actor, noise: float, generator: torch.Generator, s: Tensor) -> Tensor:
    """u (B, A) = pi(s) + noise z, z ~ N(0, 1): exploration in the log-odds of shares, which respects any bounds."""
    u = actor.raw(s)
    return u + noise * torch.randn(u.shape, generator=generator, dtype=u.dtype, device=u.device)
