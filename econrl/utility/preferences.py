"""How today's reward and the risk of tomorrow's value make today's value: additive utility, and recursive utility.

    V(s) = max over a of  W( r(s, a), m ),        m = phi^-1( E[ phi(V(s')) ] )

Source: Kreps and Porteus (1978), "Temporal resolution of uncertainty and dynamic choice theory", Econometrica 46;
Epstein and Zin (1989), "Substitution, risk aversion, and the temporal behavior of consumption and asset returns: a
theoretical framework", Econometrica 57.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.utility.functions import crra

ALIKE = 1e-12  # relative difference at which two parameters are the same
NEARLY_LINEAR = 1e-3  # a power or an exponent below which a logarithm of a mean would lose digits
STAYING = 300  # periods in which a value that is no sum comes near that of staying for ever
INVERSIONS, LENGTHS = 25, (1.0, 0.25)  # steps of the search for what an aggregator was given, and their lengths


class Preferences:
    """Additive utility, V = r + E[beta V'], and the base of all other preferences.

    Solvers hold the value as v, in a unit in which it is, for most, what today adds and what tomorrow is worth:

        v = aggregate(u, m) = u + m,        u = felicity(r),        m = certainty(v', w, beta)

    with the nodes of the shocks last in v', w and beta, (..., J). `shown` is V as the model defines it, `held` its
    inverse: v at V.
    """

    additive: bool = True
    """Whether m = E[beta v']: then no method has to know of preferences."""
    separable: bool = True
    """Whether v = u + m."""
    constant_discount: bool = False
    """Whether beta must be known today."""

    @property
    def plain(self) -> bool:
        """Whether v is the sum of the model's own rewards."""
        return self.additive

    def of(self, model: Any) -> Preferences:
        """The preferences with what they take from the model's parameters."""
        return self

    def felicity(self, r: Tensor) -> Tensor:
        """u (...), what a reward r (...) adds to v."""
        return r

    def aggregate(self, u: Tensor, m: Tensor) -> Tensor:
        """v (...) of today's u and the certainty equivalent m of tomorrow, each (...)."""
        return u + m

    def certainty(self, v: Tensor, weights: Tensor, beta: Tensor) -> Tensor:
        """m (...) of tomorrow's v at nodes (..., J), of these weights and discount factors."""
        return (weights * (beta * v)).sum(dim=-1)

    def tilt(self, v: Tensor, m: Tensor, beta: Tensor) -> Tensor:
        """By how much m (..., 1) rises with v (..., J) at a node, for each unit of its weight: beta phi'(v)/phi'(m)."""
        return beta.expand(v.shape)

    def slopes(self, u: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """(W_1, W_2), by how much v rises with u and with m, each (...)."""
        return torch.ones_like(u), torch.ones_like(m)

    def marginal(self, u: Tensor, v: Tensor) -> Tensor:
        """W_1 (...) where today's u leads to v, each (...)."""
        return torch.ones_like(v)

    def staying(self, u: Tensor) -> Tensor:
        """v (...) where u (...) is earned for ever, of an aggregator that is no sum: v = W(u, v), repeated from u."""
        v = u
        for _ in range(STAYING):
            v = self.aggregate(u, v)
        return v

    def shown(self, v: Tensor) -> Tensor:
        """V as the model defines it."""
        return v

    def held(self, V: Tensor) -> Tensor:
        """The inverse of `shown`."""
        return V

    def text(self) -> str:
        """What messages call them."""
        return "additive utility"


ADDITIVE = Preferences()


@dataclass(frozen=True)
class EpsteinZin(Preferences):
    """Constant elasticity of intertemporal substitution psi and relative risk aversion gamma; the reward is c > 0.

        V = [ w c^rho + beta ( E V'^(1-gamma) )^(rho/(1-gamma)) ]^(1/rho),      rho = 1 - 1/psi
        V = c^w m^beta  at psi = 1,     m = exp E ln V'  at gamma = 1

    c is consumption, or a bundle of goods such as c^nu l^(1-nu). At psi = 1/gamma utility is additive,
    V^rho/(rho w) = c^rho/rho + E[ beta V'^rho/(rho w) ]. A discount factor that varies with the shock, as where V is
    taken per unit of something that grows, multiplies V'^rho within the expectation; at psi = 1 it must not. Where a
    life is over, V' = 0 says that nothing follows.

    Held is v = V^rho/(rho w), or ln V/w at psi = 1, whose scale is that of power utility; the mean of powers is taken
    in logarithms, so that no risk aversion overflows. Raises SpecError for parameters that are no such numbers.
    """

    ies: float
    """psi, the elasticity of intertemporal substitution; positive."""
    risk_aversion: float
    """gamma, relative risk aversion; at least 0."""
    weight: float | None = None
    """w, the weight of today's consumption; 1 - beta, the model's field, unless given."""

    def __post_init__(self) -> None:
        for name, least in (("ies", 0.0), ("risk_aversion", -math.inf), ("weight", 0.0)):
            value = getattr(self, name)
            if name == "weight" and value is None:
                continue
            number = as_number(value, f"EpsteinZin: {name}")
            if not number > least or (name == "risk_aversion" and number < 0):
                bound = "at least 0" if name == "risk_aversion" else "positive"
                raise SpecError(f"EpsteinZin: {name} must be {bound}, got {number:g}")
            object.__setattr__(self, name, number)

    def of(self, model: Any) -> Preferences:
        if self.weight is not None:
            return self
        if not hasattr(model, "beta"):
            raise SpecError(
                f"{type(model).__name__}.preferences: EpsteinZin takes the weight of today's consumption to be 1 - "
                "beta, and the model has no field `beta`; give EpsteinZin(..., weight=...)"
            )
        beta = as_number(model.beta, f"{type(model).__name__}.beta")
        if beta >= 1:
            raise SpecError(
                f"{type(model).__name__}.preferences: EpsteinZin takes the weight of today's consumption to be 1 - "
                f"beta, and beta is {beta:g}; give EpsteinZin(..., weight=...)"
            )
        return dataclasses.replace(self, weight=1 - beta)

    @property
    def rho(self) -> float:
        """1 - 1/psi, that of gamma where utility is additive."""
        return 1 - self.inverse_ies

    @property
    def inverse_ies(self) -> float:
        """1/psi; gamma where the two are the same but for rounding."""
        same = abs(1 / self.ies - self.risk_aversion) <= ALIKE * self.risk_aversion
        return self.risk_aversion if same else 1 / self.ies

    @property
    def logarithmic(self) -> bool:
        """Whether psi = 1."""
        return abs(self.rho) <= ALIKE

    @property
    def additive(self) -> bool:  # type: ignore[override]
        return self.inverse_ies == self.risk_aversion

    @property
    def plain(self) -> bool:
        return False

    @property
    def constant_discount(self) -> bool:  # type: ignore[override]
        return self.logarithmic and not self.additive

    @property
    def today(self) -> float:
        """w, once it is known."""
        assert self.weight is not None, "the weight is that of a model"
        return self.weight

    @property
    def power(self) -> float:
        """theta, where m^theta is a mean of powers v^theta; at psi = 1 kappa, of a mean of e^(kappa v)."""
        return (1 - self.risk_aversion) * (self.today if self.logarithmic else 1 / self.rho)

    def felicity(self, r: Tensor) -> Tensor:
        return crra(r, 1.0 if self.logarithmic else self.inverse_ies)

    def certainty(self, v: Tensor, weights: Tensor, beta: Tensor) -> Tensor:
        if self.additive:
            return super().certainty(v, weights, beta)
        if self.logarithmic:
            return entropic(v, weights, beta, self.power)
        return mean_of_powers(beta * self.rho * v, weights, self.power) / self.rho

    def tilt(self, v: Tensor, m: Tensor, beta: Tensor) -> Tensor:
        if self.additive:
            return super().tilt(v, m, beta)
        if self.logarithmic:
            return entropic_tilt(v, m, beta, self.power)
        x, y = beta * self.rho * v, self.rho * m
        known = (x > 0) & (y > 0)
        ratio = (torch.where(known, x, 1.0) / torch.where(known, y, 1.0)).log()
        return torch.where(known, beta * ((self.power - 1) * ratio).exp(), 0.0)

    def shown(self, v: Tensor) -> Tensor:
        if self.logarithmic:
            return (self.today * v).exp()
        return (self.today * self.rho * v) ** (1 / self.rho)

    def held(self, V: Tensor) -> Tensor:
        follows = V != 0
        safe = torch.where(follows, V, 1.0)
        v = safe.log() / self.today if self.logarithmic else safe**self.rho / (self.rho * self.today)
        return torch.where(follows, v, 0.0)

    def text(self) -> str:
        return f"Epstein-Zin utility, psi = {self.ies:g}, gamma = {self.risk_aversion:g}"


@dataclass(frozen=True)
class RiskSensitive(Preferences):
    """V = r - (beta/theta) ln E exp(-theta V'): additive over time, and averse to risk in what lies ahead.

    theta > 0 is aversion to it, or the fear that the model is wrong, weighed by entropy; at theta = 0 utility is
    additive. The discount factor must be known today.

    Source: Hansen and Sargent (1995), "Discounted linear exponential quadratic Gaussian control", IEEE Transactions on
    Automatic Control 40; Tallarini (2000), JME 45. Raises SpecError for a theta that is no number.
    """

    theta: float
    """Risk sensitivity."""
    constant_discount: ClassVar[bool] = True  # type: ignore[misc]

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", as_number(self.theta, "RiskSensitive: theta"))

    @property
    def additive(self) -> bool:  # type: ignore[override]
        return self.theta == 0

    def certainty(self, v: Tensor, weights: Tensor, beta: Tensor) -> Tensor:
        if self.additive:
            return super().certainty(v, weights, beta)
        return entropic(v, weights, beta, -self.theta)

    def tilt(self, v: Tensor, m: Tensor, beta: Tensor) -> Tensor:
        if self.additive:
            return super().tilt(v, m, beta)
        return entropic_tilt(v, m, beta, -self.theta)

    def text(self) -> str:
        return f"risk-sensitive utility, theta = {self.theta:g}"


@dataclass(frozen=True)
class Recursive(Preferences):
    """Any aggregator W(r, m), rising in both, and any certainty equivalent m = phi^-1(E[phi(V')]), phi rising.

    All are functions of tensors (...). The discount factor is W's own: the model's `beta` or `discount` says only about
    how patient it is, for a first guess. Without phi, m = E[V']. A life cycle needs `terminal`: the V' that follows the
    last period. phi must not overflow where V may come; EpsteinZin and RiskSensitive never do.
    """

    W: Callable[[Tensor, Tensor], Tensor]
    """The aggregator of today's reward and the certainty equivalent of tomorrow's value."""
    phi: Callable[[Tensor], Tensor] | None = None
    inverse: Callable[[Tensor], Tensor] | None = None
    """phi^-1."""
    additive: ClassVar[bool] = False  # type: ignore[misc]
    separable: ClassVar[bool] = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        if (self.phi is None) != (self.inverse is None):
            raise SpecError("Recursive: give both phi and its inverse, or none of them")
        for name in ("W", "phi", "inverse"):
            if not callable(getattr(self, name)) and (name == "W" or getattr(self, name) is not None):
                raise SpecError(f"Recursive: {name} must be a function, got {getattr(self, name)!r}")

    def aggregate(self, u: Tensor, m: Tensor) -> Tensor:
        return self.W(u, m)

    def certainty(self, v: Tensor, weights: Tensor, beta: Tensor) -> Tensor:
        if self.phi is None or self.inverse is None:
            return (weights * v).sum(dim=-1)
        return self.inverse((weights * self.phi(v)).sum(dim=-1))

    def tilt(self, v: Tensor, m: Tensor, beta: Tensor) -> Tensor:
        if self.phi is None:
            return torch.ones_like(v)
        slope = torch.func.grad(lambda x: self.phi(x).sum())  # type: ignore[misc]
        return slope(v) / slope(m)

    def slopes(self, u: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        by_u, by_m = torch.func.grad(lambda u, m: self.W(u, m).sum(), argnums=(0, 1))(u, m)
        return by_u, by_m

    def marginal(self, u: Tensor, v: Tensor) -> Tensor:
        return self.slopes(u, self.future(u, v))[0]

    def future(self, u: Tensor, v: Tensor) -> Tensor:
        """m (...) with W(u, m) = v, by Newton's method from m = v; differentiable once. A step that leads beyond what W
        takes, as where m = 0 and W is infinitely steep, is shortened."""
        known, wanted = u.detach(), v.detach()
        m = wanted
        for _ in range(INVERSIONS):
            gap = self.W(known, m) - wanted
            step = (gap / self.slopes(known, m)[1]).nan_to_num(0.0, 0.0, 0.0)
            nearer = m
            for length in LENGTHS:
                trial = m - length * step
                better = (self.W(known, trial) - wanted).abs() < gap.abs()
                nearer = torch.where(better & (nearer == m), trial, nearer)
            m = nearer
        correction = (self.W(u, m) - v) / self.slopes(known, m)[1]  # none, but for its derivative
        return m - torch.where(self.W(known, m - correction.detach()).isfinite(), correction, 0.0)

    def text(self) -> str:
        return "recursive utility"


def mean_of_powers(x: Tensor, weights: Tensor, theta: float) -> Tensor:
    """(E x^theta)^(1/theta) over the last dimension, e^(E ln x) at theta = 0; an x that is not positive counts as zero.

    In logarithms, which the largest powers do not overflow; about their mean where theta is small.
    """
    positive = x > 0
    L = torch.where(positive, x, 1.0).log()
    known = positive.any(dim=-1) if theta >= NEARLY_LINEAR else positive.all(dim=-1)
    if abs(theta) < NEARLY_LINEAR:
        return torch.where(known, nearly_linear(L, weights, theta).exp(), 0.0)
    inside = positive | ~known.unsqueeze(-1)
    terms = torch.where(inside & (weights > 0), logarithm(weights) + theta * L, -math.inf)
    return torch.where(known, (terms.logsumexp(dim=-1) / theta).exp(), 0.0)


def entropic(v: Tensor, weights: Tensor, beta: Tensor, kappa: float) -> Tensor:
    """beta/kappa ln E e^(kappa v) over the last dimension, E[beta] E[v] at kappa = 0."""
    center = (weights * v).sum(dim=-1, keepdim=True)
    if abs(kappa) < NEARLY_LINEAR:
        found = nearly_linear(v, weights, kappa)
    else:
        terms = torch.where(weights > 0, logarithm(weights) + kappa * (v - center), -math.inf)
        found = center.squeeze(-1) + terms.logsumexp(dim=-1) / kappa
    return (weights * beta.expand(v.shape)).sum(dim=-1) * found


def entropic_tilt(v: Tensor, m: Tensor, beta: Tensor, kappa: float) -> Tensor:
    """By how much `entropic` rises with v at a node, for each unit of its weight."""
    counts = beta != 0
    return torch.where(counts, beta * (kappa * (v - m / torch.where(counts, beta, 1.0))).exp(), 0.0)


def logarithm(weights: Tensor) -> Tensor:
    """ln w, and zero at w = 0, where its derivative would be no number."""
    return torch.where(weights > 0, weights, 1.0).log()


def nearly_linear(x: Tensor, weights: Tensor, kappa: float) -> Tensor:
    """ln E e^(kappa x) / kappa over the last dimension, for a small kappa, or none."""
    center = (weights * x).sum(dim=-1, keepdim=True)
    if kappa == 0:
        return center.squeeze(-1)
    return center.squeeze(-1) + (weights * (kappa * (x - center)).expm1()).sum(dim=-1).log1p() / kappa


def as_number(value: Any, title: str) -> float:
    """A finite number. Raises SpecError for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError(f"{title} must be a number, got {value!r}") from error
    if not math.isfinite(number):
        raise SpecError(f"{title} must be a finite number, got {value!r}")
    return number
