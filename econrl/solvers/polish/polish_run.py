"""The polish of a policy, step by step: everywhere, or backwards through a life."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from econrl.accuracy.held_out import HeldOut
from econrl.optimality.multipliers import (
    multiplier_residuals,
)
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.simulate import own_states
from econrl.solvers.common.run import LifeCycleRun, Run
from econrl.solvers.common.task import Answer, Task
from econrl.solvers.perturbation.expansions import ExpandedPolicy
from econrl.solvers.perturbation.linear_policy import LinearPolicy
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters
from econrl.solvers.polish.network_value import with_weights
from econrl.solvers.polish.polish import Polish, Polished, actor_critic
from econrl.solvers.polish.residuals import euler_rows, optimality_rows, picked
from econrl.storage.checkpoint import function_from, function_state

DEFAULT_STEPS = 300  # two to five minutes on a small model
EXACT = 1e-12  # an error at which nothing is left to polish
MOST_DOUBLINGS = 3  # of the states in a step, until what is left is not their noise
VALUE_EVERY, VALUE_STEPS = 5, 2  # of the policy, of the value in between where utility is recursive: it moves little
FOR_VALUE = 0.15  # of a time limit, kept for the value


class Polishing(Run):
    """What both runs share: they begin as another solution, which is their first answer."""

    overrules_measure = False

    def __init__(self, method: Polished, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(mdp, task, held_out)
        self.method = method
        self.polish: Polish | None = None
        self.interrupted = False  # whether Ctrl-C ended what it begins from

    def begin(self) -> None:
        if self.task.warm_start is not None:
            self.start = self.task.warm_start
        else:
            found = actor_critic(self.task, self.method.start_steps)
            self.start, self.interrupted = (found.policy, found.value), found.interrupted
        self.held_out.tolerate(self.start[0])

    def measured(self, error: float, best: bool) -> None:
        """Raises KeyboardInterrupt once the start is measured, where that was interrupted: it is the answer."""
        if self.interrupted:
            raise KeyboardInterrupt

    def due(self, step: int) -> bool:
        return step == 0 or step % self.method.every == 0

    def prepare(self) -> Polish:
        """Make the networks, which begin as the start."""
        drifts = self.held_out.tolerated > 0
        self.polish = Polish(self.method, self.mdp, self.task, self.start, drifts, self.look_at_the_clock)
        return self.polish

    def state(self) -> dict[str, Any]:
        if self.polish is not None:
            return {"polish": self.polish.state()}
        return {"polish": {"start": [function_state(function) for function in self.start]}}

    def restore(self, state: dict[str, Any]) -> None:
        kept = state["polish"]
        policy, value = (function_from(self.mdp, function) for function in kept["start"])
        self.start = policy, value
        self.held_out.tolerate(policy)
        if "networks" in kept:
            self.prepare().restore(kept)


class PolishRun(Polishing):
    """A stationary model: steps on fresh states, and then the value of the best policy."""

    def __init__(self, method: Polished, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        self.reserve = FOR_VALUE * (task.time_limit or 0.0)
        self.made, self.states, self.since, self.doublings = 0, 0, -1, 0

    @property
    def last_step(self) -> int | None:
        return self.task.steps or (DEFAULT_STEPS if self.task.time_limit is None else None)

    def all_steps_made(self, step: int) -> str:
        return ""

    def step(self) -> None:
        polish = self.polish or self.prepare_everywhere()
        if polish.with_multipliers:
            self.lag_policy(polish)
        if polish.structure.exists and not self.mdp.preferences.additive and self.made % VALUE_EVERY == 0:
            polish.evaluate_further(polish.policy, VALUE_STEPS)
        solver = self.solver
        squares = partial(solver.squares, solver.theta)
        before, _ = solver.step(polish.sampler.worst(polish.policy, squares, self.states))
        self.made += 1
        if before != before:
            self.message = f"the residuals stopped being numbers in step {self.made}"
        self.columns = {"residual": before**0.5}

    @property
    def ready(self) -> bool:
        return not self.message.startswith("the residuals")

    def prepare_everywhere(self) -> Polish:
        """Let the network be the start's policy, as nearly as may be, and make the solver."""
        polish = self.prepare()
        self.later: nn.Module | None = None
        start, sampler = polish.start_policy, polish.sampler
        if isinstance(start, LinearPolicy | ExpandedPolicy) and polish.policy.base is not None:
            polish.policy.begin_at(start)
        else:
            s = sampler.sample(start, polish.states)
            known = sampler.known(s)
            polish.imitate(polish.policy, 0, s, polish.policy.outputs_for(known, start(known)))
        if not polish.structure.exists or not self.mdp.preferences.additive:
            polish.evaluate(start)
        self.states = polish.states
        self.make_solver(polish)
        return polish

    def make_solver(self, polish: Polish) -> None:
        """Gauss-Newton on the Euler equation, or where there is none on the conditions of policy and value together."""
        policy, value = polish.policy.networks[0], polish.value.networks[0]
        if polish.structure.exists:
            self.solver = GaussNewton(self.euler, policy, polish.chunk, look_at_the_clock=self.look_at_the_clock)
        else:
            joint = nn.ModuleDict({"policy": policy, "value": value})
            self.solver = GaussNewton(self.optimality, joint, polish.chunk, look_at_the_clock=self.look_at_the_clock)

    def euler(self, theta: Parameters, x: Tensor) -> Tensor:
        """The residuals of the Euler equation that are looked at at one state: x (S,) or (S + rows,)."""
        polish = self.polish
        assert polish is not None
        policy, structure, S = polish.policy, polish.structure, self.mdp.S
        s, rows = x[:S], x[S:]
        network = with_weights(policy.networks[0], theta)
        if not polish.with_multipliers:
            return picked(euler_rows(polish.mdp, structure, partial(policy.by, network), s, value=polish.value), rows)
        now, then = (
            (partial(policy.by, of), partial(policy.multipliers_by, of)) for of in (network, self.later or network)
        )
        residuals = multiplier_residuals(polish.mdp, structure, *now, s.unsqueeze(0), then, polish.value)
        return picked(residuals.squeeze(0), rows)

    def optimality(self, theta: Parameters, x: Tensor) -> Tensor:
        """The same of the first-order condition and the Bellman equation together."""
        polish = self.polish
        assert polish is not None
        policy, value = (
            partial(function.by, with_weights(function.networks[0], part_of(theta, name)))
            for name, function in (("policy.", polish.policy), ("value.", polish.value))
        )
        return optimality_rows(polish.mdp, policy, polish.value, value, x[: self.mdp.S])

    def lag_policy(self, polish: Polish) -> None:
        """For the first steps, let tomorrow's policy be the last step's, as in time iteration.

        Multipliers that are expected to grow for ever satisfy every condition while no one invests; a policy that is
        far from the optimum is led there, one that is near is not.
        """
        lags = self.made < self.method.settling
        self.later = copy.deepcopy(polish.policy.networks[0]) if lags else None

    def answer(self) -> Answer:
        return self.start if self.polish is None else (self.polish.policy, self.polish.value)

    def measured(self, error: float, best: bool) -> None:
        super().measured(error, best)
        self.converged = error <= EXACT
        if self.made == 0:
            return
        self.since = 0 if best or self.since < 0 else self.since + 1
        if self.since >= self.method.patience and self.doublings == MOST_DOUBLINGS:
            self.message = f"the error stopped falling after {self.made} steps"
        elif self.since >= self.method.patience:  # what is left is the noise of the states: take more of them
            self.states, self.doublings, self.since = 2 * self.states, self.doublings + 1, 0

    def finish(self, answer: Answer) -> Answer:
        """The best policy with its value, if that has a lower Bellman error than the one it had."""
        policy, before = answer
        if self.polish is None and not self.converged:
            return answer  # there was no time for a step
        polish = self.polish or self.prepare()
        if not polish.structure.exists:
            return answer
        polish.evaluate(policy.on(polish.mdp))
        values = (before, polish.value.on(before.mdp))
        return policy, min(values, key=lambda value: self.held_out.bellman(policy, value))

    def state(self) -> dict[str, Any]:
        counts = [self.made, self.states, self.since, self.doublings]
        return {**super().state(), "counts": counts, "mu": None if self.polish is None else self.solver.mu}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.made, self.states, self.since, self.doublings = state["counts"]
        if self.polish is not None:
            self.later = None
            self.make_solver(self.polish)
            self.solver.mu = state["mu"]


