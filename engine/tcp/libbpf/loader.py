"""Load the observer's object, programs one by one switched on or off, and let it go again.

A program that the verifier refuses is switched off, and the object is opened anew without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine import resources
from engine.errors import NotPermittedError, OtusError
from engine.privileges import effective
from engine.tcp.libbpf.library import LOG, RING_CALLBACK, library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OBJECT = "tcp_observer.bpf.o"
_REFUSED = re.compile(r"prog '(\w+)': (?:BPF program load failed|failed to load)")
_GRANT = "sudo otus-tui tcp ...; in a systemd unit: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN"
_GRANT_OLD = "sudo otus-tui tcp ...  (before Linux 5.8 it takes root or CAP_SYS_ADMIN)"
_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39
_STATS_RUN_TIME = 0
_INFO_OCTETS = 256
_RUN_TIME, _RUN_COUNT, _MISSED = 192, 200, 208
"""Offsets in struct bpf_prog_info (include/uapi/linux/bpf.h), which only ever grows."""


class RefusedError(Exception):
    """The verifier did not take a program: its name, and why in the verifier's words."""

    def __init__(self, program: str, why: str, log: list[str]) -> None:
        super().__init__(program)
        self.program, self.why, self.log = program, why, log


def octets() -> bytes:
    """The built object. OtusError where the build left it out."""
    try:
        return resources.data("bpf", OBJECT).read_bytes()
    except OSError as error:
        raise OtusError(
            "this build left the eBPF objects out", "sudo apt-get install clang libbpf-dev && ./dev setup"
        ) from error


class BpfObject:
    """One object from open to close."""

    def __init__(self, content: bytes) -> None:
        self._library = library()
        LOG.take()
        self._handle = self._library.bpf_object__open_mem(content, len(content), None)
        if not self._handle:
            raise failure(ctypes.get_errno(), "the eBPF object cannot be opened")
        self._links: dict[str, int] = {}

    def load(self, programs: Iterable[str]) -> None:
        """Load these programs. RefusedError: one of them; NotPermittedError, OtusError: all."""
        wanted = set(programs)
        for name, program in self._programs():
            self._library.bpf_program__set_autoload(program, name in wanted)
        LOG.take()
        result = self._library.bpf_object__load(self._handle)
        if not result:
            LOG.take()
            return
        log = LOG.take()
        refused = next((found[1] for line in log if (found := _REFUSED.search(line))), "")
        if refused in wanted and -result not in (errno.EPERM, errno.ENOMEM, errno.ENOSYS):
            raise RefusedError(refused, verdict(log), log)
        raise failure(-result, verdict(log))

    def attach(self, name: str) -> str:
        """Attach one program; why not, empty if it did."""
        LOG.take()
        program = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
        link = self._library.bpf_program__attach(program)
        if link:
            self._links[name] = link
            return ""
        return f"cannot be attached: {os.strerror(ctypes.get_errno())}"

    def iterate(self, name: str) -> int:
        """A descriptor from which an iterator's records are read once, of the caller's namespace."""
        descriptor: int = self._library.bpf_iter_create(self._library.bpf_link__fd(self._links[name]))
        if descriptor < 0:
            raise OtusError(f"the socket iterator cannot be started: {os.strerror(-descriptor)}")
        return descriptor

    def set_entries(self, name: str, entries: int) -> None:
        """Size of a map, before load()."""
        self._check(self._library.bpf_map__set_max_entries(self.map(name), entries), name)

    def set_value_octets(self, name: str, size: int) -> None:
        """Size of a map's values, before load()."""
        self._check(self._library.bpf_map__set_value_size(self.map(name), size), name)

    def fill(self, name: str, content: bytes) -> None:
        """Set a section of constants, before load()."""
        size = ctypes.c_size_t()
        address = self._library.bpf_map__initial_value(self.map(name), ctypes.byref(size))
        if not address or len(content) != size.value:
            raise OtusError(f"the eBPF object does not fit this program (section {name})", "./dev setup")
        ctypes.memmove(address, content, len(content))

    def share(self, name: str) -> mmap.mmap:
        """A section of variables, shared with the programs, after load()."""
        size = self._library.bpf_map__value_size(self.map(name))
        return mmap.mmap(self.descriptor(name), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def map(self, name: str) -> int:
        """libbpf's handle of a map."""
        found: int | None = self._library.bpf_object__find_map_by_name(self._handle, name.encode())
        if not found:
            raise OtusError(f"the eBPF object has no map {name}", "./dev setup")
        return found

    def descriptor(self, name: str) -> int:
        """A map's file descriptor, after load()."""
        number: int = self._library.bpf_map__fd(self.map(name))
        return number

    def costs(self) -> dict[str, tuple[int, int, int | None]]:
        """Attached program -> (runs, ns, runs that the kernel left out, None where it does not say)."""
        found = {}
        for name in self._links:
            program = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
            info = (ctypes.c_ubyte * _INFO_OCTETS)()
            length = ctypes.c_uint32(_INFO_OCTETS)
            descriptor = self._library.bpf_program__fd(program)
            if self._library.bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(length)):
                continue
            ns, runs, missed = (
                int.from_bytes(bytes(info[at : at + 8]), sys.byteorder)
                for at in (_RUN_TIME, _RUN_COUNT, _MISSED)
            )
            found[name] = (runs, ns, missed if length.value >= _MISSED + 8 else None)
        return found

    def detach(self) -> None:
        """No program runs from here on; maps can still be read."""
        links, self._links = self._links, {}
        for link in links.values():
            self._library.bpf_link__destroy(link)

    def close(self) -> None:
        """Let everything go; a second call does nothing."""
        self.detach()
        handle, self._handle = self._handle, None
        if handle:
            self._library.bpf_object__close(handle)

    def _programs(self) -> Iterable[tuple[str, int]]:
        program = None
        while program := self._library.bpf_object__next_program(self._handle, program):
            yield self._library.bpf_program__name(program).decode(), program

    def _check(self, result: int, name: str) -> None:
        if result:
            raise OtusError(f"map {name}: {os.strerror(abs(result))}")


