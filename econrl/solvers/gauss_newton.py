"""Nonlinear least squares for networks: the Levenberg-Marquardt step on residuals of a few hundred parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]
Residual = Callable[[Parameters, Tensor], Tensor]
"""R(theta, s) (m,) of the parameters theta at one state s (S,)."""

MU_FIRST, MU_DOWN, MU_UP, TRIES = 1e-3, 3.0, 4.0, 8
SMALLEST_MU = 1e-14


@dataclass
class GaussNewton:
    """Minimises the mean of |R(theta, s)|^2 over states, by steps

        (J'J + mu I) d = -J'R,     J = dR/dtheta,     mu / 3 where that lowers the loss, else mu * 4 and again.

    J is formed a chunk of states at a time and only J'J is kept, so that memory does not grow with the states.
    Source: Levenberg (1944), Marquardt (1963).
    """

    residual: Residual
    network: nn.Module
    chunk: int
    mu: float = MU_FIRST

    def __post_init__(self) -> None:
        self.theta: Parameters = {name: p.detach().clone() for name, p in self.network.named_parameters()}

    def normal_equations(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """J'J (P, P), J'R (P,) and the loss, all divided by the number of states (B, S)."""
        P = sum(p.numel() for p in self.theta.values())
        JJ, JR, loss = s.new_zeros(P, P), s.new_zeros(P), s.new_zeros(())

        def twice(theta: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
            R = self.residual(theta, s)
            return R, R

        jacobian = torch.func.vmap(torch.func.jacrev(twice, has_aux=True), in_dims=(None, 0))
        for part in s.split(self.chunk):
            J, R = jacobian(self.theta, part)
            J_ = torch.cat([j.flatten(2) for j in J.values()], dim=-1).flatten(0, 1)
            R_ = R.flatten()
            JJ.addmm_(J_.mT, J_)
            JR.addmv_(J_.mT, R_)
            loss += R_.square().sum()
        return JJ / len(s), JR / len(s), loss / len(s)

    def loss(self, theta: Parameters, s: Tensor) -> float:
        residual = torch.func.vmap(self.residual, in_dims=(None, 0))
        return float(sum(residual(theta, part).square().sum() for part in s.split(4 * self.chunk)) / len(s))

    def moved(self, d: Tensor) -> Parameters:
        """theta + d."""
        parts = d.split([p.numel() for p in self.theta.values()])
        return {name: p + part.view_as(p) for (name, p), part in zip(self.theta.items(), parts, strict=True)}

    def step(self, s: Tensor) -> tuple[float, float]:
        """One accepted step on the states s (B, S), or none; the loss before and after."""
        JJ, JR, before = self.normal_equations(s)
        loss = float(before)
        size = JJ.diagonal().mean()
        for _ in range(TRIES):
            damped = JJ + self.mu * torch.diag(JJ.diagonal() + 1e-3 * size)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                theta = self.moved(-torch.cholesky_solve(JR.unsqueeze(-1), factor).squeeze(-1))
                after = self.loss(theta, s)
                if after < loss:
                    self.theta, self.mu = theta, max(self.mu / MU_DOWN, SMALLEST_MU)
                    return loss, after
            self.mu *= MU_UP
        return loss, loss

    def write_back(self) -> None:
        """Put theta into the network."""
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(self.theta[name])
