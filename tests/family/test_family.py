"""A range of parameters in one solve: the family is each of its members, and so are its solutions; and the mistakes."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import DDPG, EGM, Action, LogNormal, MarkovChain, MethodError, Model, Normal, SpecError, State
from econrl.approximation.networks import ValueNetwork
from econrl.checks import check
from econrl.family.family import Family
from econrl.family.reward_units import ScaledFamily, scaled, unscaled
from econrl.models import IRBC, BrockMirman, BufferStock, LifeCycle, Portfolio, Retirement, StochasticGrowth
from econrl.problem.bellman import bellman_residual
from econrl.problem.mdp import MDP
from econrl.solvers.perturbation.expansions import expand

# A family calls the member's own code, in float64: a few roundings.
EXACT = {"rtol": 1e-11, "atol": 1e-11}


@dataclass(frozen=True, kw_only=True)
class Saver(Model):
    """Every way in which a parameter can enter: domain, bounds, both kinds of shock, discounting, the end of life."""

    horizon: int = 4
    beta: float = 0.9
    R: float = 1.02
    least: float = 0.1
    sigma: float = 0.2
    bequest: float = 1.0

    def states(self):
        chain = MarkovChain("y", values=(0.8, 1.2), P=((0.9, 0.1), (0.2, 0.8)))
        return State("m", low=0.5 * self.R, high=4.0 + self.sigma), chain

    def actions(self):
        return Action("c", low=self.least, high=lambda s: self.least + self.R * s.m), Action("v", low=-1.0, high=1.0)

    def shocks(self):
        return Normal("eps", std=self.sigma, mean=self.least), LogNormal("theta", std=self.sigma, mean=self.R)

    def reward(self, s, a):
        return a.c.log() - a.v**2

    def discount(self, s, a, e):
        return self.beta * e.theta ** (1 - self.R)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m + self.least + self.R * s.m - a.c) + s.y * e.theta + self.sigma * e.eps + a.v}

    def terminal(self, s):
        return self.bequest * s.m.clamp(min=0.1).log()

    def outcomes(self, s, a):
        return {"saved": self.R * (s.m - a.c)}

    def initial(self, n, generator):
        return {"m": self.R}


SAVER = {"beta": (0.8, 0.95), "R": (1.0, 1.1), "least": (0.05, 0.2), "sigma": (0.1, 0.3), "bequest": (0.5, 2.0)}
ALPHA_BETA = {"alpha": (0.25, 0.45), "beta": (0.92, 0.98)}
GROWTH = {"gamma": (1.0, 5.0), "beta": (0.9, 0.99)}


def points(mdp, n=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    s = mdp.sample_box(n, generator)
    return s, torch.randn(n, mdp.A, generator=generator, dtype=mdp.dtype)


# The family


@pytest.mark.parametrize(
    ("model", "over"),
    [
        (Saver(), SAVER),
        (StochasticGrowth(), {**GROWTH, "sigma": (0.005, 0.02), "alpha": (0.3, 0.4)}),
        (BrockMirman(), {"alpha": (0.2, 0.5), "beta": (0.9, 0.98), "sigma": (0.02, 0.1)}),
        (BufferStock(), {"gamma": (1.0, 4.0), "sigma_psi": (0.05, 0.15)}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Model) else "",
)
def test_at_each_parameter_the_family_is_its_member(model, over):
    family = Family(one=model, over=over)
    mdp = MDP(family)
    s, u = points(mdp)
    s[0, mdp.parameters] = torch.tensor([low for low, _ in over.values()], dtype=mdp.dtype)
    a = mdp.act(s, u)
    own = [c for c in range(mdp.S) if c not in mdp.parameters]
    for i in range(0, 40, 4):
        member = model.replace(**dict(zip(over, s[i, mdp.parameters].tolist(), strict=True)))
        alone = MDP(member)
        x = s[i, own]
        torch.testing.assert_close(a[i], alone.act(x, u[i]), **EXACT)
        torch.testing.assert_close(mdp.reward(s, a)[i], alone.reward(x, a[i]), **EXACT)
        # The nodes of a shock that parameters shape are standard normal; what they lead to is the member's.
        s_, a_ = s[:, None], a[:, None]
        reached = mdp.transition(s_, a_, mdp.nodes)[i]
        torch.testing.assert_close(reached[:, own], alone.transition(x, a[i], alone.nodes), **EXACT)
        assert torch.equal(reached[:, mdp.parameters], s[i, mdp.parameters].expand(len(mdp.nodes), -1))
        factors = [f.expand(len(mdp.nodes)) for f in (mdp.discount(s_, a_, mdp.nodes).expand(40, len(mdp.nodes))[i],
                                                      alone.discount(x, a[i], alone.nodes))]  # fmt: skip
        torch.testing.assert_close(*factors, **EXACT)
        torch.testing.assert_close(mdp.weights(s)[..., :].expand(40, -1)[i], alone.weights(x), **EXACT)
        if mdp.horizon is not None:
            torch.testing.assert_close(mdp.terminal(s)[i], alone.terminal(x), **EXACT)
        shown = family.outcomes(mdp.state(s), mdp.actions(a))
        for name, value in member.outcomes(alone.state(x), alone.actions(a[i])).items():
            torch.testing.assert_close(shown[name][i], value, **EXACT)


def test_the_checks_pass_on_every_way_a_parameter_can_enter():
    assert check(Family(one=Saver(), over=SAVER)) == []
    assert check(Family(one=StochasticGrowth(), over=GROWTH)) == []
    assert check(Family(one=Retirement(horizon=3), over={"gamma": (1.0, 3.0)})) == []  # with a choice


def test_the_domain_holds_those_of_all_members():
    over = {"alpha": (0.2, 0.5), "beta": (0.9, 0.98)}
    mdp = MDP(Family(one=BrockMirman(), over=over))
    k_ss = [BrockMirman(alpha=a, beta=b).k_ss for a in (0.2, 0.35, 0.5) for b in (0.9, 0.94, 0.98)]
    assert mdp.low[0] <= 0.5 * min(k_ss)
    assert mdp.high[0] >= 1.5 * max(k_ss)
    assert mdp.high[0] == pytest.approx(1.5 * max(k_ss))
    assert mdp.low[2:].tolist() == [0.2, 0.9]
    assert mdp.high[2:].tolist() == [0.5, 0.98]
    assert mdp.logarithmic == [0]  # alpha spans a factor of 2.5, and no one may look beyond its range


def test_simulations_draw_a_parameter_for_each_path_and_keep_it(solution):
    by_path = solution.simulate(periods=5, paths=400).groupby("path")["alpha"]
    assert (by_path.nunique() == 1).all()
    drawn = by_path.first()
    assert drawn.between(0.25, 0.45).all()
    # A uniform draw of 400: the mean of its range up to three standard errors, 3 x 0.2 / sqrt(12 x 400)
    assert drawn.mean() == pytest.approx(0.35, abs=0.009)
    assert drawn.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.1)
    s = MDP(Family(one=Saver(), over=SAVER)).sample_initial(50, torch.Generator().manual_seed(0))
    assert torch.equal(s[:, 0], s[:, 3])  # initial says m = R, each path's own


# Units


def test_scaled_rewards_mean_the_same_values():
    # B V - V of any V is size times that of V~, whichever the units: r0, size and the discount factor are right.
    family = Family(one=StochasticGrowth(), over={"gamma": (1.0, 5.0)})
    own = scaled(family, torch.device("cpu"), seed=0)
    assert isinstance(own, ScaledFamily)
    plain, mdp = MDP(family), MDP(own)
    V = ValueNetwork(mdp, (8,), {}).to(mdp.dtype)
    s, u = points(mdp, 200)
    s[0, 2] = 1.0
    a = mdp.act(s, u)
    size = own.units.of(s[:, mdp.parameters])[1]
    with torch.no_grad():
        expected = size * bellman_residual(mdp, lambda s: a, V, s)
        found = bellman_residual(plain, lambda s: a, unscaled(own, V).on(plain), s)
        rewards = mdp.reward(s, mdp.act(s, own.units.reference(s[:, mdp.parameters])[1]))
    # Values reach 1e6 and cancel: twelve digits of them.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert rewards.abs().max() < 3  # without units, a million
    assert float(plain.reward(s, a).abs().max()) > 1e3


def test_scaled_values_of_a_life_that_discounts_by_its_shocks():
    family = Family(one=Saver(), over=SAVER)
    own = scaled(family, torch.device("cpu"), seed=0)
    plain, mdp = MDP(family), MDP(own)
    V = ValueNetwork(mdp, (8,), {}).to(mdp.dtype)
    s, u = points(mdp)
    s[:, -1] = torch.arange(len(s)) % 4  # the last period among them
    a = mdp.act(s, u)
    with torch.no_grad():
        expected = own.units.of(s[:, mdp.parameters])[1] * bellman_residual(mdp, lambda s: a, V, s)
        found = bellman_residual(plain, lambda s: a, unscaled(own, V).on(plain), s)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# Solutions


@pytest.fixture(scope="module")
def solution():
    """The perturbations and a few steps of the polish; then the value."""
    return econrl.solve(BrockMirman(), "auto", over=ALPHA_BETA, steps=3, progress=False)


@pytest.mark.parametrize("at", [{"alpha": 0.25, "beta": 0.98}, {"alpha": 0.31, "beta": 0.943}])
def test_one_solve_is_the_closed_form_at_every_parameter(solution, at):
    member = solution.at(**at)
    assert member.model == BrockMirman(**at)
    s, _ = points(member.mdp, 200)
    # Three steps of the polish, at a corner and inside; the policies of two members differ by a third.
    torch.testing.assert_close(member.policy(s), member.mdp.exact_policy(s), rtol=1e-4, atol=0)
    torch.testing.assert_close(member.value(s), member.mdp.exact_value(s), rtol=1e-3, atol=0)


def test_the_polish_begins_at_perturbations_of_several_members(solution):
    first = solution.training[solution.training["stage"] == "perturbation"]
    # Their log-odds are constant in the state: what is left is a polynomial of degree four in each parameter.
    assert first["error"].item() < 1e-3
    assert "perturbation" in solution.info["message"] or "newton" in solution.info["message"]
    corrected = solution._policy
    assert type(corrected.base).__name__ == "ExpandedPolicy"


@dataclass(frozen=True, kw_only=True)
class Unaided(StochasticGrowth):
    """It does not say where its steady state is."""

    def steady_state(self):
        return None


def test_perturbations_find_the_steady_states_of_all_members():
    # The start from the nearest member fails at some corners, where that from anywhere must take over.
    mdp = MDP(Family(one=Unaided(), over=GROWTH))
    policy, _ = expand(mdp, torch.Generator().manual_seed(0))
    theta = policy.grid.mesh()
    s = torch.cat([torch.tensor([1.0, 0.0]).to(theta).expand(len(theta), 2), theta], dim=-1)
    consumed = [StochasticGrowth(beta=beta).A - 0.02 for beta in theta[:, 1].tolist()]
    torch.testing.assert_close(policy(s)[:, 0], torch.tensor(consumed, dtype=torch.float64), rtol=1e-8, atol=0)


def test_a_member_has_all_that_a_solution_has(solution, tmp_path):
    member = solution.at(alpha=0.3)
    assert member.model == BrockMirman(alpha=0.3)  # beta as in the model
    table = member.policy_table()
    assert table.columns.tolist() == ["k", "z", "c", "output", "investment", "reward", "value"]
    joined = table[["k", "z"]].assign(alpha=0.3, beta=0.96)
    # Small matrix products of other shapes are rounded in another order.
    np.testing.assert_allclose(table["c"], solution.policy(joined)["c"], rtol=1e-12)
    np.testing.assert_allclose(table["value"], solution.value(joined), rtol=1e-12)
    assert member.simulate(periods=3, paths=2)["k"].notna().all()
    box = {"box": (points(member.mdp, 500)[0], 0.0)}
    errors = member.accuracy_at(box).set_index("measure")["mean"]
    assert errors["policy"] < -4
    assert errors["value"] < -3
    assert "BrockMirman at alpha=0.3, beta=0.96 by" in repr(member)
    member.plot().savefig(tmp_path / "member.png")


def test_the_family_tells_its_accuracy_over_the_whole_range(solution):
    errors = solution.accuracy(points=500).set_index(["sample", "measure"])["mean"]
    assert errors["ergodic", "euler"] < -4
    assert errors["box", "euler"] < -3
    assert errors["ergodic", "restarted"] == 0
    assert "BrockMirman over alpha, beta" in repr(solution)


def test_families_and_members_are_saved_and_loaded(solution, tmp_path):
    member = solution.at(alpha=0.3, beta=0.95)
    for one, name, cls in ((solution, "family", BrockMirman), (member, "member", BrockMirman)):
        one.save(tmp_path / name)
        s, _ = points(one.mdp)
        for again in (econrl.load(tmp_path / name), econrl.load(tmp_path / name, cls)):
            assert torch.equal(again.policy(s), one.policy(s))
            assert torch.equal(again.value(s), one.value(s))
    s, _ = points(member.mdp)
    assert torch.equal(econrl.load(tmp_path / "family").at(alpha=0.3, beta=0.95).policy(s), member.policy(s))


def test_the_same_seed_gives_the_same_family():
    method = DDPG(hidden=(4,), batch=16, environments=4)
    model, over = LifeCycle(horizon=3, retirement=2), {"gamma": (1.0, 3.0)}
    one, other = (econrl.solve(model, method, over=over, steps=3, seed=5, progress=False) for _ in range(2))
    s, _ = points(one.mdp)
    assert torch.equal(one.policy(s), other.policy(s))
    assert torch.equal(one.value(s), other.value(s))
    at = one.at(gamma=2.5)
    x, _ = points(at.mdp)
    joined = torch.cat([x[:, :1], torch.full_like(x[:, :1], 2.5), x[:, 1:]], dim=-1)  # the period comes last
    assert torch.equal(at.policy(x), one.policy(joined))


def test_the_endogenous_grid_of_a_family_holds_that_of_each_member_on_its_grid():
    method, model = EGM(points=20, exogenous=4, nodes=3), LifeCycle(horizon=5, retirement=4)
    family = econrl.solve(model, method, over={"gamma": (2.0, 3.5)}, progress=False)
    alone = econrl.solve(model.replace(gamma=2.5), method, progress=False)  # one of 2, 2.5, 3, 3.5
    s, _ = points(alone.mdp, 200)
    torch.testing.assert_close(family.at(gamma=2.5).policy(s), alone.policy(s), rtol=1e-9, atol=1e-9)


# Mistakes


@dataclass(frozen=True, kw_only=True)
class Stubborn(StochasticGrowth):
    """Written for numbers alone."""

    kinds: int = 2
    weights: tuple = (0.5, 0.5)
    k: float = 1.0
    p: float = 0.5
    q: float = 0.5
    odd: float = 1.0

    def states(self):
        return (*super().states(), MarkovChain("y", values=(0.0, 1.0), P=((self.p, 1 - self.p), (0.5, 0.5))))

    def shocks(self):
        return Normal("eps", std=self.sigma), econrl.Discrete("d", values=(0.0, self.q), probabilities=(0.5, 0.5))

    def reward(self, s, a):
        return a.c.log() if self.gamma == 1 else a.c ** (1 - self.gamma) / (1 - self.gamma)

    def discount(self, s, a, e):
        return math.exp(-self.delta) * self.beta

    def transition(self, s, a, e):
        moved = super().transition(s, a, e)
        return {**moved, "z": moved["z"] * float(torch.as_tensor(self.odd).mean())}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, "must be a dict of ranges"),
        ([("gamma", 1, 5)], "must be a dict of ranges"),
        ({"gama": (1, 5)}, "no parameter 'gama' to solve over; it has: beta, gamma"),
        ({"gamma": (5, 1)}, "'gamma' .* range \\(5, 1\\); it must be \\(low, high\\)"),
        ({"gamma": 3.0}, "it must be \\(low, high\\)"),
        ({"gamma": (1, math.inf)}, "finite"),
        ({"kinds": (1, 3)}, "'kinds' .* is 2; only a real number"),
        ({"weights": (1, 3)}, "'weights' .* only a real number"),
        ({"beta": (0.9, 1.2)}, "at beta = 1.2: .* between 0 and 1"),
        ({"k": (0.5, 1.5)}, "a parameter 'k' and a variable 'k'"),
        ({"p": (0.2, 0.8)}, "MarkovChain 'y' varies"),
        ({"q": (0.2, 0.8)}, "shock 'd' varies"),
        ({"gamma": (1, 5)}, "Stubborn.reward with a tensor as its parameter 'gamma': .*test_family.py, line .*where"),
        ({"alpha": (0.3, 0.4), "delta": (0.02, 0.05)}, "Stubborn.discount .* 'delta': .*test_family.py, line"),
        ({"odd": (0.5, 0.9)}, "Stubborn.transition .* 'odd' is not what it is at the number"),
    ],
)
def test_ranges_that_cannot_be_solved_are_refused(over, message):
    with pytest.raises(SpecError, match=message):
        econrl.solve(Stubborn(), over=over)


def test_a_parameter_against_a_vector_is_refused_with_its_line():
    with pytest.raises(SpecError, match=r"IRBC.transition .* 'rho': .*irbc.py, line .*unsqueeze"):
        econrl.solve(IRBC(n=2), over={"rho": (0.9, 0.95)})


def test_a_closed_form_for_numbers_alone_is_no_obstacle():
    assert check(Family(one=Portfolio(), over={"gamma": (2.0, 4.0)})) == []  # its optimum is scipy's


def test_members_that_are_not_there_are_refused(solution):
    with pytest.raises(SpecError, match=r"over alpha from 0.25 to 0.45, and says nothing at 0.5"):
        solution.at(alpha=0.5)
    with pytest.raises(SpecError, match="not over a parameter 'sigma'; it is over alpha, beta"):
        solution.at(sigma=0.1)
    with pytest.raises(SpecError, match="one BrockMirman; a range of parameters needs solve"):
        solution.at(alpha=0.3).at(alpha=0.3)


def test_methods_say_what_they_cannot_do_with_a_range(solution):
    with pytest.raises(MethodError, match=r"egm cannot solve .* over .*: .* several parameters"):
        econrl.solve(BrockMirman(), "egm", over=ALPHA_BETA)
    with pytest.raises(MethodError, match="leave out warm_start, or over"):
        econrl.solve(BrockMirman(), "newton", over=ALPHA_BETA, warm_start=solution)
