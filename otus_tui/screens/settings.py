"""What can be set: interface and filter of the live task, and how the screens look."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from engine.errors import OtusError
from otus_tui import format as fmt
from otus_tui import glyphs
from otus_tui.client import ClientError
from otus_tui.model import GOING_ON, LIVE
from otus_tui.screens.dialogs import AskText, Choose
from otus_tui.settings import COLOUR_MODES

if TYPE_CHECKING:
    from engine.snapshot import TaskSection
    from otus_tui.app import OtusApp

COLOUR_WORDS = {"class": "by class of the message", "cseq": "by transaction (CSeq)"}


def live_task(app: OtusApp) -> TaskSection | None:
    """The task whose interface and filter can be changed here."""
    task = app.model.task
    return task if task and task["task_id"] == LIVE and task["driver"] != "pcap" else None


def open_settings(app: OtusApp, current: str = "") -> None:
    """Choose what to change; looks are changed at once, and all of them are kept."""
    options = []
    task = live_task(app)
    if task is not None:
        options = [
            ("interface", f"Interface: {fmt.clean(task['interface'])}"),
            ("filter", f"Filter: {fmt.clean(task['filter']) or 'none'}"),
        ]
    options += [
        ("ascii", f"Signs: {'ASCII only' if app.glyphs.ascii_only else 'Unicode'}"),
        ("colours", f"Colours of ladders: {COLOUR_WORDS[app.settings.colours]}"),
        ("aliases", f"Addresses: {'by their aliases' if app.aliases_on else 'as they are'}"),
        ("keys", "Keys of this screen"),
    ]
    options += [
        (theme, f"Theme: {title}{'  (in use)' if theme == app.theme else ''}")
        for theme, title in app.theme_titles.items()
    ]
    where = app.settings.path
    note = f"kept in {where}" if where and not app.settings.problem else "not kept"
    app.push_screen(
        Choose("Settings", options, current or options[0][0], note),
        lambda answer: _chosen(app, answer) if answer else None,
    )


def _chosen(app: OtusApp, answer: str) -> None:
    if answer == "keys":
        app.action_help()
    elif answer in ("interface", "filter"):
        _ask(app, answer)
    elif answer == "ascii":
        app.settings.ascii = not app.glyphs.ascii_only
        app.glyphs = glyphs.choose(app.settings.ascii)
        app.settings_changed()
        open_settings(app, answer)
    elif answer == "colours":
        at = COLOUR_MODES.index(app.settings.colours)
        app.settings.colours = COLOUR_MODES[(at + 1) % len(COLOUR_MODES)]
        app.settings_changed()
        open_settings(app, answer)
    elif answer == "aliases":
        app.action_aliases()
        open_settings(app, answer)
    else:
        app.set_theme(answer)


# --- the live task


def _ask(app: OtusApp, key: str, text: str | None = None, note: str = "") -> None:
    """A new interface or filter; `note` says what was wrong with the one before."""
    task = live_task(app)
    if task is None:
        return
    before = task["interface"] if key == "interface" else task["filter"]
    if key == "interface":
        title = "Capture from"
        note = note or f"a name, a,b or any; here: {', '.join(n for _, n in socket.if_nameindex())}"
    else:
        title = "Capture only packets that match (tcpdump syntax, empty is all)"

    def done(answer: str | None) -> None:
        if answer is not None and answer.strip() != before:
            change = _check(app, answer.strip()) if key == "interface" else _filter(app, answer.strip())
            app.run_worker(change, group="settings", exit_on_error=False)

    lines = [fmt.clean(line, app.glyphs.ascii_only) for line in note.splitlines()]
    app.push_screen(AskText(title, before if text is None else text, "\n".join(lines)), done)


async def _filter(app: OtusApp, text: str) -> None:
    """Another filter on the running rings; one that cannot be is asked for again, and the old one stays."""
    try:
        await app.ask("set_filter", task_id=LIVE, filter=text)
        app.notify(f"capturing with filter {fmt.clean(text, app.glyphs.ascii_only) or 'none'}")
    except ClientError as error:
        _ask(app, "filter", text, f"{error.message}\n{error.hint}")


async def _check(app: OtusApp, text: str) -> None:
    """What is wrong with an interface is said before anything is stopped."""
    from engine.daemon import check

    try:
        await asyncio.to_thread(check, [f"--interface={text}"])
    except OtusError as error:
        _ask(app, "interface", text, f"{error.message}\n{error.hint}")
        return
    app.push_screen(
        Choose(
            f"Capture from {fmt.clean(text, app.glyphs.ascii_only)}?",
            [("yes", "Stop the task live and start it anew"), ("", "Keep it as it is")],
            note="What was seen so far is forgotten.",
        ),
        lambda answer: _start_anew(app, text) if answer else None,
    )


def _start_anew(app: OtusApp, text: str) -> None:
    app.run_worker(anew(app, text), group="settings", exit_on_error=False)


async def anew(app: OtusApp, interface: str) -> None:
    """The live task on another interface; if that cannot be, as it was before."""
    try:
        found = await app.ask("task_status", task_id=LIVE)
        before: dict[str, Any] = found["config"]
        wanted = {**before, "capture": {**before["capture"], "interface": interface}}
        if found["state"] in GOING_ON:
            await app.ask("stop_task", task_id=LIVE)
    except ClientError as error:
        _tell(app, error)
        return
    try:
        await app.ask("create_task", config=wanted)
        app.notify(f"capturing with interface {interface}")
    except ClientError as error:
        _tell(app, error)
        if await app.tell("create_task", config=before) is not None:
            app.notify("the task runs as before")


def _tell(app: OtusApp, error: ClientError) -> None:
    app.notify(f"{error.message}\n{error.hint}".strip(), severity="error")
