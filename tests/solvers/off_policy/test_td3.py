"""TD3: what its target, its delay and its second critic do, and that it learns known answers."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import DDPG, TD3, Action, MethodError, Model, Normal, State
from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.units import Units
from econrl.models import BrockMirman, LinearQuadratic
from econrl.problem.mdp import MDP
from econrl.solvers.off_policy import learner as off_policy
from econrl.solvers.off_policy import td3
from learners import learner_of, trained

SMALL = {"hidden": (16, 16), "batch": 32, "environments": 16}


pytestmark = pytest.mark.usefixtures("arithmetic_of_solve")


class Peak:
    """Two critics without weights: the same function of the action alone."""

    units = Units()

    def __init__(self, f):
        self.f = f

    def smaller(self, s, u):
        return self.f(u[..., 0])


class Still:
    """An actor that always says u = 0.3."""

    def raw(self, s):
        return torch.full_like(s[..., :1], 0.3)


def smoothed(f, sigma, clip, n=100_000):
    s = torch.zeros(n, 2)
    return td3.smoothed_value(Peak(f), Still(), s, sigma, clip, torch.Generator().manual_seed(0))


def test_the_targets_action_is_smoothed_in_log_odds_by_noise_that_is_clipped():
    u = smoothed(lambda u: u, 0.2, 0.5)
    assert abs(float(u.mean()) - 0.3) < 4 * 0.2 / np.sqrt(100_000)  # four standard errors
    assert abs(float(u.std()) - 0.2) < 0.003  # clipping takes off 1%
    assert float((u - 0.3).abs().max()) == pytest.approx(0.5)
    u = smoothed(lambda u: u, 0.2, 0.1)
    assert float(((u - 0.3).abs() > 0.0999).float().mean()) == pytest.approx(0.617, abs=0.01)  # P(|z| > 1/2)
    torch.testing.assert_close(smoothed(lambda u: u, 0.0, 0.5), torch.full((100_000,), 0.3))


def test_a_narrow_peak_is_not_believed():
    peak = lambda u: (-((u - 0.3) ** 2) / (2 * 0.02**2)).exp()  # noqa: E731
    assert float(smoothed(peak, 0.0, 0.5).mean()) == pytest.approx(1.0)
    assert float(smoothed(peak, 0.2, 0.5).mean()) < 0.15


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actor_and_targets_move_in_every_so_many_steps_and_never_between(delay):
    learner = learner_of(TD3(delay=delay, **SMALL))
    modules = learner.critics.body, learner.actor.body, learner.actor_target.body, learner.targets.body
    for step in range(1, 7):
        before = [[p.clone() for p in module.parameters()] for module in modules]
        learner.update(1.0)
        moved = [
            any(not torch.equal(x, y) for x, y in zip(module.parameters(), old, strict=True))
            for module, old in zip(modules, before, strict=True)
        ]
        due = step % delay == 0
        assert moved == [True, due, due, due]


def test_the_value_returned_is_that_of_the_policy_returned():
    learner = learner_of(TD3(**SMALL))
    for _ in range(4):
        learner.update(1.0)
    policy, value = learner.answer()
    s = learner.mdp.sample_box(50, learner.generator)
    torch.testing.assert_close(value(s), learner.targets.first.of(s, learner.actor_target.raw(s)))
    torch.testing.assert_close(policy(s), learner.actor_target(s))
    assert not torch.equal(policy(s), learner.actor(s))


def test_impossible_settings_are_refused():
    for setting in ({"delay": 0}, {"smoothing": -0.1}, {"smoothing_clip": -1.0}):
        with pytest.raises(MethodError, match=next(iter(setting))):
            TD3(**setting)


@dataclass(frozen=True, kw_only=True)
class Noise(Model):
    """Nothing that one does matters: V(k) = k, and tomorrow's k is noise."""

    beta: float = 0.95

    def states(self):
        return State("k", low=-1.0, high=1.0)

    def actions(self):
        return Action("x", low=0.0, high=1.0)

    def shocks(self):
        return Normal("eps", std=0.3)

    def reward(self, s, a):
        return s.k + 0 * a.x

    def transition(self, s, a, e):
        return {"k": e.eps + 0 * a.x}


def overestimation(method, seed):
    """Mean of V - k over the domain at the end of 400 steps with a small batch, which critics overfit."""
    learner = learner_of(method, Noise(), seed)
    for _ in range(400):
        learner.advance()
        learner.update(1.0)
    s = learner.mdp.sample_box(1000, torch.Generator().manual_seed(9))
    return float((learner.answer()[1](s) - s[:, 0]).mean())


def test_td3_overestimates_less_than_ddpg():
    """An actor climbs to where its critic errs upwards. With the smaller of two critics the bias does not point up."""
    settings = {"hidden": (16, 16), "batch": 16, "environments": 4, "actor_lr": 0.02, "critic_lr": 0.02, "capacity": 64}
    ddpg = [overestimation(DDPG(rung=0, tau=0.1, **settings), seed) for seed in range(3)]
    twin = [overestimation(TD3(tau=0.1, **settings), seed) for seed in range(3)]
    assert np.mean(ddpg) > 0.1
    assert np.mean(twin) < 0.5 * np.mean(ddpg)


# What it all leads to

SLOW_AND_SURE = {"hidden": (32, 32), "batch": 128, "actor_lr": 2e-3, "critic_lr": 5e-3}


@pytest.mark.parametrize("settings", [{}, {"expected": True}, {"n_step": 3, "prioritised": 0.6}], ids=str)
def test_it_learns_the_closed_form(monkeypatch, settings):
    """Brock and Mirman: from saving half of output instead of a third, where consumption is wrong by 24%."""

    def start(mdp, generator):
        return dataclasses.replace(best_constant_shares(mdp, generator), u=torch.zeros(1))

    monkeypatch.setattr(off_policy, "best_constant_shares", start)
    model, method = BrockMirman(), TD3(**SLOW_AND_SURE, **settings)
    learner = trained(method, model, 500)
    mdp = MDP(model)
    s = mdp.sample_box(1000, torch.Generator().manual_seed(9))
    exact = mdp.exact_policy(s)
    error = float(((learner.answer()[0].on(mdp)(s) - exact) / exact).abs().mean())
    assert error < 0.08


def test_it_learns_the_riccati_gain():
    """Linear-quadratic: u = -F x. The gain by least squares over the domain."""
    model, method = LinearQuadratic(n=2, m=1), TD3(**{**SLOW_AND_SURE, "actor_lr": 5e-3}, expected=True)
    learner = trained(method, model, 600)
    mdp = MDP(model)
    s = mdp.sample_box(500, torch.Generator().manual_seed(9))
    both = learner.answer()[0].on(mdp)(s), mdp.exact_policy(s)
    gain, exact = (np.linalg.lstsq(s.numpy(), u.numpy(), rcond=None)[0] for u in both)
    np.testing.assert_allclose(gain, exact, atol=0.15 * np.abs(exact).max())
