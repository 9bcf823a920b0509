"""Units in which the rewards of all members of a family are of one size.

Utility c^(1-gamma) / (1-gamma) is a million times larger at one gamma than at another, and runs to minus infinity as
gamma falls to one. No single function learns such values. The optimal policy does not ask for units, though: for each
theta a solver may take

    r~(s, a; theta) = (r(s, a; theta) - r0(theta)) / size(theta),     V = size V~ + r0 / (1 - beta),

where r0 is the reward at a reference state and action, and size what one unit of log-odds of that action brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.smolyak_grid import SmolyakGrid
from econrl.family.family import Family
from econrl.problem.frames import middle
from econrl.problem.mdp import MDP
from econrl.problem.state_function import KINDS, Box, StateFunction
from econrl.problem.steady_state import known_steady_state

FOR_ACTION, FOR_SIZE = 1, 2  # levels of the Smolyak grids of theta
PROBES, SAME = 64, 1e-12  # states at which discounting is looked at; the relative difference that counts as none


class RewardUnits(StateFunction):
    """r0(theta) and size(theta) of a family. The reference state is the middle of the domain; the u of the reference
    action is interpolated in theta, and so is the logarithm of the size."""

    u: Tensor
    log_size: Tensor
    shifts: Tensor

    def __init__(self, mdp: MDP) -> None:
        super().__init__(mdp)
        low, high = mdp.low[mdp.parameters].tolist(), mdp.high[mdp.parameters].tolist()
        self.for_action, self.for_size = (
            SmolyakGrid(low, high, [level] * len(low), (), mdp.device, mdp.dtype) for level in (FOR_ACTION, FOR_SIZE)
        )
        self.register_buffer("u", mdp.low.new_zeros(mdp.A, self.for_action.size))
        self.register_buffer("log_size", mdp.low.new_zeros(1, self.for_size.size))
        self.register_buffer("shifts", mdp.low.new_zeros(()))  # one where r0 may be taken off, else zero

    def describe(self) -> dict[str, Any]:
        return {}

    def find(self, family: Family, generator: torch.Generator) -> Self:
        """Look for the units of this family."""
        mdp, points = self.mdp, self.for_action.mesh()
        members = [family.member(dict(zip(family.over, theta, strict=True))) for theta in points.tolist()]
        u = torch.stack([sensible_action(MDP(member, mdp.device, mdp.dtype), generator) for member in members])
        for column, _ in mdp.choices:
            u[:, column] = u[0, column]  # r0 must not jump
        self.u.copy_(self.for_action.fit(u.T.unsqueeze(1)))
        s, u = self.reference(self.for_size.mesh())
        r_u = torch.func.grad(lambda u: mdp.reward(s, mdp.act(s, u)).sum())(u).abs().sum(dim=-1)
        r_s = torch.func.grad(lambda s: mdp.reward(s, mdp.act(s, u)).sum())(s) * (mdp.high - mdp.low) / 2
        size = torch.maximum(r_u, r_s[:, [c for c in mdp.continuous if c not in mdp.parameters]].abs().sum(dim=-1))
        size = torch.where(size.isfinite() & (size > 0), size, 1.0)
        self.log_size.copy_(self.for_size.fit(size.log().reshape(1, 1, -1)))
        self.shifts.fill_(float(discounts_alike(mdp, generator)))
        return self

    def reference(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """State (..., S) and u (..., A)."""
        mdp = self.mdp
        first, last = mdp.parameters[0], mdp.parameters[-1] + 1
        s = middle(mdp).expand(*theta.shape[:-1], mdp.S)
        s = torch.cat([s[..., :first], theta, s[..., last:]], dim=-1)
        u = self.for_action.interpolate(self.u, theta, torch.zeros_like(theta[..., 0]).long()).movedim(0, -1)
        for column, _ in mdp.choices:
            u = torch.cat([u[..., :column], u[..., column : column + 1].round(), u[..., column + 1 :]], dim=-1)
        return s, u

    def of(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """r0 and size (...) at theta (..., P)."""
        s, u = self.reference(theta)
        layer = torch.zeros_like(theta[..., 0]).long()
        size = self.for_size.interpolate(self.log_size, theta, layer)[0].exp()
        return self.shifts * self.mdp.reward(s, self.mdp.act(s, u)), size


def sensible_action(mdp: MDP, generator: torch.Generator) -> Tensor:
    """u (A,) of the steady state, where the model gives it; else the best constant u."""
    known = known_steady_state(mdp)
    return best_constant_shares(mdp, generator).u if known is None else known[1]


def discounts_alike(mdp: MDP, generator: torch.Generator) -> bool:
    """Whether the model is stationary, and its discount factor depends on the parameters alone."""
    if mdp.horizon is not None:
        return False
    s, other = (mdp.sample_box(PROBES, generator) for _ in range(2))
    other[:, mdp.parameters] = s[:, mdp.parameters]
    found = []
    for at in (s, other):
        u = torch.randn(PROBES, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
        found.append(mdp.discount(at, mdp.act(at, u), mdp.sample_shocks(at, generator)))
    return bool(((found[0] - found[1]).abs() <= SAME * found[0].abs()).all())


@dataclass(frozen=True, kw_only=True)
class ScaledFamily(Family):
    """A family with rewards in the given units."""

    units: RewardUnits

    def theta(self, s: Any) -> Tensor:
        """The parameters (..., P) in the states s, in the order of `over`."""
        return torch.stack([getattr(s, name) for name in self.over], dim=-1)

    def reward(self, s: Any, a: Any) -> Tensor:
        r0, size = self.units.of(self.theta(s))
        return (super().reward(s, a) - r0) / size

    def terminal(self, s: Any) -> Tensor:
        return super().terminal(s) / self.units.of(self.theta(s))[1]

    def consumption_value(self, s: Any, a: Any) -> Tensor | None:
        value = super().consumption_value(s, a)
        return None if value is None else value / self.units.of(self.theta(s))[1]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        one = self.one.to(device, dtype)
        units = self.units.on(MDP(Family(one=one, over=self.over), device, dtype))
        return self.with_fields({"one": one, "units": units})


def scaled(family: Family, device: torch.device, seed: int) -> Family:
    """The family in units of its own; as it is where there are taste shocks, whose scale is in the model's units."""
    mdp = MDP(family, device)
    if mdp.tastes > 0:
        return family
    units = RewardUnits(mdp).find(family, torch.Generator(device).manual_seed(seed))
    return ScaledFamily(one=family.one, over=family.over, units=units)


