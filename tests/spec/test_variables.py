"""Views by name, and the feasible set: any shape, any transform, and never an action outside its bounds."""

import math
from dataclasses import dataclass

import pytest
import torch

from econrl import Action, MarkovChain, SpecError, State
from econrl.problem.layout import View, flatten, slots
from econrl.problem.mdp import MDP
from econrl.spec.variables import evaluate_bound
from example_models import Everything


@dataclass(frozen=True, kw_only=True)
class WithoutChain(Everything):
    """The chain as a continuous state."""

    def states(self):
        return *super().states()[:2], State("y", low=0.0, high=2.0, size=2)

    def transition(self, s, a, e):
        return {**super().transition(s, a, e), "y": 0.3 * s.y}


BOTH = pytest.mark.parametrize("model", [WithoutChain(), Everything()])  # vmap refuses table[index] for one state


def setup(shape=(7,), seed=0, model=None):
    mdp = MDP(model or Everything())
    generator = torch.Generator().manual_seed(seed)
    n = math.prod(shape)
    s = mdp.sample_box(n, generator)
    u = torch.randn(n, mdp.A, generator=generator, dtype=torch.float64)
    e = mdp.sample_shocks(s, generator)
    return mdp, s.reshape(*shape, -1), u.reshape(*shape, -1), e.reshape(*shape, -1)


# Views


def test_views_read_the_columns_of_their_variable():
    mdp, s, u, e = setup((4, 5))
    state, action, shock = mdp.state(s), mdp.actions(u), mdp.shocks(s, e)
    assert state.k.shape == (4, 5)
    assert state.x.shape == (4, 5, 2)
    assert torch.equal(state.k, s[..., 0])
    assert torch.equal(state.x, s[..., 1:3])
    assert action.after.shape == (4, 5)
    assert torch.equal(action.w, u[..., 8:11])
    assert torch.equal(shock.eta, e[..., 1:3])
    table = torch.tensor(((1.0, 0.0), (2.0, -1.0), (3.0, 0.5)), dtype=torch.float64)
    assert torch.equal(state.y, table[s[..., 3].long()])  # a chain is held as its index and read as its value
    assert (mdp.S, mdp.A, mdp.E) == (4, 11, 4)


def test_a_scalar_chain_has_the_batchs_shape():
    @dataclass(frozen=True, kw_only=True)
    class Scalar(Everything):
        def states(self):
            return MarkovChain("y", values=(0.5, 1.5), P=((0.9, 0.1), (0.2, 0.8))), State("k", low=1.0, high=2.0)

    mdp = MDP(Scalar())
    s = torch.tensor([[0.0, 1.2], [1.0, 1.3]], dtype=torch.float64)
    assert mdp.state(s).y.tolist() == [0.5, 1.5]
    assert mdp.state(s).k.tolist() == [1.2, 1.3]


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 1, 3)])
def test_any_leading_batch_shape(shape):
    mdp, s, u, e = setup(shape)
    a = mdp.act(s, u)
    r, s_next = mdp.reward(s, a), mdp.transition(s, a, e)
    assert a.shape == (*shape, mdp.A)
    assert r.shape == shape
    assert s_next.shape == (*shape, mdp.S)
    for got, one in ((a, mdp.act), (mdp.squash(u), lambda s, u: mdp.squash(u))):
        flat = torch.stack([one(*row) for row in zip(s.reshape(-1, mdp.S), u.reshape(-1, mdp.A), strict=True)])
        # One member alone and in a batch: the same operations, vectorised differently, up to the last place.
        torch.testing.assert_close(got.reshape(-1, mdp.A), flat, rtol=1e-13, atol=1e-14)
    rows = zip(s.reshape(-1, mdp.S), a.reshape(-1, mdp.A), e.reshape(-1, mdp.E), strict=True)
    singles = torch.stack([mdp.transition(*row) for row in rows])
    torch.testing.assert_close(s_next.reshape(-1, mdp.S), singles, rtol=1e-13, atol=1e-14)


def test_states_actions_and_shocks_broadcast_against_each_other():
    mdp, s, u, _ = setup((5,))
    a = mdp.act(s, u)
    wide = mdp.transition(s.unsqueeze(-2), a.unsqueeze(-2), mdp.nodes)
    assert wide.shape == (5, len(mdp.nodes), mdp.S)
    torch.testing.assert_close(wide[2, 3], mdp.transition(s[2], a[2], mdp.nodes[3]), rtol=1e-13, atol=1e-14)


def test_grad_agrees_with_the_derivative_by_hand():
    mdp, s, u, _ = setup((6,))
    a = mdp.act(s, u)
    r_s, r_a = torch.func.grad(lambda s, a: mdp.reward(s, a).sum(), argnums=(0, 1))(s, a)
    same = {"rtol": 1e-14, "atol": 1e-14}  # the same elementary operations
    torch.testing.assert_close(r_a[:, 0], -2 * a[:, 0], **same)
    torch.testing.assert_close(r_a[:, 4], 1 / (1 + a[:, 4]), **same)
    torch.testing.assert_close(r_s[:, 0], a[:, 8:].sum(-1), **same)
    torch.testing.assert_close(r_s[:, 1:3], a[:, 6:8], **same)
    assert (r_s[:, 3] == 0).all()  # the index of a chain is no number to differentiate


