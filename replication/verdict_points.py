"""Where policies are compared with the right answers of `verdict_answers.py`, and how far off they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from verdict_answers import ANSWERS

import econrl
from econrl.problem.mdp import MDP
from econrl.problem.simulate import own_states

POINTS = 100  # on simulations of the right answer, and as many uniform on the domain's inside
EDGE = 0.05  # share of the domain's width that is left out at each of its ends
SMALL = 0.05  # an action that is smaller than this share of its mean, or of a constant range, is measured against that


def named(mdp: MDP, s: Tensor) -> dict[str, np.ndarray]:
    """The states by name, as the spec reads them, from flat ones (n, S)."""
    shown = {}
    for kind, slot in mdp.laid_states:
        read, held = kind.reader(s), slot.read(s)
        shown[slot.name] = (held if read is None else read(held)).numpy().astype(float)
    return shown


@torch.no_grad()
def right_answers(name: str, model: econrl.Model, file: Path, only: tuple[str, ...] = ()) -> pd.DataFrame:
    """Held-out states and the right actions there, a row a state, from `file` or anew; `change` is by how much the
    worst action (of `only` these) changed when the grids were doubled. Rows of a model that has changed are to be
    deleted from `file`."""
    kept = pd.read_csv(file) if file.exists() else pd.DataFrame({"model": []})
    found = kept[kept["model"] == name].dropna(axis=1, how="all")
    if len(found):
        return found
    mdp, generator = MDP(model), torch.Generator().manual_seed(20_261_125)
    coarse, answer = (ANSWERS[type(model).__name__](model, fine) for fine in (1, 2))

    def policy(s: Tensor) -> Tensor:
        right = coarse(named(mdp, s))
        return torch.stack([torch.as_tensor(right[slot.name]).nan_to_num(0.0) for slot in mdp.action_slots], dim=-1)

    visited, _ = own_states(mdp, policy, POINTS, 20, 150, generator)
    box = mdp.sample_box(POINTS, generator)
    columns, middle = mdp.continuous, (mdp.low + mdp.high) / 2
    box[:, columns] = (middle + (1 - 2 * EDGE) * (box - middle))[:, columns]
    inside = torch.cat([visited[mdp.inside(visited)], box])
    points = named(mdp, inside)
    right, rough = answer(points), coarse(points)
    widths = {slot.name: constant_range(kind) for kind, slot in mdp.feasible_set.laid}
    rows = pd.DataFrame({**points, **right}).assign(
        model=name,
        sample=np.where(np.arange(len(inside)) < len(inside) - POINTS, "simulated", "inside"),
        change=max(
            distance(rough[column], right[column], widths.get(column, np.nan)).max() for column in only or right
        ),
    )
    kept = pd.concat([kept[kept["model"] != name], rows], ignore_index=True)
    kept.to_csv(file, index=False, float_format="%.9g")
    return rows


def distance(a: np.ndarray, right: np.ndarray, width: float) -> np.ndarray:
    """|a - a*| / max(|a*|, small), small a share of the mean |a*|, or of the range if that is constant. What is not a
    number counts as infinitely far off; where a* is none, nothing counts."""
    decided = ~np.isnan(right)
    scale = np.nanmean(np.abs(right)) if np.isnan(width) else width
    error = np.abs(a - right) / np.maximum(np.abs(right), max(SMALL * scale, 1e-300))
    return np.where(np.isnan(error), np.inf, error)[decided]


def errors(solution: econrl.Solution, right: pd.DataFrame, value: bool = False) -> dict[str, np.ndarray]:
    """The distance of each action, and of the value where asked, from the right ones, at the points of `right`."""
    mdp = solution.mdp
    points = {slot.name: right[slot.name].to_numpy() for _, slot in mdp.laid_states}
    given = solution.policy(points)
    found = {
        slot.name: distance(given[slot.name].numpy(), right[slot.name].to_numpy(), constant_range(kind))
        for kind, slot in mdp.feasible_set.laid
    }
    if value:
        found["value"] = distance(solution.value(points).numpy(), right["value"].to_numpy(), np.nan)
    return found


def constant_range(action: object) -> float:
    """The width of an action's interval, if both bounds are numbers; else NaN."""
    low, high = getattr(action, "low", None), getattr(action, "high", None)
    numbers = isinstance(low, float | int) and isinstance(high, float | int) and np.isfinite([low, high]).all()
    return high - low if numbers else np.nan
