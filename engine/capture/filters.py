"""Capture filters: tcpdump expressions and the structured keys, compiled to classic BPF programs.

Programs are lists of (code, jt, jf, k) as SO_ATTACH_FILTER takes them. libpcap compiles in a child
process; what live packets and fragments need is put around its program (`engine.capture.cbpf`).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import subprocess
import sys
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.capture import cbpf
from engine.capture.cbpf import ETHERNET, MIXED
from engine.capture.filter_rules import Rules, RulesFilter
from engine.errors import OtusError, UsageError

if TYPE_CHECKING:
    from engine.capture.cbpf import Program

MOST_OCTETS = 4096
SNAPLEN = 262144
CHILD = Path(__file__).with_name("filter_child.py")
LINK_TO_DLT = {100: 11, 101: 12}
"""Where the number in a file (LINKTYPE_) is not libpcap's own (DLT_)."""
FRAGMENTS = " or (ip[6:2] & 0x3fff != 0) or (ip6[6] == 44)"
"""For link types whose fragments engine.capture.cbpf does not find: all pass there, too."""
STRUCTURED_HINT = "use the filter keys src_ip, dst_ip, ports, port_range and protocol"

KEYWORDS = frozenset(
    """
    dst src host net mask port portrange proto protochain link ether fddi tr wlan ppp slip
    ip ip6 arp rarp tcp udp icmp icmp6 igmp igrp pim sctp vrrp carp ah esp radio
    gateway broadcast multicast less greater byte len length inbound outbound ifindex on ifname
    and or not vlan mpls pppoed pppoes geneve vxlan type subtype dir direction
    addr1 addr2 addr3 addr4 address1 address2 address3 address4 ra ta
    mgt ctl data assoc-req assoc-resp beacon auth deauth
    lat moprc mopdl decnet aarp atalk stp ipx netbeui iso clnp esis es-is isis is-is llc
    icmptype icmpcode icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo
    icmp-routeradvert icmp-routersolicit icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply
    icmp-ireq icmp-ireqreply icmp-maskreq icmp-maskreply icmp6type icmp6code icmp6-echo icmp6-echoreply
    icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded icmp6-parameterproblem
    tcpflags tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr
    """.split()  # noqa: SIM905 -- a list of literals would be four pages
)
RESOLVING = frozenset({"gateway"})
SERVICES = {
    "sip": 5060, "sips": 5061, "sip-tls": 5061, "http": 80, "https": 443, "domain": 53, "dns": 53, "ssh": 22,
    "stun": 3478, "turn": 3478, "hep": 9060, "ntp": 123, "snmp": 161, "syslog": 514, "h323": 1720,
    "mgcp": 2427,
}  # fmt: skip
"""Only for hints: a filter takes numbers."""
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<long>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7})"
    r"|(?P<number>[0-9][0-9A-Za-z.]*)"
    r"|(?P<word>\\?[A-Za-z_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?)"
    r"|(?P<operator>&&|\|\||!=|<=|>=|==|<<|>>|[-()\[\]!&|<>=+*/%^:,])"
)
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+(\.[0-9]+){0,3}")
_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{1,2}){5}")


class Token(NamedTuple):
    """One word, number or operator of an expression."""

    text: str
    start: int
    end: int


def compile_filter(
    expression: str,
    link_type: int = MIXED,
    time_limit: float = 2.0,
    *,
    widen: bool = True,
    snaplen: int = SNAPLEN,
) -> Program:
    """Compile a tcpdump expression through libpcap, in a child process.

    Widened by default: fragments pass whatever they hold; in-band VLAN tags (up to two) are always looked
    through, unless the expression tests them itself (files only). UsageError with libpcap's message
    and the place; also for names, which libpcap would resolve through DNS, for an empty
    expression, and where libpcap is missing.
    """
    tokens = check_expression(expression, link_type)
    tagged = any(token.text == "vlan" for token in tokens)
    dlts = [1, 12] if link_type == MIXED else [LINK_TO_DLT.get(link_type, link_type)]
    if widen and not cbpf.finds_ip(link_type):
        expression += FRAGMENTS
    results = _run_child(expression, tokens, dlts, time_limit)
    program = _as_program(results[0])
    network = None
    if link_type == MIXED:
        # What asks for Ethernet addresses does not compile here: then no packet without them matches.
        network = _as_program(results[1]) if "program" in results[1] else None
    threshold = cbpf.COOKED.get(link_type, (12, 14))[0]
    body = cbpf.Relocated(program, network, threshold, snaplen)
    return _bounded(cbpf.frame(body, link_type, widen=widen, tags=not tagged, snaplen=snaplen))


