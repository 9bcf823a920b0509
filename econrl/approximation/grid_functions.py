"""Policies and value functions on grids: continuous states by interpolation, chains and t by index.

Where there are discrete choices, what is interpolated is the value of each option,

    V(s) = max_d Q(s, d),        Q(s, d) = max_c r(s, d, c) + E[ beta V(s') ],

since Q is smooth where V has a kink, and the policy a jump: they are found between the points where the Qs cross.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from econrl.approximation.fill import Fill
from econrl.approximation.hat_grid import HatGrid
from econrl.approximation.smolyak_grid import SmolyakGrid
from econrl.approximation.tensor_grid import TensorGrid
from econrl.approximation.value_unit import ValueUnit
from econrl.optimality.bounded_forms import Forms
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Box, StateFunction

REACH = 0.25  # how far beyond the grid shares are extrapolated, in widths of it


class Grid(Protocol):
    """What interpolates: functions of x (..., d), many at once, given by their values at the points of a mesh.

    A layer is what an integer selects, and has coefficients of its own.
    """

    low: list[float]
    high: list[float]

    @property
    def size(self) -> int:
        """Coefficients of one layer."""

    @property
    def terms(self) -> int:
        """Numbers that a query touches."""

    def mesh(self) -> Tensor:
        """The points (N, d)."""

    def fit(self, values: Tensor) -> Tensor:
        """Coefficients (C, layers size) of the functions with the values (C, layers, N) at the points."""

    def interpolate(self, coefficients: Tensor, x: Tensor, layer: Tensor) -> Tensor:
        """Values (C, ...) at queries x (..., d) in the layers (...)."""

    def expectation(self, parts: Iterable[tuple[Tensor, Tensor, Tensor]], layers: int) -> Callable[[Tensor], Tensor]:
        """The map from coefficients (1, layers size) to sum_j w_j f(x_j) (N,), for batches of queries x (n, J, d) with
        their layers (n, J) and weights w (n, J)."""


GRIDS: dict[str, Callable[..., Grid]] = {"tensor": TensorGrid, "smolyak": SmolyakGrid, "hats": HatGrid}


class GridFunction(StateFunction):
    """`outputs` functions of the state on one grid; its layers are the periods (if any) times the options (if there are
    choices) times the states of all chains.

    `grid` names an entry of `GRIDS`, and the description is that of its grid; low and high have one entry for each
    continuous column of the state, in the order of `mdp.continuous`.
    """

    coefficients: Tensor

    def __init__(self, mdp: MDP, outputs: int, grid: str = "tensor", **description: Any) -> None:
        super().__init__(mdp)
        self.description = {"grid": grid, **description}
        self.grid = GRIDS[grid](**description, device=mdp.device, dtype=mdp.dtype)
        self.options = len(mdp.options)
        self.layers = self.options * mdp.layers  # of one period
        size = (mdp.horizon or 1) * self.layers * self.grid.size
        self.register_buffer("coefficients", torch.zeros(outputs, size, device=mdp.device, dtype=mdp.dtype))

    def describe(self) -> dict[str, Any]:
        return dict(self.description)

    def reach(self, known: Box) -> Box:
        """No farther than its grid."""
        low, high = (end.clone() for end in super().reach(known))
        columns = self.mdp.continuous
        low[columns] = low[columns].maximum(self.mdp.tensor(self.grid.low))
        high[columns] = high[columns].minimum(self.mdp.tensor(self.grid.high))
        return low, high

    def states(self, period: int = 0) -> Tensor:
        """The grid's states (N, S) in one period; chains move slowest. The layers of each option have the same."""
        return layered_states(self.mdp, self.mdp.continuous, self.grid.mesh(), period)

    def interpolate(self, s: Tensor, option: Tensor | int = 0) -> Tensor:
        """The functions' values (outputs, ...) at states s (..., S), for options (...)."""
        return self.grid.interpolate(self.coefficients, s[..., self.mdp.continuous], layer_of(self.mdp, s, option))

    def by_option(self, s: Tensor) -> Tensor:
        """The last function (..., D) for each option."""
        return torch.stack([self.interpolate(s, option)[-1] for option in range(self.options)], dim=-1)

    def fit(self, values: Tensor, period: int = 0) -> None:
        """Take these values (D N, outputs) at the states of one period, option by option."""
        block = self.layers * self.grid.size
        y = values.T.unflatten(-1, (self.layers, -1))
        self.coefficients[:, period * block : (period + 1) * block] = self.grid.fit(y)

    def copy_period(self, source: int, target: int) -> None:
        """Let the function of one period be that of another."""
        by_period = self.coefficients.view(len(self.coefficients), -1, self.layers * self.grid.size)
        by_period[:, target] = by_period[:, source]


