"""check says that the value is infinite where sum beta^t r_t has no limit, and only there."""

from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Model, Normal, State
from econrl.checks import check
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class Saver(Model):
    """k' = w + (1 + r) k - c without risk, down to debts `least`. Consumption can grow by up to 1 + r a period, hence

    sum beta^t u(c_t)  is finite  exactly where  beta (1 + r)^(1 - gamma) < 1.
    """

    beta: float = 0.98
    gamma: float = 1.0
    w: float = 1.0
    r: float = 0.05
    least: float = -6.0
    minus: float = 0.0  # moves the level of utility, and so where it changes its sign

    def states(self):
        return State("k", low=self.least, high=30.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: self.w + (1 + self.r) * s.k - self.least)

    def reward(self, s, a):
        return crra(a.c, self.gamma) - self.minus

    def transition(self, s, a, e):
        return {"k": self.w + (1 + self.r) * s.k - a.c}


@dataclass(frozen=True, kw_only=True)
class Drifting(Model):
    """Rewards x^power, of an x that gains about a tenth a period and begins below zero: polynomials of time."""

    beta: float = 0.99
    power: int = 1

    def states(self):
        return State("x", low=-5.0, high=0.0)

    def actions(self):
        return Action("a", low=-1.0, high=1.0)

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        return s.x**self.power - a.a**2

    def transition(self, s, a, e):
        return {"x": s.x + 0.1 + 0.01 * a.a + e.e}


@dataclass(frozen=True, kw_only=True)
class Patience(Model):
    """A discount factor mean e^x, x an AR(1): E[B_t] grows by about mean exp((sigma / (1 - rho))^2 / 2) a period."""

    mean: float = 0.9
    rho: float = 0.9
    sigma: float = 0.02

    def states(self):
        return State("x", low=-0.1, high=0.1), State("k", low=0.5, high=1.5)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.k)

    def shocks(self):
        return Normal("e", std=self.sigma)

    def discount(self, s, a, e):
        return self.mean * torch.exp(s.x)

    def reward(self, s, a):
        return a.c.sqrt()

    def transition(self, s, a, e):
        return {"x": self.rho * s.x + e.e, "k": 0.5 + 0.9 * (s.k - a.c)}


@dataclass(frozen=True, kw_only=True)
class Habit(Model):
    """Consumption beyond a habit, which is last period's. Who eats nearly all soon has less than the habit asks for,
    and utility is then not defined."""

    beta: float = 0.95
    b: float = 0.9
    gamma: float = 2.0

    def states(self):
        return State("m", low=1.2, high=8.0), State("h", low=0.2, high=1.2)

    def actions(self):
        return Action("c", low=lambda s: self.b * s.h, high=lambda s: s.m)

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        return crra(a.c - self.b * s.h, self.gamma)

    def transition(self, s, a, e):
        return {"m": 1.02 * (s.m - a.c) + 1 + e.e, "h": a.c}


FINITE = {
    "log, borrowing": Saver(),
    "log, patient": Saver(beta=0.995, r=0.03, least=-3.0),
    "log, rich in a while": Saver(beta=0.99),
    "log, very patient": Saver(beta=0.999, r=0.02, w=1.0, least=0.0),
    "risk aversion below one": Saver(beta=0.97, gamma=0.5),
    "risk aversion above one": Saver(beta=0.97, gamma=2.0),
    "linear": Drifting(beta=0.995),
    "quadratic": Drifting(power=2),
    "cubic": Drifting(power=3),
    "persistent patience": Patience(),
    "a strong habit": Habit(),
    "a weak habit": Habit(b=0.3, gamma=5.0),
}
INFINITE = {
    "growth beyond discounting": Saver(beta=0.99, gamma=0.5),
    "growth beyond discounting, at first below zero": Saver(beta=0.99, gamma=0.5, minus=20.0),
    "nearly linear": Saver(beta=0.96, gamma=0.01),
    "more patience than discounting": Patience(mean=0.97, rho=0.95),
}


@pytest.mark.parametrize("name", FINITE)
def test_a_finite_value_is_not_called_infinite(name):
    assert check(FINITE[name]) == []


@pytest.mark.parametrize("name", INFINITE)
def test_an_infinite_value_is_named(name):
    assert any("the value may be +infinity" in warning for warning in check(INFINITE[name]))
