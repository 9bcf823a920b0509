"""The endogenous grid method against closed forms, value iteration and the Euler equation; and what it refuses."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import EGM, VI, Action, Discrete, MarkovChain, MethodError, Model, SolveError, State
from econrl.accuracy.error_table import accuracy_table, samples
from econrl.models import BrockMirman, BufferStock, Investment, LifeCycle, Portfolio, StochasticGrowth
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.task import Task
from econrl.solvers.grid.endogenous_grid import EndogenousGrid
from econrl.solvers.grid.endogenous_policy import lagrange
from econrl.solvers.grid.spending import interval, marginal_utility, spent_at
from econrl.utility import crra


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solve(model, method=None, **task):
    method = method or EGM()
    mdp = MDP(model, quadrature=Quadrature(nodes=method.nodes))
    assert method.refuse(mdp) is None
    return method.run(mdp, Task(model, torch.device("cpu"), **task))


def errors(model, result, nodes=9, points=1000):
    mdp = MDP(model, quadrature=Quadrature(nodes=nodes))
    policy, value = result.policy.on(mdp), result.value.on(mdp)
    table = accuracy_table(mdp, find_structure(mdp), policy, value, samples(mdp, policy, points))
    return table.set_index(["sample", "measure"])


def box(model, n=300):
    mdp = MDP(model)
    return mdp, mdp.sample_box(n, torch.Generator().manual_seed(1))


# What it finds


@dataclass(frozen=True, kw_only=True)
class CapitalChoice(BrockMirman):
    """The same model, where the planner chooses next period's capital."""

    def actions(self):
        return Action("c", low=0.0, high=self.output)  # the name of what is chosen does not matter

    def reward(self, s, a):
        return (self.output(s) - a.c).log()

    def transition(self, s, a, e):
        return {"k": a.c, "z": e.eps}

    def exact_policy(self, s):
        return {"c": self.alpha * self.beta * self.output(s)}


@pytest.mark.parametrize("model", [BrockMirman(), CapitalChoice()], ids=lambda m: type(m).__name__)
def test_brock_mirman_whether_consumption_or_capital_is_chosen(model):
    result = solve(model)
    assert result.converged
    mdp, s = box(model)
    # The share of what is spent is constant, so that all interpolation is exact: what is left is the last change.
    assert (result.policy(s) / mdp.exact_policy(s) - 1).abs().max() < 1e-8
    assert (result.value(s) - mdp.exact_value(s)).abs().max() < 1e-5 * mdp.exact_value(s).abs().mean()


def test_growth_with_a_persistent_state():
    result = solve(StochasticGrowth(), EGM(points=30, exogenous=9, change=1e-7))
    found = errors(StochasticGrowth(), result)
    assert found.loc[("ergodic", "euler"), "mean"] < -5.5  # the change over one minus the rate of convergence, 0.95
    assert found.loc[("box", "euler"), "max"] < -5


def test_buffer_stock_keeps_its_kink_and_agrees_with_value_iteration():
    model = BufferStock()
    result = solve(model, EGM(nodes=5))
    found = errors(model, result, nodes=5)
    assert found.loc[("ergodic", "euler"), "mean"] < -4.5
    assert found.loc[("ergodic", "euler"), "max"] < -3
    mdp, s = box(model)
    fine = VI(points=150, nodes=5).run(mdp, Task(model, torch.device("cpu")))
    assert ((result.policy(s) - fine.policy(s)) / s).abs().max() < 0.005  # what value iteration is off at the kink
    assert (result.policy(s) - fine.policy(s)).abs().mean() < 5e-4
    kink = float(result.policy.M[0, 0])
    below = torch.tensor([[0.5 * kink], [kink * (1 - 1e-12)]], dtype=torch.float64)
    assert (result.policy(below) == below).all()
    above = torch.tensor([[1.01 * kink]], dtype=torch.float64)
    assert float(result.policy(above)) < 1.008 * kink


def test_a_life_cycle_ends_with_nothing_left_and_agrees_with_value_iteration():
    model = LifeCycle(horizon=8, retirement=5)
    result = solve(model, EGM(nodes=5))
    mdp, s = box(model)
    last = torch.cat([s[:, :1], torch.full_like(s[:, 1:], 7.0)], dim=-1)
    assert (result.policy(last) == last[:, :1]).all()
    assert errors(model, result, nodes=5).loc[("ergodic", "euler"), "mean"] < -4.5
    fine = VI(points=150, nodes=5).run(mdp, Task(model, torch.device("cpu")))
    assert ((result.policy(s) - fine.policy(s)) / s[:, :1]).abs().max() < 0.005
    assert ((result.value(s) - fine.value(s)) / fine.value(s)).abs().max() < 1e-3


