"""The libbpf backend without a kernel: the table of programs, layouts, settings, names, plan."""

from __future__ import annotations

import ctypes
import errno
import mmap
import shutil
import socket
import struct
import subprocess
import sys
import tracemalloc
from ipaddress import ip_network
from pathlib import Path

import pytest

from engine import resources
from engine.errors import NotPermittedError, OtusError, UsageError
from engine.tcp import backend as contract
from engine.tcp import histogram, inet_diag
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.drop_reasons import BENIGN
from engine.tcp.libbpf import LibbpfBackend, layout, loader, maps, programs, records, settings
from engine.tcp.libbpf.btf import Btf
from engine.tcp.libbpf.library import library
from engine.tcp.libbpf.programs import PROGRAMS, choose
from engine.tcp.libbpf.reasons import Reasons
from engine.tcp.libbpf.symbols import Symbols
from engine.tcp.throughput import Throughput

ROOT = Path(__file__).parents[2]
OBJECT = resources.data("bpf", "tcp_observer.bpf.o")
built = pytest.mark.skipif(not OBJECT.is_file(), reason="the eBPF object is not built")
HOST = {
    "tcp_probe": 2, "tcp_retransmit_skb": 3, "tcp_retransmit_synack": 2, "inet_sock_set_state": 3,
    "tcp_destroy_sock": 1, "tcp_receive_reset": 1, "tcp_send_reset": 3, "kfree_skb": 4, "sock_send_length": 3,
    "sock_recv_length": 3,
}  # fmt: skip


class Kernel:
    """BTF of some kernel."""

    def __init__(self, *, iterator: bool = True, **changes: int | None) -> None:
        self.tracepoints = {**HOST, **changes}
        self.iterator = iterator

    def arguments(self, tracepoint: str) -> int | None:
        return self.tracepoints.get(tracepoint)

    def has_function(self, name: str) -> bool:
        return self.iterator and name == "bpf_iter_tcp"


def names(choice: programs.Choice) -> set[str]:
    return {program.name for program in choice.on}


def test_a_kernel_that_has_all_gets_the_newest_of_each() -> None:
    choice = choose(Kernel(), pids=True)
    assert names(choice) == {
        "segment", "retransmit_3", "retransmit_synack", "state_change", "destroy", "reset_received",
        "reset_sent_3", "drop_4", "sample", "io_send", "io_receive",
    }  # fmt: skip
    assert choice.off == {}
    assert "io_send" not in names(choose(Kernel(), pids=False))


@pytest.mark.parametrize(
    ("changes", "on", "off"),
    [
        # Debian's 6.12, 6.1 and 5.10, as their BTF says.
        ({"tcp_retransmit_skb": 2}, {"retransmit_2", "drop_4", "reset_sent_3"}, set()),
        (
            {"tcp_retransmit_skb": 2, "kfree_skb": 3, "tcp_send_reset": 2, "sock_send_length": None,
             "sock_recv_length": None},
            {"retransmit_2", "drop_3", "reset_sent_2"},
            {"reset_reasons", "resets.no_socket", "drops.socket", "process.io"},
        ),
        (
            {"tcp_retransmit_skb": 2, "kfree_skb": 2, "tcp_send_reset": 2, "sock_send_length": None,
             "sock_recv_length": None},
            {"retransmit_2", "drop_2", "reset_sent_2"},
            {"reset_reasons", "resets.no_socket", "drop_reasons", "drops.socket", "process.io"},
        ),
    ],
)  # fmt: skip
def test_older_kernels_get_the_form_that_they_have(
    changes: dict[str, int | None], on: set[str], off: set[str]
) -> None:
    choice = choose(Kernel(**changes), pids=True)
    assert on <= names(choice)
    assert set(choice.off) == off


def test_a_tracepoint_that_is_missing_turns_off_its_metrics_alone() -> None:
    choice = choose(Kernel(tcp_probe=None), pids=False)
    assert set(choice.off) == {"rtt", "rttvar", "tlp_new_data", "zero_window_received", "zero_window_sent"}
    assert choice.off["rtt"] == "this kernel has no tracepoint tcp_probe (Linux 4.16)"
    assert "state_change" in names(choice)


def test_arguments_that_nobody_knows() -> None:
    choice = choose(Kernel(tcp_retransmit_skb=5), pids=False)
    assert choice.off["retransmits"] == "the tracepoint tcp_retransmit_skb has 5 arguments here, not 2 or 3"
    assert not {"retransmit_2", "retransmit_3"} & names(choice)


