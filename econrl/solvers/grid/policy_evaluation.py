"""The value of a given policy on a grid: V = r + E[beta V(s')] at the grid's points, a linear system in V."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from econrl.approximation.fill import Fill
from econrl.approximation.grid_functions import GridValue
from econrl.approximation.value_unit import unit_for
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.diagnose import describe, first_fault
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

FEWEST_STEPS = 5  # of GMRES: with fewer, the value would say nothing
NEWTON_STEPS = 6  # on a value that is interpolated in a unit of its own
LENGTHS = (1.0, 0.3, 0.1, 0.01)  # of such a step
MOST_PATIENT = 0.999  # discount factor with which a first guess of the value is made, at most


def solve_linear(apply: Callable[[Tensor], Tensor], gap: Tensor, size: float, steps: int) -> Tensor:
    """x (N,) of (I - A) x = gap, with A x = apply(x), by at most `steps` steps of GMRES; `size` is that of V."""
    from scipy.sparse.linalg import LinearOperator, gmres

    def remainder(x: np.ndarray) -> np.ndarray:
        x_ = torch.as_tensor(x).to(gap)
        return (x_ - apply(x_)).cpu().numpy()

    operator = LinearOperator((len(gap), len(gap)), matvec=remainder, dtype=np.float64)
    x, _ = gmres(operator, gap.cpu().numpy(), rtol=1e-10, atol=1e-13 * size, restart=steps, maxiter=1)
    return torch.as_tensor(x).to(gap)


@dataclass
class Evaluation:
    """The equation V = r + E[beta V(s')] of one fixed policy at the N grid points that have a value, linearised at the
    present V, in the unit x of the value function: with x' = x(s') interpolated,

        (I - A) dx = gap = T'(V) (r + E[beta V(s')] - V),        A dx = T'(V) E[beta V'(x') dx(s')].

    Where x is V itself and utility is additive the equation is linear, and its solution exact; else it is a step of
    Newton's method. Where utility is recursive, W(r, m) stands for r + E[beta V(s')], and its derivative for beta.
    """

    value: GridValue
    fill: Fill
    x: Tensor
    """The present value (N,), in its unit."""
    slope: Tensor
    """T'(V) = dx/dV, (N,)."""
    expected: Callable[[], Tensor]
    """r + E[beta V(s')] (N,) at the value function as it is then."""
    target: Tensor
    """The same at the present value."""
    future: Callable[[Tensor], Tensor]
    """From coefficients of x to E[beta V'(x') x(s')] at the N points."""

    @property
    def linear(self) -> bool:
        """Whether one step solves it."""
        return is_linear(self.value)

    def apply(self, x: Tensor) -> Tensor:
        """A x at the grid points that have a value, (N,)."""
        points = self.fill.spread(x).view(1, self.value.layers, -1)
        return self.slope * self.future(self.value.grid.fit(points))

    def grows(self) -> bool:
        """Whether changes of the value grow from one iteration to the next: |A^k x| at k = 200 against k = 100."""
        x = torch.rand(len(self.x), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(self.x)
        sizes = []
        for _ in range(2):
            for _ in range(100):
                x = self.apply(x)
            sizes.append(float(x.abs().max()))
        return not sizes[1] <= (1 - 1e-6) * max(sizes[0], 1e-6)

    def solve(self, steps: int) -> Tensor:
        """V (D N,) at all of the grid's points, by at most `steps` steps of GMRES on the correction."""
        gap = self.slope * (self.target - self.value.unit.value(self.x))

        correction = solve_linear(self.apply, gap, float(self.x.abs().max()), steps)
        return self.after(correction, float(gap.abs().max()))

    def after(self, dx: Tensor, gap: float) -> Tensor:
        """V (D N,) after the step dx; where the equation is not linear, after as much of it as narrows the gap."""
        unit = self.value.unit
        for length in (1.0,) if self.linear else LENGTHS:
            x = self.x + length * dx
            v = unit.value(self.fill.spread(x, unit.of_minus_infinity))
            if self.linear:
                return v
            self.value.fit(v.unsqueeze(-1))
            if ((self.expected() - unit.value(x)) / unit.slope(x)).abs().max() < gap:
                return v
        return unit.value(self.fill.spread(self.x, unit.of_minus_infinity))


def evaluation(
    name: str, policy: Sequence[tuple[MDP, Tensor]], value: GridValue, s: Tensor, v: Tensor, chunk: int, fill: Fill
) -> Evaluation:
    """The equation of a policy at the grid's states s (N, S), `chunk` states at a time, at the present `value`, which
    is v (D N,) there. The policy is its actions (N, A) with the problem that they solve: one for each option, where
    there are choices. Tomorrow the best is taken. States that have no value are left out.

    Raises SolveError, in the name of a method, where the model gives no finite numbers.
    """

    def reached() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Rewards (n,), states s' (n, J, S), their weights and their discount factors (n, J)."""
        for number, (mdp, a) in enumerate(policy):
            own = fill.alive[number * len(s) :][: len(s)]
            for s_part, a_part in zip(s[own].split(chunk), a[own].split(chunk), strict=True):
                s_, a_ = s_part.unsqueeze(-2), a_part.unsqueeze(-2)
                then, reward = mdp.transition(s_, a_, mdp.nodes), mdp.reward(s_part, a_part)
                weights, beta = mdp.weights(s_part), mdp.discount(s_, a_, mdp.nodes)
                finite = reward.isfinite() & (then.isfinite().all(dim=-1) & beta.isfinite()).all(dim=-1)
                if not finite.all():
                    raise SolveError(explain(name, mdp, s_part[~finite][:1], a_part[~finite][:1]))
                then = then.expand(len(s_part), weights.shape[-1], mdp.S)
                yield reward, then, weights.expand(then.shape[:-1]), beta.expand(then.shape[:-1])

    preferences = value.mdp.preferences

    def expected() -> Tensor:
        return torch.cat(
            [
                preferences.aggregate(reward, preferences.certainty(value(then), weights, beta))
                for reward, then, weights, beta in reached()
            ]
        )

    def weighted() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for reward, then, weights, beta in reached():
            factor = weights * beta
            if not preferences.additive:
                v = value(then)
                m = preferences.certainty(v, weights, beta)
                by_m = preferences.slopes(reward, m)[1].unsqueeze(-1)
                factor = by_m * weights * preferences.tilt(v, m.unsqueeze(-1), beta)
            yield value.derivative(then, factor)

    future = value.grid.expectation(weighted(), value.layers)
    x = value.unit.raw(v[fill.alive])
    return Evaluation(value, fill, x, 1 / value.unit.slope(x), expected, expected(), future)


@torch.no_grad()
def evaluate(
    name: str,
    mdp: MDP,
    value: GridValue,
    policy: Function,
    steps: int,
    chunk: int,
    remaining: Callable[[], float] = lambda: math.inf,
    near: bool = False,
) -> None:
    """Put the value of a policy on a grid: by at most `steps` steps of GMRES, or fewer where those would take more than
    the seconds `remaining`; in a life cycle, backwards. Where the value is `near` already, by one step of Newton's
    method from there. States at which the policy's reward is infinite are left out.
    """
    if mdp.horizon is None:
        s = value.states()
        a = policy(s)
        fill = filled(name, mdp, value, s, a)
        v = value(s) if near else today_for_ever(mdp, s, a)
        if not near:
            take(value, v, fill)
        v = value.filled(v, fill)
        for _ in range(1 if near or is_linear(value) else NEWTON_STEPS):
            value.fit(v.unsqueeze(-1))
            equation, began = evaluation(name, [(mdp, a)], value, s, v, chunk, fill), time.perf_counter()
            if remaining() < math.inf:
                equation.apply(equation.x)
                fit = remaining() / max(time.perf_counter() - began, 1e-9)
                steps = max(min(steps, int(fit)), FEWEST_STEPS)
            v = equation.solve(steps)
        value.fit(v.unsqueeze(-1))
        return
    for t in reversed(range(mdp.horizon)):
        s = value.states(t)
        a = policy(s)
        fill = filled(name, mdp, value, s, a)
        v = torch.cat([lookahead(mdp, value, *part) for part in zip(s.split(chunk), a.split(chunk), strict=True)])
        if t + 1 == mdp.horizon:
            take(value, v, fill)
        value.fit(value.filled(v, fill).unsqueeze(-1), t)


def is_linear(value: GridValue) -> bool:
    """Whether the equation of a policy's value is linear in what is interpolated."""
    return value.unit.power is None and value.mdp.preferences.additive and value.mdp.tastes == 0


def discounting_fails(mdp: MDP, policy: Function, s: Tensor) -> bool:
    """Whether rewards of the far future do not count less: sup E[beta_1 ... beta_k] at k = 100 against k = 50, from
    the states s (N, S) on, each path going on from the nearest of them."""
    a = policy(s)
    factor = mdp.weights(s) * mdp.discount(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes)
    factor = factor.expand(len(s), -1)
    if factor.isfinite().all() and factor.sum(dim=-1).max() < 1 - 1e-6:
        return False
    then = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes).expand(*factor.shape, mdp.S)
    width = (mdp.high - mdp.low).clamp(min=1e-300)
    nearest = torch.stack([torch.cdist(row / width, s / width).argmin(dim=-1) for row in then])
    weight, sizes = torch.ones_like(factor[:, 0]), []
    for _ in range(2):
        for _ in range(50):
            weight = (factor * weight[nearest]).sum(dim=-1)
        sizes.append(float(weight.max()))
    return not sizes[1] <= (1 - 1e-6) * max(sizes[0], 1e-300)


