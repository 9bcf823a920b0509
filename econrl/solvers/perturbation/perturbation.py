"""First-order perturbation around the deterministic steady state, found by the solver itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from econrl.accuracy.held_out import HeldOut
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import Method
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Answer, Task
from econrl.solvers.perturbation.expansions import expand
from econrl.solvers.perturbation.linearise import linearise
from econrl.solvers.perturbation.steady_state import find_steady_state


@dataclass(frozen=True)
class Perturbation(Method):
    """A policy that is linear in the states, exact to first order at the deterministic steady state.

    With shocks at their mean, the steady state s*, a* and the shadow prices lambda solve

        s = f(s, a),   H_a = 0,   H_s = lambda   for H(s, a) = r + beta (V* + lambda (f - s*)).

    The second derivatives of H there give a linear-quadratic problem in the deviations, whose Riccati equation (scipy)
    gives the derivative of the policy and the second derivative of V. What is linear is u, the log-odds of the shares
    (`feasible_set.py`), so that the policy is feasible everywhere. Risk aversion does not enter at first order: where
    utility is recursive, the policy is that of additive utility with the same elasticity of substitution, and only the
    value's level knows of the risk.

    Source: Judd (1998), "Numerical Methods in Economics", chapter 13; Benigno and Woodford (2012), "Linear-quadratic
    approximation of optimal policy problems", JET 147.
    """

    name: ClassVar[str] = "perturbation"
    recursive: ClassVar[bool] = True

    nodes: int = 5
    """Quadrature nodes a shock, for its mean and variance."""

    def cost(self, mdp: MDP) -> float:
        """A second, and what a Riccati equation of many states takes."""
        return 1.0 + 1e-3 * mdp.S**2

    def refuse(self, mdp: MDP) -> str | None:
        """There must be a steady state to expand around."""
        if mdp.horizon is not None:
            return "a life cycle has no steady state"
        if mdp.finite:
            return "a Markov chain jumps between its values, and has no derivative"
        if not mdp.preferences.separable:
            return "its aggregator is no sum of what today adds and what tomorrow is worth"
        return None

    def begin(self, mdp: MDP, task: Task, held_out: HeldOut) -> Run:
        return Expansion(mdp, task, held_out)


def expansion(mdp: MDP, generator: torch.Generator, look_at_the_clock: Callable[[], None] = lambda: None) -> Answer:
    """Find the steady state and expand around it; of a family, around that of several members (`expansions.py`).
    Raises SolveError where there is no interior one."""
    if mdp.parameters:
        return expand(mdp, generator, look_at_the_clock)
    return linearise(mdp, find_steady_state(mdp, generator, look_at_the_clock=look_at_the_clock))


class Expansion(Run):
    """One step."""

    found: Answer | None = None

    @property
    def ready(self) -> bool:
        return self.found is not None

    def step(self) -> None:
        self.found = expansion(self.mdp, self.task.generator(self.mdp.device), self.look_at_the_clock)
        self.converged = True

    def answer(self) -> Answer:
        assert self.found is not None
        return self.found

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing: the run has ended, and its answer is kept with what was measured."""
