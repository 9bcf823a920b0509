"""Retirement: how much to save, and when to stop working for good."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, Choice, DiscreteState, LogNormal, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Retirement(Model):
    """A worker with wealth m consumes c, and works for another period or retires for good; working is a burden.

        V_t(m, career) = max_{0 <= c <= m, work} u(c) - delta work career + beta E V_{t+1}(m', career work)
        m' = R (m - c) + y eta work career

    career is 1 for a worker, and 0 in retirement, where the choice has no effect. Every later choice leaves a kink in
    the value of working now, and a jump in consumption.

    Source: Iskhakov, Jorgensen, Rust and Schjerning (2017), "The endogenous grid method for discrete-continuous dynamic
    choice models with (or without) taste shocks", Quantitative Economics 8, section 2.
    """

    horizon: int = 20  # periods of life
    beta: float = 0.98  # discount factor
    gamma: float = 1.0  # relative risk aversion
    delta: float = 1.0  # disutility of work
    R: float = 1.0  # gross interest
    y: float = 20.0  # income from work
    sigma: float = 0.1  # standard deviation of the log income shock

    def states(self) -> tuple[State, DiscreteState]:
        """Up to the income of a whole life."""
        return State("m", low=self.y / 20, high=self.y * self.horizon), DiscreteState("career", n=2)

    def actions(self) -> tuple[Choice, Action]:
        return Choice("work", n=2), Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self) -> LogNormal:
        return LogNormal("eta", std=self.sigma)

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c, self.gamma) - self.delta * a.work * s.career

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        works = a.work * s.career
        return {"m": self.R * (s.m - a.c) + self.y * e.eta * works, "career": works}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": s.m - a.c}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"m": 20 + 30 * torch.rand(n, generator=generator, device=generator.device), "career": torch.ones(n)}
