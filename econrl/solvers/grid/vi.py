"""Value function iteration on a grid, with a continuous choice and Howard's policy evaluation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.grid_functions import GridPolicy, GridValue
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.solvers.common.memory import CHUNK
from econrl.solvers.common.method import require
from econrl.solvers.common.task import OutOfTime, Result, Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.grid.fit_grid import coarse_points, fitted
from econrl.solvers.grid.maximise import best_candidate, better, candidates, evaluate, newton
from econrl.solvers.grid.policy_evaluation import Evaluation, evaluation, explain
from econrl.solvers.grid.tensor_grid_method import OnTensorGrid

SKETCH_STEPS = 6  # iterations on the coarse grid that tells how far the states reach
PATIENCE = 25  # iterations without a new smallest change
FIRST_LIMIT = 4.0  # of u in the policy that the iteration starts from: shares of 0.02 to 0.98


@dataclass(frozen=True)
class VI(OnTensorGrid):
    """Value function iteration on a tensor grid; with Howard's evaluation steps, policy iteration.

        improve   pi(s) = argmax_a r(s, a) + E[beta V(f(s, a, e))]     at each grid point, by Newton's method
        evaluate  V(s) = r(s, pi(s)) + E[beta V(f(s, pi(s), e))]       a linear system in V at the grid points, by GMRES

    between which V is interpolated. It stops when neither V nor the policy changes. A life cycle is solved backwards
    from its last period, one improvement a period. Where there are discrete choices, each option has a value of its
    own, and V is the largest (see `grids.py`).

    Source: Howard (1960), "Dynamic Programming and Markov Processes"; Rust (1996), "Numerical dynamic programming in
    economics", Handbook of Computational Economics 1; Judd (1998), "Numerical Methods in Economics", chapter 12.
    """

    name: ClassVar[str] = "vi"
    choices: ClassVar[bool] = True

    howard: int = 200
    """Steps of GMRES at most in each policy evaluation; 0 is plain value iteration."""
    change: float = 1e-9
    """Largest change of the value (relative) and of the policy (in shares) at which the iteration ends."""
    every: int = 1
    """Iterations from one measurement of the error to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "every", self.every >= 1, "at least 1")
        require(self, "howard", self.howard >= 0, "at least 0")
        require(self, "change", self.change > 0, "positive")

    def run(self, mdp: MDP, task: Task) -> Result:
        """Fit the grid to a rough policy, then iterate. Raises SolveError for a grid that does not fit into memory."""
        self.check_memory(mdp)
        description = self.describe_grid(mdp)
        if self.margin > 0 or self.spacing is None:
            coarse = Iteration(self, mdp, {**description, "points": coarse_points(description)}, task)
            coarse.sketch()
            description = fitted(mdp, coarse.policy, description, self.margin, self.spacing is None)
        iteration = Iteration(self, mdp, description, task)
        tracker = Tracker(task, HeldOut(task.model, mdp.device))
        if mdp.horizon is None:
            return iterate(self, iteration, task, tracker)
        return recurse(iteration, task, tracker)

    @property
    def krylov(self) -> int:
        return self.howard


class Iterated(Protocol):
    """The settings that value iteration reads, whatever the grid."""

    name: ClassVar[str]

    @property
    def howard(self) -> int: ...

    @property
    def change(self) -> float: ...

    @property
    def every(self) -> int: ...


