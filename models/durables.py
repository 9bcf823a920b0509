"""Durables with convex costs: a life of consumption and of many durable goods that cannot be sold."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from econrl import Budget, LogNormal, Model, State
from econrl.utility import crra

PUBLISHED = {1: (0.2,), 2: (0.15, 0.2), 3: (0.1, 0.15, 0.2), 8: (0.1, 0.15, 0.19, 0.2, 0.22, 0.25, 0.27, 0.3)}
GROWTH, FADES = 0.02, 0.9  # growth of income after the first period, and the factor on it every period later


@dataclass(frozen=True, kw_only=True)
class Durables(Model):
    """A consumer divides cash m between consumption c, additions to the stocks n_i of D durables, and saving.

        V_t(m, p, n) = max (c^(1-w) prod_i (d_i + least)^(w/D))^(1-gamma) / (1-gamma) + beta E V_{t+1}(m', p', n')
        x_i = (d_i - n_i) + nu (d_i - n_i)^2,     c + sum_i x_i <= m
        m' = R (m - c - sum_i x_i) + income,     p' = p^rho xi,     n'_i = (1 - delta_i) d_i

    What is chosen is how much is spent, x = (c, x_1, ..., x_D); nothing is below zero, so that durables are never sold.
    Income is kappa_t p' psi in working life, with kappa_0 = 1 and kappa_t = kappa_{t-1} (1 + 0.02 0.9^(t-1)), and the
    pension from `retired` on. xi and psi are lognormal with mean one.

    Source: Druedahl and Ropke (2025), "Deep learning algorithms for solving finite-horizon models" (EconDLSolvers),
    model 2. Published: D = 1, 2, 3, 8 with horizon=5, retired=3, and with horizon=30, retired=25. For other D the
    depreciation runs from 0.1 to 0.3 in equal steps.
    """

    D: int = 1  # durables
    horizon: int = 5  # periods of life
    retired: int = 3  # the last periods of work lead to this one; from the next on there is a pension
    beta: float = 1 / 1.01  # discount factor
    gamma: float = 2.0  # relative risk aversion
    w: float = 0.2  # weight of all durables in utility
    least: float = 0.01  # what a durable of which one has nothing is worth
    nu: float = 0.1  # convex cost of additions
    R: float = 1.01  # gross interest
    rho: float = 0.95  # persistence of log permanent income
    sigma_xi: float = 0.1  # standard deviation of its shock
    sigma_psi: float = 0.1  # standard deviation of the log transitory shock
    sigma_0: float = 0.1  # standard deviation of log cash and log income at the start
    pension: float = 0.7  # income in retirement

    @property
    def delta(self) -> Tensor:
        """Depreciation (D,)."""
        rates = PUBLISHED.get(self.D, np.linspace(0.1, 0.3, self.D))
        return torch.as_tensor(rates, dtype=torch.float64)

    @cached_property
    def kappa(self) -> Tensor:
        """The age profile of income (horizon,)."""
        growth = 1 + GROWTH * FADES ** np.arange(self.horizon - 1)
        return torch.as_tensor(np.cumprod([1.0, *growth]))

    def states(self) -> tuple[State, State, State]:
        """Four standard deviations of p and of income, five at the start; wealth and stocks of those three above."""
        later = self.sigma_xi**2 * sum(self.rho ** (2 * t) for t in range(self.horizon - 1))
        variance, first = self.sigma_0**2 + later, 5 * self.sigma_0
        wide = math.exp(max(4 * math.sqrt(variance), first))
        poorest = math.exp(-max(4 * math.sqrt(variance + self.sigma_psi**2), first))
        rich = math.exp(3 * math.sqrt(variance))
        years = max(self.horizon - self.retired, 0) * self.retired / self.horizon
        wanted = self.w / self.D / (1 - self.w) / (self.R - 1 + self.delta) * 1.3 * rich  # at the user cost
        return (
            State("m", low=min(self.pension, poorest), high=rich * (1.5 + 0.6 * years)),
            State("p", low=1 / wide, high=wide),
            State("n", size=self.D, low=tuple((0.06 * (1 - self.delta)).tolist()),
                  high=tuple(((1 - self.delta) * wanted).tolist())),
        )  # fmt: skip

    def actions(self) -> Budget:
        return Budget("x", size=1 + self.D, total=lambda s: s.m)

    def shocks(self) -> tuple[LogNormal, LogNormal]:
        return LogNormal("xi", std=self.sigma_xi), LogNormal("psi", std=self.sigma_psi)

    def stocks(self, s: Any, a: Any) -> Tensor:
        """d (..., D), from d - n + nu (d - n)^2 = x."""
        x = a.x[..., 1:]
        return s.n + 2 * x / (1 + (1 + 4 * self.nu * x).sqrt())

    def basket(self, s: Any, a: Any) -> Tensor:
        """c^(1-w) prod_i (d_i + least)^(w/D)."""
        services = ((self.stocks(s, a) + self.least) ** (self.w / self.D)).prod(-1)
        return a.x[..., 0] ** (1 - self.w) * services

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(self.basket(s, a), self.gamma)

    def consumption_value(self, s: Any, a: Any) -> Tensor:
        """c u_c, so that losses are shares of c."""
        return (1 - self.w) * self.basket(s, a) ** (1 - self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        p = s.p**self.rho * e.xi
        kappa = self.kappa.to(s.p)[s.t.long().clamp(max=self.horizon - 1)]
        income = torch.where(s.t < self.retired, kappa * p * e.psi, self.pension)
        n = (1 - self.delta.to(s.p)) * self.stocks(s, a)
        return {"m": self.R * (s.m - a.x.sum(-1)) + income, "p": p, "n": n}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        stocks = {f"d[{i}]": d for i, d in enumerate(self.stocks(s, a).unbind(-1))}
        return {"c": a.x[..., 0], **stocks, "saving": s.m - a.x.sum(-1)}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        def draw(*shape: int) -> Tensor:
            noise = torch.randn(*shape, generator=generator, device=generator.device)
            return torch.exp(self.sigma_0 * noise - self.sigma_0**2 / 2)

        return {"m": draw(n), "p": draw(n), "n": 0.1 * draw(n, self.D)}
