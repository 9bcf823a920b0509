"""How accurate a policy is: error measures of any policy on any model, at states it was not fitted to.

euler      the unit-free complementarity residual of the first-order conditions (`euler.py`); at a kink, the distance
greedy     the same with the solution's own V_s as costate, where the model has no Euler equation; of a choice, what the
           best option would add to the value, over the mean |V| of the sample; where it has taste shocks, what the best
           probabilities would
distance   |a - a*| / |a|, a* the best action given the policy's own future, by the Euler equation or by V
           (`best_action.py`); of a choice, what the best option would bring in units of one period's consumption
loss       what a* would bring, in units of one period's consumption
kinks      share of states at which the gain of an action jumps across zero
bellman    |r(s, pi(s)) + E[beta V(s')] - V(s)| over the mean |V| of the sample
policy     |pi(s) - pi*(s)| over the mean |pi*| of that action in the sample, where a closed form is known; of a
           choice, 1 where it is another than the optimal one
value      |V(s) - V*(s)| over the mean |V*| of the sample, where a closed form is known
infeasible share of states at which an action breaks a bound, or reward or action is not finite
outside    share of states that lie outside the domain
rejected   share of simulated paths on which the first-order conditions are rejected at the 5 per cent level; 0.05 is
           what an exact policy gives (Den Haan and Marcet 1994; `certificates.py`); no row where nothing is random
welfare    share of consumption that would make good for not having the reference policy (`certificates.py`): the
           closed form, or one that is given
restarted  share of periods in which a simulated path left the domain by half of its width, and began anew

Samples: `ergodic`, the policy's own simulation, and `box`, uniform on the domain. Both use seeds of their own, so
that no solver has seen them.
"""

from __future__ import annotations

import math
from typing import cast

import pandas as pd
import torch
from torch import Tensor

from econrl.accuracy.certificates import rejected, welfare_loss
from econrl.accuracy.held_out import REPORTED_SEED, relative
from econrl.accuracy.optimality_gaps import affordable, by_euler, euler_gaps, is_dear, spread, value_gaps
from econrl.optimality.euler import euler_residuals
from econrl.optimality.greedy import greedy_residuals
from econrl.optimality.structure import Structure
from econrl.problem.bellman import bellman_residual
from econrl.problem.chunks import in_chunks
from econrl.problem.frames import columns_of
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import own_states
from econrl.problem.state_function import Function

DEARER = 20  # times as much as a network costs a policy that looks for the best action
MOST_OF_DEAR = 2000  # points
FEW = 1000  # states, of Euler residuals of a policy that is dear to ask
SECOND_NODES = 200_000  # costates at which a second expectation is taken, in all
COARSE = Quadrature(nodes=3)


def accuracy_table(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    value: Function,
    samples: dict[str, tuple[Tensor, float]],
    reference: Function | None = None,
) -> pd.DataFrame:
    """One row for each sample and measure: mean, 99th percentile and maximum; errors as log10, shares as they are."""
    rows = []
    for sample, (states, restarted) in samples.items():
        measures = measure(mdp, structure, policy, value, states)
        kinks = measures.pop("kinks")
        for name, errors in measures.items():
            quantiles = (errors.mean(), errors.quantile(0.99), errors.max())
            rows.append((sample, name, "log10", *(float(q.clamp(min=1e-17).log10()) for q in quantiles)))
        shares = {"kinks": kinks, "infeasible": broken(mdp, policy, states), "outside": ~mdp.inside(states)}
        for name, hit in shares.items():
            rows.append((sample, name, "share", float(hit.double().mean()), float("nan"), float("nan")))
        if sample == "ergodic":
            single = {"restarted": ("share", restarted), **certificates(mdp, structure, policy, value, reference)}
            rows += [(sample, name, unit, x, float("nan"), float("nan")) for name, (unit, x) in single.items()]
    return pd.DataFrame(rows, columns=["sample", "measure", "unit", "mean", "p99", "max"])


def certificates(
    mdp: MDP, structure: Structure, policy: Function, value: Function, reference: Function | None
) -> dict[str, tuple[str, float]]:
    """The measures of whole paths, each with its unit."""
    found: dict[str, tuple[str, float]] = {}
    if structure.exists and mdp.horizon is None:
        share = rejected(mdp, structure, policy, REPORTED_SEED, value)
        if share is not None:
            found["rejected"] = "share", share
    if reference is None and mdp.tastes == 0 and mdp.exact_policy(mdp.low) is not None:
        reference = cast(Function, mdp.exact_policy)
    if reference is not None:
        loss = welfare_loss(mdp, policy, reference, REPORTED_SEED, value)
        found["welfare"] = "log10", math.log10(max(abs(loss), 1e-17))
    return found


