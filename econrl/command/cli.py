"""The command `econrl`: list, check, solve, compare and simulate models, those of the zoo and a user's own."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console

import econrl
from econrl.checks import with_fitted_domain
from econrl.command import export as report
from econrl.display.plots import plot_profiles
from econrl.errors import EconrlError, MethodError, SolveError, SpecError
from econrl.family.family import Family
from econrl.solution import Solution
from econrl.solve import method_of
from econrl.solvers import METHODS
from econrl.solvers.common.method import Method
from econrl.spec.fields_as_text import default, docs_of, fields, read_settings
from econrl.spec.model import Model
from econrl.spec.variables import listed
from econrl.storage import files, saving
from econrl.storage.model_lookup import find_model, line_in_model, make_model, stem, zoo

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
OUTSIDE = 0.1  # share of a simulation outside the domain that calls for a word
SHOWN = 5e-5  # the smallest share that a percentage of two digits shows
ModelText = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .py file (FILE.py:CLASS if it defines several), or a name of `list`.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the model. May be repeated.")
]
Steps = Annotated[int | None, typer.Option(help="The budget: gradient steps of ddpg, iterations of vi.")]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds for a solve; it is turned into steps.")]
Seed = Annotated[int, typer.Option(help="Of all random numbers.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Folder = Annotated[Path, typer.Argument(help="A saved solution.")]
ModelFile = Annotated[str | None, typer.Option(help="The file of the solution's model, if it is not in the zoo.")]
Member = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Of a solution over a range: the model to simulate."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. The program ends with 0; with 1 after a mistake that the user can mend; with 2 for wrong usage;
    with 130 where it was interrupted and had nothing to keep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = in_one_line
            app(arguments)
    except EconrlError as error:
        refuse(str(error))
    except Exception as error:
        where = line_in_model(error)
        if where is None:
            raise  # a mistake of econrl itself: the traceback is needed
        refuse(f"{type(error).__name__}: {error} ({where})")


def in_one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as what it says, without a line of source."""
    print(f"warning: {message}", file=sys.stderr)


def refuse(message: str) -> None:
    """One line on the standard error, and the end."""
    line = "error: " + " ".join(message.split())
    Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(1)


def say(what: Any) -> None:
    """Print a text on one line, or a table, as it is."""
    Console(markup=False, highlight=False).print(what, soft_wrap=isinstance(what, str))


