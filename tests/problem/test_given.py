"""What a simulation is given: the states that it begins from, and shocks that are known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import econrl
from econrl import Action, Discrete, EconrlError, MarkovChain, Model, Normal, State
from econrl.problem.mdp import MDP
from econrl.problem.simulate import paths

T, PATHS, PERIODS = 5, 3, 4


@dataclass(frozen=True, kw_only=True)
class Saver(Model):
    """m' = R (m - c) + y' + tip' + eps', with a chain y, a discrete tip, and a vector that moves x."""

    beta: float = 0.9
    horizon: int | None = None

    def states(self):
        chain = MarkovChain("y", values=[1.0, 2.0], P=[[0.8, 0.2], [0.5, 0.5]])
        return State("m", low=0.2, high=10.0), State("x", low=-1.0, high=1.0, size=2), chain

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        tip = Discrete("tip", values=[0.0, 0.5], probabilities=[0.9, 0.1])
        return Normal("eps", std=0.05), tip, Normal("x", std=0.1, size=2)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"m": 1.02 * (s.m - a.c) + e.y + e.tip + e.eps, "x": 0.5 * s.x + e.x}


@pytest.fixture(scope="module")
def solutions():
    """Policies that were hardly trained: what a path does is a matter of arithmetic."""
    quick = econrl.DDPG(hidden=(8,), batch=16, start_steps=1)
    return {h: econrl.solve(Saver(horizon=h), quick, steps=2, device="cpu", progress=False) for h in (None, T)}


@pytest.fixture(scope="module")
def endless(solutions):
    return solutions[None]


@pytest.fixture(scope="module")
def life(solutions):
    return solutions[T]


HOUSEHOLDS = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "m": [1.0, 2.0, 5.0],
        "x[0]": [0.0, 0.5, -0.5],
        "x[1]": [0.1, 0.2, 0.3],
        "y": [1.0, 2.0, 1.0],
    }
)
START = {"m": 1.5, "x": [0.1, 0.2], "y": 1.0}
rng = np.random.default_rng(0)
SHOCKS = {
    "eps": 0.05 * rng.normal(size=(PATHS, PERIODS)),
    "tip": rng.choice([0.0, 0.5], size=(PATHS, PERIODS)),
    "x": 0.1 * rng.normal(size=(PATHS, PERIODS, 2)),
    "y": rng.choice([1.0, 2.0], size=(PATHS, PERIODS)),
}


def wide(table, column):
    return table.pivot(index="path", columns="period", values=column).to_numpy()  # noqa: PD010


def test_paths_begin_at_the_households_that_are_given(endless):
    table = endless.simulate(6, initial=HOUSEHOLDS)
    first = table[table["period"] == 0].reset_index(drop=True)
    columns = ["m", "x[0]", "x[1]", "y"]
    pd.testing.assert_frame_equal(first[columns], HOUSEHOLDS[columns])
    assert len(table) == 18
    by_name = {"m": HOUSEHOLDS["m"], "x": HOUSEHOLDS[["x[0]", "x[1]"]], "y": HOUSEHOLDS["y"].to_numpy()}
    pd.testing.assert_frame_equal(table, endless.simulate(6, initial=by_name))
    pd.testing.assert_frame_equal(table, endless.simulate(6, initial=torch.tensor([
        [1.0, 0.0, 0.1, 0.0], [2.0, 0.5, 0.2, 1.0], [5.0, -0.5, 0.3, 0.0]])))  # fmt: skip


def test_one_state_is_that_of_all_paths(endless):
    table = endless.simulate(6, 7, initial=START)
    assert (table[table["period"] == 0]["m"] == 1.5).all()
    assert wide(table, "m")[:, 1].size == 7
    assert len(np.unique(wide(table, "m")[:, 1])) == 7
    assert endless.simulate(6, initial=START)["path"].tolist() == [0] * 6


def test_each_household_lives_from_its_age_to_the_end(life):
    table = life.simulate(initial=HOUSEHOLDS.assign(t=[0, 3, 4]))
    assert table["path"].tolist() == [0] * 5 + [1] * 2 + [2]
    assert table["t"].tolist() == [0, 1, 2, 3, 4, 3, 4, 4]
    assert table["period"].tolist() == [0, 1, 2, 3, 4, 0, 1, 0]
    assert table[table["period"] == 0]["m"].tolist() == [1.0, 2.0, 5.0]
    born = life.simulate(initial=HOUSEHOLDS)
    assert (born["t"] == born["period"]).all()
    assert len(born) == 3 * T
    assert len(life.simulate(2, initial=HOUSEHOLDS.assign(t=[0, 3, 4]))) == 2 + 2 + 1


def test_a_policy_is_not_asked_about_ages_after_the_last():
    model, asked = Saver(horizon=T), []
    mdp = MDP(model)

    def policy(s):
        asked.append(s[:, -1])
        return s[:, :1] / 2

    s = mdp.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, T - 1.0]])
    paths(mdp, policy, s, T, torch.Generator().manual_seed(0))
    assert torch.stack(asked).max() == T - 1


def test_known_shocks_make_the_very_path(endless):
    table = endless.simulate(initial=HOUSEHOLDS, shocks=SHOCKS)
    assert len(table) == PATHS * PERIODS
    m, c, y = (wide(table, name) for name in "mcy")
    expected = 1.02 * (m - c) + SHOCKS["y"] + SHOCKS["tip"] + SHOCKS["eps"]
    np.testing.assert_allclose(m[:, 1:], expected[:, :-1], rtol=1e-12)
    np.testing.assert_array_equal(y[:, 1:], SHOCKS["y"][:, :-1])
    for i in range(2):
        x = wide(table, f"x[{i}]")
        np.testing.assert_allclose(x[:, 1:], (0.5 * x + SHOCKS["x"][..., i])[:, :-1], rtol=1e-12)
    assert len(endless.simulate(2, initial=HOUSEHOLDS, shocks=SHOCKS)) == PATHS * 2


def test_a_table_of_shocks_is_the_same_in_any_order(endless):
    index = pd.MultiIndex.from_product([["a", "b", "c"], range(2001, 2001 + PERIODS)], names=["path", "period"])
    flat = {name: SHOCKS[name].reshape(PATHS * PERIODS) for name in ("eps", "tip", "y")}
    flat |= {f"x[{i}]": SHOCKS["x"][..., i].ravel() for i in range(2)}
    table = pd.DataFrame(flat, index=index).reset_index().sample(frac=1, random_state=1)
    expected = endless.simulate(initial=HOUSEHOLDS, shocks=SHOCKS)
    pd.testing.assert_frame_equal(endless.simulate(initial=HOUSEHOLDS, shocks=table), expected)


def test_shocks_that_are_not_known_are_drawn_as_they_would_be(endless):
    free = endless.simulate(PERIODS, PATHS, seed=3)
    fixed = endless.simulate(PERIODS, PATHS, seed=3, shocks={"y": np.full((PATHS, PERIODS), 2.0)})
    assert (wide(fixed, "y")[:, 1:] == 2).all()
    assert (wide(free, "y")[:, 1:] != 2).any()
    np.testing.assert_array_equal(wide(free, "x[0]"), wide(fixed, "x[0]"))
    moved = 1.02 * (wide(free, "m") - wide(free, "c")) + np.roll(wide(free, "y"), -1, axis=1)
    again = 1.02 * (wide(fixed, "m") - wide(fixed, "c")) + np.roll(wide(fixed, "y"), -1, axis=1)
    np.testing.assert_allclose((wide(free, "m")[:, 1] - moved[:, 0]), wide(fixed, "m")[:, 1] - again[:, 0], atol=1e-12)


def test_the_same_shocks_for_households_that_differ(life):
    once = {name: value[:1].repeat(PATHS, axis=0) for name, value in SHOCKS.items()}
    table = life.simulate(initial=HOUSEHOLDS.assign(t=[0, 3, 4]), shocks=once)
    assert table["path"].tolist() == [0] * PERIODS + [1] * 2 + [2]
    eps = [float(table.loc[table["path"] == p, "x[0]"].iloc[1] - 0.5 * HOUSEHOLDS["x[0]"][p]) for p in (0, 1)]
    assert eps == pytest.approx([once["x"][0, 0, 0]] * 2, rel=1e-12)


def frame(**columns):
    return pd.DataFrame({"path": [0, 0, 1, 1], "period": [0, 1, 0, 1], "eps": 0.0, **columns})


INITIAL = [
    (HOUSEHOLDS.drop(columns="y"), r"the points lack the state\(s\) y of Saver"),
    (HOUSEHOLDS.assign(y=[1.0, 1.5, 2.0]), r"the Markov chain 'y' takes the values \[1.0, 2.0\] only"),
    (HOUSEHOLDS.assign(m=[1.0, np.nan, 2.0]), "the initial state 'm' of path 1 is missing or infinite"),
    (HOUSEHOLDS.iloc[:0], "the initial states are empty"),
    ({**START, "age": 3}, "Saver has no state age"),
    ({**START, "m": "rich"}, "the state 'm' must be numbers"),
    ({**START, "m": [1.0, 2.0], "y": [1.0, 1.0, 1.0]}, "do not fit each other"),
    ([1.0, 2.0], "points must be a DataFrame, a dict or a tensor, got list"),
]


@pytest.mark.parametrize(("initial", "what"), INITIAL)
def test_initial_states_that_are_none(endless, initial, what):
    with pytest.raises(EconrlError, match=what):
        endless.simulate(3, initial=initial)


@pytest.mark.parametrize(("t", "what"), [(5, "path 1 is 5"), (-1, "path 1 is -1"), (1.5, "path 1 is 1.5")])
def test_ages_that_are_none(life, t, what):
    with pytest.raises(
        EconrlError, match=f"the initial t of {what}; the periods of Saver are the whole numbers from 0 to 4"
    ):
        life.simulate(initial=HOUSEHOLDS.assign(t=[0, t, 2]))


def test_states_outside_the_domain_are_told(endless):
    with pytest.warns(
        econrl.OutsideDomain, match="1 of 3 initial states lie outside the domain .*m up to 50, above 10"
    ):
        endless.simulate(1, initial=HOUSEHOLDS.assign(m=[1, 2, 50]))


KNOWN = [
    ({"epsilon": SHOCKS["eps"]}, "Saver has no shock epsilon; it has: eps, tip, x, y"),
    ({}, "Saver has no shock among those given"),
    ({"y": np.full((2, 3), 1.5)}, r"the Markov chain 'y' takes the values \[1.0, 2.0\] only"),
    ({"tip": np.full((2, 3), 0.1)}, r"the shock 'tip' takes the values \[0.0, 0.5\] only"),
    ({"eps": SHOCKS["eps"][0]}, r"the shock 'eps' has the shape \(4,\); it must be \(paths, periods\)"),
    ({"x": SHOCKS["eps"]}, r"the shock 'x' has the shape \(3, 4\); it must be \(paths, periods, 2\)"),
    ({"eps": np.full((2, 3), np.nan)}, "the shock 'eps' has missing or infinite values"),
    ({"eps": "large"}, r"the shock 'eps' (must be numbers, got str|has the shape)"),
    ({"eps": SHOCKS["eps"], "tip": SHOCKS["tip"][:2]}, r"paths and periods are \{'eps': \(3, 4\), 'tip': \(2, 4\)\}"),
    (3.0, "shocks must be a DataFrame or a dict of arrays, got float"),
    (frame().drop(columns="path"), "needs a column 'path'"),
    (frame().iloc[:3], "needs a row for each of its 2 paths in each of its 2 periods"),
    (frame(**{"x[0]": 0.0}), r"a table of shocks lacks x\[1\]"),
    (frame(k=0.0), "Saver has no shock k"),
]


@pytest.mark.parametrize(("shocks", "what"), KNOWN)
def test_shocks_that_are_none(endless, shocks, what):
    with pytest.raises(EconrlError, match=what) as caught:
        endless.simulate(shocks=shocks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"periods": 9, "shocks": SHOCKS}, "there are shocks for 4 periods, and periods=9 was asked for"),
        ({"paths": 2, "shocks": SHOCKS}, "different numbers of paths: 2 by paths, 3 by the shocks"),
        ({"paths": 2, "initial": HOUSEHOLDS}, "different numbers of paths: 2 by paths, 3 by the initial states"),
        ({"initial": HOUSEHOLDS.iloc[:2], "shocks": SHOCKS}, "3 by the shocks, 2 by the initial states"),
        ({"periods": 0}, "at least one period, got periods=0"),
        ({"paths": 0}, "at least one path, got paths=0"),
    ],
)
def test_numbers_that_do_not_fit(endless, arguments, what):
    with pytest.raises(EconrlError, match=what):
        endless.simulate(**arguments)
