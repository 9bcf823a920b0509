"""What td3 and sac share, with ddpg and with each other: targets, steps, replay and checkpoints."""

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
import learners
from econrl import DDPG, SAC, TD3, Action, Budget, MarkovChain, MethodError, Model, Normal, State
from econrl.accuracy.held_out import HeldOut
from econrl.approximation.constant_shares import ConstantShares
from econrl.approximation.networks import ActionValueNetwork
from econrl.approximation.units import Units
from econrl.models import IRBC, BrockMirman, LifeCycle
from econrl.problem.mdp import MDP
from econrl.solvers.common import training
from econrl.solvers.common.optimiser import Adam
from econrl.solvers.common.task import Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.off_policy import ddpg
from econrl.solvers.off_policy import learner as off_policy
from econrl.solvers.off_policy.twin_critics import Twins
from learners import CPU, mdp_of

SMALL = {"hidden": (16, 16), "batch": 32, "environments": 16}
TWINS = pytest.mark.parametrize("kind", [TD3, SAC])


pytestmark = pytest.mark.usefixtures("arithmetic_of_solve")


@pytest.fixture
def quick(monkeypatch):
    """Begin at an arbitrary constant, for tests of single steps."""
    units = Units(center=-10.0, scale=2.0)
    monkeypatch.setattr(
        off_policy, "best_constant_shares", lambda mdp, generator: ConstantShares(torch.zeros(mdp.A).to(mdp.low), units)
    )
    monkeypatch.setattr(training, "MEASURE_EVERY", 1)
    monkeypatch.setattr(training, "MEASUREMENTS", 40)
    monkeypatch.setattr(training, "LIGHTER", 1)


def learner_of(method, model=None, seed=0):
    """sac's policy does not wait here, where single steps are looked at."""
    method = dataclasses.replace(method, warm_up=0) if isinstance(method, SAC) else method
    return learners.learner_of(method, model, seed)


