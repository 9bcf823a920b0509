"""What fitted value iteration leaves: a value network for each period, option and regime, and the maximiser's policy.

A regime is a combination of values of the discrete states, as worker or retired: what moves within it moves smoothly.
An option's value is smooth, too; V is the largest of them.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from econrl.approximation.networks import Features, exchangeable, network
from econrl.approximation.units import Units
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.state_function import StateFunction
from econrl.solvers.fitted.best_shares import Bounds, Step, derivatives
from econrl.solvers.grid.maximise import evaluate
from econrl.solvers.polish.correction_networks import SmoothNetwork

COARSE = 2  # nodes a shock of a Hessian: with one, risk would not matter
INWARD = 0.01  # of the way to the middle, from a bound at which the reward is infinite
NUMBERS = 4_000_000  # held at once: states times nodes times a network's units


class Cells:
    """How networks are numbered: by period, option and regime, the last of them first."""

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.regimes = [(column, n) for column, n in mdp.finite if column not in mdp.chain_columns]
        self.options, self.each = len(mdp.options), math.prod(n for _, n in self.regimes)
        self.count = (mdp.horizon or 1) * self.options * self.each

    def number(self, period: int, option: int, regime: int) -> int:
        """The number of a cell."""
        return (period * self.options + option) * self.each + regime

    def of(self, s: Tensor, option: int) -> Tensor:
        """The number of the cell to which each state of s (N, S) belongs under an option, (N,)."""
        period = s.detach()[:, -1].round().long() if self.mdp.horizon is not None else 0
        return (period * self.options + option) * self.each + self.regime(s)

    def regime(self, s: Tensor) -> Tensor:
        """The number of the regime of each state of s (..., S), (...)."""
        number = torch.zeros_like(s.detach()[..., 0], dtype=torch.long)
        for column, n in self.regimes:
            number = n * number + s.detach()[..., column].round().long()
        return number

    def put(self, s: Tensor, regime: int) -> Tensor:
        """The states s (N, S) with the discrete states of a regime."""
        values = list(itertools.product(*(range(n) for _, n in self.regimes)))[regime]
        s = s.clone()
        for (column, _), value in zip(self.regimes, values, strict=True):
            s[:, column] = value
        return s

    def open(self, s: Tensor, option: int) -> Tensor:
        """Those of the states s (N, S) at which an option is available."""
        available = self.mdp.alternatives.available(s)
        return s if available is None else s[available[:, option]]


def by_cell(cells: Tensor, x: Tensor, f: Callable[[int, Tensor], Tensor]) -> Tensor:
    """f(cell, rows) of the rows of x (N, ...), those of each cell together."""
    first = int(cells[0]) if len(cells) > 0 else 0
    if bool((cells == first).all()):
        return f(first, x)
    order = cells.argsort(stable=True)
    names, counts = cells[order].unique_consecutive(return_counts=True)
    parts = x[order].split(counts.tolist())
    return torch.cat([f(cell, part) for cell, part in zip(names.tolist(), parts, strict=True)])[order.argsort()]


class FittedFunction(StateFunction):
    """A network for each cell, of the states' features without those that are the same within one."""

    gives: Literal["actions", "value"]
    outputs: int

    def __init__(self, mdp: MDP, hidden: Sequence[int]) -> None:
        super().__init__(mdp)
        self.hidden, self.cells = list(hidden), Cells(mdp)
        self.features = Features(mdp, within=True)
        self.networks = nn.ModuleList(self.new_network() for _ in range(self.cells.count))

    def new_network(self) -> nn.Module:
        """A network of one cell; one for exchangeable members where there are any."""
        if exchangeable(self.mdp) is not None:
            return network(self.mdp, self.features, self.hidden, self.gives, activation=nn.Tanh)
        return SmoothNetwork(self.features.size, self.hidden, self.outputs)


class FittedValue(FittedFunction):
    """V(s) = max over options of V_d(s), or what taste shocks make of it (`alternatives.py`), each V_d by a network of
    its period and regime in a unit of its own.

    `units` are those of each cell; None where an option has no value."""

    gives = "value"
    outputs = 1

    def __init__(self, mdp: MDP, hidden: Sequence[int], units: Sequence[dict[str, Any] | None] | None = None) -> None:
        super().__init__(mdp, hidden)
        self.units = [Units() if unit is None else Units(**unit) for unit in units or [None] * self.cells.count]
        self.known = [unit is not None for unit in units or [None] * self.cells.count]

    def describe(self) -> dict[str, Any]:
        units = [asdict(unit) if known else None for unit, known in zip(self.units, self.known, strict=True)]
        return {"hidden": self.hidden, "units": units}

    def of_cell(self, cell: int, s: Tensor) -> Tensor:
        """The value (N,) of states (N, S) of one cell."""
        if not self.known[cell]:
            return torch.full_like(s[:, 0], -torch.inf)
        return self.units[cell].value(self.networks[cell](self.features(s)).squeeze(-1))

    def of_option(self, option: int, s: Tensor) -> Tensor:
        """V_d (N,) at states s (N, S)."""
        return by_cell(self.cells.of(s, option), s, self.of_cell)

    def of_options(self, s: Tensor) -> Tensor:
        """V_d of every option, (N, D)."""
        return torch.stack([self.of_option(option, s) for option in range(self.cells.options)], dim=-1)

    def forward(self, s: Tensor) -> Tensor:
        flat = s.reshape(-1, s.shape[-1])
        if self.cells.options == 1:
            return self.of_option(0, flat).reshape(s.shape[:-1])
        v = self.mdp.alternatives.value_at(flat, self.of_options(flat))
        return v.reshape(s.shape[:-1])


