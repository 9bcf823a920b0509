"""The endogenous grid method: the Euler equation is solved backwards, from what is kept to what there was to spend."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.accuracy import HeldOut
from econrl.errors import SolveError
from econrl.euler import find_structure
from econrl.functions import StateFunction
from econrl.grids import GridValue, layer_of, layered_states
from econrl.interpolation import TensorGrid
from econrl.mdp import MDP
from econrl.solvers.base import Method, Result, Task, Tracker, require
from econrl.solvers.evaluation import evaluate
from econrl.solvers.fit_grid import fitted
from econrl.solvers.on_grid import CHUNK, require_memory
from econrl.solvers.vi import VI
from econrl.variables import Action, is_bound

PROBES, SAME = 64, 1e-9  # states at which a spec is looked at, and the relative difference that counts as none
SCAN = 400  # amounts kept that are tried out to see how far the grid must reach
KRYLOV = 200  # steps of GMRES, at most, for the value
SMALLEST = 1e-300  # marginal value of what is kept that counts as none
LEAST = 1e-10  # of what there is to spend: the smallest amount spent
NEWTON_STEPS, EXACT = 80, 1e-12  # at most, for the inverse of marginal utility; the last step's size in logarithms
BEYOND = 2.0  # cells beyond the grid of an exogenous state to which the policy is extrapolated
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
        actions = mdp.action_variables
        if mdp.A != 1 or not isinstance(actions[0], Action):
            return "the endogenous grid method needs exactly one action, with bounds"
        if not (is_bound(actions[0].low) and is_bound(actions[0].high)):
            return f"the endogenous grid method needs two finite bounds of the action '{actions[0].name}'"
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


# What kind of model it is


def interval(mdp: MDP, s: Tensor) -> tuple[Tensor, Tensor]:
    """low(s) and M(s) = high(s) - low(s) of the one action, each (...)."""
    nothing = torch.zeros_like(s[..., :1])
    low, high = mdp.from_shares(s, nothing), mdp.from_shares(s, nothing + 1)
    return low[..., 0], (high - low)[..., 0]


def action(mdp: MDP, s: Tensor, c: Tensor, kept: bool) -> Tensor:
    """The action (..., 1) at which c is spent; `kept`: the action says what is kept."""
    low, M = interval(mdp, s)
    return (low + (M - c if kept else c)).unsqueeze(-1)


def why_not(mdp: MDP, x: int, kept: bool) -> str | None:
    """Why reward and transition are not functions of c and of w = M - c, at pairs of states that differ in x alone."""
    generator = torch.Generator(mdp.device).manual_seed(0)
    one = mdp.sample_box(PROBES, generator)
    other = one.clone()
    other[:, x] = mdp.sample_box(PROBES, generator)[:, x]
    M = [interval(mdp, s)[1] for s in (one, other)]
    share = torch.rand(PROBES, generator=generator, dtype=mdp.dtype, device=mdp.device).clamp(0.05, 0.95)
    amount = share * torch.minimum(*M)  # once spent, once kept, by both

    def gap(f: Any, c: list[Tensor]) -> float:
        values = [f(s, action(mdp, s, spent, kept)) for s, spent in zip((one, other), c, strict=True)]
        return float((values[0] - values[1]).abs().max() / values[0].abs().max().clamp(min=1e-12))

    if not gap(mdp.reward, [amount, amount]) < SAME:
        return "the reward must depend on the action (what is spent of its bound) and on exogenous states alone"
    left = [m - amount for m in M]
    e = mdp.nodes.unsqueeze(1)
    if not gap(lambda s, a: mdp.transition(s, a, e)[..., x], left) < SAME:
        return "the next state must depend on what the action leaves of its bound, exogenous states and shocks alone"
    if not gap(lambda s, a: mdp.discount(s, a, e) + 0 * a.sum(), left) < SAME:
        return "the discount factor must not depend on the action or the endogenous state"
    first, second = marginal_utility(mdp, one, amount, kept)
    if not ((first > 0) & (second < 0)).all():
        return "the reward must rise with what is spent, less and less"
    reached = torch.func.grad(lambda c: mdp.transition(one, action(mdp, one, c, kept), e)[..., x].sum())(amount)
    return None if (reached < 0).all() else "the next state must rise with what is kept"


def marginal_utility(mdp: MDP, s: Tensor, c: Tensor, kept: bool) -> tuple[Tensor, Tensor]:
    """u_c and u_cc (...) at c (...)."""
    slope = torch.func.grad(lambda c: mdp.reward(s, action(mdp, s, c, kept)).sum())
    first, second, *_ = torch.func.jvp(slope, (c,), (torch.ones_like(c),))
    return first, second


def spent_at(mdp: MDP, s: Tensor, mu: Tensor, c: Tensor, most: float, kept: bool) -> Tensor:
    """The c in (0, most] with u_c(c) = mu, or `most` where mu is lower yet: Newton's method on ln u_c in ln c, exact in
    one step for constant relative risk aversion, from a guess c and within a bracket that shrinks."""
    y = c.log()
    low, high = torch.full_like(y, math.log(LEAST * most)), torch.full_like(y, math.log(most))
    wanted = mu.log()
    for _ in range(NEWTON_STEPS):
        first, second = marginal_utility(mdp, s, y.exp(), kept)
        gap = first.log() - wanted
        below = gap > 0  # too little is spent; marginal utility that is not positive has no logarithm
        low, high = torch.where(below, y, low), torch.where(below, high, y)
        step = y - gap * first / (second * y.exp())
        inside = (step >= low) & (step <= high)
        step = torch.where(inside, step, (low + high) / 2)
        done = (step - y).abs().max() < EXACT
        y = step
        if done:
            break
    return y.exp()


# The policy


class EndogenousPolicy(StateFunction):
    """c(M, z) by cubic Hermite interpolation between the points of each z's own endogenous grid, cut off at M: below a
    grid that begins where nothing is kept, c rises by less than M, and all is spent. Between the points of z, and two
    cells beyond them: four-point Lagrange interpolation.

    The rows of the tables are the periods, times the states of all chains, times the points of z.
    """

    M: Tensor
    c: Tensor
    slope: Tensor

    def __init__(
        self,
        mdp: MDP,
        x: int,
        kept: bool,
        points: int,
        low: list[float],
        high: list[float],
        exogenous: int,
    ):
        super().__init__(mdp)
        self.description = {"x": x, "kept": kept, "points": points, "low": low, "high": high}
        self.description["exogenous"] = exogenous
        self.kept, self.low, self.high = kept, low, high
        self.z_columns = [column for column in mdp.continuous if column != x]
        self.layers, self.exogenous = mdp.layers, exogenous
        self.each = exogenous ** len(self.z_columns)  # rows of a layer
        shape = ((mdp.horizon or 1) * self.layers * self.each, points)
        for name in ("M", "c", "slope"):
            self.register_buffer(name, torch.zeros(shape, device=mdp.device, dtype=mdp.dtype))

    def describe(self) -> dict[str, Any]:
        return dict(self.description)

    @property
    def rows(self) -> int:
        """Rows of one period."""
        return self.layers * self.each

    def states(self, x: float, period: int = 0) -> Tensor:
        """A state (rows, S) for each row of one period, at this x."""
        grid = TensorGrid(
            self.low, self.high, [self.exogenous] * len(self.low), [0.0] * len(self.low), "linear",
            self.mdp.device, self.mdp.dtype,
        )  # fmt: skip
        return layered_states(self.mdp, self.z_columns, grid.mesh(), period, fill=x)

    def place(self, s: Tensor, on_grid: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """The rows (..., K) that tell c at s (..., S), and their weights; the columns `on_grid` are at points of z."""
        rows, weights = layer_of(self.mdp, s).unsqueeze(-1), torch.ones_like(s[..., :1])
        for column, low, high in zip(self.z_columns, self.low, self.high, strict=True):
            position = (s[..., column] - low) / (high - low) * (self.exogenous - 1)
            if column in on_grid:
                rows = rows * self.exogenous + position.round().long().unsqueeze(-1)
                continue
            position = position.clamp(-BEYOND, self.exogenous - 1 + BEYOND)
            first = (torch.nan_to_num(position.detach()).floor().long() - 1).clamp(0, self.exogenous - 4)
            taps = torch.arange(4, device=s.device)
            rows = (rows * self.exogenous + first.unsqueeze(-1)).unsqueeze(-1) + taps
            weights = weights.unsqueeze(-1) * lagrange(position - first).unsqueeze(-2)
            rows, weights = rows.flatten(-2), weights.flatten(-2)
        return rows, weights

    def spent(self, M: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
        """c (...) at M (...) and a place (..., K); cut off at M last, so that no kink is interpolated between rows."""
        rows, weights = place
        c = (weights * self.along(M.unsqueeze(-1), rows)).sum(dim=-1)
        return torch.minimum(torch.maximum(c, LEAST * M), M)

    def along(self, M: Tensor, rows: Tensor) -> Tensor:
        """c of each row (..., K) at M (..., 1)."""
        n = self.M.shape[-1]
        M = M.expand(rows.shape)
        cell = self.cell(M.detach(), rows)
        at = rows * n + cell
        left, right = (gather(self.M, at + k) for k in (0, 1))
        h = right - left
        t = (M - left) / h
        inside = t.clamp(0, 1)
        a, b = gather(self.c, at), gather(self.c, at + 1)
        da, db = h * gather(self.slope, at), h * gather(self.slope, at + 1)
        # Horner's form of the cubic with values a, b and slopes da, db; beyond the ends along the tangent.
        c = a + inside * (da + inside * (3 * (b - a) - 2 * da - db + inside * (2 * (a - b) + da + db)))
        return c + torch.where(t < 0, t * da, torch.where(t > 1, (t - 1) * db, 0.0))

    def cell(self, M: Tensor, rows: Tensor) -> Tensor:
        """The last i, at most n - 2, with M_i <= M on its row, by bisection."""
        n = self.M.shape[-1]
        low, high = torch.zeros_like(rows), torch.full_like(rows, n - 1)
        for _ in range(math.ceil(math.log2(n))):
            middle = (low + high + 1) // 2
            right = gather(self.M, rows * n + middle) <= M
            low, high = torch.where(right, middle, low), torch.where(right, high, middle - 1)
        return low.clamp(max=n - 2)

    def fit(self, M: Tensor, c: Tensor, period: int = 0) -> None:
        """Take these points (rows, n), M increasing, for one period."""
        block = slice(period * self.rows, (period + 1) * self.rows)
        self.M[block], self.c[block], self.slope[block] = M, c, slopes(M, c)

    def forward(self, s: Tensor) -> Tensor:
        _, M = interval(self.mdp, s)
        return action(self.mdp, s, self.spent(M, self.place(s)), self.kept)


def gather(table: Tensor, at: Tensor) -> Tensor:
    """table.flatten()[at], for single states under vmap too."""
    return table.flatten().index_select(0, at.reshape(-1)).reshape(at.shape)


def lagrange(t: Tensor) -> Tensor:
    """Weights (..., 4) of the values at 0, 1, 2, 3 in the cubic through them, at t (...)."""
    a, b, c, d = t, t - 1, t - 2, t - 3
    return torch.stack([-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6], dim=-1)


def slopes(M: Tensor, c: Tensor) -> Tensor:
    """dc/dM (rows, n) of the parabola through each point and its neighbours, limited so that c(M) increases between
    points that do (Fritsch and Carlson 1980): next to a kink a cubic would swing, and the next grid with it."""
    h, rise = M.diff(dim=-1), c.diff(dim=-1) / M.diff(dim=-1)
    inner = (h[:, :-1] * rise[:, 1:] + h[:, 1:] * rise[:, :-1]) / (h[:, :-1] + h[:, 1:])
    free = torch.cat([2 * rise[:, :1] - inner[:, :1], inner, 2 * rise[:, -1:] - inner[:, -1:]], dim=-1)
    smaller = torch.cat([rise[:, :1], torch.minimum(rise[:, :-1], rise[:, 1:]), rise[:, -1:]], dim=-1)
    return torch.minimum(free, 3 * smaller).clamp(min=0)


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
