"""Deep deterministic policy gradient, and what knowing the model adds to it.

The rungs of the ladder are settings of this one solver:

    rung          critic's target                                    actor's gradient
    0 sampled     r + beta Q'(s', pi'(s')), one s' from replay       through Q(s, a)
    1 expected    r + sum_j w_j beta Q'(s'_j, pi'(s'_j))             through Q(s, a)
    2 model       r + sum_j w_j beta V'(s'_j)                        through r(s, a) + sum_j w_j beta V'(f(s, a, e_j))
    3 rollout     r + ... + beta^H V'(s_H), H known steps            through the whole rollout

Primes on functions are target networks. The critic sees an action as its unbounded u (see `feasible.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from econrl.approximation.networks import ActionValueNetwork, Actor, ValueNetwork
from econrl.errors import MethodError
from econrl.optimality.euler import unit_of_marginal
from econrl.problem.bellman import continuation, expected_value
from econrl.problem.mdp import MDP
from econrl.problem.simulate import MARGIN, lifetime_reward, living_states
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import LARGEST_U, ActorLearner, WithActor, action_value_loss, actor_loss

START_STATES, START_STEPS = 1024, 300  # of the first fit of the value
SMALLEST_UNIT = 1e-30
STEEPEST = 10.0  # a gain of ten times marginal utility says "more", and nothing else
SMALLEST_SLOPE = 0.1  # in units of the critic over half the domain


# Rungs 2 and 3: the model judges actions


def improve(
    mdp: MDP, V: Function, actor: Actor, s: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The critic's target J(s), and the actor's way up.

        J(s) = E[ sum_{h<H} beta^h r(s_h, pi(s_h)) + beta^H V'(s_H) ],   s_0 = s,   H = steps

    with H = 1 on rung 2. Shocks are drawn, but for the last one, over which the expectation is exact; a path that
    leaves the domain far ends there, and is worth V'. Returns the actor's u at s (B, A), J (B,),
    its derivative J_s (B, S), and the gradient for the actor's parameters: the policy gradient
    -E[sum_h J_u u_theta], with J_u at each step divided by its size, that of J_a (`euler.py`) times |a_u|. So rich and
    poor states count alike, and an actor near a bound, where a_u vanishes, is not stuck.
    """
    s = s.detach().requires_grad_()
    J, factor, now = torch.zeros_like(s[:, 0]), torch.ones_like(s[:, 0]), s
    path = []
    for step in range(steps):
        living, at = living_states(mdp, now)
        if step > 0:
            living = living & mdp.inside(now, MARGIN)
            at = torch.where(living.unsqueeze(-1), at, s)  # a path far outside has ended: its numbers would overflow
        u = actor.raw(at)
        a = mdp.act(at, u)
        r = factor * torch.where(living, mdp.reward(at, a), 0.0)
        path.append((at, u, a, r))
        J = J + r
        if step < steps - 1:
            e = mdp.sample_shocks(at.detach(), generator)
            factor = factor * torch.where(living, mdp.discount(at, a, e), 1.0)
            now = torch.where(living.unsqueeze(-1), mdp.transition(at, a, e), now)
    a_nodes = a.unsqueeze(-2).expand(-1, len(mdp.nodes), -1)
    future = expected_value(mdp, V, at, a_nodes)
    J = J + factor * (future if steps == 1 else torch.where(living, future, continuation(mdp, V, now)))

    us, actions = [u for _, u, _, _ in path], [a for _, _, a, _ in path]
    grad = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)
    J_s, J_nodes, *rest = grad(J.sum(), [s, a_nodes, *us, *actions])
    J_u, J_a = rest[: len(us)], rest[len(us) :]
    ascents = []
    for h, (at, u, a, r) in enumerate(path):
        (r_a,) = grad(r.sum(), [a])
        later = J_nodes if h == steps - 1 else (J_a[h] - r_a).unsqueeze(-2)
        size = unit_of_marginal(r_a, later) * (mdp.widths(at, a) * mdp.squash_slope(u)).abs().detach()
        ascent = (J_u[h] / size.clamp(min=SMALLEST_UNIT)).clamp(-STEEPEST, STEEPEST)
        ascents.append(torch.where((u.abs() > LARGEST_U) & (ascent.sign() == u.sign()), 0.0, ascent))
    # The network's gradient at the states of the path: what it does to later states is in J_u already.
    u = actor.raw(torch.cat([at for at, _, _, _ in path]).detach())
    weights = -torch.cat(ascents) / len(u)
    gradient = torch.autograd.grad(u, list(actor.body.parameters()), grad_outputs=weights)
    return us[0].detach(), J.detach(), J_s, list(gradient)


