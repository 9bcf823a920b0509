"""What an agent of another library sees and does: observations and actions normalised to about [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from econrl.approximation.action_reach import unbounded, widest_reach
from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.networks import MLP, Features
from econrl.errors import MethodError
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction

ACTIVATIONS: dict[str, type[nn.Module]] = {c.__name__: c for c in (nn.ReLU, nn.Tanh, nn.SiLU, nn.ELU, nn.LeakyReLU)}


class Normalised(nn.Module):
    """Observations phi(s) and actions x in the place of a model's states s and actions a.

        a = act(s, u),    u = middle + reach x,    x in [-1, 1]^A

    phi(s) is what econrl's own networks see (`Features`): the domain as [-1, 1], Markov chains one-hot, positive states
    with a wide domain in logarithms too. A state outside the domain lies outside [-1, 1]; nothing is clipped.

    u is the unbounded form of an action (`feasible_set.py`): the log-odds of its share between its bounds, log shares
    of a budget over the unspent rest, units of `scale` where a bound is infinite. So every x, inside the box or not,
    gives an action that is feasible at its state, and strictly inside its bounds, where utilities are finite. x = 0 is
    `middle`, by default that of the best constant shares; at x = 1 the odds are e^reach times as high. Of a choice,
    each option has an equal part of [-1, 1].

    A wide reach comes close to the bounds, where they bind; a narrow one is easier to learn, and random actions stay
    near the domain. By default it is the widest of 5, 3, 1, 0.3 and 0.1 with which they do (`widest_reach`).
    """

    middle: Tensor

    def __init__(self, mdp: MDP, middle: Sequence[float] | None = None, reach: float | None = None) -> None:
        super().__init__()
        name = type(mdp.model).__name__
        if reach is not None and not 0 < reach < float("inf"):
            raise MethodError(f"`reach` must be positive, got {reach}")
        on_cpu = MDP(mdp.model, "cpu", mdp.dtype)  # the same environment, whatever the device
        if middle is None:
            u = best_constant_shares(on_cpu, torch.Generator().manual_seed(0)).u
        else:
            u = on_cpu.tensor([float(m) for m in middle])
        if u.shape != (mdp.A,):
            raise MethodError(f"`middle` must have {mdp.A} entries, one for each action of {name}, got {len(u)}")
        self.mdp, self.features = mdp, Features(mdp)
        self.register_buffer("middle", u.to(mdp.device))
        self.reach = widest_reach(on_cpu, u) if reach is None else float(reach)

    def observe(self, s: Tensor) -> Tensor:
        """Observations (..., O) of states s (..., S)."""
        return self.features(s)

    def act(self, s: Tensor, x: Tensor) -> Tensor:
        """Feasible actions a (..., A) for any x (..., A)."""
        return self.mdp.act(s, unbounded(self.mdp, self.middle, self.reach, x))


class AgentPolicy(StateFunction):
    """a = act(s, middle + reach squash(N(phi(s)))): a fully connected network N trained elsewhere, in `Normalised`.

    `squash` is tanh, or the clamp to [-1, 1] of an agent with unbounded actions.
    """

    def __init__(
        self, mdp: MDP, hidden: Sequence[int], activation: str, squash: str, middle: Sequence[float], reach: float
    ) -> None:
        super().__init__(mdp)
        self.hidden, self.activation, self.squash = list(hidden), activation, squash
        self.normalised = Normalised(mdp, middle, reach)
        self.body = MLP(self.normalised.features.size, hidden, mdp.A, ACTIVATIONS[activation])

    def describe(self) -> dict[str, Any]:
        middle, reach = self.normalised.middle.tolist(), self.normalised.reach
        return {
            "hidden": self.hidden,
            "activation": self.activation,
            "squash": self.squash,
            "middle": middle,
            "reach": reach,
        }

    def x(self, observation: Tensor) -> Tensor:
        """The agent's actions in [-1, 1], (..., A)."""
        z = self.body(observation)
        return z.tanh() if self.squash == "tanh" else z.clamp(-1, 1)

    def forward(self, s: Tensor) -> Tensor:
        return self.normalised.act(s, self.x(self.normalised.observe(s)))
