"""Finitely many actions to choose from, for methods that take a maximum over actions.

A menu is D unbounded forms u (D, A) of actions (`feasible_set.py`), the same in every state: all options of the
choices, with a grid for the continuous actions. The grid is even in log-odds of the shares between their bounds,

    a = act(s, u),    u = middle + reach x,    x in [-1, 1]^A,

around the best constant shares, as far as random actions stay near the domain (`action_reach.py`): a grid that is even
in shares would have next to no points where a household eats a small part of what it owns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.action_reach import widest_reach
from econrl.approximation.finite_mdp import TableFunction
from econrl.approximation.networks import MLP, Features
from econrl.approximation.units import Units
from econrl.problem.lottery import draw
from econrl.problem.mdp import MDP
from econrl.problem.state_function import KINDS, Box, StateFunction

LARGEST_MENU = 5000


def size_of_menu(mdp: MDP, points: int) -> int:
    """D, with so many points for each continuous action."""
    return len(mdp.options) * points ** len(mdp.free)


def refuse_menu(mdp: MDP, points: int) -> str | None:
    """Why the menu would be too large, or None."""
    size = size_of_menu(mdp, points)
    if size <= LARGEST_MENU:
        return None
    return f"a menu of {size:,} actions is too large ({len(mdp.free)} continuous ones, with {points} points each)"


def menu_of(mdp: MDP, middle: Tensor, points: int) -> Tensor:
    """u (D, A) around `middle` (A,), with so many points for each continuous action."""
    reach = widest_reach(mdp, middle) if mdp.free else 0.0
    x = mdp.tensor(list(itertools.product(torch.linspace(-1, 1, points).tolist(), repeat=len(mdp.free))))
    return mdp.join(mdp.options.unsqueeze(1), middle[mdp.free] + reach * x).flatten(0, 1)


class MenuValue(StateFunction):
    """Q(s, d) of the D actions of a menu; called as a value function, V(s) = max_d Q(s, d), or the expected maximum
    where there are taste shocks (`alternatives.py`)."""

    menu: Tensor

    def __init__(self, mdp: MDP, size: int) -> None:
        super().__init__(mdp)
        self.register_buffer("menu", mdp.low.new_zeros(size, mdp.A))

    def by_option(self, s: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """Of Q (..., D) at states s (..., S), the largest value of each combination of options, and its place on the
        menu, (..., O) each. What is not available has minus infinity."""
        each = len(self.menu) // len(self.mdp.options)
        values, place = self.mdp.alternatives.open(s, Q.unflatten(-1, (-1, each)).movedim(-1, 0)).max(dim=0)
        return values, place + each * torch.arange(len(self.mdp.options), device=s.device)

    def largest(self, s: Tensor, Q: Tensor) -> Tensor:
        """V (...) of the values Q (..., D) of the menu at states s."""
        if len(self.menu) == 1:
            return Q.squeeze(-1)  # of a policy that is given
        return self.mdp.alternatives.value_at(s, self.by_option(s, Q)[0])

    def best(self, s: Tensor, Q: Tensor) -> Tensor:
        """The place (...) on the menu of the best action, by these values."""
        if len(self.menu) == 1:
            return torch.zeros_like(s[..., 0], dtype=torch.long)
        values, places = self.by_option(s, Q)
        return places.gather(-1, self.mdp.alternatives.best(s, values).unsqueeze(-1)).squeeze(-1)

    def Q(self, s: Tensor) -> Tensor:
        """(..., D) at states s (..., S)."""
        raise NotImplementedError

    def place(self, u: Tensor) -> Tensor:
        """Where the actions u (..., A) are on the menu, (..., 1)."""
        return (u.unsqueeze(-2) == self.menu).all(dim=-1).int().argmax(dim=-1, keepdim=True)

    def of(self, s: Tensor, u: Tensor) -> Tensor:
        """Q of the actions u (..., A), which are on the menu."""
        return self.Q(s).gather(-1, self.place(u)).squeeze(-1)

    def forward(self, s: Tensor) -> Tensor:
        return self.largest(s, self.Q(s))

    def drawn(self, s: Tensor, generator: torch.Generator) -> Tensor:
        """The place (...) on the menu of the best action or, where there are taste shocks, of one drawn by its
        probability."""
        values, places = self.by_option(s, self.Q(s))
        alternatives = self.mdp.alternatives
        if self.mdp.tastes == 0:
            row = alternatives.best(s, values)
        else:
            row = draw(alternatives.probabilities_at(s, values), generator)
        return places.gather(-1, row.unsqueeze(-1)).squeeze(-1)


class NetworkMenuValue(MenuValue):
    """Q(s, d) as a network with one output for each action of the menu."""

    def __init__(self, mdp: MDP, size: int, hidden: Sequence[int], units: dict[str, Any]) -> None:
        super().__init__(mdp, size)
        self.hidden, self.units = list(hidden), Units(**units)
        self.features = Features(mdp)
        self.body = MLP(self.features.size, hidden, size)

    def describe(self) -> dict[str, Any]:
        return {"size": len(self.menu), "hidden": self.hidden, "units": asdict(self.units)}

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """Q(s, u) in units, (...), of actions that are on the menu."""
        return self.body(self.features(s)).gather(-1, self.place(u)).squeeze(-1)

    def Q(self, s: Tensor) -> Tensor:
        return self.units.value(self.body(self.features(s)))


class TableMenuValue(MenuValue):
    """Q(s, d) as a table, interpolated between its states. An action that is not allowed in one of them has a value
    there so low that it is not taken near by either."""

    def __init__(self, mdp: MDP, size: int, **grid: Any) -> None:
        super().__init__(mdp, size)
        self.entries = TableFunction(mdp, size, **grid)

    def describe(self) -> dict[str, Any]:
        return {"size": len(self.menu), **self.entries.describe()}

    def reach(self, known: Box) -> Box:
        return self.entries.reach(known)

    def Q(self, s: Tensor) -> Tensor:
        return self.entries.interpolate(s).movedim(0, -1)

    def fit(self, Q: Tensor) -> None:
        """Take the entries Q (N, D), minus infinity where an action is not allowed."""
        self.entries.fit(Q.clamp(min=NEVER))


NEVER = -1e30


class Greedy(StateFunction):
    """pi(s) = argmax_d Q(s, d), as a feasible action; `kind` is the `MenuValue` that holds Q."""

    def __init__(self, mdp: MDP, kind: str, **description: Any) -> None:
        super().__init__(mdp)
        self.value: MenuValue = KINDS[kind](mdp, **description)  # type: ignore[assignment]

    def describe(self) -> dict[str, Any]:
        return {"kind": type(self.value).__name__, **self.value.describe()}

    def reach(self, known: Box) -> Box:
        return self.value.reach(known)

    def forward(self, s: Tensor) -> Tensor:
        return self.mdp.act(s, self.value.menu[self.value.best(s, self.value.Q(s))])

    def probabilities(self, s: Tensor) -> Tensor:
        return self.mdp.alternatives.probabilities_at(s, self.value.by_option(s, self.value.Q(s))[0])

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        _, places = self.value.by_option(s, self.value.Q(s))
        return self.mdp.act(s, self.value.menu[places.gather(-1, row.unsqueeze(-1)).squeeze(-1)])


def greedy(value: MenuValue) -> Greedy:
    """The greedy policy of a value, which it shares."""
    policy = Greedy(value.mdp, type(value).__name__, **value.describe())
    policy.value = value
    return policy
