"""The variance, and the bias, of policy-gradient estimates at a fixed policy, against the exact gradient.

    python replication/policy_gradient_variance.py           100,000 paths
    python replication/policy_gradient_variance.py --fast    5,000 paths

The model is Brock and Mirman's, made a table: capital and productivity take a few values, the action is one of five
savings rates, and next period's capital is one of the two grid points around what is saved. So J and its gradient for
the logits of a softmax policy are exact: V = (I - beta P_pi)^-1 r_pi.

Each estimate is one path's sum_t beta^t A_t grad log pi(a_t | s_t), with A from the functions that the solvers use:

    whole, to_go               sum_k beta^k r_k over the whole path, and over what follows
    ..., baseline              less V(s)
    gae(lambda)                sum_l (lambda beta)^l delta_{t+l}

`variance` is the trace of the covariance of the estimate of one path over the squared norm of the exact gradient; so a
batch of as many paths has an error as large as the gradient itself. `bias` is the norm of the mean's error over that of
the gradient, with the sampling error taken off. GAE is shown with the exact V and with a coarse one, which knows no
more than the mean of V over blocks of states, and so is wrong in the way a critic is that has not learned yet.

Writes results/policy_gradient_variance.csv, .png and .md.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from common import Row, arguments, markdown, parser_of
from matplotlib.figure import Figure
from torch import Tensor

from econrl.solvers import A2C, REINFORCE
from econrl.solvers.on_policy.rollouts import Rollout, since_start

ALPHA, BETA, RHO, SIGMA = 0.33, 0.9, 0.8, 0.1
CAPITAL, RATES = torch.linspace(0.05, 0.4, 12).double(), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).double()
PERIODS = 100  # beta^100 is below 3e-5; the value takes over there
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)
BLOCK = 6  # states of which the coarse critic knows the mean


def table() -> tuple[Tensor, Tensor]:
    """r (S, A) and P (S, A, S), a state being capital times two levels of productivity."""
    z = SIGMA * torch.tensor([-1.0, 1.0]).double()
    stay = (1 + RHO) / 2
    output = (z[:, None].exp() * CAPITAL**ALPHA).flatten()
    saved = output[:, None] * RATES
    reward = (output[:, None] - saved).log()
    place = ((saved - CAPITAL[0]) / (CAPITAL[1] - CAPITAL[0])).clamp(0, len(CAPITAL) - 1.001)
    below, share = place.long(), place - place.floor()
    capital = torch.zeros(*saved.shape, len(CAPITAL)).double()
    capital.scatter_(-1, below[..., None], (1 - share)[..., None])
    capital.scatter_(-1, below[..., None] + 1, share[..., None])
    productivity = torch.tensor([[stay, 1 - stay], [1 - stay, stay]]).double().repeat_interleave(len(CAPITAL), dim=0)
    return reward, (productivity[:, None, :, None] * capital[:, :, None, :]).flatten(2)


def exact(logits: Tensor, reward: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    """V (S,) of the softmax policy, and the gradient (S, A) of its mean over all states."""
    logits = logits.clone().requires_grad_()
    pi = logits.softmax(dim=-1)
    P_pi = (pi[..., None] * P).sum(dim=1)
    V = torch.linalg.solve(torch.eye(len(P_pi)).double() - BETA * P_pi, (pi * reward).sum(dim=-1))
    return V.detach(), torch.autograd.grad(V.mean(), logits)[0]


def roll(logits: Tensor, reward: Tensor, P: Tensor, n: int, generator: torch.Generator) -> Rollout:
    """n paths from states drawn uniformly."""
    s, steps = torch.randint(len(reward), (n,), generator=generator), []
    for t in range(PERIODS):
        a = torch.multinomial(logits.softmax(dim=-1)[s], 1, generator=generator)[:, 0]
        s_next = torch.multinomial(P[s, a], 1, generator=generator)[:, 0]
        cut = torch.full((n,), t == PERIODS - 1)
        steps.append((s[:, None], a[:, None], reward[s, a], torch.full((n,), BETA), s_next[:, None], cut))
        s = s_next
    return Rollout(*(torch.stack(column) for column in zip(*steps, strict=True)))


def estimates(rollout: Rollout, weight: Tensor, logits: Tensor) -> Tensor:
    """sum_t weight_t grad log pi(a_t | s_t) of each path, (n, S A)."""
    pi, (S, A), n = logits.softmax(dim=-1), logits.shape, rollout.r.shape[1]
    g = torch.zeros(n, S, A).double()
    each = torch.arange(n)
    for s, a, w in zip(rollout.s[..., 0], rollout.u[..., 0], weight, strict=True):
        g[each, s] -= w[:, None] * pi[s]
        g[each, s, a] += w
    return g.flatten(1)


def forms(rollout: Rollout, V: Tensor, coarse: Tensor) -> list[tuple[Row, Tensor]]:
    """Each estimator with the weights (T, n) that it puts on grad log pi."""

    def at(v: Tensor) -> tuple[Tensor, Tensor]:
        return v[rollout.s[..., 0]], v[rollout.s_next[..., 0]]

    found = []
    for weight in ("whole", "to_go"):
        for baseline in (False, True):
            method = REINFORCE(weight=weight, baseline=baseline)  # type: ignore[arg-type]
            name = f"{weight}, baseline" if baseline else weight
            row = {"estimator": name, "lambda": float("nan"), "critic": "exact" if baseline else "none"}
            found.append((row, method.advantages(rollout, *at(V))))
    _, factor = since_start(rollout, rollout.r)
    for critic, v in (("exact", V), ("coarse", coarse)):
        for lam in LAMBDAS:
            row = {"estimator": "gae", "lambda": lam, "critic": critic}
            found.append((row, factor * A2C(lam=lam).advantages(rollout, *at(v))))
    return found


def measure(paths: int, chunk: int = 2500) -> pd.DataFrame:
    """A row for each estimator, from the first and second moments over all paths."""
    generator = torch.Generator().manual_seed(0)
    reward, P = table()
    logits = -20 * (RATES - 0.25).square() + 0.3 * torch.randn(reward.shape, generator=generator, dtype=torch.float64)
    V, gradient = exact(logits, reward, P)
    coarse = V.view(-1, BLOCK).mean(dim=-1).repeat_interleave(BLOCK)
    size, rows, sums, squares = float(gradient.square().sum()), [], {}, {}
    for _ in range(paths // chunk):
        rollout = roll(logits, reward, P, chunk, generator)
        for i, (row, weight) in enumerate(forms(rollout, V, coarse)):
            g = estimates(rollout, weight, logits)
            sums[i] = sums.get(i, 0) + g.sum(dim=0)
            squares[i] = squares.get(i, 0.0) + float(g.square().sum())
            rows += [row] if len(sums) > len(rows) else []
    for i, row in enumerate(rows):
        mean = sums[i] / paths
        variance = (squares[i] / paths - float(mean.square().sum())) / size
        apart = float((mean - gradient.flatten()).square().sum()) / size
        row |= {"variance": variance, "bias": max(apart - variance / paths, 0.0) ** 0.5, "paths": paths}
        row["noise"] = (variance / paths) ** 0.5  # of the mean: a bias below it is none
    return pd.DataFrame(rows)


def draw(results: pd.DataFrame, file: Path) -> None:
    """Left: the variance of each form. Right: variance and squared bias of GAE over lambda."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    one_step = results[(results["estimator"] == "gae") & (results["lambda"] == 0) & (results["critic"] == "exact")]
    bars = pd.concat([results[results["estimator"] != "gae"], one_step.assign(estimator="one step (gae, 0)")])
    left.barh(bars["estimator"], bars["variance"], color="C0")
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlim(left=10)
    left.set_xlabel("variance of one path, in squared gradients")
    left.set_title("REINFORCE, exact value as baseline", fontsize="medium")
    gae = results[results["estimator"] == "gae"]
    for critic, color in (("exact", "C0"), ("coarse", "C1")):
        chosen = gae[gae["critic"] == critic]
        right.semilogy(chosen["lambda"], chosen["variance"], "o-", color=color, label=f"variance, {critic} critic")
    seen = chosen[chosen["bias"] > 2 * chosen["noise"]]
    right.semilogy(seen["lambda"], seen["bias"] ** 2, "s--", color="C1", label="squared bias, coarse critic")
    right.set_xlabel("lambda")
    right.set_ylabel("in squared gradients")
    right.set_title("Generalised advantage estimation", fontsize="medium")
    right.legend(frameon=False, fontsize="small")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main() -> None:
    given = arguments(parser_of(__doc__, "5,000 paths"))
    results = measure(5_000 if given.fast else 100_000)
    file = given.out / "policy_gradient_variance"
    results.to_csv(file.with_suffix(".csv"), index=False)
    draw(results, file.with_suffix(".png"))
    text = (
        "Brock and Mirman's model as a table of 24 states and 5 actions, softmax policy, exact gradient. `variance`: "
        "of one path's estimate, in squared norms of the gradient. `bias`: of the mean, in norms of the gradient, with "
        f"sampling error taken off; {int(results['paths'][0]):,} paths, so that a bias below `noise` is none. The "
        "coarse critic knows the mean of V over blocks of six states."
    )
    markdown(file.with_suffix(".md"), "Variance and bias of policy-gradient estimates", text, [results])
    print(results.to_string())


if __name__ == "__main__":
    main()
