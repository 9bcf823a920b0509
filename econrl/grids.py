"""Policies and value functions on tensor-product grids: continuous states by interpolation, chains and t by index."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from econrl.feasible import SMALLEST_SHARE
from econrl.functions import StateFunction
from econrl.interpolation import Stencil, TensorGrid
from econrl.mdp import MDP
from econrl.variables import Budget, is_bound

REACH = 0.25  # how far beyond the grid shares are extrapolated, in widths of it


class GridFunction(StateFunction):
    """`outputs` functions of the state on one grid; its layers are the periods (if any) times the states of all chains.

    low, high, points, spacing have one entry for each continuous column of the state, in the order of `mdp.continuous`.
    """

    coefficients: Tensor

    def __init__(
        self,
        mdp: MDP,
        low: list[float],
        high: list[float],
        points: list[int],
        spacing: list[float],
        interpolation: str,
        outputs: int,
    ):
        super().__init__(mdp)
        self.description = {
            "low": low,
            "high": high,
            "points": points,
            "spacing": spacing,
            "interpolation": interpolation,
        }
        self.grid = TensorGrid(low, high, points, spacing, interpolation, mdp.device, mdp.dtype)
        self.chain_columns = mdp.chain_columns
        self.chain_sizes = [len(P) for P in mdp.matrices]
        self.layers = math.prod(self.chain_sizes)  # of one period
        size = (mdp.horizon or 1) * self.layers * self.grid.size
        self.register_buffer("coefficients", torch.zeros(outputs, size, device=mdp.device, dtype=mdp.dtype))

    def describe(self) -> dict[str, Any]:
        return dict(self.description)

    def states(self, period: int = 0) -> Tensor:
        """The grid's states (N, S) in one period; chains move slowest."""
        mesh = self.grid.mesh()
        s = mesh.new_zeros(self.layers, len(mesh), self.mdp.S)
        s[..., self.mdp.continuous] = mesh
        layer = torch.arange(self.layers, device=s.device)
        for column, n in reversed(list(zip(self.chain_columns, self.chain_sizes, strict=True))):
            s[..., column] = (layer % n).to(s.dtype).unsqueeze(-1)
            layer = layer // n
        if self.mdp.horizon is not None:
            s[..., -1] = period
        return s.flatten(0, 1)

    def layer(self, s: Tensor) -> Tensor:
        """The layer (...) of states s, chain indices and periods outside their range taken to the nearest."""
        layer = torch.zeros(s.shape[:-1], dtype=torch.long, device=s.device)
        if self.mdp.horizon is not None:
            layer = layer + whole(s[..., -1], self.mdp.horizon)
        for column, n in zip(self.chain_columns, self.chain_sizes, strict=True):
            layer = layer * n + whole(s[..., column], n)
        return layer

    def stencil(self, s: Tensor) -> Stencil:
        return self.grid.stencil(s[..., self.mdp.continuous], self.layer(s))

    def fit(self, values: Tensor, period: int = 0) -> None:
        """Take these values (N, outputs) at the states of one period."""
        block = self.layers * self.grid.size
        y = values.T.unflatten(-1, (self.layers, -1))
        self.coefficients[:, period * block : (period + 1) * block] = self.grid.fit(y)

    def copy_period(self, source: int, target: int) -> None:
        """Let the function of one period be that of another."""
        by_period = self.coefficients.view(len(self.coefficients), -1, self.layers * self.grid.size)
        by_period[:, target] = by_period[:, source]


class GridValue(GridFunction):
    """A value function on a grid: s (..., S) to V (...)."""

    def __init__(self, mdp: MDP, **description: Any):
        super().__init__(mdp, **description, outputs=1)

    def forward(self, s: Tensor) -> Tensor:
        return self.grid.evaluate(self.coefficients, self.stencil(s))[0]


class GridPolicy(GridFunction):
    """A policy on a grid: interpolated shares, kept between their bounds, to actions (..., A).

    Far beyond the grid, by a quarter of its width, the shares stay what they are there: extrapolated on and on, they
    would run into a bound.
    """

    def __init__(self, mdp: MDP, **description: Any):
        super().__init__(mdp, **description, outputs=mdp.A)
        low, high = mdp.tensor(self.grid.low), mdp.tensor(self.grid.high)
        self.edges = low - REACH * (high - low), high + REACH * (high - low)

    def forward(self, s: Tensor) -> Tensor:
        columns = self.mdp.continuous
        nearest = s.clone()
        nearest[..., columns] = s[..., columns].clamp(*self.edges)
        y = self.grid.evaluate(self.coefficients, self.stencil(nearest)).movedim(0, -1)
        return self.mdp.from_shares(s, clamp_shares(self.mdp, y))


def clamp_shares(mdp: MDP, y: Tensor) -> Tensor:
    """The nearest shares that keep all bounds, 1e-12 off them since a reward may be infinite on a bound."""
    parts = []
    for v, slot in zip(mdp.action_variables, mdp.action_slots, strict=True):
        part = y[..., slot.start : slot.stop]
        if isinstance(v, Budget):
            part = part.clamp(min=SMALLEST_SHARE)
            part = part / part.sum(dim=-1, keepdim=True).clamp(min=1 - SMALLEST_SHARE) * (1 - SMALLEST_SHARE)
        elif is_bound(v.low) and is_bound(v.high):
            part = part.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
        elif is_bound(v.low) or is_bound(v.high):
            part = part.clamp(min=SMALLEST_SHARE)
        parts.append(part)
    return torch.cat(parts, dim=-1)


def whole(x: Tensor, n: int) -> Tensor:
    """The integer in 0 ... n - 1 that x (...) stands for."""
    return torch.nan_to_num(x.detach()).round().long().clamp(0, n - 1)