def value_loss(V: ValueNetwork, s: Tensor, y: Tensor, y_s: Tensor, reach: Tensor, weight: float) -> Tensor:
    """E[(V(s) - y)^2] + weight E|(V_s(s) - y_s) / size(y_s)|^2, in the critic's units; reach (S,) is half the domain.

    The policy hangs on V_s, not on V, and the known model gives its target too. A network fitted to slopes as well
    as levels needs far fewer points (Czarnecki et al. 2017, Sobolev training). Slopes are marginal utilities, whose
    relative error is what a policy feels: hence size(y_s) = |y_s|, with a floor where they vanish.
    """
    s = s.detach().requires_grad_()
    v = V(s)
    assert v.shape == y.shape, "a column of targets would broadcast against a row of values"
    (v_s,) = torch.autograd.grad(v.sum(), s, create_graph=True)
    size = V.units.size(y)
    to_units = reach / size.unsqueeze(-1)
    slopes = (v_s - y_s) * to_units / torch.hypot(y_s * to_units, torch.full_like(y_s, SMALLEST_SLOPE))
    return (((v - y) / size).square() + weight * slopes.square().sum(dim=-1)).mean()


@dataclass(frozen=True)
class DDPG(WithActor):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), with the economist's knowledge of r and f.

    Rung 0 is the published algorithm; rung 1 replaces samples by expectations, rung 2 the critic's opinion of an action
    by the model's, rung 3 looks further ahead. See the table at the top of this file.
    """

    name = "ddpg"

    rung: int = 2
    """How much of the model is used: 0 sampled, 1 expected, 2 model, 3 rollout."""
    rollout: int = 5
    """Known steps H before the value takes over (rung 3)."""
    actor_lr: float | None = None  # type: ignore[assignment]
    """Adam's learning rate for the actor, annealed to zero; None: 0.02 on rungs 2 and 3, 0.001 below."""
    critic_lr: float | None = None  # type: ignore[assignment]
    """Adam's learning rate for the critic, annealed to zero; None: 0.02 on rungs 2 and 3, 0.01 below."""
    tau: float | None = None  # type: ignore[assignment]
    """Weight of the online network in an update of its target, annealed to zero: the value first has to travel far,
    then needs averaging. 1 is a hard copy, and is not annealed. None: 0.5 on rungs 2 and 3, 0.1 below."""
    target_every: int = 1
    """Gradient steps between two updates of the targets."""
    slopes: float = 1.0
    """Weight of the value's derivative in the critic's loss (rungs 2 and 3)."""

    def __post_init__(self) -> None:
        if self.rung not in (0, 1, 2, 3):
            raise MethodError(
                f"{self.name} has rungs 0 (sampled), 1 (expected), 2 (model) and 3 (rollout); got rung={self.rung!r}"
            )
        super().__post_init__()
        require(self, "rollout", self.rollout is None or self.rollout >= 1, "at least 1")
        require(self, "target_every", self.target_every >= 1, "at least 1")
        require(self, "slopes", self.slopes >= 0, "at least 0")
        if self.rung >= 2:
            require(self, "prioritised", self.prioritised == 0, "0 on rungs 2 and 3, which judge no action of the past")

    @property
    def samples(self) -> bool:
        return self.rung == 0

    @property
    def rates(self) -> tuple[float, float, float]:
        """actor_lr, critic_lr and tau. Below rung 2 the actor must be slow: it learns from a critic's slope in u, which
        is noisy where u was hardly tried."""
        defaults = (0.02, 0.02, 0.5) if self.rung >= 2 else (0.001, 0.01, 0.1)
        given = self.actor_lr, self.critic_lr, self.tau
        actor_lr, critic_lr, tau = (usual if x is None else x for x, usual in zip(given, defaults, strict=True))
        return actor_lr, critic_lr, tau

    def steps_ahead(self, mdp: MDP) -> int:
        """H, the known steps before the value takes over."""
        return self.rollout if self.rung == 3 else 1

    def beyond(self, V: Function) -> Function:
        """What the states are worth in which a rollout ends."""
        return V

    def learner(self, mdp: MDP, task: Task) -> ActorLearner:
        return ModelLearner(self, mdp, task) if self.rung >= 2 else CriticLearner(self, mdp, task)


