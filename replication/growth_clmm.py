"""The table of Coleman, Lyon, Maliar and Maliar (2021): Euler errors on stochastic growth, theirs and ours.

Errors are log10, on one simulated path of 10,000 periods after 200, as in the paper; complete polynomials of degree 2
to 5 are theirs, as published.

    python replication/growth_clmm.py           60 seconds for each method
    python replication/growth_clmm.py --fast    10 seconds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

import econrl
from econrl.models import StochasticGrowth
from econrl.optimality.euler import euler_residuals

OUT = Path(__file__).parent / "results"
PUBLISHED = {2: (-3.83, -2.76), 3: (-4.97, -3.32), 4: (-6.06, -4.03), 5: (-7.00, -4.70)}
PERIODS, BURN_IN = 10_000, 200


@torch.no_grad()
def errors(solution: econrl.Solution) -> tuple[float, float]:
    """Mean and largest Euler error on one path from k = 1, z = 0."""
    mdp, generator = solution.mdp, torch.Generator().manual_seed(20_210_101)
    s = mdp.tensor([[1.0, 0.0]])
    path = []
    for _ in range(BURN_IN + PERIODS):
        path.append(s)
        s = mdp.transition(s, solution.policy_function(s), mdp.sample_shocks(s, generator))
    visited = torch.cat(path[BURN_IN:])
    residuals = torch.cat(
        [euler_residuals(mdp, solution.structure, solution.policy_function, p) for p in visited.split(2000)]
    )
    return float(residuals.abs().mean().log10()), float(residuals.abs().max().log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="10 seconds for each method")
    seconds = 10.0 if parser.parse_args().fast else 60.0
    rows = [
        {"method": f"complete polynomials, degree {d} (published)", "mean": mean, "max": largest}
        for d, (mean, largest) in PUBLISHED.items()
    ]
    for method in ("perturbation", "egm", "vi", "ddpg", "auto"):
        solution = econrl.solve(StochasticGrowth(), method, time_limit=seconds, progress=False)
        mean, largest = errors(solution)
        rows.append({"method": f"econrl {method}", "seconds": solution.info["seconds"], "mean": mean, "max": largest})
    table = pd.DataFrame(rows)
    OUT.mkdir(exist_ok=True)
    table.to_csv(OUT / "growth_clmm.csv", index=False)
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
