"""Functions between the points of endogenous grids, one for each exogenous state: consumption, and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.approximation.grid_functions import layer_of, layered_states
from econrl.approximation.tensor_grid import TensorGrid
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Box, StateFunction
from econrl.solvers.grid.spending import LEAST, action, interval

BEYOND = 2.0  # cells beyond the grid of an exogenous state to which the policy is extrapolated
NO_POWER = 1e-7  # a power of M in place of none, which is the logarithm


class EndogenousFunction(StateFunction):
    """A function of (M, z) given on each z's own grid of M. Between the points of z, and two cells beyond them:
    four-point Lagrange interpolation.

    The rows of the tables are the periods, times the states of all chains, times the points of z.
    """

    M: Tensor
    tables: ClassVar[tuple[str, ...]]
    """The names of the tables (rows, points), those of the points M first."""

    def __init__(
        self,
        mdp: MDP,
        x: int,
        kept: bool,
        points: int,
        low: list[float],
        high: list[float],
        exogenous: int,
    ) -> None:
        super().__init__(mdp)
        self.description = {"x": x, "kept": kept, "points": points, "low": low, "high": high}
        self.description["exogenous"] = exogenous
        self.kept, self.low, self.high = kept, low, high
        self.z_columns = [column for column in mdp.continuous if column != x]
        self.layers, self.exogenous = mdp.layers, exogenous
        self.each = exogenous ** len(self.z_columns)  # rows of a layer
        shape = ((mdp.horizon or 1) * self.layers * self.each, points)
        for name in self.tables:
            self.register_buffer(name, torch.zeros(shape, device=mdp.device, dtype=mdp.dtype))

    def describe(self) -> dict[str, Any]:
        return dict(self.description)

    def reach(self, known: Box) -> Box:
        """Everywhere: beyond its points it goes on along the tangent by itself."""
        infinite = torch.full_like(known[1], torch.inf)
        return -infinite, infinite

    @property
    def rows(self) -> int:
        """Rows of one period."""
        return self.layers * self.each

    def states(self, x: float, period: int = 0) -> Tensor:
        """A state (rows, S) for each row of one period, at this x."""
        grid = TensorGrid(
            self.low, self.high, [self.exogenous] * len(self.low), [0.0] * len(self.low), "linear",
            self.mdp.device, self.mdp.dtype,
        )  # fmt: skip
        return layered_states(self.mdp, self.z_columns, grid.mesh(), period, fill=x)

    def place(self, s: Tensor, on_grid: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """The rows (..., K) that tell c at s (..., S), and their weights; the columns `on_grid` are at points of z."""
        rows, weights = layer_of(self.mdp, s).unsqueeze(-1), torch.ones_like(s[..., :1])
        for column, low, high in zip(self.z_columns, self.low, self.high, strict=True):
            position = (s[..., column] - low) / (high - low) * (self.exogenous - 1)
            if column in on_grid:
                rows = rows * self.exogenous + position.round().long().unsqueeze(-1)
                continue
            position = position.clamp(-BEYOND, self.exogenous - 1 + BEYOND)
            first = (torch.nan_to_num(position.detach()).floor().long() - 1).clamp(0, self.exogenous - 4)
            taps = torch.arange(4, device=s.device)
            rows = (rows * self.exogenous + first.unsqueeze(-1)).unsqueeze(-1) + taps
            weights = weights.unsqueeze(-1) * lagrange(position - first).unsqueeze(-2)
            rows, weights = rows.flatten(-2), weights.flatten(-2)
        return rows, weights

    def cell(self, M: Tensor, rows: Tensor) -> Tensor:
        """The last i, at most n - 2, with M_i <= M on its row, by bisection."""
        n = self.M.shape[-1]
        low, high = torch.zeros_like(rows), torch.full_like(rows, n - 1)
        for _ in range(math.ceil(math.log2(n))):
            middle = (low + high + 1) // 2
            right = gather(self.M, rows * n + middle) <= M
            low, high = torch.where(right, middle, low), torch.where(right, high, middle - 1)
        return low.clamp(max=n - 2)

    def set(self, period: int, *values: Tensor) -> None:
        """Take the tables (rows, n) of one period."""
        block = slice(period * self.rows, (period + 1) * self.rows)
        for name, table in zip(self.tables, values, strict=True):
            getattr(self, name)[block] = table

    def copy_period(self, source: int, target: int) -> None:
        """Let the function of one period be that of another."""
        block = slice(source * self.rows, (source + 1) * self.rows)
        self.set(target, *(getattr(self, name)[block] for name in self.tables))


class EndogenousPolicy(EndogenousFunction):
    """c(M, z) by cubic Hermite interpolation between the points, cut off at M: below a grid that begins where nothing
    is kept, c rises by less than M, and all is spent."""

    c: Tensor
    slope: Tensor
    tables = ("M", "c", "slope")

    def spent(self, M: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
        """c (...) at M (...) and a place (..., K); cut off at M last, so that no kink is interpolated between rows."""
        rows, weights = place
        c = (weights * self.along(M.unsqueeze(-1), rows)).sum(dim=-1)
        return torch.minimum(torch.maximum(c, LEAST * M), M)

    def along(self, M: Tensor, rows: Tensor) -> Tensor:
        """c of each row (..., K) at M (..., 1)."""
        n = self.M.shape[-1]
        M = M.expand(rows.shape)
        cell = self.cell(M.detach(), rows)
        at = rows * n + cell
        left, right = (gather(self.M, at + k) for k in (0, 1))
        h = right - left
        t = (M - left) / h
        inside = t.clamp(0, 1)
        a, b = gather(self.c, at), gather(self.c, at + 1)
        da, db = h * gather(self.slope, at), h * gather(self.slope, at + 1)
        # Horner's form of the cubic with values a, b and slopes da, db; beyond the ends along the tangent.
        c = a + inside * (da + inside * (3 * (b - a) - 2 * da - db + inside * (2 * (a - b) + da + db)))
        return c + torch.where(t < 0, t * da, torch.where(t > 1, (t - 1) * db, 0.0))

    def fit(self, M: Tensor, c: Tensor, period: int = 0) -> None:
        """Take these points (rows, n), M increasing, for one period."""
        self.set(period, M, c, slopes(M, c))

    def forward(self, s: Tensor) -> Tensor:
        _, M = interval(self.mdp, s)
        return action(self.mdp, s, self.spent(M, self.place(s)), self.kept)


class EndogenousValue(EndogenousFunction):
    """W(M, z) where W and its slope u_c = W_M are known at the points.

    Between two of them, p is read off the slopes, W_M ~ M^(p-1), and W is a cubic in M^p with these values and slopes:
    exact for a power of M, as where the poorest may earn nothing and W falls to minus infinity. Below a grid that
    begins where nothing is kept all is spent, W = W_0 + u(M) - u(M_0); beyond the other ends W goes on linearly in M^p.
    """

    v: Tensor
    slope: Tensor
    tables = ("M", "v", "slope")

    def __init__(self, mdp: MDP, limited: bool, **description: Any) -> None:
        super().__init__(mdp, **description)
        self.limited = limited
        self.description["limited"] = limited

    def weights(self, s: Tensor, M: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W = (1 - h) v[at] + h v[at + 1] + k on the rows (..., K), at M (...) and the states s (..., S) to which it
        belongs: at, h and k (..., K)."""
        n = self.M.shape[-1]
        M = M.unsqueeze(-1).expand(rows.shape)
        at = rows * n + self.cell(M.detach(), rows)
        left, slope = gather(self.M, at), gather(self.slope, at)
        p, length = power(left, gather(self.M, at + 1), slope, gather(self.slope, at + 1))
        width = torch.expm1(p * length) / p
        D = slope * left * width  # dW/dt at either end
        t = torch.expm1(p * (M.clamp(min=0) / left).log()) / p / width
        inside = t.clamp(0, 1)
        h = inside * inside * (3 - 2 * inside)
        k = D * (t - h)
        if self.limited:
            first = gather(self.M, rows * n)
            poor = first > M
            c = torch.where(poor, M.clamp(min=0), first)
            u = self.mdp.reward(s.unsqueeze(-2), action(self.mdp, s.unsqueeze(-2), c, self.kept))
            u_0 = self.mdp.reward(s.unsqueeze(-2), action(self.mdp, s.unsqueeze(-2), first, self.kept))
            h, k = torch.where(poor, 0.0, h), torch.where(poor, u - u_0, k)
        return at, h, torch.where(M < 0, -torch.inf, k)

    def forward(self, s: Tensor) -> Tensor:
        _, M = interval(self.mdp, s)
        rows, weights = self.place(s)
        at, h, k = self.weights(s, M, rows)
        v = (weights * ((1 - h) * gather(self.v, at) + h * gather(self.v, at + 1) + k)).sum(dim=-1)
        return torch.where((M > 0) | v.isfinite(), v, -torch.inf)


