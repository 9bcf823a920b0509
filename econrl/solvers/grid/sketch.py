"""A rough policy on a coarse grid: where to begin, which bounds may bind, how many nodes are needed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.errors import SolveError
from econrl.optimality.bounded_forms import BOTH, FREE, LOW, Forms, forms_of, two_bounds
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import forms_with_multipliers
from econrl.optimality.quadrature_choice import KINKED, coarsest
from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import ergodic_states
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.task import OutOfTime, Task
from econrl.solvers.grid.collocation import Collocation
from econrl.solvers.grid.time_iterated import TimeIterated
from econrl.solvers.perturbation.linear_policy import LinearPolicy
from econrl.solvers.perturbation.perturbation import Perturbation, expansion

SKETCH_CHANGE = 1e-6  # of a share, at which the coarse grid has no more to tell
SKETCH_SHARE = 0.2  # of the time limit, at most: the fine grid needs most of it
SKETCH_NODES = 3  # a shock: enough for where the states go
SAMPLE, FEW = 2000, 100  # states that tell which bounds may bind (a share of 0.002 is seen), and how steep gains are


@dataclass(frozen=True)
class Sketch:
    """What a rough policy on a coarse grid tells: where to begin, which bounds may bind, how many nodes are needed."""

    policy: StateFunction
    forms: Forms
    mdp: MDP


def sketch(method: TimeIterated, mdp: MDP, task: Task) -> Sketch:
    """A few iterations on a coarse grid, from the warm start, the perturbation or the best constant shares."""
    deadline = (1 - SKETCH_SHARE) * task.remaining() if task.time_limit is not None else 0.0

    def look_at_the_clock() -> None:
        if task.remaining() <= deadline:
            raise OutOfTime

    start, value = first_answer(mdp, task, look_at_the_clock)
    structure, generator = find_structure(mdp), task.generator(mdp.device)
    few = mdp.with_quadrature(Quadrature(nodes=min(SKETCH_NODES, method.nodes)))
    box = mdp.sample_box(SAMPLE, generator)
    forms = forms_with_multipliers(few, general_forms(mdp), start, box[:FEW], value)
    rough = Collocation(method.name, few, forms.describe(), method.coarse_grid(mdp), look_at_the_clock)
    policy = start
    try:
        if mdp.horizon is None:
            rough.begin(start)
            for _ in range(method.sketch_steps):
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
        value = rough.value
        forms = forms_with_multipliers(few, forms_of(mdp, s, policy(s)), policy, box[:FEW], value)
        some = s[:: len(s) // 500]
        policy = min(policy, start, key=lambda p: mean_residual(few, structure, p, some, value))
    smooth = all(form == FREE for form in forms.forms)
    if smooth or forms.knows_multipliers:
        tolerance = method.quadrature if smooth else max(method.quadrature, KINKED)
        mdp = coarsest(mdp, structure, policy, some, method.nodes, tolerance, value=value)
    return Sketch(policy.on(mdp), forms, mdp)


def mean_residual(mdp: MDP, structure: Structure, policy: Function, s: Tensor, value: Function) -> float:
    """Mean |R| at s; infinite where it is no number."""
    error = float(euler_residuals(mdp, structure, policy, s, value=value).abs().mean())
    return error if error == error else math.inf


def first_answer(
    mdp: MDP, task: Task, look_at_the_clock: Callable[[], None] = lambda: None
) -> tuple[StateFunction, StateFunction | None]:
    """What the iteration begins from: a policy, and its value where that is known."""
    if task.warm_start is not None:
        policy, value = task.warm_start
        return policy.on(mdp), value.on(mdp)
    if Perturbation().refuse(mdp) is None:
        with contextlib.suppress(SolveError, OutOfTime):  # no interior steady state, or none in time
            return expansion(mdp, task.generator(mdp.device), look_at_the_clock)
    constant = LinearPolicy(mdp)
    constant.u_star.copy_(best_constant_shares(mdp, task.generator(mdp.device)).u)
    return constant, None


def general_forms(mdp: MDP) -> list[str]:
    """Forms in which every bound may bind."""
    sets = [v.shares for v, _ in mdp.continuous_actions]
    return [BOTH if two_bounds(y) else LOW if y.below or y.above else FREE for y in sets]
