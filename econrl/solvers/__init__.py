"""The methods by name: those of `methods.py`, and those that a user registers."""

import dataclasses
from typing import TypeVar

from econrl.errors import MethodError
from econrl.solvers import methods
from econrl.solvers.common.method import Method
from econrl.solvers.methods import *  # noqa: F403

METHODS: dict[str, type[Method]] = {}

Kind = TypeVar("Kind", bound=type[Method])


def register(cls: Kind) -> Kind:
    """Let a method be found by its name, by `solve`, `compare` and the command; may stand above it as a decorator.

    Raises MethodError where the class is no method, or its name is no name or that of another.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise MethodError(f"{getattr(cls, '__name__', cls)} is no method: derive it from econrl.solvers.Method")
    label, name = cls.__qualname__, getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise MethodError(f"{label}: `name` must be letters, digits and underscores, got {name!r}")
    if not dataclasses.is_dataclass(cls) or not all(hasattr(cls, name) for name in ("nodes", *settings_of(cls))):
        raise MethodError(f"{label} must be a frozen dataclass of settings with defaults, `nodes` among them")
    known = METHODS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, label):
        raise MethodError(f"{label}: the name '{name}' is taken by {known.__module__}.{known.__qualname__}")
    METHODS[name] = cls
    return cls


def settings_of(cls: type) -> list[str]:
    """The names of a method's settings."""
    return [field.name for field in dataclasses.fields(cls)]


for found in vars(methods).values():
    if isinstance(found, type):
        register(found)
