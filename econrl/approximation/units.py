"""The units in which a value function is learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """The units x of a critic: V = center + scale x, or, where values differ by orders of magnitude,
    V = sign e^(center + sign scale x). V rises with x.

    With constant relative risk aversion V is a power of wealth. Its logarithm is close to linear in the logarithm of
    wealth, and an error in it is a relative error of V: the same in terms of consumption, rich or poor.
    """

    center: float = 0.0
    scale: float = 1.0
    sign: int = 0
    """0 for the linear unit; else the sign of V everywhere."""

    def value(self, x: Tensor) -> Tensor:
        """V at x; a value in logarithms stops growing at e^80."""
        if self.sign == 0:
            return self.center + self.scale * x
        return self.sign * (self.center + self.sign * self.scale * x).clamp(max=LARGEST_EXPONENT).exp()

    def raw(self, v: Tensor) -> Tensor:
        """The inverse of `value`."""
        if self.sign == 0:
            return (v - self.center) / self.scale
        return (v.abs().log() - self.center) / (self.sign * self.scale)

    def size(self, v: Tensor) -> Tensor:
        """dV/dx at the value v: what one unit is worth there."""
        return torch.full_like(v, self.scale) if self.sign == 0 else self.scale * v.detach().abs()

    def error(self, x: Tensor, y: Tensor) -> Tensor:
        """How far V(x) is above the value y that it should have, in units at V(x): (V(x) - y) / size(V(x)).

        Were it in units at y, an x that is far too high would cost no more than one, and stay; and of random y those
        next to zero would count most. So its mean is zero where V(x) = E[y], and it is never flat.
        """
        if self.sign == 0:
            return x - self.raw(y)
        v = self.value(x)
        return (v - y) / self.size(v.abs().maximum(NEAREST * y.abs()))


NEAREST = 0.01  # of the value that is wanted: a unit at V(x) is no smaller, however near to zero V(x) is
LARGEST_EXPONENT = 80.0  # e^80 is near the largest number of single precision
WIDE = 20.0  # values whose largest is so many times the smallest are learned in logarithms


def units_of(values: Tensor) -> Units:
    """Units in which these values have mean zero and spread one; logarithms where they are wide and of one sign."""
    values = values[values.isfinite()]
    if len(values) < 2:
        return Units()
    sign = int(values.sign().mean()) if (values.sign() == values[0].sign()).all() else 0
    if sign != 0 and values.abs().max() > WIDE * values.abs().min():
        values = values.abs().log()
    else:
        sign = 0
    spread = torch.maximum(values.std(), 1e-3 * values.mean().abs()).clamp(min=1e-6)
    return Units(float(values.mean()), float(spread), sign)