def structured_filter(
    rules: dict[str, Any], link_type: int = MIXED, *, widen: bool = True, snaplen: int = SNAPLEN
) -> Program:
    """Compile the keys `src_ip`, `dst_ip` (prefixes), `ports`, `port_range`, `protocol`; both directions.

    Needs no libpcap but for rare link types of files. UsageError names a key whose value cannot be.
    """
    checked = Rules.read(rules)
    if checked.everything():
        return cbpf.accept(snaplen)
    if not cbpf.finds_ip(link_type):
        return compile_filter(checked.expression(), link_type, widen=widen, snaplen=snaplen)
    return _bounded(cbpf.frame(RulesFilter(checked), link_type, widen=widen, tags=True, snaplen=snaplen))


def expression_of(rules: dict[str, Any]) -> str:
    """The same filter in tcpdump syntax, for people; `bpf` as it is; empty if everything passes."""
    return str(rules.get("bpf") or "") or Rules.read(rules).expression()


def build_program(
    rules: dict[str, Any], link_type: int = MIXED, *, widen: bool = True, snaplen: int = SNAPLEN
) -> Program:
    """The program of a task's `filter:` section (plain dict of engine.config.Filter).

    An empty section lets everything pass. Takes 50 ms, and up to the time limit for a long
    expression: not for an event loop.
    """
    if bpf := rules.get("bpf"):
        return compile_filter(str(bpf), link_type, widen=widen, snaplen=snaplen)
    return structured_filter(rules, link_type, widen=widen, snaplen=snaplen)


def live_program(rules: dict[str, Any], snaplen: int = SNAPLEN) -> Program:
    """build_program() for open_rings(): packets of any interface."""
    return build_program(rules, MIXED, snaplen=snaplen)


def libpcap_version() -> str:
    """libpcap's own words, such as `libpcap version 1.10.3 (with TPACKET_V3)`; empty if it is missing."""
    answer = _ask({"jobs": [], "ends": [], "cpu_s": 2}, 2.0)
    return str(answer[0]["version"]) if answer else ""


def check_expression(expression: str, link_type: int = MIXED) -> list[Token]:
    """The tokens of an expression that libpcap may see; UsageError names the first that it may not."""
    if not expression.strip():
        raise UsageError("filter: the expression is empty", "leave the filter out to capture everything")
    # An argument of the command line may hold octets that are no UTF-8.
    octets = len(expression.encode("utf-8", "surrogatepass"))
    if octets > MOST_OCTETS:
        raise UsageError(f"filter: {octets} octets, the most is {MOST_OCTETS}", STRUCTURED_HINT)
    tokens: list[Token] = []
    place = 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None:
            raise _at(expression, place, f"{expression[place]!r} cannot stand in a filter")
        if match.lastgroup != "space":
            token = Token(match[0], match.start(), match.end())
            _check_token(expression, token, str(match.lastgroup), tokens, link_type)
            tokens.append(token)
        place = match.end()
    return tokens


