"""Households beside published figures, and where the curse of dimensionality sets in for them.

    python replication/households.py                    an hour and a half; 30 seconds a run of the curse, or --limit
    python replication/households.py --only curse       or models with published figures, by their names
    python replication/households.py --fast             one durable, 10 seconds a run

Writes results/households_published.csv and households_curse.csv (a row a run), households.png and households.md. Runs
that the CSVs hold already are not repeated, unless --again. `adaptive` needs `pip install --no-cache-dir ".[sparse]"`.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import Row, arguments, markdown, measured, parser_of
from household_answers import pension_error
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import econrl
from econrl.errors import EconrlError
from econrl.models import Durables, Pension
from econrl.problem.mdp import MDP
from econrl.problem.simulate import discounted

DIMENSIONS, FEW = [1, 2, 3, 5, 8], [1]
METHODS = ["vi", "time_iteration", "smolyak", "adaptive", "ddpg", "pathwise", "fvi", "auto"]
STYLES = dict(zip(METHODS, ["s:", "^:", "v:", "P:", "D--", "X--", "o-", "*-."], strict=True))
LARGER = {"fvi, larger": econrl.FVI(hidden=(24, 24))}
REFERENCES, LONGER = (
    ["fvi", "ddpg", *LARGER],
    3,
)  # runs that are to be the best known, and times the limit that they are given
OVERRUN, SPARE = 3, 120.0  # times the limit and seconds, after which a run is ended
MEMORY = 8 * 2**30  # bytes of address space that a run may take
PATHS, CURSE_PATHS, FAST_PATHS = 100_000, 20_000, 5_000  # simulated lives: published models, the curse, --fast
SEED = 20_261_125  # of their starts and shocks
LEAST = 1e-6  # losses are drawn no smaller


@dataclass(frozen=True)
class Case:
    """A model, the seconds that `fvi` is given, and what has been published of it."""

    model: econrl.Model
    limit: float
    published: str


CASES: dict[str, Case] = {
    "durables, D = 1, T = 5": Case(Durables(), 30.0, "-6.8832 (DeepSimulate), -6.8833 (DeepVPD), 60 s"),
    "durables, D = 1, T = 30": Case(Durables(horizon=30, retired=25), 90.0, "-31.668 (DeepSimulate), 30 s on a GPU"),
    "durables, D = 3, T = 30": Case(Durables(D=3, horizon=30, retired=25), 300.0, ""),
    "durables, D = 8, T = 30": Case(
        Durables(D=8, horizon=30, retired=25), 1440.0, "-45.50 to -45.40 (their plot), up to 1,000 minutes on a GPU"
    ),
    "pension": Case(Pension(), 60.0, "-5.37 (NEGM), 154 s"),
    "pension, longer": Case(Pension(), 180.0, "-6.23 (G2EGM), 83 s"),
}
FAST = ["durables, D = 1, T = 5"]
PUBLISHED = """`reward` (durables): the mean discounted reward of simulated lives from the model's initial states, with
its standard error, and `claim`, the mean of the solution's own value at the same starts. `euler` (pension): the mean
of log10 |c - (beta R_a u'(c'))^(-1/gamma)| / c at t < T - 1 over 100 x 100 points, m in [0.5, 5], n in [0.01, 5],
those that work and keep at least 0.001. Published: Druedahl and Ropke (2025), with T = 5
over 1,000 lives (a standard error of about 0.02), and Druedahl and Jorgensen (2017), each on a machine of their own."""
CURSE = """Durables with T = 5 and D goods, D + 2 states, D + 1 actions. All methods are judged by the mean discounted
reward of the same simulated lives, with the same starts and shocks, one thread each. Reward is C^(1-gamma) / (1-gamma)
of the basket C = c^(1-w) prod_i (d_i + least)^(w/D). A loss is the share of the basket, in every period, that one who
follows the best known policy could give up and be as well off as with this one, exactly:

    (1 - loss)^(1-gamma) R_best = R,        loss = 1 - (R / R_best)^(1 / (1-gamma))

