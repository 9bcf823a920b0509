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
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from econrl.approximation.sparse_grid import SparseGrid


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


class SmolyakGrid(SparseGrid):
    """The Smolyak grid of [low, high] with the levels mu_j."""

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        levels: Sequence[int],
        logs: Sequence[int] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(low, high, logs, list(numbers(levels)), nodes(max(levels, default=0)), device, dtype)

    def one_dimensional(self, z: Tensor) -> Tensor:
        inside = z.clamp(-1, 1)
        T, slope = [torch.ones_like(z), inside], [torch.zeros_like(z), torch.ones_like(z)]
        for _ in range(2, self.degree + 1):
            slope.append(2 * T[-1] + 2 * inside * slope[-1] - slope[-2])
            T.append(2 * inside * T[-1] - T[-2])
        return torch.stack([t + dt * (z - inside) for t, dt in zip(T[1:], slope[1:], strict=True)], dim=1)
