"""Taste shocks on the options of a choice: against draws of them, Rust's fixed point, and brute force in numpy."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import econrl
from econrl import Action, Choice, Discrete, DiscreteState, Model, State
from econrl.accuracy.certificates import lifetime
from econrl.errors import MethodError, SaveError, SpecError
from econrl.models import Retirement, RustBus
from econrl.optimality.greedy import regret_of
from econrl.problem.alternatives import Comparison
from econrl.problem.bellman import bellman_residual, lookahead
from econrl.problem.lottery import drawn, expected, taste
from econrl.problem.mdp import MDP
from econrl.solvers import METHODS
from econrl.solvers.fitted.fvi import FVI
from econrl.solvers.grid.vi import VI


def solve(model, method="vi", **budget):
    return econrl.solve(model, method, progress=False, **budget)


@dataclass(frozen=True, kw_only=True)
class Random(Model):
    """Four states; a choice of three options with taste shocks, and one of two without; everything drawn once."""

    beta: float = 0.8
    sigma: float = 0.4
    seed: int = 0

    @property
    def numbers(self):
        """Rewards (4, 3, 2), and next states (4, 3, 2, 2) for two equally likely shocks."""
        rng = np.random.default_rng(self.seed)
        return rng.normal(size=(4, 3, 2)), rng.integers(4, size=(4, 3, 2, 2))

    def states(self):
        return DiscreteState("x", n=4)

    def actions(self):
        return Choice("plain", n=2), Choice("d", n=3, tastes=self.sigma)

    def shocks(self):
        return Discrete("coin", values=(0, 1), probabilities=(0.5, 0.5))

    def look_up(self, table, *index):
        return torch.as_tensor(table, dtype=torch.float64)[tuple(i.long() for i in torch.broadcast_tensors(*index))]

    def reward(self, s, a):
        return self.look_up(self.numbers[0], s.x, a.d, a.plain).to(s.x.dtype)

    def transition(self, s, a, e):
        return {"x": self.look_up(self.numbers[1], s.x, a.d, a.plain, e.coin).to(s.x.dtype)}

    def exact(self):
        """V (4,), Q (4, 3, 2) and the probabilities (4, 3) of d, by iteration in numpy."""
        r, to = self.numbers
        V = np.zeros(4)
        for _ in range(300):
            Q = r + self.beta * V[to].mean(axis=-1)
            v = Q.max(axis=2)
            V = self.sigma * np.log(np.exp(v / self.sigma).sum(axis=1))
        return V, Q, np.exp((v - V[:, None]) / self.sigma)


# How values are compared


def test_values_probabilities_and_mean_shocks_are_those_of_extreme_values_drawn():
    """Two million draws of sigma (gumbel - Euler's constant)."""
    sigma, v = 0.7, np.array([0.3, 1.0, -0.5])
    eps = sigma * (np.random.default_rng(0).gumbel(size=(2_000_000, 3)) - np.euler_gamma)
    chosen = (v + eps).argmax(axis=1)
    comparison = Comparison(sigma, torch.arange(3))
    p = comparison.probabilities(torch.as_tensor(v))
    assert float(comparison.value(torch.as_tensor(v))) == pytest.approx((v + eps).max(axis=1).mean(), abs=3e-3)
    shocks = comparison.shocks(p)
    for d in range(3):
        assert float(p[d]) == pytest.approx((chosen == d).mean(), abs=2e-3)
        assert float(shocks[d]) == pytest.approx(eps[chosen == d, d].mean(), abs=5e-3)
    assert float(comparison.value(torch.as_tensor(v))) == pytest.approx(
        float((p * (torch.as_tensor(v) + shocks)).sum())
    )


def test_alternatives_without_shocks_of_their_own_are_compared_by_their_maximum():
    """Rows with option 1, 0, 1, 0: log(e^max(Q1, Q3) + e^max(Q0, Q2)); one of all four has no chance."""
    comparison = Comparison(1.0, torch.tensor([1, 0, 1, 0]))
    Q = torch.tensor([[0.0, 2.0, 1.0, -math.inf]], dtype=torch.float64)
    assert float(comparison.value(Q)) == pytest.approx(math.log(math.e + math.e**2))
    p = comparison.probabilities(Q)[0]
    assert p.tolist() == pytest.approx([0, math.e / (math.e + 1), 1 / (math.e + 1), 0])
    assert comparison.of_option(p).tolist() == pytest.approx([float(p[2]), float(p[1])] * 2)
    hard = Comparison(0.0, torch.zeros(4))
    assert float(hard.value(Q)) == 2
    assert hard.probabilities(Q).tolist() == [[0, 1, 0, 0]]


# Solved


def rust(model):
    """V and the probability of a replacement at each mileage, by Rust's own recursion."""
    n = int(model.most) + 1
    x, moves = np.arange(n), np.zeros((n, n))
    for step, probability in enumerate(model.steps):
        moves[x, np.minimum(x + step, n - 1)] += probability
    V = np.zeros(n)
    for _ in range(3000):
        keep, replace = -model.theta * x / 1000 + model.beta * moves @ V, -model.RC + model.beta * moves[0] @ V
        V = model.sigma * np.logaddexp(keep / model.sigma, replace / model.sigma)
    return V, 1 / (1 + np.exp((keep - replace) / model.sigma))


@pytest.mark.parametrize("model", [RustBus(), RustBus(RC=5.0, theta=30.0, most=60.0, sigma=0.5)])
def test_engines_are_replaced_as_rust_s_logit_says(model):
    solution = solve(model, "auto")
    V, P = rust(model)
    x = np.arange(len(V))
    assert np.abs(solution.probabilities({"x": x})["replace"][:, 1].numpy() - P).max() < 1e-10
    assert np.abs(solution.value({"x": x}).numpy() - V).max() < 1e-8
    assert solution.verdict.word == "accurate"


SMALL = {
    "vi": (VI(), {}, 1e-9),
    "dqn": (econrl.DQN(episode=3, epsilon=0.5, expected=True), {"steps": 2000}, 0.02),
    "double_dqn": (econrl.DoubleDQN(episode=3, epsilon=0.5, expected=True), {"steps": 2000}, 0.02),
    "q_learning": (econrl.QLearning(), {"steps": 4000}, 0.02),
    "sarsa": (econrl.SARSA(epsilon=0.1), {"steps": 4000}, 0.05),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_choice_with_taste_shocks_beside_one_without(name):
    model = Random()
    method, budget, tolerance = SMALL[name]
    V, _, P = model.exact()
    solution = solve(model, method, **budget)
    points = {"x": np.arange(4)}
    assert np.abs(solution.value(points).numpy() - V).max() < tolerance * np.abs(V).max()
    assert np.abs(solution.probabilities(points)["d"].numpy() - P).max() < 2 * tolerance


def brute_force(model, m):
    """V and P(work) of workers with m (n,) in the first of two periods: consumption on a grid, income by many nodes.
    In the last period all is eaten, and work is nothing but a burden."""
    z, w = np.polynomial.hermite_e.hermegauss(41)
    w = w / w.sum()
    income = model.y * np.exp(model.sigma * z - model.sigma**2 / 2)
    idle = model.tastes * np.log1p(np.exp(-model.delta / model.tastes))
    share = np.linspace(0.001, 0.999, 100_001)
    values = []
    for cash in m:
        c = share * cash
        retired = np.log(c) + model.beta * np.log(cash - c)
        works = np.log(c) - model.delta + model.beta * (np.log(cash - c[:, None] + income) @ w + idle)
        values.append([retired.max(), works.max()])
    v = np.array(values) / model.tastes
    return model.tastes * np.logaddexp(v[:, 0], v[:, 1]), 1 / (1 + np.exp(v[:, 0] - v[:, 1]))


@dataclass(frozen=True, kw_only=True)
class Shocked(Retirement):
    """Who has retired does not work, whatever the shocks."""

    tastes: float = 0.5

    def actions(self):
        works = Choice("work", n=2, tastes=self.tastes, available=lambda s: (True, s.career == 1))
        return works, Action("c", low=0.0, high=lambda s: s.m)


@pytest.mark.parametrize("method", [VI(), FVI(states=200)])
def test_two_periods_of_work_by_brute_force(method):
    """In the last period a retired consumer has no choice, and no shock but its mean, zero."""
    model = Shocked(horizon=2)
    solution = solve(model, method)
    m = np.array([5.0, 10.0, 20.0, 35.0])
    V, P = brute_force(model, m)
    points = {"m": m, "career": 1.0, "t": 0.0}
    assert np.abs(solution.probabilities(points)["work"][:, 1].numpy() - P).max() < 1e-4
    assert np.abs(solution.value(points).numpy() - V).max() < 1e-3
    retired = {"m": m, "career": 0.0, "t": 1.0}
    assert torch.equal(solution.probabilities(retired)["work"], torch.tensor([[1.0, 0.0]]).double().expand(4, 2))
    assert np.abs(solution.value(retired).numpy() - np.log(m)).max() < 1e-3
    assert solution.verdict.word == "accurate"


# What a policy is worth


def equal_odds(mdp):
    """A policy that takes each option of d alike, and the first one of `plain`."""

    class Policy:
        def __call__(self, s):
            return torch.zeros(*s.shape[:-1], 2, dtype=s.dtype)

        def probabilities(self, s):
            return ((mdp.options[:, 0] == 0).double() / 3).expand(*s.shape[:-1], 6)

        def under(self, s, row):
            return mdp.options[row]

    return Policy()


def test_a_policy_of_equal_odds_is_worth_what_numpy_says():
    model, s = Random(), torch.arange(4.0, dtype=torch.float64).unsqueeze(-1)
    mdp, (r, to) = MDP(model), model.numbers
    policy, (_, Q, _) = equal_odds(mdp), model.exact()
    shock = model.sigma * math.log(3)
    moves = np.zeros((4, 4))
    for i, j in np.ndindex(4, 6):
        moves[i, to[i, :, 0].ravel()[j]] += 1 / 6
    V = np.linalg.solve(np.eye(4) - model.beta * moves, r[:, :, 0].mean(axis=1) + shock)
    value = lambda s: torch.as_tensor(V)[s[..., 0].long()]  # noqa: E731
    assert bellman_residual(mdp, policy, value, s).abs().max() < 1e-12
    a = drawn(mdp, policy, s.repeat(3000, 1), torch.Generator().manual_seed(0))
    assert [(a[:, 1] == d).double().mean().item() for d in range(3)] == pytest.approx([1 / 3] * 3, abs=0.02)
    assert (a[:, 0] == 0).all()
    assert taste(mdp, policy, s, a[:4]).tolist() == pytest.approx([shock] * 4)
    optimal = lambda s: torch.as_tensor(model.exact()[0])[s[..., 0].long()]  # noqa: E731
    v = Q.max(axis=2)
    log_sum = model.sigma * np.log(np.exp(v / model.sigma).sum(axis=1))
    expected_gap = log_sum - Q[:, :, 0].mean(axis=1) - shock
    found = regret_of(mdp, policy, optimal, s, a[:4], 1)
    assert found.numpy() == pytest.approx(expected_gap)
    assert expected(mdp, policy, s, lambda s, a: lookahead(mdp, optimal, s, a)).numpy() == pytest.approx(
        log_sum - expected_gap
    )


def test_simulated_rewards_add_up_to_the_value_and_tables_show_probabilities():
    model = Random()
    solution = solve(model)
    simulated = solution.simulate(periods=60, paths=4000)
    total = (simulated["reward"] * model.beta ** simulated["period"]).groupby(simulated["path"]).sum()
    first = solution.value(simulated[simulated["period"] == 0]).to_numpy()
    assert abs((total.to_numpy() - first).mean()) < 4 * (total.to_numpy() - first).std() / 4000**0.5
    mdp, s = solution.mdp, torch.arange(4.0, dtype=torch.float64).repeat_interleave(2000).unsqueeze(-1)
    whole, _ = lifetime(mdp, solution.policy_function, s, torch.Generator().manual_seed(0))
    gap = whole - solution.value(s)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / len(s) ** 0.5, "welfare leaves the shocks out"
    P = model.exact()[2]
    for x in range(4):
        at = simulated[simulated["x"] == x]
        shares = [(at["d"] == d).mean() for d in range(3)]
        assert shares == pytest.approx(P[x], abs=4 * (0.25 / len(at)) ** 0.5)
    table = solution.policy_table()
    assert table[["d_p[0]", "d_p[1]", "d_p[2]"]].to_numpy() == pytest.approx(P, abs=1e-8)
    assert (table["d"].to_numpy() == P.argmax(axis=1)).all()
    assert table["d"].dtype.kind == "i"
    frame = pd.DataFrame({"x": [0.0, 3.0]}, index=[7, 9])
    assert solution.probabilities(frame).loc[9].to_numpy() == pytest.approx(P[3], abs=1e-8)
    assert list(solution.probabilities(frame)) == ["d[0]", "d[1]", "d[2]"]
    assert solution.probabilities(torch.tensor([[3.0]])).shape == (1, 3)


def test_it_is_saved_and_loaded_and_another_scale_is_another_model(tmp_path):
    solution = solve(Shocked(horizon=2), VI(points=(20,)))
    solution.save(tmp_path / "kept")
    again = econrl.load(tmp_path / "kept")
    assert again.policy_table().equals(solution.policy_table())

    @dataclass(frozen=True, kw_only=True)
    class Louder(Shocked):
        def actions(self):
            return Choice("work", n=2, tastes=0.6), super().actions()[1]

    Louder.__name__ = "Shocked"
    with pytest.raises(SaveError, match="was solved for another Shocked"):
        econrl.load(tmp_path / "kept", Louder)


# What is refused


def test_methods_without_taste_shocks_say_so_and_name_those_that_can():
    with pytest.raises(
        MethodError, match=r"no taste shocks, and the options of 'd' have them. Methods that can: .*\bvi"
    ):
        solve(Random(), "ppo")
    for cls in METHODS.values():
        if cls.choices and not cls.tastes:
            assert "no taste shocks" in cls().why_not(MDP(Random()))
    with pytest.raises(MethodError, match="no choice with taste shocks"):
        solve(RustBus(sigma=0.0)).probabilities({"x": 3.0})


@pytest.mark.parametrize("tastes", [-1.0, math.inf, math.nan, "a lot", True])
def test_a_scale_that_is_none(tastes):
    with pytest.raises(SpecError, match=r"RustBus.actions: Choice 'replace' has tastes = .*finite number of 0"):
        econrl.check(RustBus(sigma=tastes))


def test_two_choices_with_shocks_are_refused():
    @dataclass(frozen=True, kw_only=True)
    class Two(Random):
        def actions(self):
            return Choice("plain", n=2, tastes=1.0), Choice("d", n=3, tastes=1.0)

    with pytest.raises(SpecError, match=r"'plain' and 'd' both have taste shocks.*make them one choice"):
        econrl.check(Two())


def test_a_scale_cannot_vary_in_one_solve():
    with pytest.raises(SpecError, match=r"the scale of the taste shocks on 'replace' cannot vary in one solve"):
        solve(RustBus(), over={"sigma": (0.5, 1.0)})


@dataclass(frozen=True, kw_only=True)
class Wear(Model):
    """A machine that is replaced at a price, in a continuous state."""

    beta: float = 0.9
    price: float = 2.0

    def states(self):
        return State("x", low=0.0, high=12.0)

    def actions(self):
        return Choice("replace", n=2, tastes=0.5)

    def reward(self, s, a):
        return -0.1 * s.x - self.price * a.replace

    def transition(self, s, a, e):
        return {"x": torch.where(a.replace == 1, 0.0, (s.x + 1).clamp(max=12.0))}


def test_over_a_range_of_another_parameter_and_beyond_the_domain():
    family = solve(Wear(), VI(points=25), over={"price": (1.0, 3.0)})
    one = solve(Wear(price=2.5), VI(points=25))
    x = {"x": np.arange(13)}
    found, wanted = family.at(price=2.5).probabilities(x)["replace"], one.probabilities(x)["replace"]
    assert (found - wanted).abs().max() < 0.01  # a kink where the wear ends
    with pytest.warns(econrl.OutsideDomain):
        beyond = one.probabilities({"x": [13.0, 100.0]})["replace"]
    assert (beyond - wanted[-1]).abs().max() < 0.1
    assert torch.allclose(beyond.sum(-1), torch.ones(2).double())


@pytest.mark.parametrize(("method", "tolerance"), [(VI(points=49), 2e-3), (FVI(states=300), 0.02)], ids=["vi", "fvi"])
def test_a_stationary_value_with_shocks_by_policy_iteration(method, tolerance):
    """From whole numbers the wear goes to whole numbers: thirteen states, by iteration in numpy."""
    model, x = Wear(), np.arange(13)
    V = np.zeros(13)
    for _ in range(500):
        keep = -0.1 * x + model.beta * V[np.minimum(x + 1, 12)]
        replace = -0.1 * x - model.price + model.beta * V[0]
        V = 0.5 * np.logaddexp(keep / 0.5, replace / 0.5)
    P = 1 / (1 + np.exp((keep - replace) / 0.5))
    solution = solve(model, method)
    assert np.abs(solution.value({"x": x}).numpy() - V).max() < tolerance * np.abs(V).max()
    assert np.abs(solution.probabilities({"x": x})["replace"][:, 1].numpy() - P).max() < tolerance
