"""Independent copies of a small model, as they are and with their states mixed by a random rotation: policy errors.

The exact policy is the closed form of Brock and Mirman, and for stochastic growth that of one copy, solved by the
endogenous grid method.

    python replication/rotated_copies.py           up to 10 copies (20 states), 300 seconds a run, three seeds
    python replication/rotated_copies.py --fast    up to 2 copies, 20 seconds, one seed

Writes results/rotated_copies.csv (a row a run), .png and .md. Runs that the CSV holds already are not repeated, unless
--again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import arguments, markdown, measured, parser_of
from exact import draw, run, summary

import econrl
from econrl.models import BrockMirman, StochasticGrowth
from econrl.models.copies import Copies, copies

TEXT = """n copies have 2n states and n actions. The error of a policy is |a - a*| / mean |a*|, over all actions, on a
simulation of the exact policy; mean and largest, the worst of the seeds. `rotated`: the states of all copies are mixed
by one random rotation a kind of state (seed 0), so that no state is one copy's own."""


def model_of(key: dict, folder: Path) -> Copies:
    rotate = 0 if key["states are"] == "rotated" else None
    if key["model"] == "brock_mirman":
        return copies(BrockMirman(), key["states"] // 2, rotate)
    if not folder.exists():
        econrl.solve(StochasticGrowth(), "egm", progress=False).save(folder)
    return copies(StochasticGrowth(), key["states"] // 2, rotate, folder)


def main() -> None:
    given = arguments(parser_of(__doc__, fast="up to 2 copies, 20 seconds, one seed"))
    sizes, limit, seeds = ([1, 2], 20.0, [0]) if given.fast else ([1, 2, 5, 10], 300.0, [0, 1, 2])
    wanted = [
        {"model": model, "states are": kind, "states": 2 * n, "method": method, "limit": limit, "seed": seed}
        for model in ("brock_mirman", "growth")
        for n in sizes
        for kind in ("their own", "rotated")
        if n > 1 or kind == "their own"  # one copy has nothing to be mixed with
        for method in ("perturbation", "vi", "auto")
        if method != "vi" or n == 1
        for seed in (seeds if method == "auto" else [0])
    ]
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "growth"
        results = measured(
            given.out / "rotated_copies.csv", wanted, lambda key: run(model_of(key, one), key), given.again
        )
    shown = results.assign(panel=results["model"] + ", states " + results["states are"])
    draw(shown, "panel", "states", given.out / "rotated_copies.png", title=str)
    table = summary(results, ["model", "states are"])
    markdown(given.out / "rotated_copies.md", "Copies of a small model against the exact policy", TEXT, [table])


if __name__ == "__main__":
    main()
