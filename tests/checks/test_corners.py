"""check says where at a corner of the domain a value is infinite or NaN whatever is done, and what mends it."""

from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Budget, Choice, Discrete, Model, State
from econrl.checks import check
from econrl.utility import crra


@dataclass(frozen=True, kw_only=True)
class NoIncome(Model):
    """Saving where income may be zero: with nothing at hand there is nothing to eat."""

    beta: float = 0.9
    low: float = 0.0
    floor: float = 0.0  # what can be eaten in any case
    horizon: int | None = None

    def states(self):
        return State("m", low=self.low, high=10.0), State("z", low=-1.0, high=1.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + self.floor)

    def shocks(self):
        return Discrete("y", values=(0.0, 1.0), probabilities=(0.1, 0.9))

    def reward(self, s, a):
        return crra(a.c, 2.0)

    def transition(self, s, a, e):
        return {"m": s.m + self.floor - a.c + e.y, "z": 0.5 * s.z}


def like(base=NoIncome, **members):
    return dataclass(frozen=True, kw_only=True)(type("Broken", (base,), members))()


@pytest.mark.parametrize("horizon", [None, 3])
def test_a_state_in_which_nothing_can_be_eaten(horizon):
    (warning,) = check(NoIncome(horizon=horizon))
    for fragment in ("NoIncome.reward", "infinite or NaN", "state m = 0, z = -1", "raise `low` of 'm' a little"):
        assert fragment in warning
    assert "'z'" not in warning


def test_an_action_whose_bound_alone_is_worth_minus_infinity_is_usual():
    assert check(NoIncome(low=0.01)) == []
    assert check(NoIncome(floor=0.1)) == []


def test_something_to_eat_by_another_action_is_enough():
    def actions(self):
        return Choice("work", n=2), Action("c", low=0.0, high=lambda s, a: s.m + a.work)

    assert check(like(actions=actions)) == []


def test_the_upper_end_the_transition_and_the_terminal_value():
    upper = like(transition=lambda self, s, a, e: {"m": s.m - a.c + e.y, "z": s.z / 2 + 0 * (1 - s.z).log()}).replace(
        low=0.1
    )
    (warning,) = check(upper)
    for fragment in ("Broken.transition", "z = 1, a corner", "lower `high` of 'z' a little"):
        assert fragment in warning
    assert "'m'" not in warning
    last = like(terminal=lambda self, s: s.m.log()).replace(horizon=3, floor=0.1)
    (warning,) = check(last)
    assert "Broken.terminal" in warning
    assert "raise `low` of 'm'" in warning


def test_both_ends_at_once_and_many_states():
    """-infinity only where two states are at their ends: either is named. Of nine states, corners are drawn."""
    (warning,) = check(like(actions=lambda self: Action("c", low=0.0, high=lambda s: s.m + s.z + 1)))
    assert "raise `low` of 'm' or raise `low` of 'z' a little" in warning
    many = like(
        states=lambda self: State("x", low=0.0, high=1.0, size=9),
        actions=lambda self: Budget("c", size=9, total=lambda s: s.x[..., 8]),
        reward=lambda self, s, a: a.c.log().sum(-1),
        transition=lambda self, s, a, e: {"x": s.x / 2 + e.y.unsqueeze(-1) / 4 - a.c / 10 + torch.zeros_like(s.x)},
    )
    (warning,) = [w for w in check(many) if "corner" in w]
    assert "raise `low` of 'x[8]' a little" in warning
