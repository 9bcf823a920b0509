"""An industry of N firms with convex adjustment costs, which meet in one market for what they produce."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from econrl import Action, Model, Normal, State
from econrl.models.investment import Investment
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Firms(Model):
    """Firm j produces y_j = (1 + z_j / price) K_j^theta and chooses its investment rate i_j = I_j / K_j.

        V(K, z) = max_i  S(sum_j y_j) - sum_j [ i_j + (phi/2) (i_j - delta)^2 ] K_j + beta E V(K', z')
        K'_j = (1 - delta + i_j) K_j,     z'_j = rho z_j + eps_j + common

    S(Y) = price n (Y/n)^(1-eta) / (1-eta) is what consumers are willing to pay for Y: its derivative is the price of
    output, price (Y/n)^(-eta), with demand of elasticity 1/eta. The allocation that maximises surplus is that of the
    competitive industry in which each firm maximises its own dividends at the prices it expects (Lucas and Prescott).
    `price` is such that K = 1 and q = 1 in the steady state.

    With eta = 0 a common owner maximises the sum of dividends, and each firm is `Investment` on its own, though all
    share the common shock: one small accurate solution, n times; with constant returns (theta = 1) and iid z (rho = 0)
    Hayashi's closed form, which `exact_policy` gives. With eta > 0 what a firm invests depends on all states. The
    common shock is a part of every z_j, so that there are 2n states.

    Source: Lucas and Prescott (1971), "Investment under uncertainty", Econometrica 39; the technology of Hayashi
    (1982), "Tobin's marginal q and average q", Econometrica 50, and Cooper and Haltiwanger (2006), "On the nature of
    capital adjustment costs", REStud 73, calibrated as `Investment`. eta is a choice of ours.
    """

    n: int = 2  # firms
    eta: float = 0.5  # elasticity of the price to output
    beta: float = 0.96  # discount factor
    theta: float = 0.6  # returns to scale
    delta: float = 0.07  # depreciation
    phi: float = 2.0  # adjustment cost
    rho: float = 0.8  # persistence of the shocks
    sigma: float = 0.01  # standard deviation of a firm's own innovation
    sigma_common: float = 0.01  # standard deviation of the common innovation

    @cached_property
    def firm(self) -> Investment:
        """One firm on its own, at a constant price."""
        own = {name: getattr(self, name) for name in ("beta", "theta", "delta", "phi", "rho")}
        return Investment(**own, sigma=math.hypot(self.sigma, self.sigma_common))

    def states(self) -> tuple[State, State]:
        K, z = self.firm.states()
        return State("K", K.low, K.high, size=self.n), State("z", z.low, z.high, size=self.n)

    def actions(self) -> Action:
        i = self.firm.actions()
        return Action("i", i.low, i.high, size=self.n)

    def shocks(self) -> tuple[Normal, Normal]:
        return Normal("eps", std=self.sigma, size=self.n), Normal("common", std=self.sigma_common)

    def output(self, s: Any) -> Tensor:
        """y_j (..., n); price times it is the profit of `Investment`."""
        return self.firm.profit(s) / self.firm.price

    def surplus(self, s: Any) -> Tensor:
        return self.firm.price * self.n * crra(self.output(s).mean(-1), self.eta)

    def costs(self, s: Any, a: Any) -> Tensor:
        """What each firm pays for its investment, (..., n)."""
        return self.firm.profit(s) - self.firm.reward(s, a)

    def reward(self, s: Any, a: Any) -> Tensor:
        return self.surplus(s) - self.costs(s, a).sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"K": (1 - self.delta + a.i) * s.K, "z": self.rho * s.z + e.eps + e.common.unsqueeze(-1)}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        mean = self.output(s).mean(-1)
        return {"output": self.n * mean, "price": self.firm.price * mean**-self.eta,
                "investment": (a.i * s.K).sum(-1)}  # fmt: skip

    def steady_state(self) -> dict[str, Any]:
        return {"K": 1.0, "z": 0.0, "i": self.delta}

    def exact_policy(self, s: Any) -> dict[str, Tensor] | None:
        return self.firm.exact_policy(s) if self.eta == 0 else None

    def exact_value(self, s: Any) -> Tensor | None:
        values = self.firm.exact_value(s) if self.eta == 0 else None
        return None if values is None else values.sum(-1)
