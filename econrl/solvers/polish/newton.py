"""The optimum's own conditions, brought to zero by Gauss-Newton: rung 4 of the ladder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.optimality.find_structure import find_structure
from econrl.optimality.structure import matter
from econrl.problem.mdp import MDP
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.polish.polish import Polished
from econrl.solvers.polish.polish_run import PolishBackwards, PolishRun


@dataclass(frozen=True)
class Newton(Polished):
    """Gauss-Newton on the automatic Euler equation, warm-started from another solution, with its value afterwards.

    With R(s; theta) the unit-free complementarity residuals (`euler.py`) of a small smooth network pi_theta,

        minimise the mean of |R(s; theta)|^2 by steps (J'J + mu D) d = -J'R,

    each on fresh states, drawn in proportion to |R| from simulated ones of the current policy and some of the box. The
    residuals outnumber the weights. A perturbation is corrected; from any other start the network begins as its copy.
    Where a binding bound's multiplier matters tomorrow, the network carries it too (`multipliers.py`). The value of
    the policy found then solves V = r + E[beta V'] in the same way. Where there is no Euler equation, policy and value
    solve the first-order condition with V_s and the Bellman equation together. A life cycle has one network a period,
    solved backwards from the last.

    Source: the residuals are those of Judd (1992), "Projection methods for solving aggregate growth models", JET 58;
    the steps those of Levenberg (1944) and Marquardt (1963).
    """

    name: ClassVar[str] = "newton"
    warm: ClassVar[bool] = True
    recursive: ClassVar[bool] = True

    def cost(self, mdp: MDP) -> float:
        """Half a minute where there are few states and actions; infinite for lives in which tomorrow's multipliers
        matter, which it cannot polish."""
        if mdp.horizon is not None and matter(find_structure(mdp)):
            return math.inf
        return 30.0 * (1 + 0.02 * mdp.S * mdp.A)

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """What comes back is never worse, on held-out points, than the start. Raises SolveError for a life cycle in
        which tomorrow's multipliers matter."""
        return (PolishRun if mdp.horizon is None else PolishBackwards)(self, mdp, task, held_out)
