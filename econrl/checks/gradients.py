"""The derivatives of a spec's functions, by automatic differentiation and by central finite differences.

Every method that uses the known reward and transition goes through these derivatives; one that is lost (detach,
round, .item(), a passage through numpy) or NaN (torch.where over a branch that is not finite) ruins it in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.checks.functions import Flat, flat_functions
from econrl.checks.trial import Trial, attempt
from econrl.errors import SpecError

STEP = 1e-5  # of finite differences, relative to a variable's range
CLOSE = 1e-3  # relative gap between the two derivatives that passes for rounding
NEGLIGIBLE = 1e-8  # derivatives this small against the function's value are below what finite differences resolve
KINKS = 1  # points at which the two may differ, since a kink may happen to lie within the step
USE_TORCH = "use torch operations throughout, without detach, round, .item(), float() or numpy"


@dataclass(frozen=True)
class Direction:
    """One continuous state or one action, and how far it moves at each point: its range."""

    label: str
    ds: Tensor
    dx: Tensor


def check_gradients(trial: Trial) -> None:
    """Derivatives in the continuous states and in the actions: they exist, are finite, and are right."""
    for function in flat_functions(trial):
        if function.solved:
            check_derivatives(trial, function)


def check_derivatives(trial: Trial, function: Flat) -> None:
    """Derivatives are finite, those of the values, and the same forwards and backwards."""
    by_s, by_x = reverse(trial, function)
    values = function.at((trial.s, function.x, trial.e))
    for d in directions(trial, function):
        along = (by_s * d.ds).sum(dim=-1) + (by_x * d.dx).sum(dim=-1)
        check_finite_derivative(trial, function, d, along)
        check_differences(trial, function, d, along, values)
        check_not_lost(trial, function, d, along, values)
    check_forward(trial, function, by_s, by_x)


def directions(trial: Trial, function: Flat) -> list[Direction]:
    """The continuous states, and the continuous actions (or, for the bounds, the shares, whose range is one)."""
    mdp, s, x = trial.mdp, trial.s, function.x
    state_labels = [column for slot in mdp.state_slots for column in slot.columns]
    action_labels = [column for slot in mdp.action_slots for column in slot.columns]
    widths = torch.ones_like(x) if x is not trial.a else mdp.widths(s, x).abs()
    found = []
    for column in mdp.continuous:
        ds = torch.zeros_like(s)
        ds[:, column] = mdp.high[column] - mdp.low[column]
        found.append(Direction(state_labels[column], ds, torch.zeros_like(x)))
    for column in mdp.free:
        dx = torch.zeros_like(x)
        dx[:, column] = widths[:, column]
        found.append(Direction(action_labels[column], torch.zeros_like(s), dx))
    return found


def reverse(trial: Trial, function: Flat) -> tuple[Tensor, Tensor]:
    """The Jacobians (n, B, S) in s and (n, B, .) in x of the function's n columns, by reverse mode."""

    def column(i: int) -> Callable[[Tensor, Tensor], Tensor]:
        # The sum over the batch is harmless: no member of it depends on another.
        return lambda s, x: function.f(s, x, trial.e)[..., i].sum()

    def jacobians() -> list[tuple[Tensor, ...]]:
        count = len(function.columns)
        return [torch.func.grad(column(i), argnums=(0, 1))(trial.s, function.x) for i in range(count)]

    by_s, by_x = zip(*attempt(f"{function.title} under torch.func.grad", function.users, jacobians), strict=True)
    return torch.stack(by_s), torch.stack(by_x)


def check_finite_derivative(trial: Trial, function: Flat, d: Direction, along: Tensor) -> None:
    """The derivative is finite where the value is."""
    wrong = (~along.isfinite()).nonzero()
    if len(wrong):
        column, i = int(wrong[0, 0]), int(wrong[0, 1])
        raise SpecError(
            f"{function.title}: the derivative of {function.columns[column]} in '{d.label}' is NaN or infinite at the "
            f"{trial.at(i)}, although the value is finite; a torch.where differentiates both of its branches, so keep "
            "the argument of each one inside its domain"
        )


def check_differences(trial: Trial, function: Flat, d: Direction, along: Tensor, values: Tensor) -> None:
    """The derivative along d (n, B), in units of the function for d's whole range, is what small steps show."""
    ahead = function.at((trial.s + STEP * d.ds, function.x + STEP * d.dx, trial.e))
    behind = function.at((trial.s - STEP * d.ds, function.x - STEP * d.dx, trial.e))
    differences = ((ahead - behind) / (2 * STEP)).T
    size = torch.maximum(along.abs(), differences.abs())
    wrong = (along - differences).abs() > CLOSE * size + NEGLIGIBLE * (1 + values.T.abs())
    column = int(wrong.sum(dim=1).argmax())
    if wrong[column].sum() <= KINKS:
        return
    i = int((wrong[column] * (along - differences)[column].abs()).argmax())
    width = float(d.ds[i].sum() + d.dx[i].sum())
    raise SpecError(
        f"{function.title}: the derivative of {function.columns[column]} in '{d.label}' is "
        f"{float(along[column, i]) / width:.5g} by automatic differentiation and "
        f"{float(differences[column, i]) / width:.5g} by finite differences at the {trial.at(i)}; {USE_TORCH}"
    )


def check_not_lost(trial: Trial, function: Flat, d: Direction, along: Tensor, values: Tensor) -> None:
    """A function that takes other values elsewhere has a derivative somewhere: a rounded one has not.

    Elsewhere: at the coordinate of the next point, all other coordinates as they were.
    """
    s = torch.where(d.ds > 0, trial.s.roll(1, dims=0), trial.s)
    x = torch.where(d.dx > 0, function.x.roll(1, dims=0), function.x)
    gap = (function.at((s, x, trial.e)) - values).abs()
    moved = (gap.isfinite() & (gap > NEGLIGIBLE * (1 + values.abs()))).any(dim=0)
    lost = (moved & (along == 0).all(dim=1)).nonzero().flatten()
    if len(lost):
        raise SpecError(
            f"{function.title}: {function.columns[int(lost[0])]} changes with '{d.label}', but its derivative is zero "
            f"at all of {len(trial.s)} points; {USE_TORCH}"
        )


def check_forward(trial: Trial, function: Flat, by_s: Tensor, by_x: Tensor) -> None:
    """Forward mode works, and agrees with reverse mode, along one direction of all variables."""
    ds, dx = torch.zeros_like(trial.s), torch.zeros_like(function.x)
    for d in directions(trial, function):
        ds, dx = ds + d.ds, dx + d.dx
    title = f"{function.title} under torch.func.jvp"
    points, moves = (trial.s, function.x), (ds, dx)
    forward = attempt(
        title, function.users, lambda: torch.func.jvp(lambda s, x: function.f(s, x, trial.e), points, moves)[1]
    )
    terms = torch.cat([by_s * ds, by_x * dx], dim=-1)
    wrong = ((forward.T - terms.sum(dim=-1)).abs() > CLOSE * terms.abs().sum(dim=-1) + NEGLIGIBLE).nonzero()
    if len(wrong):
        column, i = int(wrong[0, 0]), int(wrong[0, 1])
        raise SpecError(
            f"{title}: {function.columns[column]} has other derivatives than in reverse mode at {trial.at(i)}"
        )
