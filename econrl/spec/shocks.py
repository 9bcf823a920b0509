"""Shocks: each can be sampled, written as a function of standard normals, and integrated by its own nodes.

Three things make a shock, so that every rule of `quadrature.py` works for each of them:
    nodes(n)        -> nodes (J, k) and weights (J,) of its own Gauss rule, or its exact support if it is discrete
    from_normal(z)  -> the shock as a function of standard normals z (..., k); None if it is discrete
    sample(shape, generator)

A parameter may be a function of the state, std=lambda s: s.sigma. Such a shock is held in flat tensors as its
`standard` one, which is the same everywhere: a standard normal, a uniform on [0, 1], the number of a value. The spec
reads what it is at the state, `at(s).from_standard(x)`; the probabilities of values are weights that depend on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.spec.soundness import (
    SUMS_TO_ONE,
    check_moment,
    check_probabilities,
    check_values,
    is_finite_number,
    number_of,
)
from econrl.spec.variable import Map, Variable, value_reader

Rule = tuple[Tensor, Tensor]
SAME = 1e-6  # how near to its only value one must be that is given for a shock which does not vary


def gauss_hermite(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the n-point rule for a standard normal, exact for polynomials of degree 2n - 1."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / w.sum()


def tensor_like(value: Any, like: Tensor) -> Tensor:
    """Numbers as a tensor of this one's type, on its device."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def product(rules: list[Rule]) -> Rule:
    """The tensor product of rules, first one slowest."""
    nodes = [torch.cat(combination) for combination in itertools.product(*(list(r[0]) for r in rules))]
    weights = [math.prod(combination) for combination in itertools.product(*(r[1].tolist() for r in rules))]
    return torch.stack(nodes), torch.tensor(weights, dtype=torch.float64)


class Shock(Variable):
    """What every shock has: a name, a size (None for a scalar), and the group whose members it strikes, if any.

    A continuous kind gives `from_normal`, and `nodes` where its own Gauss rule is not that of the normal; a discrete
    one sets `discrete`, and gives `nodes` and `sample`. It may give `check`. One whose parameters may be functions of
    the state names these in `may_vary`, and says in `faults` what is wrong with values of them, tensors (..., 1) or
    (..., width); a continuous one may give `standard` and `from_standard`, with its inverse.
    """

    discrete: ClassVar[bool] = False
    may_vary: ClassVar[tuple[str, ...]] = ()
    """The parameters that may be functions of the state, or vary over the members of a family."""

    def text(self) -> str:
        return f"{type(self).__name__} {self.label}"

    @property
    def width(self) -> int:
        """Its columns in flat tensors."""
        return self.size or 1

    @property
    def parts(self) -> Sequence[Shock]:
        """What the spec reads, each by its name; they lie side by side."""
        return (self,)

    def locate(self, shown: Tensor) -> Tensor:
        """What is held, from values that the spec reads. Raises SpecError for a value that the shock does not take."""
        return shown

    def reader(self, like: Tensor) -> Map | None:
        """The map from what is held to what the spec reads, at any state; None where they are the same."""
        return None

    # Parameters that are functions of the state

    @property
    def varying(self) -> list[str]:
        """The parameters that are functions of the state."""
        return [name for name in self.may_vary if callable(getattr(self, name))]

    @property
    def standard(self) -> Shock:
        """The shock as it is held where its parameters are functions of the state."""
        return Normal(self.name, size=self.size, group=self.group)

    def at(self, s: Any, like: Tensor) -> Self:
        """The shock at the view s of the flat states `like` (..., S): parameters that are functions of the state become
        tensors, (..., 1) or (..., width)."""
        return replace(self, **{name: self.parameter(getattr(self, name)(s), like) for name in self.varying})  # type: ignore[type-var]

    def parameter(self, value: Any, like: Tensor) -> Tensor:
        """What a function of the state gave, a number or tensor for all parts or a sequence with one for each, as a
        tensor."""
        if isinstance(value, Sequence):
            parts = [tensor_like(x, like) for x in value]
            return torch.stack(torch.broadcast_tensors(*parts), dim=-1)
        value = tensor_like(value, like)
        return value if self.size is not None and value.ndim == like.ndim else value.unsqueeze(-1)

    def from_standard(self, x: Tensor) -> Tensor:
        """The shock (..., width) as a function of the standard one."""
        return self.from_normal(x)

    def to_standard(self, shown: Tensor) -> Tensor:
        """The inverse; not finite for a value that the shock cannot take."""
        raise SpecError(f"the shock '{self.name}' depends on the state, and values of it cannot be given")

    def faults(self) -> dict[str, Tensor]:
        """What may be wrong with parameters that were functions of the state, in words, and where (...) it is."""
        return {}

    # Its distribution

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
    """Normal with the given mean and standard deviation, or, for a vector, with covariance matrix `cov` (n, n). Mean
    and standard deviation may be functions of the state."""

    name: str
    std: Any = 1.0
    mean: Any = 0.0
    cov: Any = None
    size: int | None = None
    group: str | None = None

    may_vary: ClassVar[tuple[str, ...]] = ("mean", "std")

    def __post_init__(self) -> None:
        if self.cov is not None and self.size is None:
            object.__setattr__(self, "size", len(self.cov))

    def from_normal(self, z: Tensor) -> Tensor:
        mean = tensor_like(self.mean, z)
        if self.cov is None:
            return mean + tensor_like(self.std, z) * z
        return mean + z @ covariance_root(self.cov).to(z).T

    def to_standard(self, shown: Tensor) -> Tensor:
        return quotient(shown - tensor_like(self.mean, shown), tensor_like(self.std, shown))

    def faults(self) -> dict[str, Tensor]:
        return {"std is negative": (torch.as_tensor(self.std) < 0).any(dim=-1)}

    def check(self, title: str) -> None:
        check_moment(self.mean, self.size, f"{title}: mean")
        if self.cov is None:
            check_moment(self.std, self.size, f"{title}: std", smallest=0.0)
            return
        if self.varying:
            raise SpecError(
                f"{title} has cov and a function of the state; give std and corr of a Correlated in its place"
            )
        check_covariance(self.cov, self.size, f"{title}: cov")


