"""The zoo: closed forms solve their models, steady states stay where they are, calibrations are the published ones."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import MarkovChain, SaveError, SpecError
from econrl.checks import check
from econrl.models import (
    BrockMirman,
    BufferStock,
    Copies,
    Firms,
    Investment,
    LifeCycle,
    LinearQuadratic,
    LongPlosser,
    Portfolio,
    StochasticGrowth,
)
from econrl.models.copies import copies, rotation
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.problem.bellman import bellman_residual, lookahead
from econrl.problem.layout import flatten
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.spec.fields_as_text import read_settings
from econrl.storage.model_lookup import find_model, make_model

HAYASHI = {"theta": 1.0, "rho": 0.0, "productivity": 1.01}
# Values are integrated exactly: a value linear or quadratic in the shock takes three nodes, and a discrete shock is its
# own support. Portfolio's weights come from an optimiser, and are as exact as its gradient: 1e-8 in w.
CLOSED_FORMS = [
    (BrockMirman(), 1e-13),
    (BrockMirman(beta=0.9, alpha=0.6, sigma=0.3), 1e-13),
    (Portfolio(n=2), 1e-12),
    (Portfolio(n=5), 1e-12),
    (Portfolio(n=2, gamma=1.0), 1e-12),
    (Portfolio(n=3, gamma=2.0, premium=0.02), 1e-12),
    (Portfolio(n=2, gamma=1.0, premium=0.2), 1e-12),  # the budget binds: all in risky assets
    (Investment(**HAYASHI), 1e-13),
    (Investment(theta=1.0, rho=0.0, productivity=1.0), 1e-13),
    (LinearQuadratic(), 1e-12),
    (LinearQuadratic(n=6, m=2), 1e-11),
]
NAMES = [f"{type(m).__name__}-{i}" for i, (m, _) in enumerate(CLOSED_FORMS)]


def on_box(model, n=500):
    mdp = MDP(model, quadrature=Quadrature(rule="gauss" if mdp_is_small(model) else "monomial", nodes=3))
    return mdp, mdp.sample_box(n, torch.Generator().manual_seed(0))


def mdp_is_small(model):
    return not isinstance(model, LinearQuadratic) or model.n < 4


@pytest.mark.parametrize(("model", "tolerance"), CLOSED_FORMS, ids=NAMES)
def test_the_closed_form_solves_the_bellman_equation(model, tolerance):
    mdp, s = on_box(model)
    residual = bellman_residual(mdp, mdp.exact_policy, mdp.exact_value, s) / mdp.exact_value(s).abs().mean()
    assert residual.abs().max() < tolerance


@pytest.mark.parametrize(("model", "tolerance"), CLOSED_FORMS, ids=NAMES)
def test_the_closed_form_is_the_best_action(model, tolerance):
    """The right side of the Bellman equation has no slope in the action, but against a bound, and falls elsewhere."""
    mdp, s = on_box(model)
    a = mdp.exact_policy(s)
    y = mdp.shares(s, a)
    assert mdp.feasible(s, a).all()

    def J(y):
        return lookahead(mdp, mdp.exact_value, s, mdp.from_shares(s, y))

    slope = torch.func.grad(lambda y: J(y).sum())(y)
    unit = mdp.exact_value(s).abs().mean()
    if isinstance(model, Portfolio):
        low, full = y[:, 1:] < 1e-9, 1 - y[:, 1:].sum(-1) < 1e-9
        weights = slope[:, 1:]
        common = torch.where(full, weights.max(dim=-1).values, 0.0)  # the budget's multiplier, where it binds
        assert (common > -1e-6 * unit).all()
        gap = weights - common[:, None]
        # The optimiser stops when the gradient is 1e-8 or so, in units of a value that kappa^-gamma makes large.
        assert (torch.where(low, gap.clamp(min=0), gap).abs() < 1e-6 * unit).all()
        slope = slope[:, :1]
    assert slope.abs().max() < 1e-9 * unit  # derivatives of sums of size one, divided by domains as small as 0.1

    best = J(y)
    for size in (0.01, 0.1):
        other = mdp.squash(mdp.unsquash(y) + size * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
        assert (J(other) <= best + 1e-10 * unit).all()  # rounding, and the optimiser's weights


def test_a_wrong_closed_form_is_seen():
    """The two tests above can fail: one percent off is far beyond their tolerances."""
    model = BrockMirman()
    mdp, s = on_box(model)
    residual = bellman_residual(mdp, lambda s: 1.01 * mdp.exact_policy(s), mdp.exact_value, s)
    assert residual.abs().min() > 1e-5


def test_no_closed_form_is_claimed_where_there_is_none():
    for model in (Investment(), Investment(theta=1.0), Investment(rho=0.0), BufferStock(), StochasticGrowth()):
        mdp, s = on_box(model, 3)
        assert mdp.exact_policy(s) is None
        assert mdp.exact_value(s) is None
    patient = Portfolio(beta=1.1, gamma=0.5)  # beta E[R^(1-gamma)] >= 1: the value is infinite
    mdp, s = on_box(patient, 3)
    assert patient.kappa is None
    assert mdp.exact_policy(s) is None
    assert mdp.exact_value(s) is None


@pytest.mark.parametrize("model", [BrockMirman(), BrockMirman(beta=0.9, alpha=0.3), StochasticGrowth()])
def test_the_steady_state_stays_and_satisfies_the_euler_equation(model):
    mdp = MDP(model)
    named = {name: torch.tensor(float(v), dtype=torch.float64) for name, v in model.steady_state().items()}
    s = torch.stack([named[slot.name] for slot in mdp.state_slots])
    a = torch.stack([named[slot.name] for slot in mdp.action_slots])
    calm = torch.zeros(mdp.E, dtype=torch.float64)
    torch.testing.assert_close(mdp.transition(s, a, calm), s, rtol=1e-13, atol=1e-14)  # a few operations
    # One more unit of capital today is worth one today: beta times the marginal product of capital.
    product = torch.func.grad(lambda s: mdp.transition(s, a, calm)[0])(s)[0]
    assert float(model.beta * product) == pytest.approx(1, rel=1e-13)
    assert mdp.feasible(s, a)


@pytest.mark.parametrize("parameters", [{}, {"beta": 0.95, "alpha": 0.3, "delta": 0.1}])
def test_growth_is_scaled_so_that_capital_is_one_in_the_steady_state(parameters):
    model = StochasticGrowth(**parameters)
    assert model.steady_state()["k"] == 1.0
    gross_return = model.alpha * model.A + 1 - model.delta
    assert model.beta * gross_return == pytest.approx(1, rel=1e-14)
    assert pytest.approx((1 / model.beta - (1 - model.delta)) / model.alpha, rel=1e-15) == model.A


def test_investment_rests_at_capital_one():
    """With productivity one, i = delta is optimal at K = 1, z = 0 for any returns to scale: q = 1."""
    for theta in (0.3, 0.6, 0.9):
        m = Investment(theta=theta)
        marginal_product = m.price * theta
        assert m.beta * (marginal_product + 1 - m.delta) == pytest.approx(1, rel=1e-14)
        mdp = MDP(m)
        s, a = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([m.delta], dtype=torch.float64)
        torch.testing.assert_close(mdp.transition(s, a, torch.zeros(1, dtype=torch.float64)), s, rtol=1e-15, atol=0)
    assert Investment(theta=1.0, rho=0.0).q == pytest.approx(1, rel=1e-7)  # the root of a rounding error: sqrt(1e-16)


def test_tobins_q_is_the_smaller_root():
    m = Investment(**HAYASHI)
    r, phi = m.r, m.phi

    def fixed_point(q):
        """q = beta E[v'] with v = price - i - phi/2 (i - delta)^2 + (1 - delta + i) q at i = delta + (q - 1)/phi."""
        i = m.delta + (q - 1) / phi
        return m.beta * (m.price - i - phi / 2 * (i - m.delta) ** 2 + (1 - m.delta + i) * q) - q

    assert abs(fixed_point(m.q)) < 1e-14
    growth = (m.q - 1) / phi
    assert growth < r  # the other root grows faster than interest
    other = 2 * (1 + phi * r) - m.q
    assert abs(fixed_point(other)) < 1e-14
    assert (other - 1) / phi > r


def test_calibrations_are_the_published_ones():
    g = StochasticGrowth()
    assert (g.beta, g.gamma, g.alpha, g.delta, g.rho, g.sigma) == (0.99, 2.0, 0.36, 0.02, 0.95, 0.01)
    k, z = g.states()
    assert (k.low, k.high) == (0.9, 1.1)
    assert (z.low, z.high) == (-0.1, 0.1)

    b = BufferStock()
    assert (b.gamma, b.R, b.beta, b.survival, b.G) == (2.0, 1.03, 0.96, 0.98, 1.01)
    assert (b.sigma_psi, b.sigma_theta, b.p, b.replacement) == (0.1, 0.1, 0.05, 0.3)

    c = LifeCycle()
    assert (c.beta, c.gamma, c.growth, c.sigma_psi, c.sigma_theta) == (0.96, 2.0, 1.02, 0.1, 0.1)
    i = Investment()
    assert (i.beta, i.theta, i.delta, i.phi) == (0.96, 0.6, 0.07, 2.0)


@pytest.mark.parametrize("model", [BufferStock(), BufferStock(p=0.2, replacement=0.1, sigma_psi=0.2)])
def test_buffer_stock_has_mean_income_one_and_discounts_growth(model):
    mdp = MDP(model, quadrature=Quadrature(nodes=9))
    s, a = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)  # nothing is saved
    income = mdp.transition(s, a, mdp.nodes)[:, 0]
    weights = mdp.weights(s)
    assert float(weights @ income) == pytest.approx(1, rel=1e-12)  # lognormals of std 0.2 by nine nodes
    unlucky = income == model.replacement
    assert float(weights[unlucky].sum()) == pytest.approx(model.p, rel=1e-12)
    # E[(G psi)^(1-gamma)] = G^(1-gamma) exp(gamma (gamma - 1) sigma^2 / 2), with E[psi] = 1.
    g, sd = model.gamma, model.sigma_psi
    expected = model.beta * model.survival * model.G ** (1 - g) * math.exp(g * (g - 1) * sd**2 / 2)
    assert float(weights @ mdp.discount(s, a, mdp.nodes)) == pytest.approx(expected, rel=1e-12)
    # Saving one unit pays R over growth.
    saved = mdp.transition(s, a - 1, mdp.nodes)[:, 0] - income
    psi = mdp.nodes[:, 0]
    torch.testing.assert_close(saved, model.R / (model.G * psi), rtol=1e-12, atol=0)  # a difference of two sums


