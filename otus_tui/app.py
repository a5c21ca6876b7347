"""The application: the connection to an engine, the screens over it, and the ways out."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import SystemCommand

from engine.errors import ExitCode, OtusError
from otus_tui import actions, glyphs, themes
from otus_tui import format as fmt
from otus_tui.client import Client, ClientError
from otus_tui.leaving import WayOut
from otus_tui.model import Model
from otus_tui.settings import Settings
from otus_tui.terminal import check_terminal, painted
from otus_tui.typeahead import OrderlyApp
from otus_tui.widgets.ink import Inks

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from textual.binding import BindingType
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from engine.snapshot import Snapshot
    from otus_tui.screens.frame import FrameScreen
    from otus_tui.widgets.frame import LoadBar

SECTIONS = ["engine", "tasks", "sip", "media", "tcp"]
SNAPSHOT_HZ = 2
RETRY_S = (0.5, 1.0, 2.0, 3.0, 5.0)


def _later(module: str, name: str) -> Callable[[], Screen[Any]]:
    """A screen that is imported when it is first shown."""

    def make() -> Screen[Any]:
        screen: Screen[Any] = getattr(importlib.import_module(f"otus_tui.screens.{module}"), name)()
        return screen

    return make


class OtusApp(OrderlyApp):
    """The workstation. Its result says what shall become of the engine: stop, detach or leave."""

    TITLE = "otus"
    CSS_PATH = themes.STYLE_SHEET
    ENABLE_COMMAND_PALETTE = True
    PAUSE_GC_ON_SCROLL = True
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("app")]
    MODES: ClassVar[dict[str, Any]] = {
        "overview": _later("overview", "OverviewScreen"),
        "calls": _later("calls", "CallsScreen"),
        "media": _later("media", "MediaScreen"),
        "tcp": _later("tcp", "TcpScreen"),
        "drops": _later("drops", "DropsScreen"),
        "tasks": _later("tasks", "TasksScreen"),
    }

    def __init__(
        self,
        client: Client | None = None,
        *,
        path: str | None = None,
        private: bool = False,
        initial_screen: str = "overview",
        calls_only: bool = False,
        started: bool = False,
        settings: Settings | None = None,
        clock: Callable[[], int] = time.time_ns,
        ascii_only: bool | None = None,
    ) -> None:
        # Textual's greys of NO_COLOR are colours too: the terminal's own ones and attributes are none.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.model = Model(clock)
        self.client = client
        self.path = path
        self.private = private
        self.initial_screen = initial_screen
        self.calls_only = calls_only
        self.started = started
        """Whether the engine was started for these screens: else Enter on leaving lets it run."""
        self.settings = settings or Settings.load()
        if ascii_only is None and not os.environ.get("OTUS_ASCII"):
            ascii_only = self.settings.ascii
        self.glyphs = glyphs.choose(ascii_only)
        self.theme_titles: dict[str, str] = {}
        shown = self.settings.show_aliases
        self.aliases_on = bool(self.settings.aliases) if shown is None else shown
        self._inks: tuple[str, Inks] | None = None

    # --- set-up

    def get_theme_variable_defaults(self) -> dict[str, str]:
        if not hasattr(self, "_ink_defaults"):
            text = (themes.FOLDER / "otus-dark.toml").read_text(encoding="utf-8")
            self._ink_defaults = themes.parse_theme(text)[0].variables
        return {k: v for k, v in self._ink_defaults.items() if k.startswith("ink-")}

    @property
    def inks(self) -> Inks:
        """The styles of the theme in use."""
        theme = self.current_theme
        if self._inks is None or self._inks[0] != theme.name:
            variables = {**self.get_theme_variable_defaults(), **theme.variables}
            self._inks = (theme.name, Inks(variables, theme.ansi or self.no_color))
        return self._inks[1]

    def _handle_exception(self, error: Exception) -> None:
        # Screens that come up while the program ends miss their parts: no fault that a person must read.
        if not self._exit:
            super()._handle_exception(error)

    def on_mount(self) -> None:
        self._load_themes()
        if self.glyphs.ascii_only:
            self.add_class("-ascii")
        if self.settings.keys:
            self.set_keymap(self.settings.keys)
        if self.settings.problem:
            self.notify(self.settings.problem, severity="warning", markup=False)
        self.set_interval(1.0, self._second)
        # Out of the shell again: the terminal has forgotten what was painted.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(repaint=True, layout=True))
        if self.client is not None:
            self.run_worker(self._take_client(self.client), exit_on_error=False)
        self.switch_mode(self.initial_screen)

    def _load_themes(self) -> None:
        found, problems = themes.load_themes()
        for theme, title in found:
            self.register_theme(theme)
            self.theme_titles[theme.name] = title
        wanted = self.settings.theme
        # Without colours the terminal's own attributes say what is selected.
        self.theme = (
            "otus-terminal" if self.no_color else wanted if wanted in self.theme_titles else "otus-dark"
        )
        self.set_class(self.current_theme.ansi, "-ansi")
        for problem in problems:
            self.notify(problem, severity="warning", markup=False)

    async def _take_client(self, client: Client) -> None:
        self.client = client
        self.model.hello = client.hello
        client.on_snapshot(self._snapshot)
        client.on_lost(self._lost)
        try:
            await client.call("subscribe", sections=SECTIONS, hz=SNAPSHOT_HZ)
            self._snapshot(await client.call("stats"))
        except ClientError as error:
            if client.lost is None:
                self.notify(f"{error.message} {error.hint}", severity="error", markup=False)

    # --- snapshots

    def _snapshot(self, snapshot: Snapshot) -> None:
        self.model.take(snapshot)
        self._model_changed()

    @property
    def frame(self) -> FrameScreen | None:
        """The screen in sight, also under a dialog."""
        from otus_tui.screens.frame import FrameScreen

        for screen in reversed(self.screen_stack):
            if isinstance(screen, FrameScreen):
                return screen
            if not screen.is_modal:
                return None
        return None

    def _second(self) -> None:
        frame = self.frame
        if frame is not None:
            frame.second_passed()

    # --- the connection

    async def ask(self, method: str, **params: Any) -> Any:
        """Call the engine; ClientError if it refuses or is gone."""
        if self.client is None:
            raise ClientError("not connected to an engine")
        return await self.client.call(method, **params)

    async def tell(self, method: str, **params: Any) -> Any:
        """Like `ask`, but an error is shown to the user and None comes back."""
        try:
            return await self.ask(method, **params)
        except ClientError as error:
            text = f"{error.message}\n{error.hint}" if error.hint else error.message
            self.notify(text, severity="error", markup=False)
            return None

    def _lost(self, reason: str) -> None:
        self.model.lost = reason
        self.model.notice = "q leaves" if self.private else "trying to reach it again"
        self._model_changed()
        if not self.private and self.is_running:
            self.run_worker(self._reconnect(), group="reconnect", exclusive=True, exit_on_error=False)

    async def _reconnect(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
            try:
                client = await Client.connect(self.path)
            except OtusError as error:
                self.model.notice = fmt.clean(f"tried {attempt} times: {error.message}")
                self._model_changed()
                continue
            break
        if self.client is not None:
            await self.client.close()
        self.model.lost = None
        self.model.history.samples.clear()
        await self._take_client(client)
        self._model_changed()
        self.notify(f"the engine is back (pid {client.hello.get('pid')})")

    def _model_changed(self) -> None:
        frame = self.frame
        if frame is not None:
            frame.call_later(frame.snapshot_arrived)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """A note in the corner. Texts of others may stand in it: nothing is obeyed, nothing is markup."""
        lines = [fmt.clean(line, self.glyphs.ascii_only) for line in message.split("\n")]
        super().notify("\n".join(lines), title=title, severity=severity, timeout=timeout, markup=False)

    # --- going places

    def action_show(self, mode: str) -> None:
        if self.screen.is_modal:
            return
        if mode == self.current_mode:
            # Its own number leads from anywhere above a screen down to it.
            while len(self.screen_stack) > 1:
                self.pop_screen()
            return
        self.switch_mode(mode)

    def open_filtered(self, mode: str, expression: str) -> None:
        """A numbered screen with this filter."""
        self.switch_mode(mode)
        if mode in ("calls", "media", "tcp"):
            self.call_later(self._filter_screen, mode, expression)

    def _filter_screen(self, mode: str, expression: str) -> None:
        from otus_tui.screens.table import TableScreen

        stack = self._screen_stacks.get(mode, [])
        while len(stack) > 1 and self.current_mode == mode and self.screen is not stack[0]:
            self.pop_screen()
        if stack and isinstance(stack[0], TableScreen):
            stack[0].set_filter(expression)

    def open_call(self, call: Any, stream: Any = None) -> None:
        """The ladder of a call; `stream`: with the cursor on the media stream of this id."""
        from otus_tui.screens.flow import FlowScreen

        self.push_screen(FlowScreen(call, stream))

    def open_raw(self, call: Any) -> None:
        """All messages of a call."""
        from otus_tui.screens.message import RawCallScreen

        self.push_screen(RawCallScreen(call))

    async def find_call(self, call_id: str) -> Any:
        """The store's id of the call with this Call-ID, or None."""
        quoted = call_id.replace("\\", "\\\\").replace('"', '\\"')
        answer = await self.tell("query", store="calls", filter=f'call_id == "{quoted}"', count=1, offset=0)
        if not answer or not answer["rows"]:
            return None
        return answer["rows"][0]["id"]

    async def action_back(self) -> None:
        from otus_tui.screens.frame import FrameScreen

        screen = self.screen
        if isinstance(screen, FrameScreen) and screen.back():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_leave(self) -> None:
        if len(self.screen_stack) > 1:
            self.pop_screen()
        else:
            self.action_quit_now()

    def action_quit_now(self) -> None:
        if self.private or self.client is None or self.model.lost is not None:
            self.exit("stop" if self.private else "leave")
            return
        from otus_tui.screens.dialogs import Choose

        if isinstance(self.screen, Choose) and self.screen.id == "quit":
            self.exit("detach")
            return
        dialog = Choose(
            "Leave otus-tui",
            [
                ("stop", "Stop the engine and its tasks"),
                ("detach", "Leave the engine running (otus-tui attach comes back)"),
                ("", "Stay here"),
            ],
            current="stop" if self.started else "detach",
            note="Esc stays",
        )
        dialog.id = "quit"
        self.push_screen(dialog, lambda answer: self.exit(answer) if answer else None)

    def action_detach(self) -> None:
        if self.private:
            self.notify("the engine of a file ends with its screens: q leaves", severity="warning")
        else:
            self.exit("detach")

    def action_suspend_process(self) -> None:
        if os.getpgrp() == os.getsid(0):
            self.notify("no shell is above these screens: nothing would wake them up", severity="warning")
        else:
            # As the terminal does it: whoever waits for this program in the same job stops, too.
            os.killpg(0, signal.SIGTSTP)

    def action_help(self) -> None:
        from otus_tui.screens.help import help_screen

        frame = self.frame
        self.push_screen(help_screen(self, frame.SCOPES if frame else ()))

    def action_settings(self) -> None:
        from otus_tui.screens.settings import open_settings

        open_settings(self)

    def named(self, endpoint: str) -> str:
        """An address (and port) under its alias, while aliases are shown."""
        return self.settings.alias(endpoint) if self.aliases_on else endpoint

    def action_aliases(self) -> None:
        if not (self.settings.aliases or self.settings.borrowed):
            where = self.settings.path or "the settings"
            self.notify(
                f'no alias: "aliases": {{"10.0.0.1": "proxy"}} in {where}, or alias lines in ~/.sngreprc',
                severity="warning",
                markup=False,
            )
            return
        self.aliases_on = self.settings.show_aliases = not self.aliases_on
        self.settings_changed()

    def settings_changed(self) -> None:
        """Keep the settings, and draw every screen anew."""
        from otus_tui.screens.frame import FrameScreen

        self.settings.save()
        self.set_class(self.glyphs.ascii_only, "-ascii")
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, FrameScreen) and screen.ready:
                    screen.settings_changed()

    def set_theme(self, name: str) -> None:
        """Use this theme from now on."""
        if self.no_color:
            self.notify("NO_COLOR is set: themes have no effect", severity="warning")
            return
        self.theme = name
        self.set_class(self.current_theme.ansi, "-ansi")
        self.settings.theme = name
        self.settings.save()

    def stop_loading(self, bar: LoadBar) -> None:
        """Esc while a file loads: what is read stays; the bar goes."""
        bar.hidden = True
        bar.update()
        task = self.model.task
        if task is not None:
            self.run_worker(self.tell("stop_task", task_id=task["task_id"]), exit_on_error=False)

    # --- keys and palette

    def keymap_keys(self, action: actions.Action) -> tuple[str, ...]:
        """The keys of an action, the user's own if there are any."""
        own = self.settings.keys.get(action.id)
        return tuple(own.split(",")) if own else action.keys

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        frame = self.frame
        for action in actions.of(*(frame.SCOPES if frame else ()), "app"):
            if action.name in ("command_palette", "back"):
                continue
            keys = " ".join(actions.key_name(key) for key in self.keymap_keys(action))
            title = f"{action.label} ({keys})" if keys else action.label
            yield SystemCommand(title, action.about, self._runner(action))
        for name, title in self.theme_titles.items():
            yield SystemCommand(f"theme: {title}", "Colours.", lambda name=name: self.set_theme(name))

    def _runner(self, action: actions.Action) -> Callable[[], Any]:
        return lambda: self.call_later(self.simulate_action, action.call)

    async def simulate_action(self, call: str) -> None:
        """Run an action where its key would have worked: the focused widget, the screen, the application."""
        node: Any = self.focused or self.screen
        name = call.split("(", 1)[0]
        while node is not None:
            if hasattr(node, f"action_{name}"):
                await self.run_action(call, node)
                return
            node = node.parent if node is not self.screen else self


