"""Functions on tensor-product grids: uniform cubic B-splines with not-a-knot ends, and linear interpolation.

In one dimension, with n points at t = 0, 1, ..., n - 1 and r = t - i in cell i,

    f(t) = sum_k c_(i+k) B_k(r),    B_k(r) = sum_p r^p BASIS[p, k],    k = 0 ... taps - 1,

and in several dimensions the product of these sums: taps^d terms a query. The coefficients c solve f(t_j) = y_j, one
small dense inverse along each dimension (de Boor 2001, "A Practical Guide to Splines", chapters 4 and 17).
Outside the grid, each dimension goes on linearly, with the value and the slope at the edge.

Queries may have any batch shape, and can be differentiated twice by autograd and by torch.func.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.errors import MethodError

BASIS = {
    "linear": torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64),
    "cubic": torch.tensor(
        [[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]],
        dtype=torch.float64,
    )
    / 6,
}
FEWEST = {"linear": 2, "cubic": 4}  # points a dimension


@dataclass(frozen=True)
class Stencil:
    """What a query needs of the grid: which coefficients, and how much of each."""

    first: Tensor
    """Position (...) of each query's first coefficient."""
    weights: list[Tensor]
    """For each dimension, the weights (taps, ...) of its coefficients."""


class TensorGrid:
    """`layers` functions on one grid over [low, high], with `points` and `spacing` for each of d dimensions.

    A layer is what an integer selects: a combination of Markov chain states, a period. `spacing` is 0 for a uniform
    grid; kappa > 0 puts more points near the low end, v uniform on [0, 1]:

        x = low + (high - low) (e^(kappa v) - 1) / (e^kappa - 1)

    Raises MethodError for an unknown kind of interpolation, or too few points.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        points: Sequence[int],
        spacing: Sequence[float],
        interpolation: str = "cubic",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if interpolation not in BASIS:
            raise MethodError(f"unknown interpolation '{interpolation}'; there are: {', '.join(BASIS)}")
        if any(n < FEWEST[interpolation] for n in points):
            raise MethodError(
                f"{interpolation} interpolation needs {FEWEST[interpolation]} points or more a dimension: {[*points]}"
            )
        self.low, self.high, self.points, self.spacing = list(low), list(high), list(points), list(spacing)
        self.basis = BASIS[interpolation].to(device, dtype)
        self.taps = len(self.basis)
        self.d = len(self.points)
        self.widths = [n + self.taps - 2 for n in self.points]  # coefficients along each dimension
        self.strides = [math.prod(self.widths[i + 1 :]) for i in range(self.d)]
        self.offsets = self._offsets().to(device)
        cubic = interpolation == "cubic"
        self.inverses = [collocation_inverse(n).to(device, dtype) if cubic else None for n in self.points]

    @property
    def size(self) -> int:
        """Coefficients of one layer."""
        return math.prod(self.widths)

    @property
    def terms(self) -> int:
        """Coefficients that a query touches."""
        return len(self.offsets)

    def _offsets(self) -> Tensor:
        """Positions (taps^d,) of a query's coefficients relative to the first."""
        offsets = torch.zeros(1, dtype=torch.long)
        for stride in self.strides:
            offsets = (offsets[:, None] + stride * torch.arange(self.taps)).flatten()
        return offsets

    def axis(self, i: int) -> Tensor:
        """The points (n,) of dimension i."""
        v = torch.linspace(0, 1, self.points[i], dtype=self.basis.dtype, device=self.basis.device)
        kappa = self.spacing[i]
        z = torch.expm1(kappa * v) / math.expm1(kappa) if kappa else v
        return self.low[i] + (self.high[i] - self.low[i]) * z

    def mesh(self) -> Tensor:
        """All points of the grid (N, d), the last dimension moving fastest."""
        if self.d == 0:
            return self.basis.new_zeros(1, 0)
        axes = torch.meshgrid(*[self.axis(i) for i in range(self.d)], indexing="ij")
        return torch.stack([axis.flatten() for axis in axes], dim=-1)

    def fit(self, values: Tensor) -> Tensor:
        """Coefficients (C, layers size) of the functions with these values (C, layers, N) at the points of `mesh`."""
        c = values.unflatten(-1, self.points) if self.d else values
        for i, inverse in enumerate(self.inverses):
            if inverse is not None:
                c = torch.movedim(torch.movedim(c, 2 + i, -1) @ inverse.T, -1, 2 + i)
        return c.flatten(1)

    def bends(self, values: Tensor, i: int) -> Tensor:
        """How far functions (..., N) are from linear between neighbouring points of dimension i, at each (..., n - 2)
        but the first and the last: |s' - s|/(|s'| + |s|) of the slopes on both sides; in [0, 1], NaN where one is."""
        slopes = values.unflatten(-1, self.points).movedim(i - self.d, -1).diff() / self.axis(i).diff()
        return slopes.diff().abs() / (slopes[..., 1:].abs() + slopes[..., :-1].abs()).clamp(min=1e-300)

    def curvature(self, values: Tensor) -> Tensor:
        """The mean of `bends` over all points and dimensions; NaN is left out."""
        if self.d == 0:
            return values.new_zeros(())
        return torch.stack([self.bends(values, i).nanmean() for i in range(self.d)]).mean()

    def best_spacing(self, values: Tensor, i: int, n: int, candidates: Sequence[float]) -> float:
        """The spacing with which n points in dimension i would bend functions (..., N) the least, the mean of bends^4
        being the measure. A bend is rho h for a cell's width h, so that it is the sum of rho^4 h^3 dx."""
        axis = self.axis(i)
        width = (axis[2:] - axis[:-2]) / 2
        rho = (self.bends(values, i).flatten(0, -2) / width).nanmean(dim=0)
        share = (axis[1:-1] - axis[0]) / (axis[-1] - axis[0])

        def bend(kappa: float) -> float:
            reach = math.expm1(kappa)
            steps = (1 + reach * share) * kappa / reach if kappa else torch.ones_like(share)
            return float((rho**4 * ((axis[-1] - axis[0]) * steps / (n - 1)) ** 3 * width).nansum())

        return min(candidates, key=bend)

    def coordinate(self, i: int, x: Tensor) -> Tensor:
        """t in [0, n - 1] of x inside the domain; outside, linear in x."""
        z = (x - self.low[i]) / (self.high[i] - self.low[i])
        kappa = self.spacing[i]
        if kappa:
            inside, reach = z.clamp(0, 1), math.expm1(kappa)
            slope = reach / (kappa * (1 + reach * inside))
            z = torch.log1p(reach * inside) / kappa + slope * (z - inside)
        return (self.points[i] - 1) * z

    def stencil(self, x: Tensor, layer: Tensor | None = None) -> Stencil:
        """The stencil of queries x (..., d) in the layers (...) of integers; layer 0 unless given."""
        first = torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device) if layer is None else layer * self.size
        weights = []
        for i, n in enumerate(self.points):
            t = self.coordinate(i, x[..., i])
            within = t.clamp(0, n - 1)
            # A NaN query must give NaN, not an index out of range.
            cell = torch.nan_to_num(within.detach()).floor().clamp(0, n - 2)
            first = first + cell.long() * self.strides[i]
            weights.append(self._weights(within - cell, t - within))
        return Stencil(first, weights)

    def _weights(self, r: Tensor, beyond: Tensor) -> Tensor:
        """Weights (taps, ...) at r in [0, 1], and from there `beyond` outside the grid, along the tangent."""
        powers = [torch.ones_like(r), r + beyond]
        if self.taps == 4:
            powers += [r * (r + 2 * beyond), r * r * (r + 3 * beyond)]
        return torch.tensordot(self.basis.T, torch.stack(powers), dims=1)

    def evaluate(self, coefficients: Tensor, stencil: Stencil) -> Tensor:
        """Values (C, ...) at a stencil's queries, for coefficients (C, layers size)."""
        batch, C = stencil.first.shape, len(coefficients)
        places = self.offsets.view(-1, *[1] * len(batch)) + stencil.first
        block = coefficients.index_select(1, places.flatten()).view(C, len(self.offsets), *batch)  # none, perhaps
        for w in stencil.weights:
            block = (block.view(C, self.taps, block.shape[1] // self.taps, *batch) * w.unsqueeze(1)).sum(dim=1)
        return block[:, 0]

    def interpolate(self, coefficients: Tensor, x: Tensor, layer: Tensor) -> Tensor:
        """Values (C, ...) at queries x (..., d) in the layers (...)."""
        return self.evaluate(coefficients, self.stencil(x, layer))

    def expectation(self, parts: Iterable[tuple[Tensor, Tensor, Tensor]], layers: int) -> Callable[[Tensor], Tensor]:
        """The map from coefficients (1, layers size) to sum_j w_j f(x_j) (N,), for batches of queries x (n, J, d) with
        their layers (n, J) and weights w (n, J); it is kept as sparse matrices, a row for each sum."""
        blocks = [self._matrix(self.stencil(x, layer), w, layers) for x, layer, w in parts]
        return lambda coefficients: torch.cat([block @ coefficients[0] for block in blocks])

    def _matrix(self, stencil: Stencil, w: Tensor, layers: int) -> Tensor:
        """The matrix (n, layers size) of sum_j w_j f(x_j), with J taps^d entries in each row."""
        entries = w.unsqueeze(-1)
        for along in stencil.weights:
            entries = (entries.unsqueeze(-1) * along.movedim(0, -1).unsqueeze(-2)).flatten(-2)
        columns = stencil.first.unsqueeze(-1) + self.offsets
        n, each = len(w), columns[0].numel()
        starts = torch.arange(0, n * each + 1, each, dtype=torch.int32, device=w.device)  # what products are made with
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse")  # of the state of torch's support
            return torch.sparse_csr_tensor(starts, columns.flatten().int(), entries.flatten(), (n, layers * self.size))


def collocation_inverse(n: int) -> Tensor:
    """The matrix (n + 2, n) from values at n points to the coefficients of the not-a-knot cubic spline."""
    rows = torch.zeros(n + 2, n + 2, dtype=torch.float64)
    for j in range(n):
        rows[j, j : j + 3] = BASIS["cubic"][0, :3]
    # The third derivative is the same in the first two cells, and in the last two.
    fourth_difference = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0], dtype=torch.float64)
    rows[n, :5] = fourth_difference
    rows[n + 1, -5:] = fourth_difference
    return torch.linalg.inv(rows)[:, :n].contiguous()
