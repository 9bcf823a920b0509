"""Deep Q-networks: Q-learning with a network, a replay buffer and a target network.

    y = r + beta max_d' Q'(s', d'),        loss = E[ Huber(Q(s, d) - y) ]

Prime on Q is the target network. With taste shocks of scale sigma on a choice, sigma log sum_d' exp(Q'(s', d') / sigma)
takes the place of the maximum (`alternatives.py`), and the policy is a logit. Continuous actions are put on a grid
(`action_menu.py`), choices are what they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.approximation.action_menu import MenuValue, NetworkMenuValue, greedy, menu_of, refuse_menu
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.ddpg import expected_target, sampled_target, td_error
from econrl.solvers.off_policy.learner import Experience, OffPolicy, OffPolicyLearner, annealed, require_one_step


def highest_value(Q_target: MenuValue, s: Tensor) -> Tensor:
    """max_d Q'(s, d), or its expectation over taste shocks: the value that the target bootstraps from."""
    return Q_target(s)


def huber_loss(delta: Tensor, weights: Tensor) -> Tensor:
    """E[w h(delta)], h(x) = x^2 / 2 up to |x| = 1 and |x| - 1/2 beyond, with the weights (B,) of the draws."""
    return (weights * F.huber_loss(delta, torch.zeros_like(delta), reduction="none")).mean()


@dataclass(frozen=True)
class DQN(OffPolicy):
    """Deep Q-network (Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518).

    What made it work can be turned off: the target network by `tau=1, target_every=1`, the replay by a `capacity` and a
    `batch` of as many transitions as there are `environments`, so that only the newest are learned from.
    """

    name = "dqn"
    choices = True
    tastes = True
    light = True

    actions: int = 21
    """Points of each continuous action (`action_menu.py`)."""
    lr: float = 0.003
    """Adam's learning rate, annealed to zero."""
    target_every: int = 1
    """Gradient steps between two updates of the target network."""
    expected: bool = False
    """Whether the target is the expectation over next states, by quadrature, instead of the one in the replay."""
    epsilon: float = 0.1
    """Share of random actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("actions", "target_every"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "lr", self.lr > 0, "positive")
        require(self, "tau", 0 < self.tau <= 1, "in (0, 1]")
        require(self, "epsilon", 0 <= self.epsilon <= 1, "in [0, 1]")
        if self.expected:
            require_one_step(self)

    def refuse(self, mdp: MDP) -> str | None:
        return refuse_menu(mdp, self.actions)

    def next_value(self, Q: MenuValue, Q_target: MenuValue) -> Function:
        """V'(s) that the target bootstraps from."""
        return lambda s: highest_value(Q_target, s)

    def learner(self, mdp: MDP, task: Task) -> DQNLearner:
        return DQNLearner(self, mdp, task)


class DQNLearner(OffPolicyLearner):
    """The state of a run: a network, its target, and the greedy policy of each."""

    def __init__(self, method: DQN, mdp: MDP, task: Task) -> None:
        super().__init__(mdp, task, method.batch)
        self.method, self.lr, self.tau = method, method.lr, method.tau
        menu = menu_of(mdp, self.start.u, method.actions)
        Q = NetworkMenuValue(mdp, len(menu), method.hidden, asdict(self.start.units)).to(mdp.device, mdp.dtype)
        Q.menu = menu
        self.Q, self.Q_target, self.optimiser = Q, Q.on(mdp), Adam(Q.body)
        self.networks, self.optimisers = (self.Q, self.Q_target), (self.optimiser,)
        self.experience = Experience(method, mdp, self.generator, self.explore)

    def explore(self, s: Tensor) -> Tensor:
        """u (B, A) of the policy's actions, and with probability epsilon of any on the menu."""
        best, n = self.Q.drawn(s, self.generator), len(self.Q.menu)
        random = torch.randint(n, best.shape, generator=self.generator, device=best.device)
        dice = torch.rand(best.shape, generator=self.generator, device=best.device)
        return self.Q.menu[torch.where(dice < self.method.epsilon, random, best)]

    def update(self, rate: float) -> None:
        """One gradient step of the network; then its target follows."""
        method = self.method
        batch, at, weights = self.experience.draw(rate)
        next_value = method.next_value(self.Q, self.Q_target)
        y = (expected_target if method.expected else sampled_target)(self.mdp, next_value, batch)
        delta = td_error(self.Q, batch.s, batch.u, y)
        self.optimiser.descend(huber_loss(delta, weights), self.lr * rate)
        self.updates += 1
        if self.updates % method.target_every == 0:
            follow(self.Q_target.body, self.Q.body, annealed(self.tau, rate))
        self.experience.replay.correct(at, delta)
        self.broken.watch(batch.s, batch.u, y)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        return greedy(self.Q_target), self.Q_target
