"""Policy iteration on the Euler equation, on any grid: today's action given tomorrow's policy, again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.errors import SolveError
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.state_function import Function
from econrl.solvers.common.method import require
from econrl.solvers.common.task import OutOfTime, Result, Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.grid.collocation import Collocation
from econrl.solvers.grid.fit_grid import coarse_points, fitted
from econrl.solvers.grid.policy_evaluation import evaluate
from econrl.solvers.grid.sketch import Iterated, sketch
from econrl.solvers.grid.tensor_grid_method import OnTensorGrid

PATIENCE = 60  # iterations without a new smallest change
FOR_VALUE = 0.2  # of a time limit, kept for the value
KRYLOV = 200  # steps of GMRES, at most, for the value


@dataclass
class Progress:
    """How far the iteration has come, and why it ended: `message` is empty where it converged."""

    step: int = 0
    change: float = math.inf
    converged: bool = False
    interrupted: bool = False
    message: str = ""


def converge(method: Iterated, it: Collocation, start: Function, tracker: Tracker, at: Progress) -> None:
    """Iterate on one grid, from a policy."""
    task = it.task
    it.deadline = FOR_VALUE * (task.time_limit or 0.0)
    smallest, since, measured = math.inf, 0, -1
    at.converged = False
    try:
        it.begin(start)
        while not at.message:
            at.change = it.step()
            at.step += 1
            smallest, since = (at.change, 0) if at.change < smallest else (smallest, since + 1)
            at.converged = at.change <= method.change
            if at.converged or at.step % method.every == 0:
                tracker.measure(at.step, it.policy, it.value, change=at.change)
                measured = at.step
            if at.converged or tracker.converged:
                at.converged = True
                return
            if since >= PATIENCE:
                at.message = f"the change stopped falling at {smallest:.1e} (asked for: {method.change:.1e})"
            elif at.step == task.steps:
                at.message = f"stopped after {at.step} iterations, at a change of {at.change:.1e}"
    except OutOfTime:
        at.message = f"stopped by the time limit after {at.step} iterations, at a change of {at.change:.1e}"
    except KeyboardInterrupt:
        at.message, at.interrupted = f"interrupted after {at.step} iterations", True
    if measured != at.step:
        tracker.measure(at.step, it.policy, it.value, change=at.change)


def outcome(it: Collocation, tracker: Tracker, at: Progress) -> Result:
    """The best policy seen, and its value on the last grid."""
    assert tracker.best is not None
    error, step, policy, _ = tracker.best
    evaluate(it.name, it.mdp, it.value, policy.on(it.mdp), KRYLOV, it.chunk)
    tracker.best = error, step, policy, it.value.on(tracker.held_out.mdp)
    return tracker.result(at.step, at.message, converged=at.converged, interrupted=at.interrupted)


def iterate(method: Iterated, it: Collocation, start: Function, tracker: Tracker) -> Result:
    """Time iteration of a stationary model, and the value of the best policy it saw."""
    at = Progress()
    converge(method, it, start, tracker, at)
    return outcome(it, tracker, at)


def recurse(it: Collocation, start: Function, task: Task, tracker: Tracker) -> Result:
    """A life cycle, backwards; the periods not reached get the policy of the last one solved."""
    assert it.mdp.horizon is not None
    horizon, done, message, interrupted = it.mdp.horizon, 0, "", False
    it.begin(start, horizon - 1)
    try:
        for t in reversed(range(horizon)):
            if done == task.steps:
                message = f"stopped after {done} periods with {t + 1} of {horizon} to go"
                break
            it.step_back(t)
            done += 1
    except OutOfTime:
        message = f"stopped by the time limit with {horizon - done} of {horizon} periods to go"
    except KeyboardInterrupt:
        message, interrupted = f"interrupted with {horizon - done} of {horizon} periods to go", True
    if done == 0:
        raise SolveError(f"{it.name}: {message}. Give it more time, or fewer points")
    for t in range(horizon - done):
        it.policy.copy_period(horizon - done, t)
        it.value.copy_period(horizon - done, t)
    tracker.measure(done, it.policy, it.value)
    return tracker.result(done, message, converged=done == horizon, interrupted=interrupted)


def no_euler_equation(mdp: MDP) -> str | None:
    """Why a model cannot be solved by its Euler equation, or None."""
    structure = find_structure(mdp)
    return None if structure.exists else f"it has no Euler equation ({structure.reason})"


# The method on dense grids


@dataclass(frozen=True)
class TimeIteration(OnTensorGrid):
    """Policy iteration on the Euler equation, on a tensor grid.

    At every grid point s, given the policy of tomorrow, today's action a solves

        r_a + E[beta lambda(s'; pi) f_a] = 0,  or the inequality of the bound that binds        (`euler.py`)

    by Newton's method, and becomes the policy of tomorrow; the iterates are extrapolated to their limit (Anderson).
    Interpolated is not the action but a function that is cut off at the bounds (`forms.py`). The value then solves
    V = r + E[beta V(s')]. A life cycle is solved backwards from its last period, one pass.

    Source: Coleman (1990), "Solving the stochastic growth model by policy-function iteration", J. Business & Economic
    Statistics 8; Judd (1998), "Numerical Methods in Economics", chapter 17.
    """

    name: ClassVar[str] = "time_iteration"
    warm: ClassVar[bool] = True
    most_points: ClassVar[int] = 1024

    change: float = 1e-9
    """Largest change of the policy (in shares) at which the iteration ends."""
    every: int = 5
    """Iterations from one measurement of the error to the next."""
    quadrature: float = 1e-8
    """Mean change of the residuals that is accepted for fewer nodes, where no bound binds; where multipliers matter, at
    least 1e-5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "every", self.every >= 1, "at least 1")
        require(self, "change", self.change > 0, "positive")
        require(self, "quadrature", self.quadrature >= 0, "at least 0")

    @property
    def krylov(self) -> int:
        return KRYLOV

    def refuse(self, mdp: MDP) -> str | None:
        """There must be an Euler equation."""
        return no_euler_equation(mdp)

    def run(self, mdp: MDP, task: Task) -> Result:
        """Sketch on a coarse grid, fit the grid to it, iterate. Raises SolveError for a grid that does not fit into
        memory."""
        tracker = Tracker(task, HeldOut(task.model, mdp.device))
        description = self.describe_grid(mdp)
        coarse = {**description, "points": coarse_points(description)}
        self.check_memory(
            MDP(task.model, mdp.device, mdp.dtype, Quadrature(nodes=1))
        )  # what the sketch, too, must have
        rough = sketch(self, mdp, task, coarse)
        self.check_memory(rough.mdp)
        description["points"] = self.points_of(rough.mdp)
        if self.margin > 0 or self.spacing is None:
            description = fitted(mdp, rough.policy, description, self.margin, self.spacing is None)
        it = Collocation(self.name, rough.mdp, rough.forms, description, task)
        if mdp.horizon is None:
            return iterate(self, it, rough.policy, tracker)
        return recurse(it, rough.policy, task, tracker)
