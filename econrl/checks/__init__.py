"""Every promise that a spec makes, tested before anything is solved.

Each file relies on what has passed before it: `declarations.py` (the class and its variables), `trial.py` (the points,
and the bounds of actions), `functions.py` (the functions at these points), `groups.py` (exchangeable members),
`gradients.py` (derivatives), `value.py` (discounting, closed forms, finite value).
"""

from __future__ import annotations

import torch

from econrl.checks.declarations import check_class, check_declarations, check_fields
from econrl.checks.functions import check_functions
from econrl.checks.gradients import check_gradients
from econrl.checks.groups import check_features, check_groups
from econrl.checks.trial import make_trial
from econrl.checks.value import (
    check_closed_forms,
    check_discount,
    check_finite_value,
    check_initial,
    check_steady_state,
)
from econrl.model import Model


def check(model: Model) -> list[str]:
    """Test a spec, in float64 on the CPU, at random states of its domain, random feasible actions and sampled shocks.

    Returns warnings, each a sentence: what is allowed but looks wrong. An empty list: nothing was found.

    Raises SpecError at the first promise that is broken; its message names the model, the function, the variable and,
    where it applies, the state, and says what to do.
    """
    check_class(model)
    check_features(model)
    model = model.to("cpu", torch.float64)
    check_declarations(model)
    trial = make_trial(model)
    check_functions(trial)
    check_groups(trial)
    check_gradients(trial)
    return [
        *check_fields(model),
        *check_discount(trial),
        *check_closed_forms(trial),
        *check_steady_state(trial),
        *check_initial(trial),
        *check_finite_value(trial),
    ]
