"""What `solve` promises, of every method: a new one that breaks a promise fails here without a test of its own."""

import dataclasses
import functools
import inspect
import itertools
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import econrl
from econrl import METHODS, MethodError, SaveError
from econrl.accuracy.held_out import HeldOut
from econrl.approximation.networks import Actor, ValueNetwork
from econrl.command.cli import app
from econrl.models import Investment, LifeCycle, Retirement, RustBus, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.problem.simulate import own_states
from econrl.solvers import Method, auto
from econrl.solvers.common.driver import Drive
from econrl.solvers.common.run import LifeCycleRun, Run
from econrl.solvers.polish import polish
from econrl.spec.fields_as_text import docs_of
from econrl.storage.checkpoint import Checkpoint

README = (Path(__file__).parents[2] / "README.md").read_text()
METHODS = dict(METHODS)  # without those that tests register
STEPS, SEED = 5, 3

# Settings and constants, by their names wherever a method has them, with which a run takes a fraction of a second.
SMALL = {
    **{"hidden": (8,), "batch": 32, "environments": 16, "capacity": 100, "periods": 4, "warm_up": 4, "rollout": 3},
    **{"points": 8, "exogenous": 4, "level": 2, "refine": 0.02, "max_level": 4, "actions": 5, "nodes": 3, "every": 1},
    **{"start_steps": 3, "start_states": 64, "fit_steps": 3, "value_steps": 3, "paths": 32},
    **{"sketch_steps": 2, "start_batch": 16},
    **{"states": 60, "first_fit": 4, "fit": 2},
}
CONSTANTS = {
    "accuracy.best_action.REFINEMENTS": 2,
    "approximation.constant_shares.ROUNDS": 1,
    "problem.simulate.LONGEST": 20,
    "solvers.grid.collocation.NEWTON_STEPS": 1,
    "solvers.grid.value_iteration.SKETCH_STEPS": 2,
    "solvers.polish.polish.START_STATES": 64,
}

# The first of them that a method takes is what it is tested on. Impatience keeps simulations short.
STATIONARY = (StochasticGrowth(beta=0.6), Investment(beta=0.6), RustBus(beta=0.6, tastes=3))
LIVES = (LifeCycle(horizon=3, retirement=2), Retirement(horizon=3))
STAGES = STATIONARY[1:]  # on which `auto` goes other ways


def small(cls):
    """A method with small settings."""
    return cls(**{f.name: SMALL[f.name] for f in dataclasses.fields(cls) if f.name in SMALL})


def small_by_default(cls):
    """A method whose own defaults are small."""
    own = [(f.name, f.type, SMALL[f.name]) for f in dataclasses.fields(cls) if f.name in SMALL]
    return dataclasses.make_dataclass(cls.__name__, own, bases=(cls,), frozen=True)


def cases():
    """Every method with a stationary model and a life cycle, where it takes one."""
    for cls in METHODS.values():
        method = small(cls)
        for models in (STATIONARY, LIVES):
            taken = [model for model in models if method.why_not(MDP(model)) is None]
            if taken:
                yield pytest.param(cls, taken[0], id=f"{cls.name}-{type(taken[0]).__name__}")
    for model in STAGES:
        yield pytest.param(auto.Auto, model, id=f"auto-{type(model).__name__}")


CASES = list(cases())
every_method = pytest.mark.parametrize("cls", METHODS.values(), ids=METHODS)
every_case = pytest.mark.parametrize(("cls", "model"), CASES)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Short fits, coarse measurements, no check of the model and no verdict: what these do has tests elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in CONSTANTS.items():
            patch.setattr(f"econrl.{constant}", value)
        for module in (auto, polish):
            for name, cls in list(vars(module).items()):
                if cls in METHODS.values() and cls is not auto.Auto:
                    patch.setattr(module, name, small_by_default(cls))
        for enough in ("GOOD_START", "GOOD", "GOOD_WITHOUT_LIMIT"):  # the actor-critic is a stage of every long way
            patch.setattr(auto, enough, 0.0)
        patch.setattr(sys.modules["econrl.solve"], "check", lambda model: [])
        patch.setattr(sys.modules["econrl.solve"], "warn", lambda solution: None)  # no verdict: it has its own tests
        patch.setattr(HeldOut, "simulate", lambda self, f: own_states(self.mdp, f, 60, 20, 2, self._generator()))
        yield


