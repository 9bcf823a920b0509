"""Buffer-stock saving: an impatient consumer, permanent and transitory income risk, no borrowing."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, Discrete, LogNormal, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class BufferStock(Model):
    """Everything is relative to permanent income; m is cash on hand, psi its growth shock, theta transitory income.

        v(m) = max_{0 <= c <= m} u(c) + E[ beta survival (G psi)^(1-gamma) v(R/(G psi) (m - c) + theta) ]

    theta is the replacement income with probability p; otherwise it scales a lognormal so that its mean is one.

    Source: Carroll (2006), "The method of endogenous gridpoints", Economics Letters 91; the calibration of HARK's
    basic infinite-horizon consumer.
    """

    beta: float = 0.96  # discount factor
    survival: float = 0.98  # probability of living on
    gamma: float = 2.0  # relative risk aversion
    R: float = 1.03  # gross interest
    G: float = 1.01  # growth of permanent income
    sigma_psi: float = 0.1  # standard deviation of the log permanent shock
    sigma_theta: float = 0.1  # standard deviation of the log transitory shock
    p: float = 0.05  # probability of unemployment
    replacement: float = 0.3  # income when unemployed

    def states(self) -> State:
        """From the least income up to five times the mean, or three times a large income where that is more."""
        large = self.wage * math.exp(3 * self.sigma_theta)
        return State("m", low=self.replacement, high=max(5.0, 3 * large))

    def actions(self) -> Action:
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self) -> tuple[LogNormal, LogNormal, Discrete]:
        return (
            LogNormal("psi", std=self.sigma_psi),
            LogNormal("xi", std=self.sigma_theta),
            Discrete("employed", values=(0.0, 1.0), probabilities=(self.p, 1 - self.p)),
        )

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma)

    def discount(self, s: Any, a: Any, e: Any) -> Tensor:
        return self.beta * self.survival * (self.G * e.psi) ** (1 - self.gamma)

    @property
    def wage(self) -> float:
        """Such that the mean income is one."""
        return (1 - self.p * self.replacement) / (1 - self.p)

    def income(self, e: Any) -> Tensor:
        return e.employed * self.wage * e.xi + (1 - e.employed) * self.replacement

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"m": self.R / (self.G * e.psi) * (s.m - a.c) + self.income(e)}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": s.m - a.c, "consumed share": a.c / s.m}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"m": 1.0}
