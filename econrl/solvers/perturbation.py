"""First-order perturbation around the deterministic steady state, found by the solver itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from econrl.accuracy import HeldOut
from econrl.errors import SolveError
from econrl.euler import near_bounds
from econrl.functions import StateFunction
from econrl.mdp import MDP
from econrl.solvers.base import Method, Result, Task, Tracker
from econrl.solvers.start import find_start
from econrl.variables import flatten

TRIES = 8  # starting points of the search for the steady state
EVALUATIONS = 60  # at most, from each
STEADY = 1e-9  # largest residual of a steady state, states in units of their domain and conditions free of units
NEAR = 1e-6  # a share this close to a bound in the steady state counts as on it


@dataclass(frozen=True)
class Perturbation(Method):
    """A policy that is linear in the states, exact to first order at the deterministic steady state.

    With shocks at their mean, the steady state s*, a* and the shadow prices lambda solve

        s = f(s, a),   H_a = 0,   H_s = lambda   for H(s, a) = r + beta (V* + lambda (f - s*)).

    The second derivatives of H there give a linear-quadratic problem in the deviations, whose Riccati equation (scipy)
    gives the derivative of the policy and the second derivative of V. What is linear is u, the log-odds of the shares
    (`mdp.py`), so that the policy is feasible everywhere.

    Source: Judd (1998), "Numerical Methods in Economics", chapter 13; Benigno and Woodford (2012), "Linear-quadratic
    approximation of optimal policy problems", JET 147.
    """

    name: ClassVar[str] = "perturbation"

    nodes: int = 5
    """Quadrature nodes a shock, for its mean and variance."""

    def refuse(self, mdp: MDP) -> str | None:
        """There must be a steady state to expand around."""
        if mdp.horizon is not None:
            return "a life cycle has no steady state"
        if mdp.finite:
            return "a Markov chain jumps between its values, and has no derivative"
        return None

    def run(self, mdp: MDP, task: Task) -> Result:
        """Find the steady state and expand around it; of a family, around that of several members (`expansions.py`).
        Raises SolveError where there is no interior one."""
        tracker = Tracker(task, HeldOut(task.model, task.device))
        from econrl.solvers.expansions import expand

        generator = task.generator(mdp.device)
        if mdp.parameters:
            tracker.measure(1, *expand(mdp, generator))
        else:
            tracker.measure(1, *linearise(mdp, find_steady_state(mdp, generator)))
        return tracker.result(1, converged=True)


class LinearPolicy(StateFunction):
    """u(s) = u* + U (s - s*), put into the feasible set."""

    s_star: Tensor
    u_star: Tensor
    U: Tensor

    def __init__(self, mdp: MDP):
        super().__init__(mdp)
        self.register_buffer("s_star", mdp.low.new_zeros(mdp.S))
        self.register_buffer("u_star", mdp.low.new_zeros(mdp.A))
        self.register_buffer("U", mdp.low.new_zeros(mdp.A, mdp.S))

    def describe(self) -> dict[str, Any]:
        return {}

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.raw(s))

    def raw(self, s: Tensor) -> Tensor:
        """u(s), (..., A)."""
        return self.u_star + (s - self.s_star) @ self.U.mT


class QuadraticValue(StateFunction):
    """V(s) = level + price (s - s*) + 1/2 (s - s*)' P (s - s*)."""

    s_star: Tensor
    level: Tensor
    price: Tensor
    P: Tensor

    def __init__(self, mdp: MDP):
        super().__init__(mdp)
        self.register_buffer("s_star", mdp.low.new_zeros(mdp.S))
        self.register_buffer("level", mdp.low.new_zeros(()))
        self.register_buffer("price", mdp.low.new_zeros(mdp.S))
        self.register_buffer("P", mdp.low.new_zeros(mdp.S, mdp.S))

    def describe(self) -> dict[str, Any]:
        return {}

    def forward(self, s: Tensor) -> Tensor:
        d = s - self.s_star
        return self.level + d @ self.price + ((d @ self.P) * d).sum(dim=-1) / 2


def mean_shock(mdp: MDP) -> Tensor:
    """E[e], shape (E,)."""
    return mdp.weights(mdp.low) @ mdp.nodes


