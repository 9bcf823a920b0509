"""Life cycles solved backwards at sampled states, more than once."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Protocol

import torch

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.units import Units
from econrl.errors import SolveError
from econrl.problem.diagnose import describe
from econrl.problem.mdp import MDP
from econrl.solvers.common.run import Run
from econrl.solvers.common.task import Answer, Task
from econrl.solvers.fitted.functions import FittedPolicy
from econrl.solvers.fitted.maxima import fit_cell, maxima, with_values
from econrl.solvers.fitted.states import first_lives, lives, states_around

LIVES = 2000  # simulated, from which states are drawn
FIRST = 0.5  # of the states, in the first of several sweeps, which is to show where lives go
SHARES = 0.4, 0.75  # of the time left, for a sweep that others follow, and for the last one
FIRST_PACE = 1.6e-3  # seconds for a state and a slope of the last period, whose networks begin anew
FEWEST = 200  # states, whatever the time limit


class Settings(Protocol):
    """What the runs read of a method."""

    name: ClassVar[str]

    @property
    def hidden(self) -> tuple[int, ...]: ...

    @property
    def sweeps(self) -> int: ...

    @property
    def first_fit(self) -> int: ...

    @property
    def fit(self) -> int: ...

    @property
    def corrections(self) -> int: ...

    @property
    def every(self) -> int: ...

    def states_for(self, mdp: MDP) -> int:
        """States at which maxima are taken."""


class Fitted(Run):
    """What the runs share: a policy and its value, the states that they visit, and how these are kept."""

    def __init__(self, method: Settings, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method, self.states, self.done = method, method.states_for(mdp), 0
        self.generator = task.generator(mdp.device)
        policy = FittedPolicy(mdp, method.hidden, {"hidden": list(method.hidden)}, method.corrections)
        self.policy = policy.to(mdp.device, mdp.dtype).requires_grad_(False)
        self.value, self.cells = self.policy.value, self.policy.value.cells

    def answer(self) -> Answer:
        return self.policy, self.value

    def keeps(self, step: int) -> bool:
        return True

    def state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "generator": self.generator.get_state(),
            "visited": self.visited,
            "units": self.value.describe()["units"],
            "weights": self.policy.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.done, self.visited = state["done"], state["visited"].to(self.mdp.low)
        self.generator.set_state(state["generator"])
        self.value.units = [Units(**(unit or {})) for unit in state["units"]]
        self.value.known = [unit is not None for unit in state["units"]]
        self.policy.load_state_dict(state["weights"])


class Sweeps(Fitted):
    """One step a period, backwards, and a measurement after each sweep."""

    def __init__(self, method: Settings, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        assert mdp.horizon is not None
        self.horizon: int = mdp.horizon
        self.pace = FIRST_PACE * (1 + len(mdp.continuous))
        """Seconds that a period takes for each of its states."""

    def begin(self) -> None:
        self.visited = first_lives(self.mdp, LIVES, self.generator)

    @property
    def last_step(self) -> int:
        return min(self.task.steps or self.method.sweeps * self.horizon, self.method.sweeps * self.horizon)

    def step(self) -> None:
        sweep, back = divmod(self.done, self.horizon)
        if sweep > 0 and back == 0:
            self.visited = lives(self.mdp, self.policy.rough, LIVES, self.generator)
        began, states = time.perf_counter(), self.affordable(sweep, back)
        self.solve_period(self.horizon - back - 1, sweep, states)
        self.pace = (time.perf_counter() - began) / states
        self.done += 1
        self.converged = self.done == self.method.sweeps * self.horizon

    def affordable(self, sweep: int, back: int) -> int:
        """States for a period, the one so many before the last: so many that the sweep fits into a limited time."""
        follows = sweep + 1 < self.method.sweeps
        wanted = int(FIRST * self.states) if sweep == 0 and follows else self.states
        if self.task.time_limit is None:
            return wanted
        fit = SHARES[not follows] * self.task.remaining() / (self.horizon - back) / self.pace
        return min(wanted, max(int(fit), FEWEST))

    def solve_period(self, t: int, sweep: int, states: int) -> None:
        """All options and regimes of period t at so many states, given the value of t + 1."""
        s = states_around(self.mdp, self.visited[t], states, self.generator)
        errors = [
            self.solve_cell(t, option, regime, self.cells.put(s, regime), sweep)
            for regime in range(self.cells.each)
            for option in range(self.cells.options)
        ]
        self.columns = {"fit": max(errors), "states": states}

    def solve_cell(self, t: int, option: int, regime: int, s: torch.Tensor, sweep: int) -> float:
        """Maxima, slopes and networks of one cell; the error of the fit. Raises SolveError where no state has a
        value."""
        cell, later = (self.cells.number(period, option, regime) for period in (t, t + 1))
        new = sweep == 0 and (t + 1 == self.horizon or not self.value.known[later])
        if sweep == 0 and not new:
            for own in (self.value, self.policy):
                own.networks[cell].load_state_dict(own.networks[later].state_dict())
        mdp = self.policy.problems[option][0]
        found = with_values(self.method.name, mdp, maxima(self.policy, option, s, not new, self.look_at_the_clock))
        if found is None:
            self.value.known[cell] = False
            if self.cells.options == 1:
                raise SolveError(
                    f"{self.method.name} on {type(self.mdp.model).__name__}: the value is minus infinity at "
                    f"{describe(self.mdp, s[0])}, whatever the action, and at all other states drawn for that period"
                )
            return 0.0
        steps = self.method.first_fit if new else self.method.fit
        return fit_cell(self.policy, cell, found, steps, self.look_at_the_clock)

    def unreached(self) -> None:
        """Give the periods that were not reached the functions of the earliest that was."""
        first = self.horizon - self.done
        for t in range(first):
            for option in range(self.cells.options):
                for regime in range(self.cells.each):
                    own, other = (self.cells.number(period, option, regime) for period in (t, first))
                    self.value.units[own], self.value.known[own] = self.value.units[other], self.value.known[other]
                    for function in (self.value, self.policy):
                        function.networks[own].load_state_dict(function.networks[other].state_dict())

    @property
    def ready(self) -> bool:
        return self.done > 0

    def due(self, step: int) -> bool:
        return step > 0 and step % self.horizon == 0

    def answer(self) -> Answer:
        if self.done < self.horizon:
            self.unreached()
        return super().answer()

    def where(self, step: int) -> str:
        sweep, back = divmod(step, self.horizon)
        if back == 0:
            return f"after {sweep} of {self.method.sweeps} sweeps"
        return f"in sweep {sweep + 1}, with {self.horizon - back} of {self.horizon} periods to go"
