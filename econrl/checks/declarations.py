"""The class of a spec and the variables that it declares."""

from __future__ import annotations

import dataclasses
import keyword
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from econrl.checks.groups import check_declared_groups
from econrl.checks.trial import attempt
from econrl.errors import SpecError
from econrl.spec.model import Model
from econrl.spec.shocks import Discrete, LogNormal, Normal, Shock, Uniform
from econrl.spec.variables import Action, Budget, Choice, DiscreteState, MarkovChain, State, is_bound, listed

SUMS_TO_ONE = 1e-6  # how far probabilities may sum from one


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
    if not kind.__dataclass_params__.frozen or not by_keyword:  # type: ignore[attr-defined]
        raise SpecError(f"{name} must be decorated with @dataclass(frozen=True, kw_only=True)")
    for function in ("states", "actions", "reward", "transition"):
        if getattr(kind, function) is getattr(Model, function):
            raise SpecError(f"{name} does not define {function}: add a method `{function}`")
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
        "states": declaration(model, "states", (State, MarkovChain, DiscreteState)),
        "actions": declaration(model, "actions", (Action, Budget, Choice)),
        "shocks": declaration(model, "shocks", (Shock,)),
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
        check_size(variable, title)
    check_declared_groups(model, titled)
    for variable, title in titled:
        check_kind(variable, title)


def check_kind(variable: Any, title: str) -> None:
    """What a variable's own kind asks of it; a value that no tensor can hold is a mistake in the spec, too."""
    for kind, check_one in SOUND.items():
        if isinstance(variable, kind):
            try:
                check_one(variable, title)
            except (TypeError, ValueError, RuntimeError) as error:
                raise SpecError(f"{title} cannot be read: {type(error).__name__}: {error}") from error


def declaration(model: Model, function: str, kinds: tuple[type, ...]) -> list[Any]:
    """What `model.states()` (or actions, shocks) declares, as a list."""
    title = f"{type(model).__name__}.{function}"
    variables = listed(attempt(title, [getattr(model, function)], getattr(model, function)))
    for variable in variables:
        if not isinstance(variable, kinds):
            allowed = " or ".join(kind.__name__ for kind in kinds)
            raise SpecError(f"{title} declares {variable!r}; it must give one {allowed}, or a sequence of them")
    return variables


def check_names(model: Model, declared: dict[str, list[Any]]) -> None:
    """Names are identifiers. States and actions share no name, since tables hold both; a shock may be called like a
    continuous state that it drives, but not like a Markov chain, whose next value stands among the shocks."""
    for function, variables in declared.items():
        for name in (v.name for v in variables):
            title = f"{type(model).__name__}.{function}: the name {name!r}"
            if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
                raise SpecError(f"{title} cannot be read as an attribute; use letters, digits and _, a letter first")
            if name == "t" and model.horizon is not None:
                raise SpecError(f"{title} is taken by the period of a model with a horizon; choose another")
    chains = [v for v in declared["states"] if isinstance(v, MarkovChain)]
    for together in ([*declared["states"], *declared["actions"]], [*declared["shocks"], *chains]):
        names = [v.name for v in together]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"{type(model).__name__} declares '{name}' more than once; rename all but one")


def check_size(variable: Any, title: str) -> None:
    size = variable.size
    if (size is None and not isinstance(variable, Budget)) or (is_count(size) and size >= 1):
        return
    raise SpecError(f"{title} has size {size!r}; it must be a whole number of 1 or more (None for a scalar)")


def check_state(v: State, title: str) -> None:
    if not is_finite_number(v.low) or not is_finite_number(v.high):
        raise SpecError(f"{title} has the domain {v.low!r} to {v.high!r}; low and high must be finite numbers")
    if not v.low < v.high:
        raise SpecError(f"{title} has low = {float(v.low):g} and high = {float(v.high):g}; low must be below high")


def check_chain(v: MarkovChain, title: str) -> None:
    values, P = v.table, v.matrix
    if values.ndim not in (1, 2) or len(values) == 0 or not values.isfinite().all():
        raise SpecError(f"{title} has values of shape {tuple(values.shape)}; give finite values (n,) or (n, k)")
    n = len(values)
    if P.shape != (n, n):
        raise SpecError(f"{title} has {n} values and P of shape {tuple(P.shape)}; P must be ({n}, {n})")
    for i, row in enumerate(P):
        check_probabilities(row, f"{title}, row {i} of P")


def check_action(v: Action, title: str) -> None:
    for side in ("low", "high"):
        check_bound(getattr(v, side), f"{title}: {side}")
    if not is_finite_number(v.scale) or not v.scale > 0:
        raise SpecError(f"{title} has scale {v.scale!r}; it must be a typical size of the action, a positive number")
    if callable(v.low) or callable(v.high):
        return  # compared at sampled states
    if not v.low < v.high or v.low == math.inf or v.high == -math.inf:
        raise SpecError(f"{title} has low = {v.low} and high = {v.high}; low must be below high")


