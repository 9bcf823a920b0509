"""Values at the points of a mesh where there are none: along straight lines from the nearest points that have one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Fill:
    """Of functions on one mesh (N, d), layer by layer: which points have a value, `alive` (layers, N), and what the
    others get,

        x_i = x_a + |i - a| / |a - b| (x_a - x_b),

    a being the nearest point that has one and b that nearest to the mirror image of i in a: the function goes on as
    it was going. Linear in x. Points that are not `needed` (layers, N) may get anything.

    Raises ValueError where a layer has fewer than two points with a value, and needs more.
    """

    def __init__(self, mesh: Tensor, alive: Tensor, needed: Tensor | None = None) -> None:
        self.alive = alive.flatten()
        self.complete = bool(self.alive.all())
        if self.complete:
            return
        width = mesh.amax(dim=0) - mesh.amin(dim=0)
        z = (mesh - mesh.amin(dim=0)) / torch.where(width > 0, width, 1.0)
        dead, near, mirror, ratio = [], [], [], []
        for layer, own in enumerate(alive):
            if own.all():
                continue
            known, lost = own.nonzero().flatten(), (~own).nonzero().flatten()
            if len(known) < 2:
                if needed is None or (needed[layer] & ~own).any() or not self.alive.any():
                    raise ValueError
                anything = self.alive.nonzero().flatten()[:1].expand(len(lost))
                dead.append(layer * len(mesh) + lost)
                near.append(anything)
                mirror.append(anything)
                ratio.append(torch.zeros_like(z[lost, :1].sum(dim=-1)))
                continue
            a = known[torch.cdist(z[lost], z[known]).argmin(dim=-1)]
            distance = torch.cdist(2 * z[a] - z[lost], z[known])
            distance = distance.masked_fill(known == a.unsqueeze(-1), torch.inf)
            b = known[distance.argmin(dim=-1)]
            first = layer * len(mesh)
            dead.append(first + lost)
            near.append(first + a)
            mirror.append(first + b)
            ratio.append((z[lost] - z[a]).norm(dim=-1) / (z[a] - z[b]).norm(dim=-1))
        self.dead, self.near, self.mirror, self.ratio = (torch.cat(part) for part in (dead, near, mirror, ratio))

    def linear(self, x: Tensor, most: float = math.inf) -> Tensor:
        """x (layers N,) with the points filled that have no value, by no more than `most`."""
        if self.complete:
            return x
        filled = x[self.near] + self.ratio * (x[self.near] - x[self.mirror])
        return x.index_put((self.dead,), filled.clamp(max=most))

    def nearest(self, u: Tensor) -> Tensor:
        """u (layers N, A) with those of the nearest points."""
        return u if self.complete else u.index_put((self.dead,), u[self.near])

    def spread(self, x: Tensor, most: float = math.inf) -> Tensor:
        """All points (layers N,) from the values of those that have one."""
        return x if self.complete else self.linear(x.new_zeros(len(self.alive)).masked_scatter(self.alive, x), most)
