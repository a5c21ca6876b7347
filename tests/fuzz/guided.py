"""Guided by the coverage of the uncompiled build (atheris, libFuzzer); the compiled one must say the same.

python -m tests.fuzz.guided TARGET SECONDS WORK
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import atheris

from tests import builds
from tests.fuzz.blind import Watched
from tests.fuzz.finding import Findings
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import Pair, seeds

if TYPE_CHECKING:
    from collections.abc import Iterable


def functions(module: types.ModuleType) -> Iterable[types.FunctionType]:
    """Functions and methods that a module defines."""
    for value in vars(module).values():
        members = [value, *vars(value).values()] if isinstance(value, type) else [value]
        for one in members:
            inner = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
            inner = getattr(inner, "__wrapped__", inner)
            if isinstance(inner, types.FunctionType) and inner.__module__ == module.__name__:
                yield inner


def instrument() -> int:
    """Count branches and comparisons in all uncompiled code of the engine; how many functions."""
    modules = {id(one): one for one in (*builds._twins.values(), *sys.modules.values())}
    seen: set[int] = set()
    for module in modules.values():
        if getattr(module, "__name__", "").startswith("engine") and str(module.__file__).endswith(".py"):
            for one in functions(module):
                if id(one) not in seen:
                    seen.add(id(one))
                    atheris.instrument_func(one)
    return len(seen)


def main(name: str, seconds: int, work: Path) -> None:
    """libFuzzer's loop; its own lines tell coverage and speed."""
    pair = Pair(name)
    watched = Watched(work / "input")
    found = Findings(pair, watched.begin)
    kind = pair.kind
    folder, start = work / "corpus", work / "start"
    for one in (folder, start):
        one.mkdir(parents=True, exist_ok=True)
    pieces = [*kind.corpus(), *(path.read_bytes() for path in seeds(name))]
    for place, octets in enumerate(pieces):
        (start / f"{place:05}").write_bytes(octets[: kind.longest])
    print(f"instrumented {instrument()} functions", flush=True)
    target = pair.plain if not kind.cold else pair.fast

    def one_input(octets: bytes) -> None:
        watched.begin(octets)
        try:
            view: Any = target.run(octets)
            if not kind.cold and view != pair.fast.run(octets):
                pair.check(octets)
        except Exception as error:
            if line := found.take(octets, error):
                print(f"FOUND {line}", flush=True)

    def change(octets: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            octets = atheris.Mutate(octets, most)
        else:
            octets = mutate(octets, random, pieces, kind.pieces, most)
        return pair.fast.repair(octets)[:most] if random.randrange(2) else octets

    options = [f"-max_total_time={seconds}", f"-max_len={kind.longest}", "-timeout=60", "-rss_limit_mb=3000",
               "-print_final_stats=1", "-len_control=0", f"-artifact_prefix={work}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder), str(start)], one_input, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(float(sys.argv[2])), Path(sys.argv[3]))
