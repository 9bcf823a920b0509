"""What the policy-gradient methods share: rollouts, a critic for the advantages, and the loop around their update.

One step of each of them:

    1. every environment makes `periods` periods with actions drawn from pi                     (rollouts.py)
    2. the critic V turns them into returns G and advantages A                                  (`advantages`)
    3. the policy climbs the policy gradient E[ A grad log pi(u | s) ], each method in its way  (`improve`)
    4. the critic takes `critic_steps` gradient steps on E[(V(s) - G)^2]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.networks import ValueNetwork
from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.problem.bellman import continuation
from econrl.problem.diagnose import Broken
from econrl.problem.environments import Environments
from econrl.problem.mdp import MDP
from econrl.problem.simulate import MARGIN, lifetime_reward
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam
from econrl.solvers.common.task import Task
from econrl.solvers.common.training import Trained
from econrl.solvers.on_policy.rollouts import Rollout, gae, normalised, on_states, roll, temporal_differences


@dataclass
class Batch:
    """What a policy learns from, over all periods and paths of a rollout."""

    s: Tensor  # (B, S)
    u: Tensor  # (B, A)
    advantage: Tensor  # (B,)
    log_prob: Tensor  # (B,), under the policy that drew the actions

    def parts(self, n: int, generator: torch.Generator) -> Iterator[Batch]:
        """The batch in random order, in n parts."""
        order = torch.randperm(len(self.s), generator=generator, device=self.s.device)
        for at in order.chunk(n):
            yield Batch(*(column[at] for column in vars(self).values()))


def policy_gradient_loss(policy: StochasticPolicy, batch: Batch, entropy: float) -> Tensor:
    """-E[ A log pi(u | s) ] - entropy E[H(pi(. | s))]; its gradient is the policy gradient."""
    pi = policy.distribution(batch.s)
    log_prob = pi.log_prob(batch.u)
    assert log_prob.shape == batch.advantage.shape, "a column of advantages would broadcast against a row of densities"
    return -(batch.advantage * log_prob).mean() - entropy * pi.entropy().mean()


def critic_loss(V: ValueNetwork, s: Tensor, G: Tensor) -> Tensor:
    """E[(V(s) - G)^2], in the critic's units."""
    v = V(s)
    assert v.shape == G.shape, "a column of returns would broadcast against a row of values"
    return ((v - G) / V.units.size(v)).square().mean()


