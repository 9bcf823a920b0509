"""The exact answer of a table, to compare those of learning methods to."""

from econrl.approximation.finite_mdp import states_of, tabulate
from econrl.approximation.tensor_grid import TensorGrid
from econrl.problem.mdp import MDP


class Exact:
    """The exact answer of a menu of actions on a fine grid."""

    def __init__(self, model, menu, points):
        self.mdp = MDP(model)
        columns = self.mdp.continuous
        low, high = self.mdp.low[columns].tolist(), self.mdp.high[columns].tolist()
        self.grid = TensorGrid(low, high, points, [0.0] * len(points), "linear")
        self.s = states_of(self.mdp, self.grid)
        self.V, _ = tabulate(self.mdp, self.grid, self.mdp.act(self.s.unsqueeze(1), menu.double())).solve()

    def loss(self, policy):
        """Share of lifetime value lost by a policy, the mean over all states of the table."""
        v, _ = tabulate(self.mdp, self.grid, policy.on(self.mdp)(self.s).unsqueeze(1)).solve()
        return float(((self.V - v) / self.V.abs()).mean())

    def error(self, value):
        """The relative error of a value, the mean over all states of the table."""
        return float(((value.on(self.mdp)(self.s) - self.V) / self.V).abs().mean())
