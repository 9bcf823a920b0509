"""Stable-Baselines3 on econrl's models: trained on a batch of states, measured like every other method."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from econrl.accuracy.held_out import HeldOut
from econrl.adapters.normalised import ACTIVATIONS, AgentPolicy, Normalised
from econrl.approximation.networks import ValueNetwork
from econrl.approximation.units import units_of
from econrl.errors import MethodError
from econrl.gym import Batch
from econrl.problem.mdp import MDP
from econrl.problem.simulate import lifetime_reward, own_states
from econrl.solution import Solution
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters
from econrl.solvers.polish.network_value import bellman_row, with_weights
from econrl.spec.model import Model

try:
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MethodError("econrl.sb3 needs the library stable-baselines3: pip install 'econrl[sb3]'") from error

VALUE_HIDDEN, VALUE_STATES, VALUE_STEPS = (16, 16), 1000, 30  # of the network that values a policy
CHUNK = 50  # states whose derivatives are held at once
TOLERANCE = 1e-4  # between the agent's actions and those of its network read off, in [-1, 1]


class BatchEnv(VecEnv):
    """A batch of `n` paths of a model as Stable-Baselines3's vector environment; settings as in `econrl.gym.Batch`.

    Where a path is done, infos[i]["terminal_observation"] is what it truly reached, and "TimeLimit.truncated" says
    whether it could have gone on: Stable-Baselines3 then adds the value of that state, not of the one that the path
    begins anew from, and nothing where a life is over.
    """

    render_mode = None

    def __init__(self, model: Model | str, n: int = 16, **settings: Any) -> None:
        self.batch = Batch(model, n, **settings)
        self.model, self.normalised = self.batch.model, self.batch.normalised
        super().__init__(n, self.batch.observation_space, self.batch.action_space)
        self.seed()

    def reset(self) -> np.ndarray:
        if self._seeds[0] is None:  # a reset without a seed goes on with random numbers, as Gymnasium's does
            self.seed(int(torch.randint(2**31, (1,), generator=self.batch.generator, device=self.batch.mdp.device)))
        observations = self.batch.begin(int(self._seeds[0] or 0))
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        new = self.batch.step(self.actions)
        infos: list[dict[str, Any]] = [
            {"discount": beta, "TimeLimit.truncated": truncated}
            for beta, truncated in zip(new.beta.tolist(), new.truncated.tolist(), strict=True)
        ]
        final = self.batch.observation(new.reached)
        for i in new.done.nonzero().flatten().tolist():
            infos[i]["terminal_observation"] = final[i]
        observations = self.batch.begin_anew(new.done)
        return observations, new.r.float().cpu().numpy(), new.done.cpu().numpy(), infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **more: Any) -> list[Any]:
        raise MethodError(
            f"the paths of a batch have no methods of their own, so that '{method_name}' cannot be called"
        )

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class DiscountedReplay(ReplayBuffer):
    """A replay buffer whose targets use each transition's own discount, for DDPG, TD3 and SAC with `gamma=1.0`:

        y = r + beta(s, a, e) Q'(s', pi'(s'))

    Stable-Baselines3 computes r + (1 - done) gamma Q'. Here 1 - done is beta, and zero where a life is over. Without
    this, a model with a `discount` of its own (growth, survival) is trained on another problem.
    """

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        goes_on = ~np.asarray(done, dtype=bool) | np.array([info.get("TimeLimit.truncated", False) for info in infos])
        factor = np.where(goes_on, np.array([info["discount"] for info in infos]), 0.0)
        super().add(obs, next_obs, action, reward, 1 - factor, [{} for _ in infos])


# From a trained agent to a solution


def solution(agent: Any, seconds: float = float("nan")) -> Solution:
    """What an agent of Stable-Baselines3 (DDPG, TD3, SAC, PPO, A2C) has learned, as a `Solution` of its model.

    The policy is its actor without noise, in double precision: tables, accuracy, simulations, save and load are those
    of any solution, and loading needs neither Stable-Baselines3 nor Gymnasium. The value is not the agent's critic but
    the policy's own, V = r + E[beta V'], solved by Gauss-Newton on a small network of econrl's; the Bellman error says
    how well. `seconds` is what the training took, for the tables: the agent does not know.

    Raises MethodError where the agent has no environment, or one that is not econrl's, or where its actor is no fully
    connected network of the observations.
    """
    env = agent.get_env()
    if env is None:
        raise MethodError("the agent has no environment: load it with `env=`, made as when it was trained")
    if not (env.has_attr("normalised") and env.has_attr("model")):
        raise MethodError("the agent's environment is not made by econrl.gym or econrl.sb3")
    normaliser = agent.get_vec_normalize_env()
    if normaliser is not None and normaliser.norm_obs:
        raise MethodError(
            "the agent sees observations normalised by VecNormalize: train with norm_obs=False, for they are "
            "normalised by the domain already"
        )
    model = env.get_attr("model")[0]
    mdp = MDP(model)
    if mdp.tastes > 0:
        raise MethodError(
            f"an agent of {model.title} sees its taste shocks, and a solution's policy does not: solve it by vi or dqn "
            "to have the probabilities of its options"
        )
    policy = policy_of(agent, mdp, env.get_attr("normalised")[0])
    value = value_of(mdp, policy)
    error = HeldOut(model).error(policy, value)
    training = pd.DataFrame([{"step": agent.num_timesteps, "seconds": seconds, "error": error}])
    info = {
        "method": f"stable-baselines3 {type(agent).__name__}",
        "settings": {"gamma": agent.gamma, "reach": policy.normalised.reach},
        "steps": agent.num_timesteps,
        "seconds": seconds,
        "converged": False,
        "message": "",
    }
    return Solution(model, policy, value, training, info)


def policy_of(agent: Any, mdp: MDP, normalised: Normalised) -> AgentPolicy:
    """The agent's actor without noise; raises MethodError where it is no fully connected network."""
    layers, squash = actor_of(agent.policy)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    kinds = {type(layer).__name__ for layer in layers if not isinstance(layer, nn.Linear)}
    name = f"the actor of this {type(agent).__name__}"
    fits = len(linear) > 0 and all(b.in_features == a.out_features for a, b in itertools.pairwise(linear))
    if not fits or len(kinds) > 1 or not kinds <= ACTIVATIONS.keys():
        raise MethodError(
            f"{name} is no fully connected network with one of the activations {', '.join(ACTIVATIONS)}: take MlpPolicy"
        )
    hidden, activation = [layer.out_features for layer in linear[:-1]], next(iter(kinds), "ReLU")
    policy = AgentPolicy(mdp, hidden, activation, squash, normalised.middle.tolist(), normalised.reach).to(mdp.dtype)
    for own, theirs in zip((m for m in policy.body if isinstance(m, nn.Linear)), linear, strict=True):
        own.load_state_dict(theirs.state_dict())
    policy.requires_grad_(False)
    seen = normalised.observe(mdp.sample_box(100, torch.Generator().manual_seed(0)).to(normalised.middle)).cpu()
    acts, _ = agent.predict(seen.float().numpy(), deterministic=True)
    if (policy.x(seen.to(mdp.dtype)) - torch.as_tensor(acts).to(mdp.dtype)).abs().max() > TOLERANCE:
        raise MethodError(f"{name} acts otherwise than its layers say: take MlpPolicy without a feature extractor")
    return policy


