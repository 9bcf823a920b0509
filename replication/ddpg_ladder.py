"""What each rung of the ladder brings: Euler errors at the same time limit, from plain DDPG to the polish.

    python replication/ddpg_ladder.py           60 seconds a run, three seeds
    python replication/ddpg_ladder.py --fast    10 seconds, one seed

Writes results/ddpg_ladder.csv (a row a run), results/ddpg_ladder_path.csv (the held-out error over time) and
results/ddpg_ladder.png. Runs that the first file holds already are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import econrl
from econrl.models import IRBC, BufferStock, StochasticGrowth

OUT = Path(__file__).parent / "results"
MODELS = {"growth": StochasticGrowth(), "buffer_stock": BufferStock(), "irbc (2 countries)": IRBC(n=2)}
RUNGS = {
    "0 sampled": econrl.DDPG(rung=0),
    "1 expected": econrl.DDPG(rung=1),
    "2 model": econrl.DDPG(rung=2),
    "3 rollout": econrl.DDPG(rung=3),
    "4 Euler": econrl.Newton(),
}


def run(model: str, rung: str, seconds: float, seed: int) -> tuple[dict, pd.DataFrame]:
    """One solve: its accuracy, and its held-out error over time. The polish begins with its own actor-critic run."""
    key = {"model": model, "rung": rung, "limit": seconds, "seed": seed}
    solution = econrl.solve(MODELS[model], RUNGS[rung], time_limit=seconds, seed=seed, progress=False)
    table = solution.accuracy().set_index(["sample", "measure"])
    mean, largest = table.loc[("ergodic", "euler"), ["mean", "max"]]
    row = {**key, "seconds": solution.info["seconds"], "steps": solution.info["steps"], "mean": mean, "max": largest}
    path = solution.training[["seconds", "error"]].assign(**key)
    return row, path


def draw(paths: pd.DataFrame, file: Path) -> None:
    """The best held-out error so far against seconds, a line a run, a panel a model."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(MODELS), sharey=True)
    for panel, model in zip(panels, MODELS, strict=True):
        for rung in RUNGS:
            chosen = paths[(paths["model"] == model) & (paths["rung"] == rung)]
            for seed, (_, one) in enumerate(chosen.groupby("seed")):
                label = rung if seed == 0 else None
                color = f"C{list(RUNGS).index(rung)}"
                panel.semilogy(one["seconds"], one["error"].cummin(), ".-", color=color, label=label)
        panel.set_title(model, fontsize="medium")
        panel.set_xlabel("seconds")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("held-out Euler error, best so far")
    panels[-1].legend(title="rung", frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="10 seconds, one seed")
    parser.add_argument("--seeds", type=int, help="how many")
    given = parser.parse_args()
    seconds, seeds = (10.0, range(given.seeds or 1)) if given.fast else (60.0, range(given.seeds or 3))
    OUT.mkdir(exist_ok=True)
    table, tracks = OUT / "ddpg_ladder.csv", OUT / "ddpg_ladder_path.csv"
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    paths = [pd.read_csv(tracks)] if tracks.exists() else []
    done = {(row["model"], row["rung"], row["limit"], row["seed"]) for row in rows}
    wanted = [(m, r, seconds, seed) for m in MODELS for r in RUNGS for seed in seeds]
    for key in (key for key in wanted if key not in done):
        row, path = run(*key)
        rows.append(row)
        paths.append(path)
        pd.DataFrame(rows).to_csv(table, index=False)
        pd.concat(paths).to_csv(tracks, index=False)
        print(f"{row['model']}, {row['rung']}, seed {row['seed']}: {row['mean']:.2f} / {row['max']:.2f}", flush=True)
    shown = pd.concat(paths)
    draw(shown[shown["limit"] == seconds], OUT / "ddpg_ladder.png")
    result = pd.DataFrame(rows)
    worst = result[result["limit"] == seconds].groupby(["model", "rung"])[["mean", "max"]].max()
    print(f"\nworst of the seeds, log10, ergodic, {seconds:.0f} seconds\n\n{worst.round(2).to_string()}")


if __name__ == "__main__":
    main()
