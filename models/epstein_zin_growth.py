"""Growth with recursive utility, labour and stochastic volatility: the benchmark of Caldara and coauthors (2012)."""

import math
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from econrl import Action, Model, Normal, State
from econrl.utility import EpsteinZin


@dataclass(frozen=True, kw_only=True)
class EpsteinZinGrowth(Model):
    """A planner chooses consumption c and hours l; z = ln productivity has a volatility e^sigma that is itself random.

        V(k, z, sigma) = max [ (1-beta) u^rho + beta (E V'^(1-gamma))^(rho/(1-gamma)) ]^(1/rho),    rho = 1 - 1/psi
        u = c^nu (1-l)^(1-nu),     k' = (1-delta) k + e^z k^zeta l^(1-zeta) - c
        sigma' = (1-rho_sigma) sigma_bar + rho_sigma sigma + eta omega,     z' = lambda z + e^sigma' eps

    The defaults are the source's benchmark calibration; `EpsteinZinGrowth.extreme()` is its extreme one, gamma = 40.
    nu is such that hours are a third in the deterministic steady state.

    Source: Caldara, Fernandez-Villaverde, Rubio-Ramirez and Yao (2012), "Computing DSGE models with recursive
    preferences and stochastic volatility", Review of Economic Dynamics 15; the domain of capital is theirs.
    """

    beta: float = 0.991  # discount factor, quarterly
    gamma: float = 5.0  # risk aversion
    psi: float = 0.5  # elasticity of intertemporal substitution
    nu: float = 0.362184314170512  # weight of consumption in the bundle
    zeta: float = 0.3  # capital share
    delta: float = 0.0196  # depreciation
    persistence: float = 0.95  # lambda, of log productivity
    volatility: float = 0.007  # e^sigma_bar, its innovation's standard deviation in the mean of logs
    rho_sigma: float = 0.9  # persistence of log volatility
    eta: float = 0.06  # its innovation's standard deviation

    @classmethod
    def extreme(cls) -> Self:
        """The source's extreme calibration."""
        return cls(gamma=40.0, volatility=0.021, eta=0.1)

    @property
    def steady(self) -> tuple[float, float, float]:
        """Capital, hours and consumption where nothing is random."""
        ratio = ((1 / self.beta - 1 + self.delta) / self.zeta) ** (1 / (self.zeta - 1))  # k / l
        consumed = ratio**self.zeta - self.delta * ratio  # c / l
        wage = (1 - self.zeta) * ratio**self.zeta
        hours = 1 / (1 + (1 - self.nu) / self.nu * consumed / wage)
        return ratio * hours, hours, consumed * hours

    def states(self) -> tuple[State, State, State]:
        """Capital as far as the source goes: 40 per cent around the steady state, and from 3 to 32 at the extreme
        calibration, by powers of its volatility in between; four standard deviations of the others."""
        k, _, _ = self.steady
        std_sigma = self.eta / math.sqrt(1 - self.rho_sigma**2)
        std_z = self.volatility * math.exp(std_sigma**2) / math.sqrt(1 - self.persistence**2)
        wide = max(1.0, self.volatility / 0.007)
        sigma_bar = math.log(self.volatility)
        return (
            State("k", low=0.6 ** (wide**0.74) * k, high=1.4 ** (wide**1.17) * k),
            State("z", low=-4 * std_z, high=4 * std_z),
            State("sigma", low=sigma_bar - 4 * std_sigma, high=sigma_bar + 4 * std_sigma),
        )

    def actions(self) -> tuple[Action, Action]:
        return Action("l", low=0.0, high=1.0), Action("c", low=0.0, high=self.resources)

    def shocks(self) -> tuple[Normal, Normal]:
        return Normal("eps"), Normal("omega")

    def preferences(self) -> EpsteinZin:
        return EpsteinZin(ies=self.psi, risk_aversion=self.gamma)

    def output(self, s: Any, a: Any) -> Tensor:
        return s.z.exp() * s.k**self.zeta * a.l ** (1 - self.zeta)

    def resources(self, s: Any, a: Any) -> Tensor:
        return self.output(s, a) + (1 - self.delta) * s.k

    def reward(self, s: Any, a: Any) -> Tensor:
        return a.c**self.nu * (1 - a.l) ** (1 - self.nu)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        sigma = (1 - self.rho_sigma) * math.log(self.volatility) + self.rho_sigma * s.sigma + self.eta * e.omega
        return {
            "k": self.resources(s, a) - a.c,
            "z": self.persistence * s.z + sigma.exp() * e.eps,
            "sigma": sigma,
        }

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return {"output": self.output(s, a), "investment": self.output(s, a) - a.c}

    def steady_state(self) -> dict[str, Any]:
        k, hours, c = self.steady
        return {"k": k, "z": 0.0, "sigma": math.log(self.volatility), "c": c, "l": hours}
