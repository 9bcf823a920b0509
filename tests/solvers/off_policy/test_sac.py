"""SAC: its target, its losses, the temperature, and that it learns known answers."""

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import SAC, Action, MethodError, Model, Normal, State
from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.units import Units
from econrl.models import BrockMirman, BufferStock, LifeCycle, LinearQuadratic, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.solvers.off_policy import learner as off_policy
from econrl.solvers.off_policy import sac
from learners import learner_of, trained

SMALL = {"hidden": (16, 16), "batch": 32, "environments": 16}
WARM_UP = SAC().warm_up  # steps in which the policy rests


pytestmark = pytest.mark.usefixtures("arithmetic_of_solve")


# The quadratic bandit


@dataclass(frozen=True, kw_only=True)
class Bandit(Model):
    """x is unbounded and moves nothing: at temperature alpha the best policy is N(k, alpha / (2 c))."""

    beta: float = 0.5
    c: float = 2.0

    def states(self):
        return State("k", low=-1.0, high=1.0)

    def actions(self):
        return Action("x")

    def shocks(self):
        return Normal("eps", std=0.3)

    def reward(self, s, a):
        return 5 - self.c * (a.x - s.k) ** 2

    def transition(self, s, a, e):
        return {"k": e.eps + 0 * a.x}


BANDIT = {"hidden": (32, 32), "batch": 128, "actor_lr": 0.01, "temperature_lr": 0.02}


@pytest.mark.parametrize("expected", [False, True])
def test_the_policy_of_the_quadratic_bandit_is_the_known_gaussian(expected):
    """The temperature makes the entropy that of a Gaussian with std `noise`; so alpha = 2 c noise^2. That is known
    as well as the critics' curvature, which 600 steps leave a quarter too high."""
    model, noise = Bandit(), 0.3
    learner = trained(SAC(noise=noise, expected=expected, **BANDIT), model, 600 + WARM_UP)
    s = torch.linspace(-0.8, 0.8, 41).unsqueeze(-1)
    with torch.no_grad():
        pi = learner.actor.distribution(s)
    std = float(pi.log_std.exp().mean())
    alpha = float(learner.temperature().detach()) * learner.critics.units.scale
    assert std == pytest.approx(noise, rel=0.1)
    assert alpha == pytest.approx(2 * model.c * noise**2, rel=0.4)
    assert float((pi.mean - s).abs().mean()) < 0.3 * noise


# Targets and losses


class Roof:
    """Two critics without weights, u and -u in units of 3."""

    units = Units(scale=3.0)

    def smaller(self, s, u):
        return -u[..., 0].abs()


def test_the_target_is_the_smaller_value_less_the_price_of_the_missing_entropy():
    learner = learner_of(SAC(**SMALL))
    s = learner.mdp.sample_box(1000, learner.generator)
    alpha, H = torch.tensor(0.2), torch.tensor(-1.5)
    kept = learner.generator.get_state()
    y = sac.soft_value(Roof(), learner.actor, s, alpha, H, learner.generator)
    learner.generator.set_state(kept)
    pi = learner.actor.distribution(s)
    u = pi.sample(learner.generator)
    assert y.shape == (1000,)
    torch.testing.assert_close(y, 3.0 * (-u[:, 0].abs() - 0.2 * (pi.log_prob(u) - 1.5)))


def test_the_actors_loss_goes_down_where_value_or_entropy_goes_up():
    q, log_pi = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.5, 0.1], requires_grad=True)
    alpha = torch.tensor(0.3, requires_grad=True)
    loss = sac.soft_actor_loss(q, log_pi, alpha)
    assert float(loss.detach()) == pytest.approx((0.3 * 0.5 - 1 + 0.3 * 0.1 - 2) / 2)
    dq, dlog_pi, dalpha = torch.autograd.grad(loss, (q, log_pi, alpha), allow_unused=True)
    torch.testing.assert_close(dq, torch.full((2,), -0.5))
    torch.testing.assert_close(dlog_pi, torch.full((2,), 0.15))
    assert dalpha is None


@pytest.mark.parametrize(("log_pi", "rises"), [(1.0, True), (-1.0, False)])
def test_the_temperature_rises_while_the_entropy_is_too_low(log_pi, rises):
    alpha, log_pi = torch.tensor(0.3, requires_grad=True), torch.full((4,), log_pi, requires_grad=True)
    loss = sac.temperature_loss(alpha, log_pi, torch.tensor(0.0))
    slope, through_policy = torch.autograd.grad(loss, (alpha, log_pi), allow_unused=True)
    assert (float(slope) < 0) == rises
    assert through_policy is None


def test_the_entropy_aimed_at_is_that_of_the_noise_around_the_start():
    """In shares, of which the Gaussian in log-odds has an entropy that a sample shows."""
    learner = learner_of(SAC(noise=0.05, **SMALL), BufferStock())
    pi = learner.actor.distribution(learner.mdp.sample_box(5000, learner.generator))
    entropy = -float(pi.log_prob(pi.sample(learner.generator)).mean())
    assert entropy == pytest.approx(float(learner.H), abs=0.05)  # the start's network is not quite constant
    gaussian = math.log(0.05) + (1 + math.log(2 * math.pi)) / 2
    y = float(torch.sigmoid(learner.start.u))
    assert float(learner.H) == pytest.approx(gaussian + math.log(y * (1 - y)), abs=1e-4)


