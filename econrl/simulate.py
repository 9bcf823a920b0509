"""Simulation under a policy, many paths side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.functions import Function
from econrl.mdp import MDP

MARGIN = 0.5  # a path begins anew once it has left the domain by half of its width: a solution says nothing there


def paths(mdp: MDP, policy: Function, s: Tensor, periods: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States (T, n, S) and actions (T, n, A) of n paths from s (n, S); they may leave the domain."""
    states, actions = [], []
    for _ in range(periods):
        a = policy(s)
        states.append(s)
        actions.append(a)
        s = mdp.transition(s, a, mdp.sample_shocks(s, generator))
    return torch.stack(states), torch.stack(actions)


def goes_on(mdp: MDP, s: Tensor) -> Tensor:
    """Whether paths go on from s (n, S), or begin anew: at the end of a life, or far outside the domain."""
    keep = mdp.inside(s, MARGIN)
    if mdp.horizon is not None:
        keep &= mdp.period(s) < mdp.horizon
    return keep


def living_states(mdp: MDP, s: Tensor) -> tuple[Tensor, Tensor]:
    """Which of s (..., S) are in a life that is not over, (...); and s with the others put into the last period."""
    if mdp.horizon is None:
        return torch.ones_like(s[..., 0], dtype=torch.bool), s
    t = mdp.period(s)
    return t < mdp.horizon, torch.cat([s[..., :-1], t.clamp(max=mdp.horizon - 1).unsqueeze(-1)], dim=-1)


def go_on(mdp: MDP, reached: Tensor, generator: torch.Generator) -> Tensor:
    """The states (n, S) that paths reached, with an initial state for each path that begins anew."""
    return torch.where(goes_on(mdp, reached).unsqueeze(-1), reached, mdp.sample_initial(len(reached), generator))


def ergodic_states(
    mdp: MDP, policy: Function, n: int, periods: int, burn_in: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """States (n periods, S) of n paths after `burn_in` periods, and the share of periods in which a path began anew
    because it had left the domain."""
    s = mdp.sample_initial(n, generator)
    visited, restarts = [], s.new_zeros(())
    for t in range(burn_in + periods):
        if t >= burn_in:
            visited.append(s)
        reached = mdp.transition(s, policy(s), mdp.sample_shocks(s, generator))
        restarts = restarts + (living_states(mdp, reached)[0] & ~mdp.inside(reached, MARGIN)).sum()
        s = go_on(mdp, reached, generator)
    return torch.cat(visited), float(restarts) / (n * (burn_in + periods))