def test_life_cycle_income_falls_to_a_certain_pension_at_retirement():
    m = LifeCycle()
    mdp = MDP(m)
    ages = torch.arange(60, dtype=torch.float64)
    s = torch.stack([torch.full_like(ages, 2.0), ages], dim=-1)
    income = mdp.transition(s.unsqueeze(-2), s[:, None, :1], mdp.nodes)[..., 0]  # nothing is saved
    working = ages + 1 < m.retirement
    torch.testing.assert_close(income[~working], torch.full_like(income[~working], m.pension), rtol=1e-15, atol=0)
    assert (income[working].std(dim=-1) > 0.05).all()
    np.testing.assert_allclose((mdp.weights(s) * income).sum(-1)[working], 1, rtol=1e-9)  # five nodes, std 0.1
    beta = mdp.discount(s.unsqueeze(-2), s[:, None, :1], mdp.nodes)
    assert (beta[~working] == m.beta).all()
    torch.testing.assert_close(mdp.transition(s, s[:, :1], mdp.nodes[0])[:, 1], ages + 1)


def test_portfolio_scenarios_match_the_factors_moments():
    m = Portfolio(n=4)
    logs = np.log(m.scenarios / m.Rf)
    assert logs.shape == (10, 4)
    assert logs.mean() == pytest.approx(m.premium, rel=1e-12)
    assert (np.diff(logs.mean(axis=0)) > 0).all()  # assets differ
    covariance = m.sigma_market**2 + m.sigma_own**2 * np.eye(4)
    np.testing.assert_allclose(np.cov(logs.T, bias=True), covariance, rtol=1e-12, atol=1e-15)


