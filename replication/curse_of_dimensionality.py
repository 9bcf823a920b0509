"""Where the curse of dimensionality sets in: error and cost against the number of states, for grids and for `auto`.

    python replication/curse_of_dimensionality.py           1 to 100 states, 30 seconds a run (more by --limit)
    python replication/curse_of_dimensionality.py --fast    1 to 4 states, 10 seconds a run

Writes results/curse_of_dimensionality.csv (a row a run), .png and .md. Runs that the CSV holds already are not
repeated, unless --again. `adaptive` needs `pip install --no-cache-dir ".[sparse]"`.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from common import Row, arguments, markdown, measured, parser_of
from matplotlib.figure import Figure

import econrl
from econrl import Normal, State
from econrl.accuracy.held_out import REPORTED_SEED
from econrl.errors import EconrlError
from econrl.models import IRBC
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.problem.chunks import in_chunks
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER
from econrl.problem.simulate import own_states

DIMENSIONS, FEW = [1, 2, 3, 4, 6, 8, 10, 20, 50, 100], [1, 2, 3, 4]
METHODS = ["perturbation", "vi", "time_iteration", "smolyak", "adaptive", "ddpg", "auto"]
POINTS = 1000
OVERRUN = 3  # times the limit, after which a run is ended
TARGET = 1e-4  # a mean held-out error; the time to it is measured
TEXT = """The international business cycle of `models/irbc.py` with d/2 countries, d states; with d = 1 one country,
whose capital and not its productivity is shocked, with d = 3 two that share one productivity. All policies are judged
at the same states, those of a simulation of the perturbation, by the largest of all countries' unit-free Euler
errors, log10. `seconds to target`: until the mean error at a method's own held-out states was 1e-4. `points`: of the
grid, or numbers that make the policy. `bytes`: of policy and value. `peak`: gigabytes of the process; torch 0.3."""


@dataclass(frozen=True, kw_only=True)
class Alone(IRBC):
    """One country whose productivity is 1, and whose capital comes with a shock: one state."""

    def states(self):
        return State("k", low=0.8, high=1.2, size=self.n, group="country")

    def shocks(self):
        return Normal("quality", std=self.sigma)

    def output(self, s):
        return self.A * s.k**self.zeta

    def transition(self, s, a, e):
        return {"k": self.k_next(s, a) * e.quality.exp().unsqueeze(-1)}

    def steady_state(self):
        return {name: x for name, x in super().steady_state().items() if name != "z"}


@dataclass(frozen=True, kw_only=True)
class Together(IRBC):
    """n countries that share one productivity: n + 1 states."""

    def states(self):
        return State("k", low=0.8, high=1.2, size=self.n, group="country"), State("z", low=-0.15, high=0.15)

    def shocks(self):
        return Normal("common", std=self.sigma * math.sqrt(2))

    def output(self, s):
        return self.A * s.z.unsqueeze(-1).exp() * s.k**self.zeta

    def transition(self, s, a, e):
        return {"k": self.k_next(s, a), "z": self.rho * s.z + e.common}

    def steady_state(self):
        return {**super().steady_state(), "z": 0.0}


def model_of(states: int) -> IRBC:
    if states == 1:
        return Alone(n=1)
    return Together(n=2) if states == 3 else IRBC(n=states // 2)


def run(key: Row) -> Row:
    """One solve in a process of its own, whose memory can be read, and which may be killed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply_async(solve, (key, held_out_states(key["states"]))).get(OVERRUN * key["limit"])
        except multiprocessing.TimeoutError:
            return {"message": f"no answer after {OVERRUN} times the limit"}


@cache
def held_out_states(states: int) -> torch.Tensor:
    """(B, d) of the simulation of the perturbation."""
    mdp = MDP(model_of(states))
    linear = econrl.solve(mdp.model, "perturbation", progress=False).policy_function.on(mdp)
    return own_states(mdp, linear, POINTS, 100, 200, torch.Generator().manual_seed(REPORTED_SEED))[0]


def solve(key: Row, s: torch.Tensor) -> Row:
    """Accuracy at the states s and cost of one method; where it refuses, what it says."""
    torch.set_num_threads(1)
    model = model_of(key["states"])
    try:
        solution = econrl.solve(model, key["method"], time_limit=key["limit"], seed=0, progress=False)
    except EconrlError as refusal:
        return {"message": str(refusal)}
    error = errors(solution, s)
    held_out = solution.training
    reached = held_out.loc[held_out["error"] <= TARGET, "seconds"]
    policy, value = (
        sum(x.numel() for x in f.state_dict().values()) for f in (solution.policy_function, solution.value_function)
    )
    grid = getattr(solution.policy_function, "grid", None)
    return {
        "seconds": solution.info["seconds"],
        "mean": float(error.mean().log10()),
        "max": float(error.max().log10()),
        "seconds to target": float(reached.min()),
        "points": grid.size if grid else policy,
        "bytes": 8 * (policy + value),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "message": solution.info["message"],
    }


def errors(solution: econrl.Solution, s: torch.Tensor) -> torch.Tensor:
    """The largest Euler error (B,) of all countries."""
    mdp = MDP(solution.model, quadrature=FINER)
    policy, structure = solution.policy_function.on(mdp), find_structure(mdp)
    return in_chunks(mdp, lambda s: euler_residuals(mdp, structure, policy, s), s).abs().amax(dim=-1)


def draw(results: pd.DataFrame, limit: float, file: Path) -> None:
    """Error against d, and seconds against d, a line a method; a cross where a method refused for the first time."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, method in enumerate(METHODS):
        chosen = results[results["method"] == method].sort_values("states")
        solved = chosen.dropna(subset=["mean"])
        style = {"color": f"C{i}", "linewidth": 3 if method == "auto" else 1.5}
        left.plot(solved["states"], solved["mean"], "o-", label=method, **style)
        right.plot(solved["states"], solved["seconds"], "o-", **style)
        refused = chosen[chosen["mean"].isna()]
        if len(refused) and len(solved):
            first = refused["states"].min()
            left.plot([solved["states"].max(), first], [solved["mean"].iloc[-1], 0.0], "x:", color=f"C{i}")
    left.set_ylabel("mean Euler error, log10")
    right.set_ylabel("seconds")
    right.set_yscale("log")
    right.axhline(limit, color="grey", linestyle=":")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xticks(sorted(set(results["states"])), [str(d) for d in sorted(set(results["states"]))])
        panel.minorticks_off()
        panel.set_xlabel("states")
        panel.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = parser_of(__doc__, fast="1 to 4 states, 10 seconds a run")
    parser.add_argument("--limit", type=float, help="seconds a run")
    given = arguments(parser)
    limit = given.limit or (10.0 if given.fast else 30.0)
    wanted = [
        {"states": d, "method": method, "limit": limit}
        for d in (FEW if given.fast else DIMENSIONS)
        for method in METHODS
    ]
    results = measured(given.out / "curse_of_dimensionality.csv", wanted, run, given.again)
    draw(results, limit, given.out / "curse_of_dimensionality.png")
    markdown(given.out / "curse_of_dimensionality.md", "Where the curse of dimensionality sets in", TEXT, [results])


if __name__ == "__main__":
    main()
