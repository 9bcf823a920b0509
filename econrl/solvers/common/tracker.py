"""The best policy seen on held-out points, and the log of a run."""

from __future__ import annotations

from typing import Any

from econrl.accuracy.held_out import HeldOut
from econrl.errors import SolveError
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.task import Answer, Task
from econrl.storage.checkpoint import function_from, function_state


class Tracker:
    """Keeps the best policy seen on held-out points, writes the log, and says whether the tolerance is met."""

    def __init__(self, task: Task, held_out: HeldOut) -> None:
        self.task, self.held_out = task, held_out
        self.log: list[dict[str, Any]] = []
        self.best: tuple[float, int, StateFunction, StateFunction] | None = None

    def measure(self, step: int, answer: Answer, columns: dict[str, float]) -> bool:
        """Measure the error now, and keep the answer if it is the lowest yet; whether it is. `columns` go into the log
        beside the error."""
        policy, value = answer
        error = self.held_out.error(policy, value)
        lowest = self.best is None or error < self.best[0]
        if lowest:
            self.best = error, step, policy.on(self.held_out.mdp), value.on(self.held_out.mdp)
        row = {"step": step, "seconds": self.task.elapsed(), "error": error, **columns}
        self.log.append(row)
        self.task.report(row)
        return lowest

    @property
    def converged(self) -> bool:
        """Whether the last error measured is at most `tol`."""
        return self.task.tol is not None and len(self.log) > 0 and self.log[-1]["error"] <= self.task.tol

    def best_answer(self, message: str) -> Answer:
        """The best policy seen, and its value; raises SolveError where a run ended before any was measured."""
        if self.best is None:
            raise SolveError(
                f"stopped before the first policy was measured ({message or 'no step was made'}). "
                "Give it more time, or a smaller grid or network"
            )
        _, _, policy, value = self.best
        return policy, value

    def keep(self, course: Any) -> None:
        """Write the course of a run, and all that was measured so far, to the task's checkpoint."""
        assert self.task.checkpoint is not None
        best: Any = None
        if self.best is not None:
            error, step, *functions = self.best
            best = [error, step, *(function_state(function) for function in functions)]
        self.task.checkpoint.write({"seconds": self.task.elapsed(), "log": self.log, "best": best, "course": course})

    def resume(self) -> Any:
        """The course of the run that the checkpoint holds, or None; its clock, log and best policy go on from there."""
        kept = None if self.task.checkpoint is None else self.task.checkpoint.state
        if kept is None:
            return None
        self.task.resume_clock(kept["seconds"])
        self.log = kept["log"]
        if kept["best"] is not None:
            error, step, *functions = kept["best"]
            policy, value = (function_from(self.held_out.mdp, function) for function in functions)
            self.best = error, step, policy, value
        return kept["course"]
