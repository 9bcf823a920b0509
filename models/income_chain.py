"""A household's income as a Markov chain."""

import math

import numpy as np
from scipy.stats import binom


def rouwenhorst(n: int, rho: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Levels (n,) of mean one and the transition matrix (n, n) of a chain for ln y' = rho ln y + N(0, sigma^2).

    Row i of P is the distribution of heads among i coins that show heads with probability q = (1 + rho) / 2 and
    n - 1 - i that show heads with 1 - q. Persistence and variance are exact.

    Source: Rouwenhorst (1995); Kopecky and Suen (2010), Review of Economic Dynamics 13.
    """
    q, coins = (1 + rho) / 2, np.arange(n)
    P = np.array([np.convolve(binom.pmf(range(i + 1), i, q), binom.pmf(range(n - i), n - 1 - i, 1 - q)) for i in coins])
    levels = np.exp(sigma / math.sqrt(1 - rho**2) * math.sqrt(n - 1) * np.linspace(-1, 1, n))
    return levels / (binom.pmf(coins, n - 1, 0.5) @ levels), P
