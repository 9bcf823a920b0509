"""The unit in which a value function on a grid is interpolated: one in which it is nearly linear in the state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

POWERS = [2.0 ** (k / 2) for k in range(-7, 7)]  # 1/11 to 8: relative risk aversion from 1.1 to 12
FINER = 5  # searches for the power, each on a narrower range
ROOM = 0.1  # between an anchor and values of both signs, in ranges of them
WORTH = 0.5  # share of the curvature in V itself below which another unit is taken
REACH = 1e4  # the curve goes on until |V - anchor| is so many times the largest, or the smallest over it
NEAREST = 1e-12  # |V - anchor|, of the largest, of what is at its anchor
WIDTHS = 3.0  # of the values, to which it goes on where there is no anchor


@dataclass(frozen=True)
class ValueUnit:
    """x = T(V), a rising function: with v = |V - anchor| / scale,

        side  1    x = v^power                     anchor below all values: power utility with gamma < 1, inverted
        side -1    x = v^(-power)                  anchor above all values: the same with gamma > 1
        side  0    x = e^(power (V - anchor)/scale)    logarithmic utility

    and V itself where `power` is None. With constant relative risk aversion, x is a certainty-equivalent consumption up
    to scale, and close to linear in wealth, where V is steep next to a natural limit and flat far from it: a spline of
    x keeps the shape of V, and its tangent leads beyond the grid sanely. Outside [low, high] T is a straight line.
    """

    power: float | None = None
    side: int = 0
    anchor: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0

    @property
    def of_minus_infinity(self) -> float:
        """What x is at most where V is minus infinity."""
        return 0.0 if self.side == -1 else math.inf

    def describe(self) -> dict[str, Any] | None:
        """The keyword arguments that rebuild it; None for V itself."""
        return None if self.power is None else dict(vars(self))

    def raw(self, v: Tensor) -> Tensor:
        """x at the value v."""
        if self.power is None:
            return v
        ends = v.new_tensor([self.low, self.high])
        bottom, top = self._curve(ends)
        slopes = self._slope(ends)
        inside = v.clamp(bottom, top)
        if self.side == 0:
            x = (self.power * (inside - self.anchor) / self.scale).exp()
        else:
            x = (self.side * (inside - self.anchor) / self.scale) ** (self.side * self.power)
        return x + (v - inside) / torch.where(v < inside, slopes[0], slopes[1])

    def value(self, x: Tensor) -> Tensor:
        """V at x."""
        if self.power is None:
            return x
        slopes = self._slope(x.new_tensor([self.low, self.high]))
        inside = x.clamp(self.low, self.high)
        return self._curve(inside) + (x - inside) * torch.where(x < inside, slopes[0], slopes[1])

    def slope(self, x: Tensor) -> Tensor:
        """dV/dx at x."""
        return torch.ones_like(x) if self.power is None else self._slope(x.clamp(self.low, self.high))

    def _curve(self, x: Tensor) -> Tensor:
        assert self.power is not None
        if self.side == 0:
            return self.anchor + self.scale / self.power * x.log()
        return self.anchor + self.side * self.scale * x ** (self.side / self.power)

    def _slope(self, x: Tensor) -> Tensor:
        assert self.power is not None
        if self.side == 0:
            return self.scale / self.power / x
        return self.scale / self.power * x ** (self.side / self.power - 1)


def unit_for(values: Tensor, curvature: Callable[[Tensor], Tensor]) -> ValueUnit:
    """The unit in which these values, NaN where there are none, have the least curvature; V itself unless another has
    much less."""
    known = values[values.isfinite()]
    least, most = float(known.min()), float(known.max())
    spread = most - least
    if not 1e-12 * max(abs(least), abs(most)) < spread < math.inf:
        return ValueUnit()

    def bend(unit: ValueUnit) -> float:
        found = float(curvature(unit.raw(values)))
        return found if found == found else math.inf

    best = ValueUnit()
    least_bend = WORTH * bend(best)
    for side, anchor in shapes(least, most):
        powers, step = POWERS, 2.0**0.5
        for _ in range(FINER):
            power = min(powers, key=lambda power: bend(between(power, side, anchor, least, most)))
            step = step**0.4
            powers = [power * step**k for k in (-2, -1, 0, 1, 2)]
        unit = between(power, side, anchor, least, most)
        if bend(unit) < least_bend:
            best, least_bend = unit, bend(unit)
    return best


def shapes(least: float, most: float) -> list[tuple[int, float]]:
    """Sides and anchors for values between these."""
    if most <= 0:
        return [(0, most), (-1, 0.0)]
    if least >= 0:
        return [(0, most), (1, 0.0)]
    room = ROOM * (most - least)
    return [(0, most), (-1, most + room), (1, least - room)]


def between(power: float, side: int, anchor: float, least: float, most: float) -> ValueUnit:
    """The unit of this shape for values between `least` and `most`."""
    if side == 0:
        scale = most - least
        ends = [math.exp(power * at) for at in (-1 - WIDTHS, WIDTHS)]
    else:
        near, far = sorted(abs(v - anchor) for v in (least, most))
        scale = far
        ends = sorted(at ** (side * power) for at in (max(near / far, NEAREST) / REACH, REACH))
    return ValueUnit(power, side, anchor, scale, *ends)
