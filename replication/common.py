"""What the scripts share: runs that are kept in a CSV and not repeated, and a report that says where they were made."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

OUT = Path(__file__).parent / "results"
Row = dict[str, Any]


def parser_of(doc: str, fast: str) -> argparse.ArgumentParser:
    """--fast, with what it means, and --again."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help=fast)
    parser.add_argument("--again", action="store_true", help="repeat runs that the CSV holds already")
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line gave, and `out`, the folder of the results: of fast runs one of their own."""
    given = parser.parse_args()
    given.out = OUT / "fast" if given.fast else OUT
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def measured(file: Path, wanted: Iterable[Row], run: Callable[[Row], Row], again: bool = False) -> pd.DataFrame:
    """The rows of all wanted runs, each a dict that names it: those in `file` as they are, the others made now by
    `run`, which adds what it measured, and written at once. Rows of other runs stay in the file."""
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    chosen = []
    for key in wanted:
        old = [row for row in rows if all(str(row.get(name)) == str(value) for name, value in key.items())]
        if again or not old:
            rows = [row for row in rows if row not in old]
            old = [{**key, **run(key)}]
            rows += old
            pd.DataFrame(rows).to_csv(file, index=False)
            print(", ".join(f"{name} {show(value)}" for name, value in old[0].items()), flush=True)
        chosen += old
    return pd.DataFrame(chosen)


def show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(file: Path, title: str, text: str, tables: list[pd.DataFrame]) -> None:
    """A short report: what was done, where, and the tables."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = f"torch {torch.__version__}, econrl {version('econrl')}"
    parts = [f"# {title}", text, f"Machine: {machine}; {versions}.", *map(pipes, tables)]
    file.write_text("\n\n".join(parts) + "\n")


def pipes(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    shown = [["" if cell != cell else show(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in shown)
