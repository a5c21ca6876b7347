"""The backend that has BCC compile its programs when it starts: also for kernels without BTF, by their headers."""

from engine.tcp.bcc.backend import BccBackend

__all__ = ["BccBackend"]
