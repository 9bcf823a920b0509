"""What the off-policy methods share: settings, experience, and what is kept of a run.

A method of the family is a file of its own: its settings beside those here, its losses under their equations, and a
learner whose `update` makes one gradient step of them. `ddpg.py` is the one to read first.

    ddpg, td3, sac      have an actor
    dqn, double_dqn     take the best action of a menu

Where a critic values actions it sees them as their unbounded u (`feasible_set.py`), and learns from the one next state
that the environment showed or, as the model is known, from the expectation over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.units import Units
from econrl.errors import MethodError
from econrl.problem.diagnose import Broken
from econrl.problem.environments import Environments
from econrl.problem.mdp import MDP
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam
from econrl.solvers.common.task import Task
from econrl.solvers.common.training import Trained
from econrl.solvers.off_policy.replay import PrioritisedReplay, Replay, Transitions


class Critic(Protocol):
    """Q(s, u), or several of it."""

    units: Units

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """In units: (B,), or (n, B) of n critics."""


@dataclass(frozen=True)
class OffPolicy(Trained):
    """The settings of the family."""

    dtype = torch.float32

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each network."""
    batch: int = 256
    """States in a gradient step."""
    tau: float = 0.1
    """Weight of the online network in an update of its target, annealed to zero: the value first has to travel far,
    then needs averaging. 1 is a hard copy, and is not annealed."""
    n_step: int = 1
    """Steps that are seen before the target's value takes over, where targets are sampled (Sutton 1988); as the replay
    shows them, so with more than one the actions between are those of older policies."""
    prioritised: float = 0.0
    """Exponent omega of the priorities by which the replay is sampled (Schaul et al. 2016: 0.6); 0 is uniform."""
    eta: float = 0.4
    """Exponent of the weights that undo the preference of prioritised draws, at the beginning of the run; one at its
    end (Schaul et al. 2016)."""
    environments: int = 64
    """Paths simulated in parallel; each makes one period a gradient step."""
    episode: int = 100
    """Periods after which a path begins anew at a random state; no end of the world, so targets bootstrap."""
    capacity: int = 100_000
    """Transitions that the replay buffer holds."""
    nodes: int = 3
    """Quadrature nodes a shock."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "n_step", "environments", "episode", "capacity", "nodes"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        for name in ("prioritised", "eta"):
            require(self, name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        require(
            self, "capacity", self.capacity >= max(self.batch, self.environments), "at least batch and environments"
        )


def require_one_step(method: OffPolicy) -> None:
    """Raise MethodError where several steps are asked for from a method whose targets are expectations."""
    if method.n_step > 1:
        raise MethodError(
            f"{method.name}: `n_step` = {method.n_step} needs sampled targets, since an expectation over the shocks is "
            "taken one step ahead; leave it at 1"
        )


class Experience:
    """Environments in which a policy explores, and the replay of what they showed, which holds a batch from the start.

    `explore(s)` gives the actions to try at states s (B, S), by their u (B, A).
    """

    def __init__(
        self, method: OffPolicy, mdp: MDP, generator: torch.Generator, explore: Callable[[Tensor], Tensor]
    ) -> None:
        self.method, self.mdp, self.generator, self.explore = method, mdp, generator, explore
        shape = method.capacity, mdp.S, mdp.A, mdp.low, method.n_step, method.environments
        omega = method.prioritised
        self.replay = PrioritisedReplay(*shape, omega=omega) if omega > 0 else Replay(*shape)
        self.environments = Environments(mdp, method.environments, method.episode, generator)
        self.environments.stagger()
        while len(self.replay) < method.batch:
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Every environment makes one step; the transitions go into the replay."""
        s = self.environments.s
        u = self.explore(s)
        new = self.environments.step(self.mdp.act(s, u))
        # A path that is cut short has not ended: its last transition, with the state truly reached, is in the replay.
        self.replay.add(Transitions(s, u, new.r, new.beta, new.s_next), new.goes_on)
        self.environments.begin_anew(new.goes_on)

    def draw(self, rate: float) -> tuple[Transitions, Tensor, Tensor]:
        """A batch of the replay, the places (B,) it was drawn from, and the weights (B,) of its losses, where a share
        `rate` of the run is left."""
        at, weights = self.replay.draw(self.method.batch, 1 - (1 - self.method.eta) * rate, self.generator)
        return self.replay.read(at), at, weights

    def state(self) -> dict[str, Any]:
        """All that the further course depends on."""
        environments, generator = self.environments.state(), self.generator.get_state()
        return {"replay": self.replay.state(), "environments": environments, "generator": generator}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.replay.restore(state["replay"])
        self.environments.restore(state["environments"])
        self.generator.set_state(state["generator"])


class OffPolicyLearner:
    """The state of a run. A subclass makes the networks, their optimisers and, with a policy that explores, the
    experience; it defines `update` and `answer`."""

    networks: tuple[nn.Module, ...]
    optimisers: tuple[Adam, ...]
    experience: Experience

    def __init__(self, mdp: MDP, task: Task, batch: int) -> None:
        self.mdp = mdp
        self.generator = task.generator(mdp.device)
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights, drawn on the CPU
        self.start = best_constant_shares(mdp, self.generator)
        self.broken = Broken(mdp, batch)
        self.updates = 0

    def advance(self) -> None:
        """Every environment makes one step."""
        self.experience.advance()

    def update(self, rate: float) -> None:
        """One gradient step of all networks, at a share `rate` of their learning rates, and of the targets."""
        raise NotImplementedError

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """Policy and value as they are now."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""
        return {
            "networks": [network.state_dict() for network in self.networks],
            "optimisers": [optimiser.state() for optimiser in self.optimisers],
            "updates": self.updates,
            **self.experience.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for network, kept in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(kept)
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.restore(kept)
        self.experience.restore(state)
        self.updates = state["updates"]


def annealed(tau: float, rate: float) -> float:
    """The weight of an online network in an update of its target, where a share `rate` of the run is left."""
    return tau if tau == 1 else tau * rate