def solve(cls, model, **options):
    options = {"steps": STEPS, "seed": SEED, "device": "cpu", "progress": False, **options}
    method = options.pop("method", None) or small(cls)
    return econrl.solve(model, method, **options)


@functools.cache
def whole(cls, model):
    """An uninterrupted run, and how many steps all its parts made."""
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        in_steps(patch, after=lambda drive, n: seen.append(drive))
        return solve(cls, model), seen


def solution_of(cls, model):
    return whole(cls, model)[0]


def steps_of(cls, model):
    return len(whole(cls, model)[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The same run with a checkpoint: the solution, and the file's content."""
    folder = tmp_path_factory.mktemp("finished")

    @functools.cache
    def run(cls, model):
        file = folder / f"{cls.name}-{type(model).__name__}"
        return solve(cls, model, checkpoint=file), file.read_bytes()

    return run


@functools.cache
def starts(model):
    """Two solutions to begin from."""
    names = ("perturbation", "egm", "ddpg", "vi", "ppo")
    taken = [METHODS[name] for name in names if METHODS[name]().why_not(MDP(model)) is None]
    return [solution_of(cls, model) for cls in taken[:2]]


def in_steps(patch, before=None, after=None):
    """Let `before(drive, n)` and `after(drive, n)` happen within the n-th step of a solve, counted over all stages."""
    init, numbers = Drive.__init__, itertools.count(1)

    def begun(self, *arguments):
        init(self, *arguments)
        step = self.run.step

        def stepped():
            n = next(numbers)
            if before is not None:
                before(self, n)
            step()
            if after is not None:
                after(self, n)

        self.run.step = stepped

    patch.setattr(Drive, "__init__", begun)


def raising(error, at):
    def act(drive, n):
        if n == at:
            raise error

    return act


def assert_same(one, other):
    for a, b in ((one._policy, other._policy), (one._value, other._value)):
        assert type(a) is type(b)
        assert list(a.state_dict()) == list(b.state_dict())
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)
    assert one.training["step"].tolist() == other.training["step"].tolist()
    np.testing.assert_array_equal(one.training["error"], other.training["error"])
    for name in ("steps", "converged", "message"):
        assert one.info[name] == other.info[name]


# Found and described


@every_method
def test_it_is_exported_listed_and_described(cls):
    assert getattr(econrl, cls.__name__) is cls
    assert cls.__name__ in econrl.__all__
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    rows = [row for row in rows if f"`{cls.name}`" in row.split("|")[1]]
    assert len({re.sub(r", rung.*", "", row.split("|")[1]) for row in rows}) == 1, "a row in the README's table"
    text = inspect.getdoc(cls)
    assert vars(cls).get("__doc__"), "a docstring of its own"
    assert re.search(r"(\(|Source:)[^)]*\b(19|20)\d\d\b", text) or cls in WITHOUT_SOURCE
    assert {field.name for field in dataclasses.fields(cls)} == set(docs_of(cls)), "every setting has a docstring"


WITHOUT_SOURCE = (auto.Auto,)  # it only calls the others


# Budgets


@every_case
def test_it_makes_at_most_as_many_steps_as_asked_for_and_says_how_many(cls, model):
    solution, seen = whole(cls, model)
    last = [drive for drive in seen if drive is seen[-1]]
    if cls is auto.Auto:
        assert solution.info["steps"] in (0, len(last))
    else:
        assert solution.info["steps"] == len(last)
    assert solution.info["steps"] <= STEPS
    assert solution.training["step"].max() <= STEPS or cls is auto.Auto


class Clock:
    """Every look at it takes a millisecond, and nothing else any time."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 0.001
        return self.now

    def take(self, drive, n):
        self.now += 1.0


@every_case
def test_it_ends_within_the_time_limit(cls, model, monkeypatch):
    limit, clock = 3.5, Clock()
    in_steps(monkeypatch, before=clock.take)  # so that each step takes a second
    monkeypatch.setattr(time, "perf_counter", clock)
    solution = solve(cls, model, steps=None, time_limit=limit)
    assert clock.now - 1000 <= 1.1 * limit + 2
    assert solution.info["seconds"] <= 1.1 * limit + 2
    assert solution.info["converged"] or "time limit" in solution.info["message"]


# Ctrl-C and errors


@every_case
def test_ctrl_c_gives_the_best_so_far(cls, model, monkeypatch):
    steps = steps_of(cls, model)
    started, at = [], min(2, steps)
    in_steps(monkeypatch, before=lambda drive, n: started.append(n), after=raising(KeyboardInterrupt, at))
    solution = solve(cls, model)
    assert "interrupted" in solution.info["message"]
    assert len(started) == at, "nothing goes on"
    assert len(solution.training) > 0
    if at < steps:
        assert solution.info["converged"] is False


@pytest.mark.parametrize("model", [*STATIONARY[:1], *LIVES[:1], *STAGES], ids=lambda model: type(model).__name__)
def test_ctrl_c_in_any_stage_of_auto_ends_all_of_it(model, monkeypatch):
    _, seen = whole(auto.Auto, model)
    stages = list(dict.fromkeys(map(id, seen)))
    for stage in stages:
        at = 1 + max(n for n, drive in enumerate(seen) if id(drive) == stage)
        with monkeypatch.context() as patch:
            started = []
            in_steps(patch, before=lambda drive, n: started.append(n), after=raising(KeyboardInterrupt, at))  # noqa: B023
            solution = solve(auto.Auto, model)
        assert "interrupted" in solution.info["message"]
        assert len(started) == at, "no later stage starts"


@pytest.mark.parametrize("model", STAGES, ids=lambda model: type(model).__name__)
def test_auto_goes_on_with_the_stage_that_ctrl_c_ended(model, tmp_path, monkeypatch):
    _, seen = whole(auto.Auto, model)
    for at in range(2, len(seen) + 1, 3):
        with monkeypatch.context() as patch:
            in_steps(patch, after=raising(KeyboardInterrupt, at))
            stopped = solve(auto.Auto, model, checkpoint=tmp_path / f"run{at}")
        assert "interrupted" in stopped.info["message"]
        assert_same(solution_of(auto.Auto, model), solve(auto.Auto, model, checkpoint=tmp_path / f"run{at}"))


def test_auto_is_tested_in_all_its_stages():
    names = [[row["stage"] for _, row in solution_of(auto.Auto, m).training.iterrows()] for m in STAGES]
    assert [list(dict.fromkeys(rows)) for rows in names] == [["perturbation", "vi", "fvi", "ddpg", "newton"], ["vi"]]


@every_case
def test_a_late_error_leaves_the_earlier_answer(cls, model, tmp_path, monkeypatch):
    def late(drive, n):
        lives = isinstance(drive.run, LifeCycleRun) and drive.run.done == 2 < drive.run.horizon
        if drive.task.checkpoint and (lives or len(drive.tracker.log) >= 2):  # not what the run begins from
            raised.append(n)
            raise RuntimeError("struck by lightning")

    raised = []
    in_steps(monkeypatch, after=late)
    solution = solve(cls, model, checkpoint=tmp_path / "run")
    if raised:
        assert "struck by lightning" in solution.info["message"]
        assert solution.info["converged"] is False or cls is auto.Auto  # another of its stages may have converged
        assert len(solution.training) >= 1


# Repetition


@every_case
def test_the_same_seed_gives_the_same_bits_with_or_without_a_checkpoint(cls, model, finished):
    assert_same(solution_of(cls, model), finished(cls, model)[0])


class Killed(BaseException):
    """Nothing between the solver and the operating system may catch it."""


def kill(patch, attempt):
    """The run dies in its first write of a checkpoint; when it is tried again, before its third step; then in the write
    after it; and so on. What happens before there is a checkpoint is not counted."""
    steps = []
    in_steps(patch, before=lambda drive, n: drive.task.checkpoint and steps.append(n))
    make_step, write = Drive.make_step, Checkpoint.write

    def made(self):
        if attempt % 2 == 1 and self.task.checkpoint and len(steps) == 2:
            raise Killed
        make_step(self)

    def written(self, state):
        if attempt % 2 == 0 and len(steps) >= (1 if attempt == 0 else 3):
            raise Killed
        write(self, state)

    patch.setattr(Drive, "make_step", made)
    patch.setattr(Checkpoint, "write", written)


@every_case
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(cls, model, tmp_path, monkeypatch):
    file, resumed, before = tmp_path / "run", None, b""
    for attempt in range(2 * steps_of(cls, model) + 3):
        try:
            with monkeypatch.context() as patch:
                kill(patch, attempt)
                resumed = solve(cls, model, checkpoint=file)
            break
        except Killed:
            now = file.read_bytes() if file.exists() else b""
            assert attempt == 0 or now != before, "it made no progress"
            before = now
    assert attempt > 0
    assert_same(solution_of(cls, model), resumed)


@every_case
def test_a_run_that_has_ended_is_answered_from_its_checkpoint(cls, model, finished, tmp_path, monkeypatch):
    solution, content = finished(cls, model)
    (tmp_path / "run").write_bytes(content)
    in_steps(monkeypatch, before=raising(Killed, 1))
    assert_same(solution, solve(cls, model, checkpoint=tmp_path / "run"))


@every_case
def test_the_checkpoint_of_another_run_is_refused(cls, model, finished, tmp_path, monkeypatch):
    file, (warm_start, _) = tmp_path / "run", starts(model)
    file.write_bytes(finished(cls, model)[1])
    in_steps(monkeypatch, before=raising(Killed, 1))
    others = {
        "seed": {"seed": SEED + 1},
        "steps": {"steps": STEPS - 1},
        "tol": {"tol": 1e-3},
        "settings": {"method": dataclasses.replace(small(cls), nodes=4)},
        **({"warm_start": {"warm_start": warm_start}} if cls.warm else {}),
    }
    for named, changed in others.items():
        with pytest.raises(SaveError, match=f"of another run: its {named} is"):
            solve(cls, model, checkpoint=file, **changed)
    assert file.read_bytes() == finished(cls, model)[1]


# Warm starts


@every_case
def test_a_warm_start_is_taken_or_refused(cls, model, tmp_path):
    file, (warm_start, other) = tmp_path / "run", starts(model)
    if not cls.warm:
        with pytest.raises(MethodError, match=f"{cls.name} takes no warm_start; methods that do: .*newton"):
            solve(cls, model, warm_start=warm_start)
    elif cls is auto.Auto and MDP(model).choices:
        with pytest.raises(MethodError, match="auto takes no warm_start where there are discrete choices"):
            solve(cls, model, warm_start=warm_start)
    else:
        solution = solve(cls, model, steps=1, warm_start=warm_start, checkpoint=file)
        assert len(solution.training) > 0
        with pytest.raises(SaveError, match="its warm_start is"):
            solve(cls, model, steps=1, warm_start=other, checkpoint=file)


# Honest words


@every_case
def test_converged_is_not_said_of_a_run_that_was_stopped(cls, model):
    solution = solve(cls, model, steps=1, tol=1e-30)
    if solution_of(cls, model).info["steps"] > 1:  # those that `steps` asks for: not those of a stage that is short
        assert solution.info["converged"] is False
    assert solution.info["converged"] or solution.training["error"].min() > 1e-30


@every_case
def test_a_tolerance_that_is_met_ends_the_run(cls, model):
    solution = solve(cls, model, tol=10.0, steps=50)
    assert solution.info["converged"] is True
    assert solution.info["steps"] <= max(1, model.horizon or 1)
    assert solution.training["error"].iloc[-1] <= 10.0


# Saving


@every_case
def test_a_saved_solution_gives_the_same_policy(cls, model, tmp_path):
    solution = solution_of(cls, model)
    solution.save(tmp_path / "saved")
    loaded = econrl.load(tmp_path / "saved")
    s = solution.mdp.sample_box(50, torch.Generator().manual_seed(0))
    assert torch.equal(solution._policy(s), loaded._policy(s))
    assert torch.equal(solution._value(s), loaded._value(s))
    assert loaded.info == json.loads(json.dumps(solution.info))


# One registration


@dataclass(frozen=True)
class Halves(Method):
    """Constant shares: a half, and then a little less.

    Source: none (2026).
    """

    name: ClassVar[str] = "halves"
    choices: ClassVar[bool] = True

    less: float = 0.1
    """How much less, in log-odds."""
    nodes: int = 3
    """Quadrature nodes a shock."""

    def begin(self, mdp, task, held_out):
        return HalvesRun(self, mdp, task, held_out)


class HalvesRun(Run):
    """One improvement."""

    def __init__(self, method, mdp, task, held_out):
        super().__init__(mdp, task, held_out)
        self.method, self.made = method, 0

    def step(self):
        self.made += 1
        self.converged = self.made == 2

    def answer(self):
        policy, value = Actor(self.mdp, (2,)), ValueNetwork(self.mdp, (2,), {})
        for parameter in (*policy.parameters(), *value.parameters()):
            torch.nn.init.zeros_(parameter)
        *_, bias = policy.parameters()
        torch.nn.init.constant_(bias, -self.method.less * self.made)
        return policy, value

    def state(self):
        return {"made": self.made}

    def restore(self, state):
        self.made = state["made"]


@pytest.fixture
def registered():
    econrl.register(Halves)
    yield
    del econrl.METHODS["halves"]


def test_a_registered_method_goes_everywhere(registered, tmp_path, monkeypatch):
    model = STATIONARY[0]
    solution = econrl.solve(model, "halves", steps=5, progress=False)
    assert solution.info["method"] == "halves"
    assert solution.info["steps"] == 2
    assert solution.info["converged"] is True
    solution.save(tmp_path / "saved")
    assert econrl.load(tmp_path / "saved").info["settings"] == {"less": 0.1, "nodes": 3}
    table = econrl.compare(model, ["halves", Halves(less=1.0), "perturbation"], progress=False, points=100)
    assert list(table["method"].unique()) == ["halves", "halves#2", "perturbation"]
    with pytest.raises(MethodError, match=r"unknown method 'none'; there are: .*halves"):
        econrl.solve(model, "none")

    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    assert "halves: Constant shares" in run.invoke(app, ["list"]).output
    assert "less = 0.1\n    How much less" in run.invoke(app, ["list", "--method", "halves"]).output
    command = ["solve", "growth", "--set", "beta=0.6", "--method", "halves", "--option", "less=0.5", "--out", "mine"]
    done = run.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert econrl.load("mine").info["settings"]["less"] == 0.5


def test_a_registered_method_is_asked_for_what_it_needs():
    class Nameless(Halves):
        """A bad name."""

        name = "two words"

    @dataclass(frozen=True)
    class Bare(Method):
        """A setting without default."""

        name: ClassVar[str] = "bare"
        nodes: int

    with pytest.raises(MethodError, match=r"the name 'ddpg' is taken by econrl.solvers.off_policy.ddpg.DDPG"):
        econrl.register(type("Mine", (Halves,), {"name": "ddpg"}))
    with pytest.raises(MethodError, match="`name` must be letters, digits and underscores, got 'two words'"):
        econrl.register(Nameless)
    with pytest.raises(MethodError, match="settings with defaults"):
        econrl.register(Bare)
    with pytest.raises(MethodError, match="int is no method"):
        econrl.register(int)
    assert list(econrl.METHODS) == list(METHODS)
