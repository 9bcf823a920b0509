"""The states at which fitted value iteration takes maxima: where lives go, around there, and in the box."""

from __future__ import annotations

import torch
from torch import Tensor

from econrl.approximation.constant_shares import best_constant_shares
from econrl.problem.lottery import drawn
from econrl.problem.mdp import MDP
from econrl.problem.simulate import move
from econrl.problem.state_function import Function

FROM_BOX, AROUND = 0.3, 0.35  # shares of the states that are of the box, and visited ones moved away from their mean
FURTHER = 2.0  # times as far from it
NOISE = 1.0  # of u around constant shares, where no policy is known yet


@torch.no_grad()
def first_lives(mdp: MDP, n: int, generator: torch.Generator) -> Tensor:
    """States (T, n, S) of lives under the best constant shares and much noise, with options drawn at random."""
    u = best_constant_shares(mdp, generator).u

    def policy(s: Tensor) -> Tensor:
        noisy = u + NOISE * torch.randn(len(s), mdp.A, generator=generator, dtype=s.dtype, device=s.device)
        return mdp.act(s, mdp.sample_options(noisy, generator))

    return lives(mdp, policy, n, generator)


@torch.no_grad()
def lives(mdp: MDP, policy: Function, n: int, generator: torch.Generator) -> Tensor:
    """States (T, n, S) of lives under a policy; paths without numbers are left where they were."""
    s, visited = mdp.sample_initial(n, generator), []
    for _ in range(mdp.horizon or 1):
        visited.append(s)
        _, reached = move(mdp, s, drawn(mdp, policy, s, generator), generator)
        here = torch.cat([s[:, :-1], reached[:, -1:]], dim=-1)
        s = torch.where(reached.isfinite().all(dim=-1, keepdim=True), reached, here)
    return torch.stack(visited)


def states_around(mdp: MDP, visited: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n states: of those visited (N, S), such as are further from their mean, and of the box, of the same period."""
    from_box = int(FROM_BOX * n)
    rows = torch.randint(len(visited), (n - from_box,), generator=generator, device=visited.device)
    own = visited[rows]
    around = int(AROUND * n)
    own[:around] = further(mdp, visited, own[:around])
    box = box_states(mdp, from_box, generator)
    if mdp.horizon is not None:
        box[:, -1] = visited[0, -1]
    return torch.cat([own, box])


def further(mdp: MDP, visited: Tensor, s: Tensor) -> Tensor:
    """The states s (n, S), further away from the mean of those visited, in logarithms for the logarithmic states, and
    within the domain or what was visited."""
    low = torch.minimum(mdp.low, visited.amin(dim=0))
    high = torch.maximum(mdp.high, visited.amax(dim=0))
    moved, logs = s.clone(), mdp.logarithmic
    plain = [c for c in mdp.continuous if c not in logs]
    for columns, into, back in ((plain, lambda x: x, lambda x: x), (logs, torch.log, torch.exp)):
        x = into(visited[:, columns].maximum(low[columns]))
        here = into(s[:, columns].maximum(low[columns]))
        moved[:, columns] = back(x.mean(dim=0) + FURTHER * (here - x.mean(dim=0)))
    return moved.maximum(low).minimum(high)


def box_states(mdp: MDP, n: int, generator: torch.Generator) -> Tensor:
    """n states of the domain; half of them uniform in the logarithms of the logarithmic states."""
    s, logs = mdp.sample_box(n, generator), mdp.logarithmic
    low, high = mdp.low[logs], mdp.high[logs]
    u = (s[: n // 2, logs] - low) / (high - low)
    s[: n // 2, logs] = low * (high / low) ** u
    return s
