"""What a solver returns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from econrl.accuracy.error_table import accuracy_table, samples
from econrl.accuracy.verdict import Verdict, judge
from econrl.adapters import normalised  # noqa: F401  (so that `load` knows its kind of policy)
from econrl.approximation.continuation import Everywhere, values_at
from econrl.errors import MethodError, OutsideDomain
from econrl.family.member import member_at
from econrl.optimality.find_structure import find_structure
from econrl.optimality.structure import Structure
from econrl.problem import frames as tables
from econrl.problem.domain import outside_text
from econrl.problem.given import Shocks, number_of_paths, number_of_periods, read_initial, read_shocks
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER
from econrl.problem.simulate import own_states
from econrl.problem.simulate import paths as simulated_paths
from econrl.problem.state_function import Box, StateFunction
from econrl.spec.model import Model
from econrl.storage import saving
from econrl.storage.files import new_folder
from econrl.storage.model_lookup import zoo

SIMULATED = 0.01  # share of a simulation outside the domain that calls for a warning


class Solution:
    """A solved model: its policy and value functions, tables, simulations and accuracy.

    model       the model, with its parameters
    training    DataFrame of the run: step, seconds, held-out error (see `tol` of `solve`)
    info        method, settings, seed, steps, seconds, converged, message, ...
    """

    def __init__(
        self,
        model: Model,
        policy: StateFunction,
        value: StateFunction,
        training: pd.DataFrame,
        info: dict[str, Any],
    ) -> None:
        self.model, self.training, self.info = model, training, info
        self.mdp = MDP(model, quadrature=FINER)
        self._policy, self._value = policy.on(self.mdp), value.on(self.mdp)

    def __repr__(self) -> str:
        error = self.training["error"].min() if len(self.training) else float("nan")
        said = f"; {self.info['verdict']['word']}" if "verdict" in self.info else ""
        return (
            f"Solution({self.name} by {self.info['method']}, {self.info['steps']} steps, "
            f"{self.info['seconds']:.0f} s, held-out error {error:.1e}, {self.status}{said})"
        )

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"warning: {warning}" for warning in self.warnings)])

    @property
    def name(self) -> str:
        """What was solved, in words."""
        at = ", ".join(f"{name}={value:g}" for name, value in self.info.get("at", {}).items())
        return f"{self.model.title} at {at}" if at else self.model.title

    @property
    def status(self) -> str:
        """How the run ended: converged to a tolerance; where none was given, with all the steps planned for it; or
        neither."""
        if self.info.get("converged"):
            return "converged"
        made = self.info.get("planned_steps") == self.info["steps"] and self.info.get("tol") is None
        return "all planned steps made" if made else "not converged"

    @property
    def verdict(self) -> Verdict:
        """Whether to trust it: accurate, rough, or do not use, and why (`accuracy/verdict.py`)."""
        if "verdict" not in self.info:
            self.info["verdict"] = judge(self.mdp, self.structure, self._policy, self._value).describe()
        return Verdict(**self.info["verdict"])

    @property
    def warnings(self) -> list[str]:
        """What `check` and the verdict warn of."""
        return list(self.info.get("warnings", []))

    @property
    def policy_function(self) -> StateFunction:
        """The policy as a function of flat states: s (..., S) to feasible actions (..., A)."""
        return self._policy

    @property
    def value_function(self) -> StateFunction:
        """The policy's value as a function of flat states: s (..., S) to V (...); where utility is recursive, to the v
        that solvers hold (`utility/preferences.py`), of which `value` gives V."""
        return self._value

    @property
    def structure(self) -> Structure:
        """Which states are endogenous, and whether the model has an Euler equation."""
        return find_structure(self.mdp)

    def at(self, **parameters: float) -> Solution:
        """The solution of the model with these parameters, of those that it was solved `over`; the others keep the
        values that they have in the model. Raises SpecError for other parameters, and outside the range."""
        model, theta, fix = member_at(self.model, parameters)
        return Solution(model, fix(self._policy), fix(self._value), self.training, {**self.info, "at": theta})

    @cached_property
    def known(self) -> Box:
        """Low and high (S,) of the domain and of what simulated paths visit around it, before they begin anew: where
        policy and value were fitted. Beyond, they are continued (`continuation.py`)."""
        generator = torch.Generator().manual_seed(0)
        visited, _ = own_states(self.mdp, self._policy, 20_000, 200, 200, generator)
        return visited.amin(dim=0).minimum(self.mdp.low), visited.amax(dim=0).maximum(self.mdp.high)

    @property
    def _everywhere(self) -> Everywhere:
        """The policy at any states."""
        return Everywhere(self._policy, lambda: self.known)

    def _values(self, s: Tensor) -> Tensor:
        """Values (...) at any states (..., S)."""
        v = self._value(s) if self.mdp.inside(s).all() else values_at(self._value, self.known, s)
        return self.mdp.preferences.shown(v)

    @torch.no_grad()
    def policy(self, points: tables.Points) -> Any:
        """Optimal actions at states given as a DataFrame, a dict of arrays, or a flat tensor (..., S); the same kind
        comes back. Warns of states outside the domain, where the policy is continued. Raises SpecError where a state is
        missing."""
        s = tables.read_points(self.mdp, points)
        warn_outside(self.mdp, s, "points")
        return tables.write_actions(self.mdp, points, self._everywhere(s))

    @torch.no_grad()
    def probabilities(self, points: tables.Points) -> Any:
        """Where a choice has taste shocks: the probability of each of its options at the given states; a dict or a
        tensor (..., n), or for a DataFrame one column an option. `policy` gives the most likely one. Raises MethodError
        where there are no taste shocks."""
        s = tables.read_points(self.mdp, points)
        found = tables.probabilities(self.mdp, self._everywhere, s)
        if not found:
            raise MethodError(
                f"{self.model.title} has no choice with taste shocks, so that nothing is drawn: use policy()"
            )
        warn_outside(self.mdp, s, "points")
        return tables.write_named(points, found)

    @torch.no_grad()
    def value(self, points: tables.Points) -> Any:
        """The policy's value at the given states: a tensor, or a Series for a DataFrame."""
        return tables.write_value(points, self._values(tables.read_points(self.mdp, points)))

    @torch.no_grad()
    def policy_table(self, points: tables.Points | None = None) -> pd.DataFrame:
        """States, actions, outcomes, reward and value, a row a state; by default on a grid (up to three states) or on
        slices."""
        s = tables.default_points(self.mdp) if points is None else tables.read_points(self.mdp, points)
        s = s.reshape(-1, self.mdp.S)
        warn_outside(self.mdp, s, "points")
        table = tables.full_frame(self.mdp, self._everywhere, s, self._everywhere(s))
        return table.assign(value=self._values(s).numpy())

    @torch.no_grad()
    def simulate(
        self,
        periods: int | None = None,
        paths: int | None = None,
        seed: int = 0,
        *,
        initial: tables.Points | None = None,
        shocks: Shocks | None = None,
    ) -> pd.DataFrame:
        """A tidy table, a row for each path and period: states, actions, outcomes, reward, and whether the state lies
        outside the domain that the model was solved on, of which more than one in a hundred calls for a warning. A life
        cycle ends at its horizon.

        periods  200 unless given, or as many as there are shocks
        paths    1,000 unless given, or as many as there are initial states, or paths of shocks
        initial  where they begin: a DataFrame with a row for each path, as of observed households, a dict of arrays or
                 a flat tensor; one state is that of all paths. Lives begin at the age `t` where that is given, and a
                 path then ends with its life. Else the model's `initial`
        shocks   those that are known, by the names by which the spec reads them in `e`: a dict of arrays (paths,
                 periods), or (paths, periods, size) for a vector; or a DataFrame with a row for each `path` and
                 `period`. A chain is given by its value in the next period. The others are drawn

        Raises MethodError and SpecError for numbers, states and shocks that do not fit the model or each other.
        """
        known = None if shocks is None else read_shocks(self.mdp, shocks)
        begin = None if initial is None else read_initial(self.mdp, initial)
        periods = number_of_periods(periods, known, self.mdp.horizon)
        paths = number_of_paths(paths, begin, known)
        generator = torch.Generator().manual_seed(seed)
        s = self.mdp.sample_initial(paths, generator) if begin is None else begin.expand(paths, -1)
        if begin is not None:
            warn_outside(self.mdp, begin, "initial states")
        s, a = simulated_paths(self.mdp, self._everywhere, s, periods, generator, known)
        s, a = s.transpose(0, 1).flatten(0, 1), a.transpose(0, 1).flatten(0, 1)
        at = pd.MultiIndex.from_product([range(paths), range(periods)], names=["path", "period"]).to_frame(index=False)
        if self.mdp.horizon is not None:  # whoever was older at first has died
            born = self.mdp.period(s).view(paths, periods)[:, :1]
            lives = (born + torch.arange(periods) < self.mdp.horizon).flatten()
            s, a, at = s[lives], a[lives], at[lives.numpy()].reset_index(drop=True)
        warn_outside(self.mdp, s, "simulated states", SIMULATED)
        table = pd.concat([at, tables.full_frame(self.mdp, self._everywhere, s, a)], axis=1)
        return table.assign(outside=(~self.mdp.inside(s)).numpy())

    def profiles(self, paths: int = 1000, seed: int = 0, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> pd.DataFrame:
        """Life-cycle profiles: a row for each variable (state, action, outcome, reward) and period, with mean, std and
        quantiles (columns q10, q50, ...) over simulated lives. Raises MethodError where a model has no horizon."""
        if self.mdp.horizon is None:
            raise MethodError(
                f"profiles are by period of a life, and {self.model.title} has no horizon: its periods are all "
                "alike; use simulate(), and mean() and quantile() of its columns"
            )
        if any(not 0 <= q <= 1 for q in quantiles):
            raise MethodError(f"quantiles must lie between 0 and 1, got {list(quantiles)}")
        return tables.profile_table(self.simulate(self.mdp.horizon, paths, seed), quantiles)

    def plot_profiles(self, paths: int = 1000, seed: int = 0, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> Any:
        """A matplotlib figure of `profiles`: each variable against the period, with means, and bands of quantiles."""
        from econrl.display.plots import plot_profiles

        return plot_profiles(self, self.profiles(paths, seed, quantiles), paths)

    def accuracy(self, points: int = 10_000, reference: Solution | None = None) -> pd.DataFrame:
        """Error measures at states of its own simulation and of the box, none of which it was fitted to.

        Columns: sample (ergodic, box), measure, unit (log10 or share), mean, p99, max. See
        `econrl.accuracy.error_table`. `reference`, a solution of the same model, is what the welfare loss is measured
        against where there is no closed form.
        """
        with torch.no_grad():
            states = samples(self.mdp, self._policy, points)
        return self.accuracy_at(states, reference)

    def accuracy_at(self, states: dict[str, tuple[Tensor, float]], reference: Solution | None = None) -> pd.DataFrame:
        """The same at given samples of states, so that several solutions can be measured at the same ones."""
        better = None if reference is None else reference.policy_function
        return accuracy_table(self.mdp, self.structure, self._policy, self._value, states, better)

    def plot(self) -> Any:
        """A matplotlib figure: each action against each state, and the error over the run."""
        from econrl.display.plots import plot_solution

        return plot_solution(self)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the solution to a new folder; raises SaveError where it exists, unless `overwrite`."""
        with new_folder(folder, overwrite) as fresh:
            saving.write(fresh, self.model, self._policy, self._value, self.training, self.info)
        return Path(folder)


def warn_outside(mdp: MDP, s: Tensor, what: str, share: float = 0.0) -> None:
    """Warn, at the line that called a method without gradients, where more than a share of states lie outside."""
    text = outside_text(mdp, s.reshape(-1, mdp.S), what, share)
    if text:
        warnings.warn(text, OutsideDomain, stacklevel=4)


def load(folder: str | Path, model: Model | type[Model] | None = None) -> Solution:
    """Read a saved solution. `model` is needed for a class that is neither in econrl.models nor imported yet.

    Raises SaveError, with the reason, where the folder is damaged or belongs to another model or version.
    """
    zoo()  # imports the models of econrl, so that a saved name finds its class
    return Solution(*saving.read(folder, model))
