"""Answers beyond the domain, against policies that are known everywhere."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch

import econrl
from econrl import EGM, VI, Action, Budget, Choice, Model, OutsideDomain, Solution, State
from econrl.approximation.continuation import actions_at, values_at
from econrl.approximation.grid_functions import GridPolicy, GridValue
from econrl.approximation.networks import Actor
from econrl.models import BufferStock, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction

REST = {"info": {"method": "none", "steps": 0, "seconds": 0.0}, "training": None}


@dataclass(frozen=True, kw_only=True)
class Saving(Model):
    """c out of m; income one."""

    beta: float = 0.9

    def states(self):
        return State("m", low=0.5, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"m": s.m - a.c + 1}


@dataclass(frozen=True, kw_only=True)
class Several(Saving):
    """Also a choice, an action without bounds, and a budget."""

    def actions(self):
        return Choice("work", n=2), Action("c", low=0.0, high=lambda s: s.m), Action("x"), Budget("w", size=2)


class Given(StateFunction):
    """Any function of the states, fitted to the domain and nonsense beyond."""

    def __init__(self, mdp, function=lambda s: s):
        super().__init__(mdp)
        self.function = function

    def describe(self):
        return {}

    def forward(self, s):
        inside = self.mdp.inside(s)
        result = self.function(s)
        return torch.where(inside if result.ndim == inside.ndim else inside.unsqueeze(-1), result, 1e6)


def continued(function, m, model=None):
    mdp = MDP(model or Saving())
    return actions_at(Given(mdp, function), (mdp.low, mdp.high), mdp.tensor(m).unsqueeze(-1)).squeeze(-1)


def test_consumption_goes_on_along_its_tangent():
    assert continued(lambda s: 0.3 + 0.4 * s, [1.0, 2.0, 8.0]).tolist() == pytest.approx([0.7, 1.1, 3.5])


def test_a_binding_limit_stays_binding():
    assert continued(lambda s: s.clone(), [0.01, 0.3, 20.0]).tolist() == pytest.approx([0.01, 0.3, 20.0])


def test_towards_zero_shares_stay_what_they_are():
    """Along the tangent, consumption would be negative at m = 0.1."""
    c = continued(lambda s: 0.3 + 0.9 * (s - 0.5), [0.1, 0.01])
    assert c.tolist() == pytest.approx([0.06, 0.006])


@pytest.mark.parametrize("slope", [-5.0, 5.0])
def test_consumption_neither_vanishes_nor_takes_all(slope):
    c = float(continued(lambda s: 1.0 + slope * (s - 2.0), [20.0]))
    assert c == pytest.approx(20 * (0.05 if slope < 0 else 0.95))


def test_every_kind_of_action_keeps_its_bounds():
    mdp = MDP(Several())
    m = mdp.tensor([[-3.0], [0.1], [1.0], [50.0]])
    policy = Given(mdp, lambda s: torch.cat([(s > 1).to(s), s / 2, 2 * s, s / 4, 0.4 - s / 8], dim=-1))
    a = actions_at(policy, (mdp.low, mdp.high), m)
    assert mdp.feasible(m[1:], a[1:]).all()
    assert a[:, 0].tolist() == [0, 0, 0, 1]
    assert a[3, 1] == pytest.approx(25.0)
    assert a[3, 2] == pytest.approx(100.0)
    assert a.isfinite().all()


def test_a_value_goes_on_along_its_tangent():
    mdp = MDP(Saving())
    value = Given(mdp, lambda s: s[..., 0].log())
    v = values_at(value, (mdp.low, mdp.high), mdp.tensor([[1.0], [4.0], [0.0]]))
    assert v.tolist() == pytest.approx([0.0, math.log(2) + 1, math.log(0.5) - 1])


def test_a_grid_says_nothing_beyond_its_box():
    mdp = MDP(Saving())
    box = {"low": [0.5], "high": [1.0], "points": [9], "spacing": [0.0], "interpolation": "cubic"}
    policy, value = GridPolicy(mdp, **box), GridValue(mdp, **box)
    policy.fit(0.2 / policy.states() + 0.4)  # shares: c = 0.2 + 0.4 m
    value.fit(policy.states() ** 2)
    known, m = (mdp.low, mdp.high), mdp.tensor([[0.9], [6.0]])
    assert actions_at(policy, known, m).flatten().tolist() == pytest.approx([0.56, 2.6], rel=1e-3)
    assert values_at(value, known, m).tolist() == pytest.approx([0.81, 11.0], rel=1e-3)
    assert policy(m)[1] == pytest.approx(6 * (0.2 / 1.125 + 0.4), rel=0.05)  # the share at 1.125


# Solutions


@pytest.fixture(scope="module")
def egm():
    return econrl.solve(BufferStock(), EGM(points=60, nodes=3, change=1e-5))


@pytest.fixture(scope="module")
def vi():
    return econrl.solve(BufferStock(), VI(points=15, nodes=3), steps=15)


def test_wealth_far_beyond_the_domain_is_consumed_sanely(egm, vi):
    """The endogenous grid goes on along the tangent by itself; shares that are carried on consume half too much."""
    with pytest.warns(OutsideDomain, match="1 of 2 points.*m up to 20, above 5"):
        c = vi.policy({"m": [3.0, 20.0]})["c"]
    with pytest.warns(OutsideDomain):
        right = egm.policy({"m": [3.0, 20.0]})["c"]
    assert c == pytest.approx(right.flatten(), rel=0.1)
    raw = vi.policy_function(torch.tensor([[20.0]], dtype=torch.float64))
    assert float(raw) > 1.3 * float(right[1])


def test_a_network_does_too(egm):
    """A network that has learned the policy on the domain."""
    mdp, generator = egm.mdp, torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = Actor(mdp, (32, 32)).to(mdp.dtype)
    adam = torch.optim.Adam(actor.parameters(), lr=1e-2)
    for _ in range(300):
        s = mdp.sample_box(256, generator)
        loss = (actor(s) / egm.policy_function(s)).log().square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    learned = Solution(egm.model, actor.requires_grad_(False), egm.value_function, **REST)
    m = torch.tensor([[5.0], [20.0]], dtype=torch.float64)
    with pytest.warns(OutsideDomain):
        c, right = learned.policy(m).flatten(), egm.policy_function(m).flatten()
    assert c[0] == pytest.approx(float(right[0]), rel=0.05)
    assert c[1] == pytest.approx(float(right[1]), rel=0.4)
    assert abs(float(learned.policy_function(m)[1]) / right[1] - 1) > 2 * abs(c[1] / right[1] - 1)


def test_states_that_its_own_paths_visit_are_known(egm):
    """Capital of the growth model leaves its domain, and the policy was fitted there."""
    solution = econrl.solve(StochasticGrowth(), "perturbation")
    low, high = solution.known
    assert low[0] < 0.85 < 1.15 < high[0]
    s = torch.tensor([[0.87, 0.0], [1.13, 0.0]], dtype=torch.float64)
    with pytest.warns(OutsideDomain, match="2 of 2 points.*k down to 0.87, below 0.9; k up to 1.13"):
        assert torch.equal(solution.policy(s), solution.policy_function(s))


def test_warnings_come_where_states_lie_outside_and_not_else(vi):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vi.policy({"m": [1.0]})
        vi.policy_table()
        vi.simulate(50, 20)
    narrow = Solution(vi.model.with_domain({"m": (0.3, 1.2)}), vi.policy_function, vi.value_function, **REST)
    with pytest.warns(OutsideDomain, match="% of the simulated states lie outside.*with_domain") as caught:
        narrow.simulate(50, 20)
    assert caught[0].filename == __file__
    assert len(caught) == 1
