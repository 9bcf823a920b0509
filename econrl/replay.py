"""The replay buffer: a ring of transitions on the solver's device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Transitions:
    """What an environment shows of n steps. `s_next` is the state truly reached, also where a path then began anew."""

    s: Tensor  # (n, S)
    u: Tensor  # (n, A), the unbounded form of the action taken
    r: Tensor  # (n,)
    beta: Tensor  # (n,)
    s_next: Tensor  # (n, S)


class Replay(nn.Module):
    """Keeps the last `capacity` transitions; sampling is uniform over those present."""

    s: Tensor
    u: Tensor
    r: Tensor
    beta: Tensor
    s_next: Tensor

    def __init__(self, capacity: int, states: int, actions: int, like: Tensor):
        super().__init__()
        shapes = {"s": (states,), "u": (actions,), "r": (), "beta": (), "s_next": (states,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(capacity, *shape, dtype=like.dtype, device=like.device))
        self.capacity, self.added = capacity, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, new: Transitions) -> None:
        at = (self.added + torch.arange(len(new.s), device=new.s.device)) % self.capacity
        for buffer, values in zip(self._columns(), vars(new).values(), strict=True):
            buffer[at] = values
        self.added += len(new.s)

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        at = torch.randint(len(self), (n,), generator=generator, device=self.s.device)
        return Transitions(*(buffer[at] for buffer in self._columns()))

    def state(self) -> dict[str, Any]:
        """What is in the buffer, to be restored later."""
        return {"added": self.added, "columns": [buffer[: len(self)] for buffer in self._columns()]}

    def restore(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        for buffer, kept in zip(self._columns(), state["columns"], strict=True):
            buffer[: len(kept)] = kept.to(buffer)

    def _columns(self) -> tuple[Tensor, ...]:
        return self.s, self.u, self.r, self.beta, self.s_next
