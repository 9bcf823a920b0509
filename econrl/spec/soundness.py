"""What the numbers of a declaration must be; each broken rule is a SpecError that begins with the `title` given."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from econrl.errors import SpecError

SUMS_TO_ONE = 1e-6  # how far probabilities may sum from one


def is_number(value: Any) -> bool:
    """A real number, or a tensor without dimensions; no bool."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype != torch.bool
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Whether it is a number, and a finite one."""
    return is_number(value) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_size(size: Any, title: str, scalar: bool) -> None:
    """A number of parts; None, too, where the variable may be a `scalar`."""
    if (size is None and scalar) or (is_count(size) and size >= 1):
        return
    raise SpecError(f"{title} has size {size!r}; it must be a whole number of 1 or more (None for a scalar)")


def check_domain(low: Any, high: Any, title: str) -> None:
    """The domain is finite, and not empty."""
    if not is_finite_number(low) or not is_finite_number(high):
        raise SpecError(f"{title} has the domain {low!r} to {high!r}; low and high must be finite numbers")
    if not low < high:
        raise SpecError(f"{title} has low = {float(low):g} and high = {float(high):g}; low must be below high")


def check_several(n: Any, title: str) -> None:
    """A number of options or values from which there is something to choose."""
    if not is_count(n) or n < 2:
        raise SpecError(f"{title} has n = {n!r}; it must be a whole number of 2 or more")


def check_bound(bound: Any, title: str) -> None:
    """A bound is a number or a function."""
    if not callable(bound) and (not is_number(bound) or bound != bound):
        raise SpecError(f"{title} is {bound!r}; it must be a number, a function f(s), or a function f(s, a)")


def check_values(values: Tensor, title: str) -> None:
    """Finite values (n,) or (n, k)."""
    if values.ndim not in (1, 2) or len(values) == 0 or not values.isfinite().all():
        raise SpecError(f"{title} has values of shape {tuple(values.shape)}; give finite values (n,) or (n, k)")


def number_of(shown: Tensor, values: Tensor, title: str) -> Tensor:
    """The number (...) of each value shown, (...) or (..., k), among the values (n,) or (n, k). Raises SpecError for
    one that is none of them."""
    values = values.to(shown)
    rows, each = (x.unsqueeze(-1) if values.ndim == 1 else x for x in (values, shown))
    nearest, index = (each.unsqueeze(-2) - rows).abs().amax(dim=-1).min(dim=-1)
    if not (nearest <= 1e-6 * (1 + rows.abs().max())).all():
        raise SpecError(f"{title} takes the values {values.tolist()} only")
    return index.to(shown)


def check_probabilities(p: Tensor, title: str) -> None:
    """Probabilities are not negative, and sum to one."""
    if not (p >= 0).all():
        raise SpecError(f"{title} has a probability of {float(p.min()):.4g}; none may be negative")
    if not abs(float(p.sum()) - 1) <= SUMS_TO_ONE:
        raise SpecError(f"{title} has probabilities that sum to {float(p.sum()):.8g}; they must sum to one")


def check_moment(value: Any, size: int | None, title: str, smallest: float = -math.inf) -> None:
    """A mean or a standard deviation: a number, or one for each part of a vector; a function of the state is looked at
    where it has values."""
    if callable(value):
        return
    moment = torch.as_tensor(value, dtype=torch.float64)
    if moment.shape != () and moment.shape != (size,):
        raise SpecError(f"{title} has shape {tuple(moment.shape)}; it must be a number, or of shape (size,)")
    if not moment.isfinite().all() or not (moment >= smallest).all():
        raise SpecError(f"{title} is {value!r}; it must be finite{'' if smallest < 0 else ' and not negative'}")
