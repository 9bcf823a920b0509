"""A model as a Gymnasium environment: one state, or a batch of states moved together on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from econrl.adapters.normalised import Normalised
from econrl.checks import with_fitted_domain
from econrl.errors import MethodError, SpecError
from econrl.problem.diagnose import describe, first_fault
from econrl.problem.environments import Environments, Step
from econrl.problem.mdp import MDP
from econrl.spec.model import Model
from econrl.storage.model_lookup import find_model, make_model, zoo

try:
    import gymnasium
    from gymnasium.spaces import Box
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise MethodError("econrl.gym needs the library gymnasium: pip install 'econrl[gym]'") from error

PERIODS = 200  # of an episode of a stationary model


class Transition(NamedTuple):
    """One period of n paths."""

    r: Tensor
    """(n,), in units of the model; in the last period of a life r + beta terminal(s')."""
    beta: Tensor
    """(n,), the factor on what follows s'."""
    a: Tensor
    """(n, A), in units of the model."""
    reached: Tensor
    """s' (n, S), the states truly reached."""
    terminated: Tensor
    """(n,), whether a life is over."""
    truncated: Tensor
    """(n,), whether a path that could go on is cut off."""

    @property
    def done(self) -> Tensor:
        """Where a path ends, of itself or cut off."""
        return self.terminated | self.truncated


class Batch:
    """n paths of a model side by side: what the environments of this file are made of.

    A stationary model never terminates. Its paths are cut off after `periods`, and where they have left the domain by
    half of its width, as in econrl's own simulations: that is no end, and the value of the state reached counts. A life
    cycle starts at t = 0 and terminates at its horizon, with terminal(s') in its last reward, so that nothing follows.

    Taste shocks are drawn here, iid extreme values of mean zero: an agent sees those on its n options before it
    chooses, eps in the last n columns of its observation, and the reward holds sigma eps of the option taken. An option
    that is not available stands for the next one that is, counted on from 0 after the last.

    `model` is a model, or its name or file as on the command line. Raises SpecError where there is none, and
    MethodError for settings that cannot be used.
    """

    def __init__(
        self,
        model: Model | str,
        n: int = 1,
        periods: int | None = None,
        middle: Sequence[float] | None = None,
        reach: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        model = make_model(find_model(model), {}) if isinstance(model, str) else model
        if not isinstance(model, Model):
            raise SpecError(f"an environment is made of a model, e.g. StochasticGrowth(), got {model!r}")
        for name, number in {"n": n, "periods": periods}.items():
            if number is not None and (number != int(number) or number < 1):
                raise MethodError(f"`{name}` must be a whole number of at least 1, got {number}")
        model = with_fitted_domain(model)
        self.model, self.n = model, int(n)
        self.mdp = MDP(model, device)
        if not self.mdp.preferences.additive:
            raise MethodError(
                f"{model.title} has {self.mdp.preferences.text()}, and an agent in an environment looks for the "
                "largest sum of rewards; solve it by a method of econrl, as vi, newton or ddpg"
            )
        self.periods = periods or model.horizon or PERIODS
        self.normalised = Normalised(self.mdp, middle, reach)
        self.tasted = len(self.mdp.alternatives.members) if self.mdp.tastes > 0 else 0
        """How many options have a taste shock."""
        self.observation_space = Box(-np.inf, np.inf, (self.normalised.features.size + self.tasted,), np.float32)
        self.action_space = Box(-1.0, 1.0, (self.mdp.A,), np.float32)

    def begin(self, seed: int) -> np.ndarray:
        """n initial states (`Model.initial`, or uniform on the domain), and the random numbers of all that follows."""
        self.generator = torch.Generator(self.mdp.device).manual_seed(seed)
        self.environments = Environments(self.mdp, self.n, self.periods, self.generator, self.mdp.sample_initial)
        self.eps = self.draw_tastes()
        return self.observation(self.s)

    def draw_tastes(self) -> Tensor:
        """Extreme values (n, options) of mean zero, for the options that have a taste shock."""
        u = torch.rand(self.n, self.tasted, generator=self.generator, dtype=self.mdp.dtype, device=self.mdp.device)
        return -(-u.clamp(min=torch.finfo(u.dtype).tiny).log()).log() - np.euler_gamma

    @property
    def s(self) -> Tensor:
        """The states (n, S) at which the paths stand."""
        return self.environments.s

    def observation(self, s: Tensor) -> np.ndarray:
        """Observations (n, O) of states s (n, S), with the present taste shocks, as numpy holds them."""
        return torch.cat([self.normalised.observe(s), self.eps], dim=-1).cpu().numpy().astype(np.float32)

    def told(self, s: Tensor) -> dict[str, np.ndarray]:
        """What `info` says of the choices at the states s (n, S), where there is something to say: "available", bools
        (n, .) for the options of all choices in order; "tastes", their shocks (n, options) in units of the model."""
        kinds = [kind for kind, _ in self.mdp.feasible_set.laid if kind.shares.options is not None]
        found = {"tastes": self.mdp.tastes * self.eps} if self.tasted else {}
        if any(kind.available is not None for kind in kinds):
            masks = [kind.open_options(self.mdp.state(s), s) for kind in kinds]
            everywhere = [s.new_ones(self.n, kind.shares.options or 0, dtype=torch.bool) for kind in kinds]
            parts = [every if mask is None else mask for mask, every in zip(masks, everywhere, strict=True)]
            found["available"] = torch.cat(parts, dim=-1)
        return {name: value.cpu().numpy() for name, value in found.items()}

    @torch.no_grad()
    def step(self, action: Any) -> Transition:
        """Move every path by one period, with actions in [-1, 1], (n, A). Raises SpecError where the model breaks."""
        mdp, s = self.mdp, self.s
        x = torch.as_tensor(np.asarray(action)).to(mdp.low)
        if x.shape != (self.n, mdp.A):
            raise MethodError(
                f"{type(self.model).__name__}: actions must have the shape {(self.n, mdp.A)}, got {tuple(x.shape)}"
            )
        before = self.environments.state()
        new = self.environments.step(self.normalised.act(s, x))
        if not self.is_finite(new).all():
            self.environments.restore(before)
            raise SpecError(self.fault(new))
        r, terminated = new.r, torch.zeros_like(new.goes_on)
        if mdp.alternatives.shocked is not None:
            option = new.a[:, [mdp.alternatives.shocked]].long()
            r = r + mdp.tastes * self.eps.gather(-1, option).squeeze(-1)
            self.eps = self.draw_tastes()
        if mdp.horizon is not None:
            terminated = mdp.period(new.s_next) >= mdp.horizon
            r = r + torch.where(terminated, new.beta * mdp.terminal(new.s_next), 0.0)
        return Transition(r, new.beta, new.a, new.s_next, terminated, ~terminated & ~new.goes_on)

    def begin_anew(self, done: Tensor) -> np.ndarray:
        """Initial states for the paths that are done (n,); what all paths see now."""
        if done.any():
            self.environments.begin_anew(~done)
            self.eps = torch.where(done.unsqueeze(-1), self.draw_tastes(), self.eps)
        return self.observation(self.s)

    def is_finite(self, new: Step) -> Tensor:
        """Where reward, discount factor and the state reached are finite."""
        return new.r.isfinite() & new.beta.isfinite() & new.s_next.isfinite().all(dim=-1)

    def fault(self, new: Step) -> str:
        """Where the model broke down."""
        at = (~self.is_finite(new)).nonzero()[0]
        s, a = new.s[at], new.a[at]
        where = f"a reward or transition is not finite at {describe(self.mdp, s[0], a[0])}"
        return (
            f"{first_fault(self.mdp, s, a) or f'{type(self.model).__name__}: {where}'}. It was met while "
            "simulating: mend the function, or the bounds that allow this state or action, or lower `reach`"
        )


class Environment(gymnasium.Env):
    """A model as an environment of one state.

    Observations and actions are those of `adapters.normalised.Normalised`, rewards are raw, in units of the model.
    `info` holds "discount", beta(s, a, e), "state" and "action" in units of the model and, where the model has such
    choices, "available" and "tastes" for the action to come (`Batch.told`). Settings, episodes and
    errors: `Batch`. An agent's discount factor is `model.beta`; a model with a `discount` of its own needs "discount".
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, model: Model | str, **settings: Any) -> None:
        self.batch = Batch(model, 1, **settings)
        self.model, self.normalised = self.batch.model, self.batch.normalised
        self.observation_space, self.action_space = self.batch.observation_space, self.batch.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        observation = self.batch.begin(int(self.np_random.integers(2**31)))[0]
        return observation, {"state": self.batch.s[0].cpu().numpy(), **first(self.batch.told(self.batch.s))}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        new = self.batch.step(np.asarray(action)[None])
        info = first({**shown(new), **self.batch.told(new.reached)})
        observation = self.batch.observation(new.reached)[0]
        return observation, float(new.r), bool(new.terminated), bool(new.truncated), info


class VectorEnvironment(gymnasium.vector.VectorEnv):
    """The same for `num_envs` states, moved together as one batch.

    A path that is done begins anew in the same step: observations are then those of its new state, and
    info["final_obs"] (num_envs, O) holds those truly reached, info["_final_obs"] which paths are meant. An integer seed
    stands for the whole batch.
    """

    def __init__(self, model: Model | str, num_envs: int = 1, **settings: Any) -> None:
        self.batch, self.num_envs = Batch(model, num_envs, **settings), num_envs
        self.model, self.normalised = self.batch.model, self.batch.normalised
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:  # type: ignore[override]
        super().reset(seed=seed)
        observations = self.batch.begin(int(self.np_random.integers(2**31)))
        told = {"state": self.batch.s.cpu().numpy(), **self.batch.told(self.batch.s)}
        return observations, masked(told, np.ones(self.num_envs, dtype=bool))

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        new = self.batch.step(actions)
        done = new.done.cpu().numpy()
        final = masked({"final_obs": self.batch.observation(new.reached)}, done) if done.any() else {}
        observations = self.batch.begin_anew(new.done)
        told = {**shown(new), **self.batch.told(self.batch.s)}
        info = {**masked(told, np.ones(self.num_envs, dtype=bool)), **final}
        terminated, truncated = new.terminated.cpu().numpy(), new.truncated.cpu().numpy()
        return observations, new.r.cpu().numpy(), terminated, truncated, info


def shown(new: Transition) -> dict[str, np.ndarray]:
    """What `info` says of n paths."""
    told = {"discount": new.beta, "state": new.reached, "action": new.a}
    return {key: values.cpu().numpy() for key, values in told.items()}


def first(info: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is said of the first path."""
    return {key: values[0] for key, values in info.items()}


def masked(info: dict[str, Any], which: np.ndarray) -> dict[str, Any]:
    """Gymnasium's form of a batch's info: beside each key, with an underscore, for which paths it is meant."""
    return info | {f"_{key}": which.copy() for key in info}


def make_env(model: Model | str, **settings: Any) -> Environment:
    """The environment of one state: `make_env(StochasticGrowth(gamma=5.0), periods=100)`; settings as in `Batch`."""
    return Environment(model, **settings)


def make_vec(model: Model | str, num_envs: int, **settings: Any) -> VectorEnvironment:
    """The environment of a batch of states; settings as in `Batch`."""
    return VectorEnvironment(model, num_envs, **settings)


# gymnasium.make("econrl/StochasticGrowth-v0"), gymnasium.make("econrl/IRBC-v0", model=IRBC(n=10))
for cls in zoo():
    gymnasium.register(
        f"econrl/{cls.__name__}-v0",
        entry_point="econrl.gym:Environment",
        vector_entry_point="econrl.gym:VectorEnvironment",
        kwargs={"model": cls.__name__},
    )
