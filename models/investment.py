"""A firm's investment with convex adjustment costs; with constant returns its value is Tobin's q times capital."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, Model, Normal, State


@dataclass(frozen=True, kw_only=True)
class Investment(Model):
    """A firm with capital K earns (price + z) K^theta, and chooses its investment rate i = I/K.

        V(K, z) = max_i (price + z) K^theta - i K - (phi/2) (i - delta)^2 K + beta E V((1 - delta + i) K, rho z + eps)

    `price` is such that K = 1 is the steady state at q = 1 when productivity is one. With constant returns (theta = 1)
    and iid z (rho = 0), V = v(z) K and i = delta + (q - 1)/phi with a constant q (Hayashi 1982); `exact_policy` is
    given there.

    Source: Hayashi (1982), "Tobin's marginal q and average q", Econometrica 50; the decreasing-returns case as in
    Cooper and Haltiwanger (2006), "On the nature of capital adjustment costs", REStud 73 (theta = 0.592, here 0.6).
    """

    beta: float = 0.96  # discount factor
    theta: float = 0.6  # returns to scale
    delta: float = 0.07  # depreciation
    phi: float = 2.0  # adjustment cost
    rho: float = 0.8  # persistence of the profit shock
    sigma: float = 0.01  # standard deviation of its innovation
    productivity: float = 1.0  # profit over the one at which K = 1 and q = 1 in the steady state

    @property
    def r(self) -> float:
        return 1 / self.beta - 1

    @property
    def price(self) -> float:
        return self.productivity * (self.r + self.delta) / self.theta

    @property
    def q(self) -> float:
        """Marginal q with constant returns and iid z; the smaller root, the other violates transversality."""
        root = (self.phi * self.r) ** 2 + 2 * self.phi * self.r - 2 * self.phi * (self.price - self.delta)
        return 1 + self.phi * self.r - math.sqrt(root)

    def states(self) -> tuple[State, State]:
        wide = 4 * self.sigma / math.sqrt(1 - self.rho**2)
        return State("K", low=0.5, high=1.5), State("z", low=-wide, high=wide)

    def actions(self) -> Action:
        # With constant returns a firm that grows faster than the interest rate has no finite value.
        fastest = self.r if self.theta == 1 else 0.3
        return Action("i", low=self.delta - 0.3, high=self.delta + fastest)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.sigma)

    def profit(self, s: Any) -> Tensor:
        return (self.price + s.z) * s.K**self.theta

    def reward(self, s: Any, a: Any) -> Tensor:
        return self.profit(s) - a.i * s.K - self.phi / 2 * (a.i - self.delta) ** 2 * s.K

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"K": (1 - self.delta + a.i) * s.K, "z": self.rho * s.z + e.eps}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"profit": self.profit(s), "investment": a.i * s.K, "marginal q": 1 + self.phi * (a.i - self.delta)}

    def exact_policy(self, s: Any) -> dict[str, Tensor] | None:
        if self.theta != 1 or self.rho != 0:
            return None
        return {"i": torch.full_like(s.K, self.delta + (self.q - 1) / self.phi)}

    def exact_value(self, s: Any) -> Tensor | None:
        if self.theta != 1 or self.rho != 0:
            return None
        i = self.delta + (self.q - 1) / self.phi
        v = self.price + s.z - i - self.phi / 2 * (i - self.delta) ** 2 + (1 - self.delta + i) * self.q
        return v * s.K
