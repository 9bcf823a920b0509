"""Two critics, and the smaller of their targets: what td3 and sac have in common.

An actor climbs to where a critic errs upwards, and the critic's own target then takes that error up. Two critics with
first weights of their own err differently, and the smaller value of the two is seldom too high (Fujimoto, van Hoof and
Meger 2018, clipped double Q-learning).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from econrl.approximation.networks import ActionValueNetwork, Actor, Ensemble
from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.optimiser import Adam
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import ActorLearner, WithActor, action_value_loss


class Twins:
    """Two critics of one form, evaluated as one."""

    def __init__(self, first: ActionValueNetwork, second: ActionValueNetwork):
        self.both, self.first, self.units = (first, second), first, first.units
        self.body = Ensemble([first.body, second.body])

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """Q_1(s, u) and Q_2(s, u) in units, (2, ...)."""
        return self.body(torch.cat([self.first.features(s), u], dim=-1)).squeeze(-1)

    def smaller(self, s: Tensor, u: Tensor) -> Tensor:
        """min_i Q_i(s, u) in units, (...)."""
        return self.raw(s, u).amin(dim=0)

    def on(self, mdp: MDP) -> Twins:
        """A copy without gradients."""
        return Twins(*(Q.on(mdp) for Q in self.both))


@dataclass(frozen=True)
class TwinMethod(WithActor):
    """Settings of the methods with two critics."""

    light = True

    expected: bool = False
    """Whether targets are expectations over the shocks, r + sum_j w_j beta V'(s'_j), as on rung 1 of `ddpg`; else the
    one next state in the replay, as published."""

    @property
    def samples(self) -> bool:
        return not self.expected


class TwinLearner(ActorLearner):
    """An actor, two critics and their targets, of which the first carries the actor that is measured."""

    actor: Actor | StochasticPolicy

    def __init__(self, method: TwinMethod, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        units = asdict(self.start.units)
        self.critics = Twins(self.critic(units), self.critic(units))
        self.targets = self.critics.on(mdp)
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critics.body)

    def critic(self, units: dict) -> ActionValueNetwork:
        """A critic with weights of its own."""
        method, mdp = self.method, self.mdp
        return ActionValueNetwork(mdp, method.hidden, units, method.hidden).to(mdp.device, mdp.dtype)

    def learn_critics(self, value: Function, rate: float) -> Tensor:
        """One step of both critics towards y = r + beta V'(s'), where `value` is V'. Returns the batch's states."""
        batch, delta, weights = self.judge(self.critics, value, rate)
        self.critic_optimiser.descend(action_value_loss(delta, weights), self.critic_lr * rate)
        self.updates += 1
        return batch.s

    def networks(self) -> tuple[nn.Module, ...]:
        return self.actor, *self.critics.both, *self.targets.both

    def optimisers(self) -> tuple[Adam, ...]:
        return self.actor_optimiser, self.critic_optimiser

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """The target's actor, and its first critic at the actor's choice."""
        return self.targets.first.actor, self.targets.first
