"""The backend without CO-RE: BCC compiles programs for segments, retransmits, states, resets and drops;
inet_diag and the kernel's counters give the rest.

See engine.tcp.backend.Backend for what each method promises.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import select
import struct
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import NotPermittedError, OtusError
from engine.tcp import netlink
from engine.tcp.backend import Closed, Connection, Cost, Event, Listener, Namespace, Plan, Program, Reading
from engine.tcp.bcc import library, source, types
from engine.tcp.inet_diag import address
from engine.tcp.libbpf import loader, maps, programs
from engine.tcp.libbpf.reading import Reader
from engine.tcp.libbpf.reasons import Reasons
from engine.tcp.libbpf.records import Records
from engine.tcp.libbpf.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.tcp.backend import Filters, Limits, Sizes, Triggers
    from engine.tcp.inet_diag import Socket

_NO_PROGRAM = ("sample", "io_send", "io_receive")
"""Of the table of programs, those that inet_diag stands in for here."""
_CA_STATE = "this kernel's types do not show icsk_ca_state where it is looked for"
_PAGES = 16
_MOST_FLAGS = 200
_GRANT = "sudo otus-tui tcp ..."
_BY_LOOKING = (
    "cwnd",
    "ssthresh",
    "pacing_bps",
    "send_queue_bytes",
    "unsent_queue_bytes",
    "receive_queue_bytes",
)
_COUNTED_BY_REST = ("events_emitted", "zero_window_sent", "zero_window_sent_ns")
_GIVEN_BY_REST = (
    "rtt", "rttvar", "retransmits", "retransmits.per_connection", "zero_window_received", "zero_window_sent",
    "resets.sent", "throughput.closed",
)  # fmt: skip
_BOTH = ("events_lost", "sockets_evicted", "closed_lost")
_OFF_HERE = {
    "process.io": "who reads and writes is not followed by the bcc backend: who connected or listened is",
}


class BccBackend:
    """One run of the programs."""

    name = "bcc"

    def __init__(self, filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes) -> None:
        source.check(filters, sizes)
        self.filters, self.triggers, self.limits, self.sizes = filters, triggers, limits, sizes
        self.off: dict[str, str] = {}
        self.log: list[str] = []
        """The words of compiler and verifier about what they refused."""
        self._rest = netlink.NetlinkBackend(filters, _of_the_rest(triggers), limits, sizes)
        self._rest.on_ends = self._ended
        self._module: Any = None
        self._attached: dict[str, int] = {}
        """Program -> its descriptor."""
        self._choice = programs.Choice([], {}, {})
        self._reasons = Reasons({}, {})
        self._symbols = Symbols()
        self._records = Records(self._reasons, self._symbols.name)
        self._reader: Reader | None = None
        self._poll: select.epoll | None = None
        self._statistics: loader.Statistics | None = None
        self._costs: list[Cost] = []
        self._setting = [0, 0]
        self._failed = 0
        """Records of events that could not be taken."""
        self._missed: int | None = None
        """Runs that the kernel left out."""
        self._last: Reading | None = None
        self._made: OrderedDict[tuple[int, str, int, str, int], int] = OrderedDict()
        """Namespace and ends of a connection -> the number that the programs have given it."""

    def plan(self) -> Plan:
        """What start() would load; by the kernel's types if they are told, else as one that has all."""
        kernel: types.KernelTypes = types.OfHeaders(Path())
        known = False
        with contextlib.suppress(OtusError):
            kernel = types.of_kernel()
            if not self._choice.on:
                self._choose(kernel)
            known = True
        text = self._text(kernel)
        kernel.close()
        on = {program.name for program in self._choice.on}
        rows = [
            Program(one.name, f"raw_tp/{one.hook}", one.metrics, not known or one.name in on,
                    self._choice.why.get(one.name, ""))
            for one in programs.PROGRAMS if one.name not in _NO_PROGRAM
        ]  # fmt: skip
        rows += self._rest.plan().programs
        taken = [
            maps.footprint(*one)
            for one in maps.planned(self.filters, self.limits, self.sizes)
            if one[0] in ("totals", "histograms", "sockets", "listener_owners", "drops")
        ]
        return Plan(rows, taken, text)

    def start(self) -> None:
        """Compile, load and attach."""
        kernel = types.of_kernel()
        try:
            compiler = library.load()
            if os.geteuid() != 0:
                raise NotPermittedError("loading eBPF programs by way of BCC takes root", _GRANT)
            self._choose(kernel)
            with kernel.compiling():
                self._module = self._compile(compiler, self._text(kernel))
        finally:
            kernel.close()
        try:
            self._rest.start()
            self._attach(compiler)
            self.off = self._describe()
            self._open()
        except BaseException:
            self.stop()
            raise

    def read(self) -> Reading:
        """The counters and histograms of now."""
        if self._reader is None:
            return self._last or Reading(time.monotonic_ns())
        reading, rest = self._reader.read(), self._rest.read()
        # With filters it knows the sum over the sockets that it has met; the programs' classes are all.
        told = self._rest.narrowed and "retransmits" not in self._choice.off
        classes = ("retransmit_segments",) if told else ()
        for name, one in rest.histograms.items():
            if name in _BY_LOOKING or name not in reading.histograms:
                reading.histograms[name] = one
        for name, value in rest.counters.items():
            if name in _BOTH:
                reading.counters[name] = reading.counters.get(name, 0) + value
            elif name in classes:
                continue
            elif name in _COUNTED_BY_REST or name not in reading.counters:
                reading.counters[name] = value
        for name in _COUNTED_BY_REST:
            if name not in rest.counters:
                reading.counters.pop(name, None)
        reading.counters["events_lost"] = reading.counters.get("events_lost", 0) + self._failed
        self._count_missed()
        if self._missed is not None:
            reading.counters["runs_missed"] = self._missed
        for stage, value in rest.suppressed.items():
            reading.suppressed[stage] = reading.suppressed.get(stage, 0) + value
        return reading

    def connections(self) -> list[Connection]:
        """One look by inet_diag."""
        return self._rest.connections()

    def listeners(self) -> list[Listener]:
        """The listening sockets."""
        return self._rest.listeners()

    def closed_listeners(self) -> list[Listener]:
        """Only looks tell."""
        return self._rest.closed_listeners()

    def closed(self) -> list[Closed]:
        """Connections that ended since the last call."""
        return self._rest.closed()

    def events(self) -> list[Event]:
        """Detail events since the last call."""
        if self._module is not None and self._poll is not None:
            _consume(self._module)
        return sorted(self._rest.events(), key=lambda event: event.time_ns)

    def offer(self, event: Event) -> None:
        """An event that the observer has found."""
        self._rest.offer(event)

    def event_fd(self) -> int:
        """Readable when a program has sent an event."""
        return -1 if self._poll is None else self._poll.fileno()

    def set_rtt_p99(self, value_us: int) -> None:
        """For the trigger rtt_p99."""
        self._setting[0] = value_us
        self._set()

    def set_namespaces(self, namespaces: Sequence[Namespace]) -> None:
        """Which inet_diag visits; the programs see all, or the one of Filters.netns."""
        self._rest.set_namespaces(namespaces)

    def set_sampling(self, one_of: int) -> None:
        """The program of each segment looks at one of so many flows."""
        self._setting[1] = max(0, one_of - 1).bit_length()
        self._set()

    def count_costs(self) -> None:
        """BPF_ENABLE_STATS until stop(). OtusError before Linux 5.8."""
        if self._statistics is None:
            self._statistics = loader.Statistics()

    def costs(self) -> list[Cost]:
        """Of each program, as the kernel tells of its descriptor."""
        if self._statistics is not None and self._attached:
            self._costs = [_cost(name, descriptor) for name, descriptor in self._attached.items()]
        return list(self._costs)

    def _count_missed(self) -> None:
        """While the programs are attached."""
        told = [_figures(descriptor).get("recursion_misses") for descriptor in self._attached.values()]
        known = [missed for missed in told if missed is not None]
        if known:
            self._missed = sum(known)

    def stop(self) -> None:
        """Detach, take what is left, unload."""
        module = self._module
        if module is None:
            return
        self.costs()
        self._count_missed()
        with library.uninterrupted():
            for hook in list(module.raw_tracepoint_fds):
                module.detach_raw_tracepoint(hook)
        if self._poll is not None:
            _consume(module)
            self._poll.close()
            self._poll = None
        self._rest.stop()
        if self._reader is not None:
            self._last = self.read()
            self._reader = None
        with library.uninterrupted():
            self._module = None
            self._attached.clear()
            module.cleanup()
        if self._statistics is not None:
            self._statistics.close()
            self._statistics = None

    # ---- loading

    def _choose(self, kernel: types.KernelTypes) -> None:
        """The programs for this kernel."""
        refused = {} if kernel.ca_state() else {"retransmit_2": _CA_STATE, "retransmit_3": _CA_STATE}
        choice = programs.choose(kernel, pids=False, refused=refused)
        choice.on = [program for program in choice.on if program.name not in _NO_PROGRAM]
        looked = {metric for one in programs.PROGRAMS if one.name in _NO_PROGRAM for metric in one.metrics}
        choice.off = {metric: why for metric, why in choice.off.items() if metric not in looked}
        self._choice = choice
        self._reasons = Reasons(kernel.enum("skb_drop_reason"), kernel.enum("sk_rst_reason"))

    def _text(self, kernel: types.KernelTypes) -> str:
        return source.text(self.filters, self.triggers, self.limits, self.sizes, self._reasons, kernel)

    def _compile(self, compiler: Any, text: str) -> Any:
        """A module with its maps, nothing loaded yet."""
        flags = ["-ferror-limit=0"]
        while True:
            failed: Exception
            with library.said() as lines:
                try:
                    return compiler(text=text.encode(), cflags=flags)
                except Exception as error:
                    failed = error
            more = source.stand_ins(lines, len(flags))
            if not more or len(flags) > _MOST_FLAGS:
                break
            flags += more
        self.log += lines
        why = next((line for line in lines if "error:" in line), "") or (lines[-1] if lines else str(failed))
        if "Operation not permitted" in why:
            raise NotPermittedError("loading eBPF programs is not permitted", _GRANT) from failed
        raise OtusError(f"BCC cannot compile the programs for this kernel: {why.strip()}") from failed

    def _attach(self, compiler: Any) -> None:
        failed: dict[str, str] = {}
        for program in list(self._choice.on):
            with library.said() as lines:
                try:
                    function = self._module.load_func(program.name.encode(), compiler.RAW_TRACEPOINT)
                    self._module.attach_raw_tracepoint(program.hook.encode(), program.name.encode())
                    self._attached[program.name] = function.fd
                except Exception as error:
                    failed[program.name] = str(error)
            if program.name in failed:
                self.log += lines
                why = _verdict(lines) or failed[program.name]
                self._choice.on.remove(program)
                self._choice.why[program.name] = f"the kernel refuses {program.name}: {why}"
                for metric in program.metrics:
                    self._choice.off.setdefault(metric, self._choice.why[program.name])
        if not self._attached:
            raise OtusError("the kernel takes none of the programs", "; ".join(failed.values())[:500])

    def _describe(self) -> dict[str, str]:
        """What is off: with a program whose work inet_diag and the kernel's counters do, what those lack."""
        off = {**self._choice.off, **_OFF_HERE}
        off |= {
            metric: why for metric, why in self._rest.off.items() if metric.startswith("zero_window_sent")
        }
        for metric in _GIVEN_BY_REST:
            why = off.pop(metric, "")
            if not why or metric == "throughput.closed":
                continue
            less = {key: one for key, one in self._rest.off.items() if f"{key}.".startswith(f"{metric}.")}
            off.update(less or {f"{metric.partition('.')[0]}.exact": why})
        return off

    def _open(self) -> None:
        module = self._module
        self._records = Records(self._reasons, self._symbols.name)
        self._reader = Reader(
            _Maps(module), self._reasons, self._symbols, self._choice.off, self.sizes.sockets,
            self.sizes.sub_bits,
        )  # fmt: skip
        pages = _PAGES
        while pages * 4096 < self.sizes.ring_bytes // max(1, os.cpu_count() or 1):
            pages *= 2
        module[b"events"].open_perf_buffer(self._take, page_cnt=pages, lost_cb=lambda lost: None)
        self._poll = select.epoll()
        for reader in module.perf_buffers.values():
            self._poll.register(_reader_descriptor(reader), select.EPOLLIN)
        self._set()

    def _set(self) -> None:
        if self._module is not None and self._poll is not None:
            table = self._module[b"settings"]
            maps.update(table.map_fd, struct.pack("=I", 0), struct.pack("=QQ", *self._setting))

    def _take(self, _cpu: int, data: int, size: int) -> None:
        # Nothing may be raised through C: ctypes would print it and go on.
        try:
            self._offer(self._records.event(ctypes.string_at(data, size)))
        except Exception:
            self._failed += 1

    def _offer(self, event: Event) -> None:
        """A socket that has no number from the kernel yet has one of the programs (bit 63): it serves the
        stages alone. Of a connect() that was refused nobody tells the end: the reset is it."""
        one = event.connection
        if not one.cookie >> 63:
            self._rest.offer(event)
            return
        self._made[one.netns, one.local, one.local_port, one.remote, one.remote_port] = one.cookie
        if len(self._made) > self.sizes.sockets:
            self._rest.end_flow(self._made.popitem(last=False)[1], event.time_ns)
        self._rest.offer(event)
        if event.direction == "received" and event.trigger == "reset":
            self._rest.end_flow(one.cookie, event.time_ns)
        one.cookie = 0

    def _ended(self, sockets: Sequence[tuple[int, Socket]]) -> None:
        """Their flows end, after the events that they still have."""
        if self._module is not None and self._poll is not None:
            _consume(self._module)
        for netns, one in sockets if self._made else ():
            ends = (netns, address(one.local), one.local_port, address(one.remote), one.remote_port)
            number = self._made.pop(ends, None)
            if number is not None:
                self._rest.end_flow(number, time.monotonic_ns())


