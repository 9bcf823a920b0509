"""The distance to the best action: zero where the action is best, and as large as the error where it is not."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Budget, Choice, Discrete, Model, Normal, State
from econrl.accuracy.best_action import nearest_root
from econrl.accuracy.optimality_gaps import by_euler, euler_gaps, value_gaps
from econrl.models import BrockMirman, Investment, LinearQuadratic, Portfolio, StochasticGrowth
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.utility import crra


def case(frozen):
    return dataclass(frozen=True, kw_only=True)(frozen)


@case
class TwoAges(Model):
    """Two ages, log utility, borrowing dearer than saving: c = m where neither pays, m to eat at the last age."""

    horizon: int = 2
    beta: float = 0.96
    R_save: float = 1.01
    R_borrow: float = 1.25
    y: float = 1.0

    def states(self):
        return State("m", low=0.2, high=5.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + torch.where(s.t < 1, 0.5, 0.0))

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        kept = s.m - a.c
        return {"m": torch.where(kept < 0, self.R_borrow, self.R_save) * kept + self.y}

    def exact_policy(self, s):
        saver, borrower = ((s.m + self.y / R) / (1 + self.beta) for R in (self.R_save, self.R_borrow))
        first = torch.minimum(torch.maximum(torch.minimum(s.m, saver), borrower), s.m + 0.5)
        return {"c": torch.where(s.t < 1, first, s.m)}

    def exact_value(self, s):
        c = self.exact_policy(s)["c"]
        kept = s.m - c
        later = torch.where(kept < 0, self.R_borrow, self.R_save) * kept + self.y
        return c.log() + torch.where(s.t < 1, self.beta * later.clamp(min=1e-9).log(), 0.0)


@case
class Hire(Model):
    """Labour is hired anew each period and moves no state: n = (theta e^z / w)^(1/(1-theta))."""

    beta: float = 0.9
    theta: float = 0.6
    w: float = 1.2

    def states(self):
        return State("z", low=-0.3, high=0.3)

    def actions(self):
        return Action("n", low=0.0, high=2.0)

    def shocks(self):
        return Normal("e", std=0.05)

    def reward(self, s, a):
        return s.z.exp() * a.n**self.theta - self.w * a.n

    def transition(self, s, a, e):
        return {"z": 0.8 * s.z + e.e}

    def exact_policy(self, s):
        return {"n": (self.theta * s.z.exp() / self.w) ** (1 / (1 - self.theta))}


@case
class Effort(Model):
    """Effort raises the chance that a relation goes on: a = b s1 V, V = y + b s0 V + (b s1 V)^2 / 2."""

    beta: float = 0.9
    s0: float = 0.4
    s1: float = 0.3
    y: float = 1.0

    def states(self):
        return State("x", low=-1.0, high=1.0)

    def actions(self):
        return Action("a", low=0.0, high=2.0)

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        return self.y - a.a**2 / 2 + 0 * s.x

    def discount(self, s, a, e):
        return self.beta * (self.s0 + self.s1 * a.a)

    def transition(self, s, a, e):
        return {"x": 0.5 * s.x + e.e}

    def worth(self):
        b, c = 1 - self.beta * self.s0, (self.beta * self.s1) ** 2
        return (b - math.sqrt(b * b - 2 * c * self.y)) / c

    def exact_policy(self, s):
        return {"a": self.beta * self.s1 * self.worth() + 0 * s.x}

    def exact_value(self, s):
        return self.worth() + 0 * s.x


MODELS = [
    BrockMirman(),
    Investment(theta=1.0, rho=0.0, productivity=1.01),
    LinearQuadratic(n=2, m=2),
    LinearQuadratic(n=6, m=2),  # no Euler equation
    Portfolio(n=2),
    Portfolio(n=2, gamma=1.0, premium=0.2),  # the whole budget goes into the better asset
    Portfolio(n=2, premium=-0.05),  # none of it does
    TwoAges(),
    Hire(),
    Effort(),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def setup(model, n=150):
    mdp = MDP(model, quadrature=Quadrature(nodes=7))
    return mdp, find_structure(mdp), mdp.sample_box(n, torch.Generator().manual_seed(0))


def measured(model, policy_of):
    """The gaps of a policy: by the Euler equation, of its own future, where there is one, else by the exact value."""
    mdp, structure, s = setup(model)
    policy = policy_of(mdp.exact_policy)
    if by_euler(mdp, structure, policy, s):
        return euler_gaps(mdp, structure, policy, s, torch.Generator().manual_seed(1))
    return value_gaps(mdp, policy, mdp.exact_value, s)


@each_model
def test_an_exact_policy_reads_zero_at_bounds_kinks_and_last_ages(model):
    found = measured(model, lambda exact: exact)
    assert found.distance.max() <= 1e-8  # the optimiser's own precision of portfolio shares
    assert found.loss.max() <= 1e-12


@pytest.mark.parametrize("model", [m for m in MODELS if not isinstance(m, TwoAges)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("off", [1e-4, 1e-3, 1e-2])
def test_a_policy_that_is_off_by_some_share_reads_that_share_within_a_factor_of_three(model, off):
    exact = setup(model)[0].exact_policy(setup(model)[2])
    found = measured(model, lambda exact: lambda s: (1 - off) * exact(s)).distance
    for i in range(exact.shape[-1]):
        if exact[:, i].abs().mean() > 1e-6:  # at zero there is nothing to be a share of
            assert off / 3 < found[:, i].mean() < 3 * off


def test_without_its_own_future_the_euler_equation_understates_the_error_of_a_level():
    """Investment one per cent too low everywhere breaks the condition by a fortieth of that; the distance does not."""
    mdp, structure, s = setup(MODELS[1])
    policy = lambda s: 0.99 * mdp.exact_policy(s)  # noqa: E731
    assert euler_gaps(mdp, structure, policy, s).distance.mean() < 1e-3
    assert euler_gaps(mdp, structure, policy, s, torch.Generator().manual_seed(1)).distance.mean() > 5e-3


@each_model
def test_a_better_policy_reads_better(model):
    errors = [measured(model, lambda exact, off=off: lambda s: (1 - off) * exact(s)) for off in (0.0, 1e-3, 1e-2, 0.1)]
    for one, other in itertools.pairwise(errors):
        assert one.distance.mean() < other.distance.mean()
        assert one.loss.mean() < other.loss.mean()


def test_a_kink_is_counted_and_says_how_far_off_the_action_is():
    """Where nothing is kept, c = m: the gain jumps there. Two per cent less is two per cent off, and on the kink."""
    mdp, structure, _ = setup(TwoAges())
    m = torch.linspace(0.85, 0.99, 30, dtype=torch.float64)  # well between what savers and borrowers would take
    s = torch.stack([m, torch.zeros_like(m)], dim=-1)
    at_kink = (mdp.exact_policy(s)[:, 0] - m).abs() < 1e-12
    assert at_kink.sum() > 10
    found = euler_gaps(mdp, structure, lambda s: 0.98 * mdp.exact_policy(s), s)
    assert found.kinked[at_kink].all()
    expected = torch.full_like(m[at_kink], 0.02 / 0.98)
    torch.testing.assert_close(found.distance[at_kink][:, 0], expected, rtol=0.1, atol=0)  # of a bracket's width
    assert euler_gaps(mdp, structure, mdp.exact_policy, s).distance.max() <= 1e-8


@case
class Feast(Model):
    """One period, three dishes from one budget: the shares are the weights, and nothing is left."""

    horizon: int = 1
    beta: float = 0.9

    def states(self):
        return State("m", low=1.0, high=2.0)

    def actions(self):
        return Budget("x", size=3, total=lambda s: s.m)

    def reward(self, s, a):
        return (torch.tensor([0.5, 0.3, 0.2]).to(a.x) * a.x.log()).sum(-1)

    def transition(self, s, a, e):
        return {"m": s.m}

    def exact_policy(self, s):
        return {"x": s.m.unsqueeze(-1) * torch.tensor([0.5, 0.3, 0.2]).to(s.m)}


def test_parts_of_a_budget_are_moved_against_each_other():
    mdp, structure, s = setup(Feast())
    assert euler_gaps(mdp, structure, mdp.exact_policy, s).distance.max() <= 1e-8

    def shifted(s):
        """A hundredth of the budget from the first dish to the second."""
        return mdp.exact_policy(s) + s[:, :1] * torch.tensor([-0.01, 0.01, 0.0], dtype=torch.float64)

    off = euler_gaps(mdp, structure, shifted, s).distance.mean(dim=0)
    assert off[0] == pytest.approx(0.01 / 0.49, rel=0.1)
    assert off[1] == pytest.approx(0.01 / 0.31, rel=0.1)
    wasted = euler_gaps(mdp, structure, lambda s: 0.9 * mdp.exact_policy(s), s)
    assert (wasted.distance > 0.05).all()


@case
class Umbrella(Model):
    """A choice and an amount: with the umbrella (option 1) the best amount is 0.5 and costs 0.1; without it 0.25."""

    beta: float = 0.9

    def states(self):
        return State("x", low=0.0, high=1.0)

    def actions(self):
        return Choice("take", 2), Action("a", low=0.0, high=1.0)

    def shocks(self):
        return Discrete("e", values=(0.2, 0.8), probabilities=(0.5, 0.5))

    def reward(self, s, a):
        best = torch.where(a.take > 0, 0.5, 0.25)
        return 1.0 - 0.2 * a.take + torch.where(a.take > 0, 0.3, 0.0) * s.x - (a.a - best) ** 2

    def transition(self, s, a, e):
        return {"x": e.e + 0 * s.x}

    def exact_policy(self, s):
        take = (0.3 * s.x > 0.2).to(s.x)
        return {"take": take, "a": 0.25 + 0.25 * take}


def test_amounts_are_judged_given_the_choice_and_a_choice_by_what_it_loses():
    mdp, _, s = setup(Umbrella())
    worthless = lambda s: 0 * s[..., 0]  # the future is the same whatever is done  # noqa: E731
    exact = value_gaps(mdp, mdp.exact_policy, worthless, s)
    assert exact.distance.max() <= 1e-8
    never = value_gaps(mdp, lambda s: torch.stack([0 * s[:, 0], 0.26 + 0 * s[:, 0]], -1), worthless, s)
    torch.testing.assert_close(never.distance[:, 1], torch.full_like(s[:, 0], 0.01 / 0.26))
    assert ((never.distance[:, 0] > 0) == (0.3 * s[:, 0] - 0.2 > 1e-3)).all() or (never.distance[:, 0] >= 0).all()
    assert never.distance[s[:, 0] < 0.6, 0].max() == pytest.approx(0, abs=1e-4)
    assert never.distance[s[:, 0] > 0.9, 0].min() > 0.01


def test_published_euler_errors_are_met_within_one_per_cent():
    """1 - beta E[u'(c') R'] / u'(c) of the one-sector growth model, in the accuracy table's own measure."""
    from econrl.accuracy.error_table import measure

    m = StochasticGrowth()
    mdp, structure, s = setup(m)
    policy = lambda s: (0.745 * m.A * s[..., 0] ** 0.4 * (0.7 * s[..., 1]).exp()).unsqueeze(-1)  # noqa: E731
    table = measure(mdp, structure, policy, lambda s: s[..., 0], s)
    z_next = m.rho * s[:, 1:] + mdp.nodes[:, 0]
    k_next = (m.A * s[:, 1].exp() * s[:, 0] ** m.alpha + (1 - m.delta) * s[:, 0] - policy(s)[:, 0])[:, None]
    later = torch.stack([k_next.expand_as(z_next), z_next], -1)
    gross = m.alpha * m.A * z_next.exp() * k_next ** (m.alpha - 1) + 1 - m.delta
    marginal = lambda s: policy(s)[..., 0] ** -m.gamma  # noqa: E731
    by_hand = 1 - m.beta * (mdp.weights(s) * marginal(later) * gross).sum(-1) / marginal(s)
    assert table["euler"].mean() == pytest.approx(float(by_hand.abs().mean()), rel=0.01)


