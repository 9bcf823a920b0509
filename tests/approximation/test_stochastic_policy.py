"""Stochastic policies: densities that integrate to one, draws that follow them, and what has a closed form."""

import math
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, Budget, Model, State
from econrl.approximation.stochastic_policy import ActionDistribution, StochasticPolicy
from econrl.models import IRBC, BrockMirman, RustBus
from econrl.problem.mdp import MDP
from econrl.problem.state_function import restore
from example_models import Everything, Mixed


@dataclass(frozen=True, kw_only=True)
class OneAction(Model):
    """Nothing but one action of a given kind, with bounds that read the state."""

    kind: str = "bounded"
    beta: float = 0.9

    def states(self):
        return State("k", low=0.5, high=2.0)

    def actions(self):
        kinds = {
            "bounded": Action("a", low=lambda s: -s.k, high=lambda s: 3 * s.k),
            "below": Action("a", low=lambda s: s.k, scale=2.0),
            "above": Action("a", high=lambda s: s.k, scale=0.5),
            "free": Action("a", scale=3.0),
            "budget": Budget("a", size=2, total=lambda s: s.k),
        }
        return kinds[self.kind]

    def shocks(self):
        return ()

    def reward(self, s, a):
        return s.k

    def transition(self, s, a, e):
        return {"k": s.k}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(mdp, mean, std, batch=()):
    """The squashed Gaussian with these means and one std."""
    mean = torch.tensor(mean, dtype=torch.float64).expand(*batch, mdp.A)
    return ActionDistribution(mdp, mean, torch.full_like(mean, math.log(std)))


def density(mdp, pi, s, a):
    """Of actions a in their own units."""
    u = mdp.unsquash(mdp.shares(s, a))
    return (pi.log_prob(u) - mdp.widths(s, a).abs().log().sum(dim=-1)).exp()


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("bounded", -1.5, 4.5), ("below", 1.5, 40.0), ("above", -10.0, 1.5), ("free", -40.0, 40.0)],
)
def test_the_density_of_actions_integrates_to_one_and_draws_follow_it(kind, low, high):
    mdp = MDP(OneAction(kind=kind))
    pi = normal(mdp, [0.3], 0.8)
    n = 200_000
    a = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n  # midpoints: off the bounds
    s = torch.full((n, 1), 1.5, dtype=torch.float64)
    p = density(mdp, pi, s, a.unsqueeze(-1)) * (high - low) / n
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    drawn = mdp.act(s, normal(mdp, [0.3], 0.8, (n,)).sample(torch.Generator().manual_seed(0)))
    for quantile in (0.1, 0.5, 0.9):
        at = a[int((p.cumsum(0) < quantile).sum())]
        assert float((drawn < at).double().mean()) == pytest.approx(quantile, abs=4 * 0.5 / n**0.5)  # standard errors


def test_the_density_of_a_budget_integrates_to_one_over_the_simplex():
    mdp = MDP(OneAction(kind="budget"))
    pi, n, total = normal(mdp, [0.3, -0.5], 0.8), 1500, 1.5
    grid = total * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    a = torch.cartesian_prod(grid, grid)
    a = a[a.sum(dim=-1) < total - 1e-9]
    p = density(mdp, pi, torch.full((len(a), 1), total, dtype=torch.float64), a)
    # The squares that the boundary cuts carry the error; the density vanishes there.
    assert float(p.sum()) * (total / n) ** 2 == pytest.approx(1, abs=1e-4)


def test_the_volume_is_that_of_the_jacobian_and_finite_at_the_bounds():
    mdp = MDP(Everything())
    u = 3 * torch.randn(20, mdp.A, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(mdp.squash))(u)
    torch.testing.assert_close(mdp.log_squash_volume(u), torch.linalg.slogdet(jacobian).logabsdet)
    assert mdp.log_squash_volume(torch.full((2, mdp.A), 200.0)).isfinite().all()
    assert mdp.log_squash_volume(torch.full((2, mdp.A), -200.0)).isfinite().all()


def mixed(n_states=1):
    """Three Gaussians in the columns 1, 3 and 4, softmaxes in the columns 0 and 2."""
    logits = (tensor(0.0, math.log(3.0)), tensor(0.0, math.log(2.0), math.log(5.0)))
    mean = tensor(0.5, -1.0, 0.2).expand(n_states, 3)
    each = tuple(x.expand(n_states, -1) for x in logits)
    return ActionDistribution(MDP(Mixed()), mean, torch.full_like(mean, math.log(0.7)), each)


def test_choices_are_drawn_with_the_softmax_and_lie_in_their_columns():
    n = 100_000
    u = mixed(n).sample(torch.Generator().manual_seed(0))
    assert u.shape == (n, 5)
    frequencies = [torch.bincount(u[:, column].long(), minlength=size) / n for column, size in ((0, 2), (2, 3))]
    for seen, p in zip(frequencies, ([0.25, 0.75], [0.125, 0.25, 0.625]), strict=True):
        torch.testing.assert_close(seen, torch.tensor(p), atol=4 * 0.5 / n**0.5, rtol=0)  # four standard errors
    torch.testing.assert_close(u[:, [1, 3, 4]].mean(0), mixed().mean[0], atol=4 * 0.7 / n**0.5, rtol=0)
    assert mixed().mode.tolist() == [[1.0, 0.5, 2.0, -1.0, 0.2]]


