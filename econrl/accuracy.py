"""How accurate a policy is: error measures of any policy on any model, at states it was not fitted to.

euler      the unit-free complementarity residual of the first-order conditions (`euler.py`)
greedy     the same with the solution's own V_s as costate, where the model has no Euler equation; of a choice, what the
           best option would add to the value, over the mean |V| of the sample
bellman    |r(s, pi(s)) + E[beta V(s')] - V(s)| over the mean |V| of the sample
policy     |pi(s) - pi*(s)| over the mean |pi*| of that action in the sample, where a closed form is known; of a
           choice, 1 where it is another than the optimal one
value      |V(s) - V*(s)| over the mean |V*| of the sample, where a closed form is known
infeasible share of states at which an action breaks a bound, or reward or action is not finite
outside    share of states that lie outside the domain
rejected   share of simulated paths on which the first-order conditions are rejected at the 5 per cent level; 0.05 is
           what an exact policy gives (Den Haan and Marcet 1994; `certificates.py`)
welfare    share of consumption that would make good for not having the reference policy (`certificates.py`): the
           closed form, or one that is given
restarted  share of periods in which a simulated path left the domain by half of its width, and began anew

Samples: `ergodic`, the policy's own simulation, and `box`, uniform on the domain. Both use seeds of their own, so
that no solver has seen them.
"""

from __future__ import annotations

import math
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor

from econrl.bellman import bellman_residual
from econrl.certificates import rejected, welfare_loss
from econrl.euler import Structure, euler_residuals, find_structure, greedy_residuals
from econrl.expectation import Quadrature
from econrl.functions import Function
from econrl.mdp import MDP
from econrl.model import Model
from econrl.simulate import ergodic_states
from econrl.tables import columns_of

REPORTED_SEED, SELECTION_SEED = 987_654_321, 123_456_789  # never the same states for choosing and for reporting
FINER = Quadrature(nodes=9)
CHUNK = 4_000_000  # numbers held at once: states times nodes times states' columns


