"""Sparse grids of hats, refined by Tasmanian, which econrl[sparse] installs and `make test` brings along."""

import sys

import pytest
import torch

import econrl
from econrl import Adaptive, MethodError
from econrl.approximation.hat_grid import HatGrid, factors_of
from econrl.models import BrockMirman, BufferStock, LifeCycle


def solve(model, method, **settings):
    return econrl.solve(model, method, progress=False, **settings)


def layer_zero(x):
    return torch.zeros(x.shape[:-1], dtype=torch.long)


def test_without_tasmanian_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "Tasmanian", None)
    with pytest.raises(MethodError, match=r"pip install --no-cache-dir 'econrl\[sparse\]'"):
        solve(BrockMirman(), Adaptive())


def test_hats_interpolate_and_go_on_linearly():
    grid = HatGrid([-1.0], [1.0], 2, [[], [0, 1], [0, 2], [0, 3], [0, 4]])
    assert grid.mesh().flatten().tolist() == [0.0, -1.0, 1.0, -0.5, 0.5]
    c = grid.fit(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 7.0]]], dtype=torch.float64))
    x = torch.tensor([[-1.5], [-0.75], [0.25], [0.75], [1.25]], dtype=torch.float64)
    assert grid.interpolate(c, x, layer_zero(x))[0].tolist() == pytest.approx([0.0, 3.0, 4.0, 5.0, 1.0])


def test_a_life_cycle_is_refused():
    pytest.importorskip("Tasmanian")
    with pytest.raises(MethodError, match="a life cycle would need a grid of its own"):
        solve(LifeCycle(horizon=4, retirement=2), Adaptive())


@pytest.mark.parametrize(("d", "depth"), [(1, 5), (2, 4), (4, 3)])
def test_hats_are_tasmanians(d, depth):
    Tasmanian = pytest.importorskip("Tasmanian")
    theirs = Tasmanian.makeLocalPolynomialGrid(d, 2, depth, 1, "localp")
    z = torch.as_tensor(theirs.getPoints())
    ours = HatGrid([-1.0] * d, [1.0] * d, depth, [[n for p in row for n in p] for row in factors_of(z, depth)])
    f = lambda x: torch.stack([(x.sum(-1) - 0.3).abs(), x.square().sum(-1)])  # noqa: E731
    theirs.loadNeededValues(f(z).T.contiguous().numpy())
    c = ours.fit(f(ours.mesh()).unsqueeze(1))
    x = 2 * torch.rand(200, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    expected = torch.as_tensor(theirs.evaluateBatch(x.numpy())).T
    assert (ours.interpolate(c, x, layer_zero(x)) - expected).abs().max() < 1e-12


def test_brock_mirman_needs_no_refinement_and_is_exact():
    pytest.importorskip("Tasmanian")
    solution = solve(BrockMirman(), Adaptive(level=2))
    s = solution.mdp.sample_box(100, torch.Generator().manual_seed(0))
    exact = solution.mdp.exact_policy(s)
    assert ((solution._policy(s) - exact) / exact).abs().max() < 1e-4  # the change at which it ends, and its rate
    assert solution._policy.grid.size == 5


def test_refinement_puts_points_where_the_policy_bends(tmp_path):
    pytest.importorskip("Tasmanian")
    classic = solve(BufferStock(), Adaptive(level=4, refine=0.0))
    finer = solve(BufferStock(), Adaptive(level=4, refine=5e-3, max_level=6))
    error = lambda s: s.accuracy(1000).set_index(["sample", "measure"]).loc[("box", "euler"), "mean"]  # noqa: E731
    assert classic._policy.grid.size == 9
    assert error(finer) < error(classic) - 0.3
    m = finer._policy.grid.mesh().flatten().sort().values
    gaps = m.log().diff()
    assert gaps.max() > 1.9 * gaps.min()  # not everywhere alike
    again = econrl.load(finer.save(tmp_path / "saved"), BufferStock())
    assert torch.equal(again._policy(m[:, None]), finer._policy(m[:, None]))


def test_a_refinement_that_does_not_end_is_stopped_with_a_message():
    pytest.importorskip("Tasmanian")
    solution = solve(BufferStock(), Adaptive(level=3, refine=1e-8, max_level=12, max_points=20))
    assert "not refined beyond" in solution.info["message"]
    assert solution._policy.grid.size <= 20
