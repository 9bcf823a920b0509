"""Intervals that shrink to a point and budgets of zero: hours after retirement, a market that is closed. Against brute
force and a closed form in numpy."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import DDPG, FVI, VI, Action, Budget, Discrete, MarkovChain, Model, State
from econrl.accuracy.optimality_gaps import euler_gaps
from econrl.errors import SpecError
from econrl.optimality.bounded_forms import Forms
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.solvers.grid.collocation import Equations
from econrl.utility import crra


def solve(model, method, **budget):
    return econrl.solve(model, method, progress=False, **budget)


@dataclass(frozen=True, kw_only=True)
class Hours(Model):
    """Hours n until the period `work`, none after; consumption of what there is."""

    horizon: int = 2
    work: int = 1
    beta: float = 0.96
    R: float = 1.03
    psi: float = 2.0

    def states(self):
        return State("b", low=0.1, high=6.0)

    def actions(self):
        hours = Action("n", low=0.0, high=lambda s: torch.where(s.t < self.work, 1.0, 0.0).to(s.b))
        return hours, Action("c", low=0.0, high=self.cash)

    def shocks(self):
        return Discrete("e", values=(0.05, 0.15), probabilities=(0.5, 0.5))

    def cash(self, s, a):
        return s.b + a.n

    def reward(self, s, a):
        return a.c.log() - self.psi * a.n**2 / 2

    def transition(self, s, a, e):
        return {"b": self.R * (self.cash(s, a) - a.c) + e.e}


def working_life(model, b):
    """n, c and V in the first of two periods at b (k,), where all is eaten in the second: n and c on a grid."""
    n, share = np.meshgrid(np.linspace(0, 1, 801), np.linspace(0.002, 1, 1500), indexing="ij")
    found = []
    for cash in b:
        c = share * (cash + n)
        later = [np.log(model.R * (cash + n - c) + e) / 2 for e in (0.05, 0.15)]
        v = np.log(c) - model.psi * n**2 / 2 + model.beta * sum(later)
        best = np.unravel_index(v.argmax(), v.shape)
        found.append((n[best], c[best], v[best]))
    return np.array(found).T


@pytest.mark.parametrize(
    ("method", "budget", "tolerance"),
    [
        (VI(), {}, 2e-3),
        ("time_iteration", {}, 2e-3),
        (FVI(states=150), {}, 2e-3),
        (DDPG(hidden=(16, 16)), {"steps": 1500}, 0.02),
    ],
    ids=["vi", "time_iteration", "fvi", "ddpg"],
)
def test_hours_that_end_with_work(method, budget, tolerance):
    model, b = Hours(), np.array([0.3, 1.0, 3.0])
    n, c, V = working_life(model, b)
    solution = solve(model, method, **budget)
    first, last = {"b": b, "t": 0.0}, {"b": b, "t": 1.0}
    assert np.abs(solution.policy(first)["n"].numpy() - n).max() < 2 * tolerance
    assert np.abs(solution.policy(first)["c"].numpy() / c - 1).max() < 2 * tolerance
    assert np.abs(solution.value(first).numpy() - V).max() < 5 * tolerance
    assert (solution.policy(last)["n"] == 0).all()
    assert np.abs(solution.policy(last)["c"].numpy() / b - 1).max() < 2 * tolerance
    accuracy = solution.accuracy(300)
    assert accuracy[accuracy["measure"] != "kinks"]["mean"].notna().all()
    assert solution.simulate(paths=20).notna().all().all()


def test_a_longer_life_by_the_euler_equation():
    """The hours of the retired are no margin: their condition does not hold, and is not to enter today's."""
    model = Hours(horizon=4, work=2)
    solution = solve(model, "time_iteration")
    assert solution.verdict.word == "accurate"
    by_value = solve(model, FVI(states=150))
    points = {"b": np.array([0.5, 2.0, 4.0])[:, None], "t": np.arange(4.0)}
    for name, a in by_value.policy(points).items():
        assert (solution.policy(points)[name] - a).abs().max() < 2e-3


