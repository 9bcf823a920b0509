"""Folders written by version 0.1 load, and give the policy that they gave then."""

import json
from pathlib import Path

import pytest
import torch

import econrl
from econrl.problem.state_function import KINDS

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "data" / "saved_by_0.1").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_saved_by_0_1_loads_and_gives_the_same_policy(folder):
    solution, expected = econrl.load(folder), json.loads((folder / "expected.json").read_text())
    assert json.loads((folder / "solution.json").read_text())["econrl"] == "0.1.0"
    s = torch.tensor(expected["states"], dtype=torch.float64)
    for function, name in ((solution._policy, "policy"), (solution._value, "value")):
        found, then = function(s), torch.tensor(expected[name], dtype=torch.float64)
        assert found.shape == then.shape
        assert found.isfinite().all()
        assert (found - then).abs().max() <= 1e-12 * then.abs().max().clamp(min=1.0)


def test_they_hold_the_kinds_of_functions_that_0_1_saved():
    saved = set()
    for folder in FOLDERS:
        described = json.loads((folder / "solution.json").read_text())["functions"]
        saved |= {function["kind"] for function in described.values()}
    assert len(saved) >= 15
    assert saved <= set(KINDS)
