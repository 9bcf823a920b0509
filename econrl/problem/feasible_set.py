"""The feasible set A(s), a map onto it, and back.

An action is reached in two steps. `squash` takes any real u to shares y, in the set of its kind: a sigmoid for a
bounded action, a softplus where one bound is infinite, the identity where both are, a softmax for a budget.
`from_shares` puts the shares between the bounds: a = low + (high - low) y. A choice is the number of its option in all
three forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from econrl.problem.layout import Slot, View
from econrl.spec.variables import ActionKind


class FeasibleSet:
    """The actions a (..., A) that are allowed at the states s (..., S): of these `kinds` in these columns, at the views
    that `state` gives of flat states, with the choices `made` beforehand, by name (see `MDP.given`)."""

    def __init__(
        self,
        kinds: Sequence[ActionKind],
        slots: Sequence[Slot],
        state: Callable[[Tensor], View],
        made: dict[str, float],
    ) -> None:
        self.state, self.made = state, made
        self.laid = list(zip(kinds, slots, strict=True))
        self.sets = [(kind.shares, slot.start, slot.stop) for kind, slot in self.laid]

    def squash(self, u: Tensor) -> Tensor:
        """Any real u (..., A) to shares y."""
        return joined([shares.squash(u[..., start:stop]) for shares, start, stop in self.sets], u)

    def squash_slope(self, u: Tensor) -> Tensor:
        """dy/du of each share on its own, (..., A); positive, and zero for a choice."""
        y = self.squash(u)
        return joined([shares.slope(y[..., start:stop]) for shares, start, stop in self.sets], u)

    def log_squash_volume(self, u: Tensor) -> Tensor:
        """log |det dy/du| of `squash`, (...): what a log-density of u (..., A) loses on its way to the shares;
        nothing for a choice."""
        terms = [shares.log_volume(u[..., start:stop]) for shares, start, stop in self.sets]
        return torch.cat(terms, dim=-1).sum(dim=-1)

    def unsquash(self, y: Tensor) -> Tensor:
        """The u that squashes to y; shares on a bound are moved off it by 1e-12."""
        return joined([shares.unsquash(y[..., start:stop]) for shares, start, stop in self.sets], y)

    def clamp_shares(self, y: Tensor) -> Tensor:
        """The nearest shares that keep all bounds, 1e-12 off them since a reward may be infinite on a bound."""
        return torch.cat([shares.clamp(y[..., start:stop]) for shares, start, stop in self.sets], dim=-1)

    def from_shares(self, s: Tensor, y: Tensor) -> Tensor:
        """Actions a (..., A) at shares y: low + (high - low) y; where a bound is infinite, scale y from the other. An
        option that is not available stands for the next one that is, counted on from 0 after the last."""
        return self._walk(s, self.with_open_options(s, y), lambda low, width, y_k: low + width * y_k)

    def shares(self, s: Tensor, a: Tensor) -> Tensor:
        """The shares of actions a; equal parts, 1/(n + 1) of each, where low = high leaves no choice."""

        def share(low: Tensor, width: Tensor, a_k: Tensor) -> Tensor:
            free, equal = width.abs() > 0, 1 / (a_k.shape[-1] + 1)
            return torch.where(free, (a_k - low) / torch.where(free, width, torch.ones_like(width)), equal)

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
        for shares, start, stop in self.sets:
            ok &= shares.feasible(y[..., start:stop], slack)
        return ok & (a == self.with_open_options(s, a)).all(dim=-1)

    def with_open_options(self, s: Tensor, y: Tensor) -> Tensor:
        """y (..., A) with the next option that is available in the place of one that is not."""
        for slot, open_now in self._open(s):
            option, n = slot.read(y), open_now.shape[-1]
            away = (torch.arange(n, device=y.device) - option.detach().unsqueeze(-1)) % n
            nearest = away.masked_fill(~open_now, n).argmin(dim=-1).to(y)
            columns = [nearest if c == slot.start else y[..., c].expand(nearest.shape) for c in range(y.shape[-1])]
            y = torch.stack(columns, dim=-1)
        return y

    def _open(self, s: Tensor) -> list[tuple[Slot, Tensor]]:
        """The choices of which not all options are available everywhere, with those that are at s, (..., n) each."""
        found = [(slot, kind.open_options(self.state(s), s)) for kind, slot in self.laid]
        return [(slot, open_now) for slot, open_now in found if open_now is not None]

    def available(self, s: Tensor, options: Tensor) -> Tensor | None:
        """Which of the rows of options (D, A) of all actions are available at the states s (..., S), (..., D); None
        where all are everywhere."""
        allowed = None
        for slot, open_now in self._open(s):
            own = open_now[..., options[:, slot.start].long()]
            allowed = own if allowed is None else allowed & own
        return allowed

    def view(self, a: Tensor) -> View:
        """Actions (..., A) by name, the choices made beforehand among them."""
        return View("action", {**self._made_at(a), **{slot.name: slot.read(a) for _, slot in self.laid}})

    def _made_at(self, a: Tensor) -> dict[str, Tensor]:
        """The choices that were made beforehand, for actions a (..., A): each (...)."""
        return {name: a.new_full(a.shape[:-1], option) for name, option in self.made.items()}

    def _walk(self, s: Tensor, x: Tensor, f: Any, given_actions: bool = False) -> Tensor:
        """f(low, width, x_k) for each action in order, since a bound may read the actions declared before it.

        x holds shares, or the actions themselves where `given_actions`.
        """
        sv, parts = self.state(s), []
        batch = torch.broadcast_shapes(s.shape[:-1], x.shape[:-1])
        before = self._made_at(x)
        for kind, slot in self.laid:
            low, width = kind.interval(sv, View("action", before), s)
            part = x[..., slot.start : slot.stop]
            parts.append(f(low, width, part).to(x.dtype).expand(*batch, slot.stop - slot.start))
            action = x if given_actions else torch.cat(parts, dim=-1)
            before[kind.name] = slot.read(action)
        return joined(parts, x).expand(*batch, -1)


def joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """The parts side by side; where there are none, as in a model of choices alone that are given, an empty tensor."""
    return torch.cat(parts, dim=-1) if parts else like[..., :0]
