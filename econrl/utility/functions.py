"""Utility functions, in torch: differentiable, for any batch shape, a parameter may be a number or a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def crra(c: Tensor, gamma: float | Tensor) -> Tensor:
    """Constant relative risk aversion, u(c) = c^(1-gamma) / (1-gamma), and ln c at gamma = 1 exactly.

    Negative consumption gives -inf: a power of it would be a finite, even a high, utility.
    """
    positive = torch.where(c < 0, torch.ones_like(c), c)
    if isinstance(gamma, Tensor):
        log_case = gamma == 1
        power = 1 - torch.where(log_case, torch.full_like(gamma, 2.0), gamma)
        u = torch.where(log_case, positive.log(), positive**power / power)
    else:
        u = positive.log() if gamma == 1 else positive ** (1 - gamma) / (1 - gamma)
    return torch.where(c < 0, torch.full_like(u, -torch.inf), u)


def crra_marginal(c: Tensor, gamma: float | Tensor) -> Tensor:
    """u'(c) = c^(-gamma)."""
    return c ** (-gamma)


def crra_inverse_marginal(marginal: Tensor, gamma: float | Tensor) -> Tensor:
    """The consumption at which u'(c) takes the given value: c = u'^(-1/gamma)."""
    return marginal ** (-1 / gamma)


def cara(c: Tensor, alpha: float | Tensor) -> Tensor:
    """Constant absolute risk aversion, u(c) = -exp(-alpha c) / alpha."""
    return -torch.exp(-alpha * c) / alpha
