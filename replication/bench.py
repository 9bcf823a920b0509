"""What econrl reaches, and in what time: one table, with each target beside the figure measured.

Every row is a full `solve` (checks, start, training, measurement) under a time limit, for several seeds; the worst of
them is printed. Errors are log10, on states of the policy's own simulation that no solver has seen; where a closed form
is known the policy's mean error relative to it is given. The library stable-baselines3 is run on the same model, in the
same units, with the same network and batch.

    python replication/bench.py             everything, about five hours; irbc alone is most of it
    python replication/bench.py --fast      a tenth of the time for each row, one seed
    python replication/bench.py growth      only the rows whose name holds a word

Writes results/bench_runs.csv, bench.md and bench_speed.csv. Runs that the CSV holds already are not repeated, unless
--again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from common import arguments, markdown, parser_of
from common import measured as kept

import econrl
from econrl.models import (
    IRBC,
    BrockMirman,
    BufferStock,
    Investment,
    LifeCycle,
    LinearQuadratic,
    Portfolio,
    StochasticGrowth,
)
from econrl.problem.mdp import MDP
from econrl.solvers import Method
from econrl.solvers.common.task import Task

SB3_RANGE = 0.3  # of log-odds to each side of the best constant share: a wider one is worse, for both run to its edge
SB3_SECONDS = 150.0
FASTER, PATHS = 3.0, 64  # gradient steps for each one of stable-baselines3; paths simulated by both
TEXT = """Every row is a full `solve` under a time limit, in seconds; the worst of its seeds, and the median of their
gradient steps a second. Errors: log10, on the policy's own simulation, held out."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a model, a method, seconds, and what it must reach (log10)."""

    name: str
    model: econrl.Model
    method: Method
    seconds: float
    measure: str = "euler"
    mean: float = float("nan")
    max: float = float("nan")


AUTO = econrl.Auto()
HALF_PERCENT, ONE_PERCENT = np.log10(0.005), -2.0

ROWS = [
    Row("growth, vi", StochasticGrowth(), econrl.VI(), 60, mean=-4.5, max=-3.5),
    Row("growth, ddpg rung 0", StochasticGrowth(), econrl.DDPG(rung=0), 120, mean=-2.0),
    Row("growth, ddpg rung 1", StochasticGrowth(), econrl.DDPG(rung=1), 120),
    Row("growth, td3", StochasticGrowth(), econrl.TD3(), 180, mean=-2.0),
    Row("growth, td3 with expected targets", StochasticGrowth(), econrl.TD3(expected=True), 180, mean=-2.7),
    Row("growth, sac", StochasticGrowth(), econrl.SAC(), 180, mean=-2.0),
    Row("growth, ppo", StochasticGrowth(), econrl.PPO(), 180, mean=-1.7),
    Row("growth, a2c", StochasticGrowth(), econrl.A2C(), 180, mean=-1.7),
    Row("growth, ddpg rung 2", StochasticGrowth(), econrl.DDPG(), 60, mean=-3.5, max=-2.5),
    Row("buffer_stock, vi", BufferStock(), econrl.VI(), 120),
    Row("buffer_stock, ddpg rung 2", BufferStock(), econrl.DDPG(), 120, mean=-3.0),
    Row("brock_mirman, ddpg rung 2", BrockMirman(), econrl.DDPG(), 60, "policy", mean=HALF_PERCENT),
    Row("portfolio, ddpg rung 2", Portfolio(), econrl.DDPG(), 60, "policy", mean=HALF_PERCENT),
    Row(
        "investment (exact case), ddpg rung 2",
        Investment(theta=1.0, rho=0.0),
        econrl.DDPG(),
        60,
        "policy",
        mean=HALF_PERCENT,
    ),
    Row(
        "linear_quadratic 6x2, ddpg rung 2",
        LinearQuadratic(n=6, m=2),
        econrl.DDPG(),
        120,
        "policy",
        mean=ONE_PERCENT,
    ),
    Row("growth, auto", StochasticGrowth(), AUTO, 60, mean=-7.0, max=-5.5),
    Row("investment (decreasing returns), auto", Investment(), AUTO, 120, mean=-6.0, max=-4.5),
    Row("irbc (2 countries), auto", IRBC(n=2), AUTO, 180, mean=-6.0, max=-5.0),
    Row("irbc (10 countries), auto", IRBC(n=10), AUTO, 300, mean=-5.3, max=-4.0),
    Row("irbc (25 countries), auto", IRBC(n=25), AUTO, 600, mean=-4.8, max=-3.8),
    Row("irbc (50 countries), auto", IRBC(n=50), AUTO, 1200, mean=-4.3, max=-3.3),
    Row("irreversible irbc (2 countries), auto", IRBC(n=2, irreversible=True), AUTO, 300),
    Row("irreversible irbc (10 countries), auto", IRBC(n=10, irreversible=True), AUTO, 900),
    Row("buffer_stock, auto", BufferStock(), AUTO, 180, mean=-4.5, max=-3.0),
    Row("portfolio (5 assets), auto", Portfolio(n=5), AUTO, 120, "policy", mean=-4.0),
    Row("life_cycle, auto", LifeCycle(), AUTO, 180, mean=-4.0, max=-2.5),
]


