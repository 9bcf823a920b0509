"""What a solver returns: tables in and out, simulations, accuracy, comparison, and the way to disk and back."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import econrl
from econrl import DDPG, VI, Action, MarkovChain, MethodError, Model, Normal, SaveError, SolveError, SpecError, State
from econrl.accuracy.error_table import accuracy_table, samples
from econrl.models import BrockMirman, LifeCycle, LinearQuadratic, Retirement, StochasticGrowth
from econrl.solvers.common.method import Method

QUICK = DDPG(hidden=(8, 8), batch=32, environments=16)
VI_SMALL = VI(points=12, nodes=3)


@dataclass(frozen=True, kw_only=True)
class Everything(Model):
    """A scalar, a vector and a chain among the states, a vector action, a tuple as a parameter."""

    beta: float = 0.9
    weights: tuple = (0.5, 0.5)

    def states(self):
        return (
            State("k", low=0.5, high=2.0),
            MarkovChain("y", values=((0.9, 1.0), (1.1, 2.0)), P=((0.8, 0.2), (0.3, 0.7))),
            State("x", low=-1.0, high=1.0, size=2),
        )

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.k), Action("v", low=-1.0, high=1.0, size=2)

    def shocks(self):
        return Normal("eps", std=0.1)

    def reward(self, s, a):
        return (a.c + 0.1).log() - (a.v**2).sum(-1) - (torch.as_tensor(self.weights).to(s.x) * s.x**2).sum(-1)

    def transition(self, s, a, e):
        return {"k": 1 + 0.4 * (s.k - a.c) * s.y[..., 0], "x": 0.5 * s.x + a.v + e.eps.unsqueeze(-1)}

    def outcomes(self, s, a):
        return {"saving": s.k - a.c, "reach": (s.x + a.v).sum(-1), "double": 2 * s.k}


def solved(model, method=QUICK, steps=3, **settings):
    return econrl.solve(model, method, steps=steps, progress=False, **settings)


@pytest.fixture(scope="module")
def growth():
    return solved(BrockMirman())


@pytest.fixture(scope="module")
def everything():
    return solved(Everything())


# Policy and value: the same kind comes back


def test_policy_takes_a_frame_a_dict_or_a_tensor_and_returns_the_same_kind(growth):
    frame = pd.DataFrame({"z": [0.0, 0.1, -0.1], "extra": 0, "k": [0.1, 0.2, 0.3]}, index=[7, 3, 5])
    tensor = torch.tensor([[0.1, 0.0], [0.2, 0.1], [0.3, -0.1]], dtype=torch.float64)
    a = growth.policy(tensor)
    assert a.shape == (3, 1)
    from_frame = growth.policy(frame)
    assert from_frame.columns.tolist() == ["c"]
    assert from_frame.index.tolist() == [7, 3, 5]
    assert from_frame["c"].tolist() == a[:, 0].tolist()
    from_dict = growth.policy({"k": np.array([0.1, 0.2, 0.3]), "z": [0.0, 0.1, -0.1]})
    assert torch.equal(from_dict["c"], a[:, 0])
    assert not a.requires_grad
    v = growth.value(tensor)
    assert v.shape == (3,)
    series = growth.value(frame)
    assert series.name == "value"
    assert series.index.tolist() == [7, 3, 5]
    assert series.tolist() == v.tolist()
    assert torch.equal(growth.value({"k": [0.1, 0.2, 0.3], "z": [0.0, 0.1, -0.1]}), v)


def test_policy_takes_a_single_point_any_batch_shape_and_broadcasts_a_dict(growth):
    assert growth.policy(torch.tensor([0.2, 0.0])).shape == (1,)
    assert growth.policy(torch.rand(4, 5, 2)).shape == (4, 5, 1)
    along = growth.policy({"k": np.linspace(0.1, 0.3, 6), "z": 0.0})
    assert along["c"].shape == (6,)
    assert growth.policy({"k": 0.2, "z": 0.0})["c"].shape == ()


def test_policy_of_vectors_and_chains_by_their_values(everything):
    frame = pd.DataFrame({"k": 1.0, "y[0]": [0.9, 1.1], "y[1]": [1.0, 2.0], "x[0]": 0.1, "x[1]": [0.2, 0.3]})
    a = everything.policy(frame)
    assert a.columns.tolist() == ["c", "v[0]", "v[1]"]
    flat = torch.tensor([[1.0, 0.0, 0.1, 0.2], [1.0, 1.0, 0.1, 0.3]], dtype=torch.float64)  # a chain as its index
    np.testing.assert_array_equal(a.to_numpy(), everything.policy(flat).numpy())
    named = everything.policy({"k": 1.0, "y": [[0.9, 1.0], [1.1, 2.0]], "x": [[0.1, 0.2], [0.1, 0.3]]})
    assert named["v"].shape == (2, 2)
    assert torch.equal(named["v"], everything.policy(flat)[:, 1:])


def test_wrong_points_are_refused_with_a_reason(growth, everything):
    with pytest.raises(SpecError, match=r"lack the state\(s\) z of BrockMirman"):
        growth.policy(pd.DataFrame({"k": [0.1]}))
    with pytest.raises(SpecError, match=r"lack the state\(s\) k of BrockMirman"):
        growth.value({"z": [0.1]})
    with pytest.raises(SpecError, match=r"2 columns \(k, z\)"):
        growth.policy(torch.rand(4, 3))
    with pytest.raises(SpecError, match="no state q; it has k, z"):
        growth.policy({"k": 0.1, "z": 0.0, "q": 1.0})
    with pytest.raises(SpecError, match=r"do not fit each other.*'k': \(2,\)"):
        growth.policy({"k": [0.1, 0.2], "z": [0.0, 0.1, 0.2]})
    with pytest.raises(SpecError, match="'k' must be numbers"):
        growth.policy({"k": "low", "z": 0.0})
    with pytest.raises(SpecError, match="DataFrame, a dict or a tensor, got list"):
        growth.policy([[0.1, 0.2]])
    with pytest.raises(SpecError, match=r"lack the state\(s\) y\[1\], x\[0\], x\[1\]"):
        everything.policy(pd.DataFrame({"k": [1.0], "y[0]": [0.9]}))
    with pytest.raises(SpecError, match="Markov chain 'y' takes the values"):
        everything.policy({"k": 1.0, "y": [[0.9, 2.0]], "x": [[0.1, 0.2]]})


# Tables


def test_policy_table_has_states_actions_outcomes_reward_and_value(growth, everything):
    table = growth.policy_table()
    assert table.columns.tolist() == ["k", "z", "c", "output", "investment", "reward", "value"]
    assert len(table) == 21 * 21
    assert 0.0 in table["z"].round(12).tolist()  # the middle of the domain is in it
    np.testing.assert_allclose(table["output"], table["c"] + table["investment"], rtol=1e-12)
    np.testing.assert_allclose(table["reward"], np.log(table["c"]), rtol=1e-12)
    k_ss = BrockMirman().k_ss
    assert table["k"].min() == pytest.approx(0.5 * k_ss)
    assert table["k"].max() == pytest.approx(1.5 * k_ss)
    again = growth.policy_table(table[["k", "z"]])
    pd.testing.assert_frame_equal(table, again)
    np.testing.assert_array_equal(growth.value(table).to_numpy(), table["value"])

    table = everything.policy_table()
    assert table.columns.tolist() == [
        "k", "y[0]", "y[1]", "x[0]", "x[1]", "c", "v[0]", "v[1]", "saving", "reach", "double", "reward", "value",
    ]  # fmt: skip
    assert len(table) == 21 + 2 + 21 + 21  # four states: slices through the middle of the domain
    assert set(zip(table["y[0]"], table["y[1]"], strict=True)) == {(0.9, 1.0), (1.1, 2.0)}
    assert table.notna().all().all()


def test_policy_table_of_a_life_cycle_has_whole_ages():
    table = solved(LifeCycle(horizon=4, retirement=2)).policy_table()
    assert table.columns.tolist() == ["m", "t", "c", "saving", "reward", "value"]
    assert sorted(table["t"].unique()) == [0, 1, 2, 3]


def test_simulate_is_tidy_and_reproducible(growth):
    table = growth.simulate(periods=6, paths=4, seed=5)
    assert table.columns.tolist() == [
        "path", "period", "k", "z", "c", "output", "investment", "reward", "outside"
    ]  # fmt: skip
    assert table["path"].tolist() == [p for p in range(4) for _ in range(6)]
    assert table["period"].tolist() == 4 * list(range(6))
    assert table["outside"].dtype == bool
    one = table[table["path"] == 2]
    np.testing.assert_allclose(one["k"].to_numpy()[1:], one["investment"].to_numpy()[:-1], rtol=1e-12)  # its own path
    np.testing.assert_array_equal(growth.policy(table)["c"], table["c"])
    pd.testing.assert_frame_equal(table, growth.simulate(periods=6, paths=4, seed=5))
    assert (table["z"] != growth.simulate(periods=6, paths=4, seed=6)["z"]).mean() > 0.5
    torch.manual_seed(99)  # the user's global generator has no part in it
    pd.testing.assert_frame_equal(table, growth.simulate(periods=6, paths=4, seed=5))


def test_simulate_says_which_states_lie_outside(growth):
    table = growth.simulate(periods=50, paths=50)
    k_ss, sigma = BrockMirman().k_ss, 0.1
    outside = (table["k"] < 0.5 * k_ss) | (table["k"] > 1.5 * k_ss) | (table["z"].abs() > 3 * sigma)
    assert outside.any()  # three standard deviations are left now and then
    assert (table["outside"] == outside).all()


def test_a_simulated_life_ends_at_its_horizon():
    table = solved(LifeCycle(horizon=4, retirement=2)).simulate(periods=200, paths=3)
    assert table["period"].max() == 3
    assert (table["t"] == table["period"]).all()
    assert (table.groupby("path")["m"].first() == 1).all()


@pytest.fixture(scope="module")
def life():
    return solved(LifeCycle(horizon=4, retirement=2))


def test_profiles_are_means_and_quantiles_over_lives_by_period(life):
    table = life.profiles(paths=30, seed=4, quantiles=(0.25, 0.5, 0.99))
    assert table.columns.tolist() == ["variable", "period", "mean", "std", "q25", "q50", "q99"]
    assert table["variable"].unique().tolist() == ["m", "c", "saving", "reward"]
    simulation = life.simulate(paths=30, seed=4)
    for variable, period in (("m", 0), ("c", 2), ("reward", 3)):
        (row,) = table[(table["variable"] == variable) & (table["period"] == period)].to_dict("records")
        x = simulation.loc[simulation["period"] == period, variable].to_numpy()
        expected = [x.mean(), x.std(), *np.quantile(x, [0.25, 0.5, 0.99])]
        assert [row[c] for c in table.columns[2:]] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_profiles_are_refused_where_there_is_no_life_and_for_wrong_quantiles(growth, life):
    with pytest.raises(MethodError, match=r"BrockMirman has no horizon.*simulate\(\)"):
        growth.profiles()
    with pytest.raises(MethodError, match="between 0 and 1"):
        life.profiles(quantiles=(10, 90))


def test_the_picture_of_profiles_has_a_panel_for_each_variable(life):
    figure = life.plot_profiles(paths=30, seed=4)
    titles = [panel.get_title() for panel in figure.axes if panel.axison]
    assert titles == ["m", "c", "saving", "reward"]
    table = life.profiles(paths=30, seed=4)
    median, mean = figure.axes[1].lines
    np.testing.assert_array_equal(mean.get_ydata(), table.loc[table["variable"] == "c", "mean"])
    np.testing.assert_array_equal(median.get_ydata(), table.loc[table["variable"] == "c", "q50"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["10 to 90 per cent", "median", "mean"]


def test_of_choices_profiles_show_shares_alone():
    figure = solved(Retirement(horizon=2), VI(points=6, nodes=2)).plot_profiles(paths=20)
    lines = {panel.get_title(): len(panel.lines) for panel in figure.axes if panel.axison}
    assert (lines["work"], lines["career"], lines["c"]) == (1, 1, 2)


def test_policy_and_value_are_functions_of_flat_states_with_public_names(growth):
    s = growth.mdp.sample_box(5, torch.Generator().manual_seed(0))
    assert torch.equal(growth.policy_function(s), growth.policy(s))
    assert torch.equal(growth.value_function(s), growth.value(s))
    with pytest.raises(AttributeError):
        growth.policy_function = growth.value_function


def test_accuracy_has_a_row_for_each_sample_and_measure(growth):
    table = growth.accuracy(points=400)
    assert table.columns.tolist() == ["sample", "measure", "unit", "mean", "p99", "max"]
    errors = ["euler", "distance", "loss", "bellman", "policy", "value"]
    shares = ["kinks", "infeasible", "outside"]
    rows = [("ergodic", m) for m in [*errors, *shares, "restarted", "rejected", "welfare"]]
    rows += [("box", m) for m in [*errors, *shares]]
    assert list(zip(table["sample"], table["measure"], strict=True)) == rows
    assert set(table["unit"]) == {"log10", "share"}
    indexed = table.set_index(["sample", "measure"])
    assert indexed.loc[("box", "outside"), "mean"] == 0
    assert indexed.loc[("box", "infeasible"), "mean"] == 0
    log = table[table["unit"] == "log10"].dropna()  # the welfare loss is one number
    assert (log["mean"] <= log["max"]).all()
    assert (log["p99"] <= log["max"]).all()
    pd.testing.assert_frame_equal(table, growth.accuracy(points=400))
    # The policy error in the table is the distance to the closed form.
    box = pd.DataFrame(samples(growth.mdp, growth._policy, 400)["box"][0].numpy(), columns=["k", "z"])
    exact = (1 - 0.36 * 0.96) * np.exp(box["z"]) * box["k"] ** 0.36
    gap = (growth.policy(box)["c"] - exact).abs() / exact.mean()
    assert indexed.loc[("box", "policy"), "mean"] == pytest.approx(np.log10(gap.mean()), abs=1e-9)
    assert indexed.loc[("box", "policy"), "max"] == pytest.approx(np.log10(gap.max()), abs=1e-9)


def test_accuracy_of_several_actions_and_without_an_euler_equation():
    table = solved(LinearQuadratic(n=3, m=2)).accuracy(points=200)
    measures = set(table["measure"])
    assert {"greedy", "greedy u[0]", "greedy u[1]", "policy u[0]", "bellman", "value"} <= measures
    assert "euler" not in measures
    rows = table[table["sample"] == "box"].set_index("measure")["max"]
    assert rows["greedy"] == pytest.approx(max(rows["greedy u[0]"], rows["greedy u[1]"]))


def test_a_broken_policy_is_counted_as_infeasible(growth):
    class Greedy(torch.nn.Module):
        def forward(self, s):
            return torch.where(s[..., :1] > BrockMirman().k_ss, 2.0, 0.5) * growth.mdp.exact_policy(s)

    share = {"box": samples(growth.mdp, growth._policy, 2000)["box"]}
    broken = accuracy_table(growth.mdp, growth.structure, Greedy(), growth._value, share)
    infeasible = broken.set_index("measure").loc["infeasible", "mean"]
    assert infeasible == pytest.approx(0.5, abs=0.05)  # above the middle of the domain; 2000 points, 1% standard error


def test_training_and_info_say_how_it_went(growth):
    assert growth.training.columns.tolist()[:3] == ["step", "seconds", "error"]
    assert growth.training["step"].tolist() == [3]
    assert growth.info["method"] == "ddpg"
    assert growth.info["settings"]["hidden"] == (8, 8)
    assert growth.info["steps"] == 3
    assert growth.info["seed"] == 0
    assert growth.info["converged"] is False
    assert growth.info["device"] in ("cpu", "cuda")
    assert "BrockMirman by ddpg, 3 steps" in repr(growth)
    assert "all planned steps made" in repr(growth)
    missed = econrl.Solution(growth.model, growth._policy, growth._value, growth.training, {**growth.info, "tol": 1e-9})
    assert "not converged" in repr(missed)


def test_plot_draws_every_action_against_every_state(everything):
    figure = everything.plot()
    assert len(figure.axes) == 3 * 4 + 1


# Comparison


@dataclass(frozen=True)
class Failing(Method):
    """A method that always fails."""

    name = "failing"
    nodes: int | None = 3

    def run(self, mdp, task):
        raise SolveError("no luck today")


def test_compare_measures_all_methods_at_the_same_states(monkeypatch):
    seen = []
    accuracy_at = econrl.Solution.accuracy_at

    def watched(self, states):
        seen.append(states)
        return accuracy_at(self, states)

    monkeypatch.setattr(econrl.Solution, "accuracy_at", watched)
    other = DDPG(hidden=(4,), batch=32, environments=16)
    table = econrl.compare(BrockMirman(), [QUICK, other, Failing()], steps=2, progress=False, points=200)
    assert len(seen) == 2
    for sample in ("ergodic", "box"):
        assert torch.equal(seen[0][sample][0], seen[1][sample][0])
        assert len(seen[0][sample][0]) == 200
    assert table["method"].unique().tolist() == ["ddpg", "ddpg#2", "failing"]
    assert table.columns.tolist() == [
        "method", "seconds", "steps", "sample", "measure", "unit", "mean", "p99", "max", "message"
    ]  # fmt: skip
    per_method = table.groupby("method").size()
    assert per_method["ddpg"] == per_method["ddpg#2"] == 21
    failed = table[table["method"] == "failing"]
    assert len(failed) == 1
    assert failed["message"].item() == "no luck today"
    assert failed[["sample", "mean", "seconds"]].isna().all().all()
    means = table[(table["measure"] == "policy") & (table["sample"] == "box")]["mean"].dropna()
    assert means.nunique() == 2  # the same states, and other policies


def test_compare_survives_the_failure_of_all():
    table = econrl.compare(BrockMirman(), [Failing(), Failing()], steps=2, progress=False)
    assert table["method"].tolist() == ["failing", "failing#2"]


def test_compare_takes_one_method_and_refuses_none_or_an_unknown_one_before_it_begins():
    assert set(econrl.compare(BrockMirman(), DDPG(hidden=(8,)), steps=1, progress=False)["method"]) == {"ddpg"}
    with pytest.raises(MethodError, match="unknown method 'no such method'"):
        econrl.compare(BrockMirman(), ["vi", "no such method"], progress=False)
    with pytest.raises(MethodError, match="at least one method"):
        econrl.compare(BrockMirman(), [])


def test_the_front_door_refuses_wrong_arguments():
    for wrong, message in (
        ({"method": "ddqg"}, "unknown method 'ddqg'; there are: auto"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"time_limit": 0}, "time_limit must be positive"),
        ({"tol": -1.0}, "tol must be positive"),
        ({"device": "quantum"}, "unknown device 'quantum'"),
    ):
        with pytest.raises(MethodError, match=message):
            econrl.solve(BrockMirman(), **{"progress": False, "steps": 1, **wrong})


# Saving and loading


def state(solution):
    return {**solution._policy.state_dict(), **{f"v.{k}": t for k, t in solution._value.state_dict().items()}}


@pytest.mark.parametrize(
    "method",
    [QUICK, DDPG(rung=0, hidden=(8,), batch=32), VI_SMALL],
    ids=lambda m: f"{m.name}{getattr(m, 'rung', '')}",
)
def test_a_solution_comes_back_bit_for_bit(method, tmp_path):
    solution = solved(BrockMirman(sigma=0.05), method)
    assert solution.save(tmp_path / "deep" / "growth") == tmp_path / "deep" / "growth"
    loaded = econrl.load(tmp_path / "deep" / "growth", BrockMirman)
    assert loaded.model == solution.model
    one, other = state(solution), state(loaded)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one)
    points = torch.tensor([[0.15, 0.01], [0.2, -0.2]], dtype=torch.float64)
    assert torch.equal(solution.policy(points), loaded.policy(points))
    assert torch.equal(solution.value(points), loaded.value(points))
    pd.testing.assert_frame_equal(solution.accuracy(100), loaded.accuracy(100))
    pd.testing.assert_frame_equal(solution.simulate(5, 3), loaded.simulate(5, 3))
    # Text keeps seventeen digits of a double, which the default reader of pandas rounds in the last place.
    pd.testing.assert_frame_equal(solution.training, loaded.training, rtol=1e-14)
    assert loaded.info["settings"] == json.loads(json.dumps(solution.info["settings"]))
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["growth"]  # no temporary folder is left


def test_a_model_of_ones_own_and_its_array_parameters_come_back(tmp_path):
    solution = solved(Everything(weights=(0.3, 0.7)))
    solution.save(tmp_path / "s")
    loaded = econrl.load(tmp_path / "s", Everything)
    assert loaded.model == solution.model
    assert econrl.load(tmp_path / "s", Everything(weights=(0.3, 0.7))).model == solution.model
    assert econrl.load(tmp_path / "s").model == solution.model  # the class is known by now

    @dataclass(frozen=True, kw_only=True, eq=False)
    class WithArray(BrockMirman):
        beta: torch.Tensor
        slopes: np.ndarray

        def outcomes(self, s, a):
            return {"x": torch.as_tensor(self.slopes).to(s.k)[0] * s.k}

        exact_value = Model.exact_value
        exact_policy = Model.exact_policy

    solution = solved(WithArray(beta=torch.tensor(0.9, dtype=torch.float64), slopes=np.array([3.0, 4.0])))
    solution.save(tmp_path / "t")
    loaded = econrl.load(tmp_path / "t", WithArray)
    assert torch.as_tensor(loaded.model.slopes).tolist() == [3.0, 4.0]
    np.testing.assert_allclose(loaded.policy_table()["x"], 3 * loaded.policy_table()["k"], rtol=1e-14)


@pytest.fixture
def folder(growth, tmp_path):
    growth.save(tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder, **changes):
    """Change entries of the saved description."""
    path = next(folder.glob("*.json"))
    description = json.loads(path.read_text())
    assert changes.keys() <= description.keys()
    path.write_text(json.dumps({**description, **changes}))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(folder, match, *arguments):
    before = contents(folder) if folder.is_dir() else None
    with pytest.raises(SaveError, match=match) as caught:
        econrl.load(folder, *arguments)
    assert before is None or contents(folder) == before
    return caught


def test_a_folder_that_holds_no_solution_is_refused(tmp_path):
    refused(tmp_path / "nothing", "holds no solution")
    refused(tmp_path, "holds no solution")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1}', b"[]", b"\xff\xfe\x00", b"null"])
def test_damaged_json_is_refused(folder, damage):
    next(folder.glob("*.json")).write_bytes(damage)
    refused(folder, "damaged")


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "missing", "flipped header"])
def test_damaged_weights_are_refused(folder, damage):
    path = next(folder.glob("*.safetensors"))
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        cut, flipped = data[: len(data) // 2], b"\xff" + data[1:]
        path.write_bytes({"empty": b"", "cut": cut, "garbage": b"x" * len(data), "flipped header": flipped}[damage])
    refused(folder, "damaged")


def test_weights_of_another_shape_are_refused(folder, tmp_path):
    solved(BrockMirman(), DDPG(hidden=(4,), batch=32, environments=16)).save(tmp_path / "other")
    name = next(folder.glob("*.safetensors")).name
    shutil.copy(tmp_path / "other" / name, folder / name)
    refused(folder, "damaged.*cannot be read")


def test_a_missing_or_damaged_log_is_refused(folder):
    next(folder.glob("*.csv")).write_bytes(b"")
    refused(folder, "damaged")
    next(folder.glob("*.csv")).unlink()
    refused(folder, "damaged")


def test_another_model_is_refused(folder):
    refused(folder, "of the model 'BrockMirman', not of 'StochasticGrowth'", StochasticGrowth)
    edit(folder, model="Unheard")
    refused(folder, "model 'Unheard', which is not known here: give the model")


def test_other_parameters_are_refused(folder):
    refused(folder, "other parameters.*0.96", BrockMirman(beta=0.9))
    assert econrl.load(folder, BrockMirman()).model == BrockMirman()
    edit(folder, parameters={"beta": 0.96, "gamma": 3.0})
    refused(folder, "parameters do not fit.*gamma")


def test_parameters_changed_by_hand_are_refused(folder):
    edit(folder, parameters={"beta": 0.96, "alpha": 0.4, "sigma": 0.1})
    refused(folder, "reward, transition or discount differ")


def test_another_format_is_refused(folder):
    edit(folder, format=99, econrl="9.9.9")
    refused(folder, re.escape("format 99 (written by econrl 9.9.9)"))


def changed(base=BrockMirman, **members):
    """A class of the same name with other equations."""
    return dataclass(frozen=True, kw_only=True)(type(base.__name__, (base,), members))


SAME_NAME = {
    "reward": {"reward": lambda self, s, a: 2 * a.c.log()},
    "transition": {"transition": lambda self, s, a, e: {"k": 0.9 * (self.output(s) - a.c), "z": e.eps}},
    "shock in the transition": {"transition": lambda self, s, a, e: {"k": self.output(s) - a.c, "z": 2 * e.eps}},
    "states": {"states": lambda self: (State("k", low=0.01, high=1.0), State("z", low=-0.3, high=0.3))},
    "another state": {
        "states": lambda self: (*BrockMirman.states(self), State("w", low=0.0, high=1.0)),
        "transition": lambda self, s, a, e: {"k": self.output(s) - a.c, "z": e.eps, "w": s.w},
    },
    "bound": {"actions": lambda self: Action("c", low=0.0, high=lambda s: 0.5 * self.output(s))},
    "name of an action": {
        "actions": lambda self: Action("consumption", low=0.0, high=self.output),
        "reward": lambda self, s, a: a.consumption.log(),
        "transition": lambda self, s, a, e: {"k": self.output(s) - a.consumption, "z": e.eps},
    },
    "discount": {"discount": lambda self, s, a, e: 0.5},
    "shock": {"shocks": lambda self: Normal("eps", std=3 * self.sigma)},
}


@pytest.mark.parametrize("members", [pytest.param(members, id=name) for name, members in SAME_NAME.items()])
def test_a_class_of_the_same_name_with_other_equations_is_refused(folder, members):
    cls = changed(**members)
    refused(folder, "differ|damaged", cls)


@pytest.mark.parametrize(
    ("base", "members"),
    [
        (LifeCycle, {"terminal": lambda self, s: 100 * s.m}),
        (
            Everything,
            {
                "states": lambda self: (
                    State("k", low=0.5, high=2.0),
                    MarkovChain("y", values=((0.9, 1.0), (1.1, 2.0)), P=((0.1, 0.9), (0.9, 0.1))),
                    State("x", low=-1.0, high=1.0, size=2),
                )
            },
        ),
    ],
    ids=["terminal value", "transition matrix"],
)
def test_other_changes_of_the_equations_are_refused(base, members, tmp_path):
    model = base(horizon=4, retirement=2) if base is LifeCycle else base()
    solved(model).save(tmp_path / "s")
    refused(tmp_path / "s", "differ", changed(base, **members))


def test_a_class_of_the_same_name_defined_later_does_not_hide_the_zoos(folder):
    """Without a model given, the folder's fingerprint says which class is meant."""
    later = changed(reward=lambda self, s, a: 3 * a.c.log())
    assert later.__name__ == "BrockMirman"
    assert type(econrl.load(folder).model) is BrockMirman


