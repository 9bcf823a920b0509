"""A network for exchangeable members: the same function for each of them, of itself and of what they make together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from econrl.problem.groups import Group


class PooledNetwork(nn.Module):
    """A permutation-equivariant network from x (..., inputs) to z (..., outputs).

    The inputs are split into those of each member j, x_j, with its constants, and the common ones c. Then

        p = mean_i phi(x_i, c)                                   the members as a crowd
        z_j = L (x_j, mean_i x_i, c) + body(x_j, mean_i x_i, c, p)

    with one linear L, one layer phi and one body for all, so that the number of weights does not depend on that of the
    members. Outputs that are nobody's own, such as a planner's value, are means over the members of a part of z_j: a
    sum over members of what each is worth, given the crowd, which is close to what a planner's value is.

    group           its constants tell the members apart
    own             the columns of x (N, n) that are the members' own; the others are common
    results         the columns of z (N, m) that are the members' own; the others are means

    Source: Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov and Smola (2017), "Deep Sets", NeurIPS.
    """

    constants: Tensor
    own: Tensor
    common: Tensor
    order: Tensor

    def __init__(
        self,
        group: Group,
        own: Tensor,
        inputs: int,
        results: Tensor,
        outputs: int,
        hidden: Sequence[int],
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        common, means = others(own, inputs), others(results, outputs)
        for name, buffer in {
            "constants": group.features,
            "own": own,
            "common": common,
            "order": torch.cat([results.flatten(), means]).argsort(),
        }.items():
            self.register_buffer(name, buffer, persistent=False)  # the model says what they are
        self.means = len(means)
        member, width = own.shape[1] + group.features.shape[1], results.shape[1] + self.means
        crowd = member + len(common)
        self.phi = nn.Sequential(nn.Linear(crowd, hidden[0]), activation())
        self.linear_own, self.linear_crowd = nn.Linear(member, width), nn.Linear(crowd, width, bias=False)
        self.first_own, self.first_crowd = nn.Linear(member, hidden[0]), nn.Linear(crowd + hidden[0], hidden[0], False)
        layers: list[nn.Module] = [activation()]
        for a, b in itertools.pairwise(hidden):
            layers += [nn.Linear(a, b), activation()]
        self.body, self.last = nn.Sequential(*layers), nn.Linear(hidden[-1], width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        own, common = x[..., self.own], x[..., self.common]
        own = torch.cat([own, self.constants.expand(*own.shape[:-1], -1)], dim=-1)
        crowd = torch.cat([own.mean(dim=-2), common], dim=-1)
        each = torch.cat([own, common.unsqueeze(-2).expand(*own.shape[:-1], -1)], dim=-1)
        pooled = torch.cat([crowd, self.phi(each).mean(dim=-2)], dim=-1)
        z = self.linear_own(own) + self.linear_crowd(crowd).unsqueeze(-2)
        z = z + self.last(self.body(self.first_own(own) + self.first_crowd(pooled).unsqueeze(-2)))
        results = z.shape[-1] - self.means
        z = torch.cat([z[..., :results].flatten(-2), z[..., results:].mean(dim=-2)], dim=-1)
        return z[..., self.order]

    def start_at(self, z: Tensor) -> None:
        """Begin close to the constant z (outputs,), which must be the same for all members."""
        results = self.linear_own.out_features - self.means
        by_member = z[self.order.argsort()]
        own = by_member[: len(z) - self.means].unflatten(0, (-1, results)) if results else z.new_zeros(1, 0)
        with torch.no_grad():
            for layer in (self.linear_own, self.linear_crowd, self.last):
                layer.weight.mul_(0.01)
            self.linear_own.bias.copy_(torch.cat([own.mean(dim=0), by_member[len(z) - self.means :]]))


def others(columns: Tensor, width: int) -> Tensor:
    """The columns 0 ... width - 1 that are not among these."""
    every = torch.arange(width, device=columns.device)
    return every[~torch.isin(every, columns)]
