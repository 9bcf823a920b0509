"""The variables that a spec declares, and the named views through which its functions read them."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.errors import SpecError

Bound = float | Callable[..., Tensor]


@dataclass(frozen=True)
class State:
    """A continuous state. `low` and `high` bound the domain that the model is solved on; they clamp nothing.

    `size=None` is a scalar, read as a tensor of the batch's shape; `size=n` adds a last dimension of n. A vector with a
    `group` has one number for each of the group's exchangeable members (see `Model`).
    """

    name: str
    low: float
    high: float
    size: int | None = None
    group: str | None = None


@dataclass(frozen=True)
class Parameter(State):
    """A parameter of the model as a state that stays what it is (`over.py`); not for specs."""


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """A finite exogenous state: `values` has shape (n,) or (n, k), row i of `P` holds Prob(next = j | now = i).

    Declared among the states. The spec reads its value; the expectation over it is exact; its transition is not
    written by the model.
    """

    name: str
    values: Any
    P: Any

    group = None  # a chain is nobody's own

    @property
    def table(self) -> Tensor:
        return torch.as_tensor(self.values, dtype=torch.float64)

    @property
    def size(self) -> int | None:
        return self.table.shape[1] if self.table.ndim == 2 else None

    @property
    def matrix(self) -> Tensor:
        return torch.as_tensor(self.P, dtype=torch.float64)


@dataclass(frozen=True)
class DiscreteState:
    """A state with the values 0, 1, ..., n - 1, which the transition writes: employed or not, retired or not.

    The spec reads its number, one for each member of the batch, and gives a whole number for the next period.
    """

    name: str
    n: int

    size = None
    group = None  # nobody's own


AnyState = State | MarkovChain | DiscreteState


@dataclass(frozen=True)
class Action:
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


@dataclass(frozen=True)
class Budget:
    """`size` non-negative parts of a total; what they leave of it is unspent. `total`: a number, f(s) or f(s, a)."""

    name: str
    size: int
    total: Bound = 1.0
    group: str | None = None


@dataclass(frozen=True)
class Choice:
    """A discrete action: one of n options. The spec reads the number of the option, 0.0 to n - 1, one for each member
    of the batch: torch.where(a.work == 1, ...), or a.work * wage."""

    name: str
    n: int

    size = None
    group = None  # a choice is nobody's own


Decision = Action | Budget | Choice


def is_bound(bound: Bound) -> bool:
    """Whether a bound binds anywhere: a function, or a finite number."""
    return callable(bound) or abs(bound) != float("inf")


@functools.lru_cache
def takes_state_only(bound: Callable) -> bool:
    parameters = inspect.signature(bound).parameters.values()
    arguments = sum(p.default is inspect.Parameter.empty for p in parameters)
    if arguments not in (1, 2):
        name = getattr(bound, "__qualname__", "it")
        raise SpecError(f"a bound must be a number, f(s) or f(s, a); {name} takes {arguments} arguments")
    return arguments == 1


def listed(variables: Any) -> list[Any]:
    """A declaration is one variable or a sequence of them."""
    return list(variables) if isinstance(variables, Sequence) else [variables]