@dataclass(frozen=True, eq=False)
class LogNormal(Shock):
    """exp(N) with the given standard deviation of the logarithm and the given mean of the level (default one); both may
    be functions of the state."""

    name: str
    std: Any = 1.0
    mean: Any = 1.0
    size: int | None = None
    group: str | None = None

    may_vary: ClassVar[tuple[str, ...]] = ("mean", "std")

    def from_normal(self, z: Tensor) -> Tensor:
        std = tensor_like(self.std, z)
        mean = tensor_like(self.mean, z)
        return mean * torch.exp(std * z - std**2 / 2)

    def to_standard(self, shown: Tensor) -> Tensor:
        std = tensor_like(self.std, shown)
        return quotient((shown / tensor_like(self.mean, shown)).log() + std**2 / 2, std)

    def faults(self) -> dict[str, Tensor]:
        return {
            "std is negative": (torch.as_tensor(self.std) < 0).any(dim=-1),
            "mean is not positive": (torch.as_tensor(self.mean) <= 0).any(dim=-1),
        }

    def check(self, title: str) -> None:
        check_moment(self.std, self.size, f"{title}: std", smallest=0.0)
        check_moment(self.mean, self.size, f"{title}: mean", smallest=0.0)
        if not callable(self.mean) and not (torch.as_tensor(self.mean) > 0).all():
            raise SpecError(f"{title}: mean is zero; the mean of a lognormal is positive")


