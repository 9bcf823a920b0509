"""The endogenous grid: from what is kept to what there was to spend, given the policy of tomorrow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.tensor_grid import TensorGrid
from econrl.errors import SolveError
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.common.memory import require_memory
from econrl.solvers.grid.endogenous_policy import EndogenousPolicy, EndogenousValue, extended, gather
from econrl.solvers.grid.kinks import between, find_kinks, may_bend, with_kinks
from econrl.solvers.grid.policy_evaluation import FEWEST_STEPS, solve_linear
from econrl.solvers.grid.spending import action, interval, marginal_utility, spent_at

SCAN = 400  # amounts kept that are tried out to see how far the grid must reach, and where its kinks are
KRYLOV = 200  # steps of GMRES, at most, for the value
SMALLEST = 1e-300  # marginal value of what is kept that counts as none
DENSE = 4.0  # spacing of the grid near a borrowing limit: e^4 times as dense there as at its far end


@dataclass
class Future:
    """All that one step needs to know of the next period, whatever the policy: for row, w and node (R, n, J)."""

    s: Tensor
    """The next states (R, n, J, S), with lives that are over put into their last period."""
    M: Tensor
    odds: Tensor
    """Probability times beta."""
    worth: Tensor
    """Odds times M'_x dx'/dw, or of the terminal value's derivative once life is over."""
    final: Tensor | None
    """The terminal value, once life is over."""
    place: tuple[Tensor, Tensor]


@dataclass
class Backup:
    """W = r + A W, as an equation in the table of all W (N,)."""

    reward: Tensor
    apply: Callable[[Tensor], Tensor]

    def solve(self, W: Tensor, steps: int) -> Tensor:
        """W from a guess, by at most `steps` steps of GMRES on the correction."""
        gap = self.reward + self.apply(W) - W
        return W + solve_linear(self.apply, gap, float(W.abs().max()), steps)


