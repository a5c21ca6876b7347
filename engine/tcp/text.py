"""The summary as a table for people: at most 80 columns, small histograms, unknown is `·`.

A histogram is one character for each power of two, from the smallest value that was seen to the largest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine.tcp import histogram
from engine.tcp.backend import RETRANSMIT_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.tcp.backend import Backend
    from engine.tcp.observer import Observer

WIDTH = 80
UNKNOWN = "·"
BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*%#"
NUMBERS = 62
"""Columns of a row before its histogram."""
MOST_BARS = WIDTH - NUMBERS
MOST_LISTEN, MOST_DROPS, MOST_STATES, MOST_RESETS = 6, 6, 8, 3
ROLLING = (1.0, 10.0, 60.0)
WORTH_S = 0.5
"""A window that is longer than the one before by less than this is not shown beside it."""


def page(document: dict[str, Any], observer: Observer, *, plain: bool = False) -> str:
    """One window. plain: no characters beyond ASCII."""
    lines = [_rule(_title(document, observer))]
    lines += _histograms(document, plain)
    lines += _retransmits(document, observer)
    lines += _rates(document)
    lines += _states(document)
    lines += _queues(document)
    lines += _drops(document)
    if document["final"]:
        lines += _off(document)
        lines += _footer(document)
        if observer.options.stats:
            lines += costs(observer.backend)
    made = "\n".join(lines) + "\n"
    return made.translate(_ASCII) if plain else made


_ASCII = str.maketrans({"·": "?", "─": "-", "µ": "u", "…": "~", "▲": "!"})


def _title(document: dict[str, Any], observer: Observer) -> str:
    clock = time.strftime("%H:%M:%S")
    span = "whole run, " if document["final"] else ""
    factor = document["sampling"]
    thin = ""
    if factor.get("look_factor", 1) > 1 or factor.get("segments_one_of", 1) > 1:
        thin = f", looks 1/{factor['look_factor']}, segments 1/{factor['segments_one_of']}"
    count = len(observer.rows)
    return f"{clock}  {span}{seconds(document['window_s'])}  {document['backend']}  {count:,} open{thin}"


def _rule(title: str) -> str:
    return f"─ {title} ".ljust(WIDTH, "─")[:WIDTH]


def _histograms(document: dict[str, Any], plain: bool) -> list[str]:
    handshake, throughput, queues = document["handshake_us"], document["throughput_bps"], document["queues"]
    rows: list[tuple[str, Any, Callable[[float], str]]] = [
        ("RTT", document["rtt_us"], micro),
        ("RTTVAR", document["rttvar_us"], micro),
        ("handshake client", handshake["client"], micro),
        ("handshake server", handshake["server"], micro),
        ("cwnd", document["cwnd"], whole),
        ("ssthresh", document["ssthresh"], whole),
        ("pacing bit/s", document["pacing_bps"], thousand),
        ("send bit/s", throughput["send"], thousand),
        ("receive bit/s", throughput["receive"], thousand),
        ("send queue B", queues["send_bytes"], thousand),
        ("unsent B", queues["unsent_bytes"], thousand),
        ("receive queue B", queues["receive_bytes"], thousand),
    ]
    # Of connections that have ended.
    for name, key in (("sent again each", "per_connection"), ("TLPs each", "tlp_per_connection")):
        one = document["retransmits"][key]
        if document["final"] or (one is not None and one["count"]):
            rows.append((name, one, whole))
    lines = [f"{'':16}{'count':>8}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}  distribution"]
    for name, one, form in rows:
        if one is None:
            lines.append(f"{name:16}{UNKNOWN:>8}{UNKNOWN:>9}{UNKNOWN:>9}{UNKNOWN:>9}{UNKNOWN:>9}")
            continue
        cells = "".join(f"{_cell(one[key], form):>9}" for key in ("p50", "p90", "p99", "max"))
        lines.append(f"{name:16}{thousand(one['count']):>8}{cells}  {bars(one['buckets'], plain)}".rstrip())
    failed, unsampled = handshake["failed"], handshake["unsampled"]
    if failed or unsampled:
        lines.append(f"{'handshakes':16}{known(failed)} failed, {known(unsampled)} without a sample")
    return lines


def _retransmits(document: dict[str, Any], observer: Observer) -> list[str]:
    found = document["retransmits"]
    classes = [
        f"{name} {known(values['segments'] if values['segments'] is not None else values['events'])}"
        for name, values in found["by_class"].items()
        if values["segments"] or values["events"]
    ]
    total = f"{known(found['segments'])} segments in {known(found['events'])} events"
    probes = found["tlp_new_data"]
    lines = _wrap("retransmits", [total, *classes, *([f"{probes:,} probes with new data"] if probes else [])])
    if document["final"]:
        return lines
    rolling = []
    shown = 0.0
    for length in ROLLING:
        window = observer.windows.last(length)
        if window.seconds - shown < WORTH_S:
            continue
        shown = window.seconds
        rolling.append(f"{seconds(rounded(shown, length))} {known(_segments(window.reading.counters))}")
    rolling.append(f"run {known(_segments(observer.windows.run().reading.counters))}")
    return [*lines, *_wrap("  segments", rolling)]


def rounded(seconds: float, wanted: float) -> float:
    """What to call a window that begins at the reading next to what was wanted: that, if it is near."""
    return wanted if abs(seconds - wanted) <= wanted / 10 else seconds


def _segments(counters: dict[str, int]) -> int | None:
    if "retransmit_segments" in counters:
        return counters["retransmit_segments"]
    parts = [counters.get(f"retransmit_{name}_segments") for name in RETRANSMIT_CLASSES]
    told = [count for count in parts if count is not None]
    return sum(told) if told else None


def _rates(document: dict[str, Any]) -> list[str]:
    rates, window, resets = document["throughput_bps"], document["zero_window"], document["resets"]
    total = [
        f"send {thousand(rates['send_total'])} bit/s",
        f"receive {thousand(rates['receive_total'])} bit/s",
    ]
    zero = [
        f"{side} {known(window[side]['episodes'])}"
        + (f" ({seconds(window[side]['seconds'])})" if window[side]["seconds"] else "")
        for side in ("received", "sent")
    ]
    reasons = _most(resets["by_reason"] or {}, MOST_RESETS)
    sums = [f"sent {known(resets['sent'])}", f"received {known(resets['received'])}", *reasons]
    return [*_wrap("all together", total), *_wrap("zero window", zero), *_wrap("resets", sums)]


def _states(document: dict[str, Any]) -> list[str]:
    states = document["states"]
    if states["transitions"] is None:
        return _wrap("states", [UNKNOWN])
    moves = _most(states["transitions"], MOST_STATES)
    dwell = [
        f"{name} {micro(one['sum'] / one['count'])} p99 {micro(one['p99'])}"
        for name, one in (states["dwell_us"] or {}).items()
        if one["count"]
    ]
    return _wrap("states", moves or ["none"]) + (_wrap("  mean time", dwell) if dwell else [])


def _queues(document: dict[str, Any]) -> list[str]:
    rows = document["listen"]
    if rows is None:
        return _wrap("listen", [UNKNOWN])
    rows = sorted(rows, key=lambda row: (-(row["drops"] or 0), not row["open"], -row["backlog"]))
    told = [
        (f"{row['port']} {row['backlog']}/{row['limit']}" if row["open"] else f"{row['port']} closed")
        + (f" ▲ syn {known(row['syn_drops'])} accept {known(row['accept_drops'])}" if row["drops"] else "")
        for row in rows[:MOST_LISTEN]
    ]
    if len(rows) > MOST_LISTEN:
        told.append(f"{len(rows) - MOST_LISTEN} more")
    return _wrap("listen", told or ["none"])


def _drops(document: dict[str, Any]) -> list[str]:
    drops, found = document["drops"], document["events"]
    if drops["total"] is None:
        lines = _wrap("drops", [UNKNOWN])
    else:
        named = drops["by_reason"] if drops["by_reason"] is not None else drops["by_function"]
        told = _most(named, MOST_DROPS)
        benign = sum((drops["benign"] or {}).values())
        lines = _wrap("drops", [f"{drops['total']:,}", *told, *([f"benign {benign:,}"] if benign else [])])
    kept = sum((found["suppressed"] or {}).values())
    if found["emitted"] or kept or found["lost"]:
        given, lost = known(found["emitted"]), known(found["lost"])
        lines += _wrap("events", [f"{given} given out", f"{kept:,} held back", f"{lost} lost"])
    return lines


def _most(counts: dict[str, int], most: int) -> list[str]:
    """The first of them, and how many kinds more there are."""
    told = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    return [*told, f"{len(counts) - most} more"] if len(counts) > most else told


def _off(document: dict[str, Any]) -> list[str]:
    """Each reason once, with the metrics that it stands for."""
    reasons: dict[str, list[str]] = {}
    for metric, why in document["off"].items():
        reasons.setdefault(why, []).append(metric)
    lines = []
    for why, metrics in reasons.items():
        lines += _wrap("not measured", [", ".join(metrics) + ": " + why], joined=" ")
    return lines


_FULL = (("sockets_evicted", "sockets evicted"), ("closed_lost", "ends lost"))


def _footer(document: dict[str, Any]) -> list[str]:
    kernel = document["kernel"]
    names = {name: name.removeprefix("TcpExt").removeprefix("Tcp") for name in kernel}
    told = [f"{names[name]} {count:,}" for name, count in kernel.items() if count]
    lines = _wrap("kernel counted", told) if told else []
    error = f"quantiles are off by at most {document['quantile_error']:.1%}"
    full = [f"{words} {count:,}" for name, words in _FULL if (count := document["tables"][name])]
    lines += _wrap("tables were full", [*full, "larger: --sockets"]) if full else []
    sampling = document["sampling"]
    cost = f"observer {sampling['cpu_percent']:.1f} % of a CPU, {sampling['start_cpu_s']:.1f} s to start"
    missed = document["tables"]["runs_missed"]
    left_out = [f"{missed:,} runs of programs were left out by the kernel"] if missed else []
    return lines + _wrap("accuracy", [error, *left_out, cost])


def costs(backend: Backend) -> list[str]:
    """What each program took, the dearest first."""
    rows = [cost for cost in backend.costs() if cost.runs]
    lines = [f"{'program':32}{'runs':>14}{'ns a run':>12}{'total':>12}"]
    for cost in sorted(rows, key=lambda cost: -cost.ns):
        each, total = cost.ns / cost.runs, cost.ns / 1e6
        lines.append(f"{cost.program[:31]:32}{cost.runs:>14,}{each:>12.0f}{total:>9.1f} ms")
        if cost.missed:
            lines.append(f"{'  runs left out by the kernel':32}{cost.missed:>14,}")
    return lines if rows else ["no program runs in the kernel"]


def recent(found: Sequence[dict[str, Any]], count: int, *, plain: bool = False) -> str:
    """The newest events in a line each, and how many more there were. plain: no characters beyond ASCII."""
    lines = []
    for one in found:
        trigger = one["trigger"]
        clock = one["timestamp"][11:23]
        value = micro(trigger["value"]) if trigger["unit"] == "us" else f"{trigger['value']:,}"
        more = [one[name] for name in _SAY_MORE if one[name] and one[name] != trigger["name"]]
        what = " ".join([trigger["name"], *more, value])
        process = f"  {clean(one['comm'] or UNKNOWN)}/{one['pid']}" if one["pid"] else ""
        ends = [f"  {_end(one['src_ip'], one['src_port'])}", f" > {_end(one['dest_ip'], one['dest_port'])}"]
        lines += _folded([f"▲ {clock}  {what}", *ends, process])
    if count > len(found):
        lines.append(f"  and {count - len(found):,} more events (--events FILE has all)")
    made = "".join(line + "\n" for line in lines)
    return made.translate(_ASCII).encode("ascii", "replace").decode() if plain else made


_SAY_MORE = ("direction", "retrans_reason", "drop_reason", "reset_reason")
"""What an event says of its trigger."""


def _folded(parts: Sequence[str]) -> list[str]:
    """The parts in a line; where that is too long, the rest of them in lines of their own."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH:
            lines.append(f"{'':16}{part.lstrip()}"[:WIDTH])
        else:
            lines[-1] += part
    return lines


