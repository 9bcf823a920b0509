"""The residuals that Gauss-Newton lowers, at one state."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.euler import euler_residuals
from econrl.optimality.greedy import greedy_residuals
from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function
from econrl.solvers.polish.correction_networks import PolishedValue
from econrl.solvers.polish.network_value import bellman_row


def euler_rows(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    later: Function | None = None,
    value: Function | None = None,
) -> Tensor:
    """R(s) (A,): the unit-free complementarity residuals of the first-order conditions at one state (S,)."""
    return euler_residuals(mdp, structure, policy, s.unsqueeze(0), later, value=value).squeeze(0)


def optimality_rows(mdp: MDP, policy: Function, value: PolishedValue, V: Function, s: Tensor) -> Tensor:
    """Where no Euler equation exists: r_a + E[beta V_s(s') f_a] = 0 and the Bellman equation together, (A + 1,)."""
    greedy = greedy_residuals(mdp, policy, V, s.unsqueeze(0)).squeeze(0)
    return torch.cat([greedy, bellman_row(mdp, policy, value, V, s)])


def picked(R: Tensor, rows: Tensor) -> Tensor:
    """Of the residuals R (m,) at one state, those whose numbers are given; all where none is."""
    return R if len(rows) == 0 else R.gather(0, rows.long())
