"""Shocks whose parameters are functions of the state, and shocks that are correlated."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import econrl
from econrl import Action, Correlated, Discrete, LogNormal, MarkovChain, Model, Normal, SpecError, State, Uniform
from econrl.optimality.find_structure import find_structure
from econrl.problem.layout import View
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import move
from econrl.problem.steady_state import mean_discount, mean_transition

QUICK = econrl.DDPG(hidden=(8,), batch=16, start_steps=1)
PROBABLE = lambda s: (1 - s.x, 0.7 * s.x, 0.3 * s.x)  # noqa: E731
KINDS = {
    "normal": (Normal("e", mean=lambda s: 2 * s.x, std=lambda s: s.x), lambda x: (2 * x, x)),
    "mean": (Normal("e", mean=lambda s: 2 * s.x, std=0.3), lambda x: (2 * x, 0.3)),
    "lognormal": (
        LogNormal("e", std=lambda s: s.x, mean=lambda s: 1 + s.x),
        lambda x: (1 + x, (1 + x) * math.sqrt(math.expm1(x**2))),
    ),
    "uniform": (Uniform("e", low=lambda s: -s.x, high=2.0), lambda x: ((2 - x) / 2, (2 + x) / math.sqrt(12))),
    "discrete": (
        Discrete("e", values=(0.0, 1.0, 3.0), probabilities=PROBABLE),
        lambda x: (1.6 * x, math.sqrt(3.4 * x - (1.6 * x) ** 2)),
    ),
    "tensor": (
        Discrete("e", values=(0.0, 1.0), probabilities=lambda s: torch.stack([1 - s.x, s.x], dim=-1)),
        lambda x: (x, math.sqrt(x * (1 - x))),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Around(Model):
    """x falls by itself; any shock e is added to y, and beside it stand another one and a chain."""

    shock: Any
    beta: float = 0.9

    def states(self):
        chain = MarkovChain("z", values=[1.0, 2.0], P=[[0.8, 0.2], [0.5, 0.5]])
        return State("x", low=0.1, high=0.9), State("y", low=-2.0, high=2.0), chain

    def actions(self):
        return Action("a", low=0.0, high=1.0)

    def shocks(self):
        return Normal("other", std=0.1), self.shock, Discrete("coin", values=[0.0, 1.0], probabilities=[0.5, 0.5])

    def reward(self, s, a):
        return s.y - (a.a - s.x) ** 2

    def transition(self, s, a, e):
        return {"x": 0.1 + 0.5 * s.x, "y": 0.5 * s.y + 0.1 * e.e * e.z + 0.0 * e.other * e.coin}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["gauss", "monomial", "sobol"])
def test_nodes_have_the_moments_of_the_state(kind, rule):
    shock, moments = KINDS[kind]
    mdp = MDP(Around(shock=shock), quadrature=Quadrature(rule, nodes=9, points=4096))
    s = mdp.tensor([[0.2, 0.0, 0.0], [0.5, 1.0, 1.0]])
    e, w = mdp.shocks(s.unsqueeze(-2), mdp.nodes).e, mdp.weights(s)
    np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-12)
    mean = (w * e).sum(-1)
    std = (w * (e - mean.unsqueeze(-1)) ** 2).sum(-1).sqrt()
    expected = np.array([moments(x) for x in (0.2, 0.5)])
    loose = {"gauss": 1e-6, "monomial": 0.05, "sobol": 0.01}[rule]
    np.testing.assert_allclose(mean, expected[:, 0], rtol=loose if kind == "lognormal" or rule != "gauss" else 1e-10)
    np.testing.assert_allclose(std, expected[:, 1], rtol=0.2 if rule == "monomial" else loose)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_moments_of_the_state(kind):
    shock, moments = KINDS[kind]
    mdp, n = MDP(Around(shock=shock)), 200_000
    for x in (0.2, 0.5):
        s = mdp.tensor([x, 0.0, 1.0]).expand(n, -1)
        e = mdp.shocks(s, mdp.sample_shocks(s, torch.Generator().manual_seed(1))).e
        mean, std = moments(x)
        assert abs(float(e.mean()) - mean) < 4 * std / math.sqrt(n)
        assert abs(float(e.std()) / std - 1) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_check_has_nothing_against_them_and_environments_and_files_take_them(kind, tmp_path):
    from econrl.gym import make_vec

    @dataclass(frozen=True, kw_only=True)
    class Own(Around):
        shock: float = 0.0

        def shocks(self):
            return KINDS[kind][0]

        def transition(self, s, a, e):
            return {"x": 0.1 + 0.5 * s.x, "y": 0.5 * s.y + 0.1 * e.e * e.z}

    assert econrl.check(Own()) == []
    env = make_vec(Own(), num_envs=4)
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[0]).all()
    solution = econrl.solve(Own(), QUICK, steps=2, device="cpu", progress=False)
    solution.save(tmp_path / "s")
    loaded = econrl.load(tmp_path / "s", Own)
    assert loaded.simulate(5, 3).equals(solution.simulate(5, 3))


def test_the_same_random_numbers_hold_for_states_that_differ():
    mdp = MDP(Around(shock=KINDS["discrete"][0]))
    s = mdp.tensor([[0.2, 0.0, 1.0], [0.8, 0.0, 1.0]])[:, None].expand(2, 5000, 3)
    e, _ = move(mdp, s, mdp.tensor([0.5]).expand(2, 5000, 1), torch.Generator().manual_seed(0))
    view = mdp.shocks(s, e)
    assert torch.equal(view.other[0], view.other.expand(2, -1)[1])
    assert (view.e[1] >= view.e[0]).all()  # the larger probability of the larger values, of the same uniforms
    assert (view.e[1] > view.e[0]).any()


def test_values_in_rows_and_one_with_others():
    rows = Discrete("e", values=[[0.0, 1.0], [2.0, 3.0]], probabilities=lambda s: (s.x, 1 - s.x))
    mdp = MDP(Rows(shock=rows))
    s = mdp.tensor([[0.3, 0.0, 0.0]])
    e, w = mdp.shocks(s.unsqueeze(-2), mdp.nodes).e, mdp.weights(s)
    assert e.shape == (len(mdp.nodes), 2)
    np.testing.assert_allclose((w.unsqueeze(-1) * e).sum(-2)[0], [1.4, 2.4], rtol=1e-12)
    econrl.check(Rows(shock=rows))
    econrl.check(Rows(shock=Normal("e", std=lambda s: (s.x, 2 * s.x), size=2)))
    vector = MDP(Rows(shock=Normal("e", std=lambda s: s.x, size=2)))
    e = vector.shocks(s.expand(3, 1, 3), vector.nodes).e
    assert e.shape == (3, len(vector.nodes), 2)


@dataclass(frozen=True, kw_only=True)
class Rows(Around):
    def transition(self, s, a, e):
        return {"x": 0.1 + 0.5 * s.x, "y": 0.5 * s.y + 0.1 * e.e.sum(-1) + 0.0 * e.other * e.coin}


# Against the same written by hand


@dataclass(frozen=True, kw_only=True)
class Volatile(Model):
    """Growth with a volatility v that moves: z' = rho z + v eps, by hand or by the shock."""

    beta: float = 0.95
    alpha: float = 0.36
    own: bool = True

    def states(self):
        return State("k", low=0.1, high=0.3), State("z", low=-0.3, high=0.3), State("v", low=0.01, high=0.06)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.z.exp() * s.k**self.alpha)

    def shocks(self):
        return Normal("eps", std=(lambda s: s.v) if self.own else 1.0), LogNormal("nu", std=0.1)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        eps = e.eps if self.own else s.v * e.eps
        return {
            "k": s.z.exp() * s.k**self.alpha - a.c,
            "z": 0.8 * s.z + eps,
            "v": 0.03 * (s.v / 0.03) ** 0.5 * e.nu,
        }


