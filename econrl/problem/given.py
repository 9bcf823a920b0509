"""What a simulation may be given: the states that it begins from, and shocks that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from econrl.errors import MethodError, SpecError
from econrl.problem.frames import Points, columns_of, read_points
from econrl.problem.layout import Slot
from econrl.problem.mdp import MDP

Shocks = pd.DataFrame | dict[str, Any]


def read_initial(mdp: MDP, initial: Points) -> Tensor:
    """States (n, S) to begin from: a DataFrame (a row a path; other columns are left alone), a dict of arrays, or a
    flat tensor. The period of a life cycle is that of birth unless it is given.

    Raises SpecError for what `read_points` refuses, for states that are not finite, and for ages that are none.
    """
    if mdp.horizon is not None and not isinstance(initial, Tensor) and "t" not in initial:
        initial = initial.assign(t=0.0) if isinstance(initial, pd.DataFrame) else {**initial, "t": 0.0}
    s = read_points(mdp, initial).reshape(-1, mdp.S)
    if len(s) == 0:
        raise SpecError("the initial states are empty; give at least one")
    if not s.isfinite().all():
        path, column = (~s.isfinite()).nonzero()[0].tolist()
        raise SpecError(
            f"the initial state '{columns_of(mdp.state_slots)[column]}' of path {path} is missing or infinite"
        )
    if mdp.horizon is not None:
        t = mdp.period(s)
        wrong = ~((t >= 0) & (t < mdp.horizon) & (t == t.round()))
        if wrong.any():
            path = int(wrong.int().argmax())
            raise SpecError(
                f"the initial t of path {path} is {float(t[path]):g}; the periods of {mdp.model.title} are the whole "
                f"numbers from 0 to {mdp.horizon - 1}"
            )
    return s


def read_shocks(mdp: MDP, shocks: Shocks) -> Tensor:
    """Known shocks as flat e (n, T, E), NaN for those that are to be drawn. They are those that lead from a period to
    the next, by the names by which the spec reads them; a Markov chain by its value in the next period.

    A dict has an array (n, T) for each, or (n, T, size) for a vector; a DataFrame has a row for each `path` and
    `period`. Raises SpecError for unknown names, shapes that do not fit, and values that a shock does not take.
    """
    known = mdp.layout.shown_shocks
    if isinstance(shocks, pd.DataFrame):
        named = from_frame(mdp, shocks, known)
    elif isinstance(shocks, dict):
        named = shocks
    else:
        raise SpecError(f"shocks must be a DataFrame or a dict of arrays, got {type(shocks).__name__}")
    unknown = [str(name) for name in named if name not in [slot.name for slot in known]]
    if unknown or not named:
        has = ", ".join(slot.name for slot in known) or "none"
        raise SpecError(f"{mdp.model.title} has no shock {', '.join(unknown) or 'among those given'}; it has: {has}")
    for v in mdp.shock_variables:
        given = [part.name for part in v.parts if part.name in named]
        if given and len(given) < len(v.parts):
            raise SpecError(
                f"the shocks {v.name} are correlated: give all of them, or none, not {', '.join(given)} alone"
            )
    values = {slot.name: numbers(mdp, slot, named[slot.name]) for slot in known if slot.name in named}
    shapes = {name: tuple(value.shape[:2]) for name, value in values.items()}
    if len(set(shapes.values())) > 1:
        raise SpecError(f"the shocks do not fit each other; their paths and periods are {shapes}")
    e = mdp.low.new_full((*next(iter(shapes.values())), mdp.E), torch.nan)
    for slot in mdp.shock_slots:
        if slot.name in values:
            value = mdp.locate_shock(slot.name, values[slot.name])
            e[..., slot.start : slot.stop] = value if slot.size is not None else value.unsqueeze(-1)
    return e


def numbers(mdp: MDP, slot: Slot, given: Any) -> Tensor:
    """One shock (n, T) or (n, T, size)."""
    title = f"the shock '{slot.name}'"
    try:
        value = torch.as_tensor(given if isinstance(given, Tensor) else np.array(given, dtype=float)).to(mdp.low)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{title} must be numbers, got {type(given).__name__}") from error
    wanted = "(paths, periods)" if slot.size is None else f"(paths, periods, {slot.size})"
    if value.ndim != 2 + (slot.size is not None) or (slot.size is not None and value.shape[-1] != slot.size):
        raise SpecError(f"{title} has the shape {tuple(value.shape)}; it must be {wanted}")
    if 0 in value.shape or not value.isfinite().all():
        raise SpecError(f"{title} has missing or infinite values; leave it out where it is to be drawn")
    return value


def from_frame(mdp: MDP, frame: pd.DataFrame, known: list[Slot]) -> dict[str, np.ndarray]:
    """The shocks of a table with a row for each path and period, as arrays by name."""
    for name in ("path", "period"):
        if name not in frame:
            raise SpecError(f"a table of shocks needs a column '{name}': a row is one path in one period")
    paths, periods = frame["path"].nunique(), frame["period"].nunique()
    if len(frame) != paths * periods or frame.duplicated(["path", "period"]).any():
        raise SpecError(f"a table of shocks needs a row for each of its {paths} paths in each of its {periods} periods")
    frame = frame.sort_values(["path", "period"]).drop(columns=["path", "period"])
    values = {}
    for slot in known:
        given = [column for column in slot.columns if column in frame]
        if not given:
            continue
        if len(given) < len(slot.columns):
            raise SpecError(f"a table of shocks lacks {', '.join(c for c in slot.columns if c not in frame)}")
        array = frame[slot.columns].to_numpy(dtype=float).reshape(paths, periods, -1)
        values[slot.name] = array[..., 0] if slot.size is None else array
        frame = frame.drop(columns=slot.columns)
    return {**values, **{str(column): frame[column].to_numpy() for column in frame}}


# How long and how many

PERIODS, PATHS = 200, 1000


def number_of_periods(periods: int | None, known: Tensor | None, horizon: int | None) -> int:
    """The periods to simulate: as many as asked for, or as there are shocks, and no more than a life has. Raises
    MethodError where there are fewer shocks."""
    if periods is not None and (periods != int(periods) or periods < 1):
        raise MethodError(f"simulate needs at least one period, got periods={periods}")
    most = PERIODS if known is None else known.shape[1]
    if known is not None and periods is not None and periods > most:
        raise MethodError(
            f"there are shocks for {most} periods, and periods={periods} was asked for; leave one of them out"
        )
    periods = int(most if periods is None else periods)
    return periods if horizon is None else min(periods, horizon)


def number_of_paths(paths: int | None, begin: Tensor | None, known: Tensor | None) -> int:
    """The paths to simulate, of which initial states (n, S) and shocks (n, T, E) must have as many, if there are any;
    one initial state will do for all. Raises MethodError where they differ."""
    if paths is not None and (paths != int(paths) or paths < 1):
        raise MethodError(f"simulate needs at least one path, got paths={paths}")
    asked = {"paths": paths}
    if known is not None:
        asked["the shocks"] = len(known)
    if begin is not None and len(begin) > 1:
        asked["the initial states"] = len(begin)
    found = {name: n for name, n in asked.items() if n is not None}
    if len(set(found.values())) > 1:
        words = ", ".join(f"{n:,} by {name}" for name, n in found.items())
        raise MethodError(
            f"simulate is asked for different numbers of paths: {words}; one initial state would do for all"
        )
    return int(next(iter(found.values()), PATHS if begin is None else 1))
