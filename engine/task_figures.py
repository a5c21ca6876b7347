"""What a task's section of the snapshot says of its workers and reporters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine.shm import counters as layout
from engine.shm import ring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.config import TaskConfig
    from engine.reporters.figures import SenderFigures
    from engine.shm.counters import Counters
    from engine.shm.region import Region
    from engine.snapshot import WorkerFigures
    from engine.supervisor import Child


def worker_figures(
    number: int, worker: Child, counters: Counters, send: Region | None, evidence: Region
) -> WorkerFigures:
    """One worker, from its process and its shared memory."""
    words = counters.words
    beat = int(words[layout.HEARTBEAT])
    first = layout.FIRST_LATENCY
    return {
        "index": number,
        "pid": worker.pid,
        "state": worker.state,
        "restarts": worker.restarts,
        "heartbeat_age_s": max(0.0, (time.monotonic_ns() - beat) / 1e9) if beat and worker.pid else None,
        "cpu": int(words[layout.CPU]) - 1 if words[layout.CPU] else None,
        "cpu_s": int(words[layout.CPU_TIME]) / 1e9,
        "counters": counters.as_dict(),
        "send_ring": ring.figures(send) if send is not None else None,
        "evidence_ring": ring.figures(evidence),
        "latency_buckets": list(words[first : first + layout.LATENCY_BUCKETS]),
    }


def reporter_figures(
    config: TaskConfig, figures: SenderFigures | None, sender: Child | None, problems: Sequence[str]
) -> list[dict[str, Any]]:
    """The reporters in the order of the task file; `problems` as the sender told them last."""
    if figures is None or sender is None:
        return []
    return [
        {
            "type": reporter.type,
            "target": reporter.config.get("path"),
            **figures.reporter(number),
            **figures.facts(),
            "problem": problems[number] if number < len(problems) else "",
            "sender_pid": sender.pid,
            "sender_state": sender.state,
            "restarts": sender.restarts,
        }
        for number, reporter in enumerate(config.all_reporters())
    ]
