"""Fitted value iteration, against closed forms and brute force."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import Action, Budget, Choice, DiscreteState, LogNormal, MarkovChain, Model, State
from econrl.models import BrockMirman
from econrl.problem.mdp import MDP
from econrl.solvers.common.task import Task
from econrl.solvers.fitted.fvi import FVI
from econrl.utility import crra


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def solve(model, steps=None, **settings):
    task = Task(model, torch.device("cpu"), steps=steps)
    return FVI(**{"states": 200, "hidden": (8, 8), **settings}).run(MDP(model), task)


# A budget of two, against the closed form


@dataclass(frozen=True, kw_only=True)
class Merton(Model):
    """Consumption and a risky asset over a life, from a budget: what is kept earns R, what is in the asset X."""

    horizon: int = 4
    beta: float = 0.95
    gamma: float = 3.0
    R: float = 1.02

    def states(self):
        return State("W", low=0.2, high=5.0)

    def actions(self):
        return Budget("x", size=2, total=lambda s: s.W)

    def shocks(self):
        return LogNormal("X", std=0.2, mean=1.06)

    def reward(self, s, a):
        return crra(a.x[..., 0], self.gamma)

    def transition(self, s, a, e):
        return {"W": self.R * (s.W - a.x.sum(-1)) + a.x[..., 1] * e.X}

    def initial(self, n, generator):
        return {"W": 0.5 + torch.rand(n, generator=generator)}


def closed_form(model):
    """c = kappa_t W, w of the rest in the asset; V = xi_t W^(1-gamma) / (1-gamma)."""
    x, p = np.polynomial.hermite_e.hermegauss(5)  # the nodes that the solver sees
    X, p = 1.06 * np.exp(0.2 * x - 0.02), p / p.sum()
    g, w = model.gamma, np.linspace(0, 1, 200_001)
    worth = sum(q * (model.R * (1 - w) + w * r) ** (1 - g) for r, q in zip(X, p, strict=True))
    best = worth.argmin()
    kappa, xi, found = 1.0, 1.0, []
    for _ in range(model.horizon):
        found.append((kappa, w[best], xi))
        h = (model.beta * xi * worth[best]) ** (1 / g)
        kappa = 1 / (1 + h)
        xi = kappa ** (1 - g) + model.beta * xi * worth[best] * (1 - kappa) ** (1 - g)
    return found[::-1]


@pytest.fixture(scope="module")
def merton():
    torch.set_num_threads(1)
    return solve(Merton())


def test_it_finds_the_closed_form_of_a_life_with_a_portfolio(merton):
    W = torch.linspace(0.3, 4, 25, dtype=torch.float64)
    assert merton.converged
    for t, (kappa, w, xi) in enumerate(closed_form(Merton())):
        s = torch.stack([W, torch.full_like(W, t)], dim=-1)
        x, v = merton.policy(s), merton.value(s)
        # What eight units leave; the last period, in which nothing is to be learned, is exact.
        torch.testing.assert_close(x[:, 0], kappa * W, rtol=1e-3, atol=0)
        torch.testing.assert_close(x[:, 1], w * (1 - kappa) * W, rtol=2e-3, atol=1e-12)
        torch.testing.assert_close(v, xi * W**-2 / -2, rtol=1e-3, atol=0)


def test_corrections_bring_the_policy_nearer_to_the_maximum(merton):
    W = torch.linspace(0.3, 4, 25, dtype=torch.float64)
    kappa = closed_form(Merton())[0][0]
    s = torch.stack([W, torch.zeros_like(W)], dim=-1)
    corrected, rough = merton.policy(s), merton.policy.rough(s)
    off = [((x[:, 0] - kappa * W) / W).abs().mean() for x in (corrected, rough)]
    assert off[0] < 0.2 * off[1] or off[1] < 1e-5


def test_the_policy_has_derivatives(merton):
    """Beyond the domain it is continued by them (`continuation.py`); here consumption is proportional to wealth."""
    s = torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    x = merton.policy(s)[:, 0]
    (slopes,) = torch.autograd.grad(x.sum(), s)
    torch.testing.assert_close(slopes[:, 0], x.detach() / s[:, 0].detach(), rtol=2e-2, atol=0)


# A choice for good, with saving: brute force


@dataclass(frozen=True, kw_only=True)
class Quit(Model):
    """Work, which is a burden and earns w(y), or stop for good; y is a chain."""

    horizon: int = 3
    beta: float = 0.95
    burden: float = 0.55

    def states(self):
        return (
            State("m", low=0.3, high=6.0),
            MarkovChain("y", values=(0.7, 1.3), P=((0.8, 0.2), (0.3, 0.7))),
            DiscreteState("working", n=2),
        )

    def actions(self):
        return Choice("work", n=2), Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return LogNormal("e", std=0.15, mean=1.0)

    def reward(self, s, a):
        return crra(a.c, 2.0) - self.burden * a.work * s.working

    def transition(self, s, a, e):
        works = a.work * s.working
        return {"m": 1.02 * (s.m - a.c) + 0.3 + works * s.y * e.e, "working": works}

    def initial(self, n, generator):
        return {"m": 1 + 2 * torch.rand(n, generator=generator), "working": torch.ones(n)}


def brute_force(model, n=500):
    """Values and choices by linear interpolation of -1/V on a fine grid of m, every share of it tried."""
    m = 0.3 + (12 - 0.3) * np.linspace(0, 1, n) ** 2
    x, p = np.polynomial.hermite_e.hermegauss(5)
    e, p = np.exp(0.15 * x - 0.15**2 / 2), p / p.sum()
    shares = np.linspace(1e-3, 1, 400)
    c = m[:, None] * shares
    V = None
    for _ in range(model.horizon):
        new, work = np.empty((2, 2, n)), np.empty((2, n))
        for i, y in enumerate((0.7, 1.3)):
            worth = []
            for works in (0, 1):
                q = -1 / c - model.burden * works
                if V is not None:
                    P = ((0.8, 0.2), (0.3, 0.7))[i]
                    W = -1 / sum(prob * V[works, j] for j, prob in enumerate(P))
                    for shock, weight in zip(e, p, strict=True):
                        reached = 1.02 * (m[:, None] - c) + 0.3 + works * y * shock
                        q = q - model.beta * weight / np.interp(reached, m, W)
                worth.append(q.max(axis=1))
            new[0, i], new[1, i], work[i] = worth[0], np.maximum(*worth), worth[1] > worth[0]
        V = new
    return m, V, work


def test_a_choice_for_good_has_values_of_its_own_in_each_regime():
    model = Quit()
    found, (m, V, work) = solve(model, states=300, hidden=(12, 12)), brute_force(model)
    at = torch.tensor(m[(m > 0.5) & (m < 5)])
    inside = (m > 0.5) & (m < 5)
    for i in (0, 1):
        for working in (0, 1):
            s = torch.stack([at, *(torch.full_like(at, x) for x in (i, working, 0))], dim=-1)
            # 400 shares of m miss the maximum by their square; beside it, what a network leaves
            np.testing.assert_allclose(found.value(s), V[working, i, inside], rtol=2e-3)
        chosen = found.policy(s)[:, 0].numpy()
        assert (chosen == work[i, inside]).mean() > 0.98  # but for a few points at the threshold
    assert 0 < work.mean() < 1


# Stationary models


def test_policy_iteration_finds_the_closed_form():
    model = BrockMirman()
    found = solve(model, states=300)
    s = MDP(model).sample_box(500, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.policy(s), MDP(model).exact_policy(s), rtol=1e-4, atol=0)
    gap = (found.value(s) - MDP(model).exact_value(s)).abs().mean() / MDP(model).exact_value(s).std()
    assert gap < 1e-3


# What goes wrong


def test_a_value_of_minus_infinity_is_said_with_state_and_period():
    @dataclass(frozen=True, kw_only=True)
    class Starving(Merton):
        def reward(self, s, a):
            return crra(a.x[..., 0], self.gamma) + torch.where(s.t == 2, -torch.inf, 0.0)

    found = solve(Starving())
    assert re.search("minus infinity at .*W = .*t = 2", found.message)
    assert not found.converged
    assert found.policy(torch.tensor([[1.0, 3.0]], dtype=torch.float64))[0, 0] == pytest.approx(1)  # what was solved


def test_periods_that_are_solved_are_an_answer():
    found = solve(Merton(), steps=2)
    kappa = closed_form(Merton())[2][0]
    W = torch.linspace(0.3, 4, 9, dtype=torch.float64)
    x = found.policy(torch.stack([W, torch.full_like(W, 2)], dim=-1))
    torch.testing.assert_close(x[:, 0], kappa * W, rtol=3e-3, atol=0)
    assert "2 of 4 periods to go" in found.message


def test_exchangeable_members_and_a_range_of_parameters():
    """Both go through the networks of `networks.py` and the states of `family.py`."""
    family = econrl.solve(
        BrockMirman(), FVI(states=300, hidden=(8, 8)), over={"alpha": (0.3, 0.4)}, steps=16, progress=False
    )
    member = family.at(alpha=0.37)
    s = {"k": [0.15, 0.2, 0.25], "z": [0.0, 0.01, -0.01]}
    exact = MDP(BrockMirman(alpha=0.37)).exact_policy(member.mdp.tensor(list(zip(s["k"], s["z"], strict=True))))
    np.testing.assert_allclose(np.asarray(member.policy(s)["c"]), exact[:, 0], rtol=1e-2)  # the networks alone