def test_linear_quadratic_is_stable_as_asked_and_drawn_from_its_seed():
    m = LinearQuadratic(n=6, m=2, radius=0.9)
    assert np.abs(np.linalg.eigvals(m.A)).max() == pytest.approx(0.9, rel=1e-12)
    assert (m.A == LinearQuadratic(n=6, m=2, radius=0.9).A).all()
    assert (m.A != LinearQuadratic(n=6, m=2, radius=0.9, seed=1).A).any()


ZOO = [BrockMirman, BufferStock, StochasticGrowth, Investment, LifeCycle, LinearQuadratic, Portfolio]


@pytest.mark.parametrize("cls", ZOO)
def test_every_model_passes_its_own_check_without_a_warning(cls):
    assert check(cls()) == []


# Models of any dimension

MANY = [
    LongPlosser(n=2),
    LongPlosser(n=4, beta=0.9, leisure=0.5, hours=2.0, sigma=0.2, seed=3),
    Firms(n=3, eta=0.0, theta=1.0, rho=0.0),
    Copies(one=BrockMirman(), n=3),
    Copies(one=BrockMirman(), n=3, rotate=0),
    Copies(one=Portfolio(n=2), n=2, rotate=1),  # a budget, a bound that reads another action, a discrete shock
]


@pytest.mark.parametrize("model", MANY, ids=lambda model: f"{type(model).__name__}-{model.n}")
def test_closed_forms_of_many_states(model):
    mdp, s = on_box(model, 100)
    residual = bellman_residual(mdp, mdp.exact_policy, mdp.exact_value, s) / mdp.exact_value(s).abs().mean()
    assert residual.abs().max() < 1e-12
    euler = euler_residuals(mdp, find_structure(mdp), mdp.exact_policy, s)
    assert euler.abs().max() < (1e-8 if "w0" in vars(mdp.actions(mdp.exact_policy(s))) else 1e-10)  # weights: optimised


