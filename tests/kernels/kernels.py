"""Debian's kernels for a test: fetched as packages, unpacked, booted by virtme-ng without KVM.

Nothing is installed into the system: package lists, packages and virtme-ng stand in a folder of their own.
The guest's root is that of this host (9p), so the checkout and its .venv are there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("OTUS_KERNELS", Path.home() / ".cache/otus-kernels"))
"""About 1.1 GB for three kernels with their headers."""
NEEDS = {"qemu-system-x86_64": "qemu-system-x86", "depmod": "kmod", "dpkg-deb": "dpkg"}
"""Command -> Debian package."""
BOOT_SECONDS = 4800
"""Of one guest with all backends."""


@dataclass(frozen=True)
class Release:
    """One line of kernels in Debian."""

    series: str
    """5.10"""
    suites: tuple[str, ...]
    """Where its packages are, of the mirrors that this system uses."""


RELEASES = (
    Release("5.10", ("bullseye", "bullseye-security")),
    Release("6.1", ("bookworm", "bookworm-security")),
    Release("6.12", ("bookworm-backports",)),
)


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 600) -> str:
    """The standard output of a command; SystemExit with its last words where it fails."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        sys.exit(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def apt(*words: str, cwd: Path | None = None) -> str:
    """apt with lists of its own."""
    options = {
        "Dir::Etc::sourcelist": CACHE / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": CACHE / "lists",
        "Dir::Cache": CACHE / "cache",
        "APT::Sandbox::User": "root",
    }
    return run(words[0], *(f"-o{name}={value}" for name, value in options.items()), *words[1:], cwd=cwd)


def read_lists() -> None:
    """Package lists of every suite that RELEASES names, from the mirrors of this system."""
    mirrors = sorted(set(run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)").split("\n")))
    found = {suite: uri for uri, _, suite in (line.partition(" ") for line in mirrors)}
    main = next((uri for suite, uri in found.items() if suite == "bookworm"), "")
    security = next((uri for suite, uri in found.items() if suite == "bookworm-security"), main)
    if not main:
        sys.exit("this is no Debian 12 with package lists (apt-get update): no kernels to test with")
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
    lines = [
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        f"{security if suite.endswith('-security') else main} {suite} main"
        for release in RELEASES
        for suite in release.suites
    ]
    (CACHE / "sources.list").write_text("\n".join(lines) + "\n")
    apt("apt-get", "update", "-qq")


def newest(release: Release) -> str:
    """The newest version of a line that has an image and headers: 6.1.0-50."""
    names = apt("apt-cache", "search", "--names-only", rf"^linux-headers-{re.escape(release.series)}\.")
    versions = re.findall(r"^linux-headers-(\S+)-amd64 ", names, re.MULTILINE)
    own = [one for one in versions if "cloud" not in one and "rt" not in one and "deb11" not in one]
    if not own:
        sys.exit(f"no kernel {release.series} in Debian's lists")
    return str(max(own, key=lambda one: [int(word) for word in re.findall(r"\d+", one)]))


def unpack(release: Release) -> tuple[str, Path]:
    """(version, folder) of a kernel with modules and headers, fetched where it is not there yet."""
    version = newest(release)
    root = CACHE / "root" / version
    if (root / "complete").exists():
        return version, root
    kbuild = re.sub(r"^(\d+\.\d+)\.0-.*", r"\1", version)
    wanted = [
        f"linux-headers-{version}-amd64", f"linux-headers-{version}-common", f"linux-kbuild-{kbuild}",
    ]  # fmt: skip
    present = apt("apt-cache", "search", "--names-only", rf"^linux-image-{re.escape(version)}-amd64")
    image = f"linux-image-{version}-amd64"
    # A signed image may depend on an unsigned one of which only the newest is kept, or the other way round.
    wanted.append(
        image if re.search(rf"^{re.escape(image)} ", present, re.MULTILINE) else f"{image}-unsigned"
    )
    root.mkdir(parents=True, exist_ok=True)
    for package in wanted:
        archive = fetch(package, version)
        run("dpkg-deb", "-x", archive, root)
    run("depmod", "-b", root, f"{version}-amd64")
    (root / "complete").touch()
    return version, root


def fetch(package: str, version: str) -> Path:
    """A package of the same source version as the kernel, in the cache."""
    table = apt("apt-cache", "madison", package)
    versions = [line.split("|")[1].strip() for line in table.splitlines() if "Sources" not in line]
    if not versions:
        sys.exit(f"{package}: not in Debian's lists")
    reference = apt("apt-cache", "madison", f"linux-headers-{version}-amd64")
    source = reference.split("|")[1].strip()
    chosen = source if source in versions else versions[0]
    folder = CACHE / "debs"
    apt("apt-get", "download", "-qq", f"{package}={chosen}", cwd=folder)
    return next(folder.glob(f"{package}_*.deb"))


def for_bcc(root: Path, headers: bool) -> str:
    """Shell commands for a guest: BCC's libraries in memory, and headers where BCC looks for them.

    BCC looks in /lib/modules/VERSION/build, a link to /usr/src. A compiler that maps its 200 MB and opens its
    thousand headers over 9p had not ended after six minutes. The host's folders are not touched.
    """
    libraries = " ".join(
        f"/usr/lib/*-linux-gnu/lib{name}" for name in ("LLVM-*.so.1", "clang-cpp.so.*", "bcc.so.0", "z3.so.4")
    )
    commands = f"mkdir -p /run/bcc; cp -L {libraries} /run/bcc/; export LD_LIBRARY_PATH=/run/bcc; "
    if not headers:
        return commands
    archive = root / "headers.tar"
    if not archive.exists():
        sources = root / "usr/src"
        parts = [
            str(part.relative_to(sources))
            for folder in sorted(sources.glob("linux-headers-*"))
            for part in (folder / "include", folder / "arch/x86/include")
        ]
        run("tar", "-C", sources, "-cf", archive.with_suffix(".part"), *parts)
        archive.with_suffix(".part").rename(archive)
    return f"{commands}mount -t tmpfs none /usr/src; tar -C /usr/src -xf {shlex.quote(str(archive))}; "


def virtme() -> Path:
    """The command vng, in an environment of its own."""
    command = CACHE / "virtme" / "bin" / "vng"
    if not command.exists():
        run(sys.executable, "-m", "venv", CACHE / "virtme")
        run(CACHE / "virtme/bin/pip", "install", "-q", "virtme-ng")
    return command


def boot(root: Path, version: str, command: str) -> str:
    """What a command prints in a guest with this kernel; the kernel's own lines may stand between.

    It stands in VERSION.log of the cache while the guest runs. The guest writes to overlays in its memory:
    nothing that it does is left on the host.
    """
    environment = {**os.environ, "PATH": f"{virtme().parent}:/usr/sbin:/sbin:{os.environ['PATH']}"}
    image = root / "boot" / f"vmlinuz-{version}-amd64"
    options = ["--disable-kvm", "--disable-microvm", "--memory", "2G", "--cpus", "2", "--verbose"]
    log = CACHE / f"{version}.log"
    with open(log, "wb") as file, subprocess.Popen(
        [str(virtme()), *options, "-r", str(image), "--", command],
        env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as guest:  # fmt: skip
        try:
            guest.wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{version}: no end after {BOOT_SECONDS} s; {log}", file=sys.stderr)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guest.pid, signal.SIGKILL)
    return log.read_text("utf-8", "replace")


def missing() -> list[str]:
    """Debian packages that are needed and not there."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [
        package
        for name, package in NEEDS.items()
        if not any(os.access(Path(folder) / name, os.X_OK) for folder in path.split(":"))
    ]
