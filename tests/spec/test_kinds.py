"""All kinds of variables in everything that takes them, and kinds of a user's own, derived here and registered nowhere.

`Around`, `Angle` and `Count` are what a new kind costs: one class.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import econrl
from econrl import DDPG, VI, Action, Budget, Choice, DiscreteState, MarkovChain, Model, Normal, SpecError, State
from econrl.command.cli import variables
from econrl.gym import make_env
from econrl.optimality.find_structure import find_structure
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.spec.share_sets import UNIT_INTERVAL, ShareSet
from econrl.spec.variables import ActionKind, Bound, StateKind


@dataclass(frozen=True)
class Around(ActionKind):
    """An action no further than `reach` from a centre."""

    name: str
    centre: Bound
    reach: Bound
    size: int | None = None

    bounds: ClassVar[tuple[str, ...]] = ("centre", "reach")
    shares: ClassVar[ShareSet] = UNIT_INTERVAL

    def interval(self, s, a, like):
        centre, reach = (self.at(bound, s, a, like) for bound in (self.centre, self.reach))
        return centre - reach, 2 * reach

    def check(self, title):
        if not callable(self.reach) and not self.reach > 0:
            raise SpecError(f"{title} has reach {self.reach}; it must be positive")


@dataclass(frozen=True)
class Angle(StateKind):
    """A continuous state on a circle: the transition may write any angle."""

    name: str

    size = None
    domain: ClassVar[tuple[list[float], list[float]]] = [-math.pi], [math.pi]

    def writer(self, like):
        return lambda x: torch.remainder(x + math.pi, 2 * math.pi) - math.pi


@dataclass(frozen=True)
class Count(StateKind):
    """The whole numbers from `least` to `most`, each part of a vector by itself."""

    name: str
    least: int
    most: int
    size: int | None = None

    @property
    def count(self):
        return self.most - self.least + 1

    @property
    def domain(self):
        n = self.size or 1
        return [0.0] * n, [self.count - 1.0] * n

    def reader(self, like):
        return lambda held: held + self.least

    def writer(self, like):
        return lambda x: x - self.least

    def text(self):
        return f"{self.label} counted from {self.least} to {self.most}"


STATES = {
    "scalar": State("x", low=-1.0, high=1.0),
    "vector": State("x", low=-1.0, high=1.0, size=2),
    "chain": MarkovChain("x", values=(-0.5, 0.5), P=((0.8, 0.2), (0.3, 0.7))),
    "discrete": DiscreteState("x", n=2),
    "angle": Angle("x"),
    "count": Count("x", least=5, most=7),
    "counts": Count("x", least=5, most=6, size=2),
}
WEALTH = lambda s: s.k  # noqa: E731
ACTIONS = {
    "two bounds": Action("c", low=0.0, high=WEALTH),
    "a bound below": Action("c", low=0.0),
    "a bound above": Action("c", high=WEALTH),
    "no bound": Action("c"),
    "vector": Action("c", low=-1.0, high=WEALTH, size=2),
    "budget": Budget("c", size=2, total=WEALTH),
    "choice": Choice("c", n=3),
    "around": Around("c", centre=lambda s: s.k / 2, reach=0.4),
    "each around": Around("c", centre=0.5, reach=lambda s: s.k / 2, size=2),
}


@dataclass(frozen=True, kw_only=True)
class Kinds(Model):
    """One state and one action of the given kinds, beside capital k: c should be near k / 2 + cos(x) / 4."""

    beta: float = 0.9
    state: str = "scalar"
    action: str = "two bounds"

    def states(self):
        return State("k", low=0.5, high=2.0), STATES[self.state]

    def actions(self):
        return ACTIONS[self.action]

    def shocks(self):
        return Normal("e", std=0.1)

    def reward(self, s, a):
        x = s.x if STATES[self.state].size is None else s.x.sum(-1)
        return -((self.total(a) - s.k / 2 - x.cos() / 4) ** 2)

    def total(self, a):
        return a.c if ACTIONS[self.action].size is None else a.c.sum(-1)

    def transition(self, s, a, e):
        k = 1 + 0.5 * (s.k - 1) + 0.1 * torch.tanh(self.total(a)) + 0.1 * e.e
        kind = STATES[self.state]
        if kind.by_itself:
            return {"k": k}
        if kind.count is None:
            turn = 0.9 * s.x + 0.1 * (e.e if kind.size is None else e.e.unsqueeze(-1))
            return {"k": k, "x": s.x + 1.0 if self.state == "angle" else turn}
        least = getattr(kind, "least", 0)
        return {"k": k, "x": least + (s.x - least + 1) % kind.count}

    def outcomes(self, s, a):
        return {"total": self.total(a)}


CASES = [Kinds(state=name) for name in STATES] + [Kinds(action=name) for name in ACTIONS if name != "two bounds"]
NEW = [Kinds(state=state, action=action) for state, action in (("angle", "around"), ("count", "around"))]
every_kind = pytest.mark.parametrize("model", CASES + NEW, ids=lambda m: f"{m.state}, {m.action}")


def points(model, n=200):
    mdp, generator = MDP(model), torch.Generator().manual_seed(0)
    s = mdp.sample_box(n, generator)
    u = mdp.sample_options(2 * torch.randn(n, mdp.A, generator=generator, dtype=mdp.dtype), generator)
    return mdp, s, u, mdp.sample_shocks(s, generator)


def test_no_kind_is_forgotten():
    """A kind that econrl exports must be among those of this file."""
    exported = {v for v in vars(econrl).values() if isinstance(v, type) and issubclass(v, StateKind | ActionKind)}
    assert exported <= {type(v) for v in [*STATES.values(), *ACTIONS.values()]}
    assert {State, MarkovChain, DiscreteState, Action, Budget, Choice} <= exported


# The promises of a kind


@every_kind
def test_an_action_keeps_its_bounds_and_its_maps_are_inverse(model):
    mdp, s, u, _ = points(model)
    y, a = mdp.squash(u), mdp.act(s, u)
    assert mdp.feasible(s, a, slack=1e-12).all()
    torch.testing.assert_close(mdp.shares(s, a), y, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mdp.unsquash(y), u, rtol=1e-8, atol=1e-8)
    assert mdp.feasible(s, mdp.from_shares(s, mdp.clamp_shares(y + 3)), slack=1e-9).all() or mdp.choices
    if mdp.free:
        jacobian = torch.func.vmap(torch.func.jacrev(mdp.squash))(u)
        torch.testing.assert_close(mdp.squash_slope(u), jacobian.diagonal(dim1=-2, dim2=-1), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mdp.log_squash_volume(u), jacobian.det().log(), rtol=1e-7, atol=1e-7)


@every_kind
def test_a_state_stays_in_its_form(model):
    """What is sampled, what the transition gives and what tables show is one and the same form in the flat tensor."""
    mdp, s, u, e = points(model)
    reached = mdp.transition(s, mdp.act(s, u), e)
    column = mdp.state_slots[1].start
    for x in (s, reached, mdp.sample_initial(50, torch.Generator().manual_seed(1))):
        inside = x[:, column:]
        if model.state != "scalar":  # shocks may carry it out of its domain
            assert ((inside >= mdp.low[column:]) & (inside <= mdp.high[column:])).all() or model.state == "vector"
        view = mdp.state(x)
        assert view.x.shape == ((len(x),) if STATES[model.state].size is None else (len(x), STATES[model.state].size))
        held = STATES[model.state].locate(view.x)
        torch.testing.assert_close(held if held.ndim == 2 else held.unsqueeze(-1), inside, rtol=0, atol=1e-12)


@every_kind
def test_check_and_the_command_know_it(model):
    assert econrl.check(model) == []
    states, actions, shocks = variables(model)
    assert states[1].startswith("x")
    assert actions[0].startswith("c")
    assert shocks == ["Normal e"]


@every_kind
def test_gym_and_given_problems_take_it(model, hasty):
    env = make_env(model)
    env.reset(seed=0)
    for x in (-1.0, 0.0, 1.0):
        reward = env.step(np.full(env.action_space.shape, x, dtype=np.float32))[1]
        assert math.isfinite(reward)
    mdp, s, u, _ = points(model)
    other = mdp.with_quadrature(Quadrature(nodes=2))
    assert len(other.nodes) < len(mdp.nodes)
    assert torch.equal(other.act(s, u), mdp.act(s, u))
    assert mdp.on(dtype=torch.float32).act(s.float(), u.float()).dtype == torch.float32


SMALL = {
    "vi": VI(points=5, nodes=2, howard=3),
    "ddpg": DDPG(hidden=(4, 4), batch=8, environments=4, rung=1),
    "sac": econrl.SAC(hidden=(4, 4), batch=8, environments=4, warm_up=1),
    "ppo": econrl.PPO(hidden=(4, 4), environments=8, periods=2, episode=4),
    "dqn": econrl.DQN(hidden=(4, 4), batch=8, environments=4, actions=3),
    "q_learning": econrl.QLearning(points=5, actions=3, environments=8),
}
DEAR = {"time_iteration": econrl.TimeIteration(points=5, nodes=2), "newton": econrl.Newton(hidden=(4, 4), nodes=2)}


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr("econrl.approximation.constant_shares.ROUNDS", 1)


@every_kind
def test_methods_solve_it_tables_show_it_and_files_hold_it(model, hasty, tmp_path):
    """The new kinds by all methods that take them, the others by two, in turn."""
    mdp = MDP(model)
    able = [method for method in SMALL.values() if method.why_not(mdp) is None]
    assert {"vi", "q_learning", "ppo"} <= {method.name for method in able}
    assert model.action == "choice" or {"ddpg", "sac"} <= {method.name for method in able}
    turn = (CASES + NEW).index(model) % (len(able) - 1)
    dear = [method for method in DEAR.values() if method.why_not(mdp) is None]
    for method in [*able, *dear] if model in NEW else (able[1 + turn], able[0]):
        solution = econrl.solve(model, method, steps=2, progress=False)
        assert solution.policy(solution.mdp.low).isfinite().all()
    table = solution.policy_table()
    own = [c for c in table if c.split("[")[0] == "x"]
    kind = STATES[model.state]
    assert len(own) == (kind.size or 1)
    if isinstance(kind, Count):
        assert table[own].min().min() == kind.least
        assert table[own].max().max() == kind.most
        with pytest.raises(SpecError, match="'x' must be a whole number"):
            solution.policy({"k": 1.0, "x": kind.least + 0.5})
    shown = table[["k", *own]].head(20)
    again = solution.policy(shown)
    pd.testing.assert_frame_equal(again, table[list(again)].head(20), check_dtype=False, check_exact=False)
    assert "total" in solution.simulate(periods=3, paths=2)
    solution.save(tmp_path / "kept")
    loaded = econrl.load(tmp_path / "kept", Kinds)
    pd.testing.assert_frame_equal(loaded.policy_table(), table)


def test_new_kinds_are_solved_as_the_built_in_ones_that_mean_the_same():
    """Around k/2 by 0.4 is an action between k/2 - 0.4 and k/2 + 0.4, and a count from 5 to 7 a state of three values
    that is read with 5 more."""

    @dataclass(frozen=True, kw_only=True)
    class Old(Kinds):
        def states(self):
            return State("k", low=0.5, high=2.0), DiscreteState("x", n=3)

        def actions(self):
            return Action("c", low=lambda s: s.k / 2 - 0.4, high=lambda s: s.k / 2 + 0.4)

        def reward(self, s, a):
            return -((a.c - s.k / 2 - (s.x + 5).cos() / 4) ** 2)

        def transition(self, s, a, e):
            return {**super().transition(s, a, e), "x": (s.x + 1) % 3}

    new, old = (
        econrl.solve(model, VI(points=7, nodes=3), steps=5, progress=False)
        for model in (Kinds(state="count", action="around"), Old())
    )
    ours, theirs = new.policy_table(), old.policy_table()
    np.testing.assert_allclose(ours["x"], theirs["x"] + 5)
    np.testing.assert_allclose(ours[["c", "value"]], theirs[["c", "value"]], rtol=1e-9, atol=1e-9)


def test_a_new_action_kind_in_a_family(hasty):
    """Its bounds are those of the state's member."""

    @dataclass(frozen=True, kw_only=True)
    class Wide(Kinds):
        reach: float = 0.4

        def actions(self):
            return Around("c", centre=lambda s: s.k / 2, reach=self.reach)

    solution = econrl.solve(Wide(), SMALL["ddpg"], steps=2, progress=False, over={"reach": (0.3, 0.5)})
    narrow, wide = (solution.at(reach=reach).mdp for reach in (0.3, 0.5))
    s = narrow.tensor([[1.0, 0.0]])
    assert float(narrow.act(s, narrow.tensor([[40.0]]))) == pytest.approx(0.8)
    assert float(wide.act(s, wide.tensor([[40.0]]))) == pytest.approx(1.0)


