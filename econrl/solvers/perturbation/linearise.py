"""The linear-quadratic problem around a steady state, and its Riccati equation."""

from __future__ import annotations

import numpy as np
import torch

from econrl.errors import SolveError
from econrl.problem.mdp import MDP
from econrl.problem.steady_state import mean_discount, mean_transition
from econrl.solvers.perturbation.linear_policy import LinearPolicy, QuadraticValue
from econrl.solvers.perturbation.steady_state import SteadyState, hamiltonian

NEWTON_STEPS = 20  # for the level of a value


def linearise(mdp: MDP, steady: SteadyState) -> tuple[LinearPolicy, QuadraticValue]:
    """The policy's first derivative and the value's second one at the steady state, by the Riccati equation."""
    from scipy.linalg import solve_discrete_are

    s, u, price = steady.s, steady.u, steady.price
    a = mdp.act(s, u)
    H = hamiltonian(mdp, s, a, price)
    (H_ss, H_sa), (_, H_aa) = torch.func.hessian(H, argnums=(0, 1))(s, a)
    f_s, f_a = torch.func.jacrev(lambda s, a: mean_transition(mdp, s, a), argnums=(0, 1))(s, a)
    beta = mean_discount(mdp, s, a)
    A, B, Q, R, N = (x.detach().cpu().numpy() for x in (beta.sqrt() * f_s, beta.sqrt() * f_a, -H_ss, -H_aa, -H_sa))
    try:
        # Balancing, scipy's default, gave 1e17 for a P of size one on copies with mixed states.
        P = -torch.as_tensor(solve_discrete_are(A, B, Q, R, s=N, balanced=False)).to(s)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise SolveError(
            f"perturbation: the Riccati equation of {type(mdp.model).__name__} has no stabilising solution at its "
            f"steady state ({error}). Take another method"
        ) from error
    bounds_s, a_u = torch.func.jacrev(mdp.act, argnums=(0, 1))(s, u)
    a_in_s = -torch.linalg.solve_ex(H_aa + beta * f_a.mT @ P @ f_a, H_sa.mT + beta * f_a.mT @ P @ f_s).result
    U = torch.linalg.solve_ex(a_u, a_in_s - bounds_s).result
    if not U.isfinite().all():
        raise SolveError(
            f"perturbation: the conditions of {type(mdp.model).__name__} do not determine the actions to first order "
            "at its steady state (a singular Jacobian). Take another method"
        )
    policy, value = LinearPolicy(mdp), QuadraticValue(mdp)
    policy.load_state_dict({"s_star": s, "u_star": u, "U": U})
    moved = mdp.transition(s, a.expand(len(mdp.nodes), -1), mdp.nodes) - s  # without shocks there is one node
    beside = moved @ price + ((moved @ P) * moved).sum(dim=-1) / 2
    level = staying = mdp.reward(s, a) / (1 - beta)
    for _ in range(1 if mdp.preferences.additive else NEWTON_STEPS):  # on level = r + m(level + beside)
        future = level + beside
        m = mdp.preferences.certainty(future, mdp.weights(s), beta.expand(len(mdp.nodes)))
        slope = mdp.weights(s) @ mdp.preferences.tilt(future, m.unsqueeze(-1), beta)
        level = level + (mdp.reward(s, a) + m - level) / (1 - slope)
    level = torch.where(level.isfinite(), level, staying)  # risk so large that a quadratic value leaves its domain
    value.load_state_dict({"s_star": s, "level": level, "price": price, "P": P})
    return policy, value
