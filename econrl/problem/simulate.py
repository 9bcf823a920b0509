"""Simulation under a policy, many paths side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from econrl.problem.lottery import drawn
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

MARGIN = 0.5  # a path begins anew once it has left the domain by half of its width: a solution says nothing there


def move(
    mdp: MDP, s: Tensor, a: Tensor, generator: torch.Generator, given: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One period: a draw of the shocks e, and the states f(s, a, e) (..., S) that it leads to.

    Every state has shocks of its own; of states (C, P, S), the same P shocks hold for all C. Of those `given` (..., E),
    what is not NaN is taken instead of the draw.
    """
    e = mdp.sample_shocks(s, generator, s.shape[-2:-1] if s.ndim > 2 else None)
    if given is not None:
        e = torch.where(given.isnan(), e, mdp.held_shocks(s, given))
    return e, mdp.transition(s, a, e)


def paths(
    mdp: MDP, policy: Function, s: Tensor, periods: int, generator: torch.Generator, given: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """States (T, n, S) and actions (T, n, A) of n paths from s (n, S); they may leave the domain. A life that is over
    stands still in its last period's state. Of the shocks `given` (n, T, E) those that are NaN are drawn."""
    states, actions = [], []
    for t in range(periods):
        a = drawn(mdp, policy, s, generator)
        states.append(s)
        actions.append(a)
        _, reached = move(mdp, s, a, generator, None if given is None else given[:, t])
        living, _ = mdp.living(reached)
        s = torch.where(living.unsqueeze(-1), reached, s)
    return torch.stack(states), torch.stack(actions)


# Paths that begin anew


def goes_on(mdp: MDP, s: Tensor) -> Tensor:
    """Whether paths go on from s (n, S), or begin anew: at the end of a life, or far outside the domain."""
    keep = mdp.inside(s, MARGIN)
    if mdp.horizon is not None:
        keep &= mdp.period(s) < mdp.horizon
    return keep


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
        _, reached = move(mdp, s, drawn(mdp, policy, s, generator), generator)
        restarts = restarts + (mdp.living(reached)[0] & ~mdp.inside(reached, MARGIN)).sum()
        s = go_on(mdp, reached, generator)
    return torch.cat(visited), float(restarts) / (n * (burn_in + periods))


def own_states(
    mdp: MDP, policy: Function, points: int, n: int, burn_in: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """About `points` states of the policy's own simulation of n paths; of a life cycle, whole lives."""
    if mdp.horizon is not None:
        return ergodic_states(mdp, policy, max(points // mdp.horizon, 1), mdp.horizon, 0, generator)
    return ergodic_states(mdp, policy, n, max(points // n, 1), burn_in, generator)


# Lifetime sums


def discounted(
    mdp: MDP,
    policy: Function,
    flows: Sequence[Callable[[Tensor, Tensor], Tensor]],
    s: Tensor,
    periods: int,
    generator: torch.Generator,
    forgotten: float = 0.0,
    beta: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """sum_t B_t x(s_t, a_t), B_t = beta_0 ... beta_{t-1}, for each flow x, (...), on paths from s (..., S);
    beta(s, a, e) is the model's discount factor unless given.

    A path whose life is over stands still, and adds nothing. Also returns B_T (...) and s_T (..., S). T is `periods`,
    or less where every B_t is below `forgotten`.
    """
    sums, factor, beta = [torch.zeros_like(s[..., 0]) for _ in flows], torch.ones_like(s[..., 0]), beta or mdp.discount
    for _ in range(periods):
        living, at = mdp.living(s)
        a = drawn(mdp, policy, at, generator)
        e, reached = move(mdp, at, a, generator)
        earned, discount = [x(at, a) for x in flows], beta(at, a, e)
        if mdp.horizon is not None:
            earned, discount = [torch.where(living, x, 0.0) for x in earned], torch.where(living, discount, 1.0)
            reached = torch.where(living.unsqueeze(-1), reached, s)
        sums = [total + factor * x for total, x in zip(sums, earned, strict=True)]
        factor, s = factor * discount, reached
        if forgotten > 0 and factor.max() < forgotten:
            break
    return sums, factor, s


def aggregated(mdp: MDP, policy: Function, s: Tensor, periods: int, generator: torch.Generator) -> Tensor:
    """v_t = W(u_t, v_{t+1}) (...) on paths from s (..., S), as if the future were known: for an aggregator W that is no
    sum. Beyond the last period, a life has its terminal value, and other paths stay where they are."""
    rewards, alive = [], []
    for _ in range(periods):
        living, at = mdp.living(s)
        a = policy(at)
        rewards.append(mdp.reward(at, a))
        alive.append(living)
        s = torch.where(living.unsqueeze(-1), move(mdp, at, a, generator)[1], s)
    v = mdp.preferences.staying(rewards[-1]) if mdp.horizon is None else mdp.terminal(s)
    for u, living in zip(reversed(rewards), reversed(alive), strict=True):
        v = torch.where(living, mdp.preferences.aggregate(u, v), v)
    return v


LONGEST = 300  # periods of a stationary model: what lies beyond is estimated, and the start need only be a good one


def lifetime_reward(mdp: MDP, u: Tensor, s: Tensor, generator: torch.Generator, noise: float = 0.0) -> Tensor:
    """Discounted reward (C, P) of each constant u (C, A) from each state s (P, S), the same shocks for all: the value,
    were the future known.

    `noise` is the standard deviation of what is added to the continuous columns of u in each period.
    """
    spread = torch.zeros_like(u[0])
    spread[mdp.free] = noise
    u, s = u.unsqueeze(1), s.expand(len(u), *s.shape)

    def policy(s: Tensor) -> Tensor:
        if noise == 0:
            return mdp.act(s, u)
        z = torch.randn(s.shape[:-1] + spread.shape, generator=generator, dtype=s.dtype, device=s.device)
        return mdp.act(s, u + spread * z)

    if not mdp.preferences.separable:
        return aggregated(mdp, policy, s, mdp.horizon or LONGEST, generator)
    (total,), factor, last = discounted(mdp, policy, [mdp.reward], s, mdp.horizon or LONGEST, generator)
    if mdp.horizon is not None:
        return total + factor * mdp.terminal(last)
    return total / (1 - factor).clamp(min=0.05)  # what lies beyond the last period is like what came before
