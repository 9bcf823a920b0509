"""The Euler equation of any spec, from reward and transition alone, by automatic differentiation.

At an interior optimum, with derivatives at (s, a), primes for the next period, x the endogenous states,

    G(s) = r_a + E[ beta lambda' f_a ] = 0,        lambda' = r_x' + (G' - r_a') X' + G' a_x',       f_a' X' = f_x'.

Raise a a little today: tomorrow's action undoes it by -X', so that the state after tomorrow is as before. X' is chosen
before the shock that follows tomorrow's action, hence solves f_a' X' = f_x' at all of that shock's nodes together.
G' is tomorrow's own condition: zero in the interior; where tomorrow's action sits on a bound that moves with the state
(a_x' is that bound's derivative), it is the multiplier. Nothing here needs X' itself: with y solving
f_a'^T y = G' - r_a', (G' - r_a') X' is the derivative of y . f(s', a', .) in x', one backward pass.

Bounds enter through the shares of `mdp.py`: G <= 0 at the lower bound, G >= 0 at the upper one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from econrl.bellman import continuation, lookahead
from econrl.functions import Function, StateFunction
from econrl.mdp import MDP
from econrl.variables import Action, Budget, is_bound

NEAR_BOUND = 0.01  # shares this close to a bound count as possibly binding


@dataclass(frozen=True)
class Structure:
    """What the derivatives of the transition show about a spec."""

    endogenous: list[int]
    """Columns of s that actions move, directly or through other states."""
    joint: bool
    """Whether X' needs all nodes of the shock together; one node is enough where shocks are additive."""
    exists: bool
    reason: str = ""
    """Why there is no Euler equation."""
    matters_at_low: tuple[bool, ...] = ()
    matters_at_high: tuple[bool, ...] = ()
    """For each action whether tomorrow's condition G' matters where tomorrow it is on that bound."""
    own: tuple[int, ...] = ()
    """Where each action moves one endogenous state and no other action does: for each of these its action."""


def action_jacobian(f: Function, a: Tensor) -> Tensor:
    """df/da (..., n, A) of f: a (..., A) -> (..., n), one forward-mode product an action."""
    a = a.contiguous()
    basis = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    columns = [torch.func.jvp(f, (a,), (direction.expand_as(a).contiguous(),))[1] for direction in basis]
    return torch.stack(columns, dim=-1)


