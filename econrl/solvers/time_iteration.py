"""Policy iteration on the Euler equation, on any grid: today's action given tomorrow's policy, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from econrl.accuracy import HeldOut
from econrl.bellman import lookahead
from econrl.errors import SolveError
from econrl.euler import Structure, action_jacobian, condition, costate, euler_residuals, find_structure
from econrl.expectation import Quadrature
from econrl.forms import BOTH, FREE, LOW, Forms, forms_of, two_bounds
from econrl.functions import StateFunction
from econrl.grids import CutOffPolicy, GridValue
from econrl.mdp import MDP
from econrl.multipliers import gain_of, priced_forms, without_multipliers
from econrl.simulate import ergodic_states
from econrl.solvers.base import Result, Task, Tracker, require
from econrl.solvers.evaluation import evaluate, explain
from econrl.solvers.fit_grid import coarse_points, fitted
from econrl.solvers.newton import KINKED, coarsest
from econrl.solvers.on_grid import OnTensorGrid
from econrl.solvers.perturbation import LinearPolicy, Perturbation
from econrl.solvers.start import find_start
from econrl.variables import Budget, is_bound

Function = Callable[[Tensor], Tensor]

NUMBERS = {"cpu": 2_000_000, "cuda": 50_000_000}  # held at once in a batch: states x nodes x coefficients a query
NEWTON_STEPS = 12  # at most, at a point
ENOUGH = 0.03  # of a residual may be left by an iteration, since the policy of tomorrow is not the last
CHORD = 0.3  # an old Jacobian that leaves more of a residual is renewed
TRUSTED = 1e-2  # residuals below which one step with the old Jacobian is enough
ROUNDING = 1e-13  # a residual at which nothing is left to solve
LENGTHS = (1.0, 0.5, 0.125, 1 / 64)
LONGEST = 2.0  # of a Newton step in z
ON_BOUND = 1e-7  # a z this close to its bound is on it
MEMORY = 20  # former iterates that the next one is extrapolated from
SKETCH_CHANGE, SKETCH_STEPS, SKETCH_SHARE = 1e-6, 100, 0.2  # of the coarse grid; the share is of the time limit
SKETCH_NODES = 3  # a shock
PATIENCE = 60  # iterations without a new smallest change
FOR_VALUE = 0.2  # of a time limit, kept for the value
KRYLOV = 200  # steps of GMRES, at most, for the value
SAMPLE, FEW = 2000, 100  # states that tell which bounds may bind, and how steep gains are beyond them


class OutOfTime(Exception):
    """The time limit passed between two batches of points."""


# One point's equation


@dataclass
class Equations:
    """R(s, a; later) = 0 at many states s: the Euler equation's complementarity residual for today's action a, given
    the policy of tomorrow, as a function of the z of `forms.py`."""

    mdp: MDP
    structure: Structure
    forms: Forms

    def actions(self, s: Tensor, z: Tensor) -> Tensor:
        return self.mdp.from_shares(s, self.forms.within(z))

    def residual(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """R (B, A) at a z (B, A) that is not beyond a bound; infinite where it is no number."""
        a = self.actions(s, z)
        return euler_residuals(self.mdp, self.structure, lambda _: a, s, later)

    def gain(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """g (B, A): what more of each action would bring, free of units."""
        gains = later.gains if isinstance(later, CutOffPolicy) and later.prices else None
        price = lambda s: costate(self.mdp, self.structure, later, s, gains=gains)  # noqa: E731
        a = self.actions(s, z)
        if self.forms.steepness is not None:
            return gain_of(self.mdp, price, s, a)
        G, scale = condition(self.mdp, price, lambda _: a, s)
        return G / scale

    def solve(self, s: Tensor, z: Tensor, later: Function, J: Tensor, enough: float = 0.0) -> tuple[Tensor, Tensor]:
        """z (B, A) with |R| at most `enough` times that of the guess, by Newton's method; and the Jacobians (B, A, A)
        used last.

        Those given are tried first: from one iteration to the next they hardly change. Where |R| is small, one step
        with them is enough, if any error is. Zeros stand for none. A step that does not lower |R| is shortened.
        """
        z, J = self.forms.project(z), J.clone()
        R = self.residual(s, z, later)
        size = length(R)
        goal = (enough * size).clamp(min=ROUNDING)
        old = (J != 0).flatten(1).any(dim=-1)
        if enough > 0 and bool((old & (size < TRUSTED)).all()):
            return self.forms.project(z + newton_step(J, R)), J
        for _ in range(NEWTON_STEPS):
            rows = ((size > goal) & size.isfinite()).nonzero().flatten()
            if len(rows) == 0:
                break
            fresh = rows[~old[rows]]
            if len(fresh) > 0:
                s_, later_ = s[fresh], later
                J[fresh] = action_jacobian(lambda x: self.residual(s_, x, later_), z[fresh])  # noqa: B023
            before = size[rows]
            z[rows], R[rows] = self.search(s[rows], z[rows], R[rows], J[rows], later)
            size[rows] = length(R[rows])
            old[rows] = size[rows] < CHORD * before
            stuck = rows[(size[rows] >= before) & torch.isin(rows, fresh)]
            goal[stuck] = torch.inf
        return z, J

    def search(self, s: Tensor, z: Tensor, R: Tensor, J: Tensor, later: Function) -> tuple[Tensor, Tensor]:
        """z and R after one Newton step, the longest of a few that lowers |R|; as they were where none does."""
        step = newton_step(J, R)
        z, R = z.clone(), R.clone()
        size, rows = length(R), torch.arange(len(z), device=z.device)
        for fraction in LENGTHS:
            trial = self.forms.project(z[rows] + fraction * step[rows])
            found = self.residual(s[rows], trial, later)
            lower = length(found) < size[rows]
            z[rows[lower]], R[rows[lower]] = trial[lower], found[lower]
            rows = rows[~lower]
            if len(rows) == 0:
                break
        return z, R

    def extended(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """z, beyond the bound where one binds: as far as its multiplier says where that matters (`multipliers.py`),
        else by a Newton step for g = 0 that ignores the bounds.

        So z goes through the bound without a kink: on either side it is, to first order, where the action would be were
        there no bound. The step d is shortened to d/(1 + |d|).
        """
        outward = self.forms.outward(z, ON_BOUND)
        rows = (outward != 0).any(dim=-1).nonzero().flatten()
        if len(rows) == 0:
            return z
        s_, z_ = s[rows], z[rows]
        gain = self.gain(s_, z_, later)
        z = z.clone()
        if self.forms.steepness is not None:
            z[rows] = z_ + outward[rows] * gain.abs() / gain.new_tensor(self.forms.steepness)
            return z
        J = action_jacobian(lambda x: self.gain(s_, x, later), z_)
        step = (newton_step(J, gain) * outward[rows]).nan_to_num().clamp(min=0)
        z[rows] = z_ + outward[rows] * step / (1 + step)
        return z


def length(R: Tensor) -> Tensor:
    """|R| (B,), infinite where it is no number."""
    return torch.where(R.isfinite().all(dim=-1), R.norm(dim=-1), torch.inf)


def newton_step(J: Tensor, R: Tensor) -> Tensor:
    """-J^-1 R (B, A), at most LONGEST in each entry; R itself, which points to better actions, where J is singular."""
    step = -torch.linalg.solve_ex(J, R.unsqueeze(-1)).result.squeeze(-1)
    step = torch.where(step.isfinite().all(dim=-1, keepdim=True), step, R)
    return step * (LONGEST / step.abs().amax(dim=-1, keepdim=True).clamp(min=LONGEST))


# The iteration


class Anderson:
    """Extrapolates x_1, x_2, ... with x_(k+1) = T(x_k) to their limit: of the last iterates the combination for which
    T(x) - x is smallest, to first order. Forgets them where that is no longer falling.

    Source: Walker and Ni (2011), "Anderson acceleration for fixed-point iterations", SIAM J. Numerical Analysis 49.
    """

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.gap: list[Tensor] = []

    def next(self, x: Tensor, T_x: Tensor) -> Tensor:
        shape, gap = x.shape, (T_x - x).flatten()
        if self.gap and gap.norm() > 2 * self.gap[-1].norm():
            self.x, self.gap = [], []
        self.x, self.gap = [*self.x[-MEMORY:], x.flatten()], [*self.gap[-MEMORY:], gap]
        if len(self.x) == 1:
            return T_x
        X, F = (torch.stack(h).diff(dim=0) for h in (self.x, self.gap))
        scale = F.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(F.dtype).tiny)
        X, F = X / scale, F / scale
        ridge = 1e-14 * len(F) * torch.eye(len(F), dtype=F.dtype, device=F.device)
        weights = torch.linalg.solve_ex(F @ F.T + ridge, F @ gap).result
        found = (self.x[-1] + gap - weights @ (X + F)).view(shape)
        return torch.where(found.isfinite().all(), found, T_x)


class Collocation:
    """Policy and value on one grid, and the steps that make the Euler equation hold at its points."""

    def __init__(self, name: str, mdp: MDP, forms: Forms, description: dict[str, Any], task: Task):
        self.name, self.mdp, self.task, self.deadline = name, mdp, task, 0.0
        self.policy, self.value = CutOffPolicy(mdp, **forms.describe(), **description), GridValue(mdp, **description)
        structure = without_multipliers(find_structure(mdp), forms.forms, mdp)
        self.equations = Equations(mdp, structure, self.policy.forms)
        nodes = len(mdp.nodes) * (len(mdp.nodes) if structure.joint else 1)
        self.chunk = max(NUMBERS.get(mdp.device.type, NUMBERS["cpu"]) // (nodes * self.policy.grid.terms), 16)

    @torch.no_grad()
    def begin(self, start: Function, period: int = 0) -> None:
        """Begin from any policy."""
        self.s = self.policy.states(period)
        self.z = self.policy.forms.outputs_for(self.s, start(self.s))
        self.J = self.z.new_zeros(*self.z.shape, self.mdp.A)
        self.policy.fit(self.z, period)
        self.anderson = Anderson()

    @torch.no_grad()
    def improve(self, enough: float) -> Tensor:
        """z (N, A) at the points, given the policy as it is; residuals reduced to `enough` of what they were. Raises
        OutOfTime between two batches."""
        found = []
        for start in range(0, len(self.s), self.chunk):
            if self.task.remaining() <= self.deadline:
                raise OutOfTime
            rows = slice(start, start + self.chunk)
            z, self.J[rows] = self.equations.solve(self.s[rows], self.z[rows], self.policy, self.J[rows], enough)
            found.append(self.equations.extended(self.s[rows], z, self.policy))
        return torch.cat(found)

    def step(self) -> float:
        """One iteration; the largest change of a share that it asks for."""
        # Where multipliers matter, what is left of a residual next to a kink would lead the extrapolation astray.
        z = self.improve(0.0 if self.policy.prices else ENOUGH)
        if not z.isfinite().all():
            at = (~z.isfinite()).any(dim=-1).nonzero()[0]
            raise SolveError(explain(self.name, self.mdp, self.s[at], self.equations.actions(self.s[at], self.z[at])))
        change = (self.policy.forms.shares(z) - self.policy.forms.shares(self.z)).abs().max()
        self.z = self.anderson.next(self.z, z)
        self.policy.fit(self.z)
        return float(change)

    def step_back(self, t: int) -> None:
        """Solve period t of a life cycle, given the policy and the value of t + 1."""
        self.s = self.policy.states(t)
        self.z = self.improve(0.0)
        self.policy.fit(self.z, t)
        with torch.no_grad():
            v = [lookahead(self.mdp, self.value, s, self.policy(s)) for s in self.s.split(self.chunk)]
            self.value.fit(torch.cat(v).unsqueeze(-1), t)


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


@dataclass(frozen=True)
class Sketch:
    """What a rough policy on a coarse grid tells: where to begin, which bounds may bind, how many nodes are needed."""

    policy: StateFunction
    forms: Forms
    mdp: MDP


def sketch(method: Iterated, mdp: MDP, task: Task, description: dict[str, Any]) -> Sketch:
    """A few iterations on a coarse grid, from the warm start, the perturbation or the best constant shares."""
    start, structure, generator = first_policy(mdp, task), find_structure(mdp), task.generator(mdp.device)
    few = MDP(task.model, mdp.device, mdp.dtype, Quadrature(nodes=min(SKETCH_NODES, method.nodes)))
    box = mdp.sample_box(SAMPLE, generator)
    forms = priced_forms(few, general_forms(mdp), start, box[:FEW])
    rough = Collocation(method.name, few, forms, description, task)
    if task.time_limit is not None:
        rough.deadline = (1 - SKETCH_SHARE) * task.remaining()
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
        mdp = coarsest(task, mdp, structure, policy, some, method.nodes, tolerance)
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
        try:
            return Perturbation().run(mdp, Task(task.model, task.device, task.seed)).policy
        except SolveError:
            pass  # no interior steady state
    constant = LinearPolicy(mdp)
    constant.u_star.copy_(find_start(mdp, task.generator(mdp.device)).u)
    return constant


def general_forms(mdp: MDP) -> list[str]:
    """Forms in which every bound may bind."""
    return [
        BOTH if two_bounds(v) else LOW if isinstance(v, Budget) or is_bound(v.low) or is_bound(v.high) else FREE
        for v in mdp.action_variables
    ]


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
    """Mean change of the residuals that is accepted for fewer nodes, where no bound binds."""

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
        rough = sketch(self, mdp, task, coarse)
        self.check_memory(rough.mdp)
        description["points"] = self.points_of(rough.mdp)
        if self.margin > 0 or self.spacing is None:
            description = fitted(mdp, rough.policy, description, self.margin, self.spacing is None)
        it = Collocation(self.name, rough.mdp, rough.forms, description, task)
        if mdp.horizon is None:
            return iterate(self, it, rough.policy, tracker)
        return recurse(it, rough.policy, task, tracker)
