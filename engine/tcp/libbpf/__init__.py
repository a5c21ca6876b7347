"""The backend that loads eBPF programs by way of libbpf."""

from engine.tcp.libbpf.backend import LibbpfBackend

__all__ = ["LibbpfBackend"]
