"""The gaps (`best_action.py`) of any policy on any model: by the Euler equation, or by the value; option by option."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from econrl.accuracy.best_action import SMALLEST, Gaps, gaps
from econrl.accuracy.certificates import consumption_value
from econrl.accuracy.own_future import own_future
from econrl.optimality.euler import at_bounds_that_matter, condition, multipliers_of, shadow_price
from econrl.optimality.greedy import SEED, greedy_condition, regret_of
from econrl.optimality.structure import Structure, matter
from econrl.problem.lottery import drawn
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.state_function import Function

EVALUATIONS = 50_000  # next states looked at at once, so that memory does not grow with the number of states
WORK, FEWEST = 1_000_000, 16  # columns of next states looked at in all; the fewest states
TOO_FEW = 100  # states, with fewer of which Euler residuals at many say more


def euler_gaps(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    s: Tensor,
    generator: torch.Generator | None = None,
    value: Function | None = None,
) -> Gaps:
    """The gaps with lambda' by the Euler equation: of the policy alone, whatever the value, unless utility is
    recursive. With a `generator`, where the policy's own later errors count as well (`own_future.py`)."""
    price = shadow_price(mdp, structure, policy, value)

    def part(s: Tensor, a: Tensor, unit: Tensor, scale: Tensor) -> Gaps:
        added = torch.zeros_like(a)
        if generator is not None:
            added = own_future(mdp, price, structure.endogenous, policy, s, generator, value)
        return gaps(mdp, lambda s, a: condition(mdp, price, lambda _: a, s, value=value)[0], added, unit, scale, s, a)

    return piecewise(part, mdp, policy, s)


def value_gaps(mdp: MDP, policy: Function, value: Function, s: Tensor) -> Gaps:
    """The same with the value's derivative as lambda', which its errors move. The distance of a choice is what the
    best option would bring, in units of one period's consumption."""

    def part(s: Tensor, a: Tensor, unit: Tensor, scale: Tensor) -> Gaps:
        found = Gaps(torch.zeros_like(a), torch.zeros_like(a, dtype=torch.bool), torch.zeros_like(unit))
        columns = [column for column, _ in mdp.choices]
        for option in mdp.options if mdp.free else []:
            rows = (a[:, columns] == option).all(dim=-1).nonzero().flatten()
            if len(rows) > 0:
                now = given_options(
                    mdp.given(option), value, unit[rows], scale[mdp.free], s[rows], a[rows][:, mdp.free]
                )
                at = rows.unsqueeze(-1), torch.tensor(mdp.free, device=a.device)
                found.distance[at], found.kinked[at], found.loss[rows] = now.distance, now.kinked, now.loss
        for column in columns:
            found.distance[:, column] = regret_of(mdp, policy, value, s, a, column) / unit
            found.loss += found.distance[:, column]
        return found

    return piecewise(part, mdp, policy, s)


def given_options(mdp: MDP, value: Function, unit: Tensor, scale: Tensor, s: Tensor, a: Tensor) -> Gaps:
    """The gaps of the continuous actions where the choices are made."""
    gain = lambda s, a: greedy_condition(mdp, lambda _: a, value, s)[0]  # noqa: E731
    return gaps(mdp, gain, torch.zeros_like(a), unit, scale, s, a)


def piecewise(part: Callable[[Tensor, Tensor, Tensor, Tensor], Gaps], mdp: MDP, policy: Function, s: Tensor) -> Gaps:
    """The gaps at all states s (n, S), some at a time; under drawn options where there are taste shocks."""
    a = drawn(mdp, policy, s, torch.Generator(mdp.device).manual_seed(SEED))
    unit, scale = consumption_value(mdp, s, a).abs().clamp(min=1e-300), SMALLEST * sizes(mdp, a)
    size = max(EVALUATIONS // len(mdp.nodes), 1)
    found = [part(*rows, scale) for rows in zip(s.split(size), a.split(size), unit.split(size), strict=True)]
    return Gaps(*(torch.cat([getattr(g, name) for g in found]) for name in ("distance", "kinked", "loss")))


def sizes(mdp: MDP, a: Tensor) -> Tensor:
    """How large each action is in the mean (A,); the parts of a vector, as large as its largest."""
    size = a.abs().nanmean(dim=0)
    return torch.cat([size[slot.start : slot.stop].max().expand(slot.stop - slot.start) for slot in mdp.action_slots])


def by_euler(mdp: MDP, structure: Structure, policy: Function, s: Tensor) -> bool:
    """Whether the policy's gaps at the states s (n, S) are found by the Euler equation: there is one, and tomorrow's
    multipliers are none, or known. Each would take a second expectation, and is no action's own at linked bounds."""
    if not structure.exists or not matter(structure) or multipliers_of(policy) is not None:
        return structure.exists
    at_low, at_high = at_bounds_that_matter(mdp, structure, s, policy(s))
    return not bool((at_low | at_high).any())


def work(mdp: MDP, euler: bool) -> int:
    """Columns of next states that are looked at for the gaps at one state."""
    return (1 + 3 * mdp.A) * len(mdp.nodes) * mdp.S * (mdp.A if euler else 1)


def affordable(mdp: MDP, euler: bool, policy: Function, s: Tensor) -> tuple[MDP, Tensor]:
    """The problem and the states (m, S) at which a policy's gaps, by the Euler equation or not, are found with about
    WORK numbers: where it takes more, with the quadrature that solvers use; then at fewer of the states s (n, S),
    evenly spread. By the Euler equation the policy is asked at all next states: at few, where that is dear."""
    if len(s) * work(mdp, euler) > WORK:
        mdp = mdp.with_quadrature(Quadrature())
    most = max(WORK // work(mdp, euler), FEWEST)
    return mdp, spread(s, min(most, TOO_FEW) if euler and is_dear(policy) else most)


def is_dear(policy: Function) -> bool:
    """Whether a policy looks for the best action each time that it is asked."""
    return bool(getattr(policy, "follows_value", False))


def spread(s: Tensor, most: int) -> Tensor:
    """At most so many of the states s (n, S), evenly spread."""
    return s if len(s) <= most else s[torch.linspace(0, len(s) - 1, most, device=s.device).long()]