class GridValue(GridFunction):
    """A value function on a grid: s (..., S) to V (...), the value of the best option; interpolated in a `unit`
    (`value_unit.py`)."""

    def __init__(self, mdp: MDP, unit: dict[str, Any] | None = None, **description: Any) -> None:
        super().__init__(mdp, 1, **description)
        self.unit = ValueUnit(**(unit or {}))

    def describe(self) -> dict[str, Any]:
        unit = self.unit.describe()
        return super().describe() | ({} if unit is None else {"unit": unit})

    def fit(self, values: Tensor, period: int = 0) -> None:
        super().fit(self.unit.raw(values), period)

    def filled(self, v: Tensor, fill: Fill) -> Tensor:
        """The values v (layers N,) at the grid's points, with those filled at which V is minus infinity."""
        if fill.complete:
            return v
        return self.unit.value(fill.linear(self.unit.raw(v), self.unit.of_minus_infinity))

    def forward(self, s: Tensor) -> Tensor:
        return self.unit.value(self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        """The value (...) at states s (..., S) in the unit in which it is interpolated."""
        if self.options == 1:
            return self.interpolate(s)[0]
        if self.mdp.tastes == 0:
            return self.mdp.alternatives.value_at(s, self.by_option(s))
        return self.unit.raw(self.mdp.alternatives.value_at(s, self.unit.value(self.by_option(s))))

    def derivative(self, s: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What sum_j w_j dV(s_j) reads of the interpolated values x at states s (n, J, S), with weights w (n, J): their
        places (n, J', d), layers and weights w_j dV/dV_d dV_d/dx_d (n, J'). That is the best option's x alone or, with
        taste shocks, each option's, with its probability."""
        mdp, x = self.mdp, s[..., self.mdp.continuous]
        if self.options == 1 or mdp.tastes == 0:
            best = mdp.alternatives.best(s, self.by_option(s)) if self.options > 1 else 0
            slope = w if self.unit.power is None else w * self.unit.slope(self.raw(s))
            return x, layer_of(mdp, s, best), slope
        raw = self.by_option(s)
        slope = w.unsqueeze(-1) * mdp.alternatives.probabilities_at(s, self.unit.value(raw)) * self.unit.slope(raw)
        layers = torch.stack([layer_of(mdp, s, option) for option in range(self.options)], dim=-1)
        places = x.unsqueeze(-2).expand(*slope.shape, x.shape[-1])
        return places.flatten(-3, -2), layers.flatten(-2), slope.flatten(-2)


class NearFunction(GridFunction):
    """A function that stays what it is a quarter of the grid's width beyond it: extrapolated on and on, a policy would
    run into a bound."""

    def __init__(self, mdp: MDP, outputs: int, **description: Any) -> None:
        super().__init__(mdp, outputs, **description)
        low, high = mdp.tensor(self.grid.low), mdp.tensor(self.grid.high)
        self.edges = low - REACH * (high - low), high + REACH * (high - low)

    def interpolate(self, s: Tensor, option: Tensor | int = 0) -> Tensor:
        columns = self.mdp.continuous
        nearest = s.clone()
        nearest[..., columns] = s[..., columns].clamp(*self.edges)
        return super().interpolate(nearest, option)


class GridPolicy(NearFunction):
    """A policy on a grid: interpolated shares, kept between their bounds, to actions (..., A).

    Where there are choices, the value of each option is interpolated as well, in a `unit`, and decides.
    """

    def __init__(self, mdp: MDP, unit: dict[str, Any] | None = None, **description: Any) -> None:
        super().__init__(mdp, len(mdp.free) + (1 if mdp.choices else 0), **description)
        self.unit = ValueUnit(**(unit or {}))

    def describe(self) -> dict[str, Any]:
        unit = self.unit.describe()
        return super().describe() | ({} if unit is None else {"unit": unit})

    def forward(self, s: Tensor) -> Tensor:
        if not self.mdp.choices:
            return self.under(s, torch.zeros_like(s[..., 0], dtype=torch.long))
        return self.under(s, self.mdp.alternatives.best(s, self.by_option(s)))

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        mdp = self.mdp
        y = self.interpolate(s, row)[: len(mdp.free)].movedim(0, -1)
        return mdp.from_shares(s, mdp.clamp_shares(mdp.join(mdp.options[row], y)))

    def probabilities(self, s: Tensor) -> Tensor:
        return self.mdp.alternatives.probabilities_at(s, self.unit.value(self.by_option(s)))


class CutOffPolicy(NearFunction):
    """A policy on a grid: interpolated z, in the forms of `bounded_forms.py`, to actions (..., A) that may sit on a
    bound."""

    def __init__(
        self, mdp: MDP, forms: Sequence[str], steepness: Sequence[float] | None = None, **description: Any
    ) -> None:
        super().__init__(mdp, mdp.A, **description)
        self.forms = Forms(mdp, forms, steepness)

    def describe(self) -> dict[str, Any]:
        return {**self.forms.describe(), **self.description}

    def z(self, s: Tensor) -> Tensor:
        """The interpolated z (..., A) at states s (..., S)."""
        return self.interpolate(s).movedim(0, -1)

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.from_shares(s, self.forms.shares(self.z(s)))

    @property
    def knows_multipliers(self) -> bool:
        return self.forms.knows_multipliers

    def multipliers(self, s: Tensor) -> Tensor:
        return self.forms.multipliers(self.z(s))


def layered_states(mdp: MDP, columns: Sequence[int], mesh: Tensor, period: int, fill: float = 0.0) -> Tensor:
    """The points of a mesh (N, d) of these columns, in every layer of one period: states (layers N, S) in which chains
    move slowest, and the other continuous columns are `fill`."""
    s = mesh.new_full((mdp.layers, len(mesh), mdp.S), fill)
    s[..., columns] = mesh
    layer = torch.arange(len(s), device=s.device)
    for column, n in reversed(mdp.finite):
        s[..., column] = (layer % n).to(s.dtype).unsqueeze(-1)
        layer = layer // n
    if mdp.horizon is not None:
        s[..., -1] = period
    return s.flatten(0, 1)


def layer_of(mdp: MDP, s: Tensor, option: Tensor | int = 0) -> Tensor:
    """The layer (...) of states s: the period times the options times the states of all chains; periods and chains are
    taken to the nearest there is."""
    layer = torch.zeros(s.shape[:-1], dtype=torch.long, device=s.device)
    if mdp.horizon is not None:
        layer = layer + whole(s[..., -1], mdp.horizon)
    layer = layer * len(mdp.options) + option
    for column, n in mdp.finite:
        layer = layer * n + whole(s[..., column], n)
    return layer


def whole(x: Tensor, n: int) -> Tensor:
    """The integer in 0 ... n - 1 that x (...) stands for."""
    return torch.nan_to_num(x.detach()).round().long().clamp(0, n - 1)
