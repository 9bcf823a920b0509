"""The expectation over a model's shocks and Markov chains, E[g] = sum_j w_j(s) g(e_j), and draws from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from econrl.problem.layout import Layout
from econrl.problem.quadrature import Quadrature
from econrl.spec.shocks import Shock, product


class Expectation:
    """Nodes e (J, E) of the shocks (..., E), the next indices of the chains among them, and their weights.

    `matrices` are the transition matrices of the chains, on the device and in the precision of all that comes out.
    """

    def __init__(
        self, shocks: Sequence[Shock], matrices: Sequence[Tensor], layout: Layout, quadrature: Quadrature, like: Tensor
    ) -> None:
        self.shocks, self.like = shocks, like
        next_chains = layout.shock_slots[len(shocks) :]
        self.chains = list(zip(layout.chain_columns, next_chains, matrices, strict=True))
        indices = [(torch.arange(len(P), dtype=torch.float64)[:, None], torch.ones(len(P))) for P in matrices]
        nodes, weights = product([quadrature.over(shocks), *indices])
        self.nodes, self.shock_weights = nodes.to(like), weights.to(like)

    def weights(self, s: Tensor) -> Tensor:
        """Probability of each node (J, E) at the states s (..., S): (..., J), or (J,) without Markov chains."""
        w = self.shock_weights
        for column, slot, P in self.chains:
            w = w * P[s[..., column].long()][..., slot.read(self.nodes).long()]
        return w

    def sample(self, s: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of e (..., E) for each state s (..., S)."""
        shape, like = s.shape[:-1], self.like
        parts = [v.sample(tuple(shape), generator).to(like.dtype) for v in self.shocks]
        for column, _, P in self.chains:
            u = torch.rand(*shape, 1, generator=generator, dtype=like.dtype, device=like.device)
            then = (P[s[..., column].long()].cumsum(dim=-1) < u).sum(dim=-1, keepdim=True)
            parts.append(then.clamp(max=len(P) - 1).to(like.dtype))
        return torch.cat(parts, dim=-1) if parts else s[..., :0]
