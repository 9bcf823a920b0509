"""Profiles by age, and a life that ends with a survival probability of zero."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import econrl
from econrl import FVI, Action, Discrete, Model, Newton, SpecError, State
from econrl.command.cli import app
from econrl.problem.mdp import MDP

SURVIVAL = (0.99, 0.98, 0.95, 0.9, 0.6, 0.0)
INCOME = (0.8, 1.0, 1.3, 1.2, 0.5, 0.5)
T = len(SURVIVAL)


@dataclass(frozen=True, kw_only=True)
class Life(Model):
    """m' = R (m - c) + income(t + 1) y', and who is alive at t is so at t + 1 with the probability survival(t)."""

    horizon: int = T
    beta: float = 0.95
    R: float = 1.03
    survival: Any = SURVIVAL
    income: Any = INCOME

    def states(self):
        return State("m", low=0.2, high=8.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return Discrete("y", values=[0.6, 1.4], probabilities=[0.5, 0.5])

    def discount(self, s, a, e):
        return self.beta * self.by_age(self.survival, s.t)

    def reward(self, s, a):
        return -1 / a.c

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + self.by_age(self.income, s.t + 1) * e.y}


PROFILES = {
    "tuple": lambda x: x,
    "list": list,
    "float32": lambda x: np.array(x, dtype=np.float32),
    "numpy": np.array,
    "integers": lambda x: np.array([10, 20, 30, 40, 50, 60]),
    "tensor": lambda x: torch.tensor(x, dtype=torch.float32),
    "series": lambda x: pd.Series(x, index=range(25, 25 + T)),
    "tensors": lambda x: [torch.tensor(v) for v in x],
}


@pytest.mark.parametrize("kind", PROFILES)
def test_any_sequence_of_numbers_is_a_profile(kind):
    profile = PROFILES[kind](SURVIVAL)
    expected = [float(x) for x in profile]
    t = torch.arange(T, dtype=torch.float64).reshape(2, 3)
    found = Life().by_age(profile, t)
    assert found.dtype == t.dtype
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    mapped = torch.func.vmap(lambda t: Life().by_age(profile, t))(t.flatten())
    assert torch.equal(mapped, found.flatten())
    assert Life().by_age(profile, t.float()).dtype == torch.float32


def test_after_life_a_profile_is_what_it_was_last_and_elsewhere_nothing():
    t = torch.tensor([-1.0, T - 1, T, T + 1])
    assert Life().by_age(INCOME, t).nan_to_num(nan=9.0).tolist() == pytest.approx([9.0, 0.5, 0.5, 9.0])
    rows = Life().by_age(np.arange(2 * T).reshape(T, 2), torch.tensor([[0.0], [3.0]]))
    assert rows.tolist() == [[[0, 1]], [[6, 7]]]


def test_a_profile_may_be_differentiated():
    profile = torch.tensor(INCOME, dtype=torch.float64, requires_grad=True)
    Life().by_age([2 * x for x in profile], torch.tensor([1.0, 4.0, 4.0])).sum().backward()
    assert profile.grad.tolist() == [0, 2, 0, 0, 4, 0]


@pytest.mark.parametrize(
    ("profile", "what"),
    [
        (SURVIVAL[1:], r"Life.by_age: the profile has 5 entries, and the model 6 periods \(`horizon`\)"),
        (0.9, "the profile has one number, and the model 6 periods"),
        (["old", "young"], "a profile by age must be a sequence of numbers"),
    ],
)
def test_a_profile_that_is_none_is_refused(profile, what):
    with pytest.raises(SpecError, match=what) as caught:
        econrl.check(Life(survival=profile))
    assert "discount" in str(caught.value)
    assert "test_ages.py, line" in str(caught.value)


def test_a_model_without_a_horizon_has_no_ages():
    with pytest.raises(SpecError, match="Life has no ages to read a profile by: give it a `horizon`"):
        Life(horizon=None).by_age(SURVIVAL, torch.zeros(2))


def test_an_age_too_far_is_named_by_check():
    @dataclass(frozen=True, kw_only=True)
    class Ahead(Life):
        def transition(self, s, a, e):
            return {"m": self.R * (s.m - a.c) + self.by_age(self.income, s.t + 2) * e.y}

    with pytest.raises(SpecError, match=r"Ahead.transition: m is nan at the state .*t = 5"):
        econrl.check(Ahead())


def backwards(model: Life) -> Any:
    """c(m, t), by the Euler equation at each of many amounts kept, backwards from the last age: numpy alone."""
    kept = np.concatenate([[0.0], np.geomspace(1e-6, 20, 3000)])
    tables = [(np.array([0.0, 100.0]), np.array([0.0, 100.0]))]
    for t in reversed(range(T - 1)):
        m, c = tables[0]
        marginal = sum(0.5 * np.interp(model.R * kept + INCOME[t + 1] * y, m, c) ** -2 for y in (0.6, 1.4))
        spent = (model.beta * SURVIVAL[t] * model.R * marginal) ** -0.5
        tables.insert(0, (np.append(0.0, kept + spent), np.append(0.0, spent)))
    return lambda m, t: np.interp(m, *tables[t])


QUICK = {
    "fvi": FVI(states=300),
    "newton": Newton(hidden=(16, 16)),
    "ddpg": econrl.DDPG(hidden=(32, 32), batch=128),
}
STEPS = {"ddpg": 1500, "newton": 40}
CLOSE = {"egm": 1e-4, "vi": 5e-3, "time_iteration": 5e-3, "newton": 2e-2, "fvi": 1e-2, "ddpg": 5e-2, "auto": 1e-3}


@pytest.mark.parametrize("method", CLOSE)
def test_a_survival_table_that_ends_with_zero(method):
    model, exact = Life(), backwards(Life())
    solution = econrl.solve(model, QUICK.get(method, method), steps=STEPS.get(method), device="cpu", progress=False)
    m = np.linspace(0.5, 5, 50)
    for t in range(T):
        c = solution.policy({"m": m, "t": float(t)})["c"].numpy()
        assert np.abs(c / exact(m, t) - 1).mean() < CLOSE[method], f"at age {t}"
    assert solution.verdict.word == "accurate" or method in ("ddpg", "newton")
    assert np.isfinite(solution.accuracy(300)["mean"]).all()


def test_check_has_nothing_against_it():
    assert econrl.check(Life()) == []
    assert econrl.check(Life(survival=np.array(SURVIVAL), income=torch.tensor(INCOME))) == []


# Where fields go


@dataclass(frozen=True, kw_only=True)
class Arrays(Life):
    survival: tuple[float, ...] = SURVIVAL
    income: np.ndarray = field(default_factory=lambda: np.array([1, 1, 1, 1, 0, 0]))


@pytest.mark.parametrize("income", [[1, 2, 3, 3, 2, 1], np.array([1, 2, 3, 3, 2, 1]), torch.tensor(INCOME)])
def test_profiles_are_saved_and_loaded(income, tmp_path):
    model = Arrays(income=income, survival=list(SURVIVAL))
    solution = econrl.solve(model, "egm", device="cpu", progress=False)
    solution.save(tmp_path / "s")
    for known in (Arrays, model):
        loaded = econrl.load(tmp_path / "s", known)
        points = {"m": [0.7, 2.0], "t": 1.0}
        assert torch.equal(loaded.policy(points)["c"], solution.policy(points)["c"])
    with pytest.raises(econrl.SaveError, match="other parameters"):
        econrl.load(tmp_path / "s", Arrays(income=torch.tensor([1.0, 2, 3, 3, 2, 2]), survival=list(SURVIVAL)))


def test_a_device_and_a_type_do_not_matter():
    for income in (list(INCOME), np.array(INCOME), np.array([1, 1, 1, 1, 0, 0]), torch.tensor(INCOME)):
        mdp = MDP(Arrays(income=income), dtype=torch.float32)
        s = mdp.sample_box(5, torch.Generator().manual_seed(0))
        assert mdp.transition(s, s[:, :1] / 2, mdp.nodes[:1]).dtype == torch.float32


def test_a_family_has_profiles():
    family = econrl.solve(Life(), "time_iteration", over={"beta": (0.9, 0.96)}, device="cpu", progress=False, steps=40)
    m, exact = np.linspace(0.5, 5, 20), backwards(Life(beta=0.93))
    for t in (0, 3, T - 1):
        c = family.at(beta=0.93).policy({"m": m, "t": float(t)})["c"].numpy()
        np.testing.assert_allclose(c, exact(m, t), rtol=0.02)


def test_the_command_line_sets_a_profile(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys; sys.path.insert(0, 'tests/spec')\n"
        "from dataclasses import dataclass\nfrom typing import Any\nimport test_ages\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(test_ages.Life):\n"
        "    survival: tuple[float, ...] = test_ages.SURVIVAL\n    income: Any = test_ages.INCOME\n"
    )
    run = CliRunner().invoke(
        app, ["check", str(file), "--set", "survival=0.9,0.8,0.7,0.6,0.5,0", "--set", "income=1,1,1,1,0.5,0"]
    )
    assert run.exit_code == 0, run.output
    assert "survival=(0.9, 0.8, 0.7, 0.6, 0.5, 0.0)" in run.output
    assert "income=(1, 1, 1, 1, 0.5, 0)" in run.output
