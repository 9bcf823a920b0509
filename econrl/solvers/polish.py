"""What Gauss-Newton moves: policy and value networks that are small, smooth, and one for each period of a life."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from econrl.forms import Forms
from econrl.functions import StateFunction
from econrl.mdp import MDP
from econrl.networks import Features, Units


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
    """pi(s), in the forms of `forms.py`: log-odds where no bound ever binds, else cut off at the bound."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], forms: Sequence[str]):
        super().__init__(mdp, hidden, mdp.A)
        self.forms = list(forms)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "forms": self.forms}

    @property
    def cut_off(self) -> Forms:
        return Forms(self.mdp, self.forms)

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        return self.mdp.from_shares(s, self.cut_off.shares(z))

    def outputs_for(self, s: Tensor, a: Tensor) -> Tensor:
        """z (..., A) that give the actions a (..., A), as nearly as may be."""
        return self.cut_off.outputs_for(s, a)


class PolishedValue(PeriodFunction):
    """V(s), in the given units."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any]):
        super().__init__(mdp, hidden, 1)
        self.units = Units(**units)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units)}

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        return self.units.value(z.squeeze(-1))
