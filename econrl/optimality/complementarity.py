"""Bounds in first-order conditions: unit-free complementarity residuals in shares."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.spec.share_sets import project_on_simplex

NEAR_BOUND = 0.01  # shares this close to a bound count as possibly binding


def bounded(mdp: MDP) -> tuple[list[bool], list[bool]]:
    """Which actions have a lower bound, and which an upper one; the parts of a budget share theirs."""
    below, above = [], []
    for v, slot in mdp.continuous_actions:
        n = slot.stop - slot.start
        below += [v.shares.below] * n
        above += [v.shares.above] * n
    return below, above


def near_bounds(mdp: MDP, y: Tensor, nearest: float = NEAR_BOUND) -> tuple[Tensor, Tensor]:
    """Which shares y (..., A) are next to their lower, and which to their upper bound; the parts of a budget of n are
    next to theirs at a distance that is n times smaller."""
    below, above = (torch.tensor(known, device=y.device) for known in bounded(mdp))
    columns = [(v, slot.stop - slot.start) for v, slot in mdp.continuous_actions]
    parts = [n if v.shares.shared else 1 for v, n in columns for _ in range(n)]
    distance = nearest / y.new_tensor(parts)
    low = below & (y < distance)
    high = above & (torch.where(below, 1 - y, y) < distance)
    return low, high


def without_room(mdp: MDP, structure: Structure, s: Tensor, a: Tensor) -> Tensor | None:
    """Which actions (B, A) low = high leaves no choice of; None where there is always some."""
    return mdp.widths(s, a) == 0 if any(structure.without_room) else None


def at_bounds(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """The shares (B, A) of actions, those next to a bound put on it."""
    y = mdp.shares(s, a)
    low, high = near_bounds(mdp, y)
    below, _ = bounded(mdp)
    return torch.where(low, 0.0, torch.where(high, torch.tensor(below, device=y.device).to(y), y))


def complementarity(mdp: MDP, G: Tensor, scale: Tensor, s: Tensor, a: Tensor, smooth: bool = True) -> Tensor:
    """One residual (B, A) for `low <= a <= high, G = 0 inside, <= 0 at low, >= 0 at high`; unit-free.

    Fischer-Burmeister in shares for an action; for a budget the distance of the shares to their projection after a
    step along G, since its parts share one bound. Unless it is to be `smooth`, that distance for all: away from bounds
    it is the condition itself, as published errors are.
    """
    bend = fischer_burmeister if smooth else torch.minimum
    y, g = mdp.shares(s, a), unit_free(mdp, G, scale, s, a)
    parts = []
    for v, slot in mdp.continuous_actions:
        y_k, g_k = y[..., slot.start : slot.stop], g[..., slot.start : slot.stop]
        shares = v.shares
        if shares.shared:
            rest = 1 - y_k.sum(dim=-1, keepdim=True)
            point = torch.cat([y_k, rest], dim=-1)
            step = torch.cat([g_k, torch.zeros_like(rest)], dim=-1)
            parts.append((project_on_simplex(point + step) - point)[..., :-1])
            continue
        if shares.above:
            g_k = bend(1 - y_k if shares.below else y_k, g_k)
        if shares.below:
            g_k = -bend(y_k, -g_k)
        parts.append(g_k)
    return torch.cat(parts, dim=-1)


def unit_free(mdp: MDP, G: Tensor, scale: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """G over its scale (B, A), as the gain of a larger share of each action."""
    y, width = mdp.shares(s, a), mdp.widths(s, a)
    # Where a later action's bound reads this one, moving it at given shares moves both.
    along = torch.func.grad(lambda y: (G * mdp.from_shares(s, y)).sum())(y)
    free = width.abs() > 0
    return torch.where(free, along / torch.where(free, width, 1.0), 0.0) / one_unit(mdp, scale)


def one_unit(mdp: MDP, scale: Tensor) -> Tensor:
    """The scales (..., A), the largest for all parts of a budget: they compete for one total, and what matters is their
    gains against each other."""
    parts = []
    for v, slot in mdp.continuous_actions:
        unit = scale[..., slot.start : slot.stop]
        parts.append(unit.amax(dim=-1, keepdim=True).expand_as(unit) if v.shares.shared else unit)
    return torch.cat(parts, dim=-1)


def fischer_burmeister(slack: Tensor, multiplier: Tensor) -> Tensor:
    """slack + multiplier - |(slack, multiplier)|: zero where both are non-negative and one of them is zero."""
    return slack + multiplier - torch.hypot(slack, multiplier)
