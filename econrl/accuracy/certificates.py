"""What a policy is worth, and whether it passes a statistical test: certificates from simulated paths."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.complementarity import near_bounds
from econrl.optimality.euler import condition, costate
from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.problem.simulate import discounted, ergodic_states, go_on, move
from econrl.problem.state_function import Function

PATHS, BURN_IN = 300, 100  # of the simulations: a test at 5 per cent has a standard error of 1.3 per cent
LONGEST, FORGOTTEN = 2000, 1e-4  # periods of a simulated life, and the discount factor at which it is over
CONSUMED = 1e-3  # of the reward: where a r_a is less, nothing is consumed, and the reward itself is the unit
ROUNDING = 1e-12  # a realised residual that is smaller is zero
TEST_PERIODS, MOST_INSTRUMENTS, LEVEL = 500, 4, 0.95


@torch.no_grad()
def welfare_loss(mdp: MDP, policy: Function, reference: Function, seed: int) -> float:
    """The share of consumption, in every period, that the reference policy's user could give up and be as well off.

        [ W(reference) - W(policy) ] / E[ sum_t beta^t c_t u'(c_t) ]

    to first order, with W the simulated lifetime reward from the same states, with the same shocks. Negative where the
    policy is the better one. Source: Lucas (1987), "Models of Business Cycles".
    """
    generator = torch.Generator(mdp.device).manual_seed(seed)
    if mdp.horizon is None:
        start = ergodic_states(mdp, reference, PATHS, 1, BURN_IN, generator)[0]
    else:
        start = mdp.sample_initial(PATHS, generator)
    best, unit = lifetime(mdp, reference, start, torch.Generator(mdp.device).manual_seed(seed + 1))
    own, _ = lifetime(mdp, policy, start, torch.Generator(mdp.device).manual_seed(seed + 1))
    return float((best - own).mean() / unit.mean())


def lifetime(mdp: MDP, policy: Function, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Simulated sum of beta^t r and of beta^t c u'(c) from the states s (n, S), each (n,)."""
    flows = [mdp.reward, lambda s, a: consumption_value(mdp, s, a)]
    if mdp.horizon is None:
        (reward, unit), _, _ = discounted(mdp, policy, flows, s, LONGEST, generator, FORGOTTEN)
        return reward, unit
    (reward, unit), factor, last = discounted(mdp, policy, flows, s, mdp.horizon, generator)
    return reward + factor * mdp.terminal(last), unit


def consumption_value(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """c u'(c), (n,): the model's `consumption_value`; else a r_a of the continuous actions that raise the reward, as
    consumption does; else the reward itself, as where it is a dividend."""
    given = mdp.model.consumption_value(mdp.state(s), mdp.actions(a))
    if given is not None:
        return given
    gain = (torch.func.grad(lambda a: mdp.reward(s, a).sum())(a) * a)[..., mdp.free].clamp(min=0).sum(dim=-1)
    reward = mdp.reward(s, a).abs()
    return torch.where(gain > CONSUMED * reward, gain, reward)


@torch.no_grad()
def rejected(mdp: MDP, structure: Structure, policy: Function, seed: int) -> float:
    """Share of simulated paths on which the first-order conditions are rejected at the 5 per cent level.

    At an optimum the realised residual eta_{t+1} = (r_a + beta lambda(s_{t+1}) f_a) / scale has mean zero whatever is
    known at t. With instruments h_t, a constant and some states, T m' S^-1 m is chi-squared, where m is the mean and S
    the second moment of eta_{t+1} x h_t over T periods. Near 0.05 the simulations do not tell the policy from the
    optimum; an exact one gives 0.05 as well. Periods in which an action is next to a bound do not count.

    Source: Den Haan and Marcet (1994), "Accuracy in simulations", REStud 61.
    """
    from scipy.stats import chi2

    generator = torch.Generator(mdp.device).manual_seed(seed)
    s, _ = ergodic_states(mdp, policy, PATHS, 1, BURN_IN, generator)
    constant = [*structure.endogenous, *mdp.parameters]  # a parameter does not move along a path, like a constant
    columns = (structure.endogenous + [c for c in mdp.continuous if c not in constant])[:MOST_INSTRUMENTS]
    center, spread = s[:, columns].mean(dim=0), s[:, columns].std(dim=0).clamp(min=1e-12)
    size = mdp.A * (len(columns) + 1)
    moments, squares = s.new_zeros(len(s), size), s.new_zeros(len(s), size, size)
    for _ in range(TEST_PERIODS):
        a = policy(s)
        e, reached = move(mdp, s, a, generator)
        eta, scale = condition(mdp, lambda s: costate(mdp, structure, policy, s), policy, s, e.unsqueeze(-2))
        low, high = near_bounds(mdp, mdp.shares(s, a))
        eta = eta / scale
        eta = torch.where(low | high | (eta.abs() < ROUNDING) | ~eta.isfinite(), 0.0, eta)
        h = torch.cat([torch.ones_like(s[:, :1]), (s[:, columns] - center) / spread], dim=-1)
        m = (eta.unsqueeze(-1) * h.unsqueeze(-2)).flatten(1)
        moments, squares = moments + m, squares + m.unsqueeze(-1) * m.unsqueeze(-2)
        s = go_on(mdp, reached, generator)
    statistic = (moments.unsqueeze(-2) @ torch.linalg.pinv(squares) @ moments.unsqueeze(-1)).flatten()
    return float((statistic > chi2.ppf(LEVEL, size)).double().mean())
