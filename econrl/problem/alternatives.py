"""Alternatives between which is chosen, and how their values are compared.

    V = max_d Q_d,      and where a choice has taste shocks of scale sigma,
    V = sigma log sum_k exp(Q_k / sigma),    Q_k the largest Q_d of those with option k of that choice.

What is not available at a state has the value minus infinity, and counts for nothing.

Source: McFadden (1978), "Modelling the choice of residential location"; Rust (1987), "Optimal replacement of GMC bus
engines", Econometrica 55.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from econrl.problem.feasible_set import FeasibleSet


class Comparison:
    """How the values Q (..., D) of alternatives are compared, of which `option` (D,) tells the option of the choice
    that has taste shocks of scale `tastes`; zero where none has."""

    def __init__(self, tastes: float, option: Tensor) -> None:
        self.tastes = tastes
        self.members = torch.stack([(option == k).nonzero().flatten() for k in option.unique()])
        """The alternatives (K, D/K) that share an option k."""
        self.order = self.members.flatten().argsort()

    def value(self, Q: Tensor) -> Tensor:
        """V (...), the largest value or, with taste shocks, what the best alternative is expected to be worth."""
        if self.tastes == 0:
            return Q.amax(dim=-1)
        return self.tastes * (Q[..., self.members].amax(dim=-1) / self.tastes).logsumexp(dim=-1)

    def probabilities(self, Q: Tensor) -> Tensor:
        """The probability (..., D) that each alternative is chosen, which is dV/dQ."""
        if self.tastes == 0:
            return F.one_hot(Q.argmax(dim=-1), Q.shape[-1]).to(Q)
        best, row = Q[..., self.members].max(dim=-1)
        p = (best / self.tastes).softmax(dim=-1)
        return (p.unsqueeze(-1) * F.one_hot(row, self.members.shape[1])).flatten(-2)[..., self.order]

    def of_option(self, p: Tensor) -> Tensor:
        """The probability (..., D) of the option that each alternative has, from those of the alternatives."""
        together = p[..., self.members].sum(dim=-1, keepdim=True)
        return together.expand(*p.shape[:-1], *self.members.shape).flatten(-2)[..., self.order]

    def shocks(self, p: Tensor) -> Tensor:
        """The mean taste shock of each alternative (..., D) where it is chosen, -sigma log P of its option."""
        return -self.tastes * self.of_option(p).clamp(min=torch.finfo(p.dtype).tiny).log()


class Alternatives(Comparison):
    """D alternatives, rows of actions (D, A) with an option of each choice, at states where not all are available."""

    def __init__(self, feasible_set: FeasibleSet, actions: Tensor) -> None:
        self.feasible_set, self.actions = feasible_set, actions
        shocked = [(kind.tastes, slot.start) for kind, slot in feasible_set.laid if kind.tastes > 0]
        self.shocked: int | None = shocked[0][1] if shocked else None
        """The column of the choice that has taste shocks; None where none has."""
        option = actions.new_zeros(len(actions)) if self.shocked is None else actions[:, self.shocked]
        super().__init__(shocked[0][0] if shocked else 0.0, option)

    def available(self, s: Tensor) -> Tensor | None:
        """Which of them are available at the states s (..., S), (..., D); None where all are everywhere."""
        return self.feasible_set.available(s, self.actions)

    def open(self, s: Tensor, Q: Tensor) -> Tensor:
        """The values Q (..., D) at the states s (..., S), minus infinity where an alternative is not available."""
        available = self.available(s)
        return Q if available is None else torch.where(available, Q, -torch.inf)

    def best(self, s: Tensor, Q: Tensor) -> Tensor:
        """The number (...) of the alternative with the highest value, which is the most likely one."""
        return self.open(s, Q).argmax(dim=-1)

    def value_at(self, s: Tensor, Q: Tensor) -> Tensor:
        """V (...) at the states s."""
        return self.value(self.open(s, Q))

    def probabilities_at(self, s: Tensor, Q: Tensor) -> Tensor:
        """The probabilities (..., D) at the states s."""
        return self.probabilities(self.open(s, Q))
