"""Nonlinear least squares for small networks: Levenberg-Marquardt steps on residuals at many states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]
Residual = Callable[[Parameters, Tensor], Tensor]
"""R(theta, s) (m,) of the parameters theta at one state s (S,)."""
MU_FIRST, MU_LEAST, MU_MOST = 1e-3, 1e-14, 1e6  # Marquardt's beginning; rounding of J'J; a step that moves nothing
MU_DOWN, MU_UP, TRIES = (
    3.0,
    4.0,
    8,
)  # down by less than up, so that it does not swing; 4^8 covers any one change of scale
FLOOR = 1.0  # of the mean of diag(J'J), for parameters that hardly matter
LEAST_GAIN, SMALL_GAINS = 0.03, 5  # a fit whose loss falls by less, so many times in a row, has converged
EXACT = 1e-24  # a loss at which nothing is left to fit


@dataclass
class GaussNewton:
    """Minimises the mean of |R(theta, s)|^2 over states, by steps

        (J'J + mu D) d = -J'R,     J = dR/dtheta,     D = diag(J'J),

    mu / 3 where that lowers the loss, else mu * 4 and again. Only J'J is kept of a chunk of states, so that memory does
    not grow with their number.

    Source: Levenberg (1944), "A method for the solution of certain non-linear problems in least squares"; Marquardt
    (1963), "An algorithm for least-squares estimation of nonlinear parameters".
    """

    residual: Residual
    network: nn.Module
    chunk: int
    mu: float = MU_FIRST
    look_at_the_clock: Callable[[], None] = lambda: None
    """Called before each chunk; it may raise, where there is no time for another."""

    def __post_init__(self) -> None:
        self.theta: Parameters = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.size = sum(p.numel() for p in self.theta.values())

    def step(self, s: Tensor) -> tuple[float, float]:
        """Lower the loss at the states s (B, S) if a step can; the loss before and after."""
        JJ, JR, before = self.normal_equations(s)
        diagonal = JJ.diagonal()
        D = torch.diag(diagonal + FLOOR * diagonal.mean())
        for _ in range(TRIES):
            factor, failed = torch.linalg.cholesky_ex(JJ + self.mu * D)
            if not failed:
                theta = self.moved(-torch.cholesky_solve(JR.unsqueeze(-1), factor).squeeze(-1))
                after = self.loss(theta, s)
                if after < before:
                    self.mu = max(self.mu / MU_DOWN, MU_LEAST)
                    self.set(theta)
                    return before, after
            self.mu = min(self.mu * MU_UP, MU_MOST)
        return before, before

    def fit(self, s: Tensor, steps: int) -> float:
        """Steps on the same states until they gain little; the root mean square residual."""
        small = 0
        for _ in range(steps):
            before, after = self.step(s)
            small = small + 1 if after >= (1 - LEAST_GAIN) * before else 0
            if small == SMALL_GAINS or after < EXACT:
                break
        return after**0.5

    def normal_equations(self, s: Tensor) -> tuple[Tensor, Tensor, float]:
        """J'J (P, P), J'R (P,) and the loss, all over the number of states."""

        def twice(theta: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
            R = self.residual(theta, s)
            return R, R

        jacobian = torch.func.vmap(torch.func.jacrev(twice, has_aux=True), in_dims=(None, 0))
        JJ, JR, loss = s.new_zeros(self.size, self.size), s.new_zeros(self.size), 0.0
        for part in s.split(self.chunk):
            self.look_at_the_clock()
            by_name, R = jacobian(self.theta, part)
            J = torch.cat([j.flatten(2) for j in by_name.values()], dim=-1).flatten(0, 1)
            JJ.addmm_(J.mT, J)
            JR.addmv_(J.mT, R.flatten())
            loss += float(R.square().sum())
        return JJ / len(s), JR / len(s), loss / len(s)

    @torch.no_grad()
    def squares(self, theta: Parameters, s: Tensor) -> Tensor:
        """|R|^2 at each state, (B,)."""
        residual = torch.func.vmap(self.residual, in_dims=(None, 0))
        return torch.cat([residual(theta, part).square().sum(dim=-1) for part in s.split(self.chunk)])

    def loss(self, theta: Parameters, s: Tensor) -> float:
        """The mean of |R|^2; not a number where any R is."""
        return float(self.squares(theta, s).mean())

    def moved(self, d: Tensor) -> Parameters:
        """theta + d."""
        parts = d.split([p.numel() for p in self.theta.values()])
        return {name: p + part.view_as(p) for (name, p), part in zip(self.theta.items(), parts, strict=True)}

    @torch.no_grad()
    def set(self, theta: Parameters) -> None:
        """Take these parameters, here and in the network."""
        self.theta = theta
        for name, p in self.network.named_parameters():
            p.copy_(theta[name])
