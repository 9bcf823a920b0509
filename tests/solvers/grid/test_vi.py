"""Value function iteration against closed forms, a finer grid and another solver; and what it says when it cannot."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import quantecon
import scipy.sparse
import torch

from econrl import Action, MarkovChain, Model, State
from econrl.accuracy.error_table import accuracy_table, samples
from econrl.errors import MethodError, SolveError
from econrl.models import BrockMirman, BufferStock, Investment, LifeCycle, LinearQuadratic, StochasticGrowth
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER
from econrl.solvers.common.task import Task
from econrl.solvers.grid.maximise import best_candidate, candidates, newton
from econrl.solvers.grid.vi import VI


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solve(model, method, **task):
    return method.run(MDP(model), Task(model, torch.device("cpu"), **task))


def errors(model, result, points=2000):
    """log10 errors by (sample, measure), measured with more nodes than the solver had."""
    mdp = MDP(model, quadrature=FINER)
    policy, value = result.policy.on(mdp), result.value.on(mdp)
    table = accuracy_table(mdp, find_structure(mdp), policy, value, samples(mdp, policy, points))
    return table.set_index(["sample", "measure"])


def box(model, n=500):
    mdp = MDP(model)
    return mdp, mdp.sample_box(n, torch.Generator().manual_seed(1))


# The optimiser


def test_newton_finds_interior_maxima_and_bounds():
    target = torch.tensor([[0.3, 0.6], [0.0, 1.0]], dtype=torch.float64)

    def Q(s, u):
        return -(u.sigmoid() - s).square().sum(-1) - 0.5 * (u.sigmoid() - s).prod(-1)

    u, value = best_candidate(Q, target, candidates(2))
    u, value = newton(Q, target, u, value)
    assert (u.sigmoid() - target).abs().max() < 1e-7  # at a bound: e^-20
    assert (value >= -1e-12).all()


def test_newton_takes_nan_for_minus_infinity():
    s = torch.tensor([[0.5]], dtype=torch.float64)

    def Q(s, u):
        return (torch.where(u > 0, u, torch.nan).log() - u)[:, 0]

    u, value = newton(Q, s, *best_candidate(Q, s, candidates(1)))
    assert abs(float(u) - 1) < 1e-6
    assert float(value) == pytest.approx(-1)


# Closed forms


def test_brock_mirman():
    result = solve(BrockMirman(), VI(points=24))
    assert result.converged
    found = errors(BrockMirman(), result)
    # V' is off by h^3, h = 1/24; in the corner of most capital and productivity the next state leaves the grid.
    assert found.loc[("box", "policy"), "mean"] < -5
    assert found.loc[("box", "policy"), "max"] < -3
    assert found.loc[("box", "value"), "max"] < -5.5
    assert found.loc[("box", "infeasible"), "mean"] == 0


def test_investment_with_constant_returns():
    model = Investment(theta=1.0, rho=0.0, productivity=1.01)
    found = errors(model, solve(model, VI(points=10)))
    # V is linear in K and z, so the grid is exact; what is left is rounding in a flat maximum, 1e-8 or less.
    assert found.loc[("box", "policy"), "max"] < -7
    assert found.loc[("box", "value"), "max"] < -8


def test_linear_quadratic():
    model = LinearQuadratic(n=2, m=1, noise=0.02)
    mdp, s = box(model)
    result = solve(model, VI(points=16))
    s = 0.3 * s  # from here no path leaves the box: V is a quadratic, which the spline holds exactly
    assert (result.policy(s) - mdp.exact_policy(s)).abs().max() < 1e-6
    assert (result.value(s) - mdp.exact_value(s)).abs().max() < 1e-6


def test_plain_value_iteration_agrees_with_howards():
    model = BrockMirman(beta=0.8)
    method = VI(points=10, margin=0.0, spacing=0.0, change=1e-8)
    _, s = box(model)
    fast = solve(model, method)
    plain = solve(model, VI(**{**vars(method), "howard": 0, "every": 1000}))
    assert plain.converged
    assert plain.steps > fast.steps
    assert (fast.value(s) - plain.value(s)).abs().max() < 1e-5  # the change over 1 - beta, times the scale


# Residuals


def test_stochastic_growth():
    found = errors(StochasticGrowth(), solve(StochasticGrowth(), VI(points=24)))
    assert found.loc[("ergodic", "euler"), "mean"] < -4.5
    assert found.loc[("box", "euler"), "max"] < -3.5


def test_the_grid_has_to_reach_beyond_the_domain():
    """Simulated capital leaves the domain; on a grid that ends there the error is many times larger."""
    wide = errors(StochasticGrowth(), solve(StochasticGrowth(), VI(points=16)))
    narrow = errors(StochasticGrowth(), solve(StochasticGrowth(), VI(points=16, margin=0.0)))
    assert wide.loc[("ergodic", "euler"), "mean"] < narrow.loc[("ergodic", "euler"), "mean"] - 0.5


def test_buffer_stock():
    model = BufferStock()
    result = solve(model, VI(points=200))
    found = errors(model, result)
    assert found.loc[("ergodic", "euler"), "mean"] < -3.5
    assert found.loc[("box", "euler"), "mean"] < -3.5
    poor = torch.tensor([[0.3], [0.4]], dtype=torch.float64)
    assert (result.policy(poor) / poor > 1 - 1e-6).all()  # the constraint binds


def test_life_cycle():
    model = LifeCycle(horizon=8, retirement=5)
    _, s = box(model)
    coarse, fine = solve(model, VI(points=100)), solve(model, VI(points=400))
    last = s.clone()
    last[:, -1] = 7
    assert (coarse.policy(last) / last[:, :1] > 1 - 1e-6).all()
    # The kinks of the policy are off by less than a cell's width, an eighth of a unit of income at most.
    assert ((coarse.policy(s) - fine.policy(s)) / s[:, :1]).abs().max() < 0.01
    assert errors(model, fine).loc[("ergodic", "euler"), "mean"] < -3.5


# Markov chains


@dataclass(frozen=True, kw_only=True)
class IncomeRisk(Model):
    """Saving at R with a two-state income and no borrowing."""

    beta: float = 0.9
    R: float = 1.05

    def states(self):
        return State("w", low=0.0, high=4.0), MarkovChain("y", (0.7, 1.3), [[0.8, 0.2], [0.3, 0.7]])

    def actions(self):
        return Action("c", low=0.0, high=self.cash)

    def cash(self, s):
        return self.R * s.w + s.y

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"w": self.cash(s) - a.c}


def discrete_solution(model, n):
    """The same model with wealth confined to n points: grid, value (n, 2), next wealth (n, 2)."""
    w, y, P = np.linspace(0, 4, n), np.array([0.7, 1.3]), np.array([[0.8, 0.2], [0.3, 0.7]])
    now, income, then = (x.ravel() for x in np.meshgrid(np.arange(n), np.arange(2), np.arange(n), indexing="ij"))
    c = model.R * w[now] + y[income] - w[then]
    allowed = c > 0
    now, income, then, c = now[allowed], income[allowed], then[allowed], c[allowed]
    rows = np.repeat(np.arange(len(c)), 2)
    columns = (then[:, None] * 2 + np.arange(2)).ravel()
    Q = scipy.sparse.csr_matrix((P[income].ravel(), (rows, columns)), shape=(len(c), 2 * n))
    problem = quantecon.markov.DiscreteDP(np.log(c), Q, model.beta, now * 2 + income, then)
    solution = problem.solve(method="policy_iteration")
    return w, solution.v.reshape(n, 2), w[solution.sigma].reshape(n, 2)


def test_a_markov_chain_against_a_discrete_solution():
    model = IncomeRisk()
    w, v, then = discrete_solution(model, 200)
    result = solve(model, VI(points=80))
    assert result.converged
    for i, y in enumerate((0.7, 1.3)):
        s = torch.tensor(np.column_stack([w, np.full_like(w, i)]))
        saved = model.R * w + y - result.policy(s)[:, 0].numpy()
        assert np.abs(saved - then[:, i]).max() < 2 * (w[1] - w[0])  # its choices are whole grid steps
        gap = result.value(s).numpy() - v[:, i]
        assert gap.min() > -1e-4  # more choice cannot be worse
        assert gap.max() < 5e-3


def test_far_beyond_the_grid_the_shares_stay_what_they_are():
    """Extrapolated, they run into a bound: one who is rich enough would save all, or eat all."""
    model = BrockMirman()
    policy = solve(model, VI(points=10)).policy
    far = torch.tensor([[10 * model.k_ss, 0.0], [100 * model.k_ss, 0.0]], dtype=torch.float64)
    shares = policy.mdp.shares(far, policy(far))
    assert (shares - (1 - model.alpha * model.beta)).abs().max() < 1e-3


# What goes wrong


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(SolveError, match=r"bytes for 400 grid points .* Reduce `points`"):
        solve(StochasticGrowth(), VI(points=20, memory_limit=1e6))
    with pytest.raises(SolveError, match="memory_limit"):
        solve(LinearQuadratic(n=8), VI(points=12))


@pytest.mark.parametrize(
    "setting", [{"every": 0}, {"nodes": 0}, {"howard": -1}, {"margin": -0.1}, {"change": 0.0}], ids=str
)
def test_impossible_settings_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(MethodError, match=f"vi: `{name}` must be"):
        VI(**setting)


def test_settings_that_do_not_fit_the_model_are_refused():
    with pytest.raises(MethodError, match="2 continuous states"):
        solve(StochasticGrowth(), VI(points=(10, 10, 10)))
    with pytest.raises(MethodError, match="quintic"):
        solve(StochasticGrowth(), VI(interpolation="quintic"))


@dataclass(frozen=True, kw_only=True)
class Broken(IncomeRisk):
    """Its reward is NaN above w = 3."""

    def reward(self, s, a):
        return torch.where(s.w > 3, torch.nan, a.c.log())


@dataclass(frozen=True, kw_only=True)
class Lost(IncomeRisk):
    """Its transition is NaN above w = 3."""

    def transition(self, s, a, e):
        return {"w": torch.where(s.w > 3, torch.nan, self.cash(s) - a.c)}


@pytest.mark.parametrize(("model", "function"), [(Broken(), "Broken.reward"), (Lost(), "Lost.transition")])
def test_nan_names_the_function_and_the_state(model, function):
    with pytest.raises(SolveError, match=rf"{function} is nan at state w = 3\.\d+, y = "):
        solve(model, VI(points=20))


def test_an_infinite_value_is_an_error():
    with pytest.raises(SolveError, match="no finite value"):
        solve(Investment(beta=1.0), VI(points=8))


def test_an_interrupt_returns_the_best_so_far():
    def interrupt(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    result = solve(BrockMirman(), VI(points=10), report=interrupt)
    assert not result.converged
    assert "interrupted" in result.message
    assert [row["step"] for row in result.log] == [1, 2]


def test_steps_and_tolerance_are_kept():
    short = solve(BrockMirman(), VI(points=10), steps=2)
    assert (short.steps, short.converged) == (2, False)
    assert "2 iterations" in short.message
    loose = solve(BrockMirman(), VI(points=10, change=1e-300), tol=0.05)  # a change that is never reached
    assert loose.converged
    assert loose.log[-1]["error"] <= 0.05


def test_a_life_cycle_stopped_early_says_so():
    result = solve(LifeCycle(horizon=6, retirement=4), VI(points=20), steps=2)
    assert not result.converged
    assert "4 of 6 to go" in result.message


@pytest.mark.parametrize(("model", "enough"), [(BrockMirman(), 100.0), (LifeCycle(horizon=6, retirement=4), 16.0)])
def test_the_clock_is_looked_at_within_an_iteration(model, enough, monkeypatch):
    """A first sweep of a large grid can take longer than the limit: no policy, and a message; a later one is given
    up."""
    with pytest.raises(SolveError, match="the time limit was over before a first policy was found on a coarse grid"):
        solve(model, VI(points=20), time_limit=0.0)
    looks = itertools.count()
    monkeypatch.setattr(Task, "remaining", lambda task: enough - next(looks))
    result = solve(model, VI(points=20, change=1e-300))
    assert not result.converged
    assert "stopped by the time limit" in result.message
