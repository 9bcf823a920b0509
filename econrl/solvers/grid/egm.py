"""The endogenous grid method: the Euler equation is solved backwards, from what is kept to what there was to spend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.grid_functions import GridValue
from econrl.approximation.tensor_grid import TensorGrid
from econrl.errors import SolveError
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import CHUNK, require_memory
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Result, Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.grid.endogenous_policy import EndogenousPolicy
from econrl.solvers.grid.fit_grid import fitted
from econrl.solvers.grid.policy_evaluation import evaluate
from econrl.solvers.grid.spending import action, interval, marginal_utility, spent_at, why_not
from econrl.solvers.grid.vi import VI

SCAN = 400  # amounts kept that are tried out to see how far the grid must reach
KRYLOV = 200  # steps of GMRES, at most, for the value
SMALLEST = 1e-300  # marginal value of what is kept that counts as none
DENSE = 4.0  # spacing of the grid near a borrowing limit: e^4 times as dense there as at its far end


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

    def run(self, mdp: MDP, task: Task) -> Result:
        """Iterate on the policy, then evaluate it. Raises SolveError where the endogenous grid is not increasing."""
        x = find_structure(mdp).endogenous[0]
        solver = Backwards(self, mdp, x, kept=why_not(mdp, x, False) is not None)
        tracker = Tracker(task, HeldOut(task.model, task.device))
        return recurse(solver, task, tracker) if mdp.horizon is not None else iterate(solver, task, tracker)


# The iteration


@dataclass
class Future:
    """All that one step needs to know of the next period, whatever the policy: for row, w and node (R, n, J)."""

    s: Tensor
    """The next states (R, n, J, S), with lives that are over put into their last period."""
    M: Tensor
    worth: Tensor
    """Probability times beta times M'_x dx'/dw, or of the terminal value's derivative once life is over."""
    over: Tensor
    place: tuple[Tensor, Tensor]


