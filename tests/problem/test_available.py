"""Options that are not available everywhere: never taken, never compared; against brute force in numpy."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl
from econrl import FVI, VI, Action, Choice, DiscreteState, Model, QLearning, State
from econrl.errors import SaveError, SpecError
from econrl.models import Retirement
from econrl.optimality.greedy import regret
from econrl.problem.mdp import MDP
from econrl.problem.simulate import paths


def solve(model, method="vi", **budget):
    return econrl.solve(model, method, progress=False, **budget)


@dataclass(frozen=True, kw_only=True)
class Random(Model):
    """Five states and three options, not all of them in each; those that are not look best."""

    beta: float = 0.8
    sigma: float = 0.0
    seed: int = 1
    lure: float = 100.0

    @property
    def numbers(self):
        """Rewards, next states, and which options there are, (5, 3) each."""
        rng = np.random.default_rng(self.seed)
        open_now = rng.random((5, 3)) < 0.5
        open_now[:, 2] |= ~open_now.any(axis=1)
        return np.where(open_now, rng.normal(size=(5, 3)), self.lure), rng.integers(5, size=(5, 3)), open_now

    def states(self):
        return DiscreteState("x", n=5)

    def actions(self):
        def available(s):
            return torch.as_tensor(self.numbers[2])[s.x.long()]

        return Choice("d", n=3, tastes=self.sigma, available=available)

    def reward(self, s, a):
        return torch.as_tensor(self.numbers[0])[s.x.long(), a.d.long()].to(s.x.dtype)

    def transition(self, s, a, e):
        return {"x": torch.as_tensor(self.numbers[1])[s.x.long(), a.d.long()].to(s.x.dtype)}

    def exact(self):
        """V (5,) and the probability of each option (5, 3)."""
        r, to, open_now = self.numbers
        V = np.zeros(5)
        for _ in range(300):
            Q = np.where(open_now, r + self.beta * V[to], -np.inf)
            V = Q.max(axis=1)
            if self.sigma > 0:
                V = V + self.sigma * np.log(np.exp((Q - V[:, None]) / self.sigma).sum(axis=1))
        return V, np.exp((Q - V[:, None]) / self.sigma) if self.sigma > 0 else np.eye(3)[Q.argmax(axis=1)]


# The feasible set


def test_what_is_not_available_stands_for_the_next_that_is():
    mdp, (_, _, open_now) = MDP(Random()), Random().numbers
    s = torch.arange(5.0, dtype=torch.float64).repeat_interleave(3).unsqueeze(-1)
    u = torch.arange(3.0, dtype=torch.float64).repeat(5).unsqueeze(-1)
    a = mdp.act(s, u)
    for x, d, found in zip(s[:, 0].long(), u[:, 0].long(), a[:, 0], strict=True):
        assert int(found) == next(k % 3 for k in range(d, d + 3) if open_now[x, k % 3])
    assert mdp.feasible(s, a).all()
    assert mdp.feasible(s, u).tolist() == open_now.ravel().tolist()
    assert torch.equal(mdp.alternatives.available(s[::3]), torch.as_tensor(open_now))
    assert torch.equal(torch.func.vmap(mdp.act)(s, u), a)


# Solved


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize(
    ("method", "budget", "tolerance"),
    [
        (VI(), {}, 1e-8),
        (QLearning(), {"steps": 3000}, 0.03),
        (econrl.SARSA(epsilon=0.05), {"steps": 3000}, 0.1),
        (econrl.DQN(episode=3, epsilon=0.5, expected=True), {"steps": 1500}, 0.03),
        (econrl.DoubleDQN(episode=3, epsilon=0.5), {"steps": 1500}, 0.05),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_a_lure_that_is_not_available_is_worth_nothing(method, budget, tolerance, sigma):
    model = Random(sigma=sigma)
    V, P = model.exact()
    solution = solve(model, method, **budget)
    points, open_now = {"x": np.arange(5)}, model.numbers[2]
    assert np.abs(solution.value(points).numpy() - V).max() < tolerance * np.abs(V).max()
    if sigma > 0:
        p = solution.probabilities(points)["d"].numpy()
        assert np.abs(p - P).max() < 4 * tolerance
        assert (p[~open_now] == 0).all()
    else:
        assert (solution.policy(points)["d"].numpy() == P.argmax(axis=1)).all()
    simulated = solution.simulate(periods=20, paths=200)
    x, d = (simulated[name].to_numpy().astype(int) for name in ("x", "d"))
    assert open_now[x, d].all()
    accuracy = solution.accuracy(500).set_index(["sample", "measure"])["mean"]
    assert accuracy["box", "infeasible"] == 0
    assert accuracy["box", "distance"] < -1


@pytest.mark.parametrize("method", [econrl.PPO(environments=64), econrl.A2C()], ids=lambda x: x.name)
def test_a_policy_gradient_never_takes_it(method):
    model = Random()
    solution = solve(model, method, steps=20)
    points = {"x": np.arange(5)}
    assert model.numbers[2][np.arange(5), solution.policy(points)["d"].numpy().astype(int)].all()
    assert solution.simulate(periods=10, paths=100)["reward"].max() < 50


def test_regret_does_not_miss_what_there_is_not():
    model = Random()
    mdp = MDP(model)
    V, _ = model.exact()
    s = torch.arange(5.0, dtype=torch.float64).unsqueeze(-1)
    a = mdp.act(s, torch.full_like(s, 2.0))
    r, to, open_now = model.numbers
    Q = np.where(open_now, r + model.beta * V[to], -np.inf)
    expected = Q.max(axis=1) - Q[np.arange(5), a[:, 0].long().numpy()]
    value = lambda s: torch.as_tensor(V)[s[..., 0].long()]  # noqa: E731
    assert regret(mdp, value, s, a, 0).numpy() == pytest.approx(expected)


def test_random_simulations_keep_to_it():
    mdp, generator = MDP(Random()), torch.Generator().manual_seed(0)
    draws = lambda s: mdp.act(s, mdp.sample_options(s.new_zeros(len(s), 1), generator))  # noqa: E731
    s, a = paths(mdp, draws, mdp.sample_box(100, generator), 20, generator)
    assert Random().numbers[2][s.long().flatten().numpy(), a.long().flatten().numpy()].all()


@dataclass(frozen=True, kw_only=True)
class ForGood(Retirement):
    """Retirement, where the retired have no choice; it is another model by its options alone."""

    def actions(self):
        return Choice("work", n=2, available=lambda s: (True, s.career == 1)), Action("c", low=0.0, high=lambda s: s.m)


@pytest.mark.parametrize("method", [VI(), FVI(states=200)], ids=lambda x: x.name)
def test_the_last_worker_and_the_retired(method):
    """Two periods: without a future income c = m / (1 + beta); in the last period nobody works, and all is eaten."""
    model = ForGood(horizon=2)
    solution = solve(model, method)
    m = np.array([10.0, 20.0, 35.0])
    retired = solution.policy({"m": m, "career": 0.0, "t": 0.0})
    assert (retired["work"] == 0).all()
    assert np.abs(retired["c"].numpy() * (1 + model.beta) / m - 1).max() < 1e-4
    value = solution.value({"m": m, "career": 0.0, "t": 0.0}).numpy()
    exact = np.log(m / (1 + model.beta)) + model.beta * np.log(m - m / (1 + model.beta))
    assert np.abs(value - exact).max() < 1e-3
    assert (solution.policy({"m": m, "career": 1.0, "t": 1.0})["work"] == 0).all()


@dataclass(frozen=True, kw_only=True)
class House(Model):
    """A house is bought at a price by those who have it in cash, and is good for ever; else all is eaten bit by bit.
    Without the price the bound of c would lie below zero."""

    horizon: int = 2
    beta: float = 0.9
    price: float = 1.0
    joy: float = 3.0

    def states(self):
        return State("m", low=0.2, high=4.0), DiscreteState("owner", n=2)

    def actions(self):
        buys = Choice("buy", n=2, available=lambda s: (True, (s.owner == 0) & (s.m > self.price + 0.1)))
        return buys, Action("c", low=0.0, high=lambda s, a: s.m - self.price * a.buy)

    def reward(self, s, a):
        return a.c.log() + self.joy * s.owner

    def terminal(self, s):
        return s.m.log()

    def transition(self, s, a, e):
        left = s.m - self.price * a.buy - a.c
        return {"m": left + 0.1, "owner": torch.where(a.buy == 1, 1.0, s.owner)}


@pytest.mark.parametrize("method", [VI(points=200), FVI(states=300)], ids=lambda x: x.name)
def test_a_house_that_only_the_rich_can_buy(method):
    """By brute force in numpy, backwards over a fine grid of consumption."""
    model = House()
    assert econrl.check(model) == []
    share = np.linspace(0.0005, 0.9995, 4000)

    def last(m, owner):
        """V and the purchase in the last period; a purchase brings nothing there but a smaller estate."""
        c = share * m[:, None]
        return (np.log(c) + model.beta * np.log(m[:, None] - c + 0.1)).max(axis=1) + model.joy * owner

    def first(m):
        options = []
        for buy in (0, 1):
            cash = m - model.price * buy
            if buy and m <= model.price + 0.1:
                options.append(-math.inf)
                continue
            c = share * cash
            options.append((np.log(c) + model.beta * last(cash - c + 0.1, buy)).max())
        return options

    solution = solve(model, method)
    for m in (0.6, 1.05, 1.3, 2.0, 3.5):
        options = first(m)
        at = {"m": m, "owner": 0.0, "t": 0.0}
        assert float(solution.policy(at)["buy"]) == np.argmax(options), m
        assert float(solution.value(at)) == pytest.approx(max(options), abs=5e-3), m
    assert solution.accuracy(300).query("measure == 'infeasible'")["mean"].max() == 0


def test_it_is_saved_with_what_is_available(tmp_path):
    solve(ForGood(horizon=2), VI(points=(20,))).save(tmp_path / "kept")
    assert econrl.load(tmp_path / "kept").policy({"m": 20.0, "career": 0.0, "t": 0.0})["work"] == 0

    @dataclass(frozen=True, kw_only=True)
    class Other(Retirement):
        pass

    Other.__name__ = "ForGood"
    with pytest.raises(SaveError, match="was solved for another ForGood"):
        econrl.load(tmp_path / "kept", Other)


def test_over_a_range_of_parameters_each_member_has_its_own():
    family = econrl.family.family.Family(one=House(), over={"price": (1.0, 2.0)})
    mdp = MDP(family)
    s = mdp.tensor([[1.5, 0.0, 1.0, 0.0], [1.5, 0.0, 2.0, 0.0]])  # m, owner, price, t
    assert mdp.alternatives.available(s).tolist() == [[True, True], [True, False]]


# Mistakes


def changed(available, n=2):
    @dataclass(frozen=True, kw_only=True)
    class Broken(ForGood):
        def actions(self):
            return Choice("work", n=n, available=available), Action("c", low=0.0, high=lambda s: s.m)

    return Broken()


@pytest.mark.parametrize(
    ("available", "message"),
    [
        (lambda s: (s.career == 1, s.career == 1), r"'work' that are available: none is at the state m = .*career = 0"),
        (lambda s: (True, s.m > 21), None),
        (lambda s: (s.m < 300, s.career > 2), r"none is at the state m = [34]\d\d"),
        (lambda s: (True, s.career), r"got torch.float64 of shape \(514,\) for 514 states; give 2 bools"),
        (lambda s: (True, True, False), "got 3 bools for 514 states; give 2 bools"),
        (lambda s: s.career == 1, r"got torch.bool of shape \(514,\) for 514 states; .*one tensor of shape \(..., 2\)"),
        (lambda s: (True, s.carrer == 1), "no state is called 'carrer'"),
        (lambda s, a: (True, True), "takes 2 arguments|must be a function of the state"),
        ((True, False), "it must be a function of the state, f"),
        (lambda s: (True, s.m > 1 if s.career == 1 else s.m > 2), "use torch.where in place of `if`"),
    ],
)
def test_mistakes_are_told_in_one_line(available, message):
    if message is None:
        assert econrl.check(changed(available)) == []
        return
    with pytest.raises(SpecError, match=message) as raised:
        econrl.check(changed(available))
    assert "\n" not in str(raised.value)


@dataclass(frozen=True, kw_only=True)
class UntilAge(Model):
    """Work, at a wage of one, is there until an age; income is consumed."""

    horizon: int = 4
    beta: float = 0.9
    last: int = 2

    def states(self):
        return State("m", low=0.5, high=3.0)

    def actions(self):
        work = Choice("work", n=2, available=lambda s: (True, s.t < self.last))
        return work, Action("c", low=0.0, high=lambda s: s.m)

    def reward(self, s, a):
        return a.c.log() - 0.1 * a.work

    def transition(self, s, a, e):
        return {"m": s.m - a.c + 0.5 + a.work}


def test_an_option_that_an_age_has_nowhere_is_none_on_a_grid():
    """In the later periods no state at all has it."""
    solution = econrl.solve(UntilAge(), VI(points=12), progress=False)
    table = solution.simulate(paths=20, seed=0)
    assert (table["work"][table["t"] < 2] == 1).all()
    assert (table["work"][table["t"] >= 2] == 0).all()
