"""A spec's functions, tried at random states of the domain, random feasible actions and sampled shocks.

First each function is called as its author wrote it, so that an exception, a missing name, a wrong shape or a changed
argument is told in the author's terms. Then it is taken as a flat function, as in `mdp.py`: its values must be finite,
the same for every way of batching the points, and the same under torch.func.vmap.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from econrl.checks.trial import Trial, attempt, call
from econrl.errors import SpecError
from econrl.problem.layout import Slot
from econrl.problem.mdp import MDP

SINGLES = 8  # of the points are also tried alone
NODES = 50  # of the quadrature, at most, when shocks are broadcast against states
ARGUMENTS = {
    "reward": "sa",
    "transition": "sae",
    "discount": "sae",
    "outcomes": "sa",
    "terminal": "s",
    "exact_policy": "s",
    "exact_value": "s",
}


@dataclass(frozen=True)
class Flat:
    """A function of flat tensors, f(s, x, e) -> (..., len(columns)), where x (B, .) are actions, or shares of them."""

    title: str
    users: list[Callable[..., Any]]
    """The user's functions behind it, to find the line of an error."""
    f: Callable[[Tensor, Tensor, Tensor], Tensor]
    columns: list[str]
    x: Tensor
    finite: bool = True
    """Whether it must be finite."""
    solved: bool = True
    """Whether solvers differentiate it."""

    def at(self, points: Sequence[Tensor], how: str = "") -> Tensor:
        """The values at points (s, x, e); `how` says what is special about them, should it fail."""
        return attempt(f"{self.title} {how}".strip(), self.users, lambda: self.f(*points))


# As their author wrote them


def check_functions(trial: Trial) -> None:
    """All that is promised of the functions' values."""
    model = trial.mdp.model
    for name, arguments in ARGUMENTS.items():
        if name == "terminal" and model.horizon is None:
            continue
        views = {
            "s": trial.mdp.state(trial.s),
            "a": trial.mdp.actions(trial.a),
            "e": trial.mdp.shocks(trial.s, trial.e),
        }
        title = f"{trial.name}.{name}"
        result = call(title, getattr(model, name), *(views[letter] for letter in arguments))
        check_result(trial, name, title, result)
    check_discrete_states(trial)
    for function in flat_functions(trial):
        check_finite(trial, function)
        check_repeatable(trial, function)
        check_batches(trial, function)
        check_broadcasting(trial, function)
        check_vmap(trial, function)


def check_result(trial: Trial, name: str, title: str, result: Any) -> None:
    """The names and shapes of what one function returned for a batch of points."""
    if result is None and name in ("exact_policy", "exact_value"):
        return
    if name == "transition":
        moving = [slot for slot in trial.mdp.state_slots if slot.name not in by_themselves(trial.mdp)]
        check_dictionary(trial, title, result, moving, "state", constants=True)
    elif name == "exact_policy":
        check_dictionary(trial, title, result, trial.mdp.action_slots, "action")
    elif name == "outcomes":
        check_outcomes(trial, title, result)
    else:
        check_shape(trial, title, "its value", result, None, constants=name == "discount", floating=name != "discount")


def check_discrete_states(trial: Trial) -> None:
    """The transition gives each discrete state one of its values."""
    mdp, title = trial.mdp, f"{trial.name}.transition"
    reached = attempt(title, [mdp.model.transition], lambda: mdp.transition(trial.s, trial.a, trial.e))
    names = {column: slot.columns[column - slot.start] for slot in mdp.state_slots for column in slot.indices}
    for column, n in mdp.finite:
        x = reached[..., column]
        wrong = ~((x == x.round()) & (x >= 0) & (x < n))
        if wrong.any():
            i = int(wrong.int().argmax())
            raise SpecError(
                f"{title}: '{names[column]}' is {float(x[i]):.5g} at the {trial.at(i)}; a discrete state of {n} values "
                f"must be a whole number from 0 to {n - 1}"
            )


def by_themselves(mdp: MDP) -> list[str]:
    """The states that no transition writes: Markov chains, and the period."""
    return [chain.name for chain in mdp.chains] + (["t"] if mdp.horizon is not None else [])


