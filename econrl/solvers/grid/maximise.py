"""Maximise Q(s, .) at many states at once: the best of a set of candidates, then a damped Newton method in u.

u is any real vector; `mdp.act(s, u)` is feasible, so there are no constraints left. |u| <= 20 reaches a bound up to a
share of 2e-9. With gradient g and Hessian H = sum_i l_i q_i q_i' of Q in u, the direction is that of ascent,

    du = sum_i q_i (q_i' g) / |l_i|,

which is Newton's where H is negative definite (Nocedal and Wright 2006, "Numerical Optimization", section 3.4).
Several lengths of the step are tried at once, and the best is taken if it improves Q. NaN counts as minus infinity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""Q(s, u) of shape (B,), at states s (B, S) and u (B, A)."""
LIMIT = 20.0  # of |u|: a share of 2e-9 from its bound, where squashing still has a slope
LENGTHS = (1.0, 4.0, 16.0, 0.25, 1 / 16, 1 / 64)  # long ones for the way to a bound, along which steps do not grow
LONGEST = 4.0  # of a Newton step in u, before it is multiplied
ROUNDING = 1e-13  # gains below this share of Q cannot be told from rounding


def candidates(A: int, count: int = 32) -> Tensor:
    """Starting points u (K, A): shares spread evenly by a Sobol sequence, their centre, and each bound."""
    if A == 0:
        return torch.zeros(1, 0, dtype=torch.float64)
    shares = torch.quasirandom.SobolEngine(A).draw(count + 1, dtype=torch.float64)[1:]
    bounds = LIMIT * torch.cat([torch.eye(A, dtype=torch.float64), -torch.eye(A, dtype=torch.float64)])
    return torch.cat([torch.zeros(1, A, dtype=torch.float64), shares.logit(), bounds])


def evaluate(Q: Objective, s: Tensor, u: Tensor) -> Tensor:
    """Q(s, u), minus infinity where it is not a number."""
    value = Q(s, u)
    return torch.where(value.isnan(), -torch.inf, value)


def best_candidate(Q: Objective, s: Tensor, starts: Tensor, limit: float = LIMIT) -> tuple[Tensor, Tensor]:
    """The best of the starts (K, A) at each state: u (B, A) and Q (B,), minus infinity where none has a value."""
    u = starts.new_zeros(len(s), starts.shape[-1])
    value = s.new_full((len(s),), -torch.inf)
    for start in starts.clamp(-limit, limit):
        u, value = better(u, value, start.expand_as(u), evaluate(Q, s, start.expand_as(u)))
    return u, value


def better(u: Tensor, value: Tensor, other: Tensor, other_value: Tensor) -> tuple[Tensor, Tensor]:
    """Of two points and their values, the better one at each state."""
    wins = other_value > value
    return torch.where(wins.unsqueeze(-1), other, u), torch.where(wins, other_value, value)


def newton(
    Q: Objective, s: Tensor, u: Tensor, value: Tensor, iterations: int = 30, limit: float = LIMIT
) -> tuple[Tensor, Tensor]:
    """The maximiser (B, A) and maximum (B,) from u, whose value is Q(s, u); never worse than u, up to rounding."""
    u, value = u.clone(), value.clone()
    if u.shape[-1] == 0:
        return u, value
    open_rows = value.isfinite().nonzero().flatten()
    typical = value[open_rows].abs().mean()
    for _ in range(iterations):
        if len(open_rows) == 0:
            break
        s_open, u_open, old = s[open_rows], u[open_rows], value[open_rows]
        direction, gain = ascent(Q, s_open, u_open)
        rounding = ROUNDING * (old.abs() + typical)
        full = (u_open + direction).clamp(-limit, limit)
        found, new = u_open, old
        for length in LENGTHS:
            trial = (u_open + length * direction).clamp(-limit, limit)
            trial_value = evaluate(Q, s_open, trial)
            if length == 1.0:
                full_value = trial_value
            found, new = better(found, new, trial, trial_value)
        # The last Newton step gains less than rounding can show: it is taken on trust.
        last = (gain < rounding) & (full_value > old - rounding)
        found = torch.where(last.unsqueeze(-1), full, found)
        new = torch.where(last, full_value, new)
        u[open_rows], value[open_rows] = found, new
        open_rows = open_rows[(gain >= rounding) & (new > old)]
    return u, value


def ascent(Q: Objective, s: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The direction du (B, A), and the gain g . du / 2 (B,) that it promises."""
    g, H = derivatives(Q, s, u)
    if u.shape[-1] == 1:
        curvature = H[..., 0].abs()
        direction = g / curvature.clamp(min=torch.finfo(u.dtype).tiny)
    else:
        lengths, axes = torch.linalg.eigh(H)
        lengths = lengths.abs().clamp(min=torch.finfo(u.dtype).tiny)
        direction = (axes @ ((axes.mT @ g.unsqueeze(-1)) / lengths.unsqueeze(-1))).squeeze(-1)
    direction = torch.nan_to_num(direction, nan=0.0, posinf=LONGEST, neginf=-LONGEST)
    direction = direction * (LONGEST / direction.abs().amax(dim=-1, keepdim=True).clamp(min=LONGEST))
    return direction, (g * direction).sum(dim=-1) / 2


def derivatives(Q: Objective, s: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (B, A) and Hessian (B, A, A) in u, zero where they are not finite.

    States do not interact, so one backward pass through the sum gives all gradients, and one forward-mode derivative
    of that pass for each action gives all Hessians.
    """

    def gradient(u: Tensor) -> Tensor:
        return torch.func.grad(lambda u: Q(s, u).sum())(u)

    basis = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    columns = []
    for direction in basis:
        g, column = torch.func.jvp(gradient, (u,), (direction.expand_as(u).contiguous(),))[:2]
        columns.append(column)
    H = torch.stack(columns, dim=-1)
    usable = g.isfinite().all(dim=-1) & H.isfinite().all(dim=-1).all(dim=-1)
    g = torch.where(usable.unsqueeze(-1), g, 0)
    H = torch.where(usable[:, None, None], (H + H.mT) / 2, 0)
    return g, H
