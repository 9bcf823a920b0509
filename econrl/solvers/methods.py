"""The methods, one line each, in the order in which they are listed."""

from econrl.solvers.auto import Auto as Auto
from econrl.solvers.perturbation.perturbation import Perturbation as Perturbation
from econrl.solvers.grid.egm import EGM as EGM
from econrl.solvers.grid.time_iteration import TimeIteration as TimeIteration
from econrl.solvers.grid.vi import VI as VI
from econrl.solvers.fitted.fvi import FVI as FVI
from econrl.solvers.grid.smolyak import Smolyak as Smolyak
from econrl.solvers.grid.adaptive import Adaptive as Adaptive
from econrl.solvers.off_policy.ddpg import DDPG as DDPG
from econrl.solvers.off_policy.td3 import TD3 as TD3
from econrl.solvers.off_policy.sac import SAC as SAC
from econrl.solvers.off_policy.pathwise import Pathwise as Pathwise
from econrl.solvers.polish.newton import Newton as Newton
from econrl.solvers.tabular.td0 import TD0 as TD0
from econrl.solvers.tabular.sarsa import SARSA as SARSA
from econrl.solvers.tabular.q_learning import QLearning as QLearning
from econrl.solvers.off_policy.dqn import DQN as DQN
from econrl.solvers.off_policy.double_dqn import DoubleDQN as DoubleDQN
from econrl.solvers.on_policy.reinforce import REINFORCE as REINFORCE
from econrl.solvers.on_policy.actor_critic import ActorCritic as ActorCritic
from econrl.solvers.on_policy.a2c import A2C as A2C
from econrl.solvers.on_policy.trpo import TRPO as TRPO
from econrl.solvers.on_policy.ppo import PPO as PPO
