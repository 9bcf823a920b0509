"""What a user gets without asking: the methods that can treat the model, the cheapest first, and the best of what they
give."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.errors import MethodError, SaveError, SolveError
from econrl.family.family import Family
from econrl.problem.domain import in_numbers, widened
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.driver import in_words
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Keeps, Result, Task
from econrl.solvers.fitted.fvi import FVI
from econrl.solvers.grid.egm import EGM
from econrl.solvers.grid.time_iteration import TimeIteration
from econrl.solvers.grid.vi import VI
from econrl.solvers.off_policy.ddpg import DDPG
from econrl.solvers.perturbation.perturbation import Perturbation
from econrl.solvers.polish.newton import Newton
from econrl.solvers.polish.polish import START_SHARE
from econrl.solvers.polish.polish_run import EXACT
from econrl.storage.checkpoint import function_from, function_state

GOOD_START = 0.01  # held-out error of a policy from which the polish can begin: Gauss-Newton has converged
ENOUGH = 1e-8  # held-out error at which no other method is asked
VALUE_ENOUGH = 1e-5  # Bellman error of a value that needs no polish
GOOD, GOOD_WITHOUT_LIMIT = 1e-4, 5e-4  # the same where a grid method has converged; where time is not limited
OUTSIDE, MOST_WIDENINGS = 0.1, 2  # share of the simulated states outside the domain that calls for a wider one
OF_WHAT_IS_LEFT = 0.6  # share of the time left that a candidate may take where others come after it


@dataclass(frozen=True)
class Auto(Method):
    """A portfolio: the methods that can treat the model, one after another, the cheapest first, each beginning where
    the best so far ended if it can.

    What a method can treat, what it would cost here and how far it can reach is asked of the methods (`Method.refuse`,
    `cost`, `reach`). Next is the cheapest candidate that can reach further than the best answer so far. It ends where
    the error is exact, no candidate is left, or the time is over. The actor-critic runs where no other method gave a
    policy that is good enough to polish, and the polish after it.

    A stage that does not apply or does not help leaves a message; what comes back is the stage with the lowest error
    on held-out points, the same for all.
    """

    name: ClassVar[str] = "auto"
    warm: ClassVar[bool] = True
    choices: ClassVar[bool] = True
    recursive: ClassVar[bool] = True
    tastes: ClassVar[bool] = True

    hidden: tuple[int, ...] = Newton.hidden
    """Widths of the hidden layers of the polished policy and value."""
    nodes: int = Newton.nodes
    """Quadrature nodes a shock at most."""
    start_steps: int = Newton.start_steps
    """Steps of the actor-critic where no other method gives a start for the polish."""

    def __post_init__(self) -> None:
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        for name in ("nodes", "start_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")

    def run(self, mdp: MDP, task: Task) -> Result:
        """Raises SolveError where no stage gave a policy, and MethodError for a warm start where there are choices."""
        if mdp.choices and task.warm_start is not None:
            raise MethodError(
                "auto takes no warm_start where there are discrete choices: it takes vi, which takes none"
            )
        newton = Newton(hidden=self.hidden, nodes=self.nodes)
        methods: list[Method] = (
            [newton] if task.warm_start else [EGM(), Perturbation(), VI(), TimeIteration(), FVI(), newton]
        )
        stages = Stages(task)
        able = stages.able(methods, mdp)
        while (method := stages.next_of(able)) is not None:
            if method is newton and stages.error > GOOD_START:
                stages.run(DDPG(), self.start_steps, START_SHARE)
            able.remove(method)
            improved = stages.run(method, task.steps, OF_WHAT_IS_LEFT if able else 1.0)
            if method is newton and not improved and stages.by == Perturbation.name and stages.error > EXACT:
                stages.run(DDPG(), self.start_steps, START_SHARE)
                stages.run(newton, task.steps)
            if stages.widen():
                able = stages.able(methods, MDP(stages.task.model, task.device))
        return stages.result()


class Stages:
    """The stages so far: the best one, the log, and what is to be said. The driver runs each of them.

    In the checkpoint are the stages that have ended, and the state of the one that has not; those that have ended are
    not run again.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.held_out = task, HeldOut(task.model, task.device)
        self.error, self.drift, self.by = float("inf"), float("inf"), ""
        self.best: Result | None = None
        if task.warm_start is not None:
            self.best, self.by = Result(*task.warm_start, [], 0, False), "the warm start"
            self.error, self.drift = self.held_out.judge(*task.warm_start)
        self.log: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.refusals: list[str] = []
        """Why methods cannot treat the model: said where the answer is not good."""
        self.steps, self.over, self.interrupted = 0, False, False
        self.widenings, self.was_widened = 0, False
        self.checkpoint = None if task.checkpoint is None else StageCheckpoint(task.checkpoint)

    def able(self, methods: list[Method], mdp: MDP) -> list[Method]:
        """Those of the methods that can treat the problem at a cost that is bearable, the cheapest first."""
        self.refusals = []
        for method in methods:
            reason = method.why_not(mdp)
            if reason is not None and not mdp.choices:
                self.refusals.append(f"no {method.name}: {reason}")
        # From a warm start only one method can begin: it is asked, whatever it costs.
        given = self.task.warm_start is not None
        able = [m for m in methods if m.why_not(mdp) is None and (given or m.cost(mdp) < math.inf)]
        return sorted(able, key=lambda method: method.cost(mdp))

    def widen(self) -> bool:
        """Widen the domain where a good policy's paths leave it, and say so; whether it was."""
        task = self.task
        if self.over or self.error > GOOD_START or self.widenings == MOST_WIDENINGS or isinstance(task.model, Family):
            return False
        assert self.best is not None
        self.widenings += 1
        found = widened(self.held_out.mdp, self.best.policy.on(self.held_out.mdp), task.seed)
        if found is None or found.outside < OUTSIDE or not found.domain:
            self.widenings = MOST_WIDENINGS
            return False
        model = task.model.with_domain(found.domain)
        held_out = HeldOut(model, task.device)
        try:
            self.error, self.drift = held_out.judge(self.best.policy, self.best.value)
        except RuntimeError:  # its networks have other inputs there
            return False
        self.task, self.held_out, self.was_widened = dataclasses.replace(task, model=model), held_out, True
        self.messages.append(f"{found.text}: widened to {in_numbers(found.domain)}")
        return True

    def for_value(self, able: list[Method]) -> Method | None:
        """The polish, which ends with the value, where a perturbation's policy is good and its value is not."""
        if self.best is None or self.by != Perturbation.name:
            return None
        if self.held_out.bellman(self.best.policy, self.best.value) <= VALUE_ENOUGH:
            return None
        return next((method for method in able if method.name == Newton.name), None)

    @property
    def has_converged(self) -> bool:
        """Whether the best so far is that of a grid method that has converged."""
        return (
            self.best is not None
            and self.best.converged
            and self.by in (EGM.name, VI.name, TimeIteration.name, FVI.name)
        )

    def next_of(self, able: list[Method]) -> Method | None:
        """The first of the methods that can reach further than the best so far, unless that is enough."""
        good = GOOD if self.task.time_limit is not None else GOOD_WITHOUT_LIMIT
        if self.over:
            return None
        if self.error <= (good if self.has_converged else ENOUGH):
            return self.for_value(able)
        return next((method for method in able if method.reach(self.held_out.mdp) < self.error), None)

    def run(self, method: Method, steps: int | None = None, share: float = 1.0) -> bool:
        """Run one method from the best so far, for at most a share of the time left; whether it was an improvement."""
        kept = None if self.checkpoint is None else self.checkpoint.next_stage()
        if kept is not None:
            return self.recall(kept)
        improved = self.stage(method, steps, share)
        if self.checkpoint is not None and not self.interrupted:  # else the same call is to go on with this stage
            try:
                self.checkpoint.end_stage(self.describe(improved), self.task.elapsed())
            except SaveError as error:
                self.messages.append(f"the checkpoint was not written: {error}")
        return improved

    def stage(self, method: Method, steps: int | None, share: float) -> bool:
        """The same where the checkpoint does not have the answer already."""
        task = self.task
        if self.over or (task.remaining() <= 0 and self.best is not None):
            return False
        mdp = MDP(task.model, task.device, method.dtype, Quadrature(nodes=method.nodes))
        limit = None if task.time_limit is None else task.elapsed() + share * task.remaining()
        if self.checkpoint is not None:
            limit = self.checkpoint.begin_stage(limit)
        warm = None if self.best is None else (self.best.policy, self.best.value)

        def report(row: dict[str, Any]) -> None:
            task.report({**row, "stage": method.name})

        own = dataclasses.replace(
            task, steps=steps, time_limit=limit, warm_start=warm, report=report, checkpoint=self.checkpoint
        )
        try:
            result = method.run(mdp, own)
        except SolveError as failure:
            self.messages.append(str(failure))
            return False
        except Exception as failure:
            if self.best is None:
                raise
            self.messages.append(f"{method.name} stopped by an error: {in_words(failure)}")
            return False
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.messages.append(f"interrupted at the beginning of {method.name}")
            self.over = self.interrupted = True
            return False
        finally:
            task.started = own.started  # which counts what a resumed run had taken before
        return self.compare(method, result)

    def compare(self, method: Method, result: Result) -> bool:
        """Keep the better of the best so far and this result; whether that is the new one."""
        self.log += [{**row, "stage": method.name} for row in result.log]
        if method.name in (Newton.name, VI.name, TimeIteration.name):
            self.steps = result.steps  # those that `steps` asks for
        error, drift = self.held_out.judge(result.policy, result.value)
        tolerated = 1.5 * min(drift, self.drift)  # where wealth grows without end, paths leave by the best policy, too

        def score(error: float, drift: float) -> float:
            return error + (drift if drift > tolerated else 0.0)

        new, old = score(error, drift), score(self.error, self.drift)
        better = new < old
        if better:
            self.by = method.name
        else:
            self.messages.append(f"{method.name} did not improve on {self.by}")
        if better or new == old:  # the same policy, perhaps with a better value
            self.best, self.error, self.drift = result, error, drift
        if result.message:
            self.messages.append(result.message)
        self.interrupted = result.interrupted
        self.over = result.interrupted or (self.task.tol is not None and self.error <= self.task.tol)
        return better

    def describe(self, improved: bool) -> dict[str, Any]:
        """Where the stages stand, as numbers and tensors."""
        best = None
        if self.best is not None:
            functions = [function_state(function) for function in (self.best.policy, self.best.value)]
            best = [*functions, self.best.converged]
        named = {name: getattr(self, name) for name in ("error", "drift", "by", "log", "messages", "steps", "over")}
        return {"improved": improved, "best": best, **named}

    def recall(self, kept: dict[str, Any]) -> bool:
        """Go on from what `describe` gave."""
        for name in ("error", "drift", "by", "log", "messages", "steps", "over"):
            setattr(self, name, kept[name])
        self.best = None
        if kept["best"] is not None:
            *functions, converged = kept["best"]
            mdp = MDP(self.task.model, self.task.device)
            policy, value = (function_from(mdp, function) for function in functions)
            self.best = Result(policy, value, [], 0, converged)
        assert self.checkpoint is not None
        self.task.resume_clock(self.checkpoint.seconds)
        return bool(kept["improved"])

    def result(self) -> Result:
        """The best stage's policy and value."""
        if self.best is None:
            raise SolveError("no stage gave a policy: " + "; ".join([*self.messages, *self.refusals]))
        converged = self.has_converged or self.error <= max(EXACT, self.task.tol or 0.0)
        others = self.refusals if self.error > GOOD_WITHOUT_LIMIT else []
        message = "; ".join([f"the policy is that of {self.by}", *self.messages, *others])
        best, model = self.best, self.task.model if self.was_widened else None
        return Result(best.policy, best.value, self.log, self.steps, converged, message, self.interrupted, model=model)


