"""The automatic Euler equation against hand-written ones, closed forms, and brute-force derivatives."""

import dataclasses
import functools
import math
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Budget, Discrete, MarkovChain, Model, Normal, State
from econrl.models import (
    IRBC,
    BrockMirman,
    BufferStock,
    Investment,
    LifeCycle,
    LinearQuadratic,
    Portfolio,
    StochasticGrowth,
)
from econrl.optimality import euler
from econrl.optimality.euler import condition, costate, euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.greedy import greedy_residuals
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.spec.share_sets import project_on_simplex
from econrl.utility import crra

CLOSE = {"rtol": 1e-11, "atol": 1e-12}  # the same derivatives by two routes, each a few dozen operations in float64


def setup(model, n=200, seed=0, **quadrature):
    mdp = MDP(model, quadrature=Quadrature(**quadrature))
    return mdp, find_structure(mdp), mdp.sample_box(n, torch.Generator().manual_seed(seed))


def first_order_condition(mdp, structure, policy, s):
    """G and its unit."""
    return condition(mdp, lambda s: costate(mdp, structure, policy, s), policy, s)


def residuals(mdp, structure, policy, s):
    return euler_residuals(mdp, structure, policy, s)


def consume(share, of=lambda s: s):
    """The policy that consumes a share of something."""
    return lambda s: (share * of(s)[..., 0]).unsqueeze(-1)


def smooth(y, g):
    """The complementarity residual of a share 0 <= y <= 1 and its gap g, by the textbook's phi(x, y)."""
    phi = lambda x, y: x + y - (x * x + y * y).sqrt()  # noqa: E731
    return -phi(y, -phi(1 - y, g))


# Against equations written by hand


def test_growth_for_an_arbitrary_policy():
    """1 - beta E[u'(c') R'] / u'(c), for a policy that is far from optimal and not linear."""
    m = StochasticGrowth(sigma=0.05)
    mdp, structure, s = setup(m)
    assert (structure.exists, structure.endogenous, structure.joint) == (True, [0], False)

    def policy(s):
        return (0.6 * m.A * s[..., 0] ** 0.5 * (0.7 * s[..., 1]).exp()).unsqueeze(-1)

    def marginal(s):
        return policy(s)[..., 0] ** -m.gamma

    z_next = m.rho * s[:, 1:] + mdp.nodes[:, 0]
    k_next = (m.A * s[:, 1].exp() * s[:, 0] ** m.alpha + (1 - m.delta) * s[:, 0] - policy(s)[:, 0])[:, None]
    k_next = k_next.expand_as(z_next)
    gross = m.alpha * m.A * z_next.exp() * k_next ** (m.alpha - 1) + 1 - m.delta
    expected = (mdp.weights(s) * m.beta * marginal(torch.stack([k_next, z_next], -1)) * gross).sum(-1)

    G, unit = first_order_condition(mdp, structure, policy, s)
    by_hand = 1 - expected / marginal(s)
    assert by_hand.abs().min() > 1e-4  # not a policy at which the equation holds
    torch.testing.assert_close(G[:, 0], marginal(s) - expected, **CLOSE)
    torch.testing.assert_close(unit[:, 0], marginal(s), **CLOSE)
    resources = m.A * s[:, 1].exp() * s[:, 0] ** m.alpha + (1 - m.delta) * s[:, 0]
    y = policy(s)[:, 0] / resources
    found = residuals(mdp, structure, policy, s)[:, 0]
    torch.testing.assert_close(found, smooth(y, by_hand), **CLOSE)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_buffer_stock_in_the_interior(gamma):
    """u'(c) = E[beta survival R (G psi)^-gamma u'(c')]: R/(G psi) on saving, (G psi)^(1-gamma) on value."""
    m = BufferStock(gamma=gamma)
    mdp, structure, _ = setup(m)
    assert (structure.exists, structure.joint) == (True, False)  # the shock scales f_a and f_s alike
    s = torch.linspace(0.5, 9.0, 40, dtype=torch.float64).unsqueeze(-1)
    policy = lambda s: 0.6 * s**0.7 * (s / (1 + s)) ** 0.1  # noqa: E731
    psi, xi, employed = mdp.nodes.T
    income = torch.where(employed == 1, (1 - m.p * m.replacement) / (1 - m.p) * xi, m.replacement)
    m_next = m.R / (m.G * psi) * (s - policy(s)) + income
    future = m.beta * m.survival * m.R * (m.G * psi) ** -gamma * policy(m_next) ** -gamma
    G, unit = first_order_condition(mdp, structure, policy, s)
    torch.testing.assert_close(G, policy(s) ** -gamma - (mdp.weights(s) * future).sum(-1, keepdim=True), **CLOSE)
    torch.testing.assert_close(unit, torch.maximum(policy(s) ** -gamma, (policy(s) ** -gamma - G).abs() / 2), **CLOSE)


