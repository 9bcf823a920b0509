"""Time iteration on any grid: today's action given tomorrow's policy, again and again, or backwards through a life."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from econrl.accuracy.held_out import HeldOut
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.run import Iteration, LifeCycleRun, Run
from econrl.solvers.common.task import Answer, Task
from econrl.solvers.grid.collocation import KRYLOV, Collocation
from econrl.solvers.grid.policy_evaluation import evaluate
from econrl.solvers.grid.sketch import Sketch, sketch
from econrl.solvers.grid.time_iterated import TimeIterated

FOR_VALUE = 0.2  # of a time limit, kept for the value
LAST_STEPS = 3  # of Newton's method, for the value of the policy that is returned where utility is recursive
SETTLINGS = 5  # how often the iteration goes on from points where Newton's method has failed


def no_euler_equation(mdp: MDP) -> str | None:
    """Why a model cannot be solved by its Euler equation, or None."""
    structure = find_structure(mdp)
    return None if structure.exists else f"it has no Euler equation ({structure.reason})"


def time_iteration(method: TimeIterated, mdp: MDP, task: Task, held_out: HeldOut) -> TimeIterationRun | BackwardsRun:
    """The run that suits the horizon."""
    return (TimeIterationRun if mdp.horizon is None else BackwardsRun)(method, mdp, task, held_out)


class OnGrid(Run):
    """What the two runs share: a rough policy on a coarse grid, and collocation on the grid that is fitted to it."""

    method: TimeIterated
    description: dict[str, Any]
    it: Collocation

    def sketch(self) -> Sketch:
        """The rough policy; the grid is made for it."""
        rough = sketch(self.method, self.mdp, self.task)
        self.make_grid(rough.mdp, rough.forms.describe(), self.method.grid(self.mdp, rough.policy))
        return rough

    def make_grid(self, mdp: MDP, forms: dict[str, Any], description: dict[str, Any]) -> None:
        """Policy and value on this grid, with the nodes of `mdp` and these forms of the actions."""
        self.description = description
        self.it = Collocation(self.method.name, mdp, forms, description, self.look_at_the_clock)

    def grid_state(self) -> dict[str, Any]:
        """What `restore_grid` needs."""
        return {
            "quadrature": asdict(self.it.mdp.quadrature),
            "forms": self.it.policy.forms.describe(),
            "grid": self.description,
            "iteration": self.it.state(),
        }

    def restore_grid(self, state: dict[str, Any]) -> None:
        """The grid, and all on it, as `grid_state` found it."""
        mdp = self.mdp.with_quadrature(Quadrature(**state["quadrature"]))
        self.make_grid(mdp, state["forms"], state["grid"])
        self.it.restore(state["iteration"])


class TimeIterationRun(OnGrid, Iteration):
    """A stationary model: iterations on one grid, and then the value of the best policy that they gave."""

    patience = 60  # extrapolation may raise the change for some dozens of iterations

    def __init__(self, method: TimeIterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        self.method, self.reserve = method, FOR_VALUE * (task.time_limit or 0.0)
        self.settlings = 0

    def begin(self) -> None:
        policy = self.sketch().policy
        self.it.begin(policy)

    def step(self) -> None:
        self.note(self.it.step())
        if self.converged or self.message:
            self.end()

    def end(self) -> None:
        """Go on where Newton's method has failed at points where it was not known to; else say what is left."""
        self.settlings += 1
        if self.it.settle() and self.settlings <= SETTLINGS:
            self.converged, self.message, self.smallest, self.since = False, "", math.inf, 0
            return
        reasons = [self.message, self.it.shortfall(), self.it.leaving() if self.message else ""]
        self.message = "; ".join(reason for reason in reasons if reason)
        self.converged = not self.message

    def answer(self) -> Answer:
        return self.it.policy, self.it.value

    def finish(self, answer: Answer) -> Answer:
        policy, value = answer
        it = self.it
        near = not it.mdp.preferences.additive  # the iteration has evaluated policies all along, if not this very one
        for _ in range(LAST_STEPS if near else 1):
            evaluate(it.name, it.mdp, it.value, policy.on(it.mdp), KRYLOV, it.chunk, self.task.remaining, near)
        return policy, it.value.on(value.mdp)

    def state(self) -> dict[str, Any]:
        return {**super().state(), **self.grid_state(), "settlings": self.settlings}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.restore_grid(state)
        self.settlings = state["settlings"]


class BackwardsRun(OnGrid, LifeCycleRun):
    """A life cycle, one pass; the periods that were not reached get the policy of the last one solved."""

    def __init__(self, method: TimeIterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method, self.left = method, ""

    def begin(self) -> None:
        policy = self.sketch().policy
        self.it.begin(policy, self.horizon - 1)

    def step(self) -> None:
        super().step()
        if self.converged and self.left:
            self.converged, self.message = False, self.left

    def solve_period(self, t: int) -> None:
        self.it.step_back(t)
        self.left = self.it.shortfall() or self.left

    def answer(self) -> Answer:
        last = self.horizon - self.done
        for t in range(last):
            self.it.policy.copy_period(last, t)
            self.it.value.copy_period(last, t)
        return self.it.policy, self.it.value

    def state(self) -> dict[str, Any]:
        return {**self.grid_state(), "done": self.done, "left": self.left}

    def restore(self, state: dict[str, Any]) -> None:
        self.restore_grid(state)
        self.done, self.left = state["done"], state["left"]
