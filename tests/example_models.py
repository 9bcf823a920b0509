"""Models with every kind of variable, which several test files look at."""

from dataclasses import dataclass

import torch

from econrl import Action, Budget, Choice, DiscreteState, MarkovChain, Model, Normal, State


@dataclass(frozen=True, kw_only=True)
class Mixed(Model):
    """Choices before, between and after continuous actions, whose bounds read them; a discrete state."""

    beta: float = 0.9

    def states(self):
        return State("k", low=1.0, high=2.0), DiscreteState("mood", n=3)

    def actions(self):
        return (
            Choice("work", n=2),
            Action("c", low=0.0, high=lambda s, a: s.k * (1 + a.work)),
            Choice("town", n=3),
            Budget("x", size=2, total=lambda s, a: s.k + a.town),
        )

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        return a.c.log() + (a.x * torch.tensor([1.0, 2.0])).sum(-1).log() - a.work * s.k + a.town * s.mood / 10

    def transition(self, s, a, e):
        return {"k": 1 + 0.5 * (s.k - 1) + 0.1 * a.work, "mood": a.town}


@dataclass(frozen=True, kw_only=True)
class Everything(Model):
    """Scalar, vector and chain states; every kind of bound; bounds that read the state and earlier actions."""

    beta: float = 0.9

    def states(self):
        chain = MarkovChain("y", values=((1.0, 0.0), (2.0, -1.0), (3.0, 0.5)), P=torch.full((3, 3), 1 / 3))
        return State("k", low=0.5, high=2.0), State("x", low=-1.0, high=1.0, size=2), chain

    def actions(self):
        return (
            Action("two", low=-1.0, high=3.0),
            Action("free", scale=2.0),
            Action("above", low=1.0, scale=3.0),
            Action("below", high=lambda s: s.k, scale=0.5),
            Action("c", low=0.0, high=self.wealth),
            Action("after", low=lambda s, a: -a.c, high=lambda s, a: s.k - a.c / 4),
            Action("v", low=lambda s: s.x - 1, high=lambda s: s.k, size=2),
            Budget("w", size=3, total=lambda s, a: s.k + a.c),
        )

    def shocks(self):
        return Normal("eps", std=0.1), Normal("eta", cov=((1.0, 0.5), (0.5, 2.0)))

    def wealth(self, s):
        return s.k * s.y[..., 0]

    def reward(self, s, a):
        return (a.c + 1).log() - a.two**2 - a.free**2 + (a.v * s.x).sum(-1) + (a.w * s.k.unsqueeze(-1)).sum(-1)

    def transition(self, s, a, e):
        k = 0.5 * s.k + 0.1 * (a.c + a.w.sum(-1)) + 0.1 * e.eps
        return {"x": 0.5 * s.x + 0.1 * a.v + e.eta + s.y, "k": k}