class Ring:
    """A ring buffer that is read here; `take` gets each record as bytes. What it cannot take is counted."""

    def __init__(self, descriptor: int, take: Callable[[bytes], object]) -> None:
        self._library = library()
        self.failed = 0
        """Records at which `take` has raised."""
        self.error: Exception | None = None
        """The last one of these."""
        self._interrupted: BaseException | None = None

        # Nothing may be raised through C: ctypes would print it and go on.
        def record(_context: int, data: int, size: int) -> int:
            try:
                take(ctypes.string_at(data, size))
            except Exception as error:
                self.failed += 1
                self.error = error
            except BaseException as error:
                self._interrupted = error
                return -1
            return 0

        self._callback = RING_CALLBACK(record)
        self._handle = self._library.ring_buffer__new(descriptor, self._callback, None, None)
        if not self._handle:
            raise OtusError(f"the ring buffer cannot be mapped: {os.strerror(ctypes.get_errno())}")

    def consume(self) -> None:
        """Take all that is there."""
        if self._handle:
            self._library.ring_buffer__consume(self._handle)
        interrupted, self._interrupted = self._interrupted, None
        if interrupted is not None:
            raise interrupted

    def fileno(self) -> int:
        """Readable when there is something."""
        number: int = self._library.ring_buffer__epoll_fd(self._handle)
        return number

    def close(self) -> None:
        """Unmap it; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle:
            self._library.ring_buffer__free(handle)


class Statistics:
    """The kernel measures programs as long as this is open (BPF_ENABLE_STATS, Linux 5.8)."""

    def __init__(self) -> None:
        self.descriptor = library().bpf_enable_stats(_STATS_RUN_TIME)
        if self.descriptor == -errno.EPERM:
            raise NotPermittedError(
                "having the kernel measure eBPF programs (--max-cpu, --stats) takes CAP_SYS_ADMIN",
                "sudo otus-tui tcp ...; or do without --max-cpu and --stats",
            )
        if self.descriptor < 0:
            raise OtusError(
                f"the kernel does not measure eBPF programs: {os.strerror(-self.descriptor)}",
                "Linux 5.8 or later and CAP_SYS_ADMIN",
            )

    def close(self) -> None:
        """The kernel measures no more for this process; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def verdict(log: list[str]) -> str:
    """The one line of libbpf's log that says why."""
    inside = False
    words: list[str] = []
    for line in log:
        if "BEGIN PROG LOAD LOG" in line:
            inside = True
        elif "END PROG LOAD LOG" in line:
            inside = False
        elif inside and line.strip() and not line.startswith("processed "):
            words.append(line.strip())
    if words:
        return words[-1]
    return next((line.removeprefix("libbpf: ") for line in log if line.strip()), "no reason given")


