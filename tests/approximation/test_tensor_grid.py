"""Splines are exact where theory says so, differentiable, and go on linearly outside the grid."""

import pytest
import torch

from econrl.approximation.tensor_grid import TensorGrid
from econrl.errors import MethodError
from econrl.models import BrockMirman, LifeCycle
from econrl.problem.mdp import MDP

EXACT = 1e-12  # rounding in the coefficients, whose inverse is well conditioned


def uniform(n, d, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def interpolate(grid, f, x):
    return grid.evaluate(grid.fit(f(grid.mesh())[None, None]), grid.stencil(x))[0]


@pytest.mark.parametrize("points", [(4, 4), (5, 9)])
def test_cubic_reproduces_products_of_cubics(points):
    grid = TensorGrid([0, -1], [1, 1], points, [0, 0])
    x = uniform(200, 2)

    def f(x):
        return (x[:, 0] ** 3 - x[:, 0]) * (x[:, 1] ** 3 + 2 * x[:, 1] ** 2 - 1)

    assert (interpolate(grid, f, x) - f(x)).abs().max() < EXACT


@pytest.mark.parametrize("kind", ["cubic", "linear"])
@pytest.mark.parametrize("kappa", [0.0, 3.0])
def test_values_at_the_grid_points_are_kept(kind, kappa):
    grid = TensorGrid([0.5, -1], [2, 1], [7, 6], [kappa, 0], kind)

    def f(x):
        return x[:, 0].log() * x[:, 1].exp()

    assert (interpolate(grid, f, grid.mesh()) - f(grid.mesh())).abs().max() < EXACT


@pytest.mark.parametrize("kappa", [0.0, 3.0])
def test_cubic_converges_at_fourth_order(kappa):
    x = uniform(500, 1, 0.5, 2.0)
    errors = []
    for n in (40, 80):
        grid = TensorGrid([0.5], [2.0], [n], [kappa])
        errors.append(float((interpolate(grid, lambda x: x[:, 0].log(), x) - x[:, 0].log()).abs().max()))
    assert errors[0] / errors[1] > 10  # 2^4 in the limit


def test_linear_keeps_the_shape():
    grid = TensorGrid([0.0], [1.0], [6], [0.0], "linear")
    x = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(-1)
    step = interpolate(grid, lambda x: (x[:, 0] > 0.5).double(), x)
    assert (step.diff() >= 0).all()
    assert step.min() == 0
    assert step.max() == 1


@pytest.mark.parametrize("kappa", [0.0, 2.0])
def test_first_and_second_derivatives(kappa):
    grid = TensorGrid([0.5, 0], [2, 1], [60, 60], [kappa, 0])
    mesh = grid.mesh()
    c = grid.fit((mesh[:, 0].log() * mesh[:, 1].exp())[None, None])
    x = uniform(50, 2, 0.55, 0.95)

    def f(x):
        return grid.evaluate(c, grid.stencil(x))[0]

    g = torch.func.vmap(torch.func.grad(f))(x)
    H = torch.func.vmap(torch.func.hessian(f))(x)
    e, k = x[:, 1].exp(), x[:, 0]
    assert (g - torch.stack([e / k, k.log() * e], dim=-1)).abs().max() < 1e-4  # h^3
    assert (H[:, 0, 0] + e / k**2).abs().max() < 2e-2  # h^2
    assert (H[:, 0, 1] - e / k).abs().max() < 1e-4
    x = x.requires_grad_()
    (by_autograd,) = torch.autograd.grad(f(x).sum(), x)
    assert (by_autograd - g).abs().max() < EXACT


@pytest.mark.parametrize("kind", ["cubic", "linear"])
@pytest.mark.parametrize("kappa", [0.0, 3.0])
def test_outside_the_grid_it_goes_on_along_the_tangent(kind, kappa):
    grid = TensorGrid([0.5], [2.0], [30], [kappa], kind)
    c = grid.fit(grid.mesh()[:, 0].log()[None, None])

    def f(x):
        return grid.evaluate(c, grid.stencil(x.unsqueeze(-1)))[0]

    for edge, inside, away in ((0.5, 1e-6, -10.0), (2.0, -1e-6, 10.0)):
        edge = torch.tensor(edge, dtype=torch.float64)
        slope = (f(edge + inside) - f(edge)) / inside
        assert abs(float((f(edge + away) - f(edge)) / away - slope)) < 1e-4  # the difference quotient's own error
    far = torch.tensor([-1e12, 1e12], dtype=torch.float64)
    assert f(far).isfinite().all()
    assert torch.func.vmap(torch.func.hessian(f))(far).abs().max() == 0


def test_any_batch_shape():
    grid = TensorGrid([0, 0], [1, 1], [5, 6], [0, 0])
    c = grid.fit(torch.randn(3, 1, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    x = uniform(24, 2)
    flat = grid.evaluate(c, grid.stencil(x))
    assert torch.equal(grid.evaluate(c, grid.stencil(x.view(2, 3, 4, 2))), flat.view(3, 2, 3, 4))
    assert grid.evaluate(c, grid.stencil(x[0])).shape == (3,)


def test_layers_are_gathered_by_index():
    grid = TensorGrid([0.0], [1.0], [5], [0.0])
    c = grid.fit(torch.arange(3, dtype=torch.float64).view(1, 3, 1).expand(1, 3, 5))
    layer = torch.tensor([2, 0, 1, 1])
    assert (grid.evaluate(c, grid.stencil(uniform(4, 1), layer))[0] - layer).abs().max() < EXACT


def test_too_few_points_are_refused():
    with pytest.raises(MethodError, match="4 points"):
        TensorGrid([0.0], [1.0], [3], [0.0])
    with pytest.raises(MethodError, match="quintic"):
        TensorGrid([0.0], [1.0], [9], [0.0], "quintic")


GRID = {"low": [0.5], "high": [20.0], "points": [9], "spacing": [2.0], "interpolation": "cubic"}


def test_periods_are_layers_and_survive_restoring():
    from econrl.approximation.grid_functions import GridValue

    mdp = MDP(LifeCycle(horizon=4, retirement=2))
    value = GridValue(mdp, **GRID)
    for t in range(4):
        value.fit(value.states(t)[:, :1] * (t + 1), t)
    s = torch.tensor([[3.0, 0.0], [3.0, 2.0], [40.0, 3.0]], dtype=torch.float64)
    expected = torch.tensor([3.0, 9.0, 160.0], dtype=torch.float64)
    # A linear function of m is no cubic in the stretched coordinate: nine points leave a small error.
    assert ((value(s) - expected) / expected).abs().max() < 0.02
    assert torch.equal(value.on(mdp)(s), value(s))


def test_a_grid_policy_is_always_feasible():
    from econrl.approximation.grid_functions import GridPolicy

    mdp = MDP(BrockMirman())
    low, high = mdp.low.tolist(), mdp.high.tolist()
    policy = GridPolicy(mdp, low=low, high=high, points=[5, 5], spacing=[0.0, 0.0], interpolation="cubic")
    generator = torch.Generator().manual_seed(0)
    policy.fit(10 * torch.randn(25, 1, generator=generator, dtype=torch.float64))
    s = mdp.sample_box(1000, generator)
    assert mdp.feasible(s, policy(s), slack=0.0).all()
    assert mdp.reward(s, policy(s)).isfinite().all()


@pytest.mark.parametrize("kind", ["cubic", "linear"])
@pytest.mark.parametrize("d", [0, 1, 2])
def test_expectations_are_weighted_sums_of_interpolated_values(kind, d):
    """Over three layers, for two batches of unequal length, inside the grid and beyond it."""
    layers, nodes = 3, 4
    grid = TensorGrid([0.0] * d, [1.0] * d, [5, 6][:d], [0.0, 2.0][:d], kind)
    draws = torch.Generator().manual_seed(0)
    coefficients = torch.randn(1, layers * grid.size, generator=draws, dtype=torch.float64)
    parts = []
    for n in (7, 2):
        x, w = (torch.rand(n, nodes, *size, generator=draws, dtype=torch.float64) for size in ((d,), ()))
        parts.append((3 * x - 1, torch.randint(layers, (n, nodes), generator=draws), w))
    expected = torch.cat([(w * grid.interpolate(coefficients, x, layer)[0]).sum(dim=-1) for x, layer, w in parts])
    torch.testing.assert_close(grid.expectation(parts, layers)(coefficients), expected)