def test_no_iterator() -> None:
    choice = choose(Kernel(iterator=False), pids=False)
    assert choice.off["cwnd"] == "this kernel has no iterator tcp (Linux 5.9)"


def test_a_refused_program_turns_off_its_metrics_alone() -> None:
    choice = choose(Kernel(), pids=False, refused={"drop_4": "R1 invalid mem access"})
    assert set(choice.off) == {"drops", "drop_reasons"}
    assert choice.off["drops"] == "R1 invalid mem access"


def test_metrics_of_the_table_are_those_of_the_contract() -> None:
    assert {metric.split(".")[0] for one in PROGRAMS for metric in one.metrics} <= set(contract.METRICS)


def test_the_readme_is_the_table() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (ROOT / "bpf" / "README.md").read_text("utf-8").splitlines()
        if line.startswith("| `") and line.count("|") == 6
    ]
    wanted = [
        [
            f"`{one.name}`",
            one.section + (f" ({one.arguments})" if one.arguments else ""),
            ", ".join(one.metrics),
            one.since,
            one.substitute,
        ]
        for one in PROGRAMS
    ]
    assert rows == wanted


@built
def test_the_object_holds_the_programs_of_the_table() -> None:
    if shutil.which("llvm-objdump") is None:
        text = OBJECT.read_bytes()
        assert all(one.name.encode() in text for one in PROGRAMS)
        return
    text = subprocess.run(["llvm-objdump", "-t", str(OBJECT)], capture_output=True, check=True).stdout
    found = {line.split()[-1].decode() for line in text.splitlines() if b"tp" in line or b"iter" in line}
    assert {one.name for one in PROGRAMS} <= found


@built
def test_layouts_are_those_of_the_object() -> None:
    lib = library()
    content = OBJECT.read_bytes()
    handle = lib.bpf_object__open_mem(content, len(content), None)
    assert handle
    try:
        btf = Btf(lib.bpf_object__btf(handle), owned=False)
        config = btf.structure("config")
        runtime = btf.structure("runtime")
        assert config is not None
        assert runtime is not None
        prefix = btf.structure("prefix")
        for found, mine in ((config, layout.Config), (runtime, layout.Runtime), (prefix, layout.Prefix)):
            assert found is not None
            assert found[0] == ctypes.sizeof(mine)
            assert [(one.name, one.offset) for one in found[1]] == [
                (field[0], getattr(mine, field[0]).offset) for field in mine._fields_
            ]
        sizes = {
            "connection": layout.CONNECTION.size, "event": layout.EVENT_HEAD.size + layout.CONNECTION.size,
            "closed": layout.CLOSED.size, "drop_key": layout.DROP_KEY.size, "totals": 8 * layout.TOTALS_WORDS,
            "socket_state": layout.SOCKET_STATE_OCTETS, "last_key": layout.LAST_KEY_OCTETS,
            "listener_key": layout.LISTENER_KEY_OCTETS, "owner": layout.OWNER_OCTETS,
        }  # fmt: skip
        for name, size in sizes.items():
            structure = btf.structure(name)
            # The compiler leaves out what no map holds: the header asserts that size itself.
            assert structure is not None or name == "closed"
            assert structure is None or structure[0] == size, name
        connection = btf.structure("connection")
        assert connection is not None
        kind = next(one.offset for one in connection[1] if one.name == "kind")
        assert kind == records.KIND
        named = {
            "counter": [*layout.COUNTERS, "counters"], "trigger": [*layout.TRIGGERS, "triggers"],
            "stage": [f"stage_{name}" for name in layout.SUPPRESSED] + ["stages"],
            "retransmit_class": [f"class_{name}" for name in contract.RETRANSMIT_CLASSES],
            "histogram_number": [*contract.HISTOGRAMS, "dwell_us", "histograms"],
            "pid_source": [f"pid_{name}" for name in layout.PID_SOURCES],
            "role": [f"role_{name}" for name in layout.ROLES],
        }  # fmt: skip
        for enum, words in named.items():
            found_enum = btf.enum(enum)
            if found_enum:  # the compiler leaves out what no type of a variable names
                assert [name.lower() for name in found_enum.values()] == words, enum
    finally:
        lib.bpf_object__close(handle)


