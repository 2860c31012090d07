"""What the benchmarks have in common: their arguments, and the one object of JSON that `results.py` reads."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping

from cyclone.errors import CycloneError


def parser_of(what: str | None) -> argparse.ArgumentParser:
    """what: the page of the benchmark, which is its docstring."""
    return argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)


def report(measure: Callable[[], Mapping[str, object]]) -> int:
    """Print the figures, or why there are none. Returns the exit code."""
    try:
        print(json.dumps(measure()))
    except CycloneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
