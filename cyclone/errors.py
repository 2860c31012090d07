"""Every error that Cyclone raises on purpose, and the exit code that each one ends a command with.

CycloneError
├── ConfigError                 an ini file, a key, a plug-in, a directory is not as it must be
│   ├── TaskFileError           an XML task file breaks its rules
│   ├── PluginError             a module or class of a plug-in cannot be had
│   ├── KeyFileError            a key file is malformed or readable by others
│   │   └── KeyFileMissing      … or it is not there, or not yet
│   └── AddressError            an address cannot be bound or is not allowed to be
├── AlreadyRunning              another daemon holds the PID file, the store or the spool
├── MasterUnreachable           no answer from the master, however often it was asked
├── Refusal                     the master answered, and the answer was no
├── TimedOut                    what was waited for did not come in time
├── StoreError
│   ├── StoreFull               no room on the disk: nothing was written
│   ├── StoreVersionError       the store was written by another version
│   └── StoreCorrupt            the file is not a store, or is damaged
├── Undecodable                 bytes from a peer that are no message of ours
│   └── WrongVersion            … because the peer speaks another version of the protocol
├── RuleBroken                  the caller broke a rule of this package: a bug on our side
└── TaskError                   raised inside a task to end its attempt in a particular way
    ├── CommandFailed           a program ended with a non-zero exit code or by a signal
    └── RecordError             a record is not as its kind was declared
"""

from __future__ import annotations

from pathlib import Path

EXIT_OK = 0
EXIT_TASK_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_UNREACHABLE = 4
EXIT_TIMED_OUT = 5
EXIT_ALREADY_RUNNING = 6
EXIT_INTERNAL = 70


class CycloneError(Exception):
    """Something that Cyclone was asked to do cannot be done."""

    exit_code = EXIT_INTERNAL


class ConfigError(CycloneError):
    """A setting is missing or has a value that it must not have.

    file, section, key: where it was found, as far as that is known.
    The text always says what was found and what was expected.
    """

    exit_code = EXIT_CONFIG

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        section: str | None = None,
        key: str | None = None,
    ) -> None:
        self.problem, self.file, self.section, self.key = problem, file, section, key
        place = [str(file)] if file is not None else []
        if section is not None:
            place.append(f"[{section}] {key}" if key is not None else f"[{section}]")
        super().__init__(": ".join([*place, problem]))


class TaskFileError(ConfigError):
    """An XML task file breaks its rules."""


class PluginError(ConfigError):
    """A module or class that the ini file names cannot be loaded or is of the wrong kind."""


class KeyFileError(ConfigError):
    """A key file is malformed or readable by others; see also `KeyFileMissing`."""


class KeyFileMissing(KeyFileError):
    """There is no such key file, or not yet."""


class AddressError(ConfigError):
    """An address cannot be bound, or must not be bound without keys."""


class AlreadyRunning(CycloneError):
    """Another daemon is alive and holds this PID file, store or spool."""

    exit_code = EXIT_ALREADY_RUNNING

    def __init__(self, file: str | Path, owner: str) -> None:
        self.file, self.owner = file, owner
        super().__init__(f"{file}: already running ({owner or 'owner not written yet'})")


class MasterUnreachable(CycloneError):
    """The master did not answer."""

    exit_code = EXIT_UNREACHABLE


class Refusal(CycloneError):
    """The master understood the request and declined it, with a reason."""

    exit_code = EXIT_USAGE


class TimedOut(CycloneError):
    """What was waited for did not come about in time."""

    exit_code = EXIT_TIMED_OUT


class StoreError(CycloneError):
    """The store cannot do what it must; the daemon has to stop."""


class StoreFull(StoreError):
    """The disk has no room: nothing of the transaction was written, and it may be tried again."""


class StoreVersionError(StoreError):
    """The store was written by a version of Cyclone that this one cannot read."""

    exit_code = EXIT_CONFIG


class StoreCorrupt(StoreError):
    """The file is no store of Cyclone, or is damaged."""

    exit_code = EXIT_CONFIG


class Undecodable(CycloneError):
    """Bytes from a peer are not a message: they are dropped, and nothing else happens."""


class WrongVersion(Undecodable):
    """The peer speaks another version of the protocol."""

    def __init__(self, theirs: int, ours: int) -> None:
        self.theirs, self.ours = theirs, ours
        super().__init__(f"protocol version {theirs} was spoken, version {ours} is understood")


class RuleBroken(CycloneError):
    """A caller inside Cyclone broke a rule. This is a bug: please report it with the traceback."""


class TaskError(CycloneError):
    """Ends an attempt from inside `execute` with a reason but without a traceback."""

    exit_code = EXIT_TASK_FAILED


class RecordError(TaskError):
    """A record has a field that its kind does not have, lacks one, or holds a value that does not fit."""


class CommandFailed(TaskError):
    """A program ended badly.

    returncode: as in `subprocess`: the exit code, or minus the number of the signal that ended it.
    """

    def __init__(self, returncode: int, text: str = "") -> None:
        self.returncode = returncode
        super().__init__(text or f"the program ended with {returncode}")
