"""What the off-policy methods share: exploration, replay and targets.

A method of the family is a file of its own: its settings beside those here, its losses beside their equations, and a
learner whose `update` makes one gradient step of them.

    ddpg, td3, sac      have an actor (`with_actor.py`)
    dqn, double_dqn     take the best action of a menu

Where a critic judges actions it sees them as their unbounded u (`feasible.py`), and learns from the one next state that
the environment showed or, as the model is known, from the expectation over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from econrl.approximation.constant_shares import find_start
from econrl.approximation.units import Units
from econrl.errors import MethodError
from econrl.problem.bellman import continuation, lookahead
from econrl.problem.diagnose import Broken
from econrl.problem.mdp import MDP
from econrl.problem.simulate import goes_on
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.method import require
from econrl.solvers.common.optimiser import Adam, follow
from econrl.solvers.common.task import Task
from econrl.solvers.common.training import Trained
from econrl.solvers.off_policy.replay import PrioritisedReplay, Replay, Transitions


class Critic(Protocol):
    """Q(s, u), or several of it."""

    units: Units

    def raw(self, s: Tensor, u: Tensor) -> Tensor:
        """In units: (B,), or (n, B) of n critics."""


FIRST_ETA = 0.4  # of the weights of prioritised draws; one at the end of the run


# What critics learn


def sampled_target(mdp: MDP, value: Function, batch: Transitions) -> Tensor:
    """y = r + beta V'(s') at the one next state that the environment showed, or the one n steps ahead."""
    with torch.no_grad():
        return torch.addcmul(batch.r, batch.beta, continuation(mdp, value, batch.s_next))


def expected_target(mdp: MDP, value: Function, batch: Transitions) -> Tensor:
    """y = r + sum_j w_j beta V'(s'_j) for the states and actions of the replay."""
    with torch.no_grad():
        return lookahead(mdp, value, batch.s, mdp.act(batch.s, batch.u))


def td_error(Q: Critic, s: Tensor, u: Tensor, y: Tensor) -> Tensor:
    """delta = Q(s, u) - y in the critic's units, (B,), or (n, B) of n; the action comes from the replay and carries
    no gradient."""
    assert y.shape == s.shape[:-1], "a column of targets would broadcast against a row of values"
    return Q.units.error(Q.raw(s, u.detach()), y)


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
    environments: int = 64
    """Paths simulated in parallel; each makes one period a gradient step."""
    episode: int = 100
    """Periods after which a path begins anew at a random state; no end of the world, so targets bootstrap."""
    capacity: int = 100_000
    """Transitions that the replay buffer holds."""
    nodes: int = 3
    """Quadrature nodes a shock."""

    def __post_init__(self) -> None:
        for name in ("batch", "n_step", "environments", "episode", "capacity", "nodes"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "prioritised", 0 <= self.prioritised <= 1, "in [0, 1]")
        require(
            self, "capacity", self.capacity >= max(self.batch, self.environments), "at least batch and environments"
        )
        if self.n_step > 1 and not self.samples:
            raise MethodError(
                f"{self.name}: `n_step` = {self.n_step} needs sampled targets, since an expectation over the shocks is "
                "taken one step ahead; leave it at 1"
            )

    @property
    def samples(self) -> bool:
        """Whether targets are sampled, rather than expected."""
        raise NotImplementedError


class Learner:
    """The state of a run: its environments, replay, networks, optimisers and random numbers.

    A subclass defines what is marked by NotImplementedError.
    """

    tau: float

    def __init__(self, method: Any, mdp: MDP, task: Task):
        self.method, self.mdp = method, mdp
        self.generator = task.generator(mdp.device)
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights, drawn on the CPU
        self.start = find_start(mdp, self.generator)
        self.prepare()
        self.replay = self.empty_replay()
        self.s = mdp.sample_box(method.environments, self.generator)
        self.age = torch.randint(method.episode, (method.environments,), generator=self.generator, device=mdp.device)
        self.broken = Broken(mdp, method.batch)
        self.updates = 0
        while len(self.replay) < method.batch:
            self.advance()

    def prepare(self) -> None:
        """Make the networks that explore, before the replay is filled, and set `tau`."""
        raise NotImplementedError

    def empty_replay(self) -> Replay:
        method, mdp = self.method, self.mdp
        shape = method.capacity, mdp.S, mdp.A, mdp.low, method.n_step, method.environments
        return PrioritisedReplay(*shape, omega=method.prioritised) if method.prioritised > 0 else Replay(*shape)

    def explore(self, s: Tensor) -> Tensor:
        """u (B, A) of the actions to try at s."""
        raise NotImplementedError

    @torch.no_grad()
    def advance(self) -> None:
        """Every environment makes one step; the transitions go into the replay."""
        mdp, s = self.mdp, self.s
        u = self.explore(s)
        a, e = mdp.act(s, u), mdp.sample_shocks(s, self.generator)
        reached = mdp.transition(s, a, e)

        # A path that is cut short has not ended: its last transition, with the state truly reached, is in the replay.
        self.age += 1
        keep = goes_on(mdp, reached) & (self.age < self.method.episode)
        self.age *= keep
        self.replay.add(Transitions(s, u, mdp.reward(s, a), mdp.discount(s, a, e).expand(len(s)), reached), keep)
        self.s = torch.where(keep.unsqueeze(-1), reached, mdp.sample_box(len(s), self.generator))

    def update(self, rate: float) -> None:
        """One gradient step of all networks, at a share `rate` of their learning rates, and of the targets."""
        raise NotImplementedError

    def answer(self) -> tuple[StateFunction, StateFunction]:
        """Policy and value as they are now."""
        raise NotImplementedError

    def networks(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError

    def optimisers(self) -> tuple[Adam, ...]:
        raise NotImplementedError

    def judge(self, Q: Critic, value: Function, rate: float) -> tuple[Transitions, Tensor, Tensor]:
        """A batch of the replay, Q's errors delta on it towards y = r + beta V'(s'), with `value` as V', and the
        weights (B,) of their losses."""
        at, weights = self.replay.draw(self.method.batch, 1 - (1 - FIRST_ETA) * rate, self.generator)
        batch = self.replay.read(at)
        y = (sampled_target if self.method.samples else expected_target)(self.mdp, value, batch)
        self.broken.watch(batch.s, batch.u, y)
        delta = td_error(Q, batch.s, batch.u, y)
        self.replay.correct(at, delta)
        return batch, delta, weights

    def follow(self, target: nn.Module, online: nn.Module, rate: float) -> None:
        """Move a target towards its online network, by tau, at a share `rate` of it; a hard copy is one."""
        follow(target, online, self.tau if self.tau == 1 else self.tau * rate)

    def state(self) -> dict[str, Any]:
        """All that the run's further course depends on."""
        return {
            "networks": [network.state_dict() for network in self.networks()],
            "optimisers": [optimiser.state() for optimiser in self.optimisers()],
            "replay": self.replay.state(),
            "environments": [self.s, self.age],
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for network, kept in zip(self.networks(), state["networks"], strict=True):
            network.load_state_dict(kept)
        for optimiser, kept in zip(self.optimisers(), state["optimisers"], strict=True):
            optimiser.restore(kept)
        self.replay.restore(state["replay"])
        self.s, self.age = (tensor.to(self.mdp.device) for tensor in state["environments"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]
