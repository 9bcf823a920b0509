"""The replay buffer: a ring of transitions on the solver's device, drawn uniformly or by priority."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Transitions:
    """What an environment shows of n steps. `s_next` is the state truly reached, also where a path then began anew."""

    s: Tensor  # (n, S)
    u: Tensor  # (n, A), the unbounded form of the action taken
    r: Tensor  # (n,)
    beta: Tensor  # (n,)
    s_next: Tensor  # (n, S)


class Replay:
    """Keeps the last `capacity` transitions; sampling is uniform over those present.

    With `steps` above one, transitions are added in rows of one for each of `paths` paths side by side, and a sample
    shows up to that many steps of a path as one:

        r = sum_{h<m} B_h r_h,   beta = B_m,   s_next = s_m,   B_h = beta_0 ... beta_{h-1}

    m is `steps`, or less where the path then began anew or has not gone further yet: a sum never runs from one path
    into another, nor from the newest transitions over the seam of the ring into the oldest.
    """

    def __init__(self, capacity: int, states: int, actions: int, like: Tensor, steps: int = 1, paths: int = 1) -> None:
        self.widths = [states, actions, 1, 1, states, 1]
        self.table = torch.zeros(capacity, sum(self.widths), dtype=like.dtype, device=like.device)
        """A row for each transition, whose last column says whether its path goes on: one write, and one read."""
        self.s, self.u, self.r, self.beta, self.s_next = vars(self._shown(self.table)).values()
        self.capacity, self.steps, self.paths, self.added = capacity, steps, paths, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def goes_on(self) -> Tensor:
        """Whether the path of each transition goes on from its `s_next`, (capacity,)."""
        return self.table[:, -1] > 0

    def add(self, new: Transitions, goes_on: Tensor | None = None) -> Tensor:
        """Remember transitions, and whether each path goes on from `s_next` (n,). Returns their places."""
        at = (self.added + torch.arange(len(new.s), device=new.s.device)) % self.capacity
        flags = torch.zeros_like(new.r) if goes_on is None else goes_on.to(new.r)
        columns = [new.s, new.u, *(x.unsqueeze(-1) for x in (new.r, new.beta)), new.s_next, flags.unsqueeze(-1)]
        self.table[at] = torch.cat(columns, dim=-1)
        self.added += len(new.s)
        return at

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        """n transitions, each present one as likely as any other."""
        return self.read(Replay.draw(self, n, 1.0, generator)[0])

    def draw(self, n: int, eta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n places, and the weights (n,) of their losses, here all one."""
        return torch.randint(len(self), (n,), generator=generator, device=self.table.device), self.table.new_ones(n)

    def correct(self, at: Tensor, errors: Tensor) -> None:
        """Hear the critics' errors (..., n) on the transitions at these places; uniform draws do not heed them."""

    def read(self, at: Tensor) -> Transitions:
        """The transitions that begin at these places, of up to `steps` periods."""
        rows = self.table.index_select(0, at)
        found = self._shown(rows)
        going = torch.ones_like(at, dtype=torch.bool)
        for _ in range(self.steps - 1):
            age = (self.added - 1 - at) % self.capacity  # transitions added since
            going = going & (rows[:, -1] > 0) & (age >= self.paths)
            at = (at + self.paths) % self.capacity
            rows = self.table.index_select(0, at)
            then = self._shown(rows)
            found.r = torch.where(going, found.r + found.beta * then.r, found.r)
            found.beta = torch.where(going, found.beta * then.beta, found.beta)
            found.s_next = torch.where(going.unsqueeze(-1), then.s_next, found.s_next)
        return found

    def state(self) -> dict[str, Any]:
        """What is in the buffer, to be restored later."""
        return {"added": self.added, "rows": self.table[: len(self)]}

    def restore(self, state: dict[str, Any]) -> None:
        """Hold what `state` gave."""
        self.added = state["added"]
        self.table[: len(self)] = state["rows"].to(self.table)

    def _shown(self, rows: Tensor) -> Transitions:
        """The columns of rows (n, ...), which share their memory."""
        s, u, r, beta, s_next, _ = rows.split(self.widths, dim=-1)
        return Transitions(s, u, r.squeeze(-1), beta.squeeze(-1), s_next)


class PrioritisedReplay(Replay):
    """Draws transition i with probability P_i = p_i^omega / sum_k p_k^omega, where p_i is the size |delta_i| of the
    error that the critic made on it when it last saw it; a new one has the largest met so far.

    A loss with the weights w_i = (P_i / min_k P_k)^-eta, over the batch, has the gradient of uniform draws, up to a
    factor, where eta = 1; below, large errors count for more.

    Source: Schaul, Quan, Antonoglou and Silver (2016), "Prioritized experience replay", proportional variant.
    """

    def __init__(self, *arguments: Any, omega: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.omega = omega
        # p^omega, in double precision, as their sum over the buffer is what draws are made from
        self.priority = torch.zeros(self.capacity, dtype=torch.float64, device=self.table.device)
        self.largest = torch.ones_like(self.priority[0])

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
        return at, ((p / p.min()) ** -eta).to(self.table.dtype)

    def correct(self, at: Tensor, errors: Tensor) -> None:
        """Hear the errors (n,) of the critic on the transitions at these places; of several, (..., n), their mean."""
        size = errors.detach().abs().reshape(-1, len(at)).mean(dim=0)
        p = (size.to(self.priority) + FLOOR) ** self.omega
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