@pytest.mark.parametrize("method", ["perturbation", "smolyak", "time_iteration"])
def test_a_solution_is_that_of_the_model_written_by_hand(method):
    models = Volatile(own=True), Volatile(own=False)
    one, other = (econrl.solve(model, method, steps=20, device="cpu", progress=False) for model in models)
    points = {"k": [0.15, 0.2, 0.25], "z": [-0.1, 0.0, 0.2], "v": [0.02, 0.03, 0.05]}
    assert torch.allclose(one.policy(points)["c"], other.policy(points)["c"], rtol=1e-9)
    exact = (1 - 0.36 * 0.95) * np.exp(points["z"]) * np.array(points["k"]) ** 0.36
    np.testing.assert_allclose(one.policy(points)["c"], exact, rtol=1e-2 if method == "perturbation" else 1e-5)
    simulated = [solution.simulate(20, 5) for solution in (one, other)]
    np.testing.assert_allclose(simulated[0]["z"], simulated[1]["z"], rtol=1e-9)


def test_without_uncertainty_a_shock_is_at_its_mean_whatever_its_spread():
    @dataclass(frozen=True, kw_only=True)
    class Spread(Around):
        def discount(self, s, a, e):
            return 0.5 + 0.1 * e.e

    for kind in ("lognormal", "uniform", "discrete", "normal"):
        shock, moments = KINDS[kind]
        mdp = MDP(Spread(shock=shock), quadrature=Quadrature(nodes=9))
        s, a = mdp.tensor([0.4, 1.0, 0.0]), mdp.tensor([0.5])
        mean = moments(0.4)[0]
        assert float(mean_discount(mdp, s, a)) == pytest.approx(0.5 + 0.1 * mean, rel=1e-8)
        assert float(mean_transition(mdp, s, a)[1]) == pytest.approx(0.5 + 0.1 * mean * 1.2, rel=1e-8)
        slope = torch.func.grad(lambda s: mean_discount(mdp, s, a))(s)  # noqa: B023
        by_hand = 0.1 * (moments(0.4 + 1e-5)[0] - moments(0.4 - 1e-5)[0]) / 2e-5
        assert float(slope[0]) == pytest.approx(by_hand, abs=1e-6)