class PolishBackwards(Polishing, LifeCycleRun):
    """A life cycle: period after period, the last one first, each with its own network. Until all are solved, the
    answer is the start."""

    def due(self, step: int) -> bool:
        return step == 0 or self.done == self.horizon

    @property
    def ready(self) -> bool:
        return self.done in (0, self.horizon)

    def where(self, step: int) -> str:
        return f"{super().where(step)}; the start is returned"

    def solve_period(self, t: int) -> None:
        polish = self.polish or self.prepare_lives()
        s = polish.sampler.of_period(self.pool, t, polish.states)
        self.solve_euler(polish, s, t)
        with torch.no_grad():
            v = lookahead(polish.mdp, polish.value, s, polish.policy(s))
        polish.imitate(polish.value, t, s, polish.value.units.raw(v).unsqueeze(-1))

    def prepare_lives(self) -> Polish:
        """The networks, and lives under the starting policy."""
        polish = self.prepare()
        n, generator = polish.states * self.horizon, polish.sampler.generator
        self.pool = own_states(polish.mdp, polish.start_policy, n, 0, 0, generator)[0]
        return polish

    def solve_euler(self, polish: Polish, s: Tensor, t: int) -> None:
        """The Euler equation of period t given the policy of t + 1; the value of t begins as that of t + 1."""
        policy, value = polish.policy, polish.value
        later = t + 1 < self.horizon
        if later:
            value.networks[t].load_state_dict(value.networks[t + 1].state_dict())
        network, next_network = policy.networks[t], policy.networks[t + 1 if later else t]
        next_value = partial(value.by, value.networks[t + 1 if later else t])

        def residual(theta: Parameters, s: Tensor) -> Tensor:
            now, then = (partial(policy.by, n) for n in (with_weights(network, theta), next_network))
            return euler_rows(polish.mdp, polish.structure, now, s, then, next_value)

        polish.imitate(policy, t, s, policy.outputs_for(s, polish.start_policy(s)))
        solver = GaussNewton(residual, network, polish.chunk, look_at_the_clock=self.look_at_the_clock)
        # Where all consume everything tomorrow, tomorrow's network is flat today: compare it with the start's.
        if later and solver.loss(dict(next_network.named_parameters()), s) < solver.loss(solver.theta, s):
            solver.set({name: p.clone() for name, p in next_network.named_parameters()})
        solver.fit(s, self.method.fit_steps)

    def answer(self) -> Answer:
        done = self.polish is not None and self.done == self.horizon
        return (self.polish.policy, self.polish.value) if self.polish is not None and done else self.start

    def state(self) -> dict[str, Any]:
        return {**super().state(), "done": self.done, "pool": None if self.polish is None else self.pool}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.done = state["done"]
        if state["pool"] is not None:
            self.pool = state["pool"].to(self.mdp.low)


def part_of(theta: Parameters, prefix: str) -> Parameters:
    """The parameters of one network among those of several."""
    return {name.removeprefix(prefix): p for name, p in theta.items() if name.startswith(prefix)}
