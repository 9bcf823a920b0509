"""Den Haan and Marcet's test: closed forms are rejected at about its level, other policies more often."""

from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Model, Normal, State
from econrl.accuracy.certificates import rejected
from econrl.models import LinearQuadratic, Portfolio
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Twice(Model):
    """x' = rho x + w + e, w = u + v - 0.6, and reward -x^2 - 10 (u - 0.3)^2 - 10 (v - 0.3)^2: two controls that do the
    same, whose conditions share all of their noise. Half of w each: -x^2 - 5 w^2, w = -F x by the Riccati equation."""

    beta: float = 0.95
    rho: float = 0.9
    std: float = 0.1

    @property
    def F(self):
        p = 1.0
        for _ in range(1000):
            F = self.beta * p * self.rho / (5 + self.beta * p)
            p = 1 + 5 * F**2 + self.beta * p * (self.rho - F) ** 2
        return F

    def states(self):
        return State("x", low=-2.0, high=2.0)

    def actions(self):
        return Action("u"), Action("v")

    def shocks(self):
        return Normal("e", std=self.std)

    def reward(self, s, a):
        return -(s.x**2) - 10 * (a.u - 0.3) ** 2 - 10 * (a.v - 0.3) ** 2

    def transition(self, s, a, e):
        return {"x": self.rho * s.x + (a.u + a.v - 0.6) + e.e}

    def exact_policy(self, s):
        half = 0.3 - self.F / 2 * s.x
        return {"u": half, "v": half}


def share(model, policy=None):
    mdp = MDP(model)
    return rejected(mdp, find_structure(mdp), policy or mdp.exact_policy, 0)


def test_conditions_that_share_their_noise():
    mdp = MDP(Twice())
    assert share(Twice()) < 0.1
    apart = torch.tensor([1e-3, -1e-3], dtype=torch.float64)
    assert share(Twice(), lambda s: mdp.exact_policy(s) + apart) < 0.1  # an error without noise, and small beside it
    assert share(Twice(), lambda s: mdp.exact_policy(s) + 0.03) > 0.9


@pytest.mark.parametrize("model", [LinearQuadratic(n=2, m=2), Portfolio()], ids=["linear-quadratic", "portfolio"])
def test_closed_forms_whose_marginal_reward_passes_through_zero(model):
    assert share(model) < 0.1


def test_where_nothing_is_random_there_is_no_test():
    assert share(Twice(std=0.0)) is None