# Survival


@dataclass(frozen=True, kw_only=True)
class Mortal(Model):
    """Who is alive tomorrow is so with a probability of its own at each age, or one that rises with wealth."""

    horizon: int = 4
    beta: float = 0.9
    by_wealth: bool = False

    def states(self):
        return State("m", low=0.2, high=6.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def survival(self, s):
        return s.m / (1 + s.m) if self.by_wealth else self.by_age([0.95, 0.8, 0.5, 0.0], s.t)

    def shocks(self):
        y = Discrete("y", values=[0.5, 1.5], probabilities=[0.5, 0.5])
        return y, Discrete("alive", values=[0.0, 1.0], probabilities=lambda s: (1 - self.survival(s), self.survival(s)))

    def discount(self, s, a, e):
        return self.beta * e.alive

    def reward(self, s, a):
        return 2 + a.c.log()

    def transition(self, s, a, e):
        return {"m": 1.02 * (s.m - a.c) + e.y}


def by_brute_force(model: Mortal):
    """c(m) by age: the best of many shares of m, backwards, with values between a fine grid's points."""
    m, shares = np.geomspace(0.2, 8, 400), np.linspace(0.002, 1, 500)
    value, tables = np.zeros_like(m), []
    for t in reversed(range(model.horizon)):
        p = m / (1 + m) if model.by_wealth else np.full_like(m, [0.95, 0.8, 0.5, 0.0][t])
        c = m[:, None] * shares
        then = sum(0.5 * np.interp(1.02 * (m[:, None] - c) + y, m, value) for y in (0.5, 1.5))
        worth = 2 + np.log(c) + model.beta * p[:, None] * then
        best = worth.argmax(axis=1)
        value = worth.max(axis=1)
        tables.insert(0, (m, m * shares[best]))
    return lambda x, t: np.interp(x, *tables[t])


SOLVERS = {"vi": "vi", "fvi": econrl.FVI(states=300), "egm": "egm", "time_iteration": "time_iteration", "auto": "auto"}


@pytest.mark.parametrize(
    ("method", "by_wealth"),
    [*((method, False) for method in SOLVERS), ("vi", True), ("fvi", True), ("auto", True)],
)
def test_survival_by_age_and_by_wealth(method, by_wealth):
    model = Mortal(by_wealth=by_wealth)
    exact = by_brute_force(model)
    solution = econrl.solve(model, SOLVERS[method], device="cpu", progress=False)
    m = np.linspace(0.5, 5, 40)
    for t in range(model.horizon):
        c = solution.policy({"m": m, "t": float(t)})["c"].numpy()
        assert np.abs(c / exact(m, t) - 1).mean() < 0.01, f"at age {t}"
    assert solution.verdict.word == "accurate"


def test_where_probabilities_are_endogenous_there_is_no_euler_equation():
    mdp = MDP(Mortal(by_wealth=True))
    assert not find_structure(mdp).exists
    assert find_structure(MDP(Mortal())).exists
    with pytest.raises(econrl.MethodError, match=r"probabilities of shocks depend on an endogenous state.*vi, fvi"):
        econrl.solve(Mortal(by_wealth=True), "time_iteration")
    for method in (econrl.Pathwise(), econrl.DDPG(rung=3)):
        assert method.why_not(MDP(Mortal())) is None
        assert "a rollout has no derivative where the probabilities" in (method.why_not(mdp) or "")
    with pytest.raises(econrl.MethodError, match="probabilities of shocks must not depend on the endogenous state"):
        econrl.solve(Mortal(by_wealth=True), "egm")


# Families


@dataclass(frozen=True, kw_only=True)
class Saver(Model):
    beta: float = 0.9
    sigma: float = 0.2
    risk: float = 0.1

    def states(self):
        return State("m", low=0.3, high=6.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        employed = Discrete("employed", values=[0.3, 1.0], probabilities=[self.risk, 1 - self.risk])
        return LogNormal("theta", std=self.sigma), employed, Uniform("u", low=0.0, high=self.sigma)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"m": 1.02 * (s.m - a.c) + e.employed * e.theta + e.u}


def test_a_family_has_the_shocks_of_each_member():
    family = econrl.solve(Saver(), "vi", over={"sigma": (0.1, 0.3), "risk": (0.05, 0.2)}, steps=15, device="cpu")
    mdp, n = family.mdp, 2
    s = mdp.tensor([[2.0, 0.15, 0.1], [2.0, 0.25, 0.2]])
    for i, (sigma, risk) in enumerate([(0.15, 0.1), (0.25, 0.2)]):
        own = MDP(Saver(sigma=sigma, risk=risk), quadrature=mdp.quadrature)
        at, a = own.tensor([[2.0]]), own.tensor([[1.0]])
        np.testing.assert_allclose(mdp.weights(s).expand(n, -1)[i], own.weights(at).flatten(), rtol=1e-12)
        found = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes)[i, :, 0]
        np.testing.assert_allclose(found, own.transition(at, a, own.nodes)[:, 0], rtol=1e-12)
        m = {"m": [0.5, 1.0, 3.0]}
        alone = econrl.solve(Saver(sigma=sigma, risk=risk), "vi", device="cpu").policy(m)["c"]
        np.testing.assert_allclose(family.at(sigma=sigma, risk=risk).policy(m)["c"], alone, rtol=0.02)


