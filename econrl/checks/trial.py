"""The points at which a spec is tried, and how what its author wrote is called: no exception goes by unnamed.

The bounds of the actions are checked here, since no feasible action can be drawn without them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.problem.diagnose import describe, line_of
from econrl.problem.layout import View, named
from econrl.problem.mdp import MDP
from econrl.spec.model import Model
from econrl.spec.variables import ActionKind, takes_state_only

T = TypeVar("T")
POINTS = 64  # at which every function is tried


@dataclass(frozen=True)
class Trial:
    """A model and the points at which it is tried, all of them with some freedom of action."""

    mdp: MDP
    s: Tensor
    a: Tensor
    e: Tensor

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.mdp.model).__name__

    @property
    def batch(self) -> tuple[int, ...]:
        """The shape of the batch of points."""
        return tuple(self.s.shape[:-1])

    def at(self, i: int) -> str:
        """Point i in words."""
        return describe(self.mdp, self.s[i], self.a[i])


# Calling what a user wrote


def attempt(title: str, users: Sequence[Callable[..., Any]], run: Callable[[], T]) -> T:
    """run(); whatever it raises becomes a SpecError with the line of the user's function that it came from."""
    try:
        return run()
    except Exception as error:
        kind = "" if isinstance(error, SpecError) else f"{type(error).__name__}: "
        hint = next((hint for sign, hint in HINTS.items() if sign in str(error)), "")
        raise SpecError(f"{title}: {kind}{error}{line_in(users, error)}{hint}") from error


BATCHES = ". Variables are tensors that hold many states at once: "
HINTS = {
    "Boolean value of Tensor": f"{BATCHES}use torch.where in place of `if`, and .clamp(min=...) in place of max",
    "only one element tensors can be converted": f"{BATCHES}use torch.log, torch.exp, ... in place of math's",
    "Cannot access data pointer": f"{BATCHES}use torch's functions in place of numpy's",
    "must be real number, not Tensor": f"{BATCHES}use torch.log, torch.exp, ... in place of math's",
}


def line_in(users: Sequence[Callable[..., Any]], error: Exception) -> str:
    """The innermost line of the files that the user's functions stand in; else the line of their definition."""
    codes = [inspect.unwrap(f).__code__ for f in users if hasattr(inspect.unwrap(f), "__code__")]
    files = {code.co_filename for code in codes}
    defined = [f"{code.co_filename}, line {code.co_firstlineno}" for code in codes]
    where = line_of(error, lambda name: name in files) or next(iter(defined), None)
    return f" ({where})" if where else ""


def call(title: str, function: Callable[..., Any], *views: View) -> Any:
    """function(*views), which must leave its arguments as they were."""
    before = [(view, name, value.clone()) for view in views for name, value in named(view).items()]
    result = attempt(title, [function], lambda: function(*views))
    for view, name, value in before:
        if not torch.equal(named(view)[name], value):
            raise SpecError(
                f"{title} changes its argument '{name}' in place; compute a new value, x + y instead of x += y"
            )
    return result


# The points


def make_trial(model: Model, seed: int = 0) -> Trial:
    """Points at which there is some freedom of action; the bounds are checked on the way."""
    mdp = MDP(model)
    generator = torch.Generator().manual_seed(seed)
    n = batch_size(mdp)
    s = mdp.sample_box(4 * n, generator)
    u = mdp.sample_options(torch.randn(4 * n, mdp.A, generator=generator, dtype=mdp.dtype), generator)
    rows = with_freedom(mdp, s, u).nonzero().flatten()
    rows = rows[torch.arange(n) % len(rows)]
    s, u = s[rows], u[rows]
    title, users = f"{type(model).__name__}.shocks", [getattr(v, name) for v in mdp.varying for name in v.varying]
    return Trial(mdp, s, mdp.act(s, u), attempt(title, users, lambda: mdp.sample_shocks(s, generator)))


