"""Long and Plosser (1983): real business cycles in N sectors, solved in closed form for any N."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from econrl import Budget, Model, Normal, State


@dataclass(frozen=True, kw_only=True)
class LongPlosser(Model):
    """Each sector's output is consumed, or is an input of all sectors; H hours are leisure Z, or work in the sectors.

        V(Y) = max  theta_0 ln Z + sum_j theta_j ln C_j + beta E V(Y')
        Y'_i = lambda_i e^(eps_i) L_i^(b_i) prod_j X_ij^(a_ij),     b_i + sum_j a_ij = 1
        C_j + sum_i X_ij = Y_j,     Z + sum_i L_i = H

    with eps iid normal. Optimal shares are constant, and the value is linear in logs: with g = theta + beta A' g and
    m = theta_0 + beta sum_j g_j b_j,

        C_j = theta_j Y_j / g_j,   X_ij = beta g_i a_ij Y_j / g_j,   L_i = beta g_i b_i H / m,   Z = theta_0 H / m,
        V(Y) = v + g . ln Y,   (1 - beta) v = theta_0 ln Z + sum_j theta_j ln(theta_j / g_j) + beta sum_i g_i ln Y*_i,

    where Y*_i is next period's output of sector i from Y = 1 at eps = 0. lambda_i is such that Y* = 1.

    Actions: a budget for each good j, `X0`, `X1`, ..., whose parts are the inputs X_.j; what they leave is consumed. So
    all of a good is used, and the optimum is interior: n^2 inputs and n hours, n (n + 1) actions in all, are smooth
    functions of as many free numbers. The closed form is a constant in these, so that even at n = 10 (110 actions) it
    is the number of actions that makes the model hard, not the shape of its policy.

    Source: Long and Plosser (1983), "Real business cycles", JPE 91, with independent shocks. Their input-output table
    is replaced by one drawn from a seed: labour shares b_i evenly spaced on [0.2, 0.5], the a_ij of a sector
    proportional to uniform draws on [0.5, 1.5], and goods that are liked equally.
    """

    n: int = 3  # sectors
    beta: float = 0.95  # discount factor
    leisure: float = 1.0  # theta_0, the weight of leisure; those of the goods sum to one
    hours: float = 1.0  # H
    sigma: float = 0.1  # standard deviation of log productivity
    seed: int = 0  # of the input-output table

    @cached_property
    def b(self) -> np.ndarray:
        """Labour shares (n,)."""
        return np.linspace(0.2, 0.5, self.n)

    @cached_property
    def a(self) -> np.ndarray:
        """a_ij (n, n), the share of good j in the cost of sector i."""
        draw = np.random.default_rng(self.seed).uniform(0.5, 1.5, (self.n, self.n))
        return (1 - self.b)[:, None] * draw / draw.sum(axis=1, keepdims=True)

    @cached_property
    def theta(self) -> np.ndarray:
        return np.full(self.n, 1 / self.n)

    @cached_property
    def g(self) -> np.ndarray:
        """The elasticity of the value to each output, (n,)."""
        return np.linalg.solve(np.eye(self.n) - self.beta * self.a.T, self.theta)

    @cached_property
    def input_shares(self) -> np.ndarray:
        """X_ij / Y_j (n, n)."""
        return self.beta * self.g[:, None] * self.a / self.g

    @cached_property
    def hour_shares(self) -> np.ndarray:
        """L_i / H (n,)."""
        worth = self.beta * self.g * self.b
        return worth / (self.leisure + worth.sum())

    @cached_property
    def log_lambda(self) -> np.ndarray:
        """ln lambda_i (n,), such that Y = 1 in the steady state."""
        return -(self.b * np.log(self.hours * self.hour_shares) + (self.a * np.log(self.input_shares)).sum(axis=1))

    @cached_property
    def v(self) -> float:
        """The value at Y = 1."""
        rest = self.hours * (1 - self.hour_shares.sum())
        now = self.leisure * np.log(rest) + (self.theta * np.log(self.theta / self.g)).sum()
        return float(now / (1 - self.beta))

    def states(self) -> State:
        wide = max(1.0, self.sigma / 0.1)
        return State("Y", low=0.6**wide, high=1.6**wide, size=self.n)

    def actions(self) -> tuple[Budget, ...]:
        inputs = [Budget(f"X{j}", size=self.n, total=lambda s, j=j: s.Y[..., j]) for j in range(self.n)]
        return *inputs, Budget("L", size=self.n, total=self.hours)

    def shocks(self) -> Normal:
        return Normal("eps", std=self.sigma, size=self.n)

    def inputs(self, a: Any) -> Tensor:
        """X_ij (..., n, n)."""
        return torch.stack([getattr(a, f"X{j}") for j in range(self.n)], dim=-1)

    def consumption(self, s: Any, a: Any) -> Tensor:
        return s.Y - self.inputs(a).sum(-2)

    def reward(self, s: Any, a: Any) -> Tensor:
        rest = self.hours - a.L.sum(-1)
        return self.leisure * rest.log() + (like(self.theta, s.Y) * self.consumption(s, a).log()).sum(-1)

    def transition(self, s: Any, a: Any, e: Any) -> dict[str, Tensor]:
        log_inputs = (like(self.a, s.Y) * self.inputs(a).log()).sum(-1)
        return {"Y": (like(self.log_lambda, s.Y) + e.eps + like(self.b, s.Y) * a.L.log() + log_inputs).exp()}

    def consumption_value(self, s: Any, a: Any) -> Tensor:
        """sum_j theta_j."""
        return torch.ones_like(s.Y[..., 0])

    def outcomes(self, s: Any, a: Any) -> dict[str, Tensor]:
        consumption = self.consumption(s, a)
        return {**{f"C{j}": consumption[..., j] for j in range(self.n)}, "leisure": self.hours - a.L.sum(-1)}

    def steady_state(self) -> dict[str, Any]:
        inputs = {f"X{j}": self.input_shares[:, j] for j in range(self.n)}
        return {"Y": np.ones(self.n), "L": self.hours * self.hour_shares, **inputs}

    def exact_policy(self, s: Any) -> dict[str, Tensor]:
        shares = like(self.input_shares, s.Y)
        inputs = {f"X{j}": shares[:, j] * s.Y[..., j : j + 1] for j in range(self.n)}
        return {**inputs, "L": like(self.hours * self.hour_shares, s.Y).expand_as(s.Y)}

    def exact_value(self, s: Any) -> Tensor:
        return self.v + s.Y.log() @ like(self.g, s.Y)


def like(array: np.ndarray, tensor: Tensor) -> Tensor:
    """A numpy array as a tensor of the type and on the device of another."""
    return torch.as_tensor(array).to(tensor)
