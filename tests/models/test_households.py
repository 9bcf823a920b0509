"""The households of the zoo: their equations by hand, published and other calibrations, and domains."""

import numpy as np
import pytest
import torch

from econrl.checks import check
from econrl.models import Durables, Housing
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
]


@pytest.mark.parametrize("model", CALIBRATIONS, ids=lambda model: type(model).__name__)
def test_other_calibrations_pass_the_check(model):
    assert check(model) == []


@pytest.mark.parametrize("model", [Durables(), Housing(), *CALIBRATIONS], ids=lambda model: type(model).__name__)
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
