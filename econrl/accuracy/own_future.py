"""What a policy's own later errors add to the gain of a deviation today.

A first-order condition says what one action is worth if all later ones are right. With the costate l(s) of the
Euler equation, which takes them to be, and the policy's own response pi_s, what l misses is

    D(s) = rho(s) + E[ beta (f_s + f_a pi_s)' D(s') ],
    rho(s) = d/ds { r(s, pi(s)) + E[ beta l'. f(s, pi(s), e) ] } - l(s),

and r_a + E[beta (l' + D(s')) f_a] is the derivative of the policy's own lifetime reward. So the distance to the best
action becomes the first step of policy iteration, and that the policy's true error to first order: a consumption
function that is one per cent too high everywhere nearly satisfies its Euler equation (Santos 2000). D is summed along
one simulated path from each state: it vanishes with the errors, and so does its noise.

Source: Santos (2000), "Accuracy of numerical solutions using the Euler equation residuals", Econometrica 68.
"""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.bellman import kernel
from econrl.problem.mdp import MDP
from econrl.problem.simulate import move
from econrl.problem.state_function import Function

FAINT = 0.01  # a costate whose square is this share of its mean over the nodes says little of D beside it
FAR = 2.0  # widths beyond the domain, from which on a path is no longer followed
PERIODS = 60  # of a path in a stationary model: beyond, little is left of a deviation


def own_future(
    mdp: MDP,
    costate: Function,
    columns: list[int],
    policy: Function,
    s: Tensor,
    generator: torch.Generator,
    value: Function | None = None,
) -> Tensor:
    """E[beta D(s') f_a] (n, A) at the states s (n, S), by one path from each; `columns` are those of the states that
    actions move. Of the `value` nothing is asked where utility is additive."""
    moved = torch.zeros_like(s[0])
    moved[columns] = 1.0
    path, going = [s], [torch.ones_like(s[:, 0], dtype=torch.bool)]
    shocks = []
    for _ in range(mdp.horizon or PERIODS):
        _, at = mdp.living(path[-1])
        e, reached = move(mdp, at, policy(at), generator)
        shocks.append(e)
        path.append(reached)
        going.append(going[-1] & mdp.living(reached)[0] & mdp.inside(reached, FAR))
        if not going[-1].any():
            break
    D = torch.zeros_like(s)
    for at, e, on in zip(reversed(path[1:-1]), reversed(shocks[1:]), reversed(going[1:-1]), strict=True):
        _, at = mdp.living(at)
        found = moved * missed(mdp, costate, policy, at, e, D, value)
        D = torch.where(on.unsqueeze(-1) & found.isfinite(), found, 0.0)
    return at_all_nodes(mdp, costate, policy(s), s, path[1], D, value)


def at_all_nodes(
    mdp: MDP, costate: Function, a: Tensor, s: Tensor, reached: Tensor, D: Tensor, value: Function | None
) -> Tensor:
    """E[beta D(s') f_a] (n, A) at states s (n, S), where D (n, S) is known at one next state `reached` alone: elsewhere
    it is as large beside l as there. Errors in levels are, and a share of a risky asset asks for all nodes."""
    nodes, s_, a_ = mdp.nodes, s.unsqueeze(-2), a.unsqueeze(-2)
    s_next = mdp.transition(s_, a_, nodes)
    price = costate(s_next.flatten(0, -2)).reshape(s_next.shape)
    here = costate(reached)
    spread = price.square().mean(dim=-2)
    ratio = D * here / (here.square() + FAINT * spread).clamp(min=1e-300)
    later = kernel(mdp, value, s, a_).unsqueeze(-1) * ratio.unsqueeze(-2) * price
    a_ = a_.expand(*a.shape[:-1], len(nodes), mdp.A)
    return torch.func.grad(lambda a_: (later * mdp.transition(s_, a_, nodes)).sum())(a_).sum(dim=-2)


def missed(
    mdp: MDP, costate: Function, policy: Function, s: Tensor, e: Tensor, D: Tensor, value: Function | None
) -> Tensor:
    """rho(s) + beta (f_s + f_a pi_s)' D (n, S), of a realised shock e and what D is then."""
    a, nodes, s_ = policy(s), mdp.nodes, s.unsqueeze(-2)
    s_next = mdp.transition(s_, a.unsqueeze(-2), nodes)
    beta = kernel(mdp, value, s, a.unsqueeze(-2))
    shadow = beta.unsqueeze(-1) * costate(s_next.flatten(0, -2)).reshape(s_next.shape)
    later = kernel(mdp, value, s, a.unsqueeze(-2), e.unsqueeze(-2)) * D

    def earned(s: Tensor) -> Tensor:
        a, s_ = policy(s), s.unsqueeze(-2)
        earned_later = (shadow * mdp.transition(s_, a.unsqueeze(-2), nodes)).sum()
        return mdp.reward(s, a).sum() + earned_later + (later * mdp.transition(s, a, e)).sum()

    own = torch.func.grad(earned)(s)
    if not mdp.preferences.separable:
        assert value is not None
        own = own * mdp.preferences.marginal(mdp.reward(s, a), value(s)).unsqueeze(-1)
    return own - costate(s)
