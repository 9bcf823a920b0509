"""States that leave out their domain: fitted from where the model goes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import Action, LogNormal, Model, Normal, SpecError, State
from econrl.checks import with_fitted_domain
from econrl.problem.mdp import MDP


@dataclass(frozen=True, kw_only=True)
class Growth(Model):
    """Full depreciation and log utility: c = (1 - alpha beta) y, and ln k is normal in the long run."""

    beta: float = 0.95
    alpha: float = 0.36
    rho: float = 0.8
    sigma: float = 0.05
    k: tuple = (None, None)

    def states(self):
        return State("k", *self.k), State("z")

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.z.exp() * s.k**self.alpha)

    def shocks(self):
        return Normal("eps", std=self.sigma)

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"k": s.z.exp() * s.k**self.alpha - a.c, "z": self.rho * s.z + e.eps}

    def exact_policy(self, s):
        return {"c": (1 - self.alpha * self.beta) * s.z.exp() * s.k**self.alpha}

    def steady_state(self):
        k = (self.alpha * self.beta) ** (1 / (1 - self.alpha))
        return {"k": k, "z": 0.0, "c": k**self.alpha - k}


@dataclass(frozen=True, kw_only=True)
class Saving(Model):
    """No steady state; paths begin poor."""

    beta: float = 0.94
    low: float | None = None

    def states(self):
        return State("m", low=self.low)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return LogNormal("y", std=0.3)

    def reward(self, s, a):
        return -1 / a.c

    def transition(self, s, a, e):
        return {"m": 1.02 * (s.m - a.c) + e.y}

    def initial(self, n, generator):
        return {"m": 0.8 + 0.4 * torch.rand(n, generator=generator)}


def share_outside(mdp, policy):
    from econrl.problem.simulate import ergodic_states

    s, _ = ergodic_states(mdp, policy, 400, 200, 100, torch.Generator().manual_seed(1))
    return float((~mdp.inside(s)).double().mean())


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1])
def test_a_domain_fits_the_ergodic_distribution_around_the_steady_state(sigma):
    model = with_fitted_domain(Growth(sigma=sigma))
    mdp = MDP(model)
    assert share_outside(mdp, mdp.exact_policy) < 0.005
    std = sigma / np.sqrt(1 - 0.8**2)
    z, k = model.domain["z"], np.log(model.domain["k"])
    assert -8 * std < z[0] < -3 * std or z[0] == pytest.approx(-0.1, abs=0.03)
    assert 3 * std < z[1] < 8 * std or z[1] == pytest.approx(0.1, abs=0.03)
    assert k[1] - k[0] < max(20 * std, 0.5)
    assert econrl.check(Growth(sigma=sigma)) == []


def test_a_solution_says_its_domain_and_is_saved_with_it(tmp_path, capsys):
    solution = econrl.solve(Growth(), "smolyak", device="cpu", progress=True)
    assert "the domain was fitted: k in [0." in solution.info["message"]
    assert "the domain was fitted: k in [0." in capsys.readouterr().err
    assert set(solution.model.domain) == {"k", "z"}
    assert solution.verdict.word == "accurate"
    points = {"k": [0.15, 0.25], "z": [0.1, -0.1]}
    np.testing.assert_allclose(
        solution.policy(points)["c"], (1 - 0.36 * 0.95) * np.exp(points["z"]) * np.array(points["k"]) ** 0.36, rtol=1e-4
    )
    solution.save(tmp_path / "s")
    loaded = econrl.load(tmp_path / "s", Growth)
    assert loaded.model.domain == solution.model.domain
    assert torch.equal(loaded.policy(points)["c"], solution.policy(points)["c"])


@pytest.mark.parametrize("method", ["egm", "auto"])
def test_a_domain_fits_paths_from_initial_states(method):
    solution = econrl.solve(Saving(), method, device="cpu", progress=False)
    low, high = solution.model.domain["m"]
    assert 0 < low < 0.4
    assert 2 < high < 60
    assert share_outside(solution.mdp, solution.policy_function) < 0.02
    assert solution.verdict.word == "accurate"


def test_ends_that_are_given_stay():
    assert with_fitted_domain(Growth(k=(0.11, None))).domain["k"][0] == 0.11
    assert with_fitted_domain(Growth(k=(None, 0.7))).domain["k"][1] == 0.7
    assert with_fitted_domain(Saving(low=0.01)).domain["m"][0] == 0.01
    closed = with_fitted_domain(Growth().with_domain({"k": (0.1, 0.4)}))
    assert closed.domain["k"] == (0.1, 0.4)


def test_a_model_that_has_a_domain_is_left_alone():
    model = econrl.models.BrockMirman()
    assert with_fitted_domain(model) is model
    assert econrl.solve(model, "perturbation", device="cpu").info["message"] == ""


def test_a_family_has_a_domain_for_all_its_members():
    family = econrl.solve(Growth(), "smolyak", over={"sigma": (0.02, 0.1)}, device="cpu", progress=False)
    wide = with_fitted_domain(Growth(sigma=0.1)).domain["z"]
    assert float(family.mdp.low[1]) <= wide[0]
    assert float(family.mdp.high[1]) >= wide[1]


def test_environments_fit_it_too():
    from econrl.gym import make_env

    env = make_env(Growth(), periods=5)
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[0]).all()


def test_what_cannot_be_fitted_is_told():
    @dataclass(frozen=True, kw_only=True)
    class Nowhere(Growth):
        def steady_state(self):
            return None

    with pytest.raises(SpecError, match="Nowhere: k, z leaves out its domain, which cannot be fitted, since neither"):
        econrl.check(Nowhere())
    with pytest.raises(SpecError, match="Nowhere: k, z leaves out"):
        econrl.solve(Nowhere())
    with pytest.raises(SpecError, match="the state 'k' leaves out an end of its domain"):
        MDP(Growth())


def test_a_mistake_elsewhere_is_told_as_always():
    @dataclass(frozen=True, kw_only=True)
    class Broken(Growth):
        def transition(self, s, a, e):
            return {"k": s.z.exp() * s.k**self.alpha - a.c, "z": self.rho * s.y + e.eps}

    with pytest.raises(SpecError, match=r"Broken.transition: AttributeError: no state is called 'y'"):
        econrl.solve(Broken())
