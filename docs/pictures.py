"""Make the pictures of the docs: real screens over a real engine that reads the demonstration capture.

python docs/pictures.py [CAPTURE]
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from otus_tui import demo
from otus_tui.app import OtusApp
from otus_tui.client import Client
from otus_tui.control_client import start_private_engine
from otus_tui.settings import Settings

FOLDER = Path(__file__).parent / "images"
PICTURES = (
    ("calls", (120, 30), ()),
    ("flow", (140, 34), ("down", "enter", "down", "down", "down")),
    ("media", (120, 24), ("3",)),
)


async def make(capture: str, node: Path) -> None:
    """Write one SVG per entry of PICTURES."""
    for name, size, keys in PICTURES:
        client = await Client.connect(start_private_engine([f"--file={capture}", f"--config={node}"]))
        app = OtusApp(client, private=True, initial_screen="calls", settings=Settings(), ascii_only=False)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(2.0)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(1.0)
            picture = app.export_screenshot(title=f"otus-tui: {name}")
        await client.close()
        # A picture asks no other host for its letters.
        picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")


def main() -> None:
    """Over the capture that is named, or over the demonstration."""
    with tempfile.TemporaryDirectory() as folder:
        path, node = Path(folder) / "demonstration.pcap", Path(folder) / "otus.yml"
        path.write_bytes(demo.capture())
        node.write_text("otus:\n  node:\n    id: edge-1\n", encoding="utf-8")
        asyncio.run(make(sys.argv[1] if len(sys.argv) > 1 else str(path), node))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    main()
