"""The economics of a spec: discounting, closed forms, steady state, and whether the value is finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from econrl.checks.trial import Trial, attempt
from econrl.errors import SpecError
from econrl.problem.diagnose import describe, show
from econrl.problem.layout import Slot, flatten
from econrl.problem.steady_state import mean_transition

PERIODS, PATHS = 180, 32  # of the simulations that ask for a finite value
LONGER = 4  # times as many periods confirm that it is infinite
LEVELS = (-7.0, -3.0, 0.0, 3.0, 7.0)  # u of the constant policies: shares of 0.1, 5, 50, 95 and 99.9 per cent
MOST_POLICIES = 50
GROWTH = 1.001  # a growth factor that simulated noise does not reach
SETTLED = 1e-6  # how far a steady state may move in a period, against the width of the domain


# Discounting


def check_discount(trial: Trial) -> list[str]:
    """beta >= 0, and E[beta] < 1 for a stationary model: without it the sum of rewards has no limit."""
    mdp, title = trial.mdp, f"{trial.name}.discount"
    stationary = mdp.horizon is None
    mend = "; for a stationary model it must lie between 0 and 1 (a life cycle has a `horizon`)"
    if mdp.discount(trial.s, trial.a, trial.e).ndim == 0:
        beta = float(mdp.discount(trial.s, trial.a, trial.e))
        if not beta > 0 or (stationary and beta >= 1):
            raise SpecError(f"{title}: beta = {beta:g}{mend if stationary else '; it must be positive'}")
        return []

    nodes, weights = mdp.nodes, mdp.weights(trial.s)
    factors = mdp.discount(trial.s.unsqueeze(1), trial.a.unsqueeze(1), nodes).expand(len(trial.s), len(nodes))
    wrong = (~(factors >= 0) & (weights > 0)).nonzero()
    if len(wrong):
        i, j = wrong[0].tolist()
        raise SpecError(
            f"{title} is {float(factors[i, j]):.5g} at the {trial.at(i)}; it must be at least zero for every shock"
        )
    expected = (weights * factors).sum(dim=-1)
    worst = int(expected.argmax())
    found = f"{title}: E[beta] = {float(expected[worst]):.5g} at the {trial.at(worst)}"
    if stationary and (expected >= 1).all():
        raise SpecError(f"{found}, and at least one at every state tried{mend}")
    if stationary and (expected >= 1).any():
        share = float((expected >= 1).double().mean())
        return [f"{found}, and one or more at {share:.0%} of the states tried; the value may be infinite"]
    return []


# What a model may give


def check_closed_forms(trial: Trial) -> list[str]:
    """The closed form of the policy keeps the bounds. (Names and shapes have been checked with all functions.)"""
    exact = trial.mdp.exact_policy(trial.s)
    if exact is not None:
        broken = (~trial.mdp.feasible(trial.s, exact)).nonzero()
        if len(broken):
            i = int(broken[0])
            where = describe(trial.mdp, trial.s[i], exact[i])
            raise SpecError(f"{trial.name}.exact_policy breaks the bounds of the actions at the {where}")
    return []


def check_steady_state(trial: Trial) -> list[str]:
    """States and actions by name; the transition at mean shocks stays there, within the bounds.

    Where there are Markov chains, discrete states or a horizon nothing stands still, and only names and shapes are
    checked.
    """
    mdp, title = trial.mdp, f"{trial.name}.steady_state"
    given = attempt(title, [mdp.model.steady_state], mdp.model.steady_state)
    if given is None:
        return []
    moving = [slot for v, slot in zip(mdp.state_variables, mdp.state_slots, strict=False) if not v.by_itself]
    wanted = [*moving, *mdp.action_slots]
    check_known(title, given, [slot.name for slot in [*mdp.state_slots, *mdp.action_slots]])
    values = {}
    for slot in wanted:
        if slot.name not in given:
            raise SpecError(f"{title} does not give '{slot.name}'; it must give every state and action")
        values[slot.name] = fitted(title, slot, given[slot.name], ())
    if mdp.finite or mdp.horizon is not None:
        return []
    s, a = mdp.flat_states(values), flatten(mdp.action_slots, values)
    warnings = []
    if not mdp.feasible(s, a):
        warnings.append(f"{title} breaks the bounds of the actions at the {describe(mdp, s, a)}")
    reached = attempt(title, [mdp.model.transition], lambda: mean_transition(mdp, s, a))
    away = (reached - s).abs() / (mdp.high - mdp.low)
    if not (away <= SETTLED).all():
        column = int(away.nan_to_num(nan=torch.inf).argmax())
        label = [c for slot in mdp.state_slots for c in slot.columns][column]
        warnings.append(
            f"{title} is no fixed point of the transition at mean shocks: '{label}' goes from {show(s[column])} to "
            f"{show(reached[column])}"
        )
    return warnings


def check_initial(trial: Trial, n: int = 7) -> list[str]:
    """Initial states: known names, n values or one for all, whole numbers for Markov chains and discrete states."""
    mdp, title = trial.mdp, f"{trial.name}.initial"
    generator = torch.Generator().manual_seed(0)
    given = attempt(title, [mdp.model.initial], lambda: mdp.model.initial(n, generator))
    if given is None:
        return []
    check_known(title, given, [slot.name for slot in mdp.state_slots])
    for slot in mdp.state_slots:
        if slot.name in given:
            values = mdp.hold(slot.name, fitted(title, slot, given[slot.name], (n,)))
            whole = slot.start not in mdp.continuous
            top = mdp.high[slot.start]
            if whole and not ((values >= 0) & (values <= top) & (values == values.floor())).all():
                raise SpecError(f"{title}: '{slot.name}' must be an index, a whole number from 0 to {int(top)}")
    share = float((~mdp.inside(mdp.sample_initial(1000, generator))).double().mean())
    return [f"{title}: {share:.0%} of the initial states lie outside the domain; widen low and high"] if share else []


def check_known(title: str, given: Any, names: list[str]) -> None:
    """A dict by name, of declared names alone."""
    if not isinstance(given, dict):
        raise SpecError(f"{title} returns a {type(given).__name__}; it must return a dict by name")
    for name in given:
        if name not in names:
            raise SpecError(f"{title} gives '{name}', which is not declared; declared are: {', '.join(names)}")


def fitted(title: str, slot: Slot, value: Any, batch: tuple[int, ...]) -> Tensor:
    """A finite value of the shape batch, plus (size,) for a vector; one number for all of them will do."""
    tensor = attempt(title, [], lambda: torch.as_tensor(value, dtype=torch.float64))
    wanted = batch if slot.size is None else (*batch, slot.size)
    if tuple(tensor.shape) not in ((), wanted):
        must = f"a number, or of shape {wanted}" if wanted else "a number"
        raise SpecError(f"{title}: '{slot.name}' has shape {tuple(tensor.shape)}; it must be {must}")
    if not tensor.isfinite().all():
        raise SpecError(f"{title}: '{slot.name}' is NaN or infinite")
    return tensor.expand(wanted)


# Finite value


def check_finite_value(trial: Trial) -> list[str]:
    """Warn where discounted rewards seem to grow for ever, so that the value is infinite (for stationary models).

    Policies that hold the actions' shares constant are simulated from the model's initial states (`growth`). One policy
    with growing gains makes the value +infinity. Losses that grow under every policy suggest -infinity; suggest, as
    other policies may do better, and not where an action is unbounded, since no constant is a sensible policy there.
    What grows is looked at again on more periods: polynomials of time grow as well, for a while.
    """
    mdp = trial.mdp
    if mdp.horizon is not None or not mdp.preferences.separable:
        return []
    u = constant_policies(trial)
    rate, gains = growth(trial, u, PERIODS)
    growing = rate > GROWTH
    if growing.any():
        rate[growing], gains[growing] = growth(trial, u[growing], LONGER * PERIODS)
        growing = rate > GROWTH
    gaining = growing & gains
    if gaining.any():
        best = int((rate * gaining).argmax())
        return [
            f"{trial.name}: the value may be +infinity. Holding the actions at {shares_in_words(trial, u[best])}, "
            f"expected discounted rewards still grow by a factor of {float(rate[best]):.4g} a period after "
            f"{LONGER * PERIODS} periods; lower the discount factor or the growth, or raise risk aversion"
        ]
    if growing.all() and all(v.shares.below or v.shares.above for v in mdp.action_variables):
        return [
            f"{trial.name}: the value may be -infinity. Under each of {len(u)} policies of constant shares, expected "
            f"discounted losses still grow, by a factor of at least {float(rate.min()):.4g} a period, after "
            f"{LONGER * PERIODS} periods; lower the discount factor, risk or risk aversion, or raise the growth"
        ]
    return []


def growth(trial: Trial, u: Tensor, periods: int) -> tuple[Tensor, Tensor]:
    """By what factor a period the terms of the value grow, from the second to the last third of the periods, under
    each of the constant policies u (K, A), and whether they are gains, (K,) each.

    The terms are those of the sum by parts, B_t (r_t - r_{t-1}) and, where the discount factor varies, B_t: with
    B_t = beta_1 ... beta_t, sum B_t r_t is finite where both sums are. Unlike B_t r_t they do not pass through zero
    where rewards change their sign, and rewards that grow by the same amount each period, like the logarithm of growing
    wealth, have terms that fall like B_t. What is NaN, as where a policy leaves nothing that is feasible, says nothing.
    """
    users: list[Callable[..., Any]] = [trial.mdp.model.reward, trial.mdp.model.transition]
    title = f"{trial.name}, simulated from its initial states"
    factors, rewards = attempt(title, users, lambda: simulated(trial, u, periods))
    changes = factors * rewards.diff(dim=0, prepend=rewards[:1])
    rates = torch.stack([rate_of(x.mean(dim=-1)) for x in (factors[:PERIODS], changes)])
    blown_up = rewards.isinf().any(dim=-1).any(dim=0)
    rates = torch.where(rates.isnan(), torch.where(blown_up, torch.inf, 0.0), rates)
    return rates.amax(dim=0), (factors * rewards)[-periods // 3 :].mean(dim=(0, 2)) > 0


def rate_of(terms: Tensor) -> Tensor:
    """The factor a period by which |terms| (periods, K) grow from the second to the last third, (K,)."""
    third = len(terms) // 3
    middle, late = (terms[k * third : (k + 1) * third].abs().mean(dim=0) for k in (1, 2))
    return torch.where(late == 0, 0.0, (late / middle) ** (1 / third))


def constant_policies(trial: Trial) -> Tensor:
    """u (K, A): every combination of levels over the action variables, of options for a choice; or a random choice of
    them."""
    mdp, variables = trial.mdp, trial.mdp.action_slots
    options = dict(mdp.choices)
    levels = [[float(d) for d in range(options[v.start])] if v.start in options else LEVELS for v in variables]
    widths = torch.tensor([slot.stop - slot.start for slot in variables])
    if math.prod(map(len, levels)) <= MOST_POLICIES:
        return mdp.tensor(list(itertools.product(*levels))).repeat_interleave(widths, dim=1)
    generator = torch.Generator().manual_seed(0)
    chosen = mdp.tensor(LEVELS)[torch.randint(len(LEVELS), (MOST_POLICIES, len(variables)), generator=generator)]
    return mdp.sample_options(chosen.repeat_interleave(widths, dim=1), generator)


@torch.no_grad()
def simulated(trial: Trial, u: Tensor, periods: int) -> tuple[Tensor, Tensor]:
    """B_t = beta_1 ... beta_t and r_t on PATHS paths under each of the constant policies u (K, A), (periods, K, PATHS)
    each."""
    mdp = trial.mdp
    generator = torch.Generator().manual_seed(0)
    s = mdp.sample_initial(PATHS, generator).repeat(len(u), 1)
    u = u.repeat_interleave(PATHS, dim=0)
    factor, factors, rewards = torch.ones(len(s), dtype=mdp.dtype), [], []
    for _ in range(periods):
        a, e = mdp.act(s, u), mdp.sample_shocks(s, generator)
        factors.append(factor)
        rewards.append(mdp.reward(s, a))
        factor, s = factor * mdp.discount(s, a, e), mdp.transition(s, a, e)
    return tuple(torch.stack(x).reshape(periods, -1, PATHS) for x in (factors, rewards))  # type: ignore[return-value]


def shares_in_words(trial: Trial, u: Tensor) -> str:
    """The shares of the actions at u, in words."""
    mdp, y = trial.mdp, trial.mdp.squash(u)
    columns = [column for column, _ in mdp.choices]
    options, shares = (
        ", ".join(f"{v.name} = {show(v.read(y))}" for v in mdp.action_slots if (v.start in columns) == chosen)
        for chosen in (True, False)
    )
    return " and ".join([*([options] if options else []), *([f"{shares} of their range"] if shares else [])])
