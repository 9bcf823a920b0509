"""Models on which `verdicts.py` judges what a user gets without asking: written as a user of the literature would.

Domains are what one writes before anything is solved. The right answers stand in `verdict_answers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from econrl import Action, Budget, Discrete, LogNormal, MarkovChain, Model, Normal, State
from econrl.utility import crra

CHAIN = ((0.85, 0.13, 0.02), (0.10, 0.80, 0.10), (0.02, 0.13, 0.85))


@dataclass(frozen=True, kw_only=True)
class HouseholdHours(Model):
    """Aiyagari's household with hours: V(b, e) = max u(c) - psi n^(1+1/phi)/(1+1/phi) + beta E V(b', e'),
    b' = (1 + r) b + w e n - c >= -debt."""

    beta: float = 0.95
    gamma: float = 1.5
    psi: float = 6.0
    phi: float = 0.5
    r: float = 0.03
    w: float = 1.0
    debt: float = 0.5

    def states(self):
        return State("b", low=-self.debt, high=15.0), MarkovChain("e", values=(0.5, 1.0, 1.6), P=CHAIN)

    def resources(self, s, a):
        return (1 + self.r) * s.b + self.w * s.e * a.n

    def actions(self):
        return (
            Action("n", low=0.0, high=1.0),
            Action("c", low=0.0, high=lambda s, a: self.resources(s, a) + self.debt),
        )

    def reward(self, s, a):
        return crra(a.c, self.gamma) - self.psi * a.n ** (1 + 1 / self.phi) / (1 + 1 / self.phi)

    def transition(self, s, a, e):
        return {"b": self.resources(s, a) - a.c}