@dataclass(frozen=True, kw_only=True)
class TwoIncomes(Model):
    """Saving with an income that follows a Markov chain."""

    beta: float = 0.95
    R: float = 1.02
    P = ((0.9, 0.1), (0.4, 0.6))

    def states(self):
        return State("m", low=0.5, high=5.0), MarkovChain("y", values=(0.5, 1.5), P=self.P)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + s.y)

    def reward(self, s, a):
        return crra(a.c, 2.0)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m + s.y - a.c)}


def test_a_markov_chain_weighs_tomorrow_by_todays_row():
    m = TwoIncomes()
    mdp, structure, s = setup(m)
    assert (structure.exists, structure.endogenous) == (True, [0])
    incomes = torch.tensor([0.5, 1.5], dtype=torch.float64)
    cash = s[:, 0] + incomes[s[:, 1].long()]
    assert set(s[:, 1].tolist()) == {0.0, 1.0}

    def policy(s):
        return (0.4 * (s[..., :1] + incomes[s[..., 1:].long()])) ** 0.9

    later = m.R * (cash - policy(s)[:, 0])
    marginals = torch.stack([(0.4 * (later + y)) ** (0.9 * -2) for y in incomes], -1)
    rows = torch.tensor(m.P, dtype=torch.float64)[s[:, 1].long()]
    G, _ = first_order_condition(mdp, structure, policy, s)
    torch.testing.assert_close(G[:, 0], policy(s)[:, 0] ** -2 - m.beta * m.R * (rows * marginals).sum(-1), **CLOSE)


# Against closed forms


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (BrockMirman(), 1e-12),
        (BrockMirman(beta=0.9, alpha=0.6, sigma=0.3), 1e-12),
        (Investment(theta=1.0, rho=0.0, productivity=1.01), 1e-12),
        (LinearQuadratic(n=2, m=2), 1e-8),  # quantecon's Riccati iteration
        (LinearQuadratic(n=2, m=3), 1e-8),  # more actions than states: X' is the shortest of many
        (Portfolio(n=2), 1e-6),  # shares by an optimiser
        (Portfolio(n=5), 1e-6),
        (Portfolio(n=2, gamma=1.0, premium=0.06), 1e-6),  # no safe asset: the budget binds, and its parts need one unit
        (Portfolio(n=2, gamma=1.0, premium=0.2), 1e-6),  # the whole budget goes into the better asset
        (Portfolio(n=2, premium=-0.05), 1e-6),  # none of it does
    ],
)
def test_the_residual_vanishes_at_a_closed_form_and_only_there(model, tolerance):
    mdp, structure, s = setup(model, nodes=7)
    assert structure.exists
    assert residuals(mdp, structure, mdp.exact_policy, s).abs().max() < tolerance

    def other(s):
        return mdp.act(s, mdp.unsquash(mdp.shares(s, mdp.exact_policy(s)).clamp(0.01, 0.45)) + 0.1)

    # A tenth in log-odds moves consumption, the linear rules and the shares by percents.
    assert residuals(mdp, structure, other, s).abs().mean() > 1e-3


def test_the_greedy_residual_vanishes_at_a_closed_form_without_an_euler_equation():
    mdp, structure, s = setup(LinearQuadratic(n=6, m=2), nodes=3)
    assert not structure.exists
    assert greedy_residuals(mdp, mdp.exact_policy, mdp.exact_value, s).abs().max() < 1e-8  # Riccati iteration
    assert greedy_residuals(mdp, lambda s: 1.1 * mdp.exact_policy(s), mdp.exact_value, s).abs().mean() > 1e-3


# Existence


def variant(base, **members):
    return dataclass(frozen=True, kw_only=True)(type("Variant", (base,), members))


@dataclass(frozen=True, kw_only=True)
class TimeToBuild(Model):
    """Capital takes two periods to build: k1' = i, k2' = k1."""

    beta: float = 0.95

    def states(self):
        return State("k1", low=0.1, high=1.0), State("k2", low=0.1, high=1.0)

    def actions(self):
        return Action("i", low=0.0, high=lambda s: s.k2**0.3)

    def reward(self, s, a):
        return (s.k2**0.3 - a.i).log()

    def transition(self, s, a, e):
        return {"k1": a.i, "k2": s.k1}


