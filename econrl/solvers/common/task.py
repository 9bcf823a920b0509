"""One call of `solve`, and what a method hands back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from econrl.problem.state_function import StateFunction
from econrl.spec.model import Model

Answer = tuple[StateFunction, StateFunction]
"""A policy and its value."""


class Keeps(Protocol):
    """Where the state of a run is kept, as `storage.checkpoint.Checkpoint` does."""

    state: Any
    """What was written last; None where nothing was."""

    def write(self, state: Any) -> None:
        """Replace it by this state: numbers, strings, tensors, in lists and dicts."""


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
    checkpoint: Keeps | None = None
    warm_start: Answer | None = None
    """Policy and value to begin from."""
    started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        """Seconds since the call began, those before a checkpoint included."""
        return time.perf_counter() - self.started

    def resume_clock(self, seconds: float) -> None:
        """Count what a run had taken before it was stopped."""
        self.started = min(self.started, time.perf_counter() - seconds)

    def remaining(self) -> float:
        """Seconds until the time limit; infinite without one."""
        return float("inf") if self.time_limit is None else self.time_limit - self.elapsed()

    def generator(self, device: torch.device | str | None = None) -> torch.Generator:
        """A generator of random numbers that begins from the task's seed."""
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
    model: Model | None = None
    """The model that was solved, where that is on another domain than the one given."""
