"""A rough policy on a coarse grid: where to begin, which bounds may bind, how many nodes are needed."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from econrl.approximation.constant_shares import find_start
from econrl.errors import SolveError
from econrl.optimality.bounded_forms import BOTH, FREE, LOW, Forms, forms_of, two_bounds
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import priced_forms
from econrl.optimality.quadrature_choice import KINKED, coarsest
from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import ergodic_states
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.task import OutOfTime, Task
from econrl.solvers.grid.collocation import Collocation
from econrl.solvers.perturbation.linear_policy import LinearPolicy
from econrl.solvers.perturbation.perturbation import Perturbation, expansion
from econrl.spec.variables import Budget, is_bound

SKETCH_CHANGE, SKETCH_STEPS, SKETCH_SHARE = 1e-6, 100, 0.2  # of the coarse grid; the share is of the time limit
SKETCH_NODES = 3  # a shock
SAMPLE, FEW = 2000, 100  # states that tell which bounds may bind, and how steep gains are beyond them


class Iterated(Protocol):
    """What the iteration reads of a method's settings, whatever the grid."""

    name: ClassVar[str]

    @property
    def change(self) -> float: ...

    @property
    def every(self) -> int: ...

    @property
    def nodes(self) -> int: ...

    @property
    def quadrature(self) -> float: ...

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The description of the grid for the rough policy."""

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The description of the grid that is fitted to the rough policy, given in the nodes that it needs."""


@dataclass(frozen=True)
class Sketch:
    """What a rough policy on a coarse grid tells: where to begin, which bounds may bind, how many nodes are needed."""

    policy: StateFunction
    forms: Forms
    mdp: MDP


def sketch(method: Iterated, mdp: MDP, task: Task) -> Sketch:
    """A few iterations on a coarse grid, from the warm start, the perturbation or the best constant shares."""
    start, structure, generator = first_policy(mdp, task), find_structure(mdp), task.generator(mdp.device)
    few = MDP(task.model, mdp.device, mdp.dtype, Quadrature(nodes=min(SKETCH_NODES, method.nodes)))
    box = mdp.sample_box(SAMPLE, generator)
    forms = priced_forms(few, general_forms(mdp), start, box[:FEW])
    deadline = (1 - SKETCH_SHARE) * task.remaining() if task.time_limit is not None else 0.0

    def look_at_the_clock() -> None:
        if task.remaining() <= deadline:
            raise OutOfTime

    rough = Collocation(method.name, few, forms.describe(), method.coarse_grid(mdp), look_at_the_clock)
    policy = start
    try:
        if mdp.horizon is None:
            rough.begin(start)
            for _ in range(SKETCH_STEPS):
                change = rough.step()
                policy = rough.policy
                if change < SKETCH_CHANGE:
                    break
        else:
            rough.begin(start, mdp.horizon - 1)
            for t in reversed(range(mdp.horizon)):
                rough.step_back(t)
            policy = rough.policy
    except OutOfTime:
        pass
    with torch.no_grad():
        own, _ = ergodic_states(mdp, policy, SAMPLE // 50, 50, 50, generator)
        s = torch.cat([box, own])
        forms = priced_forms(few, forms_of(mdp, s, policy(s)), policy, box[:FEW])
        some = s[:: len(s) // 500]
        policy = min(policy, start, key=lambda p: mean_residual(few, structure, p, some))
    smooth = all(form == FREE for form in forms.forms)
    if smooth or forms.prices:
        tolerance = method.quadrature if smooth else max(method.quadrature, KINKED)
        mdp = coarsest(mdp, structure, policy, some, method.nodes, tolerance)
    return Sketch(policy.on(mdp), forms, mdp)


def mean_residual(mdp: MDP, structure: Structure, policy: Function, s: Tensor) -> float:
    """Mean |R| at s; infinite where it is no number."""
    error = float(euler_residuals(mdp, structure, policy, s).abs().mean())
    return error if error == error else math.inf


def first_policy(mdp: MDP, task: Task) -> StateFunction:
    """What the iteration begins from."""
    if task.warm_start is not None:
        return task.warm_start[0].on(mdp)
    if Perturbation().refuse(mdp) is None:
        with contextlib.suppress(SolveError):  # no interior steady state
            return expansion(mdp, task.generator(mdp.device))[0]
    constant = LinearPolicy(mdp)
    constant.u_star.copy_(find_start(mdp, task.generator(mdp.device)).u)
    return constant


def general_forms(mdp: MDP) -> list[str]:
    """Forms in which every bound may bind."""
    return [
        BOTH if two_bounds(v) else LOW if isinstance(v, Budget) or is_bound(v.low) or is_bound(v.high) else FREE
        for v, _ in mdp.continuous_actions
    ]
