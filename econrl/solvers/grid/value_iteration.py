"""Value iteration on any grid: improve the policy at its points, evaluate it, again and again, or backwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.fill import Fill
from econrl.approximation.grid_functions import GridPolicy, GridValue
from econrl.approximation.tensor_grid import TensorGrid
from econrl.approximation.value_unit import ValueUnit
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import CHUNK
from econrl.solvers.common.run import Iteration, LifeCycleRun
from econrl.solvers.common.task import Answer, OutOfTime, Task
from econrl.solvers.grid.maximise import LIMIT, best_candidate, better, candidates, evaluate, newton
from econrl.solvers.grid.policy_evaluation import (
    NEWTON_STEPS,
    Evaluation,
    discounting_fails,
    evaluation,
    explain,
    is_linear,
    take,
    today_for_ever,
)

FLAT = 1e-13  # gains of an action below this share of V cannot be told from rounding
SKETCHES = 2  # on a coarse grid, at most, until its spacing suits the value
SKETCH_POINTS = 60  # a state
SPACINGS = [k / 2 for k in range(15)]
SKETCH_STEPS = 6  # iterations on the coarse grid: how far the states reach needs no more
STAY = 1e6  # what a move by the width of the domain costs the first policy, in usual rewards
UNSETTLED, SETTLING = 10, 0.1  # iterations after which the change must once have been so small
FIRST_LIMIT = 4.0  # of u in the policy that the iteration starts from: shares of 0.02 to 0.98


class Iterated(Protocol):
    """What value iteration reads of a method, whatever the grid."""

    name: ClassVar[str]

    @property
    def howard(self) -> int: ...

    @property
    def change(self) -> float: ...

    @property
    def every(self) -> int: ...

    @property
    def is_fitted(self) -> bool: ...

    def coarse_grid(self, mdp: MDP) -> dict[str, Any]:
        """The description of the grid for a rough policy."""

    def grid(self, mdp: MDP, policy: StateFunction) -> dict[str, Any]:
        """The description of the grid, fitted to the rough policy if `is_fitted`."""


class GridIteration:
    """The grid, the functions on it, and the two steps of the iteration.

    s (N, S) are the grid's states; u (D N, A) and v (D N,) the maximisers and maxima at them for each of the D options,
    one where there is no choice.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        method: Iterated,
        mdp: MDP,
        description: dict[str, Any],
        look_at_the_clock: Callable[[], None],
        unit: ValueUnit | None = None,
    ) -> None:
        self.method, self.mdp, self.look_at_the_clock = method, mdp, look_at_the_clock
        self.unit = unit
        self.v: Tensor
        self.value, self.policy = GridValue(mdp, **description), GridPolicy(mdp, **description)
        self.value.unit = unit or self.value.unit
        self.given = [mdp.given(option) for option in mdp.options]
        self.starts = candidates(len(mdp.free)).to(mdp.device, mdp.dtype)
        each = len(mdp.nodes) * self.value.grid.terms * (len(mdp.options) if mdp.tastes > 0 else 1)
        self.chunk = max(CHUNK.get(mdp.device.type, CHUNK["cpu"]) // each, 1)

    def begin(self, rough: GridIteration | None = None) -> None:
        """Start from the policy of a rough grid, or from one that keeps the state about where it is at a good reward;
        and from its value."""
        self.s = self.value.states()
        if rough is None or not self.take_over(rough):
            self.stay()
        for _ in range(1 if is_linear(self.value) else NEWTON_STEPS):
            self.store()
            self.v = self.solved(self.u, self.v, max(self.method.howard, 50))
        self.store()

    def take_over(self, rough: GridIteration) -> bool:
        """Begin from the policy and the value of a rough grid; False where they cannot serve."""
        if self.mdp.choices:
            return False
        shares = rough.policy.interpolate(self.s).movedim(0, -1)
        self.u = self.mdp.unsquash(self.mdp.clamp_shares(shares)).clamp(-LIMIT, LIMIT)
        self.v = rough.value(self.s)
        rewards = self.mdp.reward(self.s, self.mdp.act(self.s, self.u))
        if not (rewards.isfinite() & self.v.isfinite()).all():
            return False
        self.leave_out(rewards)
        return True

    def stay(self) -> None:
        """Begin from a policy that keeps the state about where it is, as if it stayed there for ever."""
        self.u = self.s.new_zeros(len(self.given) * len(self.s), len(self.mdp.free))
        for option, mdp in enumerate(self.given):
            stay = partial(staying, mdp, self.usual_reward(mdp))
            for rows in self.open_rows(option):
                self.look_at_the_clock()
                start, nearness = best_candidate(stay, self.s[rows], self.starts, FIRST_LIMIT)
                found = newton(stay, self.s[rows], start, nearness, limit=FIRST_LIMIT)[0]
                self.u[option * len(self.s) + rows] = found
        self.leave_out(torch.cat([mdp.reward(self.s, mdp.act(self.s, u)) for mdp, u in self.by_option(self.u)]))
        first = torch.cat([today_for_ever(mdp, self.s, mdp.act(self.s, u)) for mdp, u in self.by_option(self.u)])
        if self.unit is None:
            take(self.value, first, self.fill)
        self.v = self.value.filled(first, self.fill)

    def usual_reward(self, mdp: MDP) -> float:
        """By how much rewards usually differ: the range of their middle half, over all states and candidates."""
        s, starts = self.s[:: max(len(self.s) // 500, 1)].unsqueeze(1), self.starts.clamp(-FIRST_LIMIT, FIRST_LIMIT)
        rewards = mdp.reward(s, mdp.act(s, starts)).flatten()
        rewards = rewards[rewards.isfinite()]
        if len(rewards) == 0:
            return 1.0
        low, high = rewards.quantile(rewards.new_tensor([0.25, 0.75])).tolist()
        return max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-300)

    def sketch(self, rough: GridIteration | None = None) -> Tensor:
        """A few steps, from a rough grid if there is one: enough for a policy that tells how far the states reach, and
        for the unit of the value, whose values (..., D N) come back. Raises SolveError if there is no time for them.
        """
        try:
            if self.mdp.horizon is None:
                self.begin(rough)
                for step in range(SKETCH_STEPS):
                    self.step(scan=step == 0)
                values = self.v
            else:
                values = torch.stack([self.step_back(t) for t in reversed(range(self.mdp.horizon))])
        except OutOfTime:
            raise SolveError(
                f"{self.method.name}: the time limit was over before a first policy was found on a coarse grid; give "
                "more time, or take a method that needs less for a model of this size"
            ) from None
        return values

    def reconsider_unit(self, values: Tensor) -> None:
        """Interpolate V itself if it, whose values (..., D N) are known by now, is the one that bends less."""
        unit = self.value.unit
        if unit.power is None:
            return
        grid = self.value.grid
        assert isinstance(grid, TensorGrid)
        v = torch.where(self.fill.alive, values, torch.nan).unflatten(-1, (self.value.layers, -1))
        if grid.curvature(v) < grid.curvature(unit.raw(v)):
            self.value.unit = ValueUnit()
            self.store()

    def best_spacing(self, values: Tensor, description: dict[str, Any]) -> list[float]:
        """The spacing of a grid for these values (..., D N) at the points of this one: no less than as described."""
        grid = self.value.grid
        assert isinstance(grid, TensorGrid)
        x = torch.where(self.fill.alive, self.value.unit.raw(values), torch.nan).unflatten(-1, (self.value.layers, -1))
        least, points = description["spacing"], description["points"]
        return [grid.best_spacing(x, i, points[i], [max(kappa, least[i]) for kappa in SPACINGS]) for i in range(grid.d)]

    def step(self, scan: bool) -> float:
        """Improve and evaluate once; the change of V (relative to max |V|) or of the policy (in shares), if larger.
        An action that gains nothing, as the portfolio of one who saves nothing, is no change."""
        u, v = self.improve(self.s, self.u, scan)
        if self.method.howard > 0:
            self.value.fit(v.unsqueeze(-1))  # the options to be taken tomorrow
            v = self.solved(u, v, self.method.howard)
        by_value = (v - self.v).abs().max() / v.abs().max().clamp(min=1e-300)
        by_policy = ((self.shares(u) - self.shares(self.u)).abs().sum(dim=-1) * self.gained).max()
        self.u, self.v = u, v
        self.store()
        return float(torch.maximum(by_value, by_policy))

    def step_back(self, t: int) -> Tensor:
        """Solve period t of a life cycle, given the value of t + 1; its value (D N,) at the grid's points."""
        assert self.mdp.horizon is not None
        self.s = self.value.states(t)
        former = self.u if t + 1 < self.mdp.horizon else None
        self.u, self.v = self.improve(self.s, former, scan=True)
        if former is None and self.unit is None:
            take(self.value, self.v, self.fill)
            self.v = self.value.filled(self.v, self.fill)
        self.store(t)
        return self.v

    @property
    def open(self) -> Tensor:
        """At which of the states each option is available, (D, N)."""
        available = self.mdp.alternatives.available(self.s)
        return (
            torch.ones_like(self.s[:, 0], dtype=torch.bool).expand(len(self.given), -1)
            if available is None
            else available.T
        )

    def open_rows(self, option: int) -> Sequence[Tensor]:
        """The numbers of the states at which an option is available, a chunk at a time."""
        return self.open[option].nonzero().flatten().split(self.chunk)

    def leave_out(self, values: Tensor) -> None:
        """Leave the states out at which none of these values (D N,) is finite; and of an option, those at which it is
        not available. Raises SolveError where there are too few others, where an option alone has no value, and where
        the model gives no number inside the grid."""
        open_now = self.open
        alive = open_now & values.isfinite().view(len(self.given), -1)
        out = ~alive.any(dim=0)
        wrong = (open_now & (~alive & ~out | self.undefined(out))).flatten()
        if not wrong.any():
            try:
                layers = self.value.layers, -1
                self.fill = Fill(self.value.grid.mesh(), alive.reshape(layers), open_now.reshape(layers))
                return
            except ValueError:
                wrong = (open_now & ~alive).flatten()
        option, row = divmod(int(wrong.int().argmax()), len(self.s))
        raise SolveError(self.explain(self.given[option], self.s[row : row + 1]))

    def store(self, period: int = 0) -> None:
        """Put the values and the shares at the grid's points into the two functions."""
        if not self.v.isfinite().all():
            option, row = divmod(int((~self.v.isfinite()).int().argmax()), len(self.s))
            raise SolveError(self.explain(self.given[option], self.s[row : row + 1]))
        v = self.v.unsqueeze(-1)
        self.value.fit(v, period)
        shares = self.shares(self.u)
        if self.mdp.choices:
            self.policy.unit = self.value.unit
            shares = torch.cat([shares, self.value.unit.raw(v)], dim=-1)  # the best option is that of the largest
        self.policy.fit(shares, period)

    def shares(self, u: Tensor) -> Tensor:
        """The shares of the continuous actions at their u."""
        return self.given[0].squash(u)

    def Q(self, mdp: MDP, s: Tensor, u: Tensor) -> Tensor:
        """r(s, a) + E[beta V(s')] at a = act(s, u), in the problem that is left once the choices are made."""
        return lookahead(mdp, self.value, s, mdp.act(s, u))

    def improve(self, s: Tensor, u: Tensor | None, scan: bool) -> tuple[Tensor, Tensor]:
        """Maximisers u (D N, A) and maxima (D N,), from a former u where given and, with `scan`, from all candidates.
        States without a value get what their neighbours have. Raises OutOfTime between two batches of states."""
        found = s.new_zeros(len(self.given) * len(s), len(self.mdp.free))
        v, gain = found.new_full(found.shape[:1], -torch.inf), found.new_zeros(found.shape[:1])
        for option, mdp in enumerate(self.given):
            Q = partial(self.Q, mdp)
            for rows in self.open_rows(option):
                self.look_at_the_clock()
                part, at = s[rows], option * len(s) + rows
                best, value = best_candidate(Q, part, self.starts if scan else self.starts[:0])
                before = torch.full_like(value, -torch.inf)
                if u is not None:
                    former = u[at]
                    before = evaluate(Q, part, former)
                    best, value = better(former, before, best, value)
                found[at], v[at] = newton(Q, part, best, value)
                gain[at] = v[at] - before
        self.leave_out(v)
        self.gained = self.fill.alive & (gain > FLAT * (v.abs() + v[self.fill.alive].abs().mean()))
        return self.fill.nearest(found), self.value.filled(v, self.fill)

    def undefined(self, rows: Tensor) -> Tensor:
        """Which of these states (N,), for each option (D, N), lie inside the grid where the model gives NaN."""
        low, high = self.mdp.tensor(self.value.grid.low), self.mdp.tensor(self.value.grid.high)
        x = self.s[:, self.mdp.continuous]
        inside = (rows & ((x > low) & (x < high)).all(dim=-1)).nonzero().flatten()
        found = torch.zeros(len(self.given), len(self.s), dtype=torch.bool, device=self.s.device)
        for option, mdp in enumerate(self.given):
            for row in inside.split(self.chunk):
                s, u = self.s[row].unsqueeze(1), self.starts
                a = mdp.act(s, u)
                moved = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes).isnan().flatten(1).any(dim=-1)
                found[option, row] = moved | mdp.reward(s, a).isnan().any(dim=-1)
        return found

    def explain(self, mdp: MDP, s: Tensor) -> str:
        """Why there is no finite value at the state s (1, S), whatever the action."""
        s = s.expand(len(self.starts), -1)
        return explain(self.method.name, mdp, s, mdp.act(s, self.starts))

    def by_option(self, u: Tensor) -> list[tuple[MDP, Tensor]]:
        """The problem that each option leaves, and its part of u (D N, A)."""
        return list(zip(self.given, u.unflatten(0, (len(self.given), len(self.s))), strict=True))

    def evaluation(self, u: Tensor, v: Tensor) -> Evaluation:
        """The equation of the policy u (D N, A) at the present value, which is v (D N,) at the grid's points."""
        policy = [(mdp, mdp.act(self.s, u)) for mdp, u in self.by_option(u)]
        return evaluation(self.method.name, policy, self.value, self.s, v, self.chunk, self.fill)

    def solved(self, u: Tensor, v: Tensor, steps: int) -> Tensor:
        """The value (D N,) of the policy u, by a step of Newton's method from v."""
        return self.evaluation(u, v).solve(steps)


def staying(mdp: MDP, size: float, s: Tensor, u: Tensor) -> Tensor:
    """The reward, in units of its usual `size`, less what moving costs: the squared distance, in widths of the domain,
    a thousandth of a width being worth one."""
    a = mdp.act(s, u)
    moved = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes) - s.unsqueeze(-2)
    moved = (moved / (mdp.high - mdp.low).clamp(min=1e-300))[..., mdp.continuous]
    distance = (mdp.weights(s) * moved.square().sum(dim=-1)).sum(dim=-1)
    reward = mdp.reward(s, a)
    return torch.where(reward.isfinite(), reward / size - STAY * distance, -torch.inf)


