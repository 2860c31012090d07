"""Any number of records in an order of chance, with little memory.

Each record is thrown into one of many files, and then each of these is shuffled in memory and read after the other. All
orders are equally likely: which file a record falls into is chance, and so is its place in there.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

#: A file of a list of 15 GB holds 60 MB.
_FILES = 256


def shuffled(
    records: Iterable[bytes], separator: bytes, chance: random.Random, directory: Path | None = None
) -> Iterator[bytes]:
    """The same records, which must not hold the separator. directory: for the files, which have no names."""
    with ExitStack() as open_files:
        files = [
            open_files.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(_FILES)
        ]  # fmt: skip
        for record in records:
            files[int(chance.random() * _FILES)].write(record + separator)
        for file in files:
            file.seek(0)
            here = file.read().split(separator)[:-1]
            chance.shuffle(here)
            yield from here
            file.truncate(0)
