"""Groups of exchangeable members: sound declarations, and a model that is the same whatever the members' order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from econrl.checks.functions import alike, flat_functions
from econrl.checks.trial import Trial, attempt
from econrl.errors import SpecError
from econrl.problem.groups import Group
from econrl.problem.mdp import MDP
from econrl.spec.model import Model
from econrl.spec.shocks import Shock

Swap = tuple[int, int]


# The declarations


def check_features(model: Model) -> None:
    """`group_features` returns {group: {name: tensor}}, so that it can be put on a device."""
    title = f"{type(model).__name__}.group_features"
    found = attempt(title, [model.group_features], model.group_features)
    by_group = isinstance(found, dict) and all(isinstance(features, dict) for features in found.values())
    if not by_group or not all(isinstance(value, Tensor) for f in found.values() for value in f.values()):
        raise SpecError(f"{title} must return a dict of tensors for each group: {{'country': {{'g': tensor of (N,)}}}}")


def check_declared_groups(model: Model, variables: list[tuple[Any, str]]) -> None:
    """Grouped variables are vectors of one size a group; constants belong to a declared group, and have that size."""
    sizes: dict[str, int] = {}
    for v, title in variables:
        if v.group is None:
            continue
        if not isinstance(v.group, str):
            raise SpecError(f"{title} has group {v.group!r}; it must be a name, or None")
        if v.size is None:
            raise SpecError(f"{title} of the group '{v.group}' is a scalar; give it size=N, one number a member")
        if sizes.setdefault(v.group, v.size) != v.size:
            raise SpecError(
                f"{title} has size {v.size}, and other variables of the group '{v.group}' have size {sizes[v.group]}; "
                "all variables of a group have one number a member"
            )
    title = f"{type(model).__name__}.group_features"
    for group, features in model.group_features().items():
        if group not in sizes:
            raise SpecError(f"{title} names the group '{group}', which no variable has ({', '.join(sizes) or 'none'})")
        for feature, value in features.items():
            if value.shape != (sizes[group],) or not value.isfinite().all():
                raise SpecError(
                    f"{title}: '{feature}' of the group '{group}' has shape {tuple(value.shape)}; it must be "
                    f"{sizes[group]} finite numbers, one a member"
                )


# The order of the members


def check_groups(trial: Trial) -> None:
    """With two members swapped, states, actions, shocks and constants alike, the model is the same.

    reward, discount and terminal keep their values; next period's states, the bounds of actions and closed forms are
    swapped as well, and so are the shocks' moments. Neighbours are swapped, of which every order can be made.
    """
    for group in trial.mdp.groups:
        for j in range(group.size - 1):
            swap = (j, j + 1)
            swapped = swap_members(trial, group, swap)
            check_moments(trial, swapped, group, swap)
            check_values(trial, swapped, group, swap)


def check_values(trial: Trial, swapped: Trial, group: Group, swap: Swap) -> None:
    """With members swapped, every function gives the swapped values."""
    states, actions = (order(width, own, swap) for width, own in widths(trial.mdp, group)[:2])
    columns = {"transition": states, "exact_policy": actions, "actions (their bounds)": actions}
    for before, after in zip(flat_functions(trial), flat_functions(swapped), strict=True):
        function = before.title.removeprefix(f"{trial.name}.")
        if function == "outcomes":
            continue  # columns of tables may be one member's
        expected = before.at((trial.s, before.x, trial.e))[:, columns.get(function, slice(None))]
        values = after.at((swapped.s, before.x[:, actions], swapped.e))
        wrong = (~alike(values, expected)).nonzero()
        if len(wrong):
            i, column = wrong[0].tolist()
            raise SpecError(
                f"{before.title} depends on the order of the group '{group.name}': with members {swap[0]} and "
                f"{swap[1]} swapped, {before.columns[column]} is {float(values[i, column]):.6g} instead of "
                f"{float(expected[i, column]):.6g} at the {trial.at(i)}. {ALIKE}"
            )


def check_moments(trial: Trial, swapped: Trial, group: Group, swap: Swap) -> None:
    """Mean, deviation and covariance of a group's shocks are the same for all members, but for their constants."""
    at = order(group.size, torch.arange(group.size).unsqueeze(-1), swap)
    for before, after in zip(trial.mdp.shock_variables, swapped.mdp.shock_variables, strict=True):
        for moment in ("mean", "std", "cov") if before.group == group.name else ():
            one, other = (moment_of(v, moment) for v in (before, after))
            for dim in range(one.ndim):
                one = one.index_select(dim, at)
            if not torch.allclose(one, other):
                raise SpecError(
                    f"{trial.name}.shocks: '{moment}' of '{before.name}' depends on the order of the group "
                    f"'{group.name}': it changes when members {swap[0]} and {swap[1]} are swapped. {ALIKE}"
                )


def moment_of(shock: Shock, moment: str) -> Tensor:
    """A moment of a shock as a tensor; zero where the kind has none of this name, or it is a function of the state,
    which shows in the transition."""
    value = getattr(shock, moment, None)
    return torch.as_tensor(0.0 if value is None or callable(value) else value, dtype=torch.float64)


ALIKE = (
    "Take what differs between the members from self.group_features(), treat them alike otherwise, and declare every "
    "vector with a number for each of them with group="
)


def swap_members(trial: Trial, group: Group, swap: Swap) -> Trial:
    """The same points with two members swapped, in a model that has their constants swapped."""
    at = order(group.size, torch.arange(group.size).unsqueeze(-1), swap)
    features = dict(trial.mdp.model.group_features())
    features[group.name] = {name: value[at] for name, value in features.get(group.name, {}).items()}
    mdp = trial.mdp.with_model(trial.mdp.model.with_features(features))
    flat = zip((trial.s, trial.a, trial.e), widths(mdp, group), strict=True)
    return Trial(mdp, *(x[:, order(width, own, swap)] for x, (width, own) in flat))


def widths(mdp: MDP, group: Group) -> list[tuple[int, Tensor]]:
    """The widths of flat states, actions and shocks, each with the group's columns (N, n)."""
    return [(mdp.S, group.states), (mdp.A, group.actions), (mdp.E, group.shocks)]


def order(width: int, own: Tensor, swap: Swap) -> Tensor:
    """The columns 0 ... width - 1 with those of two members, rows of `own`, swapped."""
    columns, (i, j) = torch.arange(width), swap
    columns[own[i]], columns[own[j]] = own[j], own[i]
    return columns
