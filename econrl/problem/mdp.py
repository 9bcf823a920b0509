"""A spec as functions of flat tensors, on one device and in one precision: what every solver works with.

Columns of the flat tensors:
    s (..., S)   the states in the order declared; a Markov chain is held as its index, a discrete state as its number;
                 last, t for a life cycle
    a (..., A)   the actions; a choice is held as the number of its option
    e (..., E)   the shocks, then the next index of every Markov chain
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Self

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.problem.feasible_set import FeasibleSet
from econrl.problem.groups import groups_of
from econrl.problem.layout import Slot, View, adjacent, flatten, held_size, slots, width
from econrl.problem.quadrature import Quadrature
from econrl.spec.model import Model
from econrl.spec.shocks import product
from econrl.spec.variables import AnyState, Choice, Decision, DiscreteState, MarkovChain, Parameter, State, listed


class MDP(FeasibleSet):
    """The flat functions r, f, beta, the feasible set and the shocks of `model`."""

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        quadrature: Quadrature | None = None,
    ):
        self.model = model.to(device, dtype)
        self.device, self.dtype, self.quadrature = torch.device(device), dtype, quadrature or Quadrature()
        self.state_variables: list[AnyState] = listed(self.model.states())
        self.action_variables: list[Decision] = listed(self.model.actions())
        self.shock_variables = listed(self.model.shocks())
        self.horizon = self.model.horizon
        self.chains = [v for v in self.state_variables if isinstance(v, MarkovChain)]

        calendar = [State("t", 0, self.horizon - 1)] if self.horizon is not None else []
        self.state_slots = slots([*self.state_variables, *calendar], width=lambda v: held_size(v))
        self.action_slots = slots(self.action_variables)
        self.shock_slots = slots([*self.shock_variables, *self.chains], width=lambda v: held_size(v))
        self.S, self.A, self.E = width(self.state_slots), width(self.action_slots), width(self.shock_slots)

        every = [*self.state_variables, *calendar]
        self.low = self.tensor([bound for v in every for bound in domain(v)[0]])
        self.high = self.tensor([bound for v in every for bound in domain(v)[1]])
        laid = list(zip(self.state_variables, self.state_slots, strict=False))
        self.chain_columns = [slot.start for v, slot in laid if isinstance(v, MarkovChain)]
        self.finite = [(slot.start, round(domain(v)[1][0]) + 1) for v, slot in laid if not isinstance(v, State)]
        """The column of each Markov chain and discrete state, and how many values it has."""
        self.next_chains = self.shock_slots[len(self.shock_variables) :]
        self.continuous = [c for c in range(self.S - len(calendar)) if c not in [column for column, _ in self.finite]]
        self.parameters = [slot.start for v, slot in laid if isinstance(v, Parameter)]
        # Positive states whose domain spans more than a factor of two, as wealth does, are best measured in logarithms.
        moving = [c for c in self.continuous if c not in self.parameters]
        self.logarithmic = [c for c in moving if self.low[c] > 0 and self.high[c] > 2 * self.low[c]]
        self.tables = [c.table.to(self.device, dtype) for c in self.chains]
        self.matrices = [c.matrix.to(self.device, dtype) for c in self.chains]
        self.whole = [c for c in range(self.S) if c not in self.continuous]
        """The columns of whole numbers: those of `finite`, and t."""
        self.nodes, self._shock_weights = self._rule()
        self._widened: dict[float, tuple[Tensor, Tensor]] = {}  # the domain, by margin

        decided = zip(self.action_variables, self.action_slots, strict=True)
        self.choices = [(slot.start, v.n) for v, slot in decided if isinstance(v, Choice)]
        """The column of each choice, and how many options it has."""
        self.free = [c for c in range(self.A) if c not in [column for column, _ in self.choices]]
        """The columns of the continuous actions."""
        self.options = self.tensor(list(itertools.product(*(range(n) for _, n in self.choices))))
        """All combinations of options (D, number of choices); one empty row where there is no choice."""

        layouts = (self.state_slots, self.action_slots, self.shock_slots)
        self.groups = groups_of(*layouts, self.model.group_features(), self.low)

    def tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    @property
    def layers(self) -> int:
        """How many combinations of values the Markov chains and discrete states have."""
        return math.prod(n for _, n in self.finite)

    # Views

    def state(self, s: Tensor) -> View:
        values = {slot.name: slot.read(s) for slot in self.state_slots}
        for chain, table in zip(self.chains, self.tables, strict=True):
            index = values[chain.name].long()
            # index_select, unlike table[index], works for a single state under vmap
            values[chain.name] = table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])
        return View("state", values)

    def actions(self, a: Tensor) -> View:
        return View("action", {**self.taken_at(a), **{slot.name: slot.read(a) for slot in self.action_slots}})

    def shocks(self, e: Tensor) -> View:
        return View("shock", {slot.name: slot.read(e) for slot in self.shock_slots[: len(self.shock_variables)]})

    # Choices

    def given(self, option: Tensor) -> Self:
        """The problem that is left once the choices are made: its actions are the continuous ones. option (C,)."""
        mdp = copy.copy(self)
        made = {self.action_slot(column).name: float(d) for (column, _), d in zip(self.choices, option, strict=True)}
        mdp.taken = {**self.taken, **made}
        mdp.action_variables = [v for v in self.action_variables if not isinstance(v, Choice)]
        mdp.action_slots = slots(mdp.action_variables)
        mdp.A, mdp.choices, mdp.options = len(self.free), [], self.options[:1, :0]
        mdp.free = list(range(mdp.A))
        return mdp

    def sample_options(self, u: Tensor, generator: torch.Generator) -> Tensor:
        """u (..., A) with options drawn at random, all alike likely, in the columns of choices."""
        for column, n in self.choices:
            u[..., column] = torch.randint(n, u.shape[:-1], generator=generator, device=u.device).to(u)
        return u

    def action_slot(self, column: int) -> Slot:
        return next(slot for slot in self.action_slots if slot.start <= column < slot.stop)

    def join(self, option: Tensor, free: Tensor) -> Tensor:
        """Actions (..., A), or any form of them, from options (..., C) and the continuous part (..., A - C)."""
        batch = torch.broadcast_shapes(option.shape[:-1], free.shape[:-1])
        columns = [column for column, _ in self.choices] + self.free
        order = sorted(range(self.A), key=columns.__getitem__)
        return torch.cat([option.expand(*batch, -1), free.expand(*batch, -1)], dim=-1)[..., order]

    # The model's functions

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s, a), shape (...)."""
        return self.model.reward(self.state(s), self.actions(a))

    def transition(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """f(s, a, e), shape (..., S); s, a and e broadcast against each other."""
        named = self.model.transition(self.state(s), self.actions(a), self.shocks(e))
        values = {name: torch.as_tensor(value, dtype=s.dtype, device=s.device) for name, value in named.items()}
        for slot in self.next_chains:
            values[slot.name] = slot.read(e)
        if self.horizon is not None:
            values["t"] = self.period(s) + 1
        return flatten(self.state_slots, values)

    def discount(self, s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """beta(s, a, e), a scalar or of shape (...)."""
        factor = self.model.discount(self.state(s), self.actions(a), self.shocks(e))
        return torch.as_tensor(factor, dtype=s.dtype, device=s.device)

    def period(self, s: Tensor) -> Tensor:
        return s[..., -1]

    def terminal(self, s: Tensor) -> Tensor:
        return self.model.terminal(self.state(s))

    def exact_policy(self, s: Tensor) -> Tensor | None:
        """The closed form (..., A), or None."""
        named = self.model.exact_policy(self.state(s))
        if named is None:
            return None
        return flatten(self.action_slots, named).expand(*s.shape[:-1], self.A)

    def exact_value(self, s: Tensor) -> Tensor | None:
        return self.model.exact_value(self.state(s))

    # Shocks

    def _rule(self) -> tuple[Tensor, Tensor]:
        nodes, weights = self.quadrature.over(self.shock_variables)
        indices = [
            (torch.arange(len(c.matrix), dtype=torch.float64)[:, None], torch.ones(len(c.matrix))) for c in self.chains
        ]
        nodes, weights = product([(nodes, weights), *indices])
        return nodes.to(self.device, self.dtype), weights.to(self.device, self.dtype)

    def weights(self, s: Tensor) -> Tensor:
        """Probability of each node (J, E) at the states s (..., S): (..., J), or (J,) without Markov chains."""
        w = self._shock_weights
        for column, slot, P in zip(self.chain_columns, self.next_chains, self.matrices, strict=True):
            w = w * P[s[..., column].long()][..., slot.read(self.nodes).long()]
        return w

    def sample_shocks(self, s: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of e (..., E) for each state."""
        shape = s.shape[:-1]
        parts = [v.sample(tuple(shape), generator).to(self.dtype) for v in self.shock_variables]
        for column, P in zip(self.chain_columns, self.matrices, strict=True):
            u = torch.rand(*shape, 1, generator=generator, dtype=self.dtype, device=self.device)
            then = (P[s[..., column].long()].cumsum(dim=-1) < u).sum(dim=-1, keepdim=True)
            parts.append(then.clamp(max=len(P) - 1).to(self.dtype))
        return torch.cat(parts, dim=-1) if parts else s[..., :0]

    # States

    def sample_box(self, n: int, generator: torch.Generator) -> Tensor:
        """n states uniform on the domain; chains and periods uniform over their values."""
        u = torch.rand(n, self.S, generator=generator, dtype=self.dtype, device=self.device)
        s = self.low + (self.high - self.low) * u
        if self.whole:
            steps = self.high[self.whole] - self.low[self.whole] + 1
            s[:, self.whole] = (u[:, self.whole] * steps).floor().minimum(steps - 1)
        return s

    def sample_initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n states to start simulations from: the model's `initial`, or uniform on the domain; t = 0."""
        s = self.sample_box(n, generator)
        if self.horizon is not None:
            s[:, -1] = 0
        named = self.model.initial(n, generator)
        if named is not None:
            known = {slot.name for slot in self.state_slots}
            for name in named:
                if name not in known:
                    raise SpecError(f"{type(self.model).__name__}.initial names '{name}', which is no state")
            for slot in self.state_slots:
                if slot.name in named:
                    value = torch.as_tensor(named[slot.name]).to(s)
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


def domain(v: AnyState) -> tuple[list[float], list[float]]:
    if isinstance(v, MarkovChain):
        return [0.0], [len(v.matrix) - 1.0]
    if isinstance(v, DiscreteState):
        return [0.0], [v.n - 1.0]
    n = v.size or 1
    return [v.low] * n, [v.high] * n
