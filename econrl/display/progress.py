"""What a user sees while a model is solved: one line, with the error on held-out points."""

from __future__ import annotations

import math
import sys
from typing import Any, Self

import torch


class Progress:
    """A live line on a terminal; elsewhere, if asked for, a line now and then."""

    def __init__(self, device: torch.device, method: str, wanted: bool | None) -> None:
        self.device, self.method = device, method
        self.on_terminal = sys.stderr.isatty()
        self.shown = self.on_terminal if wanted is None else wanted
        self.best, self.last_line = math.inf, -math.inf

    def __enter__(self) -> Self:
        if self.shown:
            from rich.console import Console

            self.console = Console(stderr=True, highlight=False, markup=False)
            self.status = self.console.status(f"{self.method}: starting") if self.on_terminal else None
            if self.status:
                self.status.start()
            else:
                self.console.print(f"{self.method}: starting on {self.device}")
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.shown and self.status:
            self.status.stop()

    def row(self, row: dict[str, Any]) -> None:
        """Show a measurement: step, seconds, error."""
        if not self.shown:
            return
        self.best = min(self.best, row["error"])
        line = (
            f"{self.method}  step {row['step']:,}  {row['seconds']:.0f} s  "
            f"held-out error 10^{exponent(row['error'])} (best 10^{exponent(self.best)})"
        )
        if self.status:
            self.status.update(line)
        elif row["seconds"] - self.last_line > 5:
            self.last_line = row["seconds"]
            self.console.print(line)

    def say(self, text: str) -> None:
        """Print a line, if anything is shown."""
        if self.shown and text:
            self.console.print(text)


def exponent(error: float) -> str:
    """log10 of an error, or the error itself where it has none."""
    return f"{math.log10(error):.2f}" if 0 < error < math.inf else str(error)
