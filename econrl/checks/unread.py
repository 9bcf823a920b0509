"""What nothing reads: a method that is one of Model's but for its spelling, and a parameter that no function uses.

Two things say that a name is read: it stands in the code of the class (which sees every branch), or it is looked up
while the model's functions run (which sees what functions of the module do with the model).
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import torch

from econrl.checks.trial import Trial
from econrl.errors import SpecError
from econrl.spec.model import Model

ALIKE = 0.8  # the similarity (difflib) from which on a word is another one misspelt
OF_EVERY_MODEL = {"by_age", "title", "replace", "require_dataclass", "parameters", "to", "with_features"}
HOOKS = [name for name in vars(Model) if not name.startswith("_") and name not in OF_EVERY_MODEL]
"""What a spec may define, and the library reads."""


def check_unread(trial: Trial) -> list[str]:
    """Warn of parameters that nothing reads, and of methods that nothing reads and that are called nearly like one of
    Model's which the class does not define. Methods that are called like nothing else are the author's own.

    Raises SpecError where such a method takes the arguments of the one that it resembles: it would be left out in
    silence, and another model be solved.
    """
    kind = type(trial.mdp.declared)
    read = names_in_code(kind) | names_looked_up(trial)
    parameters = trial.mdp.declared.parameters()
    warnings = [check_method(kind, name) for name in own_names(kind) if name not in read | parameters.keys()]
    for name in parameters:
        if name not in read and name not in HOOKS:
            meant = nearest(name, HOOKS)
            hint = f"is `{meant}` meant?" if meant else "use it, or leave it out"
            warnings.append(f"{kind.__name__}: no function reads the parameter '{name}'; {hint}")
    return [warning for warning in warnings if warning]


def check_method(kind: type[Model], name: str) -> str:
    """A warning of the method (or attribute) `name`, which nothing reads; none where it resembles nothing."""
    meant = nearest(name, [hook for hook in HOOKS if getattr(kind, hook) is getattr(Model, hook)])
    if meant is None:
        return ""
    said = f"{kind.__name__}.{name}: nothing reads it; is `{meant}` meant? If it is your own, call it `_{name}`"
    takes, wanted = arguments(getattr(kind, name)), arguments(getattr(Model, meant))
    if takes and takes == wanted:
        raise SpecError(said)
    return said


# Names


def nearest(name: str, known: list[str]) -> str | None:
    """The name which `name` misspells or goes on from, word by word: `intial`, `exactpolicy`, `terminal_value`."""
    near = [other for other in known if resembles(name.lower(), other)]
    return max(near, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio(), default=None)


def resembles(name: str, other: str) -> bool:
    """Whether the words of `name` begin with those of `other`, but for their spelling."""
    words, others = name.split("_"), other.split("_")
    begins = len(words) >= len(others) and all(
        difflib.SequenceMatcher(None, *pair).ratio() >= ALIKE for pair in zip(words, others, strict=False)
    )
    return begins or "".join(words) == "".join(others)


def own_classes(kind: type[Model]) -> list[type]:
    """The classes that the author wrote."""
    return list(kind.__mro__[: kind.__mro__.index(Model)])


def own_names(kind: type[Model]) -> list[str]:
    """The public names that these define beside Model's."""
    names = dict.fromkeys(name for cls in own_classes(kind) for name in vars(cls))
    return [name for name in names if not name.startswith("_") and not hasattr(Model, name)]


def arguments(attribute: Any) -> int | None:
    """How many arguments a method takes beside the model; None of anything else."""
    return len(inspect.signature(attribute).parameters) - 1 if inspect.isfunction(attribute) else None


# What is read


def names_in_code(kind: type[Model]) -> set[str]:
    """Every attribute, name and string in the code of the classes, and of Model's `discount`. What @dataclass writes,
    __repr__ and the like, reads every parameter, and does not count."""
    written = [vars(cls) for cls in own_classes(kind)]
    members = [part for own in written for name, part in own.items() if name == "__post_init__" or name[:2] != "__"]
    return {name for member in [*members, Model.discount] for code in codes(member) for name in names(code)}


def codes(attribute: Any) -> Iterator[CodeType]:
    """The code of a function, or of those behind a property, a class method, ..."""
    for part in ("fget", "func", "__func__", "__wrapped__"):
        if hasattr(attribute, part):
            yield from codes(getattr(attribute, part))
    if hasattr(attribute, "__code__"):
        yield attribute.__code__


def names(code: CodeType) -> Iterator[str]:
    """The names and strings in a function's code, and in that of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from names(constant)


def names_looked_up(trial: Trial) -> set[str]:
    """What the model's functions look up in the model when they run. One that fails is told of by other checks."""
    declared = trial.mdp.declared
    seen: set[str] = set()

    def look_up(self: Any, name: str) -> Any:
        seen.add(name)
        return object.__getattribute__(self, name)

    kind = type(declared)
    members = {
        "__getattribute__": look_up,
        "__slots__": (),
        "__dataclass_params__": vars(kind)["__dataclass_params__"],
        "to": lambda model, device, dtype: model,  # where it is already; Model's reads every parameter
    }
    watched: Model = type(kind.__name__, (kind,), members)(**declared.parameters())
    mdp = trial.mdp.with_model(watched)
    s, a, e = trial.s, trial.a, trial.e
    views = {"s": mdp.state(s), "a": mdp.actions(a)}
    runs: list[Callable[[], Any]] = [
        *(getattr(watched, name) for name in ("states", "actions", "shocks", "steady_state", "group_features")),
        lambda: mdp.shares(s, a),
        lambda: mdp.reward(s, a),
        lambda: mdp.transition(s, a, e),
        lambda: mdp.discount(s, a, e),
        lambda: mdp.horizon is None or mdp.terminal(s),
        lambda: mdp.exact_policy(s),
        lambda: mdp.exact_value(s),
        lambda: watched.outcomes(views["s"], views["a"]),
        lambda: watched.consumption_value(views["s"], views["a"]),
        lambda: watched.initial(1, torch.Generator()),
    ]
    for run in runs:
        with contextlib.suppress(Exception):
            run()
    return set(declared.parameters()) if "__dict__" in seen else seen
