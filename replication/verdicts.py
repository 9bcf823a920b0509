"""Right, or refused: what `auto` and the other methods give on models of the literature, and what solutions say of it.

    python replication/verdicts.py                     by auto: models, growth and spoiled solutions; an hour
    python replication/verdicts.py --fast              three models, one calibration of growth, few spoiled solutions
    python replication/verdicts.py --only Habits Hire --methods auto vi time_iteration egm

Policies on the models of `verdict_models.py` are compared with the independent answers of `verdict_answers.py`, at
states that simulations of the answer visit and at states inside the domain; "right" is at most half a per cent off at
the worst of them. Writes results/verdicts.csv (models), verdicts_growth.csv, verdicts_spoiled.csv and verdicts.md; runs
that they hold already are not repeated, unless --again. The answers are kept in verdicts_answers.csv.
"""

from __future__ import annotations

import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import verdict_models as models
from common import Row, arguments, markdown, measured, parser_of
from verdict_points import errors, right_answers
from verdict_spoiled import spoiled_runs

import econrl
from econrl.errors import EconrlError
from econrl.models import StochasticGrowth

RIGHT = 0.005  # largest relative error of a policy that is called right


@dataclass(frozen=True)
class Case:
    """A model, the seconds that it is given, and the error that is asked."""

    model: econrl.Model
    limit: float = 60.0
    asked: float = RIGHT
    only: tuple[str, ...] = ()  # the columns that are asked; all unless given
    value: bool = False
    answer: bool = True


CASES: dict[str, Case] = {
    "HouseholdHours": Case(models.HouseholdHours()),
    "Habits": Case(models.Habits()),
    "AdditiveHabits": Case(models.AdditiveHabits()),
    "Disasters": Case(models.Disasters()),
    "HiringFirm": Case(models.HiringFirm()),
    "Bequests": Case(models.Bequests()),
    "LowPremium": Case(models.LowPremium()),
    "Health": Case(models.Health()),
    "HealthAfterCare": Case(models.HealthAfterCare()),
    "HealthAndWealth": Case(models.HealthAndWealth()),
    "TwoAssets": Case(models.TwoAssets(), limit=120.0, asked=0.01, only=("c",)),
    "Effort": Case(models.Effort()),
    "Hire": Case(models.Hire()),
    "Labour": Case(models.Labour()),
    "ByAge": Case(models.ByAge()),
    "PerfectForesight": Case(models.PerfectForesight()),
    "ZeroIncome": Case(models.ZeroIncome(), value=True),
    "LogSaving": Case(models.LogSaving()),
    "KinkedRate": Case(models.KinkedRate()),
    "Durables": Case(models.Durables(), answer=False),
    # the same kinds, calibrated otherwise
    "Effort, dear": Case(models.Effort(beta=0.95, s0=0.7, s1=0.1, y=0.5)),
    "Hire, persistent": Case(models.Hire(theta=0.7, w=1.2, rho=0.9, sigma=0.03)),
    "Labour, patient": Case(models.Labour(beta=0.96, rho=1.5, R=1.02, wages=(0.8, 1.6), stay=0.8)),
    "ByAge, safe": Case(models.ByAge(mean=1.035, sigma=0.25, pension=1.0)),
    "PerfectForesight, long": Case(models.PerfectForesight(horizon=6, gamma=3.0, y=0.7)),
    "ZeroIncome, rare": Case(models.ZeroIncome(p=0.01, gamma=3.0, R=1.02, horizon=15, retire=10), value=True),
    "LogSaving, poor": Case(models.LogSaving(beta=0.97, r=0.04, least=-3.0)),
    "KinkedRate, wide": Case(models.KinkedRate(beta=0.93, gamma=3.0, R_borrow=1.12, R_save=1.02, debt=1.0)),
    "Bequests, small": Case(
        models.Bequests(theta=0.5, luxury=0.5, gamma=2.0, survival=tuple(0.99 - 0.03 * t for t in range(16)))
    ),
    "LowPremium, none": Case(models.LowPremium(mean=1.015, exposure=0.0, gamma=3.0, horizon=10)),
    "Habits, strong": Case(models.Habits(eta=0.8, lam=0.15, gamma=3.0, beta=0.94)),
    "Health, mild": Case(models.Health(hazard=0.3, B=0.5, life=3.0, gamma=1.5, sigma=0.05)),
    "HouseholdHours, no debt": Case(models.HouseholdHours(debt=0.0, gamma=2.0, psi=3.0, phi=1.0, beta=0.94)),
    "Disasters, frequent": Case(models.Disasters(p=0.05, b=0.2, gamma=4.0, psi=60.0, sigma=0.01)),
    "HiringFirm, sticky": Case(models.HiringFirm(phi=6.0, alpha=0.25, nu=0.6, rho=0.9, sigma=0.03)),
}
FAST = ("Effort", "Hire", "PerfectForesight")
METHODS = ("auto", "vi", "time_iteration", "egm")


# What a solution says of itself


def verdict(solution: econrl.Solution) -> str:
    """The word of the verdict: accurate, rough or do not use."""
    found = getattr(solution, "verdict", None)
    return "" if found is None else str(getattr(found, "word", found))


def warned(solution: econrl.Solution) -> str:
    return " | ".join(getattr(solution, "warnings", solution.info["warnings"]))


def taken(solution: econrl.Solution) -> str:
    """The method whose policy it is: of auto, the stage that was best."""
    found = re.search(r"the policy is that of (\w+)", solution.info["message"] or "")
    return found[1] if found else solution.info["method"]


# The runs


