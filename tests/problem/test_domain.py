"""The domain that covers the paths of a policy, on models whose distributions are known."""

import math
from dataclasses import dataclass

import pytest
import torch

import econrl
from econrl import Action, Model, Normal, State
from econrl.models import BrockMirman, Portfolio, StochasticGrowth
from econrl.problem.domain import around, spread, widened
from econrl.problem.mdp import MDP


@dataclass(frozen=True, kw_only=True)
class Drift(Model):
    """x is an AR(1) with standard deviation one, whatever is done; c lies between zero and x + limit."""

    beta: float = 0.9
    rho: float = 0.8
    limit: float = 100.0
    low: float = -1.0
    horizon: int | None = None

    def states(self):
        return State("x", low=self.low, high=1.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.x + self.limit)

    def shocks(self):
        return Normal("e", std=math.sqrt(1 - self.rho**2))

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"x": self.rho * s.x + e.e}

    def initial(self, n, generator):
        return {"x": 0.0}


def half(mdp):
    return lambda s: mdp.act(s, s.new_zeros(*s.shape[:-1], mdp.A))


def widening(model):
    mdp = MDP(model)
    return widened(mdp, half(mdp) if mdp.exact_policy(mdp.low) is None else mdp.exact_policy)


def test_the_domain_covers_the_ergodic_set_with_some_room():
    """Outside one standard deviation lie 31.7 per cent; the ends are 1.15 times the quantile 3.29."""
    found = widening(Drift())
    assert found.outside == pytest.approx(0.317, abs=0.01)
    assert found.by_state == {"x": found.outside}
    assert found.domain["x"] == pytest.approx((-3.78, 3.78), abs=0.15)
    assert widening(Drift().with_domain(found.domain)) is None
    one_side = widening(Drift(low=-3.5))
    assert one_side.domain["x"] == pytest.approx((-3.5, 3.78), abs=0.15)


def test_it_ends_where_the_model_does():
    low, high = widening(Drift(limit=2.0)).domain["x"]
    assert -2 <= low < -1.95
    assert high == pytest.approx(3.78, abs=0.15)


def test_a_life_is_followed_from_its_beginning_to_its_last_age():
    """x starts at zero: the last of three ages has the standard deviation sqrt(1 - rho^4) = 0.77."""
    young, old = (widening(Drift(horizon=T)) for T in (3, 60))
    assert young.domain["x"][1] == pytest.approx(1.15 * 0.77 * 3.1, abs=0.2)
    assert old.domain["x"][1] == pytest.approx(3.78, abs=0.15)


def test_positive_states_stay_positive():
    """ln k has the standard deviation sigma / sqrt(1 - alpha^2); the domain is even in logarithms."""
    model = BrockMirman(sigma=0.3)
    mean = math.log(model.alpha * model.beta) / (1 - model.alpha)
    low, high = widening(model.with_domain({"k": (0.1, 0.2)})).domain["k"]
    assert (math.log(low) - mean) / 0.3216 == pytest.approx(-3.78, abs=0.2)
    assert high == pytest.approx(math.exp(mean + 3.78 * 0.3216), rel=0.1)
    narrow = model.with_domain({"k": (0.18, 0.2)})
    assert widening(narrow).domain["k"] == pytest.approx((0.18 * 0.9**4, 0.2 + 4 * 0.02))  # no farther at once


def test_wealth_that_grows_for_ever_is_not_followed():
    found = widening(Portfolio())
    assert found.growing == ("W",)
    assert found.domain == {}
    assert "W moves on without end" in found.text


def test_a_perturbation_tells_the_spread_before_anything_is_solved():
    """By the closed form of `StochasticGrowth.spread`."""
    model = StochasticGrowth(gamma=5.0, sigma=0.02)
    narrow = econrl.solve(model.with_domain({"k": (0.9, 1.1), "z": (-0.1, 0.1)}), "perturbation")
    mdp, policy = narrow.mdp, narrow.policy_function
    std_k, std_z = model.spread
    assert spread(mdp, policy, policy.s_star).tolist() == pytest.approx([std_k, std_z], rel=1e-4)
    domain = around(mdp, policy, policy.s_star, torch.Generator().manual_seed(0))
    assert domain["k"] == pytest.approx((math.exp(-4 * std_k), math.exp(4 * std_k)), rel=1e-3)
    assert domain["z"] == pytest.approx((-4 * std_z, 4 * std_z), rel=1e-3)


def test_a_random_walk_is_left_alone():
    mdp = MDP(Drift(rho=1.0, limit=1e3))
    s = torch.zeros(1, dtype=torch.float64)
    assert around(mdp, half(mdp), s, torch.Generator().manual_seed(0)) == {}
    mdp = MDP(Drift(rho=0.8, limit=1e3))
    assert around(mdp, half(mdp), s, torch.Generator().manual_seed(0))["x"] == pytest.approx((-4, 4))
