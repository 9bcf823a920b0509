"""Markov chains of an AR(1), and tomorrow's value of a chain in a spec."""

import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import Action, LogNormal, MarkovChain, SpecError, State
from econrl.family.family import Family
from econrl.problem.mdp import MDP

NUMBERS = [(2, 0.5, 0.2), (5, 0.9, 0.2), (7, 0.98, 0.1), (9, 0.0, 1.0), (4, -0.6, 0.3)]


def values(chain: MarkovChain) -> np.ndarray:
    return np.asarray(chain.values)


@pytest.mark.parametrize(("n", "rho", "sigma"), NUMBERS)
@pytest.mark.parametrize("method", ["rouwenhorst", "tauchen"])
def test_chains_are_those_of_quantecon(method, n, rho, sigma):
    from quantecon.markov import approximation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an argument that changed its place
        theirs = getattr(approximation, method)(n, rho, sigma)
    ours = getattr(MarkovChain, method)("x", rho=rho, sigma=sigma, n=n, logs=True)
    np.testing.assert_allclose(values(ours), theirs.state_values, atol=1e-14)
    np.testing.assert_allclose(ours.P, theirs.P, atol=1e-12)
    levels = getattr(MarkovChain, method)("y", rho=rho, sigma=sigma, n=n, mean=3.0)
    np.testing.assert_allclose(np.diff(np.log(values(levels))), np.diff(theirs.state_values), atol=1e-12)
    assert theirs.stationary_distributions[0] @ values(levels) == pytest.approx(3.0, rel=1e-9)


def test_tauchen_reaches_as_far_as_it_is_told():
    chain = MarkovChain.tauchen("x", rho=0.6, sigma=0.8, n=11, logs=True, mean=2.0, width=2.5)
    np.testing.assert_allclose(values(chain)[[0, 5, -1]], [2 - 2.5, 2, 2 + 2.5], atol=1e-14)  # the deviation is one


def test_rouwenhorst_has_the_moments_of_the_process():
    chain = MarkovChain.rouwenhorst("y", rho=0.9, sigma=0.2, n=7)
    levels, P = values(chain), np.asarray(chain.P)
    weights = np.linalg.matrix_power(P, 2000)[0]
    logs = np.log(levels) - weights @ np.log(levels)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(P @ logs, 0.9 * logs, atol=1e-13)  # the conditional mean
    assert weights @ logs**2 == pytest.approx(0.04 / (1 - 0.81), rel=1e-10)
    assert weights @ levels == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ({"rho": 1.0}, "rho = 1.0; the persistence must be a number between -1 and 1"),
        ({"sigma": 0.0}, "sigma = 0.0; the standard deviation of the innovation must be positive"),
        ({"n": 1}, "n = 1; a chain needs a whole number of values"),
        ({"n": 2.5}, "n = 2.5; a chain needs a whole number of values"),
        ({"mean": 0.0}, "mean = 0.0; it must be a number, and positive for values in levels"),
    ],
)
def test_numbers_that_make_no_chain_are_named(numbers, what):
    with pytest.raises(SpecError, match=f"MarkovChain.tauchen 'y' has {what}"):
        MarkovChain.tauchen("y", **{"rho": 0.9, "sigma": 0.2, "n": 5, **numbers})


def test_making_a_chain_imports_no_slow_library():
    code = "import econrl.models as m, sys; m.Aiyagari().states(); assert 'quantecon' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Tomorrow's value


@dataclass(frozen=True, kw_only=True)
class Household(econrl.Model):
    """m is cash on hand: m' = R (m - c) + y', with y' the chain's value tomorrow; patience may vary with it."""

    beta: float = 0.92
    R: float = 1.03
    impatience: float = 0.0

    def states(self):
        return State("m", low=0.4, high=8.0), MarkovChain("y", values=[0.5, 1.4], P=[[0.7, 0.3], [0.2, 0.8]])

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def discount(self, s, a, e):
        return self.beta * (1 - self.impatience * e.y)

    def reward(self, s, a):
        return -1 / a.c

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + e.y}