def test_the_nearest_root_is_found_on_lines_curves_and_jumps():
    roots = torch.tensor([1e-9, 1e-5, 0.02, 0.4, 0.3, 5.0, 1e-7], dtype=torch.float64)
    kinds = ["line", "line", "curve", "curve", "jump", "far", "jump"]

    def slope(rows, t):
        values = []
        for row, at in zip(rows.tolist(), t, strict=True):
            gap = roots[row] - at
            jump = torch.where(gap > 0, 1.0, -1.0)
            values.append({"line": gap, "curve": gap.exp() - 1 + gap**3, "jump": jump, "far": gap}[kinds[row]])
        return torch.stack(values)

    ones = torch.ones_like(roots)
    t, jumps = nearest_root(slope, slope(torch.arange(7), torch.zeros(7).double()), ones, ones)
    torch.testing.assert_close(t, torch.tensor([1e-9, 1e-5, 0.02, 0.4, 0.3, 1.0, 1e-7]).double(), rtol=0.1, atol=0)
    assert jumps.tolist() == [False, False, False, False, True, False, True]
    t, _ = nearest_root(slope, -ones, ones, ones)
    assert (t == 0).all()


def test_utility_of_the_unit_does_not_matter():
    """Twice the reward, the same distances and losses."""

    @case
    class Twice(BrockMirman):
        def reward(self, s, a):
            return 2 * crra(a.c, 1.0)

    one, two = (measured(m, lambda exact: lambda s: 0.9 * exact(s)) for m in (BrockMirman(), Twice()))
    torch.testing.assert_close(one.distance, two.distance, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.loss, two.loss, rtol=1e-6, atol=0)