def with_freedom(mdp: MDP, s: Tensor, u: Tensor) -> Tensor:
    """At which states (B,) every action has some freedom; or one has, and the reward is finite: the others sit on both
    of their bounds, where it need not be."""
    free = check_bounds(mdp, s, u)
    every, some, title = free.all(dim=-1), free.any(dim=-1), type(mdp.model).__name__
    if every.all():
        return every
    views = mdp.state(s), mdp.actions(mdp.act(s, u))
    reward = call(f"{title}.reward", mdp.model.reward, *views)
    right = isinstance(reward, Tensor) and reward.shape == some.shape  # else it is told of later
    tried = every | (some & reward.isfinite() if right else some)
    if not tried.any():
        name = mdp.action_slots[int(free.double().mean(dim=0).argmin())].name
        raise SpecError(
            f"{title}.actions, the bounds of '{name}': low = high at all of {len(s)} random states, which leaves no "
            "choice"
        )
    return tried


def batch_size(mdp: MDP) -> int:
    """About POINTS, even, and unlike the size of any variable, so that no wrong shape looks right by chance."""
    sizes = {slot.size for slot in [*mdp.state_slots, *mdp.action_slots, *mdp.shock_slots]}
    sizes |= {chain.size for chain in mdp.chains}
    n = POINTS
    while {n, n // 2, 4 * n} & sizes:
        n += 2
    return n


def check_bounds(mdp: MDP, s: Tensor, u: Tensor) -> Tensor:
    """Bounds of the right shape, finite, low <= high; returns where each variable among the actions has some freedom,
    (B, variables)."""
    view, y = mdp.state(s), mdp.feasible_set.with_open_options(s, mdp.squash(u))
    chosen: dict[str, Tensor] = {}
    free = torch.ones(len(s), len(mdp.action_slots), dtype=torch.bool)
    for k, (v, slot) in enumerate(zip(mdp.action_variables, mdp.action_slots, strict=True)):
        title = f"{type(mdp.model).__name__}.actions, the bounds of '{v.name}'"
        before = View("action", dict(chosen))
        for side in v.bounds:
            check_bound_value(mdp, f"{title}: {side}", v, getattr(v, side), s, view, before)
        low, width = v.interval(view, before, s)
        if v.shares.compact:
            width = width.expand(len(s), slot.stop - slot.start)
            i, j = divmod(int(width.argmin()), width.shape[-1])
            if width[i, j] < 0:
                bottom = float(low.expand_as(width)[i, j])
                raise SpecError(
                    f"{title}: low = {bottom:.5g} is above high = {bottom + float(width[i, j]):.5g} at "
                    f"{describe(mdp, s[i])}; mend the bounds, or the domain of the states"
                )
            free[:, k] = (width > 0).any(dim=-1)
        part = low + width * y[..., slot.start : slot.stop]
        chosen[v.name] = part if v.size is not None else part.squeeze(-1)
    return free


def check_bound_value(mdp: MDP, title: str, v: ActionKind, bound: Any, s: Tensor, state: View, before: View) -> None:
    """One bound at all states: a number, or a finite tensor of the batch's shape (and the action's size)."""
    if not callable(bound):
        return
    views = (state,) if attempt(title, [bound], lambda: takes_state_only(bound)) else (state, before)
    found = call(title, bound, *views)
    value = attempt(title, [bound], lambda: torch.as_tensor(found, dtype=s.dtype))
    shapes = [(), (len(s),)] + ([(len(s), v.size)] if v.size is not None else [])
    if tuple(value.shape) not in shapes:
        raise SpecError(f"{title} has shape {tuple(value.shape)}; for {len(s)} states it must be {shapes[-1]}")
    wrong = (~value.isfinite()).nonzero()
    if len(wrong):
        where = f" at {describe(mdp, s[wrong[0, 0]])}" if value.ndim else ""
        raise SpecError(f"{title} is NaN or infinite{where}; where there is no bound at all, write the number inf")
