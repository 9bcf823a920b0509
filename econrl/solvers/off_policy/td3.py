"""Twin delayed deep deterministic policy gradient.

    target      y = r + beta min_i Q_i'(s', pi'(s') + noise),   noise = clip(N(0, sigma^2), -c, c)
    critics     sum_i E[(Q_i(s, u) - y)^2]
    actor       -E[Q_1(s, pi(s))], in every second step; then the targets follow

Primes on functions are target networks; actions are given as their unbounded u, so that noise is in log-odds of shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from econrl.approximation.networks import ActionValueNetwork, Actor
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import actor_near, noisy_actions
from econrl.solvers.off_policy.ddpg import actor_loss, critic_loss, expected_target, sampled_target, td_error
from econrl.solvers.off_policy.learner import Experience, OffPolicy, OffPolicyLearner, annealed, require_one_step
from econrl.solvers.off_policy.twin_critics import Twins, twins


def smoothed_value(
    targets: Twins, actor: Actor, s: Tensor, sigma: float, clip: float, generator: torch.Generator
) -> Tensor:
    """min_i Q_i'(s, pi'(s) + noise): actions that are alike have values that are, so a narrow peak is not believed."""
    u = actor.raw(s)
    noise = torch.randn(u.shape, generator=generator, dtype=u.dtype, device=u.device)
    return targets.units.value(targets.smaller(s, u + (sigma * noise).clamp(-clip, clip)))


@dataclass(frozen=True)
class TD3(OffPolicy):
    """Twin delayed DDPG: the smaller of two critics as the target, at a smoothed action, and an actor that waits.

    Source: Fujimoto, van Hoof and Meger (2018), "Addressing function approximation error in actor-critic methods".
    """

    name = "td3"
    light = True

    actor_lr: float = 0.001
    """Adam's learning rate for the actor, annealed to zero."""
    critic_lr: float = 0.01
    """Adam's learning rate for the critics, annealed to zero."""
    noise: float = 0.5
    """Standard deviation of exploration in the log-odds of an action's share: it respects bounds of any width."""
    expected: bool = False
    """Whether targets are expectations over the shocks, r + sum_j w_j beta V'(s'_j), as on rung 1 of `ddpg`; else the
    one next state in the replay, as published."""
    delay: int = 2
    """Steps of the critics to one of the actor and of the targets."""
    smoothing: float = 0.2
    """Standard deviation sigma of the noise on the target's action, in log-odds of its share."""
    smoothing_clip: float = 0.5
    """Largest size c of that noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("actor_lr", "critic_lr"):
            require(self, name, getattr(self, name) > 0, "positive")
        require(self, "tau", 0 < self.tau <= 1, "in (0, 1]")
        require(self, "delay", self.delay >= 1, "at least 1")
        for name in ("noise", "smoothing", "smoothing_clip"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        if self.expected:
            require_one_step(self)

    def learner(self, mdp: MDP, task: Task) -> TD3Learner:
        return TD3Learner(self, mdp, task)


class TD3Learner(OffPolicyLearner):
    """The state of a run: an actor, two critics and their targets."""

    def __init__(self, method: TD3, mdp: MDP, task: Task) -> None:
        super().__init__(mdp, task, method.batch)
        self.method = method
        self.actor_lr, self.critic_lr, self.tau = method.actor_lr, method.critic_lr, method.tau
        self.actor = actor_near(mdp, method.hidden, self.start.u)
        self.critics = twins(mdp, ActionValueNetwork, method.hidden, self.start.units)
        self.actor_target, self.targets = self.actor.on(mdp), self.critics.on(mdp)
        self.targets.first.actor = self.actor_target  # the value returned: V(s) = Q_1'(s, pi'(s))
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critics.body)
        self.networks = self.actor, *self.critics.both, *self.targets.both
        self.optimisers = self.actor_optimiser, self.critic_optimiser
        explore = partial(noisy_actions, self.actor, method.noise, self.generator)
        self.experience = Experience(method, mdp, self.generator, explore)

    def next_value(self, s: Tensor) -> Tensor:
        """V'(s'), which the critics' target bootstraps from."""
        method = self.method
        return smoothed_value(
            self.targets, self.actor_target, s, method.smoothing, method.smoothing_clip, self.generator
        )

    def update(self, rate: float) -> None:
        """One gradient step of the critics and, every second time, of the actor; then the targets follow."""
        batch, at, weights = self.experience.draw(rate)
        y = (expected_target if self.method.expected else sampled_target)(self.mdp, self.next_value, batch)
        delta = td_error(self.critics, batch.s, batch.u, y)
        self.critic_optimiser.descend(critic_loss(delta, weights), self.critic_lr * rate)
        self.updates += 1
        if self.updates % self.method.delay == 0:
            loss = actor_loss(self.critics.first, self.actor, batch.s)
            self.actor_optimiser.descend(loss, self.actor_lr * rate)
            tau = annealed(self.tau, rate)
            follow(self.targets.body, self.critics.body, tau)
            follow(self.actor_target.body, self.actor.body, tau)
        self.experience.replay.correct(at, delta)
        self.broken.watch(batch.s, batch.u, y)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """The target's actor, and its first critic at the actor's choice."""
        return self.actor_target, self.targets.first
