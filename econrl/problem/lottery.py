"""Policies where taste shocks decide: what is chosen is random, and the chosen option's shock is part of the reward.

    V_pi(s) = sum_d P(d | s) { r(s, a_d) - sigma log P(d | s) + E[ beta V(f(s, a_d, e)) ] }

since an option that is chosen with probability P has a shock of mean -sigma log P then. A policy that is a plain
function of the state does what it does whatever the shocks are, whose mean is zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function


def lottery(mdp: MDP, policy: Function, s: Tensor) -> tuple[Tensor, Tensor] | None:
    """The actions (..., D, A) of a policy under each of the mdp's D alternatives, and their probabilities (..., D);
    None where it draws nothing."""
    draws = getattr(policy, "lottery", None)
    return draws(s) if mdp.tastes > 0 and draws is not None else None


def drawn(mdp: MDP, policy: Function, s: Tensor, generator: torch.Generator) -> Tensor:
    """The policy's actions (..., A) at states s (..., S), drawn by their probabilities."""
    found = lottery(mdp, policy, s)
    if found is None:
        return policy(s)
    actions, row = found[0], draw(found[1], generator)
    return actions.gather(-2, row[..., None, None].expand(*row.shape, 1, actions.shape[-1])).squeeze(-2)


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """A number (...) of each row of probabilities (..., D); none that has probability zero."""
    below = p.cumsum(dim=-1)
    u = torch.rand(*p.shape[:-1], 1, generator=generator, dtype=p.dtype, device=p.device) * below[..., -1:]
    return (below <= u).sum(dim=-1).clamp(max=p.shape[-1] - 1)


def taste(mdp: MDP, policy: Function, s: Tensor, a: Tensor) -> Tensor:
    """-sigma log P (...) of the option that is chosen in a (..., A): the mean of its taste shock then."""
    found = lottery(mdp, policy, s)
    if found is None:
        return torch.zeros_like(s[..., 0])
    own = (mdp.options_of(a).unsqueeze(-2) == mdp.options).all(dim=-1)
    return torch.where(own, mdp.alternatives.shocks(found[1]), 0.0).sum(dim=-1)


def expected(mdp: MDP, policy: Function, s: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """E[f(s, a) + the chosen option's taste shock] (...) over what the policy does at states s (..., S)."""
    found = lottery(mdp, policy, s)
    if found is None:
        return f(s, policy(s))
    actions, p = found
    total, shock = torch.zeros_like(s[..., 0]), mdp.alternatives.shocks(p)
    for d, p_d in enumerate(p.unbind(dim=-1)):
        total = total + torch.where(p_d > 0, p_d * (f(s, actions[..., d, :]) + shock[..., d]), 0.0)
    return total
