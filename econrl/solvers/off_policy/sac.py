"""Soft actor-critic: a stochastic policy, kept random by a price on its entropy.

    target        y = r + beta V'(s'),   V'(s') = min_i Q_i'(s', u') - alpha (log pi(u' | s') + H),   u' ~ pi(. | s')
    critics       sum_i E[(Q_i(s, u) - y)^2]
    actor         E[alpha log pi(u | s) - min_i Q_i(s, u)],   u ~ pi(. | s), reparametrised
    temperature   -E[alpha (log pi(u | s) + H)]

Primes are target networks. alpha is the multiplier of the constraint that pi has the entropy H on average, and the
targets hold the constraint's whole term, with the H that the published ones leave out: as it is zero on average, Q is
the value of the policy itself, and not of its entropy too. alpha is in the critic's units, so that it means the same
where values are large and where they are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from econrl.approximation.networks import ActionValueNetwork
from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.ddpg import critic_loss, expected_target, sampled_target, td_error
from econrl.solvers.off_policy.learner import Experience, OffPolicy, OffPolicyLearner, annealed, require_one_step
from econrl.solvers.off_policy.twin_critics import Twins, twins


class SoftActionValueNetwork(ActionValueNetwork):
    """Q(s, u) of a stochastic actor; V(s) = Q(s, u) at the actor's mode."""

    def __init__(self, mdp: MDP, hidden: Any, units: dict[str, Any], actor_hidden: Any) -> None:
        super().__init__(mdp, hidden, units, actor_hidden)
        self.actor = StochasticPolicy(mdp, actor_hidden, state_dependent=True)  # type: ignore[assignment]

    def forward(self, s: Tensor) -> Tensor:
        return self.of(s, self.actor.distribution(s).mode)  # type: ignore[operator]


