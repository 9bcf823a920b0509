"""What a rollout says of its actions: returns, advantages, and the value that takes over where a path is cut."""

import math
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Model, State
from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.models import BrockMirman, LifeCycle
from econrl.problem.bellman import continuation
from econrl.problem.environments import Environments
from econrl.problem.mdp import MDP
from econrl.solvers.on_policy.rollouts import (
    Rollout,
    gae,
    normalised,
    on_states,
    returns,
    roll,
    since_start,
    temporal_differences,
)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def rollout(r, beta, cut):
    """One path with these rewards and discounts; nothing else matters."""
    nothing = torch.zeros(len(r), 1, 1)
    return Rollout(nothing, nothing, column(*r), column(*beta), nothing, column(*cut).bool())


def policy_of(mdp, std=0.3):
    policy = StochasticPolicy(mdp, (8,)).to(mdp.dtype)
    policy.start_at(torch.zeros(mdp.A, dtype=mdp.dtype), std)
    return policy


def environments(mdp, n=50, episode=100, seed=0):
    paths = Environments(mdp, n, episode, torch.Generator().manual_seed(seed))
    paths.stagger()
    return paths


@pytest.mark.parametrize(("lam", "first"), [(0.0, 1.0), (1.0, 1 + 0.9 * 0.5 - 0.81 * 0.2), (0.5, 1.18450)])
def test_generalised_advantages_are_the_sums_of_the_paper(lam, first):
    delta, cut = column(1.0, 0.5, -0.2), column(0, 0, 1).bool()
    advantage = gae(delta, torch.full_like(delta, 0.9), cut, lam)
    assert float(advantage[0]) == pytest.approx(first)
    assert float(advantage[-1]) == pytest.approx(-0.2)


def test_advantages_with_lambda_one_are_returns_less_values_whatever_is_cut():
    generator = torch.Generator().manual_seed(0)
    shape = (7, 5)
    r, v, v_next = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = 0.5 + 0.4 * torch.rand(shape, generator=generator, dtype=torch.float64)
    cut = torch.rand(shape, generator=generator) < 0.3
    cut[-1] = True
    v_next[:-1] = torch.where(cut[:-1], v_next[:-1], v[1:])  # where a path goes on, the next state is the next state
    one = Rollout(r, r, r, beta, r, cut)
    advantage = gae(temporal_differences(one, v, v_next), beta, cut, lam=1.0)
    torch.testing.assert_close(advantage, returns(one, v_next) - v)
    at_once = gae(temporal_differences(one, v, v_next), beta, cut, lam=0.0)
    torch.testing.assert_close(at_once, r + beta * v_next - v)


def test_returns_discount_by_the_product_of_factors_and_value_the_state_at_a_cut():
    one = rollout(r=(1.0, 2.0, 4.0, 8.0), beta=(0.5, 0.9, 0.8, 0.7), cut=(0, 1, 0, 1))
    G = returns(one, column(-1.0, 10.0, -1.0, 100.0))  # the -1 belong to states that a path went on from
    expected = [1 + 0.5 * (2 + 0.9 * 10), 2 + 0.9 * 10, 4 + 0.8 * (8 + 0.7 * 100), 8 + 0.7 * 100]
    assert G.flatten().tolist() == pytest.approx(expected)


def test_what_a_path_began_with_is_carried_to_its_end_and_no_further():
    one = rollout(r=(0,) * 5, beta=(0.5, 0.9, 0.8, 0.7, 0.6), cut=(0, 0, 1, 0, 1))
    first, factor = since_start(one, column(1.0, 2.0, 3.0, 4.0, 5.0))
    assert first.flatten().tolist() == [1, 1, 1, 4, 4]
    assert factor.flatten().tolist() == pytest.approx([1, 0.5, 0.45, 1, 0.7])


