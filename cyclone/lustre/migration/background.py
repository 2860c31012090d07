"""What may take long is done beside the loop: asking Lustre, looking at files, reading lists.

A thread that is stuck in the kernel cannot be ended, only left alone; it must not keep anything else from going on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

_Result = TypeVar("_Result")
_Covariant = TypeVar("_Covariant", covariant=True)


class Chore(Protocol[_Covariant]):
    """Something that is being done."""

    def is_done(self) -> bool: ...

    def result(self) -> _Covariant:
        """What came of it, once it is done. Raises what it raised."""


class Background(Protocol):
    """Starts chores."""

    def start(self, call: Callable[[], _Result]) -> Chore[_Result]: ...


class Threads:
    """Does each chore in a thread of its own, which does not keep the process from ending."""

    def start(self, call: Callable[[], _Result]) -> Chore[_Result]:
        return _Thread(call)


class _Thread(Generic[_Result]):
    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call = call
        self._outcome: _Result | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="chore", daemon=True).start()

    def is_done(self) -> bool:
        return self._done.is_set()

    def result(self) -> _Result:
        assert self._done.is_set()
        if self._error is not None:
            raise self._error
        return cast(_Result, self._outcome)

    def _run(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error
        finally:
            self._done.set()
