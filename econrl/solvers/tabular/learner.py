"""What the tabular methods share: the model as a table, environments that walk through it, and the step of learning.

    Q(i, d) <- Q(i, d) + alpha_n error(i, d),    alpha_n = (1 + (1 - beta) (n - 1))^-power

at the n-th update of an entry. `error` is what sets the methods apart. The rates sum to infinity and their squares do
not, for 1/2 < power <= 1, as convergence with probability one asks (Robbins and Monro 1951); they begin to fall after
a horizon 1 / (1 - beta), so that where one starts is forgotten (Wainwright 2019, "Stochastic approximation with
cone-contractive operators: sharp l-infinity bounds for Q-learning").

Many environments walk at a time. Where several meet at an entry, it moves by their mean error, and that is one update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.approximation.action_menu import TableMenuValue, greedy, menu_of, size_of_menu
from econrl.approximation.constant_shares import ConstantShares, best_constant_shares
from econrl.approximation.finite_mdp import Table, TableValue, states_of, tabulate
from econrl.problem.alternatives import Alternatives
from econrl.problem.diagnose import Broken
from econrl.problem.lottery import draw
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.memory import free_memory
from econrl.solvers.common.method import each, require
from econrl.solvers.common.task import Task
from econrl.solvers.common.training import Trained

STATES, MOST_ON_A_LINE = 1000, 100  # of a default grid: in all, and for each continuous state
COPIES = 3  # of the table, while it is built
SAME = 1e-12


@dataclass
class Step:
    """A step of E environments: from the states i by the actions d, with rewards r, to the states j, and the actions
    that come next, d_next, with the means of their taste shocks; (E,) each."""

    i: Tensor
    d: Tensor
    r: Tensor
    j: Tensor
    d_next: Tensor
    shock: Tensor | float = 0.0


def learn(Q: Tensor, visits: Tensor, at: Tensor, error: Tensor, beta: float, power: float) -> None:
    """Move the entries `at` (E,) of Q (L,) by their mean error (E,), in place, and count that in `visits` (L,)."""
    assert error.shape == at.shape, "a column of errors would broadcast against a row of entries"
    count = torch.bincount(at, minlength=len(Q))
    mean = torch.zeros_like(Q).index_add_(0, at, error) / count.clamp(min=1)
    Q += (1 + (1 - beta) * visits) ** -power * mean
    visits += count > 0


class Walk:
    """The state of a run on a table: entries, counts, environments and random numbers.

    It stays on the CPU, where sums over the environments have an order of their own: same seed, same bits.
    """

    def __init__(self, method: Tabular, table: Table, first: float, generator: torch.Generator) -> None:
        self.method, self.table, self.generator = method, table, generator
        self.Q = torch.where(table.allowed, first, -torch.inf).to(table.R)
        self.visits = torch.zeros_like(self.Q)
        self.i = self.anywhere()
        self.d, _ = self.pick(self.i, 1.0)
        self.age = torch.randint(method.episode, self.i.shape, generator=generator)

    def anywhere(self) -> Tensor:
        """Numbers (E,) of states, each as likely as any other."""
        return torch.randint(len(self.Q), (self.method.environments,), generator=self.generator)

    def pick(self, i: Tensor, epsilon: float) -> tuple[Tensor, Tensor | float]:
        """Actions in the states i, the greedy one, and with probability epsilon any of those allowed; and the means of
        their taste shocks. Where there are such shocks, the greedy action is drawn, and one at random does not heed
        them."""
        dice = torch.rand(len(i), generator=self.generator)
        random = self.table.draw_action(i, self.generator)
        if self.table.comparison is None:
            return torch.where(dice < epsilon, random, self.Q[i].argmax(dim=-1)), 0.0
        p = self.table.comparison.probabilities(self.Q[i])
        own = draw(p, self.generator)
        shock = self.table.comparison.shocks(p).gather(-1, own.unsqueeze(-1)).squeeze(-1)
        explores = dice < epsilon
        return torch.where(explores, random, own), torch.where(explores, 0.0, shock)

    def update(self, rate: float) -> None:
        """Every environment makes a step and learns from it; a share `rate` of the run is left."""
        method, epsilon = self.method, self.method.exploration(rate)
        j = self.table.draw(self.i, self.d, self.generator)
        step = Step(self.i, self.d, self.table.R[self.i, self.d], j, *self.pick(j, epsilon))
        at = self.i * self.Q.shape[1] + self.d
        error = method.error(self.Q, self.table, step)
        learn(self.Q.view(-1), self.visits.view(-1), at, error, self.table.beta, method.power)

        # A path that is cut short has not ended: it has learned from the state that it truly reached.
        self.age += 1
        goes_on = self.age < method.episode
        self.age *= goes_on
        anew = self.anywhere()
        self.i = torch.where(goes_on, j, anew)
        self.d = torch.where(goes_on, step.d_next, self.pick(anew, epsilon)[0])

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""
        tensors = [self.Q, self.visits, self.i, self.d, self.age]
        return {"tensors": [x.clone() for x in tensors], "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.Q, self.visits, self.i, self.d, self.age = (x.clone() for x in state["tensors"])
        self.generator.set_state(state["generator"])


@dataclass(frozen=True)
class Tabular(Trained):
    """A method that learns a table by walking through it."""

    choices: ClassVar[bool] = True
    tastes: ClassVar[bool] = True

    points: int | tuple[int, ...] | None = None
    """Grid points of each continuous state; None: 1,000 states in all, at most 100 a continuous one."""
    actions: int = 21
    """Points of each continuous action (`action_menu.py`)."""
    epsilon: float = 0.3
    """Share of random actions."""
    power: float = 0.8
    """How fast the learning rates fall, in (0.5, 1]."""
    environments: int = 1024
    """Walks side by side."""
    episode: int = 10
    """Periods after which a walk begins anew in a random state."""
    nodes: int = 5
    """Quadrature nodes a shock."""
    memory_limit: float | None = None
    """Bytes that the table may use; None: half of what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("actions", "environments", "episode", "nodes"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "epsilon", 0 <= self.epsilon <= 1, "in [0, 1]")
        require(self, "power", 0.5 < self.power <= 1, "in (0.5, 1]")

    def error(self, Q: Tensor, table: Table, step: Step) -> Tensor:
        """The temporal-difference error (E,) of a step."""
        raise NotImplementedError

    def exploration(self, rate: float) -> float:
        """Epsilon when a share `rate` of the run is left."""
        return self.epsilon

    def grid_of(self, mdp: MDP) -> dict[str, Any]:
        """The description of the grid: uniform on the domain, linear between its points."""
        columns = mdp.continuous
        each_layer = STATES / mdp.layers
        default = min(max(int(each_layer ** (1 / max(len(columns), 1)) + 1e-9), 2), MOST_ON_A_LINE)
        points = each(self, "points", self.points or default, len(columns))
        return {
            "low": mdp.low[columns].tolist(),
            "high": mdp.high[columns].tolist(),
            "points": [int(n) for n in points],
            "spacing": [0.0] * len(columns),
            "interpolation": "linear",
        }

    def refuse(self, mdp: MDP) -> str | None:
        if mdp.horizon is not None:
            return "a table has no calendar, and this is a life cycle"
        s = mdp.sample_box(64, torch.Generator(mdp.device).manual_seed(0)).unsqueeze(-2)
        beta = mdp.discount(s, mdp.act(s, s.new_zeros(mdp.A)), mdp.nodes)
        if beta.max() - beta.min() > SAME:
            return "a table has one discount factor, and that of the model varies"
        states = math.prod(self.grid_of(mdp)["points"]) * mdp.layers
        actions = self.menu_size(mdp)
        needed = COPIES * 16.0 * states * actions * len(mdp.nodes) * 2 ** len(mdp.continuous)
        allowed = self.memory_limit if self.memory_limit is not None else 0.5 * free_memory(torch.device("cpu"))
        if needed > allowed:
            size = f"{states:,} states, {actions:,} actions and {len(mdp.nodes):,} shock nodes"
            return f"a table of {size} needs about {needed:.3g} bytes, and may use {allowed:.3g}"
        return None

    def menu_size(self, mdp: MDP) -> int:
        """How many actions there are in each state."""
        return size_of_menu(mdp, self.actions)

    def learner(self, mdp: MDP, task: Task) -> ModelWalk:
        return ModelWalk(self, MDP(task.model, "cpu", mdp.dtype, mdp.quadrature), task)


