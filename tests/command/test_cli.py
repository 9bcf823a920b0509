"""The command: what it writes, a user's own file, and what a user reads after each mistake."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

import econrl
from econrl import Model
from econrl.command import cli
from econrl.models import BrockMirman, StochasticGrowth
from econrl.solvers.common.tracker import Tracker
from econrl.spec.fields_as_text import docs_of, fields, read_value
from econrl.storage.model_lookup import find_model

CAKE = '''
from dataclasses import dataclass

import torch
from econrl import Action, Model, State


@dataclass(frozen=True, kw_only=True)
class Cake(Model):
    """A cake that is eaten over time."""

    beta: float = 0.9  # discount factor
    R: float = 1.0
    low: float = 0.5
    sizes: tuple[float, ...] = (2.0,)
    rounds: int = 1

    def states(self):
        return State("W", low=self.low, high=self.sizes[0])

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.W)

    def reward(self, s, a):
        return REWARD

    def transition(self, s, a, e):
        return {"W": self.R * (s.W - a.c)}
'''
REWARD = "a.c.log()"


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Runs the command in an empty folder; gives its exit code, its output and its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = dict(sys.modules)

    def command(*arguments):
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    yield command
    for name in set(sys.modules) - set(modules):
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def refused(run):
    """Runs the command, which must refuse in one line, without a traceback; gives the line."""

    def command(*arguments):
        code, _, errors = run(*arguments)
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert code == 1
        assert len(lines) == 1
        assert "Traceback" not in errors
        return lines[0]

    return command


@pytest.fixture
def cake(tmp_path):
    """Writes a user's model file, with another reward if asked."""

    def write(reward=REWARD, name="cake.py"):
        file = tmp_path / name
        file.write_text(CAKE.replace("REWARD", reward))
        return file

    return write


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A saved solution of a zoo model."""
    folder = tmp_path_factory.mktemp("saved") / "brock_mirman"
    with pytest.raises(SystemExit) as end:
        cli.main(["solve", "BrockMirman", "--method", "ddpg", "--steps", "5", "--out", str(folder), "--quiet"])
    assert end.value.code == 0
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def copy(folder, to):
    to.mkdir()
    for name, data in contents(folder).items():
        (to / name).write_bytes(data)
    return to


FILES = {
    "solution.json", "weights.safetensors", "training.csv", "policy.csv", "simulation.csv", "accuracy.csv",
    "policy.png",
}  # fmt: skip


# What works


def test_version_and_help(run):
    assert run("--version") == (0, f"econrl {version('econrl')}\n", "")
    _, out, _ = run()
    for command in ("list", "check", "solve", "compare", "simulate", "profiles"):
        assert command in out


def test_the_installed_command_refuses_in_one_line(tmp_path):
    command = [Path(sys.executable).parent / "econrl", "solve", "growth", "--method", "nope"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "40"})
    assert done.returncode == 1
    assert done.stderr == "error: unknown method 'nope'; there are: " + ", ".join(econrl.METHODS) + "\n"


def test_list_shows_every_model_method_and_setting(run):
    code, out, _ = run("list")
    assert code == 0
    for name in [*econrl.models.__all__, *econrl.METHODS]:
        assert name in out
    for name, method in econrl.METHODS.items():
        code, out, _ = run("list", "--method", name)
        assert code == 0
        for field in fields(method):
            assert f"  {field.name} = " in out
            assert docs_of(method)[field.name] in out


@pytest.mark.parametrize("text", ["growth", "STOCHASTICGROWTH", StochasticGrowth.__module__])
def test_a_zoo_model_by_name_and_by_file(text):
    if "." in text:
        text = sys.modules[text].__file__
    assert find_model(text) is StochasticGrowth


def test_solve_writes_the_whole_folder(run, tmp_path):
    code, out, _ = run(
        *("solve", "growth", "--method", "ddpg", "--steps", "5", "--set", "gamma=5", "--option", "hidden=8,8")
    )
    assert code == 0
    folder = tmp_path / "out" / "growth-ddpg"
    assert set(contents(folder)) == FILES
    assert os.listdir(folder.parent) == ["growth-ddpg"]  # nothing half-written beside it
    solution = econrl.load(folder)
    assert solution.model == StochasticGrowth(gamma=5.0)
    assert solution.info["settings"]["hidden"] == [8, 8]
    assert solution.info["steps"] == 5
    euler = solution.accuracy().set_index(["sample", "measure"]).loc[("box", "euler")]
    shown = next(line.split() for line in out.splitlines() if line.split()[:2] == ["box", "euler"])
    assert shown[2:] == [f"{euler[x]:.2f}" for x in ("mean", "p99", "max")]
    written = pd.read_csv(folder / "accuracy.csv").set_index(["sample", "measure"]).loc[("box", "euler")]
    assert written["mean"] == pytest.approx(euler["mean"])
    assert {"k", "z", "c", "output"} <= set(pd.read_csv(folder / "policy.csv"))
    assert {"path", "period", "k", "z", "c", "outside"} <= set(pd.read_csv(folder / "simulation.csv"))
    assert {"step", "seconds", "error"} <= set(pd.read_csv(folder / "training.csv"))


def test_ranges_of_parameters_are_solved_at_once(run, refused, tmp_path):
    arguments = (
        "solve",
        "brock_mirman",
        "--method",
        "perturbation",
        "--over",
        "alpha=0.3:0.4",
        "--over",
        "beta=.9:.95",
    )
    code, text, _ = run(*arguments, "--out", "out")
    assert code == 0
    assert "BrockMirman over alpha, beta by perturbation" in text
    solution = econrl.load(tmp_path / "out")
    assert solution.model.over == {"alpha": (0.3, 0.4), "beta": (0.9, 0.95)}
    assert {"alpha", "beta"} <= set(pd.read_csv(tmp_path / "out" / "policy.csv").columns)
    simulate = ("simulate", "out", "--periods", "5", "--paths", "5")
    assert run(*simulate, "--set", "alpha=0.35", "--set", "beta=0.92", "--out", "one.csv")[0] == 0
    expected = solution.at(alpha=0.35, beta=0.92).simulate(5, 5)
    assert pd.read_csv(tmp_path / "one.csv")["k"].tolist() == pytest.approx(expected["k"].tolist())
    assert "over alpha from 0.3 to 0.4" in refused(*simulate, "--set", "alpha=0.5")
    for text in ("alpha", "alpha=0.3", "alpha=0.3:0.4:0.5", "alpha=low:high"):
        assert "--over NAME=LOW:HIGH" in refused("solve", "brock_mirman", "--over", text)


def test_a_forgotten_decorator_is_told_before_its_parameters_are_missed(refused, cake):
    file = cake()
    file.write_text(file.read_text().replace("@dataclass(frozen=True, kw_only=True)\n", ""))
    assert "Cake is no dataclass" in refused("check", "cake.py", "--set", "R=1.1")


def test_the_same_seed_writes_the_same_policy(run, cake, tmp_path):
    cake()
    for folder in ("a", "b"):
        code, out, error = run(
            "solve", "cake.py", "--method", "ddpg", "--steps", "5", "--seed", "3", "--out", folder, "--quiet"
        )
        assert (code, out) == (0, "")
        assert all(line.startswith("warning: ") for line in error.splitlines())  # what is rough is never silent
        assert "do not use: c is off by" in error
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    for name in ("policy.csv", "simulation.csv", "accuracy.csv", "weights.safetensors"):
        assert first[name] == second[name]


def test_ctrl_c_keeps_the_best_so_far_and_writes_it(run, monkeypatch, tmp_path):
    measure = Tracker.measure
    calls = []

    def measured_once(*arguments, **columns):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **columns)

    monkeypatch.setattr(Tracker, "measure", measured_once)
    code, out, _ = run("solve", "BrockMirman", "--method", "ddpg", "--steps", "200", "--out", "kept")
    assert code == 0
    assert "interrupted" in out
    assert set(contents(tmp_path / "kept")) == FILES
    assert 0 < econrl.load("kept").info["steps"] < 200


def test_compare_prints_and_writes_a_table(run, cake, tmp_path):
    cake()
    code, out, _ = run("compare", "cake.py", "vi,ddpg", "--steps", "5", "--out", "both")
    assert code == 0
    table = pd.read_csv(tmp_path / "both" / "compare.csv")
    assert set(table["method"]) == {"vi", "ddpg"}
    for _, row in table[table["measure"] == "euler"].iterrows():
        assert any(
            line.split()[:4] == [row["method"], row["sample"], "euler", f"{row['mean']:.2f}"]
            for line in out.splitlines()
        )
    before = contents(tmp_path / "both")
    code, _, errors = run("compare", "cake.py", "vi,ddpg", "--steps", "5", "--out", "both")
    assert code == 1
    assert "exists" in errors
    assert contents(tmp_path / "both") == before


def test_simulate_prints_moments_or_writes_a_file(run, solved, tmp_path):
    expected = econrl.load(solved).simulate(periods=30, paths=10, seed=5)
    arguments = ["simulate", solved, "--periods", "30", "--paths", "10", "--seed", "5"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert [f"{expected['k'].mean():.5g}", f"{expected['k'].std():.5g}"] == next(
        line.split()[1:] for line in out.splitlines() if line.split()[:1] == ["k"]
    )
    code, _, _ = run(*arguments, "--out", "simulation.csv")
    assert code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "simulation.csv"), expected)
    (tmp_path / "simulation.csv").write_text("mine")
    code, _, errors = run(*arguments, "--out", "simulation.csv")
    assert code == 1
    assert "exists" in errors
    assert (tmp_path / "simulation.csv").read_text() == "mine"
    assert run(*arguments, "--out", "simulation.csv", "--overwrite")[0] == 0
    assert len(pd.read_csv(tmp_path / "simulation.csv")) == 300


def test_simulate_takes_states_and_shocks_from_files(run, solved, refused, tmp_path):
    states = pd.DataFrame({"household": [7, 8], "k": [0.15, 0.2], "z": [0.0, 0.1]})
    shocks = pd.DataFrame({"path": [0, 0, 1, 1], "period": [0, 1, 0, 1], "eps": [0.1, -0.1, 0.0, 0.05]})
    states.to_csv(tmp_path / "states.csv", index=False)
    shocks.to_csv(tmp_path / "shocks.csv", index=False)
    files = ("--initial", "states.csv", "--shocks", "shocks.csv")
    assert run("simulate", solved, *files, "--out", "two.csv")[0] == 0
    expected = econrl.load(solved).simulate(initial=states, shocks=shocks)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "two.csv"), expected)
    assert expected["k"].tolist()[::2] == [0.15, 0.2]
    assert "'none.csv' cannot be read as a table" in refused("simulate", solved, "--initial", "none.csv")
    assert "the points lack the state(s) k, z" in refused("simulate", solved, "--initial", "shocks.csv")


def test_profiles_print_means_or_write_a_table_and_a_picture(run, solved, tmp_path):
    life = ["solve", "LifeCycle", "--set", "horizon=3", "--set", "retirement=2", "--method", "ddpg", "--steps", "3"]
    assert run(*life, "--out", "life", "--quiet")[0] == 0
    expected = econrl.load(tmp_path / "life").profiles(paths=20, seed=5)
    arguments = ["profiles", "life", "--paths", "20", "--seed", "5"]
    code, out, _ = run(*arguments)
    assert code == 0
    c = expected.loc[(expected["variable"] == "c") & (expected["period"] == 1), "mean"].item()
    assert f"{c:.4g}" in next(line.split() for line in out.splitlines() if line.split()[:1] == ["1"])
    code, _, _ = run(*arguments, "--out", "profiles.csv", "--plot", "profiles.png")
    assert code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "profiles.csv"), expected)
    assert (tmp_path / "profiles.png").stat().st_size > 10_000
    assert run(*arguments, "--plot", "profiles.png")[0] == 1  # it exists
    code, _, errors = run("profiles", solved)
    assert code == 1
    assert "has no horizon" in errors


# A user's own file


def test_a_users_file_works_as_a_zoo_file_does(run, cake, tmp_path):
    file = cake("a.c.log() + helper_for_cake.ZERO")
    file.write_text("import helper_for_cake\n" + file.read_text())
    (tmp_path / "helper_for_cake.py").write_text("print('imported')\nZERO = 0.0\n")
    code, out, _ = run("check", "cake.py", "--set", "rounds=3", "--set", "R=1", "--set", "sizes=3,4")
    assert code == 0
    assert "Cake: ok" in out
    assert "W in [0.5, 3]" in out
    assert out.count("imported") == 1
    code, out, error = run("solve", file, "--method", "ddpg", "--steps", "5", "--out", "own", "--quiet")
    assert (code, out) == (0, "")  # not imported again
    assert all(line.startswith("warning: Cake by ddpg") for line in error.splitlines())
    assert set(contents(tmp_path / "own")) == FILES
    code, out, error = run("simulate", "own", "--model", "cake.py:Cake", "--paths", "5")
    assert error.startswith("warning: ")  # a cake is eaten below the least size of the domain
    assert "of the simulated states lie outside the domain" in error
    assert all(line.startswith("warning: ") for line in error.splitlines())
    assert code == 0
    assert "1,000 simulated states" in out


def test_a_file_called_like_a_library_does_not_replace_it(cake):
    import random

    cls = find_model(str(cake(name="random.py")))
    assert cls.__name__ == "Cake"
    assert find_model(str(cake(name="random.py"))) is cls
    assert sys.modules["random"] is random


def test_a_file_with_several_models_needs_a_name(refused, run, cake):
    file = cake()
    file.write_text(
        file.read_text() + "\n\n@dataclass(frozen=True, kw_only=True)\nclass Pie(Cake):\n    R: float = 0.9\n"
    )
    assert "cake.py:Cake, cake.py:Pie" in refused("check", "cake.py")
    assert "defines no model 'Tart'" in refused("check", "cake.py:Tart")
    assert "Pie: ok" in run("check", "cake.py:Pie")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("import no_such_module_of_mine", "ModuleNotFoundError: No module named 'no_such_module_of_mine'"),
        ("raise ValueError('of mine')", "ValueError: of mine"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_its_line(refused, tmp_path, line, message):
    (tmp_path / "own_model.py").write_text(f"import econrl\n\n{line}\n")
    error = refused("solve", "own_model.py", "--method", "ddpg", "--steps", "20")
    assert message in error
    assert f"({tmp_path / 'own_model.py'}, line 3)" in error


def test_a_file_without_a_model_is_refused(refused, tmp_path):
    (tmp_path / "empty.py").write_text("from econrl.models import BrockMirman\n")
    assert "'empty.py' defines no model" in refused("check", "empty.py")
    assert "there is no file 'absent.py'" in refused("check", "absent.py")


# Mistakes on the command line


def test_unknown_names_are_refused_with_those_that_exist(refused):
    error = refused("solve", "growht")
    assert "there is no model 'growht'" in error
    assert "StochasticGrowth (growth)" in error
    error = refused("solve", "growth", "--method", "nope")
    assert "unknown method 'nope'" in error
    assert "ddpg" in error
    assert "unknown method 'nope'" in refused("compare", "growth", "vi,nope")
    error = refused("solve", "growth", "--method", "ddpg", "--option", "hiden=64")
    assert "ddpg has no 'hiden'" in error
    assert "hidden=(64, 64)" in error
    error = refused("solve", "growth", "--set", "gama=5")
    assert "StochasticGrowth has no 'gama'" in error
    assert "gamma=2.0" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "gamma=high"], "gamma must be a number, got 'high'"),
        (["--set", "gamma=nan"], "gamma must be a number, got 'nan'"),
        (["--set", "gamma"], "write name=value"),
        (["--method", "ddpg", "--option", "batch=1.5"], "batch must be a whole number, got '1.5'"),
        (["--option", "hidden=8,x"], "hidden must be numbers separated by commas, got '8,x'"),
        (["--method", "ddpg", "--option", "rung=7"], "rung=7"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--time-limit", "-1"], "time_limit must be positive"),
        (["--steps", "0"], "steps must be a whole number"),
        (["--tol", "0"], "tol must be positive"),
    ],
)
def test_values_that_make_no_sense_are_refused(refused, tmp_path, arguments, message):
    assert message in refused("solve", "growth", *arguments)
    assert not list(tmp_path.rglob("*.*"))


def test_wrong_usage_ends_with_two(run):
    for arguments in (["solve"], ["solve", "growth", "--steps", "many"], ["slove", "growth"]):
        code, _, errors = run(*arguments)
        assert code == 2
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", float, 5.0),
        ("1e5", int, 100_000),
        ("no", bool, False),
        ("none", int | None, None),
        ("64", int | tuple[int, ...] | None, 64),
        ("64,32", int | tuple[int, ...] | None, (64, 32)),
        ("(64, 32)", tuple[int, ...], (64, 32)),
        ("64", tuple[int, ...], (64,)),
        ("linear", str | None, "linear"),
        ("((0.9, 0.1), (0.2, 0.8))", tuple, ((0.9, 0.1), (0.2, 0.8))),
        ("1e5,2", tuple[int, ...], (100_000, 2)),
        ("inf", float | tuple[float, ...] | None, float("inf")),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("5", str, "5"),
        ("none", str, "none"),
    ],
)
def test_values_are_read_by_type(text, kind, value):
    read = read_value(text, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("kind", [np.ndarray, torch.Tensor, torch.Tensor | None])
def test_arrays_are_read_in_double_precision(kind):
    read = read_value("[[0.9, 0.1], [0.2, 0.8]]", kind)
    assert isinstance(read, kind)
    assert torch.equal(torch.as_tensor(read), torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *[("1.5", int), ("true", int), ("64,", int | None), ("nan", float), ("high", float), ("2", bool)],
        *[("8,x", tuple), ("8,x", tuple[int, ...]), ("nan,1", tuple[float, ...]), ("1", tuple[float, float])],
        *[("c", Literal["a", "b"]), ("[[1], [2, 3]]", np.ndarray), ("growth", Model), ("{'beta': 0.9}", BrockMirman)],
    ],
)
def test_values_of_other_types_are_refused(text, kind):
    with pytest.raises(ValueError, match=re.escape(text)):
        read_value(text, kind)


# Mistakes in a model, and folders


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("low=3", "State 'W' has low = 3 and high = 2"),
        ("beta=1", "beta = 1"),
        ("beta=1.2", "beta = 1.2"),
    ],
)
def test_parameters_that_break_the_model_are_refused(refused, cake, parameters, message):
    cake()
    for command in (
        ["check", "cake.py"],
        ["solve", "cake.py", "--method", "ddpg", "--steps", "20"],
        ["compare", "cake.py", "vi,ddpg"],
    ):
        assert message in refused(*command, "--set", parameters)


def test_a_reward_that_is_not_finite_is_refused_with_the_state(refused, cake):
    cake("torch.where(s.W > 1, a.c.log(), torch.nan)")
    error = refused("solve", "cake.py", "--method", "ddpg", "--steps", "20")
    assert "Cake.reward" in error
    assert "state W = " in error


def test_nan_in_the_middle_of_a_solve_is_refused_with_the_state(refused, cake, tmp_path):
    cake("torch.where(s.W < 0.45, torch.nan, a.c.log())")  # states that only a simulation reaches
    error = refused("solve", "cake.py", "--method", "ddpg", "--steps", "20", "--out", "broken")
    assert "Cake.reward is nan at state W = 0." in error
    assert [name for name in os.listdir(tmp_path) if name != "__pycache__"] == [
        "cake.py"
    ]  # no "broken", nothing half-written


def test_an_exception_in_the_middle_of_a_solve_is_refused_with_its_line(refused, cake):
    file = cake("felicity(a.c)")
    lines = [
        "def felicity(c):",
        "    assert c.numel() < 500, 'too many'",
        "    return c.log()",
    ]  # the check tries fewer
    file.write_text("\n".join([*lines, file.read_text()]))
    assert f"AssertionError: too many ({file}, line 2)" in refused(
        "solve", "cake.py", "--method", "ddpg", "--steps", "20"
    )


def test_a_grid_that_does_not_fit_in_memory_is_refused(refused):
    error = refused("solve", "growth", "--method", "vi", "--option", "points=200000")
    assert "200000^2" in error
    assert "bytes" in error


def test_compare_with_no_method_that_works_says_why(refused):
    assert "steps must be a whole number" in refused("compare", "growth", "vi,ddpg", "--steps", "0")


def test_an_existing_folder_is_refused_at_once_and_stays_whole(refused, run, solved, tmp_path, monkeypatch):
    folder = copy(solved, tmp_path / "earlier")
    before = contents(folder)
    solve = econrl.solve
    monkeypatch.setattr(econrl, "solve", None)  # must not be reached
    assert "'earlier' exists; nothing was written" in refused(
        "solve", "BrockMirman", "--method", "ddpg", "--out", "earlier"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    error = refused("solve", "BrockMirman", "--method", "ddpg", "--out", "mine", "--overwrite")
    assert "is not a folder that econrl wrote" in error
    assert contents(tmp_path / "mine") == {"thesis.tex": b"text"}
    assert "cannot write" in refused("solve", "BrockMirman", "--method", "ddpg", "--out", "mine/thesis.tex/out")
    monkeypatch.setattr(econrl, "solve", solve)

    assert contents(folder) == before
    arguments = [
        "solve",
        "BrockMirman",
        "--method",
        "ddpg",
        "--steps",
        "5",
        "--seed",
        "1",
        "--out",
        "earlier",
        "--overwrite",
        "--quiet",
    ]
    assert run(*arguments)[0] == 0
    after = contents(folder)
    assert set(after) == FILES
    assert after["weights.safetensors"] != before["weights.safetensors"]


def test_a_failure_while_writing_leaves_earlier_results_whole(refused, solved, tmp_path, monkeypatch):
    folder = copy(solved, tmp_path / "earlier")
    before = contents(folder)

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(econrl.Solution, "plot", full)
    error = refused("solve", "BrockMirman", "--method", "ddpg", "--steps", "5", "--out", "earlier", "--overwrite")
    assert "cannot write to 'earlier': No space left on device" in error
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["earlier"]


@pytest.mark.parametrize("name", ["solution.json", "weights.safetensors"])
def test_a_damaged_folder_is_refused(refused, solved, tmp_path, name):
    folder = copy(solved, tmp_path / "damaged")
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "'damaged' is damaged" in refused("simulate", "damaged")
    file.unlink()
    assert "damaged" in refused("simulate", "damaged")


def test_a_folder_of_another_model_is_refused(refused, run, solved, cake):
    cake()
    assert "is of the model 'BrockMirman', not of 'Cake'" in refused("simulate", solved, "--model", "cake.py")
    run("solve", "cake.py", "--method", "ddpg", "--steps", "5", "--out", "own", "--quiet")
    changed = cake("2 * a.c.log()", name="changed.py")
    assert "was solved for another Cake" in refused("simulate", "own", "--model", changed)


def test_a_solution_of_a_users_model_needs_its_file(run, cake, tmp_path):
    cake()
    run("solve", "cake.py", "--method", "ddpg", "--steps", "5", "--out", "own", "--quiet")
    command = [sys.executable, "-c", "from econrl.command.cli import main; main()", "simulate", "own"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # the class is not known there
    assert done.returncode == 1
    assert done.stderr.startswith("error: the solution is of a model 'Cake'")
    assert "Traceback" not in done.stderr


def test_the_zoo_file_and_the_zoo_class_are_one(solved):
    assert find_model(sys.modules[BrockMirman.__module__].__file__) is BrockMirman
    assert isinstance(econrl.load(solved).model, BrockMirman)


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "econrl", "list", "--method", "td0"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "td0" in shown.stdout
