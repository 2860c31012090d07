"""How the commands write: tables and local times for people, one object a line for programs."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from cyclone.model.resources import plain
from cyclone.model.task import token_text

_AMOUNTS = frozenset({"room", "free", "resources"})


def write_safely() -> None:
    """What this process makes nobody else may write to, and its owner may read, whatever the umask was.

    What a terminal cannot show is written in its escaped form: no list ends at the tid that is in Greek.
    """
    os.umask((os.umask(0o077) | 0o022) & 0o077)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """The text without anything that a terminal would obey instead of show."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def tell(text: str) -> None:
    """A line for whoever watches, beside what the command prints."""
    print(visible(text), file=sys.stderr)


def local_time(unix_s: float) -> str:
    """A moment on the clock of this place, `-` for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s)) if unix_s else "-"


def as_json(value: object) -> str:
    """A message or a part of one as an object in one line: amounts as people write them, tokens as logs do."""
    return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    match value:
        case msgspec.Struct():
            return {
                name: _field(name, getattr(value, name))
                for name in value.__struct_fields__
                if name != "request"
            }
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value


def _field(name: str, value: Any) -> Any:
    if name in _AMOUNTS:
        return plain(value)
    return token_text(value) if name == "token" else _plain(value)


class Table:
    """Rows of cells under titles. right: titles of the columns that are numbers."""

    def __init__(self, titles: Sequence[str], right: Sequence[str] = ()) -> None:
        self.titles = list(titles)
        self.right = frozenset(right)
        self.rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        """One row, a cell for each title."""
        self.rows.append([visible(str(cell)) for cell in cells])

    def lines(self) -> list[str]:
        """The table as aligned text."""
        rows = [self.titles, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(self._aligned(row, widths)).rstrip() for row in rows]

    def _aligned(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            cell.rjust(width) if title in self.right else cell.ljust(width)
            for cell, width, title in zip(row, widths, self.titles, strict=True)
        ]

    def print(self) -> None:
        """To standard output: with rich if that is a terminal and rich is there, else as aligned text."""
        if not (sys.stdout.isatty() and self._print_with_rich()):
            print("\n".join(self.lines()))

    def _print_with_rich(self) -> bool:
        try:
            from rich import box, console, table, text
        except ImportError:
            return False
        drawn = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for title in self.titles:
            justify: Literal["left", "right"] = "right" if title in self.right else "left"
            drawn.add_column(title, justify=justify, min_width=len(title), overflow="fold")
        for row in self.rows:
            # As Text, so that brackets in a tid are not taken for markup.
            drawn.add_row(*(text.Text(cell) for cell in row))
        console.Console(file=sys.stdout).print(drawn)
        return True
