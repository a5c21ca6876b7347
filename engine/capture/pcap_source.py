"""Where the octets of a capture file come from: a file, a descriptor, a pipe; gzip or plain."""

from __future__ import annotations

import os
import select
import stat
import zlib

from engine.errors import NotPermittedError, OtusError, UsageError

COMPRESSED_CHUNK = 256 << 10
GZIP_MAGIC = b"\x1f\x8b"
HINT = "give a pcap or pcapng file (plain or gzip), or - for standard input"
_KNOWN = {
    b"\x28\xb5\x2f\xfd": ("a zstd file", "decompress it first: zstd -d {}"),
    b"\xfd7zXZ\0": ("an xz file", "decompress it first: xz -d {}"),
    b"BZh": ("a bzip2 file", "decompress it first: bzip2 -d {}"),
    b"\x04\x22\x4d\x18": ("an lz4 file", "decompress it first: lz4 -d {}"),
    b"PK\x03\x04": ("a zip archive", "unpack it first: unzip {}"),
    b"snoop\0\0\0": ("a Solaris snoop file", "convert it first: editcap {} out.pcapng"),
    b"GMBU": ("a Microsoft Network Monitor file", "convert it first: editcap {} out.pcapng"),
    b"\x7fELF": ("a program", HINT),
}


