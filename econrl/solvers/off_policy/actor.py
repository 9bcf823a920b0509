"""What the off-policy methods with an actor share.

ddpg    one critic, deterministic actor; and what knowing the model adds to it
td3     the smaller of two critics, smoothed target actions, delayed actor
sac     the smaller of two critics, stochastic actor, entropy at a tuned temperature
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.approximation.networks import ActionValueNetwork, Actor
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.off_policy.learner import Learner, OffPolicy

LARGEST_U = 10.0  # a share of 1 - 5e-5: beyond, little is gained, and the network would have to be steeper


def action_value_loss(delta: Tensor, weights: Tensor) -> Tensor:
    """E[w delta^2], with the weights (B,) of the draws from the replay; summed over critics, delta (..., B)."""
    return (weights * delta.square()).mean(dim=-1).sum()


def actor_loss(Q: ActionValueNetwork, actor: Actor, s: Tensor) -> Tensor:
    """-E[Q(s, pi(s))] in the critic's units, which count rich and poor states alike, and a penalty on u beyond
    LARGEST_U, where shares are on their bounds and Q was never tried."""
    u = actor.raw(s)
    beyond = F.softshrink(u, LARGEST_U)
    return beyond.square().sum(dim=-1).mean() - Q.raw(s, u).mean()


@dataclass(frozen=True)
class WithActor(OffPolicy):
    """The settings of these methods."""

    actor_lr: float = 0.001
    """Adam's learning rate for the actor, annealed to zero."""
    critic_lr: float = 0.01
    """Adam's learning rate for the critic, annealed to zero."""
    noise: float = 0.5
    """Standard deviation of exploration in the log-odds of an action's share: it respects bounds of any width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        actor_lr, critic_lr, tau = self.rates
        require(self, "actor_lr", actor_lr > 0, "positive")
        require(self, "critic_lr", critic_lr > 0, "positive")
        require(self, "tau", 0 < tau <= 1, "in (0, 1]")
        require(self, "noise", self.noise >= 0, "at least 0")

    @property
    def rates(self) -> tuple[float, float, float]:
        """actor_lr, critic_lr and tau."""
        return self.actor_lr, self.critic_lr, self.tau


class ActorLearner(Learner):
    """The state of a run with an actor, to which a subclass adds critics and targets."""

    actor: Any

    def prepare(self) -> None:
        self.actor = self.first_actor()
        self.actor_lr, self.critic_lr, self.tau = self.method.rates

    def first_actor(self) -> StateFunction:
        """A deterministic actor, close to the constant shares of the start."""
        actor = Actor(self.mdp, self.method.hidden).to(self.mdp.device, self.mdp.dtype)
        actor.body.start_at(self.start.u)
        return actor

    def explore(self, s: Tensor) -> Tensor:
        """u (B, A) of the actor's actions, with noise."""
        u = self.actor.raw(s)
        noise = torch.randn(u.shape, generator=self.generator, dtype=u.dtype, device=u.device)
        return u + self.method.noise * noise
