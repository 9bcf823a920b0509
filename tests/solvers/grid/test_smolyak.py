"""Smolyak grids: the published counts, exact interpolation, and models of known answers."""

import itertools

import pytest
import torch

import econrl
from econrl import Smolyak, SolveError
from econrl.approximation.smolyak_grid import SmolyakGrid, count_points, new_points
from econrl.models import BrockMirman, LinearQuadratic


def solve(model, method, **settings):
    return econrl.solve(model, method, progress=False, **settings)


def grid_of(levels, **more):
    d = len(levels)
    return SmolyakGrid([0.0] * d, [1.0] * d, levels, **more)


def layer_zero(x):
    return torch.zeros(x.shape[:-1], dtype=torch.long)


def uniform(n, d):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("d", "points"), [(2, 13), (4, 41), (5, 61), (12, 313), (20, 841), (50, 5101), (100, 20201)])
def test_the_published_counts_of_level_two(d, points):
    assert count_points([2] * d) == points
    if d <= 50:
        assert grid_of([2] * d).size == points


@pytest.mark.parametrize("levels", [(3, 1, 2), (2, 0, 4), (1, 1, 1, 3), (0, 0)])
def test_anisotropic_counts_by_enumeration(levels):
    combinations = itertools.product(*[range(mu + 1) for mu in levels])
    count = sum(
        torch.tensor([new_points(own) for own in combination]).prod().item()
        for combination in combinations
        if sum(combination) <= max(levels)
    )
    assert count_points(levels) == grid_of(levels).size == count
    points = grid_of(levels).mesh()
    assert len(points.unique(dim=0)) == count


def test_interpolation_is_exact_on_what_it_spans_and_at_its_points():
    grid = SmolyakGrid([0.5, -1.0, 0.0], [2.0, 1.0, 3.0], [2, 2, 2])
    f = lambda x: 1 + x[:, 0] ** 4 - 2 * x[:, 1] ** 2 * x[:, 2] + x[:, 2] ** 3  # noqa: E731 (degree 4; products to 2 x 2)
    x = uniform(200, 3) * torch.tensor([1.5, 2.0, 3.0]) + torch.tensor([0.5, -1.0, 0.0])
    c = grid.fit(f(grid.mesh()).view(1, 1, -1))
    assert (grid.interpolate(c, x, layer_zero(x))[0] - f(x)).abs().max() < 1e-11
    other = torch.sin(5 * grid.mesh()).sum(-1)
    c = grid.fit(other.view(1, 1, -1))
    assert (grid.interpolate(c, grid.mesh(), layer_zero(grid.mesh()))[0] - other).abs().max() < 1e-11


def test_outside_the_box_it_goes_on_linearly_with_the_slope_at_the_edge():
    grid = SmolyakGrid([0.0], [1.0], [3])
    c = grid.fit((grid.mesh()[:, 0] ** 3).view(1, 1, -1))
    x = torch.tensor([[-2.0], [0.0], [1.0], [3.0]], dtype=torch.float64)
    assert torch.allclose(grid.interpolate(c, x, layer_zero(x))[0], torch.tensor([0.0, 0.0, 1.0, 7.0]).double())


def test_derivatives_by_autograd_and_by_functorch():
    grid = grid_of([3, 2])
    c = torch.randn(1, grid.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    f = lambda x: grid.interpolate(c, x, layer_zero(x))[0]  # noqa: E731
    x = (uniform(5, 2) * 1.4 - 0.2).requires_grad_()  # some of them outside
    assert torch.autograd.gradcheck(f, x)
    along = torch.ones_like(x)
    (gradient,) = torch.autograd.grad(f(x).sum(), x)
    assert torch.allclose(torch.func.jvp(f, (x.detach(),), (along,))[1], gradient.sum(-1))


def test_layers_have_coefficients_of_their_own():
    grid = grid_of([2, 1])
    c = torch.randn(2, 3 * grid.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, layer = uniform(30, 2).view(5, 6, 2), torch.arange(30).view(5, 6) % 3
    values = grid.interpolate(c, x, layer)
    for number in range(3):
        own = grid.interpolate(c[:, number * grid.size : (number + 1) * grid.size], x, torch.zeros_like(layer))
        assert torch.equal(values[:, layer == number], own[:, layer == number])


def test_logarithms_of_a_state():
    grid = SmolyakGrid([0.1], [10.0], [1], logs=[0])
    c = grid.fit((2 * grid.mesh()[:, 0].log()).view(1, 1, -1))
    x = torch.tensor([[0.3], [7.0]], dtype=torch.float64)
    assert torch.allclose(grid.interpolate(c, x, layer_zero(x))[0], 2 * x[:, 0].log())


# The method


def test_brock_mirman_is_exact():
    solution = solve(BrockMirman(), Smolyak(level=2))
    s = solution.mdp.sample_box(200, torch.Generator().manual_seed(0))
    exact = solution.mdp.exact_policy(s)
    assert ((solution._policy(s) - exact) / exact).abs().max() < 1e-7
    assert solution.info["converged"]


def test_a_model_without_an_euler_equation_is_solved_by_its_value(tmp_path):
    """V is quadratic, which level 2 holds exactly."""
    model = LinearQuadratic(n=2, m=1, noise=0.02)
    solution = solve(model, Smolyak(level=2))
    s = 0.3 * solution.mdp.sample_box(100, torch.Generator().manual_seed(0))
    assert (solution._policy(s) - solution.mdp.exact_policy(s)).abs().max() < 1e-5
    again = econrl.load(solution.save(tmp_path / "saved"), model)
    assert torch.equal(again._policy(s), solution._policy(s))


def test_a_grid_that_does_not_fit_is_refused_before_it_is_built():
    with pytest.raises(SolveError, match=r"bytes for 41,265 points .* 10 dimensions.* Reduce `level`"):
        solve(LinearQuadratic(n=10), Smolyak(level=5, memory_limit=1e8))
