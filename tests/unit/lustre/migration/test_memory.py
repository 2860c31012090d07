"""A list of a million entries needs no more memory than a short one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ENTRIES = 1_000_000

#: Cyclone 2.x needed 208 bytes for each entry.
BYTES_MOST = 32_000_000

SCRIPT = """
import json, resource, sys
from pathlib import Path
from cyclone.lustre.migration.input_list import load, load_again
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.lines import Rules
from cyclone.lustre.migration.verdict import FileState, Report

directory, stop_at = Path(sys.argv[1]), int(sys.argv[2])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
inputs = Inputs(directory, Rules(b"/lustre"), settle_s=0)
for base in inputs.leftovers():
    inputs.admit(load_again(base, inputs.rules))
for base in inputs.waiting(0):
    inputs.admit(load(base, inputs.rules))
count = 0
sources = list(inputs.left())
while count < stop_at and any([inputs.has_more(source, 0) for source in sources]):
    for source in sources:
        for entry in inputs.take(source, 128, 0):
            inputs.on_started(entry, 9)
            inputs.on_final(entry, Report(FileState.SUCCESS))
            count += 1
    inputs.settle()
left = inputs.left().total()
inputs.close()
print(json.dumps({"count": count, "left": left, "bytes": peak() - before}))
"""


def worked(directory: Path, stop_at: int) -> dict[str, int]:
    """What one process says that works on the lists in this directory until it has done so many entries."""
    command = [sys.executable, "-c", SCRIPT, str(directory), str(stop_at)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {str(name): int(value) for name, value in json.loads(done.stdout).items()}


def test_a_million_entries_are_worked_off_in_little_memory_also_after_a_restart(tmp_path: Path) -> None:
    with open(tmp_path / "a.input", "wb") as file:
        file.writelines(
            b"%d /lustre/project/%d/some file of some user\n" % (number % 300, number)
            for number in range(ENTRIES)
        )

    first = worked(tmp_path, ENTRIES // 2)
    second = worked(tmp_path, ENTRIES)

    assert first["count"] >= ENTRIES // 2
    assert first["count"] + second["count"] == ENTRIES
    assert (first["left"], second["left"]) == (second["count"], 0)
    assert max(first["bytes"], second["bytes"]) < BYTES_MOST
    assert (tmp_path / "a.input.done").exists()