def clean(name: str) -> str:
    """A name that any user may give to a process: what a terminal would obey or hide stands as an escape."""
    return name if name.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def ending(document: dict[str, Any]) -> str:
    """What the limits kept back, in a line."""
    held = ", ".join(f"{stage} {count:,}" for stage, count in document["suppressed"].items() if count)
    given, lost = document["emitted"], document["lost"]
    return f"events: {given:,} given out, held back: {held or 'none'}, lost: {lost:,}\n"


def _end(address: Any, port: Any) -> str:
    if address is None:
        return UNKNOWN
    shown = f"[{address}]" if ":" in str(address) else str(address)
    return f"{shown}:{UNKNOWN if port is None else port}"


def _wrap(name: str, parts: Sequence[str], joined: str = "  ") -> list[str]:
    """`name  part  part`, broken between parts, and where one is longer than a line, between words."""
    room = WIDTH - 16
    lines, line = [], ""
    pieces: list[str] = []
    for part in parts:
        pieces += part.split(" ") if len(part) > room else [part]
    for piece in pieces:
        gap = " " if len(parts) == 1 and len(pieces) > 1 else joined
        if line and len(line) + len(gap) + len(piece) > room:
            lines.append(line)
            line = piece
        else:
            line = f"{line}{gap}{piece}" if line else piece
    lines.append(line)
    return [f"{name if place == 0 else '':16}{line}"[:WIDTH].rstrip() for place, line in enumerate(lines)]


