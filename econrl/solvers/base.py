"""What every method shares: its settings are a frozen dataclass, and `run` turns a task into a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from econrl.accuracy import HeldOut
from econrl.errors import SolveError
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
    started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def remaining(self) -> float:
        return float("inf") if self.time_limit is None else self.time_limit - self.elapsed()

    def generator(self, device: torch.device | str | None = None) -> torch.Generator:
        return torch.Generator(device or self.device).manual_seed(self.seed)


@dataclass
class Result:
    """What a method hands back: the best policy it saw on held-out points, its value, and how it went."""

    policy: StateFunction
    value: StateFunction
    log: list[dict[str, Any]]
    steps: int
    converged: bool
    message: str = ""


class Tracker:
    """Keeps the best policy seen on held-out points, writes the log, and says when to stop."""

    def __init__(self, task: Task, held_out: HeldOut):
        self.task, self.held_out = task, held_out
        self.log: list[dict[str, Any]] = []
        self.best: tuple[float, int, StateFunction, StateFunction] | None = None

    def measure(self, step: int, policy: StateFunction, value: StateFunction, **columns: float) -> bool:
        """Measure the error now, keep the functions if it is the lowest yet; true if it is at most `tol`."""
        error = self.held_out.error(policy, value)
        if self.best is None or error < self.best[0]:
            self.best = error, step, policy.on(self.held_out.mdp), value.on(self.held_out.mdp)
        row = {"step": step, "seconds": self.task.elapsed(), "error": error, **columns}
        self.log.append(row)
        self.task.report(row)
        return self.task.tol is not None and error <= self.task.tol

    def result(self, steps: int, converged: bool, message: str = "") -> Result:
        """The best policy seen; raises SolveError if a run ended before any was measured."""
        if self.best is None:
            raise SolveError(f"stopped before the first policy was measured ({message or 'no step was made'})")
        _, _, policy, value = self.best
        return Result(policy, value, self.log, steps, converged, message)


class Method:
    """Base of the methods. A subclass is a frozen dataclass of its settings, and defines `run`."""

    name: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float64
    threads: ClassVar[int] = 1  # small networks and grids: a second thread costs more than it brings
    nodes: int | None  # quadrature nodes a shock, a setting of every method

    def refuse(self, mdp: MDP) -> str | None:
        """Why this method cannot treat this model, or None."""
        return None

    def run(self, mdp: MDP, task: Task) -> Result:
        """Solve. `mdp` is the task's model on its device in this method's precision."""
        raise NotImplementedError