def power(left: Tensor, right: Tensor, slope_left: Tensor, slope_right: Tensor) -> tuple[Tensor, Tensor]:
    """p with slope_right/slope_left = (right/left)^(p-1), never zero, and ln(right/left)."""
    length = (right / left).log()
    p = 1 + ((slope_right / slope_left).log() / length).nan_to_num(0.0, 0.0, 0.0)
    return torch.where(p.abs() < NO_POWER, NO_POWER, p), length


def extended(M: Tensor, slope: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes (rows, n), and W less its value at the point `first` (rows, 1), on the power of M that this point and the
    next are on."""
    (left, right), (here, there) = ([x.gather(-1, first + i) for i in (0, 1)] for x in (M, slope))
    p, _ = power(left, right, here, there)
    length = (M / left).log()
    return here * ((p - 1) * length).exp(), here * left * torch.expm1(p * length) / p


def gather(table: Tensor, at: Tensor) -> Tensor:
    """table.flatten()[at], for single states under vmap too."""
    return table.flatten().index_select(0, at.reshape(-1)).reshape(at.shape)


def lagrange(t: Tensor) -> Tensor:
    """Weights (..., 4) of the values at 0, 1, 2, 3 in the cubic through them, at t (...)."""
    a, b, c, d = t, t - 1, t - 2, t - 3
    return torch.stack([-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6], dim=-1)


def slopes(M: Tensor, c: Tensor) -> Tensor:
    """dc/dM (rows, n) of the parabola through each point and its neighbours, limited so that c(M) increases between
    points that do (Fritsch and Carlson 1980): next to a kink a cubic would swing, and the next grid with it."""
    h, rise = M.diff(dim=-1), c.diff(dim=-1) / M.diff(dim=-1)
    inner = (h[:, :-1] * rise[:, 1:] + h[:, 1:] * rise[:, :-1]) / (h[:, :-1] + h[:, 1:])
    free = torch.cat([2 * rise[:, :1] - inner[:, :1], inner, 2 * rise[:, -1:] - inner[:, -1:]], dim=-1)
    smaller = torch.cat([rise[:, :1], torch.minimum(rise[:, :-1], rise[:, 1:]), rise[:, -1:]], dim=-1)
    return torch.minimum(free, 3 * smaller).clamp(min=0)
