"""Accurate solutions of models with known answers, each beside one that was spoiled: what do they say of themselves?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import verdict_models as models
from common import Row, measured
from torch import Tensor
from verdict_points import errors, right_answers

import econrl
from econrl.models import BrockMirman
from econrl.problem.mdp import MDP
from econrl.problem.state_function import KINDS, StateFunction

AS_SOLVED = "as solved"
FORMS = ("level", "slope", "noise")
LIMIT = 60.0  # seconds of a solve; those that are listed here need a few

FALLING = tuple(0.99 - 0.03 * t for t in range(16))

# A model at random numbers (0 to 1) in the place of its parameters, and a method that solves it accurately in seconds.
Draw = Callable[..., float]
DRAWN: dict[str, tuple[Callable[[Draw], econrl.Model], str]] = {
    "Effort": (lambda u: models.Effort(beta=u(0.85, 0.95), s1=u(0.1, 0.25)), "vi"),
    "Hire": (lambda u: models.Hire(theta=u(0.3, 0.6), w=u(0.9, 1.3)), "vi"),
    "PerfectForesight": (lambda u: models.PerfectForesight(horizon=round(u(2, 6)), gamma=u(1, 4)), "egm"),
    "LogSaving": (lambda u: models.LogSaving(beta=u(0.96, 0.98), least=u(-8, -3)), "egm"),
    "BrockMirman": (lambda u: BrockMirman(beta=u(0.9, 0.98), alpha=u(0.25, 0.5)), "time_iteration"),
    "Disasters": (lambda u: models.Disasters(gamma=u(1, 4), p=u(0.01, 0.05), rho=u(0.8, 0.95)), "time_iteration"),
    "LowPremium": (lambda u: models.LowPremium(gamma=u(3, 6), mean=u(1.03, 1.04), horizon=3), "vi"),
    "KinkedRate": (lambda u: models.KinkedRate(beta=u(0.92, 0.96), gamma=u(1.5, 4), R_borrow=u(1.05, 1.2)), "vi"),
    "ZeroIncome": (lambda u: models.ZeroIncome(low=0.05, gamma=u(1.5, 3), p=u(0.02, 0.08)), "egm"),
    "Bequests": (lambda u: models.Bequests(gamma=u(1.5, 4), theta=u(1, 6), survival=FALLING), "time_iteration"),
    "Habits": (lambda u: models.Habits(gamma=u(1.5, 3), eta=u(0.2, 0.6), lam=u(0.2, 0.5)), "vi"),
    "Health": (lambda u: models.Health(B=u(0.6, 1.0), slope=u(1, 2)), "vi"),
}


class Spoiled(StateFunction):
    """x (1 + size g(s)) of a policy's actions, brought back to their bounds, or of a value: g is 1 (level), the place
    of the first continuous state between -1 and 1 (slope), or waves over all of them (noise)."""

    def __init__(self, mdp: MDP, kind: str, description: dict[str, Any], form: str, size: float) -> None:
        super().__init__(mdp)
        self.description = {"kind": kind, "description": description, "form": form, "size": size}
        self.function, self.form, self.size = KINDS[kind](mdp, **description), form, size

    def describe(self) -> dict[str, Any]:
        return self.description

    def pattern(self, s: Tensor) -> Tensor:
        mdp, columns = self.mdp, self.mdp.continuous
        place = ((2 * s - mdp.low - mdp.high) / (mdp.high - mdp.low))[..., columns]
        if self.form == "level":
            return torch.ones_like(place[..., 0])
        if self.form == "slope":
            return place[..., 0].clamp(-1, 1)
        return torch.sin(9 * place.cumsum(-1)).mean(-1)

    def forward(self, s: Tensor) -> Tensor:
        x, factor = self.function(s), 1 + self.size * self.pattern(s)
        if x.ndim < s.ndim:
            return x * factor
        y = self.mdp.feasible_set.shares(s, x * factor.unsqueeze(-1))
        return self.mdp.feasible_set.from_shares(s, self.mdp.feasible_set.clamp_shares(y))


def spoil(solution: econrl.Solution, form: str, size: float, both: bool) -> econrl.Solution:
    """The same solution with its policy put off, and its value too where `both` are."""

    def put_off(function: StateFunction) -> StateFunction:
        new = Spoiled(solution.mdp, type(function).__name__, function.describe(), form, size)
        new.function.load_state_dict(function.state_dict())
        return new

    policy, value = solution.policy_function, solution.value_function
    info = {name: entry for name, entry in solution.info.items() if name != "verdict"} | {"warnings": []}
    return econrl.Solution(solution.model, put_off(policy), put_off(value) if both else value, solution.training, info)


def spoiled_runs(out: Path, n: int, again: bool) -> pd.DataFrame:
    """Half of n solutions accurate, a row each, and each followed by its spoiled double."""
    random = np.random.default_rng(7)
    keys = []
    for i in range(n // 2):
        name, seed = list(DRAWN)[i % len(DRAWN)], int(random.integers(1 << 30))
        size = round(float(np.exp(random.uniform(np.log(0.001), np.log(0.3)))), 5)
        form, both = FORMS[int(random.integers(3))], bool(random.integers(2))
        base = {"run": i, "model": name, "seed": seed}
        keys.append({**base, "form": AS_SOLVED, "size": 0.0, "both": False})
        keys.append({**base, "form": form, "size": size * (-1) ** int(random.integers(2)), "both": both})
    solved: dict[int, econrl.Solution] = {}
    return measured(out / "verdicts_spoiled.csv", keys, partial(judged, solved=solved, out=out), again)


def judged(key: Row, solved: dict[int, econrl.Solution], out: Path) -> Row:
    """How far off a solution is, and what it says of itself; the last accurate one is kept for its double."""
    make, method = DRAWN[key["model"]]
    if key["run"] not in solved:
        random = np.random.default_rng(key["seed"])
        model = make(lambda low, high: round(float(random.uniform(low, high)), 3))
        solved.clear()
        try:
            solved[key["run"]] = econrl.solve(model, method, time_limit=LIMIT, progress=False)
        except Exception as failure:  # the others are judged all the same
            return {"method": method, "message": f"{type(failure).__name__}: {failure}"}
    good = solved[key["run"]]
    solution = good if key["form"] == AS_SOLVED else spoil(good, key["form"], key["size"], key["both"])
    right = right_answers(f"{key['model']} {key['run']}", solution.model, out / "verdicts_spoiled_answers.csv")
    found = errors(solution, right)
    began = time.perf_counter()
    said = getattr(solution, "verdict", "")
    return {
        "method": method, "seconds": good.info["seconds"], "verdict": str(getattr(said, "word", said)),
        "judging": time.perf_counter() - began, "worst": max(error.max() for error in found.values()),
        "mean": max(error.mean() for error in found.values()), "message": str(said),
    }  # fmt: skip
