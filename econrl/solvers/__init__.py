"""The methods: one file, one method."""

from econrl.solvers.auto import Auto
from econrl.solvers.common.method import Method
from econrl.solvers.grid.adaptive import Adaptive
from econrl.solvers.grid.egm import EGM
from econrl.solvers.grid.smolyak import Smolyak
from econrl.solvers.grid.time_iteration import TimeIteration
from econrl.solvers.grid.vi import VI
from econrl.solvers.off_policy.ddpg import DDPG
from econrl.solvers.off_policy.double_dqn import DoubleDQN
from econrl.solvers.off_policy.dqn import DQN
from econrl.solvers.off_policy.pathwise import Pathwise
from econrl.solvers.off_policy.sac import SAC
from econrl.solvers.off_policy.td3 import TD3
from econrl.solvers.on_policy.a2c import A2C
from econrl.solvers.on_policy.actor_critic import ActorCritic
from econrl.solvers.on_policy.ppo import PPO
from econrl.solvers.on_policy.reinforce import REINFORCE
from econrl.solvers.on_policy.trpo import TRPO
from econrl.solvers.perturbation.perturbation import Perturbation
from econrl.solvers.polish.newton import Newton
from econrl.solvers.tabular.q_learning import QLearning
from econrl.solvers.tabular.sarsa import SARSA
from econrl.solvers.tabular.td0 import TD0

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