class PcapSource:
    """A stream of octets: `readinto()`, and for a progress bar `octets_read` of `size`.

    `octets_read` and `size` count what stands on disk (compressed, where it is); `size` is None for
    a pipe. `damage` says what is wrong with a gzip stream that ended early, else empty.
    """

    def __init__(self, path_or_fd: str | os.PathLike[str] | int) -> None:
        """Open it; `-` is standard input, a descriptor stays its owner's. OtusError with what is wrong."""
        self.owned = False
        if isinstance(path_or_fd, int):
            self.name, self.fd = f"descriptor {path_or_fd}", path_or_fd
        elif os.fspath(path_or_fd) == "-":
            self.name, self.fd = "standard input", 0
        else:
            self.name = os.fspath(path_or_fd)
            self.fd = _open(self.name)
            self.owned = True
        try:
            status = os.fstat(self.fd)
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}", HINT) from error
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise UsageError(f"{self.name}: is a directory", HINT)
        self.regular = stat.S_ISREG(status.st_mode)
        self.size: int | None = status.st_size if self.regular else None
        self.octets_read = 0
        self.damage = ""
        self.ended = False
        self.inflate: zlib._Decompress | None = None
        self.pending = self._first()
        self.gzip = self.pending.startswith(GZIP_MAGIC)
        if self.gzip:
            self.inflate = zlib.decompressobj(wbits=31)

    def readinto(self, room: memoryview) -> int:
        """Read at least one octet into `room`; 0 at the end. Waits for a pipe."""
        if self.gzip:
            return self._inflate_into(room)
        if self.pending:
            count = min(len(room), len(self.pending))
            room[:count] = self.pending[:count]
            self.pending = self.pending[count:]
            return count
        if self.ended:
            return 0
        count = self._read(room)
        self.ended = count == 0
        return count

    def ready(self, seconds: float) -> bool:
        """Whether readinto() would not wait; for a pipe, waits up to `seconds` for it to be so."""
        if self.regular or self.ended or self.pending or (self.inflate and self.inflate.unconsumed_tail):
            return True
        return self._wait(seconds)

    def close(self) -> None:
        """Close what was opened here."""
        if self.owned:
            self.owned = False
            os.close(self.fd)

    def _first(self) -> bytes:
        """The first octets, enough to tell gzip."""
        pending = b""
        room = bytearray(4096)
        while len(pending) < len(GZIP_MAGIC):
            count = self._read(memoryview(room))
            if count == 0:
                self.ended = True
                break
            pending += room[:count]
        return pending

    def _wait(self, seconds: float | None) -> bool:
        """Whether a read() would not wait, after at most `seconds` (None: for ever)."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _read(self, room: memoryview) -> int:
        """One read() from the descriptor, whether or not that blocks."""
        while True:
            try:
                count = os.readv(self.fd, [room])
            except BlockingIOError:
                self._wait(None)
                continue
            except OSError as error:
                raise OtusError(f"{self.name}: cannot be read: {error.strerror}") from error
            self.octets_read += count
            return count

    def _inflate_into(self, room: memoryview) -> int:
        """Decompress into `room`; several members follow each other (RFC 1952 section 2.2)."""
        while self.inflate is not None:
            if self.inflate.eof:
                self._next_member(self.inflate.unused_data)
                continue
            octets = self.pending or self.inflate.unconsumed_tail
            self.pending = b""
            if not octets and not self.ended:
                chunk = bytearray(COMPRESSED_CHUNK)
                count = self._read(memoryview(chunk))
                self.ended = count == 0
                octets = bytes(chunk[:count])
            before = self.inflate.copy()
            try:
                plain = self.inflate.decompress(octets, len(room))
            except zlib.error as error:
                self.damage = f"the gzip stream is damaged near octet {self.octets_read}: {error}"
                self.inflate = None
                plain = salvage(before, octets, len(room))
            if plain:
                room[: len(plain)] = plain
                return len(plain)
            if self.inflate and self.ended and not self.inflate.eof and not octets:
                self.damage = f"the gzip stream is cut at octet {self.octets_read}"
                self.inflate = None
        return 0

    def _next_member(self, octets: bytes) -> None:
        """Go on with what follows a finished gzip member: another one, or padding, which is left out."""
        while len(octets) < len(GZIP_MAGIC) and not self.ended:
            chunk = bytearray(COMPRESSED_CHUNK)
            count = self._read(memoryview(chunk))
            self.ended = count == 0
            octets += bytes(chunk[:count])
        self.pending = octets
        self.inflate = zlib.decompressobj(wbits=31) if octets.startswith(GZIP_MAGIC) else None
        if self.inflate is None:
            self.ended = True


def salvage(inflate: zlib._Decompress, octets: bytes, most: int) -> bytes:
    """What `octets` give before the place where they are damaged, up to `most`."""
    plain = bytearray()
    for position in range(0, len(octets), 16):
        try:
            plain += inflate.decompress(octets[position : position + 16], most - len(plain))
        except zlib.error:
            break
        if len(plain) >= most:
            break
    return bytes(plain)


def _open(path: str) -> int:
    """Open a file for reading, with an error that helps."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if not path:
            raise UsageError("no file is named: its name is empty", HINT) from error
        if os.path.islink(path):
            raise UsageError(f"{path}: leads to {os.readlink(path)}, which is not there", HINT) from error
        raise UsageError(f"{path}: no such file", _nearest(path)) from error
    except PermissionError as error:
        raise NotPermittedError(
            f"{path}: permission denied", f"make it readable: sudo chmod o+r {path}"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', error)}", HINT) from error


def _nearest(path: str) -> str:
    """Names in the same folder that are much like the one that is not there."""
    import difflib  # only a mistake needs it

    folder, wanted = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return f"no such folder: {folder}"
    close = difflib.get_close_matches(wanted, names, 3, 0.6)
    return f"did you mean {', '.join(os.path.join(folder, name) for name in close)}?" if close else HINT


def not_a_capture(name: str, first: bytes) -> UsageError:
    """The error for a file that begins with something else."""
    if not first:
        return UsageError(f"{name}: is empty", HINT)
    for magic, (what, hint) in _KNOWN.items():
        if first.startswith(magic):
            return UsageError(f"{name}: is {what}, not a capture", hint.format(name))
    shown = " ".join(f"{octet:02x}" for octet in first[:8])
    text = first[:16].decode("ascii", "replace")
    if len(first) >= 4 and text.isprintable():
        shown += f' ("{text}")'
    return UsageError(
        f"{name}: is not a capture: it begins with {shown}",
        "a pcap file begins with a1 b2 c3 d4 or d4 c3 b2 a1, a pcapng file with 0a 0d 0d 0a",
    )
