"""check names what nothing reads: misspelt methods of Model, parameters that no function uses; and nothing else."""

from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Model, Normal, State
from econrl.checks import check
from econrl.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Saver(Model):
    """Saving for a few periods, with parameters that are read in every way."""

    horizon: int = 3
    beta: float = 0.95
    gamma: float = 2.0
    R: float = 1.03
    std: float = 0.1  # read by shocks
    floor: float = 0.0  # read by a bound
    tax: float = 0.0  # read in a branch that is not taken
    weight: float = 1.0  # read by a function of the module
    low: float = 0.5  # read by a property
    name_of_tax: str = "tax"  # read by its name
    first: float = 1.0  # read by initial
    scale: float = 1.0  # read by an outcome
    unit: float = 1.0  # read by the unit of welfare

    @property
    def lowest(self):
        return self.low

    def states(self):
        return State("m", low=self.lowest, high=4.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + self.floor)

    def shocks(self):
        return Normal("e", std=self.std)

    def reward(self, s, a):
        return weighted(self, a.c ** (1 - self.gamma) / (1 - self.gamma))

    def transition(self, s, a, e):
        if self.R > 2:
            return {"m": (1 - getattr(self, self.name_of_tax) - self.tax) * s.m}
        return {"m": self.R * (s.m - a.c) + 1 + 0.1 * e.e}

    def initial(self, n, generator):
        return {"m": torch.full((n,), self.first)}

    def outcomes(self, s, a):
        return {"saving": self.scale * (s.m - a.c)}

    def consumption_value(self, s, a):
        return self.unit * a.c ** (1 - self.gamma)

    def income(self, s):
        """Read by nobody but a notebook, like the next three."""
        return s.m

    def consumption(self, s, a):
        return a.c

    @property
    def patience(self):
        return self.beta * self.R

    def rewards(self, s, a):
        """Nearly `reward`, which the class defines."""
        return a.c


def weighted(model, x):
    return model.weight * x


def with_member(name, member):
    """A Saver with one more public member, without Saver's `initial` and `outcomes`."""
    members = {"initial": Model.initial, "outcomes": Model.outcomes, name: member}
    return dataclass(frozen=True, kw_only=True)(type("Misspelt", (Saver,), members))()


def test_parameters_are_read_in_many_ways_and_own_methods_are_the_authors_affair():
    assert check(Saver()) == []


STOPS = {
    "terminal_value": (lambda self, s: s.m, "terminal"),
    "teminal": (lambda self, s: s.m, "terminal"),
    "intial": (lambda self, n, generator: {"m": torch.ones(n)}, "initial"),
    "initial_states": (lambda self, n, generator: {"m": torch.ones(n)}, "initial"),
    "discounting": (lambda self, s, a, e: 0.9, "discount"),
    "discount_factor": (lambda self, s, a, e: 0.9, "discount"),
    "exact_polic": (lambda self, s: {"c": s.m}, "exact_policy"),
    "exactValue": (lambda self, s: s.m, "exact_value"),
    "outcome": (lambda self, s, a: {"saving": s.m - a.c}, "outcomes"),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_misspelt_method_with_the_arguments_of_the_real_one_stops(name):
    member, meant = STOPS[name]
    with pytest.raises(SpecError, match=rf"Misspelt\.{name}: nothing reads it; is `{meant}` meant\?"):
        check(with_member(name, member))


WARNS = {
    "steady_sate": (lambda self: {"m": 1.0, "c": 0.5}, "steady_state"),
    "intial": (lambda self, n: {"m": torch.ones(n)}, "initial"),
    "horizons": (7, "horizon"),
    "discount_rate": (property(lambda self: 0.05), "discount"),
}


@pytest.mark.parametrize("name", WARNS)
def test_a_name_near_a_real_one_with_other_arguments_is_a_warning(name):
    member, meant = WARNS[name]
    if name == "horizons":
        (warning,) = check(dataclass(frozen=True, kw_only=True)(type("Misspelt", (Endless,), {name: member}))())
    else:
        (warning,) = [w for w in check(with_member(name, member)) if name in w]
    assert f"Misspelt.{name}: nothing reads it; is `{meant}` meant?" in warning


@dataclass(frozen=True, kw_only=True)
class Endless(Model):
    """The smallest model, of a class without a horizon."""

    beta: float = 0.9

    def states(self):
        return State("x", low=-1.0, high=1.0)

    def actions(self):
        return Action("a")

    def reward(self, s, a):
        return -(s.x**2) - a.a**2

    def transition(self, s, a, e):
        return {"x": 0.5 * s.x + a.a}


def test_a_method_that_another_one_calls_is_read():
    @dataclass(frozen=True, kw_only=True)
    class Called(Saver):
        def terminal_value(self, s):
            return s.m

        def reward(self, s, a):
            return Saver.reward(self, s, a) + 0 * self.terminal_value(s)

    assert check(Called()) == []


def test_a_parameter_that_no_function_reads():
    @dataclass(frozen=True, kw_only=True)
    class Unread(Saver):
        phi: float = 1.0
        discounts: float = 0.9

    unused, misspelt = check(Unread())
    assert unused == "Unread: no function reads the parameter 'phi'; use it, or leave it out"
    assert misspelt == "Unread: no function reads the parameter 'discounts'; is `discount` meant?"


def test_a_required_method_under_another_name_is_pointed_at():
    @dataclass(frozen=True, kw_only=True)
    class Plural(Model):
        beta: float = 0.9
        states, actions, transition = Endless.states, Endless.actions, Endless.transition

        def rewards(self, s, a):
            return -(s.x**2)

    with pytest.raises(SpecError, match="does not define reward: add a method `reward`; is it `rewards`"):
        check(Plural())
