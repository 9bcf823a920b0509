"""Actions to which the future owes nothing: hours hired anew each period, variable inputs, utilisation."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.problem.mdp import MDP

PROBES = 32


def static_actions(mdp: MDP) -> Tensor:
    """Which actions (A,) move neither a state nor the discount factor; found once for each problem, and kept."""
    if static_actions not in mdp.found:
        mdp.found[static_actions] = look_at_derivatives(mdp).tolist()  # whatever derivative is being taken around this
    return torch.tensor(mdp.found[static_actions], device=mdp.device)


def look_at_derivatives(mdp: MDP) -> Tensor:
    """Whether sum_j v . f(s, a, e_j) and the discount ignore each action, at random states and actions, for a random v:
    derivatives that cancel by chance have probability zero."""
    generator = torch.Generator(mdp.device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=mdp.dtype, device=mdp.device)

    s = mdp.sample_box(PROBES, generator)
    a = mdp.act(s, mdp.sample_options(draw(PROBES, mdp.A), generator))
    nodes, v = mdp.nodes.unsqueeze(1), draw(len(mdp.nodes), 1, mdp.S + 1)

    def moved(a: Tensor) -> Tensor:
        discount = mdp.discount(s, a, nodes).expand(len(nodes), PROBES)
        return (v[..., :-1] * mdp.transition(s, a, nodes)).sum() + (v[..., -1] * discount).sum() + 0 * a.sum()

    return (torch.func.grad(moved)(a) == 0).all(dim=0)
