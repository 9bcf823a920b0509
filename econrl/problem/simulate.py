"""Simulation under a policy, many paths side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

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


def own_states(
    mdp: MDP, policy: Function, points: int, n: int, burn_in: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """About `points` states of the policy's own simulation of n paths; of a life cycle, whole lives."""
    if mdp.horizon is not None:
        return ergodic_states(mdp, policy, max(points // mdp.horizon, 1), mdp.horizon, 0, generator)
    return ergodic_states(mdp, policy, n, max(points // n, 1), burn_in, generator)


LONGEST = 300  # periods


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
