"""The best action at single points, where Newton's method does not find it: uphill along one share after another.

Q's slope dQ/dy in shares y is all that is needed: along a line its sign says where a peak is, its integral which of
several peaks is the highest. Units do not matter, nor that an action moves no state, nor kinks: there the slope jumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from econrl.problem.mdp import MDP

Slope = Callable[[Tensor], Tensor]
"""dQ/dy (B, n, A) at shares y (B, n, A) of B states."""
SCAN, BISECTIONS = 32, 36  # points on a line, and steps from two of them to the peak between
SWEEPS, STILL = 20, 1e-8  # through all lines, at most; the largest change of a share at which they end
CLOSE, LEAST = 3e-4, 1e-3  # a peak so close, in shares of the share or of this, counts as found
OFF = 1e-9  # a share this close to its bound is on it


def lines(mdp: MDP, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The lines along which shares y (B, A) are moved, each action's, and each pair's of a budget: a direction (A,),
    and how far back and how far on (B,) it can be gone."""
    for v, slot in mdp.continuous_actions:
        part, shares = y[:, slot.start : slot.stop], v.shares
        n = part.shape[-1]
        for i in range(n):
            d = torch.zeros_like(y[0])
            d[slot.start + i] = 1.0
            own, one = part[:, i], torch.ones_like(part[:, i])
            if shares.shared:
                yield d, own, 1 - part.sum(dim=-1)
                for j in range(i + 1, n):
                    pair = d.clone()
                    pair[slot.start + j] = -1.0
                    yield pair, own, part[:, j]
            elif shares.below and shares.above:
                yield d, own, 1 - own
            else:
                yield d, own if shares.below or shares.above else one, own.abs().clamp(min=1.0)


def is_peak(mdp: MDP, slope: Slope, y: Tensor) -> Tensor:
    """Whether Q falls on either side of y (B, A) along every line, or there is no room, (B,)."""
    found = torch.ones_like(y[:, 0], dtype=torch.bool)
    for d, back, on in lines(mdp, y):
        size = CLOSE * (y * d.abs()).sum(dim=-1).abs().clamp(min=LEAST)
        t = torch.stack([-torch.minimum(size, back), torch.minimum(size, on)], dim=-1)
        g = (slope(y.unsqueeze(1) + t.unsqueeze(-1) * d) * d).sum(dim=-1)
        found &= ~((g[:, 0] < 0) & (back > OFF)) & ~((g[:, 1] > 0) & (on > OFF))
    return found


def climb(mdp: MDP, slope: Slope, y: Tensor) -> Tensor:
    """y (B, A) at the highest peak along one line after another, until they stand still."""
    for _ in range(SWEEPS):
        before, count = y, 0
        for d, back, on in lines(mdp, y):
            start, count = y, count + 1

            def along(t: Tensor, start: Tensor = start, d: Tensor = d) -> Tensor:
                return (slope(start.unsqueeze(1) + t.unsqueeze(-1) * d) * d).sum(dim=-1)

            y = y + highest(along, -back, on).unsqueeze(-1) * d
        if count == 1 or (y - before).abs().max() < STILL:
            break
    return y


def highest(slope: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The t (B,) between `low` and `high` at which the function with this slope (B, n) at t (B, n) is largest."""
    grid = torch.sin(torch.linspace(0, math.pi / 2, SCAN, dtype=low.dtype, device=low.device)) ** 2
    grid = OFF + (1 - 2 * OFF) * grid  # a reward may be infinite on a bound
    t = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * grid
    g = slope(t).nan_to_num(0.0, 1e100, -1e100)
    # The geometric mean is nearer to a power's integral than the arithmetic one.
    mean = torch.where(g[:, :-1] * g[:, 1:] > 0, g[:, :-1].sign() * (g[:, :-1] * g[:, 1:]).abs().sqrt(), 0.0)
    Q = torch.nn.functional.pad((mean * t.diff(dim=-1)).cumsum(dim=-1), (1, 0))
    peak = torch.where((g[:, :-1] > 0) & (g[:, 1:] <= 0), torch.maximum(Q[:, :-1], Q[:, 1:]), -torch.inf)
    at_low, at_high = (torch.where(ends, Q[:, i], -torch.inf) for ends, i in ((g[:, 0] <= 0, 0), (g[:, -1] > 0, -1)))
    best = torch.cat([peak, at_low.unsqueeze(-1), at_high.unsqueeze(-1)], dim=-1).argmax(dim=-1)
    cell = best.clamp(max=SCAN - 2).unsqueeze(-1)
    left, right = t.gather(-1, cell), t.gather(-1, cell + 1)
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        rises = slope(middle) > 0
        left, right = torch.where(rises, middle, left), torch.where(rises, right, middle)
    inner = ((left + right) / 2).squeeze(-1)
    return torch.where(best == SCAN - 1, low, torch.where(best == SCAN, high, inner))
