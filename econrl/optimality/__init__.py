"""First-order conditions: the Euler equation of any spec, with bounds and multipliers."""
