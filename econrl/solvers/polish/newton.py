"""The optimum's own conditions, brought to zero by Gauss-Newton: rung 4 of the ladder."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.networks import exchangeable
from econrl.approximation.units import units_of
from econrl.errors import SolveError
from econrl.optimality.bounded_forms import FREE, forms_of
from econrl.optimality.euler import euler_residuals
from econrl.optimality.find_structure import find_structure
from econrl.optimality.greedy import greedy_residuals
from econrl.optimality.multipliers import cannot_price, matter, priced_residuals, steepness, without_multipliers
from econrl.optimality.quadrature_choice import KINKED, coarsest
from econrl.optimality.structure import Structure
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.simulate import go_on, own_states
from econrl.problem.state_function import Function, StateFunction
from econrl.solvers.common.method import Method, require
from econrl.solvers.common.task import Result, Task
from econrl.solvers.common.tracker import Tracker
from econrl.solvers.off_policy.ddpg import DDPG
from econrl.solvers.perturbation.expansions import ExpandedPolicy, ExpandedValue
from econrl.solvers.perturbation.linear_policy import LinearPolicy, QuadraticValue
from econrl.solvers.polish.correction_networks import PeriodFunction, PolishedPolicy, PolishedValue
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters
from econrl.solvers.polish.network_value import bellman_row, with_weights

START_STATES, FEWEST_STATES = 2000, 256  # to learn from the starting policy; in a step
START_STEPS, START_SHARE = 500, 1 / 3  # of the actor-critic that a run may begin with; of its time limit, at most
DEFAULT_STEPS = 300
FIT_STEPS, VALUE_STEPS = 60, 40  # of Gauss-Newton: at most, to copy the warm start; to evaluate the policy
WIDER = 5.0  # times the domain's width, in logarithms
CANDIDATES = 3  # for each state of a step
MOST_ROWS = 6  # residuals looked at at one state
SETTLING = 60  # steps of time iteration where multipliers matter
MEASURE_EVERY = 5  # steps
EXACT = 1e-12  # an error at which nothing is left to polish
PATIENCE, MOST_DOUBLINGS = 8, 3  # measurements without a lower error, after which a step gets twice as many states
FOR_VALUE = 0.15  # of a time limit, kept for the value
NUMBERS = 4_000_000  # held at once in a chunk: states x residuals x (nodes + 1) x widths


# The equations


def euler_rows(mdp: MDP, structure: Structure, policy: Function, s: Tensor, later: Function | None = None) -> Tensor:
    """R(s) (A,): the unit-free complementarity residuals of the first-order conditions at one state (S,)."""
    return euler_residuals(mdp, structure, policy, s.unsqueeze(0), later).squeeze(0)


def optimality_rows(mdp: MDP, policy: Function, value: PolishedValue, V: Function, s: Tensor) -> Tensor:
    """Where no Euler equation exists: r_a + E[beta V_s(s') f_a] = 0 and the Bellman equation together, (A + 1,)."""
    greedy = greedy_residuals(mdp, policy, V, s.unsqueeze(0)).squeeze(0)
    return torch.cat([greedy, bellman_row(mdp, policy, value, V, s)])


def picked(R: Tensor, rows: Tensor) -> Tensor:
    """Of the residuals R (m,) at one state, those whose numbers are given; all where none is."""
    return R if len(rows) == 0 else R.gather(0, rows.long())


# The method


@dataclass(frozen=True)
class Newton(Method):
    """Gauss-Newton on the automatic Euler equation, warm-started from another solution, with its value afterwards.

    With R(s; theta) the unit-free complementarity residuals (`euler.py`) of a small smooth network pi_theta,

        minimise the mean of |R(s; theta)|^2 by steps (J'J + mu D) d = -J'R,

    each on fresh states, drawn in proportion to |R| from simulated ones of the current policy and some of the box. The
    residuals outnumber the weights. A perturbation is corrected; from any other start the network begins as its copy.
    Where a binding bound's multiplier matters tomorrow, the network carries it too (`multipliers.py`). The value of
    the policy found then solves V = r + E[beta V'] in the same way. Where there is no Euler equation, policy and value
    solve the first-order condition with V_s and the Bellman equation together. A life cycle has one network a period,
    solved backwards from the last.

    Source: the residuals are those of Judd (1992), "Projection methods for solving aggregate growth models", JET 58;
    the steps those of Levenberg (1944) and Marquardt (1963).
    """

    name: ClassVar[str] = "newton"
    warm: ClassVar[bool] = True

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

    def __post_init__(self) -> None:
        for name in ("rows", "paths", "nodes"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "widths of at least 1")
        require(self, "box", 0 <= self.box <= 1, "in [0, 1]")
        require(self, "quadrature", self.quadrature >= 0, "at least 0")

    def run(self, mdp: MDP, task: Task) -> Result:
        """Copy the warm start, polish, evaluate. What comes back is never worse, on held-out points, than the start.

        Raises SolveError for a life cycle in which tomorrow's multipliers matter.
        """
        tracker = Tracker(task, HeldOut(task.model, task.device))
        start = task.warm_start or actor_critic(task)
        tracker.held_out.tolerate(start[0])
        tracker.measure(0, *start)
        policy, value = (function.on(mdp) for function in start)
        polish = Polish(self, mdp, task, policy, value, drifts=tracker.held_out.tolerated > 0)
        message, step, interrupted = "", 0, False
        try:
            if mdp.horizon is not None:
                message, step = polish.backwards(task, tracker)
            else:
                message, step = polish.everywhere(task, tracker)
        except KeyboardInterrupt:
            message, interrupted = "interrupted", True
        return tracker.result(step, message, interrupted=interrupted)


def actor_critic(task: Task) -> tuple[StateFunction, StateFunction]:
    """A short run of DDPG to begin with."""
    method = DDPG()
    mdp = MDP(task.model, task.device, method.dtype, Quadrature(nodes=method.nodes))
    limit = None if task.time_limit is None else START_SHARE * task.remaining()
    result = method.run(mdp, Task(task.model, task.device, task.seed, START_STEPS, limit))
    return result.policy, result.value


class Polish:
    """The networks that Gauss-Newton moves, the model with the quadrature that suffices, and the states they see."""

    def __init__(self, method: Newton, mdp: MDP, task: Task, policy: StateFunction, value: StateFunction, drifts: bool):
        self.method, self.structure = method, find_structure(mdp)
        self.start_policy, self.start_value = policy, value
        self.generator = task.generator(mdp.device)
        self.mdp, self.drifts = mdp, drifts
        torch.default_generator.manual_seed(task.seed)  # of the networks' first weights, drawn on the CPU
        s = self.sample(mdp, policy, START_STATES)
        hidden = method.hidden if mdp.horizon is None else method.hidden[:1]
        forms = forms_of(mdp, s, policy(s))
        smooth = all(form == FREE for form in forms)
        self.mdp = mdp
        self.structure = without_multipliers(self.structure, forms, mdp)
        self.priced = matter(self.structure)
        if (smooth or self.priced) and self.structure.exists:
            tolerance = max(method.quadrature, KINKED) if self.priced else method.quadrature
            self.mdp = coarsest(task.model, mdp, self.structure, policy, s[:500], method.nodes, tolerance)
        if self.priced:
            one = "each period of a life cycle has multipliers of its own"
            if reason := one if mdp.horizon is not None else cannot_price(mdp, s, policy(s)):
                why = f"where a bound binds tomorrow its multiplier enters today's Euler equation, and {reason}"
                raise SolveError(f"newton cannot polish {type(mdp.model).__name__}: {why}. Take time_iteration or ddpg")
        steep = steepness(mdp, self.structure, policy, s[:100]) if self.priced else None
        units, linear = units_of(value(s)), smooth and isinstance(policy, LinearPolicy | ExpandedPolicy)
        quadratic = isinstance(value, QuadraticValue | ExpandedValue) and units.sign == 0
        self.policy = PolishedPolicy(mdp, hidden, forms, linear, steep).to(mdp.device, mdp.dtype)
        self.value = PolishedValue(mdp, hidden, asdict(units), quadratic).to(mdp.device, mdp.dtype)
        for function in (self.policy, self.value):
            function.mdp = self.mdp
            function.requires_grad_(False)
        self.later: nn.Module | None = None
        self.s = mdp.sample_initial(method.paths, self.generator)
        self.rows = min(mdp.A, MOST_ROWS)
        self.states, self.states_for_value = self.enough(self.policy, self.rows), self.enough(self.value, 1)
        if not self.structure.exists:
            self.states = max(self.states, self.states_for_value)
        points = len(self.mdp.nodes) * (len(self.mdp.nodes) if self.structure.joint else 1) + 1
        width = max(sum(hidden) * (mdp.groups[0].size if exchangeable(mdp) else 1), mdp.S)
        self.chunk = max(NUMBERS // (points * width * self.rows), 4)

    def enough(self, function: PeriodFunction, rows: int) -> int:
        """States in a step, where each gives so many residuals."""
        weights = sum(p.numel() for p in function.networks[0].parameters())
        return max(int(self.method.rows * weights / rows), FEWEST_STATES)

    @torch.no_grad()
    def sample(self, mdp: MDP, policy: Function, n: int) -> Tensor:
        """n states: some of the box, the rest of the policy's own simulation a few periods after the box."""
        from_box = int(self.method.box * n)
        own, _ = own_states(mdp, policy, 4 * n, self.method.paths, 20, self.generator)
        at = torch.randint(len(own), (n - from_box,), generator=self.generator, device=own.device)
        return torch.cat([own[at], self.box(from_box)])

    def box(self, n: int) -> Tensor:
        """n states uniform on the domain; where paths leave it, on one that is wider in its logarithmic states.

        Where wealth may grow without end, the Euler equation has other solutions, whose error grows with wealth: on
        the domain alone nothing tells them from the optimum, far beyond it they are large, and within it gone.
        """
        mdp = self.mdp
        s = mdp.sample_box(n, self.generator)
        if self.drifts:
            wide = mdp.logarithmic
            low, high = mdp.low[wide].log(), mdp.high[wide].log()
            u = torch.rand(n, len(wide), generator=self.generator, dtype=s.dtype, device=s.device)
            s[:, wide] = ((low + high + WIDER * (2 * u - 1) * (high - low)) / 2).exp()
        return s

    def known(self, s: Tensor) -> Tensor:
        """The states nearest to s at which the warm start says something."""
        return s.clamp(self.mdp.low, self.mdp.high) if self.drifts else s

    @torch.no_grad()
    def worst(self, solver: GaussNewton, n: int) -> Tensor:
        """n states for a step, drawn from many in proportion to |R|: what is lowered is the mean of |R|^3, so that the
        few states at the rim of the ergodic set count."""
        s = self.with_rows(self.advance(CANDIDATES * n))
        size = solver.squares(solver.theta, s).sqrt()
        if not size.isfinite().all() or size.sum() == 0:
            return s[:n]
        return s[size.multinomial(n, generator=self.generator)]

    def with_rows(self, s: Tensor) -> Tensor:
        """The states s (B, S) with the numbers of the residuals that a step looks at there: some, drawn anew for each
        state, where there are many."""
        if self.rows == self.mdp.A:
            return s
        u = torch.rand(len(s), self.mdp.A, generator=self.generator, dtype=s.dtype, device=s.device)
        return torch.cat([s, u.argsort(dim=-1)[:, : self.rows].to(s)], dim=-1)

    @torch.no_grad()
    def advance(self, n: int) -> Tensor:
        """About n states: some of the box, the rest those of simulated paths, which go on from step to step."""
        mdp = self.mdp
        from_box = int(self.method.box * n)
        visited: list[Tensor] = []
        while len(visited) * len(self.s) < n - from_box:
            visited.append(self.s)
            reached = mdp.transition(self.s, self.policy(self.s), mdp.sample_shocks(self.s, self.generator))
            self.s = go_on(mdp, reached, self.generator)
        s = torch.cat([*visited, self.box(from_box)])
        return s[torch.randperm(len(s), generator=self.generator, device=s.device)]

    # A stationary model

    def begin(self) -> None:
        """Let the network be the warm start's policy, as nearly as may be."""
        if isinstance(self.start_policy, LinearPolicy | ExpandedPolicy) and self.policy.base is not None:
            self.policy.begin_at(self.start_policy)
            return
        s = self.sample(self.mdp, self.start_policy, self.states)
        known = self.known(s)
        imitate(self.policy, 0, s, self.policy.outputs_for(known, self.start_policy(known)), self.chunk)

    def euler(self, theta: Parameters, x: Tensor) -> Tensor:
        """The residuals of the Euler equation that are looked at at one state: x (S,) or (S + rows,)."""
        s, rows = x[: self.mdp.S], x[self.mdp.S :]
        network = with_weights(self.policy.networks[0], theta)
        if not self.priced:
            return picked(euler_rows(self.mdp, self.structure, partial(self.policy.by, network), s), rows)
        now, then = (
            (partial(self.policy.by, of), partial(self.policy.gains_by, of)) for of in (network, self.later or network)
        )
        return picked(priced_residuals(self.mdp, self.structure, *now, s.unsqueeze(0), then).squeeze(0), rows)

    def settle(self, step: int) -> None:
        """For the first steps, let tomorrow's policy be the last step's, as in time iteration.

        Multipliers that are expected to grow for ever satisfy every condition while no one invests; a policy that is
        far from the optimum is led there, one that is near is not.
        """
        self.later = copy.deepcopy(self.policy.networks[0]) if step < SETTLING else None

    def optimality(self, theta: Parameters, x: Tensor) -> Tensor:
        """The same of the first-order condition and the Bellman equation together."""
        policy = partial(self.policy.by, with_weights(self.policy.networks[0], part_of(theta, "policy.")))
        value = partial(self.value.by, with_weights(self.value.networks[0], part_of(theta, "value.")))
        return optimality_rows(self.mdp, policy, self.value, value, x[: self.mdp.S])

    def everywhere(self, task: Task, tracker: Tracker) -> tuple[str, int]:
        """Polish, measure now and then, and evaluate the best policy; a message and the steps made."""
        self.begin()
        if self.structure.exists:
            solver = GaussNewton(self.euler, self.policy.networks[0], self.chunk)
        else:
            self.evaluate(self.start_policy, task)
            joint = nn.ModuleDict({"policy": self.policy.networks[0], "value": self.value.networks[0]})
            solver = GaussNewton(self.optimality, joint, self.chunk)
        deadline = FOR_VALUE * (task.time_limit or 0.0)
        message, step, states, since, best, doublings = "", 0, self.states, 0, None, 0
        last = task.steps or (DEFAULT_STEPS if task.time_limit is None else math.inf)
        while not tracker.converged and step < last and tracker.log[-1]["error"] > EXACT:
            if task.remaining() <= deadline:
                message = f"stopped by the time limit after {step} steps"
                break
            if self.priced:
                self.settle(step)
            before, _ = solver.step(self.worst(solver, states))
            step += 1
            if before != before:
                message = f"the residuals stopped being numbers in step {step}"
                break
            if step % MEASURE_EVERY == 0 or step == task.steps:
                tracker.measure(step, self.policy, self.value, residual=before**0.5)
                assert tracker.best is not None
                since, best = (0, tracker.best[1]) if tracker.best[1] != best else (since + 1, best)
                if since >= PATIENCE and doublings == MOST_DOUBLINGS:
                    message = f"the error stopped falling after {step} steps"
                    break
                if since >= PATIENCE:  # what is left is the noise of the states: take more of them
                    states, doublings, since = 2 * states, doublings + 1, 0
        self.evaluate_best(task, tracker)
        return message, step

    def evaluate_best(self, task: Task, tracker: Tracker) -> None:
        """Give the best policy its value."""
        assert tracker.best is not None
        if not self.structure.exists:
            return
        error, step, policy, before = tracker.best
        self.evaluate(policy.on(self.mdp), task)
        held_out = tracker.held_out
        value = min(before, self.value.on(held_out.mdp), key=lambda value: held_out.bellman(policy, value))
        tracker.best = error, step, policy, value

    def evaluate(self, policy: StateFunction, task: Task) -> None:
        """Solve V = r + E[beta V'] for a fixed policy, from the starting value, in the time that is left."""
        if isinstance(self.start_value, QuadraticValue | ExpandedValue) and self.value.base is not None:
            self.value.begin_at(self.start_value)
        else:
            s = self.known(self.sample(self.mdp, policy, self.states_for_value))
            imitate(self.value, 0, s, self.value.units.raw(self.start_value(s)).unsqueeze(-1), self.chunk)
        network = self.value.networks[0]

        def residual(theta: Parameters, s: Tensor) -> Tensor:
            value = partial(self.value.by, with_weights(network, theta))
            return bellman_row(self.mdp, policy, self.value, value, s)

        solver = GaussNewton(residual, network, self.chunk)
        for _ in range(VALUE_STEPS):
            solver.step(self.sample(self.mdp, policy, self.states_for_value))
            if task.remaining() <= 0:
                break

    # A life cycle

    def backwards(self, task: Task, tracker: Tracker) -> tuple[str, int]:
        """Solve period after period, the last one first, each with its own network; a message and the periods done."""
        assert self.mdp.horizon is not None
        horizon, slowest = self.mdp.horizon, 0.0
        pool = own_states(self.mdp, self.start_policy, self.states * horizon, 0, 0, self.generator)[0]
        for t in reversed(range(horizon)):
            begun = task.elapsed()
            if task.remaining() < slowest:
                return f"stopped by the time limit with {t + 1} of {horizon} periods to go; the start is returned", 0
            s = self.of_period(pool, t)
            self.solve_period(s, t)
            slowest = max(slowest, task.elapsed() - begun)
        tracker.measure(horizon, self.policy, self.value)
        return "", horizon

    @torch.no_grad()
    def of_period(self, pool: Tensor, t: int) -> Tensor:
        """States of period t: some of the box, the rest of the starting policy's own simulation."""
        from_box = self.mdp.sample_box(int(self.method.box * self.states), self.generator)
        from_box[:, -1] = t
        own = pool[pool[:, -1] == t]
        at = torch.randint(len(own), (self.states - len(from_box),), generator=self.generator, device=own.device)
        return torch.cat([own[at], from_box])

    def solve_period(self, s: Tensor, t: int) -> None:
        """The Euler equation of period t given the policy of t + 1, then the value given that of t + 1."""
        later = t + 1 < len(self.policy.networks)
        if later:
            self.value.networks[t].load_state_dict(self.value.networks[t + 1].state_dict())
        network, next_network = self.policy.networks[t], self.policy.networks[t + 1 if later else t]

        def residual(theta: Parameters, s: Tensor) -> Tensor:
            now, then = (partial(self.policy.by, n) for n in (with_weights(network, theta), next_network))
            return euler_rows(self.mdp, self.structure, now, s, then)

        imitate(self.policy, t, s, self.policy.outputs_for(s, self.start_policy(s)), self.chunk)
        solver = GaussNewton(residual, network, self.chunk)
        # Where all consume everything tomorrow, tomorrow's network is flat today: compare it with the start's.
        if later and solver.loss(dict(next_network.named_parameters()), s) < solver.loss(solver.theta, s):
            solver.set({name: p.clone() for name, p in next_network.named_parameters()})
        solver.fit(s, FIT_STEPS)
        with torch.no_grad():
            v = lookahead(self.mdp, self.value, s, self.policy(s))
        imitate(self.value, t, s, self.value.units.raw(v).unsqueeze(-1), self.chunk)


def part_of(theta: Parameters, prefix: str) -> Parameters:
    return {name.removeprefix(prefix): p for name, p in theta.items() if name.startswith(prefix)}


def imitate(function: PeriodFunction, period: int, s: Tensor, z: Tensor, chunk: int) -> None:
    """Fit one network's outputs to z (B, outputs) at the states s (B, S)."""
    network, features = function.networks[period], function.features(s)

    def gap(theta: Parameters, pair: Tensor) -> Tensor:
        x, wanted = pair.split([features.shape[-1], z.shape[-1]])
        return with_weights(network, theta)(x) - wanted

    GaussNewton(gap, network, chunk).fit(torch.cat([features, z], dim=-1).detach(), FIT_STEPS)
