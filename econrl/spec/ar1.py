"""An AR(1), x' = rho x + sigma eps with eps standard normal, as a Markov chain on n values.

They are a few lines each, and quantecon, which has them too, takes two seconds to be imported: its chains are what
tests compare these with.
"""

from __future__ import annotations

import math

import numpy as np

from econrl.errors import SpecError
from econrl.spec.soundness import is_count, is_finite_number

Chain = tuple[np.ndarray, np.ndarray]
"""The values of x (n,), around zero, and the transition matrix P (n, n)."""


def rouwenhorst(n: int, rho: float, sigma: float) -> Chain:
    """Row i of P is the distribution of heads among i coins that show heads with probability q = (1 + rho) / 2 and
    n - 1 - i that show heads with 1 - q. Persistence and variance are exact.

    Source: Rouwenhorst (1995); Kopecky and Suen (2010), Review of Economic Dynamics 13.
    """
    q = (1 + rho) / 2
    P = np.array([np.convolve(heads(i, q), heads(n - 1 - i, 1 - q)) for i in range(n)])
    return sigma / math.sqrt(1 - rho**2) * math.sqrt(n - 1) * np.linspace(-1, 1, n), P


def heads(coins: int, q: float) -> np.ndarray:
    """The probabilities (coins + 1,) of 0, 1, ... heads."""
    return np.array([math.comb(coins, k) * q**k * (1 - q) ** (coins - k) for k in range(coins + 1)])


def tauchen(n: int, rho: float, sigma: float, width: float) -> Chain:
    """Values at equal distances, up to `width` standard deviations of x; x' goes to the one that it is nearest to.

    Source: Tauchen (1986), Economics Letters 20.
    """
    x = width * sigma / math.sqrt(1 - rho**2) * np.linspace(-1, 1, n)
    between = (x[:-1] + x[1:]) / 2
    z = (between - rho * x[:, None]) / (sigma * math.sqrt(2))
    below = np.vectorize(lambda z: math.erfc(-z) / 2)(z)
    edge = np.ones((n, 1))
    return x, np.diff(np.hstack([0 * edge, below, edge]), axis=1)


def in_levels(x: np.ndarray, P: np.ndarray, mean: float) -> np.ndarray:
    """exp(x) (n,), scaled to this mean in the long run."""
    levels = np.exp(x)
    return mean * levels / (stationary(P) @ levels)


def stationary(P: np.ndarray) -> np.ndarray:
    """The probabilities pi (n,) with pi P = pi, by elimination without subtractions: exact to rounding however
    unlikely a value is.

    Source: Grassmann, Taksar and Heyman (1985), Operations Research 33.
    """
    A, n = P.copy(), len(P)
    for k in range(n - 1, 0, -1):
        A[:k, k] /= A[k, :k].sum()
        A[:k, :k] += np.outer(A[:k, k], A[k, :k])
    pi = np.ones(n)
    for k in range(1, n):
        pi[k] = pi[:k] @ A[:k, k]
    return pi / pi.sum()


def check_ar1(title: str, rho: float, sigma: float, n: int, mean: float, logs: bool, width: float) -> None:
    """Raises SpecError for numbers that make no chain."""
    if not is_finite_number(rho) or not abs(rho) < 1:
        raise SpecError(f"{title} has rho = {rho!r}; the persistence must be a number between -1 and 1")
    if not is_finite_number(sigma) or not sigma > 0:
        raise SpecError(f"{title} has sigma = {sigma!r}; the standard deviation of the innovation must be positive")
    if not is_count(n) or n < 2:
        raise SpecError(f"{title} has n = {n!r}; a chain needs a whole number of values, 2 or more")
    if not is_finite_number(mean) or not (logs or mean > 0):
        raise SpecError(f"{title} has mean = {mean!r}; it must be a number, and positive for values in levels")
    if not is_finite_number(width) or not width > 0:
        raise SpecError(f"{title} has width = {width!r}; it must be a positive number of standard deviations")
