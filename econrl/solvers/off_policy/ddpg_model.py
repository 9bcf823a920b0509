"""Rungs 2 and 3 of `ddpg.py`: the model judges actions, and the critic V values states.

    critic    V(s) -> J(s) and V_s(s) -> J_s(s),   J(s) = E[ sum_{h<H} beta^h r(s_h, pi(s_h)) + beta^H V'(s_H) ]
    actor     climbs J through the known r and f; H = 1 on rung 2

Prime on V is its target network.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.approximation.networks import Actor, ValueNetwork
from econrl.optimality.complementarity import complementarity
from econrl.optimality.euler import unit_of_marginal
from econrl.problem.bellman import continuation, expected_value, kernel
from econrl.problem.mdp import MDP
from econrl.problem.simulate import MARGIN, lifetime_reward
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy.actor import LARGEST_U, actor_near, noisy_actions
from econrl.solvers.off_policy.learner import Experience, OffPolicyLearner, annealed

STEEPEST = 10.0  # a gain of ten times marginal utility says "more", and nothing else
SMALLEST_SLOPE = 0.1  # in units of the critic over half the domain: flatter slopes are not worth a relative error

# The actor


class KnownStep(NamedTuple):
    """One period of a rollout through the model; a and u carry the gradient."""

    s: Tensor  # (B, S)
    u: Tensor  # (B, A)
    a: Tensor  # (B, A)
    r: Tensor  # (B,), what the reward adds to J


def roll(
    mdp: MDP, V: Function, actor: Actor, s: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, list[KnownStep], Tensor]:
    """J(s) (B,) = E[ sum_{h<H} beta^h r(s_h, pi(s_h)) + beta^H V'(s_H) ],   s_0 = s,   H = steps.

    Shocks are drawn, but for the last one, over which the expectation is exact; a path that leaves the domain far ends
    there, and is worth V'. Also returns the path, and the last action as each node of the shocks sees it (B, J, A).
    """
    if not mdp.preferences.additive and steps > 1:
        return roll_beside(mdp, V, actor, s, steps, generator)
    J, factor, now = torch.zeros_like(s[:, 0]), torch.ones_like(s[:, 0]), s
    path = []
    for step in range(steps):
        living, at = mdp.living(now)
        if step > 0:
            living = living & mdp.inside(now, MARGIN)
            at = torch.where(living.unsqueeze(-1), at, s)  # a path far outside has ended: its numbers would overflow
        u = actor.raw(at)
        a = mdp.act(at, u)
        r = factor * torch.where(living, mdp.reward(at, a), 0.0)
        path.append(KnownStep(at, u, a, r))
        J = J + r
        if step < steps - 1:
            e = mdp.sample_shocks(at.detach(), generator)
            factor = factor * torch.where(living, mdp.discount(at, a, e), 1.0)
            now = torch.where(living.unsqueeze(-1), mdp.transition(at, a, e), now)
    a_nodes = a.unsqueeze(-2).expand(-1, len(mdp.nodes), -1)
    future = expected_value(mdp, V, at, a_nodes)
    if steps == 1:
        by_reward, _ = mdp.preferences.slopes(J.detach(), future.detach())
        return mdp.preferences.aggregate(J, future), [path[0]._replace(r=by_reward * J)], a_nodes
    return J + factor * torch.where(living, future, continuation(mdp, V, now)), path, a_nodes


def roll_beside(
    mdp: MDP, V: Function, actor: Actor, s: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, list[KnownStep], Tensor]:
    """`roll` where utility is recursive, whose J is no expectation of sums along paths, but to first order around V'

        J(s) = T V'(s) + E[ sum_{0<h<H} B_h (T V'(s_h) - V'(s_h)) ],

    B_h the product of what tomorrow's value is worth today (`kernel`) at V'; it is exact once V' is the policy's value.
    """
    J, factor, now = torch.zeros_like(s[:, 0]), torch.ones_like(s[:, 0]), s
    path = []
    for step in range(steps):
        living, at = mdp.living(now)
        if step > 0:
            living = living & mdp.inside(now, MARGIN)
            at = torch.where(living.unsqueeze(-1), at, s)
        u = actor.raw(at)
        a = mdp.act(at, u)
        a_nodes = a.unsqueeze(-2).expand(-1, len(mdp.nodes), -1)
        m, r = expected_value(mdp, V, at, a_nodes), mdp.reward(at, a)
        worth = mdp.preferences.aggregate(r, m) - (V(at) if step > 0 else 0.0)
        J = J + factor * torch.where(living, worth, 0.0)
        by_reward, _ = mdp.preferences.slopes(r.detach(), m.detach())
        path.append(KnownStep(at, u, a, factor * by_reward * torch.where(living, r, 0.0)))
        if step < steps - 1:
            e = mdp.sample_shocks(at.detach(), generator)
            with torch.no_grad():
                beta = by_reward * kernel(mdp, V, at, a.unsqueeze(-2), e.unsqueeze(-2)).squeeze(-1)
            factor = factor * torch.where(living, beta, 1.0)
            now = torch.where(living.unsqueeze(-1), mdp.transition(at, a, e), now)
    return J, path, a_nodes


def improve(
    mdp: MDP, V: Function, actor: Actor, s: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The critic's target J(s), and the actor's way up.

    Returns the actor's u at s (B, A), J (B,) of `roll`, its derivative J_s (B, S), and the gradient for the actor's
    parameters: the policy gradient -E[sum_h g_h u_theta], in which g, the unit-free residual of the first-order
    condition J_a = 0 (`complementarity.py`), stands for J_u. So rich and poor states count alike, an actor near a bound
    that it should leave, where a_u vanishes, is not stuck, and one that nears a bound which binds comes to rest there.
    """
    s = s.detach().requires_grad_()
    J, path, a_nodes = roll(mdp, V, actor, s, steps, generator)
    grad = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)
    J_s, J_nodes, *J_a = grad(J.sum(), [s, a_nodes, *(step.a for step in path)])
    ascents = []
    for h, (at, u, a, r) in enumerate(path):
        (r_a,) = grad(r.sum(), [a])
        later = J_nodes if h == steps - 1 else (J_a[h] - r_a).unsqueeze(-2)
        at, a = at.detach(), a.detach()
        unit = unit_of_marginal(mdp, at, a, r_a, later)
        residual = complementarity(mdp, J_a[h], unit, at, a, smooth=False).clamp(-STEEPEST, STEEPEST)
        ascent = mdp.widths(at, a).sign() * residual  # an action that ends at a high alone falls with its share
        ascents.append(torch.where((u.abs() > LARGEST_U) & (ascent.sign() == u.sign()), 0.0, ascent))
    # The network's gradient at the states of the path: what it does to later states is in J_u already.
    u = actor.raw(torch.cat([step.s for step in path]).detach())
    weights = -torch.cat(ascents) / len(u)
    gradient = torch.autograd.grad(u, list(actor.body.parameters()), grad_outputs=weights)
    return path[0].u.detach(), J.detach(), J_s, list(gradient)


