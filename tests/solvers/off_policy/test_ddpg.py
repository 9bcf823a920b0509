"""The actor-critic: what its targets may see, what its steps may move, which policy it returns, and how it stops."""

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
import learners
from econrl import DDPG, Action, MethodError, Model, Normal, SolveError, State
from econrl.accuracy.error_table import samples
from econrl.accuracy.held_out import HeldOut
from econrl.approximation.constant_shares import ConstantShares, best_constant_shares
from econrl.approximation.units import Units
from econrl.models import BrockMirman, BufferStock, LifeCycle, LinearQuadratic
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import lifetime_reward
from econrl.solvers import Pathwise
from econrl.solvers.common import training
from econrl.solvers.common.task import Task
from econrl.solvers.off_policy import ddpg, ddpg_model
from econrl.solvers.off_policy import learner as off_policy
from econrl.solvers.off_policy.replay import Transitions
from learners import CPU, mdp_of

RUNGS = pytest.mark.parametrize("rung", [0, 1, 2])
SMALL = {"hidden": (16, 16), "batch": 32, "environments": 16, "start_steps": 5, "start_states": 64}


pytestmark = pytest.mark.usefixtures("arithmetic_of_solve")


@pytest.fixture
def quick(monkeypatch):
    """Begin at an arbitrary constant: for tests of single steps, not of what they lead to."""
    units = Units(center=-10.0, scale=2.0)
    monkeypatch.setattr(
        off_policy, "best_constant_shares", lambda mdp, generator: ConstantShares(torch.zeros(mdp.A).to(mdp.low), units)
    )
    monkeypatch.setattr(training, "MEASURE_EVERY", 1)
    monkeypatch.setattr(training, "MEASUREMENTS", 40)


def run(model, method, seed=0, **task):
    """The method alone, without `check`."""
    return method.run(mdp_of(model, method), Task(model, CPU, seed, **task))


def learner_of(model=None, seed=0, **settings):
    return learners.learner_of(DDPG(**{**SMALL, **settings}), model, seed)


def same(a, b):
    a, b = (list(x.state_dict().values()) for x in (a, b))
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def learner_parts(learner):
    return learner.actor, learner.critic.body, learner.actor_target, learner.critic_target.body


def policy_error(result, model):
    """Mean relative distance to the closed form over the domain."""
    mdp = MDP(model)
    s = mdp.sample_box(1000, torch.Generator().manual_seed(9))
    exact = mdp.exact_policy(s)
    return float(((result.policy.on(mdp)(s) - exact) / exact).abs().mean())


class Handmade:
    """A function of states that a measure of error accepts."""

    def __init__(self, f):
        self.f = f

    def on(self, mdp):
        return self

    def __call__(self, s):
        return self.f(s)


# Targets


def batch_of(n=3, A=1):
    s = torch.tensor([[0.2, 0.0], [0.3, 0.1], [0.1, -0.1]])
    return Transitions(s, torch.zeros(n, A), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.9, 0.8, 0.7]), s + 0.5)


def test_the_sampled_target_is_reward_plus_discounted_value_of_the_next_state():
    value = torch.nn.Linear(2, 1)
    y = ddpg.sampled_target(mdp_of(BrockMirman(), DDPG()), lambda s: value(s).squeeze(-1), batch_of())
    b = batch_of()
    expected = b.r + b.beta * value(b.s_next).squeeze(-1)
    assert y.shape == (3,)
    torch.testing.assert_close(y, expected.detach())  # float32
    assert not y.requires_grad


@pytest.mark.parametrize("expected", [False, True], ids=["rung 0", "rung 1"])
def test_the_target_asks_the_target_critic_about_the_target_actors_action(quick, expected):
    """y = r + beta Q'(s', pi'(s')): it moves with Q' and pi', and not with Q and pi."""
    learner = learner_of(rung=int(expected))
    batch, _, _ = learner.experience.draw(1.0)
    mdp, networks = learner.mdp, (learner.critic_target, learner.actor_target)

    def y():
        return ddpg.target(mdp, *networks, batch, expected)

    def by_hand(s_next):
        u = learner.actor_target.body(learner.actor_target.features(s_next))
        return learner.critic_target.of(s_next, u)

    before = y()
    if expected:
        a = mdp.act(batch.s, batch.u)
        s_next = mdp.transition(batch.s.unsqueeze(1), a.unsqueeze(1), mdp.nodes)
        future = (mdp.weights(batch.s) * by_hand(s_next)).sum(dim=-1)
    else:
        future = by_hand(batch.s_next)
    torch.testing.assert_close(before, batch.r + batch.beta * future)  # float32
    assert not before.requires_grad
    with torch.no_grad():
        for body in (learner.actor.body, learner.critic.body):
            body[-1].bias.add_(1.0)
    assert torch.equal(y(), before)
    for body in (learner.actor_target.body, learner.critic_target.body):
        with torch.no_grad():
            body[-1].bias.add_(1.0)
        assert not torch.equal(y(), before)
        before = y()