@dataclass(frozen=True)
class OnPolicy(Trained):
    """The settings that all policy-gradient methods have."""

    dtype = torch.float32
    choices = True

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of policy and critic."""
    environments: int = 256
    """Paths simulated in parallel."""
    periods: int = 16
    """Periods that each path makes between two updates."""
    episode: int = 30
    """Periods after which a path begins anew at a random state; no end of the world, so returns bootstrap."""
    lam: float = 0.9
    """lambda of generalised advantage estimation: 0 trusts the critic, 1 the sampled returns."""
    normalise: bool = True
    """Whether advantages are given mean zero and spread one in each batch."""
    entropy: float | None = None
    """Weight of the entropy bonus, annealed to zero; None: 0.3 where there are choices, whose odds would run to zero or
    one before their consequences are known, else 0."""
    std: float = 0.3
    """Standard deviation of u, the log-odds of an action's share, at the start; it is learned."""
    policy_lr: float = 0.001
    """Adam's learning rate for the policy, annealed to zero."""
    critic_lr: float = 0.005
    """Adam's learning rate for the critic, annealed to zero."""
    critic_steps: int = 16
    """Gradient steps of the critic in an update, each on an equal part of the rollout."""
    nodes: int = 3
    """Quadrature nodes a shock, with which the held-out error is measured."""
    start_states: int = 1024
    """States at which the critic is fitted to the simulated lifetime reward of the policy's start, before the run."""
    start_steps: int = 300
    """Gradient steps of that fit."""
    start_batch: int = 256
    """States in each of them."""
    warm_up: int = 480
    """Periods in which the critic then learns what the exploring policy is worth, before the policy moves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("environments", "periods", "episode", "critic_steps", "nodes", "start_states", "start_batch"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("start_steps", "warm_up"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        for name in ("std", "policy_lr", "critic_lr"):
            require(self, name, getattr(self, name) > 0, "positive")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "lam", 0 <= self.lam <= 1, "between 0 and 1")
        require(self, "entropy", self.entropy is None or self.entropy >= 0, "at least 0")

    def learner(self, mdp: MDP, task: Task) -> OnPolicyLearner:
        return OnPolicyLearner(self, mdp, task)

    def collect(self, environments: Environments, policy: StochasticPolicy) -> Rollout:
        """The rollout that an update learns from."""
        return roll(environments, policy, self.periods)

    def advantages(self, rollout: Rollout, v: Tensor, v_next: Tensor) -> Tensor:
        """How much better each action was than the policy's average at its state, (T, n), given V(s) and V(s')."""
        return gae(temporal_differences(rollout, v, v_next), rollout.beta, rollout.cut, self.lam)

    def improve(self, learner: OnPolicyLearner, batch: Batch, rate: float) -> None:
        """Move the policy, at a share `rate` of the learning rate: one step up the policy gradient."""
        loss = policy_gradient_loss(learner.policy, batch, self.bonus(learner.mdp, rate))
        learner.policy_optimiser.descend(loss, self.policy_lr * rate)

    def bonus(self, mdp: MDP, rate: float) -> float:
        """The entropy bonus at a share `rate` of its weight."""
        return rate * ((0.3 if mdp.choices else 0.0) if self.entropy is None else self.entropy)

    def memory(self, mdp: MDP) -> dict[str, Tensor]:
        """Numbers that the method adapts from one update to the next."""
        return {}


class OnPolicyLearner:
    """The state of a run: policy, critic, environments, optimisers and random numbers."""

    def __init__(self, method: OnPolicy, mdp: MDP, task: Task) -> None:
        self.method, self.mdp = method, mdp
        self.generator = task.generator(mdp.device)
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights, drawn on the CPU
        self.start = best_constant_shares(mdp, self.generator)
        self.policy = StochasticPolicy(mdp, method.hidden).to(mdp.device, mdp.dtype)
        self.policy.start_at(self.start.u, method.std)
        self.policy_optimiser = Adam(self.policy)
        self.critic = ValueNetwork(mdp, method.hidden, asdict(self.start.units)).to(mdp.device, mdp.dtype)
        self.critic_optimiser = Adam(self.critic)
        self.environments = Environments(mdp, method.environments, method.episode, self.generator)
        self.environments.stagger()
        self.memory = method.memory(mdp)
        self.broken = Broken(mdp, method.environments * method.periods)
        self.fit_start()
        self.outside_value = self.critic.on(mdp)
        for _ in range(method.warm_up // method.periods):
            self.advance()
            batch, G = self.advantages_and_returns(self.rollout)
            self.learn_value(batch, G, rate=1.0)

    def fit_start(self) -> None:
        """Fit V to the simulated lifetime reward of the policy's start, constant shares and their noise, also at states
        that paths reach when they leave the domain."""
        method = self.method
        s = widened(self.mdp, self.mdp.sample_box(method.start_states, self.generator))
        with torch.no_grad():
            G = lifetime_reward(self.mdp, self.start.u.unsqueeze(0), s, self.generator, method.std).squeeze(0)
        s, G = s[G.isfinite()], G[G.isfinite()]
        for step in range(method.start_steps if len(s) > 0 else 0):
            at = torch.randint(len(s), (method.start_batch,), generator=self.generator, device=s.device)
            loss = critic_loss(self.critic, s[at], G[at])
            self.critic_optimiser.descend(loss, method.critic_lr * (1 - step / method.start_steps))

    def advance(self) -> None:
        """Every environment makes its periods with actions drawn from the policy."""
        self.rollout = self.method.collect(self.environments, self.policy)

    def update(self, rate: float) -> None:
        """Policy and critic learn from the rollout, at a share `rate` of their learning rates."""
        batch, G = self.advantages_and_returns(self.rollout)
        self.broken.watch(batch.s, batch.u, G)
        self.method.improve(self, batch, rate)
        self.learn_value(batch, G, rate)

    def learn_value(self, batch: Batch, G: Tensor, rate: float) -> None:
        """The critic's gradient steps on the returns G (B,), each on a part of the rollout."""
        order = torch.randperm(len(G), generator=self.generator, device=G.device)
        for at in order.chunk(self.method.critic_steps):
            loss = critic_loss(self.critic, batch.s[at], G[at])
            self.critic_optimiser.descend(loss, self.method.critic_lr * rate)

    @torch.no_grad()
    def advantages_and_returns(self, rollout: Rollout) -> tuple[Batch, Tensor]:
        """The batch for the policy, and the returns (B,) that the critic learns.

        Advantages come in the critic's units at each state: rich and poor states count alike.
        """
        v = on_states(self.critic, rollout.s)
        v_next = on_states(self.value_reached, rollout.s_next)
        advantage = self.method.advantages(rollout, v, v_next) / self.critic.units.size(v)
        if self.method.normalise:
            advantage = normalised(advantage)
        G = gae(temporal_differences(rollout, v, v_next), rollout.beta, rollout.cut, self.method.lam) + v
        s, u = rollout.s.flatten(0, 1), rollout.u.flatten(0, 1)
        log_prob = self.policy.distribution(s).log_prob(u)
        return Batch(s, u, advantage.flatten(), log_prob), G.flatten()

    def answer(self) -> tuple[StochasticPolicy, ValueNetwork]:
        """The policy, which is measured at its mode, and its value."""
        return self.policy, self.critic

    def value_reached(self, s: Tensor) -> Tensor:
        """V(s) (n,), or where a path has left the domain far what the policy's start would bring there.

        The critic sees no path go on from such states, and what it made up for them would come back to it as their
        value: a policy could pay for today's consumption with capital that it then takes to be worth nothing. The noise
        belongs to the start: without its cost, a path would be better off outside than inside.
        """
        inside, outside = (continuation(self.mdp, V, s) for V in (self.critic, self.outside_value))
        return torch.where(self.mdp.inside(s, MARGIN), inside, outside)

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""
        return {
            "networks": [network.state_dict() for network in (self.policy, self.critic, self.outside_value)],
            "optimisers": [optimiser.state() for optimiser in (self.policy_optimiser, self.critic_optimiser)],
            "environments": self.environments.state(),
            "memory": self.memory,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for network, kept in zip((self.policy, self.critic, self.outside_value), state["networks"], strict=True):
            network.load_state_dict(kept)
        for optimiser, kept in zip((self.policy_optimiser, self.critic_optimiser), state["optimisers"], strict=True):
            optimiser.restore(kept)
        self.environments.restore(state["environments"])
        self.memory = {name: tensor.to(self.mdp.device) for name, tensor in state["memory"].items()}
        self.generator.set_state(state["generator"])


def widened(mdp: MDP, s: Tensor) -> Tensor:
    """States s (n, S) of the domain, spread over what is twice as far around its middle, as `MDP.inside` measures it:
    so far paths go before they begin anew."""
    c, logs = mdp.continuous, mdp.logarithmic
    wide = s.clone()
    wide[:, c] += 2 * MARGIN * (s - (mdp.low + mdp.high) / 2)[:, c]
    wide[:, logs] = s[:, logs] * (s / (mdp.low * mdp.high).sqrt())[:, logs] ** (2 * MARGIN)
    return wide
