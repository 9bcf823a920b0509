"""Every learning algorithm on three models at one time limit, against the exact answer.

    python replication/algorithms.py                60 seconds a run, three seeds
    python replication/algorithms.py --limit 20     20 seconds a run
    python replication/algorithms.py --fast         5 seconds a run, one seed

Writes results/algorithms.csv, .png and .md. Runs that the CSV holds already are not repeated.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
from common import Row, arguments, markdown, measured, parser_of
from matplotlib.figure import Figure

import econrl
from econrl.accuracy.certificates import welfare_loss
from econrl.accuracy.held_out import REPORTED_SEED
from econrl.errors import EconrlError
from econrl.models import BufferStock, RustBus, StochasticGrowth

MODELS = {"growth": StochasticGrowth(), "buffer_stock": BufferStock(), "rust_bus": RustBus(tastes=17)}
METHODS = {
    "reinforce": econrl.REINFORCE(),
    "actor_critic": econrl.ActorCritic(),
    "a2c": econrl.A2C(),
    "trpo": econrl.TRPO(),
    "ppo": econrl.PPO(),
    "q_learning": econrl.QLearning(),
    "sarsa": econrl.SARSA(),
    "dqn": econrl.DQN(),
    "double_dqn": econrl.DoubleDQN(),
    "ddpg, sampled": econrl.DDPG(rung=0),
    "td3": econrl.TD3(),
    "sac": econrl.SAC(),
    "td3, expected": econrl.TD3(expected=True),
    "ddpg, model": econrl.DDPG(rung=2),
    "auto": econrl.Auto(),
}
BEST = 1e-7  # losses are drawn no smaller
TEXT = """The time limit is for everything that a method does. `loss`: of consumption, in every period, that would make
good for following the policy instead of the exact one (`vi`), from the same states with the same shocks; in `rust_bus`,
where nothing is consumed, of the costs of a lifetime. `error`: the mean Euler error on the policy's own simulation,
log10; in `rust_bus`, which has no Euler equation, the mean Bellman error. Both the worst of the seeds. A method that
cannot treat a model says why.

`td0` is not among them: it judges a policy, and improves none. Methods that choose among finitely many actions have a
grid of them in `growth` and `buffer_stock`."""


@cache
def exact(model: str) -> econrl.Solution:
    return econrl.solve(MODELS[model], "vi", progress=False)


def run(key: Row) -> Row:
    """One solve: its error and its loss."""
    try:
        solution = econrl.solve(
            MODELS[key["model"]], METHODS[key["method"]], time_limit=key["limit"], seed=key["seed"], progress=False
        )
    except EconrlError as refusal:
        return {"message": str(refusal)}
    table = solution.accuracy(2000).set_index(["sample", "measure"])
    error = table.loc["ergodic"].loc["bellman" if key["model"] == "rust_bus" else "euler", "mean"]
    reference = exact(key["model"])
    loss = welfare_loss(solution.mdp, solution.policy_function, reference.policy_function, REPORTED_SEED)
    info = solution.info
    return {"seconds": info["seconds"], "steps": info["steps"], "error": error, "loss": loss, "message": ""}


def draw(results: pd.DataFrame, file: Path) -> None:
    """Losses of all seeds, a row a method, a panel a model."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    names = list(METHODS)[::-1]
    for panel, model in zip(figure.subplots(1, len(MODELS), sharey=True), MODELS, strict=True):
        solved = results[results["model"] == model].dropna(subset=["loss"])
        places = [names.index(method) for method in solved["method"]]
        panel.semilogx(solved["loss"].clip(lower=BEST), places, "o", alpha=0.6)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(model, fontsize="medium")
        panel.set_xlabel("loss against the exact policy")
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = parser_of(__doc__, fast="5 seconds a run, one seed")
    parser.add_argument("--limit", type=float, help="seconds a run")
    given = arguments(parser)
    limit, seeds = given.limit or (5.0 if given.fast else 60.0), [0] if given.fast else [0, 1, 2]
    wanted = [
        {"model": model, "method": method, "limit": limit, "seed": seed}
        for seed in seeds
        for model in MODELS
        for method in METHODS
    ]
    results = measured(given.out / "algorithms.csv", wanted, run, given.again)
    draw(results, given.out / "algorithms.png")
    worst = results.groupby(["model", "method"], sort=False)[["error", "loss"]].max().reset_index()
    reasons = results[results["loss"].isna()].drop_duplicates("method")[["model", "method", "message"]]
    title = f"The learning algorithms in {limit:.0f} seconds"
    markdown(given.out / "algorithms.md", title, TEXT, [worst.dropna(), reasons])


if __name__ == "__main__":
    main()
