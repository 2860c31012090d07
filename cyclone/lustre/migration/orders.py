"""What holds a migration beyond the life of its process: who has paused it or excluded OSTs, and why it was stopped.

It is in a file of the directory of lists, for one life may be killed before it has told anybody.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec

from cyclone.errors import ConfigError
from cyclone.generators.files import write_json
from cyclone.lustre.migration.lines import OST_INDEX_MAX

log = logging.getLogger(__name__)

_Ost = Annotated[int, msgspec.Meta(ge=0, le=OST_INDEX_MAX)]


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was ordered and holds.

    stopped: why nothing more was to be started, "" if it was. holds: `{who: why}`. excluded: OSTs of the command
    `exclude`.
    """

    stopped: str = ""
    holds: dict[str, str] = {}
    excluded: frozenset[_Ost] = frozenset()

    @classmethod
    def read(cls, file: Path) -> Self:
        """Those of the last life; none if there is no file. Raises ConfigError: nobody knows then what was ordered."""
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            problem = f"{error}; expected what a migration was ordered: look at it, and remove it to go on"
            raise ConfigError(problem, file=file) from None

    def write(self, file: Path) -> None:
        """Replace those in the file; there is none where nothing is ordered. Raises OSError."""
        if self == type(self)():
            file.unlink(missing_ok=True)
        else:
            # What Lustre told of a file may hold what UTF-8 does not have, and would be refused when it is read.
            stopped = self.stopped.encode("utf-8", "backslashreplace").decode()
            write_json(file, msgspec.to_builtins(msgspec.structs.replace(self, stopped=stopped)))


class OrderBook:
    """Owns what is ordered, and the file by which the next life knows it.

    standing: what holds now. file: None where neither the former life nor the next one is any matter.
    """

    def __init__(self, file: Path | None) -> None:
        """Raises ConfigError, as `Orders.read`."""
        self._file = file
        self._is_saved = True
        self.standing = Orders() if file is None else Orders.read(file)

    def change(self, **different: Any) -> None:
        """From now on these; in the next life as well, as soon as there is room for them on the disk."""
        self.standing, self._is_saved = msgspec.structs.replace(self.standing, **different), False
        try:
            self.save()
        except OSError as error:
            log.error("what is ordered cannot be kept yet: %s", error)

    def save(self) -> None:
        """See that the next life knows them. Raises OSError; the next call tries it again."""
        if not self._is_saved and self._file is not None:
            self.standing.write(self._file)
        self._is_saved = True