class HeldOut:
    """The points on which a solver's progress is judged and its best policy chosen; not those of `accuracy_table`."""

    def __init__(self, model: Model, device: torch.device | str = "cpu", points: int = 1000):
        self.mdp = MDP(model, device)
        self.structure = find_structure(self.mdp)
        self.points, self.tolerated = points, 0.0
        self.box = self.mdp.sample_box(points // 4, self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.mdp.device).manual_seed(SELECTION_SEED)

    def error(self, policy: Any, value: Any) -> float:
        """Mean Euler error; where there is no Euler equation, the mean of greedy and Bellman errors, which test
        optimality together. Three quarters of the points are the policy's own simulation, one quarter the box.

        The share of periods in which paths leave the domain is added, as far as it is not tolerated: a policy that
        saves everything can satisfy every Euler equation, and break transversality. Infinite where the policy breaks
        down."""
        policy, value = policy.on(self.mdp), value.on(self.mdp)
        simulated, restarted = self.simulate(policy)
        s = torch.cat([simulated, self.box])
        if self.structure.exists:
            residual = in_chunks(self.mdp, lambda s: euler_residuals(self.mdp, self.structure, policy, s), s)
        else:
            bellman = relative(bellman_residual(self.mdp, policy, value, s), value(s))
            residual = torch.cat([greedy_residuals(self.mdp, policy, value, s), bellman.unsqueeze(-1)], dim=-1)
        error = float(residual.abs().mean()) + (restarted if restarted > self.tolerated else 0.0)
        return error if error == error else float("inf")

    @torch.no_grad()
    def bellman(self, policy: Any, value: Any) -> float:
        """Mean Bellman error; infinite where the value breaks down."""
        policy, value = policy.on(self.mdp), value.on(self.mdp)
        s = torch.cat([self.simulate(policy)[0], self.box])
        error = float(relative(bellman_residual(self.mdp, policy, value, s), value(s)).mean())
        return error if error == error else float("inf")

    def tolerate(self, policy: Any) -> None:
        """From now on, paths may leave the domain as often as under this policy, and half as often again: where wealth
        grows without end, that says nothing against a policy."""
        self.tolerated = 1.5 * self.simulate(policy.on(self.mdp))[1]

    def simulate(self, policy: Function) -> tuple[Tensor, float]:
        return own_states(self.mdp, policy, 3 * self.points // 4, 125, 60, self._generator())


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
        for name, errors in measures.items():
            quantiles = (errors.mean(), errors.quantile(0.99), errors.max())
            rows.append((sample, name, "log10", *(float(q.clamp(min=1e-17).log10()) for q in quantiles)))
        shares = {"infeasible": broken(mdp, policy, states), "outside": ~mdp.inside(states)}
        for name, hit in shares.items():
            rows.append((sample, name, "share", float(hit.double().mean()), float("nan"), float("nan")))
        if sample == "ergodic":
            single = {"restarted": ("share", restarted), **certificates(mdp, structure, policy, reference)}
            rows += [(sample, name, unit, x, float("nan"), float("nan")) for name, (unit, x) in single.items()]
    return pd.DataFrame(rows, columns=["sample", "measure", "unit", "mean", "p99", "max"])


def certificates(
    mdp: MDP, structure: Structure, policy: Function, reference: Function | None
) -> dict[str, tuple[str, float]]:
    """The measures of whole paths, each with its unit."""
    found: dict[str, tuple[str, float]] = {}
    if structure.exists and mdp.horizon is None:
        found["rejected"] = "share", rejected(mdp, structure, policy, REPORTED_SEED)
    if reference is None and mdp.exact_policy(mdp.low) is not None:
        reference = cast(Function, mdp.exact_policy)
    if reference is not None:
        loss = welfare_loss(mdp, policy, reference, REPORTED_SEED)
        found["welfare"] = "log10", math.log10(max(abs(loss), 1e-17))
    return found


def samples(mdp: MDP, policy: Function, points: int) -> dict[str, tuple[Tensor, float]]:
    """The two samples on which accuracy is reported."""
    generator = torch.Generator(mdp.device).manual_seed(REPORTED_SEED)
    box = mdp.sample_box(points, generator)
    return {"ergodic": own_states(mdp, policy, points, 100, 200, generator), "box": (box, 0.0)}


def own_states(
    mdp: MDP, policy: Function, points: int, n: int, burn_in: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """About `points` states of the policy's own simulation of n paths; of a life cycle, whole lives."""
    if mdp.horizon is not None:
        return ergodic_states(mdp, policy, max(points // mdp.horizon, 1), mdp.horizon, 0, generator)
    return ergodic_states(mdp, policy, n, max(points // n, 1), burn_in, generator)


def measure(mdp: MDP, structure: Structure, policy: Function, value: Function, s: Tensor) -> dict[str, Tensor]:
    """Absolute errors at each state, by name; several actions also one by one."""
    if structure.exists:
        name, residuals = "euler", in_chunks(mdp, lambda s: euler_residuals(mdp, structure, policy, s), s).abs()
    else:
        name, residuals = "greedy", in_chunks(mdp, lambda s: greedy_residuals(mdp, policy, value, s), s).abs()
    measures = {name: residuals.amax(dim=-1), **by_action(mdp, name, residuals)}
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
        measures["value"] = relative(v - exact_value, exact_value)
    return measures


def by_action(mdp: MDP, name: str, errors: Tensor) -> dict[str, Tensor]:
    if mdp.A == 1:
        return {}
    return {f"{name} {column}": errors[:, i] for i, column in enumerate(columns_of(mdp.action_slots))}


def relative(error: Tensor, level: Tensor) -> Tensor:
    """|error| over the sample's mean |level|."""
    return error.abs() / level.abs().mean().clamp(min=1e-12)


def broken(mdp: MDP, policy: Function, s: Tensor) -> Tensor:
    a = policy(s)
    return ~mdp.feasible(s, a) | ~mdp.reward(s, a).isfinite()


def in_chunks(mdp: MDP, f: Function, s: Tensor) -> Tensor:
    """f over the states a chunk at a time, so that memory does not grow with their number."""
    return torch.cat([f(part) for part in s.split(max(CHUNK // (len(mdp.nodes) * mdp.S), 1))])
