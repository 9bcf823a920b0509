"""What stands for a policy or a value function: a module over flat states that can be rebuilt from its description."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from econrl.problem.mdp import MDP

Box = tuple[Tensor, Tensor]
"""Low and high (S,) of states."""
Function = Callable[[Tensor], Tensor]
"""A policy or a value as solvers use it: any function of states (..., S)."""
KINDS: dict[str, type[StateFunction]] = {}
"""The classes by name, as saved folders call them."""


class StateFunction(nn.Module):
    """A function of states s (..., S): a policy gives actions (..., A), a value function gives (...).

    A subclass is built as `Kind(mdp, **description)`, holds everything else in parameters and buffers, and returns
    the description (numbers, strings and lists only) from `describe`. That is all that saving, loading and a change
    of precision or device need. Raises TypeError where another class has the name, which is its kind in saved folders.
    """

    def __init__(self, mdp: MDP) -> None:
        super().__init__()
        self.mdp = mdp

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = KINDS.get(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}: {known.__module__}.{known.__qualname__} has the same name, by "
                "which saved solutions know a policy or a value; choose another"
            )
        KINDS[cls.__name__] = cls

    def describe(self) -> dict[str, Any]:
        """What rebuilds it, beside its tensors: the keyword arguments of its class, as JSON holds them."""
        raise NotImplementedError

    def forward(self, s: Tensor) -> Tensor:
        raise NotImplementedError

    def reach(self, known: Box) -> Box:
        """The states at which it says something; beyond, `Solution` continues it from there. `known` are the domain and
        what paths visit around it, where a function was fitted. A whole number is taken to the nearest there is."""
        whole = torch.zeros_like(known[0], dtype=torch.bool)
        whole[self.mdp.whole] = True
        return known[0].masked_fill(whole, -torch.inf), known[1].masked_fill(whole, torch.inf)

    def probabilities(self, s: Tensor) -> Tensor:
        """Where a choice has taste shocks, so that what is chosen is random (`lottery.py`): the probability (..., D)
        with which a policy takes each combination of options at states s (..., S). Called as a function, it then gives
        the most likely one."""
        raise NotImplementedError(f"{type(self).__name__} does not know what it does where there are taste shocks")

    def under(self, s: Tensor, row: Tensor) -> Tensor:
        """The actions (..., A) of such a policy where it takes the combinations of options with these numbers (...)."""
        raise NotImplementedError(f"{type(self).__name__} does not know what it does where there are taste shocks")

    @property
    def follows_value(self) -> bool:
        """Whether a policy looks for the best action given a value, each time that it is asked. It is dear then, and
        its own later errors are those of the value."""
        return False

    def by_itself(self) -> StateFunction:
        """A policy that does not follow a value, where that would be in other units than the model's; itself if it does
        not anyway."""
        return self

    @property
    def knows_multipliers(self) -> bool:
        """Whether a policy also knows the multipliers of its bounds, which `multipliers(s)` then gives
        (`multipliers.py`)."""
        return False

    def multipliers(self, s: Tensor) -> Tensor:
        """What more of each action would bring beyond a bound that binds, unit-free, (..., A); zero elsewhere."""
        raise NotImplementedError

    def on(self, mdp: MDP) -> Self:
        """A copy that lives on another MDP's device and in its precision, without gradients."""
        return restore(type(self).__name__, mdp, self.describe(), copy.deepcopy(self.state_dict()))  # type: ignore[return-value]


def restore(kind: str, mdp: MDP, description: dict[str, Any], state: dict[str, Tensor]) -> StateFunction:
    """Build a function from what `describe` and `state_dict` said."""
    with torch.random.fork_rng(devices=[]):  # a network's first weights, soon overwritten, are no draw of the user's
        function = KINDS[kind](mdp, **description).to(mdp.device, mdp.dtype)
    function.load_state_dict(state)
    return function.requires_grad_(False)
