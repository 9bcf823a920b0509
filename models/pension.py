"""A pension account, liquid savings, and when to retire for good."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, Choice, DiscreteState, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Pension(Model):
    """A worker with cash m and pension wealth n consumes c, deposits d, and works on or retires for good next period.

        working:  V_t(m, n) = max u(c) - alpha + beta max{ V_{t+1}(R_a a + y, R_b b),  Q_{t+1}(R_a a + R_b b) }
                  a = m - c - d >= 0,     b = n + d + chi ln(1 + d),     d >= 0
        retired:  Q_t(m) = max u(c) + beta Q_{t+1}(R_a (m - c) + y_ret)

    Deposits earn more, are matched by chi ln(1 + d), and are locked until retirement, when all is paid out. In the last
    period a worker consumes m + n. Nothing is random. career is 1 for a worker and 0 in retirement, where n is zero,
    and neither deposit nor choice has an effect; `work` is the choice for the next period.

    Source: Druedahl and Jorgensen (2017), "A general endogenous grid method for multi-dimensional models with
    non-convexities and constraints", Journal of Economic Dynamics and Control 74; without shocks, as in the notebook
    on G2EGM of ConsumptionSavingNotebooks.
    """

    horizon: int = 20  # periods of life
    beta: float = 0.98  # discount factor
    gamma: float = 2.0  # relative risk aversion
    alpha: float = 0.25  # disutility of work
    R_a: float = 1.02  # gross interest on cash
    R_b: float = 1.04  # gross return of the pension account
    chi: float = 0.1  # what matches deposits
    y: float = 1.0  # income from work
    y_ret: float = 0.5  # income in retirement

    def states(self) -> tuple[State, State, DiscreteState]:
        """Up to twelve years of income in the account; who retires is paid that too."""
        low = 0.2 * min(self.y, self.y_ret)
        return (
            State("m", low=low, high=14 * self.y),
            State("n", low=0.0, high=12 * self.y),
            DiscreteState("career", n=2),
        )

    def actions(self) -> tuple[Choice, Action, Action]:
        return (
            Choice("work", n=2),
            Action("c", low=0.0, high=self.cash),
            Action("d", low=0.0, high=lambda s, a: self.saves(s) * (s.m - a.c)),
        )

    def last(self, s: Any) -> Tensor:
        return s.t >= self.horizon - 1

    def saves(self, s: Any) -> Tensor:
        """One where deposits are open."""
        return torch.where(self.last(s), 0.0, s.career)

    def cash(self, s: Any) -> Tensor:
        return s.m + torch.where(self.last(s), s.career * s.n, 0.0)

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma) - self.alpha * s.career

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        works = a.work * s.career
        kept, account = self.R_a * (self.cash(s) - a.c - a.d), self.account(s, a)
        paid = torch.where(works == 1, self.y, torch.where(s.career == 1, account, self.y_ret))
        return {"m": kept + paid, "n": works * account, "career": works}

    def account(self, s: Any, a: Any) -> Tensor:
        """The pension account at the beginning of the next period."""
        return self.R_b * (s.n + a.d + self.chi * torch.log1p(a.d))

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": self.cash(s) - a.c - a.d}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Workers with half an income to one and a half in cash, and up to one in the account: our choice."""
        draw = torch.rand(2, n, generator=generator, device=generator.device)
        return {"m": self.y * (0.5 + draw[0]), "n": self.y * draw[1], "career": torch.ones(n)}
