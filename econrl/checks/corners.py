"""The corners of the domain: values that are infinite or NaN there, whatever is done.

Random states never lie on the edge of the domain, and grids always have points there: a state without income and
wealth, m = 0 with c in [0, 0], is worth -infinity, and so is every state from which it can be reached on a grid.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from econrl.checks.trial import Trial
from econrl.checks.value import LEVELS
from econrl.problem.diagnose import describe

MOST_CORNERS = 64  # all of six states; of more, as many drawn at random
LAYERS = 4  # draws of chains, discrete states and periods at each corner
TRIES = 10  # actions at each corner: five shares, the same for all, and five draws
INWARDS = 0.01  # how far into the domain a state is moved to see whether that mends it


def check_corners(trial: Trial) -> list[str]:
    """Warn of a corner of the domain at which reward, transition, discount or terminal is infinite or NaN at every
    feasible action tried, but not a little further in. All actions tried lie between the bounds: on a bound itself, as
    at c = 0, a reward may be infinite. A whole part of the domain that leaves no choice is the author's affair.
    """
    s = corners(trial)
    found = []
    for function, wrong in broken(trial, s).items():
        further_in = moved_inwards(trial, s[wrong])
        mended = ~broken(trial, further_in.flatten(0, 1))[function].reshape(further_in.shape[:2])
        if mended.any():
            i = int(mended.any(dim=-1).int().argmax())
            found.append(in_words(trial, function, s[wrong][i], mended[i]))
    return found


def corners(trial: Trial) -> Tensor:
    """States (N, S) at the corners of the continuous states' domain, with chains, numbers and periods as drawn."""
    mdp, generator = trial.mdp, torch.Generator().manual_seed(0)
    n = len(mdp.continuous)
    if 2**n <= MOST_CORNERS:
        ends = mdp.tensor(list(itertools.product((0.0, 1.0), repeat=n))).reshape(2**n, n)
    else:
        ends = torch.randint(2, (MOST_CORNERS, n), generator=generator).to(mdp.dtype)
        ends[:2] = mdp.tensor([[0.0], [1.0]])
    ends = ends.repeat(LAYERS if mdp.finite or mdp.horizon is not None else 1, 1)
    s = mdp.sample_box(len(ends), generator)
    low, high = mdp.low[mdp.continuous], mdp.high[mdp.continuous]
    s[:, mdp.continuous] = torch.where(ends > 0, high, low)
    return s


def broken(trial: Trial, s: Tensor) -> dict[str, Tensor]:
    """By function, at which of the states s (N, S) it is infinite or NaN at every action tried, (N,)."""
    mdp, generator = trial.mdp, torch.Generator().manual_seed(0)
    u = torch.randn(TRIES, len(s), mdp.A, generator=generator, dtype=mdp.dtype)
    u[: len(LEVELS)] = mdp.tensor(LEVELS)[:, None, None]
    u = mdp.sample_options(u, generator)
    s = s.expand(TRIES, *s.shape)
    a, e = mdp.act(s, u), mdp.sample_shocks(s, generator)
    values = {"reward": mdp.reward(s, a), "transition": mdp.transition(s, a, e).sum(dim=-1)}
    values["discount"] = mdp.discount(s, a, e).expand(s.shape[:-1])
    if mdp.horizon is not None:
        values["terminal"] = mdp.terminal(s)
    return {function: ~value.isfinite().any(dim=0) for function, value in values.items()}


def moved_inwards(trial: Trial, s: Tensor) -> Tensor:
    """The corners s (N, S) with one continuous state at a time moved into the domain, (N, n, S)."""
    mdp, columns = trial.mdp, trial.mdp.continuous
    moved, at = s.unsqueeze(1).repeat(1, len(columns), 1), torch.arange(len(columns))
    step = INWARDS * (mdp.high - mdp.low)[columns]
    moved[:, at, columns] += torch.where(s[:, columns] == mdp.low[columns], step, -step)
    return moved


def in_words(trial: Trial, function: str, s: Tensor, mended: Tensor) -> str:
    """The warning of one corner s (S,), with the ends of the domain of which either is to be moved: mended (n,)."""
    mdp = trial.mdp
    labels = [column for slot in mdp.state_slots for column in slot.columns]
    ends = [
        f"{'raise `low`' if s[column] == mdp.low[column] else 'lower `high`'} of '{labels[column]}'"
        for column, mends in zip(mdp.continuous, mended.tolist(), strict=True)
        if mends
    ]
    return (
        f"{trial.name}.{function} is infinite or NaN whatever is done at the {describe(mdp, s)}, a corner of the "
        f"domain, and so may values be from which it can be reached; {' or '.join(ends)} a little"
    )
