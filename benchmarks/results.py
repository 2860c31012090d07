"""Runs a benchmark and writes what it says into its section of `RESULTS.md`.

    python benchmarks/results.py NAME SCRIPT [ARGUMENT …]

SCRIPT is a file or `-m MODULE` for this Python. The last line that it prints is JSON: one object becomes a table of
figures, with a goal for each `x` that an `x_goal` stands next to; a list of objects becomes a table with their keys
as titles. Nothing is written if the benchmark fails.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    name, *command = sys.argv[1:]
    print(f"{name}: {' '.join(command)}", file=sys.stderr)
    ended = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    if ended.returncode != 0:
        print(f"{name}: ended with {ended.returncode}, nothing is written", file=sys.stderr)
        return ended.returncode
    table = as_table(json.loads(ended.stdout.splitlines()[-1]))
    head = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {machine()}\n\n    python {' '.join(map(quoted, command))}\n"
    text = replaced(FILE.read_text(encoding="utf-8"), name, f"{head}\n{table}")
    FILE.write_text(text, encoding="utf-8")
    return 0


def as_table(report: Any) -> str:
    if isinstance(report, list):
        titles = list(report[0])
        rows = [list(row.values()) for row in report]
    else:
        titles = ["figure", "measured", "goal"]
        rows = [
            [key, shown(value), shown(report.get(f"{key}_goal", ""))]
            for key, value in report.items()
            if not key.endswith("_goal")
        ]
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def shown(value: Any) -> str:
    match value:
        case None:
            return "-"
        case dict():
            return ", ".join(f"{key} {shown(each)}" for key, each in value.items())
        case list():
            return ", ".join(map(shown, value))
        case float() | int():
            return f"{value:,}"
        case _:
            return str(value)


def machine() -> str:
    """Where this was measured, and how busy it was with other things."""
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="ascii"))
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cpus ({models[0] if models else platform.machine()}), "
        f"Linux {platform.release()}, Python {platform.python_version()}, load average {load:.1f}"
    )


def quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def replaced(text: str, name: str, section: str) -> str:
    """The text with this between the marks of the section."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        sys.exit(f"{FILE}: no section {name}")
    return f"{before}{begin}{section}{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    sys.exit(main())