def sketched(method: Iterated, mdp: MDP, look_at_the_clock: Callable[[], None]) -> tuple[dict[str, Any], GridIteration]:
    """The grid, fitted to where a rough policy on a coarse one goes, and that."""
    description = method.coarse_grid(mdp)
    if "points" in description:
        description = {**description, "points": [min(n, SKETCH_POINTS) for n in description["points"]]}
    rough: GridIteration | None = None
    for _ in range(SKETCHES):
        unit = None if rough is None else rough.value.unit
        coarse = GridIteration(method, mdp, description, look_at_the_clock, unit)
        values = coarse.sketch(rough)
        rough = coarse
        grid = method.grid(mdp, coarse.policy)
        spacing = coarse.best_spacing(values, grid) if getattr(method, "spacing", 0.0) is None else []
        if not spacing or max(abs(k - old) for k, old in zip(spacing, description["spacing"], strict=True)) < 1:
            break
        description = {**description, "spacing": spacing}
    coarse.reconsider_unit(values)
    return {**grid, "spacing": spacing} if spacing else grid, coarse


def value_iteration(method: Iterated, mdp: MDP, task: Task, held_out: HeldOut) -> ValueIteration | BackwardInduction:
    """The run that suits the horizon."""
    return (ValueIteration if mdp.horizon is None else BackwardInduction)(method, mdp, task, held_out)


