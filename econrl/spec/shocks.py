"""Shocks: each can be sampled, written as a function of standard normals, and integrated by its own nodes.

Three things make a shock, so that every rule of `quadrature.py` works for each of them:
    nodes(n)        -> nodes (J, k) and weights (J,) of its own Gauss rule, or its exact support if it is discrete
    from_normal(z)  -> the shock as a function of standard normals z (..., k); None if it is discrete
    sample(shape, generator)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.spec.soundness import check_moment, check_probabilities, check_values, is_finite_number, number_of
from econrl.spec.variable import Variable

Rule = tuple[Tensor, Tensor]


def gauss_hermite(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the n-point rule for a standard normal, exact for polynomials of degree 2n - 1."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / w.sum()


def product(rules: list[Rule]) -> Rule:
    """The tensor product of rules, first one slowest."""
    nodes = [torch.cat(combination) for combination in itertools.product(*(list(r[0]) for r in rules))]
    weights = [math.prod(combination) for combination in itertools.product(*(r[1].tolist() for r in rules))]
    return torch.stack(nodes), torch.tensor(weights, dtype=torch.float64)


class Shock(Variable):
    """What every shock has: a name, a size (None for a scalar), and the group whose members it strikes, if any.

    A continuous kind gives `from_normal`, and `nodes` where its own Gauss rule is not that of the normal; a discrete
    one sets `discrete`, and gives `nodes` and `sample`. It may give `check`.
    """

    discrete: ClassVar[bool] = False
    moments_vary: ClassVar[bool] = False
    """Whether, as a scalar, its moments may vary with the parameters of a family: it is then a function of a standard
    normal, as smooth in them as in the shock."""

    def text(self) -> str:
        return f"{type(self).__name__} {self.label}"

    @property
    def width(self) -> int:
        """Its columns in flat tensors."""
        return self.size or 1

    def locate(self, shown: Tensor) -> Tensor:
        """What is held, from values that the spec reads. Raises SpecError for a value that the shock does not take."""
        return shown

    def from_normal(self, z: Tensor) -> Tensor:
        """The shock (..., width) as a function of standard normals z (..., width)."""
        raise NotImplementedError

    def nodes(self, n: int) -> Rule:
        """Nodes (J, width) and weights (J,) of its own rule with n points a dimension."""
        x, w = gauss_hermite(n)
        rule = torch.as_tensor(x).unsqueeze(-1), torch.as_tensor(w)
        z, weights = product([rule] * self.width)
        return self.from_normal(z), weights

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws (*shape, width), in double precision on the generator's device."""
        z = torch.randn(*shape, self.width, generator=generator, dtype=torch.float64, device=generator.device)
        return self.from_normal(z)


@dataclass(frozen=True, eq=False)
class Normal(Shock):
    """Normal with the given mean and standard deviation, or, for a vector, with covariance matrix `cov` (n, n)."""

    name: str
    std: Any = 1.0
    mean: Any = 0.0
    cov: Any = None
    size: int | None = None
    group: str | None = None

    moments_vary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.cov is not None and self.size is None:
            object.__setattr__(self, "size", len(self.cov))

    def from_normal(self, z: Tensor) -> Tensor:
        mean = torch.as_tensor(self.mean, dtype=z.dtype, device=z.device)
        if self.cov is None:
            return mean + torch.as_tensor(self.std, dtype=z.dtype, device=z.device) * z
        return mean + z @ covariance_root(self.cov).to(z).T

    def check(self, title: str) -> None:
        check_moment(self.mean, self.size, f"{title}: mean")
        if self.cov is None:
            check_moment(self.std, self.size, f"{title}: std", smallest=0.0)
            return
        cov, size = torch.as_tensor(self.cov, dtype=torch.float64), self.size
        if cov.shape != (size, size):
            raise SpecError(f"{title} has size {size} and cov of shape {tuple(cov.shape)}; cov must be (size, size)")
        if not cov.isfinite().all() or not torch.allclose(cov, cov.T):
            raise SpecError(f"{title}: cov is not symmetric, or not finite")
        smallest = float(torch.linalg.eigvalsh(cov).min())
        if smallest < -1e-10 * float(cov.abs().max()):
            raise SpecError(f"{title}: cov is not positive semidefinite; its smallest eigenvalue is {smallest:.3g}")


