"""Whether a solution can be trusted, in one line: accurate, rough, or do not use, and why.

The policy's error is the mean distance to the best action given the policy's own future (`best_action.py`,
`own_future.py`), of the worst action; the value's error is its Bellman residual in units of one period's consumption.
Both are taken at states of the policy's own simulation, and at states of the whole domain, which count half.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.accuracy.certificates import consumption_value
from econrl.accuracy.optimality_gaps import affordable, by_euler, euler_gaps, value_gaps
from econrl.optimality.structure import Structure
from econrl.problem.bellman import bellman_residual
from econrl.problem.chunks import in_chunks
from econrl.problem.frames import columns_of
from econrl.problem.mdp import MDP
from econrl.problem.simulate import own_states
from econrl.problem.state_function import Function

ACCURATE, ROUGH, DO_NOT_USE = "accurate", "rough", "do not use"
WORDS = (ACCURATE, ROUGH, DO_NOT_USE)
POLICY_LIMITS = 2e-3, 1e-2  # errors up to which a policy is accurate, and up to which it is rough
VALUE_LIMITS = 5e-3, 5e-2  # the same for a value, in consumption units
STATES, SEED = 200, 246_813_579  # of the simulation, and half as many of the domain; not those that a run was judged by
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
    """Mean distance to the best action, as a share of it."""
    value_error: float
    """Mean Bellman residual, in units of one period's consumption."""
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
    generator = torch.Generator(mdp.device).manual_seed(SEED)
    box = mdp.sample_box(STATES // 2, generator)
    simulated, leaves = own_states(mdp, policy, STATES, STATES // 4, 100, generator)
    samples = {"its own simulation": (simulated[:STATES], 1.0), "the domain": (box, 0.5)}
    findings = []
    for where, (s, weight) in samples.items():
        lost = share_broken(mdp, policy, value, s)
        if lost > BROKEN:
            why = f"no finite action, reward or value at {lost:.0%} of the states of {where}"
            return Verdict(DO_NOT_USE, why, float("inf"), float("inf"), leaves)
        finite = finite_at(mdp, policy, value, s)
        by_action, name = policy_errors(mdp, structure, policy, value, s[finite], leaves, generator)
        bellman = value_error(mdp, policy, value, s[finite])
        findings.append((weight * float(by_action.max()), weight * bellman, where, name[int(by_action.argmax())]))
    policy_error, _, where, action = max(findings)
    value_off = max(found[1] for found in findings)
    grade = max(graded(policy_error, POLICY_LIMITS), graded(value_off, VALUE_LIMITS))
    why = f"{action} is off by {in_percent(policy_error)} on {where}"
    if graded(value_off, VALUE_LIMITS) > graded(policy_error, POLICY_LIMITS):
        why = f"the value is off by {in_percent(value_off)} of one period's consumption"
    return Verdict(WORDS[grade], why, policy_error, value_off, leaves)


def policy_errors(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    value: Function,
    s: Tensor,
    leaves: float,
    generator: torch.Generator,
) -> tuple[Tensor, list[str]]:
    """The mean distance of each action (A,) at the states s (n, S), and what the actions are called.

    By the Euler equation, with the policy's own later errors where these could matter; by the value where there is no
    such equation, and besides where paths leave the domain: to save everything satisfies every Euler equation.
    """
    names = columns_of(mdp.action_slots)
    euler = by_euler(mdp, structure, policy, s)
    mdp, at = affordable(mdp, euler, s)
    if not euler:
        return value_gaps(mdp, policy, value, at).distance.mean(dim=0), names
    found = euler_gaps(mdp, structure, policy, at).distance.mean(dim=0)
    accurate, rough = POLICY_LIMITS
    if accurate / AMPLIFIED < found.max() < rough:
        found = euler_gaps(mdp, structure, policy, at, generator).distance.mean(dim=0)
    if leaves > LEAVES:
        found = found.maximum(value_gaps(mdp, policy, value, at).distance.mean(dim=0))
    return found, names


def value_error(mdp: MDP, policy: Function, value: Function, s: Tensor) -> float:
    """Mean |r + E[beta V'] - V| / (c u'(c)) at the states s (n, S)."""
    residual = in_chunks(mdp, lambda s: bellman_residual(mdp, policy, value, s), s).abs()
    return float((residual / consumption_value(mdp, s, policy(s)).abs().clamp(min=1e-300)).mean())


def finite_at(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Tensor:
    """Where action, reward and value are finite and the action is allowed, (n,)."""
    a = policy(s)
    return mdp.feasible(s, a) & mdp.reward(s, a).isfinite() & value(s).isfinite()


def share_broken(mdp: MDP, policy: Function, value: Function, s: Tensor) -> float:
    """Share of the states where they are not."""
    return 1 - float(finite_at(mdp, policy, value, s).double().mean())


def graded(error: float, limits: tuple[float, float]) -> int:
    """0, 1 or 2: accurate, rough, or not to be used."""
    return sum(not error <= limit for limit in limits)


def in_percent(error: float) -> str:
    """A share in words: 0.02 %."""
    return f"{100 * error:.2g} %"
