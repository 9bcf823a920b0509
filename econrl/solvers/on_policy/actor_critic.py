"""The one-step actor-critic: the critic's temporal difference is the advantage."""

from __future__ import annotations

from dataclasses import dataclass

from econrl.solvers.on_policy.learner import OnPolicy


@dataclass(frozen=True)
class ActorCritic(OnPolicy):
    """One-step actor-critic, on many environments at once.

        delta = r + beta V(s') - V(s)
        policy: up delta grad log pi(u | s)        critic: down (V(s) - r - beta V(s'))^2

    after every period. This is `a2c` with one period, lam = 0 and advantages as they are.

    Source: Sutton and Barto (2018), "Reinforcement learning", 2nd edition, section 13.5; Sutton, McAllester, Singh and
    Mansour (2000), "Policy gradient methods for reinforcement learning with function approximation", NeurIPS 12.
    """

    name = "actor_critic"
    light = True

    environments: int = 1024
    """Paths simulated in parallel."""
    periods: int = 1
    """Periods that each path makes between two updates."""
    lam: float = 0.0
    """lambda of generalised advantage estimation: 0 is the temporal difference."""
    entropy: float | None = 0.0
    """Weight of the entropy bonus, annealed to zero."""
    normalise: bool = False
    """Whether advantages are given mean zero and spread one in each batch."""
    policy_lr: float = 0.0003
    """Adam's learning rate for the policy, annealed to zero; small, since the critic of the next state is all there is
    to learn from, and must have followed."""
    critic_steps: int = 1
    """Gradient steps of the critic in an update, each on an equal part of the rollout."""
