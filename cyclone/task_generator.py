"""What a user subclasses to say which tasks there are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from cyclone.base_task import BaseTask
from cyclone.ini import Ini


class Result(msgspec.Struct, frozen=True):
    """How a task ended.

    state: `succeeded`, `failed`, `cancelled`, `skipped` or `quarantined`.
    outcome: of its last attempt: `succeeded`, `raised`, `exited`, `signalled`, `timed_out`, `evicted`,
    `lost`, `cancelled`; the state where there was no attempt.
    code: exit code or number of the signal, 0 otherwise.
    value: what `execute` returned; None if it did not succeed.
    error: why not, "" on success. attempts: how many there were. duration_s: of the last one.
    """

    tid: str
    state: str
    outcome: str
    code: int
    value: Any
    error: str
    attempts: int
    duration_s: float

    @property
    def ok(self) -> bool:
        return self.state == "succeeded"


class Desk(Protocol):
    """What the generator host lends to a generator: a place to hand tasks in and take results out."""

    @property
    def stopping(self) -> bool: ...

    def submit(self, task: BaseTask) -> str: ...

    def results(self, timeout_s: float | None) -> Iterator[Result]: ...

    def sleep(self, seconds: float) -> None: ...


class TaskGenerator:
    """Yields tasks and hears how each ended. Lives in a process of its own, next to the master.

    Override `generate`, and `on_result` if results matter; or override `run` to react to results and time.
    An exception in any method ends this process: the master logs the traceback, lets running attempts end
    and stops with an exit code other than 0.

    config: the ini file that `[task_generator] config_file` names.
    log: writes to the log of the master.
    commands: what `cyclone command NAME` can ask of this generator, and what each does, in a line.
    remember_s: for how long after its end the master has to remember a task while the job is open, in seconds. None: for
    as long. Only for a job that never ends: a tid that was forgotten is executed again if it is handed in again, and a
    task that comes after one is refused. So it has to be longer than you may be away and ask for a tid again.
    """

    commands: ClassVar[Mapping[str, str]] = {}
    remember_s: float | None = None

    def __init__(self, config: Ini) -> None:
        self.config = config
        self.log = logging.getLogger(type(self).__name__)
        self._desk: Desk | None = None

    # What a subclass writes.

    def validate_config(self) -> None:
        """Check `self.config` before anything is started. Raise ConfigError; `Ini`'s getters do so by themselves."""

    def explain_config(self) -> str:
        """What `self.config` means, for people: told by `--check` of the master. Called after `validate_config`."""
        return ""

    def generate(self) -> Iterable[BaseTask]:
        """Yield tasks. Pulled only as fast as there is room in the master's window."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither generate() nor run()")

    def on_result(self, result: Result) -> None:
        """Called once in the life of this process for each task that was handed in, when it has ended."""

    def on_command(self, name: str, arguments: Mapping[str, str]) -> object:
        """Carry out one of `commands`, which somebody asked for; what is returned (anything JSON can say) is the answer.

        Called in the thread of `run`, from within `submit`, `results` and `sleep`, so not while your own code is busy.
        Raise ValueError to refuse, with the reason. It may be called twice for one request: make that harmless.
        """
        raise NotImplementedError(f"{type(self).__name__} declares commands but no on_command()")

    def run(self) -> None:
        """Hand in what `generate` yields, and tell `on_result` of every end, until all have ended."""
        for task in self.generate():
            self.submit(task)
            for result in self.results(timeout=0):
                self.on_result(result)
            if self.stopping:
                return
        for result in self.results(timeout=None):
            self.on_result(result)

    # What a `run` of one's own may use.

    def submit(self, task: BaseTask) -> str:
        """Hand in a task and return its tid; waits while the master's window is full.

        A tid that is live is not executed twice; one that has ended is answered with its recorded end.
        """
        return self._lent.submit(task)

    def results(self, timeout: float | None = None) -> Iterator[Result]:
        """Yield the ends of tasks as they come, each once.

        timeout: ends when nothing came for so many seconds (0: only what is here already); None: ends when no
        task is open any more. Ends early when `stopping`.
        """
        return self._lent.results(timeout)

    def sleep(self, seconds: float) -> None:
        """Sleep, but wake at once when the generator is to stop. Results that come meanwhile are kept."""
        self._lent.sleep(seconds)

    @property
    def stopping(self) -> bool:
        """The master is stopping: return from `run` soon (it is killed ten seconds later)."""
        return self._lent.stopping

    def _attach(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def _lent(self) -> Desk:
        if self._desk is None:
            raise RuntimeError("a generator can hand in tasks only while it is run by the master")
        return self._desk
