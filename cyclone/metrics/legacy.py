"""What tasks of Cyclone 2.x send to the Pushgateway client: text, read as records of today.

    TARGET|OK|MDT|OST           a file could be made on this pair
    TARGET|FAILED|MDT|OST       it came to lie on another OST
    TARGET|ERROR                something raised; nobody knows for which pair

No text says that the errors of a target are over. The client of 2.x showed for each interval whether there was one in
it, and so does this one.

Nothing of it is taken over as it stands: what does not fit the fields of the kind is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from cyclone.errors import RecordError, RuleBroken
from cyclone.record import Metric, Record, make

#: The kind that a check of today is a record of, and its metrics that a check without indexes has as well.
CHECK = "file_creation"
ERROR = "cyclone_lustre_file_creation_error"
ERRORS = "cyclone_lustre_file_creation_errors_total"

#: Targets that texts may come of in one interval. A site has as many as file systems.
TARGETS_MOST = 10_000

_BYTES_MAX = 1024
_PAIR = re.compile(r"([^|]+)\|(OK|FAILED)\|([0-9]{1,5})\|([0-9]{1,5})\Z", re.ASCII)
_NO_PAIR = re.compile(r"([^|]+)\|ERROR\Z")


class LegacyCheckError(Record, frozen=True, kw_only=True):
    """`TARGET|ERROR`, or an interval without one: 0 errors.

    Its metrics are those of the kinds of today; see `LegacyChecks`.
    """

    kind = "file_creation_error"

    target: Annotated[str, Meta(max_length=64)]
    errors: int = 1
    reason: Annotated[str, Meta(max_length=32)] = "ERROR"


class LegacyChecks:
    """Reads the text. It needs the kinds of today, which belong to a room that this one does not know.

    Owns which targets texts came of in this interval, and which had errors in it and in the one before.
    """

    def __init__(self, kinds: Mapping[str, type[Record]]) -> None:
        """kinds: `{name: kind}`. Raises RuleBroken when those of file creation checks are not among them."""
        if CHECK not in kinds:
            raise RuleBroken(f"found no kind {CHECK!r}, which text of Cyclone 2.x is about")
        self._check = kinds[CHECK]
        error = _metric(kinds.values(), ERROR, ("target",))
        errors = _metric(kinds.values(), ERRORS, ("target", "reason"))
        self._error: type[LegacyCheckError] = type(
            LegacyCheckError.__name__,
            (LegacyCheckError,),
            {
                "__module__": __name__,
                # Declared as they are elsewhere, so that it is the same series that shows them.
                "metrics": (
                    dataclasses.replace(error, value=lambda row: float(row.errors > 0)),
                    dataclasses.replace(errors, value=lambda row: row.errors or None),
                ),
            },
        )
        self._heard: set[str] = set()
        self._failing: set[str] = set()
        self._failing_before: set[str] = set()

    @property
    def kind(self) -> type[Record]:
        """The kind that comes from here, to be declared beside the others."""
        return self._error

    def read(self, text: bytes, received_at: datetime) -> Record:
        """One message. received_at: with a time zone; the text itself does not tell when it was sent.

        Raises RecordError when it is no such text, or of one target too many.
        """
        try:
            fields, kind = self._fields(text, received_at)
            record = make(kind, fields)
        except (UnicodeDecodeError, RecordError) as error:
            raise RecordError(f"text of Cyclone 2.x: {error}") from None
        if len(self._heard) >= TARGETS_MOST and fields["target"] not in self._heard:
            raise RecordError(
                f"text of Cyclone 2.x: found {fields['target']!r}, expected {TARGETS_MOST} targets in an interval at most"
            )
        self._heard.add(fields["target"])
        if kind is self._error:
            self._failing.add(fields["target"])
        return record

    def end_interval(self) -> list[Record]:
        """That there were no errors in it, for each target that was heard of, or had some in the one before."""
        well = (self._heard | self._failing_before) - self._failing
        self._failing_before, self._failing, self._heard = self._failing, set(), set()
        return [self._error(target=target, errors=0) for target in sorted(well)]

    def _fields(self, text: bytes, received_at: datetime) -> tuple[dict[str, Any], type[Record]]:
        words = text[:_BYTES_MAX].decode()
        if found := _PAIR.match(words):
            target, state, mdt, ost = found.groups()
            return {
                "target": target,
                "mdt_index": int(mdt),
                "ost_index": int(ost),
                "state": state,
                "reason": "" if state == "OK" else state,
                "checked_at": received_at,
            }, self._check
        if found := _NO_PAIR.match(words):
            return {"target": found[1]}, self._error
        expected = "TARGET|OK|MDT|OST, TARGET|FAILED|MDT|OST or TARGET|ERROR"
        raise RecordError(f"found {words[:100]!r}, expected {expected}")


def _metric(kinds: Iterable[type[Record]], name: str, labels: tuple[str, ...]) -> Metric:
    for kind in kinds:
        for metric in kind.metrics:
            if metric.name == name and metric.labels == labels:
                return metric
    raise RuleBroken(f"found no metric {name} with the labels {labels}, which text of Cyclone 2.x is about")
