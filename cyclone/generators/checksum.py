"""Checksums of all files below a directory, in a manifest that `sha256sum --check` reads."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclone.clock import monotonic
from cyclone.generators.files import SortedLines, replacing, write_json
from cyclone.ini import Ini
from cyclone.settings import Settings, path
from cyclone.task_generator import Result, TaskGenerator
from cyclone.tasks.checksum import ChecksumTask, escaped, path_tid

_PROGRESS_INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ChecksumSettings(Settings):
    """What the checksum generator is told."""

    directory: Path = path(
        "files", "directory", None,
        "Where to look for files, also in the directories below. Symbolic links are not followed; only "
        "plain files count. Controllers must see them under the same path.",
        "a directory that exists",
    )  # fmt: skip
    manifest: Path = path(
        "manifest", "file", None,
        "The manifest, written when all files were read: a line for each, as sha256sum writes it, ordered "
        "by name.",
    )  # fmt: skip
    failures: Path | None = path(
        "manifest", "failures", "",
        "A line for each file or directory that could not be read, and why. Empty: only the log.",
        "a path, or nothing",
    )  # fmt: skip
    summary: Path | None = path(
        "manifest", "summary", "", "The counts, in JSON, written at the end. Empty: only the log.",
        "a path, or nothing",
    )  # fmt: skip
    progress: Path | None = path(
        "manifest", "progress", "",
        "The counts so far, in JSON, renewed twice a second. Empty: none.", "a path, or nothing",
    )  # fmt: skip

    def check(self, ini: Ini) -> None:
        if not os.path.isdir(self.directory):
            problem = f"found {str(self.directory)!r}, expected a directory that exists"
            raise ini.wrong("files", "directory", problem)
        if os.path.isdir(self.manifest):
            problem = f"found {str(self.manifest)!r}, which is a directory; expected a file"
            raise ini.wrong("manifest", "file", problem)

    def outputs(self) -> list[Path]:
        """Every file that the generator writes."""
        named = (self.manifest, self.failures, self.summary, self.progress)
        return [file for file in named if file is not None]


class ChecksumTaskGenerator(TaskGenerator):
    """Yields a task for each file while it walks the tree, and writes the manifest when all have ended.

    After a restart it walks again: files that were read before are answered from the job's record, so the
    manifest is whole however often it was cut short. Its own files are not among those it reads.
    """

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        #: `{tid: name}` of the files whose result has not come.
        self._open: dict[str, bytes] = {}
        self._found = self._directories_failed = 0
        self._walked = False
        self._written_at = 0.0

    def validate_config(self) -> None:
        ChecksumSettings.of(self.config)

    def run(self) -> None:
        self.settings = ChecksumSettings.of(self.config)
        self._own = {
            os.path.realpath(os.fsencode(file) + ending)
            for file in self.settings.outputs()
            for ending in (b"", b".tmp")
        }
        started = monotonic()
        with ExitStack() as open_files:
            self._sums = open_files.enter_context(SortedLines(_name_of_sum))
            self._failures = open_files.enter_context(SortedLines(bytes))
            super().run()
            if self._walked and not self._open:
                self._finish(monotonic() - started)
            else:
                self._show_progress("stopped", now=monotonic())

    def generate(self) -> Iterator[ChecksumTask]:
        here = os.getcwdb()
        for name in self._walk(os.fsencode(self.settings.directory)):
            # The task finds the file wherever its controller was started; people see the name as it was given.
            task = ChecksumTask(os.path.join(here, name))
            tid = path_tid(name)
            task.tid = tid
            self._open[tid] = name
            self._found += 1
            yield task
            self._show_progress("running")
        self._walked = True

    def on_result(self, result: Result) -> None:
        name = self._open.pop(result.tid)
        if result.ok:
            self._sums.add(sum_line(str(result.value), name))
        else:
            self._fail(name, result.error.partition("\n")[0] or result.outcome)
        self._show_progress("running")

    def _walk(self, root: bytes) -> Iterator[bytes]:
        pending = [root]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        elif entry.is_file(follow_symlinks=False) and not self._is_own(entry.path):
                            yield entry.path
            except OSError as error:
                self._directories_failed += 1
                self._fail(directory, error.strerror or str(error))

    def _is_own(self, file: bytes) -> bool:
        own_names = {os.path.basename(own) for own in self._own}
        # Only a file of that name is worth the system calls.
        return os.path.basename(file) in own_names and os.path.realpath(file) in self._own

    def _fail(self, name: bytes, reason: str) -> None:
        self._failures.add(escaped(name) + b"\t" + escaped(reason.encode("utf-8", "replace")) + b"\n")
        self.log.warning("cannot be read file=%s reason=%s", path_tid(name), reason)

    def _finish(self, duration_s: float) -> None:
        settings, counts = self.settings, self._counts()
        if settings.failures is not None:
            with replacing(settings.failures) as file:
                file.writelines(self._failures)
        with replacing(settings.manifest) as file:
            file.writelines(self._sums)
        if settings.summary is not None:
            summary = {"directory": str(settings.directory), "manifest": str(settings.manifest), **counts}
            write_json(settings.summary, {**summary, "seconds": round(duration_s, 3)})
        self._show_progress("finished", now=monotonic())
        self.log.info(
            "manifest written file=%s files=%d failed=%d directories_failed=%d",
            settings.manifest, counts["done"], counts["failed"], counts["directories_failed"],
        )  # fmt: skip

    def _show_progress(self, state: str, now: float | None = None) -> None:
        """Write the progress file if it is time to; in any case if `now` is given."""
        file = self.settings.progress
        if file is None or (now is None and monotonic() - self._written_at < _PROGRESS_INTERVAL_S):
            return
        self._written_at = monotonic()
        write_json(file, {"state": state, **self._counts()})

    def _counts(self) -> dict[str, Any]:
        """found: files so far; total: the same once all were found, else None; done, failed: files of them."""
        total = self._found if self._walked else None
        return {
            "found": self._found,
            "total": total,
            "done": self._sums.count,
            "failed": self._failures.count - self._directories_failed,
            "directories_failed": self._directories_failed,
        }


def sum_line(checksum: str, name: bytes) -> bytes:
    """One line of the manifest. A name that had to be escaped is marked by a backslash in front of the line."""
    shown = escaped(name)
    mark = b"" if shown == name else b"\\"
    return mark + checksum.encode("ascii") + b"  " + shown + b"\n"


def _name_of_sum(line: bytes) -> bytes:
    return line.split(b"  ", 1)[1]
