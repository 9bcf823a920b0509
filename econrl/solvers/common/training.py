"""What all learning methods share: planned steps, each of which lets the environments go on and learns from them."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch

from econrl.accuracy.held_out import HeldOut
from econrl.problem.diagnose import Broken
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task

POINTS = 400  # on which a run is judged as it goes: enough to see which of its policies is the best
MEASURE_EVERY = 50  # steps: a measurement costs as much as some tens of them
MEASUREMENTS = 12  # of the held-out error, at most in a run: rates are annealed, and the last policies are the best
LIGHTER = 2  # times as many steps from one measurement to the next where a step costs little beside it
DEFAULT_STEPS = 10_000  # a minute or two on a small model
TO_PLAN = 0.05  # of a time limit, after which no more steps are timed
FOR_LEARNING = 0.95  # of a time limit; what is planned must fit, although the machine may become busier


class Learner(Protocol):
    """The state of a run that learns, and how it goes on."""

    broken: Broken

    def advance(self) -> None:
        """The environments go on."""

    def update(self, rate: float) -> None:
        """Learn from what they showed; a share `rate` of the run is left."""

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """Policy and value as they are now."""

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


@dataclass(frozen=True)
class Trained(Method):
    """A method that learns in steps: its `learner` holds the state of a run."""

    light: ClassVar[bool] = False  # whether a step costs little beside a measurement of the error

    every: int | None = field(default=None, kw_only=True)
    """Gradient steps from one measurement of the error to the next; None: 50 (100 where they are light), or more in a
    long run, which is measured twelve times."""

    def __post_init__(self) -> None:
        require(self, "every", self.every is None or self.every >= 1, "at least 1")

    @property
    def between(self) -> int:
        """The fewest steps between two measurements."""
        return self.every or MEASURE_EVERY * (LIGHTER if self.light else 1)

    @property
    def most(self) -> float:
        """The most measurements in a run."""
        return math.inf if self.every else MEASUREMENTS

    def learner(self, mdp: MDP, task: Task) -> Learner:
        """The networks, environments, ... with which learning begins."""
        raise NotImplementedError

    def held_out(self, task: Task) -> HeldOut:
        return HeldOut(task.model, task.device, POINTS)

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Training:
        return Training(self, mdp, task, held_out)

    def plan(self, training: Training) -> int:
        """How many steps fit into the time limit, from the speed of a few that are then taken back."""
        task, learner = training.task, training.learner
        if task.time_limit is None:
            return DEFAULT_STEPS
        before, patience = copy.deepcopy(learner.state()), TO_PLAN * task.time_limit

        def seconds(action: Callable[[], object], times: int) -> float:
            begun, done = clock(task.device), 0
            while done < times and (done == 0 or time.perf_counter() - begun < patience):
                action()
                done += 1
            return (clock(task.device) - begun) / done

        def one_step() -> None:
            learner.advance()
            learner.update(1e-12)

        one_step()
        for_step = seconds(one_step, 20)
        for_measuring = seconds(lambda: training.held_out.error(*learner.answer()), 1)
        learner.restore(before)
        return steps_in(FOR_LEARNING * task.remaining(), for_step, for_measuring, self.between, self.most)


class Training(Run):
    """The run of a learning method: for the task's steps, or for as many as its time limit allows, which is measured
    before it begins."""

    def __init__(self, method: Trained, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method, self.learner = method, method.learner(mdp, task)
        self.made = 0

    def begin(self) -> None:
        self.planned_steps = self.task.steps or self.method.plan(self)

    @property
    def last_step(self) -> int | None:
        return self.planned_steps

    @property
    def planned(self) -> int:
        """The steps of the whole run."""
        assert self.planned_steps is not None
        return self.planned_steps

    def step(self) -> None:
        self.learner.advance()
        self.learner.update(1 - self.made / self.planned)
        self.made += 1

    def due(self, step: int) -> bool:
        return step > 0 and step % max(int(self.planned / self.method.most), self.method.between) == 0

    def answer(self) -> tuple[StateFunction, StateFunction]:
        self.learner.broken.raise_if_seen(self.mdp)
        return self.learner.answer()

    def where(self, step: int) -> str:
        return f"after {step} of {self.planned_steps} planned steps" if self.planned_steps else "before its first step"

    def all_steps_made(self, step: int) -> str:
        return ""

    def state(self) -> dict[str, Any]:
        return {"planned": self.planned, "made": self.made, "learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.planned_steps, self.made = state["planned"], state["made"]
        self.learner.restore(state["learner"])


def steps_in(seconds: float, for_step: float, for_measuring: float, between: int, most: float = MEASUREMENTS) -> int:
    """How many steps fit in, given the seconds that a step and a measurement take, the fewest steps between two
    measurements, and the most of these."""
    steps = seconds / (for_step + for_measuring / between)
    if steps > most * between:
        steps = (seconds - most * for_measuring) / for_step
    return max(int(steps), 1)


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
