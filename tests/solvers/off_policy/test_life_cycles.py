"""The actor-critic on life cycles whose purchases are zero at many states, against brute force."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import DDPG, Budget, Model, State
from econrl.problem.mdp import MDP
from econrl.problem.simulate import discounted
from econrl.solvers import Pathwise
from learners import trained

pytestmark = pytest.mark.usefixtures("arithmetic_of_solve")
SMALL = {"hidden": (32, 32), "batch": 64, "start_steps": 100}


@dataclass(frozen=True, kw_only=True)
class Purchases(Model):
    """Two periods of consumption and of a good that can be bought and not sold; whoever owns much of it buys none.

    The domain is many times wider than where lives begin.
    """

    horizon: int = 2
    beta: float = 0.9

    def states(self):
        return State("m", low=0.1, high=20.0), State("n", low=0.05, high=10.0)

    def actions(self):
        return Budget("x", size=2, total=lambda s: s.m)

    def reward(self, s, a):
        return -1 / a.x[..., 0] - 0.5 / (s.n + a.x[..., 1])

    def transition(self, s, a, e):
        return {"m": s.m - a.x.sum(-1) + 0.5, "n": 0.8 * (s.n + a.x[..., 1])}

    def initial(self, n, generator):
        return {"m": torch.full((n,), 1.0), "n": torch.linspace(0.1, 1.5, n)}


def best_rewards(n):
    """By enumeration of what is consumed and bought at first; the last period's purchase equates marginal rewards,
    1 / c^2 = .5 / (n + d)^2, unless that is negative."""

    def last(m, n):
        d = np.maximum((m + n) / (1 + np.sqrt(2)) - n, 0)
        return -1 / (m - d) - 0.5 / (n + d)

    c, d = np.meshgrid(np.linspace(0.005, 0.995, 199), np.linspace(0, 0.99, 199))
    c, d = c[c + d <= 1], d[c + d <= 1]
    return np.array([(-1 / c - 0.5 / (x + d) + 0.9 * last(1.5 - c - d, 0.8 * (x + d))).max() for x in n])


@pytest.mark.parametrize("method", [DDPG(**SMALL), Pathwise(**SMALL)], ids=["ddpg", "pathwise"])
def test_lives_are_lived_as_well_as_by_brute_force_where_nothing_is_bought(method):
    model = Purchases()
    answer = trained(method, model, steps=300).answer()
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    s = mdp.sample_initial(15, generator)
    policy, value = (function.on(mdp) for function in answer)
    (earned,), _, _ = discounted(mdp, policy, [mdp.reward], s, 2, generator)
    best = torch.from_numpy(best_rewards(s[:, 1].numpy()))
    assert (best - earned).mean() < 0.003 * best.abs().mean()
    assert (value(s) - best).mean().abs() < 0.02 * best.abs().mean()