def bars(buckets: Sequence[Sequence[int]], plain: bool = False) -> str:
    """A small histogram: a character for each power of two."""
    held = histogram.powers(buckets)
    if not held:
        return ""
    low, high = min(held), max(held)
    step = -(-(high - low + 1) // MOST_BARS)
    places = range(0, high - low + 1, step)
    columns = [sum(held.get(low + at + more, 0) for more in range(step)) for at in places]
    top = max(columns)
    marks = PLAIN_BARS if plain else BARS
    # What is there at all is seen: the lowest mark.
    return "".join(marks[-(-count * (len(marks) - 1) // top)] for count in columns)


def _cell(value: float | None, form: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else form(value)


def known(value: int | None) -> str:
    """A count, or the sign of the unknown."""
    return UNKNOWN if value is None else f"{value:,}"


def whole(value: float) -> str:
    """A count."""
    return f"{round(value):,}"


def micro(value: float) -> str:
    """Microseconds with the unit that fits."""
    if value < 1000:
        return f"{value:.0f} µs"
    return f"{three(value / 1000)} ms" if value < 1_000_000 else f"{three(value / 1e6)} s"


def seconds(value: float) -> str:
    """Seconds with the unit that fits."""
    return f"{value * 1000:.0f} ms" if 0 < value < 0.95 else f"{three(value)} s"


def thousand(value: float | None) -> str:
    """A number with k, M, G, three digits of it."""
    if value is None:
        return UNKNOWN
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}" if not unit else f"{three(value)}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def three(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
