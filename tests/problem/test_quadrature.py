"""Quadrature and sampling against moments known in closed form."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import Action, Discrete, LogNormal, MarkovChain, MethodError, Model, Normal, State, Uniform
from econrl.problem.bellman import expected_value
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.spec.shocks import covariance_root

COV = ((0.04, 0.01, 0.0), (0.01, 0.09, -0.02), (0.0, -0.02, 0.01))
SINGULAR = ((1.0, 1.0), (1.0, 1.0))


def moment(rule, f):
    nodes, weights = rule
    return float((weights * f(nodes)).sum())


def normal_moment(p, std=1.0):
    """E[(std z)^p]: zero if odd, else std^p (p - 1)!!."""
    return 0.0 if p % 2 else std**p * math.prod(range(1, p, 2))


def over(*shocks, **settings):
    return Quadrature(**settings).over(shocks)


# Gauss rules


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_gauss_hermite_is_exact_to_degree_2n_minus_1_and_not_beyond(n):
    rule = over(Normal("e", std=0.5), rule="gauss", nodes=n)
    assert rule[0].shape == (n, 1)
    for p in range(2 * n):
        # Sums of n positive terms; the largest moment bounds the rounding.
        assert moment(rule, lambda e, p=p: e[:, 0] ** p) == pytest.approx(normal_moment(p, 0.5), rel=1e-12, abs=1e-13)
    # The error at degree 2n is exactly n! std^(2n).
    gap = normal_moment(2 * n, 0.5) - moment(rule, lambda e: e[:, 0] ** (2 * n))
    assert gap == pytest.approx(math.factorial(n) * 0.5 ** (2 * n), rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_gauss_legendre_is_exact_to_degree_2n_minus_1_and_not_beyond(n):
    rule = over(Uniform("e", low=-1.0, high=2.0), rule="gauss", nodes=n)

    def exact(p):
        return (2.0 ** (p + 1) - (-1.0) ** (p + 1)) / (3 * (p + 1))

    for p in range(2 * n):
        assert moment(rule, lambda e, p=p: e[:, 0] ** p) == pytest.approx(exact(p), rel=1e-13)  # n terms
    assert moment(rule, lambda e: e[:, 0] ** (2 * n)) != pytest.approx(exact(2 * n), rel=1e-4)


def test_normal_takes_a_mean_and_a_vector_of_standard_deviations():
    std, mean = (0.1, 0.4), (1.0, -2.0)
    nodes, weights = over(Normal("e", std=std, mean=mean, size=2), rule="gauss", nodes=3)
    assert nodes.shape == (9, 2)
    first = weights @ nodes
    centred = nodes - first
    np.testing.assert_allclose(first, mean, rtol=1e-14)  # nine terms of size one
    np.testing.assert_allclose((weights[:, None] * centred).T @ centred, np.diag(std) ** 2, atol=1e-15)


@pytest.mark.parametrize("rule", ["gauss", "monomial"])
@pytest.mark.parametrize("cov", [COV, SINGULAR])
def test_normal_has_the_given_covariance(cov, rule):
    nodes, weights = over(Normal("e", cov=cov, mean=0.5), rule=rule, nodes=3)
    assert nodes.shape[1] == len(cov)
    centred = nodes - 0.5
    np.testing.assert_allclose(weights @ centred, 0, atol=1e-14)
    np.testing.assert_allclose((weights[:, None] * centred).T @ centred, cov, rtol=1e-12, atol=1e-14)
    root = covariance_root(cov)
    np.testing.assert_allclose(root @ root.T, cov, rtol=1e-12, atol=1e-14)


def test_lognormal_has_its_mean_and_variance():
    rule = over(LogNormal("e", std=0.2, mean=1.5), rule="gauss", nodes=9)
    # The Hermite rule integrates exp(t z) up to t^(2n) n! / (2n)!: below 1e-14 at t = 0.4, n = 9.
    assert moment(rule, lambda e: e[:, 0]) == pytest.approx(1.5, rel=1e-13)
    variance = 1.5**2 * (math.exp(0.04) - 1)
    assert moment(rule, lambda e: (e[:, 0] - 1.5) ** 2) == pytest.approx(variance, rel=1e-11)
    assert moment(rule, lambda e: e[:, 0].log()) == pytest.approx(math.log(1.5) - 0.02, abs=1e-14)
    vector = over(LogNormal("e", std=(0.1, 0.2), mean=(1.0, 3.0), size=2), rule="gauss", nodes=7)
    np.testing.assert_allclose(vector[1] @ vector[0], (1.0, 3.0), rtol=1e-12)


def test_discrete_is_its_own_support():
    nodes, weights = over(Discrete("e", values=(1.0, 4.0), probabilities=(0.25, 0.75)), rule="monomial")
    assert nodes.tolist() == [[1.0], [4.0]]
    assert weights.tolist() == [0.25, 0.75]
    vector = Discrete("e", values=((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)), probabilities=(0.2, 0.3, 0.5))
    assert vector.size == 2
    nodes, weights = over(vector)
    assert (weights @ nodes).tolist() == pytest.approx([3.6, 4.6], rel=1e-15)
    assert Discrete("e", values=((1.0,), (2.0,)), probabilities=(0.5, 0.5)).size == 1  # given as a vector of one


def test_products_keep_the_columns_in_the_order_of_the_shocks():
    shocks = (
        Discrete("d", values=(10.0, 20.0), probabilities=(0.5, 0.5)),
        Normal("e", cov=((1.0, 0.5), (0.5, 1.0)), mean=(100.0, 200.0)),
        Uniform("u", low=1000.0, high=2000.0),
        Discrete("f", values=(-1.0, -3.0), probabilities=(0.9, 0.1)),
    )
    for rule in ("gauss", "monomial", "sobol"):
        nodes, weights = over(*shocks, rule=rule, nodes=3, points=1024)
        # Sobol and the uniform's monomial nodes are approximate; the columns' levels tell them apart at 2%.
        np.testing.assert_allclose(weights @ nodes, (15.0, 100.0, 200.0, 1500.0, -1.2), rtol=0.02)
        assert float(weights.sum()) == pytest.approx(1, rel=1e-12)
        # Independent across shocks, dependent within one.
        centred = nodes - weights @ nodes
        covariance = (weights[:, None] * centred).T @ centred
        assert covariance[1, 2] == pytest.approx(0.5, abs=0.02)  # 1024 Sobol points integrate a product to 1e-3
        assert covariance[0, 1] == pytest.approx(0, abs=1e-10)  # a tensor product: zero up to rounding of 15 * 100
    nodes, weights = over(*shocks, rule="gauss", nodes=3)
    assert nodes.shape == (2 * 9 * 3 * 2, 5)


def test_without_shocks_there_is_one_certain_node():
    nodes, weights = over()
    assert nodes.shape == (1, 0)
    assert weights.tolist() == [1.0]


# Other rules


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_monomial_is_exact_to_degree_three_and_not_to_four(k):
    nodes, weights = over(Normal("e", size=k), rule="monomial")
    assert nodes.shape == (2 * k, k)
    generator = torch.Generator().manual_seed(k)
    for _ in range(3):
        b, c, d = (torch.randn(k, generator=generator, dtype=torch.float64) for _ in range(3))

        def polynomial(e, b=b, c=c, d=d):
            return 1 + e @ b + (e @ b) * (e @ c) + (e @ b) * (e @ c) * (e @ d)

        # Odd moments vanish, E[(b.e)(c.e)] = b.c; sums of up to 40 terms of size k^(3/2).
        assert moment((nodes, weights), polynomial) == pytest.approx(float(1 + b @ c), rel=1e-11, abs=1e-12)
    # E[z^4] = 3, while the rule says k: right for k = 3 only, and wrong for a cross moment, E[z1^2 z2^2] = 1, always.
    assert moment((nodes, weights), lambda e: e[:, 0] ** 4) == pytest.approx(k, rel=1e-12)
    if k > 1:
        assert moment((nodes, weights), lambda e: e[:, 0] ** 2 * e[:, 1] ** 2) == pytest.approx(0, abs=1e-15)


def test_sobol_converges_faster_than_sampling():
    shock = Normal("e", std=0.3, size=4)
    exact = math.exp(4 * 0.09 / 2)  # E[exp(sum e)]

    def error(points):
        return abs(moment(over(shock, rule="sobol", points=points), lambda e: e.sum(-1).exp()) - exact)

    # Sampling has a standard error of 0.79 / sqrt(n): 0.049 at 256, 0.0061 at 16384. A scrambled net is below a
    # quarter of it at both, and gains more than the eightfold of sampling.
    assert error(256) < 0.012
    assert error(16384) < 0.0015
    assert error(16384) < error(256) / 8


def test_sobol_is_the_same_every_time():
    first, second = (over(Normal("e", size=3), rule="sobol", points=64)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_auto_takes_as_many_gauss_nodes_as_are_not_too_many_and_monomial_where_three_are():
    def count(shocks, nodes):
        return len(over(*shocks, nodes=nodes)[0])

    assert count([Normal("e", size=2)], 5) == 25
    assert count([Normal("e", size=3)], 5) == 125
    assert count([Normal("e", size=3)], 9) == 125  # more nodes asked for never give a coarser rule
    assert count([Normal("e", size=4)], 5) == 81  # 625 nodes would be too many, and 256
    assert count([Normal("e", size=5)], 5) == 10  # 243 would be
    assert count([Normal("e", size=1)], 300) == 300  # one dimension is never too many
    coin = Discrete("d", values=(0.0, 1.0), probabilities=(0.5, 0.5))
    assert count([Normal("e", size=3), coin], 5) == 128  # 250 with the support
    wide = Discrete("d", values=tuple(range(500)), probabilities=(0.002,) * 500)
    assert count([wide], 5) == 500  # discrete shocks are always exact
    assert count([Uniform("u", size=5)], 5) == 10


def test_a_rule_too_large_is_refused_with_a_way_out():
    with pytest.raises(MethodError, match=r"gauss rule over 10 continuous shocks needs 9,765,625 nodes.*monomial"):
        over(Normal("e", size=10), rule="gauss")
    coins = [Discrete(f"d{i}", values=(0.0, 1.0), probabilities=(0.5, 0.5)) for i in range(17)]
    with pytest.raises(MethodError, match="262,144"):
        over(Normal("e"), *coins, rule="monomial")
    with pytest.raises(MethodError, match="unknown quadrature rule 'simpson'; there are: auto, gauss"):
        over(Normal("e"), rule="simpson")


# Markov chains


@dataclass(frozen=True, kw_only=True)
class TwoChains(Model):
    """Two chains and a coin; the next state is what happened."""

    beta: float = 0.9

    P = ((0.7, 0.2, 0.1), (0.0, 0.5, 0.5), (0.3, 0.3, 0.4))
    Q = ((0.6, 0.4), (0.1, 0.9))

    def states(self):
        return (
            State("x", low=0.0, high=1.0),
            MarkovChain("y", values=(1.0, 10.0, 100.0), P=self.P),
            MarkovChain("z", values=(2.0, 3.0), P=self.Q),
        )

    def actions(self):
        return Action("a", low=0.0, high=1.0)

    def shocks(self):
        return Discrete("coin", values=(0.0, 1.0), probabilities=(0.2, 0.8))

    def reward(self, s, a):
        return s.x + a.a

    def transition(self, s, a, e):
        return {"x": 0.5 * s.x + e.coin}


def every_pair():
    pairs = [(i, j) for i in range(3) for j in range(2)]
    return pairs, torch.tensor([[0.4, i, j] for i, j in pairs], dtype=torch.float64)


def test_the_expectation_over_markov_chains_is_exact_and_depends_on_the_state():
    mdp = MDP(TwoChains())
    pairs, s = every_pair()
    weights = mdp.weights(s)
    assert weights.shape == (6, 12)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-14)

    def value(s):
        view = mdp.state(s)
        return view.x * view.y * view.z

    found = expected_value(mdp, value, s, torch.zeros(6, 1, 1, dtype=torch.float64))
    y, z = np.array([1.0, 10.0, 100.0]), np.array([2.0, 3.0])
    expected = [0.9 * (0.2 + 0.8) * (np.array(TwoChains.P[i]) @ y) * (np.array(TwoChains.Q[j]) @ z) for i, j in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-13)  # twelve terms


def test_sampled_chains_have_their_transition_probabilities():
    mdp = MDP(TwoChains())
    pairs, s = every_pair()
    n = 40_000
    e = mdp.sample_shocks(s.expand(n, 6, 3), torch.Generator().manual_seed(0))
    assert e.shape == (n, 6, 3)
    following = mdp.transition(s, torch.zeros(6, 1, dtype=torch.float64), e)
    for row, (i, j) in enumerate(pairs):
        for now, column, P, size in ((i, 1, TwoChains.P, 3), (j, 2, TwoChains.Q, 2)):
            for k in range(size):
                p = P[now][k]
                share = float((following[:, row, column] == k).double().mean())
                assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / n)  # zero where p is zero


# Sampling

N = 200_000


@pytest.mark.parametrize(
    ("shock", "mean", "std"),
    [
        (Normal("e", std=0.3, mean=1.0), (1.0,), (0.3,)),
        (Normal("e", std=(0.1, 2.0), size=2), (0.0, 0.0), (0.1, 2.0)),
        (Normal("e", cov=COV), (0.0,) * 3, tuple(np.sqrt(np.diag(COV)))),
        (LogNormal("e", std=0.4, mean=2.0), (2.0,), (2 * math.sqrt(math.expm1(0.16)),)),
        (Uniform("e", low=-1.0, high=5.0), (2.0,), (6 / math.sqrt(12),)),
        (Discrete("e", values=(0.0, 1.0), probabilities=(0.1, 0.9)), (0.9,), (0.3,)),
        (Discrete("e", values=((0.0, 1.0), (2.0, 5.0)), probabilities=(0.5, 0.5)), (1.0, 3.0), (1.0, 2.0)),
    ],
)
def test_samples_have_the_moments_of_their_distribution(shock, mean, std):
    draw = shock.sample((N,), torch.Generator().manual_seed(1))
    assert draw.shape == (N, shock.width)
    assert torch.equal(draw, shock.sample((N,), torch.Generator().manual_seed(1)))
    mean, std = np.array(mean), np.array(std)
    errors = std / math.sqrt(N)
    assert (abs(draw.mean(0).numpy() - mean) < 4 * errors).all()  # four standard errors
    fourth = ((draw - draw.mean(0)) ** 4).mean(0).numpy()
    error_of_variance = np.sqrt(np.maximum(fourth - std**4, 0) / N)
    # A fair coin's variance has no error of first order; 1e-4 is above what is left.
    assert (abs(draw.var(0).numpy() - std**2) < 4 * error_of_variance + 1e-4 * std**2).all()


def test_samples_of_a_vector_are_correlated_as_asked_and_paths_are_not():
    draw = Normal("e", cov=COV).sample((N,), torch.Generator().manual_seed(2)).numpy()
    scale = np.sqrt(np.outer(np.diag(COV), np.diag(COV)))
    assert (abs(np.cov(draw.T) - COV) < 4 * math.sqrt(2) * scale / math.sqrt(N)).all()  # sd of a product is < sqrt 2
    across = (draw[1:, 0] * draw[:-1, 0]).mean() / COV[0][0]
    assert abs(across) < 4 / math.sqrt(N)


def test_a_probability_of_zero_is_never_drawn():
    shock = Discrete("e", values=(0.0, 1.0, 2.0), probabilities=(0.0, 1.0, 0.0))
    assert (shock.sample((1000,), torch.Generator().manual_seed(0)) == 1).all()


@pytest.mark.parametrize(
    "shock", [Normal("e", cov=COV), LogNormal("e", std=0.2), Uniform("e", low=2.0, high=3.0), Normal("e", std=0.5)]
)
def test_samples_and_nodes_agree(shock):
    nodes, weights = over(shock, rule="gauss", nodes=5)
    draw = shock.sample((N,), torch.Generator().manual_seed(3))
    for f in (lambda e: e.sum(-1), lambda e: (e.sum(-1) / 2).exp(), lambda e: e[:, 0] ** 2):
        spread = float(f(draw).std()) / math.sqrt(N)
        assert abs(float(f(draw).mean()) - moment((nodes, weights), f)) < 4 * spread
