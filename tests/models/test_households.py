"""The households of the zoo: their equations by hand, published and other calibrations, and domains."""

import numpy as np
import pytest
import torch

from econrl.checks import check
from econrl.models import Aiyagari, Durables, Habit, Housing, LifeCyclePortfolio, Pension, TwoAssets
from econrl.problem.mdp import MDP


def point(mdp, **states):
    """One state (1, S), by name."""
    return torch.cat([mdp.tensor([states[slot.name]]).reshape(1, -1) for slot in mdp.state_slots], -1)


def act(mdp, **actions):
    """One action (1, A), by name."""
    return torch.cat([mdp.tensor([actions[v.name]]).reshape(1, -1) for v in mdp.action_slots], -1)


def reached(mdp, s, a, *shocks):
    """The next state by name, with shocks as they are declared."""
    flat = mdp.transition(s, a, torch.tensor([shocks], dtype=mdp.dtype))
    return {slot.name: slot.read(flat)[0].tolist() for slot in mdp.state_slots}


CALIBRATIONS = [
    Durables(D=3, horizon=30, retired=25),
    Durables(D=8, horizon=30, retired=25),
    Durables(D=5, gamma=1.0),
    Durables(D=2, gamma=5.0, nu=0.0, sigma_xi=0.2, w=0.4),
    Durables(horizon=1, retired=1),
    Housing(D=2),
    Housing(D=4, gamma=1.0, fee=0.0),
    Housing(gamma=5.0, sigma_xi=0.2, w=0.3, horizon=40),
    Housing(horizon=1),
    Pension(horizon=10, gamma=1.0, alpha=0.5),
    Pension(y=2.0, chi=0.0),
    LifeCyclePortfolio(gamma=3.0, sigma_theta=0.1, horizon=30, retired=20),
    Aiyagari(debt=50.0, r=0.02),  # more than can be borne
    Aiyagari(debt=2.0, gamma=1.0, levels=7, r=-0.01),
    TwoAssets(debt=20.0, gamma=1.0, n=7, sigma=0.4),
    TwoAssets(chi=0.1, debt=0.0, n=3),
    Habit(internal=False),
    Habit(eta=0.8, gamma=1.0, lam=0.1, sigma_y=0.4),
]


DEFAULTS = [cls() for cls in (Durables, Housing, Pension, LifeCyclePortfolio, Aiyagari, TwoAssets, Habit)]


@pytest.mark.parametrize("model", CALIBRATIONS, ids=lambda model: type(model).__name__)
def test_other_calibrations_pass_the_check(model):
    assert check(model) == []


@pytest.mark.parametrize("model", DEFAULTS + CALIBRATIONS, ids=lambda model: type(model).__name__)
def test_paths_begin_on_the_domain_and_rewards_are_finite(model):
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    assert mdp.inside(mdp.sample_initial(1000, generator)).double().mean() > 0.995
    s = mdp.sample_box(1000, generator)
    u = 2 * torch.randn(1000, mdp.A, generator=generator, dtype=mdp.dtype)
    for column, options in mdp.choices:
        u[:, column] = torch.randint(options, (1000,), generator=generator)
    a = mdp.act(s, u)
    assert mdp.feasible(s, a, slack=0.0).all()
    assert mdp.reward(s, a).isfinite().all()


# Durables


def test_durables_cost_what_they_add_and_half_again():
    """d - n = 2 costs 2 + 0.1 * 4 = 2.4; the rest by hand."""
    model = Durables(D=2)
    mdp = MDP(model)
    s, a = point(mdp, m=5.0, p=1.5, n=[0.5, 1.0], t=1), act(mdp, x=[1.0, 2.4, 0.0])
    view, chosen = mdp.state(s), mdp.actions(a)
    np.testing.assert_allclose(model.stocks(view, chosen)[0], [2.5, 1.0], rtol=1e-15)
    basket = 1.0**0.8 * 2.51**0.1 * 1.01**0.1
    assert float(mdp.reward(s, a)) == pytest.approx(-1 / basket, rel=1e-14)
    p = 1.5**0.95 * 1.1
    to = reached(mdp, s, a, 1.1, 0.9)
    assert to["p"] == pytest.approx(p, rel=1e-14)
    assert to["m"] == pytest.approx(1.01 * 1.6 + 1.02 * p * 0.9, rel=1e-14)
    np.testing.assert_allclose(to["n"], [0.85 * 2.5, 0.8 * 1.0], rtol=1e-14)
    old = point(mdp, m=5.0, p=1.5, n=[0.5, 1.0], t=3)
    assert reached(mdp, old, a, 1.1, 0.9)["m"] == pytest.approx(1.01 * 1.6 + 0.7, rel=1e-14)
    assert float(model.consumption_value(view, chosen)) == pytest.approx(0.8 / basket, rel=1e-14)


