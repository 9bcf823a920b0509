"""Functions on sparse grids, in hierarchical hat functions: piecewise linear, refined where they must be.

In one dimension, level by level,

    level 0: 1        level 1: hats of half-width 1 at -1 and 1        level l: half-width 2^(1-l) at its odd multiples

and a function of d dimensions is a product of them, centred at one point of the grid. Any set of points will do, but an
adaptive one is built by halving the distance where the coefficients, the hierarchical surpluses, are large.

Outside the box each hat goes on linearly, with the slope at the edge.

Source: Brumm and Scheidegger (2017), "Using adaptive sparse grids to solve high-dimensional dynamic models",
Econometrica 85; Bungartz and Griebel (2004), "Sparse grids", Acta Numerica 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from econrl.approximation.sparse_grid import Factors, SparseGrid


def centres(top: int) -> Tensor:
    """The nodes of the levels 0 ... top, by number k = 0, 1, 2, ..."""
    parts = [torch.zeros(1, dtype=torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)]
    for level in range(2, top + 1):
        parts.append(torch.arange(1 - 2 ** (level - 1), 2 ** (level - 1), 2, dtype=torch.float64) / 2 ** (level - 1))
    return torch.cat(parts[: top + 1])


def half_widths(top: int) -> Tensor:
    """Those of the hats 1, 2, ..."""
    parts = [torch.full((max(2 ** (level - 1), 2),), 2.0 ** (1 - level)) for level in range(1, top + 1)]
    return torch.cat([torch.zeros(0), *parts]).double()


def factors_of(points: Tensor, top: int) -> Factors:
    """What the functions centred at these points (N, d) of [-1, 1]^d are products of."""
    number = {float(z): k for k, z in enumerate(centres(top))}
    rows = [[(j, number[z]) for j, z in enumerate(point) if z != 0] for point in points.tolist()]
    return rows


class HatGrid(SparseGrid):
    """Hats of the levels up to `top`; `factors` holds j, k, j, k, ... for each point."""

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        top: int,
        factors: Sequence[Sequence[int]],
        logs: Sequence[int] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        pairs = [list(zip(row[::2], row[1::2], strict=True)) for row in factors]
        super().__init__(low, high, logs, pairs, centres(top), device, dtype)
        self.centres = centres(top)[1:].to(device, dtype).unsqueeze(-1)
        self.slopes = 1 / half_widths(top).to(device, dtype).unsqueeze(-1)
        # At an edge the outermost hat rises, and the hat of each finer level that ends there falls.
        ends = (self.centres.abs() + 1 / self.slopes == 1) & (self.centres != 0)
        outermost = self.centres.abs() == 1
        self.edge_slopes = self.slopes * self.centres.sign() * (outermost.to(dtype) - ends.to(dtype))

    def one_dimensional(self, z: Tensor) -> Tensor:
        z = z.unsqueeze(1)
        inside = z.clamp(-1, 1)
        hats = (1 - self.slopes * (inside - self.centres).abs()).clamp(min=0)
        beyond = z - inside
        return hats + self.edge_slopes * torch.where(beyond * self.centres > 0, beyond, 0.0)