def numbers(modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Steps


@TWINS
@pytest.mark.parametrize("expected", [False, True])
def test_targets_get_no_gradient_and_move_only_by_following(quick, kind, expected):
    learner = learner_of(kind(expected=expected, **SMALL))
    learner.tau = 0.0
    modules = [learner.critics.body, learner.actor.body, learner.targets.body]
    before = [numbers([module]) for module in modules]
    for _ in range(4):
        learner.advance()
        learner.update(1.0)
    moved = [not same(numbers([module]), kept) for module, kept in zip(modules, before, strict=True)]
    assert moved == [True, True, False]
    assert all(not p.requires_grad and p.grad is None for p in learner.targets.body.parameters())
    assert all(p.grad is None for p in learner.critics.body.parameters())  # nothing is left for another step to pick up


@TWINS
@pytest.mark.parametrize("still", ["actor", "critic"])
def test_one_networks_step_leaves_the_other_as_it_was(quick, kind, still):
    learner = learner_of(kind(**SMALL))
    setattr(learner, f"{still}_lr", 0.0)
    before = numbers([learner.actor.body]), numbers([learner.critics.body])
    for _ in range(4):
        learner.update(1.0)
    assert same(numbers([learner.actor.body]), before[0]) == (still == "actor")
    assert same(numbers([learner.critics.body]), before[1]) == (still == "critic")


@TWINS
def test_the_critics_begin_apart_and_stay_apart(quick, kind):
    learner = learner_of(kind(**SMALL))
    for _ in range(3):
        assert not same(*(numbers([Q.body]) for Q in learner.critics.both))
        assert not same(*(numbers([Q.body]) for Q in learner.targets.both))
        learner.update(1.0)


@TWINS
def test_the_target_takes_the_smaller_value_at_each_state(quick, kind):
    learner = learner_of(kind(**SMALL))
    s = learner.mdp.sample_box(200, learner.generator)
    state = learner.generator.get_state()
    both = learner.next_value(s)
    alone = []
    for Q in learner.targets.both:
        kept, learner.targets = learner.targets, Twins(Q, Q).on(learner.mdp)
        learner.generator.set_state(state)
        alone.append(learner.next_value(s))
        learner.targets = kept
    assert (alone[0] != alone[1]).all()
    torch.testing.assert_close(both, torch.minimum(*alone), rtol=1e-6, atol=1e-6)  # float32


@TWINS
def test_soft_target_updates_move_by_tau(quick, kind):
    learner = learner_of(kind(tau=0.25, **SMALL, **({"delay": 1} if kind is TD3 else {})))
    before = numbers([learner.targets.body])
    learner.update(1.0)
    for old, new, now in zip(before, learner.critics.body.parameters(), learner.targets.body.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * new)  # float32


@TWINS
@pytest.mark.parametrize("expected", [False, True])
def test_a_life_that_ends_gets_its_terminal_value_and_one_that_does_not_bootstraps(quick, kind, expected):
    bequest = dataclass(frozen=True, kw_only=True)(
        type("Bequest", (LifeCycle,), {"terminal": lambda self, s: 100 * s.m, "beta": 0.9, "gamma": 1.0})
    )(horizon=4, retirement=0, gamma=1.0, beta=0.9)
    learner = learner_of(kind(expected=expected, **SMALL), bequest)
    batch = learner.experience.replay.read(torch.arange(len(learner.experience.replay)))
    last = batch.s_next[:, 1] == 4
    assert 0 < last.sum() < len(last)
    target = ddpg.expected_target if expected else ddpg.sampled_target
    y = target(learner.mdp, lambda s: torch.where(s[..., 1] >= 4, torch.nan, -7.0), batch)
    torch.testing.assert_close(y[~last], (batch.r - 0.9 * 7)[~last])
    if not expected:
        torch.testing.assert_close(y[last], (batch.r + 0.9 * 100 * batch.s_next[:, 0])[last])
    assert y.isfinite().all()
    for _ in range(3):
        learner.advance()
        learner.update(1.0)
    assert not learner.broken.seen


# Networks side by side, and their optimiser


@pytest.mark.parametrize("model", [BrockMirman(), IRBC(n=3)], ids=["fully connected", "pooled"])
def test_two_critics_as_one_are_what_they_are_alone_and_stay_so_as_they_learn(model):
    mdp, draws = MDP(model), torch.Generator().manual_seed(0)
    both = [ActionValueNetwork(mdp, (8, 8), {}, (8,)).to(mdp.dtype) for _ in range(2)]
    twins = Twins(*both)
    s = mdp.sample_box(20, draws).unflatten(0, (4, 5))
    u = torch.randn(4, 5, mdp.A, generator=draws, dtype=mdp.dtype)
    optimiser = Adam(twins.body)
    for _ in range(2):
        q = twins.raw(s, u)
        torch.testing.assert_close(q, torch.stack([Q.raw(s, u) for Q in both]))
        torch.testing.assert_close(twins.smaller(s, u), q.amin(dim=0))
        optimiser.descend(q.square().mean(), 0.1)
        assert not torch.allclose(twins.raw(s, u), q)


def test_ten_steps_are_those_of_torch_s_own_adam():
    torch.manual_seed(0)
    ours = torch.nn.Linear(3, 2)
    theirs = copy.deepcopy(ours)
    optimiser, reference = Adam(ours), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for x in torch.randn(10, 5, 3):
        optimiser.descend(ours(x).square().mean(), 0.01)
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_does_not_depend_on_how_its_gradient_lies_in_memory():
    """Kingma and Ba's first step is lr sign(g), but for the rounding of epsilon."""
    layer = torch.nn.Linear(2, 3, bias=False)
    before, gradient = layer.weight.detach().clone(), torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, 6.0]]).T
    assert not gradient.is_contiguous()
    Adam(layer).step([gradient], 0.1)
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * gradient.sign())


@pytest.mark.parametrize("units", [Units(2.0, 3.0), Units(2.0, 0.5, 1), Units(2.0, 0.5, -1)], ids=["linear", "+", "-"])
def test_values_rise_with_their_units_by_the_size_of_one(units):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    v = units.value(x)
    torch.testing.assert_close(units.raw(v), x)
    (slope,) = torch.autograd.grad(v.sum(), x)
    torch.testing.assert_close(units.size(v), slope)
    assert (slope > 0).all()
    assert (v.sign() == units.sign).all() or units.sign == 0
    torch.testing.assert_close(units.error(x, v + 0.1 * units.size(v)), torch.full_like(x, -0.1), rtol=0.3, atol=0)


def test_the_error_of_a_value_is_zero_at_the_mean_of_random_targets_and_never_flat():
    units = Units(2.0, 0.5, -1)
    y = -torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)
    assert units.error(units.raw(y.mean()), y).mean().abs() < 1e-12
    x = units.raw(torch.tensor([-400.0, -0.04], dtype=torch.float64)).requires_grad_()  # a hundred times too far
    (slope,) = torch.autograd.grad(units.error(x, torch.full_like(x, -4.0)).square().sum(), x)
    assert slope[0] < -1
    assert slope[1] > 1


def test_light_steps_are_measured_more_rarely():
    assert TD3().between == SAC().between == training.LIGHTER * DDPG().between > DDPG().between