def find_structure(mdp: MDP, probes: int = 32, seed: int = 0) -> Structure:
    """Read off which states are endogenous, and whether f_a X = f_x can be solved, at random states and actions."""
    if mdp.choices or len(mdp.finite) > len(mdp.chains):
        return Structure([], False, False, "a discrete choice, and a state that jumps, have no first-order condition")
    generator = torch.Generator(mdp.device).manual_seed(seed)
    s = mdp.sample_box(probes, generator)
    u = torch.randn(probes, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
    a = mdp.act(s, u)
    nodes = mdp.nodes.unsqueeze(1)  # (J, 1, E) against (B, .)
    keep = mdp.continuous
    f_a = action_jacobian(lambda a: mdp.transition(s, a, nodes), a.expand(len(nodes), *a.shape))[..., keep, :]
    f_s = action_jacobian(lambda s: mdp.transition(s, a, nodes), s.expand(len(nodes), *s.shape))[..., keep, :][
        ..., keep
    ]

    moved = (f_a.abs() > 0).any(dim=-1).flatten(0, 1).any(dim=0)
    linked = (f_s.abs() > 0).flatten(0, 1).any(dim=0)
    for _ in keep:
        moved = moved | (linked & moved).any(dim=-1)
    columns = moved.nonzero().flatten().tolist()
    endogenous = [keep[i] for i in columns]

    beta_s, beta_a = torch.func.grad(lambda s, a: mdp.discount(s, a, nodes).sum() + 0 * s.sum(), argnums=(0, 1))(s, a)
    if beta_a.any() or beta_s[:, endogenous].any():
        return Structure(endogenous, False, False, "the discount factor depends on an action or an endogenous state")
    F_a = f_a[:, :, columns].transpose(0, 1)  # (B, J, x, A)
    own = pairing((F_a.abs() > 0).flatten(0, 1).any(dim=0))
    F_x = f_s[:, :, columns][..., columns].transpose(0, 1)
    for joint in (False, True):
        first = slice(None) if joint else slice(1)
        if not endogenous or remainder(F_a[:, first], F_x[:, first], F_a, F_x) < 1e-8:
            found = Structure(endogenous, joint, True, own=() if joint else own)
            return with_multipliers(mdp, found, s, mdp.squash(u))
    return Structure(
        endogenous,
        True,
        False,
        f"{mdp.A} action(s) cannot undo a deviation of {len(endogenous)} endogenous state(s) before the next shock",
    )


def pairing(moves: Tensor) -> tuple[int, ...]:
    """The one action that moves each state, from which moves which (x, A); empty if there is no such pairing."""
    square = moves.shape[0] == moves.shape[1]
    alone = square and bool((moves.sum(dim=0) == 1).all() and (moves.sum(dim=1) == 1).all())
    return tuple(moves.int().argmax(dim=1).tolist()) if alone else ()


def with_multipliers(mdp: MDP, structure: Structure, s: Tensor, shares: Tensor) -> Structure:
    """Find where X + a_x is non-zero for an action on its bound; for a borrowing limit it is zero by itself."""

    def matters(i: int, share: float) -> bool:
        y, unit = shares.clone(), torch.zeros_like(shares)
        y[:, i], unit[:, i] = share, 1.0
        term = torch.func.grad(undoing(mdp, structure, s, mdp.from_shares(s, y), unit, unit, y))(s)
        return bool((term[:, structure.endogenous].nan_to_num().abs() > 1e-8).any())

    below, above = bounded(mdp)
    return replace(
        structure,
        matters_at_low=tuple(below[i] and matters(i, 0.0) for i in range(mdp.A)),
        matters_at_high=tuple(above[i] and matters(i, 1.0 if below[i] else 0.0) for i in range(mdp.A)),
    )


def bounded(mdp: MDP) -> tuple[list[bool], list[bool]]:
    """Which actions have a lower bound, and which an upper one; the parts of a budget share theirs."""
    below, above = [], []
    for v, slot in mdp.continuous_actions:
        n = slot.stop - slot.start
        below += [isinstance(v, Budget) or is_bound(v.low)] * n
        above += [isinstance(v, Action) and is_bound(v.high)] * n
    return below, above


def remainder(A: Tensor, B: Tensor, A_all: Tensor, B_all: Tensor) -> float:
    """How far X, the least-squares solution of A X = B stacked over nodes, is from solving A_all X = B_all."""
    X = torch.linalg.pinv(A.flatten(1, 2)) @ B.flatten(1, 2)
    gap = A_all.flatten(1, 2) @ X - B_all.flatten(1, 2)
    return float(gap.abs().max() / B_all.abs().max().clamp(min=1e-12))


def condition(
    mdp: MDP, shadow_price: Function, policy: Function, s: Tensor, e: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """G(s) = r_a + E[beta lambda' f_a] (B, A) in units of the reward, and what makes it unit-free (B, A).

    `shadow_price` gives lambda (B, S) at states (B, S). With a realised shock e (B, 1, E) that is the expectation.
    """
    a = policy(s)
    nodes, weights = (mdp.nodes, mdp.weights(s)) if e is None else (e, torch.ones_like(s[..., :1]))
    a_ = a.unsqueeze(-2).expand(*a.shape[:-1], nodes.shape[-2], mdp.A)
    s_ = s.unsqueeze(-2)
    s_next = mdp.transition(s_, a_, nodes)
    shadow = shadow_price(s_next.flatten(0, -2)).reshape(s_next.shape)
    discounted = (weights * mdp.discount(s_, a_, nodes)).unsqueeze(-1) * shadow

    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    future = torch.func.grad(lambda a_: (discounted * mdp.transition(s_, a_, nodes)).sum())(a_)
    return r_a + future.sum(dim=-2), unit_of_marginal(r_a, future)


def unit_of_marginal(r_a: Tensor, future: Tensor) -> Tensor:
    """What makes a first-order condition unit-free, from its parts r_a (B, A) and those of the nodes (B, J, A):
    |r_a|, or half of the sum of the nodes' sizes where that is larger, as where the reward ignores the action."""
    return torch.maximum(r_a.abs(), future.abs().sum(dim=-2) / 2).clamp(min=1e-30)


def costate(
    mdp: MDP, structure: Structure, policy: Function, s: Tensor, depth: int = 1, gains: Function | None = None
) -> Tensor:
    """lambda(s) (B, S), zero for exogenous states: the value of one more unit of each endogenous state.

    A binding bound's multiplier G' is found by a second expectation, and `depth` is how many periods ahead; beyond,
    G' = 0. Where `gains` (B, A) are known instead, G' = |r_a'| gains'.
    """
    a = policy(s)
    if mdp.horizon is not None:
        # After the last period the state is worth the derivative of the terminal value, and there is no action.
        over = mdp.period(s) >= mdp.horizon
        final = torch.func.grad(lambda s: mdp.terminal(s).sum())(s)
        s = torch.where(over.unsqueeze(-1), with_period(s, mdp.horizon - 1), s)
        a = policy(s)
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    known = None if gains is None else one_unit(mdp, r_a.abs()) * gains(s)
    multiplier = binding_multiplier(mdp, structure, policy, s, a, depth) if known is None else known
    undone = undoing(mdp, structure, s, a, multiplier - r_a, multiplier, at_bounds(mdp, s, a))
    lam = torch.func.grad(lambda s: mdp.reward(s, a).sum() + undone(s))(s)
    if mdp.horizon is not None:
        lam = torch.where(over.unsqueeze(-1), final, lam)
    kept = torch.zeros(mdp.S, dtype=s.dtype, device=s.device)
    kept[structure.endogenous] = 1.0
    return lam * kept


def undoing(
    mdp: MDP, structure: Structure, s: Tensor, a: Tensor, g: Tensor, multiplier: Tensor, shares: Tensor
) -> Function:
    """The function of s whose derivative in x is g X + multiplier a_x, summed over the batch; g, multiplier (B, A)."""
    g = g - linked(mdp, s, multiplier, shares)
    nodes = mdp.nodes if structure.joint else mdp.nodes[:1]
    f = lambda a: mdp.transition(s.unsqueeze(-2), a, nodes)[..., structure.endogenous]  # noqa: E731
    a_ = a.unsqueeze(-2).expand(*a.shape[:-1], len(nodes), mdp.A).contiguous()
    if structure.own:  # f_a' has one entry a row: a single product finds them all, and there is nothing to solve
        slopes = torch.func.jvp(f, (a_,), (torch.ones_like(a_),))[1]
        weights = g[..., None, list(structure.own)] / slopes
    else:
        F = action_jacobian(f, a_).flatten(-3, -2).mT  # f_a', stacked over nodes: (B, A, J x)
        if F.shape[-1] == F.shape[-2]:
            weights = torch.linalg.solve_ex(F, g.unsqueeze(-1)).result
        else:
            weights = least_squares(F, g.unsqueeze(-1))
        weights = weights.reshape(*s.shape[:-1], len(nodes), len(structure.endogenous))

    def of_state(s: Tensor) -> Tensor:
        after = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), nodes)[..., structure.endogenous]
        return (weights * after).sum() + (multiplier * mdp.from_shares(s, shares)).sum()

    return of_state