@pytest.mark.parametrize("model", [Firms, Copies])
def test_every_model_of_any_size_passes_its_own_check(model):
    assert check(model()) == []
    assert check(model(n=6)) == []


@pytest.mark.parametrize("n", [2, 6])
def test_long_plosser_passes_its_check(n):
    assert check(LongPlosser(n=n)) == []


def test_long_plosser_uses_all_of_each_good_and_rests_at_output_one():
    model = LongPlosser(n=3)
    assert model.b + model.a.sum(axis=1) == pytest.approx(np.ones(3))
    mdp, s = on_box(model, 5)
    a = mdp.exact_policy(s)
    share = mdp.model.consumption(mdp.state(s), mdp.actions(a)) / s
    np.testing.assert_allclose(share, np.broadcast_to(model.theta / model.g, (5, 3)), rtol=1e-12)
    steady = model.steady_state()
    at = {name: torch.as_tensor(value) for name, value in steady.items()}
    s, a = flatten(mdp.state_slots, at), flatten(mdp.action_slots, at)
    torch.testing.assert_close(mdp.transition(s, a, torch.zeros(3, dtype=torch.float64)), s, rtol=1e-13, atol=0)
    torch.testing.assert_close(mdp.exact_policy(s), a, rtol=1e-13, atol=0)


def test_firms_that_do_not_share_a_market_are_investment_and_others_are_not():
    generator = torch.Generator().manual_seed(0)
    alone, market = MDP(Firms(n=3, eta=0.0)), MDP(Firms(n=3, eta=0.5))
    one = MDP(alone.model.firm)
    s = alone.sample_box(20, generator)
    a = alone.act(s, torch.randn(20, 3, generator=generator, dtype=torch.float64))
    each = torch.stack([s[:, :3], s[:, 3:]], dim=-1)  # (20, 3, 2)
    torch.testing.assert_close(alone.reward(s, a), one.reward(each, a.unsqueeze(-1)).sum(-1), rtol=1e-13, atol=1e-14)
    e = torch.tensor([0.01, -0.02, 0.03, 0.005], dtype=torch.float64)
    reached = one.transition(each, a.unsqueeze(-1), (e[:3] + e[3]).unsqueeze(-1))
    torch.testing.assert_close(alone.transition(s, a, e), torch.cat([reached[..., 0], reached[..., 1]], dim=-1))
    assert one.model.sigma**2 == pytest.approx(alone.model.sigma**2 + alone.model.sigma_common**2)
    # What capital of one firm is worth to another: nothing without the common market, less than nothing in it.
    for mdp, coupled in ((alone, False), (market, True)):
        slope = lambda s, mdp=mdp: torch.func.grad(lambda s: mdp.reward(s, a).sum())(s)[:, 0]  # noqa: E731
        across = torch.func.jvp(slope, (s,), (torch.eye(6, dtype=torch.float64)[1].expand_as(s),))[1]
        assert (across < -1e-3).all() if coupled else (across == 0).all()


def test_the_market_of_firms_is_at_rest_at_capital_one():
    for eta in (0.0, 0.5, 1.0):
        mdp = MDP(Firms(n=2, eta=eta))
        s = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
        a = torch.full((1, 2), mdp.model.delta, dtype=torch.float64)
        quiet = MDP(mdp.model.replace(sigma=0.0, sigma_common=0.0))
        residual = euler_residuals(quiet, find_structure(mdp), lambda s, a=a: a.expand(len(s), 2), s)
        assert residual.abs().max() < 1e-14


# Copies


def members(model, mdp, s):
    """The states (B, n, S) of each copy."""
    view = model.state(mdp.state(s))
    return flatten(MDP(model.one).state_slots, vars(view))


