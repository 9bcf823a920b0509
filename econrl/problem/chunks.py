"""Functions of many states, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

CHUNK = 4_000_000  # numbers held at once: states times nodes times states' columns


def in_chunks(mdp: MDP, f: Function, s: Tensor, before_each: Callable[[], None] = lambda: None) -> Tensor:
    """f over the states a chunk at a time, so that memory does not grow with their number. What is called
    `before_each` may raise, where there is no time for another."""
    found = []
    for part in s.split(max(CHUNK // (len(mdp.nodes) * mdp.S), 1)):
        before_each()
        found.append(f(part))
    return torch.cat(found)
