"""Perturbation, polish and auto: exact where the answer is known, and never worse than where they began."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import econrl
from econrl import DDPG, EGM, MethodError, Newton, Perturbation, SolveError
from econrl.accuracy.certificates import rejected, welfare_loss
from econrl.models import (
    IRBC,
    BrockMirman,
    BufferStock,
    Investment,
    LifeCycle,
    LinearQuadratic,
    Portfolio,
    StochasticGrowth,
)
from econrl.optimality.bounded_forms import BOTH, FREE, HIGH, LOW, Forms, forms_of
from econrl.optimality.euler import binding_multiplier, condition, costate
from econrl.optimality.find_structure import find_structure
from econrl.optimality.multipliers import why_multipliers_are_unknown
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.off_policy.ddpg_model import improve
from econrl.solvers.polish import polish, polish_run
from econrl.solvers.polish.correction_networks import PolishedPolicy
from econrl.solvers.polish.levenberg_marquardt import GaussNewton
from econrl.solvers.polish.residuals import picked

SMALL = Newton(hidden=(8,), paths=50)


def solve(model, method, **settings):
    return econrl.solve(model, method, progress=False, **settings)


def mean_error(solution, measure="euler", sample="ergodic", column="mean"):
    return solution.accuracy(1000).set_index(["sample", "measure"]).loc[(sample, measure), column]


# First-order perturbation


@pytest.mark.parametrize("model", [LinearQuadratic(n=4, m=2), BrockMirman()], ids=["linear-quadratic", "log-linear"])
def test_perturbation_is_exact_where_the_policy_is_linear(model):
    """u = -F x; and log-odds of a constant share."""
    solution = solve(model, Perturbation())
    s = solution.mdp.sample_box(100, torch.Generator().manual_seed(0))
    exact = solution.mdp.exact_policy(s)
    assert (solution._policy(s) - exact).abs().max() < 1e-10 * exact.abs().max()


def test_perturbations_value_is_exact_for_a_linear_quadratic_model():
    solution = solve(LinearQuadratic(n=3, m=1), Perturbation())
    s = solution.mdp.sample_box(100, torch.Generator().manual_seed(0))
    exact = solution.mdp.exact_value(s)
    assert (solution._value(s) - exact).abs().max() < 1e-9 * exact.abs().max()  # the constant for risk included


def test_the_steady_state_of_growth_is_found_without_being_told():
    solution = solve(StochasticGrowth(), Perturbation())
    known = StochasticGrowth().steady_state()
    assert solution._policy.s_star.tolist() == pytest.approx([known["k"], known["z"]], abs=1e-8)
    c = solution.policy({"k": 1.0, "z": 0.0})["c"]
    assert float(c) == pytest.approx(known["c"], rel=1e-8)


def test_the_derivative_of_the_policy_is_that_of_the_true_one():
    """dc/dk at the steady state of growth, by value iteration on a fine grid: 1e-4 is the grid's own error."""
    by_grid = solve(StochasticGrowth(), econrl.VI(points=(60, 20)))
    slope = lambda s: (s.policy({"k": 1.001, "z": 0.0})["c"] - s.policy({"k": 0.999, "z": 0.0})["c"]) / 0.002  # noqa: E731
    assert float(slope(solve(StochasticGrowth(), Perturbation()))) == pytest.approx(float(slope(by_grid)), rel=2e-2)


def test_a_steady_state_on_a_bound_is_refused_with_a_reason():
    with pytest.raises(SolveError, match="no interior steady state of BufferStock"):
        solve(BufferStock(), Perturbation())


def test_models_without_a_steady_state_are_refused_before_anything_runs():
    with pytest.raises(MethodError, match="a life cycle has no steady state"):
        solve(LifeCycle(horizon=5, retirement=3), Perturbation())


# The international business cycle


