"""Maximise Q(s, .) over shares y at many states at once: projected Newton steps, which end at corners exactly.

With gradient g and Hessian H of Q in y, shares at or near a bound to which Q rises go there alone; the others move by

    d = |H|^-1 g        on the free shares, |H| with the absolute values of H's eigenvalues,

and what would leave the set is put on its bound; or, where the reward is infinite there, nine tenths of the way to it.
Parts of a budget are moved against the largest of them, which has no bound near by. Where a reward falls in one share
and rises in another, both therefore end where they belong in a few steps.

Source: Bertsekas (1982), "Projected Newton methods for optimization problems with simple constraints", SIAM Journal on
Control and Optimization 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.solvers.grid.maximise import ROUNDING, Objective, evaluate

ITERATIONS = 40
LENGTHS = (1.0, 0.25, 1 / 16, 1 / 256)  # of a step, until one improves Q
NEARER = 0.1  # of the way to a bound that is left where a step may not end on it
ON_BOUND = 1e-10  # shares this close to a bound are on it
NEAR_BOUND = 0.02  # shares this close to a bound to which Q rises are not moved with the others


@dataclass(frozen=True)
class Bounds:
    """Where the shares of a problem end: low and high (A,), and the columns of each budget."""

    low: Tensor
    high: Tensor
    budgets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, mdp: MDP) -> Bounds:
        """Those of the continuous actions."""
        low, high = mdp.low.new_full((mdp.A,), -torch.inf), mdp.low.new_full((mdp.A,), torch.inf)
        budgets = []
        for shares, start, stop in mdp.feasible_set.sets:
            if shares.below or shares.above:
                low[start:stop] = 0.0
            if shares.below and shares.above:
                high[start:stop] = 1.0
            if shares.shared:
                budgets.append((start, stop))
        return cls(low, high, tuple(budgets))

    def pivot(self, y: Tensor) -> Tensor:
        """dy/dz (B, A, A) of coordinates z in which the rest of a budget stands in place of its largest part."""
        T = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device).expand(len(y), -1, -1).clone()
        for start, stop in self.budgets:
            largest, part = y[:, start:stop].max(dim=-1)
            rows = (largest > 1 - y[:, start:stop].sum(dim=-1)).nonzero().flatten()
            T[rows, start + part[rows], start:stop] = -1.0
        return T

    def coordinates(self, y: Tensor) -> Tensor:
        """z (B, A): y, with the rest of a budget in place of its largest part."""
        z = y.clone()
        for start, stop in self.budgets:
            parts = y[:, start:stop]
            largest, part = parts.max(dim=-1, keepdim=True)
            rest = 1 - parts.sum(dim=-1, keepdim=True)
            z[:, start:stop] = torch.where(largest > rest, parts.scatter(1, part, rest), parts)
        return z

    def move(self, y: Tensor, T: Tensor, step: Tensor) -> Tensor:
        """y after a step in z, cut short where the largest part of a budget would vanish."""
        change, length = (T @ step.unsqueeze(-1)).squeeze(-1), torch.ones_like(y)
        for start, stop in self.budgets:
            parts, moved = with_rest(y[:, start:stop], 1.0), with_rest(change[:, start:stop], 0.0)
            diagonal = T[:, start:stop, start:stop].diagonal(dim1=-2, dim2=-1)
            pivot = with_rest((diagonal < 0).to(y), 1.0)  # what the others are moved against
            part = pivot.argmax(dim=-1, keepdim=True)
            taken = -moved.gather(1, part)
            room = ((1 - NEARER) * parts.gather(1, part) / taken.clamp(min=1e-300)).clamp(max=1.0)
            length[:, start:stop] = torch.where(taken > 0, room, 1.0)
        return y + length * change


def with_rest(parts: Tensor, total: float) -> Tensor:
    """Parts (B, n) of a total, and what they leave of it."""
    return torch.cat([parts, total - parts.sum(dim=-1, keepdim=True)], dim=-1)


def derivatives(Q: Objective, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (B, A) and Hessian (B, A, A) in y, zero where they are not finite: one backward pass, differentiated
    forwards along all shares at once, since states do not interact."""

    def gradient(y: Tensor) -> Tensor:
        return torch.func.grad(lambda y: Q(s, y).sum())(y)

    def along(direction: Tensor) -> Any:
        return torch.func.jvp(gradient, (y,), (direction.expand_as(y),))

    both: Any = (None, -1)
    g, H = torch.func.vmap(along, out_dims=both)(torch.eye(y.shape[-1], dtype=y.dtype, device=y.device))
    usable = g.isfinite().all(dim=-1) & H.isfinite().flatten(1).all(dim=-1)
    g = torch.where(usable.unsqueeze(-1), g, 0.0)
    return g, torch.where(usable[:, None, None], (H + H.mT) / 2, 0.0)


