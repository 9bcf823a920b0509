"""Certainty equivalents and aggregators against the formulas that they stand for, in plain powers and exponentials."""

import math

import numpy as np
import pytest
import torch

from econrl.errors import SpecError
from econrl.utility import ADDITIVE, EpsteinZin, Recursive, RiskSensitive

V = torch.tensor([[0.8, 1.0, 1.3], [2.0, 1.5, 1.9]], dtype=torch.float64)  # two states, three nodes
W = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
BETA = torch.tensor(0.95, dtype=torch.float64)
C = torch.tensor([0.7, 1.4], dtype=torch.float64)


def powers(psi, gamma, c, v, beta=0.95, weight=0.05):
    """V of Epstein and Zin in levels, by numpy."""
    c, v, w = c.numpy(), v.numpy(), W.numpy()
    m = np.exp((w * np.log(v)).sum(-1)) if gamma == 1 else (w * v ** (1 - gamma)).sum(-1) ** (1 / (1 - gamma))
    if psi == 1:
        return c**weight * m**beta
    rho = 1 - 1 / psi
    return (weight * c**rho + beta * m**rho) ** (1 / rho)


def value(preferences, c, V, beta=BETA):
    """V in levels of today's reward and tomorrow's V, by what solvers do."""
    m = preferences.certainty(preferences.held(V), W, beta)
    return preferences.shown(preferences.aggregate(preferences.felicity(c), m))


CASES = [(psi, gamma) for psi in (0.2, 0.5, 1.0, 1.5, 3.0) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0, 40.0)]


@pytest.mark.parametrize(("psi", "gamma"), CASES)
def test_epstein_zin_is_its_formula(psi, gamma):
    preferences = EpsteinZin(psi, gamma, weight=0.05)
    found = value(preferences, C, V)
    assert torch.allclose(found, torch.as_tensor(powers(psi, gamma, C, V)), rtol=1e-12)


@pytest.mark.parametrize("gamma", [100.0, 1000.0])
@pytest.mark.parametrize("psi", [0.5, 1.0, 1.5])
def test_no_risk_aversion_overflows(psi, gamma):
    """In the limit the worst node decides: the certainty equivalent is near min V (0.3 per cent at 1000)."""
    preferences = EpsteinZin(psi, gamma, weight=0.05)
    scaled = 1e-5 * V  # V^(1 - gamma) is 10^500, and more, in levels
    m = preferences.shown(preferences.certainty(preferences.held(scaled), W, torch.ones_like(BETA)))
    assert torch.allclose(m, scaled.amin(dim=-1), rtol=3 / gamma)


def test_psi_near_one_has_the_limit():
    exact = EpsteinZin(1.0, 5.0, weight=0.05)
    for psi in (1 - 1e-6, 1 + 1e-6):
        assert torch.allclose(value(EpsteinZin(psi, 5.0, weight=0.05), C, V), value(exact, C, V), rtol=1e-5)


def test_gamma_near_one_and_near_the_additive_case_have_the_limits():
    for psi, gamma in ((0.5, 1.0), (0.5, 2.0), (1.0, 1.0)):
        exact = value(EpsteinZin(psi, gamma, weight=0.05), C, V)
        for near in (gamma - 1e-7, gamma + 1e-7):
            assert torch.allclose(value(EpsteinZin(psi, near, weight=0.05), C, V), exact, rtol=1e-7)


def test_psi_of_one_over_gamma_is_additive_to_the_last_digit():
    """0.95 v' is summed as by additive utility, also where 1/psi is rounded, 1/(1/49) != 49."""
    for gamma in (2.0, 3.0, 49.0):
        preferences = EpsteinZin(1 / gamma, gamma, weight=0.05)
        assert preferences.additive
        assert torch.equal(preferences.certainty(-V, W, BETA), ADDITIVE.certainty(-V, W, BETA))
        assert torch.equal(preferences.felicity(C), C ** (1 - gamma) / (1 - gamma))


