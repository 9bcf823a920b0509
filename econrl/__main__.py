"""`python -m econrl`, the same as the command `econrl`."""

from econrl.command.cli import main

main()
