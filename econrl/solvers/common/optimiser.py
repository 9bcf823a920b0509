"""Adam for small networks, and target networks that follow their online ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Kingma and Ba (2015), for the parameters of one network: torch's, without what a small network waits for."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters: list[Tensor] = list(network.parameters())
        self.means, self.squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradient: Sequence[Tensor], lr: float) -> None:
        """Move the parameters against this gradient."""
        adam(
            self.parameters,
            [g.contiguous() for g in gradient],  # the fused step goes through memory, and not through rows
            self.means,
            self.squares,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def descend(self, loss: Tensor, lr: float) -> None:
        """One step down the loss, on these parameters alone."""
        self.step(torch.autograd.grad(loss, self.parameters), lr)

    def state(self) -> list[list[Tensor]]:
        """Moments and step counts, which `restore` takes."""
        return [self.means, self.squares, self.steps]

    def restore(self, state: list[list[Tensor]]) -> None:
        """Go on from what `state` gave."""
        for own, kept in zip(self.state(), state, strict=True):
            for x, value in zip(own, kept, strict=True):
                x.copy_(value)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
