"""Networks fitted to a function's values and slopes at sampled states, by Gauss-Newton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from econrl.approximation.networks import Features
from econrl.approximation.units import Units
from econrl.problem.mdp import MDP
from econrl.solvers.polish.levenberg_marquardt import GaussNewton, Parameters

NUMBERS = 4_000_000  # of a Jacobian, held at once
LEVEL = (
    3.0  # weight of an error of the value, in its spread, beside one of a slope: those of the value add up over time
)
DAMPING = 1e-5  # of the first step: what is fitted has no noise
NO_SLOPE = 1e-3  # of the value's spread over half the domain: less is none
SMALL_SLOPE, SMALLEST_SLOPE = (
    0.1,
    0.01,
)  # of a slope's usual size, and of the largest one's, below which none is "small"


@dataclass(frozen=True)
class Rows:
    """What a value network is to say at states (N, S): x (N, F) its inputs, v (N,) its output, and its slopes
    D N_x = w (N, d), in units in which an error of one is one of 100 per cent."""

    x: Tensor
    v: Tensor
    D: Tensor
    w: Tensor

    def flat(self) -> Tensor:
        """One row (F + 1 + d F + d) a state."""
        return torch.cat([self.x, self.v.unsqueeze(-1), self.D.flatten(1), self.w], dim=-1)


def slope_sizes(mdp: MDP, slopes: Tensor) -> Tensor:
    """What errors of slopes (N, d) in the continuous states are compared with, (N, d): the slope itself, since slopes
    are marginal utilities, and a policy feels their relative error; where it is small beside its usual size or the
    largest slope's, that."""
    reach = ((mdp.high - mdp.low) / 2)[mdp.continuous].clamp(min=1e-300)
    usual = slopes.square().mean(dim=0).sqrt()
    least = torch.maximum(SMALL_SLOPE * usual, SMALLEST_SLOPE * (usual * reach).max() / reach)
    return torch.hypot(slopes, least.maximum(NO_SLOPE / reach))


def rows_for(mdp: MDP, features: Features, s: Tensor, raw: Tensor, slopes: Tensor) -> Rows:
    """Rows for a function whose values at the states s (N, S) are `raw` (N,) and whose slopes in the continuous ones
    are `slopes` (N, d), both in the unit of the network."""
    directions = torch.eye(mdp.S, dtype=s.dtype, device=s.device)[mdp.continuous]

    def along(direction: Tensor) -> Tensor:
        return torch.func.jvp(features, (s,), (direction.expand_as(s),))[1]

    x, D = features(s), torch.func.vmap(along, out_dims=1)(directions)  # (N, d, F)
    size = slope_sizes(mdp, slopes)
    return Rows(x, raw, D / size.unsqueeze(-1), slopes / size)


def fit_value(net: nn.Module, rows: Rows, steps: int, look_at_the_clock: Callable[[], None] = lambda: None) -> float:
    """Fit a network to values and slopes; the root mean square error."""
    F, d = rows.x.shape[-1], rows.w.shape[-1]

    def gap(theta: Parameters, row: Tensor) -> Tensor:
        x, v, D, w = row.split([F, 1, d * F, d])

        def N(x: Tensor) -> Tensor:
            return torch.func.functional_call(net, theta, (x,))

        slope = torch.func.vmap(lambda along: torch.func.jvp(N, (x,), (along,))[1])(D.view(d, F))
        return torch.cat([LEVEL * (N(x) - v), slope.squeeze(-1) - w])

    return fit(net, gap, rows.flat(), 1 + d, steps, look_at_the_clock)


def fit_outputs(
    net: nn.Module, x: Tensor, z: Tensor, steps: int, look_at_the_clock: Callable[[], None] = lambda: None
) -> float:
    """Fit a network to outputs z (N, A) at inputs x (N, F); the root mean square error."""

    def gap(theta: Parameters, row: Tensor) -> Tensor:
        x_, z_ = row.split([x.shape[-1], z.shape[-1]])
        return torch.func.functional_call(net, theta, (x_,)) - z_

    return fit(net, gap, torch.cat([x, z], dim=-1), z.shape[-1], steps, look_at_the_clock)


def fit(
    net: nn.Module,
    gap: Callable[[Parameters, Tensor], Tensor],
    rows: Tensor,
    each: int,
    steps: int,
    look_at_the_clock: Callable[[], None],
) -> float:
    """Gauss-Newton steps on the squared gaps, `each` a row."""
    size = sum(p.numel() for p in net.parameters())
    chunk = max(NUMBERS // (size * each), 1)
    return GaussNewton(gap, net, chunk, DAMPING, look_at_the_clock=look_at_the_clock).fit(rows, steps)


def unit_for(features: Features, s: Tensor, v: Tensor) -> Units:
    """The unit in which values v (N,) at states s (N, S) are nearest to a linear function of the features: V itself or,
    where all have one sign, its logarithm, with a spread of one."""
    x = features(s)
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=-1)

    def unexplained(unit: Units) -> float:
        y = unit.raw(v).unsqueeze(-1)
        left = y - x @ torch.linalg.lstsq(x, y, driver="gelsd").solution
        return float(left.square().mean() / y.var().clamp(min=1e-300))

    plain = Units(float(v.mean()), max(float(v.std()), 1e-6 * float(v.abs().mean()), 1e-12))
    if not bool((v.sign() == v[0].sign()).all()) or float(v[0]) == 0:
        return plain
    logs = v.abs().log()
    wide = Units(float(logs.mean()), max(float(logs.std()), 1e-6), int(v[0].sign()))
    return min((plain, wide), key=unexplained)
