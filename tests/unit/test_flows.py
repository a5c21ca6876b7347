"""The flow registry: lookups, endpoints from SDP, who may take whose, time, locks of killed workers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builds import Build, both_builds
from tests.sip_records import address_to_bytes

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
TTL = 300 * SECOND
UDP = 17


def words(address: str) -> tuple[int, int]:
    octets = address_to_bytes(address)
    return int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little")


def name(text: str) -> tuple[int, int]:
    octets = text.encode().ljust(16, b"\0")
    return int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little")


class Table:
    """A flow table with addresses as text."""

    def __init__(self, build: Build, slots: int = 1024, writer: int = 0) -> None:
        self.module: ModuleType = build.module("engine.shm.flows")
        self.flows: Any = self.module.FlowTable.create("test", writer, slots)

    def second(self, writer: int) -> Table:
        """The same table as another worker sees it."""
        twin = object.__new__(Table)
        twin.module = self.module
        twin.flows = self.module.FlowTable.open(self.flows.region.fd, writer)
        return twin

    def register(
        self,
        call: str,
        address: str,
        port: int,
        codecs: tuple[tuple[int, str, int], ...] = ((0, "PCMU", 8000),),
        now: int = NOW,
        rtcp: bool = False,
        domain: int = 0,
        ttl: int = TTL,
    ) -> int:
        octets = call.encode()
        self.flows.stage_call(octets, 0, len(octets))
        for number, text, clock in codecs:
            self.flows.stage_codec(number, clock, *name(text))
        return int(self.flows.register(*words(address), port, rtcp, 0, UDP, domain, now, ttl))

    def end(self, call: str) -> None:
        octets = call.encode()
        self.flows.stage_call(octets, 0, len(octets))
        self.flows.end_call()

    def find(self, src: str, sport: int, dst: str, dport: int, now: int = NOW, domain: int = 0) -> int:
        return int(self.flows.find(*words(src), *words(dst), sport, dport, UDP, domain, now))

    def add(self, src: str, sport: int, dst: str, dport: int, now: int = NOW, ttl: int = TTL) -> int:
        return int(self.flows.add(*words(src), *words(dst), sport, dport, UDP, 0, now, ttl))

    def call(self, slot: int) -> str:
        row = self.flows.read(slot)
        assert row is not None
        return str(row["call_id"])

    def labels(self, slot: int, payload_type: int = 0) -> Any:
        return self.flows.labels(slot, self.flows.generation, payload_type)


def test_media_is_found_by_either_side_and_then_by_its_five_tuple(build: Build) -> None:
    table = Table(build)
    assert (
        table.register("one@host", "10.0.0.1", 4000, ((0, "PCMU", 8000), (101, "TELEPHONE-EVENT", 8000))) == 0
    )
    assert table.find("10.0.0.2", 5000, "10.0.0.9", 4000) == -1
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert slot >= 0
    assert table.labels(slot) == {"call-id": "one@host", "codec": "PCMU"}
    assert table.labels(slot, 101)["codec"] == "TELEPHONE-EVENT"
    assert table.labels(slot, 8) == {"call-id": "one@host"}
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    back = table.find("10.0.0.1", 4000, "192.0.2.7", 9)
    assert back not in (-1, slot)
    row = table.flows.read(back)
    assert (row["kind"], row["src"], row["dst"], row["dport"]) == ("flow", "10.0.0.1", "192.0.2.7", 9)
    assert table.flows.figures()["used"] == 3


def test_tenants_with_the_same_addresses_are_kept_apart(build: Build) -> None:
    table = Table(build)
    table.register("red", "10.0.0.1", 4000, domain=1 << 32)
    table.register("blue", "10.0.0.1", 4000, domain=2 << 32)
    assert table.find("10.0.0.2", 5, "10.0.0.1", 4000) == -1
    assert table.call(table.find("10.0.0.2", 5, "10.0.0.1", 4000, domain=1 << 32)) == "red"
    assert table.call(table.find("10.0.0.2", 5, "10.0.0.1", 4000, domain=2 << 32)) == "blue"


def test_a_later_sdp_changes_the_codecs_of_a_known_flow(build: Build) -> None:
    table = Table(build)
    table.register("one", "10.0.0.1", 4000, ((96, "OPUS", 48000),))
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    before = table.flows.epoch
    assert table.labels(slot, 96)["codec"] == "OPUS"
    table.register("one", "10.0.0.1", 4000, ((96, "ILBC", 8000),))
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    assert table.flows.epoch != before
    assert table.labels(slot, 96)["codec"] == "ILBC"
    # The far side's codecs are added to those of the receiver.
    table.register("one", "10.0.0.2", 5000, ((96, "G7221", 16000), (97, "SPEEX", 8000)))
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    assert [codec[1] for codec in table.flows.read(slot)["codecs"]] == ["ILBC", "SPEEX"]


def test_signalling_behind_the_media_names_a_flow_found_without_it(build: Build) -> None:
    table = Table(build)
    slot = table.add("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert table.flows.labels_word & 0xFF == 2
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    table.register("late", "10.0.0.1", 4000)
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    assert table.flows.labels_word & 0xFF == 1
    assert table.call(slot) == "late"


def test_another_call_takes_an_endpoint_only_when_its_owner_is_gone(build: Build) -> None:
    table = Table(build)
    table.register("first", "10.0.0.1", 4000)
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert table.register("second", "10.0.0.1", 4000, now=NOW + SECOND) == 1
    assert table.register("first", "10.0.0.1", 4000, now=NOW + 2 * SECOND) == 0
    # Media keeps the endpoint its owner's, long after the last SDP.
    for second in range(3, 40):
        assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + second * SECOND) == slot
    assert table.register("second", "10.0.0.1", 4000, now=NOW + 41 * SECOND) == 1
    assert table.call(slot) == "first"
    assert table.register("second", "10.0.0.1", 4000, now=NOW + 60 * SECOND) == 0
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + 60 * SECOND) == slot
    assert table.call(slot) == "second"
    table.end("second")
    assert table.register("third", "10.0.0.1", 4000, now=NOW + 60 * SECOND) == 0


def test_an_endpoint_that_calls_share_leaves_the_name_to_the_other_side(build: Build) -> None:
    """As with a test server that has one port for the media of all calls."""
    table = Table(build)
    server, ports = "10.0.0.1", {"first": 4000, "second": 4002, "third": 4004}
    for number, (call, port) in enumerate(ports.items()):
        assert table.register(call, "10.0.0.2", port) == 0
        assert table.register(call, server, 6000) == (1 if number else 0)
    for _ in range(2):
        for call, port in ports.items():
            assert table.call(table.find("10.0.0.2", port, server, 6000)) == call
            assert table.call(table.find(server, 6000, "10.0.0.2", port)) == call
    assert table.call(table.find("10.0.0.9", 9, server, 6000)) == "first"
    # Another one that takes the port over has it for itself no more than the one before.
    table.end("first")
    assert table.register("fourth", server, 6000) == 0
    assert table.call(table.find("10.0.0.2", 4002, server, 6000)) == "second"
    assert table.call(table.find("10.0.0.9", 9, server, 6000)) == "fourth"
    # Where both sides are shared, the receiver is as good as any.
    table.register("fifth", "10.0.0.2", 4002)
    assert table.call(table.find("10.0.0.2", 4002, server, 6000)) == "fourth"


def test_a_flow_that_was_known_before_its_endpoint_was_shared_is_named_anew(build: Build) -> None:
    table = Table(build)
    table.register("first", "10.0.0.1", 6000)
    table.register("second", "10.0.0.2", 4002)
    slot = table.find("10.0.0.2", 4002, "10.0.0.1", 6000)
    assert table.call(slot) == "first"
    assert table.register("second", "10.0.0.1", 6000) == 1
    assert table.find("10.0.0.2", 4002, "10.0.0.1", 6000) == slot
    assert table.call(slot) == "second"
    assert table.register("first", "10.0.0.1", 6000) == 0
    assert table.find("10.0.0.2", 4002, "10.0.0.1", 6000) == slot
    assert table.call(slot) == "second"


def test_call_ids_are_cut_at_127_octets(build: Build) -> None:
    table = Table(build)
    table.register("x" * 500, "10.0.0.1", 4000)
    row = table.flows.rows()[0]
    assert (row["call_id"], row["cut"]) == ("x" * 127, True)


def test_long_names_of_codecs(build: Build) -> None:
    table = Table(build)
    names = ("mpeg4-generic", "NOBODYS-OWN-ONE")
    table.register(
        "one@host", "10.0.0.1", 4000, tuple((96 + n, one.upper(), 8000) for n, one in enumerate(names))
    )
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    found = [table.labels(slot, 96 + number)["codec"] for number in range(2)]
    assert found == ["MPEG4-GENERIC", "NOBODYS-OWN"]


def test_codecs_beyond_16_are_left_out(build: Build) -> None:
    table = Table(build)
    table.register("one", "10.0.0.1", 4000, tuple((number, "PCMU", 8000) for number in range(96, 126)))
    assert len(table.flows.rows()[0]["codecs"]) == 16


def test_a_type_that_one_end_does_not_name_has_the_name_of_the_other(build: Build) -> None:
    table = Table(build)
    table.register("one", "10.0.0.1", 4000, ((0, "PCMU", 8000), (101, "TELEPHONE-EVENT", 8000)))
    table.register("one", "10.0.0.2", 5000, ((0, "PCMU", 8000), (101, "", 0)))
    for ends in (("10.0.0.1", 4000, "10.0.0.2", 5000), ("10.0.0.2", 5000, "10.0.0.1", 4000)):
        assert table.labels(table.find(*ends), 101)["codec"] == "TELEPHONE-EVENT"


def test_of_too_many_codecs_those_that_repair_others_and_static_types_go_first(build: Build) -> None:
    table = Table(build)
    audio = [(111, "OPUS", 48000), (63, "RED", 48000), (9, "G722", 8000), (0, "PCMU", 8000)]
    video = [(96 + n, "H264" if n % 2 else "RTX", 90000) for n in range(14)]
    repair = [(114, "RED", 90000), (115, "ULPFEC", 90000), (35, "FLEXFEC-03", 90000)]
    more = [(116 + n, "VP9", 90000) for n in range(6)]
    table.register("one", "10.0.0.1", 4000, (*audio, *video, *repair, *more))
    kept = [number for number, _, _ in table.flows.rows()[0]["codecs"]]
    assert sorted(kept) == [9, 63, 97, 99, 101, 103, 105, 107, 109, 111, 116, 117, 118, 119, 120, 121]
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert table.labels(slot, 121)["codec"] == "VP9"


def test_what_is_not_used_expires(build: Build) -> None:
    table = Table(build)
    table.register("one", "10.0.0.1", 4000)
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    generation = table.flows.generation
    assert table.flows.sweep(NOW + TTL - 1, 4096) == 0
    # An expired flow is not found, even before it is swept.
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + TTL + SECOND) == -1
    assert table.flows.labels(slot, generation, 0) is None
    table.flows.sweep(NOW + 2 * TTL, 4096)
    assert table.flows.figures()["used"] == 0
    assert table.flows.figures()["expired"] == 2
    table.register("two", "10.0.0.1", 4000, now=NOW + 3 * TTL)
    again = table.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + 3 * TTL)
    # The same slot, another generation: old records do not get the labels of the new flow.
    assert again == slot
    assert table.flows.labels(again, generation, 0) is None
    assert table.labels(again)["call-id"] == "two"


@pytest.mark.parametrize(("address", "port"), [("10.0.0.1", 4000), ("10.0.0.2", 5000)], ids=["to", "from"])
def test_no_flow_is_made_of_a_side_whose_time_is_over(build: Build, address: str, port: int) -> None:
    table = Table(build)
    table.register("one", address, port)
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + TTL + SECOND) == -1
    assert table.flows.figures()["used"] == 0


def test_a_full_table_refuses_and_makes_room_when_entries_expire(build: Build) -> None:
    table = Table(build, 64)
    results = [table.register(f"call{port}", "10.0.0.1", port) for port in range(4000, 4200)]
    assert results.count(0) == table.flows.figures()["used"] <= 64
    assert results.count(2) == 200 - results.count(0)
    later = NOW + TTL + 10 * SECOND
    assert table.register("new", "10.0.0.2", 4000, now=later) == 0
    assert table.flows.figures()["expired"] == 1


def test_colliding_keys_are_bounded(build: Build) -> None:
    """With the seed known, keys can be made to begin at one slot: 32 of them fit, the others are refused."""
    table = Table(build, 256)
    low, high = words("10.0.0.1")
    homes = {
        port: table.flows.hash(low, high, port | (UDP << 32) | 0x10000000000, 0, 0, 0) & 255
        for port in range(1, 20_000)
    }
    assert len(set(homes.values())) == 256
    outcomes = [table.register("x", "10.0.0.1", port) for port, home in homes.items() if home == 7]
    assert len(outcomes) > 40
    assert outcomes == [0] * 32 + [2] * (len(outcomes) - 32)


def test_every_table_hashes_differently(build: Build) -> None:
    assert Table(build).flows.hash(1, 2, 3, 4, 5, 6) != Table(build).flows.hash(1, 2, 3, 4, 5, 6)


def test_a_killed_worker_holds_nothing_up(build: Build) -> None:
    table = Table(build)
    table.register("one", "10.0.0.1", 4000)
    slot = table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    killed, other = table.second(3), table.second(4)
    shared = table.flows.region.words
    first = shared[4608 + 2 * slot + 1]
    shared[first] |= 3 + 1
    claimed = next(index for index in range(table.flows.slots) if shared[4608 + 2 * index] == 0)
    shared[4608 + 2 * claimed] = 0x10000 + 3
    # Readers and other writers give up instead of waiting.
    assert other.flows.read(slot) is None
    other.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + 2 * SECOND)
    assert other.flows.break_locks(4) == 0
    assert killed.flows.break_locks(3) == 2
    slot = other.find("10.0.0.2", 5000, "10.0.0.1", 4000, NOW + 3 * SECOND)
    assert other.call(slot) == "one"
    assert shared[4608 + 2 * claimed] == 1


def test_two_workers_see_the_same_flows(build: Build) -> None:
    table = Table(build)
    other = table.second(1)
    table.register("one", "10.0.0.1", 4000)
    slot = other.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert slot >= 0
    assert table.find("10.0.0.2", 5000, "10.0.0.1", 4000) == slot
    table.register("one", "10.0.0.1", 4000)
    table.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    before = other.flows.epoch
    table.register("one", "10.0.0.1", 4000, ((8, "PCMA", 8000),))
    other.find("10.0.0.2", 5000, "10.0.0.1", 4000)
    assert other.flows.epoch >> 32 != before >> 32, "what was made of the labels is told that they changed"


ENDPOINTS = [(f"10.0.0.{host}", port) for host in (1, 2) for port in (4000, 4002)] + [("2001:db8::1", 4000)]
steps = st.lists(
    st.tuples(
        st.sampled_from(["register", "find", "end", "wait", "sweep"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(ENDPOINTS),
        st.sampled_from(ENDPOINTS),
        st.sampled_from([0, 1, 5, 11, 200, 400]),
    ),
    max_size=40,
)


class Model:
    """What the registry promises, with dictionaries."""

    def __init__(self) -> None:
        self.sides: dict[Any, list[Any]] = {}
        self.flows: dict[Any, list[Any]] = {}
        self.ended: set[str] = set()

    def register(self, call: str, endpoint: Any, now: int) -> int:
        self.ended.discard(call)
        side = self.sides.get(endpoint)
        if side and side[0] != call and side[0] not in self.ended and now - side[1] <= 10 * SECOND:
            return 1
        self.sides[endpoint] = [call, now]
        return 0

    def side(self, endpoint: Any, now: int) -> Any:
        side = self.sides.get(endpoint)
        if side and now - side[1] > TTL:
            del self.sides[endpoint]
            return None
        return side


@both_builds
@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_registry_is_a_dictionary_of_endpoints(build: Build, steps: list[Any]) -> None:
    """Ownership of endpoints over any sequence of registrations, ends and pauses."""
    table, model, now = Table(build, 256), Model(), NOW
    for act, call, here, _, pause in steps:
        if act == "wait":
            now += pause * SECOND
        elif act == "register":
            assert table.register(call, *here, now=now) == model.register(call, here, now)
        elif act == "end":
            table.end(call)
            model.ended.add(call)
        elif act == "sweep":
            table.flows.sweep(now, 256)
            for endpoint in list(model.sides):
                model.side(endpoint, now)
    found = {(row["src"], row["sport"]): row["call_id"] for row in table.flows.rows()}
    assert found == {endpoint: side[0] for endpoint, side in model.sides.items()}


@both_builds
@given(packets=st.lists(st.tuples(st.sampled_from(ENDPOINTS), st.sampled_from(ENDPOINTS)), max_size=30))
@settings(max_examples=40, deadline=None)
def test_flows_are_found_again(build: Build, packets: list[Any]) -> None:
    table = Table(build, 256)
    table.register("a", *ENDPOINTS[0])
    slots: dict[Any, int] = {}
    for src, dst in packets:
        slot = table.find(*src, *dst)
        assert (slot >= 0) == (ENDPOINTS[0] in (src, dst))
        if slot >= 0:
            assert slots.setdefault((src, dst), slot) == slot
    assert len(set(slots.values())) == len(slots)


def test_regions_of_another_kind_are_refused(build: Build) -> None:
    table = Table(build)
    streams = build.module("engine.shm.streams")
    with pytest.raises(ValueError, match="no streams region"):
        streams.StreamTable.open(table.flows.region.fd)


def test_a_flow_that_is_remembered_is_the_one_that_is_there(build: Build) -> None:
    """find() takes what it found lately without a keyed hash: never an entry that has another key by now."""
    table = Table(build, 64)
    assert table.register("one", "10.0.0.1", 4000, ttl=SECOND) == 0
    slot = table.find("10.0.0.9", 5000, "10.0.0.1", 4000)
    assert slot >= 0
    assert table.find("10.0.0.9", 5000, "10.0.0.1", 4000) == slot
    other = table.second(1)
    assert other.find("10.0.0.9", 5000, "10.0.0.1", 4000) == slot
    later = NOW + 100 * SECOND
    assert table.find("10.0.0.9", 5000, "10.0.0.1", 4000, later) == -1
    assert other.find("10.0.0.9", 5000, "10.0.0.1", 4000, later) == -1
    # The places of both are given to others; the memory of the first worker still points at them.
    for number in range(20):
        assert table.register(f"call{number}", "10.0.1.1", 4000 + 2 * number, now=later) == 0
        found = table.find("10.0.1.9", 6000 + 2 * number, "10.0.1.1", 4000 + 2 * number, later)
        assert table.call(found) == f"call{number}"
    assert table.find("10.0.0.9", 5000, "10.0.0.1", 4000, later) == -1
    assert other.find("10.0.0.9", 5000, "10.0.0.1", 4000, later) == -1


def test_flows_by_the_thousand_are_each_their_own(build: Build) -> None:
    """More flows than are remembered, in turn: each packet finds its own entry."""
    number = 20_000 if build.name == "compiled" else 300
    table = Table(build, 4 * number)
    for port in range(number):
        assert table.register(f"c{port}", f"10.{port >> 8}.{port & 255}.1", 4000) == 0
    for _ in range(3):
        slots = [
            table.find("10.99.0.9", 5000, f"10.{port >> 8}.{port & 255}.1", 4000) for port in range(number)
        ]
        assert len(set(slots)) == number
        assert min(slots) >= 0
        assert table.call(slots[7]) == "c7"