def test_durables_have_the_published_rates_and_profile():
    assert Durables(D=8).delta.tolist() == [0.1, 0.15, 0.19, 0.2, 0.22, 0.25, 0.27, 0.3]
    assert Durables(D=5).delta.tolist() == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])
    by_hand, kappa = [1.0], Durables(horizon=30).kappa.tolist()
    for t in range(1, 30):
        by_hand.append(by_hand[-1] * (1 + 0.02 * 0.9 ** (t - 1)))
    assert kappa == pytest.approx(by_hand, rel=1e-14)
    start = MDP(Durables(D=3)).sample_initial(100_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(start.mean(dim=0)[:5], [1, 1, 0.1, 0.1, 0.1], rtol=2e-3)  # standard error 3e-4
    np.testing.assert_allclose(start.log().std(dim=0)[:5], 0.1, rtol=0.01)


# Durables with fixed costs


def test_who_keeps_the_house_spends_cash_and_who_adjusts_loses_a_tenth_of_it():
    mdp = MDP(Housing())
    s = point(mdp, m=2.0, p=1.5, n=1.0, t=1)
    keep, adjust = act(mdp, adjust=0.0, c=0.5, d=0.0), act(mdp, adjust=1.0, c=0.5, d=2.0)
    assert float(mdp.reward(s, keep)) == pytest.approx(-1 / (0.5**0.9 * 1.01**0.1), rel=1e-14)
    assert float(mdp.reward(s, adjust)) == pytest.approx(-1 / (0.5**0.9 * 2.01**0.1), rel=1e-14)
    p = 1.5**0.95 * 1.1
    to = reached(mdp, s, keep, 1.1, 0.9)
    assert (to["m"], to["n"]) == (pytest.approx(1.03 * 1.5 + p * 0.9, rel=1e-14), [pytest.approx(0.85, rel=1e-14)])
    to = reached(mdp, s, adjust, 1.1, 0.9)
    assert (to["m"], to["n"]) == (pytest.approx(1.03 * 0.4 + p * 0.9, rel=1e-14), [pytest.approx(1.7, rel=1e-14)])
    assert mdp.feasible(s, adjust)


def test_one_decision_adjusts_all_durables():
    model = Housing(D=2)
    mdp = MDP(model)
    s, a = point(mdp, m=1.0, p=1.0, n=[1.0, 2.0], t=0), act(mdp, adjust=1.0, c=0.7, d=[0.0, 3.0])
    assert mdp.model.saving(mdp.state(s), mdp.actions(a)).item() == pytest.approx(1 + 0.9 * 3 - 0.7 - 3)
    assert model.stocks(mdp.state(s), mdp.actions(a)).tolist() == [[0.0, 3.0]]


def test_a_budget_of_nothing_is_shared_feasibly():
    """Who keeps the house has nothing to buy durables with, of however many kinds."""
    mdp = MDP(Housing(D=4))
    s = mdp.sample_box(50, torch.Generator().manual_seed(0))
    keep = mdp.from_shares(s, mdp.tensor([0.0, 0.5, 0.1, 0.2, 0.3, 0.1]).expand(50, -1))
    assert (keep[:, 2:] == 0).all()
    assert mdp.feasible(s, keep, slack=0.0).all()
    torch.testing.assert_close(mdp.from_shares(s, mdp.shares(s, keep)), keep)


# A pension, and retirement for good


def test_a_pension_is_matched_locked_and_paid_out_at_retirement():
    mdp = MDP(Pension())
    s = point(mdp, m=2.0, n=3.0, career=1.0, t=4)
    stay, go = act(mdp, work=1.0, c=0.7, d=0.5), act(mdp, work=0.0, c=0.7, d=0.5)
    account = 1.04 * (3.5 + 0.1 * np.log(1.5))
    assert float(mdp.reward(s, stay)) == pytest.approx(-1 / 0.7 - 0.25, rel=1e-14)
    to = mdp.transition(s, stay, s.new_zeros(1, mdp.E))[0].tolist()
    assert to == pytest.approx([1.02 * 0.8 + 1, account, 1, 5], rel=1e-14)
    to = mdp.transition(s, go, s.new_zeros(1, mdp.E))[0].tolist()
    assert to == pytest.approx([1.02 * 0.8 + account, 0, 0, 5], rel=1e-14)


def test_nobody_returns_from_retirement_or_saves_in_the_account():
    mdp = MDP(Pension())
    s, a = point(mdp, m=2.0, n=3.0, career=0.0, t=4), act(mdp, work=1.0, c=0.7, d=0.0)
    assert float(mdp.reward(s, a)) == pytest.approx(-1 / 0.7, rel=1e-14)
    to = mdp.transition(s, a, s.new_zeros(1, mdp.E))[0].tolist()
    assert to == pytest.approx([1.02 * 1.3 + 0.5, 0, 0, 5], rel=1e-14)
    assert mdp.from_shares(s, mdp.tensor([[1.0, 0.5, 0.9]])).tolist() == [[1.0, 1.0, 0.0]]  # half of m, no deposit


def test_a_worker_consumes_the_account_in_the_last_period():
    mdp = MDP(Pension())
    for career, most in ((1.0, 5.0), (0.0, 2.0)):
        s = point(mdp, m=2.0, n=3.0, career=career, t=19)
        assert mdp.from_shares(s, mdp.tensor([[1.0, 1.0, 0.9]])).tolist() == [[1.0, most, 0.0]]


# Saving and stocks


def test_portfolio_income_follows_the_published_cubic_and_then_the_pension():
    model = LifeCyclePortfolio()
    f = lambda age: -2.17 + 0.1682 * age - 0.00323 * age**2 + 0.00002 * age**3  # noqa: E731
    assert model.growth[10] == pytest.approx(np.exp(f(31) - f(30)), rel=1e-12)
    assert model.growth[44] == pytest.approx(np.exp(f(65) - f(64)), rel=1e-12)
    assert (model.growth[45:] == 1).all()
    mdp = MDP(model)
    s, a = point(mdp, m=3.0, t=10), act(mdp, c=1.0, share=0.25)
    growth = model.growth[10] * 0.9
    to = reached(mdp, s, a, 1.2, 0.9, 1.1)  # R, psi, theta
    assert to["m"] == pytest.approx((1.02 + 0.25 * 0.18) * 2 / growth + 1.1, rel=1e-12)
    discount = mdp.discount(s, a, mdp.tensor([[1.2, 0.9, 1.1]])).item()
    assert discount == pytest.approx(0.96 * model.survival[10] * growth**-9, rel=1e-12)
    old = point(mdp, m=3.0, t=45)
    assert reached(mdp, old, a, 1.2, 0.9, 1.1)["m"] == pytest.approx((1.02 + 0.25 * 0.18) * 2 + 0.68212, rel=1e-12)


def test_stocks_have_the_published_moments_and_mortality_is_gompertz():
    model = LifeCyclePortfolio()
    R, w = model.shocks()[0].nodes(9)
    assert float(w @ R[:, 0]) == pytest.approx(1.06, rel=1e-10)
    assert float((w @ (R[:, 0] - 1.06) ** 2).sqrt()) == pytest.approx(0.157, rel=1e-8)
    hazard = -np.log(model.survival)
    np.testing.assert_allclose(hazard[1:] / hazard[:-1], np.exp(1 / 9.5), rtol=1e-10)
    alive = model.survival[45:].cumprod()  # from 65 on: S(x) = exp(-(exp((x - 86) / 9.5) - exp((65 - 86) / 9.5)))
    assert alive[-1] == pytest.approx(np.exp(np.exp(-21 / 9.5) - np.exp(14 / 9.5)), rel=1e-10)


# Stationary households


def test_hours_and_debt():
    model = Aiyagari(debt=1.0)
    mdp = MDP(model)
    e = float(model.chain.values[0])
    s, a = point(mdp, b=-1.0, e=0.0), act(mdp, n=0.5, c=0.3)
    assert float(mdp.reward(s, a)) == pytest.approx(-1 / 0.3 - 30 * 0.5**3 / 3, rel=1e-14)
    b = -1.03 + 1.2 * e * 0.5 - 0.3
    assert float(mdp.transition(s, a, s.new_zeros(1, mdp.E))[0, 0]) == pytest.approx(b, rel=1e-12)
    least, none_left = mdp.from_shares(s, mdp.tensor([[0.0, 1.0]]))[0].tolist()
    assert least == pytest.approx(0.03 / (1.2 * e), rel=1e-12)  # pays the interest
    assert none_left == pytest.approx(0, abs=1e-12)
    assert Aiyagari(debt=50.0).limit == pytest.approx(0.75 * 1.2 * e / 0.03, rel=1e-12)


def test_two_assets_by_hand():
    model = TwoAssets()
    mdp = MDP(model)
    y = float(model.chain.values[2])
    s = point(mdp, b=0.2, k=2.0, y=2.0)
    left = 0.2 + y - 0.5 - 1.5 * 0.25 / 3
    for c, R in ((left - 0.1, 1.01), (left + 0.1, 1.10)):
        to = mdp.transition(s, act(mdp, d=0.5, c=c), s.new_zeros(1, mdp.E))[0].tolist()
        assert to[:2] == pytest.approx([R * (left - c), 1.04 * 2.5], rel=1e-12)
    low, high = (float(mdp.from_shares(s, mdp.tensor([[share, 0.5]]))[0, 0]) for share in (0.0, 1.0))
    assert low == -1.0  # a larger withdrawal costs more than it brings: the slope of d + 1.5 d^2 / 3 is zero
    there = 0.2 + y + 0.5 / 1.1
    assert high + 1.5 * high**2 / 3 == pytest.approx(there, rel=1e-12)


@pytest.mark.parametrize(
    "model", [TwoAssets(), TwoAssets(debt=20.0, n=7, sigma=0.4), TwoAssets(chi=0.1, debt=0.0, n=3)]
)
def test_every_state_of_two_assets_leaves_something_to_consume(model):
    mdp = MDP(model)
    axes = [torch.linspace(*ends, 9) for ends in zip(mdp.low.tolist(), mdp.high.tolist(), strict=True)]
    s = torch.cartesian_prod(*axes)
    s = s.to(mdp.dtype).maximum(mdp.low)
    s[:, 2] = s[:, 2].floor()
    for share in (0.0, 0.3, 0.9):
        a = mdp.from_shares(s, mdp.tensor([share, 0.5]).expand(len(s), 2))
        assert (a[:, 1] > 0).all()
        assert (mdp.transition(s, a, s.new_zeros(len(s), mdp.E))[:, 0] >= -model.limit - 1e-9).all()


def test_habits_follow_whose_consumption_they_should():
    own, others = MDP(Habit()), MDP(Habit(internal=False))
    s, a = point(own, m=2.0, h=1.2), act(own, c=0.8)
    assert float(own.reward(s, a)) == pytest.approx((0.8 / 1.2**0.5) ** -2 / -2, rel=1e-14)
    m = 1.03 * 1.2 + 1.1
    assert reached(own, s, a, 1.1) == pytest.approx({"m": m, "h": 0.7 * 1.2 + 0.3 * 0.8}, rel=1e-14)
    assert reached(others, s, a, 1.1, 0.9) == pytest.approx({"m": m, "h": 0.7 * 1.2 + 0.3 * 0.9}, rel=1e-14)
