"""Make lists of files that are to leave their OSTs, for a migration to take.

--from-find walks a directory, once for each OST, which takes long on a large file system. --from-robinhood reads what
`rbh-report --csv --dump-ost` prints, from a file or from standard input. --from-lists takes other lists, to shuffle,
split or thin them out.

    cyclone make-input --from-find /lustre --osts 3,5-8 --output input/
    rbh-report -q -c --dump-ost 3 | cyclone make-input --from-robinhood --osts 3 --shuffle --output input/

A list gets its name when it is complete, so the directory may be the one that a migration looks at. Nothing is held in
memory, however many files there are; --shuffle needs room for all of them in the directory.

Exit codes: 0, or 1 if not everything could be read: then the lists are there, and what is missing is told.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from cyclone.cli.page import visible
from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED, ConfigError
from cyclone.generators.files import replacing
from cyclone.lustre.migration.list_sources import Found, Trouble, from_find, from_lists, from_robinhood
from cyclone.lustre.migration.names import form_of
from cyclone.lustre.migration.shuffle import shuffled
from cyclone.model.resources import UNIT, amount
from cyclone.plugins import not_installed

_SPLIT_MOST = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from-find", metavar="DIRECTORY", type=Path, help="walk this directory; needs --osts"
    )
    source.add_argument(
        "--from-robinhood", metavar="FILE", type=Path, nargs="?", const=Path("-"),
        help="read a report of Robinhood; without a file from standard input",
    )  # fmt: skip
    source.add_argument("--from-lists", metavar="FILE", type=Path, nargs="+", help="read these lists")
    parser.add_argument("--osts", type=_osts, default=(), help="only files on these OSTs, such as 0-9,12")
    parser.add_argument(
        "--output", metavar="DIRECTORY", type=Path, required=True, help="where to put the lists"
    )
    parser.add_argument("--name", type=_name, help="what to call them (the day and time)")
    parser.add_argument(
        "--split", type=_split, default=1, metavar="N", help="make so many lists of the same length"
    )
    parser.add_argument("--shuffle", action="store_true", help="in an order of chance")
    parser.add_argument("--seed", type=int, help="for an order of chance that can be had again")
    parser.add_argument(
        "--min-size", type=_size, default=0, metavar="SIZE", help="only files from this size on"
    )
    parser.add_argument(
        "--max-size", type=_size, metavar="SIZE", help="only files up to this size, such as 32MiB"
    )
    parser.add_argument("--lfs", default="lfs", metavar="PROGRAM", help="the program lfs (lfs)")


def run(options: argparse.Namespace) -> int:
    trouble = Trouble()
    # Names from a walk may hold newlines; a report cannot tell of such.
    names_of_all_kinds = options.from_find is not None or any(
        form_of(file).separator == b"\0" for file in options.from_lists or ()
    )
    separator, ending = (b"\0", ".input0") if names_of_all_kinds else (b"\n", ".input")
    files = _files(options, ending)
    found = (file for file in _found(options, trouble) if _fits(file, options.min_size, options.max_size))
    records = _records(found, separator, trouble)
    if options.shuffle:
        records = shuffled(records, separator, random.Random(options.seed), options.output)
    try:
        count = _write(records, separator, files)
    except OSError as error:
        raise ConfigError(f"{options.output}: the lists cannot be made: {error.strerror}") from None
    where = f" in {', '.join(visible(str(file)) for file in files)}" if count else ", so there is no list"
    print(f"{count} entries{where}")
    if trouble.incomplete:
        print(f"cyclone: the lists are not complete: {visible(trouble.incomplete)}", file=sys.stderr)
    if trouble.count:
        print(
            f"cyclone: {trouble.count} lines make no sense, such as {visible(trouble.first)}", file=sys.stderr
        )
    return EXIT_TASK_FAILED if trouble else EXIT_OK


def _found(options: argparse.Namespace, trouble: Trouble) -> Iterator[Found]:
    if options.from_find is not None:
        if not options.osts:
            raise ConfigError("--from-find needs --osts, for the OSTs to look for")
        yield from from_find(options.from_find, options.osts, trouble, options.lfs)
    elif options.from_lists is not None:
        yield from from_lists(options.from_lists, options.osts, trouble)
    elif str(options.from_robinhood) == "-":
        yield from from_robinhood(sys.stdin.buffer, options.osts, trouble)
    else:
        try:
            with open(options.from_robinhood, "rb") as stream:
                yield from from_robinhood(stream, options.osts, trouble)
        except OSError as error:
            raise ConfigError(f"{options.from_robinhood} cannot be read: {error.strerror}") from None


def _files(options: argparse.Namespace, ending: str) -> list[Path]:
    """The lists to be made, of which none is there yet. Raises ConfigError."""
    name = options.name or time.strftime("%Y-%m-%dT%H%M%S")
    if not options.output.is_dir():
        raise ConfigError(f"{options.output}: expected a directory that exists")
    numbers = [f"-{number + 1}" for number in range(options.split)] if options.split > 1 else [""]
    files = [options.output / f"{name}{number}{ending}" for number in numbers]
    there = set(os.listdir(options.output))
    for file in files:
        if any(other == file.name or other.startswith(f"{file.name}.") for other in there):
            raise ConfigError(
                f"{file}: a list of this name is there already, or was; expected another --name"
            )
    return files


def _fits(file: Found, min_size: int, max_size: int | None) -> bool:
    if not min_size and max_size is None:
        return True
    size = file.size
    if size is None:
        try:
            size = os.lstat(file.path).st_size
        except OSError:
            return True  # the migration looks for itself
    return min_size <= size and (max_size is None or size <= max_size)


def _records(found: Iterable[Found], separator: bytes, trouble: Trouble) -> Iterator[bytes]:
    for file in found:
        if separator in file.path:
            trouble.note(file.path, "the name cannot stand in such a list")
        else:
            yield b"%d %s" % (file.ost, file.path)


def _write(records: Iterator[bytes], separator: bytes, files: list[Path]) -> int:
    """How many there were; no file is made if there were none."""
    first = next(records, None)
    if first is None:
        return 0
    count = 0
    with ExitStack() as open_files:
        lists = [open_files.enter_context(replacing(file)) for file in files]
        for record in chain((first,), records):
            lists[count % len(lists)].write(record + separator)
            count += 1
    return count


# Arguments.


def _osts(text: str) -> tuple[int, ...]:
    # Only here: what knows sets of indexes is part of an extra.
    try:
        from cyclone.lustre.rangeset import indexes
    except ModuleNotFoundError as error:
        raise argparse.ArgumentTypeError(not_installed(error)) from None
    try:
        return indexes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    try:
        return amount(text) // UNIT
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 4096 or 32MiB") from None


def _split(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _SPLIT_MOST:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 to {_SPLIT_MOST}")
    return int(text)


def _name(text: str) -> str:
    if not text or "/" in text or text.startswith(".") or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a name without / and not beginning with a dot"
        )
    return text
