"""A model as a table: finitely many states, the actions of a menu in each, and transition probabilities.

    V(i) = max_d R(i, d) + beta sum_j P(j | i, d) V(j)

Continuous states are put on a tensor grid. A state that is reached between its points goes to the corners around it by
lottery, with the weights of linear interpolation (Young 2010), so that the table's expected value is the interpolated
value. Markov chains are kept as they are; shocks are replaced by their quadrature nodes.

Source: Puterman (1994), "Markov Decision Processes", chapter 6; Young (2010), "Solving the incomplete markets model
with aggregate uncertainty using the Krusell-Smith algorithm and non-stochastic simulations", JEDC 34.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from econrl.approximation.grid_functions import layer_of, layered_states
from econrl.approximation.tensor_grid import TensorGrid
from econrl.errors import SolveError
from econrl.problem.alternatives import Alternatives, Comparison
from econrl.problem.diagnose import describe, first_fault
from econrl.problem.mdp import MDP
from econrl.problem.state_function import Box, StateFunction

CHUNK = 400_000  # numbers held at once while the table is built: states times actions times nodes times columns
SAME = 1e-9  # widths of the grid
MOST_ITERATIONS = 100_000


@dataclass(frozen=True)
class Table:
    """A finite Markov decision process of N states and D actions, each with at most K states to go to."""

    R: Tensor
    """Reward (N, D); minus infinity where an action is not allowed. Every state has one that is."""
    P: Tensor
    """Probabilities (N, D, K) of the states in `to`; a state may be there more than once."""
    to: Tensor
    """Numbers (N, D, K) of next states."""
    beta: float
    """Discount factor."""
    comparison: Comparison | None = None
    """How values of the actions are compared where there are taste shocks."""

    def best_value(self, Q: Tensor) -> Tensor:
        """V (...) of the values Q (..., D) of the actions in a state."""
        return Q.amax(dim=-1) if self.comparison is None else self.comparison.value(Q)

    @cached_property
    def allowed(self) -> Tensor:
        """Where an action may be taken, (N, D)."""
        return self.R.isfinite()

    @cached_property
    def cumulative(self) -> Tensor:
        """The distribution function (N, D, K) of the next state, in the order of `to`."""
        return self.P.cumsum(dim=-1)

    @cached_property
    def lists(self) -> tuple[Tensor, Tensor]:
        """The allowed actions of each state, before those that are not (N, D), and how many they are (N,)."""
        return self.allowed.int().argsort(dim=-1, descending=True, stable=True), self.allowed.sum(dim=-1)

    def draw(self, i: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        """Next states (E,) of the states i and actions d (E,)."""
        reached = self.cumulative[i, d]
        u = torch.rand(len(i), 1, generator=generator, dtype=reached.dtype, device=reached.device) * reached[:, -1:]
        return self.to[i, d, (reached <= u).sum(dim=-1)]

    def draw_action(self, i: Tensor, generator: torch.Generator) -> Tensor:
        """Actions (E,), each of those allowed in the states i (E,) as likely as any other."""
        order, count = self.lists
        u = torch.rand(len(i), generator=generator, dtype=self.R.dtype, device=self.R.device)
        return order[i, (u * count[i]).long()]

    def lookahead(self, V: Tensor) -> Tensor:
        """Q(i, d) = R + beta sum_j P(j | i, d) V(j), (N, D)."""
        return self.R + self.beta * (self.P * V[self.to]).sum(dim=-1)

    def solve(
        self, method: Literal["policy_iteration", "value_iteration"] = "policy_iteration"
    ) -> tuple[Tensor, Tensor]:
        """The exact value (N,) and an optimal policy (N,), by `quantecon.markov.DiscreteDP`."""
        threads = torch.get_num_threads()
        from quantecon.markov import DiscreteDP
        from scipy.sparse import csr_matrix

        torch.set_num_threads(threads)  # which the first import of quantecon changes for the whole process
        i, d = self.allowed.nonzero(as_tuple=True)
        P, to = self.P[i, d], self.to[i, d]
        rows = torch.arange(len(i)).unsqueeze(-1).expand_as(to)
        entries = P.flatten().numpy(), (rows.flatten().numpy(), to.flatten().numpy())
        Q = csr_matrix(entries, shape=(len(i), len(self.R)))
        problem = DiscreteDP(self.R[i, d].numpy(), Q, self.beta, i.numpy(), d.numpy())
        solved = problem.solve(method=method, max_iter=MOST_ITERATIONS)
        return torch.as_tensor(solved.v), torch.as_tensor(solved.sigma)


def states_of(mdp: MDP, grid: TensorGrid) -> Tensor:
    """The states (N, S) of a table: the points of the grid, at every state of the Markov chains."""
    return layered_states(mdp, mdp.continuous, grid.mesh(), 0)


def tabulate(mdp: MDP, grid: TensorGrid, a: Tensor, alternatives: Alternatives | None = None) -> Table:
    """The table of the actions a (N, D, A) at `states_of` a grid that is linear between its points.

    A shock that carries a state beyond the grid leaves it on the edge. An action must not gain from that: where some
    action leads, on average over the shocks, beyond the grid less far than others, only those that lead least far are
    allowed. Capital that is kept at the grid's lower end for free would be eaten.

    `alternatives` are the menu that the actions are of: not all of it may be available everywhere.

    Raises SolveError where no action has a finite reward.
    """
    s = states_of(mdp, grid)
    n = max(CHUNK // (a.shape[1] * len(mdp.nodes) * mdp.S), 1)
    parts = [rows(mdp, grid, s_part, a_part) for s_part, a_part in zip(s.split(n), a.split(n), strict=True)]
    R, P, to = (torch.cat(part) for part in zip(*parts, strict=True))
    R = R if alternatives is None else alternatives.open(s, R)
    lost = ~R.isfinite().any(dim=-1)
    if lost.any():
        i = int(lost.int().argmax())
        reason = first_fault(mdp, s[i].expand(a.shape[1], -1), a[i]) or f"no reward is finite at {describe(mdp, s[i])}"
        raise SolveError(f"{reason}. A table needs one allowed action in every state of its grid")
    beta = float(mdp.discount(s[:1], a[:1, 0], mdp.nodes[:1]).flatten()[0])
    return Table(R, P, to, beta, alternatives if mdp.tastes > 0 else None)


def rows(mdp: MDP, grid: TensorGrid, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R (n, D), P and `to` (n, D, K) of the states s (n, S) and actions a (n, D, A)."""
    R = mdp.reward(s.unsqueeze(1), a)
    reached = mdp.transition(s[:, None, None], a.unsqueeze(2), mdp.nodes)
    w = mdp.weights(s).expand(len(s), -1).unsqueeze(1)

    x = reached[..., mdp.continuous]
    low, high = mdp.tensor(grid.low), mdp.tensor(grid.high)
    mean = (w.unsqueeze(-1) * x).sum(dim=-2)
    beyond = ((mean - mean.clamp(low, high)) / (high - low)).abs().sum(dim=-1)
    beyond = torch.where(R.isfinite() & beyond.isfinite(), beyond, torch.inf)
    least = beyond.amin(dim=-1, keepdim=True)
    R = torch.where(beyond <= least + SAME, R, -torch.inf).where(beyond.isfinite(), -torch.inf)

    to, weights = corners(grid, x.nan_to_num().clamp(low, high), layer_of(mdp, reached))
    return R, (w.unsqueeze(-1) * weights).flatten(2), to.flatten(2)


