"""Many independent copies of a small model as one model, on request with their states mixed: exact in any dimension."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from econrl import Budget, Model, Solution, SpecError, State, load
from econrl.models.brock_mirman import BrockMirman
from econrl.problem.layout import View, flatten
from econrl.spec.variables import MarkovChain, listed, takes_state_only


@dataclass(frozen=True, kw_only=True)
class Copies(Model):
    """n copies of the model `one`, each with its own states, actions and shocks; the reward is the sum of theirs.

        V(x_1, ..., x_n) = sum_j V_one(x_j),    a_j = pi_one(x_j)

    A scalar state `k` of one copy is a vector `k` of size n, a vector of size m one of size n m, copy after copy, and
    so are actions and shocks; budgets and discrete shocks are named `w0`, `w1`, ... by copy. The optimum is known
    where that of one copy is: in closed form, or from the accurate solution in the folder `solution`.

    A method that treats one state after another has an easy life in such a model. With `rotate`, a seed, the state is
    v = Q u, Q a random rotation (Haar measure) and u each copy's state in coordinates in which its domain is [-1, 1]:
    in logarithms where the domain is positive, so that every v stands for an admissible state. States of one kind are
    mixed with each other alone, by the same Q, for mixed with an exogenous state every state would be endogenous. The
    domain of the mixed states `k_mixed` is [-1, 1] again: independent u of equal variance have a v of that variance, so
    that simulations fill it as they fill that of one copy, while its corners lie up to sqrt(n) times as far out.

    Raises SpecError for a `one` with a horizon, Markov chains, shocks that depend on the state or are correlated,
    recursive utility, states without a domain, or a discount factor of its own for each copy.
    """

    one: Model = field(default_factory=BrockMirman)
    n: int = 2  # copies
    rotate: int | None = None  # seed of the rotation; None: the states as they are
    solution: str | None = None  # folder of a saved accurate solution of `one`, where there is no closed form

    def __post_init__(self) -> None:
        name = type(self.one).__name__
        if self.one.horizon is not None:
            raise SpecError(f"Copies of {name}: a model with a horizon cannot be copied; take a stationary one")
        if any(isinstance(v, MarkovChain) for v in self.kinds):
            raise SpecError(f"Copies of {name}: a model with a Markov chain cannot be copied; take an AR(1) state")
        if any(v.varying or len(v.parts) > 1 for v in listed(self.one.shocks())):
            raise SpecError(
                f"Copies of {name}: a shock that depends on the state, or a Correlated, cannot be copied; multiply "
                "standard normals in the transition"
            )
        if not self.one.preferences().of(self.one).plain:
            raise SpecError(
                f"Copies of {name}: it has {self.one.preferences().text()}, and values add up over copies where "
                "rewards do; take additive utility"
            )
        if any(isinstance(v, State) and v.is_open for v in self.kinds):
            raise SpecError(f"Copies of {name}: a state leaves out an end of its domain; give low and high of each")
        if type(self.one).discount is not Model.discount:
            raise SpecError(
                f"Copies of {name}: it defines `discount`, and the values of copies that discount differently do not "
                "add up to one value; take a model with a constant beta"
            )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        return super().to(device, dtype).with_fields({"one": self.one.to(device, dtype)})

    @property
    def beta(self) -> float:
        return self.one.beta  # type: ignore[attr-defined]  # one without a `discount` has it

    @cached_property
    def kinds(self) -> list[Any]:
        """The states of one copy."""
        return listed(self.one.states())

    @cached_property
    def reference(self) -> Solution:
        """The accurate solution of one copy; raises SaveError where the folder holds none of `one`."""
        assert self.solution is not None
        return load(self.solution, self.one)

    # From this model's variables to those of the copies: a copy is a member of the batch, in its last dimension

    def split(self, x: Any, size: int | None) -> Tensor:
        """(..., n m) to (..., n, m), and to (..., n) for a scalar of one copy."""
        return x if size is None else x.unflatten(-1, (self.n, size))

    def join(self, x: Any, size: int | None) -> Tensor:
        """The inverse; x may also be one number for all copies."""
        x = torch.as_tensor(x)
        x = x.expand(torch.broadcast_shapes(x.shape, (self.n,) if size is None else (self.n, size)))
        return x if size is None else x.flatten(-2)

    def members(self, kind: str, view: Any, variables: Sequence[Any]) -> View:
        """The copies' variables as they see them; those of a bound's view that are not there yet are left out."""
        values = {}
        for v in variables:
            if not self.is_separate(v):
                if hasattr(view, v.name):
                    values[v.name] = self.split(getattr(view, v.name), v.size)
            elif hasattr(view, f"{v.name}{self.n - 1}"):
                values[v.name] = torch.stack(
                    [getattr(view, f"{v.name}{j}") for j in range(self.n)], dim=-1 if v.size is None else -2
                )
        return View(kind, values)

    @staticmethod
    def is_separate(v: Any) -> bool:
        """Whether the copies' variables keep names of their own."""
        return isinstance(v, Budget) or getattr(v, "discrete", False)

    def state(self, s: Any) -> View:
        if self.rotate is None:
            return self.members("state", s, self.kinds)
        return View("state", {v.name: self.unmixed(v, getattr(s, f"{v.name}_mixed")) for v in self.kinds})

    def action(self, a: Any) -> View:
        return self.members("action", a, listed(self.one.actions()))

    def shock(self, e: Any) -> View:
        return self.members("shock", e, listed(self.one.shocks()))

    def unmixed(self, v: Any, mixed: Tensor) -> Tensor:
        """x (..., n) or (..., n, m) from Q u: u = Q'(Q u)."""
        u = rotation(self.n, self.rotate, mixed.dtype, mixed.device).mT @ mixed.unflatten(-1, (self.n, v.size or 1))
        middle, radius = coordinates(v)
        x = middle + radius * (u if v.size is not None else u.squeeze(-1))
        return x.exp() if v.low > 0 else x

    def mixed(self, v: Any, x: Any) -> Tensor:
        """Q u (..., n m) from x (..., n m)."""
        middle, radius = coordinates(v)
        u = ((x.log() if v.low > 0 else x) - middle) / radius
        return (rotation(self.n, self.rotate, u.dtype, u.device) @ u.unflatten(-1, (self.n, v.size or 1))).flatten(-2)

    def joined_states(self, values: dict[str, Any]) -> dict[str, Tensor]:
        """The states of this model from the copies'."""
        joined = {v.name: self.join(values[v.name], v.size) for v in self.kinds if v.name in values}
        if self.rotate is None:
            return joined
        return {f"{v.name}_mixed": self.mixed(v, joined[v.name]) for v in self.kinds if v.name in joined}

    def joined_actions(self, values: dict[str, Any]) -> dict[str, Tensor]:
        """The actions of this model from the copies'."""
        joined = {}
        for v in listed(self.one.actions()):
            if not isinstance(v, Budget):
                joined[v.name] = self.join(values[v.name], v.size)
                continue
            parts = torch.as_tensor(values[v.name])
            parts = parts.expand(torch.broadcast_shapes(parts.shape, (self.n, v.size)))
            joined.update({f"{v.name}{j}": parts[..., j, :] for j in range(self.n)})
        return joined

    # The spec

    def states(self) -> list[State]:
        if self.rotate is None:
            return [replace(v, size=self.n * (v.size or 1)) for v in self.kinds]
        return [State(f"{v.name}_mixed", -1.0, 1.0, size=self.n * (v.size or 1)) for v in self.kinds]

    def actions(self) -> list[Any]:
        declared = []
        for v in listed(self.one.actions()):
            if isinstance(v, Budget):
                declared += [
                    replace(v, name=f"{v.name}{j}", total=self.bound(v.total, partial(of_copy, j)))
                    for j in range(self.n)
                ]
            else:
                low, high = (self.bound(b, partial(self.join_bound, size=v.size)) for b in (v.low, v.high))
                declared.append(replace(v, low=low, high=high, size=self.n * (v.size or 1)))
        return declared

    def bound(self, bound: Any, pick: Callable[[Tensor, Any], Tensor]) -> Any:
        """A copy's bound as one of this model."""
        if not callable(bound):
            return bound
        if takes_state_only(bound):
            return lambda s: pick(bound(self.state(s)), s)
        return lambda s, a: pick(bound(self.state(s), self.action(a)), s)

    def join_bound(self, x: Any, s: Any, size: int | None) -> Tensor:
        """A bound (..., n), or (..., n, m), of an action of the given size at the states s."""
        for_each_part = x.ndim > getattr(s, self.states()[0].name).ndim
        return self.join(x if size is None or for_each_part else x.unsqueeze(-1), size)

    def shocks(self) -> list[Any]:
        declared = []
        for v in listed(self.one.shocks()):
            if v.discrete:
                declared += [replace(v, name=f"{v.name}{j}") for j in range(self.n)]
            else:
                moments = {name: self.repeated(getattr(v, name)) for name in ("std", "mean") if hasattr(v, name)}
                if getattr(v, "cov", None) is not None:
                    moments["cov"] = np.kron(np.eye(self.n), v.cov)
                declared.append(replace(v, **moments, size=self.n * v.width))
        return declared

    def repeated(self, moment: Any) -> Any:
        return np.tile(moment, self.n) if np.ndim(moment) == 1 else moment

    def reward(self, s: Any, a: Any) -> Tensor:
        return self.one.reward(self.state(s), self.action(a)).sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return self.joined_states(self.one.transition(self.state(s), self.action(a), self.shock(e)))

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        """The copies' means."""
        each = self.one.outcomes(self.state(s), self.action(a))
        return {name: self.join(value, None).mean(-1) for name, value in each.items()}

    def consumption_value(self, s: Any, a: Any) -> Tensor | None:
        each = self.one.consumption_value(self.state(s), self.action(a))
        return None if each is None else each.sum(-1)

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Tensor] | None:
        """The copies' own; where they have none, uniform on this model's domain."""
        drawn = self.one.initial(n * self.n, generator)
        if drawn is None:
            return None
        sizes = {v.name: () if v.size is None else (v.size,) for v in self.kinds}
        values = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in drawn.items()}
        values = {name: x.expand(n * self.n, *sizes[name]).unflatten(0, (n, self.n)) for name, x in values.items()}
        return self.joined_states(values)

    def steady_state(self) -> dict[str, Any] | None:
        steady = self.one.steady_state()
        if steady is None:
            return None
        values = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in steady.items()}
        return {**self.joined_states(values), **self.joined_actions(values)}

    def exact_policy(self, s: Any) -> dict[str, Tensor] | None:
        each = self.one.exact_policy(members := self.state(s))
        if each is None and self.solution is not None:
            mdp = self.reference.mdp
            flat = flatten(mdp.state_slots, vars(members)).to(mdp.low)
            each = vars(mdp.actions(self.reference.policy_function(flat).to(getattr(members, self.kinds[0].name))))
        return None if each is None else self.joined_actions(each)

    def exact_value(self, s: Any) -> Tensor | None:
        each = self.one.exact_value(members := self.state(s))
        if each is None and self.solution is not None:
            mdp = self.reference.mdp
            each = self.reference.value(flatten(mdp.state_slots, vars(members)).to(mdp.low))
            each = each.to(getattr(members, self.kinds[0].name))
        return None if each is None else each.sum(-1)


def copies(model: Model, n: int, rotate: int | None = None, solution: str | Path | None = None) -> Copies:
    """n independent copies of `model` as one model: see `Copies`.

    rotate    a seed, to mix their states by a random rotation
    solution  folder of an accurate solution of `model`, from which the exact policy and value are taken where there is
              no closed form: econrl.solve(model, "egm").save(folder)
    """
    return Copies(one=model, n=n, rotate=rotate, solution=None if solution is None else str(solution))


def of_copy(j: int, x: Tensor, s: Any) -> Tensor:
    """A bound (..., n) at the states s for copy j."""
    return x[..., j]


def coordinates(v: Any) -> tuple[float, float]:
    """Middle and half width of a state's domain, in logarithms where it is positive."""
    low, high = (np.log(v.low), np.log(v.high)) if v.low > 0 else (v.low, v.high)
    return float(low + high) / 2, float(high - low) / 2


@lru_cache
def rotation(n: int, seed: int | None, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """A random orthogonal matrix Q (n, n): of the QR factors of a normal draw, R with a positive diagonal."""
    Q, R = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return torch.as_tensor(Q * np.sign(np.diag(R))).to(device, dtype)
