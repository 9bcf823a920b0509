"""Time iteration on dense grids: exact where the answer is known, and as vi elsewhere."""

import copy
import re
from dataclasses import dataclass

import pytest
import torch

import econrl
from econrl import Action, Budget, MethodError, Model, Normal, Smolyak, SolveError, State, TimeIteration
from econrl.models import IRBC, BrockMirman, BufferStock, Investment, LifeCycle, LinearQuadratic, Portfolio
from econrl.optimality.bounded_forms import BOTH, FREE, HIGH, LOW, Forms
from econrl.optimality.euler import costate, euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import forms_with_multipliers, marginal_gain
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.task import Task
from econrl.solvers.grid import collocation, time_iteration_run
from econrl.solvers.grid.climb import climb, is_peak
from econrl.solvers.grid.collocation import Anderson, Collocation, Equations
from econrl.solvers.grid.sketch import first_answer
from econrl.utility import crra


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solve(model, method, **settings):
    return econrl.solve(model, method, progress=False, **settings)


def error(solution, measure="euler", sample="box", column="mean"):
    return solution.accuracy(1000).set_index(["sample", "measure"]).loc[(sample, measure), column]


def box(solution, n=300):
    return solution.mdp.sample_box(n, torch.Generator().manual_seed(1))


# Closed forms


def test_brock_mirman_is_exact_and_so_is_its_value():
    """Any grid holds the log-odds of a constant share exactly; V is logarithmic, and off by the spline's error."""
    solution = solve(BrockMirman(), TimeIteration(points=12))
    assert solution.info["converged"]
    s = box(solution)
    exact = solution.mdp.exact_policy(s)
    assert ((solution._policy(s) - exact) / exact).abs().max() < 1e-7
    assert error(solution, "value") < -5


def test_investment_with_constant_returns():
    model = Investment(theta=1.0, rho=0.0, productivity=1.01)
    solution = solve(model, TimeIteration(points=6))
    assert error(solution, "policy", column="max") < -7  # a constant, to the change at which the iteration ends


# Bounds


def test_the_kink_of_a_borrowing_limit_costs_nothing():
    """What is interpolated goes through the bound smoothly: shares themselves, which stop there, do worse."""
    solution = solve(BufferStock(), TimeIteration(points=60))
    assert solution._policy.forms.forms == [HIGH]
    poor = torch.tensor([[0.3], [0.4]], dtype=torch.float64)
    assert torch.equal(solution._policy(poor), poor)  # on the bound, not next to it
    by_value = solve(BufferStock(), econrl.VI(points=60))
    assert error(solution, column="max") < -3
    assert error(solution, column="max") < error(by_value, column="max") - 0.5


def test_beyond_a_bound_z_is_a_newton_step_away():
    """Next to the state where the bound begins to bind, z is linear in the state on both sides alike."""
    mdp = MDP(BufferStock())
    equations = Equations(mdp, find_structure(mdp), Forms(mdp, [HIGH]))
    s = torch.linspace(0.5, 0.9, 81, dtype=torch.float64).unsqueeze(-1)
    later = lambda s: torch.minimum(s, 0.55 + 0.4 * s)  # noqa: E731
    z, none = torch.full_like(s, -0.3), torch.zeros(81, 1, 1, dtype=torch.float64)
    z, _ = equations.solve(s, z, later, none)
    assert equations.residual(s, z, later).abs().max() < 1e-6
    extended = equations.extended(s, z, later)
    assert (z < -0.01).any()
    assert (extended[z == 0] > 0).any()
    slope = extended.diff(dim=0).flatten()
    at = int((z == 0).sum())
    assert slope[at + 2] < 0
    assert slope[at - 3] == pytest.approx(float(slope[at + 2]), rel=0.25)
    flat = z.diff(dim=0).flatten()
    assert flat[at - 3] == 0


def test_forms_put_a_budget_on_each_bound_by_itself():
    mdp = MDP(IRBC(n=2))
    forms = Forms(mdp, [LOW])
    z = torch.tensor([[-0.2, 0.5], [0.2, 0.3], [0.9, 0.5]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.5], [0.2, 0.3], [0.7, 0.3]], dtype=torch.float64)
    assert torch.allclose(forms.shares(z), expected)
    assert forms.outward(forms.project(z), 1e-9).tolist() == [[-1, 0], [0, 0], [0, 0]]
    one = Forms(MDP(BufferStock()), [BOTH])
    assert one.outward(torch.tensor([[0.0], [0.4], [1.0]]), 1e-9).flatten().tolist() == [-1, 0, 1]


# Life cycles and other kinds of models


def test_a_life_cycle_is_solved_in_one_pass():
    model = LifeCycle(horizon=6, retirement=4)
    solution = solve(model, TimeIteration(points=60))
    assert (solution.info["steps"], solution.info["converged"]) == (6, True)
    assert solution.policy({"m": [0.5, 3.0], "t": 5})["c"].tolist() == [0.5, 3.0]  # all is consumed at the end
    assert error(solution) < -4
    assert error(solution, "bellman") < -3


