"""Preferences: what an aggregator and a certainty equivalent promise, and the rewards that they can take."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.checks.trial import Trial, attempt
from econrl.errors import SpecError
from econrl.problem.diagnose import show
from econrl.spec.model import Model
from econrl.utility import EpsteinZin, Preferences, Recursive

SAME, INVERSE = 1e-9, 1e-6  # relative differences: of discount factors that are one, and of phi^-1(phi(V)) from V


def check_declared_preferences(model: Model) -> None:
    """What `preferences` gives are preferences, and the model has what they ask for."""
    title = f"{type(model).__name__}.preferences"
    if not callable(model.preferences):
        raise SpecError(f"{title} is {model.preferences!r}; write a method, def preferences(self): return ...")
    given = attempt(title, [model.preferences], model.preferences)
    if not isinstance(given, Preferences):
        raise SpecError(f"{title} gives {given!r}; it must be EpsteinZin(...), RiskSensitive(...) or Recursive(...)")
    given.of(model)


def check_preferences(trial: Trial) -> None:
    """Rewards, terminal values and closed forms that the preferences can take; a discount factor that is known today,
    where it must be; W and phi that rise, and an inverse that is one."""
    mdp, preferences = trial.mdp, trial.mdp.preferences
    if mdp.alternatives.shocked is not None and not preferences.additive:
        raise SpecError(
            f"{trial.name}: the options of '{mdp.action_slot(mdp.alternatives.shocked).name}' have taste shocks, which "
            f"add to a sum of rewards, and the model has {preferences.text()}; leave one of them out"
        )
    rewards = mdp.flow(trial.s, trial.a)
    if isinstance(preferences, EpsteinZin):
        check_positive(trial, "reward", rewards)
        if mdp.horizon is not None:
            check_positive(trial, "terminal", mdp.after_life(trial.s))
        exact = mdp.exact_value(trial.s)
        if exact is not None:
            check_positive(trial, "exact_value", exact)
    if preferences.constant_discount and not preferences.additive:
        check_discount_is_known(trial)
    if isinstance(preferences, Recursive):
        check_functions_rise(trial, preferences, rewards)
        if mdp.horizon is not None:
            check_last_period(trial, preferences, rewards)


def check_positive(trial: Trial, function: str, values: Tensor) -> None:
    """Powers are taken of positive numbers alone."""
    wrong = (values < 0).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        what = {
            "reward": "the reward must be consumption or a bundle of goods, which is positive, and not its utility",
            "terminal": "V after the last period must be positive, or zero where nothing follows",
            "exact_value": "V, in the unit of consumption, is positive",
        }[function]
        raise SpecError(
            f"{trial.name}.{function} is {float(values[i]):.4g} at the {trial.at(i)}; with "
            f"{trial.mdp.preferences.text()} {what}"
        )


def check_last_period(trial: Trial, preferences: Recursive, rewards: Tensor) -> None:
    """W is finite, and rises in the reward, where m is the certainty equivalent of the terminal value."""
    after = trial.mdp.after_life(trial.s)
    m = preferences.certainty(after.unsqueeze(-1), torch.ones_like(after[:1]), torch.ones_like(after[:1]))
    v, (by_r, _) = preferences.W(rewards, m), preferences.slopes(rewards, m)
    wrong = (~(v.isfinite() & by_r.isfinite() & (by_r > 0))).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        raise SpecError(
            f"{trial.name}.preferences: after the last period V' is {float(after[i]):.4g}, and W(r, m) is "
            f"{float(v[i]):.4g} there, with the slope {float(by_r[i]):.4g} in r = {show(rewards[i])}; define "
            "`terminal`, the V' that follows, or let W say what the last period is worth"
        )


def check_discount_is_known(trial: Trial) -> None:
    """beta(s, a, e) is the same for all e."""
    mdp, nodes = trial.mdp, trial.mdp.nodes
    factors = mdp.discount(trial.s.unsqueeze(1), trial.a.unsqueeze(1), nodes).expand(len(trial.s), len(nodes))
    spread = factors.amax(dim=-1) - factors.amin(dim=-1)
    wrong = (spread > SAME * factors.abs().amax(dim=-1)).nonzero().flatten()
    if len(wrong):
        raise SpecError(
            f"{trial.name}.discount varies with the shock, from {float(factors[wrong[0]].min()):.4g} to "
            f"{float(factors[wrong[0]].max()):.4g} at the {trial.at(int(wrong[0]))}; with "
            f"{mdp.preferences.text()} it must be known today"
        )


def check_functions_rise(trial: Trial, preferences: Recursive, rewards: Tensor) -> None:
    """W rises in both arguments, phi rises, and `inverse` undoes it, at values that staying at a reward gives."""
    title = f"{trial.name}.preferences"
    users = [f for f in (preferences.W, preferences.phi, preferences.inverse) if f is not None]
    v = attempt(f"{title}, W", users, lambda: preferences.staying(rewards))
    if not isinstance(v, Tensor) or v.shape != rewards.shape:
        raise SpecError(f"{title}: W(r, m) must give a tensor of the shape of r, {tuple(rewards.shape)}")
    if not v.isfinite().all():
        i = int((~v.isfinite()).nonzero()[0])
        raise SpecError(
            f"{title}: W(r, m) has no finite value where the reward is r = {show(rewards[i])} for ever: "
            f"m = W(r, m) goes to {float(v[i])}"
        )
    for slopes, name in zip(preferences.slopes(rewards, v), ("first", "second"), strict=True):
        if not (slopes > 0).all():
            i = int((~(slopes > 0)).nonzero()[0])
            raise SpecError(
                f"{title}: W(r, m) does not rise in its {name} argument at r = {show(rewards[i])}, m = {show(v[i])}, "
                f"where its slope is {float(slopes[i]):.4g}; it must rise in both"
            )
    if preferences.phi is None or preferences.inverse is None:
        return
    phi, inverse = preferences.phi, preferences.inverse
    rising = attempt(f"{title}, phi", users, lambda: torch.func.grad(lambda x: phi(x).sum())(v))
    if not (rising > 0).all():
        i = int((~(rising > 0)).nonzero()[0])
        raise SpecError(
            f"{title}: phi does not rise at V = {show(v[i])}, where its slope is {float(rising[i]):.4g}; phi must "
            "rise: of a power 1 - gamma < 0 it is -V^(1 - gamma)"
        )
    back = attempt(f"{title}, inverse", users, lambda: inverse(phi(v)))
    if not torch.allclose(back, v, rtol=INVERSE, atol=0.0):
        i = int((back - v).abs().nan_to_num(nan=torch.inf).argmax())
        raise SpecError(f"{title}: inverse(phi(V)) is {show(back[i])} at V = {show(v[i])}; it must be V itself")
