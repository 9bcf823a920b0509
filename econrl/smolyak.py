"""Functions on Smolyak grids, in Chebyshev polynomials: many dimensions, few points.

In one dimension the points are nested, level by level the extrema of Chebyshev polynomials,

    level 0: 0        level 1: -1, 1        level l: cos((2j - 1) pi / 2^l), j = 1 ... 2^(l-1)

and number k = 0, 1, 2, ... of them goes with T_k. In d dimensions the grid is the union of the products of levels with
l_1 + ... + l_d <= mu, where l_j <= mu_j and mu = max mu_j; the functions are products of T_k over the same sets, so
that the coefficients of the interpolant solve one linear system. A product has at most mu factors other than T_0 = 1,
and only those are multiplied.

Outside the box every T_k goes on linearly, with the value and the slope at the edge: a polynomial would explode.

Source: Judd, Maliar, Maliar and Valero (2014), "Smolyak method for solving dynamic economic models: Lagrange
interpolation, anisotropic grid and adaptive domain", JEDC 44; Smolyak (1963).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 700_000  # polynomials held at once: so many stay in the cache


def new_points(level: int) -> int:
    """Points that a level adds in one dimension."""
    return (1, 2)[level] if level < 2 else 2 ** (level - 1)


def first_number(level: int) -> int:
    """The number k of a level's first point."""
    return 0 if level == 0 else 1 if level == 1 else 2 ** (level - 1) + 1


def count_points(levels: Sequence[int]) -> int:
    """Points of the grid with these mu_j, one a dimension, without building it."""
    top = max(levels, default=0)
    by_sum = [1] + [0] * top
    for most in levels:
        by_sum = [
            sum(by_sum[total - own] * new_points(own) for own in range(min(most, total) + 1))
            for total in range(top + 1)
        ]
    return sum(by_sum)


