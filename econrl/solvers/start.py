"""Where learning begins: the constant shares with the highest simulated lifetime reward, and the units of value.

An untrained network can eat the capital stock in a period, or sit on a bound where its gradient vanishes. Constant
shares cost a second of simulation, keep the first paths inside the domain, and tell how large values are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.mdp import MDP
from econrl.networks import Units

CANDIDATES, PATHS, ROUNDS, ELITE = 64, 64, 4, 8
LONGEST = 300  # periods
WIDE = 20.0  # values whose largest is so many times the smallest are learned in logarithms


@dataclass(frozen=True)
class Start:
    """The best constant u (A,) found, and units in which its lifetime reward over the domain is of size one."""

    u: Tensor
    units: Units


def find_start(mdp: MDP, generator: torch.Generator) -> Start:
    """Search constant u by the cross-entropy method (Rubinstein 1999) on common states and shocks.

    All parts of an action begin alike; those of exchangeable members stay so. Of a choice, each option is tried as
    often.
    """
    s = mdp.sample_box(PATHS, generator)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=mdp.device))
    mean, spread = torch.zeros_like(mdp.low[:1]).expand(mdp.A), torch.full_like(mdp.low[:1], 2.5).expand(mdp.A)
    for search in range(ROUNDS):
        z = torch.randn(CANDIDATES, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
        z[0] = 0  # the mean itself is a candidate
        u = mdp.sample_options(mean + spread * alike(mdp, z, every=search == 0), generator)
        reward = lifetime_reward(mdp, u, s, torch.Generator(mdp.device).manual_seed(seed))
        ranking = reward.mean(dim=-1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        elite = u[ranking.topk(ELITE).indices]
        mean, spread = elite.mean(dim=0), elite.std(dim=0).clamp(min=0.05)
    best = int(ranking.argmax())
    return Start(u[best], units_of(reward[best]))


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


def units_of(values: Tensor) -> Units:
    """Units in which these values have mean zero and spread one; logarithms where they are wide and of one sign."""
    values = values[values.isfinite()]
    if len(values) < 2:
        return Units()
    sign = int(values.sign().mean()) if (values.sign() == values[0].sign()).all() else 0
    if sign != 0 and values.abs().max() > WIDE * values.abs().min():
        values = values.abs().log()
    else:
        sign = 0
    spread = torch.maximum(values.std(), 1e-3 * values.mean().abs()).clamp(min=1e-6)
    return Units(float(values.mean()), float(spread), sign)


def lifetime_reward(mdp: MDP, u: Tensor, s: Tensor, generator: torch.Generator, noise: float = 0.0) -> Tensor:
    """Discounted reward (C, P) of each constant u (C, A) from each state s (P, S), the same shocks for all.

    `noise` is the standard deviation of what is added to the continuous columns of u in each period.
    """
    spread = torch.zeros_like(u[0])
    spread[mdp.free] = noise
    periods = LONGEST if mdp.horizon is None else mdp.horizon
    s, u = s.expand(len(u), *s.shape), u.unsqueeze(1)
    total, factor = torch.zeros_like(s[..., 0]), torch.ones_like(s[..., 0])
    for _ in range(periods):
        drawn = u
        if noise > 0:
            drawn = u + spread * torch.randn(
                s.shape[:-1] + spread.shape, generator=generator, dtype=s.dtype, device=s.device
            )
        a, e = mdp.act(s, drawn), mdp.sample_shocks(s[0], generator)
        reward, discount, s_next = mdp.reward(s, a), mdp.discount(s, a, e), mdp.transition(s, a, e)
        if mdp.horizon is not None:
            alive = mdp.period(s) < mdp.horizon
            reward, discount = torch.where(alive, reward, 0.0), torch.where(alive, discount, 1.0)
            s_next = torch.where(alive.unsqueeze(-1), s_next, s)
        total, factor, s = total + factor * reward, factor * discount, s_next
    if mdp.horizon is not None:
        return total + factor * mdp.terminal(s)
    return total / (1 - factor).clamp(min=0.05)  # what lies beyond the last period is like what came before
