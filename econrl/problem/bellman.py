"""The Bellman operator: T_a V(s) = r(s, a) + sum_j w_j beta(s, a, e_j) V(f(s, a, e_j)), and what stands for it where
utility is recursive (`preferences.py`): T_a v(s) = W(u(s, a), m), with m the certainty equivalent of tomorrow's v."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.lottery import expected
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function


def continuation(mdp: MDP, value: Function, s: Tensor) -> Tensor:
    """V(s) at states of the next period: the terminal value once a life cycle is over, V before."""
    if mdp.horizon is None:
        return value(s)
    living, at = mdp.living(s)
    return torch.where(living, value(at), mdp.terminal(s))


def expected_value(mdp: MDP, value: Function, s: Tensor, a: Tensor) -> Tensor:
    """m (B,), sum_j w_j beta V(f(s, a, e_j)) where utility is additive, at states s (B, S).

    a is (B, 1, A), or (B, J, A) to tell the nodes apart in a derivative.
    """
    s_ = s.unsqueeze(-2)
    future = continuation(mdp, value, mdp.transition(s_, a, mdp.nodes))
    return mdp.preferences.certainty(future, mdp.weights(s), mdp.discount(s_, a, mdp.nodes))


def lookahead(mdp: MDP, value: Function, s: Tensor, a: Tensor) -> Tensor:
    """T_a V(s) at states s (B, S) and actions a (B, A): shape (B,)."""
    return mdp.preferences.aggregate(mdp.reward(s, a), expected_value(mdp, value, s, a.unsqueeze(-2)))


def bellman_residual(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """T_a V(s) - V(s) at a = pi(s), r + E[beta V(s')] - V(s) where utility is additive."""
    return expected(mdp, policy, s, lambda s, a: lookahead(mdp, value, s, a)) - value(s)


def kernel(mdp: MDP, value: Function | None, s: Tensor, a: Tensor, e: Tensor | None = None) -> Tensor:
    """What one more unit of tomorrow's value at each node is worth in units of today's u, (B, J),

        w_j W_2 beta phi'(V'_j) / phi'(m) / W_1,

    which is w_j beta where utility is additive; then no value is asked for. a is as in `expected_value`. With a
    realised shock e (B, 1, E) and a (B, 1, A) the same at e, for each unit of its weight: (B, 1).
    """
    s_, at = s.unsqueeze(-2), mdp.nodes if e is None else e
    weights = mdp.weights(s) if e is None else torch.ones_like(s[..., :1])
    if mdp.preferences.additive:
        return weights * mdp.discount(s_, a, at)
    assert value is not None, "where utility is recursive, today's conditions weigh states by tomorrow's value"
    future, beta = continuation(mdp, value, mdp.transition(s_, a, at)), mdp.discount(s_, a, at)
    ahead = mdp.preferences.certainty(future, weights, beta) if e is None else expected_value(mdp, value, s, a)
    found = weights * mdp.preferences.tilt(future, ahead.unsqueeze(-1), beta)
    if mdp.preferences.separable:
        return found
    u = mdp.reward(s, a[..., 0, :])
    by_u, by_m = mdp.preferences.slopes(u, ahead)
    # Where nothing follows, W and phi may be infinitely steep; there is nothing to weigh then.
    weighs = (by_m / by_u).isfinite() & found.isfinite().all(dim=-1)
    by_u, by_m = mdp.preferences.slopes(u, torch.where(weighs, ahead, u))
    return torch.where(weighs.unsqueeze(-1), found * (by_m / by_u).unsqueeze(-1), 0.0)
