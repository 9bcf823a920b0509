"""How accurate a solution is: held-out errors, error tables, certificates."""