@dataclass(frozen=True, eq=False)
class Uniform(Shock):
    """Uniform on [low, high], numbers or functions of the state; its own rule is Gauss-Legendre."""

    name: str
    low: Any = 0.0
    high: Any = 1.0
    size: int | None = None
    group: str | None = None

    may_vary: ClassVar[tuple[str, ...]] = ("low", "high")

    @property
    def standard(self) -> Shock:
        return Uniform(self.name, size=self.size, group=self.group)

    def from_standard(self, x: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * x

    def to_standard(self, shown: Tensor) -> Tensor:
        low, high = tensor_like(self.low, shown), tensor_like(self.high, shown)
        x = quotient(shown - low, high - low)
        return torch.where((x >= 0) & (x <= 1), x, torch.inf)

    def faults(self) -> dict[str, Tensor]:
        return {"low is above high": (torch.as_tensor(self.low) > torch.as_tensor(self.high)).any(dim=-1)}

    def from_normal(self, z: Tensor) -> Tensor:
        return self.from_standard(torch.special.ndtr(z))

    def nodes(self, n: int) -> Rule:
        x, w = np.polynomial.legendre.leggauss(n)
        points = torch.as_tensor(self.low + (self.high - self.low) * (x + 1) / 2).unsqueeze(-1)
        return product([(points, torch.as_tensor(w / 2))] * self.width)

    def check(self, title: str) -> None:
        low, high = self.low, self.high
        if self.varying:
            return
        if not is_finite_number(low) or not is_finite_number(high) or not low < high:
            raise SpecError(f"{title} has low = {low!r} and high = {high!r}; they must be finite, low below high")


@dataclass(frozen=True, eq=False)
class Discrete(Shock):
    """Finitely many values, (n,) or (n, k), with probabilities (n,): integrated exactly. The probabilities may be a
    function of the state, which gives a sequence of n, (1 - p, p), or a tensor (..., n)."""

    name: str
    values: Any = ()
    probabilities: Any = ()
    size: int | None = None

    discrete: ClassVar[bool] = True
    may_vary: ClassVar[tuple[str, ...]] = ("probabilities",)

    def __post_init__(self) -> None:
        if callable(self.values):
            raise SpecError(
                f"the shock '{self.name}': only its probabilities may be a function of the state; give numbers as its "
                "values, and write what varies into the transition"
            )
        if self.support.shape[-1] > 1 or torch.as_tensor(self.values).ndim == 2:
            object.__setattr__(self, "size", self.support.shape[-1])

    @property
    def support(self) -> Tensor:
        """All its values (J, width)."""
        values = torch.as_tensor(self.values, dtype=torch.float64).cpu()
        return values if values.ndim == 2 else values.unsqueeze(-1)

    def locate(self, shown: Tensor) -> Tensor:
        number = number_of(shown, torch.as_tensor(self.values, dtype=torch.float64), f"the shock '{self.name}'")
        return number if self.varying else shown

    @property
    def held(self) -> int | None:
        """The number of a value where probabilities depend on the state, as of a Markov chain."""
        return None if self.varying else self.size

    @property
    def standard(self) -> Shock:
        n = len(self.support)
        return Discrete(self.name, values=range(n), probabilities=[1 / n] * n)

    def reader(self, like: Tensor) -> Map | None:
        return value_reader(torch.as_tensor(self.values, dtype=torch.float64), like) if self.varying else None

    def parameter(self, value: Any, like: Tensor) -> Tensor:
        if isinstance(value, Sequence):
            return super().parameter(value, like)
        return tensor_like(value, like)

    def faults(self) -> dict[str, Tensor]:
        p = torch.as_tensor(self.probabilities)
        return {
            "a probability is negative": (p < 0).any(dim=-1),
            "the probabilities do not sum to one": (p.sum(dim=-1) - 1).abs() > SUMS_TO_ONE,
        }

    def nodes(self, n: int) -> Rule:
        return self.support, torch.as_tensor(self.probabilities, dtype=torch.float64).cpu()

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        u = torch.rand(*shape, generator=generator, dtype=torch.float64, device=generator.device)
        cumulative = torch.as_tensor(self.probabilities, dtype=torch.float64, device=u.device).cumsum(0)
        index = torch.searchsorted(cumulative / cumulative[-1], u.contiguous())
        return self.support.to(u.device)[index.clamp(max=len(cumulative) - 1)]

    def check(self, title: str) -> None:
        values = torch.as_tensor(self.values, dtype=torch.float64)
        check_values(values, title)
        width = self.support.shape[-1]
        if self.width != width:
            raise SpecError(f"{title} has size {self.size}, and values of width {width}; leave the size out")
        if self.varying:
            return
        probabilities = torch.as_tensor(self.probabilities, dtype=torch.float64)
        if probabilities.shape != values.shape[:1]:
            raise SpecError(f"{title} has {len(values)} values and probabilities of shape {tuple(probabilities.shape)}")
        check_probabilities(probabilities, title)


@dataclass(frozen=True, eq=False)
class Correlated(Shock):
    """Normals by the names by which the spec reads them, e.eps and e.eta: Correlated(("eps", "eta"), std=(0.1, 0.2),
    corr=0.5).

    `std` and `mean` are numbers for all of them or one for each, or functions of the state that give these; `corr` is
    the correlation of each pair, or a matrix (n, n). Or `cov`, their covariance (n, n).
    """

    names: Sequence[str]
    std: Any = 1.0
    corr: Any = 0.0
    mean: Any = 0.0
    cov: Any = None

    may_vary: ClassVar[tuple[str, ...]] = ("mean", "std")

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return ", ".join(self.names)

    @property
    def size(self) -> int:  # type: ignore[override]
        """How many they are."""
        return len(self.names)

    @property
    def parts(self) -> Sequence[Shock]:
        return [Normal(name) for name in self.names]

    @property
    def correlation(self) -> Tensor:
        """The correlations (n, n)."""
        corr = torch.as_tensor(self.corr, dtype=torch.float64)
        return corr if corr.ndim else (1 - corr) * torch.eye(self.size, dtype=torch.float64) + corr

    def from_normal(self, z: Tensor) -> Tensor:
        mean = tensor_like(self.mean, z)
        if self.cov is not None:
            return mean + z @ covariance_root(self.cov).to(z).T
        std = tensor_like(self.std, z)
        return mean + std * (z @ covariance_root(self.correlation).to(z).T)

    def to_standard(self, shown: Tensor) -> Tensor:
        away = shown - tensor_like(self.mean, shown)
        if self.cov is None:
            away = quotient(away, tensor_like(self.std, shown))
        root = covariance_root(self.correlation if self.cov is None else self.cov).to(shown)
        x = away @ torch.linalg.pinv(root).mT
        reached = torch.isclose(x @ root.mT, away, rtol=1e-6, atol=1e-9).all(dim=-1, keepdim=True)
        return torch.where(reached, x, torch.inf)

    def faults(self) -> dict[str, Tensor]:
        return {"std is negative": (torch.as_tensor(self.std) < 0).any(dim=-1)}

    def check(self, title: str) -> None:
        if self.size < 2:
            raise SpecError(f"{title} has {self.size} name(s); it needs two or more, and one alone is a Normal")
        check_moment(self.mean, self.size, f"{title}: mean")
        check_moment(self.std, self.size, f"{title}: std", smallest=0.0)
        if self.cov is not None:
            if callable(self.std) or self.std != 1.0 or self.corr != 0.0:
                raise SpecError(f"{title} has cov beside std or corr; give the one or the others")
            check_covariance(self.cov, self.size, f"{title}: cov")
            return
        corr = self.correlation
        check_covariance(corr, self.size, f"{title}: corr")
        if not torch.allclose(corr.diagonal(), torch.ones(self.size, dtype=torch.float64)):
            raise SpecError(f"{title}: corr has {corr.diagonal().tolist()} on its diagonal, which must be ones")


def check_covariance(matrix: Any, size: int | None, title: str) -> None:
    """A covariance or correlation matrix (size, size)."""
    cov = torch.as_tensor(matrix, dtype=torch.float64)
    if cov.shape != (size, size):
        raise SpecError(f"{title} has shape {tuple(cov.shape)}, and the shock size {size}; it must be ({size}, {size})")
    if not cov.isfinite().all() or not torch.allclose(cov, cov.T):
        raise SpecError(f"{title} is not symmetric, or not finite")
    smallest = float(torch.linalg.eigvalsh(cov).min())
    if smallest < -1e-10 * float(cov.abs().max()):
        raise SpecError(f"{title} is not positive semidefinite; its smallest eigenvalue is {smallest:.3g}")


def quotient(away: Tensor, scale: Tensor) -> Tensor:
    """away / scale, and zero where both are: what does not vary takes its one value."""
    none = (scale == 0) & (away.abs() < SAME)
    return torch.where(none, 0.0, away / torch.where(none, 1.0, scale))


def covariance_root(cov: Any) -> Tensor:
    """A root L of the covariance, L L' = cov; by eigenvalues, so that a singular covariance is welcome."""
    values, vectors = torch.linalg.eigh(torch.as_tensor(cov, dtype=torch.float64))
    return vectors * values.clamp(min=0).sqrt()
