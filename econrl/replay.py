"""The replay buffer: a ring of transitions on the solver's device, drawn uniformly or by priority."""

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
    """Keeps the last `capacity` transitions; sampling is uniform over those present.

    With `steps` above one, transitions are added in rows of one for each of `paths` paths side by side, and a sample
    shows up to that many steps of a path as one:

        r = sum_{h<m} B_h r_h,   beta = B_m,   s_next = s_m,   B_h = beta_0 ... beta_{h-1}

    m is `steps`, or less where the path then began anew or has not gone further yet: a sum never runs from one path
    into another, nor from the newest transitions over the seam of the ring into the oldest.
    """

    s: Tensor
    u: Tensor
    r: Tensor
    beta: Tensor
    s_next: Tensor
    goes_on: Tensor

    def __init__(self, capacity: int, states: int, actions: int, like: Tensor, steps: int = 1, paths: int = 1):
        super().__init__()
        shapes = {"s": (states,), "u": (actions,), "r": (), "beta": (), "s_next": (states,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(capacity, *shape, dtype=like.dtype, device=like.device))
        self.register_buffer("goes_on", torch.zeros(capacity, dtype=torch.bool, device=like.device))
        self.capacity, self.steps, self.paths, self.added = capacity, steps, paths, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, new: Transitions, goes_on: Tensor | None = None) -> Tensor:
        """Remember transitions, and whether each path goes on from `s_next` (n,). Returns their places."""
        at = (self.added + torch.arange(len(new.s), device=new.s.device)) % self.capacity
        for buffer, values in zip(self._shown(), vars(new).values(), strict=True):
            buffer[at] = values
        if goes_on is not None:
            self.goes_on[at] = goes_on
        self.added += len(new.s)
        return at

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        """n transitions, each present one as likely as any other."""
        return self.read(Replay.draw(self, n, 1.0, generator)[0])

    def draw(self, n: int, eta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n places, and the weights (n,) of their losses, here all one."""
        return torch.randint(len(self), (n,), generator=generator, device=self.s.device), self.s.new_ones(n)

    def correct(self, at: Tensor, errors: Tensor) -> None:
        """Hear the critic's errors (n,) on the transitions at these places; uniform draws do not heed them."""

    def read(self, at: Tensor) -> Transitions:
        """The transitions that begin at these places, of up to `steps` periods."""
        found = Transitions(*(buffer[at] for buffer in self._shown()))
        going = torch.ones_like(self.goes_on[at])
        for _ in range(self.steps - 1):
            age = (self.added - 1 - at) % self.capacity  # transitions added since
            going = going & self.goes_on[at] & (age >= self.paths)
            at = (at + self.paths) % self.capacity
            found.r = torch.where(going, found.r + found.beta * self.r[at], found.r)
            found.beta = torch.where(going, found.beta * self.beta[at], found.beta)
            found.s_next = torch.where(going.unsqueeze(-1), self.s_next[at], found.s_next)
        return found

    def state(self) -> dict[str, Any]:
        """What is in the buffer, to be restored later."""
        return {"added": self.added, "columns": [buffer[: len(self)] for buffer in self._kept()]}

    def restore(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        for buffer, kept in zip(self._kept(), state["columns"], strict=True):
            buffer[: len(kept)] = kept.to(buffer)

    def _shown(self) -> tuple[Tensor, ...]:
        return self.s, self.u, self.r, self.beta, self.s_next

    def _kept(self) -> tuple[Tensor, ...]:
        return *self._shown(), self.goes_on


class PrioritisedReplay(Replay):
    """Draws transition i with probability P_i = p_i^omega / sum_k p_k^omega, where p_i is the size |delta_i| of the
    error that the critic made on it when it last saw it; a new one has the largest met so far.

    A loss with the weights w_i = (P_i / min_k P_k)^-eta, over the batch, has the gradient of uniform draws, up to a
    factor, where eta = 1; below, large errors count for more.

    Source: Schaul, Quan, Antonoglou and Silver (2016), "Prioritized experience replay", proportional variant.
    """

    priority: Tensor
    largest: Tensor

    def __init__(self, *arguments: Any, omega: float, **more: Any):
        super().__init__(*arguments, **more)
        self.omega = omega
        # p^omega, in double precision, as their sum over the buffer is what draws are made from
        self.register_buffer("priority", torch.zeros(self.capacity, dtype=torch.float64, device=self.s.device))
        self.register_buffer("largest", torch.ones((), dtype=torch.float64, device=self.s.device))

    def add(self, new: Transitions, goes_on: Tensor | None = None) -> Tensor:
        at = super().add(new, goes_on)
        self.priority[at] = self.largest
        return at

    def draw(self, n: int, eta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n places, one from each nth part of the sum of priorities, and the weights (n,) of their losses."""
        total = self.priority[: len(self)].cumsum(dim=0)
        part = torch.arange(n, dtype=total.dtype, device=total.device)
        part = part + torch.rand(n, generator=generator, dtype=total.dtype, device=total.device)
        at = torch.searchsorted(total, part / n * total[-1], right=True).clamp(max=len(self) - 1)
        p = self.priority[at]
        return at, ((p / p.min()) ** -eta).to(self.s.dtype)

    def correct(self, at: Tensor, errors: Tensor) -> None:
        """Hear the critic's errors (n,) on the transitions at these places."""
        p = (errors.detach().abs().to(self.priority) + FLOOR) ** self.omega
        self.priority[at] = p
        self.largest = torch.maximum(self.largest, p.max())

    def state(self) -> dict[str, Any]:
        return {**super().state(), "priorities": [self.priority[: len(self)], self.largest]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        priority, largest = state["priorities"]
        self.priority[: len(self)] = priority.to(self.priority)
        self.largest = largest.to(self.largest)


FLOOR = 1e-6  # error, so that a transition without any is seen again
