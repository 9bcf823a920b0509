"""What Gauss-Newton moves: small and smooth networks of policy and value, one for each period of a life.

They stand on their own, or correct a first-order perturbation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from econrl.approximation.networks import Features, exchangeable, network
from econrl.approximation.units import Units
from econrl.optimality.bounded_forms import Forms
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.perturbation.expansions import ExpandedPolicy, ExpandedValue
from econrl.solvers.perturbation.linear_policy import LinearPolicy, QuadraticValue

ROUNDS = 2  # in which binding bounds bend each other's actions


class SmoothNetwork(nn.Module):
    """A linear function plus a tanh network: where a linear policy is nearly right, little is left to learn."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([inputs, *hidden]):
            layers += [nn.Linear(a, b), nn.Tanh()]
        self.linear, self.body = nn.Linear(inputs, outputs), nn.Sequential(*layers)
        self.last = nn.Linear(hidden[-1], outputs, bias=False)
        with torch.no_grad():
            self.last.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.last(self.body(x))


def silence(network: nn.Module) -> None:
    """Let a network begin at zero, with all that it needs to leave it."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if any(part.startswith(("linear", "last")) for part in name.split(".")):
                p.zero_()


class PeriodFunction(StateFunction):
    """A function of the state by one network, or, in a life cycle, by one for each period.

    Where the members of a group are exchangeable, the network treats them alike (`exchangeable_network.py`).
    """

    def __init__(self, mdp: MDP, hidden: Sequence[int], gives: Literal["actions", "value"], sets: int = 1) -> None:
        super().__init__(mdp)
        self.hidden = list(hidden)
        self.features = Features(mdp)
        self.networks = nn.ModuleList(self.new_network(mdp, hidden, gives, sets) for _ in range(mdp.horizon or 1))

    def new_network(self, mdp: MDP, hidden: Sequence[int], gives: Literal["actions", "value"], sets: int) -> nn.Module:
        """A network of one period, small and smooth; one for exchangeable members where there are any."""
        if exchangeable(mdp) is not None:
            return network(mdp, self.features, hidden, gives, activation=nn.Tanh, sets=sets)
        return SmoothNetwork(self.features.size, hidden, sets * mdp.A if gives == "actions" else 1)

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        """The function's value from the network's output z (..., outputs)."""
        raise NotImplementedError

    def by(self, network: Function, s: Tensor) -> Tensor:
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
    """pi(s), in the forms of `bounded_forms.py`: log-odds where no bound ever binds, else cut off at the bound.

    With `linear`, the network is a correction of a first-order perturbation. With `steepness`, it knows its multipliers
    (`multipliers.py`). A bound that binds one action then bends all others, and the network says by how much: besides
    x (..., A) it gives b and c (..., A), and

        z_i = x_i + c_i / A  sum over j != i of (1 + b_j) times what z_j is beyond its bounds,

    in two rounds from z = x, so that every kink lies where its bound begins to bind, and only smooth functions have to
    be learned.
    """

    def __init__(
        self,
        mdp: MDP,
        hidden: Sequence[int],
        forms: Sequence[str],
        linear: bool = False,
        steepness: Sequence[float] | None = None,
    ) -> None:
        super().__init__(mdp, hidden, "actions", sets=1 if steepness is None else 3)
        self.forms = Forms(mdp, forms, steepness)
        self.base = (ExpandedPolicy if mdp.parameters else LinearPolicy)(mdp) if linear else None

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "linear": self.base is not None, **self.forms.describe()}

    def begin_at(self, linear: LinearPolicy | ExpandedPolicy) -> None:
        """Take this policy for the base, and correct nothing yet."""
        assert self.base is not None
        self.base.load_state_dict(linear.state_dict())
        silence(self.networks)

    def z(self, s: Tensor, raw: Tensor) -> Tensor:
        """z (..., A) from the network's outputs at s."""
        if not self.knows_multipliers:
            return raw if self.base is None else self.base.raw(s) + raw
        x, b, c = raw.chunk(3, dim=-1)
        z = x
        for _ in range(ROUNDS):
            beyond = (1 + b) * self.forms.beyond(z)
            z = x + c / self.mdp.A * (beyond.sum(dim=-1, keepdim=True) - beyond)
        return z

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        return self.mdp.from_shares(s, self.forms.shares(self.z(s, z)))

    @property
    def knows_multipliers(self) -> bool:
        return self.forms.knows_multipliers

    def multipliers(self, s: Tensor) -> Tensor:
        return self.multipliers_by(self.networks[0], s)

    def multipliers_by(self, network: Function, s: Tensor) -> Tensor:
        """The multipliers (..., A) of binding bounds were this the network."""
        return self.forms.multipliers(self.z(s, network(self.features(s))))

    def outputs_for(self, s: Tensor, a: Tensor) -> Tensor:
        """Outputs of the network that give the actions a (..., A), as nearly as may be."""
        z = self.forms.outputs_for(s, a)
        return torch.cat([z, torch.zeros_like(z), torch.zeros_like(z)], dim=-1) if self.knows_multipliers else z


class PolishedValue(PeriodFunction):
    """V(s), in the given units; with `quadratic`, a correction of a perturbation's value."""

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: dict[str, Any], quadratic: bool = False) -> None:
        super().__init__(mdp, hidden, "value")
        self.units = Units(**units)
        self.base = (ExpandedValue if mdp.parameters else QuadraticValue)(mdp) if quadratic else None

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "units": asdict(self.units), "quadratic": self.base is not None}

    def begin_at(self, quadratic: QuadraticValue | ExpandedValue) -> None:
        """Take this value for the base, and correct nothing yet."""
        assert self.base is not None
        self.base.load_state_dict(quadratic.state_dict())
        silence(self.networks)

    def output(self, s: Tensor, z: Tensor) -> Tensor:
        z = z.squeeze(-1)
        return self.units.value(z) if self.base is None else self.base(s) + self.units.scale * z
