"""Brock and Mirman (1972): stochastic growth with log utility and full depreciation, solved in closed form."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from econrl import Action, Model, Normal, State
from econrl.utility import RiskSensitive


@dataclass(frozen=True, kw_only=True)
class BrockMirman(Model):
    """A planner splits output e^z k^alpha between consumption and next period's capital; z = ln productivity is iid.

        V(k, z) = max_c ln c + beta E V(e^z k^alpha - c, z')

    Optimal: k' = alpha beta e^z k^alpha, and V = A + B ln k + D z. So it is with recursive utility of the same
    elasticity of intertemporal substitution, one, and any risk aversion, which moves A alone:

        V(k, z) = max_c ln c + beta/kappa ln E exp(kappa V(e^z k^alpha - c, z')),   kappa = (1-beta)(1-risk_aversion)

    Source: Brock and Mirman (1972), "Optimal economic growth and uncertainty: the discounted case", J. Econ. Theory 4.
    """

    beta: float = 0.96  # discount factor
    alpha: float = 0.36  # capital share
    sigma: float = 0.1  # standard deviation of log productivity
    risk_aversion: float = 1.0  # with one, utility is additive

    @property
    def k_ss(self) -> float:
        return (self.alpha * self.beta) ** (1 / (1 - self.alpha))

    def states(self) -> tuple[State, State]:
        """Three standard deviations; ln k is an AR(1) with coefficient alpha."""
        wide = max(1.0, 3 * self.sigma / math.sqrt(1 - self.alpha**2) / math.log(1.5))
        return (
            State("k", low=0.5**wide * self.k_ss, high=1.5**wide * self.k_ss),
            State("z", low=-3 * self.sigma, high=3 * self.sigma),
        )

    def actions(self) -> Action:
        return Action("c", low=0.0, high=self.output)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.sigma)

    def output(self, s: Any) -> Tensor:
        return s.z.exp() * s.k**self.alpha

    def preferences(self) -> RiskSensitive:
        return RiskSensitive((1 - self.beta) * (self.risk_aversion - 1))

    def reward(self, s: Any, a: Any) -> Tensor:
        return a.c.log()

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"k": self.output(s) - a.c, "z": e.eps}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"output": self.output(s), "investment": self.output(s) - a.c}

    def steady_state(self) -> dict[str, Any]:
        return {"k": self.k_ss, "z": 0.0, "c": self.k_ss**self.alpha - self.k_ss}

    def exact_policy(self, s: Any) -> dict[str, Tensor]:
        return {"c": (1 - self.alpha * self.beta) * self.output(s)}

    def exact_value(self, s: Any) -> Tensor:
        ab = self.alpha * self.beta
        D = 1 / (1 - ab)
        B = self.alpha * D
        risk = (1 - self.beta) * (1 - self.risk_aversion) * (D * self.sigma) ** 2 / 2
        A = (math.log(1 - ab) + self.beta * (B * math.log(ab) + risk)) / (1 - self.beta)
        return A + B * s.k.log() + D * s.z
