"""Trust region policy optimisation: the natural gradient, as far as the divergence from the old policy allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from econrl.approximation.stochastic_policy import ActionDistribution, StochasticPolicy
from econrl.solvers.common.method import require
from econrl.solvers.on_policy.learner import Batch, OnPolicy, OnPolicyLearner


def surrogate(policy: StochasticPolicy, batch: Batch) -> Tensor:
    """E[ rho A ],   rho = pi(u | s) / pi_old(u | s)."""
    rho = (policy.distribution(batch.s).log_prob(batch.u) - batch.log_prob).exp()
    assert rho.shape == batch.advantage.shape, "a column of advantages would broadcast against a row of ratios"
    return (rho * batch.advantage).mean()


def fisher_product(policy: StochasticPolicy, s: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
    """x -> (F + damping I) x, with F the Hessian of E[KL(pi_old || pi)] at pi = pi_old, by two derivatives of it."""
    parameters = list(policy.parameters())
    pi = policy.distribution(s)
    old = ActionDistribution(pi.mdp, pi.mean.detach(), pi.log_std.detach(), tuple(x.detach() for x in pi.logits))
    slope = parameters_to_vector(torch.autograd.grad(old.kl(pi).mean(), parameters, create_graph=True))

    def product(x: Tensor) -> Tensor:
        Fx = torch.autograd.grad(slope @ x, parameters, retain_graph=True)
        return parameters_to_vector(Fx) + damping * x

    return product


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x with product(x) = b, nearly (Hestenes and Stiefel 1952). A fixed number of iterations: no test to wait for."""
    x, residual, direction = torch.zeros_like(b), b, b
    squared = residual @ residual
    for _ in range(iterations):
        image = product(direction)
        length = squared / (direction @ image).clamp(min=SMALLEST)
        x, residual = x + length * direction, residual - length * image
        before, squared = squared, residual @ residual
        direction = residual + squared / before.clamp(min=SMALLEST) * direction
    return x


@torch.no_grad()
def line_search(
    policy: StochasticPolicy, batch: Batch, step: Tensor, max_kl: float, backtracks: int
) -> tuple[Tensor, Tensor]:
    """Move by the longest of step, step/2, step/4 ... that raises the surrogate and keeps E[KL] <= max_kl; else stay.

    All are tried, since a device need not wait to know which was taken. Returns E[KL] and the surrogate's rise.
    """
    parameters = list(policy.parameters())
    before, old, level = parameters_to_vector(parameters), policy.distribution(batch.s), surrogate(policy, batch)
    taken, kl, rise = before, torch.zeros_like(level), torch.zeros_like(level)
    for k in reversed(range(backtracks)):
        tried = before + step / 2**k
        vector_to_parameters(tried, parameters)
        kl_tried, rise_tried = old.kl(policy.distribution(batch.s)).mean(), surrogate(policy, batch) - level
        good = (kl_tried <= max_kl) & (rise_tried > 0)
        taken = torch.where(good, tried, taken)
        kl, rise = torch.where(good, kl_tried, kl), torch.where(good, rise_tried, rise)
    vector_to_parameters(taken, parameters)
    return kl, rise


SMALLEST = 1e-20  # instead of dividing by zero, where the gradient has vanished


@dataclass(frozen=True)
class TRPO(OnPolicy):
    """Trust region policy optimisation.

        max_theta  E[ rho A ]   subject to   E[ KL(pi_old || pi) ] <= max_kl

    to first order in the one and second in the other: x = F^-1 g by conjugate gradients, the step sqrt(2 max_kl / x'Fx)
    x, halved until the surrogate rises and the constraint holds. The radius is annealed to zero as the learning rates
    of others are.

    Source: Schulman, Levine, Moritz, Jordan and Abbeel (2015), "Trust region policy optimization", ICML, appendix C.
    """

    name = "trpo"

    max_kl: float = 0.01
    """The largest mean KL divergence of an update."""
    iterations: int = 10
    """Conjugate gradient iterations."""
    damping: float = 0.01
    """Added to the diagonal of the Fisher matrix, which a batch knows only in part."""
    backtracks: int = 8
    """Lengths that the line search tries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("iterations", "backtracks"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "max_kl", self.max_kl > 0, "positive")
        require(self, "damping", self.damping >= 0, "at least 0")

    def improve(self, learner: OnPolicyLearner, batch: Batch, rate: float) -> None:
        policy, max_kl = learner.policy, self.max_kl * rate
        entropy = policy.distribution(batch.s).entropy().mean()
        gain = surrogate(policy, batch) + self.bonus(learner.mdp, rate) * entropy
        g = parameters_to_vector(torch.autograd.grad(gain, list(policy.parameters())))
        product = fisher_product(policy, batch.s, self.damping)
        x = conjugate_gradient(product, g, self.iterations)
        length = (2 * max_kl / (x @ product(x)).clamp(min=SMALLEST)).sqrt()
        line_search(policy, batch, length * x, max_kl, self.backtracks)
