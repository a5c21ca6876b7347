"""The addresses of an interface, as they are at the moment: RTM_GETADDR of rtnetlink(7)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from engine.errors import OtusError
from engine.tcp.inet_diag import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, messages

RTM_NEWADDR, RTM_GETADDR = 20, 22
IFA_ADDRESS, IFA_LOCAL = 1, 2
SIOCGIFINDEX = 0x8933
_BUFFER = 1 << 16
_SECONDS = 5.0
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=4BI")
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST = struct.Struct("=16si20x")
"""struct ifreq with ifr_ifindex."""
LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Addresses:
    """Those of one interface, by its name, in the namespace that the caller is in; ends with close()."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as error:
            raise OtusError(f"rtnetlink: {error.strerror}") from error
        self._socket.settimeout(_SECONDS)
        self._socket.bind((0, 0))

    def read(self) -> set[str]:
        """In print, IPv4 and IPv6; none while there is no such interface. OtusError where the kernel does not
        answer."""
        index = self._index()
        found: set[str] = set()
        if not index:
            return found
        try:
            self._sequence += 1
            size, flags = _HEADER.size + _MESSAGE.size, NLM_F_REQUEST | NLM_F_DUMP
            header = _HEADER.pack(size, RTM_GETADDR, flags, self._sequence, 0)
            self._socket.send(header + bytes(_MESSAGE.size))
            while not self._take(self._socket.recv(_BUFFER), index, found):
                pass
        except OSError as error:
            raise OtusError(f"rtnetlink: {error.strerror or error}") from error
        return found

    def _index(self) -> int:
        """A name may come back with another number."""
        request = _REQUEST.pack(self.interface.encode()[:15], 0)
        try:
            number: int = _REQUEST.unpack(fcntl.ioctl(self._socket, SIOCGIFINDEX, request))[1]
        except OSError:
            return 0
        return number

    def _take(self, data: bytes, index: int, found: set[str]) -> bool:
        """Whether these were the last ones."""
        for kind, sequence, payload in messages(data):
            if sequence != self._sequence:
                continue
            if kind == NLMSG_DONE:
                return True
            if kind == NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else errno.EIO
                raise OSError(number, os.strerror(number))
            if kind == RTM_NEWADDR and (one := parse(payload, index)):
                found.add(one)
        return False

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._socket.close()


def parse(payload: bytes, index: int) -> str:
    """The address in a struct ifaddrmsg with its attributes; empty where it is another interface's."""
    if len(payload) < _MESSAGE.size:
        return ""
    family, _, _, _, interface = _MESSAGE.unpack_from(payload)
    if interface != index or family not in LENGTHS:
        return ""
    values = {}
    offset = _MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size or offset + length > len(payload):
            break
        values[kind] = payload[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    # Of a point-to-point link IFA_ADDRESS is the peer's.
    octets = values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b""))
    return socket.inet_ntop(family, octets) if len(octets) == LENGTHS[family] else ""
