"""The Euler equation at the points of a grid: today's actions given the policy of tomorrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.grid_functions import CutOffPolicy, GridValue
from econrl.errors import SolveError
from econrl.optimality.bounded_forms import ON_BOUND, Forms
from econrl.optimality.complementarity import without_room
from econrl.optimality.deviation import action_jacobian
from econrl.optimality.euler import condition, euler_residuals, multipliers_of, shadow_price
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import marginal_gain, without_multipliers
from econrl.optimality.structure import Structure
from econrl.problem.bellman import lookahead
from econrl.problem.diagnose import describe
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.grid.climb import SCAN, Slope, climb, is_peak
from econrl.solvers.grid.policy_evaluation import evaluate, explain

NUMBERS = {"cpu": 2_000_000, "cuda": 50_000_000}  # held at once in a batch: states x nodes x coefficients a query
NEWTON_STEPS = 12  # at most, at a point
LOOKS = tuple(8 * 4**i for i in range(8))  # iterations at which it is seen where Newton's method fails: it takes time
ENOUGH = 0.03  # of a residual may be left by an iteration, since the policy of tomorrow is not the last
CHORD = 0.3  # an old Jacobian that leaves more of a residual is renewed
TRUSTED = 1e-2  # residuals below which one step with the old Jacobian is enough
SMALL = 1e-5  # a residual at which an equation is solved
ROUNDING = 1e-13  # a residual at which nothing is left to solve
SEARCHES, STILL = 20, 1e-7  # along all lines, at most, and the largest change of a share at which they end
LENGTHS = (1.0, 0.5, 0.125, 1 / 64)  # of a Newton step, tried in turn: the last is near a step along the residual
LONGEST = 2.0  # of a Newton step in z
BESIDE = 0.01  # how far from the grid, in widths of it, is outside
KRYLOV = 200  # steps of GMRES, at most, for the value
MEMORY = 20  # former iterates that the next one is extrapolated from: more are nearly dependent


# One point's equation


@dataclass
class Equations:
    """R(s, a; later) = 0 at many states s: the Euler equation's complementarity residual for today's action a, given
    the policy of tomorrow, as a function of the z of `bounded_forms.py`. `value` is tomorrow's, which counts where
    utility is recursive."""

    mdp: MDP
    structure: Structure
    forms: Forms
    value: Function | None = None

    def actions(self, s: Tensor, z: Tensor) -> Tensor:
        """The actions (..., A) that z (..., A) stands for at states s (..., S)."""
        return self.mdp.from_shares(s, self.forms.within(z))

    def residual(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """R (B, A) at a z (B, A) that is not beyond a bound; infinite where it is no number."""
        a = self.actions(s, z)
        R = euler_residuals(self.mdp, self.structure, lambda _: a, s, later, value=self.value)
        none = without_room(self.mdp, self.structure, s, a)
        if none is None:
            return R
        y = self.forms.within(z)  # which a does not tell where low = high; it is to be in the middle
        return torch.where(none, y - self.mdp.squash(torch.zeros_like(y)), R)

    def gain(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """g (B, A): what more of each action would bring, free of units."""
        price = shadow_price(self.mdp, self.structure, later, self.value)
        a = self.actions(s, z)
        if self.forms.knows_multipliers:
            return marginal_gain(self.mdp, price, s, a, self.value)
        G, scale = condition(self.mdp, price, lambda _: a, s, value=self.value)
        return G / scale

    def slope(self, s: Tensor, later: Function) -> Slope:
        """dQ/dy at shares (B, n, A) of the states s (B, S): what more of each share would bring."""

        def of_shares(y: Tensor) -> Tensor:
            flat, at = y.flatten(0, 1), s.repeat_interleave(y.shape[1], dim=0)
            price = shadow_price(self.mdp, self.structure, later, self.value)
            G, _ = condition(self.mdp, price, lambda s: self.mdp.from_shares(s, flat), at, value=self.value)
            return torch.func.grad(lambda y: (G * self.mdp.from_shares(at, y)).sum())(flat).view_as(y)

        return of_shares

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
        if self.forms.knows_multipliers:
            z[rows] = self.forms.past(z_, gain)
            return z
        J = action_jacobian(lambda x: self.gain(s_, x, later), z_)
        step = (newton_step(J, gain) * outward[rows]).nan_to_num().clamp(min=0)
        z[rows] = z_ + outward[rows] * step / (1 + step)
        return z

    def is_solved(self, s: Tensor, z: Tensor, later: Function) -> Tensor:
        """Whether each z (B, A) is where today's action is best, (B,): the residual is small, or the slope changes its
        sign there, as at a kink."""
        solved = length(self.residual(s, z, later)) < SMALL
        rows = (~solved).nonzero().flatten()
        if len(rows) > 0:
            peaks = is_peak(self.mdp, self.slope(s[rows], later), self.forms.shares(z[rows]))
            solved.index_put_((rows,), peaks)
        return solved

    def search_wide(self, s: Tensor, z: Tensor, later: Function, J: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, A) where Newton's method found none, and whether each is solved (B,): uphill from where it ended, or
        else from the middle, with Newton's method again after each search along all lines."""
        z, solved = z.clone(), torch.zeros_like(z[:, 0], dtype=torch.bool)
        for start in (z, None):
            y = self.mdp.squash(torch.zeros_like(z)) if start is None else self.forms.shares(start)
            rows = (~solved).nonzero().flatten()
            for _ in range(SEARCHES):
                if len(rows) == 0:
                    break
                s_, before = s[rows], y[rows]
                y[rows] = climb(self.mdp, self.slope(s_, later), before)
                found = self.forms.outputs_for(s_, self.mdp.from_shares(s_, y[rows]))
                for trial in (self.solve(s_, found, later, torch.zeros_like(J[rows]))[0], found):
                    new = self.is_solved(s_, trial, later) & ~solved[rows]
                    z[rows[new]], solved[rows[new]] = trial[new], True
                left = ~solved[rows]
                if start is not None:
                    z[rows[left]] = found[left]  # uphill, at least
                rows = rows[left & ((y[rows] - before).abs().amax(dim=-1) > STILL)]
        return z, solved


