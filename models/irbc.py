"""The international real business cycle: many countries share risk and build capital with adjustment costs."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl import Budget, Model, Normal, State
from econrl.utility import crra

ITERATIONS, EXACT = 8, 2  # Newton steps for the price of consumption, the last of them differentiated through


@dataclass(frozen=True, kw_only=True)
class IRBC(Model):
    """A planner divides the output of n countries between their consumption and their capital.

        V(k, z) = max  sum_j tau_j c_j^(1 - 1/g_j) / (1 - 1/g_j) + beta E V(k', z')
        sum_j [ e^(z_j) A k_j^zeta + (1-delta) k_j - k'_j - (phi/2) k_j (k'_j/k_j - 1)^2 - c_j ] = 0
        z'_j = rho z_j + sigma (e_j + e)

    with g_j evenly spaced on [0.25, 1]. What the planner chooses is b_j >= 0, what country j's capital gets beyond the
    least allowed: k'_j = (1-delta) k_j if investment is irreversible, half of k_j if not. What nobody gets is consumed,
    and divided so that tau_j c_j^(-1/g_j) is the same everywhere. A is such that k = 1 in the steady state, and the
    weights tau_j such that there all consume the same.

    Source: Brumm and Scheidegger (2017), "Using adaptive sparse grids to solve high-dimensional dynamic models",
    Econometrica 85, after Juillard and Villemot (2011), model A5. The paper prints tau_j = A^(1/g_j), which for
    delta > 0 does not give equal consumption; the weights do not matter for capital.
    """

    n: int = 2  # countries
    irreversible: bool = False  # whether k'_j >= (1-delta) k_j
    beta: float = 0.99  # discount factor
    zeta: float = 0.36  # capital share
    delta: float = 0.01  # depreciation
    phi: float = 0.5  # adjustment cost
    rho: float = 0.95  # persistence of log productivity
    sigma: float = 0.01  # standard deviation of its innovations, the country's own and the common one

    @property
    def A(self) -> float:
        return (1 - self.beta * (1 - self.delta)) / (self.zeta * self.beta)

    @property
    def least(self) -> float:
        """The smallest k'_j / k_j."""
        return 1 - self.delta if self.irreversible else 0.5

    def group_features(self) -> dict[str, dict[str, Tensor]]:
        """g_j, the elasticities of intertemporal substitution."""
        return {"country": {"g": torch.linspace(0.25, 1.0, self.n, dtype=torch.float64)}}

    @property
    def g(self) -> Tensor:
        return self.group_features()["country"]["g"]

    def states(self) -> tuple[State, State]:
        """The source's domain, which grows with the spread of z where that is larger than the source's."""
        rho = min(self.rho, 0.999)  # a random walk has no ergodic distribution
        std_z = math.sqrt(2) * self.sigma / math.sqrt(1 - rho**2)
        wide = max(1.0, 1.2 * std_z / 0.0453 - 0.2)
        return (
            State("k", low=0.8**wide, high=1.2**wide, size=self.n, group="country"),
            State("z", low=-0.15 * wide, high=0.15 * wide, size=self.n, group="country"),
        )

    def actions(self) -> Budget:
        return Budget("b", size=self.n, total=self.free, group="country")

    def shocks(self) -> tuple[Normal, Normal]:
        return Normal("e", std=self.sigma, size=self.n, group="country"), Normal("common", std=self.sigma)

    def output(self, s: Any) -> Tensor:
        return self.A * s.z.exp() * s.k**self.zeta

    def committed(self, s: Any) -> Tensor:
        """What each country's least capital costs."""
        return s.k * (self.least + self.phi / 2 * (self.least - 1) ** 2)

    def free(self, s: Any) -> Tensor:
        """Resources that are not committed."""
        return (self.output(s) + (1 - self.delta) * s.k - self.committed(s)).sum(-1)

    def k_next(self, s: Any, a: Any) -> Tensor:
        """k' from q = what it costs over k: (phi/2) g^2 + g + 1 = q for g = k'/k - 1."""
        excess = (self.committed(s) + a.b) / s.k - 1
        return s.k * (1 + 2 * excess / (1 + (1 + 2 * self.phi * excess).sqrt()))

    def consumption(self, s: Any, a: Any) -> Tensor:
        """c_j = (A - delta) e^(g_j x), where x is such that they sum to what is left."""
        g = self.g
        left = ((self.free(s) - a.b.sum(-1)) / (self.A - self.delta)).log().unsqueeze(-1)
        x = (left - math.log(self.n)) / g.mean()
        for step in range(ITERATIONS):
            if step == ITERATIONS - EXACT:
                x = x.detach()
            weights = (g * x).softmax(-1)
            x = x - ((g * x).logsumexp(-1, keepdim=True) - left) / (weights * g).sum(-1, keepdim=True)
        return (self.A - self.delta) * (g * x).exp()

    def reward(self, s: Any, a: Any) -> Tensor:
        """tau_j = (A - delta)^(1/g_j) makes it (A - delta) u(c_j / (A - delta)), up to a constant where g_j = 1."""
        c = self.consumption(s, a) / (self.A - self.delta)
        return (self.A - self.delta) * crra(c, 1 / self.g).sum(-1)

    def consumption_value(self, s: Any, a: Any) -> Tensor:
        """sum_j tau_j c_j^(1 - 1/g_j)."""
        c = self.consumption(s, a) / (self.A - self.delta)
        return (self.A - self.delta) * (c ** (1 - 1 / self.g)).sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"k": self.k_next(s, a), "z": self.rho * s.z + e.e + e.common.unsqueeze(-1)}

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        investment = self.k_next(s, a) - (1 - self.delta) * s.k
        return {"output": self.output(s).sum(-1), "consumption": self.consumption(s, a).sum(-1),
                "investment": investment.sum(-1)}  # fmt: skip

    def steady_state(self) -> dict[str, Any]:
        """k = 1 everywhere, so that b_j is what keeping it costs beyond the least."""
        spent = 1 - self.least - self.phi / 2 * (self.least - 1) ** 2
        return {"k": [1.0] * self.n, "z": [0.0] * self.n, "b": [spent] * self.n}
