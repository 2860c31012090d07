"""Runs the lines of a file as commands."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cyclone.ini import Ini
from cyclone.model.task import Retry
from cyclone.settings import Settings, path, seconds, whole
from cyclone.task_generator import Result, TaskGenerator
from cyclone.tasks.command import CommandTask


@dataclass(frozen=True, kw_only=True)
class TaskListSettings(Settings):
    """What the task list generator is told."""

    file: Path = path(
        "tasks", "file", None,
        "The list: a command on each line, as for /bin/sh -c. Blank lines, and lines that start with #, "
        "are skipped.",
        "a file that exists",
    )  # fmt: skip
    cwd: Path | None = path(
        "tasks", "cwd", "",
        "Where the commands run. Empty: the working directory of the master, which must be there on every "
        "node.",
        "a path, or nothing",
    )  # fmt: skip
    stdout_dir: Path | None = path(
        "tasks", "stdout_dir", "",
        "Directory for the output: TID.out and TID.err for each command. Empty: output is dropped, but the "
        "end of what a failed command wrote to stderr is in its error.",
        "a path, or nothing",
    )  # fmt: skip
    timeout_s: float | None = seconds(
        "tasks", "timeout", "", "How long one attempt may take. Empty: any time.", minimum=0.001
    )
    retries: int = whole(
        "tasks", "retries", "0",
        "How often to try again after a command that failed or ran out of time.",
        maximum=1000, unit="tries",
    )  # fmt: skip

    def check(self, ini: Ini) -> None:
        if not os.path.isfile(self.file):
            raise ini.wrong("tasks", "file", f"found {str(self.file)!r}, expected a file that exists")


class TaskListGenerator(TaskGenerator):
    """Yields a `CommandTask` for each line.

    Its tid is the number of the line and a hash of it: the same line may stand in the list twice, and after a
    restart only lines that are new or were changed are run.
    """

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        self._succeeded = self._failed = 0

    def validate_config(self) -> None:
        TaskListSettings.of(self.config)

    def run(self) -> None:
        self.settings = TaskListSettings.of(self.config)
        super().run()
        self.log.info("task list ended succeeded=%d failed=%d", self._succeeded, self._failed)

    def generate(self) -> Iterator[CommandTask]:
        settings = self.settings
        cwd = (settings.cwd or Path()).absolute()
        outputs = settings.stdout_dir and settings.stdout_dir.absolute()
        retry = Retry(errors=settings.retries, timeouts=settings.retries)
        with open(settings.file, "rb") as lines:
            for number, raw in enumerate(lines, start=1):
                command = os.fsdecode(raw).strip()
                if not command or command.startswith("#"):
                    continue
                task = CommandTask(
                    command,
                    cwd=cwd,
                    stdout=outputs and outputs / "{tid}.out",
                    stderr=outputs and outputs / "{tid}.err",
                )
                task.tid = f"{number}-{hashlib.sha256(os.fsencode(command)).hexdigest()[:12]}"
                task.timeout = settings.timeout_s
                task.retry = retry
                yield task

    def on_result(self, result: Result) -> None:
        if result.ok:
            self._succeeded += 1
        else:
            self._failed += 1
            reason = result.error.partition("\n")[0] or result.outcome
            self.log.warning("command failed tid=%s outcome=%s reason=%s", result.tid, result.outcome, reason)
