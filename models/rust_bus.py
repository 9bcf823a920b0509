"""Bus engine replacement: when is an engine too old to be kept?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Choice, Discrete, DiscreteState, MarkovChain, Model, State


@dataclass(frozen=True, kw_only=True)
class RustBus(Model):
    """x is the mileage since the last replacement, in bins of the odometer. Each month the engine is kept, at a cost
    that rises with x, or replaced at the cost RC; the superintendent also sees eps, whatever else speaks for either.

        V(x) = E max{ -theta x / 1000 + sigma eps_0 + beta E V(x + step),  -RC + sigma eps_1 + beta E V(step) }

    with iid extreme values eps, so that the share of engines replaced at x is a logit.

    For methods that take no taste shocks, `tastes` > 0 puts sigma (eps_1 - eps_0), a logistic variable, among the
    states, where it takes so many values: as their number grows, the share that is replaced tends to the logit.

    Source: Rust (1987), "Optimal replacement of GMC bus engines", Econometrica 55. Calibration: Su and Judd (2012),
    "Constrained optimization approaches to estimation of structural models", Econometrica 80, section 5.
    """

    beta: float = 0.975  # discount factor, monthly
    RC: float = 11.7257  # cost of a new engine
    theta: float = 2.4569  # cost of 1000 bins on the odometer, monthly
    steps: tuple[float, ...] = (0.0937, 0.4475, 0.4459, 0.0127, 0.0002)  # probabilities of 0, 1, ... bins a month
    most: float = 174.0  # bins, where the odometer stops
    sigma: float = 1.0  # scale of the taste shocks
    tastes: int = 0  # values of the taste among the states; 0: taste shocks
    widest: float = 8.0  # the largest of these values, over sigma

    def states(self) -> DiscreteState | tuple[State, MarkovChain]:
        """With a taste among the states, mileages may also lie between the bins."""
        if self.tastes == 0:
            return DiscreteState("x", n=int(self.most) + 1)
        return State("x", low=0.0, high=self.most), self.taste

    @property
    def taste(self) -> MarkovChain:
        """Values at equal distances, each with the logistic probability of what is nearest to it; drawn every month."""
        values = torch.linspace(-self.widest, self.widest, self.tastes, dtype=torch.float64)
        below = torch.sigmoid((values[1:] + values[:-1]) / 2)
        probabilities = torch.diff(below, prepend=below.new_zeros(1), append=below.new_ones(1))
        return MarkovChain("taste", self.sigma * values, probabilities.expand(self.tastes, -1))

    def actions(self) -> Choice:
        return Choice("replace", n=2, tastes=self.sigma if self.tastes == 0 else 0.0)

    def shocks(self) -> Discrete:
        return Discrete("step", values=range(len(self.steps)), probabilities=self.steps)

    def reward(self, s: Any, a: Any) -> Tensor:
        taste = s.taste if self.tastes > 0 else 0.0
        return torch.where(a.replace == 1, taste - self.RC, -self.theta * s.x / 1000)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"x": torch.where(a.replace == 1, e.step, s.x + e.step).clamp(max=self.most)}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"x": torch.zeros(n, device=generator.device)}