def test_irbc_satisfies_its_euler_equation_at_the_steady_state_and_its_published_form_elsewhere():
    """Brumm and Scheidegger's error of country j, for a policy that is not optimal, against the automatic one."""
    model = IRBC(n=2)
    mdp = MDP(model, quadrature=Quadrature("gauss", 3))
    s = mdp.sample_box(20, torch.Generator().manual_seed(0))

    def policy(s):
        return 0.2 * mdp.model.free(mdp.state(s)).unsqueeze(-1) * torch.tensor([1.0, 1.1], dtype=s.dtype)

    def price(s, a):  # lambda = tau_j u'(c_j) is the same for both
        c = model.consumption(mdp.state(s), mdp.actions(a)) / (model.A - model.delta)
        return c ** (-1 / model.g)

    a = policy(s)
    lam = price(s, a)
    assert (lam[:, 0] / lam[:, 1] - 1).abs().max() < 1e-12
    assert mdp.model.consumption(mdp.state(s), mdp.actions(a)).sum(-1) == pytest.approx(
        (mdp.model.free(mdp.state(s)) - a.sum(-1)).numpy(), rel=1e-12
    )
    s_, a_ = s.unsqueeze(1), a.unsqueeze(1)
    after = mdp.transition(s_, a_, mdp.nodes)
    k, k1, z1 = s_[..., :2], after[..., :2], after[..., 2:]
    a1 = policy(after)
    k2 = model.k_next(mdp.state(after), mdp.actions(a1))
    g, g1 = k1 / k - 1, k2 / k1 - 1
    gain = z1.exp() * model.A * model.zeta * k1 ** (model.zeta - 1) + 1 - model.delta + model.phi / 2 * g1 * (g1 + 2)
    tomorrow = model.beta * (mdp.weights(s)[:, None] * price(after, a1) * gain).sum(1)
    by_hand = tomorrow / (lam * (1 + model.phi * g[:, 0])) - 1
    G, _ = condition(mdp, lambda x: costate(mdp, find_structure(mdp), policy, x), policy, s)
    assert (G / lam - by_hand).abs().max() < 1e-10


# Gauss-Newton


def test_gauss_newton_solves_a_linear_problem_at_once_and_chunks_do_not_matter():
    network = nn.Linear(3, 1).double()
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    true = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    pairs = torch.cat([x, (x @ true + 0.3).unsqueeze(-1)], dim=-1)
    gap = lambda theta, p: torch.func.functional_call(network, theta, (p[:3],)) - p[3:]  # noqa: E731
    by_chunk = [GaussNewton(gap, network, chunk).normal_equations(pairs) for chunk in (7, 40)]
    for a, b in zip(*by_chunk, strict=True):
        assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b))
    solver = GaussNewton(gap, network, 10)
    solver.fit(pairs, 40)
    assert (network.weight.detach()[0] - true).abs().max() < 1e-8
    assert network.bias.item() == pytest.approx(0.3, abs=1e-8)


def test_a_step_is_never_taken_uphill_nor_to_what_is_no_number():
    network = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(4.0)
    root = lambda theta, s: (theta["weight"].flatten() - 3).sqrt() - 0.0 * s  # noqa: E731 (a full step leaves its domain)
    solver = GaussNewton(root, network, 8, mu=0.05)
    before, after = solver.step(torch.zeros(4, 1, dtype=torch.float64))
    assert after < before
    assert network.weight.item() > 3


def test_newton_reduces_the_error_by_orders_of_magnitude_and_gives_the_value():
    start = solve(StochasticGrowth(), Perturbation())
    solution = solve(StochasticGrowth(), Newton(hidden=(8, 8)), warm_start=start, steps=40)
    assert mean_error(start) > -4.5
    assert mean_error(solution) < -5.5
    assert mean_error(solution, "bellman") < mean_error(start, "bellman") - 0.5
    again = solve(StochasticGrowth(), Newton(hidden=(8, 8)), warm_start=start, steps=40)
    assert torch.equal(solution._policy.raw(start._policy.s_star),
                       again._policy.raw(start._policy.s_star))  # fmt: skip


def test_newton_is_never_worse_than_its_start(monkeypatch):
    """A polish that only does harm is thrown away."""
    start = solve(BrockMirman(), Perturbation())

    def harm(self, s):
        self.set({name: p + 0.1 for name, p in self.theta.items()})
        return 1.0, 0.5

    monkeypatch.setattr(GaussNewton, "step", harm)
    monkeypatch.setattr(polish_run, "EXACT", 0.0)
    solution = solve(BrockMirman(), SMALL, warm_start=start, steps=10)
    assert mean_error(solution) < -12


