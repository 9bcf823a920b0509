"""Right answers to the models of `verdict_models.py`: closed forms, endogenous grids and brute force, in numpy.

Each takes a model, of which it reads the parameters alone, and `fine`, by which its grids are multiplied; it gives a
function of states by name (arrays, and t for a life) to the optimal actions by name. No code of the library is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline, RectBivariateSpline

Array = np.ndarray
Points = dict[str, Array]
Answer = Callable[[Points], Points]


# Tools


def normal(n: int) -> tuple[Array, Array]:
    """Gauss-Hermite nodes and weights of a standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / w.sum()


def lognormal(std: float, mean: float, n: int) -> tuple[Array, Array]:
    x, w = normal(n)
    return mean * np.exp(std * x - std**2 / 2), w


def golden(f: Callable[[Array], Array], low: Array, high: Array, steps: int = 44) -> Array:
    """Where the concave f is largest between low and high, elementwise, by golden sections."""
    g = (np.sqrt(5) - 1) / 2
    a, b = np.array(low, dtype=float), np.array(high, dtype=float)
    x, y = b - g * (b - a), a + g * (b - a)
    fx, fy = f(x), f(y)
    for _ in range(steps):
        left = fx >= fy
        a, b = np.where(left, a, x), np.where(left, y, b)
        new = np.where(left, b - g * (b - a), a + g * (b - a))
        value = f(new)
        x, y = np.where(left, new, y), np.where(left, x, new)
        fx, fy = np.where(left, value, fy), np.where(left, fx, value)
    return (a + b) / 2