def _check_token(expression: str, token: Token, kind: str, before: list[Token], link_type: int) -> None:
    text = token.text
    if kind == "operator":
        return
    if kind == "long":
        if _MAC.fullmatch(text) or _is_ipv6(text):
            return
        raise _at(expression, token.start, f"{text!r} is no address")
    if kind == "number":
        if not _NUMBER.fullmatch(text):
            raise _at(expression, token.start, f"{text!r} is a name", _name_hint(text, before))
        return
    if text.startswith("\\") and text[1:] in KEYWORDS:
        return
    if text not in KEYWORDS or text in RESOLVING:
        if before and before[-1].text in ("on", "ifname"):
            raise _at(expression, token.start, "a filter knows no interface names", "use -d NAME")
        raise _at(expression, token.start, f"{text!r} is a name or no keyword", _name_hint(text, before))
    if text == "vlan" and link_type == MIXED:
        raise _at(
            expression,
            token.start,
            "vlan cannot be tested on live traffic: the kernel takes the tag off before",
            "leave it out: tagged packets match the rest of the expression too",
        )


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _name_hint(text: str, before: list[Token]) -> str:
    if number := SERVICES.get(text.lower()):
        return f"write the number: port {number}"
    if before and before[-1].text in ("port", "portrange"):
        return "write the number of the port"
    near = difflib.get_close_matches(text, KEYWORDS - RESOLVING, n=1, cutoff=0.6)
    if near and not (before and before[-1].text in ("host", "net", "src", "dst")):
        return f"did you mean {near[0]!r}?"
    return "names are not resolved: write the address"


def _at(expression: str, place: int, message: str, hint: str = "") -> UsageError:
    """An error with the column, and the expression with a caret below the place."""
    shown = re.sub(r"\s", " ", expression)
    begin = max(0, place - 50)
    end = min(len(shown), begin + 100)
    window = f"{'...' if begin else ''}{shown[begin:end]}{'...' if end < len(shown) else ''}"
    caret = " " * (place - begin + (3 if begin else 0)) + "^"
    lines = [f"    {window}", f"    {caret}", *([hint] if hint else [])]
    return UsageError(f"filter: {message} (column {place + 1})", "\n".join(lines))


def _ask(request: dict[str, Any], time_limit: float) -> list[dict[str, Any]]:
    """Run the child; its lines. UsageError when it needs longer than the limit."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(CHILD)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=3 * time_limit + 5,
            check=False,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        done = None
    lines: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]
    if not lines:
        if done is not None and done.returncode > 0:
            detail = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise OtusError(f"filter: the compiler failed: {detail or done.returncode}")
        raise UsageError(
            f"filter: libpcap needs more than {time_limit:g} s for this expression",
            f"networks instead of many hosts, or {STRUCTURED_HINT}",
        )
    return lines


def _run_child(
    expression: str, tokens: list[Token], dlts: list[int], time_limit: float
) -> list[dict[str, Any]]:
    """One result for each link type; UsageError for libpcap's refusal of the first."""
    answer = _ask(
        {
            "jobs": [[expression, dlt] for dlt in dlts],
            "ends": [token.end for token in tokens],
            "cpu_s": max(1, math.ceil(time_limit)),
        },
        time_limit,
    )
    results: list[dict[str, Any]] = answer[0]["results"]
    if not results:
        raise UsageError(
            "filter: libpcap is not installed, so tcpdump expressions cannot be compiled",
            f"apt install libpcap0.8, or {STRUCTURED_HINT}",
        )
    if message := results[0].get("error"):
        message = str(message).removeprefix("can't parse filter expression: ")
        column = answer[1]["column"] if len(answer) > 1 else None
        if column is None:
            raise UsageError(f"filter: {message}", f"    {expression}")
        if column >= len(tokens):
            raise _at(expression, tokens[-1].end, f"{message}: something is missing at the end")
        raise _at(expression, tokens[column].start, message)
    return results


def _as_program(result: dict[str, Any]) -> Program:
    return [(int(code), int(jt), int(jf), int(k)) for code, jt, jf, k in result["program"]]


def _bounded(program: Program) -> Program:
    if len(program) > cbpf.MOST_INSTRUCTIONS:
        raise UsageError(
            f"filter: {len(program)} instructions, the kernel takes {cbpf.MOST_INSTRUCTIONS}",
            "networks instead of many hosts, a range instead of many ports",
        )
    return program


__all__ = [
    "ETHERNET",
    "MIXED",
    "build_program",
    "check_expression",
    "compile_filter",
    "expression_of",
    "libpcap_version",
    "live_program",
    "structured_filter",
]
