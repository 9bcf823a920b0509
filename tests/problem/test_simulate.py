"""Simulation and replay: what is drawn, what begins anew, and what stays paired."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from econrl import Action, MarkovChain, Model, Normal, State
from econrl.models import BrockMirman, LifeCycle, StochasticGrowth
from econrl.problem.mdp import MDP
from econrl.problem.simulate import MARGIN, discounted, ergodic_states, goes_on, move, paths
from econrl.solvers.off_policy.replay import Replay, Transitions


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Escalator(Model):
    """x rises by one each period, from 0.5; the domain is [0, 10]."""

    beta: float = 0.9
    step: float = 1.0

    def states(self):
        return State("x", low=0.0, high=10.0)

    def actions(self):
        return Action("a", low=0.0, high=1.0)

    def reward(self, s, a):
        return a.a + 0 * s.x

    def transition(self, s, a, e):
        return {"x": s.x + self.step}

    def initial(self, n, generator):
        return {"x": torch.full((n,), 0.5)}


half = lambda s: torch.full_like(s[..., :1], 0.5)  # noqa: E731


def test_paths_follow_the_law_of_motion_and_pair_states_with_their_actions():
    mdp = MDP(BrockMirman())
    start = mdp.sample_box(7, generator())
    policy = lambda s: 0.9 * mdp.exact_policy(s)  # noqa: E731
    s, a = paths(mdp, policy, start, 12, generator(3))
    assert s.shape == (12, 7, 2)
    assert a.shape == (12, 7, 1)
    assert torch.equal(s[0], start)
    assert torch.equal(a, policy(s))
    output = s[..., 1].exp() * s[..., 0] ** 0.36
    torch.testing.assert_close(s[1:, :, 0], (output - a[..., 0])[:-1], rtol=1e-14, atol=0)  # the same operations
    assert s[1:, :, 1].unique().numel() == 11 * 7  # a shock of its own for each path and period


def test_simulation_is_reproducible_and_depends_on_the_seed():
    mdp = MDP(StochasticGrowth())
    policy = lambda s: 0.05 * s[..., :1]  # noqa: E731
    start = mdp.sample_initial(5, generator())
    runs = [paths(mdp, policy, start, 20, generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0][1:], runs[2][0][1:])
    visits = [ergodic_states(mdp, policy, 5, 10, 10, generator(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(visits[0], visits[1])
    assert not torch.equal(visits[0], visits[2])


def test_a_path_far_outside_begins_anew_and_is_counted():
    mdp = MDP(Escalator())
    seen = [0.5 + i for i in range(100) if 0.5 + i <= 10 * (1 + MARGIN)]
    assert seen[-1] > 10  # a little beyond the domain is no reason to begin anew
    T = 2 * len(seen)
    s, restarted = ergodic_states(mdp, half, n=3, periods=T, burn_in=0, generator=generator())
    assert s[:, 0].reshape(T, 3)[:, 0].tolist() == 2 * seen
    assert restarted == pytest.approx(2 / T)
    # Without initial states of its own, a path begins anew anywhere in the domain.
    anywhere = type("Anywhere", (Escalator,), {"initial": Model.initial})
    s, _ = ergodic_states(MDP(dataclass(frozen=True, kw_only=True)(anywhere)()), half, 200, 30, 0, generator())
    assert (s >= 0).all()
    assert (s <= 10 * (1 + MARGIN)).all()
    assert s.unique().numel() > 200


def test_states_of_an_endless_escape_are_not_lost():
    """Every step leaves the domain: no state is dropped, and the share says so."""
    s, restarted = ergodic_states(MDP(Escalator(step=100.0)), half, 4, 5, 2, generator())
    assert s.shape == (20, 1)
    assert (s == 0.5).all()
    assert restarted == 1.0


def test_a_path_that_is_not_a_number_begins_anew():
    model = dataclass(frozen=True, kw_only=True)(
        type("Broken", (Escalator,), {"transition": lambda self, s, a, e: {"x": (2 - s.x).sqrt() + 1}})
    )()
    s, restarted = ergodic_states(MDP(model), half, 3, 10, 0, generator())
    assert s.isfinite().all()
    assert restarted == 0.5  # 0.5, 2.22, then the root of a negative number


def test_burn_in_is_not_reported():
    mdp = MDP(Escalator())
    s, _ = ergodic_states(mdp, half, n=2, periods=3, burn_in=4, generator=generator())
    assert s[:, 0].reshape(3, 2)[:, 0].tolist() == [4.5, 5.5, 6.5]


def test_ergodic_states_have_the_stationary_distribution():
    """z is an AR(1): standard deviation sigma / sqrt(1 - rho^2)."""
    m = StochasticGrowth(rho=0.8, sigma=0.01)
    mdp = MDP(m)
    policy = lambda s: m.A * s[..., 1:].exp() * s[..., :1] ** 0.36 - 0.02 * s[..., :1]  # noqa: E731  (k stays)
    s, restarted = ergodic_states(mdp, policy, 4000, 5, 60, generator())
    z = s[:, 1].numpy()
    sd = 0.01 / np.sqrt(1 - 0.8**2)
    assert restarted == 0
    # 4000 independent paths of five dependent periods: the standard error of a mean is below sd / sqrt(4000), that of
    # the standard deviation below sd / sqrt(2 * 4000); four of each.
    assert abs(z.mean()) < 4 * sd / np.sqrt(4000)
    assert abs(z.std() - sd) < 4 * sd / np.sqrt(8000)


@dataclass(frozen=True, kw_only=True)
class Chained(Escalator):
    P = ((0.75, 0.25), (0.5, 0.5))

    def states(self):
        return MarkovChain("y", values=(1.0, 2.0), P=self.P), State("x", low=0.0, high=10.0)

    def shocks(self):
        return Normal("eps", std=0.1)

    def transition(self, s, a, e):
        return {"x": 5 + e.eps}


def test_ergodic_chains_have_their_stationary_distribution_and_stay_whole_numbers():
    s, _ = ergodic_states(MDP(Chained()), half, 3000, 4, 30, generator())
    assert set(s[:, 0].tolist()) == {0.0, 1.0}
    # Stationary probability 1/3 of the second state; 3000 independent paths bound the standard error.
    assert abs(float(s[:, 0].mean()) - 1 / 3) < 4 * np.sqrt(2 / 9 / 3000)


# Life cycles


def test_a_life_ends_at_its_horizon_and_another_begins():
    mdp = MDP(LifeCycle(horizon=7, retirement=5))
    policy = lambda s: 0.9 * s[..., :1]  # noqa: E731
    s, restarted = ergodic_states(mdp, policy, 4, 21, 0, generator())
    assert s[:, 1].reshape(21, 4)[:, 0].tolist() == 3 * [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert restarted == 0  # the end of a life is no escape
    assert (s[:, 0].reshape(21, 4)[::7] == 1).all()  # born with the model's initial wealth
    over = torch.tensor([[1.0, 6.0], [1.0, 7.0], [1000.0, 3.0]], dtype=torch.float64)
    assert goes_on(mdp, over).tolist() == [True, False, False]


def test_initial_states_are_the_models_at_period_zero():
    mdp = MDP(LifeCycle())
    assert mdp.sample_initial(5, generator()).tolist() == [[1.0, 0.0]] * 5
    box = mdp.sample_box(4000, generator())
    assert set(box[:, 1].tolist()) == set(map(float, range(60)))
    assert box[:, 0].min() < 0.6
    assert box[:, 0].max() > 19.9


def test_an_initial_state_of_an_unknown_name_is_refused():
    wrong = dataclass(frozen=True, kw_only=True)(
        type("Wrong", (Escalator,), {"initial": lambda self, n, generator: {"capital": 1.0}})
    )
    with pytest.raises(Exception, match=r"Wrong.initial names 'capital', which is no state"):
        MDP(wrong()).sample_initial(3, generator())


# Lifetime sums


def test_copies_of_the_same_states_meet_the_same_shocks():
    mdp = MDP(BrockMirman())
    s = mdp.sample_box(6, generator())
    e, reached = move(mdp, s.expand(3, 6, 2), 0.5 * mdp.exact_policy(s), generator(1))
    alone, then = move(mdp, s, 0.5 * mdp.exact_policy(s), generator(1))
    assert torch.equal(e, alone)
    assert alone.unique().numel() == 6
    assert torch.equal(reached, then.expand(3, 6, 2))


def test_discounted_sums_are_those_of_the_geometric_series_and_end_when_nothing_is_left_to_count():
    mdp = MDP(Escalator(step=0.0))
    s = torch.full((2, 1), 0.5, dtype=torch.float64)
    one, rising = lambda s, a: torch.ones_like(s[..., 0]), lambda s, a: s[..., 0]
    (sums, other), factor, last = discounted(mdp, half, [one, rising], s, 10, generator())
    assert sums.tolist() == pytest.approx([(1 - 0.9**10) / 0.1] * 2)
    assert other.tolist() == pytest.approx([0.5 * (1 - 0.9**10) / 0.1] * 2)
    assert factor.tolist() == pytest.approx([0.9**10] * 2)
    assert torch.equal(last, s)
    _, factor, _ = discounted(mdp, half, [one], s, 1000, generator(), forgotten=0.5)
    assert factor.tolist() == pytest.approx([0.9**7] * 2)  # 0.478, the first below


def test_a_life_that_is_over_stands_still_and_adds_nothing():
    mdp = MDP(LifeCycle(horizon=4, retirement=0, beta=0.9))
    s = torch.tensor([[2.0, 1.0], [2.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    one = lambda s, a: torch.ones_like(s[..., 0])  # noqa: E731
    (sums,), factor, last = discounted(mdp, lambda s: 0.5 * s[..., :1], [one], s, 10, generator())
    assert sums.tolist() == pytest.approx([1 + 0.9 + 0.81, 1, 0])
    assert factor.tolist() == pytest.approx([0.9**3, 0.9, 1])
    assert last[:, 1].tolist() == [4, 4, 4]
    assert last[2].tolist() == [2, 4]


# Replay


def transitions(first, n):
    """n transitions whose every entry says which one it is: s = (i, -i), s_next = (i + 0.5, -i - 0.5), ..."""
    i = torch.arange(first, first + n, dtype=torch.float64)
    pair = torch.stack([i, -i], -1)
    return Transitions(pair, i[:, None] * 2, i * 3, i * 4, pair + torch.tensor([0.5, -0.5], dtype=torch.float64))


def numbers(batch):
    """Which transitions these are, having seen that all of their entries agree."""
    i = batch.s[:, 0]
    expected = [torch.stack([i, -i], -1), i[:, None] * 2, i * 3, i * 4, torch.stack([i + 0.5, -i - 0.5], -1)]
    for got, wanted in zip((batch.s, batch.u, batch.r, batch.beta, batch.s_next), expected, strict=True):
        assert torch.equal(got, wanted)
    return {int(x) for x in i}


def test_the_ring_keeps_transitions_whole_across_its_seam():
    replay = Replay(10, states=2, actions=1, like=torch.zeros((), dtype=torch.float64))
    draw = generator()
    for first in range(0, 40, 4):  # 10 is no multiple of 4: every block but the first few straddles the seam
        replay.add(transitions(first, 4))
        newest = first + 4
        assert len(replay) == min(newest, 10)
        assert numbers(replay.sample(400, draw)) == set(range(max(newest - 10, 0), newest))


def test_sampling_never_shows_an_empty_place_and_is_uniform():
    replay = Replay(1000, states=2, actions=1, like=torch.zeros((), dtype=torch.float64))
    replay.add(transitions(1, 5))
    batch = replay.sample(20_000, generator())
    counts = torch.bincount(batch.s[:, 0].long(), minlength=6)
    assert counts[0] == 0
    assert (abs(counts[1:] / 20_000 - 0.2) < 4 * np.sqrt(0.16 / 20_000)).all()


def test_what_is_added_is_copied():
    replay = Replay(5, states=2, actions=1, like=torch.zeros((), dtype=torch.float64))
    new = transitions(0, 3)
    replay.add(new)
    new.s.add_(100)
    assert numbers(replay.sample(50, generator())) == {0, 1, 2}


def test_a_block_larger_than_the_ring_leaves_whole_transitions():
    replay = Replay(4, states=2, actions=1, like=torch.zeros((), dtype=torch.float64))
    replay.add(transitions(0, 11))
    assert len(replay) == 4
    assert len(numbers(replay.sample(100, generator()))) == 4
