"""The value of a given policy on a grid: V = r + E[beta V(s')] at the grid's points, a linear system in V."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from econrl.approximation.grid_functions import GridValue
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.diagnose import describe, first_fault
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

FEWEST_STEPS = 5  # of GMRES: with fewer, the value would say nothing


@dataclass
class Evaluation:
    """The equation V = r + L V of one fixed policy: L V is the discounted expectation of V at the grid points."""

    reward: Tensor
    """r(s, pi(s)), (N,)."""
    fit: Callable[[Tensor], Tensor]
    """From values at the grid points to the coefficients of the value function."""
    future: Callable[[Tensor], Tensor]
    """From coefficients to the discounted expectation at the grid points."""

    def apply(self, v: Tensor) -> Tensor:
        """L v at the grid points, (N,)."""
        return self.future(self.fit(v))

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


def evaluation(name: str, policy: Sequence[tuple[MDP, Tensor]], value: GridValue, s: Tensor, chunk: int) -> Evaluation:
    """The equation of a policy at the grid's states s (N, S), `chunk` states at a time. The policy is its actions
    (N, A) with the problem that they solve: one for each option, where there are choices. Tomorrow the best is taken.

    Raises SolveError, in the name of a method, where the model gives no finite numbers.
    """
    rewards: list[Tensor] = []

    def parts() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for mdp, a in policy:
            for s_part, a_part in zip(s.split(chunk), a.split(chunk), strict=True):
                s_, a_ = s_part.unsqueeze(-2), a_part.unsqueeze(-2)
                reached, reward = mdp.transition(s_, a_, mdp.nodes), mdp.reward(s_part, a_part)
                factor = mdp.weights(s_part) * mdp.discount(s_, a_, mdp.nodes)
                finite = reward.isfinite() & (reached.isfinite().all(dim=-1) & factor.isfinite()).all(dim=-1)
                if not finite.all():
                    raise SolveError(explain(name, mdp, s_part[~finite][:1], a_part[~finite][:1]))
                rewards.append(reward)
                reached = reached.expand(len(s_part), factor.shape[-1], mdp.S)
                yield reached[..., mdp.continuous], value.layer(reached), factor.expand(reached.shape[:-1])

    future = value.grid.expectation(parts(), value.layers)
    return Evaluation(torch.cat(rewards), lambda v: value.grid.fit(v.view(1, value.layers, -1)), future)


@torch.no_grad()
def evaluate(
    name: str,
    mdp: MDP,
    value: GridValue,
    policy: Function,
    steps: int,
    chunk: int,
    remaining: Callable[[], float] = lambda: math.inf,
) -> None:
    """Put the value of a policy on a grid: by at most `steps` steps of GMRES, or fewer where those would take more than
    the seconds `remaining`; in a life cycle, backwards."""
    if mdp.horizon is None:
        s = value.states()
        equation = evaluation(name, [(mdp, policy(s))], value, s, chunk)
        start, began = torch.zeros_like(s[:, 0]), time.perf_counter()
        if remaining() < math.inf:
            equation.apply(start)
            fit = remaining() / max(time.perf_counter() - began, 1e-9)
            steps = max(min(steps, int(fit)), FEWEST_STEPS)
        value.fit(equation.solve(start, steps).unsqueeze(-1))
        return
    for t in reversed(range(mdp.horizon)):
        v = [lookahead(mdp, value, s, policy(s)) for s in value.states(t).split(chunk)]
        value.fit(torch.cat(v).unsqueeze(-1), t)


def explain(name: str, mdp: MDP, s: Tensor, a: Tensor) -> str:
    """Why there is no finite value at the states s (B, S) and actions a (B, A): which of the model's functions is to
    blame."""
    return first_fault(mdp, s, a) or (
        f"{name} on {type(mdp.model).__name__} diverged: no finite value at {describe(mdp, s[0])}. Check that the "
        "value is finite (discounting against growth), and that the domain is one that the states can stay in"
    )
