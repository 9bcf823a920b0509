"""What is known of a model's first-order conditions before any state is looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """What the derivatives of the transition show about a spec."""

    endogenous: list[int]
    """Columns of s that actions move, directly or through other states."""
    joint: bool
    """Whether X' needs all nodes of the shock together; one node is enough where shocks are additive."""
    exists: bool
    reason: str = ""
    """Why there is no Euler equation."""
    matters_at_low: tuple[bool, ...] = ()
    matters_at_high: tuple[bool, ...] = ()
    """For each action whether tomorrow's condition G' matters where tomorrow it is on that bound."""
    fixed_at_low: tuple[bool, ...] = ()
    fixed_at_high: tuple[bool, ...] = ()
    """For each action whether that bound of it reads neither an endogenous state nor another action."""
    without_room: tuple[bool, ...] = ()
    """For each action whether there are states at which low = high, so that its condition says nothing."""
    matters_without_room: tuple[bool, ...] = ()
    """For each of these whether tomorrow's condition G' matters there."""
    own: tuple[int, ...] = ()
    """Where each action moves one endogenous state and no other action does: for each of these its action."""


def matter(structure: Structure) -> bool:
    """Whether the multiplier of any bound does."""
    return any(structure.matters_at_low + structure.matters_at_high + structure.matters_without_room)
