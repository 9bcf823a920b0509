"""The fields of a dataclass as text: a model's parameters and a method's settings, read from `name=value`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
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
        except (ValueError, SyntaxError, TypeError, OverflowError) as reason:
            raise error(
                f"{name}: {key} must be {words(kinds[key])}, got '{value}'. It has: {fields_line(owner)}"
            ) from reason
    return values


def fields(owner: type) -> list[dataclasses.Field]:
    """The fields that a caller may set; none where a user forgot to write @dataclass."""
    return [f for f in dataclasses.fields(owner) if f.init] if dataclasses.is_dataclass(owner) else []


def default(field: dataclasses.Field) -> Any:
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
    return {f.name: type(default(f)) if kinds[f.name] is Any else kinds[f.name] for f in fields(owner)}


# Values


def read_value(text: str, kind: Any) -> Any:
    """`text` as a value of the type `kind`. Raises ValueError (or SyntaxError) where it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return read_first(text, arguments)
    if origin is typing.Literal:
        return read_choice(text, arguments)
    if origin is tuple:
        return read_tuple(text, arguments)
    return READERS.get(kind, ast.literal_eval)(text)


def read_first(text: str, kinds: Sequence[Any]) -> Any:
    """By the first type that takes the text; str, which takes any, comes last."""
    for kind in sorted(kinds, key=lambda kind: kind is str):
        try:
            return read_value(text, kind)
        except (ValueError, SyntaxError):
            continue
    raise ValueError(text)


def read_choice(text: str, choices: Sequence[Any]) -> Any:
    return {str(choice): choice for choice in choices}[text] if text in map(str, choices) else fail(text)


def read_tuple(text: str, kinds: Sequence[Any]) -> tuple:
    """64,64 or (64, 64); `kinds` are the arguments of tuple[...]."""
    inner = text.strip("()[]")
    parts = [part for part in inner.split(",") if part.strip()]
    each = [kinds[0]] * len(parts) if kinds[1:] == (...,) else kinds
    if len(each) != len(parts):
        raise ValueError(text)
    return tuple(read_value(part.strip(), kind) for part, kind in zip(parts, each, strict=True))


def read_any_tuple(text: str) -> tuple:
    """A tuple of whatever, also nested: 0.9,0.1 or ((0.9, 0.1), (0.1, 0.9))."""
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def read_float(text: str) -> float:
    value = float(text)
    return value if value == value else fail(text)


def read_int(text: str) -> int:
    """A whole number; 1e5 is one, too."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        return int(value) if value.is_integer() else fail(text)


def read_bool(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return known[text.lower()] if text.lower() in known else fail(text)


def read_none(text: str) -> None:
    return None if text.lower() == "none" else fail(text)


def read_array(text: str) -> np.ndarray:
    return np.array(ast.literal_eval(text), dtype=np.float64)


def read_tensor(text: str) -> torch.Tensor:
    return torch.as_tensor(read_array(text))


def fail(text: str) -> typing.NoReturn:
    raise ValueError(text)


READERS: dict[Any, Callable[[str], Any]] = {
    bool: read_bool,
    int: read_int,
    float: read_float,
    str: str,
    tuple: read_any_tuple,
    types.NoneType: read_none,
    np.ndarray: read_array,
    torch.Tensor: read_tensor,
}


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
