"""E[.] over a model's shocks: nodes e (J, E) and weights w (J,), so that E[g(e)] is close to sum_j w_j g(e_j).

Three rules for continuous shocks; discrete shocks are always exact, and multiply the nodes.

gauss     the tensor product of each shock's own Gauss rule; n nodes a dimension, exact to degree 2n - 1.
monomial  2k nodes for k dimensions, +-sqrt(k) on each axis of the standard normals; exact to degree 3
          (Stroud 1971; Judd, Maliar & Maliar 2011, section 4).
sobol     a scrambled Sobol sequence of `points` nodes through the inverse normal distribution (Owen 1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from econrl.errors import MethodError
from econrl.spec.shocks import Rule, Shock, product

RULES = ("auto", "gauss", "monomial", "sobol")
LARGEST_GAUSS, FEWEST_GAUSS = 200, 3  # nodes in all, and a dimension, of the tensor products that "auto" takes
LARGEST_RULE = 100_000


@dataclass(frozen=True)
class Quadrature:
    """How expectations are taken."""

    rule: str = "auto"
    """auto, gauss, monomial or sobol; auto is gauss with as many nodes a dimension, up to `nodes`, as make at most 200
    in all; monomial where three are too many."""
    nodes: int = 5
    """Nodes a dimension of the Gauss rules; with auto, at most."""
    points: int = 256
    """Points of the Sobol rule; a power of two."""

    def over(self, shocks: Sequence[Shock]) -> Rule:
        """Nodes (J, E), columns in the order of the shocks, and weights (J,) that sum to one; float64.

        Raises MethodError for an unknown rule, or one of more than 100,000 nodes.
        """
        if self.rule not in RULES:
            raise MethodError(f"unknown quadrature rule '{self.rule}'; there are: {', '.join(RULES)}")
        continuous = [s for s in shocks if not s.discrete]
        discrete = [s for s in shocks if s.discrete]
        dimensions = sum(s.width for s in continuous)
        support = math.prod(len(s.nodes(self.nodes)[0]) for s in discrete)
        rule, each = self.rule, self.nodes
        if rule == "auto":
            while each > FEWEST_GAUSS and dimensions > 1 and each**dimensions * support > LARGEST_GAUSS:
                each -= 1
            rule = "gauss" if each**dimensions * support <= LARGEST_GAUSS or dimensions <= 1 else "monomial"
        count = support * {"gauss": each**dimensions, "monomial": 2 * dimensions, "sobol": self.points}[rule]
        if count > LARGEST_RULE:
            raise MethodError(
                f"the {rule} rule over {dimensions} continuous shocks needs {count:,} nodes; "
                "use rule='monomial' or 'sobol'"
            )
        if rule == "gauss" or not continuous:
            return in_order(shocks, [s.nodes(each) for s in shocks])
        z, weights = monomial(dimensions) if rule == "monomial" else sobol(dimensions, self.points)
        columns = torch.split(z, [s.width for s in continuous], dim=-1)
        joint = torch.cat([s.from_normal(c) for s, c in zip(continuous, columns, strict=True)], dim=-1)
        nodes, weights = product([(joint, weights)] + [s.nodes(self.nodes) for s in discrete])
        return reorder(nodes, [*continuous, *discrete], shocks), weights


def in_order(shocks: Sequence[Shock], rules: list[Rule]) -> Rule:
    """The product of one rule for each shock; a single certain node where there is no shock."""
    if not shocks:
        return torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return product(rules)


def reorder(nodes: Tensor, found: Sequence[Shock], wanted: Sequence[Shock]) -> Tensor:
    """Columns laid out as `found`, put in the order of `wanted`."""
    columns = dict(zip([s.name for s in found], torch.split(nodes, [s.width for s in found], dim=-1), strict=True))
    return torch.cat([columns[s.name] for s in wanted], dim=-1)


def monomial(dimensions: int) -> Rule:
    """2n equally likely nodes at +-sqrt(n) on each axis: exact for polynomials of degree 3 of a standard normal."""
    axes = math.sqrt(dimensions) * torch.eye(dimensions, dtype=torch.float64)
    return torch.cat([axes, -axes]), torch.full((2 * dimensions,), 0.5 / dimensions, dtype=torch.float64)


def sobol(dimensions: int, points: int) -> Rule:
    """Equally likely quasi-random nodes of a standard normal, from a scrambled Sobol sequence."""
    u = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=0).draw(points, dtype=torch.float64)
    z = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))
    return z, torch.full((points,), 1 / points, dtype=torch.float64)


FINER = Quadrature(nodes=9)
