"""The states at which Gauss-Newton looks at the residuals: those of simulated paths, and some of the box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.simulate import go_on, move, own_states
from econrl.problem.state_function import Function

WIDER = 5.0  # times the domain's width, in logarithms: there, wrong solutions have errors that cannot be overlooked
CANDIDATES = 3  # for each state of a step: enough that the few states with large residuals are among them
MOST_ROWS = 6  # residuals looked at at one state: the Jacobian's rows of one state tell much the same


class Sampler:
    """Draws states for steps; a share `box` is uniform on the domain, the rest those of `paths` paths.

    `drifts` says that paths leave the domain, as where wealth grows without end.
    """

    def __init__(self, mdp: MDP, box: float, paths: int, drifts: bool, generator: torch.Generator) -> None:
        self.mdp, self.share, self.paths, self.drifts, self.generator = mdp, box, paths, drifts, generator
        self.rows = min(mdp.A, MOST_ROWS)

    def begin_paths(self) -> None:
        """Let the paths of `advance` begin."""
        self.s = self.mdp.sample_initial(self.paths, self.generator)

    @torch.no_grad()
    def sample(self, policy: Function, n: int) -> Tensor:
        """n states: some of the box, the rest of the policy's own simulation a few periods after the box."""
        from_box = int(self.share * n)
        own, _ = own_states(self.mdp, policy, 4 * n, self.paths, 20, self.generator)
        at = torch.randint(len(own), (n - from_box,), generator=self.generator, device=own.device)
        return torch.cat([own[at], self.box(from_box)])

    def box(self, n: int) -> Tensor:
        """n states uniform on the domain; where paths leave it, on one that is wider in its logarithmic states.

        Where wealth may grow without end, the Euler equation has other solutions, whose error grows with wealth: on
        the domain alone nothing tells them from the optimum, far beyond it they are large, and within it gone.
        """
        mdp = self.mdp
        s = mdp.sample_box(n, self.generator)
        if self.drifts:
            wide = mdp.logarithmic
            low, high = mdp.low[wide].log(), mdp.high[wide].log()
            u = torch.rand(n, len(wide), generator=self.generator, dtype=s.dtype, device=s.device)
            s[:, wide] = ((low + high + WIDER * (2 * u - 1) * (high - low)) / 2).exp()
        return s

    def known(self, s: Tensor) -> Tensor:
        """The states nearest to s at which a starting policy says something."""
        return s.clamp(self.mdp.low, self.mdp.high) if self.drifts else s

    @torch.no_grad()
    def worst(self, policy: Function, squares: Callable[[Tensor], Tensor], n: int) -> Tensor:
        """n states for a step, drawn from many in proportion to |R|, given |R|^2 (B,): what is lowered is the mean of
        |R|^3, so that the few states at the rim of the ergodic set count."""
        s = self.with_rows(self.advance(policy, CANDIDATES * n))
        size = squares(s).sqrt()
        if not size.isfinite().all() or size.sum() == 0:
            return s[:n]
        return s[size.multinomial(n, generator=self.generator)]

    def with_rows(self, s: Tensor) -> Tensor:
        """The states s (B, S) with the numbers of the residuals that a step looks at there: some, drawn anew for each
        state, where there are many."""
        if self.rows == self.mdp.A:
            return s
        u = torch.rand(len(s), self.mdp.A, generator=self.generator, dtype=s.dtype, device=s.device)
        return torch.cat([s, u.argsort(dim=-1)[:, : self.rows].to(s)], dim=-1)

    @torch.no_grad()
    def advance(self, policy: Function, n: int) -> Tensor:
        """About n states: some of the box, the rest those of the paths, which go on from step to step."""
        mdp = self.mdp
        from_box = int(self.share * n)
        visited: list[Tensor] = []
        while len(visited) * len(self.s) < n - from_box:
            visited.append(self.s)
            _, reached = move(mdp, self.s, policy(self.s), self.generator)
            self.s = go_on(mdp, reached, self.generator)
        s = torch.cat([*visited, self.box(from_box)])
        return s[torch.randperm(len(s), generator=self.generator, device=s.device)]

    @torch.no_grad()
    def of_period(self, pool: Tensor, t: int, n: int) -> Tensor:
        """n states of period t: some of the box, the rest of a pool of simulated lives."""
        from_box = self.mdp.sample_box(int(self.share * n), self.generator)
        from_box[:, -1] = t
        own = pool[pool[:, -1] == t]
        at = torch.randint(len(own), (n - len(from_box),), generator=self.generator, device=own.device)
        return torch.cat([own[at], from_box])

    def state(self) -> dict[str, Any]:
        """All that further draws depend on."""
        return {"paths": self.s, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.s = state["paths"].to(self.mdp.low)
        self.generator.set_state(state["generator"])
