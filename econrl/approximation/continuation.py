"""A policy or a value beyond the states that it was fitted to: continued from the nearest of them, and kept in bounds.

    a(s) = a(n) + a_s(n) (s - n),    V(s) = V(n) + V_s(n) (s - n),    n the point of the function's `reach` nearest to s

A consumption function is nearly linear in wealth, while a share of it that is carried on consumes too much, and a
network anything. Towards zero in a state whose domain is positive, where that would end at a bound soon, it is the
shares that stay what they are at n. No share comes nearer to a bound than a tenth of how near it is at n: consumption
neither vanishes nor takes all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Box, Function, StateFunction
from econrl.spec.share_sets import ShareSet

NEARER = 0.1  # times as near to a bound as at n, at most


@torch.no_grad()
def actions_at(policy: StateFunction | UnderOption, known: Box, s: Tensor) -> Tensor:
    """The policy's actions (..., A) at any states (..., S); its own within its reach, given where it was fitted."""
    low, high = policy.reach(known)
    near = s.clamp(low, high)
    a = policy(near)
    far = (near != s).any(dim=-1)
    if far.any():
        a = a.clone()
        a[far] = actions_beyond(policy, s[far], near[far], low)
    return a


class Everywhere:
    """A policy at any states: as it is inside the domain, else continued from what is `known`, which is asked then."""

    def __init__(self, policy: StateFunction, known: Callable[[], Box]) -> None:
        self.policy, self.known = policy, known

    def __call__(self, s: Tensor) -> Tensor:
        """Actions (..., A) at states (..., S)."""
        return self.policy(s) if self.is_inside(s) else actions_at(self.policy, self.known(), s)

    def probabilities(self, s: Tensor) -> Tensor:
        """Where there are taste shocks: the probabilities (..., D); beyond its reach, those of the nearest state, among
        what is available."""
        if self.is_inside(s):
            return self.policy.probabilities(s)
        p = self.policy.probabilities(s.clamp(*self.policy.reach(self.known())))
        available = self.policy.mdp.alternatives.available(s)
        if available is None:
            return p
        p = torch.where(available, p, 0.0)
        p = torch.where(p.sum(dim=-1, keepdim=True) > 0, p, available.to(p))
        return p / p.sum(dim=-1, keepdim=True)

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        """The actions (..., A) under combinations of options (...)."""
        if self.is_inside(s):
            return self.policy.under(s, row)
        a = s.new_zeros(*s.shape[:-1], self.policy.mdp.A)
        for option in row.unique().tolist():
            a[row == option] = actions_at(UnderOption(self.policy, option), self.known(), s[row == option])
        return a

    def is_inside(self, s: Tensor) -> bool:
        """Whether all states lie in the domain."""
        return bool(self.policy.mdp.inside(s).all())


class UnderOption:
    """A policy under one of its combinations of options."""

    def __init__(self, policy: StateFunction, row: int) -> None:
        self.policy, self.row, self.mdp, self.reach = policy, row, policy.mdp, policy.reach

    def __call__(self, s: Tensor) -> Tensor:
        """The actions (..., A) at states (..., S)."""
        return self.policy.under(s, torch.full_like(s[..., 0], self.row, dtype=torch.long))


@torch.no_grad()
def values_at(value: StateFunction, known: Box, s: Tensor) -> Tensor:
    """The value (...) at any states (..., S), likewise."""
    near = s.clamp(*value.reach(known))
    v = value(near)
    far = (near != s).any(dim=-1)
    if far.any():
        v = v.clone()
        v[far] += change(lambda s: value(s).unsqueeze(-1), near[far], s[far] - near[far]).squeeze(-1)
    return v


def actions_beyond(policy: StateFunction | UnderOption, s: Tensor, near: Tensor, low: Tensor) -> Tensor:
    """The actions (N, A) at states (N, S) beyond a policy's reach, from those `near`; `low` (S,) is where it ends."""
    mdp = policy.mdp
    a, towards_zero = policy(near), (s < low) & (mdp.low > 0)
    at = torch.where(towards_zero, near, s)
    y = mdp.shares(near, a)
    moved = mdp.shares(at, a + change(policy, near, at - near))
    return mdp.from_shares(s, off_bounds(mdp, moved, y))


def change(function: Function, s: Tensor, step: Tensor) -> Tensor:
    """f_s(s) step (N, outputs) of a function of states (N, S) that gives (N, outputs); nothing where it has no finite
    derivative."""
    with torch.enable_grad():
        s = s.detach().requires_grad_()
        outputs = function(s)
        if not outputs.requires_grad:
            return torch.zeros_like(outputs)
        slopes = [
            torch.autograd.grad(outputs[:, i].sum(), s, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for i in range(outputs.shape[-1])
        ]
    return (torch.stack(slopes, dim=-2) @ step.unsqueeze(-1)).squeeze(-1).nan_to_num(0.0, 0.0, 0.0)


def off_bounds(mdp: MDP, y: Tensor, reference: Tensor) -> Tensor:
    """Shares y (N, A), moved where they come too near to a bound for where the `reference` is."""
    sets = mdp.feasible_set.sets
    parts = [kept(shares, y[:, start:stop], reference[:, start:stop]) for shares, start, stop in sets]
    return mdp.clamp_shares(torch.cat(parts, dim=-1))


def kept(shares: ShareSet, y: Tensor, reference: Tensor) -> Tensor:
    """The same for one action; options stay what they are."""
    if shares.options is not None:
        return reference
    y = torch.where(y.isfinite(), y, reference)
    if shares.below or shares.above:
        y = y.maximum(NEARER * reference)
    if shares.below and shares.above:
        y = y.minimum(1 - NEARER * (1 - reference))
    return y
