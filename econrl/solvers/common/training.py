"""What all learning methods share: a loop of steps, each measured now and then, and the optimiser of their networks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch

from econrl.problem.diagnose import Broken
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import Method
from econrl.solvers.common.task import Result, Task
from econrl.solvers.common.tracker import Tracker

MEASUREMENTS, MEASURE_EVERY = 40, 20  # of the held-out error: at most in a run; the fewest steps between two
LIGHTER = 5  # times as many where steps are light
DEFAULT_STEPS = 10_000
TO_PLAN = 0.05  # of a time limit, after which no more steps are timed


class Learns(Protocol):
    """The state of a run, and how it goes on."""

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


class Trained(Method):
    """A method that learns in steps: its `learner` holds the state of a run."""

    light: ClassVar[bool] = False  # whether a step costs little beside a measurement of the error

    @property
    def between(self) -> int:
        """The fewest steps between two measurements."""
        return MEASURE_EVERY * (LIGHTER if self.light else 1)

    def learner(self, mdp: MDP, task: Task) -> Learns:
        raise NotImplementedError

    def run(self, mdp: MDP, task: Task) -> Result:
        """Train for the task's steps, or for as many as its time limit allows, measured before it begins."""
        tracker = Tracker(task, self.held_out(task))
        kept = tracker.resume()
        learner = self.learner(mdp, task)
        steps = kept["steps"] if kept else task.steps or self.plan(task, tracker, learner)
        every = max(steps // MEASUREMENTS, self.between)
        message, step, interrupted = "", 0, False
        if kept:
            step = kept["step"]
            learner.restore(kept["learner"])
        try:
            while step < steps and not tracker.converged:
                if task.remaining() <= 0 and tracker.log:
                    message = f"stopped by the time limit after {step} of {steps} planned steps"
                    break
                for _ in range(min(every, steps - step)):
                    step += 1
                    learner.advance()
                    learner.update(1 - (step - 1) / steps)
                    if task.remaining() <= 0:
                        break
                learner.broken.raise_if_seen(mdp)
                tracker.measure(step, *learner.answer())
                tracker.keep({"steps": steps, "step": step, "learner": learner.state()})
        except KeyboardInterrupt:
            message, interrupted = f"interrupted after {step} of {steps} steps", True
            if tracker.best is None:
                tracker.measure(step, *learner.answer())
        return tracker.result(step, message, interrupted=interrupted, planned_steps=steps)

    def plan(self, task: Task, tracker: Tracker, learner: Learns) -> int:
        """How many steps fit into the time limit, from the speed of a few that are then taken back."""
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
        for_measuring = seconds(lambda: tracker.held_out.error(*learner.answer()), 1)
        learner.restore(before)
        return steps_in(0.95 * task.remaining(), for_step, for_measuring, self.between)


def steps_in(seconds: float, for_step: float, for_measuring: float, between: int) -> int:
    """How many steps fit in, given the seconds that a step and a measurement take, and the fewest steps between two."""
    steps = seconds / (for_step + for_measuring / between)
    if steps > MEASUREMENTS * between:
        steps = (seconds - MEASUREMENTS * for_measuring) / for_step
    return max(int(steps), 1)


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
