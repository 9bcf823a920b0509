"""Files and tables that a person reads: a solution's folder, and what the command line prints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from econrl.errors import OutsideDomain
from econrl.solution import Solution
from econrl.storage import saving
from econrl.storage.files import new_folder

if TYPE_CHECKING:
    from rich.table import Table
EXPORTED_PATHS = 100  # of simulation.csv: 200 periods each make a file of a few megabytes
STATISTICS = ["mean", "p99", "max"]


def export(
    solution: Solution, folder: str | Path, overwrite: bool = False, accuracy: pd.DataFrame | None = None
) -> Path:
    """Write a saved solution with tables and a picture: policy.csv, simulation.csv, accuracy.csv and policy.png.

    `accuracy` is what `solution.accuracy()` gave, to save its time. All of the folder appears at once, or nothing.
    Raises SaveError where the folder exists, unless `overwrite`, and where it cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideDomain)  # which the accuracy table says
        simulation = solution.simulate(paths=EXPORTED_PATHS)
    tables = {
        "policy.csv": solution.policy_table(),
        "simulation.csv": simulation,
        "accuracy.csv": solution.accuracy() if accuracy is None else accuracy,
    }
    with new_folder(folder, overwrite) as fresh:
        functions = solution.policy_function, solution.value_function
        saving.write(fresh, solution.model, *functions, solution.training, solution.info)
        for name, table in tables.items():
            table.to_csv(fresh / name, index=False)
        solution.plot().savefig(fresh / "policy.png", dpi=150)
    return Path(folder)


# Tables for a terminal


def accuracy_text(table: pd.DataFrame) -> Table:
    """A row for each sample and measure of `Solution.accuracy`."""
    shown = new_table(["sample", "measure"], STATISTICS, "errors as log10, shares in percent")
    for row in table.to_dict("records"):
        shown.add_row(row["sample"], row["measure"], *(number(row[x], row["unit"]) for x in STATISTICS))
    return shown


def comparison_text(table: pd.DataFrame) -> Table:
    """Two rows for each method of `compare`: the optimality error of its policy on both samples, and what it cost."""
    shown = new_table(["method", "sample", "measure"], [*STATISTICS, "seconds", "steps"], "errors as log10")
    for row in table[table["measure"].isin(["euler", "greedy"])].to_dict("records"):
        cost = (f"{row['seconds']:.1f}", f"{row['steps']:,.0f}")
        shown.add_row(row["method"], row["sample"], row["measure"], *(number(row[x]) for x in STATISTICS), *cost)
    return shown


def moments_text(simulation: pd.DataFrame) -> Table:
    """Mean and standard deviation of every column of `Solution.simulate`."""
    shown = new_table(["variable"], ["mean", "std"], f"{len(simulation):,} simulated states")
    values = simulation.drop(columns=["path", "period", "outside"])
    for name in values:
        shown.add_row(str(name), f"{values[name].mean():.5g}", f"{values[name].std():.5g}")
    shown.add_row("outside the domain", number(simulation["outside"].mean(), "share"), "")
    return shown


def profiles_text(table: pd.DataFrame) -> Table:
    """Means by period of every variable of `Solution.profiles`."""
    means = table.pivot_table("mean", "period", "variable", sort=False)
    shown = new_table([], ["period", *means.columns], "means of simulated lives")
    for period, row in means.iterrows():
        shown.add_row(str(period), *(f"{x:.4g}" for x in row))
    return shown


def new_table(words: list[str], numbers: list[str], caption: str) -> Table:
    """An empty table with these columns: words to the left, numbers to the right."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE, caption=caption, caption_justify="left", pad_edge=False)
    for name in words:
        shown.add_column(name, no_wrap=True)
    for name in numbers:
        shown.add_column(name, justify="right")
    return shown


def number(x: float, unit: str = "log10") -> str:
    """Two decimals; a share in percent; nothing where there is no number."""
    if x != x:
        return ""
    return f"{x:.2%}" if unit == "share" else f"{x:.2f}"