def least_squares(F: Tensor, g: Tensor) -> Tensor:
    """The shortest w (..., m, 1) of those with the smallest |F w - g|, for F (..., n, m) of full rank, by the smaller
    of its two normal equations: many times faster, batched and differentiated, than the singular values of F."""
    wide = F.shape[-1] > F.shape[-2]
    square = F @ F.mT if wide else F.mT @ F
    ridge = 1e-15 * square.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    square = square + ridge * torch.eye(square.shape[-1], dtype=F.dtype, device=F.device)
    if wide:
        return F.mT @ torch.linalg.solve_ex(square, g).result
    return torch.linalg.solve_ex(square, F.mT @ g).result


def linked(mdp: MDP, s: Tensor, multiplier: Tensor, shares: Tensor) -> Tensor:
    """What an action moves by way of bounds that read it: sum_k G'_k da_k/da_j for the others' given shares."""
    width = mdp.widths(s, mdp.from_shares(s, shares))
    along = torch.func.grad(lambda y: (multiplier * mdp.from_shares(s, y)).sum())(shares)
    return torch.where(width.abs() > 0, along / torch.where(width.abs() > 0, width, 1.0) - multiplier, 0.0)


def binding_multiplier(mdp: MDP, structure: Structure, policy: Function, s: Tensor, a: Tensor, depth: int) -> Tensor:
    """G (B, A) where an action is next to one of its bounds and the bound's multiplier matters, zero elsewhere."""
    G = torch.zeros_like(a)
    if depth == 0 or not any(structure.matters_at_low + structure.matters_at_high):
        return G
    at_low, at_high = near_bounds(mdp, mdp.shares(s, a))
    at_low &= torch.tensor(structure.matters_at_low, device=a.device)
    at_high &= torch.tensor(structure.matters_at_high, device=a.device)
    rows = (at_low | at_high).any(dim=-1)
    if not rows.any():
        return G
    at_low, at_high, s_near = at_low[rows], at_high[rows], s[rows]
    found, _ = condition(mdp, lambda s: costate(mdp, structure, policy, s, depth - 1), policy, s_near)
    G[rows] = torch.where(at_high, found.clamp(min=0), 0) + torch.where(at_low, found.clamp(max=0), 0)
    return G


