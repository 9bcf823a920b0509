"""A solution on disk: JSON and safetensors, which hold data alone, so that loading runs no code from the folder."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from econrl.errors import EconrlError, SaveError
from econrl.problem.frames import columns_of
from econrl.problem.mdp import MDP
from econrl.problem.state_function import KINDS, StateFunction, restore
from econrl.spec.model import Model
from econrl.storage.files import DESCRIPTION

FORMAT = 2
WEIGHTS, TRAINING = "weights.safetensors", "training.csv"


def write(
    folder: Path,
    model: Model,
    policy: StateFunction,
    value: StateFunction,
    training: pd.DataFrame,
    info: dict[str, Any],
) -> None:
    """Write the functions, the model's parameters and what `info` says of the run."""
    from safetensors.torch import save_file

    functions = {"policy": policy, "value": value}
    description = {
        "format": FORMAT,
        "econrl": version("econrl"),
        "model": type(model).__name__,
        "parameters": {name: to_json(v) for name, v in model.parameters().items()},
        **domain_json(model),
        "fingerprint": fingerprint(MDP(model)),
        "functions": {n: {"kind": type(f).__name__, "description": f.describe()} for n, f in functions.items()},
        "info": info,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2))
    tensors = {f"{n}.{key}": t.contiguous().clone() for n, f in functions.items() for key, t in f.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    training.to_csv(folder / TRAINING, index=False)


def read(
    folder: str | Path, model: Model | type[Model] | None = None
) -> tuple[Model, StateFunction, StateFunction, pd.DataFrame, dict[str, Any]]:
    """The inverse of `write`: model, policy, value, training log, info.

    `model`, a class or an instance, is needed for a model that is not imported yet; the kinds of functions must be.
    Raises SaveError where the folder is damaged, of another version, or of another model.
    """
    folder = Path(folder)
    description = read_description(folder)
    found = find_model(description, model)
    mdp = MDP(found)
    policy, value = (read_function(folder, mdp, name, description["functions"]) for name in ("policy", "value"))
    try:
        training = pd.read_csv(folder / TRAINING)
    except (OSError, ValueError) as error:
        raise SaveError(f"'{folder}' is damaged: {TRAINING} cannot be read ({error})") from error
    return found, policy, value, training, description["info"]


def read_description(folder: Path) -> dict[str, Any]:
    """What `write` put into the JSON file. Raises SaveError where it is missing, damaged, or of another version."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
    except FileNotFoundError as error:
        raise SaveError(f"'{folder}' holds no solution: there is no {DESCRIPTION} in it") from error
    except (OSError, ValueError) as error:
        raise SaveError(f"'{folder}' is damaged: {DESCRIPTION} cannot be read ({error})") from error
    expected = {"format", "econrl", "model", "parameters", "fingerprint", "functions", "info"}
    if not isinstance(description, dict) or not expected <= description.keys():
        raise SaveError(f"'{folder}' is damaged: {DESCRIPTION} does not hold {', '.join(sorted(expected))}")
    if description["format"] != FORMAT:
        raise SaveError(
            f"'{folder}' has format {description['format']} (written by econrl {description['econrl']}); "
            f"this version reads format {FORMAT}"
        )
    return description


def find_model(description: dict[str, Any], model: Model | type[Model] | None) -> Model:
    """The class that the folder names, with the folder's parameters: the one given, or one that is known here."""
    name = description["model"]
    if model is not None:
        cls = model if isinstance(model, type) else type(model)
        if cls.__name__ in parts(description):
            model = None  # it is known now, and the folder has its parameters
    if model is not None:
        if cls.__name__ != name:
            raise SaveError(f"the solution is of the model '{name}', not of '{cls.__name__}'")
        found = instance(cls, description)
        if isinstance(model, Model) and json.dumps(parameters_json(model)) != json.dumps(parameters_json(found)):
            raise SaveError(f"the solution is of '{name}' with other parameters: {description['parameters']}")
        return found
    candidates = [c for c in subclasses(Model) if c.__name__ == name]
    if not candidates:
        raise SaveError(
            f"the solution is of a model '{name}', which is not known here: give the model to load it "
            "(--model FILE on the command line)"
        )
    errors = []
    for cls in candidates:
        try:
            return instance(cls, description)
        except SaveError as error:
            errors.append(error)
    raise errors[0]


def instance(cls: type[Model], description: dict[str, Any]) -> Model:
    """The class with the folder's parameters; raises SaveError where they do not fit, or its equations differ."""
    name = cls.__name__
    try:
        found = cls(**{key: from_json(v) for key, v in description["parameters"].items()})
        found = found.with_domain(from_json(description.get("domain", {"dict": {}})))
    except (TypeError, AttributeError, KeyError, EconrlError) as error:
        raise SaveError(f"the solution's parameters do not fit the model '{name}': {error}") from error
    if not same_fingerprint(fingerprint(MDP(found)), description["fingerprint"]):
        raise SaveError(
            f"the folder was solved for another {name}: its variables, shocks, bounds, "
            "reward, transition or discount differ"
        )
    return found


def parts(description: dict[str, Any]) -> list[str]:
    """The models that are parameters of the folder's model, as the one that a family consists of."""
    values = description["parameters"].values()
    return [value["model"] for value in values if isinstance(value, dict) and "model" in value]


def parameters_json(model: Model) -> dict[str, Any]:
    """A model's parameters as JSON holds them. Raises SaveError where one cannot be saved."""
    return {name: to_json(v) for name, v in model.parameters().items()}


def domain_json(model: Model) -> dict[str, Any]:
    """The entry for a domain that is not the model's own; none for one that is, as in folders of version 0.1."""
    return {"domain": to_json(model.domain)} if model.domain else {}


def subclasses(cls: type) -> list[type]:
    """All classes that derive from this one, their own subclasses included."""
    children: list[type] = cls.__subclasses__()
    return [c for child in children for c in (child, *subclasses(child))]


def read_function(folder: Path, mdp: MDP, name: str, functions: dict[str, Any]) -> StateFunction:
    """The folder's policy or value, by `name`. Raises SaveError where it is damaged or of an unknown kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            keys = [k for k in list(file.keys()) if k.startswith(f"{name}.")]
            state = {k.removeprefix(f"{name}."): file.get_tensor(k) for k in keys}
        kind = functions[name]["kind"]
        if kind not in KINDS:
            raise SaveError(f"'{folder}' holds a {name} of the unknown kind '{kind}'")
        return restore(kind, mdp, functions[name]["description"], state)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise SaveError(f"'{folder}' is damaged: its {name} cannot be read ({str(error).splitlines()[0]})") from error


def fingerprint(mdp: MDP) -> dict[str, Any]:
    """A model's names, and its functions at a few fixed states: equal for equal models, whatever their code."""
    s = mdp.sample_box(8, torch.Generator().manual_seed(0))
    a = mdp.act(s, torch.zeros(8, mdp.A, dtype=mdp.dtype))
    e = mdp.nodes[:: max(len(mdp.nodes) // 10, 1)]
    s_, a_ = s.unsqueeze(-2), a.unsqueeze(-2)
    values = [mdp.low, mdp.high, mdp.weights(s), e, a, mdp.reward(s, a), mdp.transition(s_, a_, e)]
    values.append(mdp.discount(s_, a_, e).expand(8, len(e)))
    values += mdp.tables
    if mdp.horizon is not None:
        values.append(mdp.terminal(torch.cat([s[:, :-1], torch.full_like(s[:, -1:], mdp.horizon)], dim=-1)))
    if not mdp.preferences.additive:
        rising = s.new_tensor([0.5, 1.0, 2.0])  # rewards, as tomorrow's values
        u = mdp.preferences.felicity(rising)
        ahead = mdp.preferences.certainty(u.expand(3, 3), torch.ones_like(u) / 3, torch.ones_like(u))
        values += [ahead, mdp.preferences.aggregate(u, ahead)]
    if mdp.tastes > 0:
        values.append(mdp.tensor([mdp.tastes]))
    available = mdp.alternatives.available(s)
    if available is not None:
        values.append(available.to(s))
    layouts = (mdp.state_slots, mdp.action_slots, mdp.shock_slots)
    names = [column for layout in layouts for column in columns_of(layout)]
    return {"names": names, "values": torch.cat([v.flatten() for v in values]).tolist()}


def same_fingerprint(one: dict[str, Any], other: Any) -> bool:
    """Whether two fingerprints agree up to rounding."""
    if not isinstance(other, dict) or one["names"] != other.get("names"):
        return False
    values, others = np.array(one["values"]), np.array(other.get("values", []), dtype=float)
    return values.shape == others.shape and np.allclose(values, others, rtol=1e-9, atol=1e-12, equal_nan=True)


def to_json(value: Any) -> Any:
    """A parameter as JSON holds it. Raises SaveError where it is not numbers, strings, arrays, or made of these."""
    if isinstance(value, Tensor | np.ndarray):
        return {"array": torch.as_tensor(value).double().tolist()}  # which is what comes back
    if isinstance(value, list | tuple):
        return {"list": [to_json(v) for v in value]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Model):
        return {"model": type(value).__name__, "parameters": parameters_json(value), **domain_json(value)}
    if dataclasses.is_dataclass(value) or not isinstance(value, dict):
        raise SaveError(f"a parameter of type {type(value).__name__} cannot be saved; use numbers, strings or arrays")
    return {"dict": {k: to_json(v) for k, v in value.items()}}


def from_json(value: Any) -> Any:
    """The inverse of `to_json`, with arrays as tensors and lists as tuples."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return torch.tensor(value["array"], dtype=torch.float64)
    if "list" in value:
        return tuple(from_json(v) for v in value["list"])
    if "model" in value:
        return part(value)
    return {k: from_json(v) for k, v in value["dict"].items()}


def part(value: dict[str, Any]) -> Model:
    """A model that is a parameter of another; its equations are tested with those of the whole. Fields that came later
    have their defaults."""
    parameters = {name: from_json(v) for name, v in value["parameters"].items()}
    for cls in subclasses(Model):
        if cls.__name__ != value["model"]:
            continue
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
        later = [f for name, f in fields.items() if name not in parameters]
        if set(parameters) <= set(fields) and all(f.default is not dataclasses.MISSING for f in later):
            return cls(**parameters).with_domain(from_json(value.get("domain", {"dict": {}})))
    raise SaveError(f"a model '{value['model']}' with parameters {', '.join(parameters)} is not known here")
