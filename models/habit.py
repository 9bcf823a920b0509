"""Saving with habits: one's own, which one knows will grow with what one consumes, or those of the neighbours."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Action, LogNormal, Model, State
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Habit(Model):
    """A household with cash on hand m cares for consumption relative to a habit h.

        V(m, h) = max_{0 <= c <= m} (c / h^eta)^(1-gamma) / (1-gamma) + beta E V(m', h')
        m' = R (m - c) + y,     internal:  h' = (1 - lam) h + lam c,     external:  h' = (1 - lam) h + lam z

    y is lognormal with mean one. An internal habit is the average of one's own past consumption, and consuming more
    makes one harder to please; an external one is that of others, of which no one's choice changes anything: z is
    lognormal with mean one. eta = 0 is saving without habits.

    Source: Carroll, Overland and Weil (2000), "Saving and growth with habit formation", AER 90, after Abel (1990),
    "Asset prices under habit formation and catching up with the Joneses", AER 80; the household's problem with income
    risk and without borrowing. The calibration is ours.
    """

    internal: bool = True  # whose consumption makes the habit: one's own, or that of others
    beta: float = 0.95  # discount factor
    gamma: float = 3.0  # relative risk aversion
    eta: float = 0.5  # strength of the habit
    lam: float = 0.3  # speed at which it follows consumption
    R: float = 1.03  # gross interest
    sigma_y: float = 0.2  # standard deviation of log income
    sigma_z: float = 0.05  # standard deviation of the others' log consumption

    def states(self) -> tuple[State, State]:
        """Four standard deviations of income down, and wealth of five good years."""
        wide = math.exp(2.5 * self.sigma_y) if self.internal else math.exp(max(6 * self.sigma_z * self.lam, 0.05))
        high = max(2.0, wide) if self.internal else wide
        return (
            State("m", low=math.exp(-4 * self.sigma_y), high=5 * math.exp(2 * self.sigma_y)),
            State("h", low=1 / high, high=high),
        )

    def actions(self) -> Action:
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self) -> tuple[LogNormal, ...]:
        own = LogNormal("y", std=self.sigma_y)
        return (own,) if self.internal else (own, LogNormal("z", std=self.sigma_z))

    def reward(self, s: Any, a: Any) -> Tensor:
        return crra(a.c / s.h**self.eta, self.gamma)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        consumed = a.c if self.internal else e.z
        return {"m": self.R * (s.m - a.c) + e.y, "h": (1 - self.lam) * s.h + self.lam * consumed}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"saving": s.m - a.c}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"m": 1.0, "h": 1.0}