def near_bounds(mdp: MDP, y: Tensor, nearest: float = NEAR_BOUND) -> tuple[Tensor, Tensor]:
    """Which shares y (..., A) are next to their lower, and which to their upper bound; the parts of a budget of n are
    next to theirs at a distance that is n times smaller."""
    below, above = (torch.tensor(known, device=y.device) for known in bounded(mdp))
    parts = [v.size if isinstance(v, Budget) else 1 for v in mdp.action_variables for _ in range(v.size or 1)]
    distance = nearest / y.new_tensor(parts)
    low = below & (y < distance)
    high = above & (torch.where(below, 1 - y, y) < distance)
    return low, high


def at_bounds(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """The shares (B, A) of actions, those next to a bound put on it."""
    y = mdp.shares(s, a)
    low, high = near_bounds(mdp, y)
    below, _ = bounded(mdp)
    return torch.where(low, 0.0, torch.where(high, torch.tensor(below, device=y.device).to(y), y))


def complementarity(mdp: MDP, G: Tensor, scale: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """One residual (B, A) for `low <= a <= high, G = 0 inside, <= 0 at low, >= 0 at high`; unit-free.

    Fischer-Burmeister in shares for an action; for a budget the distance of the shares to their projection after a
    step along G, since its parts share one bound.
    """
    y, g = mdp.shares(s, a), unit_free(mdp, G, scale, s, a)
    parts = []
    for v, slot in mdp.continuous_actions:
        y_k, g_k = y[..., slot.start : slot.stop], g[..., slot.start : slot.stop]
        if isinstance(v, Budget):
            rest = 1 - y_k.sum(dim=-1, keepdim=True)
            point = torch.cat([y_k, rest], dim=-1)
            step = torch.cat([g_k, torch.zeros_like(rest)], dim=-1)
            parts.append((project_on_simplex(point + step) - point)[..., :-1])
            continue
        below, above = is_bound(v.low), is_bound(v.high)
        if above:
            g_k = fischer_burmeister(1 - y_k if below else y_k, g_k)
        if below:
            g_k = -fischer_burmeister(y_k, -g_k)
        parts.append(g_k)
    return torch.cat(parts, dim=-1)


def unit_free(mdp: MDP, G: Tensor, scale: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """G over its scale (B, A), as the gain of a larger share of each action."""
    y, width = mdp.shares(s, a), mdp.widths(s, a)
    # Where a later action's bound reads this one, moving it at given shares moves both.
    along = torch.func.grad(lambda y: (G * mdp.from_shares(s, y)).sum())(y)
    free = width.abs() > 0
    return torch.where(free, along / torch.where(free, width, 1.0), 0.0) / one_unit(mdp, scale)


def one_unit(mdp: MDP, scale: Tensor) -> Tensor:
    """The scales (..., A), the largest for all parts of a budget: they compete for one total, and what matters is their
    gains against each other."""
    parts = []
    for v, slot in mdp.continuous_actions:
        unit = scale[..., slot.start : slot.stop]
        parts.append(unit.amax(dim=-1, keepdim=True).expand_as(unit) if isinstance(v, Budget) else unit)
    return torch.cat(parts, dim=-1)


def fischer_burmeister(slack: Tensor, multiplier: Tensor) -> Tensor:
    """slack + multiplier - |(slack, multiplier)|: zero where both are non-negative and one of them is zero."""
    return slack + multiplier - torch.hypot(slack, multiplier)


def project_on_simplex(x: Tensor) -> Tensor:
    """The point of the unit simplex nearest to x (..., n), by sorting (Held, Wolfe & Crowder 1974)."""
    ordered = x.sort(dim=-1, descending=True).values
    excess = (ordered.cumsum(dim=-1) - 1) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    count = (ordered > excess).sum(dim=-1, keepdim=True)
    return (x - excess.gather(-1, (count - 1).clamp(min=0))).clamp(min=0)


def euler_residuals(
    mdp: MDP, structure: Structure, policy: Function, s: Tensor, later: Function | None = None
) -> Tensor:
    """The unit-free complementarity residual (B, A) of each action's first-order condition at the states s (B, S).

    `later` is the policy from tomorrow on, where that is another function than today's. Where it knows the gains from
    moves beyond its bounds, tomorrow's multipliers are these; and where today's policy knows them, and a bound binds,
    the residual is how wrong they are: multipliers that nobody checks could justify any policy.
    """
    later = later or policy
    G, scale = condition(mdp, lambda s: costate(mdp, structure, later, s, gains=gains_of(later)), policy, s)
    a, known = policy(s), gains_of(policy)
    R = complementarity(mdp, G, scale, s, a)
    if known is None:
        return R
    gains, r_a = known(s), torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    return torch.where(gains != 0, unit_free(mdp, G, r_a.abs(), s, a) - gains, R)


def gains_of(policy: Function) -> Function | None:
    """The gains from moves beyond its bounds, of a policy that knows them."""
    return policy.gains if isinstance(policy, StateFunction) and policy.prices else None


def greedy_residuals(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """The same with the value function's own derivative V_s in place of the costate: whether the policy is optimal for
    its value. For models without an Euler equation; together with the Bellman residual it tests optimality. In the
    column of a choice stands its `regret`; the others are conditional on the choices made."""
    if mdp.choices:
        return residuals_given_choices(mdp, policy, value, s)
    shadow_price = torch.func.grad(lambda s: continuation(mdp, value, s).sum())
    G, scale = condition(mdp, shadow_price, policy, s)
    return complementarity(mdp, G, scale, s, policy(s))


def residuals_given_choices(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """`greedy_residuals` where there are choices: those of the continuous actions option by option, and the regrets."""
    a, found = policy(s), torch.zeros(len(s), mdp.A, dtype=s.dtype, device=s.device)
    columns = [column for column, _ in mdp.choices]
    for option in mdp.options if mdp.free else []:
        rows = (a[:, columns] == option).all(dim=-1).nonzero().flatten()
        if len(rows) > 0:
            residuals = greedy_residuals(mdp.given(option), lambda s: policy(s)[..., mdp.free], value, s[rows])
            found[rows.unsqueeze(-1), mdp.tensor(mdp.free).long()] = residuals
    for column in columns:
        found[:, column] = regret(mdp, value, s, a, column)
    return found


def regret(mdp: MDP, value: Function, s: Tensor, a: Tensor, column: int) -> Tensor:
    """What the best option of one choice would add to the value, today alone and at the same shares of the continuous
    actions, over the mean |V| of the sample; (B,)."""
    shares = mdp.shares(s, a)

    def judged(option: int) -> Tensor:
        other = torch.cat([shares[:, :column], torch.full_like(shares[:, :1], option), shares[:, column + 1 :]], dim=-1)
        return lookahead(mdp, value, s, mdp.from_shares(s, other))

    options = torch.stack([judged(option) for option in range(dict(mdp.choices)[column])], dim=-1)
    own = options.gather(-1, a[:, column : column + 1].long()).squeeze(-1)
    return (options.amax(dim=-1) - own) / value(s).abs().mean().clamp(min=1e-12)


def with_period(s: Tensor, t: float) -> Tensor:
    return torch.cat([s[..., :-1], torch.full_like(s[..., -1:], t)], dim=-1)