def actor_of(policy: Any) -> tuple[list[nn.Module], str]:
    """The layers between observation and action, and what puts the last one's output into [-1, 1]."""
    if hasattr(policy, "mlp_extractor"):  # PPO and A2C: the mean of a normal distribution, cut off at the box
        return [*policy.mlp_extractor.policy_net, policy.action_net], "clamp"
    actor: Any = getattr(policy, "actor", None)
    if hasattr(actor, "latent_pi"):  # SAC: the mean of a normal distribution, then tanh
        mean = actor.mu if isinstance(actor.mu, nn.Sequential) else [actor.mu]
        return [*actor.latent_pi, *mean], "tanh"
    layers = list(getattr(actor, "mu", []))  # DDPG and TD3: with tanh as the last layer
    return layers[:-1], "tanh"


def value_of(mdp: MDP, policy: AgentPolicy) -> ValueNetwork:
    """The value of a policy: V = r + E[beta V'] at states of its own simulation and of the box."""
    generator = torch.Generator(mdp.device).manual_seed(0)
    box = mdp.sample_box(VALUE_STATES // 2, generator)
    with torch.no_grad():
        own, _ = own_states(mdp, policy, VALUE_STATES // 2, 50, 20, generator)
        units = units_of(lifetime_reward(mdp, policy.normalised.middle.unsqueeze(0), box, generator).squeeze(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value = ValueNetwork(mdp, VALUE_HIDDEN, asdict(units)).to(mdp.device, mdp.dtype).requires_grad_(False)
    value.body.start_at(torch.zeros_like(mdp.low[:1]))

    def residual(theta: Parameters, s: Tensor) -> Tensor:
        return bellman_row(mdp, policy, value, with_weights(value, theta), s)

    GaussNewton(residual, value, CHUNK).fit(torch.cat([own, box]), VALUE_STEPS)
    return value
