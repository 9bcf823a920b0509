"""Utility functions, and the preferences in which utility is recursive."""

from econrl.utility.functions import cara, crra, crra_inverse_marginal, crra_marginal
from econrl.utility.preferences import ADDITIVE, EpsteinZin, Preferences, Recursive, RiskSensitive

__all__ = [
    "ADDITIVE",
    "EpsteinZin",
    "Preferences",
    "Recursive",
    "RiskSensitive",
    "cara",
    "crra",
    "crra_inverse_marginal",
    "crra_marginal",
]