@dataclass(frozen=True, kw_only=True)
class Savings(Model):
    """beta R = 1, and no borrowing: c = min(m, (m + y sum_(i=1..n) R^-i) / sum_(i=0..n) R^-i), n periods left."""

    horizon: int = 3
    R: float = 1.05
    y: float = 0.8

    def states(self):
        return State("m", low=0.1, high=8.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def discount(self, s, a, e):
        return 1 / self.R

    def reward(self, s, a):
        return crra(a.c, 3.0)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + self.y}


def test_a_last_period_that_leaves_nothing_tells_no_multipliers():
    """There the gain of a larger share is the reward's own: a policy scaled by it came out as nothing at all."""
    model = Savings()
    solution = solve(model, TimeIteration(points=40))
    assert solution.info["converged"]
    m = torch.linspace(0.1, 8.0, 100, dtype=torch.float64)
    for t in range(model.horizon):
        worth = [model.R**-i for i in range(model.horizon - t)]
        right = torch.minimum(m, (m + model.y * sum(worth[1:])) / sum(worth))
        found = solution.policy({"m": m, "t": torch.full_like(m, t)})["c"]
        assert ((found / right - 1).abs() < 0.005).all()


@dataclass(frozen=True, kw_only=True)
class Hiring(Model):
    """Two inputs hired anew each period, which move no state: n = .4 y/.3 and k = .3 y/.2 of an output y."""

    beta: float = 0.9

    def states(self):
        return State("z", low=-0.3, high=0.3)

    def actions(self):
        return Action("n", low=0.0, high=3.0), Action("k", low=0.0, high=3.0)

    def shocks(self):
        return Normal("e", std=0.05)

    def reward(self, s, a):
        return 0.5 * s.z.exp() * (a.n + 1e-12) ** 0.4 * (a.k + 1e-12) ** 0.3 - 0.3 * a.n - 0.2 * a.k

    def transition(self, s, a, e):
        return {"z": 0.8 * s.z + e.e}


def test_actions_that_move_no_state():
    solution = solve(Hiring(), TimeIteration(points=8))
    assert solution.info["converged"]
    z = torch.tensor([-0.25, 0.0, 0.25], dtype=torch.float64)
    output = (0.5 * z.exp() * (0.4 / 0.3) ** 0.4 * (0.3 / 0.2) ** 0.3) ** (1 / 0.3)  # n = .4 y/.3, k = .3 y/.2
    found = solution.policy({"z": z})
    torch.testing.assert_close(found["n"], 0.4 / 0.3 * output, rtol=1e-3, atol=0)
    torch.testing.assert_close(found["k"], 0.3 / 0.2 * output, rtol=1e-3, atol=0)


def test_points_without_a_solution_are_told(monkeypatch):
    monkeypatch.setattr(collocation, "NEWTON_STEPS", 1)
    monkeypatch.setattr(collocation, "SEARCHES", 0)
    solution = solve(Savings(), TimeIteration(points=20))
    assert not solution.info["converged"]
    assert re.search(r"does not hold at \d+\.\d% of the grid's points, the worst .* m = ", solution.info["message"])


@pytest.mark.parametrize("jump", [0.0, 0.4])
def test_the_highest_peak_is_found_and_kinks_too(jump):
    """Q(x, y) with two peaks in x, the higher at .8 or, tilted, at .2; a kink at y = .3; in a budget of z."""
    slopes = lambda x: -400 * (x - 0.2) * (x - 0.5) * (x - 0.8) + 3 * (0.5 - jump * 2)  # noqa: E731

    def Q_slope(y):
        kink = torch.where(y[..., 1] < 0.3, 1.0, -0.5)
        return torch.stack([slopes(y[..., 0]), kink, 0.2 - y[..., 2], 0.3 - y[..., 3]], dim=-1)

    mdp = MDP(Lines())
    y = climb(mdp, Q_slope, torch.full((1, 4), 0.3, dtype=torch.float64))
    for _ in range(10):
        y = climb(mdp, Q_slope, y)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    best = x[(slopes(x) * 1e-5).cumsum(0).argmax()]
    assert float(y[0, 0]) == pytest.approx(float(best), abs=1e-3)
    assert y[0, 1:].tolist() == pytest.approx([0.3, 0.2, 0.3], abs=1e-5)
    assert is_peak(mdp, Q_slope, y).all()
    assert not is_peak(mdp, Q_slope, y + 0.01).any()


@dataclass(frozen=True, kw_only=True)
class Lines(Savings):
    """Two actions and a budget."""

    def actions(self):
        return (
            Action("x", low=0.0, high=1.0),
            Action("y", low=0.0, high=1.0),
            Budget("z", size=2, total=lambda s: 1 + 0 * s.m),
        )


def test_a_model_without_an_euler_equation_is_refused_with_methods_that_work():
    with pytest.raises(MethodError, match=r"no Euler equation .* Methods that can: .*\bvi\b"):
        solve(LinearQuadratic(n=3, m=1), TimeIteration())


