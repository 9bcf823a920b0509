"""Whether a policy is optimal for its own value function: for models without an Euler equation."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from econrl.optimality.complementarity import complementarity
from econrl.optimality.euler import unit_of_marginal
from econrl.problem.bellman import expected_value, lookahead
from econrl.problem.lottery import drawn, draws, expected
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

SEED = 192_837_465  # of the options drawn where there are taste shocks


def greedy_residuals(mdp: MDP, policy: Function, value: Function, s: Tensor, smooth: bool = True) -> Tensor:
    """`euler_residuals` with the value function's own derivative V_s in place of the costate: whether the policy is
    optimal for its value. For models without an Euler equation; together with the Bellman residual it tests optimality.
    In the column of a choice stands its `regret`, over the mean |V| of the sample; the others are conditional on the
    choices made."""
    if mdp.choices:
        return residuals_given_choices(mdp, policy, value, s, smooth)
    G, scale = greedy_condition(mdp, policy, value, s)
    return complementarity(mdp, G, scale, s, policy(s), smooth)


def greedy_condition(mdp: MDP, policy: Function, value: Function, s: Tensor) -> tuple[Tensor, Tensor]:
    """r_a + m_a (B, A), m = E[beta V'] where utility is additive, of a value V, and what makes it unit-free (B, A)."""
    a = policy(s)
    a_ = a.unsqueeze(-2).expand(*a.shape[:-1], len(mdp.nodes), mdp.A)
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    future = torch.func.grad(lambda a_: expected_value(mdp, value, s, a_).sum())(a_)
    if not mdp.preferences.separable:
        by_u, by_m = mdp.preferences.slopes(mdp.reward(s, a), expected_value(mdp, value, s, a.unsqueeze(-2)))
        future = future * (by_m / by_u)[..., None, None]
    return r_a + future.sum(dim=-2), unit_of_marginal(mdp, s, a, r_a, future)


def residuals_given_choices(mdp: MDP, policy: Function, value: Function, s: Tensor, smooth: bool) -> Tensor:
    """`greedy_residuals` where there are choices: those of the continuous actions option by option, and the regrets.
    Where there are taste shocks, the options are drawn."""
    a = drawn(mdp, policy, s, torch.Generator(s.device).manual_seed(SEED))
    found = torch.zeros_like(a)
    columns = [column for column, _ in mdp.choices]
    for option in mdp.options if mdp.free else []:
        rows = (a[:, columns] == option).all(dim=-1).nonzero().flatten()
        if len(rows) > 0:
            residuals = conditional(mdp.given(option), a[rows][:, mdp.free], value, s[rows], smooth)
            found[rows.unsqueeze(-1), mdp.tensor(mdp.free).long()] = residuals
    for column in columns:
        found[:, column] = regret_of(mdp, policy, value, s, a, column) / value(s).abs().mean().clamp(min=1e-12)
    return found


def conditional(mdp: MDP, a: Tensor, value: Function, s: Tensor, smooth: bool) -> Tensor:
    """`greedy_residuals` of the actions a (B, A) at states s (B, S)."""
    return greedy_residuals(mdp, lambda _: a, value, s, smooth)


def regret_of(mdp: MDP, policy: Function, value: Function, s: Tensor, a: Tensor, column: int) -> Tensor:
    """What the best options of one choice would add to the value of a policy that chooses a (B, A), today alone, (B,):
    its `regret` or, where the choice has taste shocks, what its probabilities cost against the logit of the values,

        sigma log sum_d exp(Q_d / sigma) - sum_d P_d (Q_d - sigma log P_d) = sigma KL(P || logit of Q).
    """
    if column != mdp.alternatives.shocked:
        return regret(mdp, value, s, a, column)
    judge = partial(lookahead, mdp, value)
    rows = [torch.full_like(s[:, 0], row, dtype=torch.long) for row in range(len(mdp.options))]
    found, free = draws(mdp, policy), mdp.shares(s, a)[:, mdp.free]
    if found is None:
        actions = [mdp.from_shares(s, mdp.join(mdp.options[row], free)) for row in rows]
    else:
        actions = [found.under(s, row) for row in rows]
    Q = torch.stack([judge(s, own) for own in actions], dim=-1)
    return (mdp.alternatives.value_at(s, Q) - expected(mdp, policy, s, judge)).clamp(min=0)


def regret(mdp: MDP, value: Function, s: Tensor, a: Tensor, column: int) -> Tensor:
    """What the best option of one choice would add to the value, in units of today's reward: today alone and at the
    same shares of the continuous actions, (B,)."""
    shares = mdp.shares(s, a)

    def judged(option: int) -> Tensor:
        other = torch.cat([shares[:, :column], torch.full_like(shares[:, :1], option), shares[:, column + 1 :]], dim=-1)
        return lookahead(mdp, value, s, mdp.from_shares(s, other))

    options = torch.stack([judged(option) for option in range(dict(mdp.choices)[column])], dim=-1)
    own = options.gather(-1, a[:, column : column + 1].long()).squeeze(-1)
    return (options.amax(dim=-1) - own) / mdp.preferences.marginal(mdp.reward(s, a), own)
