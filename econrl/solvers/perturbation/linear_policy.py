"""Linear policies and quadratic values: what a first-order perturbation gives."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction


class LinearPolicy(StateFunction):
    """u(s) = u* + U (s - s*), put into the feasible set."""

    s_star: Tensor
    u_star: Tensor
    U: Tensor

    def __init__(self, mdp: MDP) -> None:
        super().__init__(mdp)
        self.register_buffer("s_star", mdp.low.new_zeros(mdp.S))
        self.register_buffer("u_star", mdp.low.new_zeros(mdp.A))
        self.register_buffer("U", mdp.low.new_zeros(mdp.A, mdp.S))

    def describe(self) -> dict[str, Any]:
        return {}

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        """u(s), (..., A)."""
        return self.u_star + (s - self.s_star) @ self.U.mT


class QuadraticValue(StateFunction):
    """V(s) = level + price (s - s*) + 1/2 (s - s*)' P (s - s*)."""

    s_star: Tensor
    level: Tensor
    price: Tensor
    P: Tensor

    def __init__(self, mdp: MDP) -> None:
        super().__init__(mdp)
        self.register_buffer("s_star", mdp.low.new_zeros(mdp.S))
        self.register_buffer("level", mdp.low.new_zeros(()))
        self.register_buffer("price", mdp.low.new_zeros(mdp.S))
        self.register_buffer("P", mdp.low.new_zeros(mdp.S, mdp.S))

    def describe(self) -> dict[str, Any]:
        return {}

    def forward(self, s: Tensor) -> Tensor:
        d = s - self.s_star
        return self.level + d @ self.price + ((d @ self.P) * d).sum(dim=-1) / 2
