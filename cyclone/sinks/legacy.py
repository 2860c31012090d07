"""What the tasks of Cyclone 2.x sent to its database proxy: a line of text for each OST that was measured.

    '2026-11-20 12:00:00','2026-11-20 12:00:01','OST000a',1000000,250000000,125000000,4,8

These are the moments of reading and writing in local time, the OST, the size in bytes, the throughput of reading and
writing in bytes a second, and the seconds that each took. It was pasted into a statement once. Here it is taken apart,
and what is no such line is refused.
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from hashlib import blake2b

from cyclone.errors import RecordError
from cyclone.messages import Entry
from cyclone.record import UID_BYTES, Record, Value, encode

#: The kind that such a line becomes a record of.
KIND = "ost_perf"

#: In the place of a kind: of what is none of these lines.
UNREAD = "text of Cyclone 2.x"

#: The job under which it is stored.
JOB = "legacy"

#: No line of this form is longer.
_LINE_BYTES_MAX = 200

#: So much is kept of what is none.
_UNREAD_BYTES_MAX = 1000

_MOMENT = r"'?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)'?"
_OST = r"'?(?:([A-Za-z0-9_]{1,16})-)?(?:OST([0-9a-fA-F]{4})|(\d{1,5}))'?"
_NUMBER = r"(-1|\d{1,18})"
_LINE = re.compile(r"\s*,\s*".join([_MOMENT, _MOMENT, _OST, *[_NUMBER] * 5]), re.ASCII)

#: What MySQL wrote for "never".
_NEVER = "0000-00-00"


def entry(
    line: bytes, kind: type[Record], *, sink: str, fs: str, zone: tzinfo | None, at: float, number: int
) -> Entry:
    """The entry of such a line.

    kind: that of the name KIND. fs: the file system, which the line does not tell as a rule.
    zone: that of the hosts that measure; None for that of this one. at: when it came, Unix time.
    number: another one for each line, as lines had no key, and two that tell of an OST that is down are alike.
    Raises RecordError, which quotes a line that is none.
    """
    values = parse(line, fs=fs, zone=zone)
    return Entry(_uid(line, number), sink, KIND, JOB, f"ost-{values['ost']}", at, encode(kind, values))


def unread(line: bytes, *, sink: str, at: float, number: int) -> Entry:
    """What is kept of a line that is none: its beginning stands where a record should; see `why_unread`."""
    return Entry(_uid(line, number), sink, UNREAD, JOB, "", at, line[:_UNREAD_BYTES_MAX])


def why_unread(line: bytes) -> str:
    """Why this is no such line."""
    try:
        parse(line, fs="", zone=None)
    except RecordError as error:
        return str(error)
    return "it does not fit the kind of its record"


def parse(line: bytes, *, fs: str, zone: tzinfo | None) -> dict[str, Value]:
    """The fields of the record: see `entry`."""
    found = None
    if len(line) <= _LINE_BYTES_MAX:
        found = _LINE.fullmatch(line.decode("utf-8", "replace").strip())
    if found is None:
        raise RecordError(
            f"found {line[:_LINE_BYTES_MAX]!r}, expected a line of 8 values as Cyclone 2.x sends it"
        )
    read_at, written_at, named_fs, by_name, by_number, *numbers = found.groups()
    size, read_pace, write_pace, read_s, write_s = map(int, numbers)
    was_read, was_written = read_pace != -1 and read_s != -1, write_pace != -1 and write_s != -1
    if size < 0:
        raise RecordError(f"found the size {size} in {line!r}, expected 0 or more")
    is_down = not (read_pace or write_pace or read_s or write_s)
    if is_down:
        was_read = was_written = False
    return {
        "fs": named_fs or fs,
        "ost": int(by_name, 16) if by_name else int(by_number),
        "state": _state(is_down=is_down, was_written=was_written, was_read=was_read),
        "size": size,
        "write_timestamp": _moment(written_at, zone, line),
        "read_timestamp": _moment(read_at, zone, line),
        "write_throughput": write_pace if was_written else None,
        "read_throughput": read_pace if was_read else None,
        "write_duration": float(write_s) if was_written else None,
        "read_duration": float(read_s) if was_read else None,
    }


def _uid(line: bytes, number: int) -> bytes:
    return blake2b(b"%d/%s" % (number, line), digest_size=UID_BYTES).digest()


def _state(*, is_down: bool, was_written: bool, was_read: bool) -> str:
    if is_down:
        return "DOWN"
    if not was_written:
        return "WRITE_FAILED"
    return "OK" if was_read else "READ_FAILED"


def _moment(text: str, zone: tzinfo | None, line: bytes) -> datetime | None:
    if text.startswith(_NEVER):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()
    except (ValueError, OverflowError, OSError):
        raise RecordError(f"found {text!r} in {line!r}, expected a moment that there was") from None
