"""The international business cycle of Brumm and Scheidegger (2017): their errors on sparse grids, and ours by `auto`.

    python replication/brumm_scheidegger_2017.py           2, 10, 25 and 50 countries (up to 100 states), about an hour
    python replication/brumm_scheidegger_2017.py --fast    2 countries, 60 seconds a run

Writes results/brumm_scheidegger_2017.csv (a row a run) and .md. Runs that the CSV holds already are not repeated,
unless --again. The rows on grids need `pip install --no-cache-dir ".[sparse]"`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pandas as pd
import torch
from common import Row, arguments, markdown, measured, parser_of
from torch import Tensor

import econrl
from econrl.accuracy.held_out import REPORTED_SEED
from econrl.models import IRBC
from econrl.problem.chunks import in_chunks
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER
from econrl.problem.simulate import own_states
from econrl.problem.state_function import StateFunction
from econrl.solvers.grid.adaptive import tasmanian

POINTS = 10_000
TEXT = """Errors are theirs, log10 over 10,000 points and all countries:

EE = beta E{lambda' [a' A zeta k'^(zeta-1) + 1 - delta + phi/2 g' (g' + 2)] - (1-delta) mu'} / (lambda (1 + phi g)) - 1

|EE| in the smooth model, on a simulation; and, with IC the distance of k' from its bound, max(EE, IC, min(-EE, -IC)) in
the nonsmooth one, uniform on the domain, where `max` is the 99.9 per cent quantile. Their domain of productivity may
differ from ours, which spans 0.15 in logarithms to each side.

Rows `k', lambda, mu on a grid` take these functions at the points of their grids from the solution by `auto`, and
interpolate them as they do: what such a grid can reach. `c is what is left` is the same with lambda from the
consumption that the interpolated k' leave. Every policy of econrl keeps the resource constraint in this way; an
interpolated lambda does not, and the error of k' over consumption, which is twenty times smaller than k', does not show
in it."""

PUBLISHED = [
    ("smooth", 50, "sparse, level 3", 5_001, -3.42, -2.58),
    ("smooth", 50, "adaptive, 0.001", 12_551, -3.79, -2.91),
    ("nonsmooth", 4, "sparse, level 3", 41, -2.82, -1.87),
    ("nonsmooth", 4, "sparse, level 5", 401, -3.34, -2.11),
    ("nonsmooth", 4, "sparse, level 7", 2_929, -3.57, -2.32),
    ("nonsmooth", 4, "sparse, level 9", 18_945, -3.83, -2.54),
    ("nonsmooth", 4, "adaptive, 0.001", 12_437, -3.87, -2.80),
]
Solved = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""k' (B, N), lambda (B, 1) and mu (B, N) at the states (B, S)."""


def parts_of(mdp: MDP, policy: StateFunction) -> Solved:
    """What they solve for, of a policy of ours: lambda is the marginal utility of consumption."""
    model = mdp.model

    def parts(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, state = policy(s), mdp.state(s)
        k = model.k_next(state, mdp.actions(a))
        price = marginal_utility(model, model.consumption(state, mdp.actions(a)))
        gains = policy.multipliers(s) if policy.knows_multipliers else torch.zeros_like(k)
        return k, price, -gains * price * (1 + model.phi * (k / state.k - 1))

    return parts


def marginal_utility(model: IRBC, c: Tensor) -> Tensor:
    """lambda (B, 1), by the first country's consumption."""
    return (c[..., :1] / (model.A - model.delta)) ** (-1 / model.g[0])


def errors(mdp: MDP, parts: Solved, s: Tensor) -> Tensor:
    """Their error (B, N) of each country at the states s (B, S)."""
    model, state = mdp.model, mdp.state(s)
    k, price, _ = parts(s)
    g = k / state.k - 1
    e = mdp.nodes
    z_next = model.rho * state.z.unsqueeze(-2) + e[..., : model.n] + e[..., model.n :]
    k_next = k.unsqueeze(-2).expand_as(z_next)
    later, price_next, mu_next = parts(torch.cat([k_next, z_next], dim=-1).flatten(0, 1))
    later, price_next, mu_next = (x.unflatten(0, (len(s), -1)) for x in (later, price_next, mu_next))
    g_next = later / k_next - 1
    gross = z_next.exp() * model.A * model.zeta * k_next ** (model.zeta - 1) + 1 - model.delta
    gain = price_next * (gross + model.phi / 2 * g_next * (g_next + 2)) - (1 - model.delta) * mu_next
    expected = (mdp.weights(s).unsqueeze(-1) * model.beta * gain).sum(dim=-2)
    EE = expected / (price * (1 + model.phi * g)) - 1
    if not model.irreversible:
        return EE.abs()
    IC = 1 - k / (state.k * model.least)
    return torch.maximum(torch.maximum(EE, IC), torch.minimum(-EE, -IC)).abs()


def on_grid(mdp: MDP, parts: Solved, level: int, feasible: bool) -> tuple[Solved, int]:
    """k', lambda and mu interpolated on Tasmanian's sparse grid of a level, and the number of its points; `feasible`:
    lambda from what the interpolated k' leave to consume."""
    model, n = mdp.model, mdp.model.n
    grid = tasmanian().makeLocalPolynomialGrid(mdp.S, 2 * n + 1, level - 1, 1, "localp")
    middle, radius = (mdp.low + mdp.high) / 2, (mdp.high - mdp.low) / 2
    points = middle + radius * torch.as_tensor(grid.getPoints())
    grid.loadNeededValues(torch.cat(parts(points), dim=-1).numpy())

    def interpolated(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = ((s - middle) / radius).clamp(-1, 1)
        k, price, mu = torch.as_tensor(grid.evaluateBatch(x.numpy())).split([n, 1, n], dim=-1)
        state = mdp.state(s)
        k = torch.maximum(k, model.least * state.k) if model.irreversible else k
        if feasible:
            g = k / state.k - 1
            b = state.k * (1 + g + model.phi / 2 * g**2) - model.committed(state)
            price = marginal_utility(model, model.consumption(state, mdp.actions(b)))
        return k, price, mu.clamp(min=0)

    return interpolated, len(points)


@cache
def solution_of(kind: str, states: int, limit: float) -> econrl.Solution:
    """The one by `auto`, within the seconds."""
    model = IRBC(n=states // 2, irreversible=kind == "nonsmooth")
    return econrl.solve(model, "auto", time_limit=limit, progress=False)


def run(key: Row) -> Row:
    """Measure on their points."""
    solution = solution_of(key["model"], key["states"], key["limit"])
    mdp = MDP(solution.model, quadrature=FINER)
    policy = solution.policy_function.on(mdp)
    found: Row = {"seconds": solution.info["seconds"]}
    if (
        key["model"] == "nonsmooth" and not policy.knows_multipliers
    ):  # its multipliers are unknown, and so are its errors
        return {**found, "mean": float("nan"), "max": float("nan"), "not finite": float("nan")}
    generator = torch.Generator().manual_seed(REPORTED_SEED)
    s = mdp.sample_box(POINTS, generator)
    if key["model"] == "smooth":
        s, _ = own_states(mdp, policy, POINTS, 100, 200, generator)
    parts = parts_of(mdp, policy)
    if key["method"] != "auto":
        grid, _, level = key["method"].rpartition(", level ")
        parts, points = on_grid(mdp, parts, int(level), grid == LEFT)
        found = {"points": points}
    error = in_chunks(mdp, lambda s: errors(mdp, parts, s), s).flatten()
    error = error.nan_to_num(nan=torch.inf)  # where the capital on the grid costs more than there is
    finite = error[error.isfinite()]
    largest = error.sort()[0][int(0.999 * (len(error) - 1))] if key["model"] == "nonsmooth" else error.max()
    found["not finite"] = 1 - len(finite) / len(error)
    return {**found, "mean": float(finite.mean().log10()), "max": float(largest.log10())}


GRID, LEFT = "k', lambda, mu on a grid", "the same, c is what is left"


def methods(kind: str, states: int, fast: bool) -> list[str]:
    """auto, and grids where theirs are known and Tasmanian is there."""
    try:
        tasmanian()
    except econrl.EconrlError as missing:
        print(missing)
        return ["auto"]
    levels = {("nonsmooth", 4): [3, 5] if fast else [3, 5, 7, 9], ("smooth", 50): [3]}.get((kind, states), [])
    return ["auto", *(f"{name}, level {level}" for level in levels for name in (GRID, LEFT))]


def main() -> None:
    given = arguments(parser_of(__doc__, fast="2 countries, 60 seconds a run"))
    full = [("nonsmooth", 2, 300), ("nonsmooth", 10, 900)]
    full += [("smooth", 2, 180), ("smooth", 10, 300), ("smooth", 25, 600), ("smooth", 50, 1200)]
    runs = [("smooth", 2, 60), ("nonsmooth", 2, 60)] if given.fast else full
    torch.set_num_threads(1)
    wanted = [
        {"model": kind, "states": 2 * n, "method": method, "limit": limit}
        for kind, n, limit in runs
        for method in methods(kind, 2 * n, given.fast)
    ]
    ours = measured(given.out / "brumm_scheidegger_2017.csv", wanted, run, given.again)
    theirs = pd.DataFrame(PUBLISHED, columns=["model", "states", "method", "points", "mean", "max"])
    table = pd.concat([theirs.assign(source="Brumm and Scheidegger (2017)"), ours.assign(source="econrl")])
    columns = ["model", "states", "source", "method", "points", "seconds", "mean", "max", "not finite"]
    table = table.sort_values(["model", "states", "source"], ascending=[False, True, True], kind="stable")[columns]
    markdown(
        given.out / "brumm_scheidegger_2017.md",
        "The international business cycle: sparse grids and auto",
        TEXT,
        [table],
    )
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
