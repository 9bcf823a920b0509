"""A model as a Gymnasium environment, and Stable-Baselines3 on a batch of it."""

import itertools
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import Action, Choice, MethodError, SpecError
from econrl.adapters.normalised import AgentPolicy, Normalised
from econrl.models import BrockMirman, BufferStock, JobSearch, LifeCycle, Portfolio, RustBus, StochasticGrowth
from econrl.problem.bellman import bellman_residual
from econrl.problem.mdp import MDP
from econrl.storage.model_lookup import zoo

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install '.[gym]'")
from econrl.gym import Batch, make_env, make_vec  # noqa: E402

NO_SB3 = "stable-baselines3 is not installed: pip install '.[sb3]'"


@pytest.fixture(scope="module")
def sb3():
    pytest.importorskip("stable_baselines3", reason=NO_SB3)
    import econrl.sb3

    return econrl.sb3


ADDITIVE = [cls for cls in zoo() if cls().preferences().additive]  # the others are no environments


@pytest.fixture(scope="module", params=ADDITIVE, ids=lambda cls: cls.__name__)
def batch(request):
    return Batch(request.param(), 64)


def settings(batch):
    """Those of a batch, so that the search for the middle is done once."""
    return {"middle": batch.normalised.middle.tolist(), "reach": batch.normalised.reach}


def growth_env(**more):
    return make_env(StochasticGrowth(), middle=[-2.7], reach=0.3, **more)


def corners(mdp):
    """Every corner of the box of actions, or 64 of them."""
    return list(itertools.islice(itertools.product([-1.0, 1.0], repeat=mdp.A), 64))


# Every model of the zoo


def test_the_checker_of_gymnasium_passes(batch):
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of observations without bounds: states may leave the domain
        check_env(make_env(batch.model, **settings(batch)))
        check_env(gymnasium.make(f"econrl/{type(batch.model).__name__}-v0", **settings(batch)).unwrapped)


def test_the_checker_of_stable_baselines3_passes(batch, sb3):
    from stable_baselines3.common.env_checker import check_env

    check_env(make_env(batch.model, **settings(batch)))


def test_any_action_is_feasible_and_its_reward_finite(batch):
    """At the corners of the box, within it, and beyond it; strictly inside the bounds."""
    mdp, generator = batch.mdp, torch.Generator().manual_seed(1)
    s = mdp.sample_box(200, generator)
    x = 2 * torch.rand(200, mdp.A, generator=generator, dtype=mdp.dtype) - 1
    for actions in (x, 1.5 * x, *(torch.tensor(c, dtype=mdp.dtype).expand(200, -1) for c in corners(mdp))):
        a = batch.normalised.act(s, actions)
        assert mdp.feasible(s, a, slack=0.0).all()
        assert mdp.reward(s, a).isfinite().all()


def test_actions_differ_where_the_agents_do(batch):
    """The map from the box is one-to-one where actions are continuous, and its middle is the best constant action."""
    mdp = batch.mdp
    s = mdp.sample_box(20, torch.Generator().manual_seed(1))
    x = 2 * torch.rand(20, mdp.A, generator=torch.Generator().manual_seed(2), dtype=mdp.dtype) - 1
    n = batch.normalised
    back = (mdp.unsquash(mdp.shares(s, n.act(s, x))) - n.middle) / n.reach
    there = mdp.widths(s, n.act(s, x))[:, mdp.free] != 0  # who keeps a house buys none
    torch.testing.assert_close(back[:, mdp.free][there], x[:, mdp.free][there], rtol=1e-6, atol=1e-6)
    middle = n.act(s, 0 * x)
    u = n.middle.expand(20, -1).clone()
    for column, _ in mdp.choices:
        u[:, column] = middle[:, column]
    torch.testing.assert_close(middle, mdp.act(s, u))


