"""Which backend: the one that was named, or the first that this kernel can run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from engine.errors import NotPermittedError, OtusError, UsageError
from engine.tcp.backend import BeyondBackendError

if TYPE_CHECKING:
    from engine.tcp.backend import Backend
    from engine.tcp.options import Options

PLACES = {
    "libbpf": ("engine.tcp.libbpf", "LibbpfBackend"),
    "bcc": ("engine.tcp.bcc", "BccBackend"),
    "netlink": ("engine.tcp.netlink", "NetlinkBackend"),
}
"""Module and class of each backend."""
ORDER = ("libbpf", "bcc", "netlink")


def construct(name: str, options: Options) -> Backend:
    """A backend that was not started; OtusError where its package is not there."""
    words = (options.filters, options.triggers, options.limits, options.sizes)
    module, kind = PLACES[name]
    try:
        make = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise OtusError(f"the {name} backend is not here ({error})", _OTHERS) from error
    backend: Backend = make(*words)
    return backend


_OTHERS = "another one: --backend netlink needs nothing but the kernel's inet_diag"


def start(options: Options) -> tuple[Backend, list[str]]:
    """A backend that runs, and in words why better ones do not.

    NotPermittedError ends the search: what is missing is a right, and less would be shown than could be.
    UsageError does, too: no backend makes sense of it.
    """
    if options.backend != "auto":
        backend = construct(options.backend, options)
        backend.start()
        return backend, []
    reasons: list[str] = []
    for name in ORDER:
        try:
            backend = construct(name, options)
            backend.start()
        except NotPermittedError as error:
            hint = error.hint
            if "--backend netlink" not in hint:
                hint = f"{hint}; what is seen without it: --backend netlink".lstrip("; ")
            raise NotPermittedError(error.message, hint) from error
        except BeyondBackendError as error:
            reasons.append(f"{name}: {error.message}")
            continue
        except UsageError:
            # What cannot be meant is said, not worked around.
            raise
        except OtusError as error:
            if name == ORDER[-1]:
                raise
            reasons.append(f"{name}: {error.message}")
            continue
        return backend, reasons
    raise OtusError("no backend runs here", "; ".join(reasons))