class Iteration:
    """The grid, the functions on it, and the two steps of the iteration.

    s (N, S) are the grid's states; u (D N, A) and v (D N,) the maximisers and maxima at them for each of the D options,
    one where there is no choice.
    """

    def __init__(self, method: Iterated, mdp: MDP, description: dict[str, Any], task: Task):
        self.method, self.mdp, self.task = method, mdp, task
        self.value, self.policy = GridValue(mdp, **description), GridPolicy(mdp, **description)
        self.given = [mdp.given(option) for option in mdp.options]
        self.starts = candidates(len(mdp.free)).to(mdp.device, mdp.dtype)
        each = len(mdp.nodes) * self.value.grid.terms
        self.chunk = max(CHUNK.get(mdp.device.type, CHUNK["cpu"]) // each, 1)

    def begin(self) -> None:
        """Start from the value of the policy that keeps the state where it is, as near as may be."""
        self.s = self.value.states()
        u = []
        for mdp in self.given:
            stay = partial(staying, mdp)
            for part in self.s.split(self.chunk):
                self.look_at_the_clock()
                start, nearness = best_candidate(stay, part, self.starts, FIRST_LIMIT)
                u.append(newton(stay, part, start, nearness, limit=FIRST_LIMIT)[0])
        self.u = torch.cat(u)
        self.v = self.evaluation(self.s, self.u).solve(self.u.new_zeros(len(self.u)), max(self.method.howard, 50))
        self.store()

    def sketch(self) -> None:
        """A few steps: enough for a policy that tells how far the states reach. Raises SolveError if there is no time
        for them."""
        try:
            if self.mdp.horizon is None:
                self.begin()
                for step in range(SKETCH_STEPS):
                    self.step(scan=step == 0)
            else:
                for t in reversed(range(self.mdp.horizon)):
                    self.step_back(t)
        except OutOfTime:
            raise SolveError(
                f"{self.method.name}: the time limit was over before a first policy was found on a coarse grid; give "
                "more time, or take a method that needs less for a model of this size"
            ) from None

    def step(self, scan: bool) -> float:
        """Improve and evaluate once; the change of V (relative to max |V|) or of the policy (in shares), if larger."""
        u, v = self.improve(self.s, self.u, scan)
        if self.method.howard > 0:
            if self.mdp.choices:
                self.value.fit(v.unsqueeze(-1))  # the options to be taken tomorrow
            v = self.evaluation(self.s, u).solve(v, self.method.howard)
        by_value = (v - self.v).abs().max() / v.abs().max().clamp(min=1e-300)
        by_policy = (self.shares(u) - self.shares(self.u)).abs().sum(dim=-1).max()
        self.u, self.v = u, v
        self.store()
        return float(torch.maximum(by_value, by_policy))

    def step_back(self, t: int) -> None:
        """Solve period t of a life cycle, given the value of t + 1."""
        assert self.mdp.horizon is not None
        self.s = self.value.states(t)
        self.u, self.v = self.improve(self.s, self.u if t + 1 < self.mdp.horizon else None, scan=True)
        self.store(t)

    def store(self, period: int = 0) -> None:
        """Put the values and the shares at the grid's points into the two functions."""
        if not self.v.isfinite().all():
            option, row = divmod(int((~self.v.isfinite()).int().argmax()), len(self.s))
            raise SolveError(self.explain(self.given[option], self.s[row : row + 1]))
        v = self.v.unsqueeze(-1)
        self.value.fit(v, period)
        self.policy.fit(
            torch.cat([self.shares(self.u), v], dim=-1) if self.mdp.choices else self.shares(self.u), period
        )

    def shares(self, u: Tensor) -> Tensor:
        return self.given[0].squash(u)

    def Q(self, mdp: MDP, s: Tensor, u: Tensor) -> Tensor:
        """r(s, a) + E[beta V(s')] at a = act(s, u), in the problem that is left once the choices are made."""
        return lookahead(mdp, self.value, s, mdp.act(s, u))

    def improve(self, s: Tensor, u: Tensor | None, scan: bool) -> tuple[Tensor, Tensor]:
        """Maximisers u (D N, A) and maxima (D N,), from a former u where given and, with `scan`, from all candidates.
        Raises OutOfTime between two batches of states."""
        found, values = [], []
        for option, mdp in enumerate(self.given):
            Q = partial(self.Q, mdp)
            for start in range(0, len(s), self.chunk):
                self.look_at_the_clock()
                part = s[start : start + self.chunk]
                best, value = best_candidate(Q, part, self.starts if scan else self.starts[:0])
                if u is not None:
                    former = u[option * len(s) + start :][: len(part)]
                    best, value = better(former, evaluate(Q, part, former), best, value)
                if not value.isfinite().all():
                    raise SolveError(self.explain(mdp, part[~value.isfinite()][:1]))
                best, value = newton(Q, part, best, value)
                found.append(best)
                values.append(value)
        return torch.cat(found), torch.cat(values)

    def look_at_the_clock(self) -> None:
        if self.task.remaining() <= 0:
            raise OutOfTime

    def explain(self, mdp: MDP, s: Tensor) -> str:
        """Why there is no finite value at the state s (1, S), whatever the action."""
        s = s.expand(len(self.starts), -1)
        return explain(self.method.name, mdp, s, mdp.act(s, self.starts))

    def evaluation(self, s: Tensor, u: Tensor) -> Evaluation:
        """The linear equation of the policy u (D N, A)."""
        by_option = u.unflatten(0, (len(self.given), len(s)))
        policy = [(mdp, mdp.act(s, u)) for mdp, u in zip(self.given, by_option, strict=True)]
        return evaluation(self.method.name, policy, self.value, s, self.chunk)


def staying(mdp: MDP, s: Tensor, u: Tensor) -> Tensor:
    """Minus the mean squared distance that the state moves, in units of the domain."""
    a = mdp.act(s, u)
    moved = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes) - s.unsqueeze(-2)
    moved = (moved / (mdp.high - mdp.low).clamp(min=1e-300))[..., mdp.continuous]
    distance = (mdp.weights(s) * moved.square().sum(dim=-1)).sum(dim=-1)
    return torch.where(mdp.reward(s, a).isfinite(), -distance, -torch.inf)


