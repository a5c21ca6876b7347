"""Run by CI with the Python of an environment that holds only the wheel: is everything in it?"""

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

import engine
from engine import resources
from engine.tcp.bcc import source as bcc

scripts = Path(sysconfig.get_path("scripts"))
installed = Path(sysconfig.get_path("platlib"))
failures = []


def check(holds: object, text: str) -> None:
    """Note what does not hold."""
    if not holds:
        failures.append(text)


check(Path(str(engine.__file__)).is_relative_to(installed), f"engine comes from {engine.__file__}")
check(resources.hot_modules(), "no .pxd in the wheel")
check(not resources.uncompiled(), f"not compiled: {resources.uncompiled()}")
for folder, name in (("bpf", "probe.bpf.o"), ("configs", ""), ("themes", "otus.tcss")):
    found = resources.data(folder, name)
    check(found.is_file() or (not name and any(found.iterdir())), f"no {folder}/{name}")
# Raises where a part is missing.
check("int segment(" in bcc.programs(), "no programs for BCC in the wheel")
for group in ("parser", "processor", "reporter"):
    for point in entry_points(group=f"otus.{group}"):
        point.load()
for command in ("otus-tui", "otus"):
    ran = subprocess.run([scripts / command, "doctor", "--json"], capture_output=True, text=True, check=False)
    check(ran.returncode == 0, f"{command} doctor: {ran.stderr}")
    levels = {f["name"]: f["level"] for f in json.loads(ran.stdout or "{}").get("findings", ())}
    check(levels.get("compiled") == "ok", f"{command} doctor does not find the compiled modules")
print(
    "wheel:", "; ".join(failures) or f"{len(resources.hot_modules())} compiled modules, data files, commands"
)
sys.exit(bool(failures))
