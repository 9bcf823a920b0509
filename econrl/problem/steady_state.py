"""The deterministic steady state that a model gives, and the mean shock at which it stands still."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.layout import flatten
from econrl.problem.mdp import MDP


def mean_shock(mdp: MDP) -> Tensor:
    """E[e], shape (E,)."""
    return mdp.weights(mdp.low) @ mdp.nodes


def known_steady_state(mdp: MDP) -> tuple[Tensor, Tensor] | None:
    """s and u of the model's own steady state, where it gives one for all states and actions."""
    named = mdp.model.steady_state()
    if named is None or any(slot.name not in named for slot in [*mdp.state_slots, *mdp.action_slots]):
        return None
    values = {name: torch.as_tensor(value).to(mdp.low) for name, value in named.items()}
    s = mdp.flat_states(values)
    return s, mdp.unsquash(mdp.shares(s, flatten(mdp.action_slots, values)))