def test_no_euler_equation_is_claimed_where_tomorrow_cannot_undo_today():
    _, structure, _ = setup(LinearQuadratic(n=6, m=2))
    assert not structure.exists
    assert structure.endogenous == list(range(6))
    assert "2 action(s) cannot undo a deviation of 6 endogenous state(s)" in structure.reason

    _, structure, _ = setup(TimeToBuild())
    assert not structure.exists
    assert structure.endogenous == [0, 1]  # k2 is moved through k1
    assert "1 action(s)" in structure.reason


def test_a_discount_that_depends_on_an_action_has_none():
    patient = variant(BrockMirman, discount=lambda self, s, a, e: self.beta / (1 + 0.01 * a.c))
    _, structure, _ = setup(patient())
    assert not structure.exists
    assert "discount factor depends on an action" in structure.reason


def test_a_discount_that_depends_on_an_endogenous_state_has_none_either():
    @dataclass(frozen=True, kw_only=True)
    class Uzawa(BrockMirman):
        def discount(self, s, a, e):
            return 0.95 - 0.1 * s.k

    structure = find_structure(MDP(Uzawa()))
    assert not structure.exists
    assert "discount factor depends" in structure.reason

    @dataclass(frozen=True, kw_only=True)
    class Moods(BrockMirman):
        def discount(self, s, a, e):
            return 0.95 - 0.1 * s.z

    assert find_structure(MDP(Moods())).exists  # an exogenous state is no matter


def test_endogenous_states_are_those_that_actions_move_at_last():
    assert setup(StochasticGrowth())[1].endogenous == [0]
    assert setup(LifeCycle())[1].endogenous == [0]  # neither the period
    assert setup(LinearQuadratic(n=2, m=2))[1].endogenous == [0, 1]

    def transition(self, s, a, e):
        return {"k": BrockMirman.transition(self, s, a, e)["k"], "z": 0.1 * s.k + e.eps}

    assert setup(variant(BrockMirman, transition=transition)())[1].endogenous == [0, 1]
    still = variant(BrockMirman, transition=lambda self, s, a, e: {"k": 0.1 + 0 * s.k, "z": e.eps})
    assert setup(still())[1].endogenous == []


def test_a_model_without_endogenous_states_is_a_static_problem():
    def transition(self, s, a, e):
        return {"k": 0.1 + 0 * s.k, "z": e.eps}

    static = variant(BrockMirman, reward=lambda self, s, a: -((a.c - 0.3 * self.output(s)) ** 2), transition=transition)
    mdp, structure, s = setup(static())
    assert structure.exists
    output = lambda s: (s[..., 1].exp() * s[..., 0] ** 0.36).unsqueeze(-1)  # noqa: E731
    # At the best action the condition is zero over zero: zero, not NaN.
    assert residuals(mdp, structure, lambda s: 0.3 * output(s), s).abs().max() < 1e-10
    assert residuals(mdp, structure, lambda s: 0.5 * output(s), s).abs().min() > 0.1


# Joint nodes


def test_a_portfolio_needs_all_nodes_together():
    """Tomorrow's action is chosen before tomorrow's returns: it must undo a deviation at all of them at once."""
    mdp, structure, s = setup(Portfolio(n=2))
    assert (structure.exists, structure.joint) == (True, True)
    assert residuals(mdp, structure, mdp.exact_policy, s).abs().max() < 1e-6
    alone = dataclasses.replace(structure, joint=False)
    assert residuals(mdp, alone, mdp.exact_policy, s).abs().max() > 1e-3


def test_the_portfolio_equation_by_hand():
    """u'(c) = beta E[u'(c') R_p] and 0 = E[u'(c') (R_i - Rf)] for a policy that is not optimal."""
    m = Portfolio(n=2)
    mdp, structure, s = setup(m)

    def policy(s):
        return torch.cat([0.1 * s**1.2, (0.2 + 0 * s), (0.3 + 0.1 * s)], -1)

    c, w = policy(s)[:, :1], policy(s)[:, 1:]
    R_p = m.Rf + w @ (mdp.nodes - m.Rf).T
    later = (0.1 * ((s - c) * R_p) ** 1.2) ** -m.gamma * m.beta
    for_c = c[:, 0] ** -m.gamma - (later * R_p).mean(-1)
    for_w = ((s - c) * later).unsqueeze(-1) * (mdp.nodes - m.Rf)
    G, _ = first_order_condition(mdp, structure, policy, s)
    # The automatic equation allows for any policy, since only c' is needed to undo: w' stays.
    torch.testing.assert_close(G[:, 0], for_c, **CLOSE)
    torch.testing.assert_close(G[:, 1:], for_w.mean(1), **CLOSE)


