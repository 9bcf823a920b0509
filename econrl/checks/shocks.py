"""Shocks whose parameters are functions of the state: what these functions give."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from econrl.checks.trial import attempt, call
from econrl.errors import SpecError
from econrl.problem.diagnose import describe
from econrl.problem.mdp import MDP
from econrl.spec.shocks import Shock


def check_varying_shocks(mdp: MDP, s: Tensor) -> None:
    """At the states s (N, S) their parameters have the right shape, and are finite and sound."""
    for v in mdp.varying:
        title = f"{type(mdp.model).__name__}.shocks, '{v.name}'"
        for name in v.varying:
            check_parameter(mdp, s, v, name, title)
        for fault, where in v.at(mdp.state(s), s).faults().items():
            if where.any():
                i = int(where.expand(len(s)).int().argmax())
                raise SpecError(f"{title}: {fault} at the {describe(mdp, s[i])}; mend it, or the domain of the states")


def check_parameter(mdp: MDP, s: Tensor, v: Shock, name: str, title: str) -> None:
    """One parameter: a number, or a finite tensor with one for each state, and each part of the shock or value."""
    function, title = getattr(v, name), f"{title}: {name}"
    found = call(title, function, mdp.state(s))
    value = attempt(title, [function], lambda: v.parameter(found, s))
    parts = len(v.support) if v.discrete else v.width  # type: ignore[attr-defined]
    allowed = [(*batch, n) for batch in ((), (len(s),)) for n in ({parts} if v.discrete else {1, parts})]
    if tuple(value.shape) not in allowed:
        shape = f"a sequence of {len(found)}" if isinstance(found, Sequence) else f"shape {tuple(value.shape)}"
        each = f"{parts} probabilities, one for each value" if v.discrete else "one number, or one for each part"
        raise SpecError(f"{title} gives {shape} for {len(s)} states; it must give {each}, at each state")
    wrong = (~value.expand(len(s), -1).isfinite()).any(dim=-1)
    if wrong.any():
        raise SpecError(f"{title} is NaN or infinite at the {describe(mdp, s[int(wrong.int().argmax())])}")