def numbers(levels: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """For each point, the (dimension, number k > 0) of its coordinates other than 0; fewest factors first."""
    top = max(levels, default=0)
    for active in range(min(top, len(levels)) + 1):
        for dims in itertools.combinations(range(len(levels)), active):
            for chosen in itertools.product(*[range(1, levels[j] + 1) for j in dims]):
                if sum(chosen) <= top:
                    ranges = [range(first_number(own), first_number(own + 1)) for own in chosen]
                    for ks in itertools.product(*ranges):
                        yield list(zip(dims, ks, strict=True))


def nodes(level: int) -> Tensor:
    """The points of all levels up to this one, by number."""
    parts = [torch.zeros(1, dtype=torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)]
    for own in range(2, level + 1):
        j = torch.arange(1, 2 ** (own - 1) + 1, dtype=torch.float64)
        parts.append(torch.cos((2 * j - 1) * torch.pi / 2**own))
    return torch.cat(parts[: level + 1])


class SmolyakGrid:
    """`layers` functions on the Smolyak grid of [low, high] with the levels mu_j; the dimensions listed in `logs` are
    measured in logarithms. A layer is what an integer selects, with coefficients of its own."""

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        levels: Sequence[int],
        logs: Sequence[int] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ):
        self.low, self.high, self.d = list(low), list(high), len(levels)
        self.dtype, self.device = dtype, device
        self.logs = torch.zeros(self.d, dtype=torch.bool, device=device)
        self.logs[list(logs)] = True
        edges = torch.tensor([self.low, self.high], dtype=dtype, device=device)
        self.smallest = edges[0].abs() / 100
        self.edges = self.scaled(edges)
        top = max(levels, default=0)
        self.degree = first_number(top + 1) - 1
        factors = list(numbers(levels))
        self.size = len(factors)
        z, x = torch.zeros(self.size, self.d, dtype=torch.float64), nodes(top)
        for point, pairs in enumerate(factors):
            for j, k in pairs:
                z[point, j] = x[k]
        self.points = z.to(device, dtype)
        # The rows of the table of T_k(z_j) to multiply, for the functions of 0 or 1, 2, 3, ... factors.
        self.groups: list[Tensor] = []
        for count in range(1, max(map(len, factors)) + 1):
            rows = [[1 + j * self.degree + k - 1 for j, k in f] for f in factors if max(len(f), 1) == count]
            self.groups.append(torch.tensor([row or [0] for row in rows], device=device).T.contiguous())
        if not self.groups:
            self.groups = [torch.zeros(1, 1, dtype=torch.long, device=device)]

    @property
    def terms(self) -> int:
        """Coefficients that a query touches."""
        return self.size

    def scaled(self, x: Tensor) -> Tensor:
        """x (..., d), in logarithms where they are asked for."""
        return torch.where(self.logs, x.maximum(self.smallest).clamp(min=1e-300).log(), x)

    def mesh(self) -> Tensor:
        """The points (N, d)."""
        low, high = self.edges
        x = low + (high - low) * (self.points + 1) / 2
        return torch.where(self.logs, x.exp(), x)

    def table(self, x: Tensor) -> Tensor:
        """1, and T_k(z_j) for k = 1 ... degree of each dimension in turn: (1 + d degree, B) at x (B, d)."""
        low, high = self.edges
        z = (2 * (self.scaled(x) - low) / (high - low) - 1).mT
        inside = z.clamp(-1, 1)
        T, slope = [torch.ones_like(z), inside], [torch.zeros_like(z), torch.ones_like(z)]
        for _ in range(2, self.degree + 1):
            slope.append(2 * T[-1] + 2 * inside * slope[-1] - slope[-2])
            T.append(2 * inside * T[-1] - T[-2])
        values = [t + dt * (z - inside) for t, dt in zip(T[1:], slope[1:], strict=True)][: self.degree]
        one = torch.ones(1, x.shape[0], dtype=x.dtype, device=x.device)
        return torch.cat([one, torch.stack(values, dim=1).flatten(0, 1)]) if values and self.d else one

    def products(self, x: Tensor) -> list[Tensor]:
        """The functions' values (n, B) at x (B, d), by their number of factors."""
        table, found = self.table(x), []
        for rows in self.groups:
            product = table.index_select(0, rows[0])
            for more in rows[1:]:
                product = product * table.index_select(0, more)
            found.append(product)
        return found

    def functions(self, x: Tensor) -> Tensor:
        """The functions' values (B, size) at x (B, d)."""
        return torch.cat(self.products(x)).mT

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """LU factors of the functions' values at the points."""
        return torch.linalg.lu_factor(self.functions(self.mesh()))

    def fit(self, values: Tensor) -> Tensor:
        """Coefficients (C, layers size) of the functions with the values (C, layers, N) at the points."""
        columns = values.flatten(0, 1).mT
        return torch.linalg.lu_solve(*self.factors, columns).mT.reshape(len(values), -1)

    def interpolate(self, coefficients: Tensor, x: Tensor, layer: Tensor) -> Tensor:
        """Values (C, ...) at queries x (..., d) in the layers (...)."""
        batch, x = x.shape[:-1], x.reshape(-1, self.d)
        by_layer = coefficients.unflatten(1, (-1, self.size))
        if by_layer.shape[1] == 1:
            return (
                self.of_layer(by_layer[:, 0], x).unflatten(1, batch)
                if batch
                else self.of_layer(by_layer[:, 0], x)[:, 0]
            )
        order = layer.flatten().argsort(stable=True)
        counts = layer.flatten().bincount(minlength=by_layer.shape[1]).tolist()
        pairs = zip(by_layer.unbind(1), x[order].split(counts), strict=True)
        parts = [self.of_layer(c, part) for c, part in pairs if len(part) > 0]
        return torch.cat(parts, dim=1)[:, order.argsort()].reshape(-1, *batch)

    def of_layer(self, coefficients: Tensor, x: Tensor) -> Tensor:
        """Values (C, B) of one layer with coefficients (C, size) at x (B, d)."""
        sizes = [rows.shape[1] for rows in self.groups]
        by_group = coefficients.split(sizes, dim=1)
        blocks = [
            sum((c @ product for c, product in zip(by_group, self.products(part), strict=True)), x.new_zeros(()))
            for part in x.split(max(BLOCK // self.size, 1))
        ]
        return torch.cat(blocks, dim=1)

    def expectation(self, parts: Iterable[tuple[Tensor, Tensor, Tensor]], layers: int) -> Callable[[Tensor], Tensor]:
        """The map from coefficients (1, layers size) to sum_j w_j f(x_j) (N,), for batches of queries x (n, J, d) with
        their layers (n, J) and weights w (n, J); a dense matrix is kept."""
        return dense_expectation(self.functions, self.size, parts, layers)


def dense_expectation(
    functions: Callable[[Tensor], Tensor],
    size: int,
    parts: Iterable[tuple[Tensor, Tensor, Tensor]],
    layers: int,
) -> Callable[[Tensor], Tensor]:
    """The same for any basis whose `functions` give values (B, size) at queries (B, d)."""
    rows = []
    for x, layer, w in parts:
        for x_i, layer_i, w_i in zip(x, layer, w, strict=True):
            values = functions(x_i)
            rows.append(torch.cat([(w_i * (layer_i == number)) @ values for number in range(layers)]))
    matrix = torch.stack(rows)
    return lambda coefficients: matrix @ coefficients[0]
