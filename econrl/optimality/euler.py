"""The Euler equation of any spec, from reward and transition alone, by automatic differentiation.

At an interior optimum, with derivatives at (s, a), primes for the next period, x the endogenous states,

    G(s) = r_a + E[ beta lambda' f_a ] = 0,        lambda' = r_x' + (G' - r_a') X' + G' a_x',       f_a' X' = f_x'.

Raise a a little today: tomorrow's action undoes it by -X', so that the state after tomorrow is as before. X' is chosen
before the shock that follows tomorrow's action, hence solves f_a' X' = f_x' at all of that shock's nodes together.
G' is tomorrow's own condition: zero in the interior; where tomorrow's action sits on a bound that moves with the state
(a_x' is that bound's derivative), it is the multiplier. Nothing here needs X' itself: with y solving
f_a'^T y = G' - r_a', (G' - r_a') X' is the derivative of y . f(s', a', .) in x', one backward pass.

Where utility is recursive (`preferences.py`), beta is what tomorrow's value is worth in units of today's reward, the
`kernel` of `bellman.py`, which takes the value beside the policy; r_a and G are in these units, and lambda is V_x, W_1
times what stands above.

Bounds enter through the shares of `feasible_set.py`: G <= 0 at the lower bound, G >= 0 at the upper one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.complementarity import at_bounds, complementarity, near_bounds, one_unit, unit_free, without_room
from econrl.optimality.deviation import undoing
from econrl.optimality.static import static_actions
from econrl.optimality.structure import Structure, matter
from econrl.problem.bellman import kernel
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function, StateFunction


def condition(
    mdp: MDP,
    shadow_price: Function,
    policy: Function,
    s: Tensor,
    e: Tensor | None = None,
    value: Function | None = None,
) -> tuple[Tensor, Tensor]:
    """G(s) = r_a + E[beta lambda' f_a] (B, A) in units of the reward, and what makes it unit-free (B, A).

    `shadow_price` gives lambda (B, S) at states (B, S). With a realised shock e (B, 1, E) that is the expectation.
    Where utility is recursive, tomorrow's `value` says what counts how much.
    """
    a = policy(s)
    nodes = mdp.nodes if e is None else e
    a_ = a.unsqueeze(-2).expand(*a.shape[:-1], nodes.shape[-2], mdp.A)
    s_ = s.unsqueeze(-2)
    s_next = mdp.transition(s_, a_, nodes)
    shadow = shadow_price(s_next.flatten(0, -2)).reshape(s_next.shape)
    discounted = kernel(mdp, value, s, a_, e).unsqueeze(-1) * shadow
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    future = torch.func.grad(lambda a_: (discounted * mdp.transition(s_, a_, nodes)).sum())(a_)
    return r_a + future.sum(dim=-2), unit_of_marginal(mdp, s, a, r_a, future)


def unit_of_marginal(mdp: MDP, s: Tensor, a: Tensor, r_a: Tensor, future: Tensor) -> Tensor:
    """What makes a first-order condition unit-free, from its parts r_a (B, A) and those of the nodes (B, J, A):
    |r_a|, or half of the sum of the nodes' sizes where that is larger, as where the reward ignores the action.

    Where the future ignores the action, both vanish at the optimum: there |a r_aa|, so that the condition is the
    distance to it.
    """
    unit = torch.maximum(r_a.abs(), future.abs().sum(dim=-2) / 2)
    for i in static_actions(mdp).nonzero().flatten().tolist():
        slope = lambda a, i=i: torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)[..., i].sum()  # noqa: E731
        curvature = (a * torch.func.grad(slope)(a))[..., i].abs()
        of_its_own = (curvature > 0) & curvature.isfinite()
        unit = torch.where(of_its_own.unsqueeze(-1) & (torch.arange(mdp.A) == i), curvature.unsqueeze(-1), unit)
    return unit.clamp(min=1e-30)


def costate(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    depth: int = 1,
    multipliers: Function | None = None,
    value: Function | None = None,
) -> Tensor:
    """lambda(s) (B, S), zero for exogenous states: the value of one more unit of each endogenous state.

    A binding bound's multiplier G' is found by a second expectation, and `depth` is how many periods ahead; beyond,
    G' = 0. Where `multipliers` (B, A), unit-free, are known instead, G' = |r_a'| multipliers'. `value` is the policy's
    own, which is asked for where utility is recursive.
    """
    if mdp.horizon is not None:
        # After the last period the state is worth the derivative of the terminal value, and there is no action.
        over = mdp.period(s) >= mdp.horizon
        final = torch.func.grad(lambda s: mdp.terminal(s).sum())(s)
        s = torch.where(over.unsqueeze(-1), with_period(s, mdp.horizon - 1), s)
    a = policy(s)
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    known = None if multipliers is None else one_unit(mdp, r_a.abs()) * multipliers(s)
    stuck = None if known is not None else on_fixed_bounds(mdp, structure, s, a)
    multiplier = known if known is not None else binding_multiplier(mdp, structure, policy, s, a, depth, stuck, value)
    undone = undoing(mdp, structure, s, a, multiplier - r_a, multiplier, at_bounds(mdp, s, a), stuck)
    lam = torch.func.grad(lambda s: mdp.reward(s, a).sum() + undone(s))(s)
    if not mdp.preferences.separable:
        assert value is not None, "an aggregator that is no sum is differentiated at the value that it gives"
        lam = lam * mdp.preferences.marginal(mdp.reward(s, a), value(s)).unsqueeze(-1)
    if mdp.horizon is not None:
        lam = torch.where(over.unsqueeze(-1), final, lam)
    kept = torch.zeros(mdp.S, dtype=s.dtype, device=s.device)
    kept[structure.endogenous] = 1.0
    return lam * kept


def on_fixed_bounds(mdp: MDP, structure: Structure, s: Tensor, a: Tensor) -> Tensor | None:
    """Which actions (B, A) are next to a bound that moves with nothing, or have no room, where there are more actions
    than a deviation needs: the others undo it, and its multiplier, which may depend on those of all later periods, is
    not needed."""
    if structure.joint or len(structure.endogenous) >= mdp.A or not structure.fixed_at_low:
        return None
    at_low, at_high = near_bounds(mdp, mdp.shares(s, a))
    fixed_at_low, fixed_at_high = (
        torch.tensor(fixed, device=a.device) for fixed in (structure.fixed_at_low, structure.fixed_at_high)
    )
    stuck = (at_low & fixed_at_low) | (at_high & fixed_at_high)
    none = without_room(mdp, structure, s, a)
    stuck = stuck if none is None else stuck | none
    return stuck & ((~stuck).sum(dim=-1, keepdim=True) >= len(structure.endogenous))


def binding_multiplier(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    a: Tensor,
    depth: int,
    stuck: Tensor | None = None,
    value: Function | None = None,
) -> Tensor:
    """G (B, A) where an action is next to one of its bounds and the bound's multiplier matters, zero elsewhere and for
    actions that are `stuck` (B, A)."""
    G = torch.zeros_like(a)
    if depth == 0 or not matter(structure):
        return G
    at_low, at_high = at_bounds_that_matter(mdp, structure, s, a)
    if stuck is not None:
        at_low, at_high = at_low & ~stuck, at_high & ~stuck
    rows = (at_low | at_high).any(dim=-1)
    if not rows.any():
        return G
    at_low, at_high, s_near = at_low[rows], at_high[rows], s[rows]
    price = lambda s: costate(mdp, structure, policy, s, depth - 1, value=value)  # noqa: E731
    found, _ = condition(mdp, price, policy, s_near, value=value)
    G[rows] = torch.where(at_high, found.clamp(min=0), 0) + torch.where(at_low, found.clamp(max=0), 0)
    return G


def at_bounds_that_matter(mdp: MDP, structure: Structure, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Which actions (B, A) are next to a lower, and which to an upper bound whose multiplier matters; those that have
    no room are on both."""
    at_low, at_high = near_bounds(mdp, mdp.shares(s, a))
    matters_at_low, matters_at_high = (
        torch.tensor(known, device=a.device) for known in (structure.matters_at_low, structure.matters_at_high)
    )
    at_low, at_high = at_low & matters_at_low, at_high & matters_at_high
    none = without_room(mdp, structure, s, a)
    if none is None:
        return at_low, at_high
    none = none & torch.tensor(structure.matters_without_room, device=a.device)
    return at_low | none, at_high | none


def euler_residuals(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    later: Function | None = None,
    smooth: bool = True,
    value: Function | None = None,
) -> Tensor:
    """The unit-free complementarity residual (B, A) of each action's first-order condition at the states s (B, S).

    `later` is the policy from tomorrow on, where that is another function than today's. Where it knows the gains from
    moves beyond its bounds, tomorrow's multipliers are these; and where today's policy knows them, and a bound binds,
    the residual is how wrong they are: multipliers that nobody checks could justify any policy. `value` is tomorrow's,
    which is asked for where utility is recursive.
    """
    later = later or policy
    G, scale = condition(mdp, shadow_price(mdp, structure, later, value), policy, s, value=value)
    a, known = policy(s), multipliers_of(policy)
    R = complementarity(mdp, G, scale, s, a, smooth)
    if known is None:
        return R
    multipliers, r_a = known(s), torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    return torch.where(multipliers != 0, unit_free(mdp, G, r_a.abs(), s, a) - multipliers, R)


def shadow_price(mdp: MDP, structure: Structure, later: Function, value: Function | None = None) -> Function:
    """lambda as a function of the state, under the policy `later`, whose value is `value`."""
    return lambda s: costate(mdp, structure, later, s, multipliers=multipliers_of(later), value=value)


def multipliers_of(policy: Function) -> Function | None:
    """The unit-free multipliers of the bounds, of a policy that knows them."""
    return policy.multipliers if isinstance(policy, StateFunction) and policy.knows_multipliers else None


def with_period(s: Tensor, t: float) -> Tensor:
    """The states s (..., S) of a life cycle in period t, which is their last column."""
    return torch.cat([s[..., :-1], torch.full_like(s[..., -1:], t)], dim=-1)
