"""Policies that sit on their bounds exactly: shares that are smooth functions, cut off at the bounds that may bind.

A kink of the policy then costs an approximation nothing, since beyond the bound the function may go on as it likes.
With z what is approximated, and y the shares of `feasible_set.py`:

    free    y = squash(z)        no bound ever binds
    high    y = min(e^z, 1)      for an action between two bounds, the upper of which may bind
    low     y = 1 - min(e^z, 1)  the lower
    both    y = z cut off at 0 and at 1, by 1e-9 off them
    else    y = z cut off at 0 where one bound alone is finite; its projection on {y >= 0, sum y < 1} for a budget
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from econrl.optimality.complementarity import near_bounds
from econrl.problem.mdp import MDP
from econrl.spec.share_sets import ShareSet

MAY_BIND = 2e-3  # share of states next to a bound from which on it may bind
FREE, LOW, HIGH, BOTH = "free", "low", "high", "both"
LARGEST_Z, SMALLEST = 12.0, 1e-6
ON_BOUND = 1e-7  # a z this close to its bound is on it
OFF = 1e-9  # how far off a bound on which the reward may be infinite, as where nothing is consumed


class Forms:
    """The form of each action variable, and the way from z (..., A) to shares and back.

    With `steepness` (A,), what z is beyond a bound tells the gain that the forbidden move would bring
    (`multipliers.py`): so much for each unit.
    """

    def __init__(self, mdp: MDP, forms: Sequence[str], steepness: Sequence[float] | None = None) -> None:
        self.mdp, self.forms = mdp, list(forms)
        self.steepness = None if steepness is None else list(steepness)

    def describe(self) -> dict[str, Any]:
        """What rebuilds the forms: they, and the steepness of each action."""
        return {"forms": self.forms, "steepness": self.steepness}

    @property
    def knows_multipliers(self) -> bool:
        """Whether z tells multipliers."""
        return self.steepness is not None

    def _parts(self) -> list[tuple[ShareSet, slice, str]]:
        actions = zip(self.mdp.continuous_actions, self.forms, strict=True)
        return [(v.shares, slice(slot.start, slot.stop), form) for (v, slot), form in actions]

    def project(self, z: Tensor) -> Tensor:
        """The nearest z that is not beyond a bound."""
        parts = []
        for shares, columns, form in self._parts():
            z_k = z[..., columns]
            if form == FREE:
                parts.append(z_k)
            else:
                parts.append(z_k.clamp(max=0) if logarithmic(shares, form) else shares.project(z_k, OFF))
        return torch.cat(parts, dim=-1)

    def within(self, z: Tensor) -> Tensor:
        """Shares at a z that is not beyond a bound; differentiable up to the bound."""
        parts, free = [], self.mdp.squash(z)
        for shares, columns, form in self._parts():
            part = free[..., columns] if form == FREE else z[..., columns]
            if logarithmic(shares, form):
                part = part.exp() if form == HIGH else 1 - part.exp()
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def outward(self, z: Tensor, distance: float) -> Tensor:
        """The direction (..., A) out of the feasible set for each z on its bound: 1, -1, or 0 for those off it."""
        parts = []
        for shares, columns, form in self._parts():
            z_k = z[..., columns]
            if form == FREE:
                part = torch.zeros_like(z_k)
            elif logarithmic(shares, form):
                part = (z_k >= -distance).to(z)
            else:
                part = -(z_k <= distance).to(z)
                part = part + (z_k >= 1 - distance).to(z) if two_bounds(shares) else part
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def shares(self, z: Tensor) -> Tensor:
        """Shares (..., A) at any z."""
        return self.within(self.project(z))

    def beyond(self, z: Tensor) -> Tensor:
        """How far z (..., A) is beyond its bounds, in the direction of a larger share: positive beyond an upper bound,
        negative beyond a lower one."""
        parts = []
        for shares, columns, form in self._parts():
            part = (z - self.project(z))[..., columns]
            parts.append(-part if form == LOW and logarithmic(shares, form) else part)
        return torch.cat(parts, dim=-1)

    def multipliers(self, z: Tensor) -> Tensor:
        """The unit-free multipliers (..., A) of the bounds that bind, what moves beyond them would bring; else zero."""
        return z.new_tensor(self.steepness) * self.beyond(z)

    def past(self, z: Tensor, multipliers: Tensor) -> Tensor:
        """z (..., A), where it is on a bound as far beyond it as the multipliers (..., A) say; their inverse."""
        outward = self.outward(z, ON_BOUND)
        sign = self.beyond(z + outward).sign()
        return z + outward * (sign * multipliers).clamp(min=0) / z.new_tensor(self.steepness)

    def outputs_for(self, s: Tensor, a: Tensor) -> Tensor:
        """z (..., A) that give the actions a (..., A), as nearly as may be."""
        y = self.mdp.shares(s, a)
        free = self.mdp.unsquash(y).clamp(-LARGEST_Z, LARGEST_Z)
        parts = []
        for shares, columns, form in self._parts():
            part = free[..., columns] if form == FREE else y[..., columns]
            if logarithmic(shares, form):
                part = (part if form == HIGH else 1 - part).clamp(min=SMALLEST).log()
            parts.append(part)
        return torch.cat(parts, dim=-1)


def two_bounds(shares: ShareSet) -> bool:
    """Whether each part has two bounds of its own."""
    return shares.below and shares.above


def logarithmic(shares: ShareSet, form: str) -> bool:
    """Whether z is the logarithm of the share, or of the rest: where one of two bounds binds."""
    return form in (LOW, HIGH) and two_bounds(shares)


def forms_of(mdp: MDP, s: Tensor, a: Tensor) -> list[str]:
    """Which bounds of each action variable may bind, from the actions a (B, A) of a rough policy at s (B, S)."""
    low, high = near_bounds(mdp, mdp.shares(s, a))
    forms = []
    for slot in mdp.action_slots:
        at_low, at_high = (
            float(near[:, slot.start : slot.stop].any(dim=-1).double().mean()) > MAY_BIND for near in (low, high)
        )
        forms.append(
            {(False, False): FREE, (True, False): LOW, (False, True): HIGH, (True, True): BOTH}[at_low, at_high]
        )
    return forms