def check_budget(v: Budget, title: str) -> None:
    check_bound(v.total, f"{title}: total")
    if not callable(v.total) and not (is_bound(v.total) and v.total > 0):
        raise SpecError(f"{title} has total {v.total}; it must be positive and finite")


def check_number(v: Choice | DiscreteState, title: str) -> None:
    if not is_count(v.n) or v.n < 2:
        raise SpecError(f"{title} has n = {v.n!r}; it must be a whole number of 2 or more")


def check_bound(bound: Any, title: str) -> None:
    if not callable(bound) and (not is_number(bound) or bound != bound):
        raise SpecError(f"{title} is {bound!r}; it must be a number, a function f(s), or a function f(s, a)")


# The shocks


def check_normal(v: Normal, title: str) -> None:
    check_moment(v.mean, v.size, f"{title}: mean")
    if v.cov is None:
        check_moment(v.std, v.size, f"{title}: std", smallest=0.0)
        return
    cov = torch.as_tensor(v.cov, dtype=torch.float64)
    if cov.shape != (v.size, v.size):
        raise SpecError(f"{title} has size {v.size} and cov of shape {tuple(cov.shape)}; cov must be (size, size)")
    if not cov.isfinite().all() or not torch.allclose(cov, cov.T):
        raise SpecError(f"{title}: cov is not symmetric, or not finite")
    smallest = float(torch.linalg.eigvalsh(cov).min())
    if smallest < -1e-10 * float(cov.abs().max()):
        raise SpecError(f"{title}: cov is not positive semidefinite; its smallest eigenvalue is {smallest:.3g}")


def check_lognormal(v: LogNormal, title: str) -> None:
    check_moment(v.std, v.size, f"{title}: std", smallest=0.0)
    check_moment(v.mean, v.size, f"{title}: mean", smallest=0.0)
    if not (torch.as_tensor(v.mean) > 0).all():
        raise SpecError(f"{title}: mean is zero; the mean of a lognormal is positive")


def check_uniform(v: Uniform, title: str) -> None:
    if not is_finite_number(v.low) or not is_finite_number(v.high) or not v.low < v.high:
        raise SpecError(f"{title} has low = {v.low!r} and high = {v.high!r}; they must be finite, low below high")


def check_discrete(v: Discrete, title: str) -> None:
    values = torch.as_tensor(v.values, dtype=torch.float64)
    probabilities = torch.as_tensor(v.probabilities, dtype=torch.float64)
    if values.ndim not in (1, 2) or len(values) == 0 or not values.isfinite().all():
        raise SpecError(f"{title} has values of shape {tuple(values.shape)}; give finite values (n,) or (n, k)")
    if v.width != v.support.shape[-1]:
        raise SpecError(f"{title} has size {v.size}, and values of width {v.support.shape[-1]}; leave the size out")
    if probabilities.shape != values.shape[:1]:
        raise SpecError(f"{title} has {len(values)} values and probabilities of shape {tuple(probabilities.shape)}")
    check_probabilities(probabilities, title)


def check_probabilities(p: Tensor, title: str) -> None:
    if not (p >= 0).all():
        raise SpecError(f"{title} has a probability of {float(p.min()):.4g}; none may be negative")
    if not abs(float(p.sum()) - 1) <= SUMS_TO_ONE:
        raise SpecError(f"{title} has probabilities that sum to {float(p.sum()):.8g}; they must sum to one")


def check_moment(value: Any, size: int | None, title: str, smallest: float = -math.inf) -> None:
    """A mean or a standard deviation: a number, or one for each part of a vector."""
    moment = torch.as_tensor(value, dtype=torch.float64)
    if moment.shape != () and moment.shape != (size,):
        raise SpecError(f"{title} has shape {tuple(moment.shape)}; it must be a number, or of shape (size,)")
    if not moment.isfinite().all() or not (moment >= smallest).all():
        raise SpecError(f"{title} is {value!r}; it must be finite{'' if smallest < 0 else ' and not negative'}")


SOUND: dict[type, Callable[[Any, str], None]] = {
    State: check_state,
    MarkovChain: check_chain,
    Action: check_action,
    Budget: check_budget,
    Choice: check_number,
    DiscreteState: check_number,
    Normal: check_normal,
    LogNormal: check_lognormal,
    Uniform: check_uniform,
    Discrete: check_discrete,
}


# Numbers


def is_number(value: Any) -> bool:
    """A real number, or a tensor without dimensions; no bool."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype != torch.bool
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