def solved(model: econrl.Model, method: str, limit: float) -> tuple[econrl.Solution | None, Row]:
    """The solution, if any, and how it came about."""
    began = time.perf_counter()
    try:
        solution = econrl.solve(model, method, time_limit=limit, progress=False)
    except Exception as failure:  # what a user would see
        name = "" if isinstance(failure, EconrlError) else f"{type(failure).__name__}: "
        return None, {"seconds": time.perf_counter() - began, "right": "no", "message": f"{name}{failure}"}
    return solution, {"taken": taken(solution), "seconds": time.perf_counter() - began}


def said(solution: econrl.Solution) -> Row:
    return {"verdict": verdict(solution), "warnings": warned(solution), "message": solution.info["message"]}


def judged(key: Row, out: Path) -> Row:
    """One solve of a model, and how far off it is."""
    case = CASES[key["model"]]
    answers = out / "verdicts_answers.csv"
    right = right_answers(key["model"], case.model, answers, case.only) if case.answer else None
    solution, row = solved(case.model, key["method"], key["limit"])
    if solution is None:
        return row
    if right is None:
        row |= {"right": "", "worst": np.nan, "errors": f"lifetime reward {lifetime(solution):.3f}"}
    else:
        found = errors(solution, right, case.value)
        worst = max(found[column].max() for column in case.only or tuple(found))
        row |= {"right": "yes" if worst <= case.asked else "no", "worst": worst, "errors": shown(found)}
    return row | said(solution)


def shown(found: dict[str, np.ndarray]) -> str:
    """Largest and mean error of each column, in words."""
    return "; ".join(f"{column} {error.max():.1e} ({error.mean():.1e})" for column, error in found.items())


def lifetime(solution: econrl.Solution, paths: int = 20_000) -> float:
    """Mean discounted rewards of a life from the model's initial states."""
    table = solution.simulate(periods=solution.model.horizon, paths=paths, seed=1)
    return float((solution.model.beta ** table["period"] * table["reward"]).sum() / paths)


def calibrations(n: int) -> list[Row]:
    """Random calibrations of stochastic growth."""
    draw = np.random.default_rng(20_261_125)
    ranges = {"gamma": (0.5, 10.0), "sigma": (0.003, 0.04), "rho": (0.0, 0.99), "beta": (0.9, 0.995)}
    return [
        {name: round(float(draw.uniform(*ends)), 3 if name == "gamma" else 4) for name, ends in ranges.items()}
        for _ in range(n)
    ]


def growth(key: Row) -> Row:
    """Euler errors (log10) on the solution's own simulation."""
    model = StochasticGrowth(**{name: key[name] for name in ("gamma", "sigma", "rho", "beta")})
    solution, row = solved(model, "auto", key["limit"])
    if solution is None:
        return row
    table = solution.accuracy().set_index(["sample", "measure"])[["mean", "max"]].loc["ergodic"]
    mean, largest = (float(x) for x in table.loc["euler"])
    right = "yes" if mean <= -6 and largest <= -4 else "no"
    found = {"mean": mean, "max": largest, "outside": float(table.loc["outside", "mean"]), "right": right}
    return row | found | said(solution)


TEXT = """Models with an independent answer: closed forms, endogenous grids and brute force in numpy, each unchanged by
less than 0.1 per cent when its grids are doubled (two assets 0.14, the share of a portfolio 0.18). Errors are |a - a*|
/ |a*| (of actions that are nearly zero, against a twentieth of their mean or of their range), the largest and in
brackets the mean over a hundred states that a simulation of the answer visits and a hundred inside the domain. Right
is at most 0.5 per cent at the worst of them (two assets: one per cent, of consumption). Growth: log10 Euler errors on
the solution's own simulation, default domain. Spoiled solutions: accurate ones of models with known answers, and what
they say of themselves after their policies were put off."""


def main() -> None:
    parser = parser_of(__doc__, fast="three models, one calibration of growth, few spoiled solutions, 20 seconds each")
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="these models, and no other part")
    parser.add_argument("--methods", nargs="+", default=["auto"], choices=METHODS)
    given = arguments(parser)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # they are written into the tables
    names = given.only or (FAST if given.fast else CASES)
    wanted = [
        {"model": name, "method": method, "limit": 20.0 if given.fast else CASES[name].limit}
        for name in names
        for method in given.methods
    ]
    tables = [measured(given.out / "verdicts.csv", wanted, lambda key: judged(key, given.out), given.again)]
    if not given.only:
        wanted = [{**row, "limit": 20.0 if given.fast else 60.0} for row in calibrations(1 if given.fast else 20)]
        tables.append(measured(given.out / "verdicts_growth.csv", wanted, growth, given.again))
        spoiled = spoiled_runs(given.out, 12 if given.fast else 200, given.again)
        tables += [summary(spoiled, error) for error in ("mean", "worst")]
        shown_tables = [tables[0].drop(columns=["warnings", "message"], errors="ignore"), *tables[1:]]
        markdown(given.out / "verdicts.md", "Right, or refused", TEXT, shown_tables)


def summary(spoiled: pd.DataFrame, error: str) -> pd.DataFrame:
    """How often each verdict was given, by how far off the policy truly is."""
    edges, names = [-1, 0.001, RIGHT, 0.01, 0.05, np.inf], ["0.1 %", "0.5 %", "1 %", "5 %", "more"]
    ranges = pd.cut(spoiled[error], edges, labels=names)
    counts = pd.crosstab(ranges, spoiled["verdict"].fillna("").replace("", "none"))
    return counts.rename_axis(f"{error} error at most").reset_index()


if __name__ == "__main__":
    main()