def print_version(wanted: bool) -> None:
    """Print the version and end, where `--version` asks for it."""
    if wanted:
        say(f"econrl {version('econrl')}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Solve dynamic economic models by actor-critic and on grids, with the accuracy of every answer measured."""


# econrl list


@app.command("list")
def list_(method: Annotated[str | None, typer.Option(help="Show the settings of this method.")] = None) -> None:
    """The models of the zoo and the methods; with --method, the settings of one."""
    if method is not None:
        list_settings(type(method_of(method)))
        return
    say("Models")
    for cls in zoo():
        states, actions, _ = variables(make_model(cls, {}))
        say(f"\n  {cls.__name__} ({stem(cls)}.py): {first_line(sys.modules[cls.__module__])}")
        say(f"    states {', '.join(states)}; actions {', '.join(actions)}")
    say("\nMethods (their settings: econrl list --method NAME)\n")
    for name, kind in METHODS.items():
        say(f"  {name}: {first_line(kind)}")


def list_settings(kind: type[Method]) -> None:
    """Print each setting of a method with its default and its docstring."""
    say(f"{kind.name}: {first_line(kind)}\n")
    docs = docs_of(kind)
    for field in fields(kind):
        say(f"  {field.name} = {default(field)}\n    {docs.get(field.name, '')}")


def first_line(documented: type | ModuleType) -> str:
    """The first line of a docstring. That of a model's file is its title; its class may begin with a long sentence."""
    lines = (documented.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""


# econrl check


@app.command()
def check(model: ModelText, parameters: Parameters = None) -> None:
    """Test every promise that a model makes, before anything is solved."""
    spec = read_model(model, parameters)
    found = econrl.check(spec)
    spec = with_fitted_domain(spec)
    say(f"{type(spec).__name__}: ok")
    parameters_text = [f"{name}={value}" for name, value in spec.parameters().items()]
    for title, texts in zip(("states", "actions", "shocks"), variables(spec), strict=True):
        say(f"  {title:10} {', '.join(texts) or 'none'}")
    say(f"  horizon    {'infinite' if spec.horizon is None else f'{spec.horizon} periods'}")
    say(f"  parameters {', '.join(parameters_text)}")
    for warning in found:
        say(f"warning: {warning}")


def variables(model: Model) -> tuple[list[str], list[str], list[str]]:
    """States, actions and shocks in words."""
    states, actions, shocks = ([v.text() for v in listed(f())] for f in (model.states, model.actions, model.shocks))
    return states, actions, shocks


def read_model(text: str, parameters: list[str] | None) -> Model:
    """The model that the words `MODEL --set NAME=VALUE` ask for."""
    cls = find_model(text)
    cls.require_dataclass()
    return make_model(cls, read_settings(cls, cls.__name__, parameters or [], SpecError))


# econrl solve


@app.command()
def solve(
    model: ModelText,
    method: Annotated[str, typer.Option(help="auto, or a name of `list`.")] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the method. May be repeated.")
    ] = None,
    parameters: Parameters = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LOW:HIGH", help="A range of a parameter, solved all at once. May be repeated."),
    ] = None,
    steps: Steps = None,
    time_limit: TimeLimit = None,
    tol: Annotated[float | None, typer.Option(help="Stop at this mean held-out error.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="The folder to write; default: out/MODEL-METHOD.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file that keeps the state of the run; the same command goes on from it.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Solve a model, print how accurate the answer is, and write it to a folder.

    The folder holds the saved solution, policy.csv, simulation.csv, accuracy.csv, training.csv and policy.png.
    Ctrl-C keeps the best policy so far.
    """
    spec, chosen = read_model(model, parameters), read_method(method, option)
    folder = out or Path("out") / f"{stem(type(spec))}-{chosen.name}"
    files.check_new_folder(folder, overwrite)
    saving.parameters_json(spec)  # raises where a parameter could not be saved
    solution = econrl.solve(
        spec,
        chosen,
        steps=steps,
        time_limit=time_limit,
        tol=tol,
        seed=seed,
        device=device,
        progress=not quiet,
        checkpoint=checkpoint,
        over=read_ranges(over),
    )
    accuracy = solution.accuracy()
    if not quiet:
        say(headline(solution))
        say(f"verdict: {solution.verdict}")
        say(report.accuracy_text(accuracy))
        say_outside(accuracy)
    report.export(solution, folder, overwrite, accuracy)
    if not quiet:
        say(f"written to {folder}")


def read_ranges(texts: list[str] | None) -> dict[str, tuple[float, float]] | None:
    """{"gamma": (1.0, 5.0)} from ["gamma=1:5"]."""
    ranges = {}
    for text in texts or []:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(":"))
        except ValueError as error:
            raise SpecError(f"cannot read the range '{text}': write --over NAME=LOW:HIGH, as in gamma=1:5") from error
        ranges[name.strip()] = low, high
    return ranges or None


def say_outside(accuracy: pd.DataFrame) -> None:
    """A word where the simulation is not where the model was solved."""
    shares = accuracy[accuracy["sample"] == "ergodic"].set_index("measure")["mean"]
    if shares["outside"] > OUTSIDE or shares["restarted"] > 0:
        say(
            f"warning: {shares['outside']:.0%} of the simulation lies outside the domain that the model was solved on"
            + (f", {shares['restarted']:.2%} so far that a path began anew" if shares["restarted"] >= SHOWN else "")
            + ". Widen `low` and `high` of its states"
        )


def read_method(name: str, options: list[str] | None) -> Method:
    """The method that the words `--method NAME --option NAME=VALUE` ask for."""
    chosen = method_of(name)
    settings = read_settings(type(chosen), chosen.name, options or [], MethodError)
    return dataclasses.replace(chosen, **settings)  # type: ignore[type-var]


def headline(solution: Solution) -> str:
    """One line: what was solved, how, for how long, and how it ended."""
    info = solution.info
    message = f": {info['message']}" if info["message"] else ""
    return (
        f"{solution.name} by {info['method']}, {info['steps']:,} steps, {info['seconds']:.1f} s, "
        f"{solution.status}{message}"
    )


# econrl compare


@app.command()
def compare(
    model: ModelText,
    methods: Annotated[str, typer.Argument(metavar="METHODS", help="Names of `list`: vi,ddpg.")],
    parameters: Parameters = None,
    steps: Steps = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="A folder for compare.csv.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Solve a model by several methods, and measure them at the same states with the same shocks."""
    spec = read_model(model, parameters)
    chosen = [method_of(name.strip()) for name in methods.split(",")]
    if out is not None:
        files.check_file(out / "compare.csv", overwrite)
    table = econrl.compare(
        spec, chosen, steps=steps, time_limit=time_limit, seed=seed, device=device, progress=not quiet
    )
    if "sample" not in table:  # no method gave a solution
        raise SolveError("; ".join(dict.fromkeys(table["message"])))
    if not quiet:
        print_comparison(table)
    if out is not None:
        write_csv(table, out / "compare.csv", overwrite, quiet)


def print_comparison(table: pd.DataFrame) -> None:
    """Print the table of `compare`, and below it each method's message."""
    say(report.comparison_text(table))
    for method, message in dict(zip(table["method"], table["message"], strict=True)).items():
        if message:
            say(f"{method}: {message}")


def write_csv(table: pd.DataFrame, path: Path, overwrite: bool, quiet: bool = False) -> None:
    """Write a table to a file that appears whole, and say so unless `quiet`."""
    with files.new_file(path, overwrite) as file:
        table.to_csv(file, index=False)
    if not quiet:
        say(f"{len(table):,} rows written to {path}")


# econrl simulate


@app.command()
def simulate(
    folder: Folder,
    periods: Annotated[int | None, typer.Option(min=1, help="Default: 200, or those of the shocks.")] = None,
    paths: Annotated[
        int | None, typer.Option(min=1, help="Default: 1,000, or as many as initial states or paths of shocks.")
    ] = None,
    seed: Seed = 0,
    model: ModelFile = None,
    initial: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="States to begin from, a row for each path.")
    ] = None,
    shocks: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Known shocks, a row for each `path` and `period`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The .csv file to write; default: print means and deviations.")
    ] = None,
    parameters: Member = None,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a saved solution."""
    if out is not None:
        files.check_file(out, overwrite)
    begin, known = (None if file is None else read_csv(file) for file in (initial, shocks))
    solution = read_solution(folder, model, parameters)
    table = solution.simulate(periods, paths, seed, initial=begin, shocks=known)
    if out is None:
        say(report.moments_text(table))
    else:
        write_csv(table, out, overwrite)


def read_csv(file: Path) -> pd.DataFrame:
    """A table from a file. Raises SpecError where there is none."""
    try:
        return pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise SpecError(f"'{file}' cannot be read as a table: {error}") from error


def read_solution(folder: Path, model: str | None, parameters: list[str] | None) -> Solution:
    """The saved solution that the words `FOLDER --model FILE --set NAME=VALUE` ask for; its warnings are shown."""
    solution = econrl.load(folder, None if model is None else find_model(model))
    if parameters:
        one = type(solution.model.one if isinstance(solution.model, Family) else solution.model)
        solution = solution.at(**read_settings(one, one.__name__, parameters, SpecError))
    for warning in solution.warnings:
        in_one_line(warning)
    return solution


# econrl profiles


@app.command()
def profiles(
    folder: Folder,
    paths: Annotated[int, typer.Option(min=1)] = 1000,
    seed: Seed = 0,
    model: ModelFile = None,
    out: Annotated[Path | None, typer.Option(help="The .csv file to write; default: print means.")] = None,
    plot: Annotated[Path | None, typer.Option(help="The picture to write, as .png.")] = None,
    parameters: Member = None,
    overwrite: Overwrite = False,
) -> None:
    """Means, deviations and quantiles of simulated lives by period, as a table and as a picture."""
    for path in (out, plot):
        if path is not None:
            files.check_file(path, overwrite)
    solution = read_solution(folder, model, parameters)
    table = solution.profiles(paths, seed)
    if out is not None:
        write_csv(table, out, overwrite)
    if plot is not None:
        with files.new_file(plot, overwrite) as file:
            plot_profiles(solution, table, paths).savefig(file, format=plot.suffix.lstrip(".") or "png", dpi=150)
        say(f"profiles drawn to {plot}")
    if out is None and plot is None:
        say(report.profiles_text(table))