class FittedPolicy(FittedFunction):
    """The maximiser of r + E[beta V(s')], by networks for its shares and a few projected Newton steps from there.

    The networks say z (..., A), whose projection on the feasible set are the shares: what lies beyond a bound is
    smooth, so that the kink lies where the bound begins to bind. Each of the `corrections` takes the gradient of
    Q(s, .) by all nodes and its Hessian by few: where the networks are a little off, as little is left as the one
    Hessian differs from the other. The option is the one whose value is the largest.
    """

    gives = "actions"

    def __init__(self, mdp: MDP, hidden: Sequence[int], value: dict[str, Any], corrections: int) -> None:
        self.outputs = len(mdp.free)
        super().__init__(mdp, hidden)
        self.value = FittedValue(mdp, **value)
        self.corrections = corrections

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "value": self.value.describe(), "corrections": self.corrections}

    def new_network(self) -> nn.Module:
        return super().new_network() if self.outputs > 0 else nn.Identity()

    @property
    def follows_value(self) -> bool:
        return self.corrections > 0

    def by_itself(self) -> FittedPolicy:
        """The networks' shares as they are."""
        found = self.on(self.mdp)
        found.corrections = 0
        return found

    @cached_property
    def problems(self) -> list[tuple[MDP, MDP, Bounds]]:
        """What each option leaves: with all nodes, with the fewest, and where its shares end."""
        given = [self.mdp.given(option) for option in self.mdp.options]
        return [(own, own.with_quadrature(Quadrature(nodes=COARSE)), Bounds.of(own)) for own in given]

    def network_shares(self, option: int, s: Tensor) -> Tensor:
        """The networks' shares (N, A) of the continuous actions at states s (N, S) under an option; a little off bounds
        at which the reward is infinite."""
        z = by_cell(self.value.cells.of(s, option), s, lambda cell, part: self.networks[cell](self.features(part)))
        mdp = self.problems[option][0]
        y = projected(mdp, z)
        finite = mdp.reward(s, mdp.from_shares(s, y)).isfinite().unsqueeze(-1)
        return torch.where(finite, y, y + INWARD * (mdp.squash(torch.zeros_like(y)) - y))

    def shares(self, option: int, s: Tensor) -> Tensor:
        """The same, corrected."""
        y = self.network_shares(option, s)
        if self.outputs == 0 or self.corrections == 0:
            return y
        mdp, coarse, bounds = self.problems[option]
        Q, Q_coarse = (partial(objective, problem, self.value) for problem in (mdp, coarse))
        size = max(NUMBERS // (len(mdp.nodes) * sum(self.hidden)), 1)
        found = []
        for part, y_part in zip(s.split(size), y.split(size), strict=True):
            for _ in range(self.corrections):
                y_part = corrected(Q, Q_coarse, bounds, part, y_part)
            found.append(y_part)
        return torch.cat(found)

    @property
    def rough(self) -> FittedPolicy:
        """The networks' actions as they are, which cost little: the same policy without corrections."""
        found = copy.copy(self)
        found.corrections = 0
        return found

    def under_option(self, option: int, s: Tensor) -> Tensor:
        """The actions (N, A) under an option at states s (N, S)."""
        mdp = self.problems[option][0]
        return self.mdp.join(self.mdp.options[option], mdp.from_shares(s, self.shares(option, s)))

    def forward(self, s: Tensor) -> Tensor:
        flat = s.reshape(-1, s.shape[-1])
        best = torch.zeros_like(flat[:, 0], dtype=torch.long)
        if self.cells.options > 1:
            best = self.mdp.alternatives.best(flat, self.value.of_options(flat))
        return self.under(s, best.reshape(s.shape[:-1]))

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        a = by_cell(row.flatten(), s.reshape(-1, s.shape[-1]), self.under_option)
        return a.reshape(*s.shape[:-1], a.shape[-1])

    def probabilities(self, s: Tensor) -> Tensor:
        flat = s.reshape(-1, s.shape[-1])
        p = self.mdp.alternatives.probabilities_at(flat, self.value.of_options(flat))
        return p.reshape(*s.shape[:-1], p.shape[-1])


def objective(mdp: MDP, value: StateFunction, s: Tensor, y: Tensor) -> Tensor:
    """Q(s, y) = r(s, a) + E[beta V(s')] (B,) at shares y (B, A)."""
    return lookahead(mdp, value, s, mdp.from_shares(s, y))


def both(q: Tensor) -> tuple[Tensor, Tensor]:
    """The sum, which is differentiated, and what it is of."""
    return q.sum(), q


def projected(mdp: MDP, z: Tensor) -> Tensor:
    """The shares nearest to z (N, A)."""
    sets = mdp.feasible_set.sets
    parts = [shares.project(z[:, start:stop], 0.0) for shares, start, stop in sets]
    return torch.cat(parts, dim=-1) if parts else z[:, :0]


def corrected(Q: Any, Q_coarse: Any, bounds: Bounds, s: Tensor, y: Tensor) -> Tensor:
    """y (N, A) after one projected Newton step, where that improves Q; short of the bounds that it meets where Q is
    infinite there."""
    y = y.clamp(bounds.low, bounds.high)
    g, value = torch.func.grad(lambda y: both(Q(s, y)), has_aux=True)(y)
    H = derivatives(Q_coarse, s, y)[1]
    step = Step.of(bounds, y, g.nan_to_num(0.0, 0.0, 0.0), H)
    inside, ends = step.end(bounds, y, 1.0, on_bounds=False), step.end(bounds, y, 1.0, on_bounds=True)
    trial = torch.where(evaluate(Q_coarse, s, ends).isfinite().unsqueeze(-1), ends, inside)
    return torch.where((evaluate(Q, s, trial) >= value).unsqueeze(-1), trial, y)
