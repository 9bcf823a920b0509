"""Rollouts of a stochastic policy on many environments side by side, and what they say of its actions.

A path is *cut* where its life ends, where it leaves the domain far, after `episode` periods, and at the rollout's end.
None but the first is an end of the world: at a cut the value of the state truly reached takes over, V(s'), which is
the terminal value once a life is over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.problem.environments import Environments
from econrl.problem.state_function import Function


@dataclass
class Rollout:
    """T periods of n paths; `cut` says whether a path goes on otherwise after this period (always in the last one)."""

    s: Tensor  # (T, n, S)
    u: Tensor  # (T, n, A), the unbounded form of the actions drawn
    r: Tensor  # (T, n)
    beta: Tensor  # (T, n)
    s_next: Tensor  # (T, n, S), the state truly reached, also where a path then began anew
    cut: Tensor  # (T, n)


@torch.no_grad()
def roll(environments: Environments, policy: StochasticPolicy, periods: int) -> Rollout:
    """The next `periods` periods of all paths, with actions drawn from the policy."""
    mdp, steps = environments.mdp, []
    for t in range(periods):
        u = policy.distribution(environments.s).sample(environments.generator)
        new = environments.step(mdp.act(environments.s, u))
        environments.begin_anew(new.goes_on)
        cut = ~new.goes_on if t < periods - 1 else torch.ones_like(new.goes_on)
        steps.append((new.s, u, new.r, new.beta, new.s_next, cut))
    return Rollout(*(torch.stack(column) for column in zip(*steps, strict=True)))


def backwards(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, from the last t to the first; all (T, n)."""
    y, below = torch.empty_like(x), torch.zeros_like(x[0])
    for t in reversed(range(len(x))):
        below = x[t] + decay[t] * below
        y[t] = below
    return y


def returns(rollout: Rollout, v_next: Tensor) -> Tensor:
    """G_t = r_t + beta_t G_{t+1}, and r_t + beta_t V(s_{t+1}) where the path is cut; (T, n).

    v_next (T, n) is V at the states truly reached.
    """
    tail = torch.where(rollout.cut, rollout.beta * v_next, 0.0)
    return backwards(rollout.r + tail, rollout.beta * ~rollout.cut)


def temporal_differences(rollout: Rollout, v: Tensor, v_next: Tensor) -> Tensor:
    """delta_t = r_t + beta_t V(s_{t+1}) - V(s_t), (T, n)."""
    return rollout.r + rollout.beta * v_next - v


def gae(delta: Tensor, beta: Tensor, cut: Tensor, lam: float) -> Tensor:
    """A_t = delta_t + lam beta_t A_{t+1}, up to the cut: generalised advantage estimation; all (T, n).

    lam = 0 is the one-step advantage, of least variance; lam = 1 is G_t - V(s_t), without bias from V.

    Source: Schulman, Moritz, Levine, Jordan and Abbeel (2016), "High-dimensional continuous control using generalized
    advantage estimation", ICLR, equation 16.
    """
    return backwards(delta, lam * beta * ~cut)


def normalised(advantage: Tensor) -> Tensor:
    """Mean zero and spread one over the batch: a baseline and a unit, which change no action's rank."""
    return (advantage - advantage.mean()) / advantage.std().clamp(min=1e-8)


def since_start(rollout: Rollout, x: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, n) at the first period of the path that each period is on; and the discount factor from there to it."""
    first, factor = torch.empty_like(x), torch.empty_like(x)
    first[0], factor[0] = x[0], 1.0
    for t in range(1, len(x)):
        begins = rollout.cut[t - 1]
        first[t] = torch.where(begins, x[t], first[t - 1])
        factor[t] = torch.where(begins, 1.0, factor[t - 1] * rollout.beta[t - 1])
    return first, factor


def on_states(f: Function, s: Tensor) -> Tensor:
    """f over states (T, n, S) at once: (T, n)."""
    return f(s.flatten(0, 1)).unflatten(0, s.shape[:2])
