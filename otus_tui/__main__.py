"""`python -m otus_tui`."""

from otus_tui.cli import main

main()
