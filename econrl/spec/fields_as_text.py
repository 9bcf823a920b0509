"""The fields of a dataclass as text: a model's parameters and a method's settings, read from `name=value`."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from econrl.errors import EconrlError


def read_settings(owner: type, name: str, texts: Sequence[str], error: type[EconrlError]) -> dict[str, Any]:
    """{"gamma": 5.0} from ["gamma=5"], by the types of the fields of the dataclass `owner`, which messages call `name`.

    Raises `error`, with the list of the fields, for an unknown one and for a value that its type does not take.
    """
    kinds = kinds_of(owner)
    values = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in kinds:
            problem = f"has no '{key}'" if equals else f"cannot read '{text}': write name=value"
            raise error(f"{name} {problem}; it has: {fields_line(owner)}")
        try:
            values[key] = read_value(value, kinds[key])
        except ValueError as reason:
            raise error(
                f"{name}: {key} must be {words(kinds[key])}, got '{value}'. It has: {fields_line(owner)}"
            ) from reason
    return values


def fields(owner: type) -> list[dataclasses.Field[Any]]:
    """The fields that a caller may set; none where a user forgot to write @dataclass."""
    return [f for f in dataclasses.fields(owner) if f.init] if dataclasses.is_dataclass(owner) else []


def default(field: dataclasses.Field[Any]) -> Any:
    """A field's default; `dataclasses.MISSING` where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def fields_line(owner: type) -> str:
    """All fields and their defaults: beta=0.99, gamma=2.0; a name alone must be given."""
    pairs = [(f.name, default(f)) for f in fields(owner)]
    return ", ".join(name if value is dataclasses.MISSING else f"{name}={value}" for name, value in pairs)


def kinds_of(owner: type) -> dict[str, Any]:
    """Each field's type: its annotation, or where that says nothing the type of its default."""
    try:
        hints = typing.get_type_hints(owner)
    except Exception:  # an annotation may name what does not exist when the program runs
        hints = {}
    kinds = {f.name: hints.get(f.name, Any) for f in fields(owner)}
    untold = {f.name: f for f in fields(owner) if kinds[f.name] is Any and default(f) is not dataclasses.MISSING}
    return {name: type(default(untold[name])) if name in untold else kind for name, kind in kinds.items()}


# Values


def read_value(text: str, kind: Any) -> Any:
    """`text` as a value of the type `kind`, by the first of its readings that pydantic takes for one.

    Raises ValueError where none is.
    """
    from pydantic import PydanticUserError, TypeAdapter

    try:
        adapter = TypeAdapter(kind, config={"arbitrary_types_allowed": True})
    except PydanticUserError:  # another dataclass, which no text stands for
        raise ValueError(text) from None
    for reading in readings(text, kind):
        with contextlib.suppress(ValueError):
            value = adapter.validate_python(reading)
            if not holds_nan(value):
                return value
    raise ValueError(text)


def readings(text: str, kind: Any) -> Iterator[Any]:
    """What a text may stand for, the likeliest first: nothing, a literal of Python, an array, itself, or its parts."""
    parts = typing.get_args(kind)
    if text.lower() == "none":
        yield None
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        literal = ast.literal_eval(text)
        if isinstance(literal, int | float | list | tuple | dict) and not isinstance(literal, bool):
            yield literal
            yield (literal,)
            if {np.ndarray, torch.Tensor} & {kind, *parts}:  # not for a number: an array of one would do for it
                yield from arrays(literal)
    if kind is not Any:
        yield text
    if parts:  # the type says what stands between the commas
        yield [part.strip() for part in text.strip("()[]").split(",") if part.strip()]


def arrays(literal: Any) -> Iterator[np.ndarray | torch.Tensor]:
    """A number, or rows of numbers, as an array and as a tensor."""
    with contextlib.suppress(ValueError, TypeError):
        array = np.array(literal, dtype=np.float64)
        yield array
        yield torch.as_tensor(array)


def holds_nan(value: Any) -> bool:
    """Whether a number, or one of a tuple, is none."""
    return value != value if isinstance(value, float) else isinstance(value, tuple) and any(map(holds_nan, value))


def words(kind: Any) -> str:
    """What values a type has, for a message."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(argument) for argument in arguments)
    if origin is tuple:
        return "numbers separated by commas"
    known = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"}
    return known.get(kind, f"of type {getattr(kind, '__name__', kind)}")


# Documentation


def docs_of(owner: type) -> dict[str, str]:
    """The string that stands under each field of a dataclass, which Python itself throws away."""
    docs = {}
    for cls in reversed(owner.__mro__):
        if "__dataclass_fields__" not in vars(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in itertools.pairwise(body.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                value = below.value.value if isinstance(below.value, ast.Constant) else None
                if isinstance(value, str):
                    docs[line.target.id] = " ".join(value.split())
    return docs