class _Maps:
    """BCC's tables by name, as engine.tcp.libbpf.reading wants them."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def descriptor(self, name: str) -> int:
        """A map's file descriptor."""
        number: int = self._module[name.encode()].map_fd
        return number


def _of_the_rest(triggers: Triggers) -> Triggers:
    """The triggers that looking finds, less those that a program sees as they happen."""
    return dataclasses.replace(
        triggers, rtt_above_us=None, rtt_p99=False, retransmit_burst=None, rto=False, tlp=False,
        resets=False, drops=False,
    )  # fmt: skip


def _consume(module: Any) -> None:
    """Take what the buffers of all CPUs hold.

    Not by perf_buffer_poll(): the kernel tells each wake-up to one poll alone, and ours may have had it.
    """
    read = sys.modules["bcc.libbcc"].lib.perf_reader_event_read
    for reader in module.perf_buffers.values():
        read(ctypes.c_void_p(reader))


def _reader_descriptor(reader: int) -> int:
    """The file descriptor of one CPU's perf buffer."""
    number: int = sys.modules["bcc.libbcc"].lib.perf_reader_fd(reader)
    return number


def _figures(descriptor: int) -> dict[str, int]:
    """What the kernel tells of a program: run_cnt and run_time_ns (Linux 5.1), recursion_misses (5.12)."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("run_cnt", "run_time_ns", "recursion_misses"):
                found[key] = int(value)
    return found


def _cost(name: str, descriptor: int) -> Cost:
    told = _figures(descriptor)
    runs, ns, missed = (told.get(key, 0) for key in ("run_cnt", "run_time_ns", "recursion_misses"))
    return Cost(name, runs, ns, missed)


def _verdict(lines: Sequence[str]) -> str:
    """The verifier's last words before its statistics."""
    words = [line.strip() for line in lines if line.strip()]
    words = [line for line in words if not line.startswith(("processed ", "bpf: ", "HINT"))]
    return words[-1][:200] if words else ""