def test_normalised_advantages_keep_their_ranks():
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(0)) * 7 + 3
    y = normalised(x)
    assert float(y.mean()) == pytest.approx(0, abs=1e-6)
    assert float(y.std()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(x.flatten().argsort(), y.flatten().argsort())
    assert normalised(torch.ones(3, 2)).isfinite().all()


def test_a_rollout_is_what_the_model_does_and_a_new_path_leaves_no_trace_in_the_old_one():
    mdp = MDP(BrockMirman())
    paths = environments(mdp, episode=6)
    one = roll(paths, policy_of(mdp), 20)
    a = mdp.act(one.s, one.u)
    torch.testing.assert_close(one.r, mdp.reward(one.s, a))
    torch.testing.assert_close(one.s_next[..., 0], mdp.transition(one.s, a, mdp.nodes[:1])[..., 0])  # capital
    goes_on = ~one.cut[:-1]
    torch.testing.assert_close(one.s[1:][goes_on], one.s_next[:-1][goes_on])
    began = one.s[1:][~goes_on]
    assert len(began) > 0
    assert (began != one.s_next[:-1][~goes_on]).any(dim=-1).all()  # the state truly reached is kept
    assert mdp.inside(began).all()
    assert one.cut[-1].all()
    ages = (one.cut.cumsum(0) == 0).sum(0) + 1  # the length of each first path
    assert ages.max() <= 6
    assert len(environments(mdp, episode=6).age.unique()) == 6  # so that not all begin anew at once


def test_rollouts_follow_each_other_without_a_gap():
    mdp = MDP(BrockMirman())
    paths, policy = environments(mdp), policy_of(mdp)
    before = roll(paths, policy, 3)
    after = roll(paths, policy, 3)
    keeps = (paths.age > 3).nonzero().flatten()  # paths that did not begin anew meanwhile
    assert len(keeps) > 10
    torch.testing.assert_close(after.s[0][keeps], before.s_next[-1][keeps])


@dataclass(frozen=True, kw_only=True)
class Runaway(Model):
    """A state that grows by a half each period, whatever is done."""

    beta: float = 0.9

    def states(self):
        return State("x", low=1.0, high=1.9)

    def actions(self):
        return Action("a", low=0.0, high=1.0)

    def shocks(self):
        return ()

    def reward(self, s, a):
        return s.x

    def transition(self, s, a, e):
        return {"x": 1.5 * s.x}


def test_a_path_that_leaves_the_domain_far_begins_anew_and_is_worth_the_state_it_reached():
    mdp = MDP(Runaway())
    one = roll(environments(mdp), policy_of(mdp), 30)
    assert (one.s <= 1.9 + 0.45 + 1e-9).all()  # half of the domain's width beyond it
    left = one.cut & (one.s_next.squeeze(-1) > 2.35)
    assert left.any()
    V = lambda s: 100 * s.squeeze(-1)  # noqa: E731
    G = returns(one, on_states(V, one.s_next))
    torch.testing.assert_close(G[left], (one.s.squeeze(-1) + 0.9 * 150 * one.s.squeeze(-1))[left])


def test_a_life_ends_with_its_terminal_value_and_a_time_limit_does_not():
    model = LifeCycle(horizon=4, retirement=3)
    mdp = MDP(model)
    one = roll(environments(mdp, n=400, episode=2), policy_of(mdp), 8)
    over = one.s_next[..., -1] == 4
    assert over.any()
    assert one.cut[over].all()
    assert (one.s[..., -1] < 4).all()
    V = lambda s: torch.where(s[..., -1] >= 4, math.nan, -7.0)  # noqa: E731  (there is no value after the end)
    v_next = on_states(lambda s: continuation(mdp, V, s), one.s_next)
    torch.testing.assert_close(v_next[over], mdp.terminal(one.s_next[over]).expand(int(over.sum())))
    in_time = one.cut & ~over  # the episode's end, which is none of the world
    torch.testing.assert_close(returns(one, v_next)[in_time], (one.r - 7 * one.beta)[in_time])
