"""Methods on grids: endogenous grids, value iteration, time iteration."""