# Several steps and priorities


@pytest.mark.parametrize("method", [DDPG(rung=0, n_step=3, **SMALL), TD3(n_step=3, **SMALL), SAC(n_step=3, **SMALL)])
def test_a_path_of_several_steps_reaches_what_the_model_reaches(quick, method):
    """Without shocks the path of a transition can be walked again: rewards, discount and the state that it ends in."""
    model = BrockMirman(sigma=0.0)
    learner = learner_of(method, model)
    for _ in range(6):
        learner.advance()
    paths, mdp, replay = 16, learner.mdp, learner.experience.replay
    n = len(replay) - 2 * paths  # these have two more steps behind them
    batch = replay.read(torch.arange(n))
    s, total, factor = batch.s, torch.zeros(n), torch.ones(n)
    going = torch.ones(n, dtype=torch.bool)
    for h in range(3):
        u = replay.u[h * paths : h * paths + n]
        total = torch.where(going, total + factor * mdp.reward(s, mdp.act(s, u)), total)
        factor = torch.where(going, factor * model.beta, factor)
        s = torch.where(going.unsqueeze(-1), mdp.transition(s, mdp.act(s, u), torch.zeros(n, 1)), s)
        going = going & replay.goes_on[h * paths : h * paths + n]
    assert going.float().mean() > 0.5
    torch.testing.assert_close(batch.r, total, rtol=1e-4, atol=1e-4)  # float32, walked again
    torch.testing.assert_close(batch.beta, factor)
    torch.testing.assert_close(batch.s_next, s, rtol=1e-4, atol=1e-4)


def test_paths_that_begin_anew_are_marked(quick):
    learner = learner_of(TD3(n_step=3, episode=2, **SMALL))
    for _ in range(10):
        learner.advance()
    n = len(learner.experience.replay) - 16
    goes_on, s_next = learner.experience.replay.goes_on[:n], learner.experience.replay.s_next[:n]
    follows = (learner.experience.replay.s[16 : 16 + n] == s_next).all(dim=-1)
    assert torch.equal(goes_on, follows)
    assert 0.4 < goes_on.float().mean() < 0.6  # every second one, of episodes of two periods


@pytest.mark.parametrize("settings", [{"rung": 1}, {"rung": 2}, {"rung": 3}])
def test_several_steps_do_not_go_with_expectations(settings):
    with pytest.raises(MethodError, match=r"ddpg: `n_step` = 2 needs sampled targets"):
        DDPG(n_step=2, **settings)
    for kind in (TD3, SAC):
        with pytest.raises(MethodError, match=r"`n_step` = 2 needs sampled targets"):
            kind(n_step=2, expected=True)


@pytest.mark.parametrize("method", [DDPG(rung=0, prioritised=0.6, **SMALL), TD3(prioritised=0.6, **SMALL)])
def test_the_replay_hears_of_the_critics_errors(quick, method):
    learner = learner_of(method)
    n = len(learner.experience.replay)
    assert (learner.experience.replay.priority[:n] == 1).all()
    learner.update(1.0)
    drawn = learner.experience.replay.priority[:n] != 1
    assert drawn.any()
    batch = learner.experience.replay.read(drawn.nonzero().flatten())
    assert batch.s.shape[1] == 2
    for _ in range(30):
        learner.update(1.0)
    assert not (learner.experience.replay.priority[:n] == 1).any()


@pytest.mark.parametrize(("rate", "exponent"), [(1.0, 0.3), (0.5, 0.65), (0.0, 1.0)])
def test_the_weights_of_prioritised_draws_go_from_eta_to_one(quick, rate, exponent):
    experience = learner_of(TD3(prioritised=1.0, eta=0.3, **SMALL)).experience
    n = len(experience.replay)
    experience.replay.correct(torch.arange(n), torch.linspace(1.0, 2.0, n))
    _, at, weights = experience.draw(rate)
    p = experience.replay.priority[at]
    torch.testing.assert_close(weights, ((p / p.min()) ** -exponent).float())


def test_priorities_and_uniform_draws_are_told_apart(quick):
    """With omega so small that all priorities are alike, the run is another one only by its draws."""
    assert type(learner_of(TD3(**SMALL)).experience.replay).__name__ == "Replay"
    assert type(learner_of(TD3(prioritised=1e-9, **SMALL)).experience.replay).__name__ == "PrioritisedReplay"
    with pytest.raises(MethodError, match="`prioritised` must be 0 on rungs 2 and 3"):
        DDPG(prioritised=0.6)


