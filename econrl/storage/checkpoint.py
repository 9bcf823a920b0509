"""The state of a run on disk, so that a run that was killed goes on from there and ends as if it had not been."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from econrl.errors import SaveError
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction, restore
from econrl.storage.files import new_file

FORMAT = 3


class Checkpoint:
    """One file, replaced whole at every measurement: tensors in safetensors, everything else as JSON beside them.

    path    the file; it stays when the run has ended, and then holds its answer
    run     what identifies the run: model, method, settings, seed, budget, device
    """

    def __init__(self, path: str | Path, run: dict[str, Any]) -> None:
        self.path, self.run = Path(path), {"format": FORMAT, **run}
        if not os.access(self.path.resolve().parent, os.W_OK):
            raise SaveError(f"cannot write the checkpoint '{path}': its folder does not exist or cannot be written to")
        self.state = self.read()

    def read(self) -> Any:
        """The state that was written last; None where there is no file. Raises SaveError where the file is damaged or
        belongs to another run."""
        if not self.path.exists():
            return None
        run, state = read(self.path)
        for key, wanted in json.loads(json.dumps(self.run)).items():
            if run.get(key) != wanted:
                raise SaveError(
                    f"the checkpoint '{self.path}' is of another run: its {key} is {short(run.get(key))}, not "
                    f"{short(wanted)}. Repeat that run, or remove the file to begin anew"
                )
        return state

    def write(self, state: Any) -> None:
        """Replace the file by this state: numbers, strings, tensors, in lists and dicts."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        metadata = {"run": json.dumps(self.run), "tree": json.dumps(pack(state, tensors))}
        with new_file(self.path, overwrite=True) as fresh:
            save_file(tensors, fresh, metadata)


def read(path: Path) -> tuple[dict[str, Any], Any]:
    """What a checkpoint file says of its run, and the state. Raises SaveError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            run, tree = (json.loads(file.metadata()[part]) for part in ("run", "tree"))
            return run, unpack(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no dict)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SaveError(f"the checkpoint '{path}' is damaged ({error}); remove it to begin anew") from error


def short(value: Any) -> str:
    """A value as JSON, cut to sixty characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def pack(state: Any, tensors: dict[str, Tensor]) -> Any:
    """`state` with every tensor moved to `tensors` and replaced by its name there."""
    if isinstance(state, Tensor):
        name = str(len(tensors))
        tensors[name] = state.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(state, dict):
        return {"dict": [[key, pack(value, tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return [pack(value, tensors) for value in state]
    return state


def unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack`; tuples come back as lists, tensors on the CPU."""
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: unpack(value, tensors) for key, value in tree["dict"]}
    return [unpack(value, tensors) for value in tree] if isinstance(tree, list) else tree


def function_state(function: StateFunction) -> dict[str, Any]:
    """A policy or value function as numbers and tensors."""
    return {"kind": type(function).__name__, "description": function.describe(), "state": function.state_dict()}


def function_from(mdp: MDP, state: dict[str, Any]) -> StateFunction:
    """The function that `function_state` described."""
    return restore(state["kind"], mdp, state["description"], state["state"])
