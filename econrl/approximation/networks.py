"""The networks of the actor-critic solvers: smooth, in states scaled by their domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from econrl.approximation.exchangeable_network import PooledNetwork
from econrl.approximation.units import Units
from econrl.problem.groups import Group
from econrl.problem.layout import adjacent
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction

NEAR = 0.01  # of a domain: how close to its low end a network sees differences


class MLP(nn.Sequential):
    """Fully connected SiLU layers: smooth, so that a value's derivatives are; and linear far outside the data.

    A tanh network goes flat there. A critic that sees no value in more capital beyond the domain tells the actor to
    eat what lies inside it, and the error feeds on itself.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module] = nn.SiLU) -> None:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([inputs, *hidden]):
            layers += [nn.Linear(a, b), activation()]
        super().__init__(*layers, nn.Linear([inputs, *hidden][-1], outputs))

    def start_at(self, z: Tensor) -> None:
        """Begin close to the constant z (outputs,)."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.copy_(z)


class Features(nn.Module):
    """States as a network sees them: the domain mapped to [-1, 1], Markov chains and discrete states one-hot.

    The states of `mdp.logarithmic`, wealth and the like, come in logarithms too, in units of half an e-fold: the wider
    their domain, the finer the network sees its low end, where bounds bind and marginal utility is steep. So does the
    remaining life, T - t, since the last periods differ most from one another. `within` is for the networks of one
    period and one combination of discrete states: what is the same for all their states is left out, and the distance
    to the low end of a domain, where a limit may be, is seen in logarithms as well.
    """

    middle: Tensor
    radius: Tensor
    smallest: Tensor
    log_middle: Tensor

    def __init__(self, mdp: MDP, within: bool = False) -> None:
        super().__init__()
        self.finite, self.logs = mdp.finite, mdp.logarithmic
        self.plain = [c for c in range(mdp.S) if c not in [column for column, _ in mdp.finite]]
        self.horizon = mdp.horizon
        if within:
            self.finite = [(column, n) for column, n in mdp.finite if column in mdp.chain_columns]
            self.plain, self.horizon = mdp.continuous, None
        self.near = [c for c in self.plain if within and c not in self.logs]
        calendar = [mdp.S - 1] if self.horizon is not None else []
        one_hot = [column for column, n in self.finite for _ in range(n)]
        self.sources = [*self.plain, *self.logs, *self.near, *calendar, *one_hot]  # the state behind each feature
        self.size = len(self.sources)
        low, high = mdp.low[self.plain], mdp.high[self.plain]
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("radius", torch.where(high > low, (high - low) / 2, 1.0))
        self.register_buffer("smallest", mdp.low[self.logs] / 100)
        self.register_buffer("log_middle", (mdp.low[self.logs] * mdp.high[self.logs]).log() / 2)

    def forward(self, s: Tensor) -> Tensor:
        plain = (s[..., adjacent(self.plain)] - self.middle) / self.radius
        if self.size == len(self.plain):
            return plain
        logs = s[..., adjacent(self.logs)].maximum(self.smallest).log()
        parts = [plain, 2 * (logs - self.log_middle)]
        if self.near:
            distance = (1 + plain[..., [self.plain.index(c) for c in self.near]]) / 2
            parts.append((distance.clamp(min=-NEAR / 2) + NEAR).log() - math.log(NEAR) / 2)
        if self.horizon is not None:
            remaining = (self.horizon - s[..., -1:]).clamp(min=0.5)
            parts.append(2 * remaining.log() - math.log(self.horizon))
        for column, n in self.finite:
            parts.append(torch.eye(n, dtype=s.dtype, device=s.device)[s[..., column].long()])
        return torch.cat(parts, dim=-1)


def exchangeable(mdp: MDP) -> Group | None:
    """The group whose members a network may treat alike: the only one of the model, with states of its own."""
    return mdp.groups[0] if len(mdp.groups) == 1 and mdp.groups[0].states.shape[1] > 0 else None


def network(
    mdp: MDP,
    features: Features,
    hidden: Sequence[int],
    gives: Literal["actions", "value"],
    sees_actions: bool = False,
    activation: type[nn.Module] = nn.SiLU,
    sets: int = 1,
) -> MLP | PooledNetwork:
    """From the features of s, and u where it `sees_actions`, to `sets` numbers for each action, or to one number.

    Permutation-equivariant, and invariant, where the members of a group are exchangeable.
    """
    inputs = features.size + (mdp.A if sees_actions else 0)
    outputs = sets * mdp.A if gives == "actions" else 1
    group = exchangeable(mdp)
    if group is None:
        return MLP(inputs, hidden, outputs, activation)
    sources = torch.tensor(features.sources, device=mdp.device)
    own = torch.stack([torch.isin(sources, states).nonzero().flatten() for states in group.states])
    if sees_actions:
        own = torch.cat([own, features.size + group.actions], dim=-1)
    of_actions = sets if gives == "actions" else 0
    results = torch.cat([group.actions[:, :0], *(group.actions + k * mdp.A for k in range(of_actions))], dim=-1)
    return PooledNetwork(group, own, inputs, results, outputs, hidden, activation)


class Actor(StateFunction):
    """pi(s): a network for u, put into the feasible set by the shares of `feasible_set.py`."""

    def __init__(self, mdp: MDP, hidden: Sequence[int]) -> None:
        super().__init__(mdp)
        self.hidden = list(hidden)
        self.features = Features(mdp)
        self.body = network(mdp, self.features, hidden, "actions")

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        """The network's u (..., A) at states s (..., S)."""
        return self.body(self.features(s))