def bisect(f: Callable[[Array], Array], low: Array, high: Array, steps: int = 60) -> Array:
    """The zero of the decreasing f between low and high, elementwise; the bound where it has one sign."""
    low, high = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
    for _ in range(steps):
        middle = (low + high) / 2
        above = f(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def line(x: Array, grid: Array, values: Array) -> Array:
    """Linear interpolation, and linear extrapolation above the grid."""
    slope = (values[-1] - values[-2]) / (grid[-1] - grid[-2])
    return np.where(x > grid[-1], values[-1] + slope * (x - grid[-1]), np.interp(x, grid, values))


def spread(low: float, high: float, n: int) -> Array:
    """A grid that is dense near its low end."""
    return low + (high - low) * np.linspace(0, 1, n) ** 3


def policy_iteration(bellman: Callable[..., Array], maximise: Callable[..., Any], W: Any, fit: Any, tol: float) -> Any:
    """V = max bellman(W, actions) on a grid, W = fit(V): improvements of the policy with 30 evaluations after each."""
    before = None
    for _ in range(200):
        actions = maximise(W)
        for _ in range(30):
            V = bellman(W, *actions)
            W = fit(V)
        if before is not None and max(np.abs(a - b).max() for a, b in zip(actions, before, strict=True)) < tol:
            return W
        before = actions
    raise RuntimeError("no fixed point in 200 improvements")


def utility(c: Array, gamma: float) -> Array:
    return np.log(c) if gamma == 1 else c ** (1 - gamma) / (1 - gamma)


def equivalent(v: Array, gamma: float) -> Array:
    """The consumption that gives the utility v: a unit in which values are nearly linear."""
    return np.exp(v) if gamma == 1 else ((1 - gamma) * v) ** (1 / (1 - gamma))


# A household with hours, by the endogenous grid


def household_hours(m: Any, fine: int = 1) -> Answer:
    """u'(c) = beta (1 + r) E u'(c'), psi n^(1/phi) = w e u'(c), n at most 1; bisection at the debt limit."""
    e, P = np.array((0.5, 1.0, 1.6)), np.array(m.states()[1].P)
    kept = spread(-m.debt, 45.0, 400 * fine)

    def hours(c: Array, wage: Array) -> Array:
        return np.minimum((wage * c**-m.gamma / m.psi) ** m.phi, 1.0)

    def limit(b: Array, wage: float) -> Array:
        """Consumption of those who borrow all they can."""
        own = (1 + m.r) * b + m.debt
        return bisect(lambda c: own + wage * hours(c, wage) - c, 1e-9, own + wage)

    b = np.tile(kept, (3, 1))
    c = np.stack([m.r * kept + 0.3 + 0.5 * m.debt + 0 * kept for _ in e])
    for _ in range(3000):
        tomorrow = np.stack([consumption(kept, b[j], c[j], limit, m.w * e[j]) for j in range(3)])
        new = (m.beta * (1 + m.r) * P @ tomorrow**-m.gamma) ** (-1 / m.gamma)
        b = (kept + new - m.w * e[:, None] * hours(new, m.w * e[:, None])) / (1 + m.r)
        change, c = np.abs(new - c).max(), new
        if change < 1e-11:
            break

    def answer(points: Points) -> Points:
        found = np.empty_like(points["b"])
        for j in range(3):
            here = np.isclose(points["e"], e[j])
            found[here] = consumption(points["b"][here], b[j], c[j], limit, m.w * e[j])
        return {"n": hours(found, m.w * points["e"]), "c": found}

    return answer


def consumption(at: Array, b: Array, c: Array, limit: Callable[..., Array], wage: float) -> Array:
    """Off the endogenous grid (b, c), and at the limit below it."""
    return np.where(at < b[0], limit(np.minimum(at, b[0]), wage), line(at, b, c))


def labour(m: Any, fine: int = 1) -> Answer:
    """u = ((1-l) c)^(1-rho)/(1-rho): c = w (1 - l) while l > 0, so u_c is a power of c on either side of c = w."""
    w, P = np.array(m.wages), np.array([[m.stay, 1 - m.stay], [1 - m.stay, m.stay]])
    kept = spread(0.0, 90.0, 600 * fine)
    W = w[:, None]

    def marginal(c: Array, wage: Array) -> Array:
        return np.where(c < wage, (c / wage) ** (1 - m.rho), 1.0) * c**-m.rho

    def inverse(x: Array, wage: Array) -> Array:
        inside = (x * wage ** (1 - m.rho)) ** (1 / (1 - 2 * m.rho))
        return np.where(inside < wage, inside, x ** (-1 / m.rho))

    def limit(b: Array, wage: float) -> Array:
        return np.where(b < wage, (b + wage) / 2, b)

    b, c = np.tile(kept, (2, 1)), np.tile(0.05 * kept + 0.3, (2, 1))
    for _ in range(3000):
        tomorrow = np.stack([consumption(m.R * kept, b[j], c[j], limit, w[j]) for j in range(2)])
        new = inverse(m.beta * m.R * P @ marginal(tomorrow, W), W)
        b = kept + new - np.maximum(W - new, 0)
        change, c = np.abs(new - c).max(), new
        if change < 1e-11:
            break

    def answer(points: Points) -> Points:
        found = np.empty_like(points["b"])
        for j in range(2):
            here = np.isclose(points["w"], w[j])
            found[here] = consumption(points["b"][here], b[j], c[j], limit, w[j])
        return {"l": np.maximum(1 - found / points["w"], 0), "c": found}

    return answer


def kinked_rate(m: Any, fine: int = 1) -> Answer:
    """The endogenous grid with two points at zero savings, one for either rate."""
    y, p = np.array(m.values), np.array(m.probabilities)
    debts = -m.debt * np.linspace(1, 0, 200 * fine) ** 2
    kept = np.concatenate([debts, spread(0.0, 20.0, 500 * fine)])
    R = np.where(np.arange(len(kept)) < len(debts), m.R_borrow, m.R_save)
    M, c = kept + 1, 0.5 * (kept + 1)
    for _ in range(3000):
        M, c = np.concatenate([[-m.debt], M]), np.concatenate([[1e-12], c])
        tomorrow = line((R * kept)[:, None] + y, M, c)
        new = (m.beta * R * (tomorrow**-m.gamma @ p)) ** (-1 / m.gamma)
        change, c, M = np.abs(new - c[1:]).max(), new, kept + new
        if change < 1e-11:
            break
    M, c = np.concatenate([[-m.debt], M]), np.concatenate([[1e-12], c])
    return lambda points: {"c": line(points["m"], M, c)}


# Lives, by the endogenous grid


def bequests(m: Any, fine: int = 1) -> Answer:
    """u'(c) = beta R (s_t E u'(c') + (1 - s_t) theta (R k + luxury)^-gamma), backwards from the last age."""
    y, p = lognormal(m.sigma, 1.0, 41)
    kept = spread(0.0, 40.0, 500 * fine)
    heirs = m.theta * (m.R * kept + m.luxury) ** -m.gamma
    ages: list[Any] = [None] * m.horizon
    for t in reversed(range(m.horizon)):
        s, tomorrow = m.survival[t], np.zeros_like(kept)
        if t + 1 < m.horizon:
            income = m.income[t + 1] * (y if t + 1 < m.retired else np.ones_like(y))
            tomorrow = line((m.R * kept)[:, None] + income, *ages[t + 1]) ** -m.gamma @ p
        c = (m.beta * m.R * (s * tomorrow + (1 - s) * heirs)) ** (-1 / m.gamma)
        ages[t] = np.append(0.0, kept + c), np.append(0.0, c)
    return lambda points: {"c": by_age(points, "m", ages)}


def by_age(points: Points, name: str, ages: list[Any]) -> Array:
    found = np.empty_like(points[name])
    for t, table in enumerate(ages):
        here = points["t"] == t
        found[here] = line(points[name][here], *table)
    return found


def portfolio(m: Any, nodes: tuple[Array, Array, Array], survival: Any, gamma: float, fine: int = 1) -> Answer:
    """Returns, incomes and probabilities in `nodes`. The share by bisection on E (R - safe) u'(c') at each amount kept,
    then the endogenous grid; the value after the last age is u(m)."""
    R, y, p = nodes
    kept = np.append(1e-8, spread(0.0, 30.0, 300 * fine)[1:])
    tables = [(np.array([0.0, 100.0]), np.array([0.0, 100.0]))] * (m.horizon + 1)

    def marginal(k: Array, share: Array, table: Any) -> Array:
        cash = k[:, None] * (m.safe + share[:, None] * (R - m.safe)) + y
        return line(cash, *table) ** -gamma

    def best(k: Array, table: Any) -> Array:
        def slope(share: Array) -> Array:
            return marginal(k, share, table) @ (p * (R - m.safe))

        share = bisect(slope, 0 * k, 1 + 0 * k, 40)
        return np.where(slope(0 * k) <= 0, 0.0, np.where(slope(1 + 0 * k) >= 0, 1.0, share))

    for t in reversed(range(m.horizon)):
        share = best(kept, tables[t + 1])
        earned = (marginal(kept, share, tables[t + 1]) * (m.safe + share[:, None] * (R - m.safe))) @ p
        c = (m.beta * survival[t] * earned) ** (-1 / gamma)
        tables[t] = np.append(0.0, kept + c), np.append(0.0, c)

    def answer(points: Points) -> Points:
        c, share = by_age(points, "m", tables[:-1]), np.empty_like(points["m"])
        for t in range(m.horizon):
            here = points["t"] == t
            share[here] = best(np.maximum(points["m"] - c, 1e-8)[here], tables[t + 1])
        saves = points["m"] - c > 0.01 * points["m"]  # else the share is of nothing, and any is right
        return {"c": c, "share": np.where(saves, share, np.nan)}

    return answer


def low_premium(m: Any, fine: int = 1) -> Answer:
    R, p = lognormal(m.sigma, m.mean, 31)
    xi, q = lognormal(m.sigma_y, 1.0, 11)
    income = (R**m.exposure)[:, None] * xi
    nodes = np.repeat(R, len(xi)), income.ravel(), np.outer(p, q).ravel()
    return portfolio(m, nodes, np.ones(m.horizon), m.gamma, fine)


def ages(m: Any, fine: int = 1) -> Answer:
    R, p = lognormal(m.sigma, m.mean, 41)
    return portfolio(m, (R, np.full_like(R, m.pension), p), m.survival, 1.0, fine)


def zero_income(m: Any, fine: int = 1) -> Answer:
    """The endogenous grid; the value on a grid of its own, as the consumption that is worth as much."""
    half = (1 - m.p) / 2
    working = np.array([0.0, 0.8, 1.2]), np.array([m.p, half, half])
    kept = np.append(np.geomspace(1e-9, 1e-3, 100 * fine), 1e-3 + spread(0, 30, 500 * fine)[1:])
    cash = np.append(np.geomspace(1e-9, 1e-3, 100 * fine), 1e-3 + spread(0, 30, 1000 * fine)[1:])
    ages = [(np.array([0.0, 100.0]), np.array([0.0, 100.0]))] * m.horizon
    worth = [(np.append(0.0, cash), np.append(0.0, cash))] * m.horizon
    for t in reversed(range(m.horizon - 1)):
        y, p = (np.array([m.pension]), np.ones(1)) if t + 1 >= m.retire else working
        tomorrow = line((m.R * kept)[:, None] + y, *ages[t + 1])
        c = (m.beta * m.R * (tomorrow**-m.gamma @ p)) ** (-1 / m.gamma)
        ages[t] = np.append(0.0, kept + c), np.append(0.0, c)
        c = line(cash, *ages[t])
        later = utility(line((m.R * np.maximum(cash - c, 0))[:, None] + y, *worth[t + 1]), m.gamma) @ p
        worth[t] = np.append(0.0, cash), np.append(0.0, equivalent(utility(c, m.gamma) + m.beta * later, m.gamma))
    return lambda points: {
        "c": by_age(points, "m", ages),
        "value": utility(by_age(points, "m", worth), m.gamma),
    }


# Two states or one, by brute force: the value on a dense grid, splines between, golden sections for the action


def habits(m: Any, fine: int = 1, additive: bool = False) -> Answer:
    """Max over c of u(c, h) + beta E V(R (m - c) + y, h'), the value as a certainty equivalent."""
    shock = m.shocks()
    y, p = np.array(shock.values), np.array(shock.probabilities)
    grid = 0.5 + spread(0.0, 16.0, 90 * fine), np.linspace(0.25, 3.2, 24 * fine)
    if additive:
        grid = 0.69 + spread(0.0, 16.0, 90 * fine), np.linspace(0.3, 1.7, 24 * fine)
    M, H = (g.ravel() for g in np.meshgrid(*grid, indexing="ij"))

    def bellman(W: Any, c: Array, M: Array = M, H: Array = H) -> Array:
        later = sum(
            q * utility(W(m.R * (M - c) + z, (1 - m.lam) * H + m.lam * c), m.gamma) for z, q in zip(y, p, strict=True)
        )
        now = utility(c - m.eta * H, m.gamma) if additive else utility(c / H**m.eta, m.gamma)
        return now + m.beta * later

    def best(W: Any, M: Array = M, H: Array = H) -> tuple[Array]:
        low = m.eta * H + 1e-6 if additive else 1e-6 + 0 * M
        return (golden(lambda c: bellman(W, c, M, H), low, M),)

    def fit(V: Array) -> Any:
        return RectBivariateSpline(*grid, equivalent(V, m.gamma).reshape(len(grid[0]), -1)).ev

    start = utility(0.1 * M if additive else 0.7 * M, m.gamma) / (1 - m.beta)
    W = policy_iteration(bellman, best, fit(start), fit, 1e-6)
    return lambda points: {"c": best(W, points["m"], points["h"])[0]}


def disasters(m: Any, fine: int = 1) -> Answer:
    """Hours from psi n^(1/phi) = (1 - alpha) e^z (k/n)^alpha u'(c), given c; then the maximum over c alone."""
    x, p = normal(9)
    least = 0.3  # capital that is left after a disaster, of which nobody chooses less
    grid = np.geomspace(least, 4.0, 40 * fine), np.linspace(-0.2, 0.2, 13 * fine)
    K, Z = (g.ravel() for g in np.meshgrid(*grid, indexing="ij"))

    def hours(c: Array, K: Array, Z: Array) -> Array:
        wage = (1 - m.alpha) * np.exp(Z) * K**m.alpha * c**-m.gamma / m.psi
        return np.minimum(wage ** (1 / (1 / m.phi + m.alpha)), 1.0)

    def kept(c: Array, K: Array, Z: Array) -> Array:
        return np.exp(Z) * K**m.alpha * hours(c, K, Z) ** (1 - m.alpha) + (1 - m.delta) * K - c

    def bellman(W: Any, c: Array, K: Array = K, Z: Array = Z) -> Array:
        k, n = kept(c, K, Z), hours(c, K, Z)
        later = sum(
            q * ((1 - m.p) * W(k, m.rho * Z + m.sigma * e) + m.p * W((1 - m.b) * k, m.rho * Z + m.sigma * e))
            for e, q in zip(x, p, strict=True)
        )
        return utility(c, m.gamma) - m.psi * n ** (1 + 1 / m.phi) / (1 + 1 / m.phi) + m.beta * later

    def best(W: Any, K: Array = K, Z: Array = Z) -> tuple[Array]:
        most = bisect(lambda c: kept(c, K, Z) - least / (1 - m.b), 0.01, 2 * K + 3)
        return (golden(lambda c: bellman(W, c, K, Z), 0.02 + 0 * K, most),)

    def fit(V: Array) -> Any:
        return RectBivariateSpline(*grid, V.reshape(len(grid[0]), -1)).ev

    W = policy_iteration(bellman, best, fit((utility(0.3 * K**0.36, m.gamma) - 0.9) / (1 - m.beta)), fit, 1e-6)

    def answer(points: Points) -> Points:
        c = best(W, points["k"], points["z"])[0]
        return {"n": hours(c, points["k"], points["z"]), "c": c}

    return answer


def hiring_firm(m: Any, fine: int = 1) -> Answer:
    """Labour in closed form, n = (nu e^z k^alpha / w)^(1/(1-nu)), then the maximum over investment."""
    x, p = normal(9)
    grid = np.geomspace(0.1, 3.0, 50 * fine), np.linspace(-0.45, 0.45, 15 * fine)
    K, Z = (g.ravel() for g in np.meshgrid(*grid, indexing="ij"))

    def hired(K: Array, Z: Array) -> Array:
        return (m.nu * np.exp(Z) * K**m.alpha / m.w) ** (1 / (1 - m.nu))

    def bellman(W: Any, i: Array, K: Array = K, Z: Array = Z) -> Array:
        n = hired(K, Z)
        profit = np.exp(Z) * K**m.alpha * n**m.nu - m.w * n - i - m.phi / 2 * (i / K - m.delta) ** 2 * K
        k = (1 - m.delta) * K + i
        return profit + m.beta * sum(q * W(k, m.rho * Z + m.sigma * e) for e, q in zip(x, p, strict=True))

    def best(W: Any, K: Array = K, Z: Array = Z) -> tuple[Array]:
        return (golden(lambda i: bellman(W, i, K, Z), 0.1 - (1 - m.delta) * K, 3.0 - (1 - m.delta) * K),)

    def fit(V: Array) -> Any:
        return RectBivariateSpline(*grid, V.reshape(len(grid[0]), -1)).ev

    W = policy_iteration(bellman, best, fit(K), fit, 1e-6)
    return lambda points: {
        "n": hired(points["k"], points["z"]),
        "i": best(W, points["k"], points["z"])[0],
    }


def health(m: Any, fine: int = 1, after: bool = False) -> Answer:
    """One state: a cubic spline of the value in ln h. `after`: tomorrow's health decides on survival."""
    eps, p = lognormal(m.sigma, 1.0, 15)
    grid = np.geomspace(0.05, 8.0, 100 * fine)

    def survival(h: Array) -> Array:
        return m.beta * (1 - m.hazard * np.exp(-m.slope * h))

    def bellman(W: Any, x: Array, h: Array = grid) -> Array:
        mean = (1 - m.delta) * h + m.B * np.log1p(x)
        tomorrow = mean[:, None] * eps
        later = ((survival(tomorrow) if after else survival(h)[:, None]) * W(tomorrow)) @ p
        return m.life + utility(m.y - x, m.gamma) + later

    def best(W: Any, h: Array = grid) -> tuple[Array]:
        return (golden(lambda x: bellman(W, x, h), 0 * h, 0 * h + 0.999 * m.y),)

    def fit(V: Array) -> Any:
        spline = CubicSpline(np.log(grid), V)
        return lambda h: spline(np.log(np.clip(h, grid[0], grid[-1])))

    W = policy_iteration(bellman, best, fit(10 + 0 * grid), fit, 1e-7)
    return lambda points: {"x": best(W, points["h"])[0]}


def health_and_wealth(m: Any, fine: int = 1) -> Answer:
    """Nested golden sections: consumption within care."""
    shock = m.shocks()
    y, p = np.array(shock.values), np.array(shock.probabilities)
    grid = 0.6 + spread(0.0, 12.0, 80 * fine), np.linspace(0.2, 4.0, 24 * fine)
    M, H = (g.ravel() for g in np.meshgrid(*grid, indexing="ij"))

    def bellman(W: Any, x: Array, c: Array, M: Array = M, H: Array = H) -> Array:
        h = (1 - m.delta) * H + m.B * np.log1p(x)
        later = sum(q * W(m.R * (M - x - c) + z, h) for z, q in zip(y, p, strict=True))
        return m.life + utility(c, m.gamma) + m.beta * (1 - m.hazard * np.exp(-m.slope * h)) * later

    def consumed(W: Any, x: Array, M: Array, H: Array, steps: int) -> Array:
        return golden(lambda c: bellman(W, x, c, M, H), 1e-3 + 0 * M, M - x, steps)

    def best(W: Any, M: Array = M, H: Array = H, steps: int = 28) -> tuple[Array, Array]:
        x = golden(lambda x: bellman(W, x, consumed(W, x, M, H, steps), M, H), 0 * M, 0.9 * M, steps)
        return x, consumed(W, x, M, H, steps)

    def fit(V: Array) -> Any:
        return RectBivariateSpline(*grid, V.reshape(len(grid[0]), -1)).ev

    W = policy_iteration(bellman, best, fit(20 - 1 / M), fit, 1e-4)

    def answer(points: Points) -> Points:
        x, c = best(W, points["m"], points["h"], 44)
        return {"c": c, "x": x}

    return answer


def two_assets(m: Any, fine: int = 1) -> Answer:
    """Nested golden sections: consumption within the deposit."""
    y, P = np.array((0.6, 1.0, 1.5)), np.array(m.states()[2].P)
    grid = -m.debt + spread(0.0, 10.0, 50 * fine), spread(0.0, 18.0, 30 * fine)
    B, K, J = (g.ravel() for g in np.meshgrid(*grid, np.arange(3), indexing="ij"))
    J = J.astype(int)
    room = m.debt / m.R_borrow

    def left(d: Array, B: Array, K: Array, J: Array) -> Array:
        return B + y[J] - d - m.chi / 2 * d**2 / (K + 1)

    def bellman(W: Any, d: Array, c: Array, B: Array = B, K: Array = K, J: Array = J) -> Array:
        kept = left(d, B, K, J) - c
        tomorrow = np.where(kept < 0, m.R_borrow, m.R_save) * kept
        return utility(c, m.gamma) + m.beta * W(np.maximum(tomorrow, -m.debt), m.Rk * np.maximum(K + d, 0), J)

    def consumed(W: Any, d: Array, B: Array, K: Array, J: Array, steps: int) -> Array:
        return golden(lambda c: bellman(W, d, c, B, K, J), 1e-6 + 0 * B, left(d, B, K, J) + room, steps)

    def best(W: Any, B: Array = B, K: Array = K, J: Array = J, steps: int = 26) -> tuple[Array, Array]:
        X = (K + 1) / m.chi
        most = -X + np.sqrt(X**2 + 2 * X * (B + y[J] + room)) - 1e-5
        d = golden(lambda d: bellman(W, d, consumed(W, d, B, K, J, steps), B, K, J), -K, most, steps)
        return d, consumed(W, d, B, K, J, steps)

    def fit(V: Array) -> Any:
        """E V(b', k', y') given y, as the consumption that is worth as much."""
        V = V.reshape(len(grid[0]), len(grid[1]), 3) @ P.T
        splines = [RectBivariateSpline(*grid, equivalent(V[..., j], m.gamma)).ev for j in range(3)]

        def W(b: Array, k: Array, J: Array) -> Array:
            found = np.empty_like(b)
            for j in range(3):
                here = j == J
                found[here] = splines[j](b[here], k[here])
            return utility(found, m.gamma)

        return W

    start = utility(0.3 + 0.1 * (B + m.debt) + 0.03 * K, m.gamma) / (1 - m.beta)
    W = policy_iteration(bellman, best, fit(start), fit, 2e-4)

    def answer(points: Points) -> Points:
        j = np.abs(points["y"][:, None] - y).argmin(axis=1)
        d, c = best(W, points["b"], points["k"], j, 44)
        return {"d": d, "c": c}

    return answer


# Closed forms


def effort(m: Any, fine: int = 1) -> Answer:
    """V = y + beta s0 V + (beta s1 V)^2/2, the smaller root; a = beta s1 V."""
    q, b = (m.beta * m.s1) ** 2 / 2, 1 - m.beta * m.s0
    V = (b - np.sqrt(b**2 - 4 * q * m.y)) / (2 * q)
    return lambda points: {"a": np.full_like(points["x"], m.beta * m.s1 * V)}


def hire(m: Any, fine: int = 1) -> Answer:
    return lambda points: {"n": (m.theta * np.exp(points["z"]) / m.w) ** (1 / (1 - m.theta))}


def perfect_foresight(m: Any, fine: int = 1) -> Answer:
    """All periods' incomes are spread evenly, as far as one need not borrow for it."""
    return lambda points: {
        "c": np.minimum(points["m"], (points["m"] + (m.horizon - 1 - points["t"]) * m.y) / (m.horizon - points["t"]))
    }


def brock_mirman(m: Any, fine: int = 1) -> Answer:
    return lambda points: {"c": (1 - m.alpha * m.beta) * np.exp(points["z"]) * points["k"] ** m.alpha}


def log_saving(m: Any, fine: int = 1) -> Answer:
    return lambda points: {"c": (1 - m.beta) * ((1 + m.r) * points["k"] + m.w + m.w / m.r)}


ANSWERS: dict[str, Callable[..., Answer]] = {
    "HouseholdHours": household_hours,
    "Habits": habits,
    "AdditiveHabits": functools.partial(habits, additive=True),
    "Disasters": disasters,
    "HiringFirm": hiring_firm,
    "Bequests": bequests,
    "LowPremium": low_premium,
    "Health": health,
    "HealthAfterCare": functools.partial(health, after=True),
    "HealthAndWealth": health_and_wealth,
    "TwoAssets": two_assets,
    "Effort": effort,
    "Hire": hire,
    "Labour": labour,
    "ByAge": ages,
    "PerfectForesight": perfect_foresight,
    "ZeroIncome": zero_income,
    "LogSaving": log_saving,
    "BrockMirman": brock_mirman,
    "KinkedRate": kinked_rate,
}
