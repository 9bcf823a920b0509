"""The best action at single points, where Newton's method does not find it: uphill along one share after another.

Q's slope dQ/dy in shares y is all that is needed: along a line its sign says where a peak is, its integral which of
several peaks is the highest. Units do not matter, nor that an action moves no state, nor kinks: there the slope jumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from econrl.problem.layout import Slot
from econrl.problem.mdp import MDP

Slope = Callable[[Tensor], Tensor]
"""dQ/dy (B, n, A) at shares y (B, n, A) of B states."""
SCAN, BISECTIONS = 32, 24  # points on a line, and steps from two of them to the peak between
CLOSE, LEAST = 3e-4, 1e-3  # a peak so close, in shares of the share or of this, counts as found
OFF = 1e-9  # a share this close to its bound is on it


Room = Callable[[Tensor], tuple[Tensor, Tensor]]
"""How far back and how far on (B,) shares y (B, A) can be moved along a line."""


def lines(mdp: MDP) -> Iterator[tuple[Tensor, Room]]:
    """The lines along which shares are moved, each action's, and each pair's of a budget: a direction (A,), and the
    room."""
    unit = torch.eye(mdp.A, dtype=mdp.dtype, device=mdp.device)
    for v, slot in mdp.continuous_actions:
        shares = v.shares
        for i in slot.indices:
            if shares.shared:
                yield unit[i], partial(of_rest, i=i, slot=slot)
                for j in range(i + 1, slot.stop):
                    yield unit[i] - unit[j], partial(of_pair, i=i, j=j)
            else:
                yield unit[i], partial(of_one, i=i, bounds=shares.below + shares.above)


def of_one(y: Tensor, i: int, bounds: int) -> tuple[Tensor, Tensor]:
    """The room of an action with so many bounds."""
    own = y[:, i]
    far = own.abs().clamp(min=1.0)
    return (own, 1 - own) if bounds == 2 else (own if bounds else far, far)


def of_rest(y: Tensor, i: int, slot: Slot) -> tuple[Tensor, Tensor]:
    """The room of a part of a budget against what is left of it."""
    return y[:, i], 1 - y[:, slot.start : slot.stop].sum(dim=-1)


def of_pair(y: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    """The room of a part of a budget against another."""
    return y[:, i], y[:, j]


def is_peak(mdp: MDP, slope: Slope, y: Tensor) -> Tensor:
    """Whether Q falls on either side of y (B, A) along every line, or there is no room, (B,)."""
    found = torch.ones_like(y[:, 0], dtype=torch.bool)
    for d, room in lines(mdp):
        back, on = room(y)
        size = CLOSE * (y * d.abs()).sum(dim=-1).abs().clamp(min=LEAST)
        t = torch.stack([-torch.minimum(size, back), torch.minimum(size, on)], dim=-1)
        g = (slope(y.unsqueeze(1) + t.unsqueeze(-1) * d) * d).sum(dim=-1)
        found &= ~((g[:, 0] < 0) & (back > OFF)) & ~((g[:, 1] > 0) & (on > OFF))
    return found


def climb(mdp: MDP, slope: Slope, y: Tensor) -> Tensor:
    """y (B, A) after one search along each line, at the highest peak of each."""
    for d, room in lines(mdp):
        back, on = room(y)

        def along(t: Tensor, start: Tensor = y, d: Tensor = d) -> Tensor:
            return (slope(start.unsqueeze(1) + t.unsqueeze(-1) * d) * d).sum(dim=-1)

        y = y + highest(along, -back, on).unsqueeze(-1) * d
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
