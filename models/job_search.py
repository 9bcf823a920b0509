"""Job search: accept a wage for good, or wait for a better one."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Choice, Model, State, Uniform


@dataclass(frozen=True, kw_only=True)
class JobSearch(Model):
    """A worker with the wage offer w takes it and keeps it, or lives on b and draws another offer next period.

        V(w) = max{ w + beta V(w),  b + beta E V(w') },     w' uniform on [lowest, highest]

    She accepts from the reservation wage w* on, at which V is equal for both,

        w* = b + beta / (1 - beta) E[ (w' - w*)^+ ],        V(w) = max(w, w*) / (1 - beta).

    Source: McCall (1970), "Economics of information and job search", QJE 84; Ljungqvist and Sargent (2018), "Recursive
    Macroeconomic Theory", chapter 6. The numbers are ours.
    """

    beta: float = 0.95  # discount factor
    b: float = 0.4  # what an unemployed worker lives on
    lowest: float = 0.0  # wage offered
    highest: float = 1.0  # wage offered

    def states(self) -> State:
        return State("w", low=self.lowest, high=self.highest)

    def actions(self) -> Choice:
        return Choice("accept", n=2)

    def shocks(self) -> Uniform:
        return Uniform("offer", low=self.lowest, high=self.highest)

    def reward(self, s: Any, a: Any) -> Tensor:
        return torch.where(a.accept == 1, s.w, self.b)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"w": torch.where(a.accept == 1, s.w, e.offer)}

    @property
    def reservation_wage(self) -> float:
        """w*. Between the lowest and the highest offer it is the smaller root of a quadratic equation."""
        patience, width = self.beta / (1 - self.beta), self.highest - self.lowest
        never_refused = (self.b + patience * (self.lowest + self.highest) / 2) / (1 + patience)
        if never_refused <= self.lowest:
            return never_refused
        if self.b >= self.highest:
            return self.b
        half = self.highest + width / patience
        return half - math.sqrt(half**2 - self.highest**2 - 2 * width * self.b / patience)

    def exact_policy(self, s: Any) -> dict[str, Tensor]:
        return {"accept": (s.w > self.reservation_wage).to(s.w.dtype)}

    def exact_value(self, s: Any) -> Tensor:
        return s.w.clamp(min=self.reservation_wage) / (1 - self.beta)
