"""The bcc backend without BCC and without a kernel that it could run on."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from engine import resources
from engine.errors import OtusError, UsageError
from engine.tcp import choose
from engine.tcp.backend import METRICS, Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend, library, source
from engine.tcp.bcc import headers as headers_of
from engine.tcp.bcc.types import OfHeaders
from engine.tcp.libbpf.programs import PROGRAMS
from engine.tcp.libbpf.reasons import Reasons
from engine.tcp.options import Options

ROOT = Path(__file__).parents[2]
TCP = """
/* TRACE_EVENT(tcp_probe, TP_PROTO(int a)) in a comment */
DECLARE_EVENT_CLASS(tcp_event_sk_skb,
    TP_PROTO(const struct sock *sk, const struct sk_buff *skb),
    TP_ARGS(sk, skb),
DEFINE_EVENT(tcp_event_sk_skb, tcp_retransmit_skb,
    TP_PROTO(const struct sock *sk, const struct sk_buff *skb),
    TP_ARGS(sk, skb)
);
TRACE_EVENT(tcp_probe,
    TP_PROTO(struct sock *sk, struct sk_buff *skb),
TRACE_EVENT(tcp_send_reset,
    TP_PROTO(const struct sock *sk, const struct sk_buff *skb__nullable,
         const enum sk_rst_reason reason),
"""
SKB = """
TRACE_EVENT(kfree_skb,

    TP_PROTO(struct sk_buff *skb, void *location,
             enum skb_drop_reason reason),
"""
REASONS = """
#define FN(reason) x
enum skb_drop_reason {
    /** @SKB_NOT_DROPPED_YET: with, commas */
    SKB_NOT_DROPPED_YET = 0,
    SKB_CONSUMED,
    SKB_DROP_REASON_NO_SOCKET, // here
    SKB_DROP_REASON_TCP_OLD_DATA = 0x10,
    SKB_DROP_REASON_MAX,
};
"""
CONNECTION = """
    __u8  icsk_ca_state:5,
          icsk_ca_initialized:1,
          icsk_ca_dst_locked:1;
    __u8 icsk_retransmits;
"""


@pytest.fixture
def kernel(tmp_path: Path) -> OfHeaders:
    """OfHeaders of a kernel between 5.17 and 6.11."""
    include = tmp_path / "include"
    for name, text in (
        ("trace/events/tcp.h", TCP), ("trace/events/skb.h", SKB), ("net/dropreason.h", REASONS),
        ("net/inet_connection_sock.h", CONNECTION), ("net/tcp.h", ""),
    ):  # fmt: skip
        (include / name).parent.mkdir(parents=True, exist_ok=True)
        (include / name).write_text(text)
    return OfHeaders(tmp_path)


def backend(**filters: object) -> BccBackend:
    return BccBackend(Filters(**filters), Triggers(), Limits(), Sizes())  # type: ignore[arg-type]


def test_headers_tell_the_arguments_of_tracepoints(kernel: OfHeaders) -> None:
    found = [
        kernel.arguments(name) for name in ("tcp_probe", "tcp_retransmit_skb", "tcp_send_reset", "kfree_skb")
    ]
    assert found == [2, 2, 3, 3]
    assert kernel.arguments("inet_sock_set_state") is None


def test_headers_tell_the_names_of_reasons(kernel: OfHeaders) -> None:
    names = kernel.enum("skb_drop_reason")
    assert names == {
        0: "SKB_NOT_DROPPED_YET", 1: "SKB_CONSUMED", 2: "SKB_DROP_REASON_NO_SOCKET",
        16: "SKB_DROP_REASON_TCP_OLD_DATA", 17: "SKB_DROP_REASON_MAX",
    }  # fmt: skip
    assert kernel.enum("sk_rst_reason") == {}
    assert Reasons(names, {}).benign()[0] >> 16 & 1


def test_the_bit_field_must_stand_where_it_is_read(kernel: OfHeaders) -> None:
    assert kernel.ca_state_bits() == 5
    other = kernel.folder / "include/net/inet_connection_sock.h"
    other.write_text(
        "__u8 icsk_ca_state:6, icsk_ca_setsockopt:1, icsk_ca_dst_locked:1;\n__u8 icsk_retransmits;"
    )
    headers_of._read.cache_clear()
    assert kernel.ca_state_bits() == 6
    other.write_text("__u8 icsk_ca_state;\n__u8 icsk_retransmits;")
    headers_of._read.cache_clear()
    assert kernel.ca_state_bits() is None


def test_programs_are_chosen_from_the_headers(kernel: OfHeaders) -> None:
    one = backend()
    one._choose(kernel)
    on = {program.name for program in one._choice.on}
    assert on == {"segment", "retransmit_2", "reset_sent_3", "drop_3"}
    off = one._describe()
    assert "transitions" in off
    assert "drop_reasons" not in off
    assert not {"cwnd", "throughput", "listen", "rtt"} & set(off)
    assert {key.partition(".")[0] for key in off} <= set(METRICS) | {"resets", "drops"}


def test_what_has_no_program_is_asked_of_the_kernels_counters(kernel: OfHeaders) -> None:
    (kernel.folder / "include/trace/events/tcp.h").write_text("")
    headers_of._read.cache_clear()
    one = backend()
    one._choose(kernel)
    off = one._describe()
    assert "retransmits" not in off
    assert "retransmits.events" in off


def test_without_headers_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    with pytest.raises(OtusError, match=re.escape(str(tmp_path))) as caught:
        backend().start()
    assert "linux-headers" in caught.value.hint
    backend().stop()


def test_headers_of_another_kernel_are_refused(monkeypatch: pytest.MonkeyPatch, kernel: OfHeaders) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(kernel.folder))
    assert OfHeaders.of_kernel().folder == kernel.folder
    release = kernel.folder / "include/generated/utsrelease.h"
    release.parent.mkdir()
    release.write_text('#define UTS_RELEASE "4.19.0-27-amd64"\n')
    headers_of._read.cache_clear()
    with pytest.raises(OtusError, match=r"4\.19\.0-27-amd64"):
        backend().start()


def test_auto_goes_on_to_netlink_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    monkeypatch.setattr(choose, "ORDER", ("bcc", "netlink"))
    chosen, reasons = choose.start(Options())
    chosen.stop()
    assert chosen.name == "netlink"
    assert len(reasons) == 1
    assert "headers" in reasons[0]


def imported(tmp_path: Path, files: dict[str, str], folders: tuple[str, ...]) -> str:
    """What library.load() says in a fresh interpreter whose path has these files."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    program = f"""
import sys
from engine.errors import OtusError
from engine.tcp.bcc import library
try:
    found = library.load({folders!r})
    assert library.load({folders!r}) is found
    print("loaded", found, sys.path.count({folders[-1] if folders else ""!r}))
except OtusError as error:
    print(error.message, "|", error.hint)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()


def test_bcc_of_pypi_is_told_from_bcc(tmp_path: Path) -> None:
    said = imported(tmp_path, {"site/bcc/__init__.py": "raise SystemExit('imported')"}, ())
    assert "PyPI is another project" in said
    assert "pip uninstall bcc" in said


def test_a_module_bcc_that_is_one_file_is_not_bcc(tmp_path: Path) -> None:
    assert "another project" in imported(tmp_path, {"site/bcc.py": "raise SystemExit('imported')"}, ())


def test_bcc_that_is_not_there(tmp_path: Path) -> None:
    assert "python3-bpfcc" in imported(tmp_path, {}, (str(tmp_path / "nothing"),))


def test_bcc_is_found_outside_of_the_environment_and_beside_its_namesake(tmp_path: Path) -> None:
    debian = tmp_path / "debian"
    files = {
        "site/bcc/__init__.py": "raise SystemExit('imported')",
        "debian/bcc/__init__.py": "from bcc.libbcc import BPF",
        "debian/bcc/libbcc.py": "BPF = 'BPF'",
    }
    assert imported(tmp_path, files, (str(debian),)) == "loaded BPF 0"


def test_bcc_whose_library_is_missing(tmp_path: Path) -> None:
    files = {
        "site/bcc/__init__.py": "from bcc.libbcc import BPF",
        "site/bcc/libbcc.py": "import ctypes; ctypes.CDLL('libnothing.so.0')",
    }
    assert "libbpfcc" in imported(tmp_path, files, ())


@pytest.mark.parametrize(
    "filters", [{"pids": [1]}, {"cgroup": 5}, {"local_ports": [(one, one) for one in range(1, 18)]}]
)
def test_what_the_programs_cannot_do_is_refused(filters: dict[str, object]) -> None:
    with pytest.raises((OtusError, UsageError), match=r"bcc|entries"):
        backend(**filters)


def test_a_record_that_cannot_be_taken_is_counted(capfd: pytest.CaptureFixture[str]) -> None:
    one, octets = backend(), ctypes.create_string_buffer(8)
    one._take(0, ctypes.addressof(octets), len(octets))
    assert one._failed == 1
    assert capfd.readouterr().err == ""


def test_a_plan_changes_nothing_of_what_runs() -> None:
    one = backend()
    one.plan()
    program = next((program for program in one._choice.on if program.name == "segment"), None)
    if program is None:
        pytest.skip("this kernel describes no types")
    one._choice.on.remove(program)
    one._choice.why["segment"] = "the kernel refuses segment"
    [row] = [row for row in one.plan().programs if row.name == "segment"]
    assert (row.on, row.why) == (False, "the kernel refuses segment")


def test_the_text_has_filters_and_no_name_is_left_open() -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("0.0.0.0/0")]
    one = BccBackend(
        Filters(local_ports=[(80, 80), (8000, 8100)], remote_networks=networks),
        Triggers(rtt_above_us=5000), Limits(), Sizes(),
    )  # fmt: skip
    text = one.plan().source
    assert "#define LOCAL_PORTS(port) ((port) == 80 || ((port) >= 8000 && (port) <= 8100))" in text
    assert "#define RTT_ABOVE_US 5000" in text
    assert "((address)[3] & 0xff) == 0xa" in text or sys.byteorder == "big"
    assert '#include "' not in text
    for name in ("NETNS", "BUCKETS", "MOST_SOCKETS", "CA_STATE_OCTET", "CA_STATE_MASK", "BENIGN_3"):
        assert len(re.findall(rf"#define {name}\b", text)) == 1


def test_every_program_of_the_table_is_in_the_source() -> None:
    text = source.programs()
    functions = set(re.findall(r"^int (\w+)\(struct bpf_raw_tracepoint_args \*ctx\)", text, re.MULTILINE))
    assert functions == {one.name for one in PROGRAMS} - {"sample", "io_send", "io_receive"}
    for newer in (
        "#pragma unroll",
        "for (",
        "while (",
        "bpf_probe_read_kernel",
        "ringbuf",
        "__noinline",
        "static const",
    ):
        assert newer not in text


def test_each_part_is_put_in_once_and_has_its_twin() -> None:
    folder = resources.data("bpf")
    parts = [path.name for path in folder.iterdir() if path.name.endswith(".bcc.h")]
    included = re.findall(r'^#include "(.+)"$', (folder / source.SOURCE).read_text("utf-8"), re.MULTILINE)
    assert sorted(included) == sorted([*parts, "highest_bit.h", "observer.h"])
    assert all((folder / name.replace(".bcc.h", ".h")).is_file() for name in parts)
    twin = re.findall(r'^#include "(.+)"$', (folder / "tcp_observer.bpf.c").read_text("utf-8"), re.MULTILINE)
    assert [name.replace(".bcc.h", ".h") for name in included] == [
        name for name in twin if name != "sample.h"
    ]
    text = source.programs()
    assert all((folder / name).read_text("utf-8").partition("#pragma once\n")[2] in text for name in parts)


def test_a_part_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / source.SOURCE).write_text('#include "state.bcc.h"\n')
    monkeypatch.setattr(resources, "data", lambda *parts: tmp_path.joinpath(*parts[1:]))
    with pytest.raises(OtusError, match=r"no state\.bcc\.h"):
        source.programs()


def test_names_that_bcc_does_not_know_are_stood_in_for() -> None:
    errors = [
        "bpf.h:368:10: error: invalid application of 'sizeof' to an incomplete type 'struct bpf_wq'",
        "include/linux/filter.h:260:23: error: use of undeclared identifier 'BPF_ADDR_SPACE_CAST'",
        "include/linux/bpf-cgroup.h:51:2: error: use of undeclared identifier 'BPF_CGROUP_UNIX_CONNECT'",
        "main.c:1:1: error: use of undeclared identifier 'nonsense'",
    ]
    found = source.stand_ins(errors, 1)
    assert len(found) == 3
    assert found[0] == "-Dbpf_wq=bpf_timer"
    assert len({one.partition("=")[2] for one in found}) == 3


def test_what_a_library_prints_is_caught() -> None:
    with library.said() as lines:
        os.write(2, b"first\nsecond\n")
    assert lines == ["first", "second"]


class Freed:
    """What BCC has made: interrupted while it is freed."""

    def __init__(self) -> None:
        self.raw_tracepoint_fds = {b"tcp_probe": 1}
        self.done: list[str] = []

    def detach_raw_tracepoint(self, hook: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        del self.raw_tracepoint_fds[hook]
        self.done.append("detached")

    def cleanup(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        self.done.append("freed")


def test_a_second_signal_does_not_leave_it_half_freed() -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    backend, freed = BccBackend(Filters(), Triggers(), Limits(), Sizes()), Freed()
    backend._module = freed
    before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            backend.stop()
        assert freed.done == ["detached"]
        with pytest.raises(KeyboardInterrupt):
            backend.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert freed.done == ["detached", "freed"]
    backend.stop()
    assert freed.done == ["detached", "freed"]
