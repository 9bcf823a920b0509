"""The domain that a policy's own paths ask for.

`low` and `high` of a spec say where to begin. A calibration moves the states that are visited: twice the standard
deviation of the shocks, and half of them lie outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from econrl.errors import SpecError
from econrl.problem.layout import Slot
from econrl.problem.lottery import drawn
from econrl.problem.mdp import MDP
from econrl.problem.simulate import move
from econrl.problem.state_function import Function
from econrl.problem.steady_state import mean_transition
from econrl.spec.variables import StateKind

OUTSIDE = 1e-3  # share of the visited states outside the domain that calls for a wider one; half of it on each side
ROOM = 0.15  # beyond the quantile on a side, over its distance from the median: 3.3 standard deviations become 3.8
FARTHEST, NEAREST = 4.0, 0.01  # how far an end moves at once: widths of the domain; share of a positive low end
FOLLOWED, LOST = 100.0, 0.1  # widths, how far paths are followed; share of them that may go farther
SETTLED = 1.25  # times its width to which a distribution may grow; that of a random walk grows by 1.43
PATHS, BURN_IN, PERIODS = 400, 200, 300
DEVIATIONS = 4.0  # standard deviations of the linearised model to each side
PROBES, HALVINGS = 256, 8
DOUBLINGS = 40  # 2^40 periods: what has not settled by then never does


@dataclass(frozen=True)
class Widening:
    """Where a policy's paths go, and the domain that covers them."""

    outside: float
    """Share of the visited states that lie outside the domain."""
    by_state: dict[str, float]
    """The same, state by state; those alone of which any lie outside."""
    domain: dict[str, Any]
    """For `Model.with_domain`: low and high of the states to be widened. Empty where none can or need be."""
    growing: tuple[str, ...]
    """The states that paths carry away for ever, whose domain is left as it is."""

    @property
    def text(self) -> str:
        """In words, for a message."""
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.by_state.items())
        found = f"{self.outside:.1%} of the simulated states lie outside the domain ({shares})"
        if self.growing:
            found += f"; {', '.join(self.growing)} moves on without end, so that no domain holds it"
        return found


@torch.no_grad()
def widened(mdp: MDP, policy: Function, seed: int = 0) -> Widening | None:
    """The domain of `mdp`, widened to cover the paths of a policy with some room; None where at most one in a thousand
    of their states lies outside.

    Of a stationary model the paths are looked at after `BURN_IN` periods, of a life cycle from the initial states to
    the last age. Ends move outwards alone, to the 0.05 per cent quantile and a bit beyond, in logarithms where the
    domain is positive; at most `FARTHEST` widths of the domain at once, and no farther than the model makes sense,
    where bounds do not cross, and reward and transition are finite. A state that wanders off has no ergodic
    distribution to be covered, and keeps its ends (`wanders`).
    """
    generator = torch.Generator(mdp.device).manual_seed(seed)
    kept, lost = visited(mdp, policy, generator)
    s = torch.cat(kept)
    beyond = {slot.name: columns_outside(mdp, s, slot) for _, slot in moving(mdp)}
    share = float(torch.stack(list(beyond.values())).any(dim=0).double().mean()) if beyond else 0.0
    growing = [slot.name for _, slot in moving(mdp) if any(wanders(mdp, kept, lost, c) for c in slot.indices)]
    if share <= OUTSIDE and not growing:
        return None
    wanted = mdp.low.clone(), mdp.high.clone()
    for _, slot in moving(mdp):
        if slot.name not in growing:
            for column in slot.indices:
                wanted[0][column], wanted[1][column] = covering(mdp, s[:, column], column)
    shares = {name: float(out.double().mean()) for name, out in beyond.items() if out.any()}
    return Widening(share, shares, as_far_as_sound(mdp, *wanted, generator), tuple(growing))


