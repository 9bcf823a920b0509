"""Two critics, and the smaller of their targets: what td3 and sac have in common.

An actor climbs to where a critic errs upwards, and the critic's own target then takes that error up. Two critics with
first weights of their own err differently, and the smaller value of the two is seldom too high (Fujimoto, van Hoof and
Meger 2018, clipped double Q-learning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from econrl.approximation.networks import ActionValueNetwork, Ensemble
from econrl.approximation.units import Units
from econrl.problem.mdp import MDP


class Twins:
    """Two critics of one form, evaluated as one."""

    def __init__(self, first: ActionValueNetwork, second: ActionValueNetwork) -> None:
        self.both, self.first, self.units = (first, second), first, first.units
        self.body = Ensemble([first.body, second.body])

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """Q_1(s, u) and Q_2(s, u) in units, (2, ...)."""
        return self.body(torch.cat([self.first.features(s), u], dim=-1)).squeeze(-1)

    def smaller(self, s: Tensor, u: Tensor) -> Tensor:
        """min_i Q_i(s, u) in units, (...)."""
        return self.raw(s, u).amin(dim=0)

    def on(self, mdp: MDP) -> Twins:
        """A copy without gradients."""
        return Twins(*(Q.on(mdp) for Q in self.both))


def twins(mdp: MDP, kind: type[ActionValueNetwork], hidden: Sequence[int], units: Units) -> Twins:
    """Two critics of a kind, with first weights of their own."""
    first, second = (kind(mdp, hidden, asdict(units), hidden).to(mdp.device, mdp.dtype) for _ in range(2))
    return Twins(first, second)