class Backwards:
    """The grid of what is kept, and the step from tomorrow's policy to today's."""

    def __init__(self, method: EGM, mdp: MDP, x: int, kept: bool):
        self.method, self.mdp, self.x, self.kept = method, mdp, x, kept
        room = method.margin * (mdp.high - mdp.low)
        below = torch.where(mdp.low > 0, room.minimum(mdp.low / 2), room)
        self.least, self.most = mdp.low - below, mdp.high + room
        z = [column for column in mdp.continuous if column != x]
        z_low, z_high = self.reach_of(z)

        def policy(points: int) -> EndogenousPolicy:
            return EndogenousPolicy(mdp, x, kept, points, z_low, z_high, method.exogenous)

        self.policy = policy(2)  # for its rows
        w_low, w_high = self.useful()
        self.limited = w_low == 0
        points = method.points or (400 if self.limited else 100)
        self.check_memory(self.policy.rows * points * len(mdp.nodes), 4 ** (len(z) - len(mdp.parameters)))
        self.policy = policy(points)
        spacing = [DENSE if self.limited else 0.0]
        self.w = TensorGrid([w_low], [w_high], [points], spacing, "linear", mdp.device, mdp.dtype).axis(0)
        self.most_spent = 1e3 * w_high
        self.value: GridValue | None = None

    def check_memory(self, queries: int, taps: int) -> None:
        """Raise SolveError, before it is allocated, where what a step needs would not fit into half of the memory."""
        needed = 8.0 * queries * (2 * self.mdp.S + 8 + 10 * taps)
        advice = "Reduce `points`, `exogenous` or `nodes`, or take another method"
        require_memory("egm", self.mdp, needed, f"{queries:,} next states", advice)

    def reach_of(self, z: list[int]) -> tuple[list[float], list[float]]:
        """How far exogenous states go in one period from their domain, within the margin; half as far again."""
        mdp = self.mdp
        s = mdp.sample_box(2000, torch.Generator(mdp.device).manual_seed(0))
        reached = mdp.transition(s.unsqueeze(-2), mdp.act(s, s.new_zeros(len(s), 1)).unsqueeze(-2), mdp.nodes)
        low, high = reached.amin(dim=(0, 1)), reached.amax(dim=(0, 1))
        low = torch.maximum(mdp.low - 1.5 * (mdp.low - low).clamp(min=0), self.least)
        high = torch.minimum(mdp.high + 1.5 * (high - mdp.high).clamp(min=0), self.most)
        return low[z].tolist(), high[z].tolist()

    def rows(self, period: int) -> Tensor:
        """A state (R, S) for each row, with the largest x: what can be spent there is enough for most w."""
        return self.policy.states(float(self.mdp.high[self.x]), period)

    def useful(self) -> tuple[float, float]:
        """The amounts kept from which the next state can lie in the widened domain; none is more than M there."""
        low, high = [], []
        for period in range(self.mdp.horizon or 1):
            s = self.rows(period)
            richest = self.with_x(s, self.most[self.x])
            w = torch.linspace(0, 1, SCAN, dtype=s.dtype, device=s.device) * interval(self.mdp, richest)[1].max()
            reached = self.reached(s, w)[..., self.x].transpose(0, 1).flatten(1)  # (SCAN, rows J)
            enough = (reached >= self.least[self.x]).any(dim=-1).nonzero()
            little = (reached <= self.most[self.x]).any(dim=-1).nonzero()
            first = max(int(enough[0]) - 1, 0) if len(enough) else 0
            last = min(int(little[-1]) + 1, SCAN - 1) if len(little) else SCAN - 1
            low.append(float(w[first]))
            high.append(float(w[last]))
        return min(low), max(high)

    def reached(self, s: Tensor, w: Tensor) -> Tensor:
        """f (R, n, J, S) from rows s (R, S) with w (n,) kept."""
        _, M = interval(self.mdp, s)
        s_ = s.unsqueeze(1)
        a = action(self.mdp, s_, M.unsqueeze(1) - w, self.kept)
        return self.mdp.transition(s_.unsqueeze(2), a.unsqueeze(2), self.mdp.nodes)

    def future(self, period: int = 0) -> Future:
        """Where each row and w leads to, and what M' is worth there."""
        mdp, x = self.mdp, self.x
        s = self.rows(period)
        reached, speed, *_ = torch.func.jvp(lambda w: self.reached(s, w), (self.w,), (torch.ones_like(self.w),))
        a = action(mdp, s.unsqueeze(1), interval(mdp, s)[1].unsqueeze(1) - self.w, self.kept)
        beta = mdp.discount(s[:, None, None], a.unsqueeze(2), mdp.nodes)
        weight = (mdp.weights(s).expand(len(s), -1).unsqueeze(1) * beta) * speed[..., x]
        slope = torch.func.grad(lambda s: interval(mdp, s)[1].sum())(reached)[..., x]
        over = torch.zeros_like(slope, dtype=torch.bool)
        if mdp.horizon is not None:
            over = mdp.period(reached) >= mdp.horizon
            final = torch.func.grad(lambda s: mdp.terminal(s).sum())(reached)[..., x]
            slope = torch.where(over, final, slope)
            reached = torch.cat([reached[..., :-1], mdp.period(reached).clamp(max=mdp.horizon - 1).unsqueeze(-1)], -1)
        place = self.policy.place(reached, on_grid=mdp.parameters)
        return Future(reached, interval(mdp, reached)[1], weight * slope, over, place)

    def step(self, future: Future, guess: Tensor, period: int = 0) -> Tensor:
        """One step back: what is spent (R, n) where w is kept; the policy of `period` takes it."""
        s = self.rows(period).unsqueeze(1)
        c = self.policy.spent(future.M, future.place)
        then = torch.where(future.over, 1.0, marginal_utility(self.mdp, future.s, c, self.kept)[0])
        mu = (future.worth * then).sum(dim=-1)
        # Where nothing is worth keeping, more is spent than there is: so all of it.
        mu = mu.clamp(min=SMALLEST)
        spent = spent_at(self.mdp, s.expand(*mu.shape, -1), mu, guess, self.most_spent, self.kept)
        M = self.w + spent
        if not (M.isfinite().all() and (M.diff(dim=-1) > 0).all()):
            raise SolveError(
                f"egm on {type(self.mdp.model).__name__}: the endogenous grid is not increasing, as where the value is "
                "not concave, or the domain one that the state cannot stay in. Take vi or auto"
            )
        self.policy.fit(M, spent, period)
        return spent

    def begin(self) -> Tensor:
        """Start from the policy that keeps the state where it is on average, as near as may be; where the limit may
        bind, from the one that spends all. A guess of c (R, n)."""
        if self.limited:
            self.policy.fit(*self.all_is_spent())
            return self.policy.c.clone()
        s = self.rows(0)
        after = (self.mdp.weights(s).unsqueeze(-2) * self.reached(s, self.w)[..., self.x]).sum(dim=-1)  # (R, n)
        M = torch.stack([interval(self.mdp, self.with_x(s, x))[1] for x in after.T], dim=-1)
        c = torch.minimum((M - self.w).clamp(min=0), 0.95 * M).maximum(0.02 * M)
        self.policy.fit(M, c)
        return c.clamp(min=1e-6)

    def all_is_spent(self) -> tuple[Tensor, Tensor]:
        """M and c (R, n) of a grid that begins beyond all that there is."""
        c = torch.full((self.policy.rows, len(self.w)), self.most_spent).to(self.w)
        return c + self.w, c

    def with_x(self, s: Tensor, x: Tensor) -> Tensor:
        s = s.clone()
        s[:, self.x] = x
        return s

    # The value

    def evaluate(self) -> StateFunction:
        """V = r + E[beta V'] of the policy, on the grid that value iteration would have."""
        if self.value is None:
            grid = VI(nodes=self.method.nodes)
            self.value = GridValue(
                self.mdp, **fitted(self.mdp, self.policy, grid.describe_grid(self.mdp), grid.margin, True)
            )
        chunk = max(CHUNK.get(self.mdp.device.type, CHUNK["cpu"]) // (len(self.mdp.nodes) * self.value.grid.terms), 1)
        evaluate(self.method.name, self.mdp, self.value, self.policy, KRYLOV, chunk)
        return self.value


def iterate(solver: Backwards, task: Task, tracker: Tracker) -> Result:
    """Time iteration of a stationary model."""
    method, step, message, converged = solver.method, 0, "", False
    future, spent, slowest = solver.future(), solver.begin(), 0.0
    try:
        while not (converged or message):
            began = time.perf_counter()
            found = solver.step(future, spent)
            change, spent, step = float((found / spent - 1).abs().max()), found, step + 1
            converged = change <= method.change
            slowest = max(slowest, time.perf_counter() - began)
            if step == task.steps and not converged:
                message = f"stopped after {step} iterations, at a change of {change:.1e}"
            elif task.remaining() < 10 * slowest and not converged:
                message = f"stopped by the time limit after {step} iterations, at a change of {change:.1e}"
            if converged or message or step % method.every == 0:
                tracker.measure(step, solver.policy, solver.evaluate(), change=change)
                converged = converged or tracker.converged
    except KeyboardInterrupt:
        message = f"interrupted after {step} iterations"
    if converged:
        assert solver.value is not None
        return Result(solver.policy, solver.value, tracker.log, step, True)
    return tracker.result(step, message, converged=False)


def recurse(solver: Backwards, task: Task, tracker: Tracker) -> Result:
    """Backward induction of a life cycle."""
    assert solver.mdp.horizon is not None
    _, guess = solver.all_is_spent()
    for t in reversed(range(solver.mdp.horizon)):
        guess = solver.step(solver.future(t), guess, t)
    tracker.measure(solver.mdp.horizon, solver.policy, solver.evaluate())
    return tracker.result(solver.mdp.horizon, converged=True)
