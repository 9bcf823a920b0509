"""Durables with fixed costs: a life of consumption and of a house, which is kept or exchanged for another."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from econrl import Action, Budget, Choice, LogNormal, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Housing(Model):
    """A consumer with cash m and D durables n either keeps them all, d = n, or sells all at a loss and buys others.

        V_t(m, p, n) = max over adjust, c, d of  u(c, d) + beta E V_{t+1}(m', p', n')
        u = (c^(1-w) prod_i (d_i + least)^(w/D))^(1-gamma) / (1-gamma)
        keep:    c <= m,  a = m - c                     adjust:  c + sum_i d_i <= m + (1 - fee) sum_i n_i,  a = the rest
        m' = R a + p' psi,     p' = p^rho xi,     n'_i = (1 - delta_i) d_i

    with xi and psi lognormal, of mean one. The fee on all that is owned makes nobody adjust a little: the choice jumps
    where adjusting becomes worth its while, and so do c and d. With D > 1 one decision adjusts them all.

    Source: Druedahl and Ropke (2025), "Deep learning algorithms for solving finite-horizon models" (EconDLSolvers),
    model 3, which has D = 1 and extreme-value taste shocks on the choice, with a variance of 0.01: tastes = 0.078. Here
    there are none unless asked for. For D > 1 the depreciation runs from 0.1 to 0.2 in equal steps.
    """

    D: int = 1  # durables
    horizon: int = 15  # periods of life
    beta: float = 0.965  # discount factor
    gamma: float = 2.0  # relative risk aversion
    w: float = 0.1  # weight of all durables in utility
    least: float = 0.01  # what a durable of which one has nothing is worth
    fee: float = 0.1  # share of the durables that adjusting costs
    R: float = 1.03  # gross interest
    rho: float = 0.95  # persistence of log permanent income
    sigma_xi: float = 0.1  # standard deviation of its shock
    sigma_psi: float = 0.1  # standard deviation of the log transitory shock
    sigma_0: float = 0.1  # standard deviation of log cash and log income at the start
    tastes: float = 0.0  # scale of the taste shocks on keeping and adjusting

    @property
    def delta(self) -> Tensor:
        """Depreciation (D,)."""
        return torch.as_tensor(np.linspace(0.1, 0.2, self.D) if self.D > 1 else [0.15], dtype=torch.float64)

    def states(self) -> tuple[State, State, State]:
        """Four standard deviations of p and of income, five at the start; wealth and stocks of those three above."""
        later = self.sigma_xi**2 * sum(self.rho ** (2 * t) for t in range(self.horizon - 1))
        variance, first = self.sigma_0**2 + later, 5 * self.sigma_0
        wide = math.exp(max(4 * math.sqrt(variance), first))
        poorest = math.exp(-max(4 * math.sqrt(variance + self.sigma_psi**2), first))
        rich = math.exp(3 * math.sqrt(variance))
        wanted = self.w / self.D / (1 - self.w) / (self.R - 1 + self.delta) * 1.5 * rich  # at the user cost
        return (
            State("m", low=poorest, high=2.5 * rich),
            State("p", low=1 / wide, high=wide),
            State("n", size=self.D, low=0.0, high=tuple(wanted.tolist())),
        )

    def actions(self) -> tuple[Choice, Action, Budget]:
        return (
            Choice("adjust", n=2, tastes=self.tastes),
            Action("c", low=0.0, high=self.cash),
            Budget("d", size=self.D, total=lambda s, a: a.adjust * (self.cash(s, a) - a.c)),
        )

    def shocks(self) -> tuple[LogNormal, LogNormal]:
        return LogNormal("xi", std=self.sigma_xi), LogNormal("psi", std=self.sigma_psi)

    def cash(self, s: Any, a: Any) -> Tensor:
        return s.m + a.adjust * (1 - self.fee) * s.n.sum(-1)

    def stocks(self, s: Any, a: Any) -> Tensor:
        """The durables of this period (..., D)."""
        return torch.where(a.adjust.unsqueeze(-1) == 1, a.d, s.n)

    def basket(self, s: Any, a: Any) -> Tensor:
        """c^(1-w) prod_i (d_i + least)^(w/D)."""
        services = ((self.stocks(s, a) + self.least) ** (self.w / self.D)).prod(-1)
        return a.c ** (1 - self.w) * services

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(self.basket(s, a), self.gamma)

    def consumption_value(self, s: Any, a: Any) -> Tensor:
        """c u_c, so that losses are shares of c."""
        return (1 - self.w) * self.basket(s, a) ** (1 - self.gamma)

    def saving(self, s: Any, a: Any) -> Tensor:
        return self.cash(s, a) - a.c - a.d.sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        p = s.p**self.rho * e.xi
        n = (1 - self.delta.to(s.p)) * self.stocks(s, a)
        return {"m": self.R * self.saving(s, a) + p * e.psi, "p": p, "n": n}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        stocks = {f"stock[{i}]": d for i, d in enumerate(self.stocks(s, a).unbind(-1))}
        return {**stocks, "saving": self.saving(s, a)}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=generator.device)

        m, p = torch.exp(self.sigma_0 * normal(2, n) - self.sigma_0**2 / 2)
        return {"m": m, "p": p, "n": 0.01 * normal(n, self.D).abs()}
