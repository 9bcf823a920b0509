"""Policy errors by dimension on models with a known optimum: what `long_plosser.py` and `rotated_copies.py` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from common import Row
from matplotlib.figure import Figure

import econrl
from econrl.accuracy.held_out import REPORTED_SEED
from econrl.errors import EconrlError
from econrl.problem.mdp import MDP
from econrl.problem.simulate import ergodic_states

ROUNDING = 1e-16  # errors that are smaller are drawn here
POINTS = 2000  # states on a simulation of the exact policy


@torch.no_grad()
def policy_error(solution: econrl.Solution) -> tuple[float, float]:
    """Mean and largest |a - a*| / mean |a*|, over all actions, on a simulation of the exact policy."""
    mdp = MDP(solution.model)
    s, _ = ergodic_states(mdp, mdp.exact_policy, 50, POINTS // 50, 200, torch.Generator().manual_seed(REPORTED_SEED))
    exact = mdp.exact_policy(s)
    error = (solution.policy(s) - exact).abs() / exact.abs().mean(dim=0)
    return float(error.mean()), float(error.max())


def run(model: econrl.Model, key: Row) -> Row:
    """One solve of `model` by the method, within the seconds and with the seed of `key`; its policy error."""
    try:
        solution = econrl.solve(model, key["method"], time_limit=key["limit"], seed=key["seed"], progress=False)
    except EconrlError as failure:
        return {"message": str(failure)}
    mean, largest = policy_error(solution)
    return {"seconds": solution.info["seconds"], "mean": mean, "max": largest, "message": solution.info["message"]}


def draw(results: pd.DataFrame, panels: str, xlabel: str, file: Path, title: Callable[[object], str]) -> None:
    """Mean (lines) and largest errors (dots) against the number of states, a panel for each value of a column."""
    values, methods = (list(dict.fromkeys(results[column])) for column in (panels, "method"))
    figure = Figure(figsize=(4.4 * len(values), 3.8), layout="constrained")
    for panel, value in zip(figure.subplots(1, len(values), sharey=True, squeeze=False)[0], values, strict=True):
        chosen = results[results[panels] == value].dropna(subset=["mean"])
        for i, method in enumerate(methods):
            worst = chosen[chosen["method"] == method].groupby("states")[["mean", "max"]].max().clip(lower=ROUNDING)
            panel.semilogy(
                worst.index, worst["mean"], "o-", color=f"C{i}", linewidth=len(methods) - i, label=f"{method}, mean"
            )
            panel.semilogy(worst.index, worst["max"], "^:", color=f"C{i}", alpha=0.6, label=f"{method}, largest")
        panel.set_xticks(sorted(set(results["states"])))
        panel.set_title(title(value), fontsize="medium")
        panel.set_xlabel(xlabel)
        panel.set_ylabel("policy error, relative" if value == values[0] else "")
        panel.grid(alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)


def summary(results: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The worst of the seeds, a row for each run but for its seed."""
    grouped = results.groupby([*by, "states", "method", "limit"], sort=False)
    return grouped.agg(seeds=("seed", "size"), seconds=("seconds", "max"), mean=("mean", "max"), max=("max", "max"),
                       message=("message", "first")).reset_index()  # fmt: skip
