"""Stochastic optimal growth with one sector, the test bed of numerical methods in economics."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from econrl import Action, Model, Normal, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class StochasticGrowth(Model):
    """A planner splits resources between consumption and next period's capital; z = ln productivity is an AR(1).

        V(k, z) = max_c u(c) + beta E V(A e^z k^alpha + (1-delta) k - c, rho z + eps)

    A is such that k = 1 in the deterministic steady state.

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

    def states(self) -> tuple[State, State]:
        return State("k", low=0.9, high=1.1), State("z", low=-0.1, high=0.1)

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
