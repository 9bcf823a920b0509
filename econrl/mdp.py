"""A spec as functions of flat tensors, on one device and in one precision: what every solver works with.

Columns of the flat tensors:
    s (..., S)   the states in the order declared; a Markov chain is held as its index; last, t for a life cycle
    a (..., A)   the actions
    e (..., E)   the shocks, then the next index of every Markov chain
An action is reached in two steps. `squash` takes any real u to shares y: a sigmoid for a bounded action, a softplus
where one bound is infinite, the identity where both are, a softmax for a budget. `from_shares` puts the shares
between the bounds: a = low + (high - low) y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.errors import SpecError
from econrl.expectation import Quadrature
from econrl.groups import groups_of
from econrl.model import Model
from econrl.shocks import product
from econrl.variables import Action, Budget, MarkovChain, Slot, State, View, evaluate_bound, flatten, slots

SMALLEST_SHARE = 1e-12  # shares closer to a bound than this have no finite u


def listed(variables: Any) -> list[Any]:
    """A declaration is one variable or a sequence of them."""
    return list(variables) if isinstance(variables, Sequence) else [variables]


class MDP:
    """The flat functions r, f, beta, the feasible set and the shocks of `model`."""

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        quadrature: Quadrature | None = None,
    ):
        self.model = model.to(device, dtype)
        self.device, self.dtype, self.quadrature = torch.device(device), dtype, quadrature or Quadrature()
        self.state_variables: list[State | MarkovChain] = listed(self.model.states())
        self.action_variables: list[Action | Budget] = listed(self.model.actions())
        self.shock_variables = listed(self.model.shocks())
        self.horizon = self.model.horizon
        self.chains = [v for v in self.state_variables if isinstance(v, MarkovChain)]

        calendar = [State("t", 0, self.horizon - 1)] if self.horizon is not None else []
        self.state_slots = slots([*self.state_variables, *calendar], width=lambda v: held_size(v))
        self.action_slots = slots(self.action_variables)
        self.shock_slots = slots([*self.shock_variables, *self.chains], width=lambda v: held_size(v))
        self.S, self.A, self.E = width(self.state_slots), width(self.action_slots), width(self.shock_slots)

        every = [*self.state_variables, *calendar]
        self.low = self.tensor([bound for v in every for bound in domain(v)[0]])
        self.high = self.tensor([bound for v in every for bound in domain(v)[1]])
        moving = [isinstance(v, State) for v in self.state_variables]
        self.continuous = [
            column
            for slot, kept in zip(self.state_slots, moving, strict=False)
            if kept
            for column in range(slot.start, slot.stop)
        ]
        # Positive states whose domain spans more than a factor of two, as wealth does, are best measured in logarithms.
        self.logarithmic = [c for c in self.continuous if self.low[c] > 0 and self.high[c] > 2 * self.low[c]]
        self.tables = [c.table.to(self.device, dtype) for c in self.chains]
        self.matrices = [c.matrix.to(self.device, dtype) for c in self.chains]
        self.nodes, self._shock_weights = self._rule()

        layouts = (self.state_slots, self.action_slots, self.shock_slots)
        self.groups = groups_of(*layouts, self.model.group_features(), self.low)

    def tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    # Views

    def state(self, s: Tensor) -> View:
        values = {slot.name: slot.read(s) for slot in self.state_slots}
        for chain, table in zip(self.chains, self.tables, strict=True):
            index = values[chain.name].long()
            # index_select, unlike table[index], works for a single state under vmap
            values[chain.name] = table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])
        return View("state", values)

    def actions(self, a: Tensor) -> View:
        return View("action", {slot.name: slot.read(a) for slot in self.action_slots})

    def shocks(self, e: Tensor) -> View:
        return View("shock", {slot.name: slot.read(e) for slot in self.shock_slots[: len(self.shock_variables)]})

    # The model's functions

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s, a), shape (...)."""
        return self.model.reward(self.state(s), self.actions(a))

    def transition(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """f(s, a, e), shape (..., S); s, a and e broadcast against each other."""
        named = self.model.transition(self.state(s), self.actions(a), self.shocks(e))
        values = {name: torch.as_tensor(value, dtype=s.dtype, device=s.device) for name, value in named.items()}
        for slot in self.shock_slots[len(self.shock_variables) :]:
            values[slot.name] = slot.read(e)
        if self.horizon is not None:
            values["t"] = self.period(s) + 1
        return flatten(self.state_slots, values)

    def discount(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """beta(s, a, e), a scalar or of shape (...)."""
        factor = self.model.discount(self.state(s), self.actions(a), self.shocks(e))
        return torch.as_tensor(factor, dtype=s.dtype, device=s.device)

    def period(self, s: Tensor) -> Tensor:
        return s[..., -1]

    def terminal(self, s: Tensor) -> Tensor:
        return self.model.terminal(self.state(s))

    def exact_policy(self, s: Tensor) -> Tensor | None:
        """The closed form (..., A), or None."""
        named = self.model.exact_policy(self.state(s))
        if named is None:
            return None
        return flatten(self.action_slots, named).expand(*s.shape[:-1], self.A)

    def exact_value(self, s: Tensor) -> Tensor | None:
        return self.model.exact_value(self.state(s))

    # The feasible set

    def squash(self, u: Tensor) -> Tensor:
        """Any real u (..., A) to shares y."""
        parts = []
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            part = u[..., slot.start : slot.stop]
            if isinstance(v, Budget):
                rest = torch.zeros_like(part[..., :1])
                parts.append(torch.cat([part, rest], dim=-1).softmax(dim=-1)[..., :-1])
            else:
                below, above = is_bound(v.low), is_bound(v.high)
                parts.append(part.sigmoid() if below and above else F.softplus(part) if below or above else part)
        return torch.cat(parts, dim=-1)

    def squash_slope(self, u: Tensor) -> Tensor:
        """dy/du of each share on its own, (..., A); positive."""
        parts = []
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            part = u[..., slot.start : slot.stop]
            if isinstance(v, Budget):
                rest = torch.zeros_like(part[..., :1])
                y = torch.cat([part, rest], dim=-1).softmax(dim=-1)[..., :-1]
                parts.append(y * (1 - y))
            else:
                below, above = is_bound(v.low), is_bound(v.high)
                y = part.sigmoid()
                parts.append(y * (1 - y) if below and above else y if below or above else torch.ones_like(y))
        return torch.cat(parts, dim=-1)

    def unsquash(self, y: Tensor) -> Tensor:
        """The u that squashes to y; shares on a bound are moved off it by 1e-12."""
        parts = []
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            part = y[..., slot.start : slot.stop]
            if isinstance(v, Budget):
                rest = (1 - part.sum(dim=-1, keepdim=True)).clamp(min=SMALLEST_SHARE)
                parts.append((part.clamp(min=SMALLEST_SHARE) / rest).log())
            else:
                below, above = is_bound(v.low), is_bound(v.high)
                if below and above:
                    part = part.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE).logit()
                elif below or above:
                    part = part.clamp(min=SMALLEST_SHARE)
                    part = part + (-torch.expm1(-part)).log()
                parts.append(part)
        return torch.cat(parts, dim=-1)

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
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            part = y[..., slot.start : slot.stop]
            if isinstance(v, Budget):
                ok &= (part >= -slack).all(dim=-1) & (part.sum(dim=-1) <= 1 + slack)
            elif is_bound(v.low) or is_bound(v.high):
                ok &= (part >= -slack).all(dim=-1)
                if is_bound(v.low) and is_bound(v.high):
                    ok &= (part <= 1 + slack).all(dim=-1)
        return ok

    def _walk(self, s: Tensor, x: Tensor, f: Any, given_actions: bool = False) -> Tensor:
        """f(low, width, x_k) for each action in order, since a bound may read the actions declared before it.

        x holds shares, or the actions themselves where `given_actions`.
        """
        sv, parts = self.state(s), []
        before: dict[str, Tensor] = {}
        batch = torch.broadcast_shapes(s.shape[:-1], x.shape[:-1])
        for v, slot in zip(self.action_variables, self.action_slots, strict=True):
            seen = View("action", before)
            low, width = self.interval(v, sv, seen, s)
            part = x[..., slot.start : slot.stop]
            parts.append(f(low, width, part).expand(*batch, slot.stop - slot.start))
            action = x if given_actions else torch.cat(parts, dim=-1)
            before[v.name] = slot.read(action)
        return torch.cat(parts, dim=-1)

    def interval(self, v: Action | Budget, s: View, a: View, like: Tensor) -> tuple[Tensor, Tensor]:
        """(low, width) with a = low + width y, each (..., 1) or (..., n)."""

        def column(bound: Any) -> Tensor:
            value = torch.as_tensor(evaluate_bound(bound, s, a), dtype=like.dtype, device=like.device)
            return value if v.size is not None and value.ndim == like.ndim else value.unsqueeze(-1)

        if isinstance(v, Budget):
            total = column(v.total)
            return torch.zeros_like(total), total
        if is_bound(v.low) and is_bound(v.high):
            low = column(v.low)
            return low, column(v.high) - low
        if is_bound(v.high):
            high = column(v.high)
            return high, torch.full_like(high, -v.scale)
        low = column(v.low if is_bound(v.low) else 0.0)
        return low, torch.full_like(low, v.scale)

    # Shocks

    def _rule(self) -> tuple[Tensor, Tensor]:
        nodes, weights = self.quadrature.over(self.shock_variables)
        indices = [
            (torch.arange(len(c.matrix), dtype=torch.float64)[:, None], torch.ones(len(c.matrix))) for c in self.chains
        ]
        nodes, weights = product([(nodes, weights), *indices])
        return nodes.to(self.device, self.dtype), weights.to(self.device, self.dtype)

    def weights(self, s: Tensor) -> Tensor:
        """Probability of each node (J, E) at the states s (..., S): (..., J), or (J,) without Markov chains."""
        w = self._shock_weights
        for chain, P in zip(self.chains, self.matrices, strict=True):
            now = self._slot(self.state_slots, chain.name).read(s).long()
            then = self._slot(self.shock_slots, chain.name).read(self.nodes).long()
            w = w * P[now][..., then]
        return w

    def sample_shocks(self, s: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of e (..., E) for each state."""
        shape = s.shape[:-1]
        parts = [v.sample(tuple(shape), generator).to(self.dtype) for v in self.shock_variables]
        for chain, P in zip(self.chains, self.matrices, strict=True):
            now = self._slot(self.state_slots, chain.name).read(s).long()
            u = torch.rand(*shape, 1, generator=generator, dtype=self.dtype, device=self.device)
            then = (P[now].cumsum(dim=-1) < u).sum(dim=-1, keepdim=True)
            parts.append(then.clamp(max=len(P) - 1).to(self.dtype))
        return torch.cat(parts, dim=-1) if parts else s[..., :0]

    @staticmethod
    def _slot(layout: list[Slot], name: str) -> Slot:
        return next(slot for slot in layout if slot.name == name)

    # States

    def sample_box(self, n: int, generator: torch.Generator) -> Tensor:
        """n states uniform on the domain; chains and periods uniform over their values."""
        u = torch.rand(n, self.S, generator=generator, dtype=self.dtype, device=self.device)
        s = self.low + (self.high - self.low) * u
        whole = [c for c in range(self.S) if c not in self.continuous]
        steps = self.high[whole] - self.low[whole] + 1
        s[:, whole] = (u[:, whole] * steps).floor().minimum(steps - 1)
        return s

    def sample_initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n states to start simulations from: the model's `initial`, or uniform on the domain; t = 0."""
        s = self.sample_box(n, generator)
        if self.horizon is not None:
            s[:, -1] = 0
        named = self.model.initial(n, generator)
        if named is not None:
            known = {slot.name for slot in self.state_slots}
            for name in named:
                if name not in known:
                    raise SpecError(f"{type(self.model).__name__}.initial names '{name}', which is no state")
            for slot in self.state_slots:
                if slot.name in named:
                    value = torch.as_tensor(named[slot.name]).to(s)
                    s[:, slot.start : slot.stop] = value if slot.size is not None else value.unsqueeze(-1)
        return s

    def inside(self, s: Tensor, margin: float = 0.0) -> Tensor:
        """Whether the continuous states lie in the domain, widened on each side by a share `margin` of its width, in
        logarithms for the states of `logarithmic`."""
        room = margin * (self.high - self.low)
        low, high = self.low - room, self.high + room
        factor = (self.high[self.logarithmic] / self.low[self.logarithmic]) ** margin
        low[self.logarithmic] = self.low[self.logarithmic] / factor
        high[self.logarithmic] = self.high[self.logarithmic] * factor
        c = self.continuous
        return ((s[..., c] >= low[c]) & (s[..., c] <= high[c])).all(dim=-1)


def is_bound(bound: Any) -> bool:
    """Whether a bound binds anywhere: a function, or a finite number."""
    return callable(bound) or abs(bound) != float("inf")


def held_size(v: Any) -> int | None:
    """The width of a variable in the flat tensor; a Markov chain is one index whatever its values."""
    return None if isinstance(v, MarkovChain) else v.size


def width(layout: list[Slot]) -> int:
    return layout[-1].stop if layout else 0


def domain(v: State | MarkovChain) -> tuple[list[float], list[float]]:
    if isinstance(v, MarkovChain):
        return [0.0], [len(v.matrix) - 1.0]
    n = v.size or 1
    return [v.low] * n, [v.high] * n