def measured(row: Row, seed: int, share: float) -> dict[str, object]:
    """Solve once and measure, on the policy's own simulation and on the box."""
    solution = econrl.solve(row.model, row.method, time_limit=share * row.seconds, seed=seed, progress=False)
    table = solution.accuracy().set_index(["sample", "measure"])
    return {
        "seconds": solution.info["seconds"],
        "steps": solution.info["steps"],
        "measure": row.measure,
        "mean": table.loc[("ergodic", row.measure), "mean"],
        "max": table.loc[("ergodic", row.measure), "max"],
        "box mean": table.loc[("box", row.measure), "mean"],
    }


def measured_sb3(algorithm: str, seconds: float, seed: int) -> dict[str, object]:
    """Train stable-baselines3's DDPG, TD3 or SAC (64x64, batch 256, one gradient step a period) and measure its policy.

    It gets the help that econrl gives itself: states scaled by the domain, actions in log-odds of the share around the
    best constant share, rewards in units of their spread.
    """
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import VecEnvWrapper

    from econrl.sb3 import BatchEnv, solution

    class InUnits(VecEnvWrapper):
        """Rewards less the mean, over the spread, that the best constant share has on the domain."""

        def __init__(self, env: BatchEnv):
            super().__init__(env)
            mdp = env.batch.mdp
            s = mdp.sample_box(1000, torch.Generator().manual_seed(0))
            typical = mdp.reward(s, mdp.act(s, env.normalised.middle))
            self.mean, self.spread = float(typical.mean()), float(typical.std())

        def reset(self) -> np.ndarray:
            return self.venv.reset()

        def step_wait(self) -> tuple:
            observations, rewards, done, infos = self.venv.step_wait()
            return observations, (rewards - self.mean) / self.spread, done, infos

    class Clock(BaseCallback):
        def _on_step(self) -> bool:
            return time.perf_counter() - begun < seconds

    torch.set_num_threads(1)  # other libraries may have changed it meanwhile
    torch.set_flush_denormal(True)
    begun = time.perf_counter()
    model = StochasticGrowth()
    env = InUnits(BatchEnv(model, 1, periods=100, reach=SB3_RANGE))
    learner = getattr(stable_baselines3, algorithm)(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": [64, 64], "activation_fn": torch.nn.SiLU},
        batch_size=256,
        train_freq=1,
        gradient_steps=1,
        gamma=model.beta,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        seed=seed,
        device="cpu",
    )
    learner.learn(10**9, callback=Clock())
    spent = time.perf_counter() - begun
    table = solution(learner, spent).accuracy().set_index(["sample", "measure"])
    return {
        "seconds": spent,
        "steps": learner._n_updates,  # noqa: SLF001  (nothing public counts them)
        "measure": "euler",
        "mean": table.loc[("ergodic", "euler"), "mean"],
        "max": table.loc[("ergodic", "euler"), "max"],
        "box mean": table.loc[("box", "euler"), "mean"],
    }


