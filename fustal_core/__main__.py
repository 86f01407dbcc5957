"""``python -m fustal_core``: the command line."""

from fustal_core.cli import main

main()