@dataclass(frozen=True, kw_only=True)
class Habits(Model):
    """Saving with habits: u = (c / h^eta)^(1-gamma)/(1-gamma), h' = (1 - lam) h + lam c, m' = R (m - c) + y."""

    beta: float = 0.95
    gamma: float = 2.0
    eta: float = 0.5
    lam: float = 0.3
    R: float = 1.03

    def states(self):
        return State("m", low=0.5, high=8.0), State("h", low=0.4, high=2.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return Discrete("y", values=(0.6, 1.0, 1.4), probabilities=(0.25, 0.5, 0.25))

    def reward(self, s, a):
        return crra(a.c / s.h**self.eta, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + e.y, "h": (1 - self.lam) * s.h + self.lam * a.c}


@dataclass(frozen=True, kw_only=True)
class AdditiveHabits(Model):
    """The same with u = (c - eta h)^(1-gamma)/(1-gamma): consumption must stay above the habit's share."""

    beta: float = 0.95
    gamma: float = 2.0
    eta: float = 0.4
    lam: float = 0.25
    R: float = 1.03

    def states(self):
        return State("m", low=0.7, high=8.0), State("h", low=0.4, high=1.6)

    def actions(self):
        return Action("c", low=lambda s: self.eta * s.h, high=lambda s: s.m)

    def shocks(self):
        return Discrete("y", values=(0.7, 1.0, 1.3), probabilities=(0.25, 0.5, 0.25))

    def reward(self, s, a):
        return crra(a.c - self.eta * s.h, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + e.y, "h": (1 - self.lam) * s.h + self.lam * a.c}


@dataclass(frozen=True, kw_only=True)
class Disasters(Model):
    """Growth with labour; with probability p a disaster destroys the share b of the capital.

    k' = (1 - b d) (e^z k^alpha n^(1-alpha) + (1 - delta) k - c), z' = rho z + eps.
    """

    beta: float = 0.96
    gamma: float = 2.0
    psi: float = 16.0
    phi: float = 1.0
    alpha: float = 0.36
    delta: float = 0.08
    rho: float = 0.9
    sigma: float = 0.015
    p: float = 0.02
    b: float = 0.3

    def states(self):
        return State("k", low=0.7, high=2.4), State("z", low=-0.12, high=0.12)

    def resources(self, s, a):
        return s.z.exp() * s.k**self.alpha * a.n ** (1 - self.alpha) + (1 - self.delta) * s.k

    def actions(self):
        return Action("n", low=0.0, high=1.0), Action("c", low=0.0, high=self.resources)

    def shocks(self):
        return Normal("eps", std=self.sigma), Discrete("d", values=(0.0, 1.0), probabilities=(1 - self.p, self.p))

    def reward(self, s, a):
        return crra(a.c, self.gamma) - self.psi * a.n ** (1 + 1 / self.phi) / (1 + 1 / self.phi)

    def transition(self, s, a, e):
        return {"k": (1 - self.b * e.d) * (self.resources(s, a) - a.c), "z": self.rho * s.z + e.eps}


@dataclass(frozen=True, kw_only=True)
class HiringFirm(Model):
    """A firm hires n, which moves nothing, and invests i, k' = (1 - delta) k + i; profit is
    e^z k^alpha n^nu - w n - i - phi/2 (i/k - delta)^2 k."""

    beta: float = 0.95
    alpha: float = 0.3
    nu: float = 0.55
    w: float = 1.0
    delta: float = 0.1
    phi: float = 2.0
    rho: float = 0.8
    sigma: float = 0.05

    def states(self):
        return State("k", low=0.4, high=1.6), State("z", low=-0.25, high=0.25)

    def actions(self):
        return Action("n", low=0.0), Action("i", scale=0.1)

    def shocks(self):
        return Normal("eps", std=self.sigma)

    def reward(self, s, a):
        output = s.z.exp() * s.k**self.alpha * a.n**self.nu
        return output - self.w * a.n - a.i - self.phi / 2 * (a.i / s.k - self.delta) ** 2 * s.k

    def transition(self, s, a, e):
        return {"k": (1 - self.delta) * s.k + a.i, "z": self.rho * s.z + e.eps}


@dataclass(frozen=True, kw_only=True)
class Bequests(Model):
    """Saving by age: one dies after age t with probability 1 - survival[t], and leaves R (m - c) to heirs."""

    horizon: int = 16
    survival: tuple = (
        0.99, 0.99, 0.99, 0.98, 0.98, 0.97, 0.96, 0.95, 0.93, 0.91, 0.88, 0.84, 0.78, 0.70, 0.60, 0.0,
    )  # fmt: skip
    income: tuple = (0.8, 0.9, 1.0, 1.1, 1.2, 1.25, 1.3, 1.3, 1.2, 1.1, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6)
    retired: int = 10
    sigma: float = 0.2
    beta: float = 0.97
    gamma: float = 3.0
    R: float = 1.04
    theta: float = 4.0
    luxury: float = 2.0

    def states(self):
        return State("m", low=0.3, high=12.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        return LogNormal("y", std=self.sigma)

    def alive(self, s):
        return torch.tensor(self.survival).to(s.m)[s.t.long()]

    def discount(self, s, a, e):
        return self.beta * self.alive(s)

    def reward(self, s, a):
        left = self.R * (s.m - a.c)
        heirs = self.theta * crra(left + self.luxury, self.gamma)
        return crra(a.c, self.gamma) + self.beta * (1 - self.alive(s)) * heirs

    def transition(self, s, a, e):
        age = (s.t + 1).clamp(max=self.horizon - 1)
        income = torch.tensor(self.income)[age.long()]
        return {"m": self.R * (s.m - a.c) + torch.where(age < self.retired, income * e.y, income)}

    def initial(self, n, generator):
        return {"m": 0.3 + 1.5 * torch.rand(n, generator=generator, device=generator.device)}


@dataclass(frozen=True, kw_only=True)
class LowPremium(Model):
    """Saving and the share in a risky asset with which income moves: y = xi R^exposure. The poor hold none of it."""

    horizon: int = 12
    beta: float = 0.96
    gamma: float = 4.0
    safe: float = 1.02
    mean: float = 1.035
    sigma: float = 0.18
    exposure: float = 0.5
    sigma_y: float = 0.1

    def states(self):
        return State("m", low=0.3, high=10.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m), Action("share", low=0.0, high=1.0)

    def shocks(self):
        return LogNormal("R", std=self.sigma, mean=self.mean), LogNormal("xi", std=self.sigma_y)

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        portfolio = self.safe + a.share * (e.R - self.safe)
        return {"m": (s.m - a.c) * portfolio + e.xi * e.R**self.exposure}

    def terminal(self, s):
        return crra(s.m, self.gamma)


@dataclass(frozen=True, kw_only=True)
class Health(Model):
    """Care x keeps up health h, and with it the chance to live on, 1 - hazard exp(-slope h).

    V(h) = max_x life + u(y - x) + beta (1 - hazard exp(-slope h)) E V(h'), h' = eps ((1 - delta) h + B ln(1 + x)).
    """

    beta: float = 0.96
    gamma: float = 2.0
    life: float = 4.0
    y: float = 1.0
    delta: float = 0.15
    B: float = 0.8
    hazard: float = 0.5
    slope: float = 1.5
    sigma: float = 0.1

    def states(self):
        return State("h", low=0.2, high=3.0)

    def actions(self):
        return Action("x", low=0.0, high=self.y)

    def shocks(self):
        return LogNormal("eps", std=self.sigma)

    def reward(self, s, a):
        return self.life + crra(self.y - a.x, self.gamma)

    def discount(self, s, a, e):
        return self.beta * (1 - self.hazard * torch.exp(-self.slope * s.h))

    def transition(self, s, a, e):
        return {"h": e.eps * ((1 - self.delta) * s.h + self.B * torch.log1p(a.x))}


@dataclass(frozen=True, kw_only=True)
class HealthAfterCare(Health):
    """The same where it is tomorrow's health that decides: the discount reads state, action and shock."""

    delta: float = 0.2
    slope: float = 1.0
    sigma: float = 0.15

    def discount(self, s, a, e):
        return self.beta * (1 - self.hazard * torch.exp(-self.slope * self.transition(s, a, e)["h"]))


@dataclass(frozen=True, kw_only=True)
class HealthAndWealth(Model):
    """Consumption and care out of cash on hand m; survival 1 - hazard exp(-slope h) depends on health.

    V(m, h) = max_{c, x} life + u(c) + beta survival(h') E V(m', h'),
    m' = R (m - c - x) + y, h' = (1 - delta) h + B ln(1 + x).
    """

    beta: float = 0.95
    gamma: float = 2.0
    life: float = 5.0
    R: float = 1.03
    delta: float = 0.15
    B: float = 0.8
    hazard: float = 0.4
    slope: float = 1.0

    def states(self):
        return State("m", low=0.7, high=6.0), State("h", low=0.4, high=2.5)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m), Action("x", low=0.0, high=lambda s, a: s.m - a.c)

    def shocks(self):
        return Discrete("y", values=(0.8, 1.2), probabilities=(0.5, 0.5))

    def health(self, s, a):
        return (1 - self.delta) * s.h + self.B * torch.log1p(a.x)

    def reward(self, s, a):
        return self.life + crra(a.c, self.gamma)

    def discount(self, s, a, e):
        return self.beta * (1 - self.hazard * torch.exp(-self.slope * self.health(s, a)))

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c - a.x) + e.y, "h": self.health(s, a)}


