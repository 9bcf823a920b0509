"""`python -m econrl`, the same as the command `econrl`."""

from econrl.cli import main

main()