class ValueIteration(Iteration):
    """Improve and evaluate, until neither V nor the policy changes.

    Where there is no Euler equation the measured error is the Bellman error. It is low for any well evaluated policy,
    so that it must not overrule the iteration's own criterion.
    """

    overrules_measure = True
    patience = 25  # Newton's method for policies converges within a dozen iterations, or is at its rounding

    def __init__(self, method: Iterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        self.method, self.first, self.steps_on_grid = method, True, 0

    def begin(self) -> None:
        grid, rough = sketched(self.method, self.mdp, self.look_at_the_clock)
        self.begin_on(grid, rough.value.unit)
        self.it.begin(rough)

    def begin_on(self, description: dict[str, Any], unit: ValueUnit) -> None:
        """Begin on this grid, with the value in this unit."""
        self.description = description
        self.it = GridIteration(self.method, self.mdp, description, self.look_at_the_clock, unit)

    def step(self) -> None:
        scan = self.first or self.change <= self.wanted  # a second maximum may hide elsewhere
        self.note(self.it.step(scan), converges=scan)
        self.first = False
        self.steps_on_grid += 1
        splines = self.description.get("interpolation") == "cubic"
        if splines and self.steps_on_grid == UNSETTLED and self.smallest > SETTLING:
            self.calm_down()
        if self.converged and self.it.evaluation(self.it.u, self.it.v).grows():
            self.converged = False
            self.message = (
                "not to be relied on: states leave the grid, and the value that is extrapolated beyond it decides. "
                "Widen the domain, or check that the value is finite"
            )

    def calm_down(self) -> None:
        """Begin anew with values that are linear between the points: less exact, but no policy makes them oscillate, as
        splines may where paths leave the grid or first policies are far off."""
        self.begin_on({**self.description, "interpolation": "linear"}, ValueUnit())
        self.it.begin()
        self.first, self.change, self.smallest, self.since = True, math.inf, math.inf, 0

    def answer(self) -> Answer:
        return self.it.policy, self.it.value

    def check(self, converged: bool) -> None:
        """Raises SolveError where the value is infinite."""
        if (converged or self.message) and discounting_fails(self.mdp, self.it.policy, self.it.s):
            raise SolveError(f"{type(self.mdp.model).__name__} has no finite value: what lies ahead is not discounted")

    def state(self) -> dict[str, Any]:
        grid = {
            "grid": self.description,
            "unit": self.it.value.unit.describe(),
            "u": self.it.u,
            "v": self.it.v,
            "alive": self.it.fill.alive,
        }
        return {**super().state(), **grid, "first": self.first, "steps_on_grid": self.steps_on_grid}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.first, self.steps_on_grid = state["first"], state["steps_on_grid"]
        self.begin_on(state["grid"], ValueUnit(**(state["unit"] or {})))
        self.it.s = self.it.value.states()
        self.it.u, self.it.v = (state[name].to(self.it.s) for name in ("u", "v"))
        alive = state["alive"].view(self.it.value.layers, -1)
        self.it.fill = Fill(self.it.value.grid.mesh(), alive, needed=alive)
        self.it.store()


class BackwardInduction(LifeCycleRun):
    """Value iteration of a life cycle: one improvement a period, backwards from the last."""

    def __init__(self, method: Iterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method = method

    def begin(self) -> None:
        grid, rough = sketched(self.method, self.mdp, self.look_at_the_clock)
        self.begin_on(grid, rough.value.unit)

    def begin_on(self, description: dict[str, Any], unit: ValueUnit) -> None:
        """Begin on this grid, with the value in this unit."""
        self.description = description
        self.it = GridIteration(self.method, self.mdp, description, self.look_at_the_clock, unit)

    def solve_period(self, t: int) -> None:
        self.it.step_back(t)

    def answer(self) -> Answer:
        last = self.horizon - self.done
        for t in range(last):
            self.it.value.copy_period(last, t)
            self.it.policy.copy_period(last, t)
        return self.it.policy, self.it.value

    def state(self) -> dict[str, Any]:
        functions = [function.coefficients for function in (self.it.policy, self.it.value)]
        return {
            "grid": self.description,
            "unit": self.it.value.unit.describe(),
            "done": self.done,
            "u": self.it.u,
            "functions": functions,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.begin_on(state["grid"], ValueUnit(**(state["unit"] or {})))
        self.done, self.it.u = state["done"], state["u"].to(self.mdp.low)
        for function, kept in zip((self.it.policy, self.it.value), state["functions"], strict=True):
            function.coefficients.copy_(kept)