def test_a_choice_has_equal_parts_of_the_box():
    """Of four shifts a fourth of [-1, 1] each, and what lies outside belongs to the last ones."""

    class Shifts(JobSearch):
        def actions(self):
            return Choice("accept", n=4)

    env = make_env(dataclass(frozen=True, kw_only=True)(Shifts)())
    env.reset(seed=0)
    chosen = [float(env.step(np.array([x]))[-1]["action"][0]) for x in (-2.0, -0.9, -0.4, 0.1, 0.6, 1.0)]
    assert chosen == [0, 0, 1, 2, 3, 3]


def test_the_batch_moves_by_the_models_own_functions(batch):
    mdp = batch.mdp
    batch.begin(3)
    before, eps, state = batch.s, batch.eps, batch.generator.get_state()
    x = np.linspace(-0.2, 0.2, 64 * mdp.A).reshape(64, mdp.A)
    new = batch.step(x)
    a = batch.normalised.act(before, torch.tensor(x))
    e = mdp.sample_shocks(before, torch.Generator().set_state(state))
    torch.testing.assert_close(new.a, a)
    shock = mdp.tastes * eps.gather(-1, a.long()).squeeze(-1) if mdp.tastes > 0 else 0.0
    torch.testing.assert_close(new.r, mdp.reward(before, a) + shock)
    torch.testing.assert_close(new.beta, mdp.discount(before, a, e).expand(64))
    torch.testing.assert_close(new.reached, mdp.transition(before, a, e))


def test_an_agent_that_sees_its_tastes_and_follows_the_values_of_its_options_earns_the_value():
    """With Q by `vi`, argmax_d Q(x, d) + sigma eps_d: lifetime rewards from x = 0, engines replaced by the logit."""
    model = RustBus(beta=0.8, RC=1.0, theta=200.0, most=20.0, sigma=0.5)
    solution = econrl.solve(model, "vi", progress=False)
    env = make_vec(model, 4000, periods=50)
    observation, info = env.reset(seed=0)
    total, replaced, seen = 0.0, [], []
    for t in range(50):
        eps = torch.as_tensor(observation[:, -2:]).double()
        assert np.allclose(info["tastes"], 0.5 * eps, atol=1e-6)
        s = env.batch.s
        option = (solution.policy_function.by_option(s) + 0.5 * eps).argmax(dim=-1)
        observation, reward, _, _, info = env.step(option.numpy()[:, None] - 0.5)
        assert (info["action"][:, 0] == option.numpy()).all()
        total = total + model.beta**t * reward
        replaced.append(option)
        seen.append(s[:, 0])
    assert total.mean() == pytest.approx(float(solution.value({"x": 0.0})), abs=4 * total.std() / 4000**0.5)
    replaced, seen = torch.stack(replaced), torch.stack(seen)
    for x in (1.0, 2.0, 4.0):
        at = replaced[seen == x].double()
        p = float(solution.probabilities({"x": x})["replace"][1])
        assert float(at.mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / len(at)) ** 0.5)


def test_what_is_not_available_is_masked_and_stands_for_what_is():
    class Waits(JobSearch):
        def actions(self):
            return Choice("accept", n=3, available=lambda s: (True, s.w > 0.5, False))

    model = dataclass(frozen=True, kw_only=True)(Waits)()
    env = make_env(model)
    _, info = env.reset(seed=0)
    for x in (-0.9, 0.0, 0.9) * 10:
        w, available = float(info["state"][0]), info["available"].tolist()
        assert available == [True, w > 0.5, False]
        _, _, _, _, info = env.step(np.array([x]))
        assert info["action"][0] == (1.0 if x == 0.0 and w > 0.5 else 0.0)
    vector = make_vec(model, 8)
    _, info = vector.reset(seed=0)
    assert info["available"].shape == (8, 3)
    assert info["_available"].all()