def test_a_residual_that_stops_being_a_number_ends_the_polish_with_a_message(monkeypatch):
    start = solve(StochasticGrowth(), Perturbation())
    monkeypatch.setattr(polish_run, "euler_rows", lambda *_, **__: torch.full((1,), torch.nan, dtype=torch.float64))
    solution = solve(StochasticGrowth(), SMALL, warm_start=start, steps=10)
    assert "stopped being numbers" in solution.info["message"]
    assert mean_error(solution) == pytest.approx(mean_error(start))


def test_a_warm_start_from_another_model_is_refused_and_so_is_one_for_a_method_without():
    start = solve(BrockMirman(), Perturbation())
    with pytest.raises(MethodError, match="warm start solves BrockMirman"):
        solve(BufferStock(), SMALL, warm_start=start)
    with pytest.raises(MethodError, match=r"vi takes no warm_start; methods that do: auto, .*newton"):
        solve(BrockMirman(), "vi", warm_start=start)


def test_a_model_without_an_euler_equation_is_polished_by_its_value():
    model = LinearQuadratic(n=3, m=1)
    start = solve(model, DDPG(hidden=(16, 16), batch=64), steps=60)
    errors = solve(model, Newton(hidden=(8,)), warm_start=start, steps=10).training["error"]
    assert errors.min() < 0.3 * errors[0]  # of greedy and Bellman errors together


def test_a_bound_that_may_bind_is_kept_exactly():
    mdp = MDP(BufferStock())
    s = torch.linspace(0.4, 4.0, 200, dtype=torch.float64).unsqueeze(-1)
    a = torch.minimum(s, 0.5 + 0.4 * s)
    assert forms_of(mdp, s, a) == [HIGH]
    policy = PolishedPolicy(mdp, (8,), [HIGH]).double()
    z = policy.outputs_for(s, a)
    assert (policy.output(s, z) - a).abs().max() < 1e-5
    assert torch.equal(policy.output(s, z + 1.0)[:20], s[:20])  # on the bound, not next to it
    for form in (LOW, BOTH):
        policy.forms = Forms(mdp, [form])
        assert (policy.output(s, policy.outputs_for(s, 0.5 * a)) - 0.5 * a).abs().max() < 1e-5


def test_a_life_cycle_is_polished_backwards():
    model = LifeCycle(horizon=4, retirement=2)
    start = solve(model, DDPG(hidden=(16, 16), batch=64), steps=60)
    solution = solve(model, Newton(hidden=(8,), paths=50, nodes=3), warm_start=start)
    assert mean_error(solution, sample="box") < mean_error(start, sample="box") - 0.7
    last = solution.policy({"m": [0.5, 1.0, 5.0], "t": 3})["c"]
    assert last.tolist() == pytest.approx([0.5, 1.0, 5.0], rel=1e-3)  # all is consumed at the end


# auto


def test_auto_stops_at_what_is_exact_and_says_which_stage_it_is():
    solution = solve(LinearQuadratic(n=2, m=1), "auto", steps=5)
    assert solution.info["message"].startswith("the policy is that of perturbation")
    assert mean_error(solution, "policy") < -10
    assert set(solution.training["stage"]) == {"perturbation"}


def test_auto_takes_the_endogenous_grid_method_where_it_applies():
    solution = solve(LifeCycle(horizon=5, retirement=3), "auto")
    assert solution.info["message"] == "the policy is that of egm"
    assert solution.info["converged"]
    assert mean_error(solution) < -5  # the grid's error; a polish of so few periods ends near -3


def test_auto_goes_on_where_a_stage_fails_and_keeps_the_best(monkeypatch):
    def fail(self, mdp, task):
        raise SolveError(f"{self.name} broke")

    for method in (EGM, econrl.VI, econrl.TimeIteration, econrl.FVI, Newton):
        monkeypatch.setattr(method, "run", fail)
    solution = solve(BufferStock(), econrl.Auto(start_steps=40))
    for said in ("egm broke", "vi broke", "the policy is that of ddpg", "no interior steady state", "newton broke"):
        assert said in solution.info["message"]


# Many states, drifting wealth, and multipliers


def test_a_correction_of_a_perturbation_begins_exactly_there():
    start = solve(IRBC(n=3), Perturbation())
    mdp = start.mdp
    policy = PolishedPolicy(mdp, (8,), [FREE], linear=True).double()
    policy.begin_at(start._policy)
    s = mdp.sample_box(50, torch.Generator().manual_seed(0))
    assert (policy(s) - start._policy(s)).abs().max() < 1e-14


