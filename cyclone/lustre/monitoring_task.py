"""The task of the task file, as the monitoring hands it in for each OST."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cyclone.base_task import BaseTask
from cyclone.errors import ConfigError
from cyclone.lustre.alert_io_task import LustreAlertIOTask
from cyclone.lustre.creation_check_task import LustreFileCreationCheckTask
from cyclone.lustre.monitoring_settings import MonitoringSettings
from cyclone.lustre.ost_task import OstResult, OstState, OstTask, Row
from cyclone.lustre.records import MonitoringRound
from cyclone.lustre.rounds import Summary
from cyclone.task_file import Preset, TaskFile

_NAME_LENGTH_MAX = 64
_COUNTS = ("expected", "ok", "failed", "down", "hung", "skipped")


class MonitoringTask:
    """Makes tasks from their preset, and knows what else is to be recorded for them.

    sample: one of them, to be asked for what is the same for all. parts: see `Rounds`.
    """

    def __init__(self, settings: MonitoringSettings) -> None:
        """Raises ConfigError: no such task, or its properties are wrong."""
        self._settings = settings
        self._preset = self._found()
        self._properties = frozenset(inspect.signature(self._preset.kind).parameters)
        try:
            self.sample = self.make(0)
        except ValueError as error:
            raise ConfigError(f"task {self._preset.name!r}: {error}", file=settings.task_file) from None
        self.parts = self._parts()

    def check(self) -> None:
        """Raises ConfigError when task and file system do not fit together, or Lustre's programs are missing here."""
        settings = self._settings
        if settings.local_mode:
            return
        if not settings.target:
            raise self._wrong("lustre", "target", "is empty, expected the name of the file system")
        if "ost_idx" not in self._properties:
            raise self._wrong(
                "task", "task_name", f"{self._kind} has no property ost_idx, expected a task for an OST"
            )
        if isinstance(self.sample, OstTask) and self.sample.lfs_target != settings.target:
            problem = f"found {settings.target!r}, but the task looks at {self.sample.lfs_target!r}"
            raise self._wrong("lustre", "target", problem)
        if shutil.which(settings.lfs_bin) is None:
            raise self._wrong("lustre", "lfs_bin", f"found {settings.lfs_bin!r}, expected a program")

    def make(self, ost: int, part: str = "", round_name: str = "", quiet: Sequence[str] = ()) -> BaseTask:
        """A new task. quiet: phases whose faults people know of already."""
        return self._preset.make(**self._filled(ost, part, round_name, quiet))

    def explain(self) -> str:
        """The task as it will be made: its class, and each property as the task file has it or by default."""
        preset = self._preset
        parameters = inspect.signature(self._preset.kind).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        filled = self._filled(0, self.parts[0], "", ())
        told = dict.fromkeys(filled, "(filled in for each task)")
        values = {**defaults, **preset.arguments(**filled), **told}
        lines = [f"task {preset.name} of {self._settings.task_file}: {preset.kind.__module__}.{self._kind}"]
        return "\n".join([*lines, *(f"  {name} = {value}" for name, value in values.items())])

    def mails(self) -> LustreAlertIOTask | None:
        """A task that knows how to mail, if they do."""
        return self.sample if isinstance(self.sample, LustreAlertIOTask) else None

    @property
    def tells_of_osts(self) -> bool:
        """Is the value of each of them an `OstResult`?"""
        return isinstance(self.sample, OstTask)

    def workplaces(self) -> list[str]:
        """Directories in which tasks may have left something behind."""
        return self.sample.workplaces() if isinstance(self.sample, OstTask) else []

    def state_rows(self, ost: int, part: str, state: OstState, reason: str, moment: datetime) -> list[Row]:
        """What to record of an OST, or of a part of it, that is not looked at."""
        task = self.make(ost, part)
        return task.state_rows(state, reason, moment) if isinstance(task, OstTask) else []

    def round_rows(
        self, summary: Summary, results: Sequence[OstResult], known: Sequence[Row], started_at: datetime
    ) -> list[Row]:
        """What to record of a round. See `OstTask.round_rows`."""
        sample = self.sample
        if not isinstance(sample, OstTask):
            return []
        fields = {
            "fs": sample.lfs_target,
            "task": self._preset.name[:_NAME_LENGTH_MAX],
            "started_at": started_at,
            "duration": summary.duration_s,
            **{name: getattr(summary, name) for name in _COUNTS},
        }
        rows = [Row(sink, MonitoringRound, fields) for sink in sample.sinks()]
        return rows + sample.round_rows(results, known, started_at)

    def _filled(self, ost: int, part: str, round_name: str, quiet: Sequence[str]) -> dict[str, Any]:
        """The properties that differ from task to task."""
        filled: dict[str, Any] = {}
        if "ost_idx" in self._properties:
            filled["ost_idx"] = ost
        if part:
            filled["mdt_index_rangeset"] = part
        if "mail_round" in self._properties:
            filled.update(mail_round=round_name, mail_quiet=",".join(quiet))
        return filled

    def _found(self) -> Preset:
        settings = self._settings
        presets = TaskFile.read(settings.task_file, packages=settings.task_packages).presets
        if settings.task_name not in presets:
            problem = f"found {settings.task_name!r}, expected one of: {', '.join(presets)}"
            raise self._wrong("task", "task_name", problem)
        return presets[settings.task_name]

    def _parts(self) -> tuple[str, ...]:
        if not self._settings.per_pair:
            return ("",)
        if not isinstance(self.sample, LustreFileCreationCheckTask):
            raise self._wrong("task", "per_pair", f"is on, but {self._kind} does not check pairs")
        return tuple(map(str, self.sample.mdts))

    @property
    def _kind(self) -> str:
        return self._preset.kind.__name__

    def _wrong(self, section: str, key: str, problem: str) -> ConfigError:
        return ConfigError(problem, file=self._settings.ini_file, section=section, key=key)
