"""Kinks of what is kept: amounts at which its marginal worth jumps, as where borrowing is dearer than saving."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STANDS_OUT = 2.0  # a difference over its smaller neighbour's from which on a jump is looked for
JUMP = 1e-6  # of the largest worth: what is left of a smooth change after all bisections is far less
BISECTIONS, MOST = 45, 100  # steps for each kink; kinks, at most: the largest
APART, NEAR, AT = (
    1e-6,
    1e-3,
    1e-9,
)  # of the range: kinks that are one; of a cell: the next point; of the range: the pair
INSIDE = 3e-3  # how far within the jump the two points of the flat part are, in logarithms


def may_bend(y: Tensor) -> bool:
    """Whether any function y (..., n), on an even scan, has a second difference that stands out: a first look, which
    needs no derivatives."""
    bend = y.diff(n=2, dim=-1).abs().nan_to_num(0.0, 0.0, 0.0)
    if bend.shape[-1] < 5:
        return True
    size = y.nan_to_num(0.0, 0.0, 0.0).abs().amax(dim=-1, keepdim=True) / y.shape[-1]
    around = torch.nn.functional.pad(bend, (2, 2), value=torch.inf)
    return bool((bend > STANDS_OUT * torch.minimum(around[..., :-4], around[..., 4:]) + JUMP * size).any())


def find_kinks(worth: Callable[[Tensor], Tensor], w: Tensor) -> list[float]:
    """Where worth (Q, n), functions of amounts w (n,), jump between the points of a scan: at most one place a cell."""
    y = worth(w)
    size = y.nan_to_num(0.0, 0.0, 0.0).abs().amax(dim=-1, keepdim=True)
    jump = (y.diff(dim=-1).abs() / size).nan_to_num(0.0, 0.0, 0.0)
    around = torch.nn.functional.pad(jump, (1, 1), value=torch.inf)
    alone = jump > STANDS_OUT * torch.minimum(around[:, :-2], around[:, 2:])
    jump, q = torch.where(alone & (jump > JUMP), jump, 0.0).max(dim=0)
    cells = jump.topk(min(MOST, len(jump))).indices
    cells = cells[jump[cells] > 0]
    if len(cells) == 0:
        return []
    q, low, high = q[cells], w[cells], w[cells + 1]
    at_low, at_high = y[q, cells], y[q, cells + 1]
    here = torch.arange(len(cells), device=w.device)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = worth(middle)[q, here]
        left = (found - at_low).abs() > (at_high - found).abs()
        low, at_low = torch.where(left, low, middle), torch.where(left, at_low, found)
        high, at_high = torch.where(left, middle, high), torch.where(left, found, at_high)
    kinks = high[(at_high - at_low).abs() > JUMP * size[q, 0]].tolist()
    far = APART * float(w[-1] - w[0])
    kept: list[float] = []
    for kink in sorted(kinks):
        if w[0] + far < kink < w[-1] - far and (not kept or kink > kept[-1] + far):
            kept.append(kink)
    return kept


def with_kinks(w: Tensor, kinks: list[float]) -> tuple[Tensor, Tensor]:
    """A grid w (n,) with six points more at each kink, and the place of the second of these, (number of kinks,).

    The inner four are as good as one amount, from whose left to whose right worth falls: there the policy keeps exactly
    that amount, whatever M. The outer two let the policy bend within a small part of a cell.
    """
    at = AT * float(w[-1] - w[0])
    points: list[float] = w.tolist()
    for kink in kinks:
        cell = int((w <= kink).sum().clamp(1, len(w) - 1))
        near = max(NEAR * float(w[cell] - w[cell - 1]), 2 * at)
        points = [x for x in points if abs(x - kink) > 2 * near]
        points += [kink - near, kink - at, kink - at / 3, kink + at / 3, kink + at, kink + near]
    grid = w.new_tensor(sorted(points))
    return grid, torch.searchsorted(grid, w.new_tensor(sorted(kinks)) - 2 * at)


def between(mu: Tensor, second: Tensor) -> Tensor:
    """Worth (R, n) with what is between its values on either side of each kink, at the two points in its middle."""
    if len(second) == 0:
        return mu
    left, right = mu[:, second].log(), mu[:, second + 3].log()
    mu = mu.clone()
    mu[:, second + 1] = (left + INSIDE * (right - left)).exp()
    mu[:, second + 2] = (right - INSIDE * (right - left)).exp()
    return mu
