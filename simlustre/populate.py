"""Filling a simulated file system with files, and writing the lists that a migration is fed with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from simlustre import compact
from simlustre.content import content_sum
from simlustre.files import charge, plan, walk, write_attribute
from simlustre.layout import ARCHIVED, ATTRIBUTE, EOF, EXISTS, RELEASED, SUM_ATTRIBUTE, Layout, Wish
from simlustre.state import Filesystem, State

KINDS = ("plain", "striped", "composite", "dom", "released", "archived", "empty", "encrypted", "hardlink")
FILES_PER_DIRECTORY = 1000
DATA_BYTES = 4096  # what a sparse file really holds


def lengths(text: str, random: Random) -> Callable[[], int]:
    """What draws lengths: `lognormal[:MEDIAN]` (4K, and at most 256 times that), `fixed:SIZE`,
    `uniform:FROM-TO`.

    Raises ValueError.
    """
    from simlustre.options import size

    kind, _, argument = text.partition(":")
    if kind == "lognormal":
        median = size(argument) if argument else 4096
        return lambda: min(int(median * random.lognormvariate(0.0, 1.5)), median * 256)
    if kind == "fixed" and argument:
        length = size(argument)
        return lambda: length
    if kind == "uniform" and argument:
        first, _, last = argument.partition("-")
        low, high = size(first), size(last)
        return lambda: random.randint(low, high)
    raise ValueError(f"sizes {text!r}: expected lognormal[:MEDIAN], fixed:SIZE or uniform:FROM-TO")


def populate(
    state: State, fs: Filesystem, *, files: int, osts: list[int] | None = None, sizes: str = "lognormal",
    kinds: dict[str, int] | None = None, directory: str = "data", sparse: bool = False, seed: int = 1,
) -> list[tuple[int, str]]:  # fmt: skip
    """Make files, their first object on each of `osts` in turn (all of them: None).

    kinds: {kind: share}; {"plain": 1} when None. sparse: the bytes behind the first 4 KiB are a hole.
    Returns (first OST, path) of each, in the order in which they were made; -1 where there is no OST.
    """
    random = Random(f"{seed}/{fs.name}/{directory}")
    length = lengths(sizes, random)
    every = state.osts(fs)
    places = osts if osts is not None else [ost.index for ost in every]
    unknown = set(places) - {ost.index for ost in every}
    if unknown:
        raise ValueError(f"unknown OST: {', '.join(map(str, sorted(unknown)))}")
    choice = list((kinds or {"plain": 1}).items())
    drawn = random.choices([kind for kind, _ in choice], [share for _, share in choice], k=files)
    made: list[tuple[int, str]] = []
    top = os.path.join(fs.mount, directory)
    with state.writing():
        for number, kind in enumerate(drawn, _next_number(top)):
            folder = os.path.join(top, f"{number // FILES_PER_DIRECTORY:05d}")
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"{kind}-{number:07d}")
            if kind == "hardlink" and made:
                source = next((entry for entry in reversed(made) if entry[0] >= 0), None)
                if source is not None:
                    os.link(source[1], path)
                    made.append((source[0], path))
                    continue
            _write(path, length(), sparse, random)
            made.append((_lay_out(state, fs, path, kind, places, number), path))
        state.commit()
    return made


def _next_number(top: str) -> int:
    """Behind the files that are there already."""
    numbers = [path[-7:] for path in walk(top)]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def _write(path: str, length: int, sparse: bool, random: Random) -> None:
    with open(path, "xb", buffering=0) as file:
        file.write(random.randbytes(min(length, DATA_BYTES) if sparse else length))
        if sparse and length > DATA_BYTES:
            file.truncate(length)


def _lay_out(state: State, fs: Filesystem, path: str, kind: str, places: list[int], number: int) -> int:
    """Give a new file its layout and its checksum; its first OST, or -1."""
    wishes, composite = _wishes(fs, kind)
    count = min(wishes[-1].count if wishes[-1].count > 0 else len(places), len(places))
    layout = Layout(state.next_number("fid"), plan(wishes, composite), composite)
    layout.size = os.stat(path).st_size
    if kind == "empty":
        layout.flags.append("empty")
    else:
        for component in layout.components:
            if component.reached_by(layout.size) and not component.initialised:
                wanted = count if component is layout.components[-1] else 1
                component.osts = [places[(number + step) % len(places)] for step in range(wanted)]
                component.objects = [state.take_object(fs, ost) for ost in component.osts]
    if kind == "encrypted":
        layout.flags.append("encrypted")
    if kind in ("released", "archived"):
        layout.hsm = EXISTS | ARCHIVED | (RELEASED if kind == "released" else 0)
        layout.archive = 1
    charge(state, fs, layout, path)
    write_attribute(state, path, ATTRIBUTE, layout.to_text())
    status = os.stat(path)
    record = [content_sum(path), status.st_size, status.st_mtime_ns]
    write_attribute(state, path, SUM_ATTRIBUTE, compact.dumps(record))
    held = layout.osts()
    return held[0] if held and kind != "released" else -1


def _wishes(fs: Filesystem, kind: str) -> tuple[list[Wish], bool]:
    base = fs.defaults[-1]
    plain = Wish(count=1, size=base.size, pool=base.pool)
    if kind == "striped":
        return [Wish(count=4, size=base.size, pool=base.pool)], False
    if kind == "composite":
        return [Wish(end=64 << 10), Wish(end=1 << 20), Wish(count=4, size=4 << 20)], True
    if kind == "dom":
        return [Wish(end=64 << 10, pattern="mdt", size=64 << 10), Wish(end=EOF)], True
    return [plain], False


def write_lists(
    made: list[tuple[int, str]], directory: Path, prefix: str, seed: int, per_ost: bool
) -> list[Path]:
    """Write `OST PATH` lines, shuffled, as a migration reads them: one list, or one for each OST."""
    entries = [entry for entry in made if entry[0] >= 0]
    Random(f"{seed}/lists").shuffle(entries)
    directory.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[tuple[int, str]]] = {}
    for entry in entries:
        groups.setdefault(f"{prefix}-ost{entry[0]:04d}" if per_ost else prefix, []).append(entry)
    written = []
    for name, group in sorted(groups.items()):
        path = directory / f"{name}.input"
        # By rename, so that a watching generator never sees half a list.
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(b"".join(b"%d %s\n" % (ost, os.fsencode(file)) for ost, file in group))
        unfinished.rename(path)
        written.append(path)
    return written


__all__ = ["KINDS", "populate", "write_lists"]
