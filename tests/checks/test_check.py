"""check: a sound spec passes without a word; every broken promise is named, with what, where and at which state."""

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import econrl.models
from econrl import Action, Budget, Choice, Discrete, LogNormal, MarkovChain, Model, Normal, State, Uniform
from econrl.checks import check
from econrl.checks.trial import make_trial
from econrl.checks.value import constant_policies
from econrl.errors import SpecError
from econrl.models import Portfolio, StochasticGrowth

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Tiny(Model):
    """Everything that a spec can hold: a scalar and a vector state, a chain, bounds that read the state, a budget."""

    beta: float = 0.9

    def states(self):
        chain = MarkovChain("y", values=(0.9, 1.1), P=((0.8, 0.2), (0.3, 0.7)))
        return State("k", low=0.5, high=2.0), State("x", low=-1.0, high=1.0, size=2), chain

    def actions(self):
        return Action("c", low=0.0, high=self.wealth), Budget("w", size=2, total=lambda s, a: s.k - a.c / 4)

    def shocks(self):
        return Normal("eps", std=0.1), Discrete("luck", values=(0.0, 1.0), probabilities=(0.5, 0.5))

    def wealth(self, s):
        return s.k * s.y

    def reward(self, s, a):
        return a.c.log() - (s.x**2).sum(-1) + a.w.sum(-1)

    def transition(self, s, a, e):
        return {"k": 1 + 0.5 * (s.k - a.c) + 0.1 * e.luck, "x": 0.5 * s.x + 0.1 * a.w + e.eps.unsqueeze(-1)}


def variant(base=Tiny, **members):
    """A model like `base`, named Broken, but for these members."""
    return dataclass(frozen=True, kw_only=True)(type("Broken", (base,), members))()


def declaring(function, *variables):
    return {function: lambda self: variables}


def transition(**changed):
    """Tiny's transition with other entries."""

    def f(self, s, a, e):
        return {**Tiny.transition(self, s, a, e), **{name: value(s, a, e) for name, value in changed.items()}}

    return {"transition": f}


def reward_plus(term):
    return {"reward": lambda self, s, a: Tiny.reward(self, s, a) + term(s, a)}


def without_transition_of(name):
    def f(self, s, a, e):
        return {key: value for key, value in Tiny.transition(self, s, a, e).items() if key != name}

    return {"transition": f}


def raises(model, *fragments):
    with pytest.raises(SpecError) as caught:
        check(model)
    for fragment in fragments:
        assert fragment in str(caught.value)
    return str(caught.value)


# What is sound


def test_a_sound_model_passes():
    assert check(Tiny()) == []


@pytest.mark.parametrize("name", econrl.models.__all__)
def test_every_model_of_the_zoo_passes_without_a_warning(name):
    assert check(getattr(econrl.models, name)()) == []


def test_equal_bounds_at_some_states_are_allowed():
    assert check(variant(wealth=lambda self, s: (s.k - 1).clamp(min=0))) == []


def test_kinks_and_unbounded_actions_pass():
    kinked = reward_plus(lambda s, a: -(s.k - 1).clamp(min=0) - (a.c - 0.3).abs())
    assert check(variant(**kinked)) == []
    unbounded = variant(
        actions=lambda self: (Action("c", low=0.0), Action("w", size=2)),
        reward=lambda self, s, a: -(a.c**2) - (a.w**2).sum(-1) - (s.x**2).sum(-1),
    )
    assert check(unbounded) == []


# The class


def test_a_class_is_no_model():
    raises(Tiny, "Tiny is a class", "Tiny()")


def test_an_object_must_derive_from_model():
    raises(3, "int is no model", "econrl.Model")


def test_an_undecorated_class():
    class Plain(Tiny):
        pass

    raises(Plain(), "Plain", "@dataclass(frozen=True, kw_only=True)")


@pytest.mark.parametrize("options", [{"frozen": True}, {"kw_only": True}])
def test_a_dataclass_must_be_frozen_and_by_keyword(options):
    members = {k: v for k, v in vars(Tiny).items() if callable(v) and not k.startswith("__")}
    cls = dataclass(**options)(type("Loose", (Model,), {"__annotations__": {"beta": float}, "beta": 0.9, **members}))
    raises(cls(), "Loose", "frozen=True, kw_only=True")


