"""Model: the class that an economist derives a spec from. It holds economics only, and no numerical choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.spec.shocks import Shock
from econrl.spec.variables import ActionKind, StateKind, listed
from econrl.utility import ADDITIVE, Preferences

States = StateKind | Sequence[StateKind]
Actions = ActionKind | Sequence[ActionKind]
Shocks = Shock | Sequence[Shock]


class Model:
    """A continuous-state Markov decision process,

        V(s) = max over a in A(s) of  r(s, a) + E[ beta(s, a, e) V(f(s, a, e)) ],

    written as a frozen dataclass (`@dataclass(frozen=True, kw_only=True)`) whose fields are the parameters.

    A model must define `states`, `actions`, `reward` and `transition`, and a parameter `beta` (or `discount`). Its
    functions get views of batched tensors: s.k has the batch's shape, (..., n) for a vector variable, and must work
    for any leading batch shape. They must not write into their arguments, nor mix the members of a batch.

    With `horizon = T` the model is a life cycle: s.t is the period, 0 to T - 1, and `terminal` the value after the
    last one. With `horizon = None` it is stationary.

    Vectors declared with `group="country"` have one number for each member of a group of exchangeable members, which
    differ in their states and in the constants of `group_features` only: the model is the same whatever their order.
    Networks that know this have a size that does not grow with the number of members.
    """

    horizon: int | None = None

    # What a model must define.

    def states(self) -> States:
        """The states, one or a sequence of them."""
        raise NotImplementedError

    def actions(self) -> Actions:
        """The actions, one or a sequence of them; a bound may read those declared earlier."""
        raise NotImplementedError

    def reward(self, s: Any, a: Any) -> Tensor:
        """r(s, a), of the batch's shape."""
        raise NotImplementedError

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        """f(s, a, e): next period's value of every state, by name (Markov chains and t move by themselves)."""
        raise NotImplementedError

    # What a model may define.

    def shocks(self) -> Shocks:
        """The shocks, one or a sequence of them; none unless given."""
        return ()

    def discount(self, s: Any, a: Any, e: Any) -> float | Tensor:
        """The factor on next period's value; may vary with the shock (growth, survival). Default: `self.beta`."""
        if not hasattr(self, "beta"):
            raise SpecError(f"{type(self).__name__} has no discount factor: add a field `beta`, or define discount")
        return self.beta

    def preferences(self) -> Preferences:
        """How the reward and the risk of tomorrow's value make today's value, V = W(r, m): `EpsteinZin`,
        `RiskSensitive` or `Recursive` (`econrl.utility`); additive unless given, V = r + E[beta V'].

        `terminal` and `exact_value` are then in the unit of that V, as are the solution's values.
        """
        return ADDITIVE

    def group_features(self) -> dict[str, dict[str, Tensor]]:
        """What tells the members of a group apart, by group and name: {"country": {"g": tensor (N,)}}.

        The model's own functions read these constants here, self.group_features()["country"]["g"], and nowhere else,
        so that `check` can give them to other members; while solving they come in the type and on the device of s.
        """
        return {}

    def terminal(self, s: Any) -> Tensor:
        """The value after the last period of a life cycle; zero unless given."""
        return torch.zeros_like(s.t)

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        """Further columns of every table: output, investment, ..."""
        return {}

    def exact_policy(self, s: Any) -> dict[str, Tensor] | None:
        """The optimal actions in closed form, by name; None where this calibration has none."""
        return None

    def exact_value(self, s: Any) -> Tensor | None:
        """The value function in closed form; None where this calibration has none."""
        return None

    def steady_state(self) -> dict[str, Any] | None:
        """The deterministic steady state of states and actions, by name, where known."""
        return None

    def consumption_value(self, s: Any, a: Any) -> Tensor | None:
        """c u'(c) (summed over goods), the unit of welfare losses; None: read off the reward (`certificates.py`). With
        `EpsteinZin`, c^(1-1/psi), since u(c) = c^(1-1/psi) / (1-1/psi)."""
        return None

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor] | None:
        """n initial states, by name, for simulations; None: uniform on the domain. A Markov chain begins at the number
        of one of its values, 0, 1, ...; states that are not named are drawn from the domain.

        Draw from the generator given, on its device: torch.rand(n, generator=generator, device=generator.device).
        """
        return None

    # What every model has.

    def by_age(self, profile: Any, t: Tensor) -> Tensor:
        """The profile's numbers at the periods t (...), of a life cycle: `self.by_age(self.survival, s.t)`.

        `profile` is a sequence, array or tensor with a number for each of the `horizon` periods, (T,), or a row of
        them, (T, k). After the last period, where `transition` may ask for s.t + 1, it is what it was in the last;
        further away it is NaN, which `check` names. Raises SpecError for a profile of another length.
        """
        table = profile_table(profile).to(t)
        if self.horizon is None:
            raise SpecError(f"{self.title} has no ages to read a profile by: give it a `horizon`")
        if table.ndim == 0 or len(table) != self.horizon:
            found = f"{len(table)} entries" if table.ndim else "one number"
            raise SpecError(
                f"{self.title}.by_age: the profile has {found}, and the model {self.horizon} periods (`horizon`); "
                "it must have one entry a period"
            )
        nothing = torch.full_like(table[:1], torch.nan)
        table = torch.cat([nothing, table, table[-1:], nothing])
        at = (t.long() + 1).clamp(0, self.horizon + 2)
        # index_select, unlike table[at], works for a single state under vmap
        return table.index_select(0, at.reshape(-1)).reshape(at.shape + table.shape[1:])

    @property
    def title(self) -> str:
        """What messages call the model."""
        return type(self).__name__

    def replace(self, **parameters: Any) -> Self:
        """The same model with other parameters, on the domain that `with_domain` gave: `model.replace(gamma=5.0)`."""
        known = self.parameters()
        for name in parameters:
            if name not in known:
                raise SpecError(f"{type(self).__name__} has no parameter '{name}'; it has: {', '.join(known)}")
        return self.with_fields(parameters)

    def with_fields(self, fields: dict[str, Any]) -> Self:
        """A copy with other fields, on the same domain."""
        return dataclasses.replace(self, **fields).carrying(self.domain)  # type: ignore[type-var]

    @classmethod
    def require_dataclass(cls) -> None:
        """Raises SpecError where @dataclass was forgotten."""
        if "__dataclass_params__" not in vars(cls):
            raise SpecError(
                f"{cls.__name__} is no dataclass: write @dataclass(frozen=True, kw_only=True) above the class"
            )

    def parameters(self) -> dict[str, Any]:
        """The fields of the dataclass and their values."""
        self.require_dataclass()
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}  # type: ignore[arg-type]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same model with its array-valued parameters and group features as tensors on a device and of a type."""
        moved = {
            name: torch.as_tensor(value).to(device, dtype)
            for name, value in self.parameters().items()
            if isinstance(value, (Tensor, np.ndarray)) and torch.as_tensor(value).is_floating_point()
        }
        model = self.with_fields(moved) if moved else self
        return model.with_features(
            {
                group: {name: torch.as_tensor(value).to(device, dtype) for name, value in features.items()}
                for group, features in self.group_features().items()
            }
        )

    def with_features(self, features: dict[str, dict[str, Tensor]]) -> Self:
        """The same model with other group features."""
        if not features:
            return self
        model = self.with_fields({})
        object.__setattr__(model, "group_features", lambda: features)
        return model

    @property
    def domain(self) -> dict[str, Any]:
        """What `with_domain` gave: low and high by state; empty where all domains are the model's own."""
        return dict(vars(self).get("_domain", {}))

    def with_domain(self, domain: Mapping[str, Any]) -> Self:
        """The same model, solved on another domain: `model.with_domain({"k": (0.5, 1.6)})`.

        A pair low, high for each state to be changed; for a vector, numbers for all its parts, or a sequence with one
        for each. The others keep theirs. Raises SpecError for what is no state, or no domain of it.
        """
        model = self.carrying({**self.domain, **domain})
        model.states()  # raises where a domain is none
        return model

    def carrying(self, domain: dict[str, Any]) -> Self:
        """The same model on this domain, which is not tried: parameters may be tensors of a batch."""
        if not domain:
            return self
        model = dataclasses.replace(self)  # type: ignore[type-var]
        if "group_features" in vars(self):
            object.__setattr__(model, "group_features", self.group_features)
        object.__setattr__(model, "_domain", domain)
        object.__setattr__(model, "states", partial(on_domain, model.states, domain, self.title))
        return model


def profile_table(profile: Any) -> Tensor:
    """A sequence of numbers, or of tensors with derivatives, an array or a tensor as a tensor. Raises SpecError where
    there are no numbers in it."""
    try:
        if isinstance(profile, Sequence) and any(isinstance(x, Tensor) for x in profile):
            return torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in profile])
        return torch.as_tensor(profile if isinstance(profile, Tensor) else np.array(profile, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError(f"a profile by age must be a sequence of numbers, got {profile!r}") from error


def on_domain(states: Callable[[], States], domain: Mapping[str, Any], title: str) -> list[StateKind]:
    """The declared states with the domains given by name."""
    declared: list[StateKind] = listed(states())
    names = [v.name for v in declared]
    for name, ends in domain.items():
        if name not in names:
            raise SpecError(f"{title} has no state '{name}' to set the domain of; it has: {', '.join(names)}")
        if not isinstance(ends, Sequence | Tensor | np.ndarray) or len(ends) != 2:
            raise SpecError(f"the domain of '{name}' must be a pair (low, high), got {ends!r}")
    return [v.with_domain(*domain[v.name]) if v.name in domain else v for v in declared]
