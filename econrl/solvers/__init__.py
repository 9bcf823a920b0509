"""The methods: one file, one method."""

from econrl.solvers.a2c import A2C
from econrl.solvers.actor_critic import ActorCritic
from econrl.solvers.adaptive import Adaptive
from econrl.solvers.auto import Auto
from econrl.solvers.base import Method
from econrl.solvers.ddpg import DDPG
from econrl.solvers.egm import EGM
from econrl.solvers.newton import Newton
from econrl.solvers.pathwise import Pathwise
from econrl.solvers.perturbation import Perturbation
from econrl.solvers.ppo import PPO
from econrl.solvers.reinforce import REINFORCE
from econrl.solvers.smolyak import Smolyak
from econrl.solvers.time_iteration import TimeIteration
from econrl.solvers.trpo import TRPO
from econrl.solvers.vi import VI

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        *(Auto, Perturbation, EGM, TimeIteration, VI, Smolyak, Adaptive, DDPG, Pathwise, Newton),
        *(REINFORCE, ActorCritic, A2C, TRPO, PPO),
    )
}

__all__ = [
    "A2C",
    "DDPG",
    "EGM",
    "METHODS",
    "PPO",
    "REINFORCE",
    "TRPO",
    "VI",
    "ActorCritic",
    "Adaptive",
    "Auto",
    "Method",
    "Newton",
    "Pathwise",
    "Perturbation",
    "Smolyak",
    "TimeIteration",
]
