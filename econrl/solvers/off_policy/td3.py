"""Twin delayed deep deterministic policy gradient.

    target      y = r + beta min_i Q_i'(s', pi'(s') + noise),   noise = clip(N(0, sigma^2), -c, c)
    critics     sum_i E[(Q_i(s, u) - y)^2]
    actor       -E[Q_1(s, pi(s))], in every second step; then the targets follow

Primes on functions are target networks; actions are given as their unbounded u, so that noise is in log-odds of shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.approximation.networks import Actor
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import require
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import actor_loss
from econrl.solvers.off_policy.twin_critics import TwinLearner, TwinMethod, Twins


def smoothed_value(
    targets: Twins, actor: Actor, s: Tensor, sigma: float, clip: float, generator: torch.Generator
) -> Tensor:
    """min_i Q_i'(s, pi'(s) + noise): actions that are alike have values that are, so a narrow peak is not believed."""
    u = actor.raw(s)
    noise = torch.randn(u.shape, generator=generator, dtype=u.dtype, device=u.device)
    return targets.units.value(targets.smaller(s, u + (sigma * noise).clamp(-clip, clip)))


@dataclass(frozen=True)
class TD3(TwinMethod):
    """Twin delayed DDPG: the smaller of two critics as the target, at a smoothed action, and an actor that waits.

    Source: Fujimoto, van Hoof and Meger (2018), "Addressing function approximation error in actor-critic methods".
    """

    name = "td3"

    delay: int = 2
    """Steps of the critics to one of the actor and of the targets."""
    smoothing: float = 0.2
    """Standard deviation sigma of the noise on the target's action, in log-odds of its share."""
    smoothing_clip: float = 0.5
    """Largest size c of that noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "delay", self.delay >= 1, "at least 1")
        require(self, "smoothing", self.smoothing >= 0, "at least 0")
        require(self, "smoothing_clip", self.smoothing_clip >= 0, "at least 0")

    def learner(self, mdp: MDP, task: Task) -> TD3Learner:
        return TD3Learner(self, mdp, task)


class TD3Learner(TwinLearner):
    """The state of a run."""

    actor: Actor

    def __init__(self, method: TD3, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        self.actor_target: Actor = self.actor.on(mdp)
        self.targets.first.actor = self.actor_target

    def value(self, s: Tensor) -> Tensor:
        """V'(s), which the critics' target bootstraps from."""
        method = self.method
        return smoothed_value(
            self.targets, self.actor_target, s, method.smoothing, method.smoothing_clip, self.generator
        )

    def update(self, rate: float) -> None:
        s = self.learn_critics(self.value, rate)
        if self.updates % self.method.delay == 0:
            loss = actor_loss(self.critics.first, self.actor, s)
            self.actor_optimiser.descend(loss, self.actor_lr * rate)
            self.follow(self.targets.body, self.critics.body, rate)
            self.follow(self.actor_target.body, self.actor.body, rate)
