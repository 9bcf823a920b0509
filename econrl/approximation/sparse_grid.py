"""Functions on sparse grids: sums of products of few functions of one variable each.

    f(x) = sum_i c_i prod_(j, k in F_i) phi_k(z_j),    z in [-1, 1]^d,    x = low + (high - low) (z + 1)/2

F_i lists the dimensions j in which function i is not constant, and which of the one-dimensional functions it takes
there. Each goes with a point z^i, whose coordinates are node k in those dimensions and 0 in the others; the
coefficients solve one linear system. All phi_k(z_j) are computed first, then multiplied, then summed by one matrix
product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 700_000  # products held at once: so many stay in the cache
Factors = list[list[tuple[int, int]]]
"""For each function, the (j, k) with k > 0."""


class SparseGrid:
    """`layers` functions on one sparse grid of [low, high]; the dimensions listed in `logs` are measured in logarithms.

    A layer is what an integer selects, with coefficients of its own. A subclass says what the phi_k are, for k = 1 ...
    `degree`, and where their nodes lie.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        logs: Sequence[int],
        factors: Factors,
        nodes: Tensor,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        self.low, self.high, self.d = list(low), list(high), len(low)
        self.logs = torch.zeros(self.d, dtype=torch.bool, device=device)
        self.logs[list(logs)] = True
        edges = torch.tensor([self.low, self.high], dtype=dtype, device=device)
        self.smallest = edges[0].abs().clamp(min=1e-300) / 100
        self.edges = self.scaled(edges)
        self.degree, self.size = len(nodes) - 1, len(factors)
        self.points = torch.zeros(self.size, self.d, dtype=torch.float64)
        for point, pairs in enumerate(factors):
            for j, k in pairs:
                self.points[point, j] = nodes[k]
        self.points = self.points.to(device, dtype)
        # The rows of the table of phi_k(z_j) to multiply, for the functions of 0 or 1, 2, 3, ... factors; `order` says
        # where each of them stands among the factors as given.
        self.groups: list[Tensor] = []
        order: list[int] = []
        for count in range(1, max([1, *map(len, factors)]) + 1):
            members = [i for i, pairs in enumerate(factors) if max(len(pairs), 1) == count]
            rows = [[1 + j * self.degree + k - 1 for j, k in factors[i]] or [0] for i in members]
            self.groups.append(torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, count).T.contiguous())
            order += members
        self.points = self.points[order]

    def one_dimensional(self, z: Tensor) -> Tensor:
        """phi_1(z), phi_2(z), ... (d, degree, B) at z (d, B); beyond [-1, 1] linear in z."""
        raise NotImplementedError

    @property
    def terms(self) -> int:
        """Coefficients that a query touches."""
        return self.size

    def scaled(self, x: Tensor) -> Tensor:
        """x (..., d), in logarithms where they are asked for."""
        return torch.where(self.logs, x.maximum(self.smallest).clamp(min=1e-300).log(), x)

    def place(self, z: Tensor) -> Tensor:
        """x (N, d) at z (N, d) of [-1, 1]^d."""
        low, high = self.edges
        x = low + (high - low) * (z + 1) / 2
        return torch.where(self.logs, x.exp(), x)

    def mesh(self) -> Tensor:
        """The points (N, d)."""
        return self.place(self.points)

    def table(self, x: Tensor) -> Tensor:
        """1, and phi_k(z_j) for k = 1 ... degree of each dimension in turn: (1 + d degree, B) at x (B, d)."""
        low, high = self.edges
        z = (2 * (self.scaled(x) - low) / (high - low) - 1).mT
        one = torch.ones(1, x.shape[0], dtype=x.dtype, device=x.device)
        if self.degree == 0 or self.d == 0:
            return one
        return torch.cat([one, self.one_dimensional(z).flatten(0, 1)])

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
