"""The environment of all learning methods: how a path moves, ends and begins anew."""

import copy
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Model, State
from econrl.models import BrockMirman, LifeCycle
from econrl.problem.environments import Environments
from econrl.problem.mdp import MDP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def constant(mdp, environments, u=0.0):
    """The actions of constant shares."""
    return mdp.act(environments.s, torch.full((environments.n, mdp.A), u, dtype=mdp.dtype))


def test_a_step_is_what_the_model_does():
    mdp = MDP(BrockMirman())
    environments = Environments(mdp, 50, 100, generator())
    s, a, kept = environments.s, constant(mdp, environments), environments.generator.get_state()
    new = environments.step(a)
    e = mdp.sample_shocks(s, torch.Generator().set_state(kept))
    assert torch.equal(new.s, s)
    assert torch.equal(new.a, a)
    assert torch.equal(new.r, mdp.reward(s, a))
    assert torch.equal(new.beta, mdp.discount(s, a, e).expand(50))
    assert torch.equal(new.s_next, mdp.transition(s, a, e))
    assert torch.equal(environments.s, new.s_next)  # until those that end begin anew
    assert (environments.age == 1).all()
    assert new.goes_on.all()


def test_an_episode_ends_after_its_periods_and_paths_that_go_on_are_left_alone():
    mdp = MDP(BrockMirman())
    environments = Environments(mdp, 40, 5, generator())
    environments.stagger()
    assert set(environments.age.tolist()) == set(range(5))
    for _ in range(12):
        age = environments.age
        new = environments.step(constant(mdp, environments))
        assert torch.equal(new.goes_on, age + 1 < 5)
        environments.begin_anew(new.goes_on)
        assert torch.equal(environments.age, torch.where(new.goes_on, age + 1, 0))
        assert torch.equal(environments.s[new.goes_on], new.s_next[new.goes_on])
        assert (environments.s[~new.goes_on] != new.s_next[~new.goes_on]).any(dim=-1).all()
        assert mdp.inside(environments.s[~new.goes_on]).all()


@dataclass(frozen=True, kw_only=True)
class Escalator(Model):
    """x rises by four each period; the domain is [0, 10], and a path ends beyond 15."""

    beta: float = 0.9

    def states(self):
        return State("x", low=0.0, high=10.0)

    def actions(self):
        return Action("a", low=0.0, high=1.0)

    def reward(self, s, a):
        return a.a + 0 * s.x

    def transition(self, s, a, e):
        return {"x": s.x + 4}

    def initial(self, n, generator):
        return {"x": torch.full((n,), 0.5)}


def test_a_path_far_outside_ends_and_begins_where_it_is_told_to():
    mdp = MDP(Escalator())
    environments = Environments(mdp, 3, 100, generator(), mdp.sample_initial)
    seen = []
    for _ in range(8):
        seen.append(float(environments.s[0]))
        new = environments.step(constant(mdp, environments))
        assert torch.equal(new.goes_on, new.s_next[:, 0] <= 15)
        environments.begin_anew(new.goes_on)
    assert seen == 2 * [0.5, 4.5, 8.5, 12.5]


def test_a_life_that_is_over_ends_its_path():
    mdp = MDP(LifeCycle(horizon=4, retirement=3))
    environments = Environments(mdp, 5, 100, generator(), mdp.sample_initial)
    periods = []
    for _ in range(8):
        periods.append(float(environments.s[0, -1]))
        new = environments.step(constant(mdp, environments))
        assert torch.equal(new.goes_on, new.s_next[:, -1] < 4)
        environments.begin_anew(new.goes_on)
    assert periods == 2 * [0.0, 1.0, 2.0, 3.0]


def test_environments_go_on_from_their_state_as_if_they_had_not_stopped():
    mdp = MDP(BrockMirman())
    environments = Environments(mdp, 20, 3, generator())
    environments.stagger()

    def walk():
        seen = []
        for _ in range(5):
            new = environments.step(constant(mdp, environments))
            environments.begin_anew(new.goes_on)
            seen.append(environments.s)
        return torch.stack(seen)

    walk()
    kept, drawn = copy.deepcopy(environments.state()), environments.generator.get_state()
    first = walk()
    environments.restore(kept)
    environments.generator.set_state(drawn)
    assert torch.equal(walk(), first)


def test_most_paths_of_a_life_cycle_begin_with_it_and_others_anywhere_in_the_domain():
    model = LifeCycle()
    mdp = MDP(model)
    t = mdp.sample_start(20_000, torch.Generator().manual_seed(0))[:, -1]
    assert float((t == 0).double().mean()) == pytest.approx(0.75 + 0.25 / model.horizon, abs=0.02)
    assert float(t.max()) == model.horizon - 1
    stationary = MDP(BrockMirman())
    drawn, box = (f(100, torch.Generator().manual_seed(0)) for f in (stationary.sample_start, stationary.sample_box))
    assert torch.equal(drawn, box)