def drawn(policy: StochasticPolicy, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """u ~ pi(. | s), and log pi(u | s)."""
    pi = policy.distribution(s)
    u = pi.sample(generator)
    return u, pi.log_prob(u)


def soft_value(
    targets: Twins, policy: StochasticPolicy, s: Tensor, alpha: Tensor, H: Tensor, generator: torch.Generator
) -> Tensor:
    """min_i Q_i'(s, u) - alpha (log pi(u | s) + H)."""
    u, log_pi = drawn(policy, s, generator)
    return targets.units.value(targets.smaller(s, u) - alpha * (log_pi + H))


def soft_actor_loss(q: Tensor, log_pi: Tensor, alpha: Tensor) -> Tensor:
    """E[alpha log pi(u | s) - Q(s, u)], with q (B,) in the critic's units."""
    return (alpha.detach() * log_pi - q).mean()


def temperature_loss(alpha: Tensor, log_pi: Tensor, H: Tensor) -> Tensor:
    """-E[alpha (log pi(u | s) + H)]: alpha rises while the policy's entropy is below H."""
    return -(alpha * (log_pi.detach() + H)).mean()


@dataclass(frozen=True)
class SAC(OffPolicy):
    """Soft actor-critic with a tuned temperature. The policy returned is its mode, without noise.

    Source: Haarnoja, Zhou, Abbeel and Levine (2018), "Soft actor-critic"; Haarnoja et al. (2018), "Soft actor-critic
    algorithms and applications", section 5, for the temperature.
    """

    name = "sac"
    light = True

    actor_lr: float = 0.001
    """Adam's learning rate for the actor, annealed to zero."""
    critic_lr: float = 0.01
    """Adam's learning rate for the critics, annealed to zero."""
    noise: float = 0.2
    """Standard deviation in the log-odds of an action's share that the policy keeps: the entropy H aimed at is that of
    such a Gaussian around the best constant shares."""
    expected: bool = False
    """Whether targets are expectations over the shocks, r + sum_j w_j beta V'(s'_j), as on rung 1 of `ddpg`; else the
    one next state in the replay, as published."""
    warm_up: int = 200
    """Steps that the critics learn before the policy does: it would climb what they do not know yet, to where the
    entropy has a price that they never learn (without, five of twelve seeds diverged on growth)."""
    temperature: float = 0.01
    """alpha to begin with, in units of the critic."""
    temperature_lr: float = 0.003
    """Adam's learning rate for log alpha, annealed to zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("actor_lr", "critic_lr", "noise", "temperature", "temperature_lr"):
            require(self, name, getattr(self, name) > 0, "positive")
        require(self, "tau", 0 < self.tau <= 1, "in (0, 1]")
        require(self, "warm_up", self.warm_up >= 0, "at least 0")
        if self.expected:
            require_one_step(self)

    def learner(self, mdp: MDP, task: Task) -> SACLearner:
        return SACLearner(self, mdp, task)


class Temperature(nn.Module):
    """alpha = e^x, which stays positive."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(math.log(alpha)))

    def forward(self) -> Tensor:
        return self.x.exp()


class SACLearner(OffPolicyLearner):
    """The state of a run: a stochastic actor, two critics and their targets, and the temperature."""

    def __init__(self, method: SAC, mdp: MDP, task: Task) -> None:
        super().__init__(mdp, task, method.batch)
        self.method = method
        self.actor_lr, self.critic_lr, self.tau = method.actor_lr, method.critic_lr, method.tau
        self.actor = StochasticPolicy(mdp, method.hidden, state_dependent=True).to(mdp.device, mdp.dtype)
        self.actor.start_at(self.start.u, method.noise)
        self.critics = twins(mdp, SoftActionValueNetwork, method.hidden, self.start.units)
        self.targets = self.critics.on(mdp)
        self.targets.first.actor = self.actor  # type: ignore[assignment]  # the value returned, at the actor's mode
        self.temperature = Temperature(method.temperature).to(mdp.device, mdp.dtype)
        gaussian = mdp.A * (math.log(method.noise) + (1 + math.log(2 * math.pi)) / 2)
        self.H = gaussian + mdp.log_squash_volume(self.start.u)
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critics.body)
        self.temperature_optimiser = Adam(self.temperature)
        self.networks = self.actor, *self.critics.both, *self.targets.both, self.temperature
        self.optimisers = self.actor_optimiser, self.critic_optimiser, self.temperature_optimiser
        self.experience = Experience(method, mdp, self.generator, self.explore)

    def explore(self, s: Tensor) -> Tensor:
        """u (B, A) of the policy's own draws."""
        return self.actor.distribution(s).sample(self.generator)

    def next_value(self, s: Tensor) -> Tensor:
        """V'(s'), which the critics' target bootstraps from."""
        return soft_value(self.targets, self.actor, s, self.temperature(), self.H, self.generator)

    def update(self, rate: float) -> None:
        """One gradient step of the critics, of the policy and of the temperature; then the targets follow."""
        batch, at, weights = self.experience.draw(rate)
        y = (expected_target if self.method.expected else sampled_target)(self.mdp, self.next_value, batch)
        delta = td_error(self.critics, batch.s, batch.u, y)
        self.critic_optimiser.descend(critic_loss(delta, weights), self.critic_lr * rate)
        self.updates += 1
        if self.updates > self.method.warm_up:
            self.learn_policy(batch.s, rate)
        follow(self.targets.body, self.critics.body, annealed(self.tau, rate))
        self.experience.replay.correct(at, delta)
        self.broken.watch(batch.s, batch.u, y)

    def learn_policy(self, s: Tensor, rate: float) -> None:
        """One step of the policy, and of the temperature."""
        u, log_pi = drawn(self.actor, s, self.generator)
        alpha = self.temperature()
        loss = soft_actor_loss(self.critics.smaller(s, u), log_pi, alpha)
        self.actor_optimiser.descend(loss, self.actor_lr * rate)
        loss = temperature_loss(alpha, log_pi, self.H)
        self.temperature_optimiser.descend(loss, self.method.temperature_lr * rate)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """The policy, which is measured at its mode, and the first target critic there."""
        return self.actor, self.targets.first
