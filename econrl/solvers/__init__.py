"""The methods: one file, one method."""

from econrl.solvers.a2c import A2C
from econrl.solvers.actor_critic import ActorCritic
from econrl.solvers.adaptive import Adaptive
from econrl.solvers.auto import Auto
from econrl.solvers.base import Method
from econrl.solvers.ddpg import DDPG
from econrl.solvers.double_dqn import DoubleDQN
from econrl.solvers.dqn import DQN
from econrl.solvers.egm import EGM
from econrl.solvers.newton import Newton
from econrl.solvers.pathwise import Pathwise
from econrl.solvers.perturbation import Perturbation
from econrl.solvers.ppo import PPO
from econrl.solvers.q_learning import QLearning
from econrl.solvers.reinforce import REINFORCE
from econrl.solvers.sac import SAC
from econrl.solvers.sarsa import SARSA
from econrl.solvers.smolyak import Smolyak
from econrl.solvers.td0 import TD0
from econrl.solvers.td3 import TD3
from econrl.solvers.time_iteration import TimeIteration
from econrl.solvers.trpo import TRPO
from econrl.solvers.vi import VI

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        *(Auto, Perturbation, EGM, TimeIteration, VI, Smolyak, Adaptive),
        *(DDPG, TD3, SAC, Pathwise, Newton),
        *(TD0, SARSA, QLearning, DQN, DoubleDQN),
        *(REINFORCE, ActorCritic, A2C, TRPO, PPO),
    )
}

__all__ = [
    "A2C",
    "DDPG",
    "DQN",
    "EGM",
    "METHODS",
    "PPO",
    "REINFORCE",
    "SAC",
    "SARSA",
    "TD0",
    "TD3",
    "TRPO",
    "VI",
    "ActorCritic",
    "Adaptive",
    "Auto",
    "DoubleDQN",
    "Method",
    "Newton",
    "Pathwise",
    "Perturbation",
    "QLearning",
    "Smolyak",
    "TimeIteration",
]
