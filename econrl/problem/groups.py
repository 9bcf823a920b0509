"""Groups of exchangeable members: which columns of the flat tensors belong to which member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.problem.layout import Slot


@dataclass(frozen=True, eq=False)
class Group:
    """A group of `size` = N members; row j of each tensor is member j's.

    states, actions, shocks     the columns (N, n) of the flat s, a and e that are the member's own
    features                    the member's constants (N, n_f), each scaled to [-1, 1] over the members
    """

    name: str
    size: int
    states: Tensor
    actions: Tensor
    shocks: Tensor
    features: Tensor


def groups_of(
    states: Sequence[Slot],
    actions: Sequence[Slot],
    shocks: Sequence[Slot],
    features: dict[str, dict[str, Tensor]],
    like: Tensor,
) -> list[Group]:
    """The groups in the order in which the variables name them; tensors on the device and in the type of `like`."""
    sizes = {slot.group: slot.size for slot in [*states, *actions, *shocks] if slot.group and slot.size}

    def columns(layout: Sequence[Slot], name: str) -> Tensor:
        own = [list(range(slot.start, slot.stop)) for slot in layout if slot.group == name]
        return torch.tensor(own, dtype=torch.long, device=like.device).reshape(-1, sizes[name]).T

    def constants(name: str) -> Tensor:
        found = [scaled(value) for value in features.get(name, {}).values()]
        return torch.stack(found, dim=-1) if found else like.new_zeros(sizes[name], 0)

    return [
        Group(name, size, columns(states, name), columns(actions, name), columns(shocks, name), constants(name))
        for name, size in sizes.items()
    ]


def scaled(x: Tensor) -> Tensor:
    """The range of x mapped to [-1, 1]; zero where all are equal."""
    low, high = x.min(), x.max()
    return (2 * x - low - high) / torch.where(high > low, high - low, torch.ones_like(high))
