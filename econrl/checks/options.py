"""The options of discrete choices: their taste shocks, and which are available."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from econrl.checks.trial import attempt, call
from econrl.errors import SpecError
from econrl.problem.diagnose import describe
from econrl.problem.mdp import MDP
from econrl.spec.model import Model
from econrl.spec.variables import ActionKind

STATES = 257  # at which they are looked at, and as many ends of the domain; unlike any number of options


def check_options(model: Model) -> None:
    """All that is promised of the options of choices, looked at within the domain and at its ends."""
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    check_tastes(model, mdp.action_variables)
    s = mdp.sample_box(STATES, generator)
    ends = torch.where(torch.rand(s.shape, generator=generator) < 0.5, mdp.low, mdp.high)
    ends[:, mdp.whole] = s[:, mdp.whole]
    check_available(mdp, torch.cat([s, ends]))


def check_tastes(model: Model, actions: Sequence[ActionKind]) -> None:
    """One choice at most has taste shocks: the best sum of several shocks has no closed form."""
    names = [f"'{v.name}'" for v in actions if v.tastes]
    if len(names) > 1:
        raise SpecError(
            f"{type(model).__name__}.actions: the choices {' and '.join(names)} both have taste shocks, and the best "
            "sum of two shocks has no closed form; make them one choice with an option for each combination"
        )


def check_available(mdp: MDP, s: Tensor) -> None:
    """What is said of the options that are available at the states s (B, S): as many bools as there are options, of
    which one is true everywhere."""
    for v in mdp.action_variables:
        if v.available is not None:
            title = f"{type(mdp.model).__name__}.actions, the options of '{v.name}' that are available"
            check_bools(title, call(title, v.available, mdp.state(s)), v.shares.options or 0, len(s))
            at = partial(open_at, mdp, v)
            open_now = attempt(title, [v.available], partial(at, s))
            attempt(f"{title} under torch.func.vmap", [v.available], partial(torch.func.vmap(at), s))
            closed = ~open_now.any(dim=-1)
            if closed.any():
                where = describe(mdp, s[int(closed.int().argmax())])
                raise SpecError(f"{title}: none is at the {where}; one must be everywhere in the domain")


def open_at(mdp: MDP, v: ActionKind, s: Tensor) -> Tensor:
    """Which options are available at states s (..., S), (..., n)."""
    found = v.open_options(mdp.state(s), s)
    assert found is not None
    return found


def check_bools(title: str, found: Any, n: int, batch: int) -> None:
    """n bools, each True, False or of the shape (batch,); or one tensor (batch, n)."""
    if isinstance(found, Sequence):
        parts, wanted, right = [torch.as_tensor(x) for x in found], [(), (batch,)], len(found) == n
    else:
        parts, wanted, right = [torch.as_tensor(found)], [(batch, n)], True
    wrong = [x for x in parts if x.dtype != torch.bool or tuple(x.shape) not in wanted]
    if wrong or not right:
        given = f"{wrong[0].dtype} of shape {tuple(wrong[0].shape)}" if wrong else f"{len(parts)} bools"
        raise SpecError(
            f"{title}: got {given} for {batch} states; give {n} bools, each True, False or of the batch's shape, as in "
            f"(True, s.m > 1), or one tensor of shape (..., {n})"
        )
