"""Where the shares of an action may lie, and what squashes any real number onto them.

An action is reached through shares y: a = low + width y (`variables.py`). Its kind says which set they fill, and a set
knows the maps that need no more than the set. All of them take the columns (..., n) of one variable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_SHARE = 1e-12  # shares closer to a bound than this have no finite u


class ShareSet:
    """A set of shares y (..., n): by itself the real line, in each part.

    A new set says which bounds it has, and overrides the maps; y = squash(u) must be onto its interior.
    """

    below = False
    """Whether a smaller action ends at a bound. Then y >= 0."""
    above = False
    """Whether a larger one does. Then y <= 1 where there is a bound below as well, and y >= 0, downwards, else."""
    shared = False
    """Whether the parts share one total: sum y <= 1."""
    compact = False
    """Whether low + width y runs through a bounded interval, whose width must then be positive."""
    options: int | None = None
    """How many options a discrete action has; y is the number of one of them."""

    def squash(self, u: Tensor) -> Tensor:
        """Any real u to shares y."""
        return u

    def slope(self, y: Tensor) -> Tensor:
        """dy/du of each share on its own; positive, and zero for options."""
        return torch.ones_like(y)

    def log_volume(self, u: Tensor) -> Tensor:
        """Terms (..., m) whose sum is log |det dy/du|."""
        return torch.zeros_like(u)

    def unsquash(self, y: Tensor) -> Tensor:
        """The u that squashes to y; shares on a bound are moved off it by 1e-12."""
        return y

    def clamp(self, y: Tensor) -> Tensor:
        """Shares near y that keep all bounds, 1e-12 off them since a reward may be infinite on a bound."""
        return y

    def project(self, y: Tensor, off: float) -> Tensor:
        """The nearest shares that keep all bounds; `off` is how far from a bound on which nothing may be left."""
        return y

    def feasible(self, y: Tensor, slack: float) -> Tensor:
        """Whether y keeps all bounds, up to `slack`: (...)."""
        return torch.ones_like(y[..., 0], dtype=torch.bool)


@dataclass(frozen=True)
class HalfLine(ShareSet):
    """y >= 0: one bound, at a low or (with a width that is negative) at a high end; by a softplus."""

    below: bool = True

    @property
    def above(self) -> bool:  # type: ignore[override]
        return not self.below

    def squash(self, u: Tensor) -> Tensor:
        return F.softplus(u)

    def slope(self, y: Tensor) -> Tensor:
        return -torch.expm1(-y)

    def log_volume(self, u: Tensor) -> Tensor:
        return F.logsigmoid(u)

    def unsquash(self, y: Tensor) -> Tensor:
        y = y.clamp(min=SMALLEST_SHARE)
        return y + (-torch.expm1(-y)).log()

    def clamp(self, y: Tensor) -> Tensor:
        return y.clamp(min=SMALLEST_SHARE)

    def project(self, y: Tensor, off: float) -> Tensor:
        return y.clamp(min=0)

    def feasible(self, y: Tensor, slack: float) -> Tensor:
        return (y >= -slack).all(dim=-1)


class UnitInterval(ShareSet):
    """0 <= y <= 1 in each part: two bounds; by a sigmoid."""

    below = above = compact = True

    def squash(self, u: Tensor) -> Tensor:
        return u.sigmoid()

    def slope(self, y: Tensor) -> Tensor:
        return y * (1 - y)

    def log_volume(self, u: Tensor) -> Tensor:
        return F.logsigmoid(u) + F.logsigmoid(-u)

    def unsquash(self, y: Tensor) -> Tensor:
        return y.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE).logit()

    def clamp(self, y: Tensor) -> Tensor:
        return y.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)

    def project(self, y: Tensor, off: float) -> Tensor:
        return y.clamp(off, 1 - off)

    def feasible(self, y: Tensor, slack: float) -> Tensor:
        return ((y >= -slack) & (y <= 1 + slack)).all(dim=-1)


class Simplex(ShareSet):
    """y >= 0 and sum y <= 1: parts of a total that leave a rest; by a softmax of u and a zero for the rest."""

    below = shared = compact = True

    def squash(self, u: Tensor) -> Tensor:
        return with_rest(u).softmax(dim=-1)[..., :-1]

    def slope(self, y: Tensor) -> Tensor:
        return y * (1 - y)

    def log_volume(self, u: Tensor) -> Tensor:
        """The volume is the product of all shares, that of the rest among them."""
        return with_rest(u).log_softmax(dim=-1)

    def unsquash(self, y: Tensor) -> Tensor:
        rest = (1 - y.sum(dim=-1, keepdim=True)).clamp(min=SMALLEST_SHARE)
        return (y.clamp(min=SMALLEST_SHARE) / rest).log()

    def clamp(self, y: Tensor) -> Tensor:
        y = y.clamp(min=SMALLEST_SHARE)
        return y / y.sum(dim=-1, keepdim=True).clamp(min=1 - SMALLEST_SHARE) * (1 - SMALLEST_SHARE)

    def project(self, y: Tensor, off: float) -> Tensor:
        """The point of {y >= 0, sum y <= 1 - off} nearest to y."""
        cut = y.clamp(min=0)
        return torch.where(cut.sum(dim=-1, keepdim=True) > 1 - off, (1 - off) * project_on_simplex(y), cut)

    def feasible(self, y: Tensor, slack: float) -> Tensor:
        return (y >= -slack).all(dim=-1) & (y.sum(dim=-1) <= 1 + slack)


@dataclass(frozen=True)
class Options(ShareSet):
    """The whole numbers 0 ... n - 1, which u, y and a are alike."""

    n: int

    below = above = compact = True

    @property
    def options(self) -> int:  # type: ignore[override]
        """How many there are."""
        return self.n

    def slope(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y)

    def feasible(self, y: Tensor, slack: float) -> Tensor:
        return ((y >= 0) & (y < self.n) & (y == y.round())).all(dim=-1)


REALS, UNIT_INTERVAL, SIMPLEX = ShareSet(), UnitInterval(), Simplex()
ABOVE_LOW, BELOW_HIGH = HalfLine(below=True), HalfLine(below=False)


def shares_between(below: bool, above: bool) -> ShareSet:
    """The shares of an action with these bounds."""
    if below and above:
        return UNIT_INTERVAL
    return ABOVE_LOW if below else BELOW_HIGH if above else REALS


def with_rest(u: Tensor) -> Tensor:
    """u (..., n) with a zero for what is left, (..., n + 1)."""
    return torch.cat([u, torch.zeros_like(u[..., :1])], dim=-1)


def project_on_simplex(x: Tensor) -> Tensor:
    """The point of the unit simplex nearest to x (..., n), by sorting (Held, Wolfe & Crowder 1974)."""
    ordered = x.sort(dim=-1, descending=True).values
    excess = (ordered.cumsum(dim=-1) - 1) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    count = (ordered > excess).sum(dim=-1, keepdim=True)
    return (x - excess.gather(-1, (count - 1).clamp(min=0))).clamp(min=0)
