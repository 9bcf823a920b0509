"""Policies that draw their actions: a Gaussian squashed into the feasible set, and a softmax for each choice.

A continuous action is drawn as its unbounded u ~ N(m(s), std^2) and reached through its share y = squash(u) (see
`feasible_set.py`); a choice is drawn from softmax(logits(s)), and its column of u holds the index. Densities are those
of the shares, which have no unit:

    log pi(u | s) = sum_k log N(u_k; m_k, std_k) - log |det dy/du| + sum_d log softmax(logits_d)[choice_d]

Source: the change of variables of Haarnoja, Zhou, Abbeel and Levine (2018), appendix C, for other squashing functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.networks import MLP, Features, network
from econrl.problem.layout import adjacent
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction

LOG_STD = (-10.0, 2.0)  # beyond, a policy draws the same action always, or the bounds only


@dataclass(frozen=True)
class ActionDistribution:
    """pi(. | s) at a batch of states: `mean` and `log_std` (..., C) of the C continuous columns of u, and `logits`
    (..., n) of each choice."""

    mdp: MDP
    mean: Tensor
    log_std: Tensor
    logits: tuple[Tensor, ...] = ()

    def sample(self, generator: torch.Generator) -> Tensor:
        """u (..., A), differentiable in mean and std for the continuous columns (u = mean + std noise)."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self._columns(self.mean + self.log_std.exp() * noise, [draw(x, generator) for x in self.logits])

    @property
    def mode(self) -> Tensor:
        """u (..., A) at the mean of the Gaussian and the likeliest choices."""
        return self._columns(self.mean, [x.argmax(dim=-1) for x in self.logits])

    def log_prob(self, u: Tensor) -> Tensor:
        """log-density (...) of the shares squash(u), plus the log-probability of the choices in u (..., A)."""
        z = (u[..., adjacent(self.mdp.free)] - self.mean) / self.log_std.exp()
        gaussian = -(z.square() / 2 + self.log_std + math.log(2 * math.pi) / 2).sum(dim=-1)
        total = gaussian - self.mdp.log_squash_volume(u)
        for (column, _), x in zip(self.mdp.choices, self.logits, strict=True):
            index = u[..., column].long().unsqueeze(-1)
            total = total + x.log_softmax(dim=-1).gather(-1, index).squeeze(-1)
        return total

    def entropy(self) -> Tensor:
        """Entropy (...) of the Gaussian *before* it is squashed, plus that of the choices; the entropy of the shares
        has no closed form, -E[log_prob] estimates it."""
        total = (self.log_std + (1 + math.log(2 * math.pi)) / 2).sum(dim=-1)
        for x in self.logits:
            log_p = x.log_softmax(dim=-1)
            total = total - (log_p.exp() * log_p).sum(dim=-1)
        return total

    def kl(self, other: ActionDistribution) -> Tensor:
        """KL(self || other), (...); squashing, which both share, leaves it as it is."""
        variance, other_variance = (2 * self.log_std).exp(), (2 * other.log_std).exp()
        apart = variance + (self.mean - other.mean).square()
        total = (other.log_std - self.log_std + apart / (2 * other_variance) - 0.5).sum(dim=-1)
        for x, x_other in zip(self.logits, other.logits, strict=True):
            log_p = x.log_softmax(dim=-1)
            total = total + (log_p.exp() * (log_p - x_other.log_softmax(dim=-1))).sum(dim=-1)
        return total

    def _columns(self, continuous: Tensor, chosen: Sequence[Tensor]) -> Tensor:
        """The flat u (..., A) of the continuous columns (..., C) and the index (...) of each choice."""
        if not chosen:
            return continuous
        u = continuous.new_zeros(*chosen[0].shape, self.mdp.A)
        u[..., self.mdp.free] = continuous
        for (column, _), index in zip(self.mdp.choices, chosen, strict=True):
            u[..., column] = index.to(u.dtype)
        return u


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One index (...) from softmax(logits) (..., n)."""
    shape = (*logits.shape[:-1], 1)
    uniform = torch.rand(shape, generator=generator, dtype=logits.dtype, device=logits.device)
    return (logits.softmax(dim=-1).cumsum(dim=-1)[..., :-1] < uniform).sum(dim=-1)


class StochasticPolicy(StateFunction):
    """pi(. | s): a network for the means and the logits. Called with states it gives its mode, as feasible actions.

    The log-std is one number for each action, the same at all states; or the network's, where `state_dependent`.
    """

    like: Tensor

    def __init__(self, mdp: MDP, hidden: Sequence[int], state_dependent: bool = False) -> None:
        super().__init__(mdp)
        self.hidden, self.state_dependent = list(hidden), state_dependent
        self.features = Features(mdp)
        self.sizes = [len(mdp.free)] * (1 + state_dependent) + [n for _, n in mdp.choices]
        self.body = (
            MLP(self.features.size, hidden, sum(self.sizes))
            if mdp.choices
            else network(mdp, self.features, hidden, "actions", sets=1 + state_dependent)
        )
        if not state_dependent:
            self.log_std = torch.nn.Parameter(torch.zeros(mdp.A))
        columns = torch.arange(mdp.A, device=mdp.device)
        for group in mdp.groups:  # members are exchangeable: what would tell them apart is read from the first
            columns[group.actions] = group.actions[:1]
        self.register_buffer("like", columns[mdp.free], persistent=False)

    def describe(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "state_dependent": self.state_dependent}

    def start_at(self, u: Tensor, std: float) -> None:
        """Begin close to the constant u (A,), with this std; choices begin near equal odds."""
        mean = u[self.mdp.free]
        log_std = torch.full_like(mean, math.log(std))
        odds = u.new_zeros(sum(n for _, n in self.mdp.choices))
        if self.state_dependent:
            self.body.start_at(torch.cat([mean, log_std, odds]))
        else:
            self.body.start_at(torch.cat([mean, odds]))
            torch.nn.init.constant_(self.log_std, math.log(std))

    def distribution(self, s: Tensor) -> ActionDistribution:
        """pi(. | s) at states s (..., S)."""
        mean, *rest = self.body(self.features(s)).split(self.sizes, dim=-1)
        log_std = rest.pop(0) if self.state_dependent else self.log_std[self.like].expand_as(mean)
        return ActionDistribution(self.mdp, mean, log_std.clamp(*LOG_STD), tuple(rest))

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.distribution(s).mode)