def measured_speed(name: str, steps: int, rounds: int = 5) -> dict[str, object]:
    """Gradient steps a second of `td3` or `sac` and of stable-baselines3's, at the same network (64x64, SiLU), batch
    (256) and information (64 paths, one period a step); in turns, the fastest round of each, as a busy machine slows
    both."""
    import stable_baselines3

    from econrl.sb3 import BatchEnv

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    every_step = {"warm_up": 0} if name == "sac" else {}  # its policy learns from the first step on, as theirs does
    model, method = StochasticGrowth(), econrl.METHODS[name](environments=PATHS, **every_step)
    learner = method.learner(MDP(model, dtype=method.dtype), Task(model, torch.device("cpu")))
    agent = getattr(stable_baselines3, name.upper())(
        "MlpPolicy",
        BatchEnv(model, PATHS, periods=100, reach=SB3_RANGE),
        policy_kwargs={"net_arch": [64, 64], "activation_fn": torch.nn.SiLU},
        batch_size=256,
        learning_starts=256,
        train_freq=1,
        gradient_steps=1,
        gamma=model.beta,
        device="cpu",
    )

    def ours() -> None:
        for _ in range(steps):
            learner.advance()
            learner.update(1.0)

    def rate(run: Callable[[], object]) -> float:
        begun = time.perf_counter()
        run()
        return steps / (time.perf_counter() - begun)

    agent.learn(20 * PATHS)  # its first steps, which only fill its replay
    pairs = [(rate(ours), rate(lambda: agent.learn(steps * PATHS))) for _ in range(rounds)]
    own, other = (max(column) for column in zip(*pairs, strict=True))
    verdict = "met" if own >= FASTER * other else "MISSED"
    return {"method": name, "steps/s": own, "stable-baselines3": other, "ratio": own / other, f">= {FASTER}": verdict}


def worst(runs: pd.DataFrame) -> pd.DataFrame:
    """One line a row of the table: the worst of its seeds, beside its targets."""
    lines = []
    for name, group in runs.groupby("name", sort=False):
        line = {"model, method": name, "seeds": len(group), "limit": group["limit"].iloc[0]}
        line |= {"seconds": group["seconds"].max(), "steps/s": (group["steps"] / group["seconds"]).median()}
        line |= {"measure": group["measure"].iloc[0], "mean": group["mean"].max(), "max": group["max"].max()}
        row = next((row for row in ROWS if row.name == name), None)
        for column in ("mean", "max"):
            target = float("nan") if row is None else getattr(row, column)
            verdict = "" if np.isnan(target) else f"{'met' if line[column] <= target else 'MISSED'} (<= {target:.1f})"
            line[f"{column} target"] = verdict
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    parser = parser_of(__doc__, fast="a tenth of the time, one seed")
    parser.add_argument("words", nargs="*", help="only rows whose name holds one of these")
    given = arguments(parser)
    share, seeds = (0.1, [0]) if given.fast else (1.0, [0, 1, 2])
    torch.set_num_threads(1)

    def wanted(name: str) -> bool:
        return not given.words or any(word in name for word in given.words)

    speeds = [measured_speed(name, 100 if given.fast else 500) for name in ("td3", "sac") if wanted(f"speed of {name}")]
    if speeds:
        pd.DataFrame(speeds).to_csv(given.out / "bench_speed.csv", index=False)
        print(pd.DataFrame(speeds).round(2).to_string(index=False), flush=True)

    runs: dict[str, tuple[float, Callable[[int], dict[str, object]]]] = {
        row.name: (share * row.seconds, lambda seed, row=row: measured(row, seed, share))  # type: ignore[misc]
        for row in ROWS
    }
    for algorithm in ("DDPG", "TD3", "SAC"):
        train = lambda seed, a=algorithm: measured_sb3(a, share * SB3_SECONDS, seed)  # noqa: E731
        runs[f"growth, stable-baselines3 {algorithm}"] = share * SB3_SECONDS, train
    keys = [
        {"name": name, "seed": seed, "limit": limit}
        for name, (limit, _) in runs.items()
        for seed in seeds
        if wanted(name)
    ]
    file = given.out / "bench_runs.csv"
    if kept(file, keys, lambda key: runs[key["name"]][1](key["seed"]), given.again).empty:
        return
    rows = pd.read_csv(file)
    rows = rows[rows["limit"] == rows["name"].map({name: limit for name, (limit, _) in runs.items()})]
    table = worst(rows.sort_values("name", key=lambda column: column.map(list(runs).index), kind="stable"))
    markdown(given.out / "bench.md", "What econrl reaches", TEXT, [table])
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