def today_for_ever(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """What the value would be if the state stayed where it is, r(s, a)/(1 - E[beta]) or the v = W(r, v) of an
    aggregator that is no sum. A first guess."""
    if not mdp.preferences.separable:
        return mdp.preferences.staying(mdp.reward(s, a))
    beta = (mdp.weights(s) * mdp.discount(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes)).sum(dim=-1)
    return mdp.reward(s, a) / (1 - beta).clamp(min=1 - MOST_PATIENT)


def take(value: GridValue, v: Tensor, fill: Fill) -> None:
    """Let the value function have the unit that suits the values v (..., D N) at the points that have one."""
    curvature = getattr(value.grid, "curvature", None)
    if curvature is not None:
        v = torch.where(fill.alive, v, torch.nan)
        value.unit = unit_for(v.unflatten(-1, (value.layers, -1)), curvature)


def filled(name: str, mdp: MDP, value: GridValue, s: Tensor, a: Tensor) -> Fill:
    """What leaves out the states s at which the reward of the actions a is infinite."""
    return Fill(value.grid.mesh(), mdp.reward(s, a).isfinite().view(value.layers, -1))


def explain(name: str, mdp: MDP, s: Tensor, a: Tensor) -> str:
    """Why there is no finite value at the states s (B, S) and actions a (B, A): which of the model's functions is to
    blame."""
    return first_fault(mdp, s, a) or (
        f"{name} on {type(mdp.model).__name__} diverged: no finite value at {describe(mdp, s[0])}. Check that the "
        "value is finite (discounting against growth), and that the domain is one that the states can stay in"
    )
