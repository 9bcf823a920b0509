"""Where variables lie in flat tensors, and the named views through which a spec reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.spec.variables import MarkovChain


class View:
    """Variables by name over one flat tensor: `s.k` has the batch's shape, plus (n,) for a vector variable."""

    def __init__(self, kind: str, values: dict[str, Tensor]):
        self._kind = kind
        for name, value in values.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        declared = ", ".join(n for n in self.__dict__ if not n.startswith("_")) or "none"
        raise AttributeError(f"no {self._kind} is called '{name}' (declared so far: {declared})")


@dataclass(frozen=True)
class Slot:
    """Where a variable lies in the flat tensor: columns start to stop."""

    name: str
    size: int | None
    start: int
    group: str | None = None

    @property
    def stop(self) -> int:
        return self.start + (self.size or 1)

    @property
    def columns(self) -> list[str]:
        return [self.name] if self.size is None else [f"{self.name}[{i}]" for i in range(self.size)]

    def read(self, flat: Tensor) -> Tensor:
        return flat[..., self.start] if self.size is None else flat[..., self.start : self.stop]


def slots(variables: Sequence[Any], width: Callable[[Any], int | None] = lambda v: v.size) -> list[Slot]:
    """The variables of a declaration laid side by side, in order."""
    laid, start = [], 0
    for v in variables:
        laid.append(Slot(v.name, width(v), start, v.group))
        start = laid[-1].stop
    return laid


def flatten(layout: Sequence[Slot], values: dict[str, Tensor]) -> Tensor:
    """The inverse of reading: named values, broadcast to one batch shape, as one flat tensor."""
    parts = [values[v.name] if v.size is not None else values[v.name].unsqueeze(-1) for v in layout]
    batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts], dim=-1)


def adjacent(columns: list[int]) -> slice | list[int]:
    """Columns that follow one another as a slice, which is a view; a list is sent to the device at every use."""
    run = slice(columns[0], columns[-1] + 1) if columns else slice(0, 0)
    return run if columns == list(range(run.start, run.stop)) else columns


def held_size(v: Any) -> int | None:
    """The width of a variable in the flat tensor; a Markov chain is one index whatever its values."""
    return None if isinstance(v, MarkovChain) else v.size


def width(layout: list[Slot]) -> int:
    return layout[-1].stop if layout else 0