def test_several_actions_at_once():
    assert error(solve(Portfolio(n=2), TimeIteration(points=6, nodes=5)), "policy") < -5


# The iteration


def test_anderson_finds_the_fixed_point_of_a_linear_map_in_as_many_steps_as_it_has_dimensions():
    generator = torch.Generator().manual_seed(0)
    M = 0.99 * torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    fixed = torch.ones(6, dtype=torch.float64)
    x, anderson = torch.zeros(6, dtype=torch.float64), Anderson()
    for _ in range(8):
        x = anderson.next(x, fixed + M @ (x - fixed))
    assert (x - fixed).abs().max() < 1e-6  # plain iteration would leave 0.99^8


def test_a_warm_start_saves_iterations():
    method = TimeIteration(points=40, sketch_steps=1)
    cold = solve(BufferStock(), method)
    warm = solve(BufferStock(), method, warm_start=cold)
    assert warm.info["steps"] < cold.info["steps"]


def test_a_time_limit_ends_it_with_a_message_and_the_best_policy_so_far():
    solution = solve(IRBC(n=1), TimeIteration(points=30, change=1e-13), steps=2)
    assert not solution.info["converged"]
    assert "stopped after 2 iterations" in solution.info["message"]
    late = solve(BrockMirman(), TimeIteration(points=12), time_limit=1e-3)
    assert "time limit after 0 iterations" in late.info["message"]
    assert error(late) < -0.5


def test_an_interrupt_returns_the_best_so_far(monkeypatch):
    plain, calls = Collocation.improve, []

    def interrupt(self, *settings):
        calls.append(self)
        if len([c for c in calls if c is self]) == 3:
            raise KeyboardInterrupt
        return plain(self, *settings)

    monkeypatch.setattr(Collocation, "improve", interrupt)
    solution = solve(BufferStock(), TimeIteration(points=20, sketch_steps=2))
    assert solution.info["message"].startswith("interrupted after 2 iterations, at a change of ")
    assert solution._policy.forms.forms in ([HIGH], [BOTH], [FREE])


@pytest.mark.parametrize("setting", [{"every": 0}, {"change": 0.0}, {"quadrature": -1.0}, {"nodes": 0}], ids=str)
def test_impossible_settings_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(MethodError, match=f"time_iteration: `{name}` must be"):
        TimeIteration(**setting)


def test_on_a_grid_a_policy_knows_the_multipliers_of_its_bounds():
    """Beyond a bound z tells G / |r_a| given the policy of tomorrow, which time iteration needs the day after."""
    model = IRBC(n=2, irreversible=True)
    mdp, task = MDP(model, quadrature=Quadrature(nodes=2)), Task(model, torch.device("cpu"))
    start, _ = first_answer(mdp, task)
    forms = forms_with_multipliers(mdp, [LOW], start, mdp.sample_box(50, torch.Generator().manual_seed(0)))
    it = Collocation("smolyak", mdp, forms.describe(), Smolyak().describe_grid(mdp, [2] * 4), lambda: None)
    it.begin(start)
    for _ in range(2):
        later = copy.deepcopy(it.policy)
        it.policy.fit(it.improve(0.0))
    price = lambda s: costate(mdp, it.equations.structure, later, s, multipliers=later.multipliers)  # noqa: E731
    expected = marginal_gain(mdp, price, it.s, it.policy(it.s))
    binds = it.policy.multipliers(it.s) != 0
    assert 2 <= binds.sum() < binds.numel()
    assert (it.policy.multipliers(it.s) - expected)[binds].abs().max() < 1e-6
    assert expected[~binds].abs().max() < 1e-6
    assert (later.multipliers(it.s) - it.policy.multipliers(it.s)).abs().max() > 1e-3  # not only tomorrow's

    again = Collocation("smolyak", mdp, forms.describe(), Smolyak().describe_grid(mdp, [2] * 4), lambda: None)
    again.begin(it.policy)
    torch.testing.assert_close(again.policy.multipliers(it.s), it.policy.multipliers(it.s))  # another start keeps them

    wrong = lambda: euler_residuals(mdp, it.equations.structure, it.policy, it.s, later).abs().max()  # noqa: E731
    assert wrong() < 1e-6
    it.policy.forms.steepness = [2 * x for x in forms.steepness]
    assert wrong() > 1e-3  # multipliers twice as large as they are do not go unnoticed


def test_bounds_whose_multipliers_do_not_matter_are_not_looked_for():
    mdp = MDP(BufferStock())
    s = mdp.sample_box(20, torch.Generator().manual_seed(0))
    assert not forms_with_multipliers(mdp, [HIGH], lambda s: 0.5 * s, s).knows_multipliers


def test_a_grid_that_cannot_fit_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(time_iteration_run, "sketch", lambda *a: pytest.fail("it began"))
    with pytest.raises(
        SolveError, match=r"time_iteration on IRBC needs about .* bytes for 1.1e\+12 grid points \(4\^20\)"
    ):
        solve(IRBC(n=10), TimeIteration())
