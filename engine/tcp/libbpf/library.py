"""libbpf.so.1 by way of ctypes: its functions with their types, its log, its errors.

Nothing is pinned and nothing outlives the process: programs, maps and links are file descriptors.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from engine.errors import OtusError

LIBRARY = "libbpf.so.1"
RING_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_DEBUG = 2
_LONGEST = 1 << 16

_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("bpf_object__open_mem", c_void_p, (c_char_p, c_size_t, c_void_p)),
    ("bpf_object__load", c_int, (c_void_p,)),
    ("bpf_object__close", None, (c_void_p,)),
    ("bpf_object__btf", c_void_p, (c_void_p,)),
    ("bpf_object__find_program_by_name", c_void_p, (c_void_p, c_char_p)),
    ("bpf_object__find_map_by_name", c_void_p, (c_void_p, c_char_p)),
    ("bpf_object__next_program", c_void_p, (c_void_p, c_void_p)),
    ("bpf_object__next_map", c_void_p, (c_void_p, c_void_p)),
    ("bpf_program__name", c_char_p, (c_void_p,)),
    ("bpf_program__fd", c_int, (c_void_p,)),
    ("bpf_program__set_autoload", c_int, (c_void_p, c_bool)),
    ("bpf_program__attach", c_void_p, (c_void_p,)),
    ("bpf_map__name", c_char_p, (c_void_p,)),
    ("bpf_map__fd", c_int, (c_void_p,)),
    ("bpf_map__type", c_uint32, (c_void_p,)),
    ("bpf_map__key_size", c_uint32, (c_void_p,)),
    ("bpf_map__value_size", c_uint32, (c_void_p,)),
    ("bpf_map__max_entries", c_uint32, (c_void_p,)),
    ("bpf_map__set_max_entries", c_int, (c_void_p, c_uint32)),
    ("bpf_map__set_value_size", c_int, (c_void_p, c_uint32)),
    ("bpf_map__initial_value", c_void_p, (c_void_p, POINTER(c_size_t))),
    ("bpf_map_lookup_elem", c_int, (c_int, c_void_p, c_void_p)),
    ("bpf_map_update_elem", c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    ("bpf_map_get_next_key", c_int, (c_int, c_void_p, c_void_p)),
    ("bpf_map_lookup_batch", c_int,
     (c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)),
    ("bpf_link__fd", c_int, (c_void_p,)),
    ("bpf_link__destroy", c_int, (c_void_p,)),
    ("bpf_iter_create", c_int, (c_int,)),
    ("bpf_enable_stats", c_int, (c_int,)),
    ("bpf_obj_get_info_by_fd", c_int, (c_int, c_void_p, POINTER(c_uint32))),
    ("libbpf_num_possible_cpus", c_int, ()),
    ("ring_buffer__new", c_void_p, (c_int, RING_CALLBACK, c_void_p, c_void_p)),
    ("ring_buffer__consume", c_int, (c_void_p,)),
    ("ring_buffer__epoll_fd", c_int, (c_void_p,)),
    ("ring_buffer__free", None, (c_void_p,)),
    ("btf__load_vmlinux_btf", c_void_p, ()),
    ("btf__free", None, (c_void_p,)),
    ("btf__type_by_id", c_void_p, (c_void_p, c_uint32)),
    ("btf__name_by_offset", c_char_p, (c_void_p, c_uint32)),
    ("btf__find_by_name_kind", c_int, (c_void_p, c_char_p, c_uint32)),
)  # fmt: skip


class Log:
    """What libbpf says, the verifier's words among it; libbpf has one for the whole process."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lock = threading.Lock()
        self._print = ctypes.CDLL(None).vsnprintf
        self.callback = _PRINT(self._write)

    def _write(self, level: int, text: bytes, arguments: int) -> int:
        if level >= _DEBUG:
            return 0
        buffer = ctypes.create_string_buffer(_LONGEST)
        self._print(buffer, c_size_t(_LONGEST), text, c_void_p(arguments))
        with self.lock:
            self.lines.extend(buffer.value.decode("utf-8", "replace").splitlines())
            del self.lines[:-4000]
        return 0

    def take(self) -> list[str]:
        """The lines since the last call."""
        with self.lock:
            taken, self.lines = self.lines, []
        return taken


LOG = Log()


@cache
def library() -> ctypes.CDLL:
    """libbpf 1.x, its functions typed. OtusError where it is not installed, or lacks one of them."""
    try:
        loaded = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise OtusError(f"{LIBRARY} is not installed", "sudo apt-get install libbpf1") from error
    for name, result, arguments in _FUNCTIONS:
        try:
            function = getattr(loaded, name)
        except AttributeError as error:
            raise OtusError(f"{LIBRARY} is too old: it has no {name}", "libbpf 1.0 or later") from error
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print.restype, loaded.libbpf_set_print.argtypes = c_void_p, (_PRINT,)
    loaded.libbpf_set_print(LOG.callback)
    return loaded


def possible_cpus() -> int:
    """As many values has each key of a per-CPU map."""
    count: int = library().libbpf_num_possible_cpus()
    return count if count > 0 else os.cpu_count() or 1
