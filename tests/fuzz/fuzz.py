"""Try one target for as long as it is told to, led by what the code does with each input.

    python tests/fuzz/fuzz.py                       names the targets
    python tests/fuzz/fuzz.py TARGET --minutes 10   tries one; ends with 1 if something got past its border
    python tests/fuzz/fuzz.py all --minutes 1       each in turn, so long

It takes Cyclone from the checkout that it stands in, and needs atheris besides: `pip install -e .[fuzz]`. Inputs that
make the code do something new are gathered in `--corpus` (under the directory for temporary files by default), so that
a second run goes on where the first one ended. An input that gets past a border is a finding: it is put into the corpus
of its target in the tree, where the tests fail on it until it is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
# In the place of the directory of this file, where this file is called like the package.
sys.path[:1] = [str(TESTS), str(TESTS.parent)]

#: An input that takes longer is a finding as well, and so is one for which this process takes more memory.
SLOW_S, MEMORY_MB = 10, 2048
INPUT_BYTES_MAX = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", help="one of the targets, or all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target (default: %(default)g)")
    parser.add_argument(
        "--corpus", type=Path, default=Path(tempfile.gettempdir(), "cyclone-fuzz-corpus"), metavar="DIR"
    )
    parser.add_argument("--json", action="store_true", help="one object for each target, for programs")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--findings", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        _run(options)
    from fuzz.targets import TARGETS

    names = [*TARGETS] if options.target == "all" else [options.target]
    if options.target is None or not TARGETS.keys() >= set(names):
        parser.error(f"expected a target: all, {', '.join(TARGETS)}")
    reports = []
    for name in names:
        report = _fuzz(name, options)
        reports.append(report)
        if not options.json:
            print(
                ", ".join(
                    f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
                    for key, value in report.items()
                )
            )
    if options.json:
        print(json.dumps(reports))
    return 1 if any(report["findings"] for report in reports) else 0


def _fuzz(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, for what is found may end it. Returns what is to be told of it."""
    from fuzz.targets import CORPUS

    gathered = options.corpus / name
    gathered.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable, __file__, name, "--run", "--minutes", str(options.minutes),
            "--corpus", str(gathered), "--findings", place,
        ]  # fmt: skip
        with open(Path(place, "log"), "w+b") as log:
            subprocess.run(command, stdout=log, stderr=log, check=False)
            log.seek(0)
            told = log.read().decode("utf-8", "replace")
        findings = []
        for file in Path(place).glob("*-*"):
            data = file.read_bytes()
            kind = file.name.partition("-")[0]
            kept = CORPUS / name / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            findings.append(str(kept))
    if findings or "stat::number_of_executed_units" not in told:
        print(told[-4000:], file=sys.stderr)
    return {
        "target": name,
        "inputs": _figure(r"stat::number_of_executed_units:\s*(\d+)", told),
        "a_second": _figure(r"stat::average_exec_per_sec:\s*(\d+)", told),
        "branches_at_first": _first(r"INITED cov: (\d+)", told),
        "branches": _figure(r"cov: (\d+)", told),
        "features": _figure(r"ft: (\d+)", told),
        "gathered": sum(1 for _ in gathered.iterdir()),
        "memory_mb": _figure(r"stat::peak_rss_mb:\s*(\d+)", told),
        "slowest_s": _figure(r"stat::slowest_unit_time_sec:\s*(\d+)", told),
        "findings": findings,
    }


def _figure(pattern: str, told: str) -> int:
    """The last one."""
    found = re.findall(pattern, told)
    return int(found[-1]) if found else 0


def _first(pattern: str, told: str) -> int:
    found = re.search(pattern, told)
    return int(found[1]) if found else 0


def _run(options: argparse.Namespace) -> None:
    """In the process of its own: never returns."""
    import atheris

    with atheris.instrument_imports(include=["cyclone"]):
        from fuzz.targets import TARGETS
    target = TARGETS[options.target]

    def one_input(data: bytes) -> None:
        target.try_one(data)

    atheris.Setup(
        [
            sys.argv[0], str(options.corpus), str(target.corpus),
            f"-max_total_time={max(1, round(options.minutes * 60))}", f"-timeout={SLOW_S}",
            f"-rss_limit_mb={MEMORY_MB}", f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1",
            f"-artifact_prefix={options.findings}/",
        ],
        one_input,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
