"""Where variables lie in flat tensors, and the named views through which a spec reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from econrl.spec.shocks import Shock
from econrl.spec.variable import Map, Variable
from econrl.spec.variables import ActionKind, State, StateKind


class View:
    """Variables by name over one flat tensor: `s.k` has the batch's shape, plus (n,) for a vector variable."""

    def __init__(self, kind: str, values: dict[str, Tensor]) -> None:
        self._kind = kind
        for name, value in values.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        declared = ", ".join(n for n in self.__dict__ if not n.startswith("_")) or "none"
        raise AttributeError(f"no {self._kind} is called '{name}' (declared so far: {declared})")


def named(view: View) -> dict[str, Tensor]:
    """The variables of a view, by name."""
    return {name: value for name, value in vars(view).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Slot:
    """Where a variable lies in the flat tensor: columns start to stop."""

    name: str
    size: int | None
    start: int
    group: str | None = None

    @property
    def stop(self) -> int:
        """The first column after it."""
        return self.start + (self.size or 1)

    @property
    def indices(self) -> range:
        """Its columns in the flat tensor."""
        return range(self.start, self.stop)

    @property
    def columns(self) -> list[str]:
        """The names of its columns in tables: k, or k[0], k[1], ..."""
        return [self.name] if self.size is None else [f"{self.name}[{i}]" for i in range(self.size)]

    def read(self, flat: Tensor) -> Tensor:
        """The variable's values in a flat tensor (..., width): (...) for a scalar, (..., n) for a vector."""
        return flat[..., self.start] if self.size is None else flat[..., self.start : self.stop]


@dataclass(frozen=True)
class Layout:
    """What the declarations of a spec say of its flat tensors, on whatever device and in whatever precision."""

    state_slots: list[Slot]
    """The states, and last t for a life cycle."""
    action_slots: list[Slot]
    shock_slots: list[Slot]
    """The shocks, then the next index of every Markov chain."""
    shown_slots: list[Slot]
    """The states as the spec reads them and tables show them: a Markov chain by its value."""
    shown_shocks: list[Slot]
    """The shocks and next period's chains as the spec reads them."""
    low: list[float]
    high: list[float]
    """The domain of each column of the states."""
    horizon: int | None
    finite: list[tuple[int, int]]
    """The column of each Markov chain and discrete state, and how many values it has."""
    chain_columns: list[int]
    parameters: list[int]
    choices: list[tuple[int, int]]
    """The column of each choice, and how many options it has."""

    @classmethod
    def of(
        cls, states: Sequence[StateKind], actions: Sequence[ActionKind], shocks: Sequence[Shock], horizon: int | None
    ) -> Self:
        """The layout of these declarations, side by side in the order in which they stand."""
        every = with_calendar(states, horizon)
        chains = [v for v in states if v.by_itself]
        parts: list[Variable] = [*(part for v in shocks for part in v.parts), *chains]
        state_slots, shock_slots = slots(every), slots(parts)
        laid = list(zip(every, state_slots, strict=True))
        domains = [v.domain for v in every]
        return cls(
            state_slots=state_slots,
            shock_slots=shock_slots,
            shown_slots=[Slot(v.name, v.size, slot.start) for v, slot in laid],
            shown_shocks=[Slot(v.name, v.size, slot.start) for v, slot in zip(parts, shock_slots, strict=True)],
            low=[float(bound) for low, _ in domains for bound in low],
            high=[float(bound) for _, high in domains for bound in high],
            horizon=horizon,
            finite=[(column, v.count) for v, slot in laid for column in slot.indices if v.count is not None],
            chain_columns=[slot.start for v, slot in laid if v.by_itself],
            parameters=[slot.start for v, slot in laid if v.parameter],
            **actions_laid(actions),
        )

    def with_actions(self, actions: Sequence[ActionKind]) -> Self:
        """The same states and shocks with other actions."""
        return replace(self, **actions_laid(actions))

    @property
    def S(self) -> int:
        """Columns of flat states."""
        return width(self.state_slots)

    @property
    def A(self) -> int:
        """Columns of flat actions."""
        return width(self.action_slots)

    @property
    def E(self) -> int:
        """Columns of flat shocks."""
        return width(self.shock_slots)

    @property
    def next_chains(self) -> list[Slot]:
        """Those of the shocks that are the next index of a Markov chain."""
        return self.shock_slots[len(self.shock_slots) - len(self.chain_columns) :]

    @cached_property
    def whole(self) -> list[int]:
        """The columns of whole numbers: those of `finite`, and t."""
        return [*(column for column, _ in self.finite), *([self.S - 1] if self.horizon is not None else [])]

    @cached_property
    def continuous(self) -> list[int]:
        """The columns of continuous states."""
        return [c for c in range(self.S) if c not in self.whole]

    @cached_property
    def logarithmic(self) -> list[int]:
        """Positive states whose domain spans more than a factor of two, as wealth does, are best measured in
        logarithms."""
        moving = [c for c in self.continuous if c not in self.parameters]
        return [c for c in moving if self.low[c] > 0 and self.high[c] > 2 * self.low[c]]

    @cached_property
    def free(self) -> list[int]:
        """The columns of the continuous actions."""
        return [c for c in range(self.A) if c not in [column for column, _ in self.choices]]


def actions_laid(actions: Sequence[ActionKind]) -> dict[str, Any]:
    """Where the actions lie, and which columns are choices, each with its number of options."""
    laid = slots(actions)
    counted = [(slot.start, v.shares.options) for v, slot in zip(actions, laid, strict=True)]
    return {"action_slots": laid, "choices": [(column, n) for column, n in counted if n is not None]}


def with_calendar(states: Sequence[StateKind], horizon: int | None) -> list[StateKind]:
    """The states, and the period of a life cycle."""
    return [*states, *([State("t", 0, horizon - 1)] if horizon is not None else [])]


def slots(variables: Sequence[Variable]) -> list[Slot]:
    """The variables of a declaration laid side by side, in order."""
    laid: list[Slot] = []
    start = 0
    for v in variables:
        laid.append(Slot(v.name, v.held, start, v.group))
        start = laid[-1].stop
    return laid


class Reader:
    """From flat states (..., S), or shocks (..., E), to the view that the spec reads; `maps` are those of the variables
    that it reads as anything but what is held, by name."""

    def __init__(self, layout: Sequence[Slot], maps: Mapping[str, Map], kind: str = "state") -> None:
        self.layout, self.maps, self.kind = layout, list(maps.items()), kind

    def __call__(self, flat: Tensor) -> View:
        values = {slot.name: slot.read(flat) for slot in self.layout}
        for name, read in self.maps:
            values[name] = read(values[name])
        return View(self.kind, values)


def flatten(layout: Sequence[Slot], values: dict[str, Tensor]) -> Tensor:
    """The inverse of reading: named values, broadcast to one batch shape, as one flat tensor."""
    parts = [values[v.name] if v.size is not None else values[v.name].unsqueeze(-1) for v in layout]
    batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts], dim=-1)


def adjacent(columns: list[int]) -> slice | list[int]:
    """Columns that follow one another as a slice, which is a view; a list is sent to the device at every use."""
    run = slice(columns[0], columns[-1] + 1) if columns else slice(0, 0)
    return run if columns == list(range(run.start, run.stop)) else columns


def width(layout: list[Slot]) -> int:
    """The columns of a flat tensor with this layout."""
    return layout[-1].stop if layout else 0
