"""Every method that takes recursive utility, against closed forms, and additive utility where the two are one."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import econrl
from econrl import DDPG, FVI, METHODS, VI, Action, Discrete, MethodError, Model, Newton, Normal, SpecError, State
from econrl.accuracy.certificates import rejected, welfare_loss
from econrl.models import BrockMirman, Copies, EpsteinZinGrowth, Portfolio, StochasticGrowth
from econrl.optimality.find_structure import find_structure
from econrl.problem.bellman import bellman_residual
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import FINER
from econrl.storage.saving import fingerprint, same_fingerprint
from econrl.utility import EpsteinZin, Recursive, RiskSensitive, crra

STEPS = {"fvi": 9, "ddpg": 60, "newton": 4}  # the first of fvi are of value iteration
SMALL = {
    **{"hidden": (4,), "points": 8, "level": 2, "refine": 0.0, "states": 30, "first_fit": 4, "fit": 2, "batch": 32},
    **{"start_steps": 20, "start_states": 64, "environments": 16, "capacity": 100, "warm_up": 4, "sketch_steps": 2},
}


def small(cls, **settings):
    known = {name: value for name, value in SMALL.items() if name in cls.__dataclass_fields__}
    return cls(**{**known, **settings})


def solve(model, method, **options):
    return econrl.solve(model, method, **{"seed": 0, "progress": False, "device": "cpu", **options})


@dataclass(frozen=True, kw_only=True)
class Persistent(BrockMirman):
    """Brock-Mirman with an elasticity of one, any risk aversion, and productivity that persists."""

    sigma: float = 0.02
    rho: float = 0.9
    gamma: float = 10.0

    def states(self):
        return State("k", low=0.5 * self.k_ss, high=2 * self.k_ss), State("z", low=-0.15, high=0.15)

    def preferences(self):
        return EpsteinZin(ies=1.0, risk_aversion=self.gamma)

    def reward(self, s, a):
        return a.c

    def transition(self, s, a, e):
        return {"k": self.output(s) - a.c, "z": self.rho * s.z + e.eps}

    def constants(self, share):
        """A, B and D of ln V = A + B ln k + D z, where the share saved is given."""
        b, alpha = self.beta, self.alpha
        B, D = alpha * (1 - b) / (1 - alpha * b), (1 - b) / ((1 - alpha * b) * (1 - self.rho * b))
        risk = (1 - self.gamma) * (D * self.sigma) ** 2 / 2
        return math.log(1 - share) + b / (1 - b) * (B * math.log(share) + risk), B, D

    def exact_value(self, s):
        A, B, D = self.constants(self.alpha * self.beta)
        return (A + B * s.k.log() + D * s.z).exp()


@dataclass(frozen=True, kw_only=True)
class ByHand(Persistent):
    """The same, with an aggregator and a certainty equivalent of its own."""

    def preferences(self):
        b, power = self.beta, 1 - self.gamma
        return Recursive(
            W=lambda c, m: c ** (1 - b) * m**b, phi=lambda v: -(v**power), inverse=lambda x: (-x) ** (1 / power)
        )


def errors(solution):
    """Mean relative errors of the policy and of the value, on states of the domain that it was not fitted to."""
    mdp = solution.mdp
    s = mdp.sample_box(500, torch.Generator().manual_seed(1))
    exact_a, exact_V = mdp.exact_policy(s), mdp.exact_value(s)
    V = mdp.preferences.shown(solution.value_function(s))
    a = solution.policy_function(s)
    return float(((a - exact_a).abs() / exact_a.abs().mean(dim=0)).mean()), float((V / exact_V - 1).abs().mean())


# Against closed forms


@pytest.mark.parametrize("gamma", [10.0, 100.0])
@pytest.mark.parametrize(("name", "policy", "value"), [("vi", 1e-8, 1e-6), ("time_iteration", 1e-12, 1e-6)])
def test_brock_mirman_on_grids(name, policy, value, gamma):
    of_policy, of_value = errors(solve(Persistent(gamma=gamma), name))
    assert of_policy < policy
    assert of_value < value


@pytest.mark.parametrize(
    ("method", "steps", "policy", "value"),
    [
        (Newton(start_steps=100), 20, 1e-4, 1e-4),
        (FVI(states=100, hidden=(8, 8)), 12, 1e-2, 1e-2),
        (DDPG(), 500, 2e-2, 1e-2),
        (DDPG(rung=3, rollout=3), 300, 2e-2, 1e-2),
    ],
    ids=["newton", "fvi", "ddpg", "ddpg-3"],
)
def test_brock_mirman_by_networks(method, steps, policy, value):
    """Wide bounds, since runs are short: without the certainty equivalent the value is off by 3 per cent."""
    of_policy, of_value = errors(solve(Persistent(gamma=100.0), method, steps=steps))
    assert of_policy < policy
    assert of_value < value


def test_an_aggregator_by_hand_is_the_ready_made_one():
    for name in ("vi", "time_iteration"):
        of_policy, of_value = errors(solve(ByHand(), name))
        assert of_policy < 1e-8
        assert of_value < 1e-6
    s = {"k": torch.tensor([0.15]), "z": torch.tensor([0.1])}
    by_hand, ready_made = (solve(model, DDPG(), steps=300).value(s) for model in (ByHand(), Persistent()))
    assert torch.allclose(by_hand, ready_made, rtol=2e-2)


def test_risk_sensitive_utility_is_epstein_zin_of_elasticity_one_in_logarithms():
    model = BrockMirman(risk_aversion=30.0, sigma=0.3)
    solution = solve(model, "vi")
    of_policy, of_value = errors(solution)
    assert of_policy < 1e-5
    assert of_value < 1e-5
    s = solution.mdp.tensor([[0.2, 0.0]])
    additive = BrockMirman(sigma=0.3).exact_value(solution.mdp.state(s))
    assert float(additive - solution.value(s)) > 0.05  # what the risk is worth


@pytest.mark.parametrize(("psi", "gamma"), [(1.0, 10.0), (1.5, 5.0)])
def test_portfolio(psi, gamma):
    """Wealth has no bounds: a grid would have to extrapolate."""
    of_policy, of_value = errors(solve(Portfolio(n=1, ies=psi, gamma=gamma), Newton(start_steps=200), steps=25))
    assert of_policy < 1e-4
    assert of_value < 1e-4


@dataclass(frozen=True, kw_only=True)
class Life(Model):
    """Four periods of saving at a risky return, with income; nothing follows the last one but a bequest, if any."""

    horizon: int = 4
    beta: float = 0.9
    psi: float = 0.5
    gamma: float = 8.0
    bequest: float = 0.0

    def states(self):
        return State("m", low=0.2, high=8.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return Discrete("R", values=(0.8, 1.05, 1.3), probabilities=(0.25, 0.5, 0.25)), Discrete(
            "y", values=(0.3, 1.0), probabilities=(0.4, 0.6)
        )

    def preferences(self):
        return EpsteinZin(ies=self.psi, risk_aversion=self.gamma)

    def reward(self, s, a):
        return a.c

    def transition(self, s, a, e):
        return {"m": e.R * (s.m - a.c) + e.y}

    def terminal(self, s):
        return self.bequest * s.m


def backwards(model, points=1500, shares=4000):
    """(m, c, V) of the first period by brute force: all shares of a grid at all points of another, V interpolated."""
    m = np.linspace(0.01, 12.0, points)
    rho, power, w = 1 - 1 / model.psi, 1 - model.gamma, 1 - model.beta
    R, y = (x.ravel() for x in np.meshgrid((0.8, 1.05, 1.3), (0.3, 1.0), indexing="ij"))
    p = np.outer((0.25, 0.5, 0.25), (0.4, 0.6)).ravel()
    share = np.linspace(1 / shares, 1, shares)
    V = model.bequest * m
    for t in reversed(range(model.horizon)):
        c_best, V_new = np.empty_like(m), np.empty_like(m)
        for i, cash in enumerate(m):
            c = share * cash
            today = w * c**rho if model.psi != 1 else w * np.log(c)
            last = t == model.horizon - 1 and model.bequest == 0
            if not last:
                then = np.interp(R[:, None] * (cash - c) + y[:, None], m, V)
                log_m = np.log(p @ then**power) / power
                future = model.beta * np.exp(rho * log_m) if model.psi != 1 else model.beta * log_m
                today = today + future
            found = np.exp(today) if model.psi == 1 else today ** (1 / rho)
            best = found.argmax()
            c_best[i], V_new[i] = c[best], found[best]
        V = V_new
    return m, c_best, V


@pytest.mark.parametrize(("psi", "bequest"), [(0.5, 0.0), (1.5, 0.0), (1.0, 0.0), (0.5, 0.3)])
def test_lives_against_backward_induction_by_brute_force(psi, bequest):
    """Two digits more than the brute force has: a share of 1/4000, and V linear between 1,500 points."""
    model = Life(psi=psi, bequest=bequest)
    m, c, V = backwards(model, points=600, shares=1500)
    at = np.linspace(0.5, 7.5, 40)
    exact = np.interp(at, m, c), np.interp(at, m, V)
    for method in ("vi", "time_iteration", Newton(start_steps=50)):
        solution = solve(model, method)
        s = {"m": torch.as_tensor(at), "t": torch.zeros(40)}
        found = solution.policy(s)["c"].numpy(), solution.value(s).numpy()
        for x, y, close in zip(found, exact, (5e-3, 5e-4), strict=True):
            assert np.abs(x / y - 1).max() < close, method


# Where recursive utility is additive


@dataclass(frozen=True, kw_only=True)
class Recursively(StochasticGrowth):
    """Growth with the additive utility of its gamma, written as recursive utility."""

    def preferences(self):
        return EpsteinZin(ies=1 / self.gamma, risk_aversion=self.gamma)

    def reward(self, s, a):
        return a.c


TAKES_IT = [cls for cls in METHODS.values() if cls().recursive and cls.name not in ("auto", "adaptive")]


@pytest.mark.parametrize(
    "method",
    [small(cls) for cls in TAKES_IT] + [small(DDPG, rung=rung) for rung in (1, 3)],
    ids=lambda m: f"{m.name}{getattr(m, 'rung', '')}",
)
def test_psi_of_one_over_gamma_equals_additive_utility(method):
    additive, recursive = (
        solve(model, method, steps=STEPS.get(method.name, 8)) for model in (StochasticGrowth(), Recursively())
    )
    table = additive.policy_table()
    assert np.abs(recursive.policy_table()["c"] / table["c"] - 1).max() < 1e-10
    held = recursive.value_function(additive.mdp.tensor(table[["k", "z"]].to_numpy()))
    assert np.abs(held.numpy() / table["value"] - 1).max() < 1e-10
    V = (0.01 * (-held)) ** -1.0  # V^(1-1/psi) / ((1-beta) (1-1/psi)) is the additive value
    assert np.abs(recursive.policy_table()["value"] / V.numpy() - 1).max() < 1e-10


# What a solution says of itself


def test_the_bellman_equation_holds_at_the_closed_form_and_at_no_other():
    for model in (Persistent(), ByHand()):
        mdp = MDP(model, quadrature=FINER)
        s = mdp.sample_box(50, torch.Generator().manual_seed(0))
        value = lambda s, mdp=mdp: mdp.preferences.held(mdp.exact_value(s))  # noqa: E731
        assert bellman_residual(mdp, mdp.exact_policy, value, s).abs().max() < 1e-12
        wrong = MDP(replace(model, gamma=2.0), quadrature=FINER)
        assert bellman_residual(wrong, mdp.exact_policy, value, s).abs().min() > 1e-5


def test_welfare_of_a_wrong_share_is_what_the_closed_form_says():
    """With a share x of output saved for ever, ln V differs by that of A(x); ln V moves one for one with all c."""
    model = Persistent()
    mdp = MDP(model, quadrature=FINER)
    value = lambda s: mdp.preferences.held(mdp.exact_value(s))  # noqa: E731
    best = model.alpha * model.beta
    worse = best + 0.02
    loss = welfare_loss(mdp, lambda s: (1 - worse) / (1 - best) * mdp.exact_policy(s), mdp.exact_policy, 0, value)
    exact = model.constants(best)[0] - model.constants(worse)[0]
    assert loss == pytest.approx(exact, rel=0.02)


def test_den_haan_and_marcet_weigh_states_by_the_value():
    model = EpsteinZinGrowth(eta=0.3)
    solution = solve(model, "perturbation")
    assert rejected(solution.mdp, solution.structure, solution.policy_function, 0, solution.value_function) is not None
    mdp = MDP(Persistent(), quadrature=FINER)
    value = lambda s: mdp.preferences.held(mdp.exact_value(s))  # noqa: E731
    assert rejected(mdp, find_structure(mdp), mdp.exact_policy, 0, value) < 0.12
    assert rejected(mdp, find_structure(mdp), lambda s: 0.99 * mdp.exact_policy(s), 0, value) > 0.9


def test_a_policy_that_is_off_is_called_so():
    """One per cent too much consumption reads about one per cent, whatever the preferences."""
    from econrl.accuracy.optimality_gaps import euler_gaps

    for model in (Persistent(), ByHand()):
        mdp = MDP(model, quadrature=FINER)
        s, value = mdp.sample_box(100, torch.Generator().manual_seed(0)), None
        value = lambda s, mdp=mdp: mdp.preferences.held(mdp.exact_value(s))  # noqa: E731
        policy = lambda s, mdp=mdp: 1.01 * mdp.exact_policy(s)  # noqa: E731
        generator = torch.Generator().manual_seed(0)
        found = euler_gaps(mdp, find_structure(mdp), policy, s, generator, value).distance.mean()
        assert float(found) == pytest.approx(0.01, rel=0.1)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    solution = solve(Persistent(), VI(points=8))
    solution.save(tmp_path / "saved")
    loaded = econrl.load(tmp_path / "saved", model=Persistent())
    assert solution.policy_table().equals(loaded.policy_table())
    assert (solution.policy_table()["reward"] == solution.policy_table()["c"]).all()


# What cannot be


@pytest.mark.parametrize("name", sorted(set(METHODS) - {cls.name for cls in TAKES_IT} - {"auto", "adaptive"}))
def test_other_methods_say_so_and_name_those_that_can(name):
    with pytest.raises(MethodError, match=r"sums of rewards alone|discrete|no choice|table") as error:
        solve(Persistent(), name)
    if "sums of rewards" in str(error.value):
        assert "vi, fvi, smolyak" in str(error.value)


def test_samples_of_rung_0_are_refused_and_environments_too():
    with pytest.raises(MethodError, match="of one sampled V' is no certainty equivalent"):
        solve(Persistent(), DDPG(rung=0))
    from econrl.gym import Environment

    with pytest.raises(MethodError, match="Epstein-Zin utility, psi = 1, gamma = 10"):
        Environment(Persistent())


@pytest.mark.parametrize(
    ("model", "over"),
    [
        (Persistent(), {"alpha": (0.3, 0.4)}),
        (Portfolio(n=1, ies=0.2, gamma=5.0), {"beta": (0.93, 0.97)}),  # additive, in another unit than its reward
        (BrockMirman(), {"risk_aversion": (1.0, 10.0)}),  # additive here, and nowhere else
    ],
)
def test_a_range_of_parameters_is_refused(model, over):
    with pytest.raises(SpecError, match="sums of rewards alone"):
        solve(model, "newton", over=over)


def test_copies_are_refused():
    with pytest.raises(SpecError, match="values add up over copies where rewards do"):
        Copies(one=BrockMirman(risk_aversion=10.0))
    assert Copies(one=BrockMirman()).one == BrockMirman()


def test_a_file_is_that_of_one_risk_aversion():
    """Whose models have the same rewards and laws of motion."""
    one, other = (fingerprint(MDP(replace(Persistent(), gamma=gamma))) for gamma in (5.0, 10.0))
    assert same_fingerprint(one, fingerprint(MDP(replace(Persistent(), gamma=5.0))))
    assert not same_fingerprint(one, other)


@dataclass(frozen=True, kw_only=True)
class OwnLife(Life):
    """The same with an aggregator of its own, which is infinitely steep at m = 0, where nothing follows."""

    psi: float = 1.5

    def preferences(self):
        rho, power, w = 1 - 1 / self.psi, 1 - self.gamma, 1 - self.beta
        return Recursive(
            W=lambda r, m: (w * r**rho + self.beta * m**rho) ** (1 / rho),
            phi=lambda v: -(v**power),
            inverse=lambda x: (-x) ** (1 / power),
        )


def test_a_last_period_that_an_own_aggregator_can_take():
    by_hand, ready_made = (solve(model, "vi") for model in (OwnLife(), Life(psi=1.5)))
    s = {"m": torch.linspace(0.5, 7.5, 20, dtype=torch.float64), "t": torch.zeros(20)}
    assert torch.allclose(by_hand.policy(s)["c"], ready_made.policy(s)["c"], rtol=1e-3)
    assert by_hand.verdict.word == "accurate"


def test_a_last_period_that_an_own_aggregator_cannot_take_is_named():
    with pytest.raises(SpecError, match=r"after the last period V' is 0, and W.r, m. is 0 there.*define `terminal`"):
        econrl.check(OwnLife(psi=0.5))
    assert econrl.check(OwnLife(psi=0.5, bequest=0.1)) == []


@dataclass(frozen=True, kw_only=True)
class Anything(Persistent):
    preferences_: object = None
    utility: bool = False
    varying: bool = False

    def preferences(self):
        return self.preferences_() if callable(self.preferences_) else self.preferences_

    def reward(self, s, a):
        return crra(a.c, 2.0) if self.utility else a.c

    def discount(self, s, a, e):
        return 0.9 + e.eps / 10 if self.varying else self.beta


@pytest.mark.parametrize(
    ("preferences", "fields", "says"),
    [
        (lambda: EpsteinZin(0.5, 5.0), {"utility": True}, "must be consumption or a bundle of goods"),
        (lambda: EpsteinZin(1.0, 5.0), {"varying": True}, "it must be known today"),
        (lambda: RiskSensitive(1.0), {"varying": True}, "it must be known today"),
        (lambda: EpsteinZin, {}, "it must be EpsteinZin"),
        (lambda: 3, {}, "gives 3; it must be"),
        (lambda: Recursive(W=lambda r, m: r - 0.5 * m), {}, "does not rise in its second argument"),
        (lambda: Recursive(W=lambda r, m: m * 0.5 - r), {}, "does not rise in its first argument"),
        (lambda: Recursive(W=lambda r, m: r**2 + 2 * m**2), {}, "no finite value|does not rise"),
        (
            lambda: Recursive(W=lambda r, m: r + 0.9 * m, phi=lambda v: v**-4, inverse=lambda x: x ** (-1 / 4)),
            {},
            "phi does not rise",
        ),
        (
            lambda: Recursive(W=lambda r, m: r + 0.9 * m, phi=lambda v: -(v**-4), inverse=lambda x: x ** (-1 / 4)),
            {},
            "must be V itself",
        ),
    ],
)
def test_bad_preferences_are_one_clear_line(preferences, fields, says):
    with pytest.raises(SpecError, match=says) as error:
        econrl.check(Anything(preferences_=preferences, **fields))
    assert "\n" not in str(error.value)


def test_the_weight_needs_a_discount_factor():
    @dataclass(frozen=True, kw_only=True)
    class WithoutBeta(Model):
        def states(self):
            return State("k", low=0.5, high=2.0)

        def actions(self):
            return Action("c", low=0.0, high=lambda s: s.k)

        def shocks(self):
            return Normal("eps", std=0.1)

        def reward(self, s, a):
            return a.c

        def transition(self, s, a, e):
            return {"k": (s.k - a.c) * e.eps.exp()}

        def discount(self, s, a, e):
            return 0.9

        def preferences(self):
            return EpsteinZin(0.5, 5.0)

    with pytest.raises(SpecError, match=r"give EpsteinZin\(..., weight=...\)"):
        econrl.check(WithoutBeta())
