"""What a method gives the driver: where it begins, one step, its present answer, and its state."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

from econrl.accuracy.held_out import HeldOut
from econrl.problem.mdp import MDP
from econrl.solvers.common.task import Answer, OutOfTime, Task


class Run:
    """The course of one method on one model. The driver (`driver.py`) makes steps until the run has `converged`, says
    in `message` why it cannot go on, or a budget is spent. It measures the answers, and returns the best.

    A subclass does its work in `begin` and `step`, and gives up within them by `look_at_the_clock` where they may take
    long. What it needs to go on after a crash is in `state`.
    """

    overrules_measure: ClassVar[bool] = False
    """Whether the last answer of a run that converged is returned, though one before it had a lower measured error."""

    def __init__(self, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        self.mdp, self.task, self.held_out = mdp, task, held_out
        self.converged = False
        self.message = ""
        """Why the run cannot go on, where it has not converged."""
        self.columns: dict[str, float] = {}
        """What the log shows beside the error: the change of the last step, ..."""
        self.reserve = 0.0
        """Seconds of the time limit that `finish` needs."""
        self.planned_steps: int | None = None
        """The steps that the run would end with; where rates are annealed, they depend on it."""

    def begin(self) -> None:
        """What comes before the first step; not repeated where a checkpoint is resumed."""

    @property
    def last_step(self) -> int | None:
        """The number of the last step where the run knows it: planned steps, periods of a life; else None."""
        return self.task.steps

    def step(self) -> None:
        """One step. Raises OutOfTime where the clock stops it in the middle."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether there is an answer to measure."""
        return True

    def due(self, step: int) -> bool:
        """Whether the answer after this step is to be measured, 0 being the beginning; the last one always is."""
        return step > 0

    def keeps(self, step: int) -> bool:
        """Whether the state after this step belongs into the checkpoint; by default where the answer is measured."""
        return self.due(step)

    def answer(self) -> Answer:
        """Policy and value as they are now."""
        raise NotImplementedError

    def measured(self, error: float, best: bool) -> None:
        """Hear the error of the last answer, and whether it is the lowest yet."""

    def finish(self, answer: Answer) -> Answer:
        """The last touch to the best answer, as the value of its policy; within the time that is left."""
        return answer

    def check(self, converged: bool) -> None:
        """Raise SolveError where the run has no right answer though it has converged, by itself or to the tolerance, or
        cannot go on."""

    def where(self, step: int) -> str:
        """How far the run has come, for messages: `after 12 iterations, at a change of 1.0e-05`."""
        return f"after {step} steps"

    def all_steps_made(self, step: int) -> str:
        """What is to be said where the run ends with its last step without having converged; nothing if all do."""
        return f"stopped {self.where(step)}"

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on: numbers, strings, tensors, in lists and dicts."""
        raise NotImplementedError

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in place of `begin`."""
        raise NotImplementedError

    def look_at_the_clock(self) -> None:
        """Raise OutOfTime where no time is left but for `finish`."""
        if self.task.remaining() <= self.reserve:
            raise OutOfTime


class Iterated(Protocol):
    """The settings of a fixed-point iteration."""

    @property
    def change(self) -> float:
        """Largest change at which it ends."""

    @property
    def every(self) -> int:
        """Iterations from one measurement of the error to the next."""


class Iteration(Run):
    """A fixed-point iteration: it ends where an iterate changes by no more than the method asks for, or where that has
    not fallen for `patience` iterations.

    A subclass tells each iteration's change to `note`.
    """

    patience: ClassVar[float] = math.inf

    def __init__(self, method: Iterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.wanted, self.every = method.change, method.every
        self.change, self.smallest, self.since = math.inf, math.inf, 0

    def note(self, change: float, converges: bool = True) -> None:
        """Count an iteration with this change, after which the iteration has converged if the change is small and it
        `converges`."""
        self.smallest, self.since = (change, 0) if change < self.smallest else (self.smallest, self.since + 1)
        self.change, self.columns = change, {"change": change}
        stuck = self.since >= self.patience
        self.converged = (change <= self.wanted and converges) or (stuck and self.smallest <= self.wanted)
        if stuck and not self.converged:
            self.message = f"the change stopped falling at {self.smallest:.1e} (asked for: {self.wanted:.1e})"

    def due(self, step: int) -> bool:
        return step > 0 and step % self.every == 0

    def where(self, step: int) -> str:
        at = f", at a change of {self.change:.1e}" if self.change < math.inf else ""
        return f"after {step} iterations{at}"

    def state(self) -> dict[str, Any]:
        return {"changes": [self.change, self.smallest, self.since]}

    def restore(self, state: dict[str, Any]) -> None:
        self.change, self.smallest, self.since = state["changes"]


class LifeCycleRun(Run):
    """A life cycle, solved backwards: one step a period, the last period first.

    A subclass solves one period in `solve_period`, and its `answer` gives the periods before `horizon - done`, which
    were not reached, the functions of that one.
    """

    overrules_measure = True

    def __init__(self, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        assert mdp.horizon is not None
        self.horizon: int = mdp.horizon
        self.done = 0

    @property
    def last_step(self) -> int:
        return self.horizon if self.task.steps is None else min(self.task.steps, self.horizon)

    def step(self) -> None:
        self.solve_period(self.horizon - self.done - 1)
        self.done += 1
        self.converged = self.done == self.horizon

    def solve_period(self, t: int) -> None:
        """Period t, given the policy and the value of t + 1."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        return self.done > 0

    def due(self, step: int) -> bool:
        return self.converged

    def keeps(self, step: int) -> bool:
        return True

    def where(self, step: int) -> str:
        return f"after {self.done} periods, with {self.horizon - self.done} of {self.horizon} to go"
