"""Perturbations around the steady states of a family's members, and between them polynomials in the parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.smolyak_grid import SmolyakGrid, count_points
from econrl.errors import SolveError
from econrl.family.family import Family
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.perturbation.linear_policy import LinearPolicy, QuadraticValue
from econrl.solvers.perturbation.linearise import linearise
from econrl.solvers.perturbation.steady_state import SteadyState, find_steady_state

MOST_MEMBERS, LOWEST, HIGHEST = 30, 2, 3  # expanded, at most, unless the lowest level has more; levels


class Expansion(StateFunction):
    """Polynomials in the state whose coefficients are Chebyshev polynomials in theta, on a Smolyak grid of theta."""

    coefficients: Tensor

    def __init__(self, mdp: MDP, outputs: int) -> None:
        super().__init__(mdp)
        low, high = mdp.low[mdp.parameters].tolist(), mdp.high[mdp.parameters].tolist()
        fit = [mu for mu in range(LOWEST, HIGHEST + 1) if count_points([mu] * len(low)) <= MOST_MEMBERS]
        self.grid = SmolyakGrid(low, high, [max(fit, default=LOWEST)] * len(low), (), mdp.device, mdp.dtype)
        self.own = [c for c in range(mdp.S) if c not in mdp.parameters]  # the columns of the members' states
        self.register_buffer("coefficients", mdp.low.new_zeros(outputs, self.grid.size))

    def describe(self) -> dict[str, Any]:
        return {}

    def fit(self, values: Tensor) -> None:
        """Take these coefficients (N, outputs) at the points of the grid."""
        self.coefficients.copy_(self.grid.fit(values.T.unsqueeze(1)))

    def split(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The members' states (..., S - P), and the coefficients (..., outputs) at theta."""
        theta = s[..., self.mdp.parameters]
        layer = torch.zeros_like(theta[..., 0]).long()
        return s[..., self.own], self.grid.interpolate(self.coefficients, theta, layer).movedim(0, -1)


class ExpandedPolicy(Expansion):
    """u(s, theta) = b(theta) + U(theta) s, put into the feasible set."""

    def __init__(self, mdp: MDP) -> None:
        super().__init__(mdp, mdp.A * (1 + mdp.S - len(mdp.parameters)))

    def take(self, members: list[LinearPolicy]) -> None:
        """Be these policies at the points of the grid."""
        b = torch.stack([m.u_star - m.U @ m.s_star for m in members])
        self.fit(torch.cat([b, torch.stack([m.U for m in members]).flatten(1)], dim=-1))

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        """u(s, theta), (..., A)."""
        own, x = self.split(s)
        b, U = x[..., : self.mdp.A], x[..., self.mdp.A :].unflatten(-1, (self.mdp.A, -1))
        return b + (U @ own.unsqueeze(-1)).squeeze(-1)


class ExpandedValue(Expansion):
    """V(s, theta) = c(theta) + p(theta) s + 1/2 s' P(theta) s."""

    def __init__(self, mdp: MDP) -> None:
        own = mdp.S - len(mdp.parameters)
        super().__init__(mdp, 1 + own + own**2)

    def take(self, members: list[QuadraticValue]) -> None:
        """Be these values at the points of the grid."""
        p = torch.stack([m.price - m.P @ m.s_star for m in members])
        c = torch.stack([m(torch.zeros_like(m.s_star)) for m in members])
        self.fit(torch.cat([c.unsqueeze(-1), p, torch.stack([m.P for m in members]).flatten(1)], dim=-1))

    def forward(self, s: Tensor) -> Tensor:
        own, x = self.split(s)
        n = own.shape[-1]
        p, P = x[..., 1 : n + 1], x[..., n + 1 :].unflatten(-1, (n, n))
        return x[..., 0] + ((p + (P @ own.unsqueeze(-1)).squeeze(-1) / 2) * own).sum(dim=-1)


def expand(
    mdp: MDP, generator: torch.Generator, look_at_the_clock: Callable[[], None] = lambda: None
) -> tuple[ExpandedPolicy, ExpandedValue]:
    """Expand the members at the points of the grid. Raises SolveError where one has no interior steady state."""
    family = mdp.model
    assert isinstance(family, Family)
    policy, value = ExpandedPolicy(mdp), ExpandedValue(mdp)
    policies, values = [], []
    found: list[tuple[Tensor, SteadyState]] = []
    for theta in policy.grid.mesh():
        member = family.member(dict(zip(family.over, theta.tolist(), strict=True)))
        own = MDP(member, mdp.device, mdp.dtype, mdp.quadrature)
        steady = steady_state_from(mdp, own, theta, found, generator, look_at_the_clock)
        found.append((theta, steady))
        linear, quadratic = linearise(own, steady)
        policies.append(linear)
        values.append(in_units_of(mdp, theta, linear, quadratic))
    policy.take(policies)
    value.take(values)
    return policy, value


def steady_state_from(
    mdp: MDP,
    own: MDP,
    theta: Tensor,
    found: list[tuple[Tensor, SteadyState]],
    generator: torch.Generator,
    look_at_the_clock: Callable[[], None],
) -> SteadyState:
    """The steady state of the member at theta, from that of the nearest member `found`, or else from anywhere."""
    width = (mdp.high - mdp.low)[mdp.parameters]
    if found:
        _, near = min(found, key=lambda pair: float(((pair[0] - theta) / width).norm()))
        with contextlib.suppress(SolveError):  # the nearest may be too far
            return find_steady_state(own, generator, near, look_at_the_clock)
    return find_steady_state(own, generator, look_at_the_clock=look_at_the_clock)


def in_units_of(mdp: MDP, theta: Tensor, policy: LinearPolicy, value: QuadraticValue) -> QuadraticValue:
    """The member's value in the units of the family's rewards, which are those of the member but for a factor and a
    constant, found at the steady state."""
    own, s = policy.mdp, policy.s_star
    a, first = policy(s), mdp.parameters[0]

    def joined(s: Tensor) -> Tensor:
        return torch.cat([s[:first], theta, s[first:]])

    slopes = [
        torch.cat(torch.func.grad(r, argnums=(0, 1))(s, a))
        for r in (lambda s, a: mdp.reward(joined(s), a), lambda s, a: own.reward(s, a))
    ]
    factor = (slopes[0] @ slopes[1]) / (slopes[1] @ slopes[1])
    lifetime = 1 / (1 - own.discount(s, a, own.nodes[0]))
    constant = (mdp.reward(joined(s), a) - factor * own.reward(s, a)) * lifetime
    value.level.copy_(factor * value.level + constant)
    value.price.mul_(factor)
    value.P.mul_(factor)
    return value