@dataclass(frozen=True)
class SteadyState:
    """Where the model stays when shocks are at their mean e."""

    s: Tensor
    u: Tensor
    price: Tensor
    """lambda (S,): what one more unit of each state is worth."""


def hamiltonian(mdp: MDP, s_star: Tensor, a_star: Tensor, price: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """H(s, a) = r + beta (V* + lambda (f - s*)), where staying is worth V* = r*/(1 - beta*)."""
    e = mean_shock(mdp)
    level = mdp.reward(s_star, a_star) / (1 - mdp.discount(s_star, a_star, e))

    def H(s: Tensor, a: Tensor) -> Tensor:
        future = level + (mdp.transition(s, a, e) - s_star) @ price
        return mdp.reward(s, a) + mdp.discount(s, a, e) * future

    return H


def find_steady_state(mdp: MDP, generator: torch.Generator, near: SteadyState | None = None) -> SteadyState:
    """Solve f = s, H_a = 0, H_s = lambda for s, u and lambda by the Levenberg-Marquardt method, from several starts:
    first the model's own `steady_state`, if it has one. With one that is `near`, that of a similar model, from there
    alone.

    The prices are unknowns of their own: where beta f_s has the eigenvalue one, as in a growth model, they do not
    follow from s and a alone. Raises SolveError where no start leads to a steady state off all bounds.
    """
    from scipy.optimize import least_squares

    reach = torch.where(mdp.high > mdp.low, (mdp.high - mdp.low) / 2, 1.0)
    middle, e = (mdp.low + mdp.high) / 2, mean_shock(mdp)
    u_start = find_start(mdp, generator).u if near is None else near.u
    unit = torch.func.grad(lambda a: mdp.reward(middle, a))(mdp.act(middle, u_start)).abs()
    unit = unit.clamp(min=1e-3 * unit.amax()).clamp(min=1e-12)  # of marginal rewards

    def unknowns(x: Tensor) -> SteadyState:
        s, u, price = x.split([mdp.S, mdp.A, mdp.S])
        return SteadyState(middle + reach * s, u, price * unit.amax())

    def gaps(x: Tensor) -> Tensor:
        at = unknowns(x)
        a = mdp.act(at.s, at.u)
        H_s, H_a = torch.func.grad(hamiltonian(mdp, at.s, a, at.price), argnums=(0, 1))(at.s, a)
        moved = mdp.transition(at.s, a, e) - at.s
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


def known_steady_state(mdp: MDP) -> tuple[Tensor, Tensor] | None:
    """s and u of the model's own steady state, where it gives one for all states and actions."""
    named = mdp.model.steady_state()
    if named is None or any(slot.name not in named for slot in [*mdp.state_slots, *mdp.action_slots]):
        return None
    values = {name: torch.as_tensor(value).to(mdp.low) for name, value in named.items()}
    s = flatten(mdp.state_slots, values)
    return s, mdp.unsquash(mdp.shares(s, flatten(mdp.action_slots, values)))


def on_bound(mdp: MDP, shares: Tensor) -> bool:
    """Whether shares (A,) are so close to a bound that it may bind."""
    low, high = near_bounds(mdp, shares, NEAR)
    return bool((low | high).any())


def linearise(mdp: MDP, steady: SteadyState) -> tuple[LinearPolicy, QuadraticValue]:
    """The policy's first derivative and the value's second one at the steady state, by the Riccati equation."""
    from scipy.linalg import solve_discrete_are

    s, u, price, e = steady.s, steady.u, steady.price, mean_shock(mdp)
    a = mdp.act(s, u)
    H = hamiltonian(mdp, s, a, price)
    (H_ss, H_sa), (_, H_aa) = torch.func.hessian(H, argnums=(0, 1))(s, a)
    f_s, f_a = torch.func.jacrev(lambda s, a: mdp.transition(s, a, e), argnums=(0, 1))(s, a)
    beta = mdp.discount(s, a, e)
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
    risk = mdp.weights(s) @ (moved @ price + ((moved @ P) * moved).sum(dim=-1) / 2)
    level = (mdp.reward(s, a) + beta * risk) / (1 - beta)
    value.load_state_dict({"s_star": s, "level": level, "price": price, "P": P})
    return policy, value
