"""The environment that all learning methods and Gymnasium share: n paths through a model, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.simulate import goes_on, move


@dataclass
class Step:
    """One period of n paths."""

    s: Tensor  # (n, S)
    a: Tensor  # (n, A)
    r: Tensor  # (n,)
    beta: Tensor  # (n,), the discount factor on what follows s_next
    s_next: Tensor  # (n, S), the state truly reached, also where the path then begins anew
    goes_on: Tensor  # (n,), whether the path goes on from s_next


class Environments:
    """n paths of a model, with states `s` (n, S) and ages `age` (n,), in periods since each path began.

        r = r(s, a),   beta = beta(s, a, e),   s' = f(s, a, e),   e drawn for each path

    A path ends with its life, where it leaves the domain by half of its width (`simulate.MARGIN`), and after `episode`
    periods; only the first is an end of the world. `step` says which paths go on, and `begin_anew` gives the others a
    new state, so that what was truly reached can be looked at in between.

    `initial(n, generator)` draws n states to begin from: those from which methods learn (`MDP.sample_start`), or where
    the model begins (`MDP.sample_initial`). All random numbers come from `generator`.
    """

    def __init__(
        self,
        mdp: MDP,
        n: int,
        episode: int,
        generator: torch.Generator,
        initial: Callable[[int, torch.Generator], Tensor] | None = None,
    ) -> None:
        self.mdp, self.n, self.episode, self.generator = mdp, n, episode, generator
        self.initial = initial or mdp.sample_start
        self.begin()

    def begin(self) -> None:
        """All paths begin anew."""
        self.s = self.initial(self.n, self.generator)
        self.age = torch.zeros(self.n, dtype=torch.long, device=self.mdp.device)

    def stagger(self) -> None:
        """Ages drawn at random, so that the paths do not all begin anew at once."""
        self.age = torch.randint(self.episode, (self.n,), generator=self.generator, device=self.mdp.device)

    @torch.no_grad()
    def step(self, a: Tensor) -> Step:
        """Every path makes one period with its action, a (n, A); it then stands at the state reached."""
        mdp, s = self.mdp, self.s
        e, s_next = move(mdp, s, a, self.generator)
        self.s, self.age = s_next, self.age + 1
        going = goes_on(mdp, s_next) & (self.age < self.episode)
        return Step(s, a, mdp.reward(s, a), mdp.discount(s, a, e).expand(self.n), s_next, going)

    def begin_anew(self, going: Tensor) -> None:
        """A new state for each path that does not go on (n,). It is drawn for all, so that no device has to wait."""
        self.s = torch.where(going.unsqueeze(-1), self.s, self.initial(self.n, self.generator))
        self.age = self.age * going

    def state(self) -> list[Any]:
        """All that the paths' further course depends on, but for the generator."""
        return [self.s, self.age]

    def restore(self, state: list[Any]) -> None:
        """Go on from what `state` gave."""
        self.s, self.age = (tensor.to(self.mdp.device) for tensor in state)
