"""The backend that has BCC compile its programs against the kernel's headers: for kernels without BTF."""

from engine.tcp.bcc.backend import BccBackend

__all__ = ["BccBackend"]
