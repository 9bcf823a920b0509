"""What policies and value functions are made of: networks, grids, polynomials, tables."""
