"""Groups of exchangeable members: sound declarations, a model without an order, and networks that know it."""

from dataclasses import dataclass

import pytest
import torch

from econrl import DDPG, Action, Model, Normal, State, load, solve
from econrl.approximation.constant_shares import best_constant_shares
from econrl.approximation.exchangeable_network import PooledNetwork
from econrl.approximation.networks import ActionValueNetwork, Actor, ValueNetwork
from econrl.checks import check
from econrl.errors import SpecError
from econrl.models import IRBC
from econrl.problem.mdp import MDP

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Farms(Model):
    """Farms of different soils share seed, beside a common price and a common effort."""

    n: int = 3
    beta: float = 0.9

    def group_features(self):
        return {"farm": {"soil": torch.linspace(0.5, 1.0, self.n, dtype=torch.float64)}}

    @property
    def soil(self):
        return self.group_features()["farm"]["soil"]

    def states(self):
        return (
            State("price", low=0.5, high=1.5),
            State("stock", low=1.0, high=3.0, size=self.n, group="farm"),
        )

    def actions(self):
        return (
            Action("effort", low=0.0, high=1.0),
            Action("seed", low=0.0, high=lambda s: s.stock * self.soil, size=self.n, group="farm"),
        )

    def shocks(self):
        return Normal("rain", std=0.1 * self.soil, size=self.n, group="farm"), Normal("demand", std=0.1)

    def reward(self, s, a):
        return s.price * (self.soil * (s.stock - 0.2 * a.seed)).sum(-1) - a.effort**2

    def transition(self, s, a, e):
        price = 1 + 0.5 * (s.price - 1) + e.demand
        return {"price": price, "stock": 1 + self.soil * a.seed + a.effort.unsqueeze(-1) / 2 + e.rain}


def variant(**members):
    return dataclass(frozen=True, kw_only=True)(type("Broken", (Farms,), members))()


def refuses(model, *fragments):
    with pytest.raises(SpecError) as caught:
        check(model)
    for fragment in fragments:
        assert fragment in str(caught.value)


# Declarations


def test_sound_groups_pass():
    assert check(Farms()) == []
    assert check(IRBC(n=3, irreversible=True)) == []


def test_a_member_has_one_number_of_each_variable():
    stock = State("stock", low=1.0, high=3.0, size=3, group="farm")
    alone = State("price", low=0.5, high=1.5, group="farm")
    refuses(variant(states=lambda self: (alone, stock)), "State 'price' of the group 'farm' is a scalar")
    refuses(variant(shocks=lambda self: Normal("rain", size=2, group="farm")), "'rain' has size 2", "size 3")
    refuses(variant(states=lambda self: State("stock", low=1.0, high=3.0, size=3, group=1)), "has group 1")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"soil": torch.ones(3)}, "a dict of tensors for each group"),
        ({"farm": {"soil": [1.0, 1.0, 1.0]}}, "a dict of tensors for each group"),
        ({"farm": {"soil": torch.ones(2)}}, "'soil' of the group 'farm' has shape (2,)"),
        (
            {"farm": {"soil": torch.ones(3)}, "field": {"soil": torch.ones(3)}},
            "the group 'field', which no variable has",
        ),
    ],
)
def test_constants_have_one_number_a_member(features, message):
    refuses(variant(group_features=lambda self: features), "Broken.group_features", message)


# The order of the members

FIRST = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"reward": lambda self, s, a: Farms.reward(self, s, a) + s.stock[..., 0]}, "Broken.reward"),
        ({"discount": lambda self, s, a, e: 0.9 - 0.01 * s.stock[..., 0]}, "Broken.discount"),
        (
            {"transition": lambda self, s, a, e: {**Farms.transition(self, s, a, e), "stock": s.stock * FIRST + 1}},
            "stock[0]",
        ),
        (
            {
                "actions": lambda self: (
                    Farms.actions(self)[0],
                    Action("seed", 0.0, lambda s: s.stock + FIRST, size=3, group="farm"),
                )
            },
            "Broken.actions (their bounds)",
        ),
        ({"shocks": lambda self: (Normal("rain", FIRST, size=3, group="farm"), Normal("demand"))}, "'std' of 'rain'"),
        ({"soil": property(lambda self: torch.linspace(0.5, 1.0, 3, dtype=torch.float64))}, "self.group_features()"),
        ({"shocks": lambda self: (Normal("rain", 0.1, size=3), Normal("demand", 0.1))}, "Broken.transition"),
    ],
)
def test_an_order_of_the_members_is_found(members, where):
    refuses(variant(**members), where, "the order of the group 'farm'", "members 0 and 1", "group=")


# Columns


def test_each_member_has_its_columns():
    (group,) = MDP(Farms(), dtype=torch.float32).groups
    assert (group.name, group.size) == ("farm", 3)
    assert group.states.tolist() == [[1], [2], [3]]
    assert group.actions.tolist() == [[1], [2], [3]]
    assert group.shocks.tolist() == [[0], [1], [2]]
    torch.testing.assert_close(group.features, torch.tensor([[-1.0], [0.0], [1.0]]))


