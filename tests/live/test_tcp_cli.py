"""What `otus-tui tcp` prints, and what it answers to bad input, missing rights and readers that leave."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builds import ROOT
from tests.live.tcp_command import HERE, THERE, Hosts, finish, start, until, written


def test_prometheus_text_is_well_formed(hosts: Hosts, backend: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    path = tmp_path / "otus.prom"
    hosts.listen(hosts.b, THERE, 7000)
    hosts.connect(hosts.a, THERE, 7000)
    words = ("--backend", backend, "--format", "prometheus", "--output", str(path), "--duration", "1.5")
    process = start(hosts, *words)
    finish(process)
    text = path.read_text()
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert not check.stderr.strip(), check.stderr
    for name in ("otus_tcp_rtt_seconds_bucket", "otus_tcp_metric_available", "otus_tcp_send_bytes_total"):
        assert name in text
    assert HERE not in text
    assert THERE not in text
    buckets = [line for line in text.splitlines() if line.startswith("otus_tcp_rtt_seconds_bucket")]
    assert len(buckets) <= 20


def test_masks_hide_consistently(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    ends = [hosts.connect(hosts.a, THERE, 7000) for _ in range(3)]
    peers = [hosts.accept(server) for _ in ends]
    words = ("--backend", backend, "--mode", "detail", "--rtt-above", "1us", "--mask", "all")
    process = start(hosts, *words, "--interval", "0.3")
    ports = re.compile(r'"src_port": ?"?([^",]+)')

    def of_all_three(text: str) -> bool:
        for peer in peers:
            peer.sendall(b"r" * 100)
        time.sleep(0.1)
        return len(set(ports.findall(text))) >= 3

    until(process, of_all_three)
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    events = [line for line in lines if line["event_type"] == "tcp"]
    assert len({one["dest_ip"] for one in events}) == 1
    assert len({one["dest_port"] for one in events}) == 1
    assert len({one["src_port"] for one in events}) == 3
    assert all(word not in json.dumps(events) for word in (HERE, THERE, ":7000"))
    assert all(one[name].startswith("port-") for one in events for name in ("src_port", "dest_port"))


def test_text_fits_a_terminal(hosts: Hosts, backend: str) -> None:
    hosts.listen(hosts.b, THERE, 7000)
    hosts.connect(hosts.a, THERE, 7000)
    process = start(hosts, "--backend", backend, "--mode", "both", "--duration", "1.2", "--rtt-above", "1us")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    out = written(process)
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "RTT" in out
    assert "whole run" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--interval", "0"], 2, "--interval 0"),
        (["--duration", "2d"], 2, "--duration 2d"),
        (["--lport", "htp"], 2, "--lport htp"),
        (["--raddr", "10.0.0.0/40"], 2, "--raddr"),
        (["--pid", "999999999"], 2, "there is no process"),
        (["--netns", "nosuch"], 2, "no network namespace"),
        (["--output", "/no/such/file"], 2, "--output /no/such/file"),
        (["--output", "/"], 2, "is a directory"),
        (["--mode", "both", "--output", "/tmp/x", "--events", "/tmp/x"], 2, "same file"),
        (["--backend", "netlink", "--no-such"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_line_and_a_code(words: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "otus_tui", "tcp", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=20)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def as_nobody(*words: str, capabilities: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if capabilities:
        drop += ["--inh-caps", capabilities, "--ambient-caps", capabilities]
    command = [*drop, sys.executable, "-m", "otus_tui", "tcp", *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30, env=environment
    )


def test_without_root() -> None:
    netlink = as_nobody("--backend", "netlink", "--duration", "0.3", "--format", "jsonl")
    if "Permission denied" in netlink.stderr or "No module" in netlink.stderr:
        pytest.skip("another user may not read this checkout")
    assert netlink.returncode == 0, netlink.stderr
    assert json.loads(netlink.stdout.splitlines()[-1])["final"]
    plan = as_nobody("--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "nothing is loaded" in plan.stdout
    entered = as_nobody("--backend", "netlink", "--netns", "1", "--duration", "0.3")
    assert entered.returncode == 3
    assert "sudo" in entered.stderr


def test_what_another_user_may_not_see_is_said() -> None:
    refused = as_nobody("--backend", "netlink", "--pid", "1", "--duration", "0.3")
    assert refused.returncode == 3
    assert "CAP_SYS_PTRACE" in refused.stderr


def test_a_reader_that_leaves_and_a_disk_that_is_full() -> None:
    command = f"{sys.executable} -m otus_tui tcp --backend netlink --interval 0.1 --duration 1"
    piped = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=20,
    )  # fmt: skip
    assert (piped.returncode, piped.stderr, piped.stdout.count("\n")) == (0, "", 1)
    full = subprocess.run(
        [*command.split(), "--output", "/dev/full"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=20,
    )
    assert full.returncode == 1
    assert "/dev/full: No space left on device" in full.stderr


def test_without_root_the_programs_are_refused() -> None:
    if not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    refused = as_nobody("--duration", "0.3")
    assert refused.returncode == 3
    assert "--backend netlink" in refused.stderr


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--max-cpu", "50%"), 3), (("--stats",), 3)])
def test_with_three_capabilities_all_but_the_cost_is_seen(words: tuple[str, ...], code: int) -> None:
    """What docs/tcp.md says of CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN."""
    if not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    common = ("--backend", "libbpf", "--duration", "0.3", "--format", "jsonl")
    done = as_nobody(*common, *words, capabilities="+bpf,+perfmon,+net_admin")
    if "Permission denied" in done.stderr or "No module" in done.stderr:
        pytest.skip("another user may not read this checkout")
    assert done.returncode == code, done.stderr
    assert ("CAP_SYS_ADMIN" in done.stderr) is (code == 3)


def test_importing_the_verb_imports_no_screen() -> None:
    code = "import otus_tui.cli.tcp, sys; print([m for m in sys.modules if m in ('textual', 'rich')])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == "[]\n"
