"""A solution on disk: JSON and safetensors, which hold data alone, so that loading runs no code from the folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from econrl.errors import EconrlError, SaveError
from econrl.functions import KINDS, StateFunction, restore
from econrl.mdp import MDP
from econrl.model import Model

FORMAT = 1
DESCRIPTION, WEIGHTS, TRAINING = "solution.json", "weights.safetensors", "training.csv"


def check_new_folder(path: str | Path, overwrite: bool = False) -> None:
    """Raises SaveError where `new_folder` would: `path` exists, unless `overwrite` and it is a saved solution."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not overwrite:
            raise SaveError(f"'{path}' exists; nothing was written. Choose another folder, or ask to overwrite it")
        if not (path / DESCRIPTION).exists():
            raise SaveError(f"'{path}' is not a folder that econrl wrote; it will not be overwritten")
    parent = next(p for p in path.resolve().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SaveError(f"cannot write to '{path}': '{parent}' is not a folder that can be written to")


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into that becomes `path` once all of it is written; until then `path` stays as it was.

    Raises SaveError as `check_new_folder`, and where writing fails.
    """
    check_new_folder(path, overwrite)
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield fresh
            check_new_folder(path, overwrite)  # somebody else may have been faster
            if target.exists():
                shutil.rmtree(target)
            fresh.chmod(0o755)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise SaveError(f"cannot write to '{path}': {error.strerror or error}") from error


def write(
    folder: Path, model: Model, policy: StateFunction, value: StateFunction, training: pd.DataFrame, info: dict[str, Any]
) -> None:
    """Write the functions, the model's parameters and what `info` says of the run."""
    from safetensors.torch import save_file

    functions = {"policy": policy, "value": value}
    description = {
        "format": FORMAT,
        "econrl": version("econrl"),
        "model": type(model).__name__,
        "parameters": {name: to_json(v) for name, v in model.parameters().items()},
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

    `model`, a class or an instance, is needed for a model that is neither in `econrl.models` nor imported yet.
    Raises SaveError where the folder is damaged, of another version, or of another model.
    """
    folder = Path(folder)
    description = read_description(folder)
    found = find_model(description, model)
    mdp = MDP(found)
    same = np.allclose(fingerprint(mdp), description["fingerprint"], rtol=1e-9, atol=1e-12, equal_nan=True)
    if len(fingerprint(mdp)) != len(description["fingerprint"]) or not same:
        raise SaveError(
            f"'{folder}' was solved for another {description['model']}: its states, reward or transition differ"
        )
    policy, value = (read_function(folder, mdp, name, description["functions"]) for name in ("policy", "value"))
    try:
        training = pd.read_csv(folder / TRAINING)
    except (OSError, ValueError) as error:
        raise SaveError(f"'{folder}' is damaged: {TRAINING} cannot be read ({error})") from error
    return found, policy, value, training, description["info"]


def read_description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
    except FileNotFoundError as error:
        raise SaveError(f"'{folder}' holds no solution: there is no {DESCRIPTION} in it") from error
    except (OSError, ValueError) as error:
        raise SaveError(f"'{folder}' is damaged: {DESCRIPTION} cannot be read ({error})") from error
    expected = {"format", "econrl", "model", "parameters", "fingerprint", "functions", "info"}
    if not isinstance(description, dict) or not expected <= description.keys():
        raise SaveError(f"'{folder}' is damaged: {DESCRIPTION} lacks {sorted(expected - set(description))}")
    if description["format"] != FORMAT:
        raise SaveError(
            f"'{folder}' has format {description['format']} (written by econrl {description['econrl']}); "
            f"this version reads format {FORMAT}"
        )
    return description


def find_model(description: dict[str, Any], model: Model | type[Model] | None) -> Model:
    """The class that the folder names, with the folder's parameters."""
    import econrl.models  # noqa: F401  (so that the zoo's classes are known)

    name = description["model"]
    if model is None:
        candidates = [c for c in subclasses(Model) if c.__name__ == name]
        if not candidates:
            raise SaveError(
                f"the solution is of a model '{name}', which is not known here: give the model to load it "
                "(--model FILE on the command line)"
            )
        cls = candidates[-1]
    else:
        cls = model if isinstance(model, type) else type(model)
        if cls.__name__ != name:
            raise SaveError(f"the solution is of the model '{name}', not of '{cls.__name__}'")
    try:
        found = cls(**{key: from_json(v) for key, v in description["parameters"].items()})
    except (TypeError, EconrlError) as error:
        raise SaveError(f"the solution's parameters do not fit the model '{name}': {error}") from error
    if isinstance(model, Model) and json.dumps(parameters_json(model)) != json.dumps(parameters_json(found)):
        raise SaveError(f"the solution is of '{name}' with other parameters: {description['parameters']}")
    return found


def parameters_json(model: Model) -> dict[str, Any]:
    return {name: to_json(v) for name, v in model.parameters().items()}


def subclasses(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return [c for child in children for c in (child, *subclasses(child))]


def read_function(folder: Path, mdp: MDP, name: str, functions: dict[str, Any]) -> StateFunction:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            state = {k.removeprefix(f"{name}."): file.get_tensor(k) for k in file.keys() if k.startswith(f"{name}.")}
        kind = functions[name]["kind"]
        if kind not in KINDS:
            raise SaveError(f"'{folder}' holds a {name} of the unknown kind '{kind}'")
        return restore(kind, mdp, functions[name]["description"], state)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise SaveError(f"'{folder}' is damaged: its {name} cannot be read ({str(error).splitlines()[0]})") from error


def fingerprint(mdp: MDP) -> list[float]:
    """Reward and transition at a few fixed states: equal for equal models, whatever their code looks like."""
    s = mdp.sample_box(8, torch.Generator().manual_seed(0))
    a = mdp.act(s, torch.zeros(8, mdp.A, dtype=mdp.dtype))
    values = [mdp.reward(s, a), mdp.transition(s, a, mdp.nodes[0]), mdp.low, mdp.high]
    return torch.cat([v.flatten() for v in values]).tolist()


def to_json(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return {"array": torch.as_tensor(value).tolist()}
    if isinstance(value, list | tuple):
        return {"list": [to_json(v) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) or not isinstance(value, dict):
        raise SaveError(f"a parameter of type {type(value).__name__} cannot be saved; use numbers, strings or arrays")
    return {"dict": {k: to_json(v) for k, v in value.items()}}


def from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return torch.tensor(value["array"], dtype=torch.float64)
    if "list" in value:
        return tuple(from_json(v) for v in value["list"])
    return {k: from_json(v) for k, v in value["dict"].items()}
