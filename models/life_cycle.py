"""Saving over a working life and retirement, with permanent and transitory income risk and no borrowing."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, LogNormal, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class LifeCycle(Model):
    """Cash on hand m is relative to permanent income, which grows by G_t psi; T periods, then death without bequest.

        v_t(m) = max_{0 <= c <= m} u(c) + beta E[ (G_t psi)^(1-gamma) v_{t+1}(R/(G_t psi) (m - c) + theta) ]

    While working, G_t = growth, and psi and theta are lognormal with mean one. At retirement income falls to
    `pension` times permanent income for good, and is certain.

    Source: Carroll (1997), "Buffer-stock saving and the life cycle/permanent income hypothesis", QJE 112, with his
    baseline beta, gamma (2), growth and standard deviations; a stylised pension instead of his income profile.
    """

    horizon: int = 60  # periods of life, ages 25 to 84
    retirement: int = 40  # the first period without work
    beta: float = 0.96  # discount factor
    gamma: float = 2.0  # relative risk aversion
    R: float = 1.03  # gross interest
    growth: float = 1.02  # growth of permanent income while working
    sigma_psi: float = 0.1  # standard deviation of the log permanent shock
    sigma_theta: float = 0.1  # standard deviation of the log transitory shock
    pension: float = 0.7  # income in retirement over permanent income

    def states(self) -> State:
        """From below the least income of working life and retirement."""
        return State("m", low=min(0.5, math.exp(-5 * self.sigma_theta), self.pension), high=20.0)

    def actions(self) -> Action:
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self) -> tuple[LogNormal, LogNormal]:
        return LogNormal("psi", std=self.sigma_psi), LogNormal("theta", std=self.sigma_theta)

    def works_next(self, s: Any) -> Tensor:
        return s.t + 1 < self.retirement

    def income_growth(self, s: Any, e: Any) -> Tensor:
        return torch.where(self.works_next(s), self.growth * e.psi, 1.0)

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma)

    def discount(self, s: Any, a: Any, e: Any) -> Tensor:
        return self.beta * self.income_growth(s, e) ** (1 - self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        income = torch.where(self.works_next(s), e.theta, self.pension)
        return {"m": self.R / self.income_growth(s, e) * (s.m - a.c) + income}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": s.m - a.c}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"m": 1.0}
