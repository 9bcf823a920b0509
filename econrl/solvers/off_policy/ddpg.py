"""Deep deterministic policy gradient, from top to bottom: target, losses, how targets follow, and one step.

How much of the model it uses is a setting, the rung of a ladder:

    rung          critic's target                                    actor's gradient
    0 sampled     r + beta Q'(s', pi'(s')), one s' from replay       through Q(s, a)
    1 expected    r + sum_j w_j beta Q'(s'_j, pi'(s'_j))             through Q(s, a)
    2 model       r + sum_j w_j beta V'(s'_j)                        through r(s, a) + sum_j w_j beta V'(f(s, a, e_j))
    3 rollout     r + ... + beta^H V'(s_H), H known steps            through the whole rollout

Rungs 0 and 1 are in this file; rungs 2, the default, and 3 are in `ddpg_model.py`, where the critic values states under
the actor's own choice, and also learns slopes. Rung 0 is the published algorithm but for what suits economic models:
noise in log-odds, rates that are annealed, a loss in the critic's units, many paths at once. Primes on functions are
target networks. The critic sees an action as its unbounded u (`feasible_set.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.approximation.networks import ActionValueNetwork, Actor
from econrl.errors import MethodError
from econrl.optimality.find_structure import odds_move
from econrl.problem.bellman import continuation, lookahead
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import LARGEST_U, actor_near, noisy_actions
from econrl.solvers.off_policy.ddpg_model import ModelLearner
from econrl.solvers.off_policy.learner import (
    Critic,
    Experience,
    OffPolicy,
    OffPolicyLearner,
    annealed,
    require_one_step,
)
from econrl.solvers.off_policy.replay import Transitions

# The target: a number, through which no gradient flows


def target(mdp: MDP, Q_target: ActionValueNetwork, actor_target: Actor, batch: Transitions, expected: bool) -> Tensor:
    """The critic's target y (B,): what an action earned, and what the *target* critic says of the next one, which the
    *target* actor takes.

        y = r + beta Q'(s', pi'(s'))                      rung 0, at the s' that the environment showed
        y = r + sum_j w_j beta Q'(s'_j, pi'(s'_j))        rung 1, `expected`: over all s'_j = f(s, a, e_j)
    """

    def next_value(s_next: Tensor) -> Tensor:
        return Q_target.of(s_next, actor_target.raw(s_next))  # Q'(s', pi'(s'))

    return expected_target(mdp, next_value, batch) if expected else sampled_target(mdp, next_value, batch)


@torch.no_grad()
def sampled_target(mdp: MDP, next_value: Function, batch: Transitions) -> Tensor:
    """y = r + beta V'(s') at the one next state in the replay, or the one n steps ahead; V' is `next_value`, and the
    terminal value where a life is over."""
    return torch.addcmul(batch.r, batch.beta, continuation(mdp, next_value, batch.s_next))  # r + beta V'(s')


@torch.no_grad()
def expected_target(mdp: MDP, next_value: Function, batch: Transitions) -> Tensor:
    """y = r + sum_j w_j beta V'(s'_j) for the states and actions of the replay, whose next states are not looked at."""
    return lookahead(mdp, next_value, batch.s, mdp.act(batch.s, batch.u))


# The losses. An optimiser differentiates by the parameters of its own network alone (`Adam.descend`): the actor's loss
# runs through Q, but moves only pi.


def td_error(Q: Critic, s: Tensor, u: Tensor, y: Tensor) -> Tensor:
    """delta = Q(s, u) - y in the critic's units, (B,), or (n, B) of n critics; the action comes from the replay and
    carries no gradient."""
    assert y.shape == s.shape[:-1], "a column of targets would broadcast against a row of values"
    return Q.units.error(Q.raw(s, u.detach()), y)


def critic_loss(delta: Tensor, weights: Tensor) -> Tensor:
    """E[w delta^2], with the weights (B,) of the draws from the replay; summed over critics, delta (..., B)."""
    return (weights * delta.square()).mean(dim=-1).sum()


def actor_loss(Q: ActionValueNetwork, actor: Actor, s: Tensor) -> Tensor:
    """-E[Q(s, pi(s))] in the critic's units, which count rich and poor states alike, and a penalty on u beyond
    LARGEST_U, where shares are on their bounds and Q was never tried."""
    u = actor.raw(s)
    beyond = F.softshrink(u, LARGEST_U)
    return beyond.square().sum(dim=-1).mean() - Q.raw(s, u).mean()


# How targets follow


def follow_targets(
    Q_target: ActionValueNetwork, Q: ActionValueNetwork, actor_target: Actor, actor: Actor, tau: float
) -> None:
    """theta' <- (1 - tau) theta' + tau theta, for critic and actor (Polyak averaging)."""
    follow(Q_target.body, Q.body, tau)
    follow(actor_target.body, actor.body, tau)


# One step


class DDPGLearner(OffPolicyLearner):
    """The state of a run on rungs 0 and 1: an actor pi, a critic Q, and a target network of each."""

    def __init__(self, method: DDPG, mdp: MDP, task: Task) -> None:
        super().__init__(mdp, task, method.batch)
        self.method = method
        self.actor_lr, self.critic_lr, self.tau = method.rates
        self.actor = actor_near(mdp, method.hidden, self.start.u)
        self.critic = ActionValueNetwork(mdp, method.hidden, asdict(self.start.units), method.hidden)
        self.critic = self.critic.to(mdp.device, mdp.dtype)
        self.actor_target, self.critic_target = self.actor.on(mdp), self.critic.on(mdp)
        # As functions of the state alone, which is what a solution's value is: V(s) = Q(s, pi(s)).
        self.critic.actor, self.critic_target.actor = self.actor, self.actor_target
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critic.body)
        self.networks = self.actor, self.critic, self.actor_target, self.critic_target
        self.optimisers = self.actor_optimiser, self.critic_optimiser
        explore = partial(noisy_actions, self.actor, method.noise, self.generator)
        self.experience = Experience(method, mdp, self.generator, explore)

    def update(self, rate: float) -> None:
        """One gradient step of the critic, one of the actor, and then their targets follow."""
        batch, at, weights = self.experience.draw(rate)
        y = target(self.mdp, self.critic_target, self.actor_target, batch, expected=self.method.rung == 1)
        delta = td_error(self.critic, batch.s, batch.u, y)
        self.critic_optimiser.descend(critic_loss(delta, weights), self.critic_lr * rate)
        self.actor_optimiser.descend(actor_loss(self.critic, self.actor, batch.s), self.actor_lr * rate)
        self.updates += 1
        if self.updates % self.method.target_every == 0:
            tau = annealed(self.tau, rate)
            follow_targets(self.critic_target, self.critic, self.actor_target, self.actor, tau)
        self.experience.replay.correct(at, delta)
        self.broken.watch(batch.s, batch.u, y)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """pi', and Q'(s, pi'(s))."""
        return self.actor_target, self.critic_target


# Settings


@dataclass(frozen=True)
class DDPG(OffPolicy):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), with the economist's knowledge of r and f.

    Rung 0 is the published algorithm; rung 1 replaces samples by expectations, rung 2 the critic's opinion of an action
    by the model's, rung 3 looks further ahead. See the table at the top of this file.

    Source: Lillicrap, Hunt, Pritzel, Heess, Erez, Tassa, Silver and Wierstra (2016), "Continuous control with deep
    reinforcement learning", ICLR.
    """

    name = "ddpg"
    recursive = True

    tau: float | None = None  # type: ignore[assignment]
    """Weight of the online network in an update of its target, annealed to zero: the value first has to travel far,
    then needs averaging. 1 is a hard copy, and is not annealed. None: 0.5 on rungs 2 and 3, 0.1 below."""
    actor_lr: float | None = None
    """Adam's learning rate for the actor, annealed to zero; None: 0.02 on rungs 2 and 3, 0.001 below."""
    critic_lr: float | None = None
    """Adam's learning rate for the critic, annealed to zero; None: 0.02 on rungs 2 and 3, 0.01 below."""
    noise: float = 0.5
    """Standard deviation of exploration in the log-odds of an action's share: it respects bounds of any width."""
    rung: int = 2
    """How much of the model is used: 0 sampled, 1 expected, 2 model, 3 rollout."""
    rollout: int = 5
    """Known steps H before the value takes over (rung 3)."""
    target_every: int = 1
    """Gradient steps between two updates of the targets."""
    slopes: float = 1.0
    """Weight of the value's derivative in the critic's loss (rungs 2 and 3)."""
    start_states: int = 1024
    """States at which the value is fitted to the simulated lifetime reward of the start, before the run (rungs 2 and
    3)."""
    start_steps: int = 300
    """Gradient steps of that fit."""

    def __post_init__(self) -> None:
        if self.rung not in (0, 1, 2, 3):
            raise MethodError(
                f"{self.name} has rungs 0 (sampled), 1 (expected), 2 (model) and 3 (rollout); got rung={self.rung!r}"
            )
        super().__post_init__()
        actor_lr, critic_lr, tau = self.rates
        require(self, "actor_lr", actor_lr > 0, "positive")
        require(self, "critic_lr", critic_lr > 0, "positive")
        require(self, "tau", 0 < tau <= 1, "in (0, 1]")
        require(self, "noise", self.noise >= 0, "at least 0")
        require(self, "rollout", self.rollout is None or self.rollout >= 1, "at least 1")
        for name in ("target_every", "start_states"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("slopes", "start_steps"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        if self.rung >= 1:
            require_one_step(self)
        if self.rung >= 2:
            require(self, "prioritised", self.prioritised == 0, "0 on rungs 2 and 3, which judge no action of the past")

    @property
    def rates(self) -> tuple[float, float, float]:
        """actor_lr, critic_lr and tau. Below rung 2 the actor must be slow: it learns from a critic's slope in u, which
        is noisy where u was hardly tried."""
        defaults = (0.02, 0.02, 0.5) if self.rung >= 2 else (0.001, 0.01, 0.1)
        given = self.actor_lr, self.critic_lr, self.tau
        actor_lr, critic_lr, tau = (usual if x is None else x for x, usual in zip(given, defaults, strict=True))
        return actor_lr, critic_lr, tau

    def refuse(self, mdp: MDP) -> str | None:
        """A drawn shock hides how its probability moves with the state, and what its risk is worth."""
        if self.rung == 0 and not mdp.preferences.additive:
            return (
                "on rung 0 phi^-1(phi(V')) of one sampled V' is no certainty equivalent, and the model has "
                f"{mdp.preferences.text()}; rungs 1 to 3 have it"
            )
        if self.rung >= 2 and self.steps_ahead(mdp) > 1 and odds_move(mdp):
            return "a rollout has no derivative where the probabilities of shocks depend on an endogenous state"
        return None

    def steps_ahead(self, mdp: MDP) -> int:
        """H, the known steps before the value takes over (rungs 2 and 3)."""
        return self.rollout if self.rung == 3 else 1

    def value_beyond(self, V: Function) -> Function:
        """What the states are worth in which a rollout ends (rungs 2 and 3)."""
        return V

    def learner(self, mdp: MDP, task: Task) -> DDPGLearner | ModelLearner:
        return ModelLearner(self, mdp, task) if self.rung >= 2 else DDPGLearner(self, mdp, task)
