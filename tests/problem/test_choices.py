"""Discrete choices and discrete states: read, checked, solved and shown; against closed forms and another solver."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import Choice, DiscreteState, State
from econrl.accuracy.error_table import measure
from econrl.errors import MethodError, SpecError
from econrl.models import JobSearch, Retirement, RustBus
from econrl.optimality.find_structure import find_structure
from econrl.optimality.greedy import greedy_residuals, regret
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers import METHODS
from econrl.solvers.grid.vi import VI
from example_models import Mixed


def solve(model, method="vi", **budget):
    return econrl.solve(model, method, progress=False, **budget)


# The spec


def test_a_choice_is_the_number_of_its_option_in_every_form():
    mdp, generator = MDP(Mixed()), torch.Generator().manual_seed(0)
    assert mdp.choices == [(0, 2), (2, 3)]
    assert mdp.free == [1, 3, 4]
    assert mdp.options.tolist() == [[i, j] for i in (0, 1) for j in (0, 1, 2)]
    s = mdp.sample_box(500, generator)
    assert sorted(s[:, 1].unique().tolist()) == [0, 1, 2]
    u = mdp.sample_options(torch.randn(500, 5, generator=generator, dtype=torch.float64), generator)
    a = mdp.act(s, u)
    assert torch.equal(a[:, [0, 2]], u[:, [0, 2]])
    assert sorted(a[:, 2].unique().tolist()) == [0, 1, 2]
    assert mdp.feasible(s, a).all()
    assert torch.allclose(mdp.unsquash(mdp.shares(s, a)), u)
    assert (a[:, 1] > s[:, 0]).any(), "the bound of c does not read the choice"
    a[0, 2] = 3
    a[1, 0] = 0.5
    assert mdp.feasible(s, a)[:3].tolist() == [False, False, True]


def test_given_its_choices_a_model_is_a_continuous_one():
    mdp, generator = MDP(Mixed()), torch.Generator().manual_seed(0)
    s, option = mdp.sample_box(50, generator), mdp.tensor([1, 2])
    free = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    given, whole = mdp.given(option), mdp.join(option, free)
    assert whole[0].tolist() == [1, free[0, 0], 2, *free[0, 1:].tolist()]
    a, e = mdp.act(s, whole), mdp.sample_shocks(s, generator)
    assert torch.equal(given.act(s, free), a[:, mdp.free])
    assert torch.equal(given.reward(s, a[:, mdp.free]), mdp.reward(s, a))
    assert torch.equal(given.transition(s, a[:, mdp.free], e), mdp.transition(s, a, e))
    assert not given.choices
    assert given.A == 3


@pytest.mark.parametrize("model", [Mixed(), JobSearch(), RustBus(), Retirement()])
def test_the_specs_keep_their_promises(model):
    assert econrl.check(model) == []


def changed(**functions):
    return type("Broken", (Mixed,), functions)()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (changed(actions=lambda self: Choice("work", n=1)), "Choice 'work' has n = 1"),
        (changed(states=lambda self: (State("k", 1.0, 2.0), DiscreteState("mood", n=1.5))), "'mood' has n = 1.5"),
        (
            changed(transition=lambda self, s, a, e: {"k": s.k, "mood": a.town / 2}),
            "Broken.transition: 'mood' is 0.5.*whole number from 0 to 2",
        ),
        (
            changed(transition=lambda self, s, a, e: {"k": s.k, "mood": a.town + 1}),
            "Broken.transition: 'mood' is 3.*whole number from 0 to 2",
        ),
        (changed(reward=lambda self, s, a: a.c.log() * (1 if a.work == 1 else 2)), "use torch.where in place of `if`"),
    ],
)
def test_a_mistake_in_a_choice_is_told(model, message):
    dataclass_ = dataclass(frozen=True, kw_only=True)(type(model))
    with pytest.raises(SpecError, match=message):
        econrl.check(dataclass_())


def test_methods_without_choices_say_so_before_they_start_and_name_those_that_can():
    with pytest.raises(MethodError, match=r"'accept' is a discrete choice. Methods that can: .*\bvi\b(?!.*td0)"):
        solve(JobSearch(), "newton")
    assert all(cls().why_not(MDP(Mixed())) for cls in METHODS.values() if not cls.choices)


# Solved


def test_the_reservation_wage():
    """Exact: w* = b + beta/(1-beta) E(w' - w*)+. Both values have a kink there, which a spline misses by less than half
    of a step of the grid, and an expectation of a kinked function needs many nodes."""
    model = JobSearch()
    w = model.reservation_wage
    offers = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    assert w == pytest.approx(model.b + 19 * float((offers - w).clamp(min=0).mean()), rel=1e-5)
    for method, tolerance in ((VI(), 5e-3), (VI(nodes=101, points=1000), 1e-3)):
        solution = solve(model, method)
        wages = np.linspace(0, 1, 20_001)
        found = wages[np.argmax(solution.policy({"w": wages})["accept"].numpy() == 1)]
        assert found == pytest.approx(w, rel=tolerance)


def test_engines_are_replaced_nearly_as_rust_s_logit_says_with_a_taste_among_the_states():
    """Against Rust's fixed point, computed by its own recursion on the same odometer: V(x) = log sum_d exp(v_d(x)), and
    the logit of v. Tastes at a distance of a half: the sum errs by distance^2 / 32 a month, times 40 months that count;
    a share by half of the probability of one taste, at most 1/16."""
    model = RustBus(RC=5.0, theta=30.0, most=60.0, tastes=33)
    x, n = np.arange(61), 61
    moves = np.zeros((n, n))
    for step, probability in enumerate(model.steps):
        moves[x, np.minimum(x + step, 60)] += probability
    V = np.zeros(n)
    for _ in range(1500):
        keep, replace = -model.theta * x / 1000 + model.beta * moves @ V, -model.RC + model.beta * moves[0] @ V
        V = np.logaddexp(keep, replace)
    logit = 1 / (1 + np.exp(keep - replace))

    solution = solve(model, VI(points=n, margin=0.0, spacing=0.0))
    tastes, p = model.taste.table.numpy(), model.taste.matrix[0].numpy()
    table = solution.policy_table({"x": x[:, None], "taste": tastes[None, :]})
    assert table["replace"].dtype.kind == "i"
    replaced, value = (table[name].to_numpy().reshape(n, len(p)) @ p for name in ("replace", "value"))
    assert logit.max() > 0.5
    assert np.abs(replaced - logit).max() < 1 / 16
    assert np.abs(value - V).max() < 0.3
    assert np.abs(value - V).max() / np.abs(V).max() < 0.01


def test_a_retired_consumer_eats_the_annuity_and_a_worker_retires_when_rich():
    """Without income and with log utility c = m / sum of the betas that remain."""
    model = Retirement(horizon=6)
    solution = solve(model, "auto")
    assert solution.info["converged"]
    m, t = torch.linspace(20, 400, 50, dtype=torch.float64), 2.0
    retired = solution.policy({"m": m, "career": 0.0, "t": t})
    annuity = sum(model.beta**k for k in range(4))
    assert torch.allclose(retired["c"], m / annuity, rtol=1e-6)
    works = solution.policy({"m": m, "career": 1.0, "t": t})["work"]
    assert works[0] == 1
    assert works[-1] == 0
    assert (works.diff() <= 0).all(), "one threshold of wealth"
    accuracy = solution.accuracy(2000).set_index(["sample", "measure"])
    assert accuracy.loc[("box", "greedy"), "mean"] < -3.0
    assert accuracy.loc[("box", "bellman"), "mean"] < -5.0
    assert accuracy.loc[("ergodic", "restarted"), "mean"] == 0, "all is eaten at the end of a life, which is no escape"


def test_choices_and_continuous_actions_of_all_kinds_together():
    """Two choices, two continuous variables: nobody gains by any other option, and first-order conditions hold."""
    solution = solve(Mixed(), VI(points=15))
    s = solution.mdp.sample_box(200, torch.Generator().manual_seed(1))
    residuals = greedy_residuals(solution.mdp, solution._policy, solution._value, s)
    assert residuals.abs().max() < 1e-4
    a = solution.policy(s)
    assert torch.allclose(a[:, 4] / a[:, 3:].sum(-1), torch.ones_like(a[:, 4]), atol=1e-4), "the second part is better"
    assert (a[:, 2] == 2).any()


def test_regret_is_what_the_best_option_would_add():
    """V = w / (1 - beta) for all, a wage kept for good: refusing w costs w - b and the wait."""
    model = JobSearch()
    solution, mdp = solve(model, VI(nodes=101)), MDP(model, quadrature=Quadrature(nodes=101))
    s = mdp.tensor([[0.9], [0.2]])
    wrong = mdp.tensor([[0.0], [1.0]])
    waiting = model.reservation_wage / (1 - model.beta)
    expected = [0.9 / 0.05 - waiting, waiting - (0.2 + model.beta * waiting)]
    found = regret(mdp, mdp.exact_value, s, wrong, 0)
    assert found[0] == pytest.approx(expected[0], rel=1e-3)  # the expectation of a kinked function by 101 nodes
    assert found[1] == pytest.approx(expected[1], rel=1e-3)
    assert regret(mdp, mdp.exact_value, s, 1 - wrong, 0).abs().max() < 1e-6
    measured = solution.accuracy(500).set_index(["sample", "measure"])
    assert measured.loc[("box", "policy"), "mean"] <= math.log10(2e-3)


def test_a_wrong_option_is_an_error_of_one():
    """Whatever the numbers of the options are, and however often the exact policy takes them."""
    mdp = MDP(JobSearch())
    s = mdp.tensor([[0.1], [0.2], [0.3], [0.9]])
    wrong = measure(mdp, find_structure(mdp), lambda s: 1 - mdp.exact_policy(s), mdp.exact_value, s)["policy"]
    assert wrong.tolist() == [1, 1, 1, 1]


def test_a_solution_with_choices_is_saved_and_loaded(tmp_path):
    solution = solve(Retirement(horizon=3), VI(points=(20,)))
    solution.save(tmp_path / "kept")
    again = econrl.load(tmp_path / "kept")
    assert again.policy_table().equals(solution.policy_table())
    assert {"work", "c"} <= set(solution.simulate(paths=5).columns)
    with pytest.raises(SpecError, match="'career' must be a whole number from 0 to 1"):
        solution.policy({"m": 30.0, "career": 0.5, "t": 0.0})
