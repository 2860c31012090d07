"""What the migration is told by its ini file, and what may be changed while it runs."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from cyclone.ini import Ini
from cyclone.lustre.migration.hours import Hours
from cyclone.lustre.migration.plan import Bounds, Plan
from cyclone.lustre.rangeset import indexes
from cyclone.model.resources import UNIT, amount
from cyclone.settings import (
    ANY_KEY,
    Settings,
    choice,
    path,
    seconds,
    special,
    switch,
    task_packages,
    text,
    whole,
)

_GB = 1_000_000_000

#: As Cyclone 2.x has them in its manual; in its code they are called as they are here.
_ALIASES = {
    "ost_fill_threshold_source": "ost_fill_level_threshold_source",
    "ost_fill_threshold_target": "ost_fill_level_threshold_target",
}

_BOUND = re.compile(r"(source|target|ost):([0-9]{1,5})\Z", re.ASCII)

_Value = TypeVar("_Value")

ORDERS = ("fifo", "small_first", "large_first", "random")


def _reader(convert: Callable[[str], _Value]) -> Callable[[Ini, str, str], _Value]:
    """A reader of `convert`, which raises ValueError."""

    def read(ini: Ini, section: str, key: str) -> _Value:
        try:
            return convert(ini.text(section, key))
        except ValueError as error:
            raise ini.wrong(section, key, str(error)) from None

    return read


def _percent(low: int) -> Callable[[Ini, str, str], float]:
    return lambda ini, section, key: ini.number(section, key, minimum=low, maximum=100)


def _rate(ini: Ini, section: str, key: str) -> float:
    return ini.number(section, key, minimum=0)


def _osts(value: str) -> frozenset[int]:
    return frozenset(indexes(value))


def _targets(value: str) -> frozenset[int]:
    found = _osts(value)
    if not found:
        raise ValueError("is empty, expected indexes such as 0-9,12")
    return found


def _size(value: str) -> int | None:
    if not value:
        return None
    try:
        return amount(value) // UNIT
    except ValueError:
        raise ValueError(f"found {value!r}, expected a size such as 4096 or 32MiB") from None


def _bounds(ini: Ini, section: str, key: str) -> dict[int, Bounds]:
    found: dict[int, Bounds] = {}
    for osts, value in ini.sections().get(section, {}).items():
        try:
            bounds = _bounds_of(value)
            for ost in indexes(osts):
                if ost in found:
                    raise ValueError(f"OST {ost} stands in another key already")
                found[ost] = bounds
        except ValueError as error:
            raise ini.wrong(section, osts, str(error)) from None
    return found


def _bounds_of(value: str) -> Bounds:
    matches = [_BOUND.match(word) for word in value.split()]
    named = {match[1]: int(match[2]) for match in matches if match is not None}
    if not named or len(named) < len(matches):
        raise ValueError(f"found {value!r}, expected such as source:4 target:2 ost:5")
    return Bounds(**named)


_INDEXES = "indexes such as 0-9,12"
_SECONDS_MOST = 3600
_DAYS_MOST = 30


@dataclass(frozen=True, kw_only=True)
class MigrationSettings(Settings):
    """What the migration is told. Durations in seconds; relative paths are relative to the working directory."""

    local_mode: bool = switch(
        "control", "local_mode", "off",
        "Simulate: no Lustre is needed, fill levels are made up, and any task will do, EmptyTask say.",
    )  # fmt: skip
    num_osts: int = whole(
        "control.local_mode", "num_osts", "10",
        "How many OSTs there are in a simulation; entries of others wait.", minimum=1, maximum=65536,
    )  # fmt: skip
    seed: int = whole(
        "control.local_mode", "seed", "0",
        "Fill levels in a simulation are drawn from 40 to 60 % at every update; the same ones for the same seed.",
        maximum=2**63 - 1,
    )  # fmt: skip
    update_fill_level_s: int = whole(
        "control.threshold", "update_fill_level", "60",
        "How often fill levels are asked for. What is older than three times this is unknown, and an OST whose fill "
        "level is unknown is left alone.",
        minimum=1, maximum=_SECONDS_MOST, unit="seconds",
    )  # fmt: skip
    reload_files_s: int = whole(
        "control.threshold", "reload_files", "60", "How often input_dir is looked at for more lists.",
        minimum=1, maximum=_SECONDS_MOST, unit="seconds",
    )  # fmt: skip
    print_caches_s: int = whole(
        "control.threshold", "print_caches", "60", "How often the log tells how far it is.",
        minimum=1, maximum=_SECONDS_MOST, unit="seconds",
    )  # fmt: skip
    task_file: Path = path(
        "task", "task_file", None, "The XML file with the task that is made for each entry.",
        "a file that exists",
    )  # fmt: skip
    task_name: str = text(
        "task", "task_name", None,
        "The name of that task. The generator fills in filename, source_ost and target_ost.",
        "the name of a task in task_file",
    )  # fmt: skip
    task_packages: tuple[str, ...] = task_packages()
    input_dir: Path = path(
        "migration", "input_dir", None,
        "Where the lists are. NAME.input has a line for each file: the decimal index of the OST that it is on, a "
        "blank, its path; NAME.input0 has records that end with a NUL instead; either may be compressed, NAME.input.gz.",
        "a directory that exists and can be written",
    )  # fmt: skip
    source_threshold: float = special(
        "migration", "ost_fill_level_threshold_source", None,
        "Files leave an OST as long as its fill level is above this. Also called ost_fill_threshold_source.",
        "a number from 0 to 100", _percent(0), "percent",
    )  # fmt: skip
    target_threshold: float = special(
        "migration", "ost_fill_level_threshold_target", None,
        "Files go to an OST as long as its fill level is below this. Also called ost_fill_threshold_target.",
        "a number from 1 to 100", _percent(1), "percent",
    )  # fmt: skip
    targets: frozenset[int] = special(
        "migration", "ost_targets", None, "The OSTs that files may go to.", _INDEXES, _reader(_targets)
    )
    sources: frozenset[int] = special(
        "migration", "ost_sources", "",
        "The OSTs that files may leave; entries of others wait. Empty: all that stand in the lists.",
        f"{_INDEXES}, or nothing", _reader(_osts),
    )  # fmt: skip
    excluded: frozenset[int] = special(
        "migration", "ost_exclude", "", "OSTs that are neither source nor target.",
        f"{_INDEXES}, or nothing", _reader(_osts),
    )  # fmt: skip
    source_max_tasks: int = whole(
        "migration", "source_max_tasks", "1", "Tasks in flight from one OST.", minimum=1, maximum=10_000
    )
    target_max_tasks: int = whole(
        "migration", "target_max_tasks", "1", "Tasks in flight to one OST.", minimum=1, maximum=10_000
    )
    pair_max_tasks: int = whole(
        "migration", "pair_max_tasks", "1", "Tasks in flight from one OST to the same other one. 0: any number.",
        maximum=10_000,
    )  # fmt: skip
    ost_max_tasks: int = whole(
        "migration", "ost_max_tasks", "0", "Tasks in flight from and to one OST together. 0: any number.",
        maximum=10_000,
    )  # fmt: skip
    oss_max_tasks: int = whole(
        "migration", "oss_max_tasks", "0",
        "Tasks in flight from and to the OSTs of one server. 0: any number. Needs oss_map.", maximum=10_000,
    )  # fmt: skip
    max_tasks: int = whole(
        "migration", "max_tasks", "0", "Tasks in flight in all. 0: any number.", maximum=1_000_000
    )
    oss_map: str = text(
        "migration", "oss_map", "",
        "Which server each OST is on: a file with a line for each server, its name, a blank and the indexes of its "
        "OSTs; or auto, which asks lctl and needs fs_name. Empty: nobody knows.",
        "a file that exists, auto, or nothing",
    )  # fmt: skip
    order: str = choice(
        "migration", "order", "fifo",
        "Which entry of an OST is next: the oldest; or the smallest or largest file, or any, of the next "
        "cache_entries_per_ost.",
        ORDERS,
    )  # fmt: skip
    cache_entries_per_ost: int = whole(
        "migration", "cache_entries_per_ost", "1000",
        "So many entries of an OST are in memory at the most; the others wait on disk.", minimum=1, maximum=1_000_000,
        unit="entries",
    )  # fmt: skip
    min_size: int | None = special(
        "migration", "min_size", "", "Smaller files are skipped. Empty: none.",
        "a size such as 4096 or 32MiB, or nothing", _reader(_size), "bytes",
    )  # fmt: skip
    max_size: int | None = special(
        "migration", "max_size", "", "Larger files are skipped. Empty: none.",
        "a size such as 4096 or 32MiB, or nothing", _reader(_size), "bytes",
    )  # fmt: skip
    look_at_files: bool = switch(
        "migration", "look_at_files", "on",
        "Look at each file before its task is handed in: its size, which counts for the fill level of its target from "
        "then on, and its hard links, of which never two are moved at the same time while others are made to wait "
        "(LU-16571). Sizes, orders other than fifo and random, and tasks that block need it.",
    )  # fmt: skip
    retry_max: int = whole(
        "migration", "retry_max", "3",
        "How often a file is tried again that was busy, whose owner has used up his quota, that had trouble more than "
        "once, or whose task was killed; then it goes to NAME.input.busy or NAME.input.failed.",
        maximum=90, unit="tries",
    )  # fmt: skip
    retry_delay_s: float = seconds(
        "migration", "retry_delay", "300",
        "How long to wait before a file is tried again, and before an OST is used again that takes nothing, or with which "
        "three files or sources in a row had trouble; for an OST twice as long each time, up to an hour.",
        maximum=_DAYS_MOST * 86_400,
    )  # fmt: skip
    max_failures: int = whole(
        "migration", "max_failures", "0",
        "So many failed files since the start end the migration with an error; those of before do not count, for nobody could "
        "go on with their lists otherwise. 0: any number. A file that is not what it was, by its content, size, owner, mode, "
        "time or inode, always does.",
        maximum=2**31 - 1, unit="files",
    )  # fmt: skip
    rate_files_per_s: float = special(
        "migration", "rate_files_per_s", "0", "Tasks that are handed in per second, on the average. 0: any number.",
        "a number from 0", _rate, "files per second",
    )  # fmt: skip
    rate_mb_per_s: float = special(
        "migration", "rate_mb_per_s", "0", "Megabytes, of a million bytes, that are moved per second, on the average. "
        "0: any number.",
        "a number from 0", _rate, "MB per second",
    )  # fmt: skip
    hours: Hours = special(
        "migration", "time_window", "",
        "When tasks are handed in, by the local clock of the master; what is in flight at the end of it goes on. Empty: "
        "always.",
        "two times of the day such as 20:00-06:00, or nothing", _reader(Hours.of),
    )  # fmt: skip
    target_reserve_gb: int = whole(
        "migration", "target_reserve_gb", "0", "So much stays free on each target, whatever the threshold says.",
        maximum=10**9, unit="GB",
    )  # fmt: skip
    verify: str | None = special(
        "migration", "verify", "",
        "How a moved file is checked: not at all, its layout, also its status, also its content; the task must have a "
        "property of this name. Empty: as task_file says.",
        "none, layout, stat, checksum, or nothing", lambda ini, section, key: _verify(ini, section, key),
    )  # fmt: skip
    dry_run: bool = switch(
        "migration", "dry_run", "off",
        "Move nothing and leave all lists as they are, but tell what would be done; the task must have a property of this "
        "name.",
    )  # fmt: skip
    settle_time_s: float | None = seconds(
        "migration", "settle_time", "",
        "A list is taken when it has not changed for so long. 0 is right where lists get their names only when they are "
        "complete. Empty: as reload_files.",
    )  # fmt: skip
    done_on_load: bool = switch(
        "migration", "done_on_load", "off",
        "Call a list NAME.input.done as soon as it was read, as Cyclone 2.x did, and not when every entry has its result. "
        "Its records are copied for that, to NAME.input.plain.",
    )  # fmt: skip
    keep_journal: bool = switch(
        "migration", "keep_journal", "off",
        "Keep the journal of a list that is done, a line for each entry with its result, as NAME.input.audit.",
    )  # fmt: skip
    pushgateway: bool = switch(
        "migration", "pushgateway", "off",
        "Record how each OST stands, as often as print_caches, for the sink pushgateway, which the ini files of the "
        "controllers must name.",
    )  # fmt: skip
    stop_when_done: bool = switch(
        "migration", "stop_when_done", "off",
        "End when every entry has its result, or when no file can be moved any more because sources or targets have "
        "reached their thresholds. off: wait for more lists.",
    )  # fmt: skip
    report_file: Path | None = path(
        "migration", "report_file", "",
        "What was done since the start and what is left, in JSON, written at the end; of each list what became of it in "
        "all. Empty: only the log.", "a path, or nothing",
    )  # fmt: skip
    bounds: Mapping[int, Bounds] = special(
        "migration.limits", ANY_KEY, "",
        "What is different about some OSTs: OSTS = source:N target:N ost:N, any of these, each in the place of "
        "source_max_tasks, target_max_tasks, ost_max_tasks. 0: never.",
        "such as source:4 target:2", _bounds, "tasks",
    )  # fmt: skip
    fs_path: Path = path(
        "lustre", "fs_path", None, "Where Lustre is mounted; every file in the lists is below it.",
        "an absolute path; a directory that exists, unless in local mode",
    )  # fmt: skip
    fs_name: str = text(
        "lustre", "fs_name", "", "What the file system is called. Only oss_map = auto needs it."
    )
    lfs_bin: str = text("lustre", "lfs_bin", "lfs", "The program lfs, by name or path.")
    use_sudo: bool = switch("lustre", "use_sudo", "off", "Call lfs df and lctl by sudo.")
    lfs_timeout_s: float = seconds(
        "lustre", "lfs_timeout", "60", "A call of lfs or lctl that takes longer is killed.", minimum=0.1
    )

    @classmethod
    def of(cls, ini: Ini) -> Self:
        return super().of(_with_names_of_today(ini))

    @classmethod
    def complete(cls, ini: Ini) -> Ini:
        """The same with all keys that are not in it, and with the names that keys have today. Raises ConfigError."""
        return cls._with_defaults(_with_names_of_today(ini))

    def check(self, ini: Ini) -> None:
        if not os.path.isdir(self.input_dir):
            found = f"found {str(self.input_dir)!r}, expected a directory that exists"
            raise ini.wrong("migration", "input_dir", found)
        if not os.access(self.input_dir, os.R_OK | os.W_OK | os.X_OK):
            found = f"found {str(self.input_dir)!r}, which cannot be read and written; expected one that can"
            raise ini.wrong("migration", "input_dir", found)
        if not self.fs_path.is_absolute():
            raise ini.wrong("lustre", "fs_path", f"found {str(self.fs_path)!r}, expected an absolute path")
        if self.oss_max_tasks and not self.oss_map:
            raise ini.wrong("migration", "oss_max_tasks", "needs oss_map; expected that or 0")
        if self.oss_map == "auto" and not self.fs_name:
            raise ini.wrong("migration", "oss_map", "found auto, which needs fs_name in [lustre]")
        if self.oss_map not in ("", "auto") and not os.path.isfile(self.oss_map):
            raise ini.wrong(
                "migration", "oss_map", f"found {self.oss_map!r}, expected a file, auto, or nothing"
            )
        if None not in (self.min_size, self.max_size) and (self.min_size or 0) > (self.max_size or 0):
            raise ini.wrong("migration", "min_size", "is larger than max_size")
        if not self.look_at_files and (self.order.endswith("_first") or self.has_size_bounds):
            needs = "order, min_size and max_size as they are need it"
            raise ini.wrong("migration", "look_at_files", f"is off, but {needs}; expected on")

    @property
    def settle_s(self) -> float:
        return float(self.reload_files_s) if self.settle_time_s is None else self.settle_time_s

    @property
    def has_size_bounds(self) -> bool:
        return self.min_size is not None or self.max_size is not None

    def is_outsized(self, size: int) -> bool:
        """Is a file of so many bytes to be skipped?"""
        return size < (self.min_size or 0) or (self.max_size is not None and size > self.max_size)

    def excluding(self, osts: frozenset[int]) -> Self:
        """The same without these OSTs."""
        return replace(self, excluded=self.excluded | osts)

    def plan(self, oss_of: Mapping[int, str]) -> Plan:
        """What of this the mind has to know. oss_of: `{OST: its server}`."""
        return Plan(
            source_threshold=self.source_threshold,
            target_threshold=self.target_threshold,
            targets=self.targets,
            sources=self.sources,
            excluded=self.excluded,
            source_max_tasks=self.source_max_tasks,
            target_max_tasks=self.target_max_tasks,
            pair_max_tasks=self.pair_max_tasks,
            oss_max_tasks=self.oss_max_tasks,
            ost_max_tasks=self.ost_max_tasks,
            max_tasks=self.max_tasks,
            bounds=self.bounds,
            oss_of=oss_of,
            retry_max=self.retry_max,
            retry_delay_s=self.retry_delay_s,
            max_failures=self.max_failures,
            rate_files_per_s=self.rate_files_per_s,
            rate_mb_per_s=self.rate_mb_per_s,
            target_reserve_bytes=self.target_reserve_gb * _GB,
            queue_most=self.cache_entries_per_ost,
            is_dry=self.dry_run,
        )

    def fixed_but_changed(self, after: MigrationSettings) -> list[str]:
        """Keys with other values afterwards which they must not have, as `[section] key`."""
        return sorted(
            f"[{setting.section}] {setting.key}" for name, setting in self._by_field().items()
            if (setting.section, setting.key) in _FIXED and getattr(self, name) != getattr(after, name)
        )  # fmt: skip

    def doubts(self, listed: Collection[int]) -> list[str]:
        """What is allowed and probably not meant, in words for the log. listed: OSTs that stand in lists."""
        found = []
        sources = (self.sources or frozenset(listed)) - self.excluded
        targets = self.targets - self.excluded
        if not targets:
            found.append("all targets are excluded")
        if len(targets) == 1 and targets == sources:
            found.append("the only source is the only target")
        elif targets & sources and self.source_threshold < self.target_threshold:
            found.append(
                f"OSTs are both source and target, and the threshold of sources is below that of targets: filled from "
                f"{self.source_threshold:g} to {self.target_threshold:g} %, such an OST gives files away and takes others"
            )
        return found


#: What cannot be changed while the migration runs: the rest of it has been built on these.
_FIXED = frozenset({
    ("control", "local_mode"), ("control.local_mode", "num_osts"), ("control.local_mode", "seed"),
    ("migration", "input_dir"), ("migration", "dry_run"), ("migration", "done_on_load"),
    ("migration", "look_at_files"), ("migration", "oss_map"), ("lustre", "fs_path"), ("lustre", "fs_name"),
    ("lustre", "lfs_bin"), ("lustre", "use_sudo"), ("lustre", "lfs_timeout"),
    ("task", "task_file"), ("task", "task_name"), ("task", "packages"), ("migration", "verify"),
})  # fmt: skip


def changed(ini: Ini, values: Mapping[str, str]) -> Ini:
    """The same with other values for keys of [migration]; a key may be told by either of its names."""
    sections: dict[str, dict[str, str]] = {name: dict(keys) for name, keys in ini.sections().items()}
    migration = sections.setdefault("migration", {})
    for key, value in values.items():
        name = _ALIASES.get(key, key)
        for alias, meant in _ALIASES.items():
            if meant == name:
                migration.pop(alias, None)
        migration[name] = value
    return Ini(sections, ini.file)


def _with_names_of_today(ini: Ini) -> Ini:
    sections: dict[str, dict[str, str]] = {name: dict(keys) for name, keys in ini.sections().items()}
    migration = sections.get("migration", {})
    for alias, name in _ALIASES.items():
        if alias in migration:
            if name in migration:
                raise ini.wrong("migration", alias, f"stands there as {name} as well; expected one of them")
            migration[name] = migration.pop(alias)
    return Ini(sections, ini.file)


def _verify(ini: Ini, section: str, key: str) -> str | None:
    if not ini.text(section, key):
        return None
    return ini.text(section, key, choices=("none", "layout", "stat", "checksum"))


def read_oss_map(ini: Ini, file: Path) -> dict[int, str]:
    """`{OST: its server}` as a file tells it. Raises ConfigError."""
    found: dict[int, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ini.wrong("migration", "oss_map", f"{file} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        words: list[Any] = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        try:
            osts = indexes(words[1], "OSTs") if len(words) == 2 else ()
            if not osts:
                raise ValueError("expected the name of a server, a blank, and the indexes of its OSTs")
            twice = next((ost for ost in osts if ost in found), None)
            if twice is not None:
                raise ValueError(f"OST {twice} is on {found[twice]} already")
        except ValueError as error:
            raise ini.wrong("migration", "oss_map", f"{file}, line {number}: {error}") from None
        found.update(dict.fromkeys(osts, words[0]))
    return found
