"""The points on which a run's progress is judged and its best policy is chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.greedy import greedy_residuals
from econrl.problem.bellman import bellman_residual
from econrl.problem.chunks import in_chunks
from econrl.problem.mdp import MDP
from econrl.problem.simulate import own_states
from econrl.problem.state_function import Function
from econrl.spec.model import Model

REPORTED_SEED, SELECTION_SEED = 987_654_321, 123_456_789  # never the same states for choosing and for reporting


class HeldOut:
    """The points on which a solver's progress is judged and its best policy chosen; not those of `accuracy_table`."""

    def __init__(self, model: Model, device: torch.device | str = "cpu", points: int = 1000) -> None:
        self.mdp = MDP(model, device)
        self.structure = find_structure(self.mdp)
        self.points, self.tolerated = points, 0.0
        self.box = self.mdp.sample_box(points // 4, self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.mdp.device).manual_seed(SELECTION_SEED)

    def error(self, policy: Any, value: Any) -> float:
        """Mean Euler error; where there is no Euler equation, the mean of greedy and Bellman errors, which test
        optimality together. Three quarters of the points are the policy's own simulation, one quarter the box.

        The share of periods in which paths leave the domain is added, as far as it is not tolerated: a policy that
        saves everything can satisfy every Euler equation, and break transversality. Infinite where the policy breaks
        down."""
        policy, value = policy.on(self.mdp), value.on(self.mdp)
        simulated, restarted = self.simulate(policy)
        s = torch.cat([simulated, self.box])
        if self.structure.exists:
            residual = in_chunks(self.mdp, lambda s: euler_residuals(self.mdp, self.structure, policy, s), s)
        else:
            bellman = relative(bellman_residual(self.mdp, policy, value, s), value(s))
            residual = torch.cat([greedy_residuals(self.mdp, policy, value, s), bellman.unsqueeze(-1)], dim=-1)
        error = float(residual.abs().mean()) + (restarted if restarted > self.tolerated else 0.0)
        return error if error == error else float("inf")

    @torch.no_grad()
    def bellman(self, policy: Any, value: Any) -> float:
        """Mean Bellman error; infinite where the value breaks down."""
        policy, value = policy.on(self.mdp), value.on(self.mdp)
        s = torch.cat([self.simulate(policy)[0], self.box])
        error = float(relative(bellman_residual(self.mdp, policy, value, s), value(s)).mean())
        return error if error == error else float("inf")

    def tolerate(self, policy: Any) -> None:
        """From now on, paths may leave the domain as often as under this policy, and half as often again: where wealth
        grows without end, that says nothing against a policy."""
        self.tolerated = 1.5 * self.simulate(policy.on(self.mdp))[1]

    def simulate(self, policy: Function) -> tuple[Tensor, float]:
        """States (N, S) of the policy's own simulation, and the share of periods in which a path began anew."""
        return own_states(self.mdp, policy, 3 * self.points // 4, 125, 60, self._generator())


def relative(error: Tensor, level: Tensor) -> Tensor:
    """|error| over the sample's mean |level|."""
    return error.abs() / level.abs().mean().clamp(min=1e-12)