def failure(number: int, words: str) -> OtusError:
    """The error for an errno of the bpf system call."""
    if number in (errno.EPERM, errno.EACCES):
        locked = lockdown()
        if locked == "confidentiality":
            return NotPermittedError(
                "kernel lockdown (confidentiality) forbids eBPF to read the kernel's memory",
                "boot without lockdown=confidentiality; --backend netlink does without eBPF",
            )
        if capable():
            return NotPermittedError(
                "the bpf system call is refused, though the capabilities are there: a container's seccomp "
                "profile or a security module forbids it",
                "in a container: --privileged or --security-opt seccomp=unconfined; "
                "--backend netlink does without eBPF",
            )
        new = _kernel_version() >= (5, 8)
        needs = "CAP_BPF and CAP_PERFMON" if new else "root or CAP_SYS_ADMIN, before Linux 5.8"
        message = f"loading eBPF programs is not permitted: it takes {needs}"
        return NotPermittedError(message, _GRANT if new else _GRANT_OLD)
    if number == errno.ENOSYS:
        return OtusError(
            "this kernel has no bpf system call (CONFIG_BPF_SYSCALL)", "--backend netlink does without"
        )
    if number == errno.ENOMEM:
        return OtusError(
            "no memory for the eBPF maps", "fewer --sockets, or before Linux 5.11: ulimit -l unlimited"
        )
    name = os.strerror(number) if number else "unknown error"
    return OtusError(f"the eBPF programs cannot be loaded: {name} ({words})")


def lockdown() -> str:
    """none, integrity or confidentiality; empty where the kernel has no lockdown."""
    with contextlib.suppress(OSError):
        text = Path("/sys/kernel/security/lockdown").read_text("ascii")
        if "[" in text:
            return text[text.index("[") + 1 : text.index("]")]
    return ""


def capable() -> bool:
    """Whether this process has what loading takes: CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
    held = effective()
    return bool(held >> _CAP_SYS_ADMIN & 1 or held >> _CAP_BPF & held >> _CAP_PERFMON & 1)


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def load(
    content: bytes,
    prepare: Callable[[BpfObject], None],
    choose: Callable[[Mapping[str, str]], list[str]],
) -> tuple[BpfObject, list[str], dict[str, str], list[str]]:
    """Open, prepare and load, without those programs that the verifier refuses.

    choose(refused) gives the programs to load. Returns the object, the programs in it, those refused with the
    reason, and the verifier's log about them.
    """
    refused: dict[str, str] = {}
    log: list[str] = []
    while True:
        names = choose(refused)
        if not names:
            raise OtusError("the kernel takes none of the eBPF programs", "; ".join(refused.values()))
        opened = BpfObject(content)
        try:
            prepare(opened)
            opened.load(names)
        except RefusedError as error:
            opened.close()
            refused[error.program] = f"the kernel's verifier refuses {error.program}: {error.why}"
            log += error.log
        except BaseException:
            opened.close()
            raise
        else:
            return opened, names, refused, log