# --- running -----------------------------------------------------------------------------------


def run(
    where: str | socket.socket | None = None,
    *,
    private: bool = False,
    initial_screen: str = "",
    calls_only: bool = False,
    started: bool = False,
    ascii_only: bool | None = None,
) -> int:
    """Show the screens over the engine at `where` (a socket's path, or a connection to a private engine).

    A private engine (of a capture file) ends with the screens; one that was `started` for them is offered
    to be stopped with them, any other to be left alone. Returns an exit code; OtusError
    if nobody answers, or the terminal cannot show a screen.
    """
    check_terminal()
    options = {
        "path": where if isinstance(where, str) else None,
        "private": private,
        "initial_screen": initial_screen or ("calls" if private else "overview"),
        "calls_only": calls_only,
        "started": started,
        "ascii_only": ascii_only,
    }
    return asyncio.run(_run(where, options))


async def _run(where: str | socket.socket | None, options: dict[str, Any]) -> int:
    client = await Client.connect(where)
    app = OtusApp(client, **options)
    loop = asyncio.get_running_loop()
    keyboard = sys.__stdin__
    way_out = WayOut(lambda: loop.call_soon_threadsafe(app.exit, "detach"))
    way_out.watch(keyboard.fileno() if keyboard is not None else 0)
    with painted():
        result = await app.run_async()
    return await _leave(app, result or "leave")


async def _leave(app: OtusApp, result: str) -> int:
    client = app.client
    if client is None:
        return ExitCode.FAILED
    code = ExitCode.DONE
    if client.lost is None:
        if app.private or result == "stop":
            try:
                await client.call("shutdown")
            except OtusError as error:
                if client.lost is None:
                    print(f"otus-tui: {error.message}", file=sys.stderr)
        elif result == "detach":
            path = f" --socket {app.path}" if app.path and os.environ.get("OTUS_SOCKET") != app.path else ""
            print(f"engine goes on: otus-tui attach{path}")
    else:
        if app.model.lost is not None and not app.private:
            print(f"otus-tui: {app.model.lost}", file=sys.stderr)
        code = ExitCode.FAILED
    await client.close()
    return app.return_code or code