class ValueInUnits(StateFunction):
    """V = size V~ + r0 / (1 - beta), from a function V~ of the scaled family."""

    def __init__(self, mdp: MDP, kind: str, description: dict[str, Any]) -> None:
        super().__init__(mdp)
        self.description = {"kind": kind, "description": description}
        self.function, self.units = KINDS[kind](mdp, **description), RewardUnits(mdp)

    def describe(self) -> dict[str, Any]:
        return self.description

    def reach(self, known: Box) -> Box:
        return self.function.reach(known)

    def forward(self, s: Tensor) -> Tensor:
        mdp = self.mdp
        theta = s[..., mdp.parameters]
        r0, size = self.units.of(theta)
        at, u = self.units.reference(theta)
        beta = mdp.discount(at, mdp.act(at, u), mdp.nodes[0])
        return size * self.function(s) + r0 / torch.where(self.units.shifts > 0, 1 - beta, 1.0)


def unscaled(family: ScaledFamily, value: StateFunction) -> ValueInUnits:
    """The value of the family itself, from that of the scaled one."""
    mdp = MDP(Family(one=family.one, over=family.over), value.mdp.device, value.mdp.dtype)
    found = ValueInUnits(mdp, type(value).__name__, value.describe())
    found.function.load_state_dict(value.state_dict())
    found.units.load_state_dict(family.units.state_dict())
    return found
