"""Two assets: liquid money, on which debt is dear, and an illiquid asset that earns more and costs to move."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from econrl import Action, MarkovChain, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class TwoAssets(Model):
    """A household holds b in liquid and k in illiquid assets, earns y, consumes c and deposits d (withdraws, d < 0).

        V(b, k, y) = max_{c, d} u(c) + beta E V(b', k', y')
        a  = b + y - c - d - chi/2 d^2 / (k + floor),     b' = R a where a >= 0, R_borrow a where a < 0,     b' >= -debt
        k' = R_k (k + d) >= 0

    ln y is an AR(1) on n values by Rouwenhorst's method, with mean income one. Debt costs more than cash earns:
    many households hold exactly none, rich ones among them (the "wealthy hand to mouth"). A debt that the lowest income
    cannot bear, (1 - 1/R_borrow) debt > 0.9 min y, is cut to what it can; so are withdrawals that cost more at the
    margin than they bring. beta R_k < 1 keeps wealth finite.

    Source: Kaplan and Violante (2014), "A model of the consumption response to fiscal stimulus payments", Econometrica
    82, and Kaplan, Moll and Violante (2018), "Monetary policy according to HANK", AER 108: its convex cost of deposits,
    here quadratic, in discrete time with periods of a year. The calibration is ours, in the range of theirs.
    """

    beta: float = 0.94  # discount factor
    gamma: float = 2.0  # relative risk aversion
    R: float = 1.01  # gross interest on liquid assets
    R_borrow: float = 1.10  # gross interest on debt
    R_k: float = 1.04  # gross return on illiquid assets
    chi: float = 3.0  # cost of deposits and withdrawals
    floor: float = 1.0  # illiquid assets to which the cost of the poor refers
    debt: float = 0.5  # largest debt
    rho: float = 0.9  # persistence of log income
    sigma: float = 0.2  # standard deviation of its innovation
    n: int = 5  # incomes

    @cached_property
    def chain(self) -> MarkovChain:
        """Income, of mean one."""
        return MarkovChain.rouwenhorst("y", rho=self.rho, sigma=self.sigma, n=self.n)

    @property
    def limit(self) -> float:
        """The largest debt."""
        return min(self.debt, 0.9 * float(self.chain.values[0]) / (1 - 1 / self.R_borrow))

    def states(self) -> tuple[State, State, MarkovChain]:
        """Up to three and ten times the highest income."""
        highest = float(self.chain.values[-1])
        return (
            State("b", low=-self.limit, high=3 * highest),
            State("k", low=0.0, high=10 * highest),
            self.chain,
        )

    def actions(self) -> tuple[Action, Action]:
        return (
            Action("d", low=self.least, high=self.most),
            Action("c", low=0.0, high=lambda s, a: self.left(s, a) + self.limit / self.R_borrow),
        )

    def scale(self, s: Any) -> Tensor:
        """What deposits are compared with, (k + floor) / chi."""
        return (s.k + self.floor) / self.chi

    def least(self, s: Any) -> Tensor:
        """All is withdrawn, or as much as still brings something."""
        return -torch.minimum(s.k, self.scale(s))

    def most(self, s: Any) -> Tensor:
        """The deposit that leaves nothing to consume, d + d^2 / (2 scale) = what there is and can be borrowed."""
        there = s.b + s.y + self.limit / self.R_borrow
        return 2 * there / (1 + (1 + 2 * there / self.scale(s)).sqrt())

    def left(self, s: Any, a: Any) -> Tensor:
        """Liquid assets before consumption."""
        return s.b + s.y - a.d - a.d**2 / (2 * self.scale(s))

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        kept = self.left(s, a) - a.c
        return {"b": torch.where(kept < 0, self.R_borrow * kept, self.R * kept), "k": self.R_k * (s.k + a.d)}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"wealth": s.b + s.k, "cost": a.d**2 / (2 * self.scale(s))}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = torch.rand(2, n, generator=generator, device=generator.device)
        return {"b": draw[0], "k": draw[1], "y": torch.full((n,), self.n // 2)}
