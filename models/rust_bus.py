"""Bus engine replacement: when is an engine too old to be kept?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Choice, Discrete, MarkovChain, Model, State


@dataclass(frozen=True, kw_only=True)
class RustBus(Model):
    """x is the mileage since the last replacement, in bins of the odometer. Each month the engine is kept, at a cost
    that rises with x, or replaced at the cost RC.

        V(x, taste) = max{ -theta x / 1000 + beta E V(x + step, taste'),  taste - RC + beta E V(step, taste') }

    taste is what speaks for a replacement and is seen by the superintendent alone: the difference of two iid
    extreme-value shocks, a logistic variable, which takes here `tastes` values. As their number grows, the share of
    engines replaced at x tends to Rust's logit.

    Source: Rust (1987), "Optimal replacement of GMC bus engines", Econometrica 55. Calibration: Su and Judd (2012),
    "Constrained optimization approaches to estimation of structural models", Econometrica 80, section 5.
    """

    beta: float = 0.975  # discount factor, monthly
    RC: float = 11.7257  # cost of a new engine
    theta: float = 2.4569  # cost of 1000 bins on the odometer, monthly
    steps: tuple[float, ...] = (0.0937, 0.4475, 0.4459, 0.0127, 0.0002)  # probabilities of 0, 1, ... bins a month
    most: float = 174.0  # bins, where the odometer stops
    tastes: int = 17  # values of the taste shock
    widest: float = 8.0  # the largest of them

    def states(self) -> tuple[State, MarkovChain]:
        return State("x", low=0.0, high=self.most), self.taste

    @property
    def taste(self) -> MarkovChain:
        """Values at equal distances, each with the logistic probability of what is nearest to it; drawn every month."""
        values = torch.linspace(-self.widest, self.widest, self.tastes, dtype=torch.float64)
        below = torch.sigmoid((values[1:] + values[:-1]) / 2)
        probabilities = torch.diff(below, prepend=below.new_zeros(1), append=below.new_ones(1))
        return MarkovChain("taste", values, probabilities.expand(self.tastes, -1))

    def actions(self) -> Choice:
        return Choice("replace", n=2)

    def shocks(self) -> Discrete:
        return Discrete("step", values=range(len(self.steps)), probabilities=self.steps)

    def reward(self, s: Any, a: Any) -> Tensor:
        return torch.where(a.replace == 1, s.taste - self.RC, -self.theta * s.x / 1000)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"x": torch.where(a.replace == 1, e.step, s.x + e.step).clamp(max=self.most)}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"x": torch.zeros(n, device=generator.device)}
