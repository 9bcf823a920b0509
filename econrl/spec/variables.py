"""The kinds of states and of actions that a spec declares. Everything that works with them loops over kinds.

A new kind is one class here, derived from `StateKind` or `ActionKind`, and its name in `econrl/__init__.py`; one that a
user derives in a file of their own needs neither.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.spec import ar1
from econrl.spec.share_sets import SIMPLEX, Options, ShareSet, shares_between
from econrl.spec.soundness import (
    check_bound,
    check_domain,
    check_probabilities,
    check_several,
    check_values,
    is_finite_number,
    number_of,
)
from econrl.spec.variable import Map, Variable, value_reader

Bound = float | Callable[..., Tensor]
Ends = float | tuple[float, ...]
"""The low or high ends of a domain: one number for all parts of a vector, or one for each."""


# States


class StateKind(Variable):
    """A kind of state.

    A kind must give `name`, `size`, as which the spec reads it, and its `domain`. One of finitely many values is held
    as the number of a value, 0 ... count - 1, and must give `count`. One that the spec reads or writes as anything but
    what is held must give the maps `reader` and `writer`. One that moves by itself sets `by_itself`, and must give
    `held`, `matrix` and `table`. It may give `check`, `text`, `locate`, `hull` and `with_domain`.
    """

    by_itself: ClassVar[bool] = False
    """Whether it is a Markov chain on `table`, whose next value the transition does not write."""
    parameter: ClassVar[bool] = False
    """Whether it is a parameter of the model, which stays what it is."""

    @property
    def domain(self) -> tuple[list[float], list[float]]:
        """Low and high of each column, between which the model is solved; 0 and count - 1 for finitely many values."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Whether an end of its domain is left out, to be fitted before a solve."""
        return False

    @property
    def count(self) -> int | None:
        """How many values it takes; None for a continuous state."""
        return None

    @property
    def table(self) -> Tensor:
        """The values of a chain, (count,) or (count, k)."""
        raise NotImplementedError

    @property
    def matrix(self) -> Tensor:
        """The transition matrix of a chain: row i holds Prob(next = j | now = i)."""
        raise NotImplementedError

    def reader(self, like: Tensor) -> Map | None:
        """The map from what is held to what the spec reads, on the device and in the type of `like`; None where they
        are the same."""
        return None

    def writer(self, like: Tensor) -> Map | None:
        """The map from what `transition` and `initial` give to what is held; None where they are the same."""
        return None

    def locate(self, shown: Tensor) -> Tensor:
        """What is held, from what tables show, which is what the spec reads. Raises SpecError for a value that it does
        not take."""
        write = self.writer(shown)
        held = shown if write is None else write(shown)
        if self.count is not None and not ((held >= 0) & (held < self.count) & (held == held.round())).all():
            raise SpecError(f"the state '{self.name}' must be a whole number from 0 to {self.count - 1}")
        return held

    def hull(self, others: Sequence[Self]) -> Self | None:
        """The same state on the smallest domain that holds those of all `others`, for a range of parameters; None
        where they must all be alike."""
        return None

    def with_domain(self, low: Ends, high: Ends) -> Self:
        """The same state on another domain, one number for all parts of a vector or one for each. Raises SpecError
        where its kind has no domain to choose."""
        raise SpecError(f"the state '{self.name}' is a {type(self).__name__}, whose domain cannot be set")


@dataclass(frozen=True)
class State(StateKind):
    """A continuous state. `low` and `high` bound the domain that the model is solved on; they clamp nothing. An end
    that is left out is fitted before a solve, to where the model goes from its steady state or its initial states.

    `size=None` is a scalar, read as a tensor of the batch's shape; `size=n` adds a last dimension of n, whose parts
    share `low` and `high`, or have one each (tuples). A vector with a `group` has one number for each of the group's
    exchangeable members (see `Model`).
    """

    name: str
    low: Ends | None = None
    high: Ends | None = None
    size: int | None = None
    group: str | None = None

    @property
    def is_open(self) -> bool:
        return self.low is None or self.high is None

    @property
    def domain(self) -> tuple[list[float], list[float]]:
        if self.low is None or self.high is None:
            raise SpecError(f"the state '{self.name}' leaves out an end of its domain; `solve` fits it, else give both")
        n = self.size or 1
        low, high = (list(x) if isinstance(x, tuple | list) else [x] * n for x in (self.low, self.high))
        return low, high

    def hull(self, others: Sequence[Self]) -> Self:
        lows, highs = zip(*(v.domain for v in others), strict=True)
        low, high = ([f(parts) for parts in zip(*x, strict=True)] for f, x in ((min, lows), (max, highs)))
        return replace(self, low=joined(low), high=joined(high))

    def with_domain(self, low: Ends, high: Ends) -> Self:
        title = f"the state '{self.name}'"
        try:
            changed = replace(self, low=joined(low), high=joined(high))
        except (TypeError, ValueError, RuntimeError) as error:
            raise SpecError(f"{title} has the domain {low!r} to {high!r}; low and high must be numbers") from error
        changed.check(title)
        return changed

    def check(self, title: str) -> None:
        n, (lows, highs) = self.size or 1, self.domain
        if len(lows) != n or len(highs) != n:
            raise SpecError(f"{title} has {len(lows)} low and {len(highs)} high ends; give one, or {n}")
        for low, high in zip(lows, highs, strict=True):
            check_domain(low, high, title)

    def text(self) -> str:
        if self.is_open:
            return f"{self.label} on a domain to be fitted"
        low, high = self.domain
        return f"{self.label} in [{min(low):.4g}, {max(high):.4g}]"