def length(R: Tensor) -> Tensor:
    """|R| (B,), infinite where it is no number."""
    return torch.where(R.isfinite().all(dim=-1), R.norm(dim=-1), torch.inf)


def newton_step(J: Tensor, R: Tensor) -> Tensor:
    """-J^-1 R (B, A), at most LONGEST in each entry; R itself, which points to better actions, where J is singular."""
    step = -torch.linalg.solve_ex(J, R.unsqueeze(-1)).result.squeeze(-1)
    step = torch.where(step.isfinite().all(dim=-1, keepdim=True), step, R)
    return step * (LONGEST / step.abs().amax(dim=-1, keepdim=True).clamp(min=LONGEST))


# All points


class Anderson:
    """Extrapolates x_1, x_2, ... with x_(k+1) = T(x_k) to their limit: of the last iterates the combination for which
    T(x) - x is smallest, to first order. Forgets them where that is no longer falling.

    Source: Walker and Ni (2011), "Anderson acceleration for fixed-point iterations", SIAM J. Numerical Analysis 49.
    """

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.gap: list[Tensor] = []

    def next(self, x: Tensor, T_x: Tensor) -> Tensor:
        """The next x from the last ones and their images T(x)."""
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

    def __init__(
        self,
        name: str,
        mdp: MDP,
        forms: dict[str, Any],
        description: dict[str, Any],
        look_at_the_clock: Callable[[], None],
    ) -> None:
        self.name, self.mdp, self.look_at_the_clock = name, mdp, look_at_the_clock
        self.policy, self.value = CutOffPolicy(mdp, **forms, **description), GridValue(mdp, **description)
        structure = without_multipliers(find_structure(mdp), self.policy.forms.forms, mdp)
        self.equations = Equations(mdp, structure, self.policy.forms, self.value)
        nodes = len(mdp.nodes) * (len(mdp.nodes) if structure.joint else 1)
        self.chunk = max(NUMBERS.get(mdp.device.type, NUMBERS["cpu"]) // (nodes * self.policy.grid.terms), 16)

    @torch.no_grad()
    def begin(self, start: Function, period: int = 0) -> None:
        """Begin from any policy."""
        self.s = self.policy.states(period)
        self.z = self.policy.forms.outputs_for(self.s, start(self.s))
        known = multipliers_of(start)
        if known is not None and self.policy.knows_multipliers:
            self.z = self.policy.forms.past(self.z, known(self.s))
        self.J = self.z.new_zeros(*self.z.shape, self.mdp.A)
        self.iterations = 0
        self.hard, self.unsolved = (torch.zeros_like(self.z[:, 0], dtype=torch.bool) for _ in range(2))
        self.policy.fit(self.z, period)
        self.anderson = Anderson()
        if not self.mdp.preferences.additive and self.mdp.horizon is None:
            self.evaluate(near=False)

    @torch.no_grad()
    def evaluate(self, near: bool) -> None:
        """Let the value be the policy's: to first order where it is `near`."""
        evaluate(self.name, self.mdp, self.value, self.policy, KRYLOV, self.chunk, near=near)

    @torch.no_grad()
    def improve(self, enough: float, look: bool = False) -> Tensor:
        """z (N, A) at the points, given the policy as it is; residuals reduced to `enough` of what they were. Where
        Newton's method fails, which it is to `look` for, the search is wider from then on. Raises OutOfTime between two
        batches."""
        found = []
        for start in range(0, len(self.s), self.chunk):
            self.look_at_the_clock()
            rows = slice(start, start + self.chunk)
            s, later = self.s[rows], self.policy
            z, self.J[rows] = self.equations.solve(s, self.z[rows], later, self.J[rows], enough)
            if look:
                self.hard[rows] = ~self.equations.is_solved(s, z, later)
            z = self.improve_hard(rows, z)
            found.append(self.equations.extended(s, z, later))
        return torch.cat(found)

    def improve_hard(self, rows: slice, z: Tensor) -> Tensor:
        """z (B, A) at these points, by the wider search where Newton's method has failed."""
        at = self.hard[rows].nonzero().flatten()
        self.unsolved[rows] = False
        z = z.clone()
        for part in at.split(max(self.chunk // SCAN, 1)):
            self.look_at_the_clock()
            z[part], solved = self.equations.search_wide(self.s[rows][part], z[part], self.policy, self.J[rows][part])
            self.unsolved[rows][part] = ~solved
        return z

    def step(self) -> float:
        """One iteration; the largest change of a share that it asks for."""
        # Where multipliers matter, what is left of a residual next to a kink would lead the extrapolation astray.
        self.iterations += 1
        look = self.iterations in LOOKS
        z = self.improve(0.0 if look or self.policy.knows_multipliers else ENOUGH, look)
        if not z.isfinite().all():
            at = (~z.isfinite()).any(dim=-1).nonzero()[0]
            raise SolveError(explain(self.name, self.mdp, self.s[at], self.equations.actions(self.s[at], self.z[at])))
        change = (self.policy.forms.shares(z) - self.policy.forms.shares(self.z)).abs().max()
        self.z = self.anderson.next(self.z, z)
        self.policy.fit(self.z)
        if not self.mdp.preferences.additive:
            self.evaluate(near=True)
        return float(change)

    @torch.no_grad()
    def settle(self) -> bool:
        """Look whether Newton's method has failed at points where it was not known to; the iteration is to go on."""
        known = self.hard.clone()
        for start in range(0, len(self.s), self.chunk):
            rows = slice(start, start + self.chunk)
            z = self.policy.forms.project(self.z[rows])
            self.hard[rows] |= ~self.equations.is_solved(self.s[rows], z, self.policy)
        self.anderson = Anderson()
        return bool((self.hard & ~known).any())

    def shortfall(self) -> str:
        """At which share of the points in the domain no action was found that is the best one, and where; nothing if
        there are none."""
        inside = self.mdp.inside(self.s)
        at = (self.unsolved & inside).nonzero().flatten()
        if len(at) == 0:
            return ""
        s = self.s[at]
        size = length(self.equations.residual(s, self.policy.forms.project(self.z[at]), self.policy))
        worst = describe(self.mdp, s[size.argmax()])
        share = len(at) / int(inside.sum())
        return f"the Euler equation does not hold at {share:.1%} of the grid's points, the worst of them {worst}"

    @torch.no_grad()
    def leaving(self) -> str:
        """At which share of the points in the domain the policy leads out of the grid; nothing if there are none."""
        s = self.s[self.mdp.inside(self.s)]
        reached = self.mdp.transition(s.unsqueeze(-2), self.policy(s).unsqueeze(-2), self.mdp.nodes)
        low, high = (self.mdp.tensor(edge) for edge in (self.policy.grid.low, self.policy.grid.high))
        x, room = reached[..., self.mdp.continuous], BESIDE * (high - low)
        out = ((x < low - room) | (x > high + room)).any(dim=-1).any(dim=-1).double().mean()
        return f"the policy leads out of the grid at {float(out):.1%} of its points" if out > 0 else ""

    def step_back(self, t: int) -> None:
        """Solve period t of a life cycle, given the policy and the value of t + 1."""
        self.s = self.policy.states(t)
        self.z = self.improve(0.0, look=True)
        self.policy.fit(self.z, t)
        with torch.no_grad():
            v = [lookahead(self.mdp, self.value, s, self.policy(s)) for s in self.s.split(self.chunk)]
            self.value.fit(torch.cat(v).unsqueeze(-1), t)

    def state(self) -> dict[str, Any]:
        """All that the iteration's further course depends on."""
        functions = [function.coefficients for function in (self.policy, self.value)]
        anderson = [self.anderson.x, self.anderson.gap]
        search = [self.iterations, self.hard, self.unsolved]
        return {"z": self.z, "J": self.J, "functions": functions, "anderson": anderson, "search": search}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.s = self.policy.states()
        self.z, self.J = state["z"].to(self.s), state["J"].to(self.s)
        for function, kept in zip((self.policy, self.value), state["functions"], strict=True):
            function.coefficients.copy_(kept)
        self.iterations, self.hard, self.unsolved = state["search"]
        self.anderson = Anderson()
        self.anderson.x, self.anderson.gap = ([x.to(self.s) for x in kept] for kept in state["anderson"])
