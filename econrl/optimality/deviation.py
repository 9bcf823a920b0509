"""How tomorrow's action undoes a deviation of today's: the X' of the Euler equation (`euler.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.optimality.structure import Structure
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

STUCK = 1e-6  # the weight of an action's own condition where its bound's multiplier is not known


def action_jacobian(f: Function, a: Tensor) -> Tensor:
    """df/da (..., n, A) of f: a (..., A) -> (..., n), one forward-mode product an action."""
    a = a.contiguous()
    basis = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    columns = [torch.func.jvp(f, (a,), (direction.expand_as(a).contiguous(),))[1] for direction in basis]
    return torch.stack(columns, dim=-1)


def undoing(
    mdp: MDP,
    structure: Structure,
    s: Tensor,
    a: Tensor,
    g: Tensor,
    multiplier: Tensor,
    shares: Tensor,
    stuck: Tensor | None = None,
) -> Function:
    """The function of s whose derivative in x is g X + multiplier a_x, summed over the batch; g, multiplier (B, A).
    Actions that are `stuck` (B, A) are left where they are, if the others can undo a deviation without them."""
    g = g - linked(mdp, s, multiplier, shares)
    nodes = mdp.nodes if structure.joint else mdp.nodes[:1]
    f = lambda a: mdp.transition(s.unsqueeze(-2), a, nodes)[..., structure.endogenous]  # noqa: E731
    a_ = a.unsqueeze(-2).expand(*a.shape[:-1], len(nodes), mdp.A).contiguous()
    if structure.own:  # f_a' has one entry a row: a single product finds them all, and there is nothing to solve
        slopes = torch.func.jvp(f, (a_,), (torch.ones_like(a_),))[1]
        weights = g[..., None, list(structure.own)] / slopes
    else:
        F = action_jacobian(f, a_).flatten(-3, -2).mT  # f_a', stacked over nodes: (B, A, J x)
        if stuck is not None and F.shape[-2] > F.shape[-1]:
            enough = (~stuck).sum(dim=-1, keepdim=True) >= F.shape[-1]
            trusted = torch.where(stuck & enough, STUCK, 1.0)
            F, g = F * trusted.unsqueeze(-1), g * trusted
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
