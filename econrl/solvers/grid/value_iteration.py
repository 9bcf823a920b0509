"""Value iteration on any grid: improve the policy at its points, evaluate it, again and again, or backwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.grid_functions import GridPolicy, GridValue
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import CHUNK
from econrl.solvers.common.run import Iteration, LifeCycleRun
from econrl.solvers.common.task import Answer, OutOfTime, Task
from econrl.solvers.grid.maximise import best_candidate, better, candidates, evaluate, newton
from econrl.solvers.grid.policy_evaluation import Evaluation, evaluation, explain

SKETCH_STEPS = 6  # iterations on the coarse grid: how far the states reach needs no more
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

    def __init__(
        self, method: Iterated, mdp: MDP, description: dict[str, Any], look_at_the_clock: Callable[[], None]
    ) -> None:
        self.method, self.mdp, self.look_at_the_clock = method, mdp, look_at_the_clock
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
        """The shares of the continuous actions at their u."""
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


def grid_of(method: Iterated, mdp: MDP, look_at_the_clock: Callable[[], None]) -> dict[str, Any]:
    """The grid, fitted to where a rough policy on a coarse one goes."""
    coarse = GridIteration(method, mdp, method.coarse_grid(mdp), look_at_the_clock)
    if method.is_fitted:
        coarse.sketch()
    return method.grid(mdp, coarse.policy)


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
        self.method, self.first = method, True

    def begin(self) -> None:
        self.begin_on(grid_of(self.method, self.mdp, self.look_at_the_clock))
        self.it.begin()

    def begin_on(self, description: dict[str, Any]) -> None:
        """Begin on this grid."""
        self.description = description
        self.it = GridIteration(self.method, self.mdp, description, self.look_at_the_clock)

    def step(self) -> None:
        scan = self.first or self.change <= self.wanted  # a second maximum may hide elsewhere
        self.note(self.it.step(scan), converges=scan)
        self.first = False

    def answer(self) -> Answer:
        return self.it.policy, self.it.value

    def check(self, converged: bool) -> None:
        """Raises SolveError where the value is infinite."""
        if (converged or self.message) and self.it.evaluation(self.it.s, self.it.u).grows():
            raise SolveError(
                f"{type(self.mdp.model).__name__} has no finite value: what it discounts grows at least as fast"
            )

    def state(self) -> dict[str, Any]:
        grid = {"grid": self.description, "u": self.it.u, "v": self.it.v}
        return {**super().state(), **grid, "first": self.first}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.first = state["first"]
        self.begin_on(state["grid"])
        self.it.s = self.it.value.states()
        self.it.u, self.it.v = (state[name].to(self.it.s) for name in ("u", "v"))
        self.it.store()


class BackwardInduction(LifeCycleRun):
    """Value iteration of a life cycle: one improvement a period, backwards from the last."""

    def __init__(self, method: Iterated, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method = method

    def begin(self) -> None:
        self.begin_on(grid_of(self.method, self.mdp, self.look_at_the_clock))

    def begin_on(self, description: dict[str, Any]) -> None:
        """Begin on this grid."""
        self.description = description
        self.it = GridIteration(self.method, self.mdp, description, self.look_at_the_clock)

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
        return {"grid": self.description, "done": self.done, "u": self.it.u, "functions": functions}

    def restore(self, state: dict[str, Any]) -> None:
        self.begin_on(state["grid"])
        self.done, self.it.u = state["done"], state["u"].to(self.mdp.low)
        for function, kept in zip((self.it.policy, self.it.value), state["functions"], strict=True):
            function.coefficients.copy_(kept)