def test_probabilities_of_choices_multiply_the_density():
    pi = mixed()
    without = ActionDistribution(pi.mdp, pi.mean, pi.log_std, tuple(torch.zeros_like(x) for x in pi.logits))
    u = tensor(1.0, 0.1, 0.0, 0.2, 0.3)[None]
    ratio = (pi.log_prob(u) - without.log_prob(u)).exp()  # against equal odds
    assert float(ratio) == pytest.approx(0.75 * 0.125 * 2 * 3)


def test_entropy_and_divergence_are_the_means_of_log_densities():
    n = 400_000
    p, q = mixed(n), mixed(n)
    q = ActionDistribution(p.mdp, q.mean + 0.4, q.log_std + 0.3, tuple(x.flip(-1) for x in q.logits))
    u = p.sample(torch.Generator().manual_seed(1))
    log_p, log_q = p.log_prob(u), q.log_prob(u)
    before = log_p + p.mdp.log_squash_volume(u)  # of u, before it is squashed
    assert float(-before.mean()) == pytest.approx(float(p.entropy()[0]), abs=4 * float(before.std()) / n**0.5)
    apart = log_p - log_q
    assert float(apart.mean()) == pytest.approx(float(p.kl(q)[0]), abs=4 * float(apart.std()) / n**0.5)
    assert float(p.kl(p).abs().max()) < 1e-12


def test_draws_carry_the_gradient_of_mean_and_spread():
    mdp = MDP(OneAction())
    mean, log_std = (torch.zeros(5, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    u = ActionDistribution(mdp, mean, log_std).sample(torch.Generator().manual_seed(0))
    d_mean, d_log_std = torch.autograd.grad(u.sum(), (mean, log_std))
    torch.testing.assert_close(d_mean, torch.ones_like(mean))
    torch.testing.assert_close(d_log_std, u.detach())  # mean 0, std 1: the noise itself


@pytest.mark.parametrize("state_dependent", [False, True])
@pytest.mark.parametrize("model", [Mixed(), RustBus()], ids=["mixed", "choice alone"])
def test_a_policy_of_choices_begins_near_equal_odds_is_trained_and_rebuilt(model, state_dependent):
    mdp = MDP(model)
    policy = StochasticPolicy(mdp, (8, 8), state_dependent).double()
    policy.start_at(torch.ones(mdp.A, dtype=torch.float64), std=0.3)
    s = mdp.sample_box(50, torch.Generator().manual_seed(0))
    pi = policy.distribution(s)
    for x, (_, n) in zip(pi.logits, mdp.choices, strict=True):
        torch.testing.assert_close(x.softmax(dim=-1), torch.full_like(x, 1 / n), atol=0.02, rtol=0)
    u = pi.sample(torch.Generator().manual_seed(0))
    assert mdp.feasible(s, mdp.act(s, u)).all()
    loss = (pi.log_prob(u) + pi.entropy() + pi.kl(pi)).sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(policy.parameters())))
    assert torch.equal(policy.on(mdp)(s), policy(s))


@pytest.mark.parametrize("state_dependent", [False, True])
def test_a_policy_starts_where_it_is_told_gives_its_mode_and_is_rebuilt(state_dependent):
    mdp = MDP(Everything())
    policy = StochasticPolicy(mdp, (16, 16), state_dependent).double()
    start = torch.linspace(-1, 1, mdp.A, dtype=torch.float64)
    policy.start_at(start, std=0.3)
    s = mdp.sample_box(50, torch.Generator().manual_seed(0))
    pi = policy.distribution(s)
    torch.testing.assert_close(pi.mean, start.expand(50, -1), atol=0.05, rtol=0)  # last weights of a hundredth
    torch.testing.assert_close(pi.log_std.exp(), torch.full_like(pi.mean, 0.3), atol=0.02, rtol=0)
    assert (pi.log_std.std(dim=0).max() > 0) == state_dependent
    a = policy(s)
    assert mdp.feasible(s, a).all()
    torch.testing.assert_close(a, mdp.act(s, pi.mean))
    again = restore("StochasticPolicy", mdp, policy.describe(), policy.state_dict())
    assert torch.equal(again(s), a)
    assert torch.equal(again.distribution(s).log_std, pi.log_std)


def test_members_of_a_group_share_their_spread():
    mdp = MDP(IRBC(n=3))
    policy = StochasticPolicy(mdp, (8, 8)).double()
    with torch.no_grad():
        policy.log_std.copy_(torch.arange(mdp.A))
    spread = policy.distribution(mdp.sample_box(4, torch.Generator().manual_seed(0))).log_std
    assert (spread == spread[..., :1]).all()


def test_log_densities_of_extreme_actions_are_finite_in_single_precision():
    mdp = MDP(BrockMirman(), dtype=torch.float32)
    pi = ActionDistribution(mdp, torch.tensor([[60.0], [-60.0]]), torch.zeros(2, 1))
    u = pi.sample(torch.Generator().manual_seed(0)).requires_grad_()
    log_p = pi.log_prob(u)
    assert log_p.isfinite().all()  # the share is 1 exactly: computed from it, the density would be infinite
    assert torch.autograd.grad(log_p.sum(), u)[0].isfinite().all()