@dataclass(frozen=True, kw_only=True)
class TwoAssets(Model):
    """Kaplan and Violante's household: liquid b, borrowed dearly, and illiquid k, moved by deposits d at a convex cost.

    b' = R(b') (b + y - c - d - chi/2 d^2/(k + 1)) >= -debt, k' = Rk (k + d).
    """

    beta: float = 0.94
    gamma: float = 2.0
    R_save: float = 1.01
    R_borrow: float = 1.10
    Rk: float = 1.04
    chi: float = 1.0
    debt: float = 0.5

    def states(self):
        return (
            State("b", low=-self.debt, high=5.0),
            State("k", low=0.0, high=10.0),
            MarkovChain("y", values=(0.6, 1.0, 1.5), P=CHAIN),
        )

    def left(self, s, a):
        return s.b + s.y - a.d - self.chi / 2 * a.d**2 / (s.k + 1)

    def most(self, s):
        """The deposit after which nothing could be consumed."""
        x = (s.k + 1) / self.chi
        return -x + (x**2 + 2 * x * (s.b + s.y + self.debt / self.R_borrow)).sqrt()

    def actions(self):
        return (
            Action("d", low=lambda s: -s.k, high=self.most),
            Action("c", low=0.0, high=lambda s, a: self.left(s, a) + self.debt / self.R_borrow),
        )

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        kept = self.left(s, a) - a.c
        return {"b": torch.where(kept < 0, self.R_borrow, self.R_save) * kept, "k": self.Rk * (s.k + a.d)}


