"""One member of a family: its policy and value are those of the family at its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.family.family import Family, is_real
from econrl.problem.mdp import MDP
from econrl.problem.state_function import KINDS, Box, StateFunction
from econrl.spec.model import Model


class AtParameters(StateFunction):
    """A family's function of (s, theta) at one theta: a function of the member's states s."""

    theta: Tensor

    def __init__(
        self, mdp: MDP, kind: str, description: dict[str, Any], over: dict[str, Any], theta: Sequence[float]
    ) -> None:
        super().__init__(mdp)
        self.description = {"kind": kind, "description": description, "over": over, "theta": list(theta)}
        family = Family(one=mdp.model, over=over)
        self.function = KINDS[kind](MDP(family, mdp.device, mdp.dtype, mdp.quadrature), **description)
        self.register_buffer("theta", mdp.tensor(list(theta)))

    def describe(self) -> dict[str, Any]:
        return self.description

    def joined(self, s: Tensor) -> Tensor:
        """(s, theta), with the period of a life cycle last."""
        last = self.mdp.S - (self.mdp.horizon is not None)
        return torch.cat([s[..., :last], self.theta.expand(*s.shape[:-1], -1), s[..., last:]], dim=-1)

    def reach(self, known: Box) -> Box:
        own = [column for column in range(self.function.mdp.S) if column not in self.function.mdp.parameters]
        low, high = self.function.reach((self.joined(known[0]), self.joined(known[1])))
        return low[own], high[own]

    def forward(self, s: Tensor) -> Tensor:
        return self.function(self.joined(s))

    def probabilities(self, s: Tensor) -> Tensor:
        return self.function.probabilities(self.joined(s))

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        return self.function.under(self.joined(s), row)

    @property
    def knows_multipliers(self) -> bool:
        return self.function.knows_multipliers

    def multipliers(self, s: Tensor) -> Tensor:
        return self.function.multipliers(self.joined(s))


def member_at(
    family: Model, parameters: dict[str, Any]
) -> tuple[Model, dict[str, float], Callable[[StateFunction], StateFunction]]:
    """The member with these parameters, its place in the range, and what turns the family's functions into its own.

    A parameter that is not given has the value that `one` has. Raises SpecError for a model that is no family, for a
    parameter that it is not solved over, and for a value outside the range.
    """
    if not isinstance(family, Family):
        raise SpecError(
            f"the solution is of one {type(family).__name__}; a range of parameters needs solve(model, over=...)"
        )
    for name in parameters:
        if name not in family.over:
            raise SpecError(f"the solution is not over a parameter '{name}'; it is over {', '.join(family.over)}")
    theta = {name: parameters.get(name, getattr(family.one, name)) for name in family.over}
    for name, value in theta.items():
        low, high = family.over[name]
        if not is_real(value) or not low <= value <= high:
            raise SpecError(f"the solution is over {name} from {low:g} to {high:g}, and says nothing at {value!r}")
    theta = {name: float(value) for name, value in theta.items()}
    model = family.member(theta)
    mdp = MDP(model)

    def fix(function: StateFunction) -> StateFunction:
        over = {name: list(ends) for name, ends in family.over.items()}
        fixed = AtParameters(mdp, type(function).__name__, function.describe(), over, list(theta.values()))
        fixed.function.load_state_dict(function.state_dict())
        return fixed

    return model, theta, fix
