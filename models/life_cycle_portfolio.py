"""Saving and the share of stocks over the life cycle, with risky income, risky returns and mortality."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from econrl import Action, LogNormal, Model, State
from econrl.utility import crra

FIRST = 20  # age in period 0
INCOME = (-2.17, 0.1682, -0.0323 / 10, 0.0020 / 100)  # log income, a cubic in age: those with a high school degree
MODE, SPREAD = 86.0, 9.5  # of the age at death


@dataclass(frozen=True, kw_only=True)
class LifeCyclePortfolio(Model):
    """Cash on hand m is relative to permanent income, which grows by G_t psi; the share a of savings is held in stocks.

        v_t(m) = max_{0 <= c <= m, 0 <= a <= 1} u(c) + beta p_t E[ (G_t psi)^(1-gamma) v_{t+1}(m') ]
        m' = (Rf + a (R - Rf)) (m - c) / (G_t psi) + theta

    from age 20 to 99. Up to age 65 log permanent income grows with the published cubic in age, psi and theta are
    lognormal with mean one; then income is the share `pension` of permanent income for good, and certain. R is
    lognormal, so that it cannot be negative, with mean Rf + premium and standard deviation sigma (the source: normal).

    The probability p_t of living on follows Gompertz's law with the modal age at death 86 and dispersion 9.5 years,

        p_t = exp(-(exp((age + 1 - 86) / 9.5) - exp((age - 86) / 9.5))),

    close to life tables of the 1990s, but not the source's table. No bequests.

    Source: Cocco, Gomes and Maenhout (2005), "Consumption and portfolio choice over the life cycle", Review of
    Financial Studies 18; those with a high school degree, standard deviations rounded.
    """

    horizon: int = 80  # periods of life, ages 20 to 99
    retired: int = 46  # the first period without work, age 66
    beta: float = 0.96  # discount factor
    gamma: float = 10.0  # relative risk aversion
    Rf: float = 1.02  # safe gross return
    premium: float = 0.04  # mean excess return of stocks
    sigma: float = 0.157  # standard deviation of their return
    sigma_psi: float = 0.1  # standard deviation of the log permanent shock
    sigma_theta: float = 0.27  # standard deviation of the log transitory shock
    pension: float = 0.68212  # income in retirement over permanent income

    @property
    def survival(self) -> np.ndarray:
        """p_t (horizon,)."""
        age = FIRST + np.arange(self.horizon + 1)
        return np.exp(-np.diff(np.exp((age - MODE) / SPREAD)))

    @property
    def growth(self) -> np.ndarray:
        """G_t (horizon,), from period t to t + 1: one from the last period of work on."""
        t = np.arange(self.horizon)
        log_income = np.polynomial.Polynomial(INCOME)(FIRST + np.arange(self.horizon + 1))
        return np.where(t + 1 < self.retired, np.exp(np.diff(log_income)), 1.0)

    def states(self) -> State:
        """From the worst income, four deviations down, to what one in a hundred has saved."""
        return State("m", low=min(self.pension, math.exp(-4 * self.sigma_theta)), high=40.0)

    def actions(self) -> tuple[Action, Action]:
        return Action("c", low=0.0, high=lambda s: s.m), Action("share", low=0.0, high=1.0)

    def shocks(self) -> tuple[LogNormal, LogNormal, LogNormal]:
        mean = self.Rf + self.premium
        std = math.sqrt(math.log1p((self.sigma / mean) ** 2))
        return (
            LogNormal("R", std=std, mean=mean),
            LogNormal("psi", std=self.sigma_psi),
            LogNormal("theta", std=self.sigma_theta),
        )

    def at(self, profile: np.ndarray, s: Any) -> Tensor:
        """What a profile by period is at the state's."""
        return torch.as_tensor(profile).to(s.m)[s.t.long().clamp(max=self.horizon - 1)]

    def works_next(self, s: Any) -> Tensor:
        return s.t + 1 < self.retired

    def income_growth(self, s: Any, e: Any) -> Tensor:
        return self.at(self.growth, s) * torch.where(self.works_next(s), e.psi, 1.0)

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma)

    def discount(self, s: Any, a: Any, e: Any) -> Tensor:
        return self.beta * self.at(self.survival, s) * self.income_growth(s, e) ** (1 - self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        portfolio = self.Rf + a.share * (e.R - self.Rf)
        income = torch.where(self.works_next(s), e.theta, self.pension)
        return {"m": portfolio / self.income_growth(s, e) * (s.m - a.c) + income}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": s.m - a.c}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(n, generator=generator, device=generator.device)
        return {"m": torch.exp(self.sigma_theta * noise - self.sigma_theta**2 / 2)}