@dataclass(frozen=True, kw_only=True)
class Bequest(Model):
    """Two periods and a terminal value, in closed form: c_1 = w / (1 + b), c_0 = w / (1 + beta (1 + b))."""

    horizon: int = 2
    beta: float = 0.9
    R: float = 1.1
    b: float = 0.5

    def states(self):
        return State("w", low=0.5, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.w)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"w": self.R * (s.w - a.c)}

    def terminal(self, s):
        return self.b / self.beta * s.w.log()


def test_a_bequest_in_closed_form():
    model = Bequest()
    policy = solve(model).policy
    w = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    for t, share in ((1, 1 / (1 + model.b)), (0, 1 / (1 + model.beta * (1 + model.b)))):
        c = policy(torch.stack([w, torch.full_like(w, t)], dim=-1))[:, 0]
        torch.testing.assert_close(c, share * w, rtol=1e-9, atol=0)


@dataclass(frozen=True, kw_only=True)
class IncomeRisk(Model):
    """Saving at R with a two-state income, down to a debt of half of the lowest income."""

    beta: float = 0.9
    R: float = 1.05

    def states(self):
        return State("w", low=0.0, high=4.0), MarkovChain("y", (0.7, 1.3), [[0.8, 0.2], [0.3, 0.7]])

    def actions(self):
        return Action("c", low=0.0, high=lambda s: self.cash(s) + 0.35)

    def cash(self, s):
        return self.R * s.w + s.y

    def reward(self, s, a):
        return -torch.exp(-2 * a.c)  # marginal utility without a constant elasticity

    def transition(self, s, a, e):
        return {"w": self.cash(s) - a.c}


def test_a_markov_chain_and_a_debt_limit():
    model = IncomeRisk()
    result = solve(model)
    assert result.converged
    found = errors(model, result)
    assert found.loc[("box", "euler"), "mean"] < -5
    mdp, s = box(model)
    fine = VI(points=40).run(mdp, Task(model, torch.device("cpu")))
    assert (result.policy(s) - fine.policy(s)).abs().max() < 0.005
    kink = float(result.policy.M[0, 0])
    poor = torch.tensor([[(0.9 * kink - 1.05) / model.R, 0.0]], dtype=torch.float64)
    assert float(result.policy(poor)) == pytest.approx(0.9 * kink, rel=1e-14)  # all there is, up to the debt limit


# Its parts


GAMMA, BETA, DEBT = 3.0, 0.94, 0.3
INCOME, ODDS = (0.8, 1.2), (0.4, 0.6)


@dataclass(frozen=True, kw_only=True)
class Brackets(Model):
    """Borrowing is dearer than saving, and what is saved beyond one earns less: two kinks of the transition."""

    horizon: int | None = 5

    def states(self):
        return State("m", low=0.05, high=6.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + DEBT)

    def shocks(self):
        return Discrete("y", values=INCOME, probabilities=ODDS)

    def discount(self, s, a, e):
        return BETA

    def reward(self, s, a):
        return crra(a.c, GAMMA)

    def transition(self, s, a, e):
        w = s.m - a.c
        return {"m": torch.where(w < 0, 1.15 * w, torch.where(w < 1, 1.06 * w, 1.05 + 1.01 * w - 1)) + e.y}