def corners(grid: TensorGrid, x: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of the points around x (..., d) in the layers (...), and their weights: (..., 2^d) each."""
    stencil = grid.stencil(x, layer)
    weights = torch.ones_like(stencil.first, dtype=x.dtype).unsqueeze(-1)
    for w in stencil.weights:
        weights = (weights.unsqueeze(-1) * w.movedim(0, -1).unsqueeze(-2)).flatten(-2)
    return stencil.first.unsqueeze(-1) + grid.offsets, weights


class TableFunction(StateFunction):
    """Several functions on a table's states, linear between them, and beyond the grid what they are on its edge."""

    entries: Tensor

    def __init__(self, mdp: MDP, outputs: int, **description: Any) -> None:
        super().__init__(mdp)
        self.description = description
        self.grid = TensorGrid(**description, device=mdp.device, dtype=mdp.dtype)
        self.low, self.high = mdp.tensor(self.grid.low), mdp.tensor(self.grid.high)
        states = self.grid.size * mdp.layers
        self.register_buffer("entries", mdp.low.new_zeros(outputs, states))

    def describe(self) -> dict[str, Any]:
        return dict(self.description)

    def reach(self, known: Box) -> Box:
        """No farther than its grid."""
        low, high = (end.clone() for end in super().reach(known))
        columns = self.mdp.continuous
        low[columns] = low[columns].maximum(self.mdp.tensor(self.grid.low))
        high[columns] = high[columns].minimum(self.mdp.tensor(self.grid.high))
        return low, high

    def interpolate(self, s: Tensor) -> Tensor:
        """Values (outputs, ...) at states s (..., S)."""
        x = s[..., self.mdp.continuous].clamp(self.low, self.high)
        return self.grid.interpolate(self.entries, x, layer_of(self.mdp, s))

    def fit(self, values: Tensor) -> None:
        """Take these values (N, outputs) at the states."""
        self.entries = values.T.contiguous()


class TableValue(TableFunction):
    """A value function: s (..., S) to V (...)."""

    def __init__(self, mdp: MDP, **description: Any) -> None:
        super().__init__(mdp, 1, **description)

    def forward(self, s: Tensor) -> Tensor:
        return self.interpolate(s)[0]
