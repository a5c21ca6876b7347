"""What a user chose for the screens: theme, columns, keys; one JSON file in the configuration folder."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_THEME = "otus-dark"
COLOUR_MODES = ("class", "cseq")


def config_folder() -> Path:
    """`$XDG_CONFIG_HOME/otus`."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base) / "otus"


def sngrep_aliases() -> dict[str, str]:
    """The `alias` lines of sngrep's own file (`$SNGREPRC`, else `~/.sngreprc`), if there is one."""
    path = os.environ.get("SNGREPRC") or os.path.join(os.path.expanduser("~"), ".sngreprc")
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) == 3 and words[0] == "alias":
                found[words[1]] = words[2]
    return found


@dataclass
class Settings:
    """The settings; a file that cannot be read gives the defaults and a problem to show."""

    theme: str = DEFAULT_THEME
    columns: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Action id -> keys, comma between: {"table.filter": "slash,f3"}."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Address, or address:port -> name."""
    borrowed: dict[str, str] = field(default_factory=dict)
    """Aliases from sngrep's file; not written to ours."""
    ascii: bool | None = None
    """Draw with ASCII signs only; None is as the terminal's locale says."""
    colours: str = "class"
    """What the colours of a ladder tell: class or cseq."""
    show_aliases: bool | None = None
    """Names instead of addresses; None is where there are aliases of our own."""
    path: Path | None = None
    problem: str = ""

    def alias(self, endpoint: str) -> str:
        """The name of an address with or without port; itself where it has none."""
        for names in (self.aliases, self.borrowed):
            if endpoint in names:
                return names[endpoint]
            address, colon, port = endpoint.rpartition(":")
            if colon and port.isdigit() and address.strip("[]") in names:
                return f"{names[address.strip('[]')]}:{port}"
        return endpoint

    @classmethod
    def load(cls, path: Path | None = None) -> Settings:
        """Read the file, if it is there."""
        path = path or config_folder() / "screens.json"
        settings = cls(path=path, borrowed=sngrep_aliases())
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return settings
        except (OSError, ValueError) as error:
            settings.problem = f"{path}: {error}"
            return settings
        if not isinstance(data, dict):
            settings.problem = f"{path}: an object is wanted"
            return settings
        if isinstance(data.get("theme"), str):
            settings.theme = data["theme"]
        if data.get("colours") in COLOUR_MODES:
            settings.colours = data["colours"]
        for name in ("ascii", "show_aliases"):
            if isinstance(data.get(name), bool):
                setattr(settings, name, data[name])
        columns = data.get("columns")
        if isinstance(columns, dict):
            settings.columns = {
                store: [str(key) for key in keys] for store, keys in columns.items() if isinstance(keys, list)
            }
        for name in ("keys", "aliases"):
            value = data.get(name)
            if isinstance(value, dict):
                setattr(settings, name, {str(k): str(v) for k, v in value.items()})
        return settings

    def set_columns(self, store: str, columns: list[str] | None) -> None:
        """Remember the columns of a table; None means by width again."""
        if columns is None:
            self.columns.pop(store, None)
        else:
            self.columns[store] = columns
        self.save()

    def save(self) -> None:
        """Write the file as a whole; a folder that cannot be written is no reason to stop."""
        if self.path is None or self.problem:
            return
        names = ("theme", "columns", "keys", "aliases", "ascii", "colours", "show_aliases")
        data = {name: getattr(self, name) for name in names}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
            os.replace(part, self.path)