def test_observations_are_the_domain_as_minus_one_to_one():
    mdp = MDP(StochasticGrowth())
    seen = Normalised(mdp, [0.0], 1.0).observe(torch.stack([mdp.low, (mdp.low + mdp.high) / 2, mdp.high]))
    torch.testing.assert_close(seen, torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]], dtype=mdp.dtype))


# Episodes


def test_the_same_seed_gives_the_same_path():
    def path(seed):
        env = growth_env()
        first, _ = env.reset(seed=seed)
        return np.array([first, *(env.step(np.array([0.1]))[0] for _ in range(20))])

    assert np.array_equal(path(1), path(1))
    assert not np.array_equal(path(1), path(2))


def test_a_stationary_model_is_truncated_at_its_time_limit_and_never_terminates():
    env = growth_env(periods=7)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1))[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_a_path_that_leaves_the_domain_is_truncated_not_terminated():
    env = make_env(StochasticGrowth(), middle=[-2.7], reach=5.0)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.ones(1))  # consumes nine tenths
    assert (terminated, truncated) == (False, True)
    assert info["state"][0] < 0.8


@dataclass(frozen=True, kw_only=True)
class Bequest(LifeCycle):
    def terminal(self, s):
        return 10 + s.m


def test_a_life_terminates_at_its_horizon_with_its_terminal_value_in_the_last_reward():
    env = make_env(Bequest(horizon=5, retirement=3), middle=[0.0], reach=1.0)
    env.reset(seed=0)
    steps = [env.step(np.zeros(1)) for _ in range(5)]
    assert [step[2:4] for step in steps] == [(False, False)] * 4 + [(True, False)]
    info = steps[-1][4]
    last = env.model.reward(None, type("a", (), {"c": torch.tensor(info["action"][0])}))
    expected = float(last) + info["discount"] * (10 + info["state"][0])
    assert steps[-1][1] == pytest.approx(expected)


