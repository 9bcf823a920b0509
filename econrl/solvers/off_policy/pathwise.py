"""The pathwise gradient: lifetime reward, simulated and differentiated from one end to the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.common.method import require
from econrl.solvers.off_policy.ddpg import DDPG

PERIODS = 200  # H of a stationary model: what comes later is discounted to nothing at annual rates, 0.95^200 = 4e-5


@dataclass(frozen=True)
class Pathwise(DDPG):
    """Maximise simulated lifetime reward by its own gradient: rung 3 of `ddpg` with nothing but known steps.

        J(theta) = E[ sum_{h<H} beta^h r(s_h, pi(s_h)) ],   s_{h+1} = f(s_h, pi(s_h), e_h)

    H is the whole life of a life-cycle model, which needs nothing else. A stationary model is cut off after 200
    periods, and what lies beyond counts for nothing: where beta^200 is not small, the policy eats up its capital, and
    `ddpg` does better. The value is learned along the way, but no policy depends on it.

    Source: Maliar, Maliar and Winant (2021), "Deep learning for solving dynamic economic models", JME 122, section 2
    (lifetime reward).
    """

    name = "pathwise"
    recursive = False  # a sampled path knows no certainty equivalent

    rung: int = 3
    """A rollout, and nothing else: the other rungs are those of `ddpg`."""
    rollout: int | None = None  # type: ignore[assignment]
    """Periods H; None: those of a life, or 200."""
    batch: int = 64
    """Paths in a gradient step."""
    actor_lr: float | None = 0.005
    """Adam's learning rate for the actor, annealed to zero."""

    def __post_init__(self) -> None:
        require(self, "rung", self.rung == 3, "3, a rollout; the other rungs are those of `ddpg`")
        super().__post_init__()

    def steps_ahead(self, mdp: MDP) -> int:
        """H."""
        return self.rollout or mdp.horizon or PERIODS

    def value_beyond(self, V: Function) -> Function:
        """Nothing."""
        return lambda s: torch.zeros_like(s[..., 0])
