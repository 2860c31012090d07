"""What the monitoring of OSTs is told by its ini file."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from cyclone.ini import Ini
from cyclone.lustre.properties import STEP_S_MAX
from cyclone.lustre.rangeset import INDEX_MAX, indexes
from cyclone.settings import Settings, path, seconds, special, switch, task_packages, text, whole

#: A task that does not end is told of no later than this, however rare the rounds are.
_HUNG_AFTER_MOST_S = 3600.0


def _time_of_day(ini: Ini, section: str, key: str) -> time | None:
    value = ini.text(section, key)
    if not value:
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", value)
    if found is None:
        raise ini.wrong(section, key, f"found {value!r}, expected HH:MM from 00:00 to 23:59")
    return time(int(found[1]), int(found[2]))


def _indexes(ini: Ini, section: str, key: str) -> tuple[int, ...]:
    try:
        return indexes(ini.text(section, key))
    except ValueError as error:
        raise ini.wrong(section, key, str(error)) from None


@dataclass(frozen=True, kw_only=True)
class MonitoringSettings(Settings):
    """What the generator is told."""

    local_mode: bool = switch(
        "control", "local_mode", "off",
        "Pretend that there are OSTs, and ask no Lustre: for demonstrations, with a task that does no I/O.",
    )  # fmt: skip
    measure_interval_s: int = whole(
        "control", "measure_interval", "60",
        "From the beginning of one round over all OSTs to the beginning of the next.",
        minimum=1, maximum=86400, unit="seconds",
    )  # fmt: skip
    at: time | None = special(
        "control", "at", "",
        "Time of day, as clocks show it here, at which a round begins every day; the others follow it in "
        "measure_interval, the last one no nearer than half of it. Empty: the first round begins at once.",
        "HH:MM, or nothing", _time_of_day,
    )  # fmt: skip
    start_jitter_s: float = seconds(
        "control", "start_jitter", "0",
        "The first round is put off by up to so much, at random, and those after it by the same, so that several "
        "monitors do not all begin at the same moment.",
        maximum=STEP_S_MAX,
    )  # fmt: skip
    cycles: int | None = whole(
        "control", "cycles", "", "End after so many rounds. Empty: never.", minimum=1, unit="rounds"
    )
    given_hung_after_s: float | None = seconds(
        "control", "hung_after", "",
        "An OST whose task has not ended so long after it was handed in is HUNG. A task that was not begun within "
        "half of it, since no worker was free, is dropped, and its OST is skipped in this round. Empty: "
        "measure_interval, but at most an hour.",
        minimum=1, maximum=STEP_S_MAX,
    )  # fmt: skip
    tasks_most: int = whole(
        "control", "max_tasks", "0",
        "How many tasks may be handed in at a time. 0: all of a round. With as many as there are workers, no "
        "task waits for a worker, and hung_after tells exactly.",
        unit="tasks",
    )  # fmt: skip
    state_file: Path = path(
        "control", "state_file", "/var/lib/cyclone/ost-monitoring.json",
        "Where the OSTs that were seen once, the tasks that have not ended and the incidents are remembered. Each "
        "monitor needs a file of its own.",
    )  # fmt: skip
    osts_in_local_mode: int = whole(
        "control.local_mode", "num_osts", "100", "How many OSTs there are in local mode.",
        minimum=1, maximum=INDEX_MAX + 1, unit="OSTs",
    )  # fmt: skip
    task_file: Path = path("task", "task_file", None, "XML file of tasks.", "a file that exists")
    task_name: str = text("task", "task_name", None, "The task in it to hand in for each OST.")
    task_packages: tuple[str, ...] = task_packages()
    per_pair: bool = switch(
        "task", "per_pair", "off",
        "Of a file creation check: a task for each pair of MDT and OST instead of one for each OST, so that a "
        "pair that hangs keeps no other waiting.",
    )  # fmt: skip
    lfs_bin: str = text(
        "lustre", "lfs_bin", "lfs", "The program lfs on the host of the master.", "a name or a path"
    )
    lctl_bin: str = text(
        "lustre", "lctl_bin", "lctl",
        "The program lctl there, which knows the server of each OST. Without it neighbours in the order of a "
        "round may be on the same server.",
        "a name or a path",
    )  # fmt: skip
    use_sudo: bool = switch(
        "lustre", "use_sudo", "off", "Call lfs check, lfs df and lctl by sudo. Old versions let nobody else."
    )
    lfs_timeout_s: float = seconds(
        "lustre", "lfs_timeout", "20",
        "How long a round waits for lctl, lfs df and lfs check together at its beginning. If lfs check has told "
        "nothing by then, every OST that is known and was not switched off is tried.",
        minimum=0.1, maximum=STEP_S_MAX,
    )  # fmt: skip
    target: str = text(
        "lustre", "target", "", "Name of the file system. Needed unless in local mode.", "text, or nothing"
    )
    fs_path: str = text(
        "lustre", "fs_path", "",
        "A directory of the file system on the host of the master. If it is given, OSTs are looked for with "
        "lfs df, too.",
        "a path, or nothing",
    )  # fmt: skip
    selection: tuple[int, ...] = special(
        "lustre", "ost_select_list", "",
        "The OSTs to look at. Empty: all. One that the file system does not have is told of as UNKNOWN.",
        "indexes such as 0-9,12, or nothing", _indexes,
    )  # fmt: skip
    probe_down: bool = switch(
        "lustre", "probe_down", "off", "Hand in a task also for OSTs that lfs tells to be down."
    )
    server_most: int = whole(
        "lustre", "oss_max_tasks", "0", "How many tasks may be at work on one server at a time. 0: any number.",
        unit="tasks",
    )  # fmt: skip
    mail_spool: Path = path(
        "mail", "spool", "/var/spool/cyclone/mail",
        "Directory in which mails of the generator wait until a mail server takes them. Used only by a task that "
        "mails.",
    )  # fmt: skip

    @property
    def hung_after_s(self) -> float:
        if self.given_hung_after_s is not None:
            return self.given_hung_after_s
        return min(float(self.measure_interval_s), _HUNG_AFTER_MOST_S)

    def check(self, ini: Ini) -> None:
        if not os.path.isfile(self.task_file):
            problem = f"found {str(self.task_file)!r}, expected a file that exists"
            raise ini.wrong("task", "task_file", problem)
