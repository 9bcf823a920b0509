"""Stochastic optimal growth with one sector, the test bed of numerical methods in economics."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from econrl import Action, Model, Normal, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class StochasticGrowth(Model):
    """A planner splits resources between consumption and next period's capital; z = ln productivity is an AR(1).

        V(k, z) = max_c u(c) + beta E V(A e^z k^alpha + (1-delta) k - c, rho z + eps)

    A is such that k = 1 in the deterministic steady state. The domain is the source's, and grows with `spread` where
    that is larger than at the source's calibration.

    Source: Coleman, Lyon, Maliar and Maliar (2021), "Matlab, Python, Julia: What to choose in economics?",
    Computational Economics 58; their calibration and domain.
    """

    beta: float = 0.99  # discount factor
    gamma: float = 2.0  # relative risk aversion
    alpha: float = 0.36  # capital share
    delta: float = 0.02  # depreciation
    rho: float = 0.95  # persistence of log productivity
    sigma: float = 0.01  # standard deviation of its innovation

    @property
    def A(self) -> float:
        return (1 / self.beta - (1 - self.delta)) / self.alpha

    @property
    def spread(self) -> tuple[float, float]:
        """The standard deviations of k and z, to first order: k' - 1 = root (k - 1) + (A - b) z for c that is linear,
        with slopes a = 1/beta - root and b, in the linearised Euler equation

            E[c' - c] = pull (A rho z - (1 - alpha) A (k' - 1)) beta alpha / A,     pull = (A - delta) A / gamma."""
        A, beta = self.A, self.beta
        rho = min(self.rho, 0.999)  # a random walk has no ergodic distribution
        pull = beta * self.alpha * A * (A - self.delta) / self.gamma
        fall = pull * (1 - self.alpha)
        half = (1 + 1 / beta + fall) / 2
        root = 1 / beta / (half + math.sqrt(half**2 - 1 / beta))
        a = 1 / beta - root
        b = ((fall + a) * A - pull * rho) / (1 - rho + fall + a)
        std_z = self.sigma / math.sqrt(1 - rho**2)
        return std_z * abs(A - b) * math.sqrt((1 + root * rho) / (1 - root**2) / (1 - root * rho)), std_z

    def states(self) -> tuple[State, State]:
        std_k, std_z = self.spread  # 0.054 and 0.032 in the source: its domain is narrow, others have 3.5 or 4 of them
        k, z = max(1.0, 2 * std_k / 0.054 - 1), max(1.0, 1.25 * std_z / 0.0321 - 0.25)
        return State("k", low=0.9**k, high=1.1**k), State("z", low=-0.1 * z, high=0.1 * z)

    def actions(self) -> Action:
        return Action("c", low=0.0, high=self.resources)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.sigma)

    def output(self, s: Any) -> Tensor:
        return self.A * s.z.exp() * s.k**self.alpha

    def resources(self, s: Any) -> Tensor:
        return self.output(s) + (1 - self.delta) * s.k

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"k": self.resources(s) - a.c, "z": self.rho * s.z + e.eps}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"output": self.output(s), "investment": self.output(s) - a.c}

    def steady_state(self) -> dict[str, Any]:
        return {"k": 1.0, "z": 0.0, "c": self.A - self.delta}
