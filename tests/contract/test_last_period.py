"""Nothing reads a model beyond its last period: a table by age needs as many numbers as there are ages, and the
discount factor may be zero at any of them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_methods import small
from torch import Tensor

import econrl
from econrl import METHODS, Action, Choice, Discrete, Model, State
from econrl.gym import make_vec
from econrl.problem.mdp import MDP
from econrl.spec.variables import listed

T = 4
METHODS = dict(METHODS)
AGES = torch.arange(T, dtype=torch.float64)
NONE = torch.full((T,), torch.nan, dtype=torch.float64)
SURVIVAL = torch.tensor([1.0, 0.0, 0.9, 0.0], dtype=torch.float64)


def by_age(table, t: Tensor) -> Tensor:
    """table[t]; raises IndexError for t above T - 1, and is no number for t below 0."""
    return torch.cat([NONE, table])[t.long() + T]


@dataclass(frozen=True, kw_only=True)
class Ages(Model):
    """Every function reads a table by age; the second and the last discount factor are zero."""

    horizon: int = T

    def states(self):
        return State("m", low=0.5, high=5.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + by_age(0 * AGES, s.t))

    def shocks(self):
        return Discrete("y", values=(0.5, 1.5), probabilities=(0.5, 0.5))

    def discount(self, s, a, e):
        return by_age(0.95 * SURVIVAL, s.t)

    def reward(self, s, a):
        return a.c.log() + by_age(AGES, s.t)

    def transition(self, s, a, e):
        return {"m": s.m - a.c + e.y + by_age(0 * AGES, s.t)}

    def outcomes(self, s, a):
        return {"age": by_age(AGES, s.t)}

    def terminal(self, s):
        return s.m.log()


@dataclass(frozen=True, kw_only=True)
class Choosing(Ages):
    """The same with a choice."""

    def actions(self):
        return *listed(super().actions()), Choice("treat", n=2)

    def reward(self, s, a):
        return super().reward(s, a) + a.treat * (s.m - 1)


@dataclass(frozen=True, kw_only=True)
class Menu(Ages):
    """The same with a choice alone."""

    def actions(self):
        return Choice("share", n=3)

    def reward(self, s, a):
        return ((a.share + 1) * s.m / 3).log() + by_age(AGES, s.t)

    def transition(self, s, a, e):
        return {"m": (2 - a.share) * s.m / 3 + e.y + by_age(0 * AGES, s.t)}


CASES = [
    pytest.param(cls, model(), id=f"{cls.name}-{model.__name__}")
    for cls in METHODS.values()
    for model in (Ages, Choosing, Menu)
    if small(cls).why_not(MDP(model())) is None
]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Short simulations and fits: what they find is no matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("econrl.approximation.constant_shares.ROUNDS", 1)
        patch.setattr("econrl.solvers.polish.polish.START_STATES", 64)
        yield


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_no_method_looks_beyond_the_last_period(cls, model, tmp_path):
    solution = econrl.solve(model, small(cls), steps=T + 1, time_limit=20, seed=1, device="cpu", progress=False)
    frame = solution.policy_table()
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    assert np.isfinite(solution.value(frame)).all()
    simulated = solution.simulate(20)
    assert simulated["t"].between(0, T - 1).all()
    solution.accuracy(200)
    solution.save(tmp_path / "s")
    assert np.allclose(econrl.load(tmp_path / "s", model=model).policy(frame), solution.policy(frame))


@pytest.mark.parametrize("model", [Ages(), Choosing(), Menu()])
def test_an_environment_ends_with_the_last_period(model):
    env = make_vec(model, num_envs=5)
    env.reset(seed=0)
    env.action_space.seed(0)
    ends = 0
    for _ in range(2 * T + 2):
        _, reward, terminated, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward).all()
        ends += terminated.sum()
    assert ends >= 5
