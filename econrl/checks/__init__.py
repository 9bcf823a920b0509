"""Every promise that a spec makes, tested before anything is solved.

Each file relies on what has passed before it: `declarations.py` (the class and its variables), `options.py` (of
choices), `trial.py` (the points, and the bounds of actions), `shocks.py` (parameters of shocks that are functions),
`unread.py` (what nothing reads), `functions.py` (the functions at these points), `preferences.py` (recursive utility),
`groups.py` (exchangeable members), `gradients.py` (derivatives), `corners.py` (of the domain), `value.py` (discounting,
closed forms, finite value).
"""

from __future__ import annotations

import torch

from econrl.checks.corners import check_corners
from econrl.checks.declarations import check_class, check_declarations, check_fields
from econrl.checks.family import check_family
from econrl.checks.fit_domain import fit_domain, open_states
from econrl.checks.functions import check_functions
from econrl.checks.gradients import check_gradients
from econrl.checks.groups import check_features, check_groups
from econrl.checks.options import check_options
from econrl.checks.preferences import check_declared_preferences, check_preferences
from econrl.checks.shocks import check_varying_shocks
from econrl.checks.trial import make_trial
from econrl.checks.unread import check_unread
from econrl.checks.value import (
    check_closed_forms,
    check_discount,
    check_finite_value,
    check_initial,
    check_steady_state,
)
from econrl.errors import SpecError
from econrl.family.family import Family
from econrl.spec.model import Model


def check(model: Model) -> list[str]:
    """Test a spec, in float64 on the CPU, at random states of its domain, random feasible actions and sampled shocks.

    Returns warnings, each a sentence: what is allowed but looks wrong. An empty list: nothing was found.

    Raises SpecError at the first promise that is broken; its message names the model, the function, the variable and,
    where it applies, the state, and says what to do. Of a family, the members at both ends of the range are tested too.
    """
    check_class(model)
    model = with_fitted_domain(model)
    if isinstance(model, Family):
        check_ends(model)
        check_family(model)
    check_features(model)
    model = model.to("cpu", torch.float64)
    check_declarations(model)
    check_declared_preferences(model)
    check_options(model)
    trial = make_trial(model)
    check_varying_shocks(trial.mdp, trial.s)
    unread = check_unread(make_trial(model.one) if isinstance(model, Family) else trial)
    check_functions(trial)
    check_preferences(trial)
    check_groups(trial)
    check_gradients(trial)
    return [
        *check_fields(model),
        *unread,
        *check_corners(trial),
        *check_discount(trial),
        *check_closed_forms(trial),
        *check_steady_state(trial),
        *check_initial(trial),
        *check_finite_value(trial),
    ]


def with_fitted_domain(model: Model) -> Model:
    """The model, with the domain of states that leave it out fitted (`fit_domain.py`); itself where none does. Raises
    SpecError where that is not possible, or a promise of the spec is broken."""
    check_class(model)
    return fit_domain(model, check) if not isinstance(model, Family) and open_states(model) else model


def check_ends(family: Family) -> None:
    """The members with all parameters at their low, and at their high end."""
    for ends in zip(*family.over.values(), strict=True):
        parameters = dict(zip(family.over, ends, strict=True))
        try:
            check(family.member(parameters))
        except SpecError as error:
            at = ", ".join(f"{name} = {value:g}" for name, value in parameters.items())
            raise SpecError(f"at {at}: {error}") from error
