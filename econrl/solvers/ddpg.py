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

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from econrl.accuracy import HeldOut
from econrl.bellman import continuation, expected_value, lookahead
from econrl.diagnose import Broken
from econrl.errors import MethodError
from econrl.euler import unit_of_marginal
from econrl.functions import Function
from econrl.mdp import MDP
from econrl.networks import ActionValueNetwork, Actor, ValueNetwork
from econrl.replay import Replay, Transitions
from econrl.simulate import MARGIN, goes_on, living_states
from econrl.solvers.base import Method, Result, Task, Tracker, require
from econrl.solvers.start import find_start, lifetime_reward

# Rungs 0 and 1: the critic judges actions


def sampled_target(mdp: MDP, value: Function, batch: Transitions) -> Tensor:
    """y = r + beta V'(s') at the one next state that the environment showed (rung 0)."""
    with torch.no_grad():
        return batch.r + batch.beta * continuation(mdp, value, batch.s_next)


def expected_target(mdp: MDP, value: Function, batch: Transitions) -> Tensor:
    """y = r + sum_j w_j beta V'(s'_j) for the states and actions of the replay (rung 1)."""
    with torch.no_grad():
        return lookahead(mdp, value, batch.s, mdp.act(batch.s, batch.u))


def action_value_loss(Q: ActionValueNetwork, s: Tensor, u: Tensor, y: Tensor) -> Tensor:
    """E[(Q(s, u) - y)^2], in the critic's units; the action comes from the replay and carries no gradient."""
    assert y.shape == s.shape[:-1], "a column of targets would broadcast against a row of values"
    return ((Q.of(s, u.detach()) - y) / Q.units.size(y)).square().mean()


def actor_loss(Q: ActionValueNetwork, actor: Actor, s: Tensor) -> Tensor:
    """-E[Q(s, pi(s))], and a penalty on u beyond LARGEST_U, where shares are on their bounds and Q was never tried."""
    u = actor.raw(s)
    q = Q.of(s, u)
    beyond = (u.abs() - LARGEST_U).clamp(min=0)
    return -(q / Q.units.size(q)).mean() + beyond.square().sum(dim=-1).mean()


# Rungs 2 and 3: the model judges actions


