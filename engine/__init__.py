"""Everything that runs without a terminal.

The hot modules are Python sources that Cython compiles; `OTUS_PURE=1` makes the process import
the sources instead, whatever lies compiled beside them.
"""

import os

__version__ = "0.1.0"

if os.environ.get("OTUS_PURE", "") not in ("", "0"):
    from engine import purity

    purity.install()