# Bounds


@dataclass(frozen=True, kw_only=True)
class Saver(BufferStock):
    """Buffer-stock saving written with saving as the action: the borrowing limit is its lower bound."""

    def actions(self):
        return Action("k", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return crra(s.m - a.k, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.R / (self.G * e.psi) * a.k + self.income(e)}


@pytest.mark.parametrize(("model", "all_of_it"), [(BufferStock(), 1.0), (Saver(), 0.0)])
def test_consuming_everything_is_right_for_the_poor_and_wrong_for_the_rich(model, all_of_it):
    """The limit is the upper bound of consumption or the lower one of saving; both signs must be right."""
    mdp, structure, _ = setup(model)
    policy = consume(all_of_it)
    # With 0.3 in hand u' = 11; tomorrow's expected marginal utility of income alone is about 1.5.
    poor = torch.tensor([[0.3], [0.4], [0.5]], dtype=torch.float64)
    assert residuals(mdp, structure, policy, poor).abs().max() < 1e-12
    # With 5 in hand u' = 0.04: the same policy throws everything away (the residual is -2 where tomorrow is worth more
    # than twice as much, in units of half of it, and the sign is that of the action).
    rich = torch.tensor([[2.0], [5.0], [10.0]], dtype=torch.float64)
    found = residuals(mdp, structure, policy, rich)
    assert found.abs().min() > 0.5
    assert (found < 0).all() if all_of_it else (found > 0).all()


@pytest.mark.parametrize(("model", "almost"), [(BufferStock(), 0.999), (Saver(), 0.001)])
def test_close_to_a_bound_the_residual_is_the_distance_or_the_gap(model, almost):
    mdp, structure, _ = setup(model)
    poor = torch.tensor([[0.3]], dtype=torch.float64)
    assert float(residuals(mdp, structure, consume(almost), poor).abs()) < 1.1e-3  # a thousandth of the share
    rich = torch.tensor([[5.0]], dtype=torch.float64)
    assert float(residuals(mdp, structure, consume(almost), rich).abs()) > 0.5


@pytest.mark.parametrize(("model", "wrong"), [(BufferStock(), 1e-9), (Saver(), 1 - 1e-9)])
def test_saving_everything_is_wrong(model, wrong):
    """The other bound: G > 0 at c = 0 is no optimum."""
    mdp, structure, _ = setup(model)
    s = torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    assert residuals(mdp, structure, lambda s: torch.where(s < 6, wrong * s, 0.5 * s), s).abs().min() > 0.5


def test_both_ways_to_write_the_borrowing_limit_agree():
    """Consumption c <= m, or saving k >= 0, for a policy that the limit binds today and tomorrow in some states."""
    s = torch.linspace(0.35, 4.0, 60, dtype=torch.float64).unsqueeze(-1)
    consumption = lambda s: torch.minimum(s, 0.5 + 0.4 * s)  # noqa: E731
    one, other = setup(BufferStock()), setup(Saver())
    G, _ = first_order_condition(*one[:2], consumption, s)
    H, _ = first_order_condition(*other[:2], lambda s: s - consumption(s), s)
    torch.testing.assert_close(G, -H, **CLOSE)


def with_shares(mdp, w):
    """The optimal consumption, and shares w."""
    return lambda s: torch.cat([mdp.exact_policy(s)[:, :1], w + 0 * s], -1)


def test_budget_residual_is_zero_at_the_optimum_of_each_kind_and_large_elsewhere():
    """Fischer-Burmeister is for intervals; parts of a budget share one bound, and are projected on the simplex."""
    for premium, gamma in ((0.04, 5.0), (0.2, 1.0), (-0.05, 5.0)):  # interior, all in the better asset, all safe
        mdp, structure, s = setup(Portfolio(n=2, gamma=gamma, premium=premium), n=20)
        best = mdp.exact_policy(s)
        corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.1]], dtype=torch.float64)
        for w in corners:
            found = residuals(mdp, structure, with_shares(mdp, w), s)
            right = (w - best[:, 1:]).abs().max() < 1e-6  # the optimiser's precision
            # Wrong shares are wrong by a fifth at least; what that is in units of E|u'(c')(R_i - Rf)| is some percent.
            assert (found[:, 1:].abs().max() < 1e-6) if right else (found[:, 1:].abs().amax(-1) > 0.01).all()


