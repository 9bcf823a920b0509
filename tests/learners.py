"""Learning methods without `check`, clock or measurement."""

import torch

from econrl.models import BrockMirman
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.common.task import Task

CPU = torch.device("cpu")


def mdp_of(model, method):
    return MDP(model, dtype=method.dtype, quadrature=Quadrature(nodes=method.nodes))


def learner_of(method, model=None, seed=0):
    """At its start; Brock and Mirman's model if none is given."""
    model = model or BrockMirman()
    return method.learner(mdp_of(model, method), Task(model, CPU, seed))


def trained(method, model, steps, seed=0):
    learner = learner_of(method, model, seed)
    for step in range(steps):
        learner.advance()
        learner.update(1 - step / steps)
    return learner