def test_enums_of_the_header_are_those_of_this_side() -> None:
    text = (ROOT / "bpf" / "observer.h").read_text("utf-8")

    def enum(name: str) -> list[str]:
        body = text[text.index(f"enum {name} {{") :]
        body = body[body.index("{") + 1 : body.index("}")]
        lines = [line.split("/*")[0] for line in body.splitlines()]
        return [
            word.strip().split(" ")[0].lower() for line in lines for word in line.split(",") if word.strip()
        ]

    assert enum("counter") == [*layout.COUNTERS, "counters"]
    assert enum("trigger") == [*layout.TRIGGERS, "triggers"]
    assert enum("stage") == [*(f"stage_{name}" for name in layout.SUPPRESSED), "stages"]
    assert enum("retransmit_class") == [f"class_{name}" for name in contract.RETRANSMIT_CLASSES]
    assert enum("histogram_number") == [*contract.HISTOGRAMS, "dwell_us", "histograms"]
    assert enum("pid_source") == [f"pid_{name}" for name in layout.PID_SOURCES]
    assert enum("role") == [f"role_{name}" for name in layout.ROLES]
    for name in ("PREFIXES", "TOP_FLOWS", "LAST_EVENTS", "RESET_REASONS", "COMM"):
        assert f"{name} = {getattr(layout, name)}," in text


def test_port_ranges_are_bits() -> None:
    bits = int.from_bytes(settings.ports([(80, 80), (8000, 8002), (65535, 65535)]), sys.byteorder)
    assert {port for port in range(65536) if bits >> port & 1} == {80, 8000, 8001, 8002, 65535}


def test_networks_are_mapped() -> None:
    octets = settings.networks([ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")])
    assert len(octets) == layout.PREFIXES * 32
    assert octets[:16] == bytes(10) + b"\xff\xff" + bytes((10, 1, 0, 0))
    assert octets[16:32] == b"\xff" * 14 + bytes(2)
    assert octets[32:36] == bytes.fromhex("20010db8")
    assert octets[48:64] == b"\xff" * 4 + bytes(12)


@pytest.mark.parametrize(
    ("filters", "limits", "sizes"),
    [
        (Filters(local_networks=[ip_network("10.0.0.0/8")] * 33), Limits(), Sizes()),
        (Filters(), Limits(top_flows=65), Sizes()),
        (Filters(), Limits(last=17), Sizes()),
        (Filters(), Limits(), Sizes(ring_bytes=100_000)),
        (Filters(), Limits(), Sizes(sub_bits=7)),
        (Filters(), Limits(), Sizes(sockets=0)),
        (Filters(interface="otus-not-there"), Limits(), Sizes()),
    ],
)
def test_what_there_is_no_room_for(filters: Filters, limits: Limits, sizes: Sizes) -> None:
    with pytest.raises(UsageError) as raised:
        LibbpfBackend(filters, Triggers(), limits, sizes)
    assert raised.value.hint


def test_reasons_have_the_names_of_this_kernel() -> None:
    reasons = Reasons(
        {1: "SKB_CONSUMED", 2: "SKB_DROP_REASON_NOT_SPECIFIED", 12: "SKB_DROP_REASON_NETFILTER_DROP",
         33: "SKB_DROP_REASON_TCP_OLD_DATA", 70: "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"},
        {1: "SK_RST_REASON_NO_SOCKET"},
    )  # fmt: skip
    assert [reasons.drop(number) for number in (12, 99, 3 << 16 | 5, 0xFFFF)] == [
        "NETFILTER_DROP", "REASON_99", "SUBSYSTEM_3_5", "UNKNOWN",
    ]  # fmt: skip
    assert reasons.benign()[0] == 1 << 1 | 1 << 2 | 1 << 33
    assert reasons.listen_overflow == 70
    assert (reasons.reset(1), reasons.reset(9)) == ("NO_SOCKET", "REASON_9")
    assert all(BENIGN.values())
    assert Reasons({}, {}).listen_overflow == 0


def test_symbols(tmp_path: Path) -> None:
    file = tmp_path / "kallsyms"
    file.write_text(
        "0000000000001000 T first\n0000000000002000 t second\t[module]\n0000000000001800 D data\n"
    )
    symbols = Symbols(str(file))
    assert [symbols.name(at) for at in (0x1010, 0x1900, 0x2FFF, 0x10)] == ["first", "first", "second", "?"]
    file.write_text("0000000000000000 T hidden\n")
    assert Symbols(str(file)).name(0x1000) == "?"
    assert Symbols(str(tmp_path / "nothing")).name(0x1000) == "?"


def test_many_symbols_take_little_memory(tmp_path: Path) -> None:
    """The first drop has them read: a kernel has more than 100,000."""
    file = tmp_path / "kallsyms"
    count = 50_000
    last = count - 100
    places = [*range(last), count - 1, *range(last + 50, count - 1), *range(last, last + 50)]
    file.write_text("".join(f"{0xFFFF0000 + at * 64:016x} t function_{at}\n" for at in places))
    tracemalloc.start()
    try:
        symbols = Symbols(str(file))
        names = {
            at: symbols.name(0xFFFF0000 + at * 64 + 5)
            for at in (0, 77, last, last + 50, count - 2, count - 1)
        }
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(name == f"function_{at}" for at, name in names.items()), names
    assert held < count * 40
    assert most < count * 60


def test_addresses() -> None:
    mapped = bytes(10) + b"\xff\xff" + socket.inet_aton("192.0.2.1")
    assert inet_diag.address(mapped) == "192.0.2.1"
    assert inet_diag.address(socket.inet_pton(socket.AF_INET6, "2001:db8::1")) == "2001:db8::1"
    assert records.tick_us() in (1000, 3333, 3334, 4000, 10000)


def test_the_kernel_arithmetic_of_a_bucket() -> None:
    """The kernel's arithmetic, written again in Python, against histogram.bucket()."""
    for sub_bits in range(2, 7):
        for value in [*range(2000), *(1 << bit for bit in range(64)), *((1 << bit) - 1 for bit in range(64))]:
            bucket, capped = value, value
            if value >> sub_bits:
                capped = min(value, (1 << 40) - 1)
                top = capped.bit_length() - 1 - sub_bits
                bucket = ((top + 1) << sub_bits) + (capped >> top) - (1 << sub_bits)
            assert bucket == histogram.bucket(value, sub_bits)
            assert bucket < histogram.bucket_count(sub_bits)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EPERM, NotPermittedError, "not permitted"),
        (errno.EACCES, NotPermittedError, "not permitted"),
        (errno.ENOSYS, OtusError, "no bpf system call"),
        (errno.ENOMEM, OtusError, "no memory"),
        (errno.EINVAL, OtusError, "R1 invalid"),
    ],
)
def test_errors_of_the_system_call(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[OtusError], words: str
) -> None:
    monkeypatch.setattr(loader, "capable", lambda: False)
    made = loader.failure(number, "R1 invalid")
    assert type(made) is error
    assert words in made.message
    assert "\n" not in made.message
    assert made.hint or number == errno.EINVAL


