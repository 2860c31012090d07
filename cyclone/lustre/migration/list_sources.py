"""Where lists come from: a walk by `lfs find`, a report of Robinhood, other lists.

Each source yields `Found` for every file that it tells of, and counts what it cannot make sense of.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from cyclone.errors import ConfigError
from cyclone.lustre.migration.lines import Rejected, Rules, read_records, trimmed
from cyclone.lustre.migration.names import form_of

_ANYWHERE = Rules(b"/")


class Found(NamedTuple):
    """A file that is on an OST. size: bytes; None if the source does not tell."""

    ost: int
    path: bytes
    size: int | None = None


@dataclass
class Trouble:
    """What went wrong on the way, while the rest went on. count: of records that make no sense; first: one of them."""

    count: int = 0
    first: str = ""
    incomplete: str = ""

    def note(self, record: bytes, reason: str) -> None:
        self.count += 1
        if not self.first:
            self.first = f"{record[:200].decode('utf-8', 'backslashreplace')}: {reason}"

    def __bool__(self) -> bool:
        return bool(self.count or self.incomplete)


# A walk.


def from_find(directory: Path, osts: Collection[int], trouble: Trouble, lfs: str = "lfs") -> Iterator[Found]:
    """Walk a directory, once for each OST: `lfs find` does not say on which of several OSTs a file is.

    Raises ConfigError when there is no `lfs`.
    """
    root = os.path.abspath(directory)
    for ost in sorted(osts):
        command = [lfs, "find", root, "-type", "f", "--ost", str(ost), "--print0"]
        try:
            walk = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
            )
        except OSError as error:
            raise ConfigError(f"{lfs!r} cannot be executed: {error.strerror}") from None
        with walk:
            assert walk.stdout is not None
            try:
                for _, path in read_records(walk.stdout, b"\0"):
                    yield Found(ost, path)
            except BaseException:
                walk.kill()
                raise
        if walk.returncode != 0:
            trouble.incomplete = f"lfs find --ost {ost} ended with {walk.returncode}"


# Robinhood.

_NAMES = re.compile(rb"\s*type\s*,.*\bpath\b", re.IGNORECASE)
_TOTAL = re.compile(rb"\s*Total:", re.IGNORECASE)
_ON = re.compile(rb"data_on_ost\[?([0-9,\s-]+)\]?\s*$", re.IGNORECASE)
_STRIPE = re.compile(rb"\bost#?\s*([0-9]{1,5})\b", re.IGNORECASE)

#: Columns behind the path: `stripe_cnt, stripe_size, pool, stripes, data_on_ost`.
_BEHIND = re.compile(
    rb"(?P<path>/.*?),\s*(?P<rest>[0-9]+,\s*[0-9]+,[^,]*,\s*ost.*)\Z", re.IGNORECASE | re.DOTALL
)


def from_robinhood(stream: IO[bytes], osts: Collection[int], trouble: Trouble) -> Iterator[Found]:
    """What `rbh-report --csv --dump-ost` prints, with its header or without (`-q`).

    osts: only those; all if none is named. On which OSTs a file is stands in its stripes (`ost#3`); where it does not, it
    is on the only OST that the header or `osts` names. Columns may stand behind the path or not.
    """
    only = frozenset(osts)
    dumped = only if len(only) == 1 else frozenset[int]()
    for _, record in read_records(stream, b"\n"):
        line = trimmed(record, b"\n")
        if not line.strip() or _TOTAL.match(line):
            continue
        if _NAMES.match(line):
            named = _ON.search(line)
            if named is not None and named[1].strip().isdigit():
                dumped = frozenset({int(named[1])})
            continue
        yield from _of_row(line, only, dumped, trouble)


def _of_row(line: bytes, only: frozenset[int], dumped: frozenset[int], trouble: Trouble) -> Iterator[Found]:
    kind, _, columns = line.partition(b",")
    if kind.strip() not in (b"file", b"f"):
        if not columns:
            trouble.note(line, "no row of a report")
        return  # directories and links have no data on an OST
    begin = columns.find(b"/")
    if begin < 0:
        trouble.note(line, "no path")
        return
    before, path, behind = columns[:begin], columns[begin:], b""
    match = _BEHIND.match(path)
    if match is not None:
        path, behind = match["path"], match["rest"]
    if behind.rpartition(b",")[2].strip().lower() in (b"no", b"0"):
        return  # a stripe of it is there, but nothing in it
    here = frozenset(int(number) for number in _STRIPE.findall(before + b" " + behind)) or dumped
    here = here & only if only else here
    if not here:
        if not dumped and not only:
            trouble.note(
                line, "it does not say on which OST the file is; expected a header, or --osts with one OST"
            )
        return
    size = before.split(b",")[0].strip()
    for ost in sorted(here):
        yield Found(ost, path, int(size) if size.isdigit() else None)


# Other lists.


def from_lists(files: Iterable[Path], osts: Collection[int], trouble: Trouble) -> Iterator[Found]:
    """Lists as a migration takes them. osts: only those; all if none is named. Raises ConfigError."""
    only = frozenset(osts)
    for file in files:
        separator, is_packed = form_of(file)
        try:
            with gzip.open(file, "rb") if is_packed else open(file, "rb") as stream:
                for _, raw in read_records(stream, separator):  # type: ignore[arg-type]
                    record = trimmed(raw, separator)
                    try:
                        ost, path = _ANYWHERE.parse(record)
                    except Rejected as problem:
                        trouble.note(record, str(problem))
                        continue
                    if not only or ost in only:
                        yield Found(ost, path)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from None
