"""Advantage actor-critic: many environments side by side, a few periods, one gradient step."""

from __future__ import annotations

from dataclasses import dataclass

from econrl.solvers.on_policy.learner import OnPolicy


@dataclass(frozen=True)
class A2C(OnPolicy):
    """Advantage actor-critic (Mnih et al. 2016) with generalised advantages (Schulman et al. 2016).

        loss = -E[ A log pi(u | s) ] - entropy E[ H(pi(. | s)) ]   and   E[ (V(s) - G)^2 ] for the critic's own network

    on `periods` periods of all environments, A and G over the periods up to the rollout's end with V beyond; lam = 1 is
    the n-step advantage of Mnih et al. The environments run in one batch, hence "A2C" and not the asynchronous A3C.

    Source: Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver and Kavukcuoglu (2016), "Asynchronous methods for deep
    reinforcement learning", ICML.
    """

    name = "a2c"
    light = True