@dataclass(frozen=True)
class Parameter(State):
    """A parameter of the model as a state that stays what it is (`family.py`); not for specs."""

    parameter: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class MarkovChain(StateKind):
    """A finite exogenous state: `values` has shape (n,) or (n, k), row i of `P` holds Prob(next = j | now = i).

    Declared among the states. The spec reads its value s.y, and in `transition` and `discount` next period's, e.y; the
    expectation over it is exact; its transition is not written by the model. `rouwenhorst` and `tauchen` make the chain
    of an AR(1).
    """

    name: str
    values: Any
    P: Any

    by_itself: ClassVar[bool] = True
    held: ClassVar[int | None] = None  # one index, whatever its values

    @classmethod
    def rouwenhorst(
        cls, name: str, *, rho: float, sigma: float, n: int, mean: float | None = None, logs: bool = False
    ) -> Self:
        """The chain of y = exp(x), x' = rho x + sigma eps, on n values by Rouwenhorst's method (`ar1.py`).

        sigma is the standard deviation of the innovation. `mean` is that of y in the long run, one unless given. With
        `logs` the values are those of x itself, around a mean that is zero unless given. Raises SpecError for numbers
        that make no chain.
        """
        return cls._of_ar1(name, "rouwenhorst", ar1.rouwenhorst, rho, sigma, n, mean, logs)

    @classmethod
    def tauchen(
        cls,
        name: str,
        *,
        rho: float,
        sigma: float,
        n: int,
        mean: float | None = None,
        logs: bool = False,
        width: float = 3.0,
    ) -> Self:
        """The same by Tauchen's method, with values up to `width` standard deviations of x."""
        return cls._of_ar1(name, "tauchen", ar1.tauchen, rho, sigma, n, mean, logs, width)

    @classmethod
    def _of_ar1(
        cls,
        name: str,
        method: str,
        make: Callable[..., ar1.Chain],
        rho: float,
        sigma: float,
        n: int,
        mean: float | None,
        logs: bool,
        *width: float,
    ) -> Self:
        mean = (0.0 if logs else 1.0) if mean is None else mean
        ar1.check_ar1(f"{cls.__name__}.{method} '{name}'", rho, sigma, n, mean, logs, *(width or (1.0,)))
        x, P = make(n, rho, sigma, *width)
        if not ((P > 0).sum(axis=1) > 1).all():
            raise SpecError(
                f"{cls.__name__}.{method} '{name}': n = {n} values lie so far apart that with rho = {rho:g} one is "
                "never left; take more values, or rouwenhorst"
            )
        return cls(name, values=mean + x if logs else ar1.in_levels(x, P, mean), P=P)

    @property
    def table(self) -> Tensor:
        """The values (n,) or (n, k)."""
        return torch.as_tensor(self.values, dtype=torch.float64)

    @property
    def size(self) -> int | None:  # type: ignore[override]
        """What the spec reads: None for a scalar, k for a vector."""
        return self.table.shape[1] if self.table.ndim == 2 else None

    @property
    def matrix(self) -> Tensor:
        """The transition matrix (n, n)."""
        return torch.as_tensor(self.P, dtype=torch.float64)

    @property
    def count(self) -> int:
        return len(self.matrix)

    @property
    def domain(self) -> tuple[list[float], list[float]]:
        return [0.0], [self.count - 1.0]

    def reader(self, like: Tensor) -> Map:
        return value_reader(self.table, like)

    def locate(self, shown: Tensor) -> Tensor:
        return number_of(shown, self.table, f"the Markov chain '{self.name}'")

    def check(self, title: str) -> None:
        values, P = self.table, self.matrix
        check_values(values, title)
        n = len(values)
        if P.shape != (n, n):
            raise SpecError(f"{title} has {n} values and P of shape {tuple(P.shape)}; P must be ({n}, {n})")
        for i, row in enumerate(P):
            check_probabilities(row, f"{title}, row {i} of P")

    def text(self) -> str:
        return f"{self.label} (Markov chain of {len(self.table)} values)"


