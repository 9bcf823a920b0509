"""Where a model goes wrong, in words: the state, the function, the line."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from econrl.errors import SolveError
from econrl.problem.layout import named
from econrl.problem.mdp import MDP


def describe(mdp: MDP, s: Tensor, a: Tensor | None = None) -> str:
    """One state, and action, in words: `state k = 0.93, z = 0.01; action c = 0.5`."""
    text = "state " + ", ".join(f"{name} = {show(value)}" for name, value in named(mdp.state(s)).items())
    if a is not None:
        text += "; action " + ", ".join(f"{name} = {show(value)}" for name, value in named(mdp.actions(a)).items())
    return text


def show(value: Tensor) -> str:
    """A number, or the first five of a vector, in words."""
    if value.ndim == 0:
        return f"{float(value):.5g}"
    return "[" + ", ".join(show(v) for v in value[:5]) + (", ...]" if len(value) > 5 else "]")


def line_of(error: BaseException, wanted: Callable[[str], bool]) -> str | None:
    """`file, line n` of the innermost wanted file on the way to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if wanted(frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


@torch.no_grad()
def first_fault(mdp: MDP, s: Tensor, a: Tensor) -> str | None:
    """Which function of the model is not finite at states s (B, S) and actions a (B, A), and where; None if all are."""
    name = type(mdp.model).__name__
    s_, a_ = s.unsqueeze(-2), a.unsqueeze(-2)
    shape = (len(s), len(mdp.nodes))
    results = {
        "reward": mdp.reward(s, a),
        "transition": mdp.transition(s_, a_, mdp.nodes).sum(dim=-1),
        "discount": mdp.discount(s_, a_, mdp.nodes).expand(shape),
    }
    if not a.isfinite().all():
        at = int((~a.isfinite()).any(dim=-1).int().argmax())
        return f"{name}: an action, or one of its bounds, is not finite at {describe(mdp, s[at])}"
    for function, values in results.items():
        bad = ~values.reshape(len(s), -1).isfinite().all(dim=-1)
        if bad.any():
            at = int(bad.int().argmax())
            value = values[at].flatten()
            value = value[~value.isfinite()][0]
            return f"{name}.{function} is {float(value)} at {describe(mdp, s[at], a[at])}"
    return None


class Broken:
    """Remembers the first batch of `batch` states with a target that is not finite, without making the device wait."""

    def __init__(self, mdp: MDP, batch: int) -> None:
        self.seen = torch.zeros((), dtype=torch.bool, device=mdp.device)
        self.s, self.u = mdp.low.new_zeros(batch, mdp.S), mdp.low.new_zeros(batch, mdp.A)

    def watch(self, s: Tensor, u: Tensor, y: Tensor) -> None:
        """Look at the targets y of the states s and the actions, given by their unbounded u."""
        self.s = torch.where(self.seen, self.s, s)
        self.u = torch.where(self.seen, self.u, u)
        self.seen = self.seen | (y - y).sum().isnan()  # x - x is zero, or not a number

    def raise_if_seen(self, mdp: MDP) -> None:
        """Raises SolveError that names the model's function and the state, or says that the training diverged."""
        if self.seen:
            fault = first_fault(mdp, self.s, mdp.act(self.s, self.u))
            name = type(mdp.model).__name__
            raise SolveError(
                f"{fault}. It was met while solving: mend the function, or the bounds that allow this state or action"
                if fault
                else f"training diverged on {name}: the value is not finite. Lower the learning rates, or check "
                "that the model's value is finite"
            )