@dataclass(frozen=True, kw_only=True)
class Unemployment(Brackets):
    """Income may be zero: the value is minus infinity where there is nothing."""

    horizon: int | None = 5

    def states(self):
        return State("m", low=0.0, high=6.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return Discrete("y", values=(0.0, *INCOME), probabilities=(0.1, 0.3, 0.6))

    def transition(self, s, a, e):
        return {"m": 1.03 * (s.m - a.c) + e.y}


def brute_force(m, after, debt, income, odds, periods, kinks=()):
    """c and V in consumption units at m, by trying all: 800 shares of what there is, and what leaves exactly a kink."""
    shares = np.linspace(0, 1, 802)[1:-1] * (m + debt)[:, None]
    c = np.concatenate([shares, *(np.clip(m[:, None] - k, 1e-9, (m + debt)[:, None]) for k in (*kinks, -debt))], axis=1)
    ce = None
    with np.errstate(divide="ignore", over="ignore"):
        for _ in range(periods):
            v = c ** (1 - GAMMA)
            for y, p in zip(income, odds, strict=True) if ce is not None else ():
                x = after(m[:, None] - c) + y
                v = v + BETA * p * np.where(x < m[0], ce[0] * (x + debt) / (m[0] + debt), np.interp(x, m, ce)) ** (
                    1 - GAMMA
                )
            best = v.argmin(axis=1)
            ce = v.min(axis=1) ** (1 / (1 - GAMMA))
    return c[np.arange(len(m)), best], ce


def agrees(model, c, ce, m, least):
    result = solve(model)
    keep = (m >= least) & (m <= 6)
    s = torch.stack([torch.tensor(m[keep]), torch.zeros(int(keep.sum()), dtype=torch.float64)], dim=-1)
    found = result.policy(s)[:, 0].numpy(), ((1 - GAMMA) * result.value(s).numpy()) ** (1 / (1 - GAMMA))
    assert abs(found[0] / c[keep] - 1).max() < 0.004  # between neighbours on the grid of shares
    assert abs(found[1] / ce[keep] - 1).max() < 0.001
    return result


def test_what_is_kept_stays_at_a_kink_of_the_transition():
    m = np.concatenate([np.linspace(-0.29, 2.5, 200), np.linspace(2.5, 10, 100)[1:]])

    def after(w):
        return np.where(w < 0, 1.15 * w, np.where(w < 1, 1.06 * w, 1.05 + 1.01 * w - 1))

    right = brute_force(m, after, DEBT, INCOME, ODDS, 5, (0.0, 1.0))
    result = agrees(Brackets(), *right, m, 0.05)
    for kink, above, below in ((0.0, 1.06, 1.15), (1.0, 1.01, 1.06)):  # in the last period but one, in closed form
        then = sum(p * (1.06 * kink + y + DEBT) ** -GAMMA for y, p in zip(INCOME, ODDS, strict=True))
        c = [(BETA * R * then) ** (-1 / GAMMA) for R in (below, above)]
        s = kink + torch.tensor([[c[0] + share * (c[1] - c[0]), 3.0 - kink] for share in (0.02, 0.5, 0.98)]).double()
        assert (result.policy(s) - (s[:, :1] - kink)).abs().max() < 1e-6


def test_what_is_kept_stays_at_a_kink_in_a_stationary_model():
    m = torch.linspace(0.05, 2.5, 1500, dtype=torch.float64).unsqueeze(-1)
    w = m - solve(Brackets(horizon=None)).policy(m)
    for kink in (0, 1):
        assert ((w - kink).abs() < 1e-6).sum() > 3
        assert w.min() < kink - 0.01
        assert w.max() > kink + 0.01


def test_the_value_is_finite_wherever_there_is_something():
    m = np.concatenate([np.geomspace(1e-4, 0.1, 100), np.linspace(0.1, 10, 300)[1:]])
    right = brute_force(m, lambda w: 1.03 * w, 0.0, (0.0, *INCOME), (0.1, 0.3, 0.6), 5)
    result = agrees(Unemployment(), *right, m, 1e-3)
    s = torch.tensor([[0.0, 0.0], [1e-9, 0.0]], dtype=torch.float64)
    assert result.value(s).isfinite().tolist() == [False, True]


def test_marginal_utility_is_inverted_from_any_guess():
    mdp = MDP(IncomeRisk())
    s = mdp.sample_box(5, torch.Generator().manual_seed(0)).unsqueeze(0)
    c = torch.tensor([[1e-3, 0.1, 1.0, 3.0, 5.0]], dtype=torch.float64)
    mu = marginal_utility(mdp, s, c, False)[0]
    for guess in (1e-4, 1.0, 50.0):
        found = spent_at(mdp, s, mu, torch.full_like(c, guess), 100.0, False)
        torch.testing.assert_close(found, c, rtol=1e-9, atol=0)  # e^(-2c) at 1e-3: 1e-16 / 2c


def test_lagrange_weights_are_exact_for_cubics():
    t = torch.linspace(-1, 4, 11, dtype=torch.float64)
    at = torch.arange(4, dtype=torch.float64)
    for power in range(4):
        torch.testing.assert_close(lagrange(t) @ at**power, t**power, rtol=1e-12, atol=1e-12)


def test_between_points_that_rise_the_policy_rises():
    """The cubic through the points next to a kink would swing."""
    M = torch.linspace(0, 1, 11, dtype=torch.float64).unsqueeze(0)
    c = torch.where(M < 0.5, M, 0.5 + 1e-3 * (M - 0.5))
    policy = EndogenousGrid(MDP(BufferStock()), 0, False, points=11).policy
    policy.fit(M, c)
    fine = torch.linspace(0, 1, 1001, dtype=torch.float64)
    place = torch.zeros(1001, 1, dtype=torch.long), torch.ones(1001, 1, dtype=torch.float64)
    assert (policy.spent(fine, place).diff() >= 0).all()


def test_the_policy_can_be_saved_differentiated_and_mapped(tmp_path):
    model = StochasticGrowth()
    solution = econrl.solve(model, EGM(points=20, change=1e-3))
    policy = solution._policy
    s = solution.mdp.sample_box(5, torch.Generator().manual_seed(0))
    mapped = torch.func.vmap(torch.func.jacrev(policy))(s)[:, 0]
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    differences = torch.stack([(policy(s + d) - policy(s - d))[:, 0] / 2e-6 for d in step], dim=-1)
    torch.testing.assert_close(mapped, differences, rtol=1e-5, atol=1e-7)
    solution.save(tmp_path / "growth")
    torch.testing.assert_close(econrl.load(tmp_path / "growth").policy(s), policy(s), rtol=0, atol=0)


def test_the_grid_starts_at_the_limit_only_where_that_can_bind():
    grids = {type(m): EndogenousGrid(MDP(m), 0, False) for m in (BufferStock(), StochasticGrowth())}
    assert float(grids[BufferStock].w[0]) == 0
    assert grids[BufferStock].limited
    assert 0.75 < float(grids[StochasticGrowth].w[0]) < 0.9
    assert not grids[StochasticGrowth].limited
    _, M = interval(MDP(BufferStock()), torch.tensor([[2.0]], dtype=torch.float64))
    assert float(M) == 2.0


# What goes wrong


@dataclass(frozen=True, kw_only=True)
class Habit(BrockMirman):
    """Its reward depends on capital, too."""

    def reward(self, s, a):
        return a.c.log() + s.k * a.c


@dataclass(frozen=True, kw_only=True)
class Costly(BrockMirman):
    """What is kept is worth more where capital is large."""

    def transition(self, s, a, e):
        return {"k": (self.output(s) - a.c) * (1 + 0.1 * s.k), "z": e.eps}


@dataclass(frozen=True, kw_only=True)
class Two(BrockMirman):
    """Two endogenous states."""

    def states(self):
        return *super().states(), State("h", low=0.0, high=1.0)

    def steady_state(self):
        return None

    def transition(self, s, a, e):
        return {**super().transition(s, a, e), "h": a.c}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Habit(), "the reward must depend on the action"),
        (Costly(), "the next state must depend on what the action leaves"),
        (Two(), "one endogenous state, and there are 2"),
        (Portfolio(n=2), "exactly one action"),
        (Investment(), "the reward must depend on the action"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Model) else "",
)
def test_models_of_another_kind_are_refused_with_the_reason(model, reason):
    with pytest.raises(MethodError, match=f"egm cannot solve {type(model).__name__}: .*{reason}"):
        econrl.solve(model, "egm")


@pytest.mark.parametrize("setting", [{"points": 3}, {"exogenous": 2}, {"change": 0.0}, {"margin": -1.0}], ids=str)
def test_impossible_settings_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(MethodError, match=f"egm: `{name}` must be"):
        EGM(**setting)


@dataclass(frozen=True, kw_only=True)
class Kinked(BrockMirman):
    """Output jumps with capital: the value is not concave."""

    def output(self, s):
        return super().output(s) * (1 + 0.5 * torch.sigmoid(200 * (s.k / self.k_ss - 1)))


def test_a_value_that_is_not_concave_is_an_error():
    with pytest.raises(SolveError, match="not increasing"):
        solve(Kinked())


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(SolveError, match=r"next states.*Reduce `points`"):
        solve(StochasticGrowth(), EGM(points=10**7))


def test_steps_are_kept_and_the_message_says_so():
    short = solve(BrockMirman(), steps=2)
    assert (short.steps, short.converged) == (2, False)
    assert "2 iterations" in short.message
