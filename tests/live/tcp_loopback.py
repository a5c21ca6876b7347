"""An observer of the libbpf backend, and short connections for it over `lo`."""

from __future__ import annotations

import socket

from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend


def observer(**filters: object) -> LibbpfBackend:
    """An observer that runs, with these filters."""
    made = LibbpfBackend(Filters(**filters), Triggers(), Limits(), Sizes())  # type: ignore[arg-type]
    made.start()
    return made


def visit(listener: socket.socket, requests: int = 1, address: str = "127.0.0.1") -> int:
    """A short connection; its client's port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            for _ in range(requests):
                client.sendall(b"q" * 1000)
                server.recv(1000)
                server.sendall(b"a" * 10)
                client.recv(10)
        port: int = client.getsockname()[1]
    return port