@pytest.mark.parametrize("rotate", [None, 0])
@pytest.mark.parametrize("one", [BrockMirman(), StochasticGrowth(), Investment()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_copies_do_what_each_of_them_does(one, n, rotate):
    model, single = Copies(one=one, n=n, rotate=rotate), MDP(one)
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    s = mdp.sample_box(20, generator)
    a = mdp.act(s, torch.randn(20, n, generator=generator, dtype=torch.float64))
    e = mdp.sample_shocks(s, generator)
    each = members(model, mdp, s)
    torch.testing.assert_close(mdp.reward(s, a), single.reward(each, a.unsqueeze(-1)).sum(-1))
    reached = members(model, mdp, mdp.transition(s, a, e))
    torch.testing.assert_close(reached, single.transition(each, a.unsqueeze(-1), e.unsqueeze(-1)))
    torch.testing.assert_close(mdp.shares(s, a), single.shares(each, a.unsqueeze(-1)).squeeze(-1))
    assert float(mdp.discount(s, a, e)) == one.beta
    if rotate is None:
        assert ((each >= single.low) & (each <= single.high)).all()


def test_a_rotation_mixes_all_copies_and_keeps_kinds_apart():
    model = Copies(one=BrockMirman(), n=4, rotate=0)
    mdp = MDP(model)
    s = mdp.sample_box(1, torch.Generator().manual_seed(0))
    slope = torch.func.jacrev(lambda s: members(model, mdp, s))(s)[0, :, :, 0]  # (4 copies, 2 states, 8 mixed)
    assert (slope[:, 0, :4].abs() > 1e-6).all()
    assert (slope[:, 1, 4:].abs() > 1e-6).all()
    assert (slope[:, 0, 4:] == 0).all()
    assert (slope[:, 1, :4] == 0).all()
    Q = rotation(4, 0, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(Q @ Q.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-14)
    assert (rotation(4, 1, torch.float64, torch.device("cpu")) != Q).all()


def test_copies_take_their_optimum_from_a_solution_of_one(tmp_path):
    one = StochasticGrowth()
    solution = econrl.solve(one, "perturbation")
    folder = solution.save(tmp_path / "one")
    mdp = MDP(copies(one, 2, rotate=0, solution=folder))
    s = mdp.sample_box(10, torch.Generator().manual_seed(0))
    each = members(mdp.model, mdp, s)
    torch.testing.assert_close(mdp.exact_policy(s), solution.policy(each).squeeze(-1))
    torch.testing.assert_close(mdp.exact_value(s), solution.value(each).sum(-1))
    with pytest.raises(SaveError, match="other parameters"):
        MDP(copies(one.replace(gamma=3.0), 2, solution=folder)).exact_policy(s)


def test_copies_are_saved_replaced_and_set_like_any_model(tmp_path):
    model = copies(StochasticGrowth(gamma=3.0), 2, rotate=0)
    solution = econrl.solve(model, "perturbation")
    solution.save(tmp_path / "two")
    again = econrl.load(tmp_path / "two")
    assert again.model == model
    assert solution.policy_table().equals(again.policy_table())
    assert model.replace(n=4).n == 4
    assert check(make_model(find_model("copies"), read_settings(Copies, "Copies", ["n=10"], SpecError))) == []


@dataclass(frozen=True, kw_only=True)
class TwoIncomes(StochasticGrowth):
    """Growth with a Markov chain that does nothing."""

    def states(self):
        return *super().states(), MarkovChain("y", (0.5, 1.5), [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("one", "reason"), [(LifeCycle(), "horizon"), (BufferStock(), "constant beta"), (TwoIncomes(), "Markov chain")]
)
def test_what_cannot_be_copied_is_refused(one, reason):
    with pytest.raises(SpecError, match=rf"Copies of {type(one).__name__}: .*{reason}"):
        Copies(one=one)


@pytest.mark.parametrize("seed", [0, 1])
def test_perturbation_does_not_mind_that_states_are_mixed(seed):
    """To first order the policy is that of one copy; levels and logarithms of capital differ by the second order."""
    one, mixed = (econrl.solve(m, "perturbation") for m in (StochasticGrowth(), copies(StochasticGrowth(), 2, seed)))
    s = 0.3 * mixed.mdp.sample_box(50, torch.Generator().manual_seed(0))
    exact = one.policy(members(mixed.model, mixed.mdp, s)).squeeze(-1)
    assert ((mixed.policy(s) - exact) / exact).abs().max() < 2e-3
