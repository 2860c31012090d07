"""Checks one OST with every MDT: can a file be made whose name is on the one and whose data is on the other?"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from time import perf_counter
from typing import Any

from cyclone.lustre.lfs import Lfs, LfsError, LfsMissing, LfsTimedOut
from cyclone.lustre.ost_task import REACH, Fault, OstResult, OstState, OstTask, Row, one_line
from cyclone.lustre.properties import STEP_S_MAX, given, seconds, switch
from cyclone.lustre.rangeset import indexes
from cyclone.lustre.records import FileCreation, FileCreationRound

_log = logging.getLogger(__name__)


class PairState(StrEnum):
    """What came of one pair of MDT and OST. Besides these, a pair has the state of an OST that was not looked at."""

    OK = "OK"
    FAILED = "FAILED"  # the file was put on another OST
    ERROR = "ERROR"  # it could not be made
    TIMEOUT = "TIMEOUT"
    MISPLACED_DIR = "MISPLACED_DIR"  # the directory is not on this MDT, so nothing can be said of the pair


#: What the fault of a pair is to those who look at OSTs.
_OST_STATES = {
    PairState.FAILED: OstState.DISPLACED,
    PairState.TIMEOUT: OstState.TIMEOUT,
    PairState.ERROR: OstState.FAILED,
    PairState.MISPLACED_DIR: OstState.FAILED,
}


#: A check that ended in an error, or could not be made; an OST that somebody has switched off is none.
_ERRORS = frozenset({PairState.ERROR, PairState.TIMEOUT, OstState.HUNG, OstState.DOWN, OstState.UNKNOWN})


class LustreFileCreationCheckTask(OstTask):
    """For each MDT, makes a file on the OST in `<target_base_dir>/<target_mdt_sub_dir><mdt>`, and removes it.

    mdt_index_rangeset: of the MDTs, such as 0-2. The directory `…0` must have been made on MDT 0, and so on, which is
    checked; create_dirs: make those that are missing.
    pushgateway_client_name: whether to send to the sink `pushgateway`: not if it is empty. What it says is not used
    otherwise, nor are port and timeout: the ini file of the controller knows where the sink is.
    database: whether to send to the sink `database`.
    ost_list: ask for exactly this OST; off asks where to begin to look for one that takes the file, as Cyclone 2.x did.
    pair_timeout: seconds that one pair may take. lfs_bin, use_sudo: of the nodes.

    Its result is an `OstResult` with a phase `mdt<n>` for each pair; figures: `pairs`, a list of the recorded fields.
    """

    def __init__(
        self,
        ost_idx: int | str,
        lfs_target: str,
        target_base_dir: str,
        target_mdt_sub_dir: str,
        mdt_index_rangeset: str,
        pushgateway_client_name: str = "",
        pushgateway_client_port: str | int = "",
        pushgateway_client_timeout: str | int = "",
        *,
        database: bool | str = False,
        ost_list: bool | str = True,
        create_dirs: bool | str = False,
        pair_timeout: float | str = 30.0,
        lfs_bin: str = "lfs",
        use_sudo: bool | str = False,
    ) -> None:
        super().__init__(ost_idx, lfs_target)
        self.target_base_dir = given("target_base_dir", target_base_dir, "a directory of the file system")
        self.target_mdt_sub_dir = given("target_mdt_sub_dir", target_mdt_sub_dir, "how directories begin")
        self.mdts = indexes(mdt_index_rangeset, "mdt_index_rangeset")
        if not self.mdts:
            raise ValueError("mdt_index_rangeset: is empty, expected indexes such as 0-2")
        self.pushgateway_client_name = pushgateway_client_name.strip()
        self.pushgateway_client_port = pushgateway_client_port
        self.pushgateway_client_timeout = pushgateway_client_timeout
        self.database = switch("database", database)
        self.ost_list = switch("ost_list", ost_list)
        self.create_dirs = switch("create_dirs", create_dirs)
        self.pair_timeout_s = seconds("pair_timeout", pair_timeout, maximum=STEP_S_MAX)
        self.lfs_bin, self.use_sudo = given("lfs_bin", lfs_bin, "a path"), switch("use_sudo", use_sudo)
        self.timeout = len(self.mdts) * self.pair_timeout_s + 60

    def execute(self) -> OstResult:
        pairs = [self._check(mdt) for mdt in self.mdts]
        for pair in pairs:
            fields = pair.fields(self.lfs_target, self.ost_idx)
            for sink in self.sinks():
                self.record(sink, FileCreation, **fields)
        faults = tuple(_fault(pair) for pair in pairs if pair.state is not PairState.OK)
        fine = [_phase(pair.mdt) for pair in pairs if pair.state is PairState.OK]
        if fine:
            fine.append(REACH)
        state = faults[0].state if faults else OstState.OK
        figures = {"pairs": [pair.fields(self.lfs_target, self.ost_idx) for pair in pairs]}
        return OstResult(self.ost_idx, state, faults, tuple(fine), figures)

    def sinks(self) -> tuple[str, ...]:
        wanted = {"pushgateway": bool(self.pushgateway_client_name), "database": self.database}
        return tuple(sink for sink, is_wanted in wanted.items() if is_wanted)

    def state_rows(self, state: OstState, text: str, moment: datetime) -> list[Row]:
        rows = []
        known: OstState | PairState = PairState.ERROR if state is OstState.FAILED else state
        for mdt in self.mdts:
            fields = {
                "target": self.lfs_target,
                "mdt_index": mdt,
                "ost_index": self.ost_idx,
                "state": known,
                "reason": known,
                "checked_at": moment,
                "error": one_line(text),
            }
            rows += [Row(sink, FileCreation, fields) for sink in self.sinks()]
        return rows

    def round_rows(
        self, results: Sequence[OstResult], known: Sequence[Row], started_at: datetime
    ) -> list[Row]:
        told = [row.fields for row in known if row.kind is FileCreation]
        # What a task has found in the end counts more than that it was late.
        told += [pair for result in results for pair in result.figures.get("pairs", ())]
        states = {(each["mdt_index"], each["ost_index"]): each["state"] for each in told}
        fields = {
            "target": self.lfs_target,
            "started_at": started_at,
            "pairs": len(states),
            "errors": sum(state in _ERRORS for state in states.values()),
        }
        return [Row(sink, FileCreationRound, fields) for sink in self.sinks()]

    def workplaces(self) -> list[str]:
        return [self._directory(mdt) for mdt in self.mdts]

    # One pair.

    def _check(self, mdt: int) -> _Pair:
        pair = _Pair(mdt, datetime.now(UTC))
        deadline = perf_counter() + self.pair_timeout_s
        try:
            place = self._place(mdt, deadline)
            if place != mdt:
                pair.state = PairState.MISPLACED_DIR
                pair.error = f"the directory {self._directory(mdt)} is on MDT {place}"
            else:
                self._make_and_remove(pair, deadline)
        except LfsMissing:
            # Nothing is known of the pair by that: this node is not fit for the task.
            raise
        except LfsTimedOut as error:
            pair.state, pair.error = PairState.TIMEOUT, str(error)
        except LfsError as error:
            pair.state, pair.error = PairState.ERROR, str(error)
            pair.errno = error.exit_code if error.exit_code > 0 else None
        return pair

    def _place(self, mdt: int, deadline: float) -> int:
        """The MDT that the directory of this MDT is really on. Raises LfsError."""
        directory = self._directory(mdt)
        try:
            return self._lfs(deadline).mdt_of_directory(directory)
        except LfsError as error:
            if not self.create_dirs or error.exit_code != errno.ENOENT:
                raise
        try:
            self._lfs(deadline).make_directory(directory, mdt)
        except LfsError as error:
            # The task of another OST may have made it meanwhile.
            if error.exit_code != errno.EEXIST:
                raise
        return self._lfs(deadline).mdt_of_directory(directory)

    def _make_and_remove(self, pair: _Pair, deadline: float) -> None:
        path = os.path.join(self._directory(pair.mdt), self.file_name("_file_creation_check.tmp"))
        try:
            begin = perf_counter()
            self._lfs(deadline).create(path, self.ost_idx, exact=self.ost_list)
            pair.create_seconds = perf_counter() - begin
            osts = self._lfs(deadline).layout(path).osts
        finally:
            self._remove(pair, path)
        if osts != (self.ost_idx,):
            found = ", ".join(map(str, osts)) or "no OST"
            pair.state, pair.error = PairState.FAILED, f"the file is on {found} instead of {self.ost_idx}"
            pair.actual_ost = osts[0] if osts else None
        else:
            pair.state, pair.actual_ost = PairState.OK, self.ost_idx

    def _remove(self, pair: _Pair, path: str) -> None:
        begin = perf_counter()
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("cannot be removed file=%s reason=%s", path, error.strerror)
            return
        pair.unlink_seconds = perf_counter() - begin

    def _directory(self, mdt: int) -> str:
        return os.path.join(self.target_base_dir, f"{self.target_mdt_sub_dir}{mdt}")

    def _lfs(self, deadline: float) -> Lfs:
        # At least a moment, so that it is the program that is told to have taken too long.
        left_s = max(0.001, deadline - perf_counter())
        return Lfs(self.lfs_bin, sudo=self.use_sudo, timeout_s=left_s)


@dataclass
class _Pair:
    """What is known so far of a pair."""

    mdt: int
    checked_at: datetime
    state: PairState = PairState.ERROR
    actual_ost: int | None = None
    create_seconds: float | None = None
    unlink_seconds: float | None = None
    error: str | None = None
    errno: int | None = None

    def fields(self, target: str, ost: int) -> dict[str, Any]:
        return {
            "target": target,
            "mdt_index": self.mdt,
            "ost_index": ost,
            "state": self.state,
            "reason": self._reason(),
            "actual_ost": self.actual_ost,
            "create_seconds": self.create_seconds,
            "unlink_seconds": self.unlink_seconds,
            "checked_at": self.checked_at,
            "error": None if self.error is None else one_line(self.error),
            "errno": self.errno,
        }

    def _reason(self) -> str:
        if self.state is PairState.OK:
            return ""
        if self.errno is not None:
            return errno.errorcode.get(self.errno, f"E{self.errno}")
        return self.state


def _phase(mdt: int) -> str:
    return f"mdt{mdt}"


def _fault(pair: _Pair) -> Fault:
    return Fault(_phase(pair.mdt), _OST_STATES[pair.state], f"{pair.state}: {pair.error}")
