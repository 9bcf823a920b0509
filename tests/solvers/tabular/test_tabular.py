"""The tabular methods: what the table holds, the textbook's walks, and the exact answers of the same table."""

import dataclasses

import pytest
import torch

import econrl
from econrl import TD0, MethodError, QLearning
from econrl.approximation.finite_mdp import Table, TableValue, corners, states_of, tabulate
from econrl.approximation.tensor_grid import TensorGrid
from econrl.models import BufferStock, Investment, LifeCycle, LongPlosser, RustBus, StochasticGrowth
from econrl.problem.bellman import lookahead
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.solvers.grid.vi import VI
from econrl.solvers.tabular.learner import Step, Walk, learn
from econrl.solvers.tabular.sarsa import SARSA
from econrl.solvers.tabular.td0 import td_error

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def no_denormals():
    """As `solve` sets it."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table_of(R, P, beta):
    """A table from dense arrays R (N, D) and P (N, D, N)."""
    R, P = torch.as_tensor(R, dtype=DOUBLE), torch.as_tensor(P, dtype=DOUBLE)
    return Table(R, P, torch.arange(len(R)).expand_as(P), beta)


def walked(method, table, updates, seed=0, first=0.0):
    walk = Walk(method, table, first, generator(seed))
    for _ in range(updates):
        walk.update(1.0)
    return walk


def random_table(states=6, actions=3, beta=0.9, seed=1):
    g = generator(seed)
    P = torch.rand(states, actions, states, generator=g, dtype=DOUBLE) ** 4
    return table_of(torch.randn(states, actions, generator=g, dtype=DOUBLE), P / P.sum(-1, keepdim=True), beta)


# The table


def test_draws_follow_the_probabilities():
    table = random_table()
    i, d = torch.full((200_000,), 2), torch.full((200_000,), 1)
    shares = torch.bincount(table.draw(i, d, generator()), minlength=6) / 200_000
    assert (shares - table.P[2, 1]).abs().max() < 4 * (0.25 / 200_000) ** 0.5  # four standard errors


def test_exact_answers_solve_the_bellman_equation():
    """Two states, stay or move; moving from 0 costs 1 and leads to a reward of 2 in every period."""
    table = table_of([[0.0, -1.0], [2.0, 0.0]], [[[1, 0], [0, 1]], [[0, 1], [1, 0]]], 0.9)
    for method, tolerance in (("policy_iteration", 1e-12), ("value_iteration", 1e-3)):  # quantecon's epsilon
        v, sigma = table.solve(method)
        torch.testing.assert_close(v, torch.tensor([17.0, 20.0], dtype=DOUBLE), rtol=0, atol=tolerance)
        assert sigma.tolist() == [1, 0]


def growth_table(points=(9, 5), menu=5, reach=0.3, model=None):
    mdp = MDP(model or StochasticGrowth(), quadrature=Quadrature(nodes=3))
    low, high = mdp.low[mdp.continuous].tolist(), mdp.high[mdp.continuous].tolist()
    grid = TensorGrid(low, high, points, [0.0] * len(points), "linear")
    s = states_of(mdp, grid)
    u = -2.5 + reach * torch.linspace(-1, 1, menu, dtype=DOUBLE).unsqueeze(-1)
    a = mdp.act(s.unsqueeze(1), u)
    return mdp, grid, s, a, tabulate(mdp, grid, a)


def test_the_lottery_is_linear_interpolation():
    mdp, grid, s, a, table = growth_table()
    assert table.P.min() >= 0
    torch.testing.assert_close(table.P.sum(-1), torch.ones_like(table.R))
    value = TableValue(mdp, low=grid.low, high=grid.high, points=grid.points, spacing=grid.spacing,
                       interpolation="linear")  # fmt: skip
    V = torch.randn(len(s), generator=generator(), dtype=DOUBLE)
    value.fit(V.unsqueeze(-1))
    torch.testing.assert_close(value(s), V)
    Q = torch.stack([lookahead(mdp, value, s, a[:, d]) for d in range(a.shape[1])], dim=-1)
    ok = table.allowed
    assert 0.5 < ok.double().mean() < 1
    torch.testing.assert_close(table.lookahead(V)[ok], Q[ok])


def test_the_corners_average_to_the_point():
    grid = TensorGrid([0.0, -1.0], [1.0, 1.0], [4, 6], [0.0, 0.0], "linear")
    x = torch.rand(50, 2, generator=generator(), dtype=DOUBLE)
    to, weights = corners(grid, x, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close((weights.unsqueeze(-1) * grid.mesh()[to]).sum(dim=-2), x)


def test_capital_is_not_handed_out_at_the_edge_of_the_grid():
    """What leads below the grid would be lifted to its edge for free: whoever eats everything would thrive."""
    mdp, grid, s, a, table = growth_table(reach=3.0)
    k_next = mdp.transition(s.unsqueeze(1), a, mdp.nodes[1])[..., 0]
    below = (k_next < grid.low[0] - 1e-6) & (k_next >= grid.low[0] - 1e-6).any(dim=-1, keepdim=True)
    assert below.any()
    assert not table.allowed[below].any()
    assert table.allowed.any(dim=-1).all()


def test_where_all_actions_leave_the_grid_the_nearest_is_allowed():
    _, _, _, a, table = growth_table(menu=2, reach=0.01, model=StochasticGrowth(delta=0.5))
    assert a.shape[1] == 2
    assert table.allowed.any(dim=-1).all()


def test_an_infinite_reward_is_never_chosen_and_a_state_without_a_reward_is_named():
    table = random_table()
    R = table.R.clone()
    R[0, 0] = -torch.inf
    barred = dataclasses.replace(table, R=R)
    walk = walked(QLearning(epsilon=1.0), barred, 50)
    assert walk.visits[0, 0] == 0
    assert (walk.visits[barred.allowed] > 0).all()
    assert barred.solve()[1][0] != 0


# The step


def test_the_first_update_takes_the_target_and_later_ones_average():
    Q, visits = torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)
    at = torch.tensor([0, 0, 2])
    learn(Q, visits, at, torch.tensor([1.0, 3.0, 5.0], dtype=DOUBLE), beta=0.0, power=1.0)
    assert Q.tolist() == [2.0, 0.0, 5.0]  # two that meet count once, with their mean
    assert visits.tolist() == [1, 0, 1]
    learn(Q, visits, at, 8.0 - Q[at], beta=0.0, power=1.0)
    assert Q.tolist() == [5.0, 0.0, 6.5]  # with beta = 0 and power = 1, the mean of all targets


def test_a_column_of_errors_is_refused():
    with pytest.raises(AssertionError, match="broadcast"):
        learn(torch.zeros(3), torch.zeros(3), torch.zeros(4, dtype=torch.long), torch.zeros(4, 1), 0.9, 0.7)


# TD(0)


def test_td0_on_the_random_walk_of_five_states():
    """V = i/6 for a step left or right with equal chance, and a reward of one at the right end only."""
    g, E = generator(), 200
    V, visits = torch.zeros(7, dtype=DOUBLE), torch.zeros(7, dtype=DOUBLE)
    i = torch.full((E,), 3)
    for _ in range(4000):
        j = i + 2 * torch.randint(2, (E,), generator=g) - 1
        step = Step(i, i * 0, (j == 6).to(DOUBLE), j, i * 0)
        learn(V, visits, i, td_error(V, 1.0, step), beta=0.95, power=0.8)
        i = torch.where((j == 0) | (j == 6), 3, j)
    exact = torch.arange(1, 6, dtype=DOUBLE) / 6
    assert (V[1:6] - exact).abs().max() < 0.01  # rates end at 0.016; noise of a step is 0.17/sqrt(40)
    assert V[0] == V[6] == 0


def test_batch_td0_finds_the_certainty_equivalent_value():
    """A, 0, B, 0; six times B, 1; B, 0. The batch's own Markov chain has V(A) = V(B) = 3/4 (Sutton and Barto, example
    6.4); the mean return from A is 0."""
    A, B, end = 0, 1, 2
    i = torch.tensor([A] + 8 * [B])
    j = torch.tensor([B] + 8 * [end])
    r = torch.tensor([0.0, 0.0] + 6 * [1.0] + [0.0], dtype=DOUBLE)
    V, visits = torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)
    for _ in range(300):
        learn(V, visits, i, td_error(V, 1.0, Step(i, i * 0, r, j, i * 0)), beta=0.99, power=0.6)
    torch.testing.assert_close(V, torch.tensor([0.75, 0.75, 0.0], dtype=DOUBLE))


# Control


def cliff(beta=0.99):
    """Four rows of twelve; the goal is at the other end of the row below, and between lies a cliff: -100, and back."""
    N, start, goal = 48, 36, 47
    R, P = torch.full((N, 4), -1.0), torch.zeros(N, 4, N)
    for i in range(N):
        row, column = divmod(i, 12)
        for d, (down, right) in enumerate([(-1, 0), (1, 0), (0, 1), (0, -1)]):
            j = 12 * min(max(row + down, 0), 3) + min(max(column + right, 0), 11)
            if i == goal:
                R[i, d], j = 0.0, goal
            elif start < j < goal:
                R[i, d], j = -100.0, start
            P[i, d, j] = 1
    return table_of(R, P, beta)


def path(Q):
    """Rows on the greedy way from start to goal."""
    i, table, rows = 36, cliff(), []
    for _ in range(100):
        rows.append(i // 12)
        if i == 47:
            return rows
        i = int(table.P[i, Q[i].argmax()].argmax())
    raise AssertionError("the greedy path does not reach the goal")


def fixed_point(table, epsilon):
    """Q of the best policy that takes a random action with probability epsilon; epsilon = 0: the optimal Q."""
    Q = torch.zeros_like(table.R)
    for _ in range(3000):
        Q = table.lookahead((1 - epsilon) * Q.amax(dim=-1) + epsilon * Q.mean(dim=-1))
    return Q


def test_on_the_cliff_sarsa_takes_the_safe_path_and_q_learning_the_short_one():
    table = cliff()
    settings = {"epsilon": 0.1, "environments": 500, "episode": 100}
    on_policy = walked(SARSA(**settings), table, 3000)
    off_policy = walked(QLearning(**settings), table, 3000)
    assert path(off_policy.Q) == [3] + 12 * [2] + [3]  # along the edge
    assert path(on_policy.Q).count(2) <= 2  # up, and down at the end
    assert len(path(on_policy.Q)) > 14
    often = off_policy.visits > 1000
    assert (off_policy.Q - fixed_point(table, 0.0))[often].abs().max() < 0.1


@pytest.mark.parametrize("episode", [1, 10])
def test_q_learning_finds_the_exact_values_of_a_random_table(episode):
    """Also where every path begins anew after each step: what is learned from is the state truly reached."""
    table = random_table()
    walk = walked(QLearning(environments=500, epsilon=0.5, episode=episode), table, 4000)
    exact = table.lookahead(table.solve()[0])
    assert (walk.Q - exact).abs().max() < 0.01 * exact.abs().max()
    assert torch.equal(walk.Q.argmax(-1), exact.argmax(-1))


def test_sarsa_values_the_policy_that_explores_and_with_less_and_less_of_it_the_optimal_one():
    table, method = random_table(), SARSA(environments=500, epsilon=0.5)
    walk = walked(method, table, 4000)
    kept, optimal = fixed_point(table, 0.5), fixed_point(table, 0.0)
    assert (walk.Q - kept).abs().max() < 0.02 * kept.abs().max()
    walk = Walk(method, table, 0.0, generator())
    for step in range(8000):
        walk.update(1 - step / 8000)
    assert (walk.Q - optimal).abs().max() < 0.5 * (kept - optimal).abs().max()
    assert torch.equal(walk.Q.argmax(-1), optimal.argmax(-1))


def test_on_the_bus_engines_table_value_iteration_policy_iteration_and_q_learning_agree():
    """With a grid point at every bin of the odometer, `vi` solves the very table that quantecon solves."""
    bus = RustBus(tastes=3)
    method = QLearning(points=175, epsilon=0.6, episode=2)
    solution = solve(method, bus, steps=4000)
    mdp, grid = solution.mdp, solution._value.grid
    s = states_of(mdp, grid)
    table = tabulate(mdp, grid, mdp.act(s.unsqueeze(1), mdp.options))
    V, sigma = table.solve()
    on_the_grid = solve(VI(points=175, interpolation="linear", margin=0.0, spacing=0.0), bus)
    assert (on_the_grid.value(s) - V).abs().max() < 1e-9 * V.abs().max()
    assert torch.equal(on_the_grid.policy(s)[:, 0].long(), sigma)
    error, chosen = (solution.value(s) - V).abs() / V.abs(), table.lookahead(V)
    assert error.mean() < 0.01
    assert error.max() < 0.05
    mistakes = V - chosen.gather(-1, solution.policy(s).long()).squeeze(-1)
    assert mistakes.max() < 0.01 * V.abs().min()


# Through the front door

SMALL = {"points": (11, 3), "actions": 5, "environments": 64}
TABULAR = pytest.mark.parametrize("method", [TD0(**SMALL), SARSA(**SMALL), QLearning(**SMALL)], ids=lambda m: m.name)


def solve(method, model=None, **task):
    return econrl.solve(model or Investment(), method, progress=False, **task)


@TABULAR
def test_solutions_come_back_from_disk_and_the_same_seed_gives_the_same_bits(method, tmp_path):
    solution = solve(method, steps=30)
    solution.save(tmp_path / "out")
    points = solution.mdp.sample_box(200, generator())
    for twin in (econrl.load(tmp_path / "out"), solve(method, steps=30)):
        assert torch.equal(solution.policy(points), twin.policy(points))
        assert torch.equal(solution.value(points), twin.value(points))
    assert not torch.equal(solution.value(points), solve(method, steps=30, seed=1).value(points))
    assert solution.mdp.feasible(points, solution.policy(points)).all()
    assert solution.policy_table()["value"].notna().all()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    method, whole = QLearning(**SMALL), solve(QLearning(**SMALL), steps=60)
    broken = Walk.update

    def stops(walk, rate):
        if rate < 0.5:
            raise SystemExit("killed")
        broken(walk, rate)

    monkeypatch.setattr(Walk, "update", stops)
    with pytest.raises(SystemExit, match="killed"):
        solve(method, steps=60, checkpoint=tmp_path / "run")
    monkeypatch.setattr(Walk, "update", broken)
    resumed = solve(method, steps=60, checkpoint=tmp_path / "run")
    points = whole.mdp.sample_box(200, generator())
    assert torch.equal(whole.value(points), resumed.value(points))
    assert whole.training["error"].tolist() == resumed.training["error"].tolist()


def test_td0_values_the_policy_that_it_is_given():
    """The exact value of that policy on the same table; and of the policy of another method, not of its menu."""
    other = solve(QLearning(**SMALL), steps=40)
    for start in ({}, {"warm_start": other}):
        steps = 6000 if start else 2000  # a policy of many rates has rewards of many sizes to learn
        solution = solve(TD0(**{**SMALL, "environments": 512}), steps=steps, **start)
        mdp, grid = MDP(Investment()), solution._value.grid
        s = states_of(mdp, grid)
        table = tabulate(mdp, grid, solution.policy(s).unsqueeze(1))
        exact, _ = table.solve()
        assert (solution.value(s) - exact).abs().max() < 0.03 * exact.abs().max()
        if start:
            assert torch.equal(solution.policy(s), other.policy(s))
        else:
            assert solution.policy(s).std() < 1e-12  # a constant investment rate


def test_what_a_table_cannot_hold_is_refused_with_the_methods_that_can():
    for model, method, reason in (
        (LifeCycle(), QLearning(), "a table has no calendar"),
        (BufferStock(), SARSA(), "one discount factor"),
        (Investment(), QLearning(points=3000, actions=1000), "a table of 9,000,000 states, 1,000 actions"),
        (Investment(), QLearning(memory_limit=1e4), "may use 1e[+]04"),
        (LongPlosser(), QLearning(), "a table of"),
    ):
        with pytest.raises(MethodError, match=f"{method.name} cannot solve .*{reason}.*Methods that can: .*vi"):
            solve(method, model, steps=1)


@pytest.mark.parametrize(("name", "value"), [("epsilon", 2.0), ("power", 0.4), ("environments", 0)])
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(MethodError, match=f"q_learning: `{name}` must be"):
        QLearning(**{name: value})
