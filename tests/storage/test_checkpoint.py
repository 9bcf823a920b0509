"""A run that was killed goes on from its checkpoint, and ends bit for bit like one that was not."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import econrl
from econrl import DDPG, SaveError
from econrl.models import BrockMirman, LifeCycle
from econrl.solvers.common import training
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.off_policy.learner import OffPolicyLearner
from econrl.storage.checkpoint import Checkpoint, read

SMALL = {"hidden": (16, 16), "batch": 32, "environments": 16, "start_steps": 5, "start_states": 64}
SMALL["capacity"] = 600  # the replay wraps round before the end
STEPS = 80


class Killed(BaseException):
    """Nothing between the solver and the operating system may catch it."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training, "MEASURE_EVERY", 1)
    monkeypatch.setattr(training, "MEASUREMENTS", 40)


def kill_at(monkeypatch, measurement):
    """The run dies in this measurement of its error."""
    measure, seen = Tracker.measure, []

    def measured(self, *arguments, **columns):
        seen.append(1)
        if len(seen) == measurement:
            raise Killed
        measure(self, *arguments, **columns)

    monkeypatch.setattr(Tracker, "measure", measured)


def solve(model, method, **settings):
    return econrl.solve(model, method, seed=3, progress=False, **settings)


def assert_same(one, other):
    for a, b in ((one._policy, other._policy), (one._value, other._value)):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)
    assert one.training["step"].tolist() == other.training["step"].tolist()
    np.testing.assert_array_equal(one.training["error"], other.training["error"])


@pytest.mark.parametrize("rung", [0, 1, 2])
@pytest.mark.parametrize("model", [BrockMirman(), LifeCycle(horizon=5, retirement=3)], ids=["stationary", "life cycle"])
def test_a_killed_run_that_goes_on_ends_like_one_that_was_not_killed(model, rung, tmp_path, monkeypatch):
    method, file = DDPG(rung=rung, **SMALL), tmp_path / "run"
    whole = solve(model, method, steps=STEPS)
    with monkeypatch.context() as patch:
        kill_at(patch, 17)
        with pytest.raises(Killed):
            solve(model, method, steps=STEPS, checkpoint=file)
    assert len(read(file)[1]["log"]) == 16
    periods = []
    with monkeypatch.context() as patch:
        advance = OffPolicyLearner.advance
        patch.setattr(OffPolicyLearner, "advance", lambda self: periods.append(1) or advance(self))
        resumed = solve(model, method, steps=STEPS, checkpoint=file)
    assert len(periods) == STEPS - 32  # it did not begin anew
    assert_same(whole, resumed)


def test_a_run_that_has_ended_is_answered_from_its_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "run"
    first = solve(BrockMirman(), DDPG(**SMALL), steps=10, checkpoint=file)
    kill_at(monkeypatch, 1)
    assert_same(first, solve(BrockMirman(), DDPG(**SMALL), steps=10, checkpoint=file))


def test_the_time_that_a_killed_run_took_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(DDPG, "plan", lambda self, *arguments: STEPS)
    file = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(Killed):
            solve(BrockMirman(), DDPG(**SMALL), time_limit=1000, checkpoint=file)
    run, state = read(file)
    Checkpoint(file, run).write({**state, "seconds": 5000.0})
    solution = solve(BrockMirman(), DDPG(**SMALL), time_limit=1000, checkpoint=file)
    assert solution.info["steps"] == 8
    assert "time limit after 8 of 80 planned steps" in solution.info["message"]
    assert solution.info["seconds"] > 5000


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"steps": 20}, "steps is 10, not 20"),
        ({"seed": 4}, "seed is 3, not 4"),
        ({"model": BrockMirman(beta=0.9)}, "fingerprint"),
        ({"method": DDPG(rung=1, **SMALL)}, "settings"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(changed, named, tmp_path):
    file = tmp_path / "run"
    call = {"model": BrockMirman(), "method": DDPG(**SMALL), "steps": 10, "seed": 3}
    econrl.solve(**call, progress=False, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(SaveError, match=named):
        econrl.solve(**{**call, **changed}, progress=False, checkpoint=file)
    assert file.read_bytes() == before


def test_a_damaged_checkpoint_and_a_missing_folder_are_refused(tmp_path):
    file = tmp_path / "run"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(SaveError, match="damaged"):
        solve(BrockMirman(), DDPG(**SMALL), steps=10, checkpoint=file)
    assert file.read_bytes() == b"nothing of the kind"
    with pytest.raises(SaveError, match="folder does not exist"):
        solve(BrockMirman(), DDPG(**SMALL), steps=10, checkpoint=tmp_path / "none" / "run")


def test_numbers_texts_and_tensors_come_back_as_they_were(tmp_path):
    state = {"a": [1, 2.5, None, "text"], 3: {"x": torch.arange(4), "empty": torch.zeros(0, 2)}, "inf": float("inf")}
    Checkpoint(tmp_path / "run", {"seed": 1}).write(state)
    back = Checkpoint(tmp_path / "run", {"seed": 1}).state
    assert back["a"] == state["a"]
    assert back["inf"] == float("inf")
    assert torch.equal(back[3]["x"], torch.arange(4))
    assert back[3]["empty"].shape == (0, 2)
    assert len(load_file(tmp_path / "run")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing half written is left