def samples(mdp: MDP, policy: Function, points: int) -> dict[str, tuple[Tensor, float]]:
    """The two samples on which accuracy is reported: so many points each, or fewer of a policy that is dear to ask."""
    points = min(points, MOST_OF_DEAR) if is_dear(policy) else points
    generator = torch.Generator(mdp.device).manual_seed(REPORTED_SEED)
    box = mdp.sample_box(points, generator)
    return {"ergodic": own_states(mdp, policy, points, 100, 200, generator), "box": (box, 0.0)}


def measure(mdp: MDP, structure: Structure, policy: Function, value: Function, s: Tensor) -> dict[str, Tensor]:
    """Absolute errors at each state, by name; several actions also one by one."""
    euler = by_euler(mdp, structure, policy, s)
    judged, at = affordable(mdp, euler, policy, s)
    found = euler_gaps(judged, structure, policy, at, value=value) if euler else value_gaps(judged, policy, value, at)
    if euler or not structure.exists:
        name = "euler" if euler else "greedy"
        few = spread(s, FEW) if euler and is_dear(policy) else s
        residuals = in_chunks(
            mdp, lambda s: first_order(mdp, structure if euler else None, policy, value, s), few
        ).abs()
    else:
        name, residuals = "euler", with_second_expectations(mdp, structure, policy, value, s)
    if len(residuals) == len(found.distance):  # at a kink, a residual says which side was looked at
        residuals = torch.where(found.kinked, found.distance, residuals)
    measures = {name: residuals.amax(dim=-1), **by_action(mdp, name, residuals)}
    measures |= {"distance": found.distance.amax(dim=-1), **by_action(mdp, "distance", found.distance)}
    measures |= {"loss": found.loss, "kinks": found.kinked.any(dim=-1)}
    v = value(s)
    measures["bellman"] = relative(in_chunks(mdp, lambda s: bellman_residual(mdp, policy, value, s), s), v)
    exact = mdp.exact_policy(s)
    if exact is not None:
        a = policy(s)
        errors = torch.stack([relative(e, x) for e, x in zip((a - exact).T, exact.T, strict=True)], dim=-1)
        for column, _ in mdp.choices:
            errors[:, column] = (a != exact)[:, column].to(s.dtype)
        measures["policy"] = errors.amax(dim=-1)
        measures.update(by_action(mdp, "policy", errors))
    exact_value = mdp.exact_value(s)
    if exact_value is not None:
        measures["value"] = relative(mdp.preferences.shown(v) - exact_value, exact_value)
    return measures


def first_order(mdp: MDP, structure: Structure | None, policy: Function, value: Function, s: Tensor) -> Tensor:
    """The residuals (n, A) of the Euler equation, or of the condition with V_s, as published."""
    if structure is None:
        return greedy_residuals(mdp, policy, value, s, smooth=False)
    return euler_residuals(mdp, structure, policy, s, smooth=False, value=value)


def with_second_expectations(mdp: MDP, structure: Structure, policy: Function, value: Function, s: Tensor) -> Tensor:
    """Euler residuals (m, A), at as many of the states as tomorrow's multipliers, each a second expectation, allow."""
    most = SECOND_NODES // DEARER if is_dear(policy) else SECOND_NODES
    if len(s) * len(mdp.nodes) ** 2 > most:
        mdp = mdp.with_quadrature(COARSE)
    at = spread(s, max(most // len(mdp.nodes) ** 2, 1))
    return in_chunks(mdp, lambda s: euler_residuals(mdp, structure, policy, s, smooth=False, value=value), at).abs()


def by_action(mdp: MDP, name: str, errors: Tensor) -> dict[str, Tensor]:
    """The columns of errors (B, A) by the names of the actions, where there are several."""
    if mdp.A == 1:
        return {}
    return {f"{name} {column}": errors[:, i] for i, column in enumerate(columns_of(mdp.action_slots))}


def broken(mdp: MDP, policy: Function, s: Tensor) -> Tensor:
    """Where an action breaks a bound, or the reward is not finite, (B,)."""
    a = policy(s)
    return ~mdp.feasible(s, a) | ~mdp.reward(s, a).isfinite()
