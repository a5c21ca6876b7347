"""What an observer shall do: one set of words for the command line and for `otus.tcp`, and what they mean.

`make()` takes the words as a person writes them (`rtt_above="200ms"`, `sample="1/16"`) and answers `Options`,
or a UsageError with what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import OtusError, UsageError
from engine.tcp import filters, namespaces
from engine.tcp.backend import (
    FEWEST_SUB_BITS,
    MOST_LAST,
    MOST_SUB_BITS,
    MOST_TOP_FLOWS,
    Filters,
    Limits,
    Namespace,
    Sizes,
    Triggers,
)
from engine.tcp.mask import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.tcp.mask import Kind

MODES = ("summary", "detail", "both")
FORMATS = ("text", "json", "jsonl", "prometheus")
BACKENDS = ("auto", "libbpf", "bcc", "netlink")
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.1, 3600.0
LONGEST_DURATION = 86_400.0
LONGEST_LOOK = 1.0
"""Seconds between two looks, unless the interval is shorter."""
MOST_SOCKETS, FEWEST_SOCKETS = 1_048_576, 16
_MICROSECONDS = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_MEASURE = re.compile(_NUMBER + r"\s*([a-zµ]*)")
_OCTETS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(slots=True)
class Options:
    """Everything that an observer needs to know."""

    mode: str = "summary"
    interval: float = 1.0
    duration: float | None = None
    """None: until it is told to end."""
    windows: tuple[float, ...] = ()
    """Lengths of the windows that are given out, s; empty: the interval."""
    filters: Filters = field(default_factory=Filters)
    every_namespace: bool = False
    triggers: Triggers = field(default_factory=Triggers)
    limits: Limits = field(default_factory=Limits)
    sizes: Sizes = field(default_factory=Sizes)
    mask: Kind = "none"
    format: str = "text"
    output: str = "-"
    events: str = ""
    """A path, - for standard output; empty: standard output, and in a text summary a few short lines."""
    max_cpu: float | None = None
    """Share of one CPU."""
    backend: str = "auto"
    stats: bool = False
    verbose: bool = False


def make(**words: Any) -> Options:
    """Options out of words; a word that is None or absent has its default."""
    given = {name: word for name, word in words.items() if word is not None}
    of_events = [name for name in _OF_EVENTS if given.get(name, False) is not False]
    take = given.pop
    made = Options(
        mode=_choice(take("mode", "summary"), MODES, "--mode"),
        format=_choice(take("format", "text"), FORMATS, "--format"),
        backend=_choice(take("backend", "auto"), BACKENDS, "--backend"),
        output=str(take("output", "-")),
        events=str(take("events", "")),
        stats=bool(take("stats", False)),
        verbose=bool(take("verbose", False)),
    )
    if made.events and made.mode == "summary":
        raise UsageError("--events: there are none with --mode summary", "--mode both, or --mode detail")
    if made.events and made.mode == "detail" and made.output != "-":
        raise UsageError("--output: no summaries with --mode detail", "--events alone, or --mode both")
    of_summaries = "--format prometheus" if made.format == "prometheus" else "--window"
    if made.mode == "detail" and (made.format == "prometheus" or "window" in given):
        raise UsageError(f"{of_summaries}: no summaries with --mode detail", "--mode summary, or --mode both")
    if made.format == "prometheus" and made.mode == "both" and {made.output, made.events or "-"} == {"-"}:
        raise UsageError(
            "--format prometheus: events would stand among the metrics", "--events FILE, or --output FILE"
        )
    made.mask = _choice(take("mask", "none"), KINDS, "--mask")
    made.interval = _interval(take("interval", 1.0))
    made.duration = _duration(take("duration", None))
    made.windows = _windows(take("window", None), made.interval)
    made.max_cpu = percent(take("max_cpu", None), "--max-cpu")
    made.filters, made.every_namespace = _filters(given)
    made.triggers = _triggers(given)
    if made.mode == "summary":
        # Nobody would see the events.
        made.triggers = Triggers.none()
    made.limits, made.sizes = _limits(given), _sizes(given)
    if given:
        raise UsageError(f"unknown option {min(given)}")
    if made.mode == "summary" and of_events:
        option = f"--{of_events[0].replace('_', '-')}"
        raise UsageError(
            f"{option}: there are no events with --mode summary", "--mode both, or --mode detail"
        )
    return made


_OF_EVENTS = (
    "rtt_above", "rtt_jump", "rtt_p99", "retrans_burst", "rto", "tlp", "cwnd_halved", "pacing_zero",
    "zero_window", "backlog_overflow", "resets", "reset_rate", "drops", "max_events", "sample", "top_flows",
    "first", "last",
)  # fmt: skip


SERVICE = frozenset(
    ("interval", "iface", "lport", "rport", "laddr", "raddr", "pid", "cgroup", "netns", "mask", "rtt_above",
     "rtt_jump", "rtt_p99", "retrans_burst", "rto", "tlp", "cwnd_halved", "pacing_zero", "zero_window",
     "backlog_overflow", "resets", "reset_rate", "drops", "max_events", "sample", "top_flows", "first",
     "last", "max_cpu", "sockets", "ring", "sub_bits", "backend")
)  # fmt: skip
"""Words that the observer of an engine takes."""
_FILTERS = ("netns", "iface", "lport", "rport", "laddr", "raddr", "pid", "cgroup")
_OF_THE_HOST = ("iface", "pid", "cgroup", "netns")


def check(words: Mapping[str, Any]) -> None:
    """UsageError where words of a configuration file cannot be meant; what they name is looked for at the
    start."""
    for name in words:
        if name not in SERVICE:
            known = sorted(one.replace("_", "-") for one in SERVICE)
            near = difflib.get_close_matches(name.replace("_", "-"), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"unknown option {name.replace('_', '-')}", hint)
    make(mode="both", **{name: word for name, word in words.items() if name not in _OF_THE_HOST})


def _filters(given: dict[str, Any]) -> tuple[Filters, bool]:
    for name in _FILTERS:
        if name in given and not _text(given[name]).strip():
            raise UsageError(f"--{name}: empty", f"without --{name} all pass; else name what shall pass")
    word = given.pop("netns", None)
    found = [namespaces.own()] if word is None else namespaces.resolve(str(word))
    every = word == "all"
    made = Filters(netns=0 if every else found[0].inode, namespaces=found)
    name = given.pop("iface", "")
    if name:
        # Interfaces have their names in the namespace that is watched.
        made.interface = _interface(str(name), found)
    for option, attribute in (("lport", "local_ports"), ("rport", "remote_ports")):
        if word := given.pop(option, ""):
            setattr(made, attribute, filters.ports(_text(word), f"--{option}"))
    for option, attribute in (("laddr", "local_networks"), ("raddr", "remote_networks")):
        if word := given.pop(option, ""):
            setattr(made, attribute, filters.networks(_text(word), f"--{option}"))
    if word := given.pop("pid", ""):
        made.pids = filters.pids(_text(word))
    if word := given.pop("cgroup", ""):
        made.cgroup = filters.cgroup(str(word))
    return made, every


def _interface(name: str, found: Sequence[Namespace]) -> str:
    """The name of an interface that is there, in one of the namespaces at least."""
    missing: UsageError | None = None
    entered = 0
    for namespace in found:
        try:
            return namespaces.call_inside(namespace, lambda: filters.interface(name))
        except UsageError as error:
            missing = missing or error
            entered += 1
        except OtusError:
            if len(found) == 1:
                raise
    if missing is not None and entered == len(found):
        raise missing
    # It may be in one of those that may not be entered.
    return name


def _limits(given: dict[str, Any]) -> Limits:
    take = given.pop
    return Limits(
        sample=_one_of(take("sample", 1)),
        top_flows=_count(take("top_flows", 0), "--top-flows", 0, MOST_TOP_FLOWS),
        first=_count(take("first", 0), "--first", 0, 1_000_000),
        last=_count(take("last", 0), "--last", 0, MOST_LAST),
        per_second=_per_second(take("max_events", 200), "--max-events"),
    )


def _sizes(given: dict[str, Any]) -> Sizes:
    take = given.pop
    return Sizes(
        sockets=_count(take("sockets", Sizes().sockets), "--sockets", FEWEST_SOCKETS, MOST_SOCKETS),
        ring_bytes=_power(_octets(take("ring", Sizes().ring_bytes))),
        sub_bits=_count(take("sub_bits", Sizes().sub_bits), "--sub-bits", FEWEST_SUB_BITS, MOST_SUB_BITS),
    )


def _triggers(given: dict[str, Any]) -> Triggers:
    made = Triggers()
    take = given.pop
    if (word := take("rtt_above", None)) is not None:
        made.rtt_above_us = microseconds(word, "--rtt-above")
    if (word := take("rtt_jump", None)) is not None:
        made.rtt_jump = _times(word)
    made.rtt_p99 = bool(take("rtt_p99", False))
    if (word := take("retrans_burst", None)) is not None:
        made.retransmit_burst = _per_second(word, "--retrans-burst")
    if (word := take("cwnd_halved", None)) is not None:
        made.cwnd_halved_s = seconds(word, "--cwnd-halved")
        if not 0.1 <= made.cwnd_halved_s <= 60:
            raise UsageError(f"--cwnd-halved {word}: out of 100ms to 60s")
    if (word := take("reset_rate", None)) is not None:
        made.reset_rate = _per_second(word, "--reset-rate")
    for name in ("rto", "tlp", "pacing_zero", "zero_window", "backlog_overflow", "resets", "drops"):
        if (word := take(name, None)) is not None:
            setattr(made, name, bool(word))
    return made


def seconds(word: Any, option: str) -> float:
    """Seconds out of 60, 60s, 500ms, 10m; never negative, never infinite."""
    match = _MEASURE.fullmatch(str(word).strip().lower())
    if match is None or match[2] not in _SECONDS:
        raise UsageError(f"{option} {word}: no duration", "seconds, or with a unit: 60, 500ms, 10m, 1h")
    return float(match[1]) * _SECONDS[match[2]]


def microseconds(word: Any, option: str) -> int:
    """Microseconds out of 200ms, 1.5s, 800us: the unit is wanted."""
    match = _MEASURE.fullmatch(str(word).strip().lower())
    if match is None or match[2] not in _MICROSECONDS:
        raise UsageError(f"{option} {word}: no time", "with a unit: 800us, 200ms, 1.5s")
    value = round(float(match[1]) * _MICROSECONDS[match[2]])
    if not 1 <= value <= 3_600_000_000:
        raise UsageError(f"{option} {word}: out of 1us to 3600s")
    return value


def percent(word: Any, option: str) -> float | None:
    """A share out of 2%; a number without the sign is per cent too."""
    if word is None:
        return None
    match = re.fullmatch(_NUMBER + r"\s*%?", str(word).strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f"{option} {word}: no share of a CPU", "per cent of one CPU: 2%, at most 100%")
    return float(match[1]) / 100


def _interval(word: Any) -> float:
    value = seconds(word, "--interval")
    if not SHORTEST_INTERVAL <= value <= LONGEST_INTERVAL:
        raise UsageError(f"--interval {word}: out of 0.1 s to 3600 s", "one second: --interval 1")
    return value


def _duration(word: Any) -> float | None:
    if word is None:
        return None
    value = seconds(word, "--duration")
    if not 0 < value <= LONGEST_DURATION:
        raise UsageError(
            f"--duration {word}: out of more than 0 to 86400 s (a day)",
            "without --duration it runs until it is interrupted",
        )
    return value


def _windows(word: Any, interval: float) -> tuple[float, ...]:
    least = min(LONGEST_LOOK, interval)
    found = []
    for part in () if word is None else str(word).split(","):
        value = seconds(part, "--window")
        if not SHORTEST_INTERVAL <= value <= 60:
            raise UsageError(f"--window {part}: out of 0.1 s to 60 s", "--window 1,10,60")
        if value < least:
            hint = f"--interval {part.strip()}, or a longer window"
            raise UsageError(f"--window {part}: nothing is read more often than each {least:g} s", hint)
        found.append(value)
    return tuple(found)


def _choice(word: Any, of: tuple[Any, ...], option: str) -> Any:
    if word not in of:
        raise UsageError(f"{option} {word}: not known", f"one of {', '.join(of)}")
    return word


def _text(word: Any) -> str:
    """A list of a configuration file as the words of the command line."""
    return ",".join(str(part) for part in word) if isinstance(word, (list, tuple)) else str(word)


def _count(word: Any, option: str, least: int, most: int) -> int:
    value = filters.whole(str(word).strip())
    if value is None or not least <= value <= most:
        raise UsageError(f"{option} {word}: out of {least:,} to {most:,}")
    return value


def _one_of(word: Any) -> int:
    value = filters.whole(str(word).strip().removeprefix("1/"))
    if value is None or not 1 <= value <= 1_000_000:
        raise UsageError(f"--sample {word}: no share of the flows", "one of sixteen: --sample 1/16")
    return value


def _per_second(word: Any, option: str) -> int:
    value = filters.whole(str(word).strip().removesuffix("/s").strip())
    if value is None or not 1 <= value <= 1_000_000:
        raise UsageError(f"{option} {word}: no rate", f"a whole number a second, at least 1: {option} 200/s")
    return value


def _times(word: Any) -> float:
    try:
        value = float(str(word).strip().lower().removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 1 < value <= 1000:
        raise UsageError(f"--rtt-jump {word}: no factor", "more than 1, at most 1000: --rtt-jump 3x")
    return value


def _octets(word: Any) -> int:
    match = re.fullmatch(r"([0-9]{1,18})\s*([kmg]?)(?:i?b)?", str(word).strip().lower())
    value = int(match[1]) * _OCTETS[match[2]] if match else 0
    if not 4096 <= value <= 1 << 30:
        raise UsageError(f"--ring {word}: out of 4K to 1G", "--ring 256K")
    return value


def _power(octets: int) -> int:
    """The next power of two: what a ring buffer takes."""
    return 1 << (octets - 1).bit_length()
