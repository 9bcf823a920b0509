"""The endogenous grid: from what is kept to what there was to spend, given the policy of tomorrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.grid_functions import GridValue
from econrl.approximation.tensor_grid import TensorGrid
from econrl.errors import SolveError
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import CHUNK, require_memory
from econrl.solvers.grid.endogenous_policy import EndogenousPolicy
from econrl.solvers.grid.fit_grid import fitted
from econrl.solvers.grid.policy_evaluation import evaluate
from econrl.solvers.grid.spending import action, interval, marginal_utility, spent_at
from econrl.solvers.grid.vi import VI

SCAN = 400  # amounts kept that are tried out to see how far the grid must reach
KRYLOV = 200  # steps of GMRES, at most, for the value
SMALLEST = 1e-300  # marginal value of what is kept that counts as none
DENSE = 4.0  # spacing of the grid near a borrowing limit: e^4 times as dense there as at its far end


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
            living, at = mdp.living(reached)
            over = ~living
            final = torch.func.grad(lambda s: mdp.terminal(s).sum())(reached)[..., x]
            slope = torch.where(over, final, slope)
            reached = at
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
        """The states s (N, S) with these values x (N,) of the endogenous state."""
        s = s.clone()
        s[:, self.x] = x
        return s

    # The value

    def evaluate(self, remaining: Callable[[], float]) -> StateFunction:
        """V = r + E[beta V'] of the policy, on the grid that value iteration would have."""
        if self.value is None:
            grid = VI(nodes=self.mdp.quadrature.nodes)
            self.value = GridValue(
                self.mdp, **fitted(self.mdp, self.policy, grid.describe_grid(self.mdp), grid.margin, True)
            )
        chunk = max(CHUNK.get(self.mdp.device.type, CHUNK["cpu"]) // (len(self.mdp.nodes) * self.value.grid.terms), 1)
        evaluate("egm", self.mdp, self.value, self.policy, KRYLOV, chunk, remaining)
        return self.value

    def state(self) -> dict[str, Any]:
        """Policy, and the grid of its value."""
        grid = None if self.value is None else self.value.describe()
        return {"policy": [self.policy.M, self.policy.c, self.policy.slope], "grid": grid}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for table, kept in zip((self.policy.M, self.policy.c, self.policy.slope), state["policy"], strict=True):
            table.copy_(kept)
        if state["grid"] is not None:
            self.value = GridValue(self.mdp, **state["grid"])