def test_an_existing_folder_is_refused_and_left_as_it_is(growth, folder, tmp_path):
    before = contents(folder)
    with pytest.raises(SaveError, match=r"exists; nothing was written"):
        growth.save(folder)
    assert contents(folder) == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(SaveError, match=r"exists|not a folder that econrl wrote"):
            growth.save(mine, overwrite=overwrite)
        assert contents(mine) == {"thesis.tex": b"years of work"}
    file = tmp_path / "file"
    file.write_text("text")
    for overwrite in (False, True):
        with pytest.raises(SaveError):
            growth.save(file, overwrite=overwrite)
        assert file.read_text() == "text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine", "saved"]


def test_overwriting_replaces_a_saved_solution(folder):
    solved(BrockMirman(beta=0.9)).save(folder, overwrite=True)
    assert econrl.load(folder, BrockMirman).model.beta == 0.9
    assert sorted(p.suffix for p in folder.iterdir()) == [".csv", ".json", ".safetensors"]


def test_a_failed_save_leaves_nothing_behind_and_the_old_one_whole(growth, folder, monkeypatch):
    import safetensors.torch

    before = contents(folder)

    def full(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises((SaveError, OSError), match="No space left"):
        growth.save(folder, overwrite=True)
    assert contents(folder) == before
    with pytest.raises((SaveError, OSError)):
        growth.save(folder.parent / "fresh")
    assert [p.name for p in folder.parent.iterdir()] == ["saved"]


def test_a_parameter_that_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class WithFunction(BrockMirman):
        tax: object = abs

    with pytest.raises(SaveError, match="parameter of type builtin_function_or_method"):
        solved(WithFunction()).save(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_written_into(growth, tmp_path):
    (tmp_path / "empty").mkdir()
    growth.save(tmp_path / "empty")
    assert econrl.load(tmp_path / "empty", BrockMirman).model == growth.model


def test_loading_runs_no_code_from_the_folder(folder):
    """No pickle is read: the folder holds JSON, CSV and safetensors only."""
    assert sorted(p.suffix for p in folder.iterdir()) == [".csv", ".json", ".safetensors"]
    assert not any(data.startswith((b"\x80", b"PK")) for data in contents(folder).values())


# Imports

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"scipy", "quantecon", "matplotlib", "rich", "typer", "safetensors", "gymnasium"}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocked())
import econrl
"""


def test_import_needs_torch_numpy_and_pandas_only():
    done = subprocess.run([sys.executable, "-c", BLOCK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_solving_leaves_the_users_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    econrl.solve(BrockMirman(), steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_numpy_scalars_are_saved_and_a_default_argument_is_no_action(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Half(BrockMirman):
        def actions(self):
            return Action("c", low=0.0, high=lambda s, share=0.9: share * self.output(s))

    solution = econrl.solve(Half(sigma=np.float64(0.1)), steps=2)
    solution.save(tmp_path / "half")
    assert econrl.load(tmp_path / "half", Half).model.sigma == 0.1