@BOTH
def test_vmap_grad_and_jacrev_agree_with_the_batch(model):
    mdp, s, u, e = setup((6,), model=model)
    a = mdp.act(s, u)
    same = {"rtol": 1e-12, "atol": 1e-13}  # sums of a dozen terms in another order
    torch.testing.assert_close(torch.func.vmap(mdp.reward)(s, a), mdp.reward(s, a), **same)
    torch.testing.assert_close(torch.func.vmap(mdp.transition)(s, a, e), mdp.transition(s, a, e), **same)
    torch.testing.assert_close(torch.func.vmap(mdp.act)(s, u), mdp.act(s, u), **same)

    r_a = torch.func.grad(lambda a: mdp.reward(s, a).sum())(a)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(mdp.reward, argnums=1))(s, a), r_a, **same)

    f_s = torch.func.vmap(torch.func.jacrev(mdp.transition))(s, a, e)
    assert f_s.shape == (6, mdp.S, mdp.S)
    batched = torch.func.jacrev(lambda s: mdp.transition(s, a, e).sum(0))(s)  # members of a batch do not meet
    torch.testing.assert_close(f_s, batched.transpose(0, 1), **same)
    torch.testing.assert_close(f_s[:, :3, :3], 0.5 * torch.eye(3, dtype=torch.float64).expand(6, 3, 3), **same)


def test_reward_and_transition_compile_as_one_graph():
    mdp, s, u, e = setup((6,))
    a = mdp.act(s, u)
    for f, arguments in ((mdp.reward, (s, a)), (mdp.transition, (s, a, e))):
        torch._dynamo.reset()
        compiled = torch.compile(f, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*arguments), f(*arguments), rtol=1e-13, atol=1e-14)


def test_an_unknown_name_says_which_there_are():
    mdp, s, u, e = setup((3,))
    with pytest.raises(AttributeError, match=r"no state is called 'capital' \(declared so far: k, x, y\)"):
        _ = mdp.state(s).capital
    with pytest.raises(AttributeError, match=r"no action is called 'k'.*two, free.*w"):
        _ = mdp.actions(u).k
    with pytest.raises(AttributeError, match=r"no shock is called 'z' \(declared so far: eps, eta, y\)"):
        _ = mdp.shocks(s, e).z
    with pytest.raises(AttributeError, match=r"no shock is called 'z'.*none"):
        _ = View("shock", {}).z


def test_a_bound_sees_only_the_actions_declared_before_it():
    _, s, u, _ = setup((3,))

    @dataclass(frozen=True, kw_only=True)
    class Backwards(Everything):
        def actions(self):
            return Action("early", low=0.0, high=lambda s, a: a.late), Action("late", low=0.0, high=1.0)

    with pytest.raises(AttributeError, match="no action is called 'late'"):
        MDP(Backwards()).act(s, u)


def test_a_bound_takes_one_or_two_arguments():
    view = View("state", {"k": torch.ones(2)})
    assert evaluate_bound(3.0, view, view) == 3.0
    with pytest.raises(SpecError, match="takes 3 arguments"):
        evaluate_bound(lambda s, a, e: s.k, view, view)


def test_flatten_is_the_inverse_of_reading_and_broadcasts():
    layout = slots([State("a", low=0, high=1), State("b", low=0, high=1, size=2)])
    values = {"b": torch.arange(6.0).reshape(3, 2), "a": torch.tensor(7.0)}
    flat = flatten(layout, values)
    assert flat.tolist() == [[7, 0, 1], [7, 2, 3], [7, 4, 5]]
    assert torch.equal(layout[1].read(flat), values["b"])
    assert [slot.columns for slot in layout] == [["a"], ["b[0]", "b[1]"]]


# The feasible set


def bounds(mdp, s, a):
    """(low, high) of every column, written by hand; None where there is none."""
    k, c, x = s[:, 0], a[:, 4], s[:, 1:3]
    wealth = k * (1 + s[:, 3])  # the chain's first value is its index plus one
    one = torch.ones_like(k)
    low = [-one, None, one, None, 0 * one, -c, x[:, 0] - 1, x[:, 1] - 1, 0 * one, 0 * one, 0 * one]
    high = [3 * one, None, None, k, wealth, k - c / 4, k, k, *[k + c] * 3]
    return low, high


@pytest.mark.parametrize("size", [0.0, 1.0, 5.0, 40.0, 1000.0])
def test_actions_are_feasible_whatever_the_network_says(size):
    mdp, s, u, _ = setup((2000,))
    a = mdp.act(s, size * u)
    for column, (low, high) in enumerate(zip(*bounds(mdp, s, a), strict=True)):
        # low + (high - low) y rounds: one unit in the last place of the bound, which is of size ten at most.
        assert low is None or (a[:, column] >= low - 1e-14).all()
        assert high is None or (a[:, column] <= high + 1e-14).all()
    assert (a[:, 8:].sum(-1) <= s[:, 0] + a[:, 4] + 1e-14).all()
    assert a.isfinite().all()
    assert mdp.feasible(s, a).all()