class ModelWalk(Walk):
    """A walk through the table of a model, and what it has learned as functions of the model's states."""

    policy: StateFunction
    alternatives: Alternatives | None = None
    """The menu, of which not all may be available everywhere; None where a policy chooses."""

    def __init__(self, method: Tabular, mdp: MDP, task: Task) -> None:
        self.method, self.mdp, self.task, self.description = method, mdp, task, method.grid_of(mdp)
        generator = task.generator("cpu")
        start = best_constant_shares(mdp, generator)
        self.value = TableValue(mdp, **self.description)
        s = states_of(mdp, self.value.grid)
        table = tabulate(mdp, self.value.grid, self.actions(s, start), self.alternatives)
        super().__init__(method, table, float(start.units.value(mdp.tensor(0.0))), generator)
        self.broken = Broken(mdp, 1)

    def actions(self, s: Tensor, start: ConstantShares) -> Tensor:
        """What there is to choose from in the states s (N, S): the actions (N, D, A) of a menu."""
        menu = menu_of(self.mdp, start.u, self.method.actions)
        self.values = TableMenuValue(self.mdp, len(menu), **self.description)
        self.values.menu, self.alternatives = menu, Alternatives(self.mdp.feasible_set, menu)
        self.policy = greedy(self.values)
        return self.mdp.act(s.unsqueeze(1), menu)

    def advance(self) -> None:
        """A step and what it teaches are one, in `update`."""

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """Policy and value as they are now."""
        self.values.fit(self.Q)
        self.value.fit(self.table.best_value(self.Q).unsqueeze(-1))
        return self.policy, self.value