class EndogenousGrid:
    """The grid of what is kept, and the step from tomorrow's policy to today's."""

    def __init__(
        self, mdp: MDP, x: int, kept: bool, points: int | None = None, exogenous: int = 15, margin: float = 0.5
    ) -> None:
        self.mdp, self.x, self.kept = mdp, x, kept
        room = margin * (mdp.high - mdp.low)
        below = torch.where(mdp.low > 0, room.minimum(mdp.low / 2), room)
        self.least, self.most = mdp.low - below, mdp.high + room
        z = [column for column in mdp.continuous if column != x]
        z_low, z_high = self.reach_of(z)

        def policy(points: int) -> EndogenousPolicy:
            return EndogenousPolicy(mdp, x, kept, points, z_low, z_high, exogenous)

        self.policy = policy(2)  # for its rows
        w_low, w_high = self.useful()
        self.limited = w_low == 0
        points = points or (400 if self.limited else 100)
        self.check_memory(self.policy.rows * points * len(mdp.nodes), 4 ** (len(z) - len(mdp.parameters)))
        spacing = [DENSE if self.limited else 0.0]
        w = TensorGrid([w_low], [w_high], [points], spacing, "linear", mdp.device, mdp.dtype).axis(0)
        self.w, self.kinks = with_kinks(w, self.find_kinks(w_low, w_high))
        self.most_spent = 1e3 * w_high
        self.policy = policy(len(self.w))
        self.value = EndogenousValue(mdp, self.limited, **self.policy.describe())

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

    def find_kinks(self, w_low: float, w_high: float) -> list[float]:
        """The amounts kept at which what they are worth jumps, in any period and row, at any node."""
        w = torch.linspace(w_low, w_high, SCAN, dtype=self.mdp.dtype, device=self.mdp.device)
        found: list[float] = []
        for period in range(self.mdp.horizon or 1):

            def worth(w: Tensor, period: int = period) -> Tensor:
                return self.worth(period, w)[2].transpose(1, 2).flatten(0, 1)

            reached = self.counts(period)(self.reached(self.rows(period), w))
            if may_bend(reached.transpose(1, 2)):
                found += find_kinks(worth, w)
        return found

    def counts(self, period: int) -> Function:
        """What counts of tomorrow's state: what there is to spend, or the terminal value once life is over."""
        return self.mdp.terminal if self.is_last(period) else lambda s: interval(self.mdp, s)[1]

    def future(self, period: int = 0) -> Future:
        """Where each row and w leads to, and what M' is worth there."""
        mdp = self.mdp
        reached, odds, worth = self.worth(period, self.w)
        final = mdp.terminal(reached) if self.is_last(period) else None
        _, reached = mdp.living(reached)
        place = self.policy.place(reached, on_grid=mdp.parameters)
        return Future(reached, interval(mdp, reached)[1], odds, worth, final, place)

    def is_last(self, period: int) -> bool:
        """Whether life is over after this period."""
        return self.mdp.horizon is not None and period + 1 == self.mdp.horizon

    def worth(self, period: int, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states (R, n, J, S) that rows lead to with w (n,) kept, the odds of each, and its worth (`Future`)."""
        mdp, s = self.mdp, self.rows(period)
        reached, speed, *_ = torch.func.jvp(lambda w: self.reached(s, w), (w,), (torch.ones_like(w),))
        a = action(mdp, s.unsqueeze(1), interval(mdp, s)[1].unsqueeze(1) - w, self.kept)
        beta = mdp.discount(s[:, None, None], a.unsqueeze(2), mdp.nodes)
        slope = torch.func.grad(lambda s: self.counts(period)(s).sum())(reached)[..., self.x]
        odds = (mdp.weights(s).expand(len(s), -1).unsqueeze(1) * beta).expand(slope.shape)
        return reached, odds, times(odds, speed[..., self.x] * slope)

    def step(self, future: Future, guess: Tensor, period: int = 0) -> Tensor:
        """One step back: what is spent (R, n) where w is kept; the policy of `period` takes it."""
        s, mu = self.rows(period).unsqueeze(1), future.worth
        if future.final is None:
            c = self.policy.spent(future.M, future.place)
            then = marginal_utility(self.mdp, future.s, c, self.kept)[0]
            mu = times(mu, torch.where(future.M >= 0, then, torch.inf))  # none may be left with less than nothing
        # Where nothing is worth keeping, more is spent than there is: so all of it.
        mu = between(mu.sum(dim=-1).clamp(min=SMALLEST), self.kinks)
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
        """The states s (N, S) with these values x (N,) of the endogenous state."""
        s = s.clone()
        s[:, self.x] = x
        return s

    # The value

    def evaluate_period(self, future: Future, period: int) -> None:
        """The value of one period of a life cycle, given that of the next."""
        equation = self.backup(future, period)
        v = (equation.reward + equation.apply(self.value.v)).view(-1, len(self.w))
        rows = slice(period * self.value.rows, (period + 1) * self.value.rows)
        self.value.set(period, self.value.M[rows], v, self.value.slope[rows])

    def evaluate(self, future: Future, remaining: Callable[[], float]) -> None:
        """The value of a stationary policy, within the seconds that remain."""
        equation, began = self.backup(future), time.perf_counter()
        start, steps = self.value.v.flatten(), KRYLOV
        if remaining() < math.inf:
            equation.apply(start)
            fit = remaining() / max(time.perf_counter() - began, 1e-9)
            steps = max(min(steps, int(fit)), FEWEST_STEPS)
        self.value.v.copy_(equation.solve(start, steps).view_as(self.value.v))

    def backup(self, future: Future, period: int = 0) -> Backup:
        """W = r + E[beta W'] at the points of one period, as an equation in the table of all W; and their slopes u_c.

        At the poorest points W may be minus infinity: there it goes on as the points after them do (`extended`).
        """
        mdp, rows = self.mdp, slice(period * self.policy.rows, (period + 1) * self.policy.rows)
        M, c, s = self.policy.M[rows], self.policy.c[rows], self.rows(period).unsqueeze(1)
        reward = mdp.reward(s, action(mdp, s, c, self.kept))
        slope = marginal_utility(mdp, s.expand(*c.shape, -1), c, self.kept)[0]
        self.value.set(period, M, self.value.v[rows], slope)
        known, after = self.tomorrow(future)
        poor = ~(reward + known).isfinite()
        first = (~poor).int().argmax(dim=-1, keepdim=True).clamp(max=M.shape[-1] - 2)
        slope, fall = extended(M, slope, first)
        self.value.set(period, M, self.value.v[rows], torch.where(poor, slope, self.value.slope[rows]))
        if mdp.horizon is None:  # tomorrow's slopes are today's
            known, after = self.tomorrow(future)
        base = reward + known
        base = torch.where(poor, base.gather(-1, first) + fall, base)

        def discounted(v: Tensor) -> Tensor:
            found = after(v)
            return torch.where(poor, found.gather(-1, first), found).flatten()

        return Backup(base.flatten(), discounted)

    def tomorrow(self, future: Future) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """E[beta W'] at the points (R, n): what is known of it, and the part that depends on the table of all W."""
        if future.final is not None:
            known = times(future.odds, future.final).sum(dim=-1)
            return known, lambda v: torch.zeros_like(known)
        rows, share = future.place
        at, h, k = self.value.weights(future.s, future.M, rows)

        def after(v: Tensor) -> Tensor:
            found = share * ((1 - h) * gather(v, at) + h * gather(v, at + 1))
            return (future.odds * found.sum(dim=-1)).sum(dim=-1)

        return times(future.odds, (share * k).sum(dim=-1)).sum(dim=-1), after

    def state(self) -> dict[str, Any]:
        """Policy and value."""
        return {"policy": self.policy.state_dict(), "value": self.value.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])


def times(odds: Tensor, x: Tensor) -> Tensor:
    """odds x, nothing where the odds are zero, whatever x."""
    return torch.where(odds != 0, odds * x, 0.0)
