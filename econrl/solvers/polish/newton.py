"""The optimum's own conditions, brought to zero by Gauss-Newton: rung 4 of the ladder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.polish.polish_run import PolishBackwards, PolishRun


@dataclass(frozen=True)
class Newton(Method):
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

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers of policy and value; of each period of a life cycle the first alone."""
    rows: float = 4.5
    """Residuals in a step, for each weight: with fewer, a step fits these states, and the error elsewhere grows."""
    box: float = 0.25
    """Share of them that is uniform on the domain; the rest are the policy's own."""
    paths: int = 300
    """Paths of the simulation that the policy's own states are drawn from."""
    nodes: int = 7
    """Quadrature nodes a shock at most; fewer where no bound may bind, so that residuals are smooth, or where
    multipliers matter, if the starting policy's residuals change by at most `quadrature`."""
    quadrature: float = 1e-8
    """Mean change of the residuals that is accepted for fewer nodes; where multipliers matter, at least 1e-5."""
    every: int = 5
    """Steps from one measurement of the error to the next."""
    patience: int = 8
    """Measurements without a lower error after which a step gets twice as many states; three times, then it ends."""
    settling: int = 60
    """First steps, where multipliers matter, in which tomorrow's policy is that of the last step, as in time
    iteration."""
    fit_steps: int = 60
    """Steps, at most, in which a network learns to copy the warm start, and in each period of a life cycle."""
    value_steps: int = 40
    """Steps, at most, in which the value of the policy is found."""
    start_steps: int = 500
    """Steps of the actor-critic that a run begins with where it has no warm start; at most a third of its time."""

    def __post_init__(self) -> None:
        for name in ("rows", "paths", "nodes", "every", "patience", "fit_steps", "value_steps", "start_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "settling", self.settling >= 0, "at least 0")
        require(self, "box", 0 <= self.box <= 1, "in [0, 1]")
        require(self, "quadrature", self.quadrature >= 0, "at least 0")

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        """What comes back is never worse, on held-out points, than the start. Raises SolveError for a life cycle in
        which tomorrow's multipliers matter."""
        return (PolishRun if mdp.horizon is None else PolishBackwards)(self, mdp, task, held_out)
