"""Policies where taste shocks decide: what is chosen is random, and the chosen option's shock is part of the reward.

    V_pi(s) = sum_d P(d | s) { r(s, a_d) - sigma log P(d | s) + E[ beta V(f(s, a_d, e)) ] }

since an option that is chosen with probability P has a shock of mean -sigma log P then. A policy that is a plain
function of the state does what it does whatever the shocks are, whose mean is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function


class Draws(Protocol):
    """A policy where taste shocks decide, as `StateFunction` has it."""

    def probabilities(self, s: Tensor) -> Tensor:
        """The probability (..., D) of each combination of options."""

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        """The actions (..., A) under the combinations with these numbers (...)."""


def draws(mdp: MDP, policy: Any) -> Draws | None:
    """The policy, if it draws what it does."""
    return policy if mdp.tastes > 0 and hasattr(policy, "probabilities") else None


def drawn(mdp: MDP, policy: Function, s: Tensor, generator: torch.Generator) -> Tensor:
    """The policy's actions (..., A) at states s (..., S), drawn by their probabilities."""
    found = draws(mdp, policy)
    return policy(s) if found is None else found.under(s, draw(found.probabilities(s), generator))


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """A number (...) of each row of probabilities (..., D); none that has probability zero."""
    below = p.cumsum(dim=-1)
    u = torch.rand(*p.shape[:-1], 1, generator=generator, dtype=p.dtype, device=p.device) * below[..., -1:]
    return (below <= u).sum(dim=-1).clamp(max=p.shape[-1] - 1)


def taste(mdp: MDP, policy: Function, s: Tensor, a: Tensor) -> Tensor:
    """-sigma log P (...) of the option that is chosen in a (..., A): the mean of its taste shock then."""
    found = draws(mdp, policy)
    if found is None:
        return torch.zeros_like(s[..., 0])
    own = (mdp.options_of(a).unsqueeze(-2) == mdp.options).all(dim=-1)
    return torch.where(own, mdp.alternatives.shocks(found.probabilities(s)), 0.0).sum(dim=-1)


def expected(mdp: MDP, policy: Function, s: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """E[f(s, a) + the chosen option's taste shock] (...) over what the policy does at states s (..., S)."""
    found = draws(mdp, policy)
    if found is None:
        return f(s, policy(s))
    p, total = found.probabilities(s), torch.zeros_like(s[..., 0])
    shock = mdp.alternatives.shocks(p)
    for row in range(p.shape[-1]):
        a = found.under(s, torch.full_like(total, row, dtype=torch.long))
        total = total + torch.where(p[..., row] > 0, p[..., row] * (f(s, a) + shock[..., row]), 0.0)
    return total
