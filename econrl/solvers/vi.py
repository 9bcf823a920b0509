"""Value function iteration on a grid, with a continuous choice and Howard's policy evaluation."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from econrl.accuracy import HeldOut
from econrl.bellman import lookahead
from econrl.diagnose import describe, first_fault
from econrl.errors import MethodError, SolveError
from econrl.grids import GridPolicy, GridValue
from econrl.interpolation import BASIS, FEWEST, Stencil
from econrl.mdp import MDP
from econrl.solvers.base import Method, Result, Task, Tracker, require
from econrl.solvers.fit_grid import coarse_points, fitted
from econrl.solvers.maximise import best_candidate, better, candidates, evaluate, newton

DEFAULT_POINTS = 4096  # in all, or fewer where
DEFAULT_WORK = 8_000_000  # would be exceeded: points x nodes x coefficients a query
MOST_ON_A_LINE = 200  # more make second derivatives of a value with kinks noisy
CHUNK = {"cpu": 400_000, "cuda": 8_000_000}  # numbers gathered at once: states x nodes x coefficients a query
COPIES = 16  # arrays of a chunk's size that second derivatives hold at their peak
SKETCH_STEPS = 6  # iterations on the coarse grid that tells how far the states reach
PATIENCE = 25  # iterations without a new smallest change
FIRST_LIMIT = 4.0  # of u in the policy that the iteration starts from: shares of 0.02 to 0.98


@dataclass(frozen=True)
class VI(Method):
    """Value function iteration on a tensor grid; with Howard's evaluation steps, policy iteration.

        improve   pi(s) = argmax_a r(s, a) + E[beta V(f(s, a, e))]     at each grid point, by Newton's method
        evaluate  V(s) = r(s, pi(s)) + E[beta V(f(s, pi(s), e))]       a linear system in V at the grid points, by GMRES

    between which V is interpolated. It stops when neither V nor the policy changes. A life cycle is solved backwards
    from its last period, one improvement a period.

    Source: Howard (1960), "Dynamic Programming and Markov Processes"; Rust (1996), "Numerical dynamic programming in
    economics", Handbook of Computational Economics 1; Judd (1998), "Numerical Methods in Economics", chapter 12.
    """

    name: ClassVar[str] = "vi"

    points: int | tuple[int, ...] | None = None
    """Grid points of each continuous state; None: 4,096 in all (fewer if there are many nodes), at most 500 a state."""
    interpolation: str = "cubic"
    """cubic or linear."""
    spacing: float | tuple[float, ...] | None = None
    """0 is uniform, kappa > 0 is e^kappa times as dense at the low end of a state as at its high end; None: such that
    a third of the points lie below the median of a simulation."""
    margin: float = 0.5
    """How far the grid may reach beyond the domain, in widths of it; it reaches as far as the states do."""
    howard: int = 200
    """Steps of GMRES at most in each policy evaluation; 0 is plain value iteration."""
    change: float = 1e-9
    """Largest change of the value (relative) and of the policy (in shares) at which the iteration ends."""
    nodes: int = 9
    """Quadrature nodes a shock: many, for a bound may bind at some of them."""
    every: int = 1
    """Iterations from one measurement of the error to the next."""
    memory_limit: float | None = None
    """Bytes that the solver may use; None: half of what is free."""

    def __post_init__(self) -> None:
        for name in ("nodes", "every"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("howard", "margin"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        require(self, "change", self.change > 0, "positive")
        require(self, "interpolation", self.interpolation in BASIS, " or ".join(BASIS))

    def run(self, mdp: MDP, task: Task) -> Result:
        """Fit the grid to a rough policy, then iterate. Raises SolveError for a grid that does not fit into memory."""
        self.check_memory(mdp)
        description = self.describe_grid(mdp)
        if self.margin > 0 or self.spacing is None:
            coarse = Iteration(self, mdp, {**description, "points": coarse_points(description)})
            coarse.sketch()
            description = fitted(mdp, coarse.policy, description, self.margin, self.spacing is None)
        iteration = Iteration(self, mdp, description)
        tracker = Tracker(task, HeldOut(task.model, mdp.device))
        if mdp.horizon is None:
            return iterate(self, iteration, task, tracker)
        return recurse(iteration, task, tracker)

    def describe_grid(self, mdp: MDP) -> dict[str, Any]:
        """The description of `GridValue` and `GridPolicy`."""
        columns = mdp.continuous
        return {
            "low": mdp.low[columns].tolist(),
            "high": mdp.high[columns].tolist(),
            "points": self.points_of(mdp),
            "spacing": [float(kappa) for kappa in each("spacing", self.spacing or 0.0, len(columns))],
            "interpolation": self.interpolation,
        }

    def points_of(self, mdp: MDP) -> list[int]:
        d = len(mdp.continuous)
        if self.points is not None:
            return [int(n) for n in each("points", self.points, d)]
        fewest, taps = FEWEST[self.interpolation], len(BASIS[self.interpolation])
        total = min(DEFAULT_POINTS, DEFAULT_WORK / (len(mdp.nodes) * taps**d))
        each_layer = total / math.prod(len(P) for P in mdp.matrices)
        return [min(max(int(each_layer ** (1 / max(d, 1)) + 1e-9), fewest), MOST_ON_A_LINE)] * d

    def check_memory(self, mdp: MDP) -> None:
        """Raise SolveError, before anything is allocated, where the grid would not fit."""
        points = self.points_of(mdp)
        states = math.prod(points) * math.prod(len(P) for P in mdp.matrices)
        needed = self.memory(mdp, points)
        limit = self.memory_limit if self.memory_limit is not None else 0.5 * free_memory(mdp.device)
        if needed > limit:
            raise SolveError(
                f"vi on {type(mdp.model).__name__} needs about {needed:.3g} bytes for {states:,} grid points "
                f"({' x '.join(map(str, points))}) and {len(mdp.nodes):,} shock nodes, and may use {limit:.3g}. "
                "Reduce `points` (or `nodes`, or the number of states), raise `memory_limit`, or take another method"
            )

    def memory(self, mdp: MDP, points: Sequence[int]) -> float:
        """Bytes needed at the peak, predicted."""
        taps, d = len(BASIS.get(self.interpolation, BASIS["cubic"])), len(points)
        layers = math.prod(len(P) for P in mdp.matrices)
        states, queries = layers * math.prod(points), layers * math.prod(points) * len(mdp.nodes)
        functions = 3 * (mdp.horizon or 1) * layers * math.prod(n + taps - 2 for n in points) * (1 + mdp.A)
        vectors = states * (4 * mdp.S + 8 * mdp.A + 8)
        evaluation = queries * (3 + d * taps + 2 * mdp.S) + states * self.howard if mdp.horizon is None else 0
        chunk = COPIES * max(CHUNK.get(mdp.device.type, CHUNK["cpu"]), len(mdp.nodes) * taps**d)
        return 8.0 * (functions + vectors + evaluation + chunk)


def each(name: str, setting: Any, d: int) -> list[Any]:
    """A setting that is one number, or one for each of d continuous states."""
    values = list(setting) if isinstance(setting, Sequence) else [setting] * d
    if len(values) != d:
        raise MethodError(f"vi: `{name}` has {len(values)} entries, and the model has {d} continuous states")
    return values


def free_memory(device: torch.device) -> float:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return float(os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))


@dataclass
class Evaluation:
    """The equation V = r + L V of one fixed policy: L V is the discounted expectation of V at the grid points."""

    value: GridValue
    reward: Tensor
    """r(s, pi(s)), (N,)."""
    factor: Tensor
    """Probability times discount factor of each node, (N, J)."""
    stencil: Stencil
    """Where the next states (N, J) lie in the grid."""
    chunk: int

    def apply(self, v: Tensor) -> Tensor:
        """L v at the grid points, (N,)."""
        grid, layers = self.value.grid, self.value.layers
        coefficients = grid.fit(v.view(1, layers, -1))
        parts = []
        for start in range(0, len(v), self.chunk):
            rows = slice(start, start + self.chunk)
            future = grid.evaluate(coefficients, self.stencil.rows(rows))[0]
            parts.append((self.factor[rows] * future).sum(dim=-1))
        return torch.cat(parts)

    def grows(self) -> bool:
        """Whether the weights on the far future do not fall: sup L^k 1 at k = 100 against k = 50."""
        weight, sizes = torch.ones_like(self.reward), []
        for _ in range(2):
            for _ in range(50):
                weight = self.apply(weight)
            sizes.append(float(weight.abs().max()))
        return sizes[1] > (1 - 1e-6) * max(sizes[0], 1.0)

    def solve(self, v: Tensor, steps: int) -> Tensor:
        """V from the guess v, by at most `steps` steps of GMRES on the correction."""
        gap = self.reward + self.apply(v) - v

        def remainder(x: np.ndarray) -> np.ndarray:
            x_ = torch.as_tensor(x).to(v)
            return (x_ - self.apply(x_)).cpu().numpy()

        from scipy.sparse.linalg import LinearOperator, gmres

        operator = LinearOperator((len(v), len(v)), matvec=remainder, dtype=np.float64)
        b = gap.cpu().numpy()
        correction, _ = gmres(operator, b, rtol=1e-10, atol=1e-13 * float(v.abs().max()), restart=steps, maxiter=1)
        return v + torch.as_tensor(correction).to(v)


class Iteration:
    """The grid, the functions on it, and the two steps of the iteration."""

    def __init__(self, method: VI, mdp: MDP, description: dict[str, Any]):
        self.method, self.mdp = method, mdp
        self.value, self.policy = GridValue(mdp, **description), GridPolicy(mdp, **description)
        self.starts = candidates(mdp.A).to(mdp.device, mdp.dtype)
        self.chunk = max(CHUNK.get(mdp.device.type, CHUNK["cpu"]) // (len(mdp.nodes) * len(self.value.grid.offsets)), 1)

    def begin(self) -> None:
        """Start from the value of the policy that keeps the state where it is, as near as may be."""
        self.s = self.value.states()
        u = []
        for part in self.s.split(self.chunk):
            start, nearness = best_candidate(self.staying, part, self.starts, FIRST_LIMIT)
            u.append(newton(self.staying, part, start, nearness, limit=FIRST_LIMIT)[0])
        self.u = torch.cat(u)
        self.v = self.evaluation(self.s, self.u).solve(torch.zeros_like(self.s[:, 0]), max(self.method.howard, 50))
        self.store()

    def sketch(self) -> None:
        """A few steps: enough for a policy that tells how far the states reach."""
        if self.mdp.horizon is None:
            self.begin()
            for step in range(SKETCH_STEPS):
                self.step(scan=step == 0)
        else:
            for t in reversed(range(self.mdp.horizon)):
                self.step_back(t)

    def step(self, scan: bool) -> float:
        """Improve and evaluate once; the change of V (relative to max |V|) or of the policy (in shares), if larger."""
        u, v = self.improve(self.s, self.u, scan)
        if self.method.howard > 0:
            v = self.evaluation(self.s, u).solve(v, self.method.howard)
        by_value = (v - self.v).abs().max() / v.abs().max().clamp(min=1e-300)
        by_policy = (self.mdp.squash(u) - self.mdp.squash(self.u)).abs().max()
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
            raise SolveError(explain(self, self.s[~self.v.isfinite()][:1]))
        self.value.fit(self.v.unsqueeze(-1), period)
        self.policy.fit(self.mdp.squash(self.u), period)

    def Q(self, s: Tensor, u: Tensor) -> Tensor:
        """r(s, a) + E[beta V(s')] at a = act(s, u)."""
        return lookahead(self.mdp, self.value, s, self.mdp.act(s, u))

    def staying(self, s: Tensor, u: Tensor) -> Tensor:
        """Minus the mean squared distance that the state moves, in units of the domain."""
        mdp, a = self.mdp, self.mdp.act(s, u)
        moved = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes) - s.unsqueeze(-2)
        moved = (moved / (mdp.high - mdp.low).clamp(min=1e-300))[..., mdp.continuous]
        distance = (mdp.weights(s) * moved.square().sum(dim=-1)).sum(dim=-1)
        return torch.where(mdp.reward(s, a).isfinite(), -distance, -torch.inf)

    def improve(self, s: Tensor, u: Tensor | None, scan: bool) -> tuple[Tensor, Tensor]:
        """Maximisers u (N, A) and maxima (N,), from a former u where given and, with `scan`, from all candidates."""
        found, values = [], []
        for start in range(0, len(s), self.chunk):
            rows = slice(start, start + self.chunk)
            part = s[rows]
            best, value = best_candidate(self.Q, part, self.starts if scan else self.starts[:0])
            if u is not None:
                best, value = better(u[rows], evaluate(self.Q, part, u[rows]), best, value)
            if not value.isfinite().all():
                raise SolveError(explain(self, part[~value.isfinite()][:1]))
            best, value = newton(self.Q, part, best, value)
            found.append(best)
            values.append(value)
        return torch.cat(found), torch.cat(values)

    def evaluation(self, s: Tensor, u: Tensor) -> Evaluation:
        """The linear equation of the policy u (N, A)."""
        mdp = self.mdp
        rewards, factors, stencils = [], [], []
        for part, u_part in zip(s.split(self.chunk), u.split(self.chunk), strict=True):
            a = mdp.act(part, u_part)
            s_, a_ = part.unsqueeze(-2), a.unsqueeze(-2)
            reached = mdp.transition(s_, a_, mdp.nodes)
            factor = mdp.weights(part) * mdp.discount(s_, a_, mdp.nodes)
            reward = mdp.reward(part, a)
            finite = reward.isfinite() & (reached.isfinite().all(dim=-1) & factor.isfinite()).all(dim=-1)
            if not finite.all():
                raise SolveError(explain(self, part[~finite][:1]))
            rewards.append(reward)
            factors.append(factor.expand(reached.shape[:-1]))
            stencils.append(self.value.stencil(reached))
        first = torch.cat([stencil.first for stencil in stencils])
        weights = [torch.cat(parts, dim=1) for parts in zip(*[stencil.weights for stencil in stencils], strict=True)]
        return Evaluation(self.value, torch.cat(rewards), torch.cat(factors), Stencil(first, weights), self.chunk)


class Convergence:
    """Has the iteration ended, and why? `message` is empty where it converged."""

    def __init__(self, method: VI, task: Task):
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
        if self.task.remaining() < next_takes:
            self.message = f"stopped by the time limit after {step} iterations, at a change of {self.change:.1e}"
        return bool(self.message)


def iterate(method: VI, it: Iteration, task: Task, tracker: Tracker) -> Result:
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


def explain(it: Iteration, s: Tensor) -> str:
    """Why there is no finite value at the state s (1, S): which function of the model is to blame."""
    mdp = it.mdp
    fault = first_fault(mdp, s.expand(len(it.starts), -1), mdp.act(s, it.starts))
    return fault or (
        f"vi on {type(mdp.model).__name__} diverged: no finite value at {describe(mdp, s[0])}. Check that the value is "
        "finite (discounting against growth), and that the domain is one that the states can stay in"
    )