def check_dictionary(
    trial: Trial, title: str, result: Any, wanted: list[Slot], kind: str, constants: bool = False
) -> None:
    """A dictionary with exactly the variables wanted, each of its shape."""
    names = [slot.name for slot in wanted]
    if not isinstance(result, dict):
        raise SpecError(f"{title} {what_it_returns(result)}; it must return a dict by name: {', '.join(names)}")
    for name in result:
        if name in by_themselves(trial.mdp):
            raise SpecError(f"{title} gives '{name}', which moves by itself; leave it out")
        if name not in names:
            missing = [wanted for wanted in names if wanted not in result]
            close = difflib.get_close_matches(name, missing, 1, 0.0)
            what = f"did you mean '{close[0]}'?" if close else "leave it out, or declare it"
            raise SpecError(f"{title} gives '{name}', which is no declared {kind} ({', '.join(names)}); {what}")
    for slot in wanted:
        if slot.name not in result:
            raise SpecError(f"{title} does not give the {kind} '{slot.name}'; add it to the dict that it returns")
        check_shape(trial, title, f"'{slot.name}'", result[slot.name], slot.size, constants)


def what_it_returns(result: Any) -> str:
    """What a function gave in the place of what it must give, in words."""
    return "returns nothing (is a `return` missing?)" if result is None else f"returns a {type(result).__name__}"


def check_outcomes(trial: Trial, title: str, result: Any) -> None:
    """Columns of tables: named unlike the others, one number a point."""
    if not isinstance(result, dict):
        raise SpecError(f"{title} {what_it_returns(result)}; it must return a dict of tensors by name")
    taken = {slot.name for slot in [*trial.mdp.state_slots, *trial.mdp.action_slots]}
    for name, value in result.items():
        if name in taken:
            raise SpecError(f"{title} gives '{name}', which is the name of a state or action already; rename it")
        check_shape(trial, title, f"'{name}'", value, None, floating=False)


def check_shape(
    trial: Trial,
    title: str,
    variable: str,
    value: Any,
    size: int | None,
    constants: bool = False,
    floating: bool = True,
) -> None:
    """A tensor of the batch's shape, plus (size,) for a vector; where `constants`, a number will do for a scalar."""
    if constants and size is None and (isinstance(value, Real) or (isinstance(value, Tensor) and value.ndim == 0)):
        return
    if not isinstance(value, Tensor):
        raise SpecError(
            f"{title}: {variable} is a {type(value).__name__}; it must be a torch tensor of the batch's shape"
        )
    wanted = trial.batch if size is None else (*trial.batch, size)
    if tuple(value.shape) != wanted:
        raise SpecError(
            f"{title}: {variable} has shape {tuple(value.shape)} for a batch of {len(trial.s)} points; it must be "
            f"{wanted}. A scalar variable has the batch's shape, a vector one more dimension, its last: "
            "sum, index or unsqueeze there"
        )
    if floating and value.dtype != trial.s.dtype:
        raise SpecError(f"{title}: {variable} has type {value.dtype}; keep the type of the states, {trial.s.dtype}")


# As flat functions