@dataclass(frozen=True, eq=False)
class LogNormal(Shock):
    """exp(N) with the given standard deviation of the logarithm and the given mean of the level (default one)."""

    name: str
    std: Any = 1.0
    mean: Any = 1.0
    size: int | None = None
    group: str | None = None

    moments_vary: ClassVar[bool] = True

    def from_normal(self, z: Tensor) -> Tensor:
        std = torch.as_tensor(self.std, dtype=z.dtype, device=z.device)
        mean = torch.as_tensor(self.mean, dtype=z.dtype, device=z.device)
        return mean * torch.exp(std * z - std**2 / 2)

    def check(self, title: str) -> None:
        check_moment(self.std, self.size, f"{title}: std", smallest=0.0)
        check_moment(self.mean, self.size, f"{title}: mean", smallest=0.0)
        if not (torch.as_tensor(self.mean) > 0).all():
            raise SpecError(f"{title}: mean is zero; the mean of a lognormal is positive")


@dataclass(frozen=True, eq=False)
class Uniform(Shock):
    """Uniform on [low, high]; its own rule is Gauss-Legendre."""

    name: str
    low: float = 0.0
    high: float = 1.0
    size: int | None = None
    group: str | None = None

    def from_normal(self, z: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.special.ndtr(z)

    def nodes(self, n: int) -> Rule:
        x, w = np.polynomial.legendre.leggauss(n)
        points = torch.as_tensor(self.low + (self.high - self.low) * (x + 1) / 2).unsqueeze(-1)
        return product([(points, torch.as_tensor(w / 2))] * self.width)

    def check(self, title: str) -> None:
        low, high = self.low, self.high
        if not is_finite_number(low) or not is_finite_number(high) or not low < high:
            raise SpecError(f"{title} has low = {low!r} and high = {high!r}; they must be finite, low below high")


@dataclass(frozen=True, eq=False)
class Discrete(Shock):
    """Finitely many values, (n,) or (n, k), with probabilities (n,): integrated exactly."""

    name: str
    values: Any = ()
    probabilities: Any = ()
    size: int | None = None

    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.support.shape[-1] > 1 or torch.as_tensor(self.values).ndim == 2:
            object.__setattr__(self, "size", self.support.shape[-1])

    @property
    def support(self) -> Tensor:
        """All its values (J, width)."""
        values = torch.as_tensor(self.values, dtype=torch.float64).cpu()
        return values if values.ndim == 2 else values.unsqueeze(-1)

    def locate(self, shown: Tensor) -> Tensor:
        number_of(shown, torch.as_tensor(self.values, dtype=torch.float64), f"the shock '{self.name}'")
        return shown

    def nodes(self, n: int) -> Rule:
        return self.support, torch.as_tensor(self.probabilities, dtype=torch.float64).cpu()

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        u = torch.rand(*shape, generator=generator, dtype=torch.float64, device=generator.device)
        cumulative = torch.as_tensor(self.probabilities, dtype=torch.float64, device=u.device).cumsum(0)
        index = torch.searchsorted(cumulative / cumulative[-1], u.contiguous())
        return self.support.to(u.device)[index.clamp(max=len(cumulative) - 1)]

    def check(self, title: str) -> None:
        values = torch.as_tensor(self.values, dtype=torch.float64)
        probabilities = torch.as_tensor(self.probabilities, dtype=torch.float64)
        check_values(values, title)
        width = self.support.shape[-1]
        if self.width != width:
            raise SpecError(f"{title} has size {self.size}, and values of width {width}; leave the size out")
        if probabilities.shape != values.shape[:1]:
            raise SpecError(f"{title} has {len(values)} values and probabilities of shape {tuple(probabilities.shape)}")
        check_probabilities(probabilities, title)


def covariance_root(cov: Any) -> Tensor:
    """A root L of the covariance, L L' = cov; by eigenvalues, so that a singular covariance is welcome."""
    values, vectors = torch.linalg.eigh(torch.as_tensor(cov, dtype=torch.float64))
    return vectors * values.clamp(min=0).sqrt()
