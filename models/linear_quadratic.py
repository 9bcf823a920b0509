"""The linear-quadratic regulator with Gaussian shocks, exact by the Riccati equation in any dimension."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from econrl import Action, Model, Normal, State


@dataclass(frozen=True, kw_only=True)
class LinearQuadratic(Model):
    """n states, m controls, a stable law of motion drawn once from `seed`.

        V(x) = max_u -(x'Rx + u'Qu) + beta E V(Ax + Bu + C eps)

    Optimal: u = -F x, V = -x'Px - d, by the discounted Riccati equation.

    Source: Ljungqvist and Sargent, "Recursive Macroeconomic Theory", chapter on linear-quadratic dynamic programming.
    """

    n: int = 2  # states
    m: int = 1  # controls
    beta: float = 0.95  # discount factor
    radius: float = 0.95  # spectral radius of A
    noise: float = 0.1  # standard deviation of each shock
    seed: int = 0  # of the draw of A and B

    @cached_property
    def A(self) -> np.ndarray:
        draw = np.random.default_rng(self.seed).normal(size=(self.n, self.n))
        return self.radius * draw / np.abs(np.linalg.eigvals(draw)).max()

    @cached_property
    def B(self) -> np.ndarray:
        draw = np.random.default_rng([self.seed, 1]).normal(size=(self.n, self.m))
        return draw / np.sqrt(self.m)

    @cached_property
    def riccati(self) -> tuple[np.ndarray, np.ndarray, float]:
        """(P, F, d) of the optimal cost x'Px + d and the optimal rule u = -F x."""
        from scipy.linalg import solve_discrete_are

        A, B = np.sqrt(self.beta) * self.A, np.sqrt(self.beta) * self.B
        P = solve_discrete_are(A, B, np.eye(self.n), np.eye(self.m))
        F = np.linalg.solve(np.eye(self.m) + B.T @ P @ B, B.T @ P @ A)
        return P, F, self.beta / (1 - self.beta) * self.noise**2 * np.trace(P)

    def states(self) -> State:
        wide = max(1.0, 10 * self.noise)
        return State("x", low=-wide, high=wide, size=self.n)

    def actions(self) -> Action:
        return Action("u", size=self.m)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.noise, size=self.n)

    def reward(self, s: Any, a: Any) -> Tensor:
        return -(s.x**2).sum(-1) - (a.u**2).sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        return {"x": times(self.A, s.x) + times(self.B, a.u) + e.eps}

    def initial(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        return {"x": torch.zeros(n, self.n)}

    def exact_policy(self, s: Any) -> dict[str, Tensor]:
        return {"u": -times(self.riccati[1], s.x)}

    def exact_value(self, s: Any) -> Tensor:
        P, _, d = self.riccati
        return -(times(P, s.x) * s.x).sum(-1) - d


def times(matrix: np.ndarray, x: Tensor) -> Tensor:
    """Matrix times vector, for a batch of vectors x (..., n)."""
    return x @ torch.as_tensor(matrix).to(x).T