def test_what_cannot_vary_over_a_family_is_named():
    @dataclass(frozen=True, kw_only=True)
    class Wide(Saver):
        def shocks(self):
            return Normal("theta", cov=[[self.sigma, 0.0], [0.0, 1.0]]), *super().shocks()[1:]

        def transition(self, s, a, e):
            return {"m": 1.02 * (s.m - a.c) + e.theta.sum(-1).exp()}

    with pytest.raises(SpecError, match=r"`cov` of the shock 'theta' varies .* where only mean and std"):
        econrl.solve(Wide(), "vi", over={"sigma": (0.1, 0.3)})


# Correlated shocks

COV = [[0.04, 0.03], [0.03, 0.09]]
PAIRS = {
    "cov": Correlated(("e", "f"), cov=COV),
    "corr": Correlated(("e", "f"), std=(0.2, 0.3), corr=0.5),
    "matrix": Correlated(("e", "f"), std=(0.2, 0.3), corr=[[1.0, 0.5], [0.5, 1.0]]),
    "function": Correlated(("e", "f"), std=lambda s: (0.4 * s.x, 0.6 * s.x), mean=(0.0, 0.0), corr=0.5),
}


@dataclass(frozen=True, kw_only=True)
class Two(Around):
    def transition(self, s, a, e):
        return {"x": 0.5 + 0 * s.x, "y": 0.5 * s.y + e.e - 2 * e.f + 0.0 * e.other * e.coin}