class ValueNetwork(StateFunction):
    """V(s), as a network in the given units."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any]) -> None:
        super().__init__(mdp)
        self.hidden, self.units = list(hidden), Units(**units)
        self.features = Features(mdp)
        self.body = network(mdp, self.features, hidden, "value")

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units)}

    def raw(self, s: Tensor) -> Tensor:
        """V(s) in units, (...)."""
        return self.body(self.features(s)).squeeze(-1)

    def forward(self, s: Tensor) -> Tensor:
        return self.units.value(self.raw(s))


class ActionValueNetwork(StateFunction):
    """Q(s, u) of an action given as its unbounded u; called with the state alone, V(s) = Q(s, pi(s)) of its actor."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any], actor_hidden: Sequence[int]) -> None:
        super().__init__(mdp)
        self.hidden, self.units = list(hidden), Units(**units)
        self.features = Features(mdp)
        self.body = network(mdp, self.features, hidden, "value", sees_actions=True)
        self.actor = Actor(mdp, actor_hidden)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units), "actor_hidden": self.actor.hidden}

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """Q(s, u) in units, (...)."""
        return self.body(torch.cat([self.features(s), u], dim=-1)).squeeze(-1)

    def of(self, s: Tensor, u: Tensor) -> Tensor:
        """Q(s, u), (...), of actions in their unbounded form u (..., A)."""
        return self.units.value(self.raw(s, u))

    def forward(self, s: Tensor) -> Tensor:
        return self.of(s, self.actor.raw(s))


class Ensemble(nn.Module):
    """n networks of one form, evaluated as one: x (..., inputs) to (n, ..., outputs).

    It holds the weights of all, of which the networks' own become views. Small networks cost their operations more than
    their arithmetic.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.n, self.form = len(networks), (networks[0],)  # in a tuple, so that its weights are not held twice
        self.names = [name for name, _ in networks[0].named_parameters()]
        self.weights = nn.ParameterList()
        for name in self.names:
            own = [network.get_parameter(name) for network in networks]
            self.weights.append(nn.Parameter(torch.stack([p.detach() for p in own]), own[0].requires_grad))
            for i, p in enumerate(own):
                p.data = self.weights[-1].data[i]

    def forward(self, x: Tensor) -> Tensor:
        (form,), weights = self.form, list(self.weights)
        if not isinstance(form, MLP):
            return vmap(lambda own: functional_call(form, own, (x,)))(dict(zip(self.names, weights, strict=True)))
        y = x.reshape(-1, x.shape[-1]).expand(self.n, -1, -1)
        for layer in form:
            if isinstance(layer, nn.Linear):
                W, b = weights.pop(0), weights.pop(0)
                y = torch.baddbmm(b.unsqueeze(1), y, W.mT)
            else:
                y = layer(y)
        return y.reshape(self.n, *x.shape[:-1], -1)
