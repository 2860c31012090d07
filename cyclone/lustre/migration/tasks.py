"""The task that is made for an entry, and what its result says of the file."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

from cyclone.base_task import BaseTask
from cyclone.errors import TaskFileError
from cyclone.ini import Ini
from cyclone.lustre.migrate_task import LustreOstMigrateTask, MigrationResult
from cyclone.lustre.migration.entry import EntryId
from cyclone.lustre.migration.mind import Run
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.migration.verdict import FileState, Report
from cyclone.task_file import Preset, TaskFile
from cyclone.task_generator import Result

_FILLED = ("filename", "source_ost", "target_ost")

_TID = re.compile(r"mig-([0-9a-f]{8,32})-([0-9]{1,18})-([0-9]{1,4})\Z", re.ASCII)

#: What a task that did not succeed says of its file: nothing, mostly. It is tried again, except for these outcomes.
_HOPELESS = {"raised", "cancelled"}

#: A task of ours raises nothing. If it did, something is wrong with the node, where a package may be missing, or with
#: Cyclone, and would be with the next file as well.
_BROKEN = "our_bug"


def tid(entry_id: EntryId, tries: int) -> str:
    """Names a try for ever: one that is handed in again after a restart is the same one."""
    return f"mig-{entry_id.input}-{entry_id.number}-{tries}"


def entry_of(tid: str) -> tuple[EntryId, int] | None:
    """The entry and the number of the try; None if the tid is none of ours."""
    match = _TID.match(tid)
    return None if match is None else (EntryId(match[1], int(match[2])), int(match[3]))


class Workshop:
    """Makes tasks as preset in the task file.

    Raises ConfigError when there is no such task, or when it cannot do what the ini file asks for.
    """

    def __init__(self, settings: MigrationSettings, ini: Ini) -> None:
        self._preset = _preset(settings, ini)
        parameters = inspect.signature(self._preset.kind).parameters
        self._filled = [name for name in _FILLED if name in parameters]
        self._more: dict[str, Any] = {}
        if len(self._filled) < len(_FILLED) and not settings.local_mode:
            missing = next(name for name in _FILLED if name not in parameters)
            self._refuse(ini, "task", "task_name", f"has no property {missing}")
        if settings.dry_run and not settings.local_mode:
            if "dry_run" not in parameters:
                self._refuse(ini, "migration", "dry_run", "has no property dry_run")
            self._more["dry_run"] = True
        if settings.verify is not None:
            if "verify" not in parameters:
                self._refuse(ini, "migration", "verify", "has no property verify")
            self._more["verify"] = settings.verify
        try:
            self.block = bool(getattr(self._made(os.fsdecode(settings.fs_path), 0, 1), "block", False))
        except TaskFileError as error:
            raise TaskFileError(error.problem, file=settings.task_file) from None
        except (TypeError, ValueError) as error:
            raise TaskFileError(f"task {self._preset.name!r}: {error}", file=settings.task_file) from None
        if self.block and not settings.look_at_files and not settings.local_mode:
            problem = "is off, but the task blocks, so that two hard links of a file must not move at once; expected on"
            raise ini.wrong("migration", "look_at_files", problem)

    @property
    def kind(self) -> type[BaseTask]:
        """The class of the tasks."""
        return self._preset.kind

    def make(self, run: Run) -> BaseTask:
        """The task for this run."""
        task = self._made(os.fsdecode(run.entry.path), run.entry.source, run.target)
        task.tid = tid(run.entry.id, run.entry.tries)
        return task

    def _made(self, path: str, source: int, target: int) -> BaseTask:
        values = dict(zip(_FILLED, (path, source, target), strict=True))
        return self._preset.make(**{name: values[name] for name in self._filled}, **self._more)

    def _refuse(self, ini: Ini, section: str, key: str, problem: str) -> None:
        raise ini.wrong(section, key, f"{self._preset.kind.__name__} {problem}")


def _preset(settings: MigrationSettings, ini: Ini) -> Preset:
    file = settings.task_file
    presets = TaskFile.read(file, [file.parent], settings.task_packages).presets
    if settings.task_name not in presets:
        problem = f"found {settings.task_name!r}, expected one of: {', '.join(presets)}"
        raise ini.wrong("task", "task_name", problem)
    return presets[settings.task_name]


def report_of(result: Result, kind: type[BaseTask]) -> Report:
    """What a result says of its file. kind: of its task; one that has nothing to tell, EmptyTask say, has moved it."""
    if not result.ok:
        headline = result.error.strip().rpartition("\n")[2] or result.outcome
        failure = "permanent" if result.outcome in _HOPELESS else "unknown"
        if result.outcome == "raised" and kind is LustreOstMigrateTask:
            failure = _BROKEN
        return Report(FileState.FAILED, f"{result.outcome}: {headline}", failure)
    value = result.value
    if isinstance(value, MigrationResult):
        return Report(
            FileState(value.state), value.reason, str(value.failure), value.actual, value.bytes, value.message
        )
    if result.error or issubclass(kind, LustreOstMigrateTask):
        # Another try finds out what became of the file.
        return Report(
            FileState.FAILED, f"no-result: {result.error or 'the task has told nothing'}", "unknown"
        )
    return Report(FileState.SUCCESS)
