"""What every method shares: its settings are a frozen dataclass, and `run` turns a task into a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from econrl.accuracy import HeldOut
from econrl.checkpoint import Checkpoint, function_from, function_state
from econrl.errors import MethodError, SolveError
from econrl.functions import StateFunction
from econrl.mdp import MDP
from econrl.model import Model


@dataclass
class Task:
    """One call of `solve`: the model, the budget, and where the progress goes."""

    model: Model
    device: torch.device
    seed: int = 0
    steps: int | None = None
    time_limit: float | None = None
    tol: float | None = None
    report: Callable[[dict[str, Any]], None] = lambda row: None
    checkpoint: Checkpoint | None = None
    warm_start: tuple[StateFunction, StateFunction] | None = None
    """Policy and value to begin from."""
    started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def remaining(self) -> float:
        return float("inf") if self.time_limit is None else self.time_limit - self.elapsed()

    def generator(self, device: torch.device | str | None = None) -> torch.Generator:
        return torch.Generator(device or self.device).manual_seed(self.seed)


class OutOfTime(Exception):
    """The time limit passed in the middle of a step."""


@dataclass
class Result:
    """What a method hands back: the best policy it saw on held-out points, its value, and how it went."""

    policy: StateFunction
    value: StateFunction
    log: list[dict[str, Any]]
    steps: int
    converged: bool
    message: str = ""
    interrupted: bool = False
    """Whether Ctrl-C ended it."""
    planned_steps: int | None = None
    """The steps that the run would have ended with; where rates are annealed, they depend on it."""


class Tracker:
    """Keeps the best policy seen on held-out points, writes the log, and says when to stop."""

    def __init__(self, task: Task, held_out: HeldOut):
        self.task, self.held_out = task, held_out
        self.log: list[dict[str, Any]] = []
        self.best: tuple[float, int, StateFunction, StateFunction] | None = None

    def measure(self, step: int, policy: StateFunction, value: StateFunction, **columns: float) -> None:
        """Measure the error now, and keep the functions if it is the lowest yet."""
        error = self.held_out.error(policy, value)
        if self.best is None or error < self.best[0]:
            self.best = error, step, policy.on(self.held_out.mdp), value.on(self.held_out.mdp)
        row = {"step": step, "seconds": self.task.elapsed(), "error": error, **columns}
        self.log.append(row)
        self.task.report(row)

    @property
    def converged(self) -> bool:
        """Whether the last error measured is at most `tol`."""
        return self.task.tol is not None and len(self.log) > 0 and self.log[-1]["error"] <= self.task.tol

    def keep(self, run: Any) -> None:
        """Write the state of a run, and all that was measured so far, to the task's checkpoint if it has one."""
        if self.task.checkpoint is None:
            return
        assert self.best is not None
        error, step, *functions = self.best
        best = [error, step, *(function_state(function) for function in functions)]
        self.task.checkpoint.write({"seconds": self.task.elapsed(), "log": self.log, "best": best, "run": run})

    def resume(self) -> Any:
        """The state of the run that the checkpoint holds, or None; its clock, log and best policy go on from there."""
        if self.task.checkpoint is None or self.task.checkpoint.state is None:
            return None
        kept = self.task.checkpoint.state
        self.task.started -= kept["seconds"]
        error, step, policy, value = kept["best"]
        mdp = self.held_out.mdp
        self.log, self.best = kept["log"], (error, step, function_from(mdp, policy), function_from(mdp, value))
        return kept["run"]

    def result(self, steps: int, message: str = "", **more: Any) -> Result:
        """The best policy seen; raises SolveError if a run ended before any was measured."""
        if self.best is None:
            raise SolveError(f"stopped before the first policy was measured ({message or 'no step was made'})")
        _, _, policy, value = self.best
        return Result(policy, value, self.log, steps, message=message, **{"converged": self.converged, **more})


def require(method: Method, name: str, ok: bool, what: str) -> None:
    """Raise MethodError where a setting is not `what` it must be."""
    if not ok:
        raise MethodError(f"{method.name}: `{name}` must be {what}, got {getattr(method, name)!r}")


class Method:
    """Base of the methods. A subclass is a frozen dataclass of its settings, and defines `run`."""

    name: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float64
    threads: ClassVar[int] = 1  # small networks and grids: a second thread costs more than it brings
    warm: ClassVar[bool] = False  # whether it can begin from a solution
    choices: ClassVar[bool] = False  # whether it can treat discrete choices
    improves: ClassVar[bool] = True  # whether it looks for the best policy, rather than judge one
    nodes: int  # quadrature nodes a shock, a setting of every method

    def why_not(self, mdp: MDP) -> str | None:
        """Why this method cannot solve this model, or None."""
        if mdp.choices and not self.choices:
            names = ", ".join(f"'{mdp.action_slot(column).name}'" for column, _ in mdp.choices)
            return f"it takes continuous actions alone, and {names} is a discrete choice"
        return self.refuse(mdp)

    def refuse(self, mdp: MDP) -> str | None:
        """What a method has against a model, but for choices where it takes none; or None."""
        return None

    def run(self, mdp: MDP, task: Task) -> Result:
        """Solve. `mdp` is the task's model on its device in this method's precision."""
        raise NotImplementedError

    def held_out(self, task: Task) -> HeldOut:
        """What the progress of a run is judged by."""
        return HeldOut(task.model, task.device)