def test_nobody_is_told_to_give_capabilities_to_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it runs would have them."""
    monkeypatch.setattr(loader, "capable", lambda: False)
    monkeypatch.setattr(loader, "_kernel_version", lambda: (6, 1))
    hint = loader.failure(errno.EPERM, "").hint
    assert "setcap" not in hint
    assert "AmbientCapabilities" in hint


def test_lockdown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "lockdown", lambda: "confidentiality")
    assert "lockdown" in loader.failure(errno.EPERM, "").message


def test_a_refusal_in_spite_of_the_capabilities_is_no_matter_of_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "capable", lambda: True)
    made = loader.failure(errno.EPERM, "")
    assert "seccomp" in made.message
    assert "sudo" not in made.hint


def test_before_5_8_it_takes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_kernel_version", lambda: (5, 4))
    monkeypatch.setattr(loader, "capable", lambda: False)
    assert "CAP_SYS_ADMIN" in loader.failure(errno.EPERM, "").message


def test_the_verdict_is_the_last_word_of_the_verifier() -> None:
    log = [
        "libbpf: prog 'segment': BPF program load failed: Invalid argument",
        "libbpf: prog 'segment': -- BEGIN PROG LOAD LOG --",
        "0: (79) r9 = *(u64 *)(r1 +8)",
        "R2 max value is outside of the allowed memory range",
        "processed 91 insns (limit 1000000)",
        "-- END PROG LOAD LOG --",
    ]
    assert loader.verdict(log) == "R2 max value is outside of the allowed memory range"
    assert loader.verdict(["libbpf: no such thing"]) == "no such thing"
    assert loader.verdict([]) == "no reason given"


def test_no_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tcp.libbpf.btf.VMLINUX", "/nothing/vmlinux")
    with pytest.raises(OtusError, match="no BTF") as raised:
        LibbpfBackend(Filters(), Triggers(), Limits(), Sizes()).start()
    assert "netlink" in raised.value.hint


def test_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "OBJECT", "not_built.bpf.o")
    with pytest.raises(OtusError, match="left the eBPF objects out") as raised:
        LibbpfBackend(Filters(), Triggers(), Limits(), Sizes()).start()
    assert "clang" in raised.value.hint


def test_the_plan_loads_nothing() -> None:
    backend = LibbpfBackend(
        Filters(netns=4711, local_ports=[(80, 80)]), Triggers(rtt_above_us=200_000), Limits(last=4), Sizes()
    )
    plan = backend.plan()
    assert {one.name for one in plan.programs} == {one.name for one in PROGRAMS}
    assert all(one.on or one.why for one in plan.programs)
    assert all(one.octets > 0 and one.entries > 0 for one in plan.maps)
    assert "netns = 4711" in plan.source
    assert "rtt_above_us = 200000" in plan.source
    assert 'SEC("tp_btf/tcp_probe")' in plan.source
    assert '#include "' not in plan.source
    assert backend.event_fd() == -1
    assert backend.events() == backend.closed() == backend.connections() == backend.costs() == []
    backend.stop()


def test_map_memory_follows_the_sizes() -> None:
    def total(sizes: Sizes) -> int:
        return sum(maps.footprint(*one).octets for one in maps.planned(Filters(), Limits(), sizes))

    small, large = total(Sizes()), total(Sizes(sockets=65_536))
    assert 3_000_000 < small < 12_000_000
    assert large - small > 49_152 * 200


def test_a_connection_that_ends_while_it_is_looked_at_counts_once() -> None:
    throughput = Throughput(3)
    throughput.visited(1)
    throughput.look([], [], 1_000_000_000)
    row = contract.Connection(7, "ESTABLISHED", "", 1, "", 2, netns=1, bytes_acked=900, bytes_received=90)
    throughput.look([row], [contract.Closed(7, 1000, 100)], 2_000_000_000)
    throughput.look([], [], 3_000_000_000)
    assert (throughput.send_bytes, throughput.receive_bytes) == (1000, 100)


def test_events_of_looks_share_the_top_flows_of_the_programs() -> None:
    made = LibbpfBackend(Filters(), Triggers(), Limits(top_flows=2), Sizes())
    made._runtime = mmap.mmap(-1, ctypes.sizeof(layout.Runtime))

    def offer(cookie: int) -> int:
        place = contract.Connection(cookie, "LISTEN", "10.0.0.1", 80, "", 0)
        made.offer(contract.Event(1, "backlog_overflow", 1, None, place))
        return len(made._events)

    struct.pack_into("=QQ", made._runtime, layout.Runtime.top.offset, 77, 2)
    assert [offer(5), offer(6), offer(5)] == [1, 1, 2]
    # As many as that of the programs does not do; one more does.
    assert [offer(6), offer(6)] == [2, 3]
    assert made._stages.suppressed["flow"] == 2
    held = layout.Runtime.from_buffer_copy(made._runtime).top
    assert {(one.flow, one.triggers) for one in held[:2]} == {(5, 2), (6, 3)}
    made._runtime.close()


def test_records_of_the_kernel() -> None:
    one = records.Records(Reasons({}, {}), lambda _: "tcp_v4_rcv")
    head = layout.EVENT_HEAD.pack(5, 1, 0, 77, layout.TRIGGERS.index("rto"), 2, 0, 0)
    local = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))
    row = layout.CONNECTION.pack(
        local, local, 80, 4000, 2, 99, 1000, 7, 1, 55, (1 << 64) - 1, 10, 20, 300, 30, 10, 0x7FFFFFFF, 1, 2,
        3, 4, 5, 6, 1, 50, 70, 80, 290, 0, 0, 123, 1, 0, 1, 1, 1, b"curl",
    )  # fmt: skip
    event = one.event(head + row)
    found = event.connection
    assert (event.trigger, event.retransmit_class, event.rtt_sample_us) == ("rto", "rto", 290)
    assert (found.local, found.local_port, found.state) == ("10.0.0.1", 80, "ESTABLISHED")
    assert (found.pacing_bps, found.ssthresh) == (None, None)
    assert (found.pid, found.comm, found.pid_source, found.role) == (123, "curl", "connect", "client")
    assert found.rto_us == 50 * records.tick_us()
    drop = layout.EVENT_HEAD.pack(5, 1, 0, 77, layout.TRIGGERS.index("drop"), 0, 12, 0)
    assert (one.event(drop + row).drop_reason, one.event(drop + row).drop_function) == (
        "REASON_12",
        "tcp_v4_rcv",
    )
