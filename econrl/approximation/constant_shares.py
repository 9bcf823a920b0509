"""Where learning begins: the constant shares with the highest simulated lifetime reward, and the units of value.

An untrained network can eat the capital stock in a period, or sit on a bound where its gradient vanishes. Constant
shares cost a second of simulation, keep the first paths inside the domain, and tell how large values are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.approximation.units import Units, units_of
from econrl.problem.mdp import MDP
from econrl.problem.simulate import lifetime_reward

CANDIDATES, PATHS, ROUNDS, ELITE = 64, 64, 4, 8  # a second of simulation, which finds shares that stay in the domain
FIRST_SPREAD, LEAST_SPREAD = 2.5, 0.05  # of u: shares from 1 to 99 per cent; and never so small that the search stops


@dataclass(frozen=True)
class ConstantShares:
    """The best constant u (A,) found, and units in which its lifetime reward over the domain is of size one."""

    u: Tensor
    units: Units


def best_constant_shares(mdp: MDP, generator: torch.Generator) -> ConstantShares:
    """Search constant u by the cross-entropy method (Rubinstein 1999) on common states and shocks.

    All parts of an action begin alike; those of exchangeable members stay so. Of a choice, each option is tried as
    often.
    """
    s = mdp.sample_box(PATHS, generator)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=mdp.device))
    mean, spread = torch.zeros_like(mdp.low[:1]).expand(mdp.A), torch.full_like(mdp.low[:1], FIRST_SPREAD).expand(mdp.A)
    for search in range(ROUNDS):
        z = torch.randn(CANDIDATES, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
        z[0] = 0  # the mean itself is a candidate
        u = mdp.sample_options(mean + spread * alike(mdp, z, every=search == 0), generator)
        reward = lifetime_reward(mdp, u, s, torch.Generator(mdp.device).manual_seed(seed))
        ranking = reward.mean(dim=-1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        elite = u[ranking.topk(ELITE).indices]
        mean, spread = elite.mean(dim=0), elite.std(dim=0).clamp(min=LEAST_SPREAD)
    best = int(ranking.argmax())
    return ConstantShares(u[best], units_of(reward[best]))


def alike(mdp: MDP, z: Tensor, every: bool) -> Tensor:
    """z (..., A) with one number for all members of a group, since shares that differ would favour some of them; with
    `every`, for all parts of an action: among many of them a random search finds nothing better at first."""
    columns = torch.arange(mdp.A, device=mdp.device)
    for group in mdp.groups:
        columns[group.actions] = group.actions[:1]
    if every:
        for slot in mdp.action_slots:
            columns[slot.start : slot.stop] = slot.start
    return z[..., columns]