def test_a_time_limit_shorter_than_a_life_truncates_it():
    env = make_env(LifeCycle(horizon=5, retirement=3), periods=3, middle=[0.0], reach=1.0)
    env.reset(seed=0)
    assert [env.step(np.zeros(1))[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


# Batches


def test_a_vector_environment_shows_what_was_reached_and_begins_anew():
    env = make_vec(StochasticGrowth(), 4, periods=3, middle=[-2.7], reach=0.3)
    env.reset(seed=0)
    for period in range(3):
        observations, _, terminated, truncated, info = env.step(np.zeros((4, 1)))
        assert not terminated.any()
        assert truncated.all() == (period == 2)
        assert ("final_obs" in info) == (period == 2)
    reached = env.batch.observation(torch.tensor(info["state"]))
    assert np.array_equal(info["final_obs"], reached)
    assert (np.abs(observations - reached).max(axis=-1) > 1e-3).all()
    assert np.array_equal(observations, env.batch.observation(env.batch.s))
    assert info["_final_obs"].all()


def test_only_the_paths_that_are_done_begin_anew():
    env = make_vec(StochasticGrowth(), 3, middle=[-2.7], reach=5.0)
    env.reset(seed=0)
    observations, _, _, truncated, info = env.step(np.array([[0.0], [1.0], [0.0]]))
    assert truncated.tolist() == info["_final_obs"].tolist() == [False, True, False]
    reached = env.batch.observation(torch.tensor(info["state"]))
    assert (np.abs(observations - reached).max(axis=-1) > 0).tolist() == [False, True, False]
    assert env.batch.environments.age.tolist() == [1, 0, 1]


def test_the_registered_ids_make_batches_too_and_take_other_models():
    env = gymnasium.make_vec(
        "econrl/StochasticGrowth-v0", num_envs=3, vectorization_mode="vector_entry_point", middle=[-2.7], reach=0.3
    )
    assert type(env.unwrapped).__name__ == "VectorEnvironment"
    assert env.reset(seed=0)[0].shape == (3, 2)
    model = StochasticGrowth(gamma=5.0)
    assert gymnasium.make("econrl/StochasticGrowth-v0", model=model, middle=[-2.7]).unwrapped.model == model


def test_every_model_is_registered():
    names = {f"econrl/{cls.__name__}-v0" for cls in zoo()}
    assert names == {name for name in gymnasium.registry if name.startswith("econrl/")}


# Stable-Baselines3


def growth_batch(sb3, n=4, **more):
    return sb3.BatchEnv(StochasticGrowth(), n, middle=[-2.7], reach=0.3, **more)


def test_stable_baselines3_is_told_what_was_truly_reached(sb3):
    """The replay's next observations are the states reached, never those that paths begin anew from."""
    from stable_baselines3 import DDPG

    env = growth_batch(sb3, periods=5)
    reached, begin_anew = [], env.batch.begin_anew

    def watched(done):
        reached.append(env.batch.observation(env.batch.s))
        return begin_anew(done)

    env.batch.begin_anew = watched
    agent = DDPG("MlpPolicy", env, buffer_size=400, learning_starts=400, seed=0, device="cpu").learn(48)
    replay = agent.replay_buffer
    assert np.array_equal(replay.next_observations[: replay.pos], np.array(reached))
    assert replay.timeouts[:12].sum(axis=1).tolist() == [0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    assert replay.dones[:12].sum(axis=1).tolist() == [0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    assert not np.array_equal(replay.next_observations[4], replay.observations[5])


def test_a_life_that_is_over_is_no_time_limit(sb3):
    env = sb3.BatchEnv(LifeCycle(horizon=3, retirement=2), 2, middle=[0.0], reach=1.0)
    env.reset()
    for _ in range(3):
        _, _, done, infos = env.step(np.zeros((2, 1)))
    assert done.all()
    assert not any(info["TimeLimit.truncated"] for info in infos)


def test_the_replay_discounts_by_the_models_own_factor(sb3):
    """Where a path goes on or is cut off, (1 - done) is beta(s, a, e); where a life is over it is zero."""
    from stable_baselines3 import TD3

    model = LifeCycle(horizon=3, retirement=2)
    env = sb3.BatchEnv(model, 4, periods=None, middle=[0.0], reach=1.0)
    agent = TD3(
        "MlpPolicy", env, gamma=1.0, replay_buffer_class=sb3.DiscountedReplay, learning_starts=100, buffer_size=100
    )
    told, step = [], env.batch.step

    def watched(action):
        told.append(step(action))
        return told[-1]

    env.batch.step = watched
    agent.learn(24)
    expected = torch.stack([torch.where(new.terminated, 0.0, new.beta) for new in told]).float().numpy()
    replay = agent.replay_buffer
    np.testing.assert_allclose(1 - replay.dones[: len(told)], expected, atol=1e-6)
    assert not replay.timeouts.any()
    assert 0 < (expected == 0).mean() < 1


def test_the_same_seed_trains_the_same_agent(sb3):
    from stable_baselines3 import TD3

    def weights():
        agent = TD3("MlpPolicy", growth_batch(sb3), learning_starts=8, seed=3, device="cpu").learn(40)
        return torch.cat([p.detach().flatten() for p in agent.actor.parameters()])

    assert torch.equal(weights(), weights())


def trained(sb3, algorithm, env, net_arch=(8, 8), **more):
    import stable_baselines3

    cls = getattr(stable_baselines3, algorithm)
    off_policy = {"learning_starts": 10} if algorithm in ("DDPG", "TD3", "SAC") else {"n_steps": 8}
    policy = {"net_arch": list(net_arch)}
    return cls("MlpPolicy", env, policy_kwargs=policy, seed=0, device="cpu", **off_policy, **more).learn(32)


@pytest.mark.parametrize("algorithm", ["DDPG", "TD3", "SAC", "PPO", "A2C"])
def test_a_trained_policy_comes_back_as_a_solution(sb3, algorithm, tmp_path):
    agent = trained(sb3, algorithm, growth_batch(sb3))
    last = agent.policy.action_net if algorithm in ("PPO", "A2C") else list(agent.actor.modules())[-1]
    for layer in (m for m in (last, *agent.policy.modules()) if isinstance(m, torch.nn.Linear)):
        layer.weight.data *= 100 if layer is last else 3  # so that what puts actions into the box matters
    solution = sb3.solution(agent, seconds=1.0)
    mdp = solution.mdp
    s = mdp.sample_box(50, torch.Generator().manual_seed(5))
    normalised = agent.get_env().get_attr("normalised")[0]
    x, _ = agent.predict(normalised.observe(s).float().numpy(), deterministic=True)
    torch.testing.assert_close(
        solution.policy(s), normalised.act(s, torch.tensor(x, dtype=mdp.dtype)), rtol=1e-5, atol=1e-6
    )
    assert {"k", "z", "c", "value"} <= set(solution.policy_table().columns)
    assert solution.info["method"] == f"stable-baselines3 {algorithm}"
    assert solution.training["error"].notna().all()

    solution.save(tmp_path / "agent")
    again = econrl.load(tmp_path / "agent")
    assert torch.equal(again.policy(s), solution.policy(s))
    assert torch.equal(again.value(s), solution.value(s))


def test_a_trained_policy_is_measured_like_any_other(sb3):
    """TD3 on Brock-Mirman: after a few seconds the policy is closer to the closed form than where it began."""
    from stable_baselines3 import TD3

    env = sb3.BatchEnv(BrockMirman(beta=0.9), 8, middle=[-1.0], reach=3.0)
    more = {"gradient_steps": 8, "learning_starts": 200, "policy_kwargs": {"net_arch": [32, 32]}}
    agent = TD3("MlpPolicy", env, gamma=1.0, replay_buffer_class=sb3.DiscountedReplay, seed=0, device="cpu", **more)

    def error():
        table = sb3.solution(agent).accuracy(200).set_index(["sample", "measure"])
        assert table.loc[("ergodic", "infeasible"), "mean"] == 0
        assert np.isfinite(table.loc[("ergodic", "euler"), "mean"])
        return table.loc[("box", "policy"), "mean"]

    before = error()
    agent.learn(1600)
    assert error() < before - 0.4


def test_loading_needs_neither_stable_baselines3_nor_gymnasium(sb3, tmp_path):
    sb3.solution(trained(sb3, "TD3", growth_batch(sb3))).save(tmp_path / "agent")
    code = (
        "import sys; sys.modules['gymnasium'] = sys.modules['stable_baselines3'] = None; import econrl; "
        f"econrl.load({str(tmp_path / 'agent')!r}).policy_table()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_single_environments_and_other_wrappers_come_back_too(sb3):
    from stable_baselines3.common.vec_env import VecNormalize

    agent = trained(sb3, "TD3", growth_env(), net_arch=())
    assert sb3.solution(agent).model == StochasticGrowth()
    agent = trained(sb3, "TD3", VecNormalize(growth_batch(sb3), norm_obs=False))
    assert sb3.solution(agent).model == StochasticGrowth()
    with pytest.raises(MethodError, match="norm_obs=False"):
        sb3.solution(trained(sb3, "TD3", VecNormalize(growth_batch(sb3))))


def test_agents_that_cannot_come_back_are_refused(sb3, tmp_path):
    import stable_baselines3

    agent = trained(sb3, "TD3", growth_batch(sb3))
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(MethodError, match="load it with `env=`"):
        sb3.solution(stable_baselines3.TD3.load(tmp_path / "agent.zip"))
    again = stable_baselines3.TD3.load(tmp_path / "agent.zip", env=growth_batch(sb3))
    assert sb3.solution(again).info["steps"] == 32
    with pytest.raises(MethodError, match="not made by econrl"):
        sb3.solution(stable_baselines3.TD3("MlpPolicy", "Pendulum-v1"))
    odd = {"activation_fn": torch.nn.Hardtanh}
    with pytest.raises(MethodError, match="no fully connected network"):
        sb3.solution(stable_baselines3.TD3("MlpPolicy", growth_batch(sb3), policy_kwargs=odd))


def constant(model, u):
    """The policy of an agent whose network says zero: the constant u."""
    policy = AgentPolicy(MDP(model), [4], "ReLU", "tanh", u, 1.0).double()
    for p in policy.parameters():
        p.data.zero_()
    return policy.requires_grad_(False)


def test_the_value_of_a_policy_is_its_own(sb3):
    """Brock-Mirman's optimum is a constant share, whose value is known in closed form."""
    model = BrockMirman(beta=0.9)
    share = 1 - model.alpha * model.beta
    policy = constant(model, [float(np.log(share / (1 - share)))])
    mdp = policy.mdp
    value = sb3.value_of(mdp, policy)
    s = mdp.sample_box(200, torch.Generator().manual_seed(9))
    torch.testing.assert_close(policy(s), mdp.exact_policy(s))
    assert (value(s) / mdp.exact_value(s) - 1).abs().max() < 1e-3
    poor = constant(model, [0.0])
    assert (sb3.value_of(mdp, poor)(s) < mdp.exact_value(s)).all()


def test_the_value_of_a_life_is_that_of_each_period(sb3):
    policy = constant(LifeCycle(horizon=5, retirement=3), [0.0])
    value = sb3.value_of(policy.mdp, policy)
    s = policy.mdp.sample_box(200, torch.Generator().manual_seed(9))
    assert (bellman_residual(policy.mdp, policy, value, s) / value(s)).abs().mean() < 0.01


# What is refused


def test_settings_that_cannot_be_used_are_refused():
    model = BufferStock()
    for match, wrong in {
        "`reach` must be positive": {"reach": 0.0},
        "`middle` must have 1 entries": {"middle": [0.0, 0.0]},
        "`periods` must be a whole number": {"periods": 0},
    }.items():
        with pytest.raises(MethodError, match=match):
            make_env(model, **{"middle": [0.0], "reach": 1.0} | wrong)
    with pytest.raises(MethodError, match="`n` must be"):
        Batch(model, 0)
    with pytest.raises(SpecError, match="made of a model"):
        make_env(3)
    with pytest.raises(SpecError, match="there is no model 'Nowhere'"):
        make_env("Nowhere")
    env = make_env(model, middle=[0.0], reach=1.0)
    env.reset(seed=0)
    with pytest.raises(MethodError, match=r"actions must have the shape \(1, 1\), got \(1, 2\)"):
        env.step(np.zeros(2))


@dataclass(frozen=True, kw_only=True)
class Cliff(StochasticGrowth):
    def actions(self):
        return Action("c", low=0.0, high=lambda s: 2 * self.resources(s))

    def reward(self, s, a):
        return (self.resources(s) - a.c).log()


def test_a_model_that_breaks_while_simulating_says_where():
    env = make_env(Cliff(), middle=[0.0], reach=3.0)
    env.reset(seed=0)
    with pytest.raises(SpecError, match=r"Cliff.reward is nan at state k = .*; action c = .*lower `reach`"):
        env.step(np.ones(1))


@pytest.mark.parametrize(("missing", "module"), [("gymnasium", "gym"), ("stable_baselines3", "sb3")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(missing, module):
    code = f"import sys; sys.modules[{missing!r}] = None; import econrl.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'econrl[{module}]'" in done.stderr.splitlines()[-1]


def test_portfolio_shares_keep_their_budget():
    env = make_env(Portfolio(n=3), middle=[0.0] * 4, reach=5.0)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.ones(4))
    assert info["action"][1:].sum() < 1
    assert (info["action"][1:] > 0).all()