class Convergence:
    """Has the iteration ended, and why? `message` is empty where it converged."""

    def __init__(self, method: Iterated, task: Task):
        self.method, self.task = method, task
        self.change, self.smallest, self.since = math.inf, math.inf, 0
        self.converged, self.message = False, ""

    def ends(self, step: int, change: float, scanned: bool) -> bool:
        self.change = change
        self.smallest, self.since = (change, 0) if change < self.smallest else (self.smallest, self.since + 1)
        enough = change <= self.method.change
        self.converged = enough and (scanned or self.since >= PATIENCE)
        if self.converged:
            return True
        if self.since >= PATIENCE:
            self.message = f"the change stopped falling at {self.smallest:.1e} (asked for: {self.method.change:.1e})"
        elif step == self.task.steps:
            self.message = f"stopped after {step} iterations, at a change of {change:.1e}"
        return bool(self.message)

    def out_of_time(self, step: int, next_takes: float) -> bool:
        if self.task.remaining() <= next_takes:
            self.message = f"stopped by the time limit after {step} iterations, at a change of {self.change:.1e}"
        return bool(self.message)


def iterate(method: Iterated, it: Iteration, task: Task, tracker: Tracker) -> Result:
    """Policy iteration of a stationary model."""
    step, state = 0, Convergence(method, task)
    try:
        it.begin()
        while True:
            began = time.perf_counter()
            scan = step == 0 or state.change <= method.change  # a second maximum may hide elsewhere
            change = it.step(scan)
            step += 1
            ends = state.ends(step, change, scan)
            measured = ends or step % method.every == 0
            if measured:
                tracker.measure(step, it.policy, it.value, change=change)
            if tracker.converged:
                state.converged = True
                break
            if ends or state.out_of_time(step, time.perf_counter() - began):
                break
    except OutOfTime:
        state.out_of_time(step, 0.0)
    except KeyboardInterrupt:
        state.message = f"interrupted after {step} iterations"
    if (state.converged or state.since >= PATIENCE) and it.evaluation(it.s, it.u).grows():
        raise SolveError(f"{type(it.mdp.model).__name__} has no finite value: what it discounts grows at least as fast")
    return outcome(it, tracker, step, state.converged, state.message)


def recurse(it: Iteration, task: Task, tracker: Tracker) -> Result:
    """Backward induction of a life cycle; the periods not reached get the policy of the last one solved."""
    assert it.mdp.horizon is not None
    horizon, done, slowest, message = it.mdp.horizon, 0, 0.0, ""
    try:
        for t in reversed(range(horizon)):
            began = time.perf_counter()
            if done > 0 and task.remaining() < slowest:
                message = f"stopped by the time limit with {t + 1} of {horizon} periods to go"
            elif done == task.steps:
                message = f"stopped after {done} periods with {t + 1} of {horizon} to go"
            if message:
                break
            it.step_back(t)
            done, slowest = done + 1, max(slowest, time.perf_counter() - began)
    except OutOfTime:
        message = f"stopped by the time limit with {horizon - done} of {horizon} periods to go"
    except KeyboardInterrupt:
        message = f"interrupted with {horizon - done} of {horizon} periods to go"
    if done > 0:
        for t in range(horizon - done):
            it.value.copy_period(horizon - done, t)
            it.policy.copy_period(horizon - done, t)
        tracker.measure(done, it.policy, it.value)
    return outcome(it, tracker, done, done == horizon, message)


def outcome(it: Iteration, tracker: Tracker, steps: int, converged: bool, message: str) -> Result:
    """The functions that converged; else the best measured. Where there is no Euler equation the measure is the Bellman
    error, which is low for any well evaluated policy, so that it must not overrule the iteration's own criterion."""
    if converged:
        return Result(it.policy, it.value, tracker.log, steps, converged, message)
    return tracker.result(steps, message, converged=False)
