"""What Gauss-Newton moves: policy and value networks that are small, smooth, and one for each period of a life."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from econrl.euler import near_bounds, project_on_simplex
from econrl.functions import StateFunction
from econrl.mdp import MDP, is_bound
from econrl.networks import Features, Units
from econrl.variables import Budget

MAY_BIND = 2e-3  # share of states next to a bound from which on it may bind
FREE, LOW, HIGH, BOTH = "free", "low", "high", "both"


class SmoothNetwork(nn.Module):
    """A linear function plus a tanh network: where a linear policy is nearly right, little is left to learn."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([inputs, *hidden]):
            layers += [nn.Linear(a, b), nn.Tanh()]
        last = nn.Linear(hidden[-1], outputs, bias=False)
        with torch.no_grad():
            last.weight.mul_(0.1)
        self.linear, self.body = nn.Linear(inputs, outputs), nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.body(x)


class PeriodFunction(StateFunction):
    """A function of the state by one network, or, in a life cycle, by one for each period."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], outputs: int):
        super().__init__(mdp)
        self.hidden = list(hidden)
        self.features = Features(mdp)
        networks = [SmoothNetwork(self.features.size, hidden, outputs) for _ in range(mdp.horizon or 1)]
        self.networks = nn.ModuleList(networks)

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        """The function's value from the network's output z (..., outputs)."""
        raise NotImplementedError

    def by(self, network: Callable[[Tensor], Tensor], s: Tensor) -> Tensor:
        """The function's values at s (..., S) were this the network of every state's period."""
        return self.output(s, network(self.features(s)))

    def raw(self, s: Tensor) -> Tensor:
        """The outputs (..., outputs) of each state's own network."""
        x = self.features(s)
        if len(self.networks) == 1:
            return self.networks[0](x)
        t = s[..., -1].detach().round().long().clamp(0, len(self.networks) - 1).flatten()
        order = t.argsort(stable=True)
        counts = t.bincount(minlength=len(self.networks)).tolist()
        parts = x.flatten(0, -2)[order].split(counts)
        z = torch.cat([network(part) for network, part in zip(self.networks, parts, strict=True) if len(part) > 0])
        return z[order.argsort()].unflatten(0, x.shape[:-1])

    def forward(self, s: Tensor) -> Tensor:
        return self.output(s, self.raw(s))


class PolishedPolicy(PeriodFunction):
    """pi(s). An action whose bounds never bind has log-odds for outputs, as an actor has.

    One whose bound may bind stays on it exactly: the share is that of a smooth function, cut off at the bound. So a
    kink costs no accuracy, since beyond it the function may go on as it likes.
    """

    def __init__(self, mdp: MDP, hidden: Sequence[int], forms: Sequence[str]):
        super().__init__(mdp, hidden, mdp.A)
        self.forms = list(forms)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "forms": self.forms}

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        return self.mdp.from_shares(s, self.shares(z))

    def shares(self, z: Tensor) -> Tensor:
        """Shares (..., A) from z: e^z cut off at the bound that may bind; z itself where both may, or for a budget."""
        parts, free = [], self.mdp.squash(z)
        for v, slot, form in zip(self.mdp.action_variables, self.mdp.action_slots, self.forms, strict=True):
            z_k = z[..., slot.start : slot.stop]
            if form == FREE:
                part = free[..., slot.start : slot.stop]
            elif isinstance(v, Budget):
                rest = 1 - z_k.sum(dim=-1, keepdim=True)
                part = project_on_simplex(torch.cat([z_k, rest], dim=-1))[..., :-1]
            elif not (is_bound(v.low) and is_bound(v.high)):
                part = z_k.clamp(min=0)
            elif form == BOTH:
                part = z_k.clamp(0, 1)
            else:
                part = z_k.exp().clamp(max=1)
                part = part if form == HIGH else 1 - part
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def outputs_for(self, s: Tensor, a: Tensor) -> Tensor:
        """z (..., A) that give the actions a (..., A), as nearly as may be."""
        y = self.mdp.shares(s, a)
        free = self.mdp.unsquash(y).clamp(-LARGEST_Z, LARGEST_Z)
        parts = []
        for v, slot, form in zip(self.mdp.action_variables, self.mdp.action_slots, self.forms, strict=True):
            y_k = y[..., slot.start : slot.stop]
            logarithmic = form in (LOW, HIGH) and not isinstance(v, Budget) and is_bound(v.low) and is_bound(v.high)
            if form == FREE:
                y_k = free[..., slot.start : slot.stop]
            elif logarithmic:
                y_k = (y_k if form == HIGH else 1 - y_k).clamp(min=SMALLEST).log()
            parts.append(y_k)
        return torch.cat(parts, dim=-1)


LARGEST_Z, SMALLEST = 12.0, 1e-6


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


class PolishedValue(PeriodFunction):
    """V(s), in the given units."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any]):
        super().__init__(mdp, hidden, 1)
        self.units = Units(**units)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units)}

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        return self.units.value(z.squeeze(-1))
