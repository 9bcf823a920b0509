"""The networks of the actor-critic solvers: smooth, in states scaled by their domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from econrl.functions import StateFunction
from econrl.mdp import MDP


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Fully connected SiLU layers: smooth, so that a value's derivatives are; and linear far outside the data.

    A tanh network goes flat there. A critic that sees no value in more capital beyond the domain tells the actor to
    eat what lies inside it, and the error feeds on itself.
    """
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class Features(nn.Module):
    """States as a network sees them: the domain mapped to [-1, 1], Markov chains one-hot.

    The states of `mdp.logarithmic`, wealth and the like, come in logarithms too, in units of half an e-fold: the wider
    their domain, the finer the network sees its low end, where bounds bind and marginal utility is steep. So does the
    remaining life, T - t, since the last periods differ most from one another.
    """

    middle: Tensor
    radius: Tensor
    smallest: Tensor
    log_middle: Tensor

    def __init__(self, mdp: MDP):
        super().__init__()
        columns = {slot.name: slot.start for slot in mdp.state_slots}
        self.chains = [(columns[c.name], len(c.matrix)) for c in mdp.chains]
        held = {column for column, _ in self.chains}
        self.plain, self.logs = [c for c in range(mdp.S) if c not in held], mdp.logarithmic
        self.horizon = mdp.horizon
        self.size = len(self.plain) + len(self.logs) + (self.horizon is not None) + sum(n for _, n in self.chains)
        low, high = mdp.low[self.plain], mdp.high[self.plain]
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("radius", torch.where(high > low, (high - low) / 2, 1.0))
        self.register_buffer("smallest", mdp.low[self.logs] / 100)
        self.register_buffer("log_middle", (mdp.low[self.logs] * mdp.high[self.logs]).log() / 2)

    def forward(self, s: Tensor) -> Tensor:
        logs = s[..., self.logs].maximum(self.smallest).log()
        parts = [(s[..., self.plain] - self.middle) / self.radius, 2 * (logs - self.log_middle)]
        if self.horizon is not None:
            remaining = (self.horizon - s[..., -1:]).clamp(min=0.5)
            parts.append(2 * remaining.log() - math.log(self.horizon))
        for column, n in self.chains:
            parts.append(torch.eye(n, dtype=s.dtype, device=s.device)[s[..., column].long()])
        return torch.cat(parts, dim=-1)


class Actor(StateFunction):
    """pi(s): a network for u, put into the feasible set by the shares of `mdp.py`."""

    def __init__(self, mdp: MDP, hidden: Sequence[int]):
        super().__init__(mdp)
        self.hidden = list(hidden)
        self.features = Features(mdp)
        self.body = mlp(self.features.size, hidden, mdp.A)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        return self.body(self.features(s))

    def start_at(self, u: Tensor) -> None:
        """Begin close to the constant u (A,): constant shares."""
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.copy_(u)


@dataclass(frozen=True)
class Units:
    """The units of a critic: V = center + scale x, or, where values differ by orders of magnitude, V = sign e^x.

    With constant relative risk aversion V is a power of wealth. Its logarithm is close to linear in the logarithm of
    wealth, and an error in it is a relative error of V: the same in terms of consumption, rich or poor.
    """

    center: float = 0.0
    scale: float = 1.0
    sign: int = 0
    """0 for the linear unit; else the sign of V everywhere."""

    def value(self, x: Tensor) -> Tensor:
        x = self.center + self.scale * x
        return x if self.sign == 0 else self.sign * x.clamp(max=LARGEST_EXPONENT).exp()

    def raw(self, v: Tensor) -> Tensor:
        """The inverse of `value`."""
        return ((v if self.sign == 0 else v.abs().log()) - self.center) / self.scale

    def size(self, v: Tensor) -> Tensor:
        """dV/dx at the value v: what one unit is worth there."""
        return torch.full_like(v, self.scale) if self.sign == 0 else self.scale * v.detach().abs()


LARGEST_EXPONENT = 80.0  # e^80 is near the largest number of single precision


class ValueNetwork(StateFunction):
    """V(s), as a network in the given units."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any]):
        super().__init__(mdp)
        self.hidden, self.units = list(hidden), Units(**units)
        self.features = Features(mdp)
        self.body = mlp(self.features.size, hidden, 1)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units)}

    def forward(self, s: Tensor) -> Tensor:
        return self.units.value(self.body(self.features(s)).squeeze(-1))


class ActionValueNetwork(StateFunction):
    """Q(s, u) of an action given as its unbounded u; called with the state alone, V(s) = Q(s, pi(s)) of its actor."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any], actor_hidden: Sequence[int]):
        super().__init__(mdp)
        self.hidden, self.units = list(hidden), Units(**units)
        self.features = Features(mdp)
        self.body = mlp(self.features.size + mdp.A, hidden, 1)
        self.actor = Actor(mdp, actor_hidden)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units), "actor_hidden": self.actor.hidden}

    def of(self, s: Tensor, u: Tensor) -> Tensor:
        return self.units.value(self.body(torch.cat([self.features(s), u], dim=-1)).squeeze(-1))

    def forward(self, s: Tensor) -> Tensor:
        return self.of(s, self.actor.raw(s))
