"""A spec as functions of flat tensors, on one device and in one precision: what every solver works with.

Columns of the flat tensors:
    s (..., S)   the states in the order declared; a Markov chain is held as its index, a discrete state as its number;
                 last, t for a life cycle
    a (..., A)   the actions; a choice is held as the number of its option
    e (..., E)   the shocks, then the next index of every Markov chain

Three parts make it up: the `Layout` of these columns, the `FeasibleSet`, and the `Expectation` over shocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.problem.alternatives import Alternatives
from econrl.problem.expectation import Expectation
from econrl.problem.feasible_set import FeasibleSet
from econrl.problem.groups import Group, groups_of
from econrl.problem.layout import Layout, Reader, Slot, View, adjacent, flatten, named, with_calendar
from econrl.problem.quadrature import Quadrature
from econrl.spec.model import Model
from econrl.spec.shocks import Shock
from econrl.spec.variables import ActionKind, StateKind, listed
from econrl.utility import Preferences

BORN = 0.75  # share of the paths of a life cycle that begin with it


class MDP:
    """The flat functions r, f, beta, the feasible set and the shocks of `model`.

    `like` is a problem of the same variables, of which all that stays the same is taken over; `made` are choices made
    beforehand, by name (see `given`).
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        quadrature: Quadrature | None = None,
        *,
        like: MDP | None = None,
        made: dict[str, float] | None = None,
    ) -> None:
        self.declared, self.made = model, made or {}
        self.device, self.dtype, self.quadrature = torch.device(device), dtype, quadrature or Quadrature()
        at_home = like is not None and like.declared is model and (like.device, like.dtype) == (self.device, dtype)
        self.model: Model = like.model if like is not None and at_home else model.to(device, dtype)
        self.state_variables: list[StateKind] = listed(self.model.states())
        self.action_variables: list[ActionKind] = [v for v in listed(self.model.actions()) if v.name not in self.made]
        self.shock_variables: list[Shock] = listed(self.model.shocks())
        self._lay_out(like)
        self.preferences: Preferences = self.model.preferences().of(self.model)

        self.low, self.high = self.tensor(self.layout.low), self.tensor(self.layout.high)
        self.options = self.tensor(list(itertools.product(*(range(n) for _, n in self.choices))))
        """All combinations of options (D, number of choices); one empty row where there is no choice."""
        self.chains = [v for v in self.state_variables if v.by_itself]
        self.tables = [c.table.to(self.device, dtype) for c in self.chains]
        readers = {v.name: v.reader(self.low) for v in self.state_variables}
        writers = {v.name: v.writer(self.low) for v in self.state_variables}
        maps = {name: f for name, f in readers.items() if f is not None}
        self._read_after = Reader(self.state_slots, maps)  # life, too
        self._read = Reader(self.state_slots, maps if self.horizon is None else {**maps, "t": self.in_life})
        of_shocks = {v.name: v.reader(self.low) for v in self.shock_variables}
        of_shocks |= {v.name: readers[v.name] for v in self.chains}
        self._read_shocks = Reader(
            self.shock_slots, {name: f for name, f in of_shocks.items() if f is not None}, "shock"
        )
        self.varying = [v for v in self.shock_variables if v.varying]
        """The shocks whose distribution depends on the state."""
        self._writers = {name: f for name, f in writers.items() if f is not None}

        self.feasible_set = FeasibleSet(self.action_variables, self.action_slots, self._read, self.made)
        self.alternatives = Alternatives(
            self.feasible_set, self.join(self.options, self.options.new_zeros(len(self.free)))
        )
        """The combinations of options, and how their values are compared."""
        if like is not None and at_home and like.quadrature == self.quadrature:
            self.expectation: Expectation = like.expectation
        else:
            matrices = [c.matrix.to(self.device, dtype) for c in self.chains]
            probabilities = {v.name: partial(self.probabilities, v) for v in self.varying if v.discrete}
            self.expectation = Expectation(
                self.shock_variables, probabilities, matrices, self.layout, self.quadrature, self.low
            )
        self.nodes = self.expectation.nodes

        self._widened: dict[float, tuple[Tensor, Tensor]] = {}  # the domain, by margin
        self._given: dict[tuple[float, ...], Self] = {}
        self.found: dict[Any, Any] = {}
        """What others find out about the problem once, and keep with it."""

    def _lay_out(self, like: MDP | None) -> None:
        """The columns, from the declarations or from another problem."""
        states, actions, shocks = self.state_variables, self.action_variables, self.shock_variables
        if like is None:
            self.layout: Layout = Layout.of(states, actions, shocks, self.model.horizon)
        else:
            self.layout = like.layout if like.made == self.made else like.layout.with_actions(actions)
        layout = self.layout
        self.horizon, self.S, self.A, self.E = layout.horizon, layout.S, layout.A, layout.E
        self.state_slots, self.action_slots = layout.state_slots, layout.action_slots
        self.shock_slots, self.next_chains = layout.shock_slots, layout.next_chains
        self.chain_columns, self.finite, self.whole = layout.chain_columns, layout.finite, layout.whole
        self.continuous, self.logarithmic, self.parameters = layout.continuous, layout.logarithmic, layout.parameters
        self.choices, self.free = layout.choices, layout.free

    # The same problem in other terms

    def with_quadrature(self, quadrature: Quadrature) -> Self:
        """The same problem, with expectations taken in another way."""
        other = self._like(quadrature=quadrature)
        other.found = dict(self.found)
        return other

    def on(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same problem on another device, or in another precision."""
        return self._like(device=device or self.device, dtype=dtype or self.dtype)

    def with_model(self, model: Model) -> Self:
        """The problem of another model, whose variables have the same names, sizes and domains."""
        return self._like(model=model)

    def _like(self, **changed: Any) -> Self:
        same = {name: getattr(self, name) for name in ("device", "dtype", "quadrature", "made")}
        return type(self)(**{"model": self.declared, **same, **changed}, like=self)

    def given(self, option: Tensor) -> Self:
        """The problem that is left once the choices are made: its actions are the continuous ones. option (C,)."""
        if not self.choices:
            return self
        key = tuple(option.tolist())
        if key not in self._given:
            made = {self.action_slot(column).name: d for (column, _), d in zip(self.choices, key, strict=True)}
            self._given[key] = self._like(made={**self.made, **made})
        return self._given[key]

    # Columns

    def tensor(self, values: Any) -> Tensor:
        """Numbers as a tensor of this precision, on this device."""
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    @property
    def layers(self) -> int:
        """How many combinations of values the Markov chains and discrete states have."""
        return math.prod(n for _, n in self.finite)

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of exchangeable members."""
        layouts = (self.state_slots, self.action_slots, self.shock_slots)
        return groups_of(*layouts, self.model.group_features(), self.low)

    @property
    def laid_states(self) -> list[tuple[StateKind, Slot]]:
        """Each state, t of a life cycle among them, with its columns."""
        return list(zip(with_calendar(self.state_variables, self.horizon), self.state_slots, strict=True))

    @cached_property
    def continuous_actions(self) -> list[tuple[ActionKind, Slot]]:
        """Each variable among the actions that is no choice, with its columns."""
        return [(v, slot) for v, slot in self.feasible_set.laid if v.shares.options is None]

    # Views

    def state(self, s: Tensor) -> View:
        """The view of flat states s (..., S), chains by their values. Lives that are over are read in their last
        period, so that a table by age needs no more entries than there are ages."""
        return self._read(s)

    def actions(self, a: Tensor) -> View:
        """The view of flat actions a (..., A), those that are given included."""
        return self.feasible_set.view(a)

    def shocks(self, s: Tensor, e: Tensor) -> View:
        """The view of flat shocks e (..., E), and of next period's chains by their values, at flat states s (..., S).

        Shocks whose parameters depend on the state are held as standard ones (`spec/shocks.py`).
        """
        values = named(self._read_shocks(e))
        for v in self.varying:
            if not v.discrete:
                values |= self.realised(v, s, e)
        return View("shock", values)

    def realised(self, shock: Shock, s: Tensor, e: Tensor) -> dict[str, Tensor]:
        """A shock that depends on the state, by the names by which the spec reads it."""
        slots = [slot for slot in self.shock_slots if slot.name in [part.name for part in shock.parts]]
        first = slots[0].start
        x = shock.at(self.state(s), s).from_standard(e[..., first : slots[-1].stop])
        return {slot.name: replace(slot, start=slot.start - first).read(x) for slot in slots}

    def probabilities(self, shock: Shock, s: Tensor) -> Tensor:
        """Those (..., n) of a discrete shock that depends on the state."""
        found: Tensor = shock.at(self.state(s), s).probabilities  # type: ignore[attr-defined]
        return torch.as_tensor(found, dtype=s.dtype, device=s.device)

    def hold(self, name: str, value: Tensor) -> Tensor:
        """A state's value, as the model's functions give it, in the form in which it is held."""
        return self._writers[name](value) if name in self._writers else value

    def flat_states(self, values: dict[str, Tensor]) -> Tensor:
        """Values by name of every state, as the model's functions give them, as one flat tensor (..., S)."""
        for name, write in self._writers.items():
            values = {**values, name: write(values[name])}
        return flatten(self.state_slots, values)

    # The feasible set

    def squash(self, u: Tensor) -> Tensor:
        """Any real u (..., A) to shares y."""
        return self.feasible_set.squash(u)

    def squash_slope(self, u: Tensor) -> Tensor:
        """dy/du of each share on its own, (..., A); positive, and zero for a choice."""
        return self.feasible_set.squash_slope(u)

    def log_squash_volume(self, u: Tensor) -> Tensor:
        """log |det dy/du| of `squash`, (...)."""
        return self.feasible_set.log_squash_volume(u)

    def unsquash(self, y: Tensor) -> Tensor:
        """The u that squashes to y; shares on a bound are moved off it by 1e-12."""
        return self.feasible_set.unsquash(y)

    def clamp_shares(self, y: Tensor) -> Tensor:
        """The nearest shares that keep all bounds, 1e-12 off them."""
        return self.feasible_set.clamp_shares(y)

    def from_shares(self, s: Tensor, y: Tensor) -> Tensor:
        """Actions a (..., A) at shares y."""
        return self.feasible_set.from_shares(s, y)

    def shares(self, s: Tensor, a: Tensor) -> Tensor:
        """The shares of actions a; one half where low = high leaves no choice."""
        return self.feasible_set.shares(s, a)

    def widths(self, s: Tensor, a: Tensor) -> Tensor:
        """da/dy of each action on its own, (..., A)."""
        return self.feasible_set.widths(s, a)

    def act(self, s: Tensor, u: Tensor) -> Tensor:
        """Feasible actions from any real u."""
        return self.feasible_set.act(s, u)

    def feasible(self, s: Tensor, a: Tensor, slack: float = 1e-6) -> Tensor:
        """Whether all of a (..., A) keep their bounds, up to a share `slack`."""
        return self.feasible_set.feasible(s, a, slack)

    # Choices

    def sample_options(self, u: Tensor, generator: torch.Generator) -> Tensor:
        """u (..., A) with options drawn at random, all alike likely, in the columns of choices."""
        for column, n in self.choices:
            u[..., column] = torch.randint(n, u.shape[:-1], generator=generator, device=u.device).to(u)
        return u

    @property
    def tastes(self) -> float:
        """Scale of the taste shocks on the options of a choice; zero where there are none."""
        return self.alternatives.tastes

    def options_of(self, a: Tensor) -> Tensor:
        """The options (..., C) in actions a (..., A)."""
        return a[..., [column for column, _ in self.choices]]

    def action_slot(self, column: int) -> Slot:
        """The action to which a column belongs."""
        return next(slot for slot in self.action_slots if slot.start <= column < slot.stop)

    def join(self, option: Tensor, free: Tensor) -> Tensor:
        """Actions (..., A), or any form of them, from options (..., C) and the continuous part (..., A - C)."""
        batch = torch.broadcast_shapes(option.shape[:-1], free.shape[:-1])
        columns = [column for column, _ in self.choices] + self.free
        order = sorted(range(self.A), key=columns.__getitem__)
        return torch.cat([option.expand(*batch, -1), free.expand(*batch, -1)], dim=-1)[..., order]

    # The model's functions

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        """u(s, a) (...), what the reward adds to a value; r(s, a) itself where utility is additive."""
        return self.preferences.felicity(self.flow(s, a))

    def flow(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s, a) (...), as the model gives it."""
        return self.model.reward(self.state(s), self.actions(a)).to(s.dtype)

    def transition(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """f(s, a, e), shape (..., S); s, a and e broadcast against each other."""
        return self.transition_with(s, a, self.shocks(s, e), e)

    def transition_with(self, s: Tensor, a: Tensor, shocks: View, e: Tensor) -> Tensor:
        """The same for a view of shocks; e (..., E) holds the next index of each Markov chain."""
        found = self.model.transition(self.state(s), self.actions(a), shocks)
        values = {name: torch.as_tensor(value, dtype=s.dtype, device=s.device) for name, value in found.items()}
        for slot in self.next_chains:
            values[slot.name] = slot.read(e)
        if self.horizon is not None:
            values["t"] = self.period(s) + 1
        return self.flat_states(values)

    def discount(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """beta(s, a, e), a scalar or of shape (...)."""
        return self.discount_with(s, a, self.shocks(s, e))

    def discount_with(self, s: Tensor, a: Tensor, shocks: View) -> Tensor:
        """The same for a view of shocks."""
        factor = self.model.discount(self.state(s), self.actions(a), shocks)
        return torch.as_tensor(factor, dtype=s.dtype, device=s.device)

    def period(self, s: Tensor) -> Tensor:
        """The period (...) of the states of a life cycle, their last column; the horizon where life is over."""
        return s[..., -1]

    def in_life(self, t: Tensor) -> Tensor:
        """Periods t (...), with those of lives that are over put back to the last one."""
        return t.clamp(0, self.layout.high[-1])

    def living(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Which of s (..., S) are in a life that is not over, (...); and s with the others put into the last period."""
        if self.horizon is None:
            return torch.ones_like(s[..., 0], dtype=torch.bool), s
        t = self.period(s)
        return t < self.horizon, torch.cat([s[..., :-1], self.in_life(t).unsqueeze(-1)], dim=-1)

    def terminal(self, s: Tensor) -> Tensor:
        """The value (...) of states after the last period, held as values are."""
        return self.preferences.held(self.after_life(s))

    def after_life(self, s: Tensor) -> Tensor:
        """The same as the model gives it."""
        return self.model.terminal(self._read_after(s)).to(s.dtype)

    def exact_policy(self, s: Tensor) -> Tensor | None:
        """The closed form (..., A), or None."""
        found = self.model.exact_policy(self.state(s))
        if found is None:
            return None
        return flatten(self.action_slots, found).expand(*s.shape[:-1], self.A)

    def exact_value(self, s: Tensor) -> Tensor | None:
        """The value function in closed form (...), as the model gives it; None where there is none."""
        return self.model.exact_value(self.state(s))

    # Shocks

    def weights(self, s: Tensor) -> Tensor:
        """Probability of each node (J, E) at the states s (..., S): (..., J), or (J,) where none depends on them."""
        return self.expectation.weights(s)

    def sample_shocks(self, s: Tensor, generator: torch.Generator, shape: Sequence[int] | None = None) -> Tensor:
        """One draw of e (..., E) for each state. With the `shape` of the last batch dimensions of s the same random
        numbers hold for all others."""
        return self.expectation.sample(s, generator, shape)

    def locate_shock(self, name: str, shown: Tensor) -> Tensor:
        """A shock, or a next chain, as it is held, from the values that the spec reads. Raises SpecError for a value
        that it does not take."""
        kinds: list[Shock | StateKind] = [*(part for v in self.shock_variables for part in v.parts), *self.chains]
        return next(v for v in kinds if v.name == name).locate(shown)

    def held_shocks(self, s: Tensor, shown: Tensor) -> Tensor:
        """Flat shocks (..., E) at the states s (..., S), of which those that depend on the state are given as the spec
        reads them; NaN where none is given. Raises SpecError for a value that cannot be there."""
        e = shown
        for v in self.varying:
            columns = [c for slot in self.shock_slots if slot.name in [p.name for p in v.parts] for c in slot.indices]
            if v.discrete or shown[..., columns].isnan().all():
                continue
            x = v.at(self.state(s), s).to_standard(shown[..., columns])
            if not x.isfinite().all():
                raise SpecError(
                    f"the shock '{v.name}' cannot take a value that was given, at the state that was reached"
                )
            e = torch.cat([e[..., : columns[0]], x, e[..., columns[-1] + 1 :]], dim=-1)
        return e

    # States

    def sample_box(self, n: int, generator: torch.Generator) -> Tensor:
        """n states uniform on the domain; chains and periods uniform over their values."""
        u = torch.rand(n, self.S, generator=generator, dtype=self.dtype, device=self.device)
        s = self.low + (self.high - self.low) * u
        if self.whole:
            steps = self.high[self.whole] - self.low[self.whole] + 1
            s[:, self.whole] = (u[:, self.whole] * steps).floor().minimum(steps - 1)
        return s

    def sample_start(self, n: int, generator: torch.Generator) -> Tensor:
        """n states from which a method learns: anywhere in the domain; of a life cycle three in four are where lives
        begin, since later ages are reached from there, and much of the domain never is."""
        box = self.sample_box(n, generator)
        if self.horizon is None:
            return box
        born = torch.rand(n, 1, generator=generator, dtype=self.dtype, device=self.device) < BORN
        return torch.where(born, self.sample_initial(n, generator), box)

    def sample_initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n states to start simulations from: the model's `initial`, or uniform on the domain; t = 0."""
        s = self.sample_box(n, generator)
        if self.horizon is not None:
            s[:, -1] = 0
        given = self.model.initial(n, generator)
        if given is not None:
            known = {slot.name for slot in self.state_slots}
            for name in given:
                if name not in known:
                    raise SpecError(f"{type(self.model).__name__}.initial names '{name}', which is no state")
            for slot in self.state_slots:
                if slot.name in given:
                    value = self.hold(slot.name, torch.as_tensor(given[slot.name]).to(s))
                    s[:, slot.start : slot.stop] = value if slot.size is not None else value.unsqueeze(-1)
        return s

    def inside(self, s: Tensor, margin: float = 0.0) -> Tensor:
        """Whether the continuous states lie in the domain, widened on each side by a share `margin` of its width, in
        logarithms for the states of `logarithmic`."""
        if margin not in self._widened:
            room = margin * (self.high - self.low)
            low, high = self.low - room, self.high + room
            factor = (self.high[self.logarithmic] / self.low[self.logarithmic]) ** margin
            low[self.logarithmic] = self.low[self.logarithmic] / factor
            high[self.logarithmic] = self.high[self.logarithmic] * factor
            self._widened[margin] = low[self.continuous], high[self.continuous]
        low, high = self._widened[margin]
        s = s[..., adjacent(self.continuous)]
        return ((s >= low) & (s <= high)).all(dim=-1)