def flat_functions(trial: Trial) -> list[Flat]:
    """The functions that a model has, as functions of flat tensors."""
    mdp, model, name = trial.mdp, trial.mdp.model, trial.name
    states = [column for slot in mdp.state_slots for column in slot.columns]
    actions = [column for slot in mdp.action_slots for column in slot.columns]

    def discount(s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(s.shape[:-1], a.shape[:-1], e.shape[:-1])
        return mdp.discount(s, a, e).expand(batch).unsqueeze(-1)

    def outcomes(s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        found = model.outcomes(mdp.state(s), mdp.actions(a))
        return torch.stack([value.to(s.dtype) for value in found.values()], dim=-1)

    def exact_value(s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        return model.exact_value(mdp.state(s)).unsqueeze(-1)  # type: ignore[union-attr]

    def flat(function: str, f: Callable[..., Any], columns: list[str], **options: bool) -> Flat:
        return Flat(f"{name}.{function}", [getattr(model, function)], f, columns, trial.a, **options)

    functions = [
        flat("reward", lambda s, a, e: mdp.flow(s, a).unsqueeze(-1), ["its value"]),
        flat("transition", mdp.transition, states),
        flat("discount", discount, ["its value"]),
    ]
    if mdp.horizon is not None:
        functions.append(flat("terminal", lambda s, a, e: mdp.after_life(s).unsqueeze(-1), ["its value"]))
    columns = list(model.outcomes(mdp.state(trial.s), mdp.actions(trial.a)))
    if columns:
        functions.append(flat("outcomes", outcomes, columns, finite=False, solved=False))
    if mdp.exact_policy(trial.s) is not None:
        functions.append(flat("exact_policy", lambda s, a, e: mdp.exact_policy(s), actions, solved=False))
    if mdp.exact_value(trial.s) is not None:
        functions.append(flat("exact_value", exact_value, ["its value"], solved=False))
    varying = [v for v in mdp.varying if v.discrete]
    if varying:
        nodes = [f"the probability of node {j}" for j in range(len(mdp.nodes))]
        users = [getattr(v, name) for v in varying for name in v.varying]
        functions.append(
            Flat(f"{name}.shocks (their probabilities)", users, lambda s, a, e: mdp.weights(s), nodes, trial.a)
        )
    declared = [getattr(v, side) for v in mdp.action_variables for side in v.bounds]
    bounds = [bound for bound in declared if callable(bound)]
    if bounds:
        # At given shares of the way between its bounds, an action is a function of the state through the bounds alone.
        y = mdp.shares(trial.s, trial.a)
        title = f"{name}.actions (their bounds)"
        bounded = [f"'{actions[column]}'" for column in mdp.free]
        functions.append(Flat(title, bounds, lambda s, y, e: mdp.from_shares(s, y)[..., mdp.free], bounded, y))
    return functions


def check_finite(trial: Trial, function: Flat) -> None:
    """Values are finite inside the domain and between the bounds."""
    values = function.at((trial.s, function.x, trial.e))
    wrong = (~values.isfinite()).nonzero()
    if function.finite and len(wrong):
        i, column = int(wrong[0, 0]), function.columns[int(wrong[0, 1])]
        raise SpecError(
            f"{function.title}: {column} is {float(values[tuple(wrong[0])])} at the {trial.at(i)}, inside the domain "
            "and between the bounds; mend the function, or narrow the domain or the bounds"
        )


def check_repeatable(trial: Trial, function: Flat) -> None:
    """The same arguments give the same values."""
    first, second = (function.at((trial.s, function.x, trial.e)) for _ in range(2))
    if not alike(first, second).all():
        raise SpecError(
            f"{function.title} gives other values when it is called again: it draws random numbers, or changes the "
            "model; declare randomness in shocks()"
        )


def check_batches(trial: Trial, function: Flat) -> None:
    """A point has the same value alone, among others, and in a batch of two dimensions."""
    points = (trial.s, function.x, trial.e)
    together = function.at(points)
    for i in range(SINGLES):
        alone = function.at([p[i : i + 1] for p in points], "for a batch of one point")
        check_same(trial, function, alone, together[i : i + 1], "for a batch of one point", i)
    half = len(trial.s) // 2
    how = f"for a batch of shape (2, {half})"
    folded = function.at([p.reshape(2, half, p.shape[-1]) for p in points], how)
    check_same(trial, function, folded, together.reshape(2, half, -1), how)


def check_broadcasting(trial: Trial, function: Flat) -> None:
    """Solvers put states and actions of shape (B, 1) against shocks of shape (J,)."""
    if not function.title.endswith(("transition", "discount")):
        return
    s, a = trial.s[:SINGLES].unsqueeze(1), function.x[:SINGLES].unsqueeze(1)
    e = trial.mdp.nodes[:NODES]
    how = f"for states of shape {tuple(s.shape[:-1])} and shocks of shape {tuple(e.shape[:-1])}"
    full = [p.expand(SINGLES, len(e), p.shape[-1]) for p in (s, a, e)]
    values = function.at((s, a, e), how)
    values = attempt(f"{function.title} {how}", function.users, lambda: values.expand(SINGLES, len(e), -1))
    check_same(trial, function, values, function.at(full), how)


def check_vmap(trial: Trial, function: Flat) -> None:
    """The function may be mapped over single states, as solvers do."""
    if function.solved:
        how = "under torch.func.vmap"
        points = (trial.s, function.x, trial.e)
        mapped = attempt(f"{function.title} {how}", function.users, lambda: torch.func.vmap(function.f)(*points))
        check_same(trial, function, mapped, function.at(points), how)


def check_same(trial: Trial, function: Flat, values: Tensor, expected: Tensor, how: str, i: int | None = None) -> None:
    """Values found in another way equal the expected ones, those of the whole batch."""
    if values.shape != expected.shape:
        raise SpecError(f"{function.title} has the shape of {tuple(values.shape[:-1])} {how}; {SEPARATELY}")
    wrong = (~alike(values, expected)).nonzero()
    if len(wrong):
        at = tuple(wrong[0])
        where = f" at the {trial.at(i)}" if i is not None else ""
        raise SpecError(
            f"{function.title} mixes the members of a batch: {function.columns[int(at[-1])]} is "
            f"{float(values[at]):.5g} {how}{where}, and {float(expected[at]):.5g} among {len(trial.s)} points; "
            f"{SEPARATELY}"
        )


SEPARATELY = "write it so that each point stands for itself, with sums and indices over the last dimension (-1) only"


def alike(x: Tensor, y: Tensor) -> Tensor:
    """Equal but for rounding."""
    return torch.isclose(x, y, rtol=1e-8, atol=1e-10, equal_nan=True)
