"""The endogenous grid method: the Euler equation is solved backwards, from what is kept to what there was to spend."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.run import Iteration, LifeCycleRun, Run
from econrl.solvers.common.task import Answer, Task
from econrl.solvers.grid.endogenous_grid import EndogenousGrid
from econrl.solvers.grid.spending import why_not

FOR_VALUE = 10.0  # iterations, whose time is kept for the value


ITERATIONS, LONGEST = 100, 5.0  # of a stationary model; seconds that one of them may take
SECONDS, FEW = 5e-6, 500_000  # for each next state, where there are more than a few
POINTS = 400  # on the endogenous grid, at most


@dataclass(frozen=True)
class EGM(Method):
    """Time iteration on an endogenous grid, for models of one action that divides M(s) into what is spent and kept.

    M = high - low is the width of the action's interval; what is spent is c = a - low (or c = high - a), what is kept
    w = M - c. Where the next state depends on w, the shocks and exogenous states z alone, and the reward on c and z,
    the policy is a function c(M, z), and with W its value, W_M = u_c,

        u_c(c, z) = mu(w, z) = E[ beta W_M(M', z') M'_x dx'/dw ]         at each w of a grid, given c(M', z')
        M = w + c                                                       the point of the endogenous grid

    Below the M at which w = 0 nothing is kept: c = M, so that a borrowing limit is exact wherever it binds. All
    derivatives are automatic, and u_c is inverted by Newton's method in logarithms. z lies on a uniform grid, between
    whose points c(M, .) is interpolated; Markov chains and periods are exact. That c is positive must not bind.

    Source: Carroll (2006), "The method of endogenous gridpoints for solving dynamic stochastic optimization problems",
    Economics Letters 91; with exogenous states Barillas and Fernandez-Villaverde (2007), JEDC 31.
    """

    name: ClassVar[str] = "egm"

    points: int | None = None
    """Grid points of what is kept; None: 400 where it may be limited, so that policies have kinks, else 100."""
    exogenous: int = 15
    """Grid points of each exogenous continuous state."""
    margin: float = 0.5
    """How far beyond the domain the grid reaches, in widths of it (no nearer to zero than half a positive bound)."""
    change: float = 1e-10
    """Largest relative change of what is spent at which the iteration ends."""
    nodes: int = 9
    """Quadrature nodes a shock: many, for a bound may bind at some of them."""
    every: int = 100
    """Iterations from one measurement of the error to the next."""

    def __post_init__(self) -> None:
        for name, least in (("exogenous", 4), ("nodes", 1), ("every", 1)):
            require(self, name, getattr(self, name) >= least, f"at least {least}")
        require(self, "points", self.points is None or self.points >= 5, "at least 5")
        require(self, "margin", self.margin >= 0, "at least 0")
        require(self, "change", self.change > 0, "positive")

    def cost(self, mdp: MDP) -> float:
        """Seconds, unless there are very many next states, as with several exogenous ones; infinite where a single
        iteration takes long, in which no clock is looked at."""
        exogenous = len(mdp.continuous) - len(mdp.parameters) - 1
        states = (self.points or POINTS) * self.exogenous ** max(exogenous, 0) * mdp.layers
        each = SECONDS * max(states * len(mdp.nodes) - FEW, 0)
        return 1.0 + ITERATIONS * each if each < LONGEST else math.inf

    def refuse(self, mdp: MDP) -> str | None:
        """Why the model is not of the kind above, seen at random states."""
        only = mdp.action_variables[0]
        if mdp.A != 1 or only.shares.shared:
            return "the endogenous grid method needs exactly one action, with bounds"
        if not (only.shares.below and only.shares.above):
            return f"the endogenous grid method needs two finite bounds of the action '{only.name}'"
        if len(mdp.parameters) > 1:
            return "the endogenous grid method would need a grid of several parameters, and solve each of its models"
        endogenous = find_structure(mdp).endogenous
        if len(endogenous) != 1:
            return f"the endogenous grid method needs one endogenous state, and there are {len(endogenous)}"
        reasons = [why_not(mdp, endogenous[0], kept) for kept in (False, True)]
        return None if None in reasons else reasons[0]

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """Raises SolveError for a grid that does not fit into memory."""
        return (EGMRun if mdp.horizon is None else EGMBackwards)(self, mdp, task, held_out)


# The iteration


def endogenous_grid(method: EGM, mdp: MDP) -> EndogenousGrid:
    """The grid of what is kept."""
    x = find_structure(mdp).endogenous[0]
    kept = why_not(mdp, x, False) is not None
    return EndogenousGrid(mdp, x, kept, method.points, method.exogenous, method.margin)


class EGMRun(Iteration):
    """Time iteration of a stationary model. Raises SolveError where the endogenous grid is not increasing."""

    overrules_measure = True

    def __init__(self, method: EGM, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        self.solver = endogenous_grid(method, mdp)

    def begin(self) -> None:
        self.future, self.spent = self.solver.future(), self.solver.begin()

    def step(self) -> None:
        began = time.perf_counter()
        found = self.solver.step(self.future, self.spent)
        change, self.spent = float((found / self.spent - 1).abs().max()), found
        self.note(change)
        self.reserve = max(self.reserve, FOR_VALUE * (time.perf_counter() - began))

    def answer(self) -> Answer:
        self.solver.evaluate(self.future, self.task.remaining)
        return self.solver.policy, self.solver.value

    def state(self) -> dict[str, Any]:
        return {**super().state(), "solver": self.solver.state(), "spent": self.spent}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.solver.restore(state["solver"])
        self.future, self.spent = self.solver.future(), state["spent"].to(self.mdp.low)


class EGMBackwards(LifeCycleRun):
    """Backward induction of a life cycle."""

    def __init__(self, method: EGM, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.solver = endogenous_grid(method, mdp)

    def begin(self) -> None:
        _, self.spent = self.solver.all_is_spent()

    def solve_period(self, t: int) -> None:
        future = self.solver.future(t)
        self.spent = self.solver.step(future, self.spent, t)
        self.solver.evaluate_period(future, t)

    def answer(self) -> Answer:
        last = self.horizon - self.done
        for t in range(last):
            self.solver.policy.copy_period(last, t)
            self.solver.value.copy_period(last, t)
        return self.solver.policy, self.solver.value

    def state(self) -> dict[str, Any]:
        return {"solver": self.solver.state(), "spent": self.spent, "done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.solver.restore(state["solver"])
        self.spent, self.done = state["spent"].to(self.mdp.low), state["done"]
