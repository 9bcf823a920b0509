"""Pictures of a solution."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from econrl.problem import diagnose
from econrl.problem import frames as tables
from econrl.problem.mdp import MDP

MOST_PANELS = 4  # actions, and states, drawn
MOST_PROFILES, WIDE = 24, 4  # variables drawn by period, and how many of them side by side


@torch.no_grad()
def plot_solution(solution: Any) -> Any:
    """A matplotlib figure: actions (rows) against states (columns), the other states in the middle of the domain, with
    the closed form where there is one; below, the held-out error over the run."""
    from matplotlib.figure import Figure

    mdp = solution.mdp
    states, actions = tables.columns_of(mdp.state_slots), tables.columns_of(mdp.action_slots)
    columns, rows = min(len(states), MOST_PANELS), min(len(actions), MOST_PANELS)
    figure = Figure(figsize=(1.5 + 3.2 * max(columns, 2), 0.8 + 2.4 * (rows + 1)), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns)
    title = f"{solution.name}: policy by {solution.info['method']}"
    if len(states) > 1:
        title += "\nother states at " + diagnose.describe(mdp, tables.middle(mdp)).removeprefix("state ")
    figure.suptitle(title, fontsize="medium")
    chains = dict(zip(mdp.chain_columns, mdp.chains, strict=True))
    for j in range(columns):
        s = tables.slice_through(mdp, j, 101)
        found, exact = solution.policy_function(s), mdp.exact_policy(s)
        for i in range(rows):
            panel = figure.add_subplot(grid[i, j])
            separate = j not in mdp.continuous and len(s) < 30  # a chain's states, or periods
            panel.plot(s[:, j], found[:, i], "o" if separate else "-", color="tab:blue", label="found")
            if exact is not None:
                panel.plot(s[:, j], exact[:, i], "x" if separate else "--", color="tab:orange", label="exact")
            if j in chains:
                panel.set_xticks(range(len(s)), [diagnose.show(value) for value in chains[j].table])
            panel.set_xlabel(states[j])
            panel.margins(y=0.15)
            if j == 0:
                panel.set_ylabel(actions[i])
            if exact is not None and i == j == 0:
                panel.legend(frameon=False)
            flat = float((found[:, i].max() - found[:, i].min()) / found[:, i].abs().max().clamp(min=1e-12))
            if flat < 0.01:  # do not blow up the last digits of a constant
                level = float(found[:, i].mean())
                panel.set_ylim(level - 0.1 * abs(level) - 1e-9, level + 0.1 * abs(level) + 1e-9)
    panel = figure.add_subplot(grid[rows, :])
    panel.semilogy(solution.training["seconds"], solution.training["error"], ".-", color="tab:green")
    panel.set_xlabel("seconds")
    panel.set_ylabel("held-out error")
    panel.grid(alpha=0.3)
    return figure


def plot_profiles(solution: Any, table: pd.DataFrame, paths: int) -> Any:
    """A matplotlib figure of a table of `Solution.profiles`: a panel for each variable, with its mean, its median and
    bands between its outer quantiles by period; of whole numbers, as choices, the mean alone."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(table["variable"]))
    shown = names[:MOST_PROFILES]
    columns = min(len(shown), WIDE)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.0 + 3.2 * columns, 0.8 + 2.4 * rows), layout="constrained")
    left_out = f" (the first {len(shown)} of {len(names)} variables)" if len(shown) < len(names) else ""
    figure.suptitle(f"{solution.name}: {paths:,} lives by {solution.info['method']}{left_out}", fontsize="medium")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    whole = set(whole_numbers(solution.mdp))
    handles: dict[str, Any] = {}
    for panel, name in zip(panels, shown, strict=False):
        draw_profile(panel, table[table["variable"] == name], name in whole, handles)
        panel.set_title(name, fontsize="medium")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.grid(alpha=0.3)
    for i, panel in enumerate(panels):
        if i >= len(shown):
            panel.set_axis_off()
        elif i + columns >= len(shown):  # the lowest of its column
            panel.set_xlabel("period")
            panel.tick_params(labelbottom=True)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def draw_profile(panel: Any, profile: pd.DataFrame, whole: bool, handles: dict[str, Any]) -> None:
    """One variable's rows on a panel; what its lines mean goes into `handles`."""
    period = profile["period"]
    quantiles = [] if whole else sorted((c for c in map(str, profile) if c.startswith("q")), key=lambda c: float(c[1:]))
    alpha = 0.2
    while len(quantiles) > 1:
        low, *quantiles, high = quantiles
        band = panel.fill_between(period, profile[low], profile[high], color="tab:blue", alpha=alpha, linewidth=0)
        alpha += 0.15
        handles[f"{low[1:]} to {high[1:]} per cent"] = band
    for name in quantiles:
        (handles["median" if name == "q50" else name],) = panel.plot(period, profile[name], color="tab:blue")
    (handles["mean"],) = panel.plot(period, profile["mean"], "--", color="tab:orange")
    if whole:
        top = max(1.0, profile["mean"].max())
        panel.set_ylim(-0.05 * top, 1.05 * top)


def whole_numbers(mdp: MDP) -> list[str]:
    """The columns of choices and of states that are numbers of a value: their quantiles jump."""
    choices = {column for column, _ in mdp.choices}
    states = [slot.name for kind, slot in mdp.laid_states if kind.count is not None and not kind.by_itself]
    return states + [slot.name for slot in mdp.action_slots if slot.start in choices]
