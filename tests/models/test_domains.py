"""The zoo's domains follow the calibrations, and are the published ones at the published calibrations."""

import math

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

import econrl
from econrl.models import IRBC, BrockMirman, BufferStock, Firms, Investment, LifeCycle, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.problem.simulate import paths


def ends(model):
    mdp = MDP(model)
    return mdp.low.tolist(), mdp.high.tolist()


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        (StochasticGrowth(), [0.9, -0.1], [1.1, 0.1]),
        (StochasticGrowth(sigma=0.003, rho=0.0), [0.9, -0.1], [1.1, 0.1]),
        (IRBC(), [0.8, 0.8, -0.15, -0.15], [1.2, 1.2, 0.15, 0.15]),
        (BufferStock(), [0.3], [5.0]),
        (LifeCycle(), [0.5, 0.0], [20.0, 59.0]),
    ],
)
def test_published_domains_are_kept(model, low, high):
    assert ends(model) == (low, high)


@pytest.mark.parametrize(("rho", "sigma"), [(0.95, 0.01), (0.5, 0.04), (0.99, 0.02)])
def test_the_spread_of_growth_is_that_of_the_closed_form(rho, sigma):
    """With log utility and full depreciation, ln k' = alpha ln k + z (Brock and Mirman 1972)."""
    model = StochasticGrowth(gamma=1.0, delta=1.0, rho=rho, sigma=sigma)
    std_z = sigma / math.sqrt(1 - rho**2)
    alpha = model.alpha
    std_k = std_z * math.sqrt((1 + alpha * rho) / (1 - alpha**2) / (1 - alpha * rho))
    assert model.spread == pytest.approx((std_k, std_z), rel=1e-9)


@pytest.mark.parametrize("model", [StochasticGrowth(beta=0.9, rho=0.5), Investment(phi=1.0)])
def test_the_spread_is_that_of_the_linearised_model(model):
    solution = econrl.solve(model, "perturbation")
    mdp, policy, e = solution.mdp, solution.policy_function, solution.mdp.nodes.mean(dim=0)
    s = policy.s_star
    f_s, f_e = torch.func.jacrev(lambda s, e: mdp.transition(s, policy(s), e), argnums=(0, 1))(s, e)
    covariance = solve_discrete_lyapunov(f_s.numpy(), model.sigma**2 * (f_e @ f_e.mT).numpy())
    assert model.spread == pytest.approx(covariance.diagonal() ** 0.5, rel=1e-5)


def test_paths_of_the_optimum_stay_on_the_domain():
    """0.5 per cent of the periods lie outside; on the domain of the default calibration, a quarter."""
    model = BrockMirman(sigma=0.4, alpha=0.6)
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    s, _ = paths(mdp, mdp.exact_policy, mdp.sample_initial(500, generator), 100, generator)
    assert (~mdp.inside(s[50:])).double().mean() < 0.01
    narrow = MDP(model.with_domain({"k": (0.5 * model.k_ss, 1.5 * model.k_ss)}))
    assert (~narrow.inside(s[50:])).double().mean() > 0.2


def test_domains_grow_with_the_shocks():
    for calm, wild in [
        (IRBC(), IRBC(rho=0.99)),
        (IRBC(), IRBC(sigma=0.02)),
        (Firms(), Firms(sigma=0.05)),
        (Investment(), Investment(rho=0.97)),
        (StochasticGrowth(), StochasticGrowth(rho=1.0)),
    ]:
        (low, high), (lower, higher) = ends(calm), ends(wild)
        assert all(a < b for a, b in zip(lower, low, strict=True))
        assert all(a > b for a, b in zip(higher, high, strict=True))
        assert lower[0] > 0
    assert ends(BufferStock(sigma_theta=0.5))[1][0] > 10
    assert ends(LifeCycle(pension=0.3))[0][0] == 0.3