def test_it_explores_with_the_policys_own_noise():
    learner = learner_of(SAC(noise=0.4, **{**SMALL, "batch": 3200}), BufferStock())
    n = len(learner.experience.replay)
    s, u = learner.experience.replay.s[:n], learner.experience.replay.u[:n]
    pi = learner.actor.distribution(s)
    z = ((u - pi.mean) / pi.log_std.exp()).detach()
    assert abs(float(z.mean())) < 4 / np.sqrt(n)  # four standard errors
    assert abs(float(z.std()) - 1) < 4 / np.sqrt(2 * n)
    assert float(pi.log_std.exp().mean()) == pytest.approx(0.4, rel=0.05)
    assert learner.mdp.feasible(s, learner.mdp.act(s, u)).all()


def test_the_policy_returned_is_the_mode_and_the_value_is_that_of_the_mode():
    learner = learner_of(SAC(**SMALL))
    learner.update(1.0)
    policy, value = learner.answer()
    s = learner.mdp.sample_box(50, learner.generator)
    u = learner.actor.distribution(s).mean
    torch.testing.assert_close(policy(s), learner.mdp.act(s, u))
    torch.testing.assert_close(value(s), learner.targets.first.of(s, u))
    assert torch.equal(policy(s), policy(s))


@pytest.mark.parametrize("setting", [{"noise": 0.0}, {"temperature": 0.0}, {"temperature_lr": -1.0}], ids=str)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(MethodError, match=f"sac.*{next(iter(setting))}"):
        SAC(**setting)


# What it all leads to

SLOW_AND_SURE = {"hidden": (32, 32), "batch": 128, "actor_lr": 2e-3, "critic_lr": 5e-3}


SETTINGS = [{}, {"expected": True}, {"n_step": 3, "noise": 0.5}, {"prioritised": 0.6}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_learns_the_closed_form(monkeypatch, settings):
    """Brock and Mirman: from saving half of output instead of a third, where consumption is wrong by 24%."""

    def start(mdp, generator):
        return dataclasses.replace(best_constant_shares(mdp, generator), u=torch.zeros(1))

    monkeypatch.setattr(off_policy, "best_constant_shares", start)
    model = BrockMirman()
    learner = trained(SAC(**SLOW_AND_SURE, **settings), model, 500 + WARM_UP)
    mdp = MDP(model)
    s = mdp.sample_box(1000, torch.Generator().manual_seed(9))
    exact = mdp.exact_policy(s)
    error = float(((learner.answer()[0].on(mdp)(s) - exact) / exact).abs().mean())
    assert error < 0.08


def test_it_learns_the_riccati_gain():
    """Linear-quadratic: u = -F x. The gain by least squares over the domain."""
    model = LinearQuadratic(n=2, m=1)
    learner = trained(SAC(**{**SLOW_AND_SURE, "actor_lr": 5e-3}, expected=True), model, 600 + WARM_UP)
    mdp = MDP(model)
    s = mdp.sample_box(500, torch.Generator().manual_seed(9))
    both = learner.answer()[0].on(mdp)(s), mdp.exact_policy(s)
    gain, exact = (np.linalg.lstsq(s.numpy(), u.numpy(), rcond=None)[0] for u in both)
    np.testing.assert_allclose(gain, exact, atol=0.15 * np.abs(exact).max())


def test_a_short_life_is_lived_to_its_end():
    """In the last period everything is consumed: the terminal value is nothing."""
    model = LifeCycle(horizon=4, retirement=2)
    solution = econrl.solve(model, SAC(hidden=(32, 32), batch=128, actor_lr=0.01), steps=400 + WARM_UP, progress=False)
    share = solution.policy({"m": [1.0, 2.0], "t": [3.0, 3.0]})["c"].numpy() / [1.0, 2.0]
    assert (share > 0.9).all()


def test_the_policy_waits_until_the_critics_know_something():
    """It stays as it is for `warm_up` steps, while the critics learn."""
    learner = learner_of(SAC(warm_up=3, **SMALL))
    before, critics = (copy.deepcopy(x.state_dict()) for x in (learner.actor, learner.critics.first))
    for step in range(4):
        rests = all(torch.equal(x, before[name]) for name, x in learner.actor.state_dict().items())
        assert rests == (step <= 3)
        learner.update(1.0)
    assert not all(torch.equal(x, before[name]) for name, x in learner.actor.state_dict().items())
    assert not all(torch.equal(x, critics[name]) for name, x in learner.critics.first.state_dict().items())


@pytest.mark.parametrize("seed", [2, 3, 7])
def test_it_does_not_run_away_on_growth(seed):
    """The seeds of twelve with which it did, within 300 steps, before the policy waited: the log-odds of consumption
    stay near those of the start, -2.7."""
    learner = learner_of(SAC(), StochasticGrowth(), seed)
    for step in range(WARM_UP + 300):
        learner.advance()
        learner.update(1 - step / 16000)
    with torch.no_grad():
        assert learner.actor.distribution(learner.experience.environments.s).mean.abs().max() < 5