@dataclass(frozen=True)
class Step:
    """A projected Newton step from shares y, in the coordinates z of `Bounds`."""

    T: Tensor
    z: Tensor
    d: Tensor
    gain: Tensor
    """What the step promises, (B,)."""

    @classmethod
    def of(cls, bounds: Bounds, y: Tensor, g: Tensor, H: Tensor) -> Step:
        """From the gradient and the Hessian in y."""
        T, z = bounds.pivot(y), bounds.coordinates(y)
        g, H = (T.mT @ g.unsqueeze(-1)).squeeze(-1), T.mT @ H @ T
        alone = g / H.diagonal(dim1=-2, dim2=-1).abs().clamp(min=torch.finfo(g.dtype).tiny)
        moved = ((z + alone).maximum(bounds.low).minimum(bounds.high) - z).abs().amax(dim=-1, keepdim=True)
        near = moved.clamp(ON_BOUND, NEAR_BOUND)
        held = ((z <= bounds.low + near) & (g <= 0)) | ((z >= bounds.high - near) & (g >= 0))
        d = newton_direction(g.masked_fill(held, 0.0), H, held)
        own = torch.where(held, (z + alone).maximum(bounds.low).minimum(bounds.high) - z, 0.0)
        return cls(T, z, d + own, (g * (d / 2 + own)).sum(dim=-1))

    def end(self, bounds: Bounds, y: Tensor, length: float, on_bounds: bool) -> Tensor:
        """Where the step ends, if so long: on the bounds that it meets, or short of them."""
        low, high = bounds.low, bounds.high
        if not on_bounds:
            low, high = (
                low + NEARER * (self.z - low).nan_to_num(0.0, 0.0),
                high - NEARER * (high - self.z).nan_to_num(0.0, 0.0),
            )
        z = (self.z + length * self.d).maximum(low).minimum(high)
        return bounds.move(y, self.T, z - self.z)


def newton_direction(g: Tensor, H: Tensor, held: Tensor) -> Tensor:
    """|H|^-1 g (B, A) on the shares that are not `held`; scaled first, so that units do not matter."""
    tiny = torch.finfo(g.dtype).tiny
    if g.shape[-1] == 1:
        return g / H[..., 0].abs().clamp(min=tiny)
    size = H.diagonal(dim1=-2, dim2=-1).abs()
    size = size.maximum(1e-12 * size.amax(dim=-1, keepdim=True)).clamp(min=tiny).rsqrt()
    H = H * size.unsqueeze(-1) * size.unsqueeze(-2)
    H = torch.where(held.unsqueeze(-1) | held.unsqueeze(-2), 0.0, H) - torch.diag_embed(held.to(H))
    lengths, axes = torch.linalg.eigh(H)
    lengths = lengths.abs().clamp(min=1e-8)
    return size * (axes @ ((axes.mT @ (size * g).unsqueeze(-1)) / lengths.unsqueeze(-1))).squeeze(-1)


def maximise(Q: Objective, bounds: Bounds, s: Tensor, y: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """The maximiser (B, A) and the maximum (B,) from shares y (B, A); never worse than Q(s, y), which is minus infinity
    only where nothing better is near."""
    y, value = y.clone(), evaluate(Q, s, y)
    if y.shape[-1] == 0:
        return y, value
    rows = value.isfinite().nonzero().flatten()
    typical = value[rows].abs().mean()
    for _ in range(iterations):
        if len(rows) == 0:
            break
        at, old = y[rows], value[rows]
        step = Step.of(bounds, at, *derivatives(Q, s[rows], at))
        rounding = ROUNDING * (old.abs() + typical)
        found, new = at.clone(), old.clone()
        for length in LENGTHS:
            left = (new <= old).nonzero().flatten() if length < 1 else torch.arange(len(rows), device=y.device)
            left = left[step.gain[left] >= rounding[left]] if length < 1 else left
            if len(left) == 0:
                break
            for on_bounds in (True, False):
                part = Step(step.T[left], step.z[left], step.d[left], step.gain[left])
                trial = part.end(bounds, at[left], length, on_bounds)
                trial_value = evaluate(Q, s[rows[left]], trial)
                # The last Newton step gains less than rounding can show: it is taken on trust.
                trusted = on_bounds & (part.gain < rounding[left]) & (trial_value > old[left] - rounding[left])
                wins = (trial_value > new[left]) | trusted
                found[left] = torch.where(wins.unsqueeze(-1), trial, found[left])
                new[left] = torch.where(wins, trial_value, new[left])
        y[rows], value[rows] = found, new
        rows = rows[(step.gain >= rounding) & (new > old)]
    return y, value
