"""Recursive utility: closed forms at an elasticity of one and for a portfolio, and the benchmark of Caldara et al.

    python replication/recursive.py           limits of 30 to 300 seconds, two seeds
    python replication/recursive.py --fast    the small models, one seed

Errors of the policy and of the value are relative to the closed form; the Euler error is |c*/c - 1| by the first-order
condition. All are log10, at the policy's own states. Writes results/recursive.csv and .md. Runs that the CSV holds
already are not repeated, unless --again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from common import arguments, markdown, measured, parser_of
from torch import Tensor

import econrl
from econrl import Action, Model, Normal, State
from econrl.models import EpsteinZinGrowth, Portfolio
from econrl.utility import EpsteinZin

TEXT = """Errors (log10, at states of the policy's own simulation) of models with recursive utility. `sectors` is Brock
and Mirman's model with n sectors, an elasticity of intertemporal substitution of one and risk aversion 10: each sector
saves alpha beta of its output, and ln V is linear in ln k and z. `portfolio` has psi = 1.5 and five risky assets.
`benchmark` (gamma = 5) and `extreme` (gamma = 40) are the calibrations of Caldara, Fernandez-Villaverde, Rubio-Ramirez
and Yao (2012), which have no closed form."""


@dataclass(frozen=True, kw_only=True)
class Sectors(Model):
    """Output e^z k^alpha of each of n sectors is consumed or becomes its capital; the bundle is the geometric mean.

        ln V = (1-beta) mean ln c_i + beta/(1-gamma) ln E V'^(1-gamma)
             = A + mean(B ln k_i + D z_i),          k_i' = alpha beta e^z_i k_i^alpha

    B = alpha (1-beta)/(1 - alpha beta), D = (1-beta)/((1 - alpha beta)(1 - rho beta)), A = ln(1 - alpha beta)
    + beta/(1-beta) [B ln(alpha beta) + (1-gamma) (D sigma)^2 / 2n].
    """

    n: int = 1  # sectors
    beta: float = 0.96  # discount factor
    alpha: float = 0.36  # capital share
    gamma: float = 10.0  # risk aversion
    rho: float = 0.9  # persistence of log productivity
    sigma: float = 0.02  # its innovation's standard deviation

    def states(self) -> tuple[State, State]:
        k = (self.alpha * self.beta) ** (1 / (1 - self.alpha))
        return State("k", low=0.5 * k, high=2 * k, size=self.n), State("z", low=-0.25, high=0.25, size=self.n)

    def actions(self) -> Action:
        return Action("c", low=0.0, high=self.output, size=self.n)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.sigma, size=self.n)

    def preferences(self) -> EpsteinZin:
        return EpsteinZin(ies=1.0, risk_aversion=self.gamma)

    def output(self, s: Any) -> Tensor:
        return s.z.exp() * s.k**self.alpha

    def reward(self, s: Any, a: Any) -> Tensor:
        return a.c.log().mean(-1).exp()

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"k": self.output(s) - a.c, "z": self.rho * s.z + e.eps}

    def exact_policy(self, s: Any) -> dict[str, Tensor]:
        return {"c": (1 - self.alpha * self.beta) * self.output(s)}

    def exact_value(self, s: Any) -> Tensor:
        beta, saved = self.beta, self.alpha * self.beta
        B, D = self.alpha * (1 - beta) / (1 - saved), (1 - beta) / (1 - saved) / (1 - self.rho * beta)
        risk = (1 - self.gamma) * (D * self.sigma) ** 2 / (2 * self.n)
        A = math.log(1 - saved) + beta / (1 - beta) * (B * math.log(saved) + risk)
        return (A + (B * s.k.log() + D * s.z).mean(-1)).exp()


MODELS = {
    "sectors, n = 1": Sectors(),
    "sectors, n = 20": Sectors(n=20),
    "portfolio": Portfolio(n=5, ies=1.5),
    "benchmark": EpsteinZinGrowth(),
    "extreme": EpsteinZinGrowth.extreme(),
}
METHODS = {"smolyak": econrl.Smolyak(level=5, quadrature=1e-12), "auto": econrl.Auto(), "newton": econrl.Newton()}
WORK = [
    ("sectors, n = 1", "smolyak", 30),
    ("sectors, n = 1", "auto", 30),
    ("sectors, n = 20", "auto", 300),
    ("portfolio", "newton", 120),
    ("benchmark", "auto", 60),
    ("extreme", "auto", 120),
]


def run(key: dict) -> dict:
    """Solve, and measure at the policy's own states."""
    method, model = METHODS[key["method"]], MODELS[key["model"]]
    solution = econrl.solve(model, method, time_limit=key["limit"], seed=key["seed"], progress=False)
    table = solution.accuracy(points=1000)
    own = table[table["sample"] == "ergodic"].set_index("measure")
    found: dict = {"seconds": solution.info["seconds"]}
    for measure in ("policy", "value", "euler"):
        row = own.loc[measure] if measure in own.index else {"mean": math.nan, "max": math.nan}
        found |= {f"{measure} mean": float(row["mean"]), f"{measure} max": float(row["max"])}
    return {**found, "verdict": solution.verdict.word}


def main() -> None:
    given = arguments(parser_of(__doc__, fast="the small models, one seed"))
    work = WORK[:2] if given.fast else WORK
    seeds = [0] if given.fast else [0, 1]
    wanted = [
        {"model": model, "method": method, "limit": limit, "seed": seed}
        for model, method, limit in work
        for seed in seeds
    ]
    results = measured(given.out / "recursive.csv", wanted, run, given.again)
    markdown(given.out / "recursive.md", "Recursive utility", TEXT, [results])


if __name__ == "__main__":
    main()