# Small models, of kinds that solvers easily get wrong


@dataclass(frozen=True, kw_only=True)
class Effort(Model):
    """Effort raises the chance that a match goes on; x is noise: V = y - a^2/2 + beta (s0 + s1 a) V."""

    beta: float = 0.9
    s0: float = 0.5
    s1: float = 0.2
    y: float = 1.0

    def states(self):
        return State("x", low=-1.0, high=1.0)

    def actions(self):
        return Action("a", low=0.0, high=2.0)

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        return self.y - a.a**2 / 2 + 0.0 * s.x

    def discount(self, s, a, e):
        return self.beta * (self.s0 + self.s1 * a.a)

    def transition(self, s, a, e):
        return {"x": 0.5 * s.x + e.e}


@dataclass(frozen=True, kw_only=True)
class Hire(Model):
    """Labour is hired anew each period, and moves no state."""

    beta: float = 0.95
    theta: float = 0.5
    w: float = 1.0
    rho: float = 0.8
    sigma: float = 0.05

    def states(self):
        return State("z", low=-0.3, high=0.3)

    def actions(self):
        return Action("n", low=0.0, high=2.0)

    def shocks(self):
        return Normal("e", std=self.sigma)

    def reward(self, s, a):
        return s.z.exp() * (a.n + 1e-12) ** self.theta - self.w * a.n

    def transition(self, s, a, e):
        return {"z": self.rho * s.z + e.e}


@dataclass(frozen=True, kw_only=True)
class Labour(Model):
    """Hours l and consumption c <= b + w l, u((1 - l) c); the rich would like negative hours."""

    beta: float = 0.95
    rho: float = 2.0
    R: float = 1.03
    wages: tuple = (0.5, 1.5)
    stay: float = 0.9

    def states(self):
        P = [[self.stay, 1 - self.stay], [1 - self.stay, self.stay]]
        return State("b", low=0.0, high=30.0), MarkovChain("w", values=self.wages, P=P)

    def actions(self):
        return Action("l", low=0.0, high=1.0), Action("c", low=0.0, high=lambda s, a: s.b + s.w * a.l)

    def reward(self, s, a):
        return crra((1 - a.l) * a.c, self.rho)

    def transition(self, s, a, e):
        return {"b": self.R * (s.b + s.w * a.l - a.c)}


@dataclass(frozen=True, kw_only=True)
class ByAge(Model):
    """Survival is a table of T numbers; consumption and the share of a risky asset, log utility."""

    horizon: int = 10
    beta: float = 0.96
    survival: tuple = tuple(1 - 0.5 * t / 9 for t in range(10))
    safe: float = 1.02
    mean: float = 1.06
    sigma: float = 0.2
    pension: float = 0.5

    def states(self):
        return State("m", low=0.1, high=10.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m), Action("share", low=0.0, high=1.0)

    def shocks(self):
        return LogNormal("R", std=self.sigma, mean=self.mean)

    def discount(self, s, a, e):
        return self.beta * torch.tensor(self.survival, dtype=torch.float64)[s.t.long()]

    def reward(self, s, a):
        return a.c.log()

    def transition(self, s, a, e):
        return {"m": (s.m - a.c) * (self.safe + a.share * (e.R - self.safe)) + self.pension}

    def terminal(self, s):
        return s.m.log()


@dataclass(frozen=True, kw_only=True)
class PerfectForesight(Model):
    """T periods, beta = R = 1, no borrowing."""

    horizon: int = 2
    beta: float = 1.0
    gamma: float = 2.0
    R: float = 1.0
    y: float = 1.0

    def states(self):
        return State("m", low=0.1, high=10.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + self.y}