@dataclass(frozen=True)
class DiscreteState(StateKind):
    """A state with the values 0, 1, ..., n - 1, which the transition writes: employed or not, retired or not.

    The spec reads its number, one for each member of the batch, and gives a whole number for the next period.
    """

    name: str
    n: int

    size = None

    @property
    def count(self) -> int:
        return self.n

    @property
    def domain(self) -> tuple[list[float], list[float]]:
        return [0.0], [self.n - 1.0]

    def check(self, title: str) -> None:
        check_several(self.n, title)

    def text(self) -> str:
        return f"{self.name} in 0 to {self.n - 1}"


# Actions


class ActionKind(Variable):
    """A kind of action, a = low + width y at shares y in a set of its own.

    A kind must give `name` and `size`; the names of the fields that hold `bounds`; the set `shares` in which y lies,
    one of `share_sets.py` or a new one; and the `interval`, low and width. It may give `check`, `text` and, where it
    must have a size, `may_be_scalar`.
    """

    bounds: ClassVar[tuple[str, ...]] = ()
    """The names of the fields that hold a bound: a number, a function of the state, f(s), or of the state and the
    actions declared earlier, f(s, a)."""
    tastes: float = 0.0
    """Scale of the taste shocks on the options of a discrete action; zero where there are none."""
    available: Callable[..., Any] | None = None
    """The function of the state that says which options of a discrete action there are; None: all, everywhere."""

    @property
    def shares(self) -> ShareSet:
        """The set in which y (..., n) lies."""
        raise NotImplementedError

    def interval(self, s: Any, a: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """(low, width) at the views s and a of the state and of the actions declared earlier, each (..., 1) or
        (..., n), like the flat states `like` (..., S)."""
        raise NotImplementedError

    def open_options(self, s: Any, like: Tensor) -> Tensor | None:
        """Which options of a discrete action may be taken at the view s, (..., n) of bool, like the flat states `like`
        (..., S); None where all may be everywhere."""
        return None

    def at(self, bound: Bound, s: Any, a: Any, like: Tensor) -> Tensor:
        """A bound's value at (s, a), (1,), (..., 1) or (..., n)."""
        value = evaluate_bound(bound, s, a)
        if isinstance(value, float | int):
            return like.new_full((1,), value)  # which, unlike a copy of the number, the device does not wait for
        value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
        return value if self.size is not None and value.ndim == like.ndim else value.unsqueeze(-1)


@dataclass(frozen=True)
class Action(ActionKind):
    """A continuous action with low <= a <= high.

    Each bound is a number, a function of the state, f(s), or of the state and the actions declared earlier,
    f(s, a). Where a bound is infinite, `scale` is a typical size of the action.
    """

    name: str
    low: Bound = -math.inf
    high: Bound = math.inf
    size: int | None = None
    scale: float = 1.0
    group: str | None = None

    bounds: ClassVar[tuple[str, ...]] = ("low", "high")

    @property
    def shares(self) -> ShareSet:
        return shares_between(is_bound(self.low), is_bound(self.high))

    def interval(self, s: Any, a: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """Where a bound is infinite, `scale` from the other; where both are, `scale` from zero."""
        below, above = is_bound(self.low), is_bound(self.high)
        if below and above:
            low = self.at(self.low, s, a, like)
            return low, self.at(self.high, s, a, like) - low
        if above:
            high = self.at(self.high, s, a, like)
            return high, torch.full_like(high, -self.scale)
        low = self.at(self.low if below else 0.0, s, a, like)
        return low, torch.full_like(low, self.scale)

    def check(self, title: str) -> None:
        for side in self.bounds:
            check_bound(getattr(self, side), f"{title}: {side}")
        if not is_finite_number(self.scale) or not self.scale > 0:
            raise SpecError(
                f"{title} has scale {self.scale!r}; it must be a typical size of the action, a positive number"
            )
        if callable(self.low) or callable(self.high):
            return  # compared at sampled states
        if not self.low < self.high or self.low == math.inf or self.high == -math.inf:
            raise SpecError(f"{title} has low = {self.low} and high = {self.high}; low must be below high")

    def text(self) -> str:
        low, high = ("f(s)" if callable(bound) else f"{bound:.4g}" for bound in (self.low, self.high))
        return f"{self.label} in [{low}, {high}]"


@dataclass(frozen=True)
class Budget(ActionKind):
    """`size` non-negative parts of a total; what they leave of it is unspent. `total`: a number, f(s) or f(s, a)."""

    name: str
    size: int
    total: Bound = 1.0
    group: str | None = None

    bounds: ClassVar[tuple[str, ...]] = ("total",)
    may_be_scalar: ClassVar[bool] = False
    shares: ClassVar[ShareSet] = SIMPLEX

    def interval(self, s: Any, a: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        total = self.at(self.total, s, a, like)
        return torch.zeros_like(total), total

    def check(self, title: str) -> None:
        check_bound(self.total, f"{title}: total")
        if not callable(self.total) and not (is_bound(self.total) and self.total > 0):
            raise SpecError(f"{title} has total {self.total}; it must be positive and finite")

    def text(self) -> str:
        return f"{self.label} (parts of a total)"


@dataclass(frozen=True)
class Choice(ActionKind):
    """A discrete action: one of n options. The spec reads the number of the option, 0.0 to n - 1, one for each member
    of the batch: torch.where(a.work == 1, ...), or a.work * wage.

    With `tastes` sigma > 0 each option d has a taste shock sigma eps_d in every period, which is seen before the
    choice: iid extreme values of type I with mean zero. Then, with v_d what option d is worth without it (Rust 1987),

        V = E max_d { v_d + sigma eps_d } = sigma log sum_d exp(v_d / sigma),    P(d) = exp((v_d - V) / sigma),
        E[ sigma eps_d | d is chosen ] = -sigma log P(d)

    `available` says which options there are: a function of the state that gives n of them, each a bool or a tensor of
    the batch's shape, as in lambda s: (True, s.m > self.price), or one tensor (..., n).
    """

    name: str
    n: int
    tastes: float = 0.0
    available: Callable[..., Any] | None = None

    size = None

    @property
    def shares(self) -> ShareSet:
        return Options(self.n)

    def interval(self, s: Any, a: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(like[..., :1]), torch.ones_like(like[..., :1])

    def open_options(self, s: Any, like: Tensor) -> Tensor | None:
        if self.available is None:
            return None
        found = self.available(s)
        if isinstance(found, Sequence):
            found = torch.stack([torch.as_tensor(x, device=like.device).expand(like.shape[:-1]) for x in found], dim=-1)
        return found.expand(*like.shape[:-1], self.n)

    def check(self, title: str) -> None:
        check_several(self.n, title)
        if not is_finite_number(self.tastes) or self.tastes < 0:
            raise SpecError(
                f"{title} has tastes = {self.tastes!r}; it must be the scale of the taste shocks, a finite number of 0 "
                "(none) or more"
            )
        if self.available is not None and not (callable(self.available) and takes_state_only(self.available)):
            raise SpecError(
                f"{title} has available = {self.available!r}; it must be a function of the state, f(s), that says "
                f"which of the {self.n} options there are"
            )

    def text(self) -> str:
        return f"{self.name} (one of {self.n}{', with taste shocks' if self.tastes > 0 else ''})"


# Bounds


def is_bound(bound: Bound) -> bool:
    """Whether a bound binds anywhere: a function, or a finite number."""
    return callable(bound) or abs(bound) != float("inf")


@functools.lru_cache
def takes_state_only(bound: Callable[..., Any]) -> bool:
    """Whether a bound is f(s); else it is f(s, a). Raises SpecError where it takes other arguments."""
    parameters = inspect.signature(bound).parameters.values()
    arguments = sum(p.default is inspect.Parameter.empty for p in parameters)
    if arguments not in (1, 2):
        name = getattr(bound, "__qualname__", "it")
        raise SpecError(f"a bound must be a number, f(s) or f(s, a); {name} takes {arguments} arguments")
    return arguments == 1


def evaluate_bound(bound: Bound, s: Any, a: Any) -> Tensor | float:
    """A bound's value at the views (s, a); the function may take s alone."""
    if not callable(bound):
        return bound
    return bound(s) if takes_state_only(bound) else bound(s, a)


def joined(ends: Any) -> Ends:
    """One number where all parts have the same; else a tuple. It takes numbers, sequences, arrays and tensors."""
    values = torch.as_tensor(ends, dtype=torch.float64).flatten().tolist()
    return values[0] if values and all(x == values[0] for x in values) else tuple(values)


def listed(variables: Any) -> list[Any]:
    """A declaration is one variable or a sequence of them."""
    return list(variables) if isinstance(variables, Sequence) else [variables]
