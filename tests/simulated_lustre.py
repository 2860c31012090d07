"""A simulated Lustre for one test: made in a temporary directory, driven through its programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))  # simlustre is a tool beside the package, not installed with it

from simlustre import audit, install  # noqa: E402
from simlustre.faults import check_rule  # noqa: E402
from simlustre.files import stored  # noqa: E402
from simlustre.layout import Layout  # noqa: E402
from simlustre.state import State  # noqa: E402


class SimulatedLustre:
    """One SIMROOT. `mount` is the directory of its first file system."""

    def __init__(self, root: Path, sim: dict[str, Any], attributes: str = "auto") -> None:
        install.install(root, sim, attributes)
        self.root = root.resolve()
        self.bin = self.root / "bin"
        self.mount = self.root / sim["filesystems"][0]["mount"]

    # Running its programs.

    def start(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.bin / program, *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs in the mount, so that relative names may be given."""
        command = [self.bin / program, *map(str, arguments)]
        options = {"cwd": self.mount, "timeout": 60, **options}
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **options
        )
        return subprocess.CompletedProcess(
            command, result.returncode, os.fsdecode(result.stdout), os.fsdecode(result.stderr)
        )

    def lfs(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("lfs", *arguments, **options)

    def said(self, *arguments: str | Path) -> str:
        """The stdout of an `lfs` that has to succeed."""
        result = self.lfs(*arguments)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def simctl(self, *arguments: str | Path) -> str:
        """The stdout of a `simctl` that has to succeed."""
        result = self.run("simctl", *arguments)
        assert result.returncode == 0, result
        return result.stdout

    # Bringing about a situation, without starting a program for each step.

    def file(self, name: str, size: int = 10, *layout: str) -> Path:
        """A file with a layout as `lfs setstripe` makes it (`-i`, `3`), and so many bytes in it."""
        path = self.mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if layout:
            self.said("setstripe", *layout, path)
        with path.open("ab") as file:
            file.write(os.urandom(size))
        return path

    def ost(self, *osts: int, **columns: Any) -> None:
        """Change columns of OSTs at once: `state="down", code=110`."""
        with closing(self.state()) as state, state.writing():
            for ost in osts:
                for column, value in columns.items():
                    state.db.execute(f"UPDATE ost SET {column} = ? WHERE idx = ?", (value, ost))

    def setting(self, name: str, value: object) -> None:
        with closing(self.state()) as state, state.writing():
            state.db.execute("UPDATE setting SET value = ? WHERE name = ?", (str(value), name))

    def fault(self, **rule: Any) -> None:
        check_rule(rule)
        with closing(self.state()) as state, state.writing():
            row = (json.dumps(rule, separators=(",", ":")), rule.get("count"))
            state.db.execute("INSERT INTO fault (rule, remaining) VALUES (?, ?)", row)

    # Looking at it.

    def state(self) -> State:
        return install.open_state(self.root)

    def layout(self, path: Path) -> Layout:
        with closing(self.state()) as state:
            layout = stored(state, str(path))
        assert layout is not None
        return layout

    def osts_of(self, path: Path) -> list[int]:
        return self.layout(path).osts()

    def verify(self) -> dict[str, Any]:
        with closing(self.state()) as state:
            return audit.verify(state)

    def rescan(self) -> dict[str, int]:
        with closing(self.state()) as state:
            return audit.rescan(state)

    def report(self) -> dict[str, Any]:
        with closing(self.state()) as state:
            return audit.report(state)

    def marks(self) -> dict[str, dict[str, int]]:
        """High-water marks of the first file system: {scope: {name: most migrations at once}}."""
        with closing(self.state()) as state:
            return audit.high_water(state, state.filesystems()[0])

    def bytes_on(self, ost: int) -> int:
        return self._counter(ost).bytes

    def objects_on(self, ost: int) -> int:
        return self._counter(ost).objects

    def _counter(self, index: int) -> Any:
        with closing(self.state()) as state:
            (ost,) = state.some_osts(state.filesystems()[0], [index])
        return ost

    def calls(self) -> list[dict[str, Any]]:
        log = self.root / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def simulated_lustre(
    root: Path, *, settings: dict[str, Any] | None = None, attributes: str = "auto", **filesystem: Any
) -> SimulatedLustre:
    """A small simulation in which nothing takes time, unless the settings say otherwise."""
    settings = {"time_scale": 0, "down_block_s": 0.2, **(settings or {})}
    filesystem = {"osts": 6, "mdts": 2, "oss": 3, "fill": (40.0, 60.0), **filesystem}
    sim = install.world([install.description(**filesystem)], **settings)
    return SimulatedLustre(root / "sim", sim, attributes)