The best known is the best of all rows with this D, longer runs of `fvi` and `ddpg` among them; its own loss is zero, a
filled mark. Losses below 1e-6 are drawn there: the noise of simulation hides them. The limit is that of `solve`;
where `seconds` is more, the method did not stop in time, and where no reward stands beside them, it gave no answer."""


# A run in a process of its own


def run(key: Row, paths: int) -> Row:
    """What one solve gave, or what stopped it: refusals, errors, lack of memory and of time are all answers."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(key, paths, sender))
    process.start()
    sender.close()
    most = OVERRUN * key["limit"] + SPARE
    try:
        return receiver.recv() if receiver.poll(most) else {"message": f"no answer after {most:.0f} seconds"}
    except EOFError:
        process.join()
        return {"message": f"the process died with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def child(key: Row, paths: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what simulations see outside the domain is part of the reward
    began = time.perf_counter()
    try:
        found = solved(key, paths)
    except Exception as failure:  # what a user would see
        name = "" if isinstance(failure, EconrlError) else f"{type(failure).__name__}: "
        found = {"seconds": time.perf_counter() - began, "message": (name + str(failure)).split("\n")[0]}
    sender.send(found)


def solved(key: Row, paths: int) -> Row:
    """Solve, and measure by the model's own measure."""
    model = CASES[key["model"]].model if "model" in key else Durables(D=key["D"])
    method = LARGER.get(key["method"], key["method"])
    solution = econrl.solve(model, method, time_limit=key["limit"], seed=0, device="cpu", progress=False)
    how = {"seconds": solution.info["seconds"], "message": solution.info["message"]}
    if isinstance(model, Pension):
        return {"euler": pension_error(model, solution.policy), **how}
    return {**lives(solution, paths), **how}


@torch.no_grad()
def lives(solution: econrl.Solution, paths: int) -> Row:
    """Mean discounted reward of simulated lives, its standard error, and what the solution claims at their starts."""
    mdp = MDP(solution.model)
    policy, generator = solution.policy_function.on(mdp), torch.Generator().manual_seed(SEED)
    start = mdp.sample_initial(paths, generator)
    (reward,), factor, last = discounted(mdp, policy, [mdp.reward], start, mdp.horizon, generator)
    reward = reward + factor * mdp.terminal(last)
    claim = solution.value_function.on(mdp)(start).mean()
    return {"reward": float(reward.mean()), "standard error": float(reward.std() / paths**0.5), "claim": float(claim)}


# The curse


def with_losses(results: pd.DataFrame) -> pd.DataFrame:
    """Beside each reward, the share of the basket that is lost against the best row with this D."""
    reward = results["reward"] if "reward" in results else pd.Series(np.nan, index=results.index)
    power = 1 / (1 - Durables().gamma)
    loss = 1 - (reward / reward.groupby(results["D"]).transform("max")) ** power
    return results.assign(reward=reward, loss=loss)


def draw(results: pd.DataFrame, limit: float, file: Path) -> None:
    """Loss against D, and seconds against D, a line a method; its mark at the top where there was no answer."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    dimensions = sorted(set(results["D"]))
    for method in METHODS:
        chosen = results[(results["method"] == method) & (results["limit"] == limit)]
        place = chosen["D"].map(dimensions.index)
        draw_method(left, right, method, chosen.assign(place=place).sort_values("place"))
    left.axhline(2.0, color="grey", linewidth=0.8)
    left.text(0.01, 0.985, "no answer", transform=left.transAxes, va="top", fontsize="small", color="grey")
    left.set_yscale("log")
    left.set_ylim(LEAST / 2, 12.0)
    left.set_ylabel("share of the basket lost")
    right.set_ylim(0.0, None)
    right.set_ylabel("seconds")
    right.axhline(limit, color="grey", linewidth=0.8)
    for panel in (left, right):
        panel.set_xticks(range(len(dimensions)), [f"{D}\n{D + 2}" for D in dimensions])
        panel.set_xlim(-0.5, len(dimensions) - 0.5)
        panel.set_xlabel("durables (above), states (below)")
        panel.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, title=f"{limit:.0f} s each")
    figure.savefig(file, dpi=150)


def draw_method(left: Axes, right: Axes, method: str, rows: pd.DataFrame) -> None:
    i, marker = METHODS.index(method), STYLES[method][0]
    shade = str(0.6 * (1 - i / (len(METHODS) - 1)))
    mark = {"color": shade, "markersize": 10 if method == "auto" else 6, "markerfacecolor": "white"}
    line = {**mark, "linewidth": 2.5 if method in ("fvi", "auto") else 1.2}
    solved, missing = rows.dropna(subset=["loss"]), rows[rows["loss"].isna()]
    left.plot(solved["place"], solved["loss"].clip(lower=LEAST), STYLES[method], label=method, **line)
    right.plot(solved["place"], solved["seconds"], STYLES[method], **line)
    best = solved[solved["loss"] == 0]["place"]
    left.plot(best, 0 * best + LEAST, marker, **{**mark, "markerfacecolor": shade})
    left.plot(missing["place"] + 0.09 * (i - 3.5), 0 * missing["place"] + 4.0, marker, **mark)


def curse_runs(limit: float, dimensions: list[int], longer: bool) -> list[Row]:
    """All methods in all dimensions, and longer runs in each."""
    wanted: list[Row] = []
    for D in dimensions:
        wanted += [{"D": D, "method": method, "limit": limit} for method in METHODS]
        wanted += [{"D": D, "method": method, "limit": LONGER * limit} for method in REFERENCES if longer]
    return wanted


def main() -> None:
    parser = parser_of(__doc__, fast="one durable, 10 seconds a run")
    parser.add_argument("--limit", type=float, help="seconds a run of the curse")
    parser.add_argument("--only", nargs="+", choices=[*CASES, "curse"], help="these models, or the curse")
    given = arguments(parser)
    limit = given.limit or (10.0 if given.fast else 30.0)
    paths, curse_paths = (FAST_PATHS, FAST_PATHS) if given.fast else (PATHS, CURSE_PATHS)
    names = [name for name in (FAST if given.fast else CASES) if given.only is None or name in given.only]
    wanted = [{"model": name, "method": "fvi", "limit": limit if given.fast else CASES[name].limit} for name in names]
    published, curse = (given.out / f"households_{part}.csv" for part in ("published", "curse"))
    measured(published, wanted, lambda key: run(key, paths), given.again)
    if given.only is None or "curse" in given.only:
        wanted = curse_runs(limit, FEW if given.fast else DIMENSIONS, longer=not given.fast)
        measured(curse, wanted, lambda key: run(key, curse_paths), given.again)
    report(published, curse, limit, given.out)


def report(published: Path, curse: Path, limit: float, out: Path) -> None:
    """The tables of all runs so far, and the picture of those with this limit."""
    shown = []
    if published.exists():
        found = pd.read_csv(published)
        shown.append(found.assign(published=[CASES[name].published for name in found["model"]]))
    if curse.exists():
        losses = with_losses(pd.read_csv(curse))
        shown.append(losses[[*losses.columns.drop("message"), "message"]])
        draw(losses, limit, out / "households.png")
    for table in shown:
        for name in table.columns.intersection(["reward", "claim"]):
            table[name] = [x if x != x else f"{x:.4f}" for x in table[name]]  # the fourth digit is what differs
    markdown(out / "households.md", "Households", f"{PUBLISHED}\n\n{CURSE}", shown)


if __name__ == "__main__":
    main()
