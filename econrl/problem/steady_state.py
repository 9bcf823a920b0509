"""The deterministic steady state that a model gives, and the model with its shocks at their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.layout import View, flatten, named
from econrl.problem.mdp import MDP


def mean_shocks(mdp: MDP, s: Tensor) -> View:
    """E[e] at the states s (..., S), as the spec reads it."""
    w, values = mdp.weights(s), named(mdp.shocks(s.unsqueeze(-2), mdp.nodes))
    vectors = {slot.name for slot in mdp.layout.shown_shocks if slot.size is not None}
    means = {
        name: (w.unsqueeze(-1) * x).sum(dim=-2) if name in vectors else (w * x).sum(dim=-1)
        for name, x in values.items()
    }
    return View("shock", means)


def mean_transition(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """f(s, a, E[e]) (..., S), without uncertainty."""
    return mdp.transition_with(s, a, mean_shocks(mdp, s), mdp.weights(s) @ mdp.nodes)


def mean_discount(mdp: MDP, s: Tensor, a: Tensor) -> Tensor:
    """beta(s, a, E[e]), a scalar or of shape (...)."""
    return mdp.discount_with(s, a, mean_shocks(mdp, s))


def known_steady_state(mdp: MDP) -> tuple[Tensor, Tensor] | None:
    """s and u of the model's own steady state, where it gives one for all states and actions."""
    named = mdp.model.steady_state()
    if named is None or any(slot.name not in named for slot in [*mdp.state_slots, *mdp.action_slots]):
        return None
    values = {name: torch.as_tensor(value).to(mdp.low) for name, value in named.items()}
    s = mdp.flat_states(values)
    return s, mdp.unsquash(mdp.shares(s, flatten(mdp.action_slots, values)))