@pytest.mark.parametrize("function", ["states", "actions", "reward", "transition"])
def test_a_function_that_must_be_there(function):
    raises(variant(**{function: getattr(Model, function)}), f"Broken does not define {function}")


def test_a_number_without_a_type_is_no_parameter():
    @dataclass(frozen=True, kw_only=True)
    class Untyped(Tiny):
        premium = 0.04

    assert "`premium = 0.04` has no type" in " ".join(check(Untyped()))
    assert "premium: float = 0.04" in " ".join(check(Untyped()))


def test_no_discount_factor():
    members = {k: v for k, v in vars(Tiny).items() if callable(v) and not k.startswith("__")}
    raises(variant(Model, **members), "Broken has no discount factor", "`beta`")


@pytest.mark.parametrize("horizon", [0, 2.5, True])
def test_a_horizon_is_a_number_of_periods(horizon):
    raises(variant(horizon=horizon), "Broken.horizon", repr(horizon))


# The declarations

K = State("k", low=0.5, high=2.0)
X = State("x", low=-1.0, high=1.0, size=2)
Y = MarkovChain("y", values=(0.9, 1.1), P=((0.8, 0.2), (0.3, 0.7)))
C = Action("c", low=0.0, high=1.0)
W = Budget("w", size=2)
EPS, LUCK = Normal("eps", std=0.1), Discrete("luck", values=(0.0, 1.0), probabilities=(0.5, 0.5))


def state(**changed):
    return declaring("states", dataclasses.replace(K, **changed), X, Y)


def chain(**changed):
    return declaring("states", K, X, MarkovChain("y", **{"values": (0.9, 1.1), "P": Y.P, **changed}))


def action(**changed):
    return declaring("actions", dataclasses.replace(C, **changed), W)


def budget(**changed):
    return declaring("actions", C, dataclasses.replace(W, **changed))


def shock(shock):
    return declaring("shocks", shock, LUCK)


