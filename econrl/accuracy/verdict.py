"""Whether a solution can be trusted, in one line: accurate, rough, or do not use, and why.

The policy's error is the mean distance to the best action given the policy's own future (`best_action.py`,
`own_future.py`), of the worst action; the value's error is its Bellman residual in units of one period's consumption.
Both are taken at states of the policy's own simulation, and at states of the whole domain, which count half.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.accuracy.certificates import consumption_value
from econrl.accuracy.optimality_gaps import (
    FEWEST,
    TOO_FEW,
    affordable,
    by_euler,
    euler_gaps,
    is_dear,
    spread,
    value_gaps,
)
from econrl.accuracy.own_future import PERIODS
from econrl.optimality.euler import euler_residuals
from econrl.optimality.structure import Structure
from econrl.problem.bellman import bellman_residual
from econrl.problem.chunks import in_chunks
from econrl.problem.frames import columns_of
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import own_states
from econrl.problem.state_function import Function

ACCURATE, ROUGH, DO_NOT_USE = "accurate", "rough", "do not use"
WORDS = (ACCURATE, ROUGH, DO_NOT_USE)
POLICY_LIMITS = 2e-3, 1e-2  # errors up to which a policy is accurate, and up to which it is rough
VALUE_LIMITS = 5e-3, 5e-2  # the same for a value, in consumption units
HIGH = 0.99  # the quantile at which an accurate policy must not be more than rough
STATES, SEED = 200, 246_813_579  # of the simulation, and half as many of the domain; not those that a run was judged by
UNDERSTATED = 10.0  # times the Euler residual, where there are too many actions to find their distances
MANY_NODES, FEW_NODES = 60, 9  # of expectations, at most if three a shock allow it; along paths
FOR_FUTURE = 100_000  # costates along the paths of a policy's own future, times actions
AMPLIFIED = 100.0  # times the distance by the Euler equation alone may understate a policy's error
BROKEN, LEAVES = 0.01, 0.01  # share of states with no finite reward or value, of periods in which paths leave


@dataclass(frozen=True)
class Verdict:
    """What can be said of a solution."""

    word: str
    """accurate, rough, or do not use."""
    why: str
    """What decided."""
    policy_error: float
    """Mean distance to the best action, as a share of it; half of it where the domain's decides."""
    value_error: float
    """Mean Bellman residual, in units of one period's consumption; likewise."""
    leaves: float
    """Share of periods in which simulated paths left the domain by half of its width."""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}"

    @property
    def doubts(self) -> list[str]:
        """What a user is to be warned of; nothing where the solution is accurate and its paths stay in the domain."""
        leaves = f"{self.leaves:.1%} of simulated periods leave the domain by half of its width; widen it"
        return [str(self)] * (self.word != ACCURATE) + [leaves] * (self.leaves > LEAVES)

    def describe(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@torch.no_grad()
def judge(mdp: MDP, structure: Structure, policy: Function, value: Function) -> Verdict:
    """The verdict on a policy and its value."""
    mdp = coarser(mdp, MANY_NODES)
    generator = torch.Generator(mdp.device).manual_seed(SEED)
    box = mdp.sample_box(STATES // 2, generator)
    simulated, leaves = own_states(mdp, policy, STATES, STATES // 4, 100, generator)
    samples = {"its own simulation": (simulated[:STATES], 1.0), "the domain": (box, 0.5)}
    findings = []
    for where, (s, weight) in samples.items():
        finite = finite_at(mdp, policy, value, s)
        lost = 1 - float(finite.double().mean())
        if lost > BROKEN:
            why = f"no finite action, reward or value at {lost:.0%} of the states of {where}"
            return Verdict(DO_NOT_USE, why, math.inf, math.inf, leaves)
        distances = policy_errors(mdp, structure, policy, value, s[finite], leaves, generator)
        findings.append(Finding(where, weight, distances, value_error(mdp, policy, value, s[finite])))
    worse = max(findings, key=lambda found: found.mean)
    far = max(findings, key=lambda found: found.worst)
    off = max(findings, key=lambda found: found.value)
    grade = max(graded(worse.mean, POLICY_LIMITS), graded(off.value, VALUE_LIMITS))
    action = columns_of(mdp.action_slots)[int(worse.distances.mean(dim=0).argmax())]
    why = f"{action} is off by {in_percent(worse.mean / worse.weight)} on {worse.where}"
    if grade == 0 and far.worst > POLICY_LIMITS[1]:
        grade, why = 1, f"{why}, by {in_percent(far.worst / far.weight)} at one state in a hundred of {far.where}"
    if graded(off.value, VALUE_LIMITS) > graded(worse.mean, POLICY_LIMITS):
        why = f"the value is off by {in_percent(off.value / off.weight)} of one period's consumption on {off.where}"
    return Verdict(WORDS[grade], why, worse.mean, off.value, leaves)


@dataclass
class Finding:
    """What is found in one sample, whose errors count with a weight."""

    where: str
    weight: float
    distances: Tensor
    """Of each action at each state, (n, A)."""
    bellman: float
    """The value's error."""

    @property
    def value(self) -> float:
        """The value's error, weighed."""
        return self.weight * self.bellman

    @property
    def mean(self) -> float:
        """The mean distance of the worst action, weighed."""
        return self.weight * float(self.distances.mean(dim=0).max())

    @property
    def worst(self) -> float:
        """What the distance of the worst action is at one state in a hundred, weighed."""
        return self.weight * float(self.distances.quantile(HIGH, dim=0).max())


def policy_errors(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    value: Function,
    s: Tensor,
    leaves: float,
    generator: torch.Generator,
) -> Tensor:
    """The distance of each action (m, A) at states of s (n, S).

    Of many actions, for which it would take long, the Euler residuals, with what these may understate. Else by the
    Euler equation, with the policy's own later errors where these could matter; by the value where there is no
    such equation, and besides where paths leave the domain: to save everything satisfies every Euler equation. The
    later errors of a policy that follows a value are those of the value.
    """
    euler = by_euler(mdp, structure, policy, s)
    judged, at = affordable(mdp, euler, policy, s)
    if euler and len(at) < min(TOO_FEW, len(s)):
        residuals = in_chunks(
            judged, lambda s: euler_residuals(judged, structure, policy, s, smooth=False, value=value), s
        )
        return UNDERSTATED * residuals.abs()
    mdp = judged
    if not euler:
        return value_gaps(mdp, policy, value, at).distance
    found = euler_gaps(mdp, structure, policy, at, value=value).distance
    accurate, rough = POLICY_LIMITS
    if accurate / AMPLIFIED < found.mean(dim=0).max() < rough and not is_dear(policy):
        along = coarser(mdp, FEW_NODES)
        most = FOR_FUTURE // (PERIODS * len(along.nodes) * mdp.A)
        found = euler_gaps(along, structure, policy, spread(at, max(most, FEWEST)), generator, value).distance
    if leaves > LEAVES:
        found = max(found, value_gaps(mdp, policy, value, at).distance, key=lambda distances: float(distances.mean()))
    return found


def coarser(mdp: MDP, most: int) -> MDP:
    """The problem with at most so many nodes of its expectations, or with three a shock."""
    for nodes in (7, 5, 3):
        if len(mdp.nodes) > most:
            mdp = mdp.with_quadrature(Quadrature(nodes=nodes))
    return mdp


def value_error(mdp: MDP, policy: Function, value: Function, s: Tensor) -> float:
    """Mean |r + E[beta V'] - V| / (c u'(c)) at the states s (n, S), of today's reward in units of the value."""
    residual, a = in_chunks(mdp, lambda s: bellman_residual(mdp, policy, value, s), s).abs(), policy(s)
    unit = consumption_value(mdp, s, a) * mdp.preferences.marginal(mdp.reward(s, a), value(s))
    return float((residual / unit.abs().clamp(min=1e-300)).mean())


def finite_at(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """Where action, reward and value are finite and the action is allowed, (n,)."""
    a = policy(s)
    return mdp.feasible(s, a) & mdp.reward(s, a).isfinite() & value(s).isfinite()


def graded(error: float, limits: tuple[float, float]) -> int:
    """0, 1 or 2: accurate, rough, or not to be used."""
    return sum(not error <= limit for limit in limits)


def in_percent(error: float) -> str:
    """A share in words: 0.02 %."""
    return f"{100 * error:.2g} %"
