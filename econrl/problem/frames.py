"""Between an economist's named points and flat tensors: DataFrames, dicts and tensors in, the same kind out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.problem.layout import Slot
from econrl.problem.lottery import draws, taste
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

Points = pd.DataFrame | dict[str, Any] | Tensor
MOST_ROWS, FEWEST = 500, 5  # rows of a default table; values of each continuous state in it
SLICE = 21  # points along one state


def columns_of(layout: list[Slot]) -> list[str]:
    """Column names: k, or x[0], x[1], ... for a vector variable."""
    return [column for slot in layout for column in slot.columns]


def state_columns(mdp: MDP) -> list[str]:
    """The columns of states in tables, where a chain has its values' width."""
    return columns_of(mdp.layout.shown_slots)


def read_points(mdp: MDP, points: Points) -> Tensor:
    """Flat states (..., S) from a DataFrame (a row a point), a dict of arrays, or a flat tensor.

    Raises SpecError for a missing state, a tensor of the wrong width, or a value that a Markov chain or a discrete
    state does not take.
    """
    if isinstance(points, Tensor):
        if points.shape[-1:] != (mdp.S,):
            raise SpecError(f"states must have {mdp.S} columns ({', '.join(state_columns(mdp))}), got {points.shape}")
        return points.to(mdp.device, mdp.dtype)
    if isinstance(points, pd.DataFrame):
        missing = [c for c in state_columns(mdp) if c not in points]
        values = {} if missing else frame_values(mdp, points)
    elif isinstance(points, dict):
        known = [s.name for s in mdp.state_slots]
        missing = [name for name in known if name not in points]
        unknown = [name for name in points if name not in known]
        if unknown:
            raise SpecError(f"{mdp.model.title} has no state {', '.join(unknown)}; it has {', '.join(known)}")
        values = points
    else:
        raise SpecError(f"points must be a DataFrame, a dict or a tensor, got {type(points).__name__}")
    if missing:
        raise SpecError(f"the points lack the state(s) {', '.join(missing)} of {mdp.model.title}")
    parts = []
    for kind, slot in mdp.laid_states:
        given = values[slot.name]
        try:
            value = torch.as_tensor(np.array(given, float) if not isinstance(given, Tensor) else given).to(mdp.low)
        except (TypeError, ValueError) as error:
            raise SpecError(f"the state '{slot.name}' must be numbers, got {given!r}") from error
        value = kind.locate(value)
        parts.append(value if slot.size is not None else value.unsqueeze(-1))
    try:
        batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    except RuntimeError as error:
        lengths = {slot.name: tuple(p.shape[:-1]) for slot, p in zip(mdp.state_slots, parts, strict=True)}
        raise SpecError(f"the points' states do not fit each other; their shapes are {lengths}") from error
    return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts], dim=-1)