def test_a_network_that_treats_countries_alike_corrects_a_perturbation():
    """Six states, and residuals of some of the countries at each; 10^-4.3 is what the perturbation gives."""
    solution = solve(IRBC(n=3), Newton(hidden=(8,), paths=50), warm_start=solve(IRBC(n=3), Perturbation()), steps=8)
    assert solution.training["error"].min() < 0.2 * solution.training["error"][0]
    assert sum(p.numel() for p in solution._policy.networks.parameters()) < 200


def test_residuals_are_the_same_where_only_some_are_looked_at():
    R = torch.tensor([1.0, 2.0, 3.0])
    assert picked(R, torch.tensor([2.0, 0.0])).tolist() == [3.0, 1.0]
    assert picked(R, torch.zeros(0)) is R


def test_where_wealth_drifts_away_the_polish_looks_beyond_the_domain():
    """The error of a spurious solution of the Euler equation grows with wealth, and residuals on the domain do not see
    it: with states of the domain alone the policy's error stays near 10^-2.9."""
    model = Portfolio(n=1)
    start = solve(model, DDPG(hidden=(16, 16), batch=64), steps=100)
    solution = solve(model, Newton(hidden=(8,)), warm_start=start, steps=30)
    assert mean_error(solution, "policy", "box") < -3.5


def test_tomorrows_multiplier_is_the_same_whether_it_is_known_or_found():
    mdp = MDP(IRBC(n=2, irreversible=True), quadrature=Quadrature("gauss", 2))
    structure = find_structure(mdp)
    policy = lambda s: 0.0 * s[..., :2]  # noqa: E731
    s = mdp.sample_box(10, torch.Generator().manual_seed(0))

    def multipliers(s):
        a = policy(s)
        r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
        return binding_multiplier(mdp, structure, policy, s, a, 1) / r_a.abs()

    found, known = costate(mdp, structure, policy, s), costate(mdp, structure, policy, s, multipliers=multipliers)
    assert (found - costate(mdp, structure, policy, s, depth=0)).abs().max() > 1e-3  # it matters
    assert (known - found).abs().max() < 1e-12


def test_an_irreversible_model_is_polished_with_its_multipliers():
    model = IRBC(n=2, irreversible=True)
    start = solve(model, Perturbation())
    solution = solve(model, Newton(hidden=(8,), nodes=2, paths=50), warm_start=start, steps=15)
    assert solution._policy.knows_multipliers
    assert solution.training["error"].min() < 0.1 * solution.training["error"][0]
    s = solution.mdp.tensor([[1.2, 0.8, -0.15, 0.15]])  # much capital that is worth little in the first country
    multipliers = solution._policy.multipliers(s)[0]
    assert multipliers[0] < 0
    assert multipliers[1] == 0
    assert solution._policy(s)[0, 0] == 0


def test_a_bound_that_binds_one_action_bends_the_others_and_not_itself():
    mdp = MDP(IRBC(n=2, irreversible=True))
    policy = PolishedPolicy(mdp, (4,), [LOW], steepness=[0.1, 0.1]).double()
    s = mdp.sample_box(1, torch.Generator().manual_seed(0))
    b, c = [0.0, 0.5], [2.0, 3.0]
    for x, z in [
        ([0.6, 0.3], [0.6, 0.3]),  # none binds
        ([0.6, -0.3], [0.6 - 0.5 * 2.0 * 1.5 * 0.3, -0.3]),  # the second bends the first
        ([0.2, -0.3], [0.2 - 0.5 * 2.0 * 1.5 * 0.3, -0.3 - 0.5 * 3.0 * 0.25]),  # which binds then, and bends the second
    ]:
        raw = torch.tensor([[*x, *b, *c]], dtype=torch.float64)
        torch.testing.assert_close(policy.z(s, raw), torch.tensor([z], dtype=torch.float64))


# Rollouts


