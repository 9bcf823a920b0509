"""Saving and hours of a household with risky wages and a borrowing limit, at given prices."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from econrl import Action, MarkovChain, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Aiyagari(Model):
    """A household with assets b and productivity e works n hours, consumes c, and may borrow up to `debt`.

        V(b, e) = max_{c, 0 <= n <= 1} u(c) - psi n^(1+1/phi) / (1+1/phi) + beta E V(b', e')
        b' = (1 + r) b + w e n - c >= -debt

    ln e is an AR(1) on `levels` values by Rouwenhorst's method, with mean one. The interest rate r and the wage w are
    given: this is the household's side of an economy whose capital and labour they clear. A debt that the lowest
    productivity could not bear with three quarters of all hours, r debt > 3/4 w min e, is cut to what it could.

    Source: Aiyagari (1994), "Uninsured idiosyncratic risk and aggregate saving", QJE 109, whose beta it has, with r and
    w near his equilibria; hours with a constant Frisch elasticity are added as in Pijoan-Mas (2006), Review of Economic
    Dynamics 9. psi is such that about a third of the time is worked.
    """

    beta: float = 0.96  # discount factor
    gamma: float = 2.0  # relative risk aversion
    psi: float = 30.0  # weight of hours
    phi: float = 0.5  # Frisch elasticity
    r: float = 0.03  # interest rate
    w: float = 1.2  # wage
    debt: float = 0.0  # largest debt
    rho: float = 0.9  # persistence of log productivity
    sigma: float = 0.2  # standard deviation of its innovation
    levels: int = 5  # productivities

    @cached_property
    def chain(self) -> MarkovChain:
        """Productivity, of mean one."""
        return MarkovChain.rouwenhorst("e", rho=self.rho, sigma=self.sigma, n=self.levels)

    @property
    def limit(self) -> float:
        """The largest debt."""
        bearable = 0.75 * self.w * float(self.chain.values[0])
        return min(self.debt, bearable / self.r) if self.r > 0 else self.debt

    def states(self) -> tuple[State, MarkovChain]:
        """Up to twenty times what the most productive earn in a third of their time."""
        return State("b", low=-self.limit, high=20 / 3 * self.w * float(self.chain.values[-1])), self.chain

    def actions(self) -> tuple[Action, Action]:
        """What hours cannot keep above the limit is not on offer: the least hours leave consumption positive."""
        return (
            Action("n", low=self.least_hours, high=1.0),
            Action("c", low=0.0, high=lambda s, a: self.resources(s, a) + self.limit),
        )

    def least_hours(self, s: Any) -> Tensor:
        """Without which the interest on a debt could not be paid."""
        return (-((1 + self.r) * s.b + self.limit) / (self.w * s.e)).clamp(min=0)

    def resources(self, s: Any, a: Any) -> Tensor:
        return (1 + self.r) * s.b + self.w * s.e * a.n

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma) - self.psi * a.n ** (1 + 1 / self.phi) / (1 + 1 / self.phi)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"b": self.resources(s, a) - a.c}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"earnings": self.w * s.e * a.n}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = torch.rand(n, generator=generator, device=generator.device)
        return {"b": 4 * draw, "e": torch.full((n,), self.levels // 2)}
