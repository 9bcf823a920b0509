"""The Bellman operator: T_a V(s) = r(s, a) + sum_j w_j beta(s, a, e_j) V(f(s, a, e_j))."""

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
    """sum_j w_j beta V(f(s, a, e_j)) at states s (B, S), shape (B,).

    a is (B, 1, A), or (B, J, A) to tell the nodes apart in a derivative.
    """
    s_ = s.unsqueeze(-2)
    future = mdp.discount(s_, a, mdp.nodes) * continuation(mdp, value, mdp.transition(s_, a, mdp.nodes))
    return (mdp.weights(s) * future).sum(dim=-1)


def lookahead(mdp: MDP, value: Function, s: Tensor, a: Tensor) -> Tensor:
    """T_a V(s) at states s (B, S) and actions a (B, A): shape (B,)."""
    return mdp.reward(s, a) + expected_value(mdp, value, s, a.unsqueeze(-2))


def bellman_residual(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """r(s, pi(s)) + E[beta V(s')] - V(s)."""
    return expected(mdp, policy, s, lambda s, a: lookahead(mdp, value, s, a)) - value(s)
