"""The replay: sums over several steps that stay on their path, and draws by priority. Its ring: `test_simulate.py`."""

import numpy as np
import pytest
import torch

from econrl.solvers.off_policy.replay import FLOOR, PrioritisedReplay, Replay, Transitions

LIKE = torch.zeros((), dtype=torch.float64)
BETA = 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def row(t, paths=3):
    """Period t of each path: path p is at 100 p + t, its reward is 10^t and says which periods a sum holds."""
    s = 100.0 * torch.arange(paths, dtype=torch.float64)[:, None] + t
    r = torch.full((paths,), 10.0**t, dtype=torch.float64)
    return Transitions(s, s * 0, r, torch.full_like(r, BETA), s + 1)


def filled(periods, steps, capacity=30, ends=(), paths=3):
    """A ring with these periods of each path; (t, p) in `ends`: path p begins anew after period t."""
    replay = Replay(capacity, 1, 1, LIKE, steps, paths)
    for t in range(periods):
        replay.add(row(t, paths), torch.tensor([(t, p) not in ends for p in range(paths)]))
    return replay


def seen_from(replay, t, p):
    """Reward, discount and next state of the transition that begins in period t of path p."""
    at = (replay.s[: len(replay), 0] == 100 * p + t).nonzero().flatten()
    found = replay.read(at)
    assert [len(x) for x in vars(found).values()] == [1] * 5
    return float(found.r), float(found.beta), float(found.s_next)


def expected(first, last, p):
    """Of periods first to last of path p."""
    reward = sum(BETA**h * 10.0 ** (first + h) for h in range(last - first + 1))
    return pytest.approx((reward, BETA ** (last - first + 1), 100 * p + last + 1), rel=1e-12)


def test_one_step_is_what_the_environment_showed():
    assert seen_from(filled(5, steps=1), 2, 1) == expected(2, 2, 1)


@pytest.mark.parametrize("p", [0, 1, 2])
def test_several_steps_are_discounted_sums_along_one_path(p):
    assert seen_from(filled(8, steps=3), 2, p) == expected(2, 4, p)


def test_a_sum_ends_where_its_path_begins_anew_at_the_state_truly_reached():
    replay = filled(8, steps=4, ends={(3, 1)})
    assert seen_from(replay, 2, 1) == expected(2, 3, 1)  # bootstraps: beta is not zero, s_next is of path 1
    assert seen_from(replay, 3, 1) == expected(3, 3, 1)
    assert seen_from(replay, 4, 1) == expected(4, 7, 1)
    assert seen_from(replay, 2, 0) == expected(2, 5, 0)  # the others go on


def test_a_sum_ends_with_the_newest_transition():
    replay = filled(8, steps=4)
    for t in (5, 6, 7):
        assert seen_from(replay, t, 2) == expected(t, 7, 2)


@pytest.mark.parametrize("capacity", [9, 10, 11])  # three periods of three paths, and no whole number of them
@pytest.mark.parametrize("periods", range(4, 16))
def test_no_sum_runs_over_the_seam_of_the_ring(capacity, periods):
    replay = filled(periods, steps=3, capacity=capacity)
    for s in replay.s[:, 0].tolist():
        p, t = divmod(int(s), 100)
        assert seen_from(replay, t, p) == expected(t, min(t + 2, periods - 1), p)


def test_a_sum_that_fits_the_whole_ring_stays_in_it():
    replay = filled(20, steps=12, capacity=9)
    assert seen_from(replay, 17, 0) == expected(17, 19, 0)


# Priorities


def prioritised(n=4, omega=1.0, capacity=10):
    replay = PrioritisedReplay(capacity, 1, 1, LIKE, omega=omega)
    s = torch.arange(n, dtype=torch.float64)[:, None]
    replay.add(Transitions(s, s, s[:, 0], s[:, 0], s))
    return replay


@pytest.mark.parametrize(("omega", "shares"), [(1.0, [0.1, 0.2, 0.3, 0.4]), (0.5, [0.163, 0.230, 0.282, 0.325])])
def test_draws_are_in_proportion_to_the_power_of_the_error(omega, shares):
    replay = prioritised(omega=omega)
    replay.correct(torch.arange(4), torch.tensor([1.0, -2.0, 3.0, -4.0]))
    counts = np.zeros(4)
    for seed in range(20):  # each call draws one from each thousandth: far less spread than independent draws
        counts += np.bincount(replay.draw(1000, 0.4, generator(seed))[0], minlength=4)
    np.testing.assert_allclose(counts / 20_000, shares, atol=0.002)


def test_weights_undo_the_preference():
    """At eta = 1 the weighted mean of any x over the draws is, up to a factor, its mean over the buffer."""
    replay = prioritised()
    replay.correct(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    at, weights = replay.draw(10_000, 1.0, generator())
    x = torch.tensor([5.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    assert float((weights * x[at]).sum() / weights.sum()) == pytest.approx(float(x.mean()), abs=0.01)
    assert float(weights.max()) == 1.0
    at, weights = replay.draw(10_000, 0.5, generator())
    torch.testing.assert_close(weights, (at + 1.0).double() ** -0.5, rtol=1e-5, atol=0)


def test_of_several_critics_the_mean_error_counts():
    replay = prioritised()
    replay.correct(torch.arange(4), torch.tensor([[1.0, -2.0, 3.0, 0.0], [3.0, 2.0, -1.0, 4.0]]))
    assert replay.priority[:4].tolist() == pytest.approx([2.0] * 4, abs=2 * FLOOR)


def test_new_transitions_are_as_likely_as_the_worst_so_far():
    replay = prioritised(2)
    replay.correct(torch.tensor([0, 1]), torch.tensor([7.0, 0.0]))
    replay.correct(torch.tensor([0]), torch.tensor([1.0]))  # the largest error was met, if long ago
    s = torch.zeros(1, 1, dtype=torch.float64)
    replay.add(Transitions(s, s, s[:, 0], s[:, 0], s))
    assert replay.priority[:3].tolist() == pytest.approx([1.0, 0.0, 7.0], abs=2 * FLOOR)
    assert replay.priority[3:].sum() == 0


def test_what_has_been_overwritten_is_judged_anew():
    replay = prioritised(4, capacity=4)
    replay.correct(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 9.0]))
    s = torch.full((2, 1), 8.0, dtype=torch.float64)
    replay.add(Transitions(s, s, s[:, 0], s[:, 0], s))
    assert replay.priority.tolist() == pytest.approx([9.0, 9.0, 3.0, 9.0], abs=2 * FLOOR)


def test_a_transition_without_error_can_be_drawn_again_and_an_empty_place_cannot():
    replay = prioritised(3)
    replay.correct(torch.arange(3), torch.zeros(3))
    at, weights = replay.draw(3000, 0.4, generator())
    assert set(at.tolist()) == {0, 1, 2}
    assert weights.isfinite().all()


def test_a_restored_replay_draws_what_it_would_have_drawn():
    replay = prioritised()
    replay.correct(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    again = PrioritisedReplay(10, 1, 1, LIKE, omega=1.0)
    again.restore(replay.state())
    for buffer in (replay, again):
        buffer.add(Transitions(*(torch.ones(shape, dtype=torch.float64) for shape in ((1, 1), (1, 1), 1, 1, (1, 1)))))
    assert torch.equal(replay.priority, again.priority)
    assert torch.equal(replay.draw(50, 0.4, generator())[0], again.draw(50, 0.4, generator())[0])
    assert torch.equal(replay.read(torch.arange(5)).s, again.read(torch.arange(5)).s)
