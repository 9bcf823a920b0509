"""The domain of states that leave it out: where the model goes by itself, with room.

It begins from the steady state that the model gives, or from its initial states, and holds the actions' shares
constant: those of the steady state, or the best constant ones and some around these. The policies that are solved for
go elsewhere; `auto` widens a domain that they leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.checks.trial import attempt
from econrl.errors import SpecError
from econrl.problem.domain import as_far_as_sound
from econrl.problem.mdp import MDP
from econrl.problem.simulate import paths
from econrl.problem.steady_state import known_steady_state
from econrl.spec.model import Model
from econrl.spec.variables import StateKind, listed

NARROW = 0.02  # of what states begin from: how far around it the model is tried first
AROUND = (-1.0, 0.0, 1.0)  # log-odds around the best constant shares
PATHS, PERIODS = 200, 150
TAIL, ROOM = 5e-4, 0.5  # quantiles that count, and how far beyond them, over their distance from the median
LEAST, BOUND = 0.1, 0.01  # least room, over the median; share of the states at their smallest value: a bound on them


def open_states(model: Model) -> list[Any]:
    """The states that leave out an end of their domain."""
    declared = listed(attempt(f"{model.title}.states", [model.states], model.states))
    return [v for v in declared if isinstance(v, StateKind) and v.is_open]


@torch.no_grad()
def fit_domain(model: Model, test: Callable[[Model], Any]) -> Model:
    """The model on the smallest domain that holds these paths with room; the ends that it gives are kept.

    `test` is called with the model near the states that it begins from, before it is simulated. Raises SpecError where
    neither `steady_state` nor `initial` gives the states that leave out their domain.
    """
    opened = {v.name: v for v in open_states(model)}
    begin = dict(zip(opened, starts(model, opened), strict=True))
    near = model.with_domain({name: ends(v, *around(begin[name])) for name, v in opened.items()})
    test(near)
    mdp, generator = MDP(near), torch.Generator().manual_seed(0)
    visited = simulated(mdp, generator)
    low, high = mdp.low.clone(), mdp.high.clone()
    for slot in mdp.state_slots:
        if slot.name in opened:
            columns, v = list(slot.indices), opened[slot.name]
            wanted = torch.tensor([reach(visited[:, column]) for column in columns], dtype=mdp.dtype)
            if slot.group is not None:
                wanted = torch.stack([wanted[:, 0].min(), wanted[:, 1].max()]).expand(len(columns), 2)
            if v.low is None:
                low[columns] = wanted[:, 0].minimum(mdp.low[columns])
            if v.high is None:
                high[columns] = wanted[:, 1].maximum(mdp.high[columns])
    found = as_far_as_sound(mdp, low, high, generator)
    return model.with_domain({name: ends(v, *found.get(name, near.domain[name])) for name, v in opened.items()})


def starts(model: Model, opened: dict[str, Any]) -> list[Tensor]:
    """What each of the open states begins from, (N, parts)."""
    steady = attempt(f"{model.title}.steady_state", [model.steady_state], model.steady_state) or {}
    generator = torch.Generator().manual_seed(0)
    drawn = attempt(f"{model.title}.initial", [model.initial], lambda: model.initial(PATHS, generator)) or {}
    unknown = [name for name in opened if name not in {**steady, **drawn}]
    if unknown:
        raise SpecError(
            f"{model.title}: {', '.join(unknown)} leaves out its domain, which cannot be fitted, since neither "
            "`steady_state` nor `initial` gives it; give low and high, or define one of these"
        )
    given = [torch.as_tensor({**drawn, **steady}[name], dtype=torch.float64) for name in opened]
    sizes = [v.size or 1 for v in opened.values()]
    return [x.reshape(-1, n) if x.numel() % n == 0 else x.reshape(-1, 1) for x, n in zip(given, sizes, strict=True)]


def around(start: Tensor) -> tuple[float, float]:
    """A little more than the range of what states begin from."""
    low, high = float(start.min()), float(start.max())
    room = NARROW * (max(abs(low), abs(high)) or 1.0)
    return low - room, high + room


def ends(v: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """Low and high of a state, with those that it gives itself."""
    return low if v.low is None else v.low, high if v.high is None else v.high


def simulated(mdp: MDP, generator: torch.Generator) -> Tensor:
    """Finite states (N, S) of paths along which shares are constant."""
    known, found = known_steady_state(mdp), []
    shares = [known[1]] if known else [best_constant_shares(mdp, generator).u + shift for shift in AROUND]
    for u in shares:
        constant = u.clone()
        for column, n in mdp.choices:
            constant[column] = u[column].round().clamp(0, n - 1)

        def policy(s: Tensor, u: Tensor = constant) -> Tensor:
            return mdp.act(s, u)

        visited, _ = paths(mdp, policy, mdp.sample_initial(PATHS, generator), mdp.horizon or PERIODS, generator)
        found.append(visited.flatten(0, 1))
    every = torch.cat(found)
    return every[every.isfinite().all(dim=-1)]


def reach(x: Tensor) -> tuple[float, float]:
    """The ends for values x (N,): beyond their quantiles, in logarithms where all are positive."""
    positive = bool((x > 0).all())
    at = (x.log() if positive else x).quantile(x.new_tensor([TAIL, 0.5, 1 - TAIL]))
    least = LEAST if positive else LEAST * max(float(at[1].abs()), 1.0)
    below, above = (at[1] - at[0]) * (1 + ROOM), (at[2] - at[1]) * (1 + ROOM)
    low, high = at[1] - below.clamp(min=least), at[1] + above.clamp(min=least)
    low, high = (low.exp(), high.exp()) if positive else (low, high)
    if float((x == x.min()).double().mean()) > BOUND and x.max() > x.min():
        low = x.min()
    return float(low), float(high)
