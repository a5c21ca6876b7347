"""Every action of the screens, once: feeds the bindings, the key line, the palette, the help and the docs.

A scope is a place where an action works. A screen takes the scopes that it serves; the scope `app`
works everywhere. The id is the name under which a user binds other keys (`keys` in the settings).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a user can do."""

    scope: str
    name: str
    """Method `action_<name>` of the app, the screen or the widget."""
    keys: tuple[str, ...]
    label: str
    """One or two words for the key line and the palette."""
    about: str
    """One sentence for the help and the docs."""
    rank: int = 0
    """Place in the key line, smaller first; 0 is not shown there."""
    argument: str = ""

    @property
    def id(self) -> str:
        """`scope.name`, with the argument where one method serves several keys."""
        return f"{self.scope}.{self.name}" + (f".{self.argument}" if self.argument else "")

    @property
    def call(self) -> str:
        """The action as Textual runs it."""
        return f"{self.name}('{self.argument}')" if self.argument else self.name


SCOPES = {
    "app": "Everywhere",
    "move": "Tables and texts",
    "table": "Tables",
    "calls": "Calls",
    "media": "Media",
    "tcp": "TCP",
    "connection": "TCP connection",
    "drops": "Drops",
    "flow": "Call flow",
    "text": "Messages and texts",
    "message": "Message",
    "overview": "Overview",
    "tasks": "Tasks",
}
"""Scopes in the order of the help, with their titles."""

SHADOWS = {("flow", "d"), ("flow", "9"), ("tcp", "g")}
"""(scope, key) that may take a key from the scopes `app` and `move`."""

SCREENS = (
    ("1", "overview", "Overview"),
    ("2", "calls", "Calls"),
    ("3", "media", "Media"),
    ("4", "tcp", "TCP"),
    ("5", "drops", "Drops"),
    ("8", "tasks", "Tasks"),
)
"""Key, mode and title of the screens, in the order of the screens line."""


def _screens() -> Iterable[Action]:
    about = {
        "overview": "What the engine sees, in short.",
        "calls": "The list of calls and other dialogs.",
        "media": "The media streams with loss and jitter.",
        "tcp": "What the kernel's TCP does on this host: RTT, retransmits, states, connections.",
        "drops": "Where packets were lost, by layer and worker, and whether the books are even.",
        "tasks": "The tasks of the engine, their filters, workers and reporters.",
    }
    for key, mode, title in SCREENS:
        yield Action("app", "show", (key,), title, about[mode], argument=mode)


