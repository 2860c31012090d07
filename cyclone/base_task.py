"""What a user subclasses to say what is to be done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from cyclone.model.task import Retry, Token
from cyclone.record import Record


class Attempt(NamedTuple):
    """Which attempt this is, as the running task sees it (`self.attempt`).

    token: larger than that of every earlier attempt at any task; lets an outside system refuse a late writer.
    number: 1 for the first attempt.
    """

    job: str
    tid: str
    token: Token
    number: int


class Recorder(Protocol):
    """What the worker lends to a task."""

    def record(
        self, sink: str, kind: type[Record], fields: Mapping[str, Any], at: float | None = None
    ) -> None: ...


class BaseTask(ABC):
    """One piece of work. Made in a generator, pickled, executed in a worker on some node.

    Class attributes say how the task is to be treated; an instance may override each:

    priority    higher first; default 0
    resources   what it takes while it runs, `{"cpus": 1}` by default; amounts are numbers or "64GiB"
    timeout     seconds that one attempt may take; None is without bound
    retry       a `Retry`: how many attempts more, for each cause by itself; none after an error by default
    after       tids of the same job that must have succeeded before
    expires     seconds from acceptance after which it is not started any more
    exclusive   never run twice at the same time, even when a network is cut (a move of a file, say)

    Attributes are kept as they are: whatever pickle can carry arrives unchanged.
    """

    priority: int = 0
    resources: Mapping[str, int | float | str] = {"cpus": 1}
    timeout: float | None = None
    retry: Retry = Retry()
    after: Sequence[str] = ()
    expires: float | None = None
    exclusive: bool = False

    #: What an instance may override; the generator host looks for these in `vars(task)`.
    POLICY: ClassVar[frozenset[str]] = frozenset(
        {"priority", "resources", "timeout", "retry", "expires", "exclusive"}
    )

    _tid: str | None = None
    _attempt: Attempt | None = None
    _recorder: Recorder | None = None

    @abstractmethod
    def execute(self) -> Any:
        """Do the work, in a worker process. What it returns is pickled and becomes the task's result.

        Any exception ends the attempt with the outcome `raised` and its traceback; `CommandFailed` with
        `exited` or `signalled`. On a time-out the process gets SIGTERM, which raises SystemExit here, so
        that `finally` runs; SIGKILL follows after the grace.
        """

    def record(self, sink: str, kind: type[Record], **fields: Any) -> None:
        """Send a row or sample to a sink, by the name that it has in `[sinks]` of the controller. Only inside `execute`.

        It leaves when the attempt has succeeded, and arrives once however often the task is tried: its key is the
        job, the tid, and that it is the first, second, … record of its attempt. So record in the same order each time.
        Raises RecordError: no such sink here, or a field is missing, unknown, or of the wrong type.
        """
        self._lent.record(sink, kind, fields)

    def record_as_of(self, at: float, sink: str, kind: type[Record], **fields: Any) -> None:
        """As `record`, of what was known at an earlier moment (`at`: Unix time): what was recorded since then is newer."""
        self._lent.record(sink, kind, fields, at)

    @property
    def _lent(self) -> Recorder:
        if self._recorder is None:
            raise RuntimeError("a task records only while it executes")
        return self._recorder

    @property
    def tid(self) -> str | None:
        """Names this work for the life of its job; None lets the generator host give it a unique one."""
        return self._tid

    @tid.setter
    def tid(self, value: object) -> None:
        if value is None:
            raise ValueError("a tid cannot be None; leave it unset to be given a unique one")
        text = str(value)
        # Strictly: text that is not Unicode (names of files may be such) cannot travel in a message.
        if not 0 < len(text.encode("utf-8")) <= 4096:
            raise ValueError("a tid is text of 1 to 4096 bytes in UTF-8")
        self._tid = text

    @property
    def attempt(self) -> Attempt:
        """Which attempt this is. Only inside `execute`."""
        if self._attempt is None:
            raise RuntimeError("a task has an attempt only while it executes")
        return self._attempt