def test_the_expected_target_is_the_mean_of_sampled_ones():
    model = BrockMirman(sigma=0.3)
    mdp = MDP(model, quadrature=Quadrature(nodes=7))
    value = lambda s: (2 * s[..., 1]).exp() * s[..., 0]  # noqa: E731  (smooth: seven nodes are exact to 1e-9)
    generator = torch.Generator().manual_seed(0)
    s = mdp.sample_box(3, generator)
    u = torch.randn(3, 1, generator=generator, dtype=torch.float64)
    empty = torch.full((3,), torch.nan, dtype=torch.float64)
    y = ddpg.expected_target(mdp, value, Transitions(s, u, empty, empty, s * torch.nan))  # it needs s and u alone
    many = s.expand(100_000, 3, 2)
    a = mdp.act(many, u)
    s_next = mdp.transition(many, a, mdp.sample_shocks(many, generator))
    draws = ddpg.sampled_target(
        mdp, value, Transitions(many, u, mdp.reward(many, a), torch.tensor(model.beta).double(), s_next)
    )
    assert ((draws.mean(0) - y).abs() < 4 * draws.std(0) / np.sqrt(100_000)).all()  # four standard errors
    assert not y.requires_grad


@pytest.mark.parametrize("target", ["sampled_target", "expected_target"])
def test_a_life_that_ends_gets_its_terminal_value_and_one_that_does_not_bootstraps(target):
    bequest = dataclass(frozen=True, kw_only=True)(
        type("Bequest", (LifeCycle,), {"terminal": lambda self, s: 100 * s.m, "beta": 0.9, "gamma": 1.0})
    )(horizon=4, retirement=0, gamma=1.0, beta=0.9)
    mdp = MDP(bequest)
    s = torch.tensor([[2.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    u = torch.zeros(2, 1, dtype=torch.float64)
    a = mdp.act(s, u)
    s_next = mdp.transition(s, a, mdp.nodes[:1])
    value = lambda s: torch.where(s[..., 1] >= 4, torch.nan, -7.0)  # noqa: E731  (there is no value after the end)
    y = getattr(ddpg, target)(mdp, value, Transitions(s, u, mdp.reward(s, a), torch.full((2,), 0.9), s_next))
    wealth = 1.03 * 1.0 + 0.7  # half of 2 is saved; the pension
    expected = torch.tensor([-0.9 * 7.0, 0.9 * 100 * wealth], dtype=torch.float64)  # log 1 = 0 today
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=0)  # the discount factor above is in single precision


def test_a_path_cut_short_is_remembered_with_the_state_it_truly_reached(quick):
    learner = learner_of(rung=0, episode=1)  # every path begins anew after every step
    n, memory, mdp = len(learner.experience.replay), learner.experience.replay, learner.mdp
    s, u, s_next = memory.s[:n], memory.u[:n], memory.s_next[:n]
    k_next = mdp.transition(s, mdp.act(s, u), torch.zeros(n, 1))[:, 0]
    torch.testing.assert_close(s_next[:, 0], k_next)  # float32
    newest = s_next[-16:]
    assert (newest != learner.experience.environments.s).any(dim=-1).all()  # and yet the path has begun anew
    torch.testing.assert_close(memory.r[:n], mdp.reward(s, mdp.act(s, u)))


def test_an_escape_is_remembered_with_the_state_truly_reached(quick):
    away = dataclass(frozen=True, kw_only=True)(
        type("Away", (BrockMirman,), {"transition": lambda self, s, a, e: {"k": s.k + 100, "z": e.eps}})
    )
    learner = learner_of(away(), rung=0)
    n = len(learner.experience.replay)
    torch.testing.assert_close(learner.experience.replay.s_next[:n, 0], learner.experience.replay.s[:n, 0] + 100)
    assert learner.mdp.inside(learner.experience.environments.s).all()


def test_the_last_period_of_a_life_is_remembered_as_such(quick):
    learner = learner_of(LifeCycle(horizon=5, retirement=3), rung=0, batch=320)
    s, s_next = learner.experience.replay.s[:320], learner.experience.replay.s_next[:320]
    assert torch.equal(s_next[:, 1], s[:, 1] + 1)
    assert s[:, 1].max() == 4
    assert (s_next[:, 1] == 5).any()


# Losses


def test_a_column_of_targets_is_refused(quick):
    learner = learner_of(rung=1)
    s, u, y = torch.rand(32, 2), torch.zeros(32, 1), torch.zeros(32)
    delta = ddpg.td_error(learner.critic, s, u, y)
    assert delta.shape == (32,)
    assert ddpg.critic_loss(delta, torch.ones(32)).shape == ()
    with pytest.raises(AssertionError, match="broadcast"):
        ddpg.td_error(learner.critic, s, u, y.unsqueeze(-1))
    learner = learner_of(rung=2)
    assert ddpg_model.value_loss(learner.critic, s, y, torch.zeros(32, 2), learner.reach, 1.0).shape == ()
    with pytest.raises(AssertionError, match="broadcast"):
        ddpg_model.value_loss(learner.critic, s, y.unsqueeze(-1), torch.zeros(32, 2), learner.reach, 1.0)


def test_networks_give_one_value_a_state_and_not_a_column(quick):
    for rung, shape in ((1, (5,)), (2, (5,))):
        assert learner_of(rung=rung).critic(torch.rand(5, 2)).shape == shape


def test_the_critics_loss_has_no_gradient_for_the_action_it_judges(quick):
    learner = learner_of(rung=0)
    u = torch.zeros(32, 1, requires_grad=True)
    loss = ddpg.td_error(learner.critic, torch.rand(32, 2), u, torch.zeros(32)).sum()
    assert torch.autograd.grad(loss, u, allow_unused=True)[0] is None


# Steps


@RUNGS
def test_targets_get_no_gradient_and_move_only_by_following(quick, rung):
    learner = learner_of(rung=rung)
    learner.tau = 0.0
    before = copy.deepcopy(learner_parts(learner))
    for _ in range(5):
        learner.advance()
        learner.update(1.0)
    unmoved = [same(x, y) for x, y in zip(learner_parts(learner), before, strict=True)]
    assert unmoved == [False, False, True, True]  # actor, critic, their targets
    for target in learner_parts(learner)[2:]:
        assert all(not p.requires_grad and p.grad is None for p in target.parameters())


@RUNGS
@pytest.mark.parametrize("still", ["actor", "critic"])
def test_one_networks_step_leaves_the_other_as_it_was(quick, rung, still):
    learner = learner_of(rung=rung)
    setattr(learner, f"{still}_lr", 0.0)
    before = copy.deepcopy((learner.actor, learner.critic.body))
    for _ in range(5):
        learner.update(1.0)
    assert same(learner.actor, before[0]) == (still == "actor")
    assert same(learner.critic.body, before[1]) == (still == "critic")


LEAKS = [(0, "actor", "critic"), (1, "actor", "critic"), (2, "critic", "actor")]


@pytest.mark.parametrize(("rung", "still", "kept"), LEAKS)
def test_one_networks_gradient_does_not_leak_into_the_other(quick, rung, still, kept):
    """With fixed targets, the critic's path (rung 2: the actor's) is the same whether the other one learns or not."""
    learners = [learner_of(rung=rung) for _ in range(2)]
    setattr(learners[1], f"{still}_lr", 0.0)
    for learner in learners:
        learner.tau = 0.0
        for _ in range(5):
            learner.update(1.0)
    bodies = [{"actor": x.actor.body, "critic": x.critic.body} for x in learners]
    assert not same(bodies[0][still], bodies[1][still])
    assert same(bodies[0][kept], bodies[1][kept])


@RUNGS
def test_hard_target_updates_copy_every_so_often(quick, rung):
    learner = learner_of(rung=rung, tau=1.0, target_every=3)
    begun = copy.deepcopy((learner.actor_target.body, learner.critic_target.body))
    for step in range(1, 7):
        learner.update(0.5)  # learning rates are annealed, a copy is not
        current = learner.actor_target.body, learner.critic_target.body
        online = learner.actor.body, learner.critic.body
        if step % 3 == 0:
            begun = copy.deepcopy(current)
            assert same(current[0], online[0])
            assert same(current[1], online[1])
        else:
            assert same(current[0], begun[0])
            assert same(current[1], begun[1])
            assert not same(current[0], online[0])


@RUNGS
def test_soft_target_updates_move_by_tau(quick, rung):
    learner = learner_of(rung=rung, tau=0.25)
    for target, online in ((learner.actor_target, learner.actor), (learner.critic_target, learner.critic)):
        before = [p.clone() for p in target.body.parameters()]
        learner.update(1.0)
        for old, new, now in zip(before, online.body.parameters(), target.body.parameters(), strict=True):
            torch.testing.assert_close(now, 0.75 * old + 0.25 * new)  # float32


# Exploration


@pytest.mark.parametrize("noise", [0.5, 30.0])
def test_exploration_noise_is_in_log_odds_and_respects_the_bounds(quick, noise):
    learner = learner_of(BufferStock(), rung=0, noise=noise, batch=3200, episode=1)  # the bound is the state itself
    n, mdp = len(learner.experience.replay), learner.mdp
    s, u = learner.experience.replay.s[:n], learner.experience.replay.u[:n]
    a = mdp.act(s, u)
    assert mdp.feasible(s, a).all()
    assert (a <= s).all()
    assert (a >= 0).all()
    added = (u - learner.actor.raw(s)).detach()  # the actor has not learned yet
    assert abs(float(added.mean())) < 4 * noise / np.sqrt(n)  # four standard errors
    assert abs(float(added.std()) - noise) < 4 * noise / np.sqrt(2 * n)
    # The same noise in the action's own unit would be of the same size for poor and rich; shares are.
    share = (a / s)[:, 0]
    poor, rich = s[:, 0] < s.quantile(0.3), s[:, 0] > s.quantile(0.7)
    assert s[rich].mean() > 2 * s[poor].mean()
    assert abs(float(share[poor].std() / share[rich].std()) - 1) < 0.2  # a thousand each: 3%, and the policy's slope


def test_without_noise_the_actor_acts(quick):
    learner = learner_of(rung=0, noise=0.0)
    n = len(learner.experience.replay)
    torch.testing.assert_close(learner.experience.replay.u[:n], learner.actor.raw(learner.experience.replay.s[:n]))


# Reproducibility


@RUNGS
def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(quick, rung):
    results = []
    for seed, disturbance in ((1, 11), (1, 22), (2, 11)):
        torch.manual_seed(disturbance)  # the global generator belongs to the user
        results.append(run(BrockMirman(), DDPG(rung=rung, **SMALL), seed=seed, steps=12))
    assert same(results[0].policy, results[1].policy)
    assert same(results[0].value, results[1].value)
    assert [row["error"] for row in results[0].log] == [row["error"] for row in results[1].log]
    assert not same(results[0].policy, results[2].policy)


def test_a_timed_run_can_be_repeated_by_its_steps(quick, monkeypatch):
    """The plan measures with a learner of its own, which must not use up random numbers; then 15 steps, say."""
    plan = ddpg.DDPG.plan
    planned = []

    def short(self, *arguments):
        planned.append(plan(self, *arguments))
        return 15

    monkeypatch.setattr(ddpg.DDPG, "plan", short)
    timed = econrl.solve(BrockMirman(), DDPG(**SMALL), time_limit=1000, seed=3, progress=False)
    assert planned[0] > 1000  # of a thousand seconds
    assert timed.info["steps"] == 15
    assert timed.info["time_limit"] == 1000
    monkeypatch.setattr(ddpg.DDPG, "plan", plan)
    again = econrl.solve(BrockMirman(), DDPG(**SMALL), steps=timed.info["steps"], seed=3, progress=False)
    assert same(timed._policy, again._policy)
    assert same(timed._value, again._value)


def test_the_time_limit_stops_a_run_that_is_slower_than_planned(quick, monkeypatch):
    monkeypatch.setattr(ddpg.DDPG, "plan", lambda self, *arguments: 400)
    monkeypatch.setattr(Task, "remaining", lambda self: 0.0)
    result = run(BrockMirman(), DDPG(**SMALL), time_limit=1.0)
    assert result.steps < 400
    assert not result.converged
    assert f"time limit after {result.steps} of 400 planned steps" in result.message


# Which policy, and when to stop


@pytest.fixture
def scripted(monkeypatch):
    """Held-out errors by script; what was measured is kept."""
    seen = []

    def script(errors):
        errors = iter(errors)

        def error(self, policy, value):
            seen.append((policy.on(self.mdp), value.on(self.mdp)))
            now = next(errors)
            if isinstance(now, BaseException):
                raise now
            return now

        monkeypatch.setattr(HeldOut, "error", error)
        return seen

    return script


def test_the_policy_returned_is_the_one_measured_best(quick, scripted):
    seen = scripted([0.5, 0.3, 0.1, 0.4, 0.2, 0.6])
    result = run(BrockMirman(), DDPG(**SMALL), steps=6)
    assert [row["error"] for row in result.log] == [0.5, 0.3, 0.1, 0.4, 0.2, 0.6]
    assert result.steps == 6
    policy, value = seen[2]
    assert same(result.policy, policy)  # the step measured, neither the one after nor the last
    assert same(result.value, value)
    assert not same(result.policy, seen[3][0])
    assert not same(result.policy, seen[-1][0])


def test_a_policy_that_breaks_down_is_never_the_best(quick, scripted):
    seen = scripted([float("inf"), 0.3, float("inf")])
    result = run(BrockMirman(), DDPG(**SMALL), steps=3)
    assert same(result.policy, seen[1][0])


def test_a_policy_that_is_not_a_number_has_an_infinite_error(quick):
    learner = learner_of()
    held_out = HeldOut(BrockMirman())
    assert held_out.error(learner.actor, learner.critic) < 10
    with torch.no_grad():
        learner.actor.body[0].weight[0, 0] = torch.nan
    assert held_out.error(learner.actor, learner.critic) == float("inf")


@pytest.mark.parametrize("for_measuring", [0.0, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("between", [20, 100])
def test_a_time_limit_is_spent_on_steps_however_long_a_measurement_takes(for_measuring, between):
    steps = training.steps_in(60.0, 0.02, for_measuring, between)
    measurements = math.ceil(steps / max(steps // training.MEASUREMENTS, between))
    cost = 0.02 * steps + for_measuring * measurements
    assert steps >= between
    assert 30.0 < cost <= 60.0 + for_measuring + 1e-9  # the last measurement may come sooner after the one before


def test_the_clock_is_looked_at_after_every_step_however_rarely_the_error_is_measured(quick, monkeypatch):
    monkeypatch.setattr(training, "MEASURE_EVERY", 1000)
    looks = itertools.count(1)
    monkeypatch.setattr(Task, "remaining", lambda self: 10.0 - next(looks))
    result = run(BrockMirman(), DDPG(**SMALL), steps=1000)
    assert result.steps == 10
    assert "time limit" in result.message


def test_tol_stops_early(quick, scripted):
    scripted([0.5, 0.3, 0.01, 0.001])
    result = run(BrockMirman(), DDPG(**SMALL, every=1), steps=40, tol=0.01)
    assert result.steps == 3
    assert result.converged
    scripted([0.5] * 100)
    result = run(BrockMirman(), DDPG(**SMALL), steps=5, tol=0.01)
    assert result.steps == 5
    assert not result.converged


def test_an_interrupt_returns_the_best_so_far_and_says_so(quick, scripted):
    seen = scripted([0.5, 0.1, 0.3, KeyboardInterrupt()])
    result = run(BrockMirman(), DDPG(**SMALL, every=1), steps=20)
    assert len(result.log) == 3
    assert same(result.policy, seen[1][0])
    assert "interrupted after 4 of 20" in result.message
    assert not result.converged


def test_an_interrupt_before_any_policy_was_measured_still_returns_one(quick, scripted):
    seen = scripted([KeyboardInterrupt(), 0.7])
    result = run(BrockMirman(), DDPG(**SMALL), steps=20)
    assert same(result.policy, seen[1][0])
    assert "interrupted" in result.message


@dataclass(frozen=True, kw_only=True)
class Pothole(BrockMirman):
    """The reward is not a number where capital is low."""

    def reward(self, s, a):
        return torch.where(s.k < 0.6 * self.k_ss, torch.nan, a.c.log())


@RUNGS
def test_a_reward_that_is_not_a_number_stops_the_solve_and_says_where(quick, rung):
    with pytest.raises(SolveError, match=r"Pothole.*reward.*nan.*k = ") as caught:
        run(Pothole(), DDPG(rung=rung, **SMALL), steps=40)
    k = float(str(caught.value).split("k = ")[1].split(",")[0])
    assert k < 0.6 * Pothole().k_ss


def test_states_for_selection_and_for_reporting_differ(quick):
    held_out = HeldOut(BrockMirman())
    learner = learner_of()
    policy = learner.actor.on(held_out.mdp)
    seen = []

    def watched(s):
        seen.append(s.detach().reshape(-1, 2))
        return policy(s)

    held_out.error(Handmade(watched), learner.critic)
    selection = {tuple(row) for row in torch.cat(seen).tolist()}
    reported = samples(held_out.mdp, policy, 1000)
    for states, _ in reported.values():
        assert not selection & {tuple(row) for row in states.tolist()}
    again = samples(held_out.mdp, policy, 1000)
    assert torch.equal(reported["box"][0], again["box"][0])


def test_a_policy_that_saves_everything_is_not_chosen(quick):
    """c = y (-ln y)^p / 1000 with alpha^p = alpha beta solves the Euler equation, and consumes next to nothing.

    All of its paths leave the domain. A small error for it is a solver that says converged with a wrong policy.
    """
    model = BrockMirman(sigma=0.001)
    p = np.log(model.alpha * model.beta) / np.log(model.alpha)

    def policy(s):
        y = s[..., 1:].exp() * s[..., :1] ** model.alpha
        return y * (-y.log()) ** p / 1000

    assert HeldOut(model).error(Handmade(policy), Handmade(lambda s: -30 + 0 * s[..., 0])) > 0.1


def test_selection_sees_every_age_of_a_life(quick):
    held_out = HeldOut(LifeCycle())
    learner = learner_of(LifeCycle())
    policy = learner.actor.on(held_out.mdp)
    asked = []

    def watched(s):
        asked.append(s.detach())
        return policy(s)

    held_out.error(Handmade(watched), learner.critic)
    box = len(held_out.box)
    measured = next(s for s in asked if len(s) > box and torch.equal(s[-box:], held_out.box))
    assert measured[:-box, 1].unique().numel() == 60  # of the simulation: paths born together are measured together


# Settings


def test_an_unknown_rung_is_refused():
    with pytest.raises(MethodError, match="rung=4"):
        DDPG(rung=4)


@pytest.mark.parametrize("rung", [0, 1, 2])
def test_pathwise_is_a_rollout_and_nothing_else(rung):
    assert Pathwise().rung == 3
    with pytest.raises(MethodError, match=f"pathwise: `rung` must be 3, .*`ddpg`, got {rung}"):
        Pathwise(rung=rung)


def test_the_first_fit_is_as_long_as_its_settings_say(quick):
    """Without a step the value is that of an untrained network; with some it is closer to what the start earns."""
    errors = []
    for start_steps in (0, 100):
        learner = learner_of(start_steps=start_steps, start_states=256)
        s = learner.mdp.sample_box(200, torch.Generator().manual_seed(9))
        earned = lifetime_reward(learner.mdp, learner.start.u[None], s, torch.Generator().manual_seed(9))[0]
        errors.append(float((learner.critic(s) - earned).detach().abs().mean()))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    "setting",
    [
        {"batch": 0},
        {"hidden": ()},
        {"actor_lr": -1e-3},
        {"critic_lr": -1e-3},
        {"tau": 1.5},
        {"noise": -1.0},
        {"environments": 0},
        {"eta": 1.5},
        {"start_states": 0},
        {"start_steps": -1},
        {"batch": 64, "capacity": 50},  # the buffer would be filled until it holds a batch, forever
    ],
    ids=lambda s: "-".join(s),
)
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(MethodError, match=list(setting)[-1]):
        DDPG(**setting)


def test_threads_and_denormals_are_left_as_they_were(quick):
    before = torch.get_num_threads()
    econrl.solve(BrockMirman(), DDPG(**SMALL), steps=2, progress=False)
    assert torch.get_num_threads() == before
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    assert float(tiny * 0.5) > 0


# What it all leads to


def start_at(monkeypatch, u):
    """The usual start, but at other constant shares."""

    def start(mdp, generator):
        found = best_constant_shares(mdp, generator)
        return dataclasses.replace(found, u=torch.full_like(found.u, u))

    monkeypatch.setattr(off_policy, "best_constant_shares", start)


SLOW_AND_SURE = {"hidden": (32, 32), "batch": 128, "actor_lr": 1e-3, "critic_lr": 5e-3, "tau": 0.1}


@pytest.mark.parametrize(("rung", "goal"), [(0, 0.08), (1, 0.08), (2, 0.01)])
def test_every_rung_learns_the_closed_form(monkeypatch, rung, goal):
    """From saving half of output instead of a third: consumption is wrong by 24%. The known model takes it below one.

    Without the model a third of the error may remain: seeds end between 0.5% and 1.5%.
    """
    start_at(monkeypatch, 0.0)
    model = BrockMirman()
    assert 1 - 0.5 / (1 - model.alpha * model.beta) > 0.23  # where it begins
    result = run(model, DDPG(rung=rung, **SLOW_AND_SURE), steps=400)
    assert policy_error(result, model) < goal


@pytest.mark.parametrize("u", [12.0])
def test_an_actor_that_starts_stuck_at_a_bound_recovers(monkeypatch, u):
    """The sigmoid's slope is 6e-6 there: a plain gradient would not move it in a lifetime."""
    start_at(monkeypatch, u)
    result = run(BrockMirman(), DDPG(hidden=(32, 32), batch=128), steps=300)
    assert policy_error(result, BrockMirman()) < 0.1  # of an error of 0.53 or 1 where it begins; not yet precise


def test_an_action_without_bounds_in_a_model_without_an_euler_equation():
    model = LinearQuadratic(n=2, m=1)
    result = run(model, DDPG(**{**SLOW_AND_SURE, "actor_lr": 5e-3}), steps=200)
    mdp = MDP(model)
    s = mdp.sample_box(500, torch.Generator().manual_seed(9))
    gap = result.policy.on(mdp)(s) - mdp.exact_policy(s)
    assert gap.abs().mean() < 0.15 * mdp.exact_policy(s).abs().mean()


@dataclass(frozen=True, kw_only=True)
class BoundedAbove(Model):
    """The best action is x = -1; as it has an upper bound alone, it falls in its unbounded u."""

    beta: float = 0.9

    def states(self):
        return State("k", low=-1.0, high=1.0)

    def actions(self):
        return Action("x", high=2.0)

    def shocks(self):
        return Normal("eps", std=0.1)

    def reward(self, s, a):
        return -((a.x + 1) ** 2) - (s.k - 0.5) ** 2

    def transition(self, s, a, e):
        return {"k": 0.5 * s.k + e.eps}

    def exact_policy(self, s):
        return {"x": torch.full_like(s.k, -1.0)}


@dataclass(frozen=True, kw_only=True)
class Linked(BoundedAbove):
    """y is best on its bound x, so that x pays (3 - 2) x - x^2: raising x alone, without y, never does."""

    def actions(self):
        return Action("x", low=0.0, high=1.0), Action("y", low=0.0, high=lambda s, a: a.x)

    def reward(self, s, a):
        return 3 * a.y - a.x**2 - 2 * a.x

    def exact_policy(self, s):
        return {"x": torch.full_like(s.k, 0.5), "y": torch.full_like(s.k, 0.5)}


@pytest.mark.parametrize("model", [BoundedAbove(), Linked()], ids=["bounded above", "linked"])
def test_the_actor_climbs_in_its_own_unbounded_coordinate(model):
    """Neither transition depends on the actions, either."""
    result = run(model, DDPG(hidden=(16, 16), batch=64), steps=400)
    assert policy_error(result, model) < 0.05


@dataclass(frozen=True, kw_only=True)
class Certain(Model):
    """No shock, and a state that is a vector."""

    beta: float = 0.9

    def states(self):
        return State("x", low=0.5, high=2.0, size=2)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.x, size=2)

    def reward(self, s, a):
        return a.c.log().sum(-1)

    def transition(self, s, a, e):
        return {"x": (s.x - a.c) ** 0.5}

    def exact_policy(self, s):
        return {"c": (1 - 0.5 * self.beta) * s.x}


def test_a_model_without_shocks_and_with_a_vector_action():
    result = run(Certain(), DDPG(**{**SLOW_AND_SURE, "actor_lr": 5e-3}), steps=80)
    assert policy_error(result, Certain()) < 0.05
