"""Proximal policy optimisation: many gradient steps on one rollout, kept near the policy that drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from econrl.approximation.stochastic_policy import StochasticPolicy
from econrl.errors import MethodError
from econrl.problem.mdp import MDP
from econrl.solvers.common.method import require
from econrl.solvers.on_policy.learner import Batch, OnPolicy, OnPolicyLearner


def clipped_loss(policy: StochasticPolicy, batch: Batch, clip: float, entropy: float) -> Tensor:
    """-E[ min(rho A, clip(rho, 1 - clip, 1 + clip) A) ] - entropy E[H],   rho = pi(u | s) / pi_old(u | s).

    Nothing is gained by moving an action's probability further than a share `clip` in the direction of its advantage.
    """
    pi = policy.distribution(batch.s)
    rho = (pi.log_prob(batch.u) - batch.log_prob).exp()
    assert rho.shape == batch.advantage.shape, "a column of advantages would broadcast against a row of ratios"
    gain = torch.minimum(rho * batch.advantage, rho.clamp(1 - clip, 1 + clip) * batch.advantage)
    return -gain.mean() - entropy * pi.entropy().mean()


def penalised_loss(
    policy: StochasticPolicy, old: StochasticPolicy, batch: Batch, weight: Tensor, entropy: float
) -> Tensor:
    """-E[ rho A ] + weight E[ KL(pi_old || pi) ] - entropy E[H]."""
    pi = policy.distribution(batch.s)
    rho = (pi.log_prob(batch.u) - batch.log_prob).exp()
    assert rho.shape == batch.advantage.shape, "a column of advantages would broadcast against a row of ratios"
    kl = old.distribution(batch.s).kl(pi)
    return -(rho * batch.advantage).mean() + weight * kl.mean() - entropy * pi.entropy().mean()


def adapted(weight: Tensor, kl: Tensor, target: float) -> Tensor:
    """The penalty's weight for the next update: half where the policy moved too little, twice where too far, as the
    paper has it (section 4, which finds that the numbers hardly matter)."""
    return torch.where(kl < target / 1.5, weight / 2, torch.where(kl > target * 1.5, weight * 2, weight))


@dataclass(frozen=True)
class PPO(OnPolicy):
    """Proximal policy optimisation: `epochs` passes over each rollout, with clipped ratios or a penalty on KL.

    See `clipped_loss` and `penalised_loss`; the penalty's weight is adapted to keep KL near `target_kl`.

    Source: Schulman, Wolski, Dhariwal, Radford and Klimov (2017), "Proximal policy optimization algorithms",
    arXiv:1707.06347, equations 7 and 8.
    """

    name = "ppo"

    form: Literal["clip", "penalty"] = "clip"
    """What keeps the policy near the one that drew the rollout: clipped ratios or a penalty on KL."""
    clip: float = 0.2
    """The share by which a ratio may gain (form "clip")."""
    target_kl: float = 0.01
    """The KL divergence of an update that the penalty aims at (form "penalty")."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 4
    """Gradient steps in a pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("clip", "penalty"):
            raise MethodError(f'{self.name}: `form` must be "clip" or "penalty", got {self.form!r}')
        for name in ("epochs", "minibatches"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("clip", "target_kl"):
            require(self, name, getattr(self, name) > 0, "positive")

    def improve(self, learner: OnPolicyLearner, batch: Batch, rate: float) -> None:
        policy = learner.policy
        old, entropy = policy.on(learner.mdp), self.bonus(learner.mdp, rate)
        for _ in range(self.epochs):
            for part in batch.parts(self.minibatches, learner.generator):
                if self.form == "clip":
                    loss = clipped_loss(policy, part, self.clip, entropy)
                else:
                    loss = penalised_loss(policy, old, part, learner.memory["kl_weight"], entropy)
                learner.policy_optimiser.descend(loss, self.policy_lr * rate)
        if self.form == "penalty":
            with torch.no_grad():
                kl = old.distribution(batch.s).kl(policy.distribution(batch.s)).mean()
            learner.memory["kl_weight"] = adapted(learner.memory["kl_weight"], kl, self.target_kl)

    def memory(self, mdp: MDP) -> dict[str, Tensor]:
        return {"kl_weight": torch.ones_like(mdp.low[0])} if self.form == "penalty" else {}
