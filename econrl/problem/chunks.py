"""Functions of many states, a chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.mdp import MDP
from econrl.problem.state_function import Function

CHUNK = 4_000_000  # numbers held at once: states times nodes times states' columns


def in_chunks(mdp: MDP, f: Function, s: Tensor) -> Tensor:
    """f over the states a chunk at a time, so that memory does not grow with their number."""
    return torch.cat([f(part) for part in s.split(max(CHUNK // (len(mdp.nodes) * mdp.S), 1))])
