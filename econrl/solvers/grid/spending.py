"""Models of one action that divides what there is between spending and keeping."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from econrl.problem.mdp import MDP

PROBES, SAME = 64, 1e-9  # states at which a spec is looked at, and the relative difference that counts as none
LEAST = 1e-10  # of what there is to spend: the smallest amount spent
NEWTON_STEPS, EXACT = 80, 1e-12  # at most, for the inverse of marginal utility; the last step's size in logarithms


def interval(mdp: MDP, s: Tensor) -> tuple[Tensor, Tensor]:
    """low(s) and M(s) = high(s) - low(s) of the one action, each (...)."""
    nothing = torch.zeros_like(s[..., :1])
    low, high = mdp.from_shares(s, nothing), mdp.from_shares(s, nothing + 1)
    return low[..., 0], (high - low)[..., 0]


def action(mdp: MDP, s: Tensor, c: Tensor, kept: bool) -> Tensor:
    """The action (..., 1) at which c is spent; `kept`: the action says what is kept."""
    low, M = interval(mdp, s)
    return (low + (M - c if kept else c)).unsqueeze(-1)


def why_not(mdp: MDP, x: int, kept: bool) -> str | None:
    """Why reward and transition are not functions of c and of w = M - c, at pairs of states that differ in x alone."""
    generator = torch.Generator(mdp.device).manual_seed(0)
    one = mdp.sample_box(PROBES, generator)
    other = one.clone()
    other[:, x] = mdp.sample_box(PROBES, generator)[:, x]
    M = [interval(mdp, s)[1] for s in (one, other)]
    share = torch.rand(PROBES, generator=generator, dtype=mdp.dtype, device=mdp.device).clamp(0.05, 0.95)
    amount = share * torch.minimum(*M)  # once spent, once kept, by both

    def gap(f: Any, c: list[Tensor]) -> float:
        values = [f(s, action(mdp, s, spent, kept)) for s, spent in zip((one, other), c, strict=True)]
        return float((values[0] - values[1]).abs().max() / values[0].abs().max().clamp(min=1e-12))

    if not gap(mdp.reward, [amount, amount]) < SAME:
        return "the reward must depend on the action (what is spent of its bound) and on exogenous states alone"
    left = [m - amount for m in M]
    e = mdp.nodes.unsqueeze(1)
    if not gap(lambda s, a: mdp.transition(s, a, e)[..., x], left) < SAME:
        return "the next state must depend on what the action leaves of its bound, exogenous states and shocks alone"
    if not gap(lambda s, a: mdp.discount(s, a, e) + 0 * a.sum(), left) < SAME:
        return "the discount factor must not depend on the action or the endogenous state"
    if not float((mdp.weights(one) - mdp.weights(other)).abs().max()) < SAME:
        return "the probabilities of shocks must not depend on the endogenous state"
    first, second = marginal_utility(mdp, one, amount, kept)
    if not ((first > 0) & (second < 0)).all():
        return "the reward must rise with what is spent, less and less"
    reached = torch.func.grad(lambda c: mdp.transition(one, action(mdp, one, c, kept), e)[..., x].sum())(amount)
    return None if (reached < 0).all() else "the next state must rise with what is kept"


def marginal_utility(mdp: MDP, s: Tensor, c: Tensor, kept: bool) -> tuple[Tensor, Tensor]:
    """u_c and u_cc (...) at c (...)."""
    slope = torch.func.grad(lambda c: mdp.reward(s, action(mdp, s, c, kept)).sum())
    first, second, *_ = torch.func.jvp(slope, (c,), (torch.ones_like(c),))
    return first, second


def spent_at(mdp: MDP, s: Tensor, mu: Tensor, c: Tensor, most: float, kept: bool) -> Tensor:
    """The c in (0, most] with u_c(c) = mu, or `most` where mu is lower yet: Newton's method on ln u_c in ln c, exact in
    one step for constant relative risk aversion, from a guess c and within a bracket that shrinks."""
    y = c.log()
    low, high = torch.full_like(y, math.log(LEAST * most)), torch.full_like(y, math.log(most))
    wanted = mu.log()
    for _ in range(NEWTON_STEPS):
        first, second = marginal_utility(mdp, s, y.exp(), kept)
        gap = first.log() - wanted
        below = gap > 0  # too little is spent; marginal utility that is not positive has no logarithm
        low, high = torch.where(below, y, low), torch.where(below, high, y)
        step = y - gap * first / (second * y.exp())
        inside = (step >= low) & (step <= high)
        step = torch.where(inside, step, (low + high) / 2)
        done = (step - y).abs().max() < EXACT
        y = step
        if done:
            break
    return y.exp()