def frame_values(mdp: MDP, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """A DataFrame's states by name, (n,) or (n, k)."""
    shown = mdp.layout.shown_slots
    return {v.name: frame[v.name].to_numpy() if v.size is None else frame[v.columns].to_numpy() for v in shown}


def write_actions(mdp: MDP, points: Points, a: Tensor) -> Any:
    """Actions (..., A) in the kind of `points`."""
    if isinstance(points, Tensor):
        return a
    if isinstance(points, pd.DataFrame):
        return pd.DataFrame(a.cpu().numpy(), columns=columns_of(mdp.action_slots), index=points.index)
    return {slot.name: slot.read(a) for slot in mdp.action_slots}


def write_named(points: Points, values: dict[str, Tensor]) -> Any:
    """Named tensors (..., n) in the kind of `points`; for a tensor the only one of them."""
    if isinstance(points, Tensor):
        return next(iter(values.values()))
    if isinstance(points, pd.DataFrame):
        return named_frame(values, len(points)).set_axis(points.index)
    return values


def write_value(points: Points, v: Tensor) -> Any:
    """Values (...) in the kind of `points`: a Series for a DataFrame."""
    return pd.Series(v.cpu().numpy(), index=points.index, name="value") if isinstance(points, pd.DataFrame) else v


def states_frame(mdp: MDP, s: Tensor) -> pd.DataFrame:
    """States (n, S) as columns; Markov chains by value."""
    view = mdp.state(s)
    return named_frame({slot.name: getattr(view, slot.name) for slot in mdp.state_slots}, len(s))


def named_frame(values: dict[str, Any], n: int) -> pd.DataFrame:
    """Named tensors (n,) or (n, k) as columns."""
    columns: dict[str, np.ndarray] = {}
    for name, value in values.items():
        array = torch.as_tensor(value).detach().cpu().expand(n, *torch.as_tensor(value).shape[1:]).numpy()
        columns |= {name: array} if array.ndim == 1 else {f"{name}[{i}]": array[:, i] for i in range(array.shape[1])}
    return pd.DataFrame(columns)


def full_frame(mdp: MDP, policy: Function, s: Tensor, a: Tensor) -> pd.DataFrame:
    """States, actions, outcomes and reward at (n, S), (n, A). Where a choice has taste shocks, its options'
    probabilities follow the actions, and the reward holds the mean of the chosen option's shock."""
    outcomes = mdp.model.outcomes(mdp.state(s), mdp.actions(a))
    choices = [column for column, _ in mdp.choices]
    actions = {v.name: v.read(a).int() if v.start in choices else v.read(a) for v in mdp.action_slots}
    p = {f"{name}_p": value for name, value in probabilities(mdp, policy, s).items()}
    shown = [actions, p, outcomes, {"reward": mdp.flow(s, a) + taste(mdp, policy, s, a)}]
    return pd.concat([states_frame(mdp, s), *(named_frame(values, len(s)) for values in shown)], axis=1)


def probabilities(mdp: MDP, policy: Function, s: Tensor) -> dict[str, Tensor]:
    """The probability of each option of the choice with taste shocks at s (..., S), (..., n), by its name; empty where
    a policy draws nothing."""
    found = draws(mdp, policy)
    if found is None or mdp.alternatives.shocked is None:
        return {}
    return {
        mdp.action_slot(mdp.alternatives.shocked).name: found.probabilities(s)[..., mdp.alternatives.members].sum(
            dim=-1
        )
    }


def profile_table(simulation: pd.DataFrame, quantiles: Sequence[float]) -> pd.DataFrame:
    """Of a table of simulated lives: a row for each variable and period, with mean, std and quantiles over paths."""
    names = [quantile_name(q) for q in quantiles]
    values = simulation.drop(columns=["path", "period", "outside", "t"], errors="ignore").astype(float)
    by = values.groupby(simulation["period"])
    frames = [by.mean(), by.std(ddof=0), *(by.quantile(q) for q in quantiles)]
    rows = pd.MultiIndex.from_product([values.columns, frames[0].index], names=["variable", "period"])
    columns = {name: x.to_numpy().T.ravel() for name, x in zip(["mean", "std", *names], frames, strict=True)}
    return pd.DataFrame(columns, index=rows).reset_index()


def quantile_name(q: float) -> str:
    """q10 for 0.1."""
    return f"q{100 * q:g}"


def default_points(mdp: MDP) -> Tensor:
    """States for a table: a full grid up to 500 points for one to three states, else slices through the middle."""
    if mdp.S <= 3:
        listed = math.prod(int(mdp.high[c] - mdp.low[c]) + 1 for c in range(mdp.S) if c not in mdp.continuous)
        each = 101 if mdp.S == 1 else max(int((MOST_ROWS / listed) ** (1 / max(len(mdp.continuous), 1))), FEWEST)
        each -= (each + 1) % 2  # an odd number, so that the middle of the domain is in the table
        axes = [axis(mdp, c, each) for c in range(mdp.S)]
        return mdp.tensor(list(itertools.product(*(a.tolist() for a in axes))))
    return torch.cat([slice_through(mdp, c, SLICE) for c in range(mdp.S)])


def axis(mdp: MDP, column: int, n: int) -> Tensor:
    """n values of one state over its domain; every value of a Markov chain or of t."""
    low, high = float(mdp.low[column]), float(mdp.high[column])
    if column not in mdp.continuous:
        n = round(high - low) + 1
    return torch.linspace(low, high, n, dtype=mdp.dtype, device=mdp.device)


def middle(mdp: MDP) -> Tensor:
    """The middle of the domain (S,); whole numbers for Markov chains and t."""
    whole = [c for c in range(mdp.S) if c not in mdp.continuous]
    s = (mdp.low + mdp.high) / 2
    s[whole] = s[whole].floor()
    return s


def slice_through(mdp: MDP, column: int, n: int) -> Tensor:
    """States along one column, the others in the middle of the domain."""
    values = axis(mdp, column, n)
    s = middle(mdp).repeat(len(values), 1)
    s[:, column] = values
    return s