DECLARATIONS = {
    "states of another kind": (declaring("states", K, C), ["Broken.states", "State or MarkovChain"]),
    "actions of another kind": (declaring("actions", K), ["Broken.actions", "Action or Budget"]),
    "shocks of another kind": (declaring("shocks", {"eps": 0.1}), ["Broken.shocks", "Shock"]),
    "no states": (declaring("states"), ["Broken.states declares nothing"]),
    "no actions": (declaring("actions"), ["Broken.actions declares nothing"]),
    "states raise": ({"states": lambda self: State("k", 0, self.top)}, ["Broken.states", "top", "test_check.py, line"]),
    "name no identifier": (state(name="2k"), ["Broken.states", "'2k'"]),
    "name a keyword": (state(name="for"), ["Broken.states", "'for'"]),
    "name with underscore": (state(name="_k"), ["Broken.states", "'_k'"]),
    "name no string": (state(name=1), ["Broken.states", "name 1"]),
    "t is the period": ({**state(name="t"), "horizon": 3}, ["Broken.states", "'t'", "period"]),
    "states alike": (declaring("states", K, K), ["Broken", "'k' more than once"]),
    "state and action alike": (action(name="k"), ["Broken", "'k' more than once"]),
    "shocks alike": (declaring("shocks", EPS, EPS), ["Broken", "'eps' more than once"]),
    "shock and chain alike": (shock(Normal("y")), ["Broken", "'y' more than once"]),
    "state low above high": (state(low=3.0), ["Broken.states: State 'k'", "low = 3", "high = 2"]),
    "state low at high": (state(low=2.0), ["Broken.states: State 'k'", "low = 2", "high = 2"]),
    "state unbounded": (state(high=math.inf), ["Broken.states: State 'k'", "finite"]),
    "state bound no number": (state(high="a"), ["Broken.states: State 'k'", "'a'"]),
    "size zero": (state(size=0), ["Broken.states: State 'k'", "size 0"]),
    "size no whole number": (action(size=1.5), ["Broken.actions: Action 'c'", "size 1.5"]),
    "budget without size": (budget(size=None), ["Broken.actions: Budget 'w'", "size None"]),
    "chain rows": (chain(P=((0.8, 0.1), (0.3, 0.7))), ["Broken.states: MarkovChain 'y', row 0 of P", "sum to 0.9"]),
    "chain negative": (chain(P=((1.2, -0.2), (0.3, 0.7))), ["MarkovChain 'y', row 0 of P", "-0.2", "negative"]),
    "chain shape": (chain(P=((0.8, 0.2, 0.0), (0.3, 0.7, 0.0))), ["MarkovChain 'y'", "2 values", "(2, 3)", "(2, 2)"]),
    "chain values": (chain(values=(0.9, math.nan)), ["MarkovChain 'y'", "finite values"]),
    "chain ragged": (chain(P=((0.8, 0.2), (1.0,))), ["MarkovChain 'y'", "cannot be read"]),
    "action low above high": (action(low=2.0), ["Broken.actions: Action 'c'", "low = 2.0", "high = 1.0"]),
    "action bound no number": (action(high="k"), ["Broken.actions: Action 'c': high", "'k'"]),
    "action scale": (action(scale=0.0), ["Broken.actions: Action 'c'", "scale 0.0"]),
    "budget total": (budget(total=-1.0), ["Broken.actions: Budget 'w'", "total -1.0"]),
    "budget total no number": (budget(total="k"), ["Broken.actions: Budget 'w': total", "'k'"]),
    "normal std": (shock(Normal("eps", std=-0.1)), ["Broken.shocks: Normal 'eps': std", "-0.1", "not negative"]),
    "normal std shape": (shock(Normal("eps", std=[0.1] * 3, size=2)), ["Normal 'eps': std", "(3,)"]),
    "normal mean": (shock(Normal("eps", mean=math.nan)), ["Normal 'eps': mean", "nan"]),
    "normal cov not symmetric": (shock(Normal("eps", cov=[[1, 0.5], [0, 1]])), ["Normal 'eps'", "not symmetric"]),
    "normal cov not psd": (shock(Normal("eps", cov=[[1, 2], [2, 1]])), ["Normal 'eps'", "eigenvalue is -1"]),
    "normal cov size": (shock(Normal("eps", cov=np.eye(3), size=2)), ["Normal 'eps'", "size 2", "(3, 3)"]),
    "lognormal std": (shock(LogNormal("eps", std=-0.1)), ["LogNormal 'eps': std", "-0.1"]),
    "lognormal mean": (shock(LogNormal("eps", mean=0.0)), ["LogNormal 'eps': mean", "positive"]),
    "lognormal mean shape": (shock(LogNormal("eps", mean=[1.0] * 3)), ["LogNormal 'eps': mean", "(3,)"]),
    "uniform": (shock(Uniform("eps", low=1.0, high=1.0)), ["Uniform 'eps'", "low = 1.0"]),
    "discrete sum": (shock(Discrete("eps", (0, 1), (0.5, 0.6))), ["Discrete 'eps'", "sum to 1.1"]),
    "discrete negative": (shock(Discrete("eps", (0, 1), (1.5, -0.5))), ["Discrete 'eps'", "-0.5"]),
    "discrete shape": (shock(Discrete("eps", (0, 1), (1.0,))), ["Discrete 'eps'", "2 values", "(1,)"]),
    "discrete values": (shock(Discrete("eps", (0, math.inf), (0.5, 0.5))), ["Discrete 'eps'", "finite values"]),
    "discrete size": (shock(Discrete("eps", (0, 1), (0.5, 0.5), size=2)), ["Discrete 'eps'", "size 2"]),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_declarations(name):
    members, fragments = DECLARATIONS[name]
    raises(variant(**members), *fragments)


# The functions

WRITES = {
    "state": {"reward": lambda self, s, a: s.k.mul_(2) + a.c.log()},
    "action": {"outcomes": lambda self, s, a: {"double": a.c.mul_(2)}},
    "chain": {"reward": lambda self, s, a: s.y.mul_(2) + a.c.log()},
    "shock": transition(k=lambda s, a, e: s.k + e.eps.mul_(2)),
    "bound": {"wealth": lambda self, s: s.k.mul_(1.1)},
}


@pytest.mark.parametrize(("kind", "where"), [
    ("state", "Broken.reward changes its argument 'k'"),
    ("action", "Broken.outcomes changes its argument 'c'"),
    ("chain", "Broken.reward changes its argument 'y'"),
    ("shock", "Broken.transition changes its argument 'eps'"),
    ("bound", "Broken.actions, the bounds of 'c': high changes its argument 'k'"),
])  # fmt: skip
def test_arguments_are_not_changed_in_place(kind, where):
    raises(variant(**WRITES[kind]), where)


class WithoutForward(torch.autograd.Function):
    """The square, with a derivative for reverse mode only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class WrongForward(WithoutForward):
    """The square, with a derivative for forward mode that is not the one for reverse mode."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        return ctx.saved_tensors[0] * tangent


class Counting:
    """A function whose value changes from call to call."""

    calls = 0

    def __call__(self, s, a):
        self.calls += 1
        return s.k * self.calls


def through_numpy(x):
    return torch.as_tensor(x.numpy() ** 2)


FUNCTIONS = {
    # Exceptions, with the line on which they were raised
    "unknown state": ({"reward": lambda self, s, a: s.capital}, ["Broken.reward", "'capital'", "k", "line"]),
    "unknown action": (transition(k=lambda s, a, e: a.i), ["Broken.transition", "no action is called 'i'", "line"]),
    "unknown shock": (transition(k=lambda s, a, e: e.xi), ["Broken.transition", "no shock is called 'xi'", "line"]),
    "no period": ({"reward": lambda self, s, a: s.t}, ["Broken.reward", "no state is called 't'"]),
    "key error": ({"outcomes": lambda self, s, a: {}["output"]}, ["Broken.outcomes", "KeyError", "output", "line"]),
    "wrong arguments": ({"reward": lambda self, s: s.k}, ["Broken.reward", "TypeError", "argument", "line"]),
    "item": (reward_plus(lambda s, a: s.k.item()), ["Broken.reward", "RuntimeError", "line"]),
    "bound raises": ({"wealth": lambda self, s: s.m}, ["Broken.actions, the bounds of 'c'", "'m'", "line"]),
    "discount raises": ({"discount": lambda self, s, a, e: s.m}, ["Broken.discount", "'m'"]),
    "exact value raises": ({"exact_value": lambda self, s: 1 / 0}, ["Broken.exact_value", "ZeroDivisionError"]),
    # Bounds
    "bound shape": ({"wealth": lambda self, s: s.k.unsqueeze(-1)}, ["the bounds of 'c': high", "shape", "(256,)"]),
    "bound arguments": (action(high=lambda s, a, e: s.k), ["the bounds of 'c': high", "3 arguments"]),
    "bound NaN": ({"wealth": lambda self, s: (s.k - 1).sqrt()}, ["the bounds of 'c': high", "NaN", "state k = 0."]),
    "bounds crossed": ({"wealth": lambda self, s: s.k - 0.6}, ["the bounds of 'c': low = 0 is above", "state k = 0.5"]),
    "no choice": ({"wealth": lambda self, s: 0 * s.k}, ["the bounds of 'c'", "leaves no choice"]),
    "budget negative": (budget(total=lambda s: s.k - 1), ["the bounds of 'w': low = 0 is above", "state k = "]),
    "bounds mix": ({"wealth": lambda self, s: s.k.mean().expand(s.k.shape)}, ["(their bounds) mixes", "'c'", "k = "]),
    "bounds detached": ({"wealth": lambda self, s: s.k.detach()}, ["bounds): the derivative of 'c' in 'k' is 0"]),
    # Shapes
    "reward squared": (reward_plus(lambda s, a: s.k.unsqueeze(-1)), ["Broken.reward", "shape (64, 64)", "(64,)"]),
    "reward column": ({"reward": lambda self, s, a: s.x[..., :1]}, ["Broken.reward", "(64, 1)", "(64,)"]),
    "reward number": ({"reward": lambda self, s, a: 1.0}, ["Broken.reward", "float", "tensor"]),
    "reward single": ({"reward": lambda self, s, a: s.k.float()}, ["Broken.reward", "torch.float32", "torch.float64"]),
    "discount shape": ({"discount": lambda self, s, a, e: 0.5 + 0 * s.x}, ["Broken.discount", "(64, 2)", "(64,)"]),
    "terminal shape": ({"horizon": 3, "terminal": lambda self, s: s.x}, ["Broken.terminal", "(64, 2)", "(64,)"]),
    "outcome shape": ({"outcomes": lambda self, s, a: {"two": s.x}}, ["Broken.outcomes: 'two'", "(64, 2)", "(64,)"]),
    "outcomes no dict": ({"outcomes": lambda self, s, a: s.k}, ["Broken.outcomes", "Tensor", "dict"]),
    "outcome taken": ({"outcomes": lambda self, s, a: {"k": s.k}}, ["Broken.outcomes gives 'k'", "rename"]),
    "vector too narrow": (transition(x=lambda s, a, e: s.k), ["Broken.transition: 'x'", "(64,)", "(64, 2)"]),
    "scalar too wide": (transition(k=lambda s, a, e: s.x), ["Broken.transition: 'k'", "(64, 2)", "(64,)"]),
    # Names
    "transition no dict": ({"transition": lambda self, s, a, e: s.k}, ["Broken.transition", "Tensor", "dict", "k, x"]),
    "transition incomplete": (without_transition_of("x"), ["Broken.transition does not give the state 'x'"]),
    "transition undeclared": (transition(z=lambda s, a, e: s.k), ["Broken.transition gives 'z'", "no declared state"]),
    "transition misspelt": (
        {"transition": lambda self, s, a, e: {"kk": s.k, "x": s.x}},
        ["Broken.transition gives 'kk'", "did you mean 'k'?"],
    ),
    "transition returns nothing": ({"transition": lambda self, s, a, e: None}, ["is a `return` missing?", "k, x"]),
    "reward by math": ({"reward": lambda self, s, a: math.log(s.k)}, ["Broken.reward", "torch.log", "test_check.py"]),
    "reward by if": ({"reward": lambda self, s, a: s.k if s.k > 1 else 2 * s.k}, ["Broken.reward", "torch.where"]),
    "transition of a chain": (transition(y=lambda s, a, e: s.y), ["Broken.transition gives 'y'", "moves by itself"]),
    "transition of t": ({**transition(t=lambda s, a, e: s.t + 1), "horizon": 3}, ["gives 't'", "moves by itself"]),
    # Values
    "reward NaN": (reward_plus(lambda s, a: (s.k - 1).sqrt()), ["Broken.reward", "is nan", "state k = ", "action c ="]),
    "reward infinite": (reward_plus(lambda s, a: 1 / (s.y < 1)), ["Broken.reward", "is inf", "y = 1.1"]),
    "transition NaN": (transition(k=lambda s, a, e: (s.k - 1).log()), ["Broken.transition: k is nan", "state k = 0."]),
    "terminal infinite": ({"horizon": 3, "terminal": lambda self, s: 1 / (0 * s.k)}, ["Broken.terminal", "is inf"]),
    "discount NaN": ({"discount": lambda self, s, a, e: (s.k - 1).sqrt() / 2}, ["Broken.discount", "is nan"]),
    # Batches
    "random": (reward_plus(lambda s, a: torch.rand_like(s.k)), ["Broken.reward", "other values", "shocks()"]),
    "memory": (reward_plus(Counting()), ["Broken.reward", "other values", "changes the model"]),
    "mean of the batch": (reward_plus(lambda s, a: s.k.mean()), ["Broken.reward mixes", "state k = "]),
    "transition mixes": (transition(k=lambda s, a, e: s.k.cumsum(0) / 64), ["Broken.transition mixes", "k is"]),
    "outcome mixes": ({"outcomes": lambda self, s, a: {"z": s.k - s.k.max()}}, ["Broken.outcomes mixes", "z is"]),
    "exact value mixes": ({"exact_value": lambda self, s: s.k - s.k.max()}, ["Broken.exact_value mixes"]),
    "second dimension": (reward_plus(lambda s, a: s.x.sum(1)), ["Broken.reward", "batch of shape (2, 32)"]),
    "mixes in two dimensions": (
        reward_plus(lambda s, a: s.k if s.k.ndim == 1 else s.k.mean(-1, keepdim=True)),
        ["Broken.reward mixes", "for a batch of shape (2, 32)"],
    ),
    "two dimensions lost": ({"exact_value": lambda self, s: s.k.flatten()}, ["exact_value", "(64,) for a batch"]),
    "shocks stacked on states": (
        transition(k=lambda s, a, e: torch.stack([s.k, e.eps], -1).sum(-1)),
        ["Broken.transition for states of shape (8, 1) and shocks of shape (20,)"],
    ),
    "shocks of another shape": (
        transition(k=lambda s, a, e: s.k if s.k.shape == e.eps.shape else 1 + 0 * s.k),
        ["Broken.transition mixes", "k is 1 for states of shape (8, 1)"],
    ),
    "no batch at all": (
        reward_plus(lambda s, a: s.k if s.k.ndim else 0 * s.k),
        ["Broken.reward mixes", "under torch.func.vmap"],
    ),
    "vmap": (reward_plus(lambda s, a: 1.0 if (s.k > 9).any() else 0.0), ["Broken.reward under torch.func.vmap"]),
    # Derivatives
    "reward detached": (reward_plus(lambda s, a: s.k.detach()), ["Broken.reward: the derivative", "in 'k' is 0 "]),
    "action detached": (
        transition(k=lambda s, a, e: s.k - a.c.detach()),
        ["Broken.transition: the derivative of k in 'c' is 0 by", "-1 by finite differences", "state k = "],
    ),
    "half detached": (reward_plus(lambda s, a: s.k * s.k.detach()), ["Broken.reward", "in 'k'", "finite differences"]),
    "rounded": (
        transition(k=lambda s, a, e: s.k + (10 * a.w[..., 1]).round()),
        ["Broken.transition: k changes with 'w[1]', but its derivative is zero"],
    ),
    "list of items": (
        reward_plus(lambda s, a: torch.tensor([x.item() for x in s.k.reshape(-1)]).reshape(s.k.shape)),
        ["Broken.reward under torch.func.vmap"],
    ),
    "numpy": (reward_plus(lambda s, a: through_numpy(s.k)), ["Broken.reward under torch.func", "line"]),
    "terminal detached": (
        {"horizon": 3, "terminal": lambda self, s: s.k.detach()},
        ["Broken.terminal: the derivative of its value in 'k' is 0"],
    ),
    "discount detached": (
        {"discount": lambda self, s, a, e: s.k.detach() / 3},
        ["Broken.discount: the derivative of its value in 'k' is 0"],
    ),
    "NaN derivative": (
        reward_plus(lambda s, a: torch.where(s.k > 1, (s.k - 1).sqrt(), 0.0)),
        ["Broken.reward: the derivative of its value in 'k' is NaN", "state k = 0.", "torch.where"],
    ),
    "wrong forward mode": (
        reward_plus(lambda s, a: WrongForward.apply(s.k)),
        ["Broken.reward under torch.func.jvp", "other derivatives", "state k = "],
    ),
    "no forward mode": (reward_plus(lambda s, a: WithoutForward.apply(s.k)), ["Broken.reward under torch.func.jvp"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    members, fragments = FUNCTIONS[name]
    raises(variant(**members), *fragments)


def test_an_outcome_may_be_true_or_false():
    assert check(variant(outcomes=lambda self, s, a: {"rich": s.k > 1})) == []


def test_an_error_names_the_line_that_raised_it():
    def reward(self, s, a):
        wealth = s.k * s.y
        return (wealth - a.saving).log()

    message = raises(variant(reward=reward), "Broken.reward: AttributeError: no action is called 'saving'")
    assert re.search(rf"test_check.py, line {reward.__code__.co_firstlineno + 2}\)$", message)


# Discounting


@pytest.mark.parametrize("beta", [1.02, 1.0, 0.0, -0.5])
def test_a_constant_discount_factor_of_a_stationary_model(beta):
    raises(Tiny(beta=beta), f"Tiny.discount: beta = {beta:g}", "between 0 and 1")


def test_a_life_cycle_may_discount_negatively_but_needs_a_positive_factor():
    assert check(variant(horizon=3).replace(beta=1.02)) == []
    raises(variant(horizon=3).replace(beta=-0.5), "Broken.discount: beta = -0.5", "positive")


def test_an_expected_discount_factor_above_one_everywhere():
    raises(variant(discount=lambda self, s, a, e: 1 + s.k / 9 + e.eps), "E[beta] = 1.2", "state k = 1.9", "every state")


def test_an_expected_discount_factor_above_one_somewhere():
    (warning,) = check(variant(discount=lambda self, s, a, e: 0.6 + s.k / 4))
    for fragment in ("Broken.discount", "E[beta] = 1.0", "state k = 1.9", "may be infinite"):
        assert fragment in warning


def test_the_expectation_over_shocks_counts_not_a_single_draw():
    assert check(variant(discount=lambda self, s, a, e: 0.1 + 1.5 * e.luck)) == []


def test_a_discount_factor_must_not_be_negative_for_any_shock():
    raises(variant(discount=lambda self, s, a, e: 0.1 + e.eps), "Broken.discount is -0.", "state k = ", "every shock")


# What a model may give


@dataclass(frozen=True, kw_only=True)
class Growing(StochasticGrowth):
    """Stochastic growth, to be given what it lacks."""


STEADY = StochasticGrowth().steady_state()
OPTIONAL = {
    "policy name": ({"exact_policy": lambda self, s: {"i": s.k}}, ["exact_policy gives 'i'", "no declared action"]),
    "policy incomplete": ({"exact_policy": lambda self, s: {}}, ["exact_policy does not give the action 'c'"]),
    "policy shape": ({"exact_policy": lambda self, s: {"c": s.k[..., None]}}, ["exact_policy: 'c'", "(64, 1)"]),
    "policy infeasible": ({"exact_policy": lambda self, s: {"c": -s.k}}, ["exact_policy breaks", "k = ", "c = -"]),
    "value shape": ({"exact_value": lambda self, s: s.k.unsqueeze(-1)}, ["exact_value", "(64, 1)"]),
    "steady no dict": ({"steady_state": lambda self: 1.0}, ["Broken.steady_state", "float", "dict"]),
    "steady name": ({"steady_state": lambda self: {**STEADY, "i": 1.0}}, ["Broken.steady_state gives 'i'"]),
    "steady incomplete": ({"steady_state": lambda self: {"k": 1.0, "z": 0.0}}, ["steady_state does not give 'c'"]),
    "steady shape": ({"steady_state": lambda self: {**STEADY, "k": [1.0, 1.0]}}, ["steady_state: 'k'", "(2,)"]),
    "steady NaN": ({"steady_state": lambda self: {**STEADY, "k": math.nan}}, ["steady_state: 'k' is NaN"]),
    "steady raises": ({"steady_state": lambda self: 1 / 0}, ["Broken.steady_state", "ZeroDivisionError", "line"]),
    "initial no dict": ({"initial": lambda self, n, generator: 1.0}, ["Broken.initial", "float", "dict"]),
    "initial name": ({"initial": lambda self, n, generator: {"m": 1.0}}, ["Broken.initial gives 'm'"]),
    "initial shape": ({"initial": lambda self, n, generator: {"k": torch.ones(3)}}, ["initial: 'k'", "(3,)"]),
    "initial raises": ({"initial": lambda self, n: {}}, ["Broken.initial", "TypeError", "line"]),
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_closed_forms_steady_states_and_initial_states(name):
    members, fragments = OPTIONAL[name]
    raises(variant(Growing, **members), *fragments)


def test_initial_markov_chains_are_indices():
    raises(variant(initial=lambda self, n, generator: {"y": 0.9}), "Broken.initial: 'y'", "from 0 to 1")
    assert check(variant(initial=lambda self, n, generator: {"y": 1})) == []


def test_a_steady_state_that_moves():
    (warning,) = check(variant(Growing, steady_state=lambda self: {**STEADY, "z": 0.01}))
    assert "Broken.steady_state is no fixed point" in warning
    (warning,) = check(variant(Growing, steady_state=lambda self: {**STEADY, "c": STEADY["c"] / 2}))
    assert "'k' goes from 1 to 1." in warning


def test_a_steady_state_that_is_not_feasible():
    warnings = check(variant(Growing, steady_state=lambda self: {**STEADY, "c": -1.0}))
    assert "Broken.steady_state breaks the bounds" in warnings[0]


def test_constant_policies_take_options_that_a_choice_has():
    """The reward looks the option up, which an option that does not exist would break."""
    choosing = variant(
        actions=lambda self: (Action("c", low=0.0, high=self.wealth), Choice("w", n=2)),
        reward=lambda self, s, a: a.c.log() + torch.tensor([0.0, 1.0], dtype=s.k.dtype)[a.w.long()],
        transition=lambda self, s, a, e: {"k": 1 + 0.5 * (s.k - a.c) + 0.1 * a.w, "x": 0.5 * s.x},
    )
    assert check(choosing) == []
    u = constant_policies(make_trial(choosing))
    assert len(u) == 5 * 2
    assert sorted(u[:, 1].unique().tolist()) == [0, 1]
    many = variant(choosing.__class__, actions=lambda self: [Choice(f"w{i}", n=2 + i) for i in range(5)])
    u = constant_policies(make_trial(many))
    assert len(u) == 50
    assert all((u[:, i] == u[:, i].round()).all() and u[:, i].max() <= 1 + i and u[:, i].min() == 0 for i in range(5))


def test_losses_that_grow_whatever_is_chosen():
    losing = variant(
        actions=lambda self: Choice("w", n=3),
        reward=lambda self, s, a: -s.k - a.w,
        transition=lambda self, s, a, e: {"k": 1.2 * s.k + a.w, "x": s.x},
    )
    (warning,) = check(losing)
    assert "the value may be -infinity" in warning
    (warning,) = check(variant(type(losing), reward=lambda self, s, a: s.k + a.w))
    assert re.search(r"Holding the actions at w = \d, expected discounted rewards", warning)


def test_initial_states_outside_the_domain():
    (warning,) = check(variant(Growing, initial=lambda self, n, generator: {"k": 2.0}))
    assert "Broken.initial: 100% of the initial states lie outside" in warning


# Finite value


@dataclass(frozen=True, kw_only=True)
class OpenPortfolio(Portfolio):
    """The portfolio model without its closed form, which refuses calibrations of infinite value by itself."""

    def exact_policy(self, s):
        return None

    def exact_value(self, s):
        return None


def test_a_patient_investor_with_high_returns_has_infinite_value():
    # gamma < 1: saving almost everything for ever lets E[beta^t u] grow by beta E[R^(1-gamma)] = 1.03 a period.
    (warning,) = check(OpenPortfolio(beta=0.995, gamma=0.5))
    for fragment in ("OpenPortfolio", "+infinity", "c = 0.00091", "risk aversion"):
        assert fragment in warning
    assert check(OpenPortfolio(beta=0.95, gamma=0.5)) == []


def test_an_investor_with_losing_assets_and_high_risk_aversion_has_infinitely_low_value():
    # gamma > 1: even who never eats loses beta Rf^(1-gamma) = 1.20 a period.
    (warning,) = check(OpenPortfolio(beta=0.98, gamma=5.0, Rf=0.95, premium=-0.02))
    for fragment in ("OpenPortfolio", "-infinity", "each of 25 policies", "risk aversion"):
        assert fragment in warning
    assert check(OpenPortfolio()) == []