def test_a_discount_factor_that_varies_multiplies_the_power_within_the_expectation():
    """V' per unit of what grows by g: (E (g V')^(1-gamma))^(1/(1-gamma)), with beta g^rho as the discount factor."""
    psi, gamma = 0.5, 5.0
    g = torch.tensor([0.9, 1.0, 1.2], dtype=torch.float64)
    preferences = EpsteinZin(psi, gamma, weight=0.05)
    found = value(preferences, C, V, beta=BETA * g**preferences.rho)
    assert torch.allclose(found, torch.as_tensor(powers(psi, gamma, C, g * V)), rtol=1e-12)


ALL = [
    ADDITIVE,
    EpsteinZin(0.5, 5.0, weight=0.05),
    EpsteinZin(1.0, 5.0, weight=0.05),
    EpsteinZin(1.5, 1.0, weight=0.05),
    EpsteinZin(1.5, 10.0, weight=0.05),
    RiskSensitive(2.0),
    RiskSensitive(1e-6),
    Recursive(W=lambda r, m: r**0.1 * m**0.9, phi=lambda v: -(v**-3), inverse=lambda x: (-x) ** (-1 / 3)),
    Recursive(W=lambda r, m: r**0.5 + 0.9 * m),
]


@pytest.mark.parametrize("preferences", ALL, ids=lambda p: p.text())
def test_slopes_are_the_derivatives(preferences):
    v, u = preferences.held(V), preferences.felicity(C)
    by_node = torch.func.grad(lambda v: preferences.certainty(v, W, BETA).sum())(v)
    m = preferences.certainty(v, W, BETA)
    assert torch.allclose(W * preferences.tilt(v, m.unsqueeze(-1), BETA), by_node, rtol=1e-10)
    slopes = torch.func.grad(lambda u, m: preferences.aggregate(u, m).sum(), argnums=(0, 1))(u, m)
    for found, exact in zip(preferences.slopes(u, m), slopes, strict=True):
        assert torch.allclose(found, exact)
    assert torch.allclose(preferences.marginal(u, preferences.aggregate(u, m)), slopes[0], rtol=1e-9)
    assert torch.allclose(preferences.shown(v), V)


def test_risk_sensitive_utility_is_its_formula():
    m = RiskSensitive(2.0).certainty(V, W, BETA)
    exact = -0.95 / 2 * np.log((W.numpy() * np.exp(-2 * V.numpy())).sum(-1))
    assert np.allclose(m.numpy(), exact, rtol=1e-13)
    assert torch.isfinite(RiskSensitive(1e4).certainty(1e3 * V, W, BETA)).all()


def test_values_of_the_wrong_sign_count_as_nothing_and_are_no_nan():
    """As a network's may be before it has learned: m falls, and its derivative is finite."""
    wrong = torch.tensor([[-0.5, 0.2, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for preferences in (EpsteinZin(0.5, 5.0, weight=0.05), EpsteinZin(1.5, 10.0, weight=0.05)):
        slope = torch.func.grad(lambda v: preferences.certainty(v, W, BETA).sum())(wrong)  # noqa: B023
        assert preferences.certainty(wrong, W, BETA).isfinite().all()
        assert slope.isfinite().all()


def test_nothing_follows_where_the_terminal_value_is_zero():
    for preferences in (EpsteinZin(0.5, 5.0, weight=0.05), EpsteinZin(1.0, 5.0, weight=0.05)):
        held = preferences.held(torch.zeros(1, 3, dtype=torch.float64))
        assert preferences.certainty(held, W, BETA).item() == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: EpsteinZin(0.0, 2.0), "ies must be positive"),
        (lambda: EpsteinZin(0.5, -1.0), "risk_aversion must be at least 0"),
        (lambda: EpsteinZin(0.5, math.nan), "risk_aversion must be a finite number"),
        (lambda: EpsteinZin(0.5, "two"), "risk_aversion must be a number"),
        (lambda: EpsteinZin(0.5, 2.0, weight=-0.1), "weight must be positive"),
        (lambda: RiskSensitive(math.inf), "theta must be a finite number"),
        (lambda: Recursive(W=lambda r, m: r + m, phi=torch.log), "both phi and its inverse"),
        (lambda: Recursive(W=3.0), "W must be a function"),
    ],
)
def test_bad_parameters_are_one_clear_line(wrong, says):
    with pytest.raises(SpecError, match=says):
        wrong()
