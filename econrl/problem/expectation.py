"""The expectation over a model's shocks and Markov chains, E[g] = sum_j w_j(s) g(e_j), and draws from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from econrl.problem.layout import Layout
from econrl.problem.quadrature import Quadrature
from econrl.spec.shocks import Shock, product

Probabilities = Callable[[Tensor], Tensor]
"""From flat states (..., S) to those of n values, (..., n)."""


class Expectation:
    """Nodes e (J, E) of the shocks (..., E), the next indices of the chains among them, and their weights.

    `matrices` are the transition matrices of the chains, on the device and in the precision of all that comes out.
    `probabilities` are those, by name, of discrete shocks whose probabilities depend on the state: like a chain's next
    value, such a shock is the number of one.
    """

    def __init__(
        self,
        shocks: Sequence[Shock],
        probabilities: Mapping[str, Probabilities],
        matrices: Sequence[Tensor],
        layout: Layout,
        quadrature: Quadrature,
        like: Tensor,
    ) -> None:
        self.like, self.probabilities = like, dict(probabilities)
        self.shocks = [v.standard if v.varying else v for v in shocks]
        self.chains = list(zip(layout.chain_columns, layout.next_chains, matrices, strict=True))
        indices = [(torch.arange(len(P), dtype=torch.float64)[:, None], torch.ones(len(P))) for P in matrices]
        nodes, weights = product([quadrature.over(self.shocks), *indices])
        self.nodes = nodes.to(like)
        self.numbers = {slot.name: slot for slot in layout.shock_slots if slot.name in probabilities}
        counts = [int(slot.read(nodes).max()) + 1 for slot in self.numbers.values()]
        self.shock_weights = weights.to(like) * math.prod(counts)  # of these shocks one each, so far

    def weights(self, s: Tensor) -> Tensor:
        """Probability of each node (J, E) at the states s (..., S): (..., J), or (J,) where it is the same at all."""
        w = self.shock_weights
        for name, slot in self.numbers.items():
            w = w * self.probabilities[name](s)[..., slot.read(self.nodes).long()]
        for column, slot, P in self.chains:
            w = w * P[s[..., column].long()][..., slot.read(self.nodes).long()]
        return w

    def sample(self, s: Tensor, generator: torch.Generator, shape: Sequence[int] | None = None) -> Tensor:
        """One draw of e (..., E) for each state s (..., S). With the `shape` of its last batch dimensions the same
        random numbers hold for all others."""
        shape, like = tuple(s.shape[:-1] if shape is None else shape), self.like

        def one_of(probabilities: Tensor) -> Tensor:
            u = torch.rand(*shape, 1, generator=generator, dtype=like.dtype, device=like.device)
            number = (probabilities.cumsum(dim=-1) < u).sum(dim=-1, keepdim=True)
            return number.clamp(max=probabilities.shape[-1] - 1).to(like.dtype)

        parts = [
            one_of(self.probabilities[v.name](s))
            if v.name in self.probabilities
            else v.sample(shape, generator).to(like.dtype)
            for v in self.shocks
        ]
        parts += [one_of(P[s[..., column].long()]) for column, _, P in self.chains]
        if not parts:
            return s[..., :0]
        batch = torch.broadcast_shapes(*(x.shape[:-1] for x in parts))
        return torch.cat([x.expand(*batch, -1) for x in parts], dim=-1)