# The critic


def value_loss(V: ValueNetwork, s: Tensor, y: Tensor, y_s: Tensor, reach: Tensor, weight: float) -> Tensor:
    """E[h(V(s) - y)] + weight E[ sum h((V_s(s) - y_s) / size(y_s)) ], the first in the critic's units, with Huber's
    h(x) = min(x^2, 2 |x| - 1) / 2; reach (S,) is half the domain.

    The policy hangs on V_s, not on V, and the known model gives its target too. A network fitted to slopes as well
    as levels needs far fewer points (Czarnecki et al. 2017, Sobolev training). Slopes are marginal utilities, whose
    relative error is what a policy feels: hence size(y_s) = |y_s|, with a floor where they vanish. By squares, the few
    states at which that error is many times the slope would be heard alone.
    """
    s = s.detach().requires_grad_()
    x = V.raw(s)
    assert x.shape == y.shape, "a column of targets would broadcast against a row of values"
    (v_s,) = torch.autograd.grad(V.units.value(x).sum(), s, create_graph=True)
    to_units = reach / V.units.size(y).unsqueeze(-1)
    slopes = (v_s - y_s) * to_units / torch.hypot(y_s * to_units, torch.full_like(y_s, SMALLEST_SLOPE))
    return huber(V.units.error(x, y)).mean() + weight * huber(slopes).sum(dim=-1).mean()