def test_a_rollout_of_one_step_is_rung_two_and_a_longer_one_looks_at_the_same_value():
    """With the exact value beyond, J(s) is the value of the exact policy, however long the rollout."""
    model = BrockMirman(sigma=1e-9)
    mdp = MDP(model)
    s = mdp.sample_box(16, torch.Generator().manual_seed(0))
    share = 1 - model.alpha * model.beta

    class Exact(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 1).double()

        def raw(self, s):
            return 0.0 * self.body(s) + float(np.log(share / (1 - share)))

    for steps in (1, 4):
        u, J, J_s, gradient = improve(mdp, mdp.exact_value, Exact(), s, steps, torch.Generator().manual_seed(1))
        assert (mdp.act(s, u) - mdp.exact_policy(s)).abs().max() < 1e-12
        assert (J - mdp.exact_value(s)).abs().max() < 1e-6
        (V_s,) = torch.autograd.grad(mdp.exact_value(x := s.clone().requires_grad_()).sum(), x)
        assert (J_s - V_s).abs().max() < 1e-5 * V_s.abs().max()
        assert max(float(g.abs().max()) for g in gradient) < 1e-6


def test_a_life_that_is_over_pays_nothing_more():
    mdp = MDP(LifeCycle(horizon=3, retirement=2))
    living, at = mdp.living(torch.tensor([[1.0, 2.0], [1.0, 3.0]], dtype=torch.float64))
    assert living.tolist() == [True, False]
    assert at[:, 1].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("method", [DDPG(rung=3, hidden=(16, 16), batch=64), "pathwise"], ids=["rung 3", "pathwise"])
def test_rollouts_learn_the_closed_form(method):
    model = BrockMirman(beta=0.9)  # 200 periods are for ever
    method = econrl.METHODS["pathwise"](hidden=(16, 16), rollout=40) if method == "pathwise" else method
    solution = solve(model, method, steps=60)
    assert mean_error(solution, "policy", "box") < -1.3


# Certificates


def test_the_welfare_loss_of_a_constant_share_in_closed_form():
    """Log utility: consuming the share x forever differs from the optimum by a known constant in the value."""
    model = BrockMirman()
    mdp = MDP(model)
    best, worse = 1 - model.alpha * model.beta, 0.8
    output = lambda s: s[..., 1:].exp() * s[..., :1] ** model.alpha  # noqa: E731
    loss = welfare_loss(mdp, lambda s: worse * output(s), lambda s: best * output(s), 0)
    value = lambda x: np.log(x) + model.alpha * model.beta / (1 - model.alpha * model.beta) * np.log(1 - x)  # noqa: E731
    assert loss == pytest.approx(value(best) - value(worse), rel=0.02)  # c u'(c) = 1, so that units are consumption
    assert welfare_loss(mdp, lambda s: best * output(s), lambda s: best * output(s), 0) == 0


def test_the_statistical_test_accepts_the_optimum_and_rejects_what_is_not():
    model = BrockMirman()
    mdp = MDP(model)
    structure = find_structure(mdp)
    assert rejected(mdp, structure, mdp.exact_policy, 0) < 0.12
    assert rejected(mdp, structure, lambda s: 0.99 * mdp.exact_policy(s), 0) > 0.9


@dataclass(frozen=True, kw_only=True)
class TwoCopies(StochasticGrowth):
    """Growth with another name: a solution of the one starts the other."""


def test_a_solution_with_other_parameters_is_a_warm_start():
    start = solve(StochasticGrowth(), Perturbation())
    solution = solve(TwoCopies(gamma=2.2), SMALL, warm_start=start, steps=10)
    assert mean_error(solution) < -3.5
    assert dataclasses.asdict(solution.model)["gamma"] == 2.2


def test_multipliers_that_cannot_be_known_along_with_the_policy_are_refused_with_a_reason(monkeypatch):
    mdp = MDP(Portfolio(n=2))  # the reward does not depend on the shares of assets
    s = mdp.sample_box(5, torch.Generator().manual_seed(0))
    assert "has no unit" in why_multipliers_are_unknown(mdp, s, mdp.exact_policy(s))
    mdp = MDP(Investment())  # dividends fall with investment
    s = mdp.sample_box(5, torch.Generator().manual_seed(0))
    assert why_multipliers_are_unknown(mdp, s, mdp.act(s, s[:, :1])) == ""
    monkeypatch.setattr(polish, "matter", lambda structure: True)
    model = LifeCycle(horizon=3, retirement=2)
    with pytest.raises(SolveError, match="each period of a life cycle has multipliers of its own"):
        solve(model, SMALL, warm_start=solve(model, DDPG(hidden=(8,)), steps=2), steps=1)
