"""What the polish of a policy begins from: its settings, its start, its networks, and the problem that suffices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from econrl.approximation.networks import exchangeable
from econrl.approximation.units import units_of
from econrl.errors import SolveError
from econrl.optimality.bounded_forms import FREE, forms_of
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import (
    steepness,
    why_multipliers_are_unknown,
    without_multipliers,
)
from econrl.optimality.quadrature_choice import KINKED, coarsest
from econrl.optimality.structure import matter
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.state_function import StateFunction
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Answer, Result, Task
from econrl.solvers.off_policy.ddpg import DDPG
from econrl.solvers.perturbation.expansions import ExpandedPolicy, ExpandedValue
from econrl.solvers.perturbation.linear_policy import LinearPolicy, QuadraticValue
from econrl.solvers.polish.correction_networks import PeriodFunction, PolishedPolicy, PolishedValue
from econrl.solvers.polish.network_value import imitate, solve_bellman
from econrl.solvers.polish.sampler import Sampler
from econrl.storage.checkpoint import function_state

START_SHARE = 1 / 3  # of a time limit, at most, for the actor-critic that a run may begin with: the polish is faster
START_STATES, FEWEST_STATES = 2000, 256  # to learn from the starting policy; in a step
NUMBERS = 4_000_000  # held at once in a chunk: states x residuals x (nodes + 1) x widths


@dataclass(frozen=True)
class Polished(Method):
    """The settings of the polish."""

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers of policy and value; of each period of a life cycle the first alone."""
    rows: float = 4.5
    """Residuals in a step, for each weight: with fewer, a step fits these states, and the error elsewhere grows."""
    box: float = 0.25
    """Share of them that is uniform on the domain; the rest are the policy's own."""
    paths: int = 300
    """Paths of the simulation that the policy's own states are drawn from."""
    nodes: int = 7
    """Quadrature nodes a shock at most; fewer where no bound may bind, so that residuals are smooth, or where
    multipliers matter, if the starting policy's residuals change by at most `quadrature`."""
    quadrature: float = 1e-8
    """Mean change of the residuals that is accepted for fewer nodes; where multipliers matter, at least 1e-5."""
    every: int = 5
    """Steps from one measurement of the error to the next."""
    patience: int = 8
    """Measurements without a lower error after which a step gets twice as many states; three times, then it ends."""
    settling: int = 60
    """First steps, where multipliers matter, in which tomorrow's policy is that of the last step, as in time
    iteration."""
    fit_steps: int = 60
    """Steps, at most, in which a network learns to copy the warm start, and in each period of a life cycle."""
    value_steps: int = 40
    """Steps, at most, in which the value of the policy is found."""
    start_steps: int = 500
    """Steps of the actor-critic that a run begins with where it has no warm start; at most a third of its time."""

    def __post_init__(self) -> None:
        for name in ("rows", "paths", "nodes", "every", "patience", "fit_steps", "value_steps", "start_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "settling", self.settling >= 0, "at least 0")
        require(self, "box", 0 <= self.box <= 1, "in [0, 1]")
        require(self, "quadrature", self.quadrature >= 0, "at least 0")


def actor_critic(task: Task, steps: int) -> Result:
    """A short run of DDPG to begin with."""
    method = DDPG()
    mdp = MDP(task.model, task.device, method.dtype, Quadrature(nodes=method.nodes))
    limit = None if task.time_limit is None else START_SHARE * task.remaining()
    return method.run(mdp, Task(task.model, task.device, task.seed, steps, limit))


class Polish:
    """The networks that Gauss-Newton moves, the problem with the quadrature that suffices, and the states they see.

    `start` is what the networks begin as. Raises SolveError where tomorrow's multipliers matter and cannot be known.
    """

    def __init__(
        self,
        method: Polished,
        mdp: MDP,
        task: Task,
        start: Answer,
        drifts: bool,
        look_at_the_clock: Callable[[], None],
    ) -> None:
        self.method, self.task, self.look_at_the_clock = method, task, look_at_the_clock
        policy, value = (function.on(mdp) for function in start)
        self.start_policy, self.start_value = policy, value
        self.sampler = Sampler(mdp, method.box, method.paths, drifts, task.generator(mdp.device))
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights: the start has drawn from it
        s = self.sampler.sample(policy, START_STATES)
        forms = forms_of(mdp, s, policy(s))
        smooth = all(form == FREE for form in forms)
        self.structure = without_multipliers(find_structure(mdp), forms, mdp)
        self.with_multipliers = matter(self.structure)
        self.mdp = self.coarser(mdp, policy, s[:500]) if smooth or self.with_multipliers else mdp
        if self.with_multipliers:
            self.require_multipliers(mdp, s, policy(s))
        steep = steepness(mdp, self.structure, policy, s[:100], value) if self.with_multipliers else None
        hidden = method.hidden if mdp.horizon is None else method.hidden[:1]
        units, linear = units_of(value(s)), smooth and isinstance(policy, LinearPolicy | ExpandedPolicy)
        quadratic = isinstance(value, QuadraticValue | ExpandedValue) and units.sign == 0
        self.policy = PolishedPolicy(mdp, hidden, forms, linear, steep).to(mdp.device, mdp.dtype)
        self.value = PolishedValue(mdp, hidden, asdict(units), quadratic).to(mdp.device, mdp.dtype)
        for function in (self.policy, self.value):
            function.mdp = self.mdp
            function.requires_grad_(False)
        self.sampler.begin_paths()
        self.states, self.states_for_value = self.enough(self.policy, self.sampler.rows), self.enough(self.value, 1)
        if not self.structure.exists:
            self.states = max(self.states, self.states_for_value)
        points = len(self.mdp.nodes) * (len(self.mdp.nodes) if self.structure.joint else 1) + 1
        width = max(sum(hidden) * (mdp.groups[0].size if exchangeable(mdp) else 1), mdp.S)
        self.chunk = max(NUMBERS // (points * width * self.sampler.rows), 4)

    def coarser(self, mdp: MDP, policy: StateFunction, s: Tensor) -> MDP:
        """The problem with as few nodes as leave the residuals of the start as they are."""
        if not self.structure.exists:
            return mdp
        tolerance = max(self.method.quadrature, KINKED) if self.with_multipliers else self.method.quadrature
        most, look, value = self.method.nodes, self.look_at_the_clock, self.start_value
        return coarsest(mdp, self.structure, policy, s, most, tolerance, look, value)

    def require_multipliers(self, mdp: MDP, s: Tensor, a: Tensor) -> None:
        """Raise SolveError where tomorrow's multipliers cannot be known along with the policy."""
        one = "each period of a life cycle has multipliers of its own"
        if reason := one if mdp.horizon is not None else why_multipliers_are_unknown(mdp, s, a):
            why = f"where a bound binds tomorrow its multiplier enters today's Euler equation, and {reason}"
            raise SolveError(f"newton cannot polish {type(mdp.model).__name__}: {why}. Take time_iteration or ddpg")

    def enough(self, function: PeriodFunction, rows: int) -> int:
        """States in a step, where each gives so many residuals."""
        weights = sum(p.numel() for p in function.networks[0].parameters())
        return max(int(self.method.rows * weights / rows), FEWEST_STATES)

    def imitate(self, function: PeriodFunction, period: int, s: Tensor, z: Tensor) -> None:
        """Fit one network's outputs to z (B, outputs) at the states s (B, S)."""
        imitate(function, period, s, z, self.chunk, self.method.fit_steps, self.look_at_the_clock)

    def evaluate(self, policy: StateFunction) -> None:
        """Find the value of a policy, from the starting value, in the time that is left."""
        if isinstance(self.start_value, QuadraticValue | ExpandedValue) and self.value.base is not None:
            self.value.begin_at(self.start_value)
        else:
            s = self.sampler.known(self.sampler.sample(policy, self.states_for_value))
            self.imitate(self.value, 0, s, self.value.units.raw(self.start_value(s)).unsqueeze(-1))
        self.evaluate_further(policy, self.method.value_steps)

    def evaluate_further(self, policy: StateFunction, steps: int) -> None:
        """Bring the value, as it is, nearer to that of a policy, by so many steps."""
        states = partial(self.sampler.sample, policy, self.states_for_value)
        solve_bellman(self.mdp, policy, self.value, states, self.chunk, steps, self.look_at_the_clock)

    def state(self) -> dict[str, Any]:
        """The start, the networks, and what further draws depend on."""
        start = [function_state(function) for function in (self.start_policy, self.start_value)]
        networks = [function.state_dict() for function in (self.policy, self.value)]
        return {"start": start, "networks": networks, "sampler": self.sampler.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for function, kept in zip((self.policy, self.value), state["networks"], strict=True):
            function.load_state_dict(kept)
        self.sampler.restore(state["sampler"])
