"""The international business cycle of Brumm and Scheidegger (2017): their errors on sparse grids, and ours by `auto`.

    python replication/brumm_scheidegger_2017.py           2, 10, 25 and 50 countries (up to 100 states), about an hour
    python replication/brumm_scheidegger_2017.py --fast    2 countries, 60 seconds a run

Writes results/brumm_scheidegger_2017.csv (a row a run) and .md. Runs that the CSV holds already are not repeated,
unless --again.
"""

from __future__ import annotations

import time

import pandas as pd
import torch
from common import OUT, Row, arguments, markdown, measured

import econrl
from econrl.accuracy import FINER, REPORTED_SEED, in_chunks, own_states
from econrl.euler import condition, costate, find_structure
from econrl.mdp import MDP
from econrl.models import IRBC

POINTS = 10_000
TEXT = """Errors are theirs, log10 over 10,000 points and all countries. With q_j what one more unit of capital is worth
in country j, over what it costs, EE = q_j - 1: |EE| in the smooth model, on a simulation; and with IC the distance of
investment from its bound, max(EE, IC, min(-EE, -IC)) in the nonsmooth one, uniform on the domain, where `max` is the
99.9 per cent quantile. Tomorrow's multipliers are the policy's own, as theirs are. Their sparse grids are piecewise
linear; their domain of productivity may differ from ours, which spans 0.15 in logarithms to each side."""

PUBLISHED = [
    ("smooth", 50, "sparse, level 3", 5_001, -3.42, -2.58),
    ("smooth", 50, "adaptive, 0.001", 12_551, -3.79, -2.91),
    ("nonsmooth", 4, "sparse, level 3", 41, -2.82, -1.87),
    ("nonsmooth", 4, "sparse, level 9", 18_945, -3.83, -2.54),
    ("nonsmooth", 4, "adaptive, 0.001", 12_437, -3.87, -2.80),
]


def errors(mdp: MDP, policy: econrl.functions.StateFunction, s: torch.Tensor) -> torch.Tensor:
    """Their error (B, N) of each country at the states s (B, S)."""
    structure = find_structure(mdp)
    gains = policy.gains if policy.prices else None
    a = policy(s)
    G, _ = condition(mdp, lambda s: costate(mdp, structure, policy, s, gains=gains), policy, s)
    EE = G / torch.func.grad(lambda a: mdp.reward(s, a).sum())(a).abs()
    if not mdp.model.irreversible:
        return EE.abs()
    state = mdp.state(s)
    IC = 1 - mdp.model.k_next(state, mdp.actions(a)) / (state.k * mdp.model.least)
    return torch.maximum(torch.maximum(EE, IC), torch.minimum(-EE, -IC)).abs()


def run(key: Row) -> Row:
    """Solve, and measure on their points."""
    model = IRBC(n=key["states"] // 2, irreversible=key["model"] == "nonsmooth")
    begun = time.perf_counter()
    solution = econrl.solve(model, "auto", time_limit=key["limit"], seed=key["seed"], progress=False)
    seconds = time.perf_counter() - begun
    mdp = MDP(model, quadrature=FINER)
    generator = torch.Generator().manual_seed(REPORTED_SEED)
    policy = solution._policy.on(mdp)
    s = mdp.sample_box(POINTS, generator)
    if not model.irreversible:
        s, _ = own_states(mdp, policy, POINTS, 100, 200, generator)
    error = in_chunks(mdp, lambda s: errors(mdp, policy, s), s).flatten()
    largest = error.sort()[0][int(0.999 * (len(error) - 1))] if model.irreversible else error.max()
    return {"seconds": seconds, "mean": float(error.mean().log10()), "max": float(largest.log10())}


def main() -> None:
    given = arguments(__doc__, fast="2 countries, 60 seconds a run")
    full = [("smooth", 2, 180), ("smooth", 10, 300), ("smooth", 25, 600), ("smooth", 50, 1200)]
    full += [("nonsmooth", 2, 300), ("nonsmooth", 10, 900)]
    runs = [("smooth", 2, 60), ("nonsmooth", 2, 60)] if given.fast else full
    torch.set_num_threads(1)
    wanted = [
        {"model": model, "states": 2 * n, "method": "auto", "limit": limit, "seed": 0} for model, n, limit in runs
    ]
    ours = measured(OUT / "brumm_scheidegger_2017.csv", wanted, run, given.again)
    theirs = pd.DataFrame(PUBLISHED, columns=["model", "states", "method", "points", "mean", "max"])
    table = pd.concat([theirs.assign(source="Brumm and Scheidegger (2017)"), ours.assign(source="econrl")])
    columns = ["model", "states", "source", "method", "points", "seconds", "mean", "max"]
    table = table.sort_values(["model", "states", "source"], ascending=[False, True, True])[columns]
    markdown(
        OUT / "brumm_scheidegger_2017.md", "The international business cycle: sparse grids and auto", TEXT, [table]
    )
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
