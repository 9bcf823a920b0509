"""Which states are endogenous, and whether an Euler equation exists, read off the transition's derivatives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from econrl.optimality.complementarity import bounded
from econrl.optimality.deviation import action_jacobian, undoing
from econrl.optimality.static import static_actions
from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP

STATES = 512  # at which low = high is looked for


def find_structure(mdp: MDP, probes: int = 32, seed: int = 0) -> Structure:
    """Which states are endogenous, and whether f_a X = f_x can be solved; found once for each problem, and kept."""
    key = (Structure, probes, seed)
    if key not in mdp.found:
        static_actions(mdp)  # found here, since random draws are not allowed where residuals are vectorised
        mdp.found[key] = read_structure(mdp, probes, seed)
    return mdp.found[key]


def read_structure(mdp: MDP, probes: int, seed: int) -> Structure:
    """Read off the structure at random states and actions."""
    if mdp.choices or len(mdp.finite) > len(mdp.chains):
        return Structure([], False, False, "a discrete choice, and a state that jumps, have no first-order condition")
    generator = torch.Generator(mdp.device).manual_seed(seed)
    s = mdp.sample_box(probes, generator)
    u = torch.randn(probes, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
    a = mdp.act(s, u)
    nodes = mdp.nodes.unsqueeze(1)  # (J, 1, E) against (B, .)
    keep = mdp.continuous
    s_ = s.expand(len(nodes), *s.shape)  # for each node, though the transition may ignore shocks and actions
    f_a = action_jacobian(lambda a: mdp.transition(s_, a, nodes), a.expand(len(nodes), *a.shape))[..., keep, :]
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
    if weights_move(mdp, s)[endogenous].any():
        return Structure(endogenous, False, False, "the probabilities of shocks depend on an endogenous state")
    F_a = f_a[:, :, columns].transpose(0, 1)  # (B, J, x, A)
    own = pairing((F_a.abs() > 0).flatten(0, 1).any(dim=0))
    F_x = f_s[:, :, columns][..., columns].transpose(0, 1)
    for joint in (False, True):
        first = slice(None) if joint else slice(1)
        if not endogenous or remainder(F_a[:, first], F_x[:, first], F_a, F_x) < 1e-8:
            found = Structure(endogenous, joint, True, own=() if joint else own)
            return without_room(mdp, with_multipliers(mdp, found, s, mdp.squash(u)), generator)
    return Structure(
        endogenous,
        True,
        False,
        f"{mdp.A} action(s) cannot undo a deviation of {len(endogenous)} endogenous state(s) before the next shock",
    )


def odds_move(mdp: MDP) -> bool:
    """Whether the probabilities of shocks depend on a state that actions move (any state, where there are choices)."""
    columns = mdp.continuous if mdp.choices else find_structure(mdp).endogenous
    s = mdp.sample_box(32, torch.Generator(mdp.device).manual_seed(0))
    return bool(weights_move(mdp, s)[columns].any())


def weights_move(mdp: MDP, s: Tensor) -> Tensor:
    """Which states (S,) the probabilities of shocks depend on, by derivatives at the states s (B, S)."""
    if not any(v.discrete for v in mdp.varying):
        return torch.zeros_like(mdp.low, dtype=torch.bool)
    J = len(mdp.nodes)
    return (torch.func.jacrev(lambda s: mdp.weights(s).expand(len(s), J).sum(dim=0))(s) != 0).flatten(0, 1).any(dim=0)


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

    def fixed(i: int, share: float) -> bool:
        y = shares.clone()
        y[:, i] = share
        by_s, by_y = torch.func.grad(lambda s, y: mdp.from_shares(s, y)[:, i].sum(), argnums=(0, 1))(s, y)
        by_y[:, i] = 0.0
        return not (by_s[:, structure.endogenous].any() or by_y.any())

    below, above = bounded(mdp)
    return replace(
        structure,
        matters_at_low=tuple(below[i] and matters(i, 0.0) for i in range(mdp.A)),
        fixed_at_low=tuple(below[i] and fixed(i, 0.0) for i in range(mdp.A)),
        fixed_at_high=tuple(above[i] and fixed(i, 1.0 if below[i] else 0.0) for i in range(mdp.A)),
        matters_at_high=tuple(above[i] and matters(i, 1.0 if below[i] else 0.0) for i in range(mdp.A)),
    )


def without_room(mdp: MDP, structure: Structure, generator: torch.Generator) -> Structure:
    """Find the actions of which low = high leaves no choice at some states, as hours in retirement."""
    s = mdp.sample_box(STATES, generator)
    u = torch.randn(STATES, mdp.A, generator=generator, dtype=mdp.dtype, device=mdp.device)
    found = (mdp.widths(s, mdp.act(s, u)) == 0).any(dim=0).tolist()
    matters = zip(found, structure.matters_at_low, structure.matters_at_high, strict=True)
    return replace(
        structure,
        without_room=tuple(found),
        matters_without_room=tuple(none and (low or high) for none, low, high in matters),
    )


def remainder(A: Tensor, B: Tensor, A_all: Tensor, B_all: Tensor) -> float:
    """How far X, the least-squares solution of A X = B stacked over nodes, is from solving A_all X = B_all."""
    X = torch.linalg.pinv(A.flatten(1, 2)) @ B.flatten(1, 2)
    gap = A_all.flatten(1, 2) @ X - B_all.flatten(1, 2)
    return float(gap.abs().max() / B_all.abs().max().clamp(min=1e-12))
