"""A range of parameters: the model's functions must take a parameter as a tensor, and mean the same by it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from econrl.checks.trial import line_in
from econrl.errors import SpecError
from econrl.family.family import Family
from econrl.problem.mdp import MDP

POINTS, SHARES = 16, (0.3, 0.8)  # states tried, and how far into the range of the parameter
FUNCTIONS = {"reward": "sa", "transition": "sae", "discount": "sae", "outcomes": "sa", "terminal": "s"}


def check_family(family: Family) -> None:
    """With one parameter at a time as a tensor of the batch's shape, every function that the family calls is, at each
    state, that of the model with this number as its parameter. The message names parameter, function and line."""
    mdp = MDP(family.one)
    taken = {slot.name for slot in [*mdp.state_slots, *mdp.action_slots, *mdp.shock_slots]}
    for name, (low, high) in family.over.items():
        if name in taken:
            kind = type(family.one).__name__
            raise SpecError(f"{kind} has a parameter '{name}' and a variable '{name}'; rename one to solve over it")
        alone = Family(one=family.outer[0], over={name: (low, high)})
        for share in SHARES:
            check_at(alone, name, low + share * (high - low))


def check_at(alone: Family, name: str, value: float) -> None:
    """All functions at one value of the only parameter, as a tensor and as a number."""
    mdp, member = MDP(alone), alone.member({name: value})
    own, generator = MDP(member), torch.Generator().manual_seed(0)

    def check_function(function: str, run: Callable[[], Any], expected: Any) -> None:
        title = f"{type(member).__name__}.{function} with a tensor as its parameter '{name}'"
        how = f"Solved over, self.{name} is a tensor of the batch's shape. Use torch's functions, and torch.where in "
        how += f"place of `if`; against a vector variable, torch.as_tensor(self.{name}).unsqueeze(-1)"
        users = [getattr(member, function)]
        try:
            found = run()
        except Exception as error:
            raise SpecError(f"{title}: {type(error).__name__}: {error}{line_in(users, error)}. {how}") from error
        pairs = [(found[key], x) for key, x in expected.items()] if isinstance(expected, dict) else [(found, expected)]
        if not all(close(*pair) for pair in pairs):
            raise SpecError(f"{title} is not what it is at the number {value:g}{line_in(users, ValueError())}. {how}")

    s = mdp.sample_box(POINTS, generator)
    s[::2, mdp.parameters] = value  # the others have other parameters, which must not matter
    own_s = s[:, [c for c in range(mdp.S) if c not in mdp.parameters]]
    u = torch.randn(POINTS, mdp.A, generator=generator, dtype=mdp.dtype)
    a = own.act(own_s, u)
    check_function("actions", lambda: mdp.act(s, u), a)
    e = mdp.sample_shocks(s, generator)
    for shock, expected in zip(mdp.shock_variables, own.shock_variables, strict=True):
        if shock.varying and shock.discrete:
            p = mdp.probabilities(expected, s)
            check_function("shocks", functools.partial(mdp.probabilities, shock, s), p.expand(POINTS, -1))
        elif shock.varying:
            check_function("shocks", functools.partial(mdp.realised, shock, s, e), mdp.realised(expected, s, e))
    views = {"s": mdp.state(s), "a": mdp.actions(a), "e": mdp.shocks(s, e)}
    for function, arguments in FUNCTIONS.items():
        if function == "terminal" and mdp.horizon is None:
            continue
        expected = getattr(member, function)(*(views[letter] for letter in arguments))
        run = functools.partial(getattr(alone, function), *(views[letter] for letter in arguments))
        check_function(function, run, expected)
    if member.initial(POINTS, generator) is not None:
        check_function("initial", lambda: alone.initial(POINTS, generator), {})


def close(found: Any, expected: Any) -> bool:
    """Equal at every second point, and of one shape, unless a number is expected."""
    found, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (found, expected))
    if expected.ndim > 0 and found.shape != expected.shape:
        return False
    expected = expected.expand(found.shape)
    if found.ndim > 0:
        found, expected = found[::2], expected[::2]
    return torch.allclose(found, expected, rtol=1e-8, atol=1e-10, equal_nan=True)