def test_the_mistakes_in_a_new_kind_are_told():
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Kinds):
        reach: Bound = 0.0

        def actions(self):
            return Around("c", centre=0.0, reach=self.reach)

    with pytest.raises(SpecError, match=r"Wrong.actions: Around 'c' has reach 0.0; it must be positive"):
        econrl.check(Wrong())
    with pytest.raises(SpecError, match=r"the bounds of 'c': reach has shape \(256, 1\)"):
        econrl.check(Wrong(reach=lambda s: s.k.unsqueeze(-1)))
    with pytest.raises(SpecError, match=r"the bounds of 'c': low = .* is above high"):
        econrl.check(Wrong(reach=lambda s: s.k - 1))


# The problem in other terms


def test_structure_is_found_once():
    mdp = MDP(Kinds())
    first = find_structure(mdp)
    assert find_structure(mdp) is first
    assert find_structure(mdp, probes=8) is not first
    assert find_structure(MDP(Kinds())) == first


def test_a_variant_shares_what_stays_the_same():
    mdp = MDP(Kinds(state="chain"))
    coarse, single = mdp.with_quadrature(Quadrature(nodes=2)), mdp.on(dtype=torch.float32)
    assert coarse.layout is mdp.layout is single.layout
    assert coarse.model is mdp.model
    for variant, made in (
        (coarse, MDP(Kinds(state="chain"), quadrature=Quadrature(nodes=2))),
        (single, MDP(Kinds(state="chain"), dtype=torch.float32)),
    ):
        assert torch.equal(variant.nodes, made.nodes)
        assert torch.equal(variant.weights(variant.low), made.weights(made.low))
        assert torch.equal(variant.low, made.low)


def test_the_groups_of_a_given_problem_are_its_own():
    """A choice that is made leaves its column, and those of the members move up."""

    @dataclass(frozen=True, kw_only=True)
    class Grouped(Kinds):
        def states(self):
            return State("k", low=0.5, high=2.0), State("x", low=-1.0, high=1.0, size=2, group="farm")

        def actions(self):
            return Choice("d", n=2), Action("c", low=0.0, high=1.0, size=2, group="farm")

    mdp = MDP(Grouped())
    (group,) = mdp.groups
    given = mdp.given(mdp.options[1])
    (own,) = given.groups
    assert group.actions.tolist() == [[1], [2]]
    assert own.actions.tolist() == [[0], [1]]
    assert given.nodes is mdp.nodes
    assert mdp.given(mdp.options[1]) is given
    assert float(given.actions(given.low[:2]).d) == 1.0
