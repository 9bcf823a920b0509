"""What every method shares: its settings are a frozen dataclass, and `begin` gives the run that the driver moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from econrl.accuracy.held_out import HeldOut
from econrl.errors import MethodError
from econrl.problem.mdp import MDP
from econrl.solvers.common.driver import drive
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Result, Task


def require(method: Method, name: str, ok: bool, what: str) -> None:
    """Raise MethodError where a setting is not `what` it must be."""
    if not ok:
        raise MethodError(f"{method.name}: `{name}` must be {what}, got {getattr(method, name)!r}")


class Method:
    """Base of the methods. A subclass is a frozen dataclass of its settings, and defines `begin`."""

    name: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float64
    threads: ClassVar[int] = 1  # small networks and grids: a second thread costs more than it brings
    warm: ClassVar[bool] = False  # whether it can begin from a solution
    choices: ClassVar[bool] = False  # whether it can treat discrete choices
    tastes: ClassVar[bool] = False  # whether it can where their options have taste shocks
    recursive: ClassVar[bool] = False  # whether it can treat utility that is recursive
    improves: ClassVar[bool] = True  # whether it looks for the best policy, rather than judge one
    nodes: int  # quadrature nodes a shock, a setting of every method

    def why_not(self, mdp: MDP) -> str | None:
        """Why this method cannot solve this model, or None."""
        if mdp.choices and not self.choices:
            names = ", ".join(f"'{mdp.action_slot(column).name}'" for column, _ in mdp.choices)
            return f"it takes continuous actions alone, and {names} is a discrete choice"
        if not mdp.preferences.additive and not self.recursive:
            return f"it takes sums of rewards alone, and the model has {mdp.preferences.text()}"
        if mdp.alternatives.shocked is not None and not self.tastes:
            name = mdp.action_slot(mdp.alternatives.shocked).name
            return f"it takes no taste shocks, and the options of '{name}' have them"
        return self.refuse(mdp)

    def refuse(self, mdp: MDP) -> str | None:
        """What a method has against a model, but for choices, taste shocks and recursive utility if it takes none; or
        None."""
        return None

    def cost(self, mdp: MDP) -> float:
        """About how many seconds it takes here on one core; infinite where `auto` is not to try it."""
        return math.inf

    def reach(self, mdp: MDP) -> float:
        """The lowest held-out error that it can be expected to come to here."""
        return 0.0

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """A run before its first step. `mdp` is the task's model on its device in this method's precision, `held_out`
        what the answers will be judged by."""
        raise NotImplementedError

    def run(self, mdp: MDP, task: Task) -> Result:
        """Solve: by default one run, moved by the driver."""
        return drive(self, mdp, task)

    def held_out(self, task: Task) -> HeldOut:
        """What the answers of a run are judged by."""
        return HeldOut(task.model, task.device)


def each(method: Method, name: str, setting: Any, d: int) -> list[Any]:
    """A setting that is one number, or one for each of d continuous states."""
    values = list(setting) if isinstance(setting, Sequence) else [setting] * d
    if len(values) != d:
        raise MethodError(f"{method.name}: `{name}` has {len(values)} entries, and the model has {d} continuous states")
    return values
