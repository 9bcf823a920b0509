"""What a policy is worth, and whether it passes a statistical test: certificates from simulated paths."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.complementarity import NEAR_BOUND, near_bounds, unit_free
from econrl.optimality.euler import condition, costate
from econrl.optimality.structure import Structure
from econrl.problem.bellman import expected_value, kernel, lookahead
from econrl.problem.chunks import in_chunks
from econrl.problem.lottery import taste
from econrl.problem.mdp import MDP
from econrl.problem.simulate import discounted, ergodic_states, go_on, move
from econrl.problem.state_function import Function

PATHS, BURN_IN = 300, 100  # of the simulations: a test at 5 per cent has a standard error of 1.3 per cent
LONGEST, FORGOTTEN = 2000, 1e-4  # periods of a simulated life, and the discount factor at which it is over
CONSUMED = 0.01  # of the reward: where a r_a is less, nothing is consumed, and the reward itself is the unit
TEST_PERIODS, MOST_INSTRUMENTS, LEVEL = 500, 4, 0.95
REDRAWN = 5  # every how many periods the shocks are drawn twice
NEGLIGIBLE = 1e-6  # a realised residual that is smaller is zero
LEAST_UNIT = 0.1  # of the mean: where the marginal reward passes through zero, it is no unit
NOISY, ERROR = 0.01, 1e-3  # the share of noise in a residual that is random; the size of one that is wrong without any


@torch.no_grad()
def welfare_loss(mdp: MDP, policy: Function, reference: Function, seed: int, value: Function | None = None) -> float:
    """The share of consumption, in every period, that the reference policy's user could give up and be as well off.

        [ W(reference) - W(policy) ] / E[ sum_t beta^t c_t u'(c_t) ]

    to first order, with W the simulated lifetime reward from the same states, with the same shocks. Negative where the
    policy is the better one. Where utility is recursive, a `value` near to those of both is asked for (`lifetime`).
    Source: Lucas (1987), "Models of Business Cycles".
    """
    generator = torch.Generator(mdp.device).manual_seed(seed)
    if mdp.horizon is None:
        start = ergodic_states(mdp, reference, PATHS, 1, BURN_IN, generator)[0]
    else:
        start = mdp.sample_initial(PATHS, generator)
    best, unit = lifetime(mdp, reference, start, torch.Generator(mdp.device).manual_seed(seed + 1), value)
    own, _ = lifetime(mdp, policy, start, torch.Generator(mdp.device).manual_seed(seed + 1), value)
    return float((best - own).mean() / unit.mean())


def lifetime(
    mdp: MDP, policy: Function, s: Tensor, generator: torch.Generator, value: Function | None = None
) -> tuple[Tensor, Tensor]:
    """Simulated sum of beta^t r and of beta^t c u'(c) from the states s (n, S), each (n,).

    Recursive utility is no such sum. Of a value V near to that of the policy, what the policy is worth beside V(s) is,
    to first order, the sum of T V - V along its path, tomorrow weighed by the derivative of T (`kernel`).
    """
    if not mdp.preferences.additive:
        assert value is not None
        return beside(mdp, policy, value, s, generator)
    flows = [lambda s, a: mdp.reward(s, a) + taste(mdp, policy, s, a), lambda s, a: consumption_value(mdp, s, a)]
    if mdp.horizon is None:
        (reward, unit), _, _ = discounted(mdp, policy, flows, s, LONGEST, generator, FORGOTTEN)
        return reward, unit
    (reward, unit), factor, last = discounted(mdp, policy, flows, s, mdp.horizon, generator)
    return reward + factor * mdp.terminal(last), unit


def beside(mdp: MDP, policy: Function, value: Function, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the policy is worth beside V at the states s (n, S), and the sum of c u'(c) weighed alike, each (n,)."""

    def by_reward(s: Tensor, a: Tensor) -> Tensor:
        if mdp.preferences.separable:
            return torch.ones_like(s[:, 0])
        m = expected_value(mdp, value, s, a.unsqueeze(-2))
        return mdp.preferences.slopes(mdp.reward(s, a), m)[0]

    def weight(s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        return by_reward(s, a) * kernel(mdp, value, s, a.unsqueeze(-2), e.unsqueeze(-2)).squeeze(-1)

    flows = [
        lambda s, a: lookahead(mdp, value, s, a) - value(s),
        lambda s, a: by_reward(s, a) * consumption_value(mdp, s, a),
    ]
    (worth, unit), _, _ = discounted(mdp, policy, flows, s, mdp.horizon or LONGEST, generator, FORGOTTEN, weight)
    return worth, unit


def consumption_value(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """c u'(c), (n,): the model's `consumption_value`; else a r_a of the continuous actions that raise the reward, as
    consumption does; else the reward itself, as where it is a dividend, or the scale of taste shocks if larger."""
    given = mdp.model.consumption_value(mdp.state(s), mdp.actions(a))
    if given is not None:
        return given
    gain = (torch.func.grad(lambda a: mdp.reward(s, a).sum())(a) * a)[..., mdp.free].clamp(min=0).sum(dim=-1)
    reward = mdp.reward(s, a).abs().clamp(min=mdp.tastes)
    return torch.where(gain > CONSUMED * reward, gain, reward)


@torch.no_grad()
def rejected(
    mdp: MDP, structure: Structure, policy: Function, seed: int, value: Function | None = None
) -> float | None:
    """Share of simulated paths on which the first-order conditions are rejected at the 5 per cent level; None where
    nothing is random.

    At an optimum the realised residual eta_{t+1} = (r_a + beta lambda(s_{t+1}) f_a) / scale has mean zero whatever is
    known at t. With instruments h_t, a constant and some states, T m' S^-1 m is chi-squared, where m is the mean and S
    the second moment of x_{t+1} = eta_{t+1} x h_t over T periods. Near 0.05 the simulations do not tell the policy from
    the optimum; an exact one gives 0.05 as well. Periods in which an action is next to a bound do not count.

    Conditions may share their noise, as those of hours and consumption do, or have none. The test has directions with
    noise alone (`testable`), and as many degrees of freedom: without noise, a mean however small is significant.
    Where utility is recursive, beta is the kernel at the policy's `value`.

    Source: Den Haan and Marcet (1994), "Accuracy in simulations", REStud 61.
    """
    from scipy.stats import chi2

    generator = torch.Generator(mdp.device).manual_seed(seed)
    s, _ = ergodic_states(mdp, policy, PATHS, 1, BURN_IN, generator)
    if not is_random(mdp, policy, s, seed):
        return None
    constant = [*structure.endogenous, *mdp.parameters]  # a parameter does not move along a path, like a constant
    columns = (structure.endogenous + [c for c in mdp.continuous if c not in constant])[:MOST_INSTRUMENTS]
    center, spread = s[:, columns].mean(dim=0), s[:, columns].std(dim=0).clamp(min=1e-12)
    price: Function = lambda s: costate(mdp, structure, policy, s, value=value)  # noqa: E731
    marginal = marginal_reward(mdp, s, policy(s))
    units = in_chunks(mdp, lambda s: condition(mdp, price, policy, s, value=value)[1], s).mean(dim=0)

    def moment(s: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """x (n, A H) of the paths at s, with the shocks e. What makes it unit-free must be known at t, too."""
        G, _ = condition(mdp, price, policy, s, e.unsqueeze(-2), value)
        now = marginal_reward(mdp, s, a).maximum(LEAST_UNIT * marginal.mean())
        eta = unit_free(mdp, G, units * now / marginal.mean(), s, a)
        eta = torch.where(next_to_bounds(mdp, s, a) | (eta.abs() < NEGLIGIBLE) | ~eta.isfinite(), 0.0, eta)
        h = torch.cat([torch.ones_like(s[:, :1]), (s[:, columns] - center) / spread], dim=-1)
        return (eta.unsqueeze(-1) * h.unsqueeze(-2)).flatten(1)

    size = mdp.A * (len(columns) + 1)
    mean, second, noise = s.new_zeros(len(s), size), s.new_zeros(len(s), size, size), s.new_zeros(len(s), size, size)
    for t in range(TEST_PERIODS):
        a = policy(s)
        e, reached = move(mdp, s, a, generator)
        x = moment(s, a, e)
        mean, second = mean + x / TEST_PERIODS, second + outer(x) / TEST_PERIODS
        if t % REDRAWN == 0:  # two draws from one state differ by noise alone
            noise = noise + outer(x - moment(s, a, move(mdp, s, a, generator)[0])) / 2 * REDRAWN / TEST_PERIODS
        s = go_on(mdp, reached, generator)
    moments, directions = torch.linalg.eigh(second)
    kept = testable(moments, ((directions.mT @ noise) * directions.mT).sum(dim=-1))
    along = (directions.mT @ mean.unsqueeze(-1)).squeeze(-1)
    statistic = TEST_PERIODS * torch.where(kept, along**2 / moments, 0.0).sum(dim=-1)
    critical = s.new_tensor(chi2.ppf(LEVEL, range(size + 1)).tolist())
    return float((statistic > critical[kept.sum(dim=-1)]).double().mean())


def marginal_reward(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """The sum of |r_a| over the actions, (n, 1)."""
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    return r_a.abs().sum(dim=-1, keepdim=True).clamp(min=1e-30)


def next_to_bounds(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """Which actions (n, A) are next to a bound of theirs; of a budget that is spent to the last, all parts."""
    y = mdp.shares(s, a)
    low, high = near_bounds(mdp, y)
    near = low | high
    for v, slot in mdp.continuous_actions:
        if v.shares.shared:
            near[:, slot.start : slot.stop] |= 1 - y[:, slot.start : slot.stop].sum(dim=-1, keepdim=True) < NEAR_BOUND
    return near


def is_random(mdp: MDP, policy: Function, s: Tensor, seed: int) -> bool:
    """Whether two draws of the shocks lead from s (n, S) to different states."""
    generator, a = torch.Generator(mdp.device).manual_seed(seed), policy(s)
    (_, one), (_, other) = (move(mdp, s, a, generator) for _ in range(2))
    return not torch.allclose(one, other, rtol=NEGLIGIBLE, atol=NEGLIGIBLE, equal_nan=True)


def testable(moments: Tensor, noise: Tensor) -> Tensor:
    """Which orthogonal directions (n, D) the test has, of their second moments, mean squared included, and their noise.

    Those in which a mean of the size of the moment would show beside the largest noise, T moment / largest > chi2(1),
    and that have noise, or so large a moment that it is an error for certain.
    """
    from scipy.stats import chi2

    seen = TEST_PERIODS * moments > chi2.ppf(LEVEL, 1) * moments.amax(dim=-1, keepdim=True)
    return seen & ((noise > NOISY * moments) | (moments > ERROR**2))


def outer(x: Tensor) -> Tensor:
    """x x' (n, D, D) of x (n, D)."""
    return x.unsqueeze(-1) * x.unsqueeze(-2)
