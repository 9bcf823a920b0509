"""The maximiser in shares, against closed forms with corners."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import Action, Budget, Model, State
from econrl.problem.mdp import MDP
from econrl.solvers.fitted.best_shares import Bounds, maximise


@dataclass(frozen=True, kw_only=True)
class Spending(Model):
    """A budget of three, and two bounded actions, of which the second may take what the first leaves."""

    beta: float = 0.9

    def states(self):
        return State("m", low=1.0, high=2.0)

    def actions(self):
        return (
            Budget("x", size=3, total=1.0),
            Action("a", low=0.0, high=1.0),
            Action("b", low=0.0, high=lambda s, a: 1 - a.a),
            Action("free"),
        )

    def reward(self, s, a):
        return -a.a

    def transition(self, s, a, e):
        return {"m": s.m}


def water_filling(weight, least):
    """The shares of 1 that maximise sum weight ln(y + least): weight / mu - least where that is positive."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        mu = np.sqrt(low * high)
        y = np.maximum(weight / mu - least, 0)
        low, high = (mu, high) if y.sum() > 1 else (low, mu)
    return y


@pytest.fixture(scope="module")
def bounds():
    return Bounds.of(MDP(Spending()))


def test_parts_of_a_budget_end_at_corners_exactly(bounds):
    """Four parts, that of the rest among them, many of them zero; from the middle and from corners."""
    rng = np.random.default_rng(0)
    weight, least = rng.uniform(0.1, 1, (300, 4)), rng.uniform(0.01, 1.5, (300, 4))
    right = np.array([water_filling(*row) for row in zip(weight, least, strict=True)])
    w, k = torch.tensor(weight), torch.tensor(least)

    def Q(s, y):
        parts = torch.cat([y[:, :3], 1 - y[:, :3].sum(dim=-1, keepdim=True)], dim=-1)
        return (s[:, :4] * (parts + s[:, 4:]).log()).sum(dim=-1) - (y[:, 3:] - 0.5).square().sum(dim=-1)

    s = torch.cat([w, k], dim=-1)
    for start in ([0.25, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]):
        first = torch.tensor([*start, 0.1, 0.1, 0.0], dtype=torch.float64).expand(300, -1)
        y, value = maximise(Q, bounds, s, first)
        parts = torch.cat([y[:, :3], 1 - y[:, :3].sum(dim=-1, keepdim=True)], dim=-1)
        np.testing.assert_allclose(parts, right, atol=1e-8)  # Newton's last step leaves the square of the one before
        assert (parts[:, :3][torch.tensor(right[:, :3] == 0)].abs() < 1e-10).all()
        assert torch.allclose(value, Q(s, y))


def test_bounded_shares_end_on_their_bounds(bounds):
    """a likes to be beyond one bound or the other; the last action has none; b's reward falls to minus infinity."""
    target = torch.linspace(-1, 2, 31, dtype=torch.float64).unsqueeze(-1)

    def Q(s, y):
        a = y[:, 3]
        return -(a - s[:, 0]).square() * (1 + a**2) + y[:, 4].log() - 2 * y[:, 4] - (y[:, 5] - 7).square()

    y, _ = maximise(Q, bounds, target, torch.full((31, 6), 0.2, dtype=torch.float64))
    below, above = target[:, 0] <= 0, target[:, 0] >= 1.5
    assert (y[below, 3] == 0).all()
    assert (y[above, 3] == 1).all()
    torch.testing.assert_close(y[:, 4], torch.full((31,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(y[:, 5], torch.full((31,), 7.0, dtype=torch.float64))


def test_a_bound_at_which_the_reward_is_infinite_is_not_reached(bounds):
    """ln y - 1000 y: from afar, Newton's step leads beyond zero."""

    def Q(s, y):
        return y[:, 3].log() - 1000 * y[:, 3] - (y[:, [0, 1, 2, 4, 5]] - 0.1).square().sum(dim=-1)

    y, _ = maximise(Q, bounds, torch.ones(4, 1, dtype=torch.float64), torch.full((4, 6), 0.2, dtype=torch.float64))
    torch.testing.assert_close(y[:, 3], torch.full((4,), 1e-3, dtype=torch.float64), rtol=1e-6, atol=0)
