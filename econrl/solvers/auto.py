"""What a user gets without asking: one method after another, each beginning where the best so far ended."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.errors import SolveError
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Result, Task
from econrl.solvers.grid.egm import EGM
from econrl.solvers.grid.vi import VI
from econrl.solvers.off_policy.ddpg import DDPG
from econrl.solvers.perturbation.perturbation import Perturbation
from econrl.solvers.polish.newton import EXACT, START_SHARE, START_STEPS, Newton

GOOD_START = 0.01  # held-out error of a perturbation from which the polish can begin


@dataclass(frozen=True)
class Auto(Method):
    """What suits the model, one stage after another.

    The endogenous grid method where it applies: it needs no more than seconds. Value iteration where there are discrete
    choices. Else perturbation where there is a steady state, or a short actor-critic run; then Gauss-Newton, and the
    value.

    Where the polish does not improve on a perturbation, the actor-critic runs after all, and the polish again from
    there. A stage that does not apply or does not help leaves a message; what comes back is the stage with the lowest
    error on held-out points, never one that is worse than a stage before it.
    """

    name: ClassVar[str] = "auto"
    warm: ClassVar[bool] = True
    choices: ClassVar[bool] = True

    hidden: tuple[int, ...] = Newton.hidden
    """Widths of the hidden layers of the polished policy and value."""
    nodes: int = Newton.nodes
    """Quadrature nodes a shock at most."""

    def __post_init__(self) -> None:
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "nodes", self.nodes >= 1, "at least 1")

    def run(self, mdp: MDP, task: Task) -> Result:
        """Raises SolveError where no stage gave a policy."""
        climb = Climb(task)
        if mdp.choices:
            climb.stage(VI(), task.steps)
            return climb.result()
        egm, perturbation, newton = EGM(), Perturbation(), Newton(hidden=self.hidden, nodes=self.nodes)
        if task.warm_start is None and egm.refuse(mdp) is None:
            climb.stage(egm)
            if climb.best is not None and climb.best.converged:
                return climb.result()
        if task.warm_start is None:
            climb.stage(perturbation)
        if task.warm_start is None and climb.error > GOOD_START:
            climb.stage(DDPG(), START_STEPS, START_SHARE)
        improved = climb.stage(newton, task.steps)
        if not improved and climb.by == perturbation.name and climb.error > EXACT:
            climb.stage(DDPG(), START_STEPS, START_SHARE)
            climb.stage(newton, task.steps)
        return climb.result()


class Climb:
    """The stages so far: the best one, the log, and what is to be said."""

    def __init__(self, task: Task):
        self.task, self.error, self.by = task, float("inf"), ""
        self.best: Result | None = None
        self.log: list[dict] = []
        self.messages: list[str] = []
        self.steps, self.over = 0, False

    def stage(self, method: Method, steps: int | None = None, share: float = 1.0) -> bool:
        """Run one method from the best so far, for at most a share of the time left; whether it was an improvement."""
        task = self.task
        if self.over or (task.remaining() <= 0 and self.best is not None):
            return False
        mdp = MDP(task.model, task.device, method.dtype, Quadrature(nodes=method.nodes))
        reason = method.refuse(mdp)
        if reason is not None:
            self.messages.append(f"no {method.name}: {reason}")
            return False
        limit = None if task.time_limit is None else task.elapsed() + share * task.remaining()
        warm = task.warm_start if self.best is None else (self.best.policy, self.best.value)

        def report(row: dict[str, Any]) -> None:
            task.report({**row, "stage": method.name})

        own = dataclasses.replace(task, steps=steps, time_limit=limit, warm_start=warm, report=report, checkpoint=None)
        try:
            result = method.run(mdp, own)
        except SolveError as failure:
            self.messages.append(str(failure))
            return False
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.messages.append(f"interrupted at the beginning of {method.name}")
            self.over = True
            return False
        self.log += [{**row, "stage": method.name} for row in result.log]
        if method.name in (Newton.name, VI.name):
            self.steps = result.steps  # those that `steps` asks for
        error = min(row["error"] for row in result.log)
        # A polish measures its start anew, and tolerates that paths leave the domain as often as they did there.
        better = error < (result.log[0]["error"] if method.warm else self.error)
        if better or method.warm:
            self.best, self.error = result, error
            self.by = method.name if better else self.by
        if not better:
            self.messages.append(f"{method.name} did not improve on {self.by or 'the warm start'}")
        if result.message:
            self.messages.append(result.message)
        self.over = result.interrupted or (task.tol is not None and self.error <= task.tol)
        return better

    def result(self) -> Result:
        """The best stage's policy and value."""
        if self.best is None:
            raise SolveError("no stage gave a policy: " + "; ".join(self.messages))
        converged = self.error <= max(EXACT, self.task.tol or 0.0) or (
            self.by in (EGM.name, VI.name) and self.best.converged
        )
        message = "; ".join([f"the policy is that of {self.by}", *self.messages])
        return dataclasses.replace(
            self.best, log=self.log, steps=self.steps, converged=converged, message=message, planned_steps=None
        )
