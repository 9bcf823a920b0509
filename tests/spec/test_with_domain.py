"""A model on another domain than its own: `Model.with_domain`."""

import dataclasses
import json
import pickle
import shutil

import pytest
import torch

import econrl
from econrl import VI, SaveError, SpecError
from econrl.accuracy.held_out import HeldOut
from econrl.command.cli import variables
from econrl.family.family import Family
from econrl.models import IRBC, BrockMirman, BufferStock, Copies, LinearQuadratic, RustBus, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.spec.variables import State
from econrl.storage.files import DESCRIPTION

WIDE = StochasticGrowth().with_domain({"k": (0.5, 1.6)})


def ends(model):
    """Low and high of every column."""
    mdp = MDP(model)
    return mdp.low.tolist(), mdp.high.tolist()


def test_some_states_have_another_domain_and_the_others_keep_theirs():
    assert ends(WIDE) == ([0.5, -0.1], [1.6, 0.1])
    assert ends(WIDE.with_domain({"z": (-0.2, 0.3)})) == ([0.5, -0.2], [1.6, 0.3])
    assert ends(StochasticGrowth()) == ([0.9, -0.1], [1.1, 0.1])
    assert WIDE.domain == {"k": (0.5, 1.6)}
    assert StochasticGrowth().domain == {}


def test_a_vector_has_one_pair_or_one_for_each_part():
    model = LinearQuadratic(n=2)
    assert ends(model.with_domain({"x": (-2, 3)})) == ([-2.0, -2.0], [3.0, 3.0])
    with pytest.raises(SpecError, match="2 low and 3 high"):
        model.with_domain({"x": ([-1, -2], [3, 4, 5])})
    several = model.with_domain({"x": (torch.tensor([-1.0, -2.0]), [3, 4])})
    assert ends(several) == ([-1.0, -2.0], [3.0, 4.0])
    assert variables(several)[0] == ["x[2] in [-2, 4]"]
    assert State("x", (0.0, -1.0), 2.0, size=2).hull([State("x", -0.5, (1.0, 3.0), size=2)]).high == (1.0, 3.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.replace(gamma=5.0),
        lambda model: model.to("cpu", torch.float32),
        lambda model: model.with_features({"country": {"g": torch.ones(2)}}),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: HeldOut(model).mdp.model,
        lambda model: Copies(one=model, n=2).to("cpu", torch.float64).one,
        lambda model: Family(one=model, over={"gamma": (1.0, 2.0)}).member({"gamma": 1.5}),
        lambda model: Family(one=StochasticGrowth(), over={"gamma": (1.0, 2.0)}).with_domain(model.domain).one,
    ],
)
def test_what_is_made_from_a_model_keeps_the_domain(change):
    assert ends(change(WIDE))[0] == pytest.approx([0.5, -0.1])


def test_group_features_are_kept():
    features = {"country": {"g": torch.ones(2, dtype=torch.float64)}}
    for model in (IRBC().with_features(features).with_domain({"k": (0.5, 2)}),
                  IRBC().with_domain({"k": (0.5, 2)}).with_features(features)):  # fmt: skip
        assert model.group_features() is features
        assert ends(model)[0] == [0.5, 0.5, -0.15, -0.15]


@pytest.mark.parametrize(
    ("model", "domain", "says"),
    [
        (StochasticGrowth(), {"x": (0, 1)}, "no state 'x'.*it has: k, z"),
        (StochasticGrowth(), {"k": 1.0}, "must be a pair"),
        (StochasticGrowth(), {"k": (1.1, 0.9)}, "low must be below high"),
        (StochasticGrowth(), {"k": ("a", 1.0)}, "must be numbers"),
        (StochasticGrowth(), {"k": (0.0, float("nan"))}, "finite"),
        (RustBus(tastes=3), {"taste": (0, 1)}, "MarkovChain, whose domain cannot be set"),
        (Family(one=StochasticGrowth(), over={"gamma": (1.0, 2.0)}), {"gamma": (0.5, 3.0)}, "no state 'gamma'"),
    ],
)
def test_what_is_no_domain_is_refused(model, domain, says):
    with pytest.raises(SpecError, match=says):
        model.with_domain(domain)


def test_a_saved_solution_has_the_domain_it_was_solved_on(tmp_path):
    econrl.check(WIDE)
    solution = econrl.solve(WIDE, "perturbation")
    solution.save(tmp_path / "wide")
    loaded = econrl.load(tmp_path / "wide")
    assert loaded.model.domain == WIDE.domain
    assert torch.equal(loaded.mdp.high, MDP(WIDE).high)
    assert econrl.load(tmp_path / "wide", StochasticGrowth()).model.domain == WIDE.domain
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "wide", moved)
    description = json.loads((moved / DESCRIPTION).read_text())
    del description["domain"]
    (moved / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(SaveError, match="solved for another"):
        econrl.load(moved)
    econrl.solve(StochasticGrowth(), "perturbation").save(tmp_path / "own")
    assert "domain" not in json.loads((tmp_path / "own" / DESCRIPTION).read_text())


def test_a_model_within_a_model_is_saved_with_its_domain(tmp_path):
    one = BrockMirman().with_domain({"z": (-0.5, 0.5)})
    family = econrl.solve(one, "perturbation", over={"alpha": (0.3, 0.4)})
    family.save(tmp_path / "family")
    assert econrl.load(tmp_path / "family").at(alpha=0.33).model.domain == one.domain
    econrl.solve(Copies(one=one, n=2), "perturbation").save(tmp_path / "copies")
    assert econrl.load(tmp_path / "copies").mdp.high[-1] == 0.5


def test_a_checkpoint_belongs_to_its_domain(tmp_path):
    model = BufferStock().with_domain({"m": (0.3, 4.0)})
    method = dataclasses.replace(VI(), points=8)
    econrl.solve(model, method, steps=1, checkpoint=tmp_path / "run")
    econrl.solve(model, method, steps=1, checkpoint=tmp_path / "run")
    with pytest.raises(SaveError, match="another run"):
        econrl.solve(BufferStock(), method, steps=1, checkpoint=tmp_path / "run")
