"""The health of an engine in one sentence, from its snapshot."""

from __future__ import annotations

from typing import Any

from otus_tui.cli.common import clean, number


def health(snapshot: dict[str, Any]) -> dict[str, Any]:
    """`ok`, `problems` (a list of sentences) and `text`, the one line of both."""
    tasks = snapshot.get("tasks") or []
    problems = [problem for task in tasks for problem in _task_problems(task)]
    sip = snapshot.get("sip") or {}
    if sip.get("lost"):
        problems.append(f"{counted(sip['lost'], 'record')} lost on the way to the calls process")
    if sip.get("restarts"):
        problems.append(f"the calls process was restarted {counted(sip['restarts'], 'time')}")
    running = sum(task["state"] == "running" for task in tasks)
    packets = sum(task["books"]["received"] for task in tasks)
    if problems:
        text = "▲ " + "; ".join(problems)
    elif not tasks:
        text = "ok: no task"
    else:
        text = f"ok: {counted(running, 'task')} running, {counted(packets, 'packet')}"
        text += ", nothing lost, books even"
    return {"ok": not problems, "problems": problems, "text": text}


def counted(count: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def _task_problems(task: dict[str, Any]) -> list[str]:
    name = clean(task["task_id"])
    problems = []
    if task["state"] == "failed" or task["error"]:
        reason = f": {clean(task['error'])}" if task["error"] else ""
        problems.append(f"task {name} {task['state']}{reason}")
    books = task["books"]
    for layer, names in books["dropped"].items():
        lost = sum(count for count in names.values() if count)
        if layer != "left_out" and lost:
            problems.append(f"{counted(lost, 'packet')} lost in {layer}")
    if not books["even"]:
        problems.append(f"books off by {number(books['difference'])}")
    restarts = sum(worker["restarts"] for worker in task["workers"])
    if restarts:
        problems.append(f"{counted(restarts, 'restart')} of workers")
    sender = max((reporter["restarts"] for reporter in task["reporters"]), default=0)
    if sender:
        problems.append(f"{counted(sender, 'restart')} of the sender")
    down = dict.fromkeys((ring["interface"], ring["link"]) for ring in task["capture"])
    problems += [f"link {clean(place)} {link}" for place, link in down if link in ("down", "gone")]
    for reporter in task["reporters"]:
        if reporter.get("problem"):
            problems.append(f"reporter {clean(reporter['type'])}: {clean(reporter['problem'])}")
    return problems