class StageCheckpoint:
    """The checkpoint of the whole run, as a stage sees it: it reads and writes the state of that stage alone."""

    def __init__(self, whole: Keeps) -> None:
        self.whole = whole
        kept = whole.state or {"ended": [], "seconds": 0.0, "limit": None, "stage": None}
        self.ended: list[dict[str, Any]] = kept["ended"]
        self.seconds: float = kept["seconds"]
        """What the stages that have ended had taken."""
        self.limit: float | None = kept["limit"]
        self.state: Any = kept["stage"]
        self.recalled = 0

    def next_stage(self) -> dict[str, Any] | None:
        """The next of the stages that have ended, or None."""
        if self.recalled == len(self.ended):
            return None
        self.recalled += 1
        return self.ended[self.recalled - 1]

    def begin_stage(self, limit: float | None) -> float | None:
        """The time limit of the stage: the one given, or that with which it had begun."""
        self.limit = limit if self.state is None else self.limit
        return self.limit

    def end_stage(self, stage: dict[str, Any], seconds: float) -> None:
        """Keep what a stage came to."""
        self.ended.append(stage)
        self.recalled, self.seconds = len(self.ended), seconds
        self.write(None)

    def write(self, state: Any) -> None:
        """Write the state of the stage under way, with what ended before it."""
        self.state = state
        self.whole.write({"ended": self.ended, "seconds": self.seconds, "limit": self.limit, "stage": state})
