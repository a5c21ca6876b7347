"""doctor: what it says is true of this process, and it says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import bpf_probe, doctor, resources
from engine.doctor import Finding
from tests.builds import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCTOR = "from otus_tui.cli.doctor import command; command()"


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def run(*prefix: str, arguments: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> str:
    """Run the verb in a process of its own and return what it prints."""
    ran = subprocess.run(
        [*prefix, sys.executable, "-c", DOCTOR, *arguments],
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def levels(document: str) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(document)["findings"]}


def test_every_fault_names_what_mends_it() -> None:
    findings = doctor.examine()
    names = [finding.name for finding in findings]
    assert len(set(names)) == len(names)
    assert {"kernel", "capture", "compiled", "libpcap", "libbpf", "terminal", "locale"} <= set(names)
    # Nothing of the program needs it: nobody is told to install it.
    assert "tshark" not in names
    for finding in findings:
        assert finding.level in ("ok", "warn", "missing")
        assert "\n" not in finding.text + finding.mend
        assert not (finding.level == "ok" and finding.mend)


def test_json_and_lines_say_the_same() -> None:
    found = levels(run(arguments=("--json",)))
    lines = run()
    for name, finding in found.items():
        assert f"{finding['level']:7} {name:17} " in lines


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give capabilities up")
def test_without_capabilities_live_capture_is_missing() -> None:
    bare = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    found = levels(run(*bare, arguments=("--json",)))
    assert found["capture"]["level"] == "missing"
    assert "CAP_NET_RAW" in found["capture"]["text"]
    assert found["capture"]["mend"].startswith("sudo ")
    assert "net_raw" in found["capabilities"]["text"]
    if "ebpf" in found and resources.data("bpf", "probe.bpf.o").is_file():
        assert "not permitted" in found["ebpf"]["text"]
    if "segment" in found:
        # The kernel has what it takes, and this process may not use it.
        assert found["segment"]["level"] == "warn"
        assert found["segment"]["text"].startswith("off: loading eBPF programs is not permitted")
        assert "zero_window_sent" in found["segment"]["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to keep one capability")
def test_without_net_admin_capture_works_less_well() -> None:
    keep = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_raw")
    assert levels(run(*keep, arguments=("--json",)))["capture"]["level"] == "warn"


def test_uncompiled_is_said() -> None:
    found = levels(run(arguments=("--json",), env={"OTUS_PURE": "1"}))
    assert found["compiled"]["level"] == "warn"
    assert found["compiled"]["mend"] == "unset OTUS_PURE"


@pytest.mark.parametrize("term", ["dumb", ""])
def test_terminal_without_screens(term: str) -> None:
    found = levels(run(arguments=("--json",), env={"TERM": term}))
    assert found["terminal"]["level"] == "warn"


def test_a_plain_locale_is_said() -> None:
    found = levels(
        run(arguments=("--json",), env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    )
    assert found["locale"]["level"] == "warn"
    assert found["locale"]["mend"] == "export LC_ALL=C.UTF-8"


def test_a_broken_examination_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken() -> list[Finding]:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(doctor, "_EXAMINATIONS", (_broken, doctor._python))
    findings = by_name(doctor.examine())
    assert "no /proc here" in findings["broken"].text
    assert findings["python"].level == "ok"


def test_capabilities_are_those_of_the_kernel() -> None:
    status = Path("/proc/self/status").read_text()
    mask = int(status.split("CapEff:")[1].split()[0], 16)
    assert ("net_raw" in doctor.capabilities()) is bool(mask & 1 << 13)


@pytest.mark.skipif(bpf_probe.library() is None, reason="needs libbpf.so.1 (Debian package libbpf1)")
@pytest.mark.parametrize("octets", [b"", b"\x7fELF", bytes(range(64))])
def test_what_is_no_object_does_not_load(octets: bytes) -> None:
    result = bpf_probe.attempt(octets)
    assert (result["loaded"], result["step"]) == (False, "open")
    assert result["errno"]


@pytest.mark.skipif(
    os.geteuid() != 0 or bpf_probe.library() is None or not os.path.exists("/sys/kernel/btf/vmlinux"),
    reason="needs root, libbpf and the kernel's BTF",
)
def test_probe_loads_and_leaves_nothing_open() -> None:
    probe = resources.data("bpf", "probe.bpf.o")
    if not probe.is_file():
        pytest.skip("this build left the eBPF objects out")
    before = os.listdir("/proc/self/fd")
    result = bpf_probe.attempt(probe.read_bytes())
    if result["errno"] == "EPERM":
        pytest.skip("root may not load eBPF here")
    assert (result["loaded"], result["step"]) == (True, "done")
    assert os.listdir("/proc/self/fd") == before
