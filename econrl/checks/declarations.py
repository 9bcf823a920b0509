"""The class of a spec and the variables that it declares."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Sequence
from typing import Any

from econrl.checks.groups import check_declared_groups
from econrl.checks.trial import attempt
from econrl.checks.unread import nearest, own_names
from econrl.errors import SpecError
from econrl.spec.model import Model
from econrl.spec.shocks import Shock
from econrl.spec.soundness import check_size, is_count
from econrl.spec.variable import Variable
from econrl.spec.variables import ActionKind, StateKind, listed

# The class


def check_class(model: Any) -> None:
    """An instance of a Model, written as a frozen dataclass, that defines what it must."""
    if isinstance(model, type):
        raise SpecError(f"{model.__name__} is a class, not a model: pass an instance, {model.__name__}()")
    kind = type(model)
    name = kind.__name__
    if not isinstance(model, Model):
        raise SpecError(f"{name} is no model: derive it from econrl.Model, class {name}(Model)")
    model.parameters()  # raises where the class is no dataclass
    by_keyword = all(f.kw_only for f in dataclasses.fields(model) if f.init)  # type: ignore[arg-type]
    if not kind.__dataclass_params__.frozen or not by_keyword:
        raise SpecError(f"{name} must be decorated with @dataclass(frozen=True, kw_only=True)")
    for function in ("states", "actions", "reward", "transition"):
        if getattr(kind, function) is getattr(Model, function):
            close = next((f"; is it `{own}`?" for own in own_names(kind) if nearest(own, [function])), "")
            raise SpecError(f"{name} does not define {function}: add a method `{function}`{close}")
    horizon = model.horizon
    if horizon is not None and (not is_count(horizon) or horizon < 1):
        raise SpecError(f"{name}.horizon is {horizon!r}; it must be None, or the number of periods, 1 or more")


def check_fields(model: Model) -> list[str]:
    """Warn of a number in the class without a type: Python makes it a constant, which no `replace` or --set changes."""
    numbers = [
        f"{name} = {value}"
        for cls in type(model).__mro__[: type(model).__mro__.index(Model)]
        for name, value in vars(cls).items()
        if isinstance(value, float) and name not in model.parameters()
    ]
    return [
        f"{type(model).__name__}: `{text}` has no type: no parameter; write `{text.replace(' =', ': float =')}`"
        for text in numbers
    ]


# The variables


def check_declarations(model: Model) -> None:
    """States, actions and shocks: of the right kinds, with names that can be told apart, and each sound in itself."""
    declared = {
        "states": declaration(model, "states", StateKind.__subclasses__()),
        "actions": declaration(model, "actions", ActionKind.__subclasses__()),
        "shocks": declaration(model, "shocks", [Shock]),
    }
    for function in ("states", "actions"):
        if not declared[function]:
            raise SpecError(f"{type(model).__name__}.{function} declares nothing; a model needs at least one")
    check_names(model, declared)
    titled = [
        (v, f"{type(model).__name__}.{function}: {type(v).__name__} '{v.name}'")
        for function, variables in declared.items()
        for v in variables
    ]
    for variable, title in titled:
        check_size(variable.size, title, variable.may_be_scalar)
    check_declared_groups(model, titled)
    for variable, title in titled:
        check_kind(variable, title)


def check_kind(variable: Variable, title: str) -> None:
    """What a variable's own kind asks of it; a value that no tensor can hold is a mistake in the spec, too."""
    try:
        variable.check(title)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError(f"{title} cannot be read: {type(error).__name__}: {error}") from error


def declaration(model: Model, function: str, kinds: Sequence[type]) -> list[Any]:
    """What `model.states()` (or actions, shocks) declares, as a list."""
    title = f"{type(model).__name__}.{function}"
    variables = listed(attempt(title, [getattr(model, function)], getattr(model, function)))
    for variable in variables:
        if not isinstance(variable, tuple(kinds)):
            allowed = " or ".join(kind.__name__ for kind in kinds)
            raise SpecError(f"{title} declares {variable!r}; it must give one {allowed}, or a sequence of them")
    return variables


def check_names(model: Model, declared: dict[str, list[Any]]) -> None:
    """Names are identifiers. States and actions share no name, since tables hold both; a shock may be called like a
    continuous state that it drives, but not like a Markov chain, whose next value stands among the shocks."""
    shocks = [part for v in declared["shocks"] for part in v.parts]
    for function, variables in {**declared, "shocks": shocks}.items():
        for name in (v.name for v in variables):
            title = f"{type(model).__name__}.{function}: the name {name!r}"
            if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
                raise SpecError(f"{title} cannot be read as an attribute; use letters, digits and _, a letter first")
            if name == "t" and model.horizon is not None:
                raise SpecError(f"{title} is taken by the period of a model with a horizon; choose another")
    chains = [v for v in declared["states"] if v.by_itself]
    for together in ([*declared["states"], *declared["actions"]], [*shocks, *chains]):
        names = [v.name for v in together]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"{type(model).__name__} declares '{name}' more than once; rename all but one")