def test_projection_on_the_simplex_is_the_nearest_point():
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(50, 4, generator=generator, dtype=torch.float64)
    found = project_on_simplex(x)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(50, dtype=torch.float64), rtol=1e-14, atol=0)
    rivals = torch.rand(2000, 4, generator=generator, dtype=torch.float64).log()
    rivals = rivals / rivals.sum(-1, keepdim=True)  # uniform on the simplex
    for i in range(50):
        assert ((rivals - x[i]).norm(dim=-1) >= (found[i] - x[i]).norm() - 1e-12).all()  # rounding
    inside = rivals[:10]
    torch.testing.assert_close(project_on_simplex(inside), inside, rtol=0, atol=1e-15)


@dataclass(frozen=True, kw_only=True)
class LastSupper(Model):
    """One period, two goods; what the first costs, the second cannot."""

    horizon: int = 1
    beta: float = 0.9

    def states(self):
        return State("w", low=0.5, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.w), Action("b", low=0.0, high=lambda s, a: s.w - a.c)

    def reward(self, s, a):
        return a.c.log() + 2 * a.b.log()

    def transition(self, s, a, e):
        return {"w": s.w - a.c - a.b}


def test_a_bound_that_reads_an_earlier_action_is_part_of_that_actions_condition():
    """All is spent, so the marginal utility of c alone is positive everywhere: c moves b at its bound."""
    mdp, structure, s = setup(LastSupper())
    split = lambda share: lambda s: torch.stack([share * s[..., 0], (1 - share) * s[..., 0]], -1)  # noqa: E731
    assert residuals(mdp, structure, split(1 / 3), s).abs().max() < 1e-12
    for share in (0.2, 0.5):
        assert residuals(mdp, structure, split(share), s).abs().amax(-1).min() > 0.1
    half = lambda s: torch.stack([s[..., 0] / 6, s[..., 0] / 3], -1)  # noqa: E731  (the right mix, but half is left)
    assert residuals(mdp, structure, half, s).abs().amax(-1).min() > 0.1


# Life cycles


@dataclass(frozen=True, kw_only=True)
class CakeEating(Model):
    """Log utility, no income: c_t = m / (1 + beta + ... + beta^(T-1-t)), and with a bequest motive one term more."""

    horizon: int = 4
    beta: float = 0.9
    R: float = 1.05
    bequest: float = 0.0

    def states(self):
        return State("m", low=0.5, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c)}

    def terminal(self, s):
        return self.bequest * s.m.log() if self.bequest else 0 * s.m

    def exact_policy(self, s):
        left = self.horizon - s.t  # periods, this one included
        weight = (1 - self.beta**left) / (1 - self.beta) + self.beta**left * self.bequest
        return {"c": s.m / weight}