def by_hand(model: Household, points: int = 400, tolerance: float = 1e-11):
    """Consumption on a grid of m, by income: Euler equation iteration in numpy, E[beta' R u'(c(R w + y', y'))]."""
    y, P = np.array([0.5, 1.4]), np.array([[0.7, 0.3], [0.2, 0.8]])
    w = np.concatenate([[0.0], np.geomspace(1e-5, 12.0, points)])
    m = np.tile(np.append(0.0, w + 0.1), (2, 1))
    c = m.copy()
    for _ in range(2000):
        then = np.stack([np.interp(model.R * w + y[j], m[j], c[j]) for j in range(2)])
        mu = P @ (model.beta * (1 - model.impatience * y)[:, None] * model.R * then**-2)
        new = mu**-0.5
        gap = np.abs(new - c[:, 1:]).max()
        c = np.hstack([np.zeros((2, 1)), new])
        m = np.hstack([np.zeros((2, 1)), w + new])
        if gap < tolerance:
            break
    return lambda s: np.stack([np.interp(s, m[j], c[j]) for j in range(2)])


@pytest.mark.parametrize("impatience", [0.0, 0.1])
@pytest.mark.parametrize("method", ["egm", "vi", "time_iteration"])
def test_cash_on_hand_with_tomorrows_income(method, impatience):
    model = Household(impatience=impatience)
    solution = econrl.solve(model, method, device="cpu")
    m = np.linspace(0.45, 7.5, 60)
    c = np.stack([solution.policy({"m": m, "y": np.full(60, y)})["c"].numpy() for y in (0.5, 1.4)])
    np.testing.assert_allclose(c, by_hand(model)(m), rtol=2e-3 if method == "egm" else 1e-2)
    assert solution.verdict.word == "accurate" or method == "time_iteration"  # whose value is rough, as with shocks


def test_paths_hold_the_very_income_that_comes_with_the_chain():
    model = Household()
    table = econrl.solve(model, "egm", device="cpu").simulate(50, 20)
    after = table.groupby("path").shift(-1)
    reached = 1.03 * (table["m"] - table["c"]) + after["y"]
    np.testing.assert_allclose(reached.dropna(), after["m"].dropna(), rtol=1e-12)
    assert table["y"].nunique() == 2


def test_a_wrong_name_is_answered_with_the_chains_own():
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Household):
        def transition(self, s, a, e):
            return {"m": self.R * (s.m - a.c) + e.income}

    with pytest.raises(SpecError, match=r"transition: .*no shock is called 'income' \(declared so far: y\)"):
        econrl.check(Wrong())


def test_chains_of_vectors_and_shocks_beside_them():
    @dataclass(frozen=True, kw_only=True)
    class Pair(Household):
        def states(self):
            chain = MarkovChain("y", values=[[0.5, 1.0], [1.4, 2.0]], P=[[0.7, 0.3], [0.2, 0.8]])
            return State("m", low=0.4, high=8.0), chain

        def shocks(self):
            return LogNormal("theta", std=0.1)

        def discount(self, s, a, e):
            return self.beta

        def transition(self, s, a, e):
            return {"m": self.R * (s.m - a.c) + e.y[..., 0] * e.theta + e.y[..., 1]}

    econrl.check(Pair())
    mdp = MDP(Pair())
    s, a = mdp.tensor([[2.0, 1.0]]), mdp.tensor([[1.0]])
    e = mdp.tensor([[1.1, 0.0]])  # theta, and the index of the chain
    assert float(mdp.transition(s, a, e)[0, 0]) == pytest.approx(1.03 + 0.5 * 1.1 + 1.0, rel=1e-14)
    assert mdp.transition(s, a, mdp.nodes)[:, 1].tolist() == mdp.nodes[:, 1].tolist()


def test_a_family_reads_it_too():
    family = MDP(Family(one=Household(), over={"R": (1.0, 1.05), "impatience": (0.0, 0.1)}))
    econrl.check(family.declared)
    own = MDP(Household(R=1.02, impatience=0.05))
    s, a = family.tensor([[2.0, 1.0, 1.02, 0.05]]), family.tensor([[1.0]])
    at = own.tensor([[2.0, 1.0]])
    assert torch.equal(family.transition(s, a, family.nodes)[:, 0], own.transition(at, a, own.nodes)[:, 0])
    assert torch.equal(family.discount(s, a, family.nodes), own.discount(at, a, own.nodes))
