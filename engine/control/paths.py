"""Where the control socket lives, for the engine that listens and the clients that look for it."""

from __future__ import annotations

import os
import stat

from engine.errors import NotPermittedError, OtusError

SERVICE_SOCKET = "/run/otus/otus.sock"
ENVIRONMENT = "OTUS_SOCKET"
_FALLBACK = "/tmp/otus-{}"  # noqa: S108 -- the owner of the directory is checked


def own_socket_path() -> str:
    """The socket of an engine that this user starts; OTUS_SOCKET names another."""
    if named := os.environ.get(ENVIRONMENT):
        return named
    if os.geteuid() == 0:
        return SERVICE_SOCKET
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "otus", "otus.sock")
    return os.path.join(_FALLBACK.format(os.geteuid()), "otus.sock")


def client_socket_path() -> str:
    """The socket that a client tries: the user's own engine, else the service's where it may be used."""
    own = own_socket_path()
    if ENVIRONMENT in os.environ or os.path.exists(own) or not os.access(SERVICE_SOCKET, os.R_OK | os.W_OK):
        return own
    return SERVICE_SOCKET


def prepare_directory(path: str) -> None:
    """Make the socket's own directory if there is none, for nobody else but the service's group.

    A directory that was there is left as it is; one under /tmp must belong to this user.
    """
    folder = os.path.dirname(os.path.abspath(path))
    mode = 0o750 if folder == os.path.dirname(SERVICE_SOCKET) else 0o700
    try:
        os.makedirs(folder, mode, exist_ok=True)
        state = os.lstat(folder)
    except PermissionError as error:
        raise NotPermittedError(
            f"cannot make {folder}: {error.strerror}", "name another place: --socket PATH, or run it as root"
        ) from error
    except OSError as error:
        raise OtusError(
            f"cannot make {folder}: {error.strerror}", "name another place: --socket PATH"
        ) from error
    foreign = state.st_uid != os.geteuid() or not stat.S_ISDIR(state.st_mode)
    if foreign and folder == _FALLBACK.format(os.geteuid()):
        raise NotPermittedError(f"{folder} belongs to somebody else", "name another place: --socket PATH")
