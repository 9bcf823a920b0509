"""A range of parameters in one solve: the parameters theta become states that stay what they are.

    V(s, theta) = max over a in A(s; theta) of  r(s, a; theta) + E[ beta V(f(s, a, e; theta), theta) ]

One policy pi(s, theta) is then the solution of every model of the family (`member.py` reads off that of one of them).
Such states are called pseudo-states.

Source: Scheidegger and Bilionis (2019), "Machine learning for high-dimensional dynamic stochastic economies", Journal
of Computational Science 33.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.spec.fields_as_text import kinds_of
from econrl.spec.model import Model
from econrl.spec.shocks import Shock
from econrl.spec.variables import Parameter, StateKind, is_bound, listed, takes_state_only


@dataclass(frozen=True, kw_only=True)
class Family(Model):
    """The models `one.replace(gamma=..., ...)` for all parameters in the ranges `over`, as one model.

    Its functions are those of the member whose parameters the state holds: fields of the member are then tensors of
    the batch's shape. The domain is the smallest that holds those of the members at the corners and the centre of the
    range. Parameters of a shock that vary are functions of the state. Closed forms and the steady state belong to
    members, and a family has none.

    Raises SpecError for what is no parameter, or one that is no real number, for ranges that are none, and where the
    parameters change what cannot vary within one model.
    """

    one: Model
    over: dict[str, tuple[float, float]]  # low and high of each parameter

    def __post_init__(self) -> None:
        kind, known = type(self.one).__name__, self.one.parameters()
        if not isinstance(self.over, dict) or not self.over:
            raise SpecError(f"over of {kind} must be a dict of ranges, {{'{next(iter(known), 'x')}': (low, high)}}")
        for name, ends in self.over.items():
            title = f"over: the parameter '{name}' of {kind}"
            if name not in known:
                raise SpecError(f"{kind} has no parameter '{name}' to solve over; it has: {', '.join(known)}")
            if not is_real(known[name]) or kinds_of(type(self.one))[name] is int:
                raise SpecError(f"{title} is {known[name]!r}; only a real number can vary in one solve")
            pair = isinstance(ends, Sequence) and len(ends) == 2 and all(map(is_real, ends))
            if not pair or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
                raise SpecError(f"{title} has the range {ends!r}; it must be (low, high), finite, with low below high")
        object.__setattr__(self, "over", {name: (float(low), float(high)) for name, (low, high) in self.over.items()})
        for member in [self.one, *self.outer]:
            preferences = member.preferences().of(member)
            if not preferences.plain:
                raise SpecError(
                    f"over: {kind} has {preferences.text()} in this range; one solve over a range of parameters takes "
                    "sums of rewards alone: solve it for each parameter"
                )

    # The members

    def member(self, parameters: dict[str, Any]) -> Model:
        """The model with these parameters, numbers or tensors."""
        return self.one.replace(**parameters).with_features(self.group_features())

    def at(self, s: Any) -> Model:
        """The member whose parameters the state holds."""
        return self.member({name: getattr(s, name) for name in self.over})

    @cached_property
    def outer(self) -> list[Model]:
        """The members at the centre and at the corners of the range."""
        centre = tuple((low + high) / 2 for low, high in self.over.values())
        corners = itertools.product(*self.over.values())
        return [self.member(dict(zip(self.over, point, strict=True))) for point in [centre, *corners]]

    def versions(self, function: str) -> list[tuple[Any, ...]]:
        """Each variable that `states`, `actions` or `shocks` declares, as the outer members declare it."""
        declared = [listed(getattr(member, function)()) for member in self.outer]
        named = [[(type(v), v.name, v.size) for v in variables] for variables in declared]
        if any(other != named[0] for other in named):
            raise SpecError(f"{self.title}: {function} declares other variables at other parameters")
        return list(zip(*declared, strict=True))

    def with_domain(self, domain: Mapping[str, Any]) -> Self:
        """The members, solved on another domain; those of the parameters are the ranges `over`."""
        return self.with_fields({"one": self.one.with_domain(domain)}) if domain else self

    @property
    def title(self) -> str:
        return f"{type(self.one).__name__} over {', '.join(self.over)}"

    # The spec

    @property
    def horizon(self) -> int | None:  # type: ignore[override]
        """The members' horizon."""
        return self.one.horizon

    def states(self) -> list[StateKind]:
        parameters = [Parameter(name, low, high) for name, (low, high) in self.over.items()]
        return [*map(self.envelope, self.versions("states")), *parameters]

    def envelope(self, versions: Sequence[StateKind]) -> StateKind:
        """The state on the smallest domain that holds those of all versions."""
        first = versions[0]
        hull = first.hull(versions)
        if hull is not None:
            return hull
        if all(alike(first, v) for v in versions):
            return first
        raise SpecError(
            f"{self.title}: the {type(first).__name__} '{first.name}' varies with the parameters, and its values and "
            "probabilities must be the same in one solve; take an AR(1) state instead"
        )

    def actions(self) -> list[Any]:
        return [self.action(i, versions) for i, versions in enumerate(self.versions("actions"))]

    def action(self, i: int, versions: Sequence[Any]) -> Any:
        """The i-th action, with bounds that are those of the state's member."""
        first = versions[0]
        changed = {side: self.bound(i, side, [getattr(v, side) for v in versions]) for side in first.bounds}
        if any(v.tastes != first.tastes for v in versions):
            raise SpecError(f"{self.title}: the scale of the taste shocks on '{first.name}' cannot vary in one solve")
        if first.available is not None:
            changed["available"] = lambda s: listed(self.at(s).actions())[i].available(s)
        return dataclasses.replace(first, **changed) if changed else first

    def bound(self, i: int, side: str, bounds: Sequence[Any]) -> Any:
        """The bound `side` of the i-th action: a number where all versions agree, else that of the state's member."""
        first = bounds[0]
        if not callable(first) and all(bound == first for bound in bounds):
            return first
        if not all(map(is_bound, bounds)):
            raise SpecError(f"{self.title}: the bound '{side}' of an action is finite at some parameters only")

        def own(s: Any) -> Any:
            return getattr(listed(self.at(s).actions())[i], side)

        if not callable(first):
            return lambda s: torch.as_tensor(own(s))
        if takes_state_only(first):
            return lambda s: own(s)(s)
        return lambda s, a: own(s)(s, a)

    def shocks(self) -> list[Shock]:
        return [self.shock(i, versions) for i, versions in enumerate(self.versions("shocks"))]

    def shock(self, i: int, versions: Sequence[Any]) -> Shock:
        """The i-th shock; parameters of it that vary are functions of the state, those of its member."""
        first = versions[0]
        varying = [name for name, x in vars(first).items() if not all(same(x, getattr(v, name)) for v in versions)]

        def own(name: str) -> Any:
            def value(s: Any) -> Any:
                found = getattr(listed(self.at(s).shocks())[i], name)
                return found(s) if callable(found) else found

            return value

        for name in varying:
            if name not in first.may_vary:
                may = f"only {' and '.join(first.may_vary)} can" if first.may_vary else "this kind cannot"
                raise SpecError(
                    f"{self.title}: `{name}` of the shock '{first.name}' varies with the parameters, where {may}; "
                    "declare it with a fixed one, and write what varies into the transition"
                )
        return dataclasses.replace(first, **{name: own(name) for name in varying}) if varying else first

    def reward(self, s: Any, a: Any) -> Tensor:
        return self.at(s).reward(s, a)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {**self.at(s).transition(s, a, e), **{name: getattr(s, name) for name in self.over}}

    def discount(self, s: Any, a: Any, e: Any) -> float | Tensor:
        return self.at(s).discount(s, a, e)

    def group_features(self) -> dict[str, dict[str, Tensor]]:
        return self.one.group_features()

    def terminal(self, s: Any) -> Tensor:
        return self.at(s).terminal(s)

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        return self.at(s).outcomes(s, a)

    def consumption_value(self, s: Any, a: Any) -> Tensor | None:
        return self.at(s).consumption_value(s, a)

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters uniform over the range, and each member's own initial states."""
        drawn = {}
        for name, (low, high) in self.over.items():
            u = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
            drawn[name] = low + (high - low) * u
        return {**(self.member(drawn).initial(n, generator) or {}), **drawn}

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return self.with_fields({"one": self.one.to(device, dtype)})


def is_real(value: Any) -> bool:
    """Whether it is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def alike(one: Any, other: Any) -> bool:
    """Whether two declarations of a variable have the same contents."""
    return all(same(x, vars(other)[name]) for name, x in vars(one).items())


def same(one: Any, other: Any) -> bool:
    """Whether two contents of a declaration are the same, arrays among them."""
    one, other = (x.cpu() if isinstance(x, Tensor) else x for x in (one, other))
    return bool(np.array_equal(one, other))