@pytest.mark.parametrize("kind", PAIRS)
def test_correlated_shocks_are_read_by_their_names(kind):
    mdp = MDP(Two(shock=PAIRS[kind]))
    s = mdp.tensor([[0.5, 0.0, 0.0]])
    for rule in ("gauss", "monomial"):
        mdp = mdp.with_quadrature(Quadrature(rule))
        view, w = mdp.shocks(s.unsqueeze(-2), mdp.nodes), mdp.weights(s)
        both = torch.stack(torch.broadcast_tensors(view.e, view.f), dim=-1).reshape(-1, 2)
        np.testing.assert_allclose((w[0] * both.T) @ both, COV, atol=1e-12)
    many = s.expand(200_000, -1)
    drawn = mdp.shocks(many, mdp.sample_shocks(many, torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(np.cov(torch.stack([drawn.e, drawn.f]).numpy()), COV, rtol=0.03)
    assert econrl.check(Two(shock=PAIRS[kind])) == []
    assert [slot.name for slot in mdp.shock_slots] == ["other", "e", "f", "coin", "z"]


# Known shocks


@pytest.mark.parametrize("kind", [*KINDS, *PAIRS])
def test_known_values_of_them_make_the_very_path(kind):
    @dataclass(frozen=True, kw_only=True)
    class Own(Two if kind in PAIRS else Around):
        shock: float = 0.0

        def shocks(self):
            other, _, coin = super().shocks()
            return other, {**PAIRS, **{name: shock for name, (shock, _) in KINDS.items()}}[kind], coin

    values = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]) + (0.5 if kind == "lognormal" else 0.0)
    known = {"e": values, "f": 0.5 * values} if kind in PAIRS else {"e": values}
    solution = econrl.solve(Own(), QUICK, steps=2, device="cpu", progress=False)
    table = solution.simulate(initial={"x": [0.3, 0.7], "y": [0.0, 1.0], "z": [1.0, 2.0]}, shocks=known)
    y, z = (table.pivot(index="path", columns="period", values=name).to_numpy() for name in "yz")
    moved = 0.0 * z[:, 1:] if kind in PAIRS else 0.1 * values[:, :-1] * z[:, 1:]  # e - 2 f is zero
    np.testing.assert_allclose(y[:, 1:], 0.5 * y[:, :-1] + moved, atol=1e-12)
    if kind in PAIRS:
        with pytest.raises(SpecError, match="the shocks e, f are correlated: give all of them, or none, not f alone"):
            solution.simulate(shocks={"f": values})
    if kind == "uniform":
        with pytest.raises(SpecError, match="the shock 'e' cannot take a value that was given"):
            solution.simulate(shocks={"e": values + 7})


# Mistakes


