"""econrl: write a dynamic model once, solve it by actor-critic or on grids, and know how accurate the answer is."""

from econrl.checks import check
from econrl.errors import EconrlError, MethodError, OutsideDomain, SaveError, SolveError, SpecError
from econrl.solution import Solution, load
from econrl.solve import compare, solve
from econrl.solvers import METHODS, register
from econrl.solvers.methods import *  # noqa: F403
from econrl.spec.model import Model
from econrl.spec.shocks import Correlated, Discrete, LogNormal, Normal, Uniform
from econrl.spec.variables import Action, Budget, Choice, DiscreteState, MarkovChain, State

__all__ = [
    "METHODS",
    "Action",
    "Budget",
    "Choice",
    "Correlated",
    "Discrete",
    "DiscreteState",
    "EconrlError",
    "LogNormal",
    "MarkovChain",
    "MethodError",
    "Model",
    "Normal",
    "OutsideDomain",
    "SaveError",
    "Solution",
    "SolveError",
    "SpecError",
    "State",
    "Uniform",
    "check",
    "compare",
    "load",
    "register",
    "solve",
]
__all__ += [cls.__name__ for cls in METHODS.values()]
