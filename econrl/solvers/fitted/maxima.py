"""Maxima, and their slopes by the envelope theorem, at sampled states of one cell; and the networks fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from econrl.errors import SolveError
from econrl.problem.diagnose import describe, first_fault
from econrl.problem.mdp import MDP
from econrl.solvers.fitted.best_shares import Bounds, Step, derivatives, maximise
from econrl.solvers.fitted.fit import Rows, fit_outputs, fit_value, rows_for, unit_for
from econrl.solvers.fitted.functions import FittedPolicy, objective
from econrl.solvers.grid.maximise import Objective, better, candidates, evaluate

NUMBERS = 4_000_000  # held at once: states times nodes times shares times a network's units
FEW_STARTS = 8  # candidates beside the policy that is known; more where none is
FURTHEST = 0.2  # how far beyond a bound what the policy network says may go
FEWER = 3  # times fewer steps for the policy networks, which are corrected, than for the value networks


@dataclass
class Maxima:
    """What is known of N states s (N, S) of one cell."""

    s: Tensor
    y: Tensor
    """The best shares (N, A)."""
    v: Tensor
    """The maximum (N,)."""
    slopes: Tensor
    """Its derivatives in the continuous states (N, d)."""
    z: Tensor
    """What a policy network is to say (N, A)."""

    def only(self, rows: Tensor) -> Maxima:
        """Those of some states."""
        return Maxima(*(getattr(self, field.name)[rows] for field in fields(self)))


def maxima(policy: FittedPolicy, option: int, s: Tensor, known: bool, look_at_the_clock: Callable[[], None]) -> Maxima:
    """The maxima of r + E[beta V(s')] at states s (N, S) under an option, where it is available, V being the policy's
    value; from the shares of its network where they are `known`, and from a few others.

    Raises SolveError where the model gives no number.
    """
    mdp, _, bounds = policy.problems[option]
    s = policy.value.cells.open(s, option)
    Q = partial(objective, mdp, policy.value)
    starts = mdp.squash(candidates(mdp.A).to(s))
    size = max(NUMBERS // (len(mdp.nodes) * (mdp.A + 1) * sum(policy.hidden)), 1)
    found = []
    for part in s.split(size):
        look_at_the_clock()
        first = policy.network_shares(option, part) if known else starts[:1].expand(len(part), -1)
        y, v = maximise(Q, bounds, part, best_start(Q, part, first, starts[:FEW_STARTS] if known else starts))
        slopes = torch.func.grad(lambda s, y=y: Q(s, y).sum())(part)[:, mdp.continuous]
        found.append(Maxima(part, y, v, slopes, beyond_bounds(Q, bounds, part, y)))
    return Maxima(*(torch.cat([getattr(part, field.name) for part in found]) for field in fields(Maxima)))


def with_values(name: str, mdp: MDP, found: Maxima) -> Maxima | None:
    """The maxima that are finite; None where there are none. Raises SolveError where one is no number."""
    finite = found.v.isfinite() & found.slopes.isfinite().all(dim=-1)
    wrong = found.v == torch.inf
    if wrong.any():
        row = int(wrong.int().argmax())
        a = mdp.from_shares(found.s[row : row + 1], found.y[row : row + 1])
        raise SolveError(
            first_fault(mdp, found.s[row : row + 1], a)
            or f"{name} on {type(mdp.model).__name__}: the value is infinite at {describe(mdp, found.s[row])}"
        )
    return found.only(finite) if finite.any() else None


def best_start(Q: Objective, s: Tensor, first: Tensor, starts: Tensor) -> Tensor:
    """The best of the shares `first` (B, A) and the starts (K, A), at each state."""
    best, value = first, evaluate(Q, s, first)
    for start in starts:
        trial = start.expand_as(first)
        best, value = better(best, value, trial, evaluate(Q, s, trial))
    return best


def beyond_bounds(Q: Objective, bounds: Bounds, s: Tensor, y: Tensor) -> Tensor:
    """What a network is to say whose projection are the shares y (B, A): y itself and, for shares on a bound, how far
    beyond it Newton's method would go, so that it is smooth where the bound begins to bind."""
    if y.shape[-1] == 0:
        return y
    g, H = derivatives(Q, s, y)
    step = Step.of(bounds, y, g, H)
    g = (step.T.mT @ g.unsqueeze(-1)).squeeze(-1)
    curvature = (step.T.mT @ H @ step.T).diagonal(dim1=-2, dim2=-1).abs().clamp(min=1e-300)
    past = torch.where(step.d == 0, FURTHEST * torch.tanh(g / curvature / FURTHEST), 0.0)
    # What stands for the largest part of a budget is its rest: all parts are larger where that is held at zero.
    for start, stop in bounds.budgets:
        parts = slice(start, stop)
        pivot = step.T[:, parts, parts].amin(dim=-1) < 0
        rest = torch.where(pivot, past[:, parts], 0.0).sum(dim=-1, keepdim=True)
        past[:, parts] = torch.where(pivot, 0.0, past[:, parts]) - rest
    return y + past


def rows_of(policy: FittedPolicy, cell: int, found: Maxima) -> Rows:
    """What the value network of a cell is to say, in the cell's unit."""
    value = policy.value
    unit = value.units[cell]
    slopes = found.slopes / unit.size(found.v).unsqueeze(-1)
    return rows_for(policy.mdp, value.features, found.s, unit.raw(found.v), slopes)


def fit_cell(
    policy: FittedPolicy, cell: int, found: Maxima, steps: int, look_at_the_clock: Callable[[], None]
) -> float:
    """Fit the networks of a cell to maxima, the value's in the unit that suits it; its root mean square error."""
    value = policy.value
    value.units[cell], value.known[cell] = unit_for(value.features, found.s, found.v), True
    rows = rows_of(policy, cell, found)
    error = fit_value(value.networks[cell], rows, steps, look_at_the_clock)
    fit_policy(policy, cell, found, steps, look_at_the_clock)
    return error


def fit_policy(
    policy: FittedPolicy, cell: int, found: Maxima, steps: int, look_at_the_clock: Callable[[], None]
) -> None:
    """Fit the policy network of a cell."""
    if policy.outputs > 0:
        x = policy.features(found.s)
        fit_outputs(policy.networks[cell], x, found.z, max(steps // FEWER, 1), look_at_the_clock)
