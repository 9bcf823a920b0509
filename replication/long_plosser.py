"""Long and Plosser (1983) in N sectors: policy errors against the closed form, by the number of sectors.

    python replication/long_plosser.py           up to 20 sectors (420 actions), 300 seconds a run, three seeds
    python replication/long_plosser.py --fast    up to 3 sectors, 20 seconds, one seed

Writes results/long_plosser.csv (a row a run), .png and .md. Runs that the CSV holds already are not repeated, unless
--again.
"""

from __future__ import annotations

from common import arguments, markdown, measured, parser_of
from exact import draw, run, summary

from econrl.models import LongPlosser

TEXT = """N sectors, N states (the outputs) and N (N + 1) actions (inputs and hours). The error of a policy is
|a - a*| / mean |a*|, over all actions, on a simulation of the exact policy; mean and largest, the worst of the seeds.
Optimal shares are constant, and `perturbation` is linear in their log-odds: here it must be exact, and is the start of
`auto`. `ddpg` has to learn it."""


def main() -> None:
    given = arguments(parser_of(__doc__, fast="up to 3 sectors, 20 seconds, one seed"))
    sizes, limit, seeds = ([1, 2, 3], 20.0, [0]) if given.fast else ([1, 2, 3, 5, 10, 20], 300.0, [0, 1, 2])
    wanted = [
        {"states": n, "method": method, "limit": limit, "seed": seed}
        for n in sizes
        for method in ("perturbation", "vi", "ddpg", "auto")
        if method != "vi" or n == 1  # its candidates are 5^A, and A = 6 at n = 2
        for seed in (seeds if method in ("ddpg", "auto") else [0])
    ]
    results = measured(
        given.out / "long_plosser.csv", wanted, lambda key: run(LongPlosser(n=key["states"]), key), given.again
    )
    draw(
        results.assign(all=""),
        "all",
        "sectors",
        given.out / "long_plosser.png",
        title=lambda _: "Long and Plosser, N sectors",
    )
    markdown(
        given.out / "long_plosser.md", "Long and Plosser (1983) against its closed form", TEXT, [summary(results, [])]
    )


if __name__ == "__main__":
    main()
