"""`python -m otus_tui`: the same as the console script."""

import sys

from otus_tui.cli import main

if __name__ == "__main__":
    sys.exit(main())
