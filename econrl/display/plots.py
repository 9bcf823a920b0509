"""Pictures of a solution."""

from __future__ import annotations

from typing import Any

import torch

from econrl.problem import diagnose
from econrl.problem import frames as tables

MOST_PANELS = 4  # actions, and states, drawn


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