@dataclass(frozen=True, kw_only=True)
class ZeroIncome(Model):
    """Income is zero with probability p until one retires, so that nobody consumes all that there is."""

    horizon: int = 20
    retire: int = 14
    beta: float = 0.96
    gamma: float = 2.0
    R: float = 1.03
    low: float = 0.0
    p: float = 0.05
    pension: float = 0.6

    def states(self):
        return State("m", low=self.low, high=10.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m)

    def shocks(self):
        half = (1 - self.p) / 2
        return Discrete("y", values=(0.0, 0.8, 1.2), probabilities=(self.p, half, half))

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        return {"m": self.R * (s.m - a.c) + torch.where(s.t + 1 >= self.retire, self.pension, e.y)}


@dataclass(frozen=True, kw_only=True)
class LogSaving(Model):
    """Log utility, beta R > 1, no shocks."""

    beta: float = 0.98
    w: float = 1.0
    r: float = 0.05
    least: float = -6.0

    def states(self):
        return State("k", low=self.least, high=30.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: self.w + (1 + self.r) * s.k - self.least)

    def reward(self, s, a):
        return crra(a.c, 1.0)

    def transition(self, s, a, e):
        return {"k": self.w + (1 + self.r) * s.k - a.c}


@dataclass(frozen=True, kw_only=True)
class KinkedRate(Model):
    """Borrowing is dearer than saving: many keep exactly nothing."""

    beta: float = 0.95
    gamma: float = 2.0
    R_borrow: float = 1.20
    R_save: float = 1.01
    debt: float = 0.6
    values: tuple = (0.7, 1.0, 1.3)
    probabilities: tuple = (0.25, 0.5, 0.25)

    def states(self):
        return State("m", low=min(self.values) - self.R_borrow * self.debt, high=6.0)

    def actions(self):
        return Action("c", low=0.0, high=lambda s: s.m + self.debt)

    def shocks(self):
        return Discrete("y", values=self.values, probabilities=self.probabilities)

    def reward(self, s, a):
        return crra(a.c, self.gamma)

    def transition(self, s, a, e):
        kept = s.m - a.c
        return {"m": torch.where(kept < 0, self.R_borrow, self.R_save) * kept + e.y}


@dataclass(frozen=True, kw_only=True)
class Durables(Model):
    """A life with D durables, convex costs, no disinvestment (Druedahl and Ropke 2025)."""

    D: int = 1
    horizon: int = 5
    retired: int = 3
    beta: float = 1 / 1.01
    rho: float = 2.0
    rho_p: float = 0.95
    sigma: float = 0.1
    R: float = 1.01
    nu: float = 0.1
    least: float = 0.01
    delta: tuple = (0.2,)

    def states(self):
        return (
            State("m", low=0.05, high=8.0),
            State("p", low=0.3, high=3.0),
            State("n", size=self.D, low=0.01, high=2.0 / self.D + 0.5),
        )

    def actions(self):
        return Budget("x", size=1 + self.D, total=lambda s: s.m)

    def shocks(self):
        return LogNormal("xi", std=self.sigma), LogNormal("psi", std=self.sigma)

    def profile(self):
        growth = [1.0, 1.02]
        for t in range(2, self.retired):
            growth.append(growth[-1] * (1 + 0.02 * 0.9 ** (t - 1)))
        return growth[: self.retired] + [0.7] * (self.horizon - self.retired + 1)

    def stock(self, s, a):
        return s.n + (-1 + (1 + 4 * self.nu * a.x[..., 1:]).sqrt()) / (2 * self.nu)

    def reward(self, s, a):
        log = 0.8 * a.x[..., 0].log() + (0.2 / self.D * (self.stock(s, a) + self.least).log()).sum(-1)
        return torch.exp(log * (1 - self.rho)) / (1 - self.rho)

    def transition(self, s, a, e):
        p = s.p**self.rho_p * e.xi
        kappa = torch.tensor(self.profile()).to(s.p)[s.t.long()]
        income = torch.where(s.t < self.retired, kappa * p * e.psi, kappa)
        return {
            "m": self.R * (s.m - a.x.sum(-1)) + income,
            "p": p,
            "n": self.stock(s, a) * (1 - torch.tensor(self.delta).to(s.p)),
        }

    def initial(self, n, generator):
        def draw(*shape):
            noise = torch.randn(*shape, generator=generator, device=generator.device)
            return torch.exp(self.sigma * noise - self.sigma**2 / 2)

        return {"m": draw(n), "p": draw(n), "n": 0.1 * draw(n, self.D)}
