"""The deterministic steady state, found by the Levenberg-Marquardt method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.errors import SolveError
from econrl.optimality.complementarity import near_bounds
from econrl.problem.mdp import MDP
from econrl.problem.steady_state import known_steady_state, mean_discount, mean_transition

TRIES = 8  # starting points of the search for the steady state
EVALUATIONS = 60  # at most, from each
STEADY = 1e-9  # largest residual of a steady state, states in units of their domain and conditions free of units
NEAR = 1e-6  # a share this close to a bound in the steady state counts as on it


@dataclass(frozen=True)
class SteadyState:
    """Where the model stays when shocks are at their mean e."""

    s: Tensor
    u: Tensor
    price: Tensor
    """lambda (S,): what one more unit of each state is worth."""


def hamiltonian(mdp: MDP, s_star: Tensor, a_star: Tensor, price: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """H(s, a) = r + beta (V* + lambda (f - s*)), where staying is worth V* = r*/(1 - beta*)."""
    level = mdp.reward(s_star, a_star) / (1 - mean_discount(mdp, s_star, a_star))

    def H(s: Tensor, a: Tensor) -> Tensor:
        future = level + (mean_transition(mdp, s, a) - s_star) @ price
        return mdp.reward(s, a) + mean_discount(mdp, s, a) * future

    return H


def find_steady_state(
    mdp: MDP,
    generator: torch.Generator,
    near: SteadyState | None = None,
    look_at_the_clock: Callable[[], None] = lambda: None,
) -> SteadyState:
    """Solve f = s, H_a = 0, H_s = lambda for s, u and lambda by the Levenberg-Marquardt method, from several starts:
    first the model's own `steady_state`, if it has one. With one that is `near`, that of a similar model, from there
    alone.

    The prices are unknowns of their own: where beta f_s has the eigenvalue one, as in a growth model, they do not
    follow from s and a alone. Raises SolveError where no start leads to a steady state off all bounds.
    """
    from scipy.optimize import least_squares

    reach = torch.where(mdp.high > mdp.low, (mdp.high - mdp.low) / 2, 1.0)
    middle = (mdp.low + mdp.high) / 2
    u_start = best_constant_shares(mdp, generator).u if near is None else near.u
    unit = torch.func.grad(lambda a: mdp.reward(middle, a))(mdp.act(middle, u_start)).abs()
    unit = unit.clamp(min=1e-3 * unit.amax()).clamp(min=1e-12)  # of marginal rewards

    def unknowns(x: Tensor) -> SteadyState:
        s, u, price = x.split([mdp.S, mdp.A, mdp.S])
        return SteadyState(middle + reach * s, u, price * unit.amax())

    def gaps(x: Tensor) -> Tensor:
        look_at_the_clock()
        at = unknowns(x)
        a = mdp.act(at.s, at.u)
        H_s, H_a = torch.func.grad(hamiltonian(mdp, at.s, a, at.price), argnums=(0, 1))(at.s, a)
        moved = mean_transition(mdp, at.s, a) - at.s
        return torch.cat([moved / reach, H_a / unit, (H_s - at.price) / unit.amax()])

    def numbers(f: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: f(torch.as_tensor(x).to(mdp.low)).detach().cpu().numpy()

    smallest = np.inf
    for attempt in range(TRIES if near is None else 1):
        x = torch.cat([0 * reach, u_start, torch.ones_like(reach)])
        if attempt == 0 and near is not None:
            x = torch.cat([(near.s - middle) / reach, near.u, torch.ones_like(reach)])
        if attempt == 0 and (known := known_steady_state(mdp)) is not None:
            x = torch.cat([(known[0] - middle) / reach, known[1], torch.ones_like(reach)])
        if attempt > 0:
            x = x + 0.5 * torch.randn(len(x), generator=generator, dtype=x.dtype, device=x.device)
        try:
            found = least_squares(
                numbers(gaps), x.cpu().numpy(), numbers(torch.func.jacfwd(gaps)), method="lm",
                xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=EVALUATIONS,
            )  # fmt: skip
        except ValueError:  # not finite at the start
            continue
        steady = unknowns(torch.as_tensor(found.x).to(x))
        gap = np.abs(found.fun).max()
        smallest = min(smallest, gap)
        if gap < STEADY and not on_bound(mdp, mdp.squash(steady.u)):
            return steady
    raise SolveError(
        f"perturbation found no interior steady state of {type(mdp.model).__name__}: there is none, or an action sits "
        f"on its bound there (smallest residual {smallest:.1e}). Take another method"
    )


def on_bound(mdp: MDP, shares: Tensor) -> bool:
    """Whether shares (A,) are so close to a bound that it may bind."""
    low, high = near_bounds(mdp, shares, NEAR)
    return bool((low | high).any())
