"""The backend that has BCC compile its programs when it starts: for kernels without BTF, too."""

from engine.tcp.bcc.backend import BccBackend

__all__ = ["BccBackend"]
