"""REINFORCE: whole paths, and the return that each of them earned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.errors import MethodError
from econrl.problem.environments import Environments
from econrl.solvers.common.method import require
from econrl.solvers.on_policy.learner import OnPolicy
from econrl.solvers.on_policy.rollouts import Rollout, returns, roll, since_start


@dataclass(frozen=True)
class REINFORCE(OnPolicy):
    """Monte Carlo policy gradient (Williams 1992).

        whole      grad J = E[ sum_t  G_0 grad log pi(u_t | s_t) ],             with a baseline  G_0 - b(s_0)
        to_go      grad J = E[ sum_t  beta^t G_t grad log pi(u_t | s_t) ],      with a baseline  G_t - b(s_t)

    over paths of `periods` periods from random states, G_t = r_t + beta G_{t+1}. An action cannot change what was
    earned before it: the return to go leaves that out. The mean is the same for all four, the variance is not.

    b is the learned value V. It is learned without `baseline` too, since a solution has a value, and stands for what
    lies beyond the last period of a path that has not ended.

    Source: Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning", Machine Learning 8.
    """

    name = "reinforce"

    weight: Literal["whole", "to_go"] = "to_go"
    """What an action's log-density is weighted with: the whole return of its path, or the return from there on."""
    baseline: bool = True
    """Whether the learned value is subtracted from the return."""
    periods: int = 100
    """Periods of a path."""
    episode: int = 100
    """Periods after which a path begins anew; at least `periods`, so that a path is whole."""
    entropy: float | None = 0.0
    """Weight of the entropy bonus, annealed to zero."""
    lam: float = 1.0
    """Of the returns that the critic learns: 1, the sampled ones."""
    normalise: bool = False
    """Whether weights are given mean zero and spread one in each batch, which is a baseline of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "episode", self.episode >= self.periods, "at least `periods`")
        if self.weight not in ("whole", "to_go"):
            raise MethodError(f'{self.name}: `weight` must be "whole" or "to_go", got {self.weight!r}')

    def collect(self, environments: Environments, policy: StochasticPolicy) -> Rollout:
        environments.begin()
        return roll(environments, policy, self.periods)

    def advantages(self, rollout: Rollout, v: Tensor, v_next: Tensor) -> Tensor:
        G = returns(rollout, v_next)
        if self.baseline:
            G = G - v
        first, factor = since_start(rollout, G)
        return first if self.weight == "whole" else factor * G
