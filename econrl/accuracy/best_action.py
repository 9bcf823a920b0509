"""How far an action is from the best one, given the policy's own future, action by action.

With Q(s, a) = r(s, a) + E[beta V(s')] and g its derivative in shares y (`feasible_set.py`), a share is moved uphill,
all others held, up to the nearest place where g changes its sign:

    distance   |a - a*| / |a|                                 a* the action there
    loss       [Q(s, a*) - Q(s, a)] / (c u'(c))               summed over actions; shares of one period's consumption

Judd's consumption error is the first-order version. Nothing is divided by a marginal reward that may be zero, a bound
that binds is no error, nor is a kink at which the action sits: there g jumps across zero, and the distance is none.
Parts of a budget are moved against each other: to or from the part, or the rest, whose gain differs most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from econrl.problem.mdp import MDP

Gain = Callable[[Tensor, Tensor], Tensor]
"""dQ/da (n, A) at states (n, S) and actions (n, A)."""
OFF = 1e-9  # of a share's range: what is closer to a bound is on it, and a place so close is found
ROUNDING = 1e-13  # of one period's consumption: an action that brings less to move is at its optimum
PROBE = 1e-4  # of a share: the first move
REFINEMENTS, STRAIGHT = 16, 0.05  # steps of the search at most; the gain left, of that at the start, where it ends
MATTERS = 10.0  # largest distance in square roots of twice the loss: beyond, an action does not matter where it is
SMALLEST = 0.1  # an action is compared with itself, or with this share of its mean in the sample


@dataclass
class Gaps:
    """What is amiss at each state, and of each action."""

    distance: Tensor
    """|a - a*| / |a|, (n, A)."""
    kinked: Tensor
    """Whether g jumps at the nearest better action, (n, A)."""
    loss: Tensor
    """Of all actions, in units of one period's consumption, (n,)."""


def gaps(mdp: MDP, gain: Gain, added: Tensor, unit: Tensor, scale: Tensor, s: Tensor, a: Tensor) -> Gaps:
    """The gaps of continuous actions a (n, A) at states s (n, S), where Q_a is `gain` and what is `added` (n, A) to it;
    `unit` (n,) is c u'(c), `scale` (A,) the least size that an action is compared with."""
    y = mdp.shares(s, a)
    g = in_shares(mdp, gain, added, s, y)
    distance, kinked, loss = torch.zeros_like(a), torch.zeros_like(a, dtype=torch.bool), torch.zeros_like(unit)
    for i in range(mdp.A):
        uphill, room = direction(mdp, y, g, i)
        along = (g * uphill).sum(dim=-1)

        def slope(rows: Tensor, t: Tensor, uphill: Tensor = uphill) -> Tensor:
            moved = y[rows] + t.unsqueeze(-1) * uphill[rows]
            found = (in_shares(mdp, gain, added[rows], s[rows], moved) * uphill[rows]).sum(dim=-1)
            return found.nan_to_num(nan=-torch.inf)  # beyond the end of what is possible, nothing is to be gained

        size = y[:, i].abs().clamp(min=PROBE)
        along = torch.where(along * size > ROUNDING * unit, along, 0.0)
        t, jumps = nearest_root(slope, along, room, size)
        moved = (mdp.from_shares(s, y + t.unsqueeze(-1) * uphill) - mdp.from_shares(s, y))[:, i].abs()
        lost = along * t / 2 / unit
        size = a[:, i].abs().maximum(scale[i]).clamp(min=1e-300)
        distance[:, i] = torch.minimum(moved / size, MATTERS * (2 * lost).sqrt())
        kinked[:, i], loss = jumps, loss + lost
    broken = ~g.isfinite().all(dim=-1)
    return Gaps(distance.masked_fill(broken.unsqueeze(-1), 1.0), kinked, loss.masked_fill(broken, 1.0))