def huber(x: Tensor) -> Tensor:
    """x^2 / 2, and |x| - 1/2 where |x| > 1."""
    return F.huber_loss(x, torch.zeros_like(x), reduction="none")


class ModelLearner(OffPolicyLearner):
    """The state of a run on rungs 2 and 3 of `method`, a DDPG."""

    def __init__(self, method: Any, mdp: MDP, task: Task) -> None:
        super().__init__(mdp, task, method.batch)
        self.method = method
        self.actor_lr, self.critic_lr, self.tau = method.rates
        self.actor = actor_near(mdp, method.hidden, self.start.u)
        self.critic = ValueNetwork(mdp, method.hidden, asdict(self.start.units)).to(mdp.device, mdp.dtype)
        self.actor_optimiser, self.critic_optimiser = Adam(self.actor.body), Adam(self.critic.body)
        self.experience = Experience(
            method, mdp, self.generator, partial(noisy_actions, self.actor, method.noise, self.generator)
        )
        self.reach = torch.zeros_like(mdp.low)
        self.reach[mdp.continuous] = ((mdp.high - mdp.low) / 2)[mdp.continuous]
        self.fit_start()
        self.critic_target, self.actor_target = self.critic.on(mdp), self.actor.on(mdp)
        self.networks = self.actor, self.critic, self.actor_target, self.critic_target
        self.optimisers = self.actor_optimiser, self.critic_optimiser

    def fit_start(self) -> None:
        """Fit V to the simulated lifetime reward of the constant shares, and to its derivative along the path."""
        mdp, method = self.mdp, self.method
        s = mdp.sample_box(method.start_states, self.generator).requires_grad_()
        y = lifetime_reward(mdp, self.start.u.unsqueeze(0), s, self.generator).squeeze(0)
        (y_s,) = torch.autograd.grad(y.sum(), s, materialize_grads=True) if y.requires_grad else (torch.zeros_like(s),)
        usable = y.isfinite() & y_s.isfinite().all(dim=-1)
        s, y, y_s = s.detach()[usable], y.detach()[usable], y_s[usable]
        for step in range(method.start_steps if len(s) > 0 else 0):
            at = torch.randint(len(s), (method.batch,), generator=self.generator, device=s.device)
            loss = value_loss(self.critic, s[at], y[at], y_s[at], self.reach, method.slopes)
            self.critic_optimiser.descend(loss, self.critic_lr * (1 - step / method.start_steps))

    def update(self, rate: float) -> None:
        method, mdp = self.method, self.mdp
        s = self.experience.replay.sample(method.batch, self.generator).s
        V, steps = method.value_beyond(self.critic_target), method.steps_ahead(mdp)
        u, y, y_s, gradient = improve(mdp, V, self.actor, s, steps, self.generator)
        self.broken.watch(s, u, y)
        loss = value_loss(self.critic, s, y, y_s, self.reach, method.slopes)
        self.critic_optimiser.descend(loss, self.critic_lr * rate)
        self.actor_optimiser.step(gradient, self.actor_lr * rate)
        self.updates += 1
        if self.updates % method.target_every == 0:
            tau = annealed(self.tau, rate)
            follow(self.critic_target.body, self.critic.body, tau)
            follow(self.actor_target.body, self.actor.body, tau)

    def answer(self) -> tuple[StateFunction, StateFunction]:
        return self.actor_target, self.critic_target