@pytest.mark.parametrize("bequest", [0.0, 2.0])
def test_cake_eating_in_every_period(bequest):
    mdp, structure, s = setup(CakeEating(bequest=bequest))
    assert set(s[:, 1].tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert structure.endogenous == [0]
    assert residuals(mdp, structure, mdp.exact_policy, s).abs().max() < 1e-12
    # The plan of a longer life satisfies the equation between its periods, and is wrong in the last one only.
    longer = MDP(CakeEating(bequest=bequest, horizon=5))
    found = residuals(mdp, structure, longer.exact_policy, s).abs()[:, 0]
    assert found[s[:, 1] < 3].max() < 1e-12
    assert found[s[:, 1] == 3].min() > 0.02  # beta^5 and a fifth of the weights
    found = residuals(mdp, structure, lambda s: 0.8 * mdp.exact_policy(s), s).abs()[:, 0]
    assert found.min() > 0.02


def test_the_last_period_does_not_ask_for_the_period_after():
    """The policy may be nonsense at t = T; a solution is never evaluated there."""
    mdp, structure, s = setup(CakeEating(bequest=2.0))

    def policy(s):
        return torch.where(s[..., 1:] >= 4, torch.nan, mdp.exact_policy(s))

    assert residuals(mdp, structure, policy, s).abs().max() < 1e-12


def test_life_cycle_consumes_everything_in_the_last_period_only():
    mdp, structure, s = setup(LifeCycle(), n=2000)
    last = s[:, 1] == 59
    assert last.sum() > 10
    assert residuals(mdp, structure, lambda s: s[..., :1], s[last]).abs().max() < 1e-12
    assert residuals(mdp, structure, lambda s: 0.5 * s[..., :1], s[last]).abs().min() > 0.1
    rich = (s[:, 1] == 58) & (s[:, 0] > 5)
    assert residuals(mdp, structure, lambda s: s[..., :1], s[rich]).abs().min() > 0.5


# The multiplier of a bound that binds tomorrow


@dataclass(frozen=True, kw_only=True)
class Irreversible(Model):
    """A firm buys capital at a random price p, and cannot sell it; three periods, then the firm is worth W(k).

    Productivity is high in the second period and low in the third: a firm that finds capital dear in the second does
    not invest, and would like to sell. Written in three ways: investment i >= 0, next capital >= (1 - delta) k, or
    dividends d <= profit.
    """

    action: str = "i"
    horizon: int = 3
    beta: float = 0.9
    delta: float = 0.3
    alpha: float = 0.5
    prices = (0.8, 1.2)
    productivity = (1.0, 1.0, 0.5)
    worth: float = 5.0

    def states(self):
        return State("k", low=0.5, high=8.0), State("p", low=0.8, high=1.2)

    def actions(self):
        most = 10.0
        return {
            "i": Action("i", low=0.0, high=most),
            "k_next": Action("k_next", low=self.kept, high=lambda s: self.kept(s) + most),
            "d": Action("d", low=lambda s: self.profit(s) - s.p * most, high=self.profit),
        }[self.action]

    def shocks(self):
        return Discrete("p", values=self.prices, probabilities=(0.5, 0.5))

    def kept(self, s):
        return (1 - self.delta) * s.k

    def profit(self, s):
        z = torch.as_tensor(self.productivity).to(s.k)
        return z[s.t.clamp(max=2).long()] * s.k**self.alpha

    def investment(self, s, a):
        if self.action == "i":
            return a.i
        return a.k_next - self.kept(s) if self.action == "k_next" else (self.profit(s) - a.d) / s.p

    def reward(self, s, a):
        return self.profit(s) - s.p * self.investment(s, a)

    def transition(self, s, a, e):
        return {"k": self.kept(s) + self.investment(s, a), "p": e.p}

    def terminal(self, s):
        return self.worth * s.k**self.alpha

    # The optimum, backwards

    def marginal(self, level, k):
        return level * self.alpha * k ** (self.alpha - 1)

    @functools.cache  # noqa: B019  (a few models in a test)
    def wanted(self, t, p):
        """The capital wanted for period t + 1 at today's price: p = beta E[lambda_{t+1}(k, p')], by bisection."""
        low, high = 1e-3, 1e3
        for _ in range(60):  # 2^-60 of the bracket in logarithms: below rounding
            middle = math.sqrt(low * high)
            if self.beta * self.expected_shadow_price(t + 1, middle) > p:
                low = middle
            else:
                high = middle
        return math.sqrt(low * high)

    def expected_shadow_price(self, t, k):
        if t == 3:
            return self.marginal(self.worth, k)
        return sum(self.shadow_price(t, k, p) for p in self.prices) / 2

    def shadow_price(self, t, k, p):
        """lambda_t: the product, and what is kept, worth p if the firm buys more, else what it brings later."""
        kept = (1 - self.delta) * k
        tomorrow = p if self.wanted(t, p) > kept else self.beta * self.expected_shadow_price(t + 1, kept)
        return self.marginal(self.productivity[t], k) + (1 - self.delta) * tomorrow

    def optimum(self, s):
        """Optimal investment at flat states (..., 3) whose price is one of the two."""
        k, p, t = s.unbind(-1)
        table = torch.tensor([[self.wanted(t, p) for p in self.prices] for t in range(3)], dtype=torch.float64)
        return (table[t.clamp(max=2).long(), (p > 1).long()] - (1 - self.delta) * k).clamp(min=0)


def irreversible(action):
    model = Irreversible(action=action)
    mdp = MDP(model)

    def policy(s):
        i = model.optimum(s)
        s = mdp.state(s)
        return {"i": i, "k_next": model.kept(s) + i, "d": model.profit(s) - s.p * i}[action].unsqueeze(-1)

    return model, mdp, find_structure(mdp), policy


def value_by_hand(model, s):
    """The expected value of optimal investment over the tree of prices, to be differentiated."""
    k, p, t = s
    period = int(t)
    if period == 3:
        return model.worth * k**model.alpha
    wanted = model.wanted(period, float(p))
    i = (wanted - (1 - model.delta) * k).clamp(min=0)
    prices = torch.tensor(model.prices, dtype=torch.float64)
    following = sum(value_by_hand(model, ((1 - model.delta) * k + i, q, t + 1)) for q in prices)
    return model.productivity[period] * k**model.alpha - p * i + model.beta * following / 2


@pytest.mark.parametrize("action", ["i", "k_next", "d"])
def test_the_multiplier_of_an_irreversible_investment(action, monkeypatch):
    model, mdp, structure, policy = irreversible(action)
    assert structure.exists
    k = torch.linspace(0.6, 3.0, 7, dtype=torch.float64)
    prices = torch.tensor(model.prices, dtype=torch.float64)

    def at(t):
        return torch.cartesian_prod(k, prices, torch.tensor([t], dtype=torch.float64))

    # In the second period the bound binds where capital is large and dear, with a multiplier that is not small.
    tomorrow = at(1.0)
    G, _ = first_order_condition(mdp, structure, policy, tomorrow)
    binds = model.optimum(tomorrow) == 0
    assert 2 < binds.sum() < len(binds)
    assert G[binds].abs().max() > 0.1
    assert G[~binds].abs().max() < 1e-10  # bisection to the last place
    # In the third it does not, so that the multiplier needs no look further ahead.
    assert (model.optimum(at(2.0)) > 0).all()

    found = costate(mdp, structure, policy, tomorrow)[:, 0]
    brute = []
    for row in tomorrow:
        k_row = row[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(value_by_hand(model, (k_row, row[1], row[2])), k_row)
        brute.append(slope)
    torch.testing.assert_close(found, torch.stack(brute), rtol=1e-9, atol=1e-10)  # bisection enters both

    # The whole first-order condition: zero in every period, buying or not.
    first = at(0.0)
    assert (model.optimum(first) > 0).any()
    assert residuals(mdp, structure, policy, torch.cat([first, tomorrow, at(2.0)])).abs().max() < 1e-9
    monkeypatch.setattr(euler, "binding_multiplier", lambda *args: torch.zeros_like(args[4]))
    assert residuals(mdp, structure, policy, first).abs().max() > 0.01


# Units


def test_the_unit_of_the_reward_does_not_matter():
    louder = variant(BufferStock, reward=lambda self, s, a: 1000 * crra(a.c, self.gamma))
    policy = lambda s: torch.minimum(s, 0.5 + 0.4 * s)  # noqa: E731
    quiet, loud = setup(BufferStock()), setup(louder())
    s = quiet[2]
    one, other = residuals(*quiet[:2], policy, s), residuals(*loud[:2], policy, s)
    assert one.abs().max() > 0.01
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)  # rounding of the factor


def test_the_unit_of_the_action_does_not_matter():
    """Consumption in thousandths."""

    @dataclass(frozen=True, kw_only=True)
    class Thousandths(BrockMirman):
        def actions(self):
            return Action("c", low=0.0, high=lambda s: 1000 * self.output(s))

        def reward(self, s, a):
            return (a.c / 1000).log()

        def transition(self, s, a, e):
            return {"k": self.output(s) - a.c / 1000, "z": e.eps}

    plain, fine = setup(BrockMirman()), setup(Thousandths())
    policy = lambda s: 0.5 * (s[..., 1:].exp() * s[..., :1] ** 0.36)  # noqa: E731
    one = residuals(*plain[:2], policy, plain[2])
    other = residuals(*fine[:2], lambda s: 1000 * policy(s), plain[2])
    assert one.abs().min() > 0.01
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_reward_that_ignores_the_action_still_has_a_unit():
    """All reward comes later: r_a = 0, and the unit is taken from the future."""

    @dataclass(frozen=True, kw_only=True)
    class Gardener(Model):
        beta: float = 0.9

        def states(self):
            return State("x", low=0.5, high=1.5)

        def actions(self):
            return Action("a", low=0.0, high=2.0)

        def shocks(self):
            return Normal("eps", std=0.1)

        def reward(self, s, a):
            return -((s.x - 1) ** 2)

        def transition(self, s, a, e):
            return {"x": a.a + e.eps}

    mdp, structure, s = setup(Gardener())
    assert residuals(mdp, structure, lambda s: torch.ones_like(s), s).abs().max() < 1e-12
    assert residuals(mdp, structure, lambda s: 1.2 * torch.ones_like(s), s).abs().min() > 0.1


def test_residuals_of_a_vector_action_and_a_budget_have_one_column_each():
    @dataclass(frozen=True, kw_only=True)
    class Mixed(Model):
        beta: float = 0.9

        def states(self):
            return State("x", low=0.5, high=1.5, size=2)

        def actions(self):
            return Action("v", low=0.0, high=lambda s: s.x, size=2), Budget("w", size=2, total=1.0)

        def reward(self, s, a):
            return a.v.log().sum(-1) + a.w[..., 0].sqrt()

        def transition(self, s, a, e):
            return {"x": 1.1 * (s.x - a.v) + 0.1}

    mdp, structure, s = setup(Mixed())
    assert structure.exists
    policy = lambda s: torch.cat([0.5 * s, torch.tensor([0.5, 0.5]).to(s).expand_as(s)], -1)  # noqa: E731
    found = residuals(mdp, structure, policy, s)
    assert found.shape == (len(s), 4)
    # Each of the two copies is its own saving problem.
    swapped = residuals(mdp, structure, policy, s.flip(-1))
    torch.testing.assert_close(found[:, :2], swapped[:, :2].flip(-1), rtol=1e-12, atol=1e-13)
    assert found[:, 3].min() < -0.1  # the useless part should be given up


@dataclass(frozen=True, kw_only=True)
class Linked(Model):
    """x pays nothing itself, but y, which is best on its bound, may not exceed it: x = y = 0.5."""

    beta: float = 0.9

    def states(self):
        return State("k", low=-1.0, high=1.0)

    def actions(self):
        return Action("x", low=0.0, high=1.0), Action("y", low=0.0, high=lambda s, a: a.x)

    def shocks(self):
        return Normal("eps", std=0.1)

    def reward(self, s, a):
        return 3 * a.y - a.x**2 - 2 * a.x

    def transition(self, s, a, e):
        return {"k": 0.5 * s.k + 1e-4 * a.x + e.eps}


def test_a_binding_bound_that_reads_another_action_moves_with_it():
    """Tomorrow x falls by X', and y with it: 2 + 2 x of marginal cost is not all, the lost y is worth 3."""
    mdp = MDP(Linked())
    structure = find_structure(mdp)
    s = mdp.sample_box(200, torch.Generator().manual_seed(0))
    residual = euler_residuals(mdp, structure, lambda s: torch.full((*s.shape[:-1], 2), 0.5, dtype=s.dtype), s)
    assert residual.abs().max() < 1e-3  # the true x differs from 0.5 by 1e-4 of what k is worth, which is nothing


def test_where_each_action_moves_its_own_state_nothing_is_solved():
    """The paired form against the general one, which solves a system of linear equations."""
    mdp = MDP(IRBC(n=3))
    structure = find_structure(mdp)
    assert structure.own == (0, 1, 2)
    s = mdp.sample_box(20, torch.Generator().manual_seed(0))
    policy = lambda s: 0.1 * mdp.model.free(mdp.state(s)).unsqueeze(-1) * mdp.tensor([1.0, 1.1, 0.9])  # noqa: E731
    general = euler_residuals(mdp, dataclasses.replace(structure, own=()), policy, s)
    assert (euler_residuals(mdp, structure, policy, s) - general).abs().max() < 1e-12
    assert find_structure(MDP(Portfolio(n=2))).own == ()


@dataclass(frozen=True, kw_only=True)
class Idle(Model):
    """Wages so low that the rich do not work: l = 0 for many periods, c = (1 - (beta R)^(1/2)/R) b."""

    beta: float = 0.95
    R: float = 1.03

    def states(self):
        return State("b", low=10.0, high=30.0)

    def actions(self):
        return Action("l", low=0.0, high=1.0), Action("c", low=0.0, high=lambda s, a: s.b + 0.3 * a.l)

    def reward(self, s, a):
        return -1 / ((1 - a.l) * a.c)

    def transition(self, s, a, e):
        return {"b": self.R * (s.b + 0.3 * a.l - a.c)}


def test_an_action_that_stays_at_its_bound_is_not_what_undoes_a_deviation(monkeypatch):
    model = Idle()
    mdp, structure, s = setup(model)

    def policy(s):
        return torch.cat([0 * s, (1 - (model.beta * model.R) ** 0.5 / model.R) * s], dim=-1)

    assert residuals(mdp, structure, policy, s).abs().max() < 1e-9
    monkeypatch.setattr(euler, "on_fixed_bounds", lambda *args: None)  # its multiplier two periods ahead is not known
    assert residuals(mdp, structure, policy, s).abs().max() > 0.01