WRONG = [
    (Normal("e", std=lambda s: s.x - 0.5), "Around.shocks, 'e': std is negative at the state x = 0.[1-4]"),
    (LogNormal("e", mean=lambda s: s.y), "'e': mean is not positive at the state"),
    (Uniform("e", low=lambda s: s.x, high=0.5), "'e': low is above high at the state"),
    (
        Discrete("e", values=[0, 1], probabilities=lambda s: (1 - s.y, s.y)),
        "a probability is negative at the state",
    ),
    (
        Discrete("e", values=[0, 1], probabilities=lambda s: (s.x, s.x)),
        "probabilities do not sum to one at the state",
    ),
    (Discrete("e", values=[0, 1], probabilities=lambda s: (s.x, s.x, s.x)), "probabilities gives a sequence of 3 for"),
    (Normal("e", std=lambda s: s.x[:3]), r"'e': std gives shape \(3, 1\) for 64 states; it must give one number"),
    (Normal("e", std=lambda s: s.x / 0), "'e': std is NaN or infinite at the state"),
    (Normal("e", std=lambda s: s.volatility), "std: AttributeError: no state is called 'volatility'.*test_varying"),
    (Discrete("e", values=[0, 1], probabilities=lambda s: s.risk), "shocks: AttributeError: no state is called 'risk'"),
    (Normal("e", cov=[[1.0]], std=lambda s: s.x), "has cov and a function of the state; give std and corr"),
    (Correlated(("e",)), r"has 1 name\(s\); it needs two or more"),
    (Correlated(("e", "f"), corr=1.5), "corr is not positive semidefinite"),
    (Correlated(("e", "f"), corr=[[1.0, 0.2], [0.3, 1.0]]), "corr is not symmetric"),
    (Correlated(("e", "f"), cov=[[1.0, 0.2]]), r"cov has shape \(1, 2\), and the shock size 2"),
    (Correlated(("e", "f"), cov=COV, std=0.3), "has cov beside std or corr"),
    (Correlated(("e", "f"), corr=[[2.0, 0.2], [0.2, 1.0]]), r"corr has \[2.0, 1.0\] on its diagonal"),
    (Correlated(("e", "other")), "declares 'other' more than once"),
]


@pytest.mark.parametrize(("shock", "what"), WRONG)
def test_a_mistake_is_named_in_one_line(shock, what):
    with pytest.raises(SpecError, match=what) as caught:
        econrl.check(Around(shock=shock))
    assert "\n" not in str(caught.value)


def test_values_are_no_functions():
    with pytest.raises(SpecError, match="the shock 'e': only its probabilities may be a function of the state"):
        Discrete("e", values=lambda s: [0, s.x], probabilities=[0.5, 0.5])


def test_given_values_of_correlated_shocks_with_a_covariance_and_of_shocks_that_do_not_vary_there():
    """What is read is what was given: with cov= and a mean that depends on the state; and where a std is zero."""
    view = {"z": torch.tensor([0.0, 1.0], dtype=torch.float64)}
    cov = [[0.01, 0.005], [0.005, 0.01]]
    given = torch.tensor([[0.2, 0.3], [-0.1, 0.4]], dtype=torch.float64)
    correlated = Correlated(("a", "b"), cov=cov, mean=lambda s: torch.stack([0.1 * s.z, 0.0 * s.z], dim=-1))
    here = correlated.at(View("state", view), given)
    assert torch.allclose(here.from_normal(here.to_standard(given)), given)
    perfect = Correlated(("a", "b"), corr=1.0)
    assert perfect.to_standard(torch.tensor([0.3, 0.3], dtype=torch.float64)).isfinite().all()
    assert not perfect.to_standard(torch.tensor([0.3, 0.4], dtype=torch.float64)).isfinite().any()
    one = torch.ones(1, dtype=torch.float64)
    assert LogNormal("y", std=0.0).to_standard(one) == 0
    assert not LogNormal("y", std=0.0).to_standard(1.1 * one).isfinite()
    assert Uniform("u", low=0.5, high=0.5).to_standard(0.5 * one) == 0
