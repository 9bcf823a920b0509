"""Fitted value iteration with slopes: for constraints, kinks, choices and ages in many states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from econrl.accuracy.held_out import HeldOut
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Task
from econrl.solvers.fitted.functions import Cells
from econrl.solvers.fitted.policy_iteration import PolicyIteration
from econrl.solvers.fitted.sweeps import Sweeps

LEAST, SECONDS, AT_NODE = 0.3, 4e-4, 5e-6  # of a cell, for a state and slope, and for a state, node and action
ITERATIONS = 20  # of policy iteration
REACH = 2e-5  # mean distance to the best action
STATES_EACH = 300  # for each continuous state


@dataclass(frozen=True)
class FVI(Method):
    """Value iteration at sampled states, with networks between them that know values and slopes.

        maximise   v = max over y in Y of  r(s, a(s, y)) + E[ beta V(f(s, a(s, y), e)) ]     in shares y, at every state
        slopes     v_s = the derivative of that objective in s at the fixed optimal y        envelope theorem
        fit        V to v and v_s together                                                   Gauss-Newton on networks

    Shares lie in a set Y that does not depend on s, so that the envelope theorem is exact at bounds as well, and no
    multiplier is needed. V is fitted in a unit in which it is nearly linear. Each option of a choice has a value of its
    own, V is the largest of them, and no upper envelope is searched; so has each combination of discrete states.

    A life cycle is solved backwards from its last period, at states drawn from simulated lives, from further around
    them and from the domain; then again, at those where lives by that policy go. The policy that comes back is the
    maximiser: networks for its shares, corrected by projected Newton steps.

    A stationary model is solved by policy iteration: maxima at such states, and Gauss-Newton on the Bellman equation of
    the policy that they make and on its derivative, V = r + E[beta V'] and V_s = d/ds { r + E[beta V'] } at fixed y.

    Source: Cai and Judd (2015), "Dynamic programming with Hermite approximation", Mathematical Methods of Operations
    Research 81; Czarnecki, Osindero, Jaderberg, Swirszcz and Pascanu (2017), "Sobolev training for neural networks",
    NeurIPS; Bertsekas (1982) for the maximiser (`best_shares.py`).
    """

    name: ClassVar[str] = "fvi"
    choices: ClassVar[bool] = True
    recursive: ClassVar[bool] = True
    tastes: ClassVar[bool] = True

    states: int | None = None
    """States at which maxima are taken, a period, option and regime; None: 300 for each continuous state."""
    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers of each network."""
    sweeps: int = 2
    """Times that a life is solved backwards."""
    first_fit: int = 60
    """Gauss-Newton steps at most, for a network that begins anew."""
    fit: int = 12
    """The same for one that begins from the network of the next period or the last sweep."""
    corrections: int = 2
    """Projected Newton steps on the shares of the policy network, whenever the policy is asked."""
    nodes: int = 5
    """Quadrature nodes a shock at most."""
    every: int = 4
    """Steps of policy iteration from one measurement of the error to the next; of a life, each sweep is measured."""

    def __post_init__(self) -> None:
        require(self, "states", self.states is None or self.states >= 1, "at least 1")
        for name in ("sweeps", "first_fit", "fit", "nodes", "every"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "corrections", self.corrections >= 0, "at least 0")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")

    def cost(self, mdp: MDP) -> float:
        """Seconds for each period or iteration, option and regime, which grow with states, slopes and nodes."""
        d, cells = len(mdp.continuous), Cells(mdp)
        steps = ITERATIONS * cells.count if mdp.horizon is None else (self.sweeps - 1 / 2) * cells.count
        each = LEAST + self.states_for(mdp) * (SECONDS * (1 + d) + AT_NODE * len(mdp.nodes) * len(mdp.free))
        return each * steps if mdp.free else math.inf

    def reach(self, mdp: MDP) -> float:
        """What small networks leave."""
        return REACH

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        return (PolicyIteration if mdp.horizon is None else Sweeps)(self, mdp, task, held_out)

    def states_for(self, mdp: MDP) -> int:
        """States at which maxima are taken."""
        return self.states or STATES_EACH * max(len(mdp.continuous), 1)