def around(mdp: MDP, policy: Function, s: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """The domain that holds four standard deviations of the linearised model around its steady state s (S,), for
    `Model.with_domain`: what a first-order perturbation tells before anything else is solved. Ends move outwards alone,
    and only in states that have a stationary distribution.

        s' - s* = M (s - s*) + n,     Sigma = M Sigma M' + Omega,     Omega the covariance of s' given s*
    """
    std = spread(mdp, policy, s)
    low, high = s - DEVIATIONS * std, s + DEVIATIONS * std
    positive = (mdp.low > 0) & (s > 0)
    far = (DEVIATIONS * std / s.abs()).clamp(max=20).exp()
    low, high = torch.where(positive, s / far, low), torch.where(positive, s * far, high)
    known = std.isfinite()
    for column in set(range(mdp.S)) - {c for _, slot in moving(mdp) for c in slot.indices}:
        known[column] = False
    farthest = limits(mdp)
    low = torch.where(known, low, mdp.low).minimum(mdp.low).maximum(farthest[0])
    high = torch.where(known, high, mdp.high).maximum(mdp.high).minimum(farthest[1])
    return as_far_as_sound(mdp, low, high, generator)


def spread(mdp: MDP, policy: Function, s: Tensor) -> Tensor:
    """The standard deviations (S,) of the model linearised at its steady state s; infinite, or none, for a state that
    does not return there."""
    M = torch.func.jacrev(lambda s: mean_transition(mdp, s, policy(s)))(s).detach()
    reached, w = mdp.transition(s, policy(s), mdp.nodes).expand(len(mdp.nodes), -1), mdp.weights(s).unsqueeze(-1)
    away = reached - (w * reached).sum(dim=0)
    total = ((w * away).mT @ away).detach()
    for _ in range(DOUBLINGS):
        total, M = total + M @ total @ M.mT, M @ M
    return total.diagonal().clamp(min=0).sqrt()


def outside_text(mdp: MDP, s: Tensor, what: str, share: float = 0.0) -> str:
    """What to say of states s (N, S) of which more than a share lie outside the domain; nothing of others."""
    outside = ~mdp.inside(s)
    if len(s) == 0 or outside.double().mean() <= share:
        return ""
    sides, wider = [], []
    for slot in mdp.state_slots:
        columns = [c for c in slot.indices if c in mdp.continuous]
        x, low, high = s[:, columns], mdp.low[columns], mdp.high[columns]
        if (x < low).any():
            sides.append(f"{slot.name} down to {float(x.min()):.4g}, below {float(low.min()):.4g}")
        if (x > high).any():
            sides.append(f"{slot.name} up to {float(x.max()):.4g}, above {float(high.max()):.4g}")
        if ((x < low) | (x > high)).any():
            ends = float(low.min().minimum(x.min())), float(high.max().maximum(x.max()))
            wider.append(f'"{slot.name}": ({ends[0]:.4g}, {ends[1]:.4g})')
    number = f"{int(outside.sum()):,} of {len(s):,}" if share == 0 else f"{float(outside.double().mean()):.1%} of the"
    return (
        f"{number} {what} lie outside the domain that the model was solved on ({'; '.join(sides)}). There the policy "
        "is continued from within, and its errors are not known: widen `low` or `high`, or solve "
        f"model.with_domain({{{', '.join(wider)}}})"
    )


def in_numbers(domain: dict[str, Any]) -> str:
    """A domain in words: k in [0.5, 1.6]."""
    ends = {name: (torch.as_tensor(low).min(), torch.as_tensor(high).max()) for name, (low, high) in domain.items()}
    return ", ".join(f"{name} in [{float(low):.4g}, {float(high):.4g}]" for name, (low, high) in ends.items())


# Where paths go


def moving(mdp: MDP) -> list[tuple[StateKind, Slot]]:
    """The continuous states, but for parameters, each with its columns."""
    columns = [c for c in mdp.continuous if c not in mdp.parameters]
    laid = zip(mdp.state_variables, mdp.state_slots, strict=False)  # without t
    return [(kind, slot) for kind, slot in laid if slot.start in columns]


def limits(mdp: MDP) -> tuple[Tensor, Tensor]:
    """How far ends move at once, (S,) each: `FARTHEST` widths of the domain; towards zero by as many log widths where
    the domain is positive, and no nearer than a hundredth of its low end."""
    width = mdp.high - mdp.low
    ratio = torch.where(mdp.low > 0, mdp.low / mdp.high, 1.0)
    near_zero = mdp.low * (ratio**FARTHEST).clamp(min=NEAREST)
    return torch.where(mdp.low > 0, near_zero, mdp.low - FARTHEST * width), mdp.high + FARTHEST * width


def visited(mdp: MDP, policy: Function, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """The states (n, S) of the policy's paths, period by period, without the paths that have gone too far; and the
    share of the paths that each state (S,) carried there."""
    n = PATHS if mdp.horizon is None else max(PATHS * PERIODS // mdp.horizon // 4, PATHS)
    burn_in, periods = (BURN_IN, PERIODS) if mdp.horizon is None else (0, mdp.horizon)
    room = FOLLOWED * (mdp.high - mdp.low)
    s, kept, lost = mdp.sample_initial(n, generator), [], mdp.low.new_zeros(mdp.S)
    for _ in range(burn_in + periods):
        kept.append(s)
        _, reached = move(mdp, s, drawn(mdp, policy, s, generator), generator)
        reached = reached[mdp.living(reached)[0]]
        near = (reached >= mdp.low - room) & (reached <= mdp.high + room)  # numbers that are none are not
        lost += (~near).sum(dim=0) / n
        s = reached[near[:, mdp.continuous].all(dim=-1)]
        if len(s) == 0:
            break
    return kept[min(burn_in, len(kept) // 2) :], lost


def wanders(mdp: MDP, kept: list[Tensor], lost: Tensor, column: int) -> bool:
    """Whether a state of a stationary model moves on and on, as wealth that grows: whether it carries paths far away,
    or from the first to the last fifth of the periods its distribution gets wider, or its median moves by more than
    most of it."""
    if mdp.horizon is not None or lost[column] > LOST:
        return mdp.horizon is None
    fifth = max(len(kept) // 5, 1)
    first, last = (torch.cat(part)[:, column] for part in (kept[:fifth], kept[-fifth:]))
    if mdp.low[column] > 0:
        first, last = first.clamp(min=0).log(), last.clamp(min=0).log()
    levels = mdp.tensor([0.1, 0.5, 0.9])
    (low, middle, high), (lower, then, higher) = first.quantile(levels), last.quantile(levels)
    return bool(((then - middle).abs() > high - low) | (higher - lower > SETTLED * (high - low)))


def columns_outside(mdp: MDP, s: Tensor, slot: Slot) -> Tensor:
    """Which of the states s (N, S) lie outside in any column of a state, (N,)."""
    x = slot.read(s) if slot.size is not None else slot.read(s).unsqueeze(-1)
    columns = list(slot.indices)
    return ((x < mdp.low[columns]) | (x > mdp.high[columns])).any(dim=-1)


def covering(mdp: MDP, x: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """The ends for one column from its visited values x (N,), each moved where enough of them lie beyond."""
    low, high = mdp.low[column], mdp.high[column]
    farthest = [end[column] for end in limits(mdp)]
    logs = bool(low > 0)
    tail = OUTSIDE / 2
    at = (x.log() if logs else x).quantile(mdp.tensor([tail, 0.5, 1 - tail]))
    ends = at[1] + (1 + ROOM) * (at[[0, 2]] - at[1])
    below, above = ends.exp() if logs else ends
    return (
        torch.minimum(low, below).maximum(farthest[0]) if (x < low).double().mean() > tail else low,
        torch.maximum(high, above).minimum(farthest[1]) if (x > high).double().mean() > tail else high,
    )


# How far a model makes sense


def as_far_as_sound(mdp: MDP, low: Tensor, high: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """The domain from low to high (S,), by state, each end moved back from where the model breaks down; of states that
    are wider than now alone. Parts of a vector whose domain is one keep one."""
    ends = torch.stack([mdp.low, mdp.high])
    found: dict[str, Any] = {}
    for kind, slot in moving(mdp):
        columns = list(slot.indices)
        pair = torch.stack([low[columns], high[columns]])
        if bool((ends[:, columns] == ends[:, columns[:1]]).all()):  # alike, and exchangeable where they are a group
            pair = torch.stack([pair[0].min().expand(len(columns)), pair[1].max().expand(len(columns))])
        for side in (0, 1):
            ends = sound_end(mdp, ends, columns, side, pair[side], generator)
        new = [x[columns].tolist() for x in ends]
        if new != [x[columns].tolist() for x in (mdp.low, mdp.high)]:
            domain = tuple(x[0] if slot.size is None else tuple(x) for x in new)
            try:
                kind.with_domain(*domain)
            except SpecError:  # a kind whose domain is what it is
                ends[:, columns] = torch.stack([mdp.low, mdp.high])[:, columns]
                continue
            found[kind.name] = domain
    return found


def sound_end(
    mdp: MDP, ends: Tensor, columns: list[int], side: int, wanted: Tensor, generator: torch.Generator
) -> Tensor:
    """The domain `ends` (2, S) with one side of these columns moved towards `wanted`, as far as the model is as sound
    there as at the end that it has."""
    s = mdp.sample_box(PROBES, generator)
    inner = [c for c in mdp.continuous if c not in columns]
    u = torch.rand(PROBES, len(inner), generator=generator, dtype=s.dtype, device=s.device)
    s[:, inner] = ends[0, inner] + (ends[1, inner] - ends[0, inner]) * u

    def moved(t: float) -> Tensor:
        return ends[side, columns] + t * (wanted - ends[side, columns])

    def sound(t: float) -> float:
        at = s.clone()
        at[:, columns] = moved(t)
        return share_sound(mdp, at)

    if bool((wanted == ends[side, columns]).all()):
        return ends
    least, most = 0.0, 1.0
    now = sound(0.0)
    if sound(1.0) < now:
        for _ in range(HALVINGS):
            half = (least + most) / 2
            least, most = (half, most) if sound(half) >= now else (least, half)
        most = least
    ends = ends.clone()
    ends[side, columns] = moved(most)
    return ends


def share_sound(mdp: MDP, s: Tensor) -> float:
    """Share of the states s (N, S) at which bounds do not cross, and reward and next states are finite half way between
    them."""
    a = mdp.act(s, s.new_zeros(len(s), mdp.A))
    ok = mdp.reward(s, a).isfinite() & mean_transition(mdp, s, a).isfinite().all(dim=-1)
    for kind, slot in mdp.feasible_set.laid:
        if kind.shares.compact:
            ok &= (mdp.widths(s, a)[:, slot.start : slot.stop] >= 0).all(dim=-1)
    return float(ok.double().mean())