def in_shares(mdp: MDP, gain: Gain, added: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """dQ/dy (n, A): what a larger share of each action brings, later bounds that read it included."""
    G = gain(s, mdp.from_shares(s, y)) + added
    return torch.func.grad(lambda y: (G * mdp.from_shares(s, y)).sum())(y)


def direction(mdp: MDP, y: Tensor, g: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """Where share i is to be moved, in shares (n, A), and how far it can be, (n,)."""
    kind, slot = next((v, slot) for v, slot in mdp.continuous_actions if slot.start <= i < slot.stop)
    shares, up = kind.shares, torch.zeros_like(y)
    if not shares.shared:
        up[:, i] = torch.where(g[:, i] > 0, 1.0, -1.0)
        endless = torch.full_like(y[:, i], torch.inf)
        below = y[:, i] if shares.below or shares.above else endless
        above = 1 - y[:, i] if shares.below and shares.above else endless
        return up, torch.where(g[:, i] > 0, above, below) - OFF
    columns = slice(slot.start, slot.stop)
    parts = torch.cat([y[:, columns], 1 - y[:, columns].sum(dim=-1, keepdim=True)], dim=-1)
    gains = torch.cat([g[:, columns], torch.zeros_like(g[:, :1])], dim=-1)
    own = i - slot.start
    others = gains.index_fill(1, torch.tensor(own), -torch.inf)
    best = others.argmax(dim=-1, keepdim=True)
    lendable = torch.where(parts > OFF, gains, torch.inf).index_fill(1, torch.tensor(own), torch.inf)
    worst = lendable.argmin(dim=-1, keepdim=True)
    give = torch.where(parts[:, own] > OFF, others.gather(1, best)[:, 0] - gains[:, own], -torch.inf)
    take = gains[:, own] - lendable.gather(1, worst)[:, 0]
    gives = (give >= take).unsqueeze(-1)
    move = torch.zeros_like(parts)
    move[:, own] = torch.where(gives[:, 0], -1.0, 1.0)
    move.scatter_add_(1, torch.where(gives, best, worst), torch.where(gives, 1.0, -1.0).to(parts))
    room = torch.where(gives[:, 0], parts[:, own], parts.gather(1, worst)[:, 0])
    up[:, columns] = move[:, :-1]
    return up, room - OFF


def nearest_root(
    slope: Callable[[Tensor, Tensor], Tensor], start: Tensor, room: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """The t (n,) nearest to zero, at most `room`, at which slope(rows, t) is no longer positive, and whether it jumps
    there; zero where `start`, the slope at zero, is not positive or there is no room. `size` (n,) is what is large.

    A secant through zero and a first probe; where the slope is no straight line, secants and bisections of log t in
    turn, in a bracket.
    """
    t, jumps = torch.zeros_like(start), torch.zeros_like(start, dtype=torch.bool)
    rows = ((start > 0) & (room > 0)).nonzero().flatten()
    search = Search.of(rows, start[rows], room[rows], size[rows])
    for step in range(REFINEMENTS):
        if len(search.rows) == 0:
            break
        found = slope(search.rows, search.trial)
        search.narrow_down(found)
        root, jump, done = search.root(found, first=step == 0, last=step == REFINEMENTS - 1)
        t[search.rows[done]], jumps[search.rows[done]] = root[done], jump[done]
        search.trial = search.next_trial(found, step)
        search = search.only(~done)
    return t, jumps


@dataclass
class Search:
    """The roots that are still sought, (m,) each: the slope is positive at `low`, and not at `high`."""

    rows: Tensor
    start: Tensor
    room: Tensor
    least: Tensor
    """Below this, a place is zero."""
    low: Tensor
    at_low: Tensor
    high: Tensor
    at_high: Tensor
    trial: Tensor

    @classmethod
    def of(cls, rows: Tensor, start: Tensor, room: Tensor, size: Tensor) -> Search:
        """The search before its first probe."""
        endless = torch.full_like(start, torch.inf)
        trial = (PROBE * size).minimum(room)
        return cls(rows, start, room, OFF * size, torch.zeros_like(start), start, endless, -endless, trial)

    def only(self, keep: Tensor) -> Search:
        """Those that go on."""
        return Search(*(getattr(self, field.name)[keep] for field in fields(self)))

    def narrow_down(self, found: Tensor) -> None:
        """Let the trial be one end of the bracket."""
        positive = found > 0
        self.low, self.at_low = torch.where(positive, self.trial, self.low), torch.where(positive, found, self.at_low)
        self.high = torch.where(positive, self.high, self.trial)
        self.at_high = torch.where(positive, self.at_high, found)

    def root(self, found: Tensor, first: bool, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Where the root is, whether the slope jumps there, and whether that is known well enough."""
        met = (found.abs() <= STRAIGHT * self.start) & (not first)
        ended = (found > 0) & (self.trial >= self.room)
        narrow = self.high <= 1.1 * self.low.maximum(self.least)
        line = self.trial + found * self.trial / (self.start - found).clamp(min=1e-300)
        bracket = torch.where(self.high.isfinite(), self.high, self.low)
        bracket = torch.where(bracket <= 2 * self.least, 0.0, bracket)
        root = torch.where(met, line, torch.where(ended, self.room, bracket)).clamp(min=0)
        return root, narrow & ~met, met | ended | narrow | last

    def next_trial(self, found: Tensor, step: int) -> Tensor:
        """Where the slope is to be looked at next."""
        if step == 0:  # the straight line through zero and the probe
            line = self.trial * self.start / (self.start - found)
            return torch.where((found < self.start) & line.isfinite(), line, 10 * self.trial).minimum(self.room)
        secant = (self.low * self.at_high - self.high * self.at_low) / (self.at_high - self.at_low)
        bisection = (self.low.maximum(self.least) * self.high).sqrt()
        inside = secant.isfinite() & (secant > self.low) & (secant < self.high)
        within = torch.where(inside & (step % 2 == 1), secant, bisection)
        return torch.where(self.high.isfinite(), within, 4 * self.trial).minimum(self.room)
