"""The feasible set A(s), a map onto it, and back.

An action is reached in two steps. `squash` takes any real u to shares y: a sigmoid for a bounded action, a softplus
where one bound is infinite, the identity where both are, a softmax for a budget. `from_shares` puts the shares
between the bounds: a = low + (high - low) y. A choice is the number of its option in all three forms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.problem.layout import Slot, View
from econrl.spec.variables import Action, Bound, Budget, Choice, Decision, is_bound, takes_state_only


def evaluate_bound(bound: Bound, s: View, a: View) -> Tensor | float:
    """A bound's value at (s, a); the function may take s alone."""
    if not callable(bound):
        return bound
    return bound(s) if takes_state_only(bound) else bound(s, a)


SMALLEST_SHARE = 1e-12  # shares closer to a bound than this have no finite u


class FeasibleSet:
    """The actions a (..., A) that are allowed at the states s (..., S), as declared by a model; `MDP` is one."""

    action_variables: list[Decision]
    action_slots: list[Slot]
    taken: dict[str, float] = {}
    """The choices that were made beforehand, by name (see `MDP.given`)."""

    def state(self, s: Tensor) -> View:
        raise NotImplementedError

    def squash(self, u: Tensor) -> Tensor:
        """Any real u (..., A) to shares y."""
        parts = []
        for v, part in self._parts(u):
            if isinstance(v, Budget):
                rest = torch.zeros_like(part[..., :1])
                parts.append(torch.cat([part, rest], dim=-1).softmax(dim=-1)[..., :-1])
            elif isinstance(v, Choice):
                parts.append(part)
            else:
                below, above = is_bound(v.low), is_bound(v.high)
                parts.append(part.sigmoid() if below and above else F.softplus(part) if below or above else part)
        return joined(parts, u)

    def squash_slope(self, u: Tensor) -> Tensor:
        """dy/du of each share on its own, (..., A); positive, and zero for a choice."""
        slopes = []
        for v, y in self._parts(self.squash(u)):
            if isinstance(v, Choice):
                slopes.append(torch.zeros_like(y))
            elif isinstance(v, Budget) or (is_bound(v.low) and is_bound(v.high)):
                slopes.append(y * (1 - y))
            else:
                slopes.append(-torch.expm1(-y) if is_bound(v.low) or is_bound(v.high) else torch.ones_like(y))
        return joined(slopes, u)

    def log_squash_volume(self, u: Tensor) -> Tensor:
        """log |det dy/du| of `squash`, (...): what a log-density of u (..., A) loses on its way to the shares;
        nothing for a choice."""
        parts = []
        for v, part in self._parts(u):
            if isinstance(v, Budget):  # the product of all shares, that of the rest among them
                parts.append(torch.cat([part, torch.zeros_like(part[..., :1])], dim=-1).log_softmax(dim=-1))
            elif isinstance(v, Choice):
                parts.append(torch.zeros_like(part))
            elif is_bound(v.low) and is_bound(v.high):
                parts.append(F.logsigmoid(part) + F.logsigmoid(-part))
            elif is_bound(v.low) or is_bound(v.high):
                parts.append(F.logsigmoid(part))
            else:
                parts.append(torch.zeros_like(part))
        return torch.cat(parts, dim=-1).sum(dim=-1)

    def unsquash(self, y: Tensor) -> Tensor:
        """The u that squashes to y; shares on a bound are moved off it by 1e-12."""
        parts = []
        for v, part in self._parts(y):
            if isinstance(v, Budget):
                rest = (1 - part.sum(dim=-1, keepdim=True)).clamp(min=SMALLEST_SHARE)
                parts.append((part.clamp(min=SMALLEST_SHARE) / rest).log())
            elif isinstance(v, Choice):
                parts.append(part)
            else:
                below, above = is_bound(v.low), is_bound(v.high)
                if below and above:
                    part = part.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE).logit()
                elif below or above:
                    part = part.clamp(min=SMALLEST_SHARE)
                    part = part + (-torch.expm1(-part)).log()
                parts.append(part)
        return joined(parts, y)

    def from_shares(self, s: Tensor, y: Tensor) -> Tensor:
        """Actions a (..., A) at shares y: low + (high - low) y; where a bound is infinite, scale y from the other."""
        return self._walk(s, y, lambda low, width, y_k: low + width * y_k)

    def shares(self, s: Tensor, a: Tensor) -> Tensor:
        """The shares of actions a; one half where low = high leaves no choice."""

        def share(low: Tensor, width: Tensor, a_k: Tensor) -> Tensor:
            free = width.abs() > 0
            return torch.where(free, (a_k - low) / torch.where(free, width, torch.ones_like(width)), 0.5)

        return self._walk(s, a, share, given_actions=True)

    def widths(self, s: Tensor, a: Tensor) -> Tensor:
        """da/dy of each action on its own, (..., A)."""
        return self._walk(s, a, lambda low, width, a_k: width + 0 * a_k, given_actions=True)

    def act(self, s: Tensor, u: Tensor) -> Tensor:
        """Feasible actions from any real u."""
        return self.from_shares(s, self.squash(u))

    def feasible(self, s: Tensor, a: Tensor, slack: float = 1e-6) -> Tensor:
        """Whether all of a (..., A) keep their bounds, up to a share `slack`."""
        y = self.shares(s, a)
        ok = y.isfinite().all(dim=-1)
        for v, part in self._parts(y):
            if isinstance(v, Budget):
                ok &= (part >= -slack).all(dim=-1) & (part.sum(dim=-1) <= 1 + slack)
            elif isinstance(v, Choice):
                ok &= ((part >= 0) & (part < v.n) & (part == part.round())).all(dim=-1)
            elif is_bound(v.low) or is_bound(v.high):
                ok &= (part >= -slack).all(dim=-1)
                if is_bound(v.low) and is_bound(v.high):
                    ok &= (part <= 1 + slack).all(dim=-1)
        return ok

    @property
    def continuous_actions(self) -> list[tuple[Action | Budget, Slot]]:
        """Each variable among the actions that is no choice, with its columns."""
        layout = zip(self.action_variables, self.action_slots, strict=True)
        return [(v, slot) for v, slot in layout if not isinstance(v, Choice)]

    def _parts(self, x: Tensor) -> list[tuple[Decision, Tensor]]:
        """Each action variable with its columns of x (..., A)."""
        layout = zip(self.action_variables, self.action_slots, strict=True)
        return [(v, x[..., slot.start : slot.stop]) for v, slot in layout]

    def _walk(self, s: Tensor, x: Tensor, f: Any, given_actions: bool = False) -> Tensor:
        """f(low, width, x_k) for each action in order, since a bound may read the actions declared before it.

        x holds shares, or the actions themselves where `given_actions`.
        """
        sv, parts = self.state(s), []
        batch = torch.broadcast_shapes(s.shape[:-1], x.shape[:-1])
        before = self.taken_at(x)
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            seen = View("action", before)
            low, width = self.interval(v, sv, seen, s)
            part = x[..., slot.start : slot.stop]
            parts.append(f(low, width, part).expand(*batch, slot.stop - slot.start))
            action = x if given_actions else torch.cat(parts, dim=-1)
            before[v.name] = slot.read(action)
        return joined(parts, x).expand(*batch, -1)

    def taken_at(self, a: Tensor) -> dict[str, Tensor]:
        """The choices that were made beforehand, for actions a (..., A): each (...)."""
        return {name: a.new_full(a.shape[:-1], option) for name, option in self.taken.items()}

    def interval(self, v: Decision, s: View, a: View, like: Tensor) -> tuple[Tensor, Tensor]:
        """(low, width) with a = low + width y, each (..., 1) or (..., n)."""

        def column(bound: Any) -> Tensor:
            value = evaluate_bound(bound, s, a)
            if isinstance(value, float | int):
                return like.new_full((1,), value)  # which, unlike a copy of the number, the device does not wait for
            value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
            return value if v.size is not None and value.ndim == like.ndim else value.unsqueeze(-1)

        if isinstance(v, Budget):
            total = column(v.total)
            return torch.zeros_like(total), total
        if isinstance(v, Choice):
            return torch.zeros_like(like[..., :1]), torch.ones_like(like[..., :1])
        if is_bound(v.low) and is_bound(v.high):
            low = column(v.low)
            return low, column(v.high) - low
        if is_bound(v.high):
            high = column(v.high)
            return high, torch.full_like(high, -v.scale)
        low = column(v.low if is_bound(v.low) else 0.0)
        return low, torch.full_like(low, v.scale)


def joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """The parts side by side; where there are none, as in a model of choices alone that are given, an empty tensor."""
    return torch.cat(parts, dim=-1) if parts else like[..., :0]