def test_u_zero_is_the_middle_and_large_u_reaches_the_bounds():
    mdp, s, u, _ = setup((50,))
    a = mdp.act(s, torch.zeros_like(u))
    low, high = bounds(mdp, s, a)
    for column in (0, 4, 5, 6, 7):
        torch.testing.assert_close(a[:, column], (low[column] + high[column]) / 2, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(a[:, 8], (s[:, 0] + a[:, 4]) / 4, rtol=1e-13, atol=1e-14)  # three parts and the rest
    a = mdp.act(s, torch.full_like(u, 60.0))
    low, high = bounds(mdp, s, a)
    for column in (0, 4, 5, 6, 7):
        torch.testing.assert_close(a[:, column], high[column], rtol=1e-13, atol=1e-14)  # 1 - e^-60 rounds to one
    a = mdp.act(s, torch.full_like(u, -60.0))
    low, high = bounds(mdp, s, a)
    for column in (0, 2, 4, 5, 6, 7, 8, 9, 10):
        torch.testing.assert_close(a[:, column], low[column], rtol=0, atol=1e-14)  # e^-60 is 1e-26


def test_shares_invert_from_shares_and_unsquash_inverts_squash():
    mdp, s, u, _ = setup((500,))
    u = 2 * u
    y = mdp.squash(u)
    a = mdp.from_shares(s, y)
    # |u| < 10: 1 - y is at least 5e-5, so that rounding of y at 1e-16 is 2e-12 of it, and as much in u.
    torch.testing.assert_close(mdp.unsquash(y), u, rtol=0, atol=1e-10)
    torch.testing.assert_close(mdp.shares(s, a), y, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mdp.act(s, mdp.unsquash(mdp.shares(s, a))), a, rtol=1e-10, atol=1e-12)
    assert torch.equal(a[:, 1], 2.0 * u[:, 1])  # no bound: the scale alone
    assert torch.equal(mdp.squash(u)[:, 1], u[:, 1])


def test_unsquash_is_finite_on_the_bounds():
    mdp, _, u, _ = setup((50,))
    for y in (torch.zeros_like(u), torch.ones_like(u)):
        y[:, 9:] = 0  # the parts of a budget sum to one at most
        back = mdp.unsquash(y)
        assert back.isfinite().all()
        # Shares on a bound move off it by 1e-12, and three parts of a budget by as much each.
        torch.testing.assert_close(mdp.squash(back), y, rtol=0, atol=1e-11)


@BOTH
def test_widths_are_the_derivative_of_an_action_in_its_own_share(model):
    mdp, s, u, _ = setup((20,), model=model)
    y = mdp.squash(u)
    a = mdp.from_shares(s, y)
    jacobian = torch.func.vmap(torch.func.jacrev(mdp.from_shares, argnums=1))(s, y)
    own = torch.diagonal(jacobian, dim1=-2, dim2=-1)
    torch.testing.assert_close(mdp.widths(s, a), own, rtol=1e-12, atol=1e-13)


def test_no_choice_is_half_a_share_and_not_nan():
    @dataclass(frozen=True, kw_only=True)
    class NoChoice(Everything):
        def actions(self):
            return Action("c", low=0.0, high=lambda s: s.k - 1)

    mdp = MDP(NoChoice())
    s = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]], dtype=torch.float64)
    a = torch.tensor([[0.0], [0.25]], dtype=torch.float64)
    assert mdp.shares(s, a).tolist() == [[0.5], [0.25]]
    gradient = torch.func.grad(lambda s: mdp.shares(s, a).sum())(s)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 3.1), (0, -1.1), (2, 0.9), (3, 5.0), (4, -0.1), (5, 9.0), (6, -3.0), (7, 9.0), (8, -0.1), (10, 99.0)],
)
def test_feasible_sees_each_broken_bound(column, value):
    mdp, s, u, _ = setup((4,))
    a = mdp.act(s, u)
    assert mdp.feasible(s, a).all()
    a[2, column] = value
    assert mdp.feasible(s, a).tolist() == [True, True, False, True]


def test_feasible_sees_a_budget_overspent_by_parts_that_are_each_allowed():
    mdp, s, u, _ = setup((1,))
    a = mdp.act(s, u)
    a[:, 8:] = 0.5 * (s[:, :1] + a[:, 4:5])
    assert not mdp.feasible(s, a).any()


def test_feasible_rejects_nan():
    mdp, s, u, _ = setup((2,))
    a = mdp.act(s, u)
    a[1, 1] = math.nan
    assert mdp.feasible(s, a).tolist() == [True, False]


def test_gradients_of_actions_are_finite_far_inside_saturation():
    mdp, s, u, _ = setup((20,))
    for size in (1.0, 30.0, 300.0):
        g_s, g_u = torch.func.grad(lambda s, u: mdp.act(s, u).sum(), argnums=(0, 1))(s, size * u)
        assert g_s.isfinite().all()
        assert g_u.isfinite().all()
