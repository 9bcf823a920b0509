"""How far a grid must reach and where its points belong: both are read off a simulation of a rough policy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.grid_functions import GridPolicy
from econrl.approximation.tensor_grid import FEWEST
from econrl.problem.mdp import MDP
from econrl.problem.simulate import ergodic_states
from econrl.problem.state_function import StateFunction

COARSE = 256  # points in all of the grid for the rough policy
MOST_UNDEFINED = 0.1  # share of a wider grid in which the model may not be defined though it is in the domain
ON_EDGE = 50  # states on each edge of the domain whose next states are looked at
BEYOND = 2.5  # how far the grid reaches outside the domain, over how far a simulation was seen to


def fitted(mdp: MDP, policy: StateFunction, description: dict[str, Any], margin: float, space: bool) -> dict[str, Any]:
    """The grid's description, fitted to where the states go under `policy`; with `space`, its points too."""
    low, high, median = visited_range(mdp, policy, margin)
    wide = description
    for side, ends in (("low", low.tolist()), ("high", high.tolist())):
        for i, edge in enumerate(ends):
            wider = {**wide, side: [*wide[side][:i], edge, *wide[side][i + 1 :]]}
            if undefined(mdp, wider) <= undefined(mdp, description) + MOST_UNDEFINED:
                wide = wider  # else the model is not defined out there
    if space:
        edges = zip(wide["low"], wide["high"], median.tolist(), strict=True)
        wide = {**wide, "spacing": [spacing_for((middle - least) / (most - least)) for least, most, middle in edges]}
    return wide


def undefined(mdp: MDP, description: dict[str, Any]) -> float:
    """The share of the grid's states at which the middle of all shares has no finite reward."""
    s = GridPolicy(mdp, **description).states()
    return float((~mdp.reward(s, mdp.act(s, s.new_zeros(len(s), mdp.A))).isfinite()).double().mean())


def coarse_points(description: dict[str, Any]) -> list[int]:
    """The points a dimension of a first, coarse grid."""
    points = description["points"]
    n = max(int(COARSE ** (1 / max(len(points), 1)) + 1e-9), FEWEST[description["interpolation"]])
    return [min(n, most) for most in points]


def visited_range(mdp: MDP, policy: StateFunction, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """The least and the largest continuous states to cover, and the median of a simulation.

    They cover the domain, the states that follow it and those that a simulation visits, and outside the domain half as
    far again, for simulations to come; at most `margin` outside. Below half a positive lower bound, they cover what
    follows the domain and no more.
    """
    generator = torch.Generator(mdp.device).manual_seed(0)
    columns = mdp.continuous
    box = with_edges(mdp, mdp.sample_box(500, generator))
    after = mdp.transition(box.unsqueeze(-2), policy(box).unsqueeze(-2), mdp.nodes).flatten(0, 1)[:, columns]
    visited = ergodic_states(mdp, policy, 100, 100, 100, generator)[0][:, columns]
    low, high = mdp.low[columns], mdp.high[columns]
    room = margin * (high - low)
    below = (low - torch.minimum(after.amin(dim=0), visited.amin(dim=0))).nan_to_num(nan=0.0)
    above = (torch.maximum(after.amax(dim=0), visited.amax(dim=0)) - high).nan_to_num(nan=0.0)
    half = torch.where(low > 0, (low / 2).maximum(below.minimum(0.99 * low)), room)
    least = low - (BEYOND * below.clamp(min=0)).minimum(room).minimum(half)
    largest = high + (BEYOND * above.clamp(min=0)).minimum(room)
    return least, largest, visited.nanmedian(dim=0).values


def with_edges(mdp: MDP, s: Tensor) -> Tensor:
    """The states s (n, S), and some of them with one continuous state at each end of its domain."""
    parts = [s]
    for column in mdp.continuous:
        for edge in (mdp.low, mdp.high):
            part = s[:ON_EDGE].clone()
            part[:, column] = edge[column]
            parts.append(part)
    return torch.cat(parts)


def spacing_for(z: float) -> float:
    """The spacing kappa >= 0 that puts a third of the points below z in (0, 1), at most 6.

    (q - 1)/(q^3 - 1) = z for q = e^(kappa/3), so that q^2 + q + 1 = 1/z.
    """
    q = (math.sqrt(4 / min(max(z, 1e-3), 1 / 3) - 3) - 1) / 2
    return min(3 * math.log(q), 6.0)