@pytest.mark.parametrize(
    "setting",
    [
        {"n_step": 0},
        {"prioritised": -0.1},
        {"prioritised": 1.1},
        {"batch": 0},
        {"hidden": ()},
        {"actor_lr": 0.0},
        {"tau": 1.5},
        {"batch": 64, "capacity": 50},
    ],
    ids=lambda s: "-".join(s),
)
@TWINS
def test_impossible_settings_are_refused_by_name(kind, setting):
    with pytest.raises(MethodError, match=f"{kind.name}.*{list(setting)[-1]}"):
        kind(**setting)


# Whole runs


class Killed(BaseException):
    """Nothing between the solver and the operating system may catch it."""


RUNS = [
    TD3(**SMALL, capacity=300),  # the replay wraps round before the end
    SAC(**SMALL, capacity=300, expected=True),
    SAC(**SMALL, capacity=300, n_step=3, prioritised=0.6),
]


@pytest.mark.parametrize("method", RUNS, ids=["td3", "sac, expected", "sac, steps and priorities"])
@pytest.mark.parametrize("model", [BrockMirman(), LifeCycle(horizon=5, retirement=3)], ids=["stationary", "life cycle"])
def test_a_killed_run_that_goes_on_ends_like_one_that_was_not_killed(quick, model, method, tmp_path, monkeypatch):
    call = {"model": model, "method": method, "steps": 24, "seed": 3, "progress": False}
    torch.manual_seed(11)  # the global generator belongs to the user
    whole = econrl.solve(**call)
    with monkeypatch.context() as patch:
        measure, seen = Tracker.measure, []

        def measured(self, *arguments, **columns):
            seen.append(1)
            if len(seen) == 10:
                raise Killed
            measure(self, *arguments, **columns)

        patch.setattr(Tracker, "measure", measured)
        with pytest.raises(Killed):
            econrl.solve(**call, checkpoint=tmp_path / "run")
    torch.manual_seed(22)
    resumed = econrl.solve(**call, checkpoint=tmp_path / "run")
    for a, b in ((whole._policy, resumed._policy), (whole._value, resumed._value)):
        assert same(a.state_dict().values(), b.state_dict().values())
    np.testing.assert_array_equal(whole.training["error"], resumed.training["error"])
    assert len(whole.training) == 24


@TWINS
def test_a_plan_takes_its_steps_back(quick, kind):
    fresh = learner_of(kind(prioritised=0.6, **SMALL))
    method, task = fresh.method, Task(BrockMirman(), CPU, time_limit=1000.0)
    run = method.begin(mdp_of(task.model, method), task, HeldOut(task.model))
    learner = run.learner
    method.plan(run)
    for x in (learner, fresh):
        x.advance()
        x.update(1.0)
    for a, b in zip(learner.networks, fresh.networks, strict=True):
        assert same(a.state_dict().values(), b.state_dict().values())


@TWINS
def test_a_solution_is_saved_and_loaded(quick, kind, tmp_path):
    solution = econrl.solve(BrockMirman(), kind(**SMALL), steps=3, progress=False)
    solution.save(tmp_path / "out")
    again = econrl.load(tmp_path / "out")
    s = torch.tensor([[0.2, 0.1]], dtype=torch.float64)
    assert torch.equal(solution.policy(s), again.policy(s))
    assert torch.equal(solution.value(s), again.value(s))


@dataclass(frozen=True, kw_only=True)
class Many(Model):
    """A chain, a budget, and an action without an upper bound."""

    beta: float = 0.9

    def states(self):
        return State("k", low=0.5, high=2.0), MarkovChain("y", values=[0.5, 1.0], P=[[0.8, 0.2], [0.3, 0.7]])

    def actions(self):
        return Budget("w", size=2, total=lambda s: s.k), Action("h", low=0.0)

    def shocks(self):
        return Normal("eps", std=0.1)

    def reward(self, s, a):
        rest = s.k - a.w.sum(dim=-1)
        return rest.log() + a.w.log().sum(dim=-1) - (a.h - s.y).square()

    def transition(self, s, a, e):
        return {"k": (0.5 * s.k + 0.3 * s.y * e.eps.exp())}


@TWINS
@pytest.mark.parametrize("expected", [False, True])
def test_chains_budgets_and_half_lines(quick, kind, expected):
    solution = econrl.solve(Many(), kind(expected=expected, **SMALL), steps=5, progress=False)
    table = solution.policy_table()
    assert (table[["w[0]", "w[1]", "h"]] > 0).all(axis=None)
    assert (table["w[0]"] + table["w[1]"] < table["k"]).all()
