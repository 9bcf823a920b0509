"""The best policy seen on held-out points, and the log of a run."""

from __future__ import annotations

from typing import Any

from econrl.accuracy.held_out import HeldOut
from econrl.errors import SolveError
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.task import Result, Task
from econrl.storage.checkpoint import function_from, function_state


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
