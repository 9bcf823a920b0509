"""Stationary models: maxima at sampled states, and the value of the policy that they make, again and again."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from econrl.accuracy.held_out import HeldOut
from econrl.approximation.constant_shares import best_constant_shares
from econrl.errors import SolveError
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.simulate import lifetime_reward, own_states
from econrl.solvers.common.task import Task
from econrl.solvers.fitted.fit import NUMBERS, slope_sizes
from econrl.solvers.fitted.functions import FittedValue
from econrl.solvers.fitted.maxima import Maxima, fit_cell, fit_policy, maxima, with_values
from econrl.solvers.fitted.states import states_around
from econrl.solvers.fitted.sweeps import LIVES, Fitted, Settings
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters

WARM = 8  # steps of value iteration, whose states and units are new each time, before policies are evaluated
SETTLED = 12  # steps after which the states stay what they are, so that changes say how far it is from the end
EVALUATION = 4  # Gauss-Newton steps for a policy's value: the next policy needs no more
CONVERGED, NEARLY = 1e-6, 1e-3  # mean change of shares at which it ends; at which it may end where it falls no more,
PATIENCE = 5  # for so many steps: between kinks, networks go to and fro


class PolicyIteration(Fitted):
    """Improve the policy at sampled states, and solve V = r + E[beta V(s')], and its derivative at fixed shares, there.

    The first steps are of value iteration, from the value of the best constant shares.
    """

    def __init__(self, method: Settings, mdp: MDP, task: Task, held_out: HeldOut) -> None:
        super().__init__(method, mdp, task, held_out)
        self.former: list[Tensor] = []
        self.smallest, self.since = math.inf, 0

    def begin(self) -> None:
        """Begin from the value of constant shares. Raises SolveError where they have none anywhere."""
        mdp, start = self.mdp, best_constant_shares(self.mdp, self.generator)
        policy = lambda s: mdp.act(s, start.u)  # noqa: E731
        self.visited, _ = own_states(mdp, policy, LIVES, 100, 50, self.generator)
        s = states_around(mdp, self.visited, self.states, self.generator)
        for option in range(self.cells.options):
            for regime in range(self.cells.each):
                self.fit_start(self.cells.number(0, option, regime), option, self.cells.put(s, regime), start.u)

    def fit_start(self, cell: int, option: int, s: Tensor, u: Tensor) -> None:
        """The value of constant shares under an option that is taken for ever."""
        mdp = self.mdp
        u = u.clone()
        for (column, _), number in zip(mdp.choices, mdp.options[option].tolist(), strict=True):
            u[column] = number
        s = self.cells.open(s, option).clone().requires_grad_()
        v = lifetime_reward(mdp, u.unsqueeze(0), s, self.generator).squeeze(0)
        slopes = torch.autograd.grad(v.sum(), s, materialize_grads=True)[0] if v.requires_grad else torch.zeros_like(s)
        v, slopes, s = v.detach(), slopes[:, mdp.continuous], s.detach()
        y = mdp.squash(u)[mdp.free].expand(len(s), -1)
        found = with_values(self.method.name, self.policy.problems[option][0], Maxima(s, y, v, slopes, y))
        if found is not None:
            fit_cell(self.policy, cell, found, self.method.first_fit, self.look_at_the_clock)

    @property
    def last_step(self) -> int | None:
        return self.task.steps

    def step(self) -> None:
        if self.done < SETTLED:
            if self.done > 0:
                self.visited, _ = own_states(self.mdp, self.policy.rough, LIVES, 100, 50, self.generator)
            self.s = states_around(self.mdp, self.visited, self.states, self.generator)
        found = {
            (option, regime): self.improve(option, regime)
            for regime in range(self.cells.each)
            for option in range(self.cells.options)
        }
        if all(maximum is None for maximum in found.values()):
            raise SolveError(f"{self.method.name} on {type(self.mdp.model).__name__}: no state has a finite value")
        errors = self.value_iteration(found) if self.done < WARM else [self.evaluate(found)]
        self.columns = {"fit": max(errors)}
        if self.done >= SETTLED:
            self.note([maximum.y for maximum in found.values() if maximum is not None])
        self.done += 1

    def improve(self, option: int, regime: int) -> Maxima | None:
        """The maxima of one cell."""
        s = self.cells.put(self.s, regime)
        found = maxima(self.policy, option, s, self.done > 0, self.look_at_the_clock)
        return with_values(self.method.name, self.policy.problems[option][0], found)

    def value_iteration(self, found: dict[tuple[int, int], Maxima | None]) -> list[float]:
        """Fit V to the maxima; the errors of the fits."""
        errors = []
        for (option, regime), maximum in found.items():
            cell = self.cells.number(0, option, regime)
            self.value.known[cell] = maximum is not None
            if maximum is not None:
                errors.append(fit_cell(self.policy, cell, maximum, self.method.fit, self.look_at_the_clock))
        return errors

    def evaluate(self, found: dict[tuple[int, int], Maxima | None]) -> float:
        """Solve for the value of the policy that the maxima make; its root mean square residual."""
        equation = PolicyValue(self, found)
        solver = GaussNewton(equation.residual, equation, equation.chunk, look_at_the_clock=self.look_at_the_clock)
        error = solver.fit(equation.rows, EVALUATION)
        for (option, regime), maximum in found.items():
            if maximum is not None:
                cell = self.cells.number(0, option, regime)
                fit_policy(self.policy, cell, maximum, self.method.fit, self.look_at_the_clock)
        return error

    def note(self, shares: list[Tensor]) -> None:
        """Count the change of the shares since the last step; the same states are looked at."""
        former, self.former = self.former, shares
        if [a.shape for a in former] != [b.shape for b in shares]:
            return
        change = max(float((a - b).abs().mean()) if len(a) > 0 else 0.0 for a, b in zip(former, shares, strict=True))
        self.columns["change"] = change
        self.smallest, self.since = (change, 0) if change < self.smallest else (self.smallest, self.since + 1)
        self.converged = change <= CONVERGED or (self.since == PATIENCE and self.smallest <= NEARLY)
        if self.since == PATIENCE and not self.converged:
            self.message = f"the change stopped falling at {self.smallest:.1e}"

    def due(self, step: int) -> bool:
        return step > 0 and step % self.method.every == 0

    def where(self, step: int) -> str:
        return f"after {step} iterations"

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "s": getattr(self, "s", self.visited),
            "former": self.former,
            "changes": [self.smallest, self.since],
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.s, self.former = state["s"].to(self.mdp.low), [y.to(self.mdp.low) for y in state["former"]]
        self.smallest, self.since = state["changes"]


class PolicyValue(nn.Module):
    """The Bellman equation of a policy that is known at sampled states, as residuals in the networks of all cells:

        x(s) - T(r + E[beta V(s')]) = 0,    x_s - T'(.) d/ds { r + E[beta V(s')] } = 0 at fixed shares,

    x = T(V) being the network's output, and slopes compared with themselves, as in `fit.py`.
    """

    def __init__(self, run: PolicyIteration, found: dict[tuple[int, int], Maxima | None]) -> None:
        super().__init__()
        self.mdp, self.hidden_value = run.mdp, (run.value,)  # in a tuple: its networks are this module's only ones
        self.networks = run.value.networks
        self.problems = [own for own, _, _ in run.policy.problems]
        self.d, self.A = len(run.mdp.continuous), run.policy.outputs
        known = {key: maximum for key, maximum in found.items() if maximum is not None}
        rows = []
        for (option, regime), maximum in known.items():
            cell = run.cells.number(0, option, regime)
            sizes = slope_sizes(run.mdp, maximum.slopes / run.value.units[cell].size(maximum.v).unsqueeze(-1))
            number = torch.full_like(maximum.v, cell).unsqueeze(-1)
            rows.append(torch.cat([maximum.s, maximum.y, sizes, number], dim=-1))
        self.rows = torch.cat(rows)
        size = sum(p.numel() for p in self.parameters())
        self.chunk = max(NUMBERS // (size * (1 + self.d)), 1)

    @property
    def value(self) -> FittedValue:
        """The value whose networks are to be moved."""
        return self.hidden_value[0]

    def values(self, theta: Parameters, s: Tensor) -> Tensor:
        """V_d of every cell at states (J, S): in one cell's unit each, minus infinity where there is none, (J, C)."""
        x, found = self.value.features(s), []
        for cell, net in enumerate(self.networks):
            if self.value.known[cell]:
                own = {name.split(".", 2)[2]: p for name, p in theta.items() if name.startswith(f"networks.{cell}.")}
                z = torch.func.functional_call(net, own, (x,)).squeeze(-1)
                found.append(self.value.units[cell].value(z))
            else:
                found.append(torch.full_like(x[..., 0], -torch.inf))
        return torch.stack(found, dim=-1)

    def largest(self, theta: Parameters, s: Tensor) -> Tensor:
        """V (J,) at states (J, S) of any regime."""
        cells = self.value.cells
        v = self.values(theta, s).unflatten(-1, (cells.options, cells.each)).movedim(-2, -1)
        v = self.mdp.alternatives.value_at(s.unsqueeze(-2), v)
        if cells.each == 1:
            return v.squeeze(-1)
        own = torch.nn.functional.one_hot(cells.regime(s), cells.each).bool()
        return torch.where(own, v, 0.0).sum(dim=-1)

    def residual(self, theta: Parameters, row: Tensor) -> Tensor:
        """(1 + d,) at one state."""
        S = self.mdp.S
        s, y, sizes, number = row.split([S, self.A, self.d, 1])
        basis = torch.eye(S, dtype=s.dtype, device=s.device)[self.mdp.continuous]
        gap = partial(self.gap, theta, y, number)
        at = gap(s)
        slopes = torch.func.vmap(lambda along: torch.func.jvp(gap, (s,), (along,))[1])(basis)
        return torch.cat([at.unsqueeze(0), slopes / sizes])

    def gap(self, theta: Parameters, y: Tensor, number: Tensor, s: Tensor) -> Tensor:
        """x(s) - T(r + E[beta V(s')]) at one state (S,), as far as its own cell is concerned."""
        total = torch.zeros_like(s[0])
        cells, at = self.value.cells, s.unsqueeze(0)
        own = self.values(theta, at)[0]
        for option, mdp in enumerate(self.problems):
            a = mdp.from_shares(at, y.unsqueeze(0))
            later = lookahead(mdp, partial(self.largest, theta), at, a)[0]
            for regime in range(cells.each):
                cell = cells.number(0, option, regime)
                if self.value.known[cell]:
                    unit = self.value.units[cell]
                    total = total + torch.where(number[0] == cell, unit.raw(own[cell]) - unit.raw(later), 0.0)
        return total