ACTIONS: tuple[Action, ...] = (
    Action("app", "help", ("f1", "question_mark"), "keys", "The keys of this screen.", 90),
    Action(
        "app", "command_palette", ("ctrl+p", "colon"), "palette", "Find any action or screen by its name."
    ),
    Action("app", "back", ("escape",), "back", "Back to where you came from.", 91),
    Action(
        "app",
        "leave",
        ("q",),
        "quit",
        "Back; on a first screen leave, and choose whether the engine goes on.",
        99,
    ),
    Action("app", "quit_now", ("ctrl+q", "ctrl+c"), "leave", "Ask to leave, from any screen."),
    Action("app", "detach", ("d",), "detach", "Leave; the engine goes on (otus-tui attach comes back).", 98),
    Action("app", "suspend_process", ("ctrl+z",), "to the shell", "Out to the shell; fg comes back."),
    Action(
        "app",
        "settings",
        ("f8", "o"),
        "settings",
        "Interface and filter of the live task; signs, colours, aliases and theme.",
    ),
    Action("app", "aliases", ("a",), "aliases", "Names instead of addresses, or not."),
    *_screens(),
    # --- moving
    Action("move", "cursor_up", ("up", "k"), "up", "One line up."),
    Action("move", "cursor_down", ("down", "j"), "down", "One line down."),
    Action("move", "cursor_left", ("left", "h"), "left", "To the left where it is wider than the screen."),
    Action(
        "move", "cursor_right", ("right", "l"), "right", "To the right where it is wider than the screen."
    ),
    Action("move", "page_up", ("pageup", "ctrl+b"), "page up", "One page up."),
    Action("move", "page_down", ("pagedown", "ctrl+f"), "page down", "One page down."),
    Action("move", "half_up", ("ctrl+u",), "half page up", "Half a page up."),
    Action("move", "half_down", ("ctrl+d",), "half page down", "Half a page down."),
    Action("move", "top", ("home", "ctrl+a", "g"), "first", "To the first line."),
    Action("move", "bottom", ("end", "ctrl+e", "G"), "last", "To the last line."),
    # --- tables
    Action("table", "open", ("enter",), "open", "Open what the cursor is on.", 1),
    Action("table", "mark", ("space",), "mark", "Mark this row, or take the mark away.", 8),
    Action("table", "filter", ("slash", "f3"), "filter", "Show only the rows that an expression keeps.", 2),
    Action("table", "sort_prev", ("less_than_sign",), "sort left", "Sort by the column to the left."),
    Action("table", "sort_next", ("greater_than_sign",), "sort", "Sort by the column to the right.", 5),
    Action("table", "reverse", ("z",), "reverse", "Turn the order round."),
    Action("table", "columns", ("f10", "t"), "columns", "Choose the columns.", 7),
    Action("table", "follow", ("A",), "follow", "Stay with the newest row.", 6),
    Action("table", "pause", ("p",), "pause", "Hold the view still; the capture goes on.", 3),
    Action("table", "clear", ("f5", "ctrl+l"), "clear", "Forget all rows."),
    Action(
        "table", "clear_others", ("f9",), "clear others", "Forget all rows but those that the filter shows."
    ),
    Action("table", "save", ("f2", "s"), "save", "Write the marked rows, or those shown, to a file.", 4),
    Action("table", "copy", ("y",), "copy", "Copy the row under the cursor."),
    # --- calls
    Action("calls", "statistics", ("i",), "statistics", "Methods, codes and states that were counted."),
    Action("calls", "raw", ("f6", "r"), "raw", "All messages of the call as they were on the wire."),
    Action("calls", "filter_form", ("f7", "f"), "filter form", "Put a filter together from a form."),
    # --- TCP
    Action("tcp", "heat_map", ("m",), "heat map", "RTT over time instead of the figures, and back.", 2),
    Action("tcp", "group", ("g",), "group", "Sums by process, then by peer, local port, remote port.", 2),
    Action("tcp", "listeners", ("L",), "listeners", "The listening sockets: queues, limits, drops.", 3),
    Action("tcp", "retry", ("r",), "try again", "Start an observer that could not start once more."),
    Action("connection", "save", ("f2", "s"), "save", "Write the figures and events to a file.", 2),
    Action("connection", "copy", ("y",), "copy", "Copy the figures and events."),
    Action("drops", "kernel", ("K",), "kernel drops", "To what the kernel dropped, and back up.", 1),
    Action("drops", "retry", ("r",), "try again", "Start a TCP observer that could not start once more."),
    # --- call flow
    Action("flow", "open", ("enter",), "message", "The message of this arrow, or figures of this stream.", 1),
    Action("flow", "mark", ("space",), "mark, compare", "Mark a message; on a second one, compare the two."),
    Action("flow", "compress", ("s",), "columns", "A column per address, or per address and port.", 4),
    Action("flow", "sdp_mode", ("d", "f2"), "SDP", "SDP: a mark, the first media, all media, not at all.", 3),
    Action("flow", "only_sdp", ("D",), "only SDP", "Only messages with SDP."),
    Action("flow", "media", ("m", "f3"), "media", "Media arrows on or off.", 2),
    Action("flow", "only_media", ("M",), "only media", "Only media arrows."),
    Action("flow", "times", ("w",), "times", "Time between messages, since the first, or of day.", 5),
    Action("flow", "colours", ("c",), "colours", "Colour by request and response, or by CSeq."),
    Action("flow", "panel", ("t",), "panel", "The message beside the ladder, or not.", 6),
    Action("flow", "panel_wider", ("9",), "wider", "A wider message panel."),
    Action("flow", "panel_narrower", ("0",), "narrower", "A narrower message panel."),
    Action("flow", "panel_reset", ("T",), "panel width", "The message panel in its own width."),
    Action("flow", "raw", ("f6", "r"), "raw", "All messages of the call as they were on the wire."),
    Action("flow", "save", ("S",), "save", "Write the ladder to a text file."),
    # --- texts
    Action("text", "find", ("slash",), "find", "Find text.", 7),
    Action("text", "find_next", ("n",), "next", "The next place of the text that was looked for."),
    Action("text", "find_previous", ("N",), "previous", "The place before."),
    # --- message
    Action("message", "syntax", ("C",), "syntax", "Colours in the message on or off."),
    Action("message", "wrap", ("w",), "wrap", "Long lines wrapped or cut.", 3),
    Action("message", "next_message", ("right_square_bracket",), "next message", "The next message.", 1),
    Action("message", "previous_message", ("left_square_bracket",), "previous message", "The one before.", 2),
    Action("message", "save", ("f2", "s", "S"), "save", "Write the message to a file.", 4),
    Action("message", "copy", ("y",), "copy", "Copy the message."),
    # --- overview, tasks
    Action("overview", "open", ("enter",), "explain", "What this figure is made of.", 1),
    Action("tasks", "stop_task", ("x", "delete"), "stop task", "Stop the task under the cursor.", 2),
    Action("tasks", "open", ("enter",), "drops", "The drops of this task.", 1),
)


def of(*scopes: str) -> list[Action]:
    """The actions of these scopes, in the registry's order."""
    return [action for action in ACTIONS if action.scope in scopes]


def bindings(*scopes: str) -> list[Binding]:
    """Textual's bindings for these scopes."""
    return [
        Binding(
            ",".join(action.keys),
            action.call,
            action.label,
            show=False,
            tooltip=action.about,
            id=action.id,
            priority="ctrl+c" in action.keys,
        )
        for action in of(*scopes)
    ]


_KEY_NAMES = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "space": "Space",
    "enter": "↵",
    "escape": "Esc",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "delete": "Del",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}


def key_name(key: str) -> str:
    """A key as a person calls it: `F3`, `^B`, `/`."""
    if key in _KEY_NAMES:
        return _KEY_NAMES[key]
    if key.startswith("ctrl+"):
        return "^" + key[5:].upper()
    if len(key) > 1 and key[0] == "f" and key[1:].isdigit():
        return key.upper()
    return key


def markdown() -> str:
    """The table of keys for the user guide."""
    lines: list[str] = []
    for scope, title in SCOPES.items():
        found = of(scope)
        if not found:
            continue
        lines += [f"### {title}", "", "| keys | action | what it does |", "|---|---|---|"]
        for action in found:
            keys = " ".join(f"`{key_name(key)}`" for key in action.keys)
            lines.append(f"| {keys} | `{action.id}` | {action.about} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print("# Keys\n\nThe ids are the names under which other keys can be set (`keys` in the settings).\n")
    print(markdown(), end="")
