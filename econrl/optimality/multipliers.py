"""Tomorrow's multipliers: a binding bound's gain G, where it enters today's Euler equation, found with the policy.

A policy is what a smooth function z leaves when it is cut off at the bounds (`bounded_forms.py`). Let z go on beyond a
bound in proportion to what the forbidden move would bring there,

    G / |r_a| = steepness x (what z is beyond the bound),

and the policy tells its multipliers: at any state, without a second expectation, however long the bound binds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from econrl.optimality.bounded_forms import BOTH, HIGH, LOW, Forms
from econrl.optimality.complementarity import unit_free
from econrl.optimality.deviation import action_jacobian, linked
from econrl.optimality.euler import condition, costate
from econrl.optimality.find_structure import find_structure
from econrl.optimality.structure import Structure, matter
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

NO_ANSWER = 1e6  # a share that would have to move so much for a gain of one does not answer it


def without_multipliers(structure: Structure, forms: Sequence[str], mdp: MDP) -> Structure:
    """Bounds that never bind have no multipliers."""
    low: list[bool] = []
    high: list[bool] = []
    for form, slot in zip(forms, mdp.action_slots, strict=True):
        low += [form in (LOW, BOTH)] * (slot.stop - slot.start)
        high += [form in (HIGH, BOTH)] * (slot.stop - slot.start)
    return replace(
        structure,
        matters_at_low=tuple(a and b for a, b in zip(structure.matters_at_low, low, strict=False)),
        matters_at_high=tuple(a and b for a, b in zip(structure.matters_at_high, high, strict=False)),
    )


def why_multipliers_are_unknown(mdp: MDP, s: Tensor, a: Tensor) -> str:
    """Why tomorrow's multipliers cannot be known along with the policy, or nothing."""
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a).abs()
    if (r_a <= 1e-8 * r_a.nanmedian(dim=0).values).any():
        return "the reward does not depend on the action, so that a multiplier has no unit"
    if linked(mdp, s, torch.ones_like(a), mdp.shares(s, a)).abs().max() > 1e-8:
        return "a bound of one action reads another, so that their multipliers are not each action's own"
    return ""


def forms_with_multipliers(
    mdp: MDP, forms: Sequence[str], policy: Function, s: Tensor, value: Function | None = None
) -> Forms:
    """The forms, which know their multipliers where these matter and can be known; by a rough policy at s (B, S)."""
    structure = without_multipliers(find_structure(mdp), forms, mdp)
    if value is None and not mdp.preferences.additive:
        return Forms(mdp, forms)
    no_room = any(structure.matters_without_room)  # where z says nothing of what would be beyond a bound
    if not matter(structure) or no_room or why_multipliers_are_unknown(mdp, s, policy(s)):
        return Forms(mdp, forms)
    steep = steepness(mdp, structure, policy, s, value)
    return Forms(mdp, forms, steep if all(0 < x < math.inf for x in steep) else None)


def steepness(
    mdp: MDP, structure: Structure, policy: Function, s: Tensor, value: Function | None = None
) -> list[float]:
    """1 / |dy/dg|, one number an action: how fast the gain g from a larger share falls in this share, where all others
    answer it; at the median of the states s (B, S).

    A gain that goes on falling like that beyond a bound makes a smooth function of what is beyond and what is within.
    """
    y = mdp.shares(s, policy(s))
    price = lambda s: costate(mdp, structure, policy, s, depth=0, value=value)  # noqa: E731

    def gain(y: Tensor) -> Tensor:
        return marginal_gain(mdp, price, s, mdp.from_shares(s, y), value)

    answers = torch.linalg.inv_ex(action_jacobian(gain, y)).inverse.diagonal(dim1=-2, dim2=-1).abs()
    # In a last period that leaves nothing behind the gain is |r_a| itself whatever the share: it says nothing.
    answers = torch.where(answers < NO_ANSWER, answers, torch.nan)
    return (1 / answers.nanmedian(dim=0).values).tolist()


def marginal_gain(mdp: MDP, shadow_price: Function, s: Tensor, a: Tensor, value: Function | None = None) -> Tensor:
    """G / |r_a| (B, A): what more of each action a (B, A) would bring, given tomorrow's lambda.

    For models in which rewards fall or rise with every action, r_a not zero.
    """
    G, _ = condition(mdp, shadow_price, lambda _: a, s, value=value)
    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    return unit_free(mdp, G, r_a.abs(), s, a)


def multiplier_residuals(
    mdp: MDP,
    structure: Structure,
    policy: Function,
    multipliers: Function,
    s: Tensor,
    later: tuple[Function, Function],
    value: Function | None = None,
) -> Tensor:
    """G / |r_a| - multipliers (B, A): the Euler equation's residuals where the multipliers of binding bounds are
    found along with the policy, zero where none binds. `later` are policy and multipliers from tomorrow on.

    Nothing here has a kink but policy and multipliers.
    """
    price = lambda s: costate(mdp, structure, later[0], s, multipliers=later[1], value=value)  # noqa: E731
    return marginal_gain(mdp, price, s, policy(s), value) - multipliers(s)
