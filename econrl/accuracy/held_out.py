"""The points on which a run's progress is judged and its best policy is chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from econrl.accuracy.optimality_gaps import TOO_FEW, affordable, by_euler, euler_gaps, value_gaps
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
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
        """The error of `judge`, and the share of periods in which paths leave the domain as far as it is not tolerated:
        a policy that saves everything can satisfy every Euler equation, and break transversality."""
        error, restarted = self.judge(policy, value)
        return error + (restarted if restarted > self.tolerated else 0.0)

    def judge(self, policy: Any, value: Any) -> tuple[float, float]:
        """Mean distance to the best action (`best_action.py`), given the policy's own future by the Euler equation;
        where that is by the value, together with its Bellman errors, since only both test optimality. Of many actions,
        whose distances take long, the mean Euler residual. Three quarters of the points are the policy's own
        simulation, one quarter the box.

        Also the share of periods in which paths leave the domain. The error is infinite where the policy breaks down.
        """
        mdp, policy, value = self.mdp, policy.on(self.mdp), value.on(self.mdp)
        simulated, restarted = self.simulate(policy)
        s = torch.cat([simulated, self.box])
        if not policy(s).isfinite().all():
            return float("inf"), restarted
        euler = by_euler(mdp, self.structure, policy, s)
        judged, at = affordable(mdp, euler, policy, s)
        if euler and len(at) < TOO_FEW:
            error = float(
                in_chunks(mdp, lambda s: euler_residuals(mdp, self.structure, policy, s, value=value), s).abs().mean()
            )
        elif euler:
            error = float(euler_gaps(judged, self.structure, policy, at, value=value).distance.mean())
        else:
            bellman = relative(bellman_residual(mdp, policy, value, s), value(s)).mean()
            distances = value_gaps(judged, policy, value, at).distance.mean(dim=0)
            error = float(torch.cat([distances, bellman.unsqueeze(0)]).mean())
        return error if error == error else float("inf"), restarted

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
