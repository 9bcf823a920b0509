"""Consumption and portfolio choice with constant relative risk aversion (Samuelson 1969, Merton 1969)."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from econrl import Action, Budget, Discrete, Model, State
from econrl.utility import ADDITIVE, EpsteinZin, Preferences, crra


@dataclass(frozen=True, kw_only=True)
class Portfolio(Model):
    """An investor with wealth W consumes c, and puts shares w of the rest into n risky assets, what is left into a
    safe one; no short sales.

        V(W) = max_{c, w} u(c) + beta E V((W - c)(Rf + sum_i w_i (R_i - Rf)))

    Log returns load on one market and one own factor each. The joint distribution is discrete: 2(n+1) equally likely
    scenarios that match the factors' means and covariances, so that expectations are exact for any n.

    Optimal: w maximises E[R_p^(1-gamma)]/(1-gamma); c = kappa W, kappa = 1 - (beta E[R_p^(1-gamma)])^(1/gamma);
    V = kappa^(-gamma) u(W). With an elasticity of intertemporal substitution psi of its own, utility is recursive:
    w as before; with Theta = E[R_p^(1-gamma)]^(1/(1-gamma)), kappa = 1 - beta^psi Theta^(psi-1) and
    V = (1-beta)^(psi/(psi-1)) kappa^(-1/(psi-1)) W.

    Source: Samuelson (1969), "Lifetime portfolio selection by dynamic stochastic programming", REStat 51; Epstein and
    Zin (1989), Econometrica 57.
    """

    n: int = 2  # risky assets
    beta: float = 0.96  # discount factor
    gamma: float = 5.0  # relative risk aversion
    ies: float | None = None  # psi, the elasticity of intertemporal substitution; None: 1/gamma, additive utility
    Rf: float = 1.02  # safe gross return
    premium: float = 0.04  # average log risk premium; assets differ by up to a tenth of it
    sigma_market: float = 0.15  # standard deviation of the market factor
    sigma_own: float = 0.15  # standard deviation of an asset's own factor

    @property
    def scenarios(self) -> np.ndarray:
        """Gross returns (2(n+1), n) of the risky assets."""
        axes = np.sqrt(self.n + 1) * np.vstack([np.eye(self.n + 1), -np.eye(self.n + 1)])
        premia = self.premium * np.linspace(0.9, 1.1, self.n) if self.n > 1 else np.array([self.premium])
        return self.Rf * np.exp(premia + self.sigma_market * axes[:, :1] + self.sigma_own * axes[:, 1:])

    def states(self) -> State:
        return State("W", low=0.5, high=2.0)

    def actions(self) -> tuple[Action, Budget]:
        return Action("c", low=0.0, high=lambda s: s.W), Budget("w", size=self.n, total=1.0)

    def shocks(self) -> Discrete:
        count = 2 * (self.n + 1)
        return Discrete("R", values=self.scenarios, probabilities=[1 / count] * count)

    def preferences(self) -> Preferences:
        return ADDITIVE if self.ies is None else EpsteinZin(ies=self.ies, risk_aversion=self.gamma)

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma) if self.ies is None else a.c

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        portfolio = self.Rf + (a.w * (e.R - self.Rf)).sum(-1)
        return {"W": (s.W - a.c) * portfolio}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"safe share": 1 - a.w.sum(-1)}

    @cached_property
    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Optimal shares w (n,) and the optimal portfolio's gross returns in each scenario."""
        excess = self.scenarios - self.Rf

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            returns = self.Rf + excess @ w
            if self.gamma == 1:
                return -np.log(returns).mean(), -(excess / returns[:, None]).mean(axis=0)
            power = 1 - self.gamma
            return -(returns**power).mean() / power, -(excess * returns[:, None] ** -self.gamma).mean(axis=0)

        start = np.full(self.n, 0.5 / self.n)
        budget = {"type": "ineq", "fun": lambda w: 1 - w.sum(), "jac": lambda w: -np.ones(self.n)}
        found = minimize(
            loss, start, jac=True, method="SLSQP", bounds=[(0, 1)] * self.n, constraints=budget,
            options={"ftol": 1e-16, "maxiter": 1000},
        )  # fmt: skip
        return found.x, self.Rf + excess @ found.x

    @property
    def kappa(self) -> float | None:
        """The propensity to consume out of wealth; None where the value is infinite, beta E[R_p^(1-gamma)] >= 1."""
        psi = self.ies or 1 / self.gamma
        kappa = 1 - self.beta**psi * self.certain_return ** (psi - 1)
        return kappa if kappa > 0 else None

    @property
    def certain_return(self) -> float:
        """Theta, the return that is as good if it is certain."""
        _, returns = self.optimum
        if self.gamma == 1:
            return float(np.exp(np.log(returns).mean()))
        return float((returns ** (1 - self.gamma)).mean() ** (1 / (1 - self.gamma)))

    @property
    def worth_of_wealth(self) -> float:
        """V/W where utility is recursive; its limit at psi = 1."""
        assert self.ies is not None
        assert self.kappa is not None
        beta, psi = self.beta, self.ies
        if psi == 1:
            return (1 - beta) * (beta * self.certain_return) ** (beta / (1 - beta))
        return (1 - beta) ** (psi / (psi - 1)) * self.kappa ** (-1 / (psi - 1))

    def exact_policy(self, s: Any) -> dict[str, Tensor] | None:
        if self.kappa is None:
            return None
        w, _ = self.optimum
        return {"c": self.kappa * s.W, "w": torch.as_tensor(w).to(s.W).expand(*s.W.shape, self.n)}

    def exact_value(self, s: Any) -> Tensor | None:
        if self.kappa is None:
            return None
        if self.ies is not None:
            return self.worth_of_wealth * s.W
        if self.gamma != 1:
            return self.kappa**-self.gamma * crra(s.W, self.gamma)
        _, returns = self.optimum
        B = 1 / (1 - self.beta)
        A = (math.log(1 - self.beta) + self.beta * B * (math.log(self.beta) + np.log(returns).mean())) * B
        return A + B * s.W.log()
