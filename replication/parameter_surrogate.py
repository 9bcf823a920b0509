"""One solve over a range of parameters, gamma and beta of stochastic growth, against separate solves.

    python replication/parameter_surrogate.py           300 seconds for the one solve, 18 separate ones
    python replication/parameter_surrogate.py --fast    30 seconds, 6 separate solves

Writes results/parameter_surrogate.csv (a row for each method and model), .png and .md. Runs that the CSV holds already
are not repeated, unless --again.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
import torch
from common import Row, arguments, markdown, measured, parser_of
from matplotlib.figure import Figure

import econrl
from econrl.accuracy.error_table import measure
from econrl.accuracy.held_out import REPORTED_SEED
from econrl.models import StochasticGrowth
from econrl.problem.simulate import own_states

OVER = {"gamma": (1.0, 5.0), "beta": (0.9, 0.99)}
POINTS = 5000  # states on a simulation of each solution of its own

TEXT = """gamma from 1 to 5 and beta from 0.9 to 0.99 in one solve; its member at (gamma, beta) is compared with a solve
of that model alone, by `auto`, which is the endogenous grid method here. Worst and mean over the models in the CSV,
log10: the mean Euler error of the family's members, each on its own simulation (`largest`: at any state); `gap`, the
mean of |c - c*| over the mean of |c*|, between a member's policy and the separate one, on the latter's simulation; the
mean Bellman error; the mean Euler error of the separate solutions. `seconds`: of the one solve, and of all separate
solves together."""


@cache
def family(method: str, limit: float) -> econrl.Solution:
    return econrl.solve(StochasticGrowth(), method, over=OVER, time_limit=limit, progress=False)


@cache
def alone(gamma: float, beta: float) -> econrl.Solution:
    return econrl.solve(StochasticGrowth(gamma=gamma, beta=beta), progress=False)


@torch.no_grad()
def own_errors(solution: econrl.Solution) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The states of its own simulation, and its errors there."""
    generator = torch.Generator().manual_seed(REPORTED_SEED)
    s, _ = own_states(solution.mdp, solution.policy, POINTS, 100, 200, generator)
    return s, measure(solution.mdp, solution.structure, solution.policy, solution.value, s)


def run(key: Row) -> Row:
    """The family's member and the separate solution at one gamma and beta."""
    whole, one = family(key["method"], key["limit"]), alone(key["gamma"], key["beta"])
    member = whole.at(gamma=key["gamma"], beta=key["beta"])
    _, errors = own_errors(member)
    s, separate = own_errors(one)
    c = one.policy(s)
    gap = (member.policy(s) - c).abs().mean() / c.abs().mean()
    found = {
        "family": errors["euler"].mean(),
        "family max": errors["euler"].max(),
        "family bellman": errors["bellman"].mean(),
        "separate": separate["euler"].mean(),
        "separate max": separate["euler"].max(),
        "gap": gap,
    }
    seconds = {"seconds": whole.info["seconds"], "separate seconds": one.info["seconds"]}
    return {**{name: float(error.log10()) for name, error in found.items()}, **seconds}


def draw(results: pd.DataFrame, file: Path) -> None:
    """Errors against gamma, a panel for each method, a colour for each beta."""
    methods = list(dict.fromkeys(results["method"]))
    figure = Figure(figsize=(1.6 + 4.2 * len(methods), 3.8), layout="constrained")
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for panel, method in zip(panels, methods, strict=True):
        chosen = results[results["method"] == method]
        for i, (beta, rows) in enumerate(chosen.groupby("beta")):
            rows = rows.sort_values("gamma")
            for column, style in (("family", "o-"), ("gap", "s--"), ("separate", ":")):
                label = f"{column}, beta = {beta:g}"
                panel.plot(rows["gamma"], rows[column], style, color=f"C{i}", markersize=4, label=label)
        panel.set_title(f"{method}, one solve of {chosen['seconds'].iloc[0]:.0f} seconds", fontsize="medium")
        panel.set_xlabel("gamma")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean error, log10")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Worst and mean over the models, a row for each method."""
    grouped = results.groupby(["method", "limit"], sort=False)
    return grouped.agg(
        **{
            "models": ("gamma", "size"),
            "worst": ("family", "max"),
            "mean": ("family", "mean"),
            "largest": ("family max", "max"),
            "worst gap": ("gap", "max"),
            "worst Bellman": ("family bellman", "max"),
            "worst separate": ("separate", "max"),
            "seconds": ("seconds", "first"),
            "separate seconds": ("separate seconds", "sum"),
        }
    ).reset_index()


def main() -> None:
    given = arguments(parser_of(__doc__, fast="30 seconds, 6 separate solves"))
    limit = 30.0 if given.fast else 300.0
    gammas = [1.0, 2.7, 5.0] if given.fast else [1.0, 1.6, 2.3, 3.3, 4.2, 5.0]
    betas = [0.9, 0.99] if given.fast else [0.9, 0.95, 0.99]
    wanted = [
        {"method": method, "gamma": gamma, "beta": beta, "limit": limit}
        for method in ("auto", "smolyak")
        for gamma in gammas
        for beta in betas
    ]
    results = measured(given.out / "parameter_surrogate.csv", wanted, run, given.again)
    draw(results, given.out / "parameter_surrogate.png")
    table = summary(results)
    markdown(given.out / "parameter_surrogate.md", "One solve over a range of parameters", TEXT, [table])
    print(f"\n{table.round(2).to_string(index=False)}")


if __name__ == "__main__":
    main()
