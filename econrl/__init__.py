"""econrl: write a dynamic model once, solve it by actor-critic or on grids, and know how accurate the answer is."""

from econrl.checks import check
from econrl.errors import EconrlError, MethodError, SaveError, SolveError, SpecError
from econrl.model import Model
from econrl.shocks import Discrete, LogNormal, Normal, Uniform
from econrl.solution import Solution, load
from econrl.solve import compare, solve
from econrl.solvers import DDPG, EGM, METHODS, VI, Adaptive, Auto, Newton, Perturbation, Smolyak, TimeIteration
from econrl.variables import Action, Budget, Choice, DiscreteState, MarkovChain, State

__all__ = [
    "DDPG",
    "EGM",
    "METHODS",
    "VI",
    "Action",
    "Adaptive",
    "Auto",
    "Budget",
    "Choice",
    "Discrete",
    "DiscreteState",
    "EconrlError",
    "LogNormal",
    "MarkovChain",
    "MethodError",
    "Model",
    "Newton",
    "Normal",
    "Perturbation",
    "SaveError",
    "Smolyak",
    "Solution",
    "SolveError",
    "SpecError",
    "State",
    "TimeIteration",
    "Uniform",
    "check",
    "compare",
    "load",
    "solve",
]
