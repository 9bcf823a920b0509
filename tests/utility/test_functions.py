"""Utility functions: exact cases, tensor parameters, and numbers that a solver can live with at the edges."""

import math

import pytest
import torch

from econrl.utility import cara, crra, crra_inverse_marginal, crra_marginal

# Values are compared to closed forms in float64; a handful of elementary operations cost a few units in the last place.
EXACT = {"rtol": 1e-14, "atol": 1e-14}


def consumption(n=50):
    return torch.logspace(-3, 3, n, dtype=torch.float64)


def test_crra_at_one_is_the_logarithm_bit_for_bit():
    c = consumption()
    assert torch.equal(crra(c, 1.0), c.log())
    assert torch.equal(crra(c, 1), c.log())
    assert torch.equal(crra(c, torch.tensor(1.0, dtype=torch.float64)), c.log())


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_crra_is_the_power(gamma):
    c = consumption()
    expected = [x ** (1 - gamma) / (1 - gamma) for x in c.tolist()]
    torch.testing.assert_close(crra(c, gamma), torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_a_tensor_gamma_gives_each_member_its_own_risk_aversion():
    c = consumption(4)
    gamma = torch.tensor([0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
    together = crra(c, gamma)
    alone = torch.stack([crra(c[i], float(gamma[i])) for i in range(4)])
    torch.testing.assert_close(together, alone, **EXACT)
    assert crra(c[:, None], gamma).shape == (4, 4)


def test_a_tensor_gamma_gives_both_derivatives_also_where_one_of_them_is_one():
    c, gamma = consumption(5), torch.tensor([0.5, 1.0, 1.0 + 1e-6, 2.0, 5.0], dtype=torch.float64)
    slope = torch.func.grad(lambda c: crra(c, gamma).sum())
    first, second = torch.func.jvp(slope, (c,), (torch.ones_like(c),))
    torch.testing.assert_close(first, c**-gamma, rtol=1e-9, atol=0)  # (1 - gamma) of 1e-6 has ten digits
    torch.testing.assert_close(second, -gamma * c ** (-gamma - 1), rtol=1e-9, atol=0)
    by_gamma = torch.func.grad(lambda gamma: crra(c, gamma).sum())(gamma)
    assert by_gamma.isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0, torch.tensor([0.5, 1.0, 3.0])])
def test_negative_consumption_is_never_an_attractive_one(gamma):
    # (-2)^(1-3)/(1-3) is a finite -0.125, above u(1): an actor would run there.
    assert (crra(torch.tensor(-2.0), gamma) == -math.inf).all()


def test_negative_consumption_leaves_the_rest_of_the_batch_its_gradient():
    for gamma in (1.0, 2.0, torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)):
        c = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
        u = crra(c, gamma)
        (gradient,) = torch.autograd.grad(u[1:].sum(), c)
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient[1:], c.detach()[1:] ** -float(gamma), **EXACT)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_marginal_utility_is_the_derivative(gamma):
    c = consumption()
    derivative = torch.func.vmap(torch.func.grad(lambda c: crra(c, gamma)))(c)
    torch.testing.assert_close(derivative, crra_marginal(c, gamma), rtol=1e-13, atol=0)  # two powers instead of one


def test_the_derivative_for_a_tensor_gamma_is_finite_at_one_and_beside_it():
    # The branch not taken, c^0 / 0, must not reach the gradient through `where`.
    c, gamma = consumption(9), torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    derivative = torch.func.grad(lambda c: crra(c, gamma).sum())(c)
    torch.testing.assert_close(derivative, c**-gamma, rtol=1e-13, atol=0)


def test_the_derivative_in_gamma_is_finite_at_one_and_exact_beside_it():
    c = consumption(3)
    gamma = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    derivative = torch.func.grad(lambda g: crra(c, g).sum())(gamma)
    assert derivative.isfinite().all()
    p = 1 - gamma
    expected = (c**p / p * (1 / p - c.log()))[1:]  # of c^p / p, and dp = -dgamma
    torch.testing.assert_close(derivative[1:], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, torch.tensor([0.7, 3.0], dtype=torch.float64)])
def test_the_inverse_of_marginal_utility_returns_consumption(gamma):
    c = consumption()[:, None]
    # A relative error of u' of one unit in the last place is one of 1/gamma units in c.
    torch.testing.assert_close(
        crra_inverse_marginal(crra_marginal(c, gamma), gamma), c.expand(50, 2 if torch.is_tensor(gamma) else 1),
        rtol=1e-13, atol=0,
    )  # fmt: skip


def test_cara_and_its_derivative():
    c = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(cara(c, 2.0), -(torch.e ** (-2.0 * c)) / 2, **EXACT)
    derivative = torch.func.grad(lambda c: cara(c, 2.0).sum())(c)
    torch.testing.assert_close(derivative, torch.exp(-2.0 * c), **EXACT)
    assert (cara(c, torch.tensor([1.0, 2.0]).unsqueeze(-1))).shape == (2, 13)