@dataclass(frozen=True, kw_only=True)
class Market(Model):
    """Wealth m; a share of what is not consumed goes into a risky asset where the market is open."""

    beta: float = 0.95
    gamma: float = 2.0
    safe: float = 1.01
    P: tuple = ((0.4, 0.6), (0.2, 0.8))

    def states(self):
        return State("m", low=0.5, high=2.0), MarkovChain("open", values=[0.0, 1.0], P=self.P)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m), Budget("w", size=1, total=lambda s, a: s.open * (s.m - a.c))

    def shocks(self):
        return Discrete("R", values=(0.94, 1.09), probabilities=(0.5, 0.5))

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.safe * (s.m - a.c - a.w.sum(-1)) + a.w[..., 0] * e.R}

    def exact(self):
        """k = c / m where the market is closed and open, and the risky share of what is left where it is open:
        V_o = k_o^-gamma m^(1-gamma) / (1-gamma), 1/k_o = 1 + (beta E[R^(1-gamma)] sum_j P_oj k_j^-gamma)^(1/gamma)."""
        share = np.linspace(0, 1, 1_000_001)
        risky = sum((self.safe + share * (R - self.safe)) ** (1 - self.gamma) / 2 for R in (0.94, 1.09))
        w, growth = share[risky.argmin()], np.array([self.safe ** (1 - self.gamma), risky.min()])
        k = np.array([0.1, 0.1])
        for _ in range(2000):
            k = 1 / (1 + (self.beta * growth * (np.array(self.P) @ k**-self.gamma)) ** (1 / self.gamma))
        return k, w


@pytest.mark.parametrize(
    ("method", "budget", "tolerance"),
    [
        (VI(points=25), {}, 2e-3),
        ("newton", {"steps": 40}, 2e-3),
        ("time_iteration", {"steps": 40}, 0.02),
    ],
    ids=["vi", "newton", "time_iteration"],
)
def test_a_portfolio_whose_market_is_closed_at_times(method, budget, tolerance):
    model = Market()
    k, w = model.exact()
    assert 0.1 < w < 0.9
    solution = solve(model, method, **budget)
    m = np.array([0.7, 1.0, 1.6])
    for state in (0, 1):
        found = solution.policy({"m": m, "open": float(state)})
        assert np.abs(found["c"].numpy() / m / k[state] - 1).max() < tolerance
        share = found["w"][:, 0].numpy() / (m - found["c"].numpy())
        assert np.abs(share - w * state).max() < 5 * tolerance
    assert np.isfinite(solution.accuracy(300).query("measure != 'kinks' and sample == 'ergodic'")["mean"]).all()


def test_conditions_are_met_where_there_is_no_room():
    """At the exact policy no residual is left, and no better action is near, on open and on closed markets."""
    model = Market()
    k, w = (torch.as_tensor(x) for x in model.exact())
    mdp = MDP(model)
    structure = find_structure(mdp)
    assert structure.without_room == (False, True)

    def exact(s):
        c = k[s[..., 1].long()] * s[..., 0]
        return torch.stack([c, w * s[..., 1] * (s[..., 0] - c)], dim=-1)

    s = mdp.sample_box(60, torch.Generator().manual_seed(0))
    assert mdp.shares(s, exact(s))[s[:, 1] == 0][:, 1].unique().tolist() == [0.5]
    assert euler_residuals(mdp, structure, exact, s).abs().max() < 1e-5
    found = euler_gaps(mdp, structure, exact, s)
    assert found.distance.max() < 1e-5
    assert (found.distance[s[:, 1] == 0][:, 1] == 0).all()


def test_newton_s_method_holds_a_share_in_the_middle_where_it_moves_nothing():
    """Else its Jacobian would be singular there."""
    mdp = MDP(Hours())
    equations = Equations(mdp, find_structure(mdp), Forms(mdp, ["free", "free"]))
    z = mdp.tensor([[1.0, 0.5], [-2.0, 0.5]])
    R = equations.residual(mdp.tensor([[1.0, 1.0], [2.0, 1.0]]), z, lambda s: mdp.act(s, 0 * s))
    assert torch.allclose(R[:, 0], z[:, 0].sigmoid() - 0.5)


def test_check_takes_an_action_without_room_beside_another_and_no_model_without_any():
    assert econrl.check(Hours()) == []
    assert econrl.check(Hours(work=0)) == []
    assert econrl.check(Market()) == []

    @dataclass(frozen=True, kw_only=True)
    class Idle(Hours):
        def actions(self):
            return Action("n", low=0.0, high=lambda s: 0 * s.b)

        def reward(self, s, a):
            return s.b.log() - a.n

        def transition(self, s, a, e):
            return {"b": s.b}

    with pytest.raises(SpecError, match=r"low = high at all of .* which leaves no choice"):
        econrl.check(Idle())
