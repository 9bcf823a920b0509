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

    @property
    def spread(self) -> tuple[float, float]:
        """The standard deviations of K and z, to first order; that of K is infinite with constant returns. For i that
        is linear in K and z, with slopes root - 1 and b, in the linearised condition

            phi E[i - beta i'] = beta E[theta z' - fall (K' - 1)],     K' - 1 = K - 1 + i - delta."""
        beta, phi, rho = self.beta, self.phi, self.rho
        fall = (1 - self.theta) * (self.r + self.delta)
        half = (1 + 1 / beta + fall / phi) / 2
        root = 1 / beta / (half + math.sqrt(half**2 - 1 / beta))
        b = beta * self.theta * rho / (phi * (1 - beta * (root - 1 + rho)) + beta * fall)
        std_z = self.sigma / math.sqrt(1 - rho**2)
        if self.theta == 1:
            return math.inf, std_z
        return std_z * b * math.sqrt((1 + root * rho) / (1 - root**2) / (1 - root * rho)), std_z

    def states(self) -> tuple[State, State]:
        """Four standard deviations of z; of K those too, where they are more than half of the steady state. With
        constant returns K has no ergodic distribution."""
        std_K, std_z = self.spread
        wide = 1.0 if self.theta == 1 else max(1.0, 4 * std_K / 0.5)
        return State("K", low=0.5**wide, high=1.5**wide), State("z", low=-4 * std_z, high=4 * std_z)

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
