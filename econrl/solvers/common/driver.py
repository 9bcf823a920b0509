"""The one loop: steps, the clock, the tolerance, Ctrl-C, measuring, the log, messages and checkpoints of every run."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

import torch

from econrl.accuracy.held_out import HeldOut
from econrl.errors import EconrlError, SaveError
from econrl.problem.diagnose import line_of
from econrl.problem.mdp import MDP
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Answer, OutOfTime, Result, Task
from econrl.solvers.common.tracker import Tracker

HOME = Path(__file__).parents[2]  # econrl's own files
MEASURING = 0.1  # share of a limited time that measuring may take
AFTER_INTERRUPT = 3.0  # seconds that the last touch to an answer may take after Ctrl-C, which promises five in all


class Begins(Protocol):
    """What the driver needs of a method."""

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """A run, before its first step."""

    def held_out(self, task: Task) -> HeldOut:
        """What its answers are judged by."""


def drive(method: Begins, mdp: MDP, task: Task) -> Result:
    """Run a method until it has converged, cannot go on, or has spent its steps or its time; the best answer it gave.

    Ctrl-C ends the run and keeps the best answer, as does an error once there is one. Raises SolveError, or what ended
    the run, where that was before the first answer.
    """
    drive = Drive(method, mdp, task)
    try:
        drive.forward()
    except KeyboardInterrupt:
        drive.interrupt()
    return drive.result()


class Drive:
    """One run under way."""

    def __init__(self, method: Begins, mdp: MDP, task: Task) -> None:
        self.task, self.tracker = task, Tracker(task, method.held_out(task))
        torch.default_generator.manual_seed(task.seed)  # of networks' first weights, drawn on the CPU
        self.run = method.begin(mdp, task, self.tracker.held_out)
        self.step, self.measured, self.begun = 0, -1, False
        self.spent_measuring = 0.0
        self.seconds, self.for_measuring = 0.0, 0.0  # that the last step and the last measurement took
        self.last: Answer | None = None  # that was measured
        self.message, self.unsaved, self.interrupted = "", "", False

    def forward(self) -> None:
        """Steps, until there is a reason to stop."""
        try:
            self.begin()
            while not self.stops():
                self.make_step()
        except OutOfTime:
            self.message = f"stopped by the time limit {self.run.where(self.step)}"
            self.measure_at_the_end()
        except Exception as error:
            if self.step == 0:  # there is but what the run begins from
                raise
            if self.tracker.best is None:  # the periods of a life cycle that are solved, if there are any
                with contextlib.suppress(Exception):
                    self.measure()
            if self.tracker.best is None:
                raise
            self.message = f"stopped {self.run.where(self.step)} by an error: {in_words(error)}"

    def begin(self) -> None:
        """Begin, or go on from the checkpoint."""
        kept = self.tracker.resume()
        if kept is None:
            self.run.begin()
        else:
            self.run.restore(kept["run"])
            self.run.converged, self.run.message = kept["converged"], kept["message"]
            self.step, self.measured = kept["step"], kept["measured"]
        self.begun = True
        if kept is None and self.run.due(0):
            self.measure()

    def stops(self) -> bool:
        """Whether this is the end; `message` says why, where it is not convergence or all planned steps."""
        run, step = self.run, self.step
        if self.converged or run.message:
            self.message = run.message
        elif step == run.last_step:
            self.message = run.all_steps_made(step)
        elif self.tracker.log and self.out_of_time:
            self.message = f"stopped by the time limit {run.where(step)}"
        else:
            return False
        return True

    def make_step(self) -> None:
        """One step, measured and kept where that is due."""
        run, began = self.run, time.perf_counter()
        run.step()
        self.step += 1
        self.seconds = time.perf_counter() - began
        ends = run.converged or bool(run.message) or self.step == run.last_step or self.out_of_time
        if ends or (run.due(self.step) and not self.measures_too_much):
            self.measure()
        if ends or run.keeps(self.step):
            self.keep()

    def keep(self) -> None:
        """Write the checkpoint, if there is one. A run outlives a disk that is full."""
        if self.task.checkpoint is not None:
            try:
                run, counts = self.run, {"step": self.step, "measured": self.measured}
                self.tracker.keep({**counts, "converged": run.converged, "message": run.message, "run": run.state()})
                self.unsaved = ""
            except SaveError as error:
                self.unsaved = f"the checkpoint was not written after {self.step} steps: {error}"

    @property
    def out_of_time(self) -> bool:
        """Whether another step and measurement like the last ones would not fit into the time limit."""
        return self.task.remaining() <= self.run.reserve + self.seconds + self.for_measuring

    @property
    def measures_too_much(self) -> bool:
        """Whether measuring took more than a tenth of a limited time, in a run whose answer does not depend on it."""
        limited = self.run.overrules_measure and self.task.time_limit is not None
        return limited and self.spent_measuring > MEASURING * self.task.elapsed()

    @property
    def converged(self) -> bool:
        """Whether the run has converged by its own measure, or the error has reached the tolerance."""
        return self.run.converged or self.tracker.converged

    def measure(self) -> None:
        """The error of the present answer, unless there is none or it is known."""
        run, began = self.run, time.perf_counter()
        if self.begun and run.ready and self.measured != self.step:
            self.last = run.answer()
            best = self.tracker.measure(self.step, self.last, run.columns)
            self.measured, self.for_measuring = self.step, time.perf_counter() - began
            self.spent_measuring += self.for_measuring
            run.measured(self.tracker.log[-1]["error"], best)

    def measure_at_the_end(self) -> None:
        """The same, where the answers before it are enough if it fails."""
        try:
            self.measure()
        except Exception:
            if self.tracker.best is None:
                raise

    def interrupt(self) -> None:
        """What Ctrl-C leaves: the best answer so far, or the present one where none was measured. Raises
        KeyboardInterrupt where there is nothing to keep."""
        self.message, self.interrupted = f"interrupted {self.run.where(self.step)}", True
        if self.tracker.best is None:
            self.measure()
        if self.tracker.best is None:
            raise KeyboardInterrupt
        self.task.time_limit = self.task.elapsed() + AFTER_INTERRUPT

    def result(self) -> Result:
        """The best answer; where a run that overrules the measure has converged, its last one."""
        run, tracker = self.run, self.tracker
        try:
            answer = self.last_answer()
        except KeyboardInterrupt:
            self.interrupted = True
            answer = tracker.best_answer(self.message)
        self.say(self.unsaved)
        return Result(
            *answer,
            log=tracker.log,
            steps=self.step,
            converged=self.converged and (run.overrules_measure or self.measured == self.step),
            message=self.message,
            interrupted=self.interrupted,
            planned_steps=run.planned_steps,
        )

    def last_answer(self) -> Answer:
        """What is returned, with the run's last touch."""
        run = self.run
        run.check(self.converged)
        if self.converged and run.overrules_measure:
            return self.last if self.last is not None and self.measured == self.step else run.answer()
        return self.finished(self.tracker.best_answer(self.message))

    def finished(self, answer: Answer) -> Answer:
        """The answer with the run's last touch; as it is where that fails."""
        self.run.reserve = 0.0
        try:
            return self.run.finish(answer)
        except OutOfTime:
            return answer
        except Exception as error:
            self.say(f"the value of the policy was not found: {in_words(error)}")
            return answer

    def say(self, text: str) -> None:
        """Add to the message."""
        self.message = "; ".join(part for part in (self.message, text) if part)


def in_words(error: Exception) -> str:
    """What an error says; of one that econrl did not foresee also what kind it is, and where it was raised."""
    if isinstance(error, EconrlError):
        return str(error)
    where = line_of(error, lambda file: "site-packages" not in file or str(HOME) in file)
    return f"{type(error).__name__}: {error}" + (f" ({where})" if where else "")