class DDPGLearner(ActorLearner):
    """An actor, a critic, and a target of each."""

    actor: Actor
    critic: ValueNetwork | ActionValueNetwork
    critic_target: ValueNetwork | ActionValueNetwork
    actor_target: Actor

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        self.critic = self.first_critic().to(mdp.device, mdp.dtype)
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critic.body)

    def first_critic(self) -> ValueNetwork | ActionValueNetwork:
        raise NotImplementedError

    def answer(self) -> tuple[StateFunction, StateFunction]:
        return self.actor_target, self.critic_target

    def networks(self) -> tuple[nn.Module, ...]:
        return self.actor, self.critic, self.actor_target, self.critic_target

    def optimisers(self) -> tuple[Adam, ...]:
        return self.actor_optimiser, self.critic_optimiser

    def follow_targets(self, rate: float) -> None:
        self.updates += 1
        if self.updates % self.method.target_every == 0:
            self.follow(self.critic_target.body, self.critic.body, rate)
            self.follow(self.actor_target.body, self.actor.body, rate)


class CriticLearner(DDPGLearner):
    """Rungs 0 and 1: the critic judges actions, and the actor climbs it."""

    critic: ActionValueNetwork
    critic_target: ActionValueNetwork

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        self.critic_target = self.critic.on(mdp)
        self.actor_target = self.critic_target.actor

    def first_critic(self) -> ActionValueNetwork:
        critic = ActionValueNetwork(self.mdp, self.method.hidden, asdict(self.start.units), self.method.hidden)
        critic.actor = self.actor
        return critic

    def update(self, rate: float) -> None:
        batch, delta, weights = self.judge(self.critic, self.critic_target, rate)
        self.critic_optimiser.descend(action_value_loss(delta, weights), self.critic_lr * rate)
        loss = actor_loss(self.critic, self.actor, batch.s)
        self.actor_optimiser.descend(loss, self.actor_lr * rate)
        self.follow_targets(rate)


class ModelLearner(DDPGLearner):
    """Rungs 2 and 3: the model judges actions, and the critic values states."""

    critic: ValueNetwork
    critic_target: ValueNetwork

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        self.reach = torch.zeros_like(mdp.low)
        self.reach[mdp.continuous] = ((mdp.high - mdp.low) / 2)[mdp.continuous]
        self.fit_start()
        self.critic_target, self.actor_target = self.critic.on(mdp), self.actor.on(mdp)

    def first_critic(self) -> ValueNetwork:
        return ValueNetwork(self.mdp, self.method.hidden, asdict(self.start.units))

    def fit_start(self) -> None:
        """Fit V to the simulated lifetime reward of the constant shares, and to its derivative along the path."""
        mdp, method = self.mdp, self.method
        s = mdp.sample_box(START_STATES, self.generator).requires_grad_()
        y = lifetime_reward(mdp, self.start.u.unsqueeze(0), s, self.generator).squeeze(0)
        (y_s,) = torch.autograd.grad(y.sum(), s, materialize_grads=True) if y.requires_grad else (torch.zeros_like(s),)
        usable = y.isfinite() & y_s.isfinite().all(dim=-1)
        s, y, y_s = s.detach()[usable], y.detach()[usable], y_s[usable]
        for step in range(START_STEPS if len(s) > 0 else 0):
            at = torch.randint(len(s), (method.batch,), generator=self.generator, device=s.device)
            loss = value_loss(self.critic, s[at], y[at], y_s[at], self.reach, method.slopes)
            self.critic_optimiser.descend(loss, self.critic_lr * (1 - step / START_STEPS))

    def update(self, rate: float) -> None:
        method = self.method
        s = self.replay.sample(method.batch, self.generator).s
        V, steps = self.method.beyond(self.critic_target), self.method.steps_ahead(self.mdp)
        u, y, y_s, gradient = improve(self.mdp, V, self.actor, s, steps, self.generator)
        self.broken.watch(s, u, y)
        loss = value_loss(self.critic, s, y, y_s, self.reach, method.slopes)
        self.critic_optimiser.descend(loss, self.critic_lr * rate)
        self.actor_optimiser.step(gradient, self.actor_lr * rate)
        self.follow_targets(rate)