def test_a_model_sees_its_constants_in_the_solver_s_type():
    mdp = MDP(Farms(), dtype=torch.float32)
    assert mdp.model.group_features()["farm"]["soil"].dtype == torch.float32
    assert mdp.reward(mdp.low, torch.zeros(4)).dtype == torch.float32
    assert mdp.model.replace(n=4).group_features()["farm"]["soil"].shape == (4,)


# Networks


def functions(mdp):
    torch.manual_seed(0)
    actor = Actor(mdp, (8, 8)).to(mdp.dtype)
    return actor, ValueNetwork(mdp, (8,), {}).to(mdp.dtype), ActionValueNetwork(mdp, (8,), {}, (8,)).to(mdp.dtype)


def test_members_that_change_places_change_actions_and_no_value():
    equal = Farms(n=4)
    object.__setattr__(equal, "group_features", lambda: {"farm": {"soil": torch.ones(4, dtype=torch.float64)}})
    mdp = MDP(equal)
    actor, V, Q = functions(mdp)
    s, u = mdp.sample_box(16, torch.Generator().manual_seed(1)), torch.randn(16, mdp.A, dtype=mdp.dtype)
    order = torch.tensor([0, 3, 1, 4, 2])  # the common column first
    # Sums over members in another order differ by rounding.
    torch.testing.assert_close(actor.raw(s[:, order]), actor.raw(s)[:, order], rtol=0, atol=1e-14)
    torch.testing.assert_close(V(s[:, order]), V(s), rtol=0, atol=1e-14)
    torch.testing.assert_close(Q.of(s[:, order], u[:, order]), Q.of(s, u), rtol=0, atol=1e-14)


def test_members_differ_by_state_and_by_constant():
    mdp = MDP(Farms())
    actor, V, _ = functions(mdp)
    alike = torch.tensor([1.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    assert actor.raw(alike)[1:].unique().numel() == 3
    own = torch.func.jacrev(actor.raw)(alike)[1:, 1:]
    assert (own.diagonal() - own[0, 1]).abs().min() > 1e-3  # what is one's own counts in another way
    assert (own != 0).all()  # and so does what the others have
    assert (torch.func.grad(V)(alike) != 0).all()


def test_the_size_does_not_grow_with_the_members():
    weights = [[sum(p.numel() for p in f.parameters()) for f in functions(MDP(IRBC(n=n)))] for n in (2, 10)]
    assert weights[0] == weights[1]


def test_one_state_under_vmap_is_one_of_a_batch():
    mdp = MDP(Farms())
    actor, _, _ = functions(mdp)
    theta, s = dict(actor.named_parameters()), mdp.sample_box(3, torch.Generator().manual_seed(1))

    def a(theta, s):
        return torch.func.functional_call(actor, theta, (s,))

    jacobian = torch.func.vmap(torch.func.jacrev(a), in_dims=(None, 0))(theta, s)
    together = torch.func.jacrev(a)(theta, s)
    for name in theta:
        torch.testing.assert_close(jacobian[name], together[name])


def test_an_actor_begins_where_it_is_told():
    mdp = MDP(Farms())
    actor, _, _ = functions(mdp)
    u = torch.tensor([1.5, -2.0, -2.0, -2.0], dtype=mdp.dtype)
    actor.body.start_at(u)
    torch.testing.assert_close(actor.raw(mdp.sample_box(9, torch.Generator())), u.expand(9, -1), rtol=0, atol=0.05)


def test_the_search_for_a_start_treats_members_alike():
    start = best_constant_shares(MDP(IRBC(n=3)), torch.Generator().manual_seed(0))
    assert start.u.unique().numel() == 1


def test_two_groups_get_a_plain_network():
    mdp = MDP(variant(states=lambda self: (State("price", 0.5, 1.5, 1, "town"), *Farms.states(self)[1:])))
    assert not isinstance(Actor(mdp, (8,)).body, PooledNetwork)
    assert isinstance(Actor(MDP(Farms()), (8,)).body, PooledNetwork)


@pytest.mark.parametrize("rung", [0, 2])
def test_ddpg_solves_with_it_and_saves_it(rung, tmp_path, monkeypatch):
    monkeypatch.setattr("econrl.approximation.constant_shares.ROUNDS", 1)
    solution = solve(IRBC(n=4), DDPG(rung=rung, hidden=(8, 8), batch=32, start_steps=3), steps=1)
    solution.save(tmp_path / "irbc")
    again = load(tmp_path / "irbc")
    s = solution.mdp.sample_box(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.policy(s), solution.policy(s), rtol=0, atol=0)
    assert any(name.startswith("body.phi") for name in again._policy.state_dict())
