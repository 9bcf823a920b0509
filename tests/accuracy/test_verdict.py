"""Whether a solution can be trusted, and that what is rough never comes without a warning."""

import dataclasses
import warnings

import pytest
import torch

import econrl
from econrl import Action, Model, Normal, State
from econrl.accuracy.verdict import judge
from econrl.errors import NotAccurate
from econrl.models import BrockMirman, Investment, LifeCycle, LinearQuadratic
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP

EXACT = [BrockMirman(), Investment(theta=1.0, rho=0.0, productivity=1.01), LinearQuadratic(n=2, m=1)]
SPOILED = {
    "level": lambda a, s, x: (1 + x) * a,
    "slope": lambda a, s, x: a * (1 + 2 * x * torch.tanh(3 * s[..., :1])),
    "noise": lambda a, s, x: a * (1 + 2 * x * torch.sin(40 * s.sum(-1, keepdim=True))),
}


def verdict(model, spoil=lambda a, s: a, worth=lambda v: v):
    mdp = MDP(model)
    policy = lambda s: spoil(mdp.exact_policy(s), s)  # noqa: E731
    return judge(mdp, find_structure(mdp), policy, lambda s: worth(mdp.exact_value(s)))


@pytest.mark.parametrize("model", EXACT, ids=lambda model: type(model).__name__)
def test_exact_solutions_are_accurate(model):
    found = verdict(model)
    assert found.word == "accurate"
    assert found.policy_error < 1e-6


@pytest.mark.parametrize("model", EXACT, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("size", [0.015, 0.1])
def test_what_is_more_than_a_per_cent_off_is_never_accurate(model, how, size):
    assert verdict(model, lambda a, s: SPOILED[how](a, s, size)).word != "accurate"


def test_a_policy_that_is_a_tenth_off_is_not_to_be_used_and_why_is_said():
    found = verdict(EXACT[0], lambda a, s: 1.1 * a)
    assert found.word == "do not use"
    assert str(found).startswith("do not use: c is off by ")
    assert 0.03 < found.policy_error < 0.3


def test_a_wrong_value_of_a_right_policy_is_noticed():
    found = verdict(EXACT[0], worth=lambda v: 1.2 * v)
    assert found.word != "accurate"
    assert "the value is off" in found.why


def test_a_value_that_is_not_a_number_is_not_to_be_used():
    found = verdict(EXACT[0], worth=lambda v: torch.full_like(v, torch.nan))
    assert found.word == "do not use"
    assert "no finite" in found.why


def test_a_rough_solution_warns_in_python_in_its_text_and_in_its_folder(tmp_path):
    quick = econrl.DDPG(hidden=(4,), batch=16, environments=16)
    with pytest.warns(NotAccurate, match=r"BrockMirman by ddpg .*(rough|do not use): c is off by"):
        solution = econrl.solve(BrockMirman(), quick, steps=2, progress=False)
    assert solution.verdict.word in ("rough", "do not use")
    assert any("is off by" in said for said in solution.warnings)
    assert "warning: BrockMirman by ddpg" in str(solution)
    assert solution.verdict.word in repr(solution)
    again = econrl.load(solution.save(tmp_path / "rough"))
    assert again.verdict == solution.verdict
    assert again.warnings == solution.warnings


def test_an_accurate_solution_says_so_and_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotAccurate)
        solution = econrl.solve(LifeCycle(horizon=4, retirement=2), "egm", progress=False)
    assert solution.verdict.word == "accurate"
    assert solution.warnings == []
    assert str(solution) == repr(solution)


def test_a_solution_that_was_never_judged_is_judged_when_asked():
    solution = econrl.solve(LifeCycle(horizon=4, retirement=2), "egm", progress=False)
    info = {name: value for name, value in solution.info.items() if name != "verdict"}
    old = econrl.Solution(solution.model, solution._policy, solution._value, solution.training, info)
    assert old.verdict == solution.verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hoard(Model):
    """Wealth grows at five per cent; who spends nothing satisfies no condition but that of the bound."""

    beta: float = 0.99
    R: float = 1.05

    def states(self):
        return State("w", low=0.5, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.w)

    def shocks(self):
        return Normal("e", std=0.01)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"w": self.R * e.e.exp() * (s.w - a.c)}

    def exact_policy(self, s):
        return {"c": (1 - self.beta) * s.w}

    def exact_value(self, s):
        b = self.beta
        constant = ((1 - b) * torch.tensor(1 - b).log() + b * torch.tensor(self.R * b).log()) / (1 - b) ** 2
        return s.w.log() / (1 - b) + constant


def test_where_paths_leave_the_domain_that_is_said_and_a_hoarder_is_useless():
    assert verdict(Hoard()).word == "accurate"
    assert "leave the domain" in verdict(Hoard()).doubts[0]
    assert verdict(Hoard(), lambda a, s: 0.01 * a).word == "do not use"
