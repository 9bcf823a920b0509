"""Value iteration on kinds of models that grids fail on, against closed forms and brute force."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import Action, Discrete, LogNormal, MarkovChain, Model, State
from econrl.problem.mdp import MDP
from econrl.solvers.common.task import Task
from econrl.solvers.grid.vi import VI
from econrl.utility import crra


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solve(model, **settings):
    return VI(**settings).run(MDP(model), Task(model, torch.device("cpu")))


def column(*values):
    return torch.tensor(list(zip(*values, strict=True)), dtype=torch.float64)


# A bound that reads an earlier action


@dataclass(frozen=True, kw_only=True)
class Labour(Model):
    """u = -1/((1 - l) c), c <= b + w l; the rich would like negative hours."""

    beta: float = 0.9
    R: float = 1.03
    w: tuple[float, ...] = (0.5, 1.5)

    def states(self):
        return State("b", low=0.0, high=10.0), MarkovChain("w", values=self.w, P=[[0.9, 0.1], [0.1, 0.9]])

    def actions(self):
        return Action("l", low=0.0, high=1.0), Action("c", low=0.0, high=lambda s, a: s.b + s.w * a.l)

    def reward(self, s, a):
        return crra((1 - a.l) * a.c, 2.0)

    def transition(self, s, a, e):
        return {"b": self.R * (s.b + s.w * a.l - a.c)}


def brute_force_labour(model, n=400):
    """Hours have a closed form given what is saved; that is searched on the grid b, each of whose points can be
    reached. Returns b, hours and consumption (2, n)."""
    b = 10 * np.linspace(0, 1, n) ** 2
    w = np.array(model.w)[:, None, None]
    saved = b / model.R
    hours = np.clip((w - b[:, None] + saved) / (2 * w), np.maximum((saved - b[:, None]) / w, 0), 1)
    c = b[:, None] + w * hours - saved
    good = ((1 - hours) * c).clip(1e-12)
    V = np.full((2, n), -10.0)
    P = np.array([[0.9, 0.1], [0.1, 0.9]])
    for _ in range(300):
        Q = -1 / good + model.beta * (P @ V)[:, None, :]
        V = Q.max(axis=-1)
    best = Q.argmax(axis=-1)[..., None]
    return b, *(np.take_along_axis(x, best, -1)[..., 0] for x in (hours, c))


def test_a_bound_that_reads_an_earlier_action():
    model = Labour()
    b, hours, c = brute_force_labour(model)
    result = solve(model, points=40)
    assert result.converged
    for i in (0, 1):
        a = result.policy(column(b, np.full_like(b, i))).numpy()
        step = np.gradient(b)  # savings of the brute force are whole steps
        assert (np.abs(a[:, 1] - c[i]) < 0.6 * step + 0.005 * c[i]).all()
        assert (np.abs(a[:, 0] - hours[i]) < 0.6 * step / model.w[i] + 0.005).all()
    rich = result.policy(column([7.0, 9.0], [0.0, 0.0]))
    assert (rich[:, 0] < 1e-6).all()


# Values that are minus infinity at a corner


@dataclass(frozen=True, kw_only=True)
class ZeroIncome(Model):
    """Income is zero with probability .05: V(0) is minus infinity."""

    horizon: int = 5
    beta: float = 0.96
    R: float = 1.03
    low: float = 0.0

    def states(self):
        return State("m", low=self.low, high=10.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return Discrete("y", values=(0.0, 0.8, 1.2), probabilities=(0.05, 0.475, 0.475))

    def reward(self, s, a):
        return crra(a.c, 2.0)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + e.y}


def endogenous_grid(model, at):
    """c and V at cash m = `at` in the first period, by the endogenous grid method: 1/c^2 = beta R E[1/c'^2]."""
    saved = 40 * np.linspace(0, 1, 4000) ** 4 + 1e-9
    m = c = np.concatenate([[0.0], saved])
    inverse = -c  # 1/V, near linear
    for _ in range(model.horizon - 1):
        reached = model.R * saved[:, None] + np.array([0.0, 0.8, 1.2])
        weights = np.array([0.05, 0.475, 0.475])
        then = np.interp(reached, m, c)
        found = (model.beta * model.R * (then**-2.0 @ weights)) ** -0.5
        V = -1 / found + model.beta * (1 / np.interp(reached, m, inverse)) @ weights
        m, c = np.concatenate([[0.0], saved + found]), np.concatenate([[0.0], found])
        inverse = np.concatenate([[0.0], 1 / V])
    return np.interp(at, m, c), 1 / np.interp(at, m, inverse)


@pytest.mark.parametrize("low", [0.0, 0.01])
def test_a_value_of_minus_infinity_at_a_corner(low):
    model = ZeroIncome(low=low)
    m = [0.01, 0.1, 0.5, 1.0, 5.0]
    c, v = endogenous_grid(model, m)
    result = solve(model)
    s = column(m, np.zeros(5))
    assert result.policy(s)[:, 0].numpy() == pytest.approx(c, rel=5e-3 if low == 0 else 0.02)
    assert result.value(s).numpy() == pytest.approx(v, rel=5e-3)


@dataclass(frozen=True, kw_only=True)
class Habit(Model):
    """u(c - h/2) in two periods; next to m = h/2 nothing is feasible."""

    horizon: int = 2
    beta: float = 0.95

    def states(self):
        return State("m", low=0.2, high=8.0), State("h", low=0.1, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return crra(a.c - s.h / 2, 2.0)

    def transition(self, s, a, e):
        return {"m": s.m - a.c + 1.0, "h": 0.7 * s.h + 0.3 * a.c}


def test_a_corner_where_nothing_is_feasible():
    """V(m, h) of the last period is -1/(m - h/2), so that the first one's condition is a square root's."""
    model = Habit()
    result = solve(model, points=40)
    m, h = np.array([1.5, 2.0, 3.0, 5.0, 7.0]), np.array([1.9, 0.5, 1.0, 1.5, 0.2])
    c = np.linspace(0, 1, 20001)[1:-1, None] * m
    today, then = c - h / 2, m - c + 1 - (0.7 * h + 0.3 * c) / 2
    Q = np.where((today > 0) & (then > 0), -1 / np.abs(today) - model.beta / np.abs(then), -np.inf)
    right = np.take_along_axis(c, Q.argmax(axis=0)[None], 0)[0]
    found = result.policy(column(m, h, np.zeros(5)))[:, 0].numpy()
    assert found == pytest.approx(right, rel=5e-3)


# Wealth that grows out of the grid


@dataclass(frozen=True, kw_only=True)
class LogSaving(Model):
    """c = (1 - beta) ((1 + r) k + 1 + 1/r)."""

    beta: float = 0.97
    r: float = 0.05
    least: float = -5.0

    def states(self):
        return State("k", low=self.least, high=20.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: 1 + (1 + self.r) * s.k - self.least)

    def reward(self, s, a):
        return crra(a.c, 1.0)

    def transition(self, s, a, e):
        return {"k": 1 + (1 + self.r) * s.k - a.c}


def test_wealth_that_grows_out_of_the_grid():
    model = LogSaving()
    k = np.array([-4.5, 0.0, 5.0, 10.0, 18.0])
    result = solve(model)
    assert result.converged
    right = (1 - model.beta) * ((1 + model.r) * k + 1 + 1 / model.r)
    assert result.policy(column(k))[:, 0].numpy() == pytest.approx(right, rel=5e-3)


# An action that does not matter


@dataclass(frozen=True, kw_only=True)
class ZeroShare(Model):
    """The risky asset pays less: its share is zero, and nothing where nothing is saved."""

    beta: float = 0.9

    def states(self):
        return State("m", low=0.2, high=4.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m), Action("share", low=0.0, high=1.0)

    def shocks(self):
        return Discrete("y", values=(0.6, 1.4), probabilities=(0.5, 0.5)), LogNormal("r", std=0.2, mean=1.0)

    def reward(self, s, a):
        return crra(a.c, 3.0)

    def transition(self, s, a, e):
        return {"m": (s.m - a.c) * (1.02 + a.share * (e.r - 1.02)) + e.y}


def test_an_action_that_does_not_matter_is_no_change():
    result = solve(ZeroShare(), points=40, nodes=3)
    assert result.converged
    assert result.steps < 25
    assert (result.policy(column([2.0, 3.0, 3.9]))[:, 1] < 1e-3).all()