def improve(
    mdp: MDP, V: Function, actor: Actor, s: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The critic's target J(s), and the actor's way up.

        J(s) = E[ sum_{h<H} beta^h r(s_h, pi(s_h)) + beta^H V'(s_H) ],   s_0 = s,   H = steps

    with H = 1 on rung 2. Shocks are drawn, but for the last one, over which the expectation is exact; a path that
    leaves the domain far ends there, and is worth V'. Returns pi(s), J (B,),
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
    return actions[0].detach(), J.detach(), J_s, list(gradient)


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
class DDPG(Method):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), with the economist's knowledge of r and f.

    Rung 0 is the published algorithm; rung 1 replaces samples by expectations, rung 2 the critic's opinion of an action
    by the model's, rung 3 looks further ahead. See the table at the top of this file.
    """

    name = "ddpg"
    dtype = torch.float32

    rung: int = 2
    """How much of the model is used: 0 sampled, 1 expected, 2 model, 3 rollout."""
    rollout: int = 5
    """Known steps H before the value takes over (rung 3)."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic."""
    batch: int = 256
    """States in a gradient step."""
    actor_lr: float | None = None
    """Adam's learning rate for the actor, annealed to zero; None: 0.02 on rungs 2 and 3, 0.001 below."""
    critic_lr: float | None = None
    """Adam's learning rate for the critic, annealed to zero; None: 0.02 on rungs 2 and 3, 0.01 below."""
    tau: float | None = None
    """Weight of the online network in an update of its target, annealed to zero: the value first has to travel far,
    then needs averaging. 1 is a hard copy, and is not annealed. None: 0.5 on rungs 2 and 3, 0.1 below."""
    target_every: int = 1
    """Gradient steps between two updates of the targets."""
    slopes: float = 1.0
    """Weight of the value's derivative in the critic's loss (rungs 2 and 3)."""
    noise: float = 0.5
    """Standard deviation of exploration in the log-odds of an action's share: it respects bounds of any width."""
    environments: int = 64
    """Paths simulated in parallel; each makes one period a gradient step."""
    episode: int = 100
    """Periods after which a path begins anew at a random state; no end of the world, so targets bootstrap."""
    capacity: int = 100_000
    """Transitions that the replay buffer holds."""
    nodes: int = 3
    """Quadrature nodes a shock."""

    def __post_init__(self) -> None:
        if self.rung not in (0, 1, 2, 3):
            raise MethodError(
                f"{self.name} has rungs 0 (sampled), 1 (expected), 2 (model) and 3 (rollout); got rung={self.rung!r}"
            )
        for name in ("rollout", "batch", "target_every", "environments", "episode", "capacity", "nodes"):
            value = getattr(self, name)
            require(self, name, value is None or value >= 1, "at least 1")
        for name in ("actor_lr", "critic_lr"):
            require(self, name, getattr(self, name) is None or getattr(self, name) > 0, "positive")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "tau", self.tau is None or 0 < self.tau <= 1, "in (0, 1]")
        require(self, "slopes", self.slopes >= 0, "at least 0")
        require(self, "noise", self.noise >= 0, "at least 0")
        require(
            self, "capacity", self.capacity >= max(self.batch, self.environments), "at least batch and environments"
        )

    @property
    def rates(self) -> tuple[float, float, float]:
        """actor_lr, critic_lr and tau. Below rung 2 the actor must be slow: it learns from a critic's slope in u, which
        is noisy where u was hardly tried."""
        actor_lr, critic_lr, tau = (0.02, 0.02, 0.5) if self.rung >= 2 else (0.001, 0.01, 0.1)
        return self.actor_lr or actor_lr, self.critic_lr or critic_lr, self.tau or tau

    def steps_ahead(self, mdp: MDP) -> int:
        """H, the known steps before the value takes over."""
        return self.rollout if self.rung == 3 else 1

    def beyond(self, V: Function) -> Function:
        """What the states are worth in which a rollout ends."""
        return V

    def run(self, mdp: MDP, task: Task) -> Result:
        """Train for the task's steps, or for as many as its time limit allows, measured before it begins."""
        tracker = Tracker(task, HeldOut(task.model, task.device))
        kept = tracker.resume()
        learner = self.learner(mdp, task)
        steps = kept["steps"] if kept else task.steps or self.plan(task, tracker, learner)
        every = max(steps // MEASUREMENTS, MEASURE_EVERY)
        message, step, interrupted = "", 0, False
        if kept:
            step = kept["step"]
            learner.restore(kept["learner"])
        try:
            while step < steps and not tracker.converged:
                if task.remaining() <= 0 and tracker.log:
                    message = f"stopped by the time limit after {step} of {steps} planned steps"
                    break
                for _ in range(min(every, steps - step)):
                    step += 1
                    learner.advance()
                    learner.update(1 - (step - 1) / steps)
                learner.broken.raise_if_seen(mdp)
                tracker.measure(step, learner.actor_target, learner.critic_target)
                tracker.keep({"steps": steps, "step": step, "learner": learner.state()})
        except KeyboardInterrupt:
            message, interrupted = f"interrupted after {step} of {steps} steps", True
            if tracker.best is None:
                tracker.measure(step, learner.actor_target, learner.critic_target)
        return tracker.result(step, message, interrupted=interrupted, planned_steps=steps)

    def learner(self, mdp: MDP, task: Task) -> Learner:
        return ModelLearner(self, mdp, task) if self.rung >= 2 else CriticLearner(self, mdp, task)

    def plan(self, task: Task, tracker: Tracker, learner: Learner) -> int:
        """How many steps fit into the time limit, from the speed of a few that are then taken back."""
        if task.time_limit is None:
            return DEFAULT_STEPS
        before = copy.deepcopy(learner.state())

        def seconds(action: Callable[[], object], times: int) -> float:
            begun = clock(task.device)
            for _ in range(times):
                action()
            return (clock(task.device) - begun) / times

        def one_step() -> None:
            learner.advance()
            learner.update(1e-12)

        one_step()
        for_step = seconds(one_step, 20)
        for_measuring = seconds(lambda: tracker.held_out.error(learner.actor_target, learner.critic_target), 1)
        learner.restore(before)
        return steps_in(0.95 * task.remaining(), for_step, for_measuring)


def steps_in(seconds: float, for_step: float, for_measuring: float) -> int:
    """How many steps fit in, given the seconds that a step and a measurement take."""
    steps = seconds / (for_step + for_measuring / MEASURE_EVERY)
    if steps > MEASUREMENTS * MEASURE_EVERY:
        steps = (seconds - MEASUREMENTS * for_measuring) / for_step
    return max(int(steps), 1)


START_STATES, START_STEPS = 1024, 300  # of the first fit of the value
SMALLEST_UNIT = 1e-30
STEEPEST = 10.0  # a gain of ten times marginal utility says "more", and nothing else
SMALLEST_SLOPE = 0.1  # in units of the critic over half the domain
LARGEST_U = 10.0  # a share of 1 - 5e-5: beyond, little is gained, and the network would have to be steeper
MEASUREMENTS, MEASURE_EVERY = 40, 20  # of the held-out error: at most in a run; the fewest steps between two
DEFAULT_STEPS = 10_000


class Learner:
    """The state of a run: the actor, its environments, replay, optimisers and random numbers.

    A subclass adds a critic: it sets `actor_target`, `critic` and `critic_target`, and defines `update`.
    """

    critic: ValueNetwork | ActionValueNetwork
    critic_target: ValueNetwork | ActionValueNetwork
    actor_target: Actor
    critic_optimiser: torch.optim.Optimizer

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        self.method, self.mdp = method, mdp
        self.generator = task.generator(mdp.device)
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights, drawn on the CPU
        self.start = find_start(mdp, self.generator)
        self.actor = Actor(mdp, method.hidden).to(mdp.device, mdp.dtype)
        self.actor.body.start_at(self.start.u)
        self.actor_optimiser = torch.optim.Adam(self.actor.body.parameters(), fused=True)

        self.replay = Replay(method.capacity, mdp.S, mdp.A, mdp.low)
        self.s = mdp.sample_box(method.environments, self.generator)
        self.age = torch.randint(method.episode, (method.environments,), generator=self.generator, device=mdp.device)
        self.actor_lr, self.critic_lr, self.tau = method.rates
        self.broken = Broken(mdp, method.batch)
        self.updates = 0
        while len(self.replay) < method.batch:
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Every environment makes one step with a noisy action; the transitions go into the replay."""
        mdp, s = self.mdp, self.s
        u = self.actor.raw(s)
        noise = torch.randn(u.shape, generator=self.generator, dtype=u.dtype, device=u.device)
        u = u + self.method.noise * noise
        a, e = mdp.act(s, u), mdp.sample_shocks(s, self.generator)
        reached = mdp.transition(s, a, e)
        self.replay.add(Transitions(s, u, mdp.reward(s, a), mdp.discount(s, a, e).expand(len(s)), reached))

        # A path that is cut short has not ended: its last transition, with the state truly reached, is in the replay.
        self.age += 1
        keep = goes_on(mdp, reached) & (self.age < self.method.episode)
        self.age *= keep
        self.s = torch.where(keep.unsqueeze(-1), reached, mdp.sample_box(len(s), self.generator))

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""
        return {
            "networks": [network.state_dict() for network in self.networks()],
            "optimisers": [optimiser.state_dict() for optimiser in (self.actor_optimiser, self.critic_optimiser)],
            "replay": self.replay.state(),
            "environments": [self.s, self.age],
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for network, kept in zip(self.networks(), state["networks"], strict=True):
            network.load_state_dict(kept)
        for optimiser, kept in zip((self.actor_optimiser, self.critic_optimiser), state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.replay.restore(state["replay"])
        self.s, self.age = (tensor.to(self.mdp.device) for tensor in state["environments"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    def networks(self) -> tuple[nn.Module, ...]:
        return self.actor, self.critic, self.actor_target, self.critic_target

    def update(self, rate: float) -> None:
        """One gradient step of critic and actor, at a share `rate` of their learning rates, and of the targets."""
        raise NotImplementedError

    def follow_targets(self, rate: float) -> None:
        self.updates += 1
        if self.updates % self.method.target_every == 0:
            tau = self.tau if self.tau == 1 else self.tau * rate
            follow(self.critic_target.body, self.critic.body, tau)
            follow(self.actor_target.body, self.actor.body, tau)


class CriticLearner(Learner):
    """Rungs 0 and 1: the critic judges actions, and the actor climbs it."""

    critic: ActionValueNetwork
    critic_target: ActionValueNetwork

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        units = asdict(self.start.units)
        self.critic = ActionValueNetwork(mdp, method.hidden, units, method.hidden).to(mdp.device, mdp.dtype)
        self.critic.actor = self.actor
        self.critic_target = self.critic.on(mdp)
        self.actor_target = self.critic_target.actor
        self.critic_optimiser = torch.optim.Adam(self.critic.body.parameters(), fused=True)

    def update(self, rate: float) -> None:
        method, mdp = self.method, self.mdp
        batch = self.replay.sample(method.batch, self.generator)
        target = sampled_target if method.rung == 0 else expected_target
        y = target(mdp, self.critic_target, batch)
        self.broken.watch(batch.s, mdp.act(batch.s, batch.u), y)
        loss = action_value_loss(self.critic, batch.s, batch.u, y)
        descend(self.critic_optimiser, self.critic.body, loss, self.critic_lr * rate)
        loss = actor_loss(self.critic, self.actor, batch.s)
        descend(self.actor_optimiser, self.actor.body, loss, self.actor_lr * rate)
        self.follow_targets(rate)


class ModelLearner(Learner):
    """Rungs 2 and 3: the model judges actions, and the critic values states."""

    critic: ValueNetwork
    critic_target: ValueNetwork

    def __init__(self, method: DDPG, mdp: MDP, task: Task):
        super().__init__(method, mdp, task)
        self.critic = ValueNetwork(mdp, method.hidden, asdict(self.start.units)).to(mdp.device, mdp.dtype)
        self.critic_optimiser = torch.optim.Adam(self.critic.body.parameters(), fused=True)
        self.reach = torch.zeros_like(mdp.low)
        self.reach[mdp.continuous] = ((mdp.high - mdp.low) / 2)[mdp.continuous]
        self.fit_start()
        self.critic_target, self.actor_target = self.critic.on(mdp), self.actor.on(mdp)

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
            descend(self.critic_optimiser, self.critic.body, loss, self.critic_lr * (1 - step / START_STEPS))

    def update(self, rate: float) -> None:
        method = self.method
        s = self.replay.sample(method.batch, self.generator).s
        V, steps = self.method.beyond(self.critic_target), self.method.steps_ahead(self.mdp)
        a, y, y_s, gradient = improve(self.mdp, V, self.actor, s, steps, self.generator)
        self.broken.watch(s, a, y)
        loss = value_loss(self.critic, s, y, y_s, self.reach, method.slopes)
        descend(self.critic_optimiser, self.critic.body, loss, self.critic_lr * rate)
        step(self.actor_optimiser, self.actor.body, gradient, self.actor_lr * rate)
        self.follow_targets(rate)


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def descend(optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor, lr: float) -> None:
    """One step down the loss, on this network's parameters alone."""
    step(optimiser, network, torch.autograd.grad(loss, list(network.parameters())), lr)


def step(optimiser: torch.optim.Optimizer, network: nn.Module, gradient: Sequence[Tensor], lr: float) -> None:
    for parameter, g in zip(network.parameters(), gradient, strict=True):
        parameter.grad = g
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
