"""Moves the files of long lists between OSTs: see `cyclone/lustre/migration/__init__.py`.

This file is plumbing. What is to be done next is decided by the mind; what is left to do, and what came of the rest, is
known to the inputs, and is written down before anything follows from it.
"""

from __future__ import annotations

import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cyclone.clock import monotonic
from cyclone.errors import ConfigError, CycloneError
from cyclone.generators.files import write_json
from cyclone.ini import Ini
from cyclone.lustre.lfs import Lfs
from cyclone.lustre.migration import status
from cyclone.lustre.migration.admission import Obstacle
from cyclone.lustre.migration.background import Background, Chore, Threads
from cyclone.lustre.migration.entry import Entry
from cyclone.lustre.migration.input_list import InputList, load_again
from cyclone.lustre.migration.inputs import Inputs
from cyclone.lustre.migration.intake import Intake
from cyclone.lustre.migration.levels import INTERVALS_FRESH, Gauge, measure_lustre, simulate
from cyclone.lustre.migration.lines import Rules
from cyclone.lustre.migration.mind import Ended, Mind, Run
from cyclone.lustre.migration.orders import OrderBook
from cyclone.lustre.migration.ost import Role
from cyclone.lustre.migration.settings import (
    MigrationSettings,
    changed,
    read_oss_map,
)
from cyclone.lustre.migration.statistics import Statistics
from cyclone.lustre.migration.supply import Supply, look_at, note
from cyclone.lustre.migration.tasks import Workshop, entry_of, report_of
from cyclone.lustre.migration.verdict import FileState
from cyclone.lustre.migration_record import MigrationOst
from cyclone.lustre.ost_state_task import OstStateTask
from cyclone.lustre.ost_task import Row
from cyclone.lustre.rangeset import indexes
from cyclone.process.pid_file import PidFile
from cyclone.task_generator import Result, TaskGenerator

#: A signal is noticed after this at the latest.
_PAUSE_MOST_S = 1.0
#: A chore that has ended is noticed after this, or after a tenth of the time that it took.
_LOOK_FOR_CHORES_S = 0.01

#: Measurements in a row by which nothing can be moved any more, before that is believed.
_MEASUREMENTS_SHUT = 3

_PAUSE, _DRAIN, _STOP, _HOURS, _DISK = "pause", "drain", "stop", "hours", "disk"
_FORMER = "former life"
_ORDERS_FILE = ".cyclone-migration.orders"


class LustreOstMigrationTaskGenerator(TaskGenerator):
    """Hands in a task for each entry of the lists in `input_dir`, as sources, targets and limits allow.

    One generator works in one `input_dir`. What it has done survives it: the next one goes on where it was.
    """

    commands: ClassVar[Mapping[str, str]] = {
        "status": "everything: results, speed, what is left, each OST and why it is locked",
        "pause": "start no more tasks",
        "resume": "start tasks again after pause or drain, or after a former life was stopped",
        "drain": "start no more tasks, and tell in the log when those in flight have ended",
        "reload": "read the ini file again and look for more lists",
        "limits": "change keys of [migration] until the next reload: NAME=VALUE ...; without any, tell them",
        "retry-busy": "make new lists of all files that were busy",
        "retry-failed": "make new lists of all files that have failed",
        "exclude": "use these OSTs neither as source nor as target: osts=0-9,12",
        "include": "use excluded OSTs again: osts=0-9,12",
        "stop": "end when the tasks in flight have ended; the lists wait for the next start",
    }

    #: What tests replace.
    monotonic: Callable[[], float] = staticmethod(monotonic)
    wall: Callable[[], float] = staticmethod(time.time)
    background: Background = Threads()

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        self._is_stop_wanted = self._is_drain_told = self._is_reload_wanted = self._is_ready = False
        self._tell_at = 0.0
        self._obstacles: dict[tuple[int, Role], Obstacle | None] = {}
        self._changes_told = 0
        self._telling: set[str] = set()  # tids of tasks that record how the OSTs stand
        self._started: list[Run] = []  # what is to be handed in as soon as that is noted
        self._shut_since: int | None = None
        self._is_keeping = False  # entries that should wait on disk
        self._doubts: set[str] = set()
        self._lists_done: list[dict[str, Any]] = []  # in this life

    def validate_config(self) -> None:
        settings = MigrationSettings.of(self.config)
        Workshop(settings, self.config)
        if settings.oss_map not in ("", "auto"):
            read_oss_map(self.config, Path(settings.oss_map))
        if settings.local_mode:
            return
        if not settings.fs_path.is_dir():
            problem = f"found {str(settings.fs_path)!r}, expected a directory that exists"
            raise self.config.wrong("lustre", "fs_path", problem)
        if shutil.which(settings.lfs_bin) is None:
            raise self.config.wrong("lustre", "lfs_bin", f"found {settings.lfs_bin!r}, expected a program")

    def run(self) -> None:
        settings = MigrationSettings.of(self.config)
        with PidFile(settings.input_dir / ".cyclone-migration.pid"), self._hang_up_as_reload():
            self._begin(settings)
            try:
                while not self._is_over():
                    self._advance()
                    self._hear()
            except OSError as error:
                raise CycloneError(f"{settings.input_dir}: the lists cannot be worked on: {error}") from error
            finally:
                self._end()
        if self._mind.tripped and not self.stopping:
            raise CycloneError(f"the migration was stopped: {self._mind.tripped}")
        if self._inputs.untaken and not (self.stopping or self._is_stop_wanted):
            raise CycloneError(f"lists are not done: {', '.join(status.untaken(self._inputs))}")

    # From its beginning to its end.

    def _begin(self, settings: MigrationSettings) -> None:
        now = self.monotonic()
        # A dry run is ordered nothing that the real one should obey, nor the other way round.
        self._orders = OrderBook(None if settings.dry_run else settings.input_dir / _ORDERS_FILE)
        settings = settings.excluding(self._orders.standing.excluded)
        self.settings, self._ini = settings, self.config
        self._workshop = Workshop(settings, self.config)
        self._lfs = Lfs(settings.lfs_bin, sudo=settings.use_sudo, timeout_s=settings.lfs_timeout_s)
        self._oss_of = self._learn_servers()
        stale_s = INTERVALS_FRESH * settings.update_fill_level_s
        self._mind = Mind(settings.plan(self._oss_of), now, stale_s=stale_s)
        self._statistics = Statistics(now)
        self._inputs = Inputs(
            settings.input_dir, Rules(bytes(settings.fs_path)), settle_s=settings.settle_s,
            done_on_load=settings.done_on_load, keep_journal=settings.keep_journal, is_dry=settings.dry_run,
        )  # fmt: skip
        self._supply = Supply(self._inputs, self.background, settings, block=self._workshop.block)
        measure = (
            simulate(settings.num_osts, settings.seed) if settings.local_mode
            else measure_lustre(self._lfs, str(settings.fs_path))
        )  # fmt: skip
        self._gauge = Gauge(measure, self.background, now)
        self._intake = Intake(self._inputs, self.background, lambda: not self.stopping, now)
        self._tell_at = now + settings.print_caches_s
        _raise_descriptor_limit()
        self._obey()
        self._warn()
        self._resume()
        self._is_ready = True

    def _learn_servers(self) -> dict[int, str]:
        settings = self.settings
        if not settings.oss_map:
            return {}
        if settings.oss_map != "auto":
            return read_oss_map(self.config, Path(settings.oss_map))
        chore = self.background.start(lambda: self._lfs.oss_of(settings.fs_name))
        return self._wait_for(chore) or {}

    def _obey(self) -> None:
        """What was ordered in a former life holds until somebody orders something else."""
        orders = self._orders.standing
        for who, why in orders.holds.items():
            self._mind.hold(who, why)
            self.log.info("%s in a former life: it goes on when it is told to resume", why)
        if orders.stopped:
            self._mind.hold(_FORMER, f"a former life was stopped: {orders.stopped}")
            self.log.error(
                "nothing is started until it is told to resume, for a former life was stopped: %s",
                orders.stopped,
            )
        if orders.excluded:
            self.log.info("excluded in a former life osts=%s", _osts(orders.excluded))

    def _warn(self) -> None:
        settings = self.settings
        self._doubt()
        if settings.dry_run:
            self.log.info("dry run: nothing is moved, and the lists keep their names")
        elif not settings.local_mode:
            self.log.info(
                "a source that is to be emptied fills up again unless osp.*.max_create_count is 0 for it on each MDS"
            )
        unmapped = settings.targets - self._oss_of.keys()
        if settings.oss_max_tasks and unmapped:
            self.log.warning(
                "oss_max_tasks does not bound targets that are not in oss_map: %s", _osts(unmapped)
            )

    def _resume(self) -> None:
        """Go on with the lists of a former life, first of all with its tasks that may be in flight still."""
        if self.settings.dry_run:
            return
        for base in self._inputs.leftovers():
            self.log.info("reading a list again that was begun list=%s", base.name)
            call = partial(
                load_again, base, self._inputs.rules, lambda: not self.stopping,
                in_copy=self._inputs.done_on_load,
            )  # fmt: skip
            try:
                loaded = self._wait_for(self.background.start(call))
            except CycloneError as error:
                self.log.error("a list that was begun cannot be read, it waits for the next start: %s", error)
                self._inputs.cannot_take(base, str(error))
                continue
            except OSError as error:
                self._intake.put_off(base, error, is_begun=True)
                continue
            taken = None if loaded is None else self._intake.take(loaded)
            if taken is not None:
                self._on_taken(taken)

    def _adopt(self, flights: list[tuple[Entry, int]]) -> list[Run]:
        entries = [entry for entry, _ in flights]
        if entries and self.settings.look_at_files and not self.settings.local_mode:
            paths = [entry.path for entry in entries]
            chore = self.background.start(partial(look_at, paths, self._workshop.block))
            # Their OST may be down; then they are known by their paths, which is almost as good.
            looks = self._wait_for(chore, self.settings.lfs_timeout_s)
            note(entries, looks or [None] * len(entries), self._workshop.block)
        now = self.monotonic()
        return [self._mind.adopt(entry, target, now) for entry, target in flights]

    def _wait_for(self, chore: Chore[Any], within_s: float = float("inf")) -> Any:
        """What comes of it; None if the generator has to stop before, or time is over. Raises what it raises."""
        until = self.monotonic() + within_s
        while not chore.is_done():
            if self.stopping or self.monotonic() >= until:
                return None
            self.sleep(_LOOK_FOR_CHORES_S)
        return chore.result()

    def _is_over(self) -> bool:
        mind = self._mind
        if self.stopping:
            return True
        if self._is_stop_wanted or mind.tripped:
            return not mind.running
        return self.settings.stop_when_done and self._is_done()

    def _is_done(self) -> bool:
        """Nothing is left, or nothing of it can be moved."""
        if not self._intake.is_idle:
            return False
        if not self._inputs.lists:
            return True
        mind = self._mind
        is_busy = mind.running or mind.resting or mind.holds or self._supply.since is not None
        if is_busy or not mind.is_over_for(self._inputs.left().keys()):
            self._shut_since = None
            return False
        if self._shut_since is None:
            self._shut_since = self._gauge.count
        return self._gauge.count - self._shut_since >= _MEASUREMENTS_SHUT

    def _end(self) -> None:
        is_told_to_stop = self.stopping or self._is_stop_wanted
        told = status.report(
            self._mind, self._inputs, self._statistics, self.monotonic(),
            ended=self._lists_done, why_left="it was told to stop" if is_told_to_stop else "nothing moved it",
        )  # fmt: skip
        for line in self._final_lines(told):
            self.log.info("%s", line)
        if self.settings.report_file is not None:
            try:
                write_json(self.settings.report_file, told)
            except OSError as error:
                self.log.error("the report cannot be written: %s", error)
        try:
            self._orders.save()
        except OSError as error:
            self.log.error("what is ordered cannot be kept, the next life does not know it: %s", error)
        try:
            self._inputs.close()
        except OSError as error:
            self.log.error("not everything could be noted, the next start looks at it again: %s", error)

    def _final_lines(self, told: Mapping[str, Any]) -> Iterator[str]:
        speed = told["speed"]
        yield (
            f"migration ended files={told['files']} moved_bytes={told['moved_bytes']} retries={told['retries']}"
            f" left={told['left']} files_per_s={speed['files_per_s']} mb_per_s={speed['mb_per_s']}"
        )
        for state, reasons in told["results"].items():
            yield f"migration ended state={state} files={sum(reasons.values())} bytes={told['bytes'].get(state, 0)}"
            for reason, count in reasons.items():
                yield f"migration ended state={state} reason={reason or '-'} files={count}"
        for each in told["lists"]:
            yield (
                f"migration ended list={each['name']} entries={each['entries']} rejected={each['rejected']}"
                f" left={each['left']}"
            )
        for source, left in told["sources"].items():
            yield f"migration ended source={source} left={left['left']} because={left['reason']!r}"
        for name, reason in told["untaken"].items():
            yield f"migration ended list={name} not done because={reason!r}"

    # What time does.

    def _advance(self) -> None:
        now = self.monotonic()
        if self._is_reload_wanted:
            self._reload_by_signal()
        self._keep_hours()
        is_measured = self._gauge.advance(self._mind, self.settings.update_fill_level_s, now)
        for taken in self._intake.advance(self.settings.reload_files_s, now):
            self._on_taken(taken)
        for ended in self._supply.advance(self._mind, now):
            self._take_note(ended, now)
        self._start_tasks(now)
        if is_measured or self._mind.admission.changes != self._changes_told:
            self._tell_obstacles()
        self._tell(now)

    def _hear(self) -> None:
        """Wait for whatever is next, and take in all results that are here."""
        for result in self.results(timeout=self._pause_s()):
            self._on_end(result)
            break
        for result in self.results(timeout=0):
            self._on_end(result)

    def _pause_s(self) -> float:
        now = self.monotonic()
        moments = [self._intake.due(now), self._tell_at, self._gauge.due(), now + _PAUSE_MOST_S]
        if not self._mind.holds and not self._mind.tripped:
            next_moments = (self._mind.next_moment(now), self._supply.next_moment(self._mind, now))
            moments += [moment for moment in next_moments if moment is not None]
        chores = (self._gauge.since, self._supply.since, self._intake.since)
        begun = [since for since in chores if since is not None]
        if begun:
            # Nothing tells that a chore has ended: the longer it takes, the less it matters when that is noticed.
            moments.append(now + max(_LOOK_FOR_CHORES_S, (now - max(begun)) / 10))
        return max(0.0, min(moments) - now)

    def _keep_hours(self) -> None:
        hours = self.settings.hours
        local = datetime.fromtimestamp(self.wall()).astimezone()
        if hours.hold(local.hour * 60 + local.minute):
            if _HOURS in self._mind.holds:
                self.log.info("the hours of migration have begun hours=%s", hours)
                self._mind.release(_HOURS)
        elif _HOURS not in self._mind.holds:
            self.log.info(
                "the hours of migration are over hours=%s in_flight=%d", hours, len(self._mind.running)
            )
            self._mind.hold(_HOURS, f"the hours are {hours}")

    # Lists.

    def _on_taken(self, taken: InputList) -> None:
        self._started += self._adopt(taken.flights())
        self._mind.expect(taken.left_by_source())
        self._shut_since = None
        self._doubt()

    def _doubt(self) -> None:
        """Once for each."""
        for doubt in self.settings.doubts(self._inputs.left().keys()):
            if doubt not in self._doubts:
                self._doubts.add(doubt)
                self.log.warning("probably not meant: %s", doubt)

    # Tasks.

    def _start_tasks(self, now: float) -> None:
        turn = self._mind.decide(now)
        for ended in turn.ended:
            self._take_note(ended, now)
        self._note_trip()
        for run in turn.started:
            self._inputs.on_started(run.entry, run.target)
        self._started += turn.started
        # Before they are handed in: a task that nobody remembers could get another one beside it.
        if not self._settle(now):
            return
        started, self._started = self._started, []
        for run in started:
            self.submit(self._workshop.make(run))

    def _settle(self, now: float) -> bool:
        """See that what was noted or ordered outlives this process; False while there is no room for it."""
        try:
            self._orders.save()
            ended = self._inputs.settle()
        except OSError as error:
            if _DISK not in self._mind.holds:
                self.log.error("nothing can be noted, and nothing is started until it can: %s", error)
            self._mind.hold(_DISK, f"nothing can be noted: {error}")
            return False
        if _DISK in self._mind.holds:
            self.log.info("everything is noted again")
            self._mind.release(_DISK)
        for each in ended:
            # Before it all ends: there may be more by now.
            self._intake.look_again(now)
            if each.was_changed:
                self.log.error(
                    "a list was changed or taken away, or fs_path is another one; what is there is read again list=%s",
                    each.files.name,
                )
                continue
            self._lists_done.append(status.list_status(each))
            if not each.entries:
                self.log.warning(
                    "a list holds no entry that could be used list=%s rejected=%d",
                    each.files.name,
                    each.rejected,
                )
            counts = " ".join(f"{state.lower()}={each.results[state]}" for state in FileState)
            self.log.info(
                "list done list=%s entries=%d rejected=%d %s",
                each.files.name,
                each.entries,
                each.rejected,
                counts,
            )
        return True

    def _on_end(self, result: Result) -> None:
        if result.tid in self._telling:
            self._telling.discard(result.tid)
            if not result.ok:
                self.log.warning("not recorded how the OSTs stand: %s", result.error)
            return
        named = entry_of(result.tid)
        run = None if named is None else self._mind.running.get(named[0])
        if named is None or run is None or run.entry.tries != named[1]:
            self.log.warning("the end of a task that is not in flight is ignored tid=%s", result.tid)
            return
        now = self.monotonic()
        ended = self._mind.on_end(named[0], report_of(result, self._workshop.kind), now)
        assert ended is not None
        self._take_note(ended, now)
        self._note_trip()

    def _note_trip(self) -> None:
        """Once: in the log, and for the next life."""
        tripped = self._mind.tripped
        if tripped and tripped != self._orders.standing.stopped:
            self._orders.change(stopped=tripped)
            self.log.error(
                "no more tasks are started in_flight=%d because: %s", len(self._mind.running), tripped
            )

    def _take_note(self, ended: Ended, now: float) -> None:
        entry, report = ended.entry, ended.report
        if not ended.is_final:
            self._statistics.on_retry()
            self._inputs.on_retry(entry)
            if ended.away_until is not None:
                self._put_away(entry, ended.away_until)
        elif self._inputs.on_final(entry, report):
            self._statistics.on_final(entry.source, report, now)
            if report.state is FileState.FAILED:
                path = entry.path.decode("utf-8", "backslashreplace")
                self.log.warning(
                    "file failed path=%s source=%d reason=%s message=%s",
                    path, entry.source, report.reason, report.message,
                )  # fmt: skip

    def _put_away(self, entry: Entry, until: float) -> None:
        try:
            self._supply.put_away(entry, until)
        except OSError as error:
            # In memory there is room for it after all: fewer others are brought.
            self._mind.rest(entry, until)
            if not self._is_keeping:
                self.log.error(
                    "entries that are tried again are kept in memory, for on disk they cannot be: %s", error
                )
            self._is_keeping = True
        else:
            self._is_keeping = False

    # Telling.

    def _tell(self, now: float) -> None:
        if _DRAIN in self._mind.holds and self._mind.is_drained() and not self._is_drain_told:
            self._is_drain_told = True
            self.log.info("drained: no task is in flight")
        if now < self._tell_at:
            return
        self._tell_at = now + self.settings.print_caches_s
        for line in status.progress_lines(self._mind, self._inputs, self._statistics, now):
            self.log.info("%s", line)
        # One at a time: while no worker is free they would pile up, and only the newest counts.
        if self.settings.pushgateway and not self._telling:
            moment = datetime.now(UTC)
            rows = status.ost_rows(self._mind, self._inputs.left(), moment)
            task = OstStateTask([Row("pushgateway", MigrationOst, row) for row in rows], moment.timestamp())
            task.tid = f"osts-{moment.isoformat()}"
            self._telling.add(self.submit(task))
        for source, seconds in self._supply.stuck(now).items():
            self.log.warning("looking at files takes too long source=%d seconds=%.0f", source, seconds)

    def _tell_obstacles(self) -> None:
        """Once for each change."""
        found = status.obstacles(self._mind, self._inputs.left())
        for (ost, role), obstacle in found.items():
            before = self._obstacles.get((ost, role))
            if obstacle is not None and (before is None or before.reason != obstacle.reason):
                self.log.info("locked ost=%d role=%s reason=%s", ost, role, obstacle)
            elif obstacle is None and before is not None:
                self.log.info("may take part again ost=%d role=%s", ost, role)
        self._obstacles, self._changes_told = found, self._mind.admission.changes

    # Commands.

    def on_command(self, name: str, arguments: Mapping[str, str]) -> object:
        if not self._is_ready:
            raise ValueError("the lists of a former life are being read; ask again later")
        doors: dict[str, Callable[[Mapping[str, str]], object]] = {
            "status": self._on_status,
            "pause": self._on_pause,
            "resume": self._on_resume,
            "drain": self._on_drain,
            "reload": self._on_reload,
            "limits": self._on_limits,
            "retry-busy": lambda _: self._feed_back(FileState.BUSY),
            "retry-failed": lambda _: self._feed_back(FileState.FAILED),
            "exclude": self._on_exclude,
            "include": self._on_include,
            "stop": self._on_stop,
        }
        if name not in doors:
            raise ValueError(f"unknown command {name!r}, expected one of: {', '.join(doors)}")
        takes = {"limits": None, "exclude": {"osts"}, "include": {"osts"}}.get(name, set())
        if takes is not None and arguments.keys() - takes:
            unknown = ", ".join(sorted(arguments.keys() - takes))
            raise ValueError(f"unknown argument {unknown}, expected {', '.join(takes) or 'none'}")
        self.log.info("told to %s %s", name, " ".join(f"{key}={value}" for key, value in arguments.items()))
        return doors[name](arguments)

    def _on_status(self, _: Mapping[str, str]) -> object:
        return status.status(self._mind, self._inputs, self._statistics, self.monotonic())

    def _on_pause(self, _: Mapping[str, str]) -> object:
        self._hold(_PAUSE, "paused")
        return self._told()

    def _on_resume(self, _: Mapping[str, str]) -> object:
        self._is_stop_wanted = False
        for who in (_PAUSE, _DRAIN, _STOP, _FORMER):
            self._mind.release(who)
        self._orders.change(stopped=self._mind.tripped, holds={})  # what has tripped in this life ends it
        return self._told()

    def _hold(self, who: str, why: str) -> None:
        self._mind.hold(who, why)
        self._orders.change(holds=self._orders.standing.holds | {who: why})

    def _on_drain(self, _: Mapping[str, str]) -> object:
        self._is_drain_told = False
        self._hold(_DRAIN, "drained")
        return self._told()

    def _on_stop(self, _: Mapping[str, str]) -> object:
        self._is_stop_wanted = True
        self._mind.hold(_STOP, "stopped")
        return self._told()

    def _told(self) -> object:
        return {"state": status.state_of(self._mind), "in_flight": len(self._mind.running)}

    def _on_reload(self, _: Mapping[str, str]) -> object:
        self._intake.look_now()
        if self.config.file is None:
            return {"changed": False}
        try:
            ini = Ini.read(self.config.file)
            self._apply(ini)
        except ConfigError as error:
            raise ValueError(f"nothing was changed: {error}") from None
        return {"changed": True}

    def _on_limits(self, arguments: Mapping[str, str]) -> object:
        if arguments:
            try:
                self._apply(changed(self._ini, arguments))
            except ConfigError as error:
                raise ValueError(f"nothing was changed: {error}") from None
        complete = MigrationSettings.complete(self._ini)
        told = {f"[migration.limits] {key}": value for key, value in complete["migration.limits"].items()}
        # Who is excluded by order is in no ini file.
        return {**complete["migration"], "ost_exclude": _osts(self.settings.excluded), **told}

    def _apply(self, ini: Ini) -> None:
        """Go on with these settings. Raises ConfigError; then nothing has changed."""
        settings = MigrationSettings.of(ini).excluding(self._orders.standing.excluded)
        fixed = self.settings.fixed_but_changed(settings)
        if fixed:
            raise ConfigError(
                f"cannot be changed while the migration runs: {', '.join(fixed)}", file=ini.file
            )
        self._go_by(settings, ini)

    def _go_by(self, settings: MigrationSettings, ini: Ini) -> None:
        """From now on."""
        self._ini, self.settings = ini, settings
        self._supply.settings = settings
        self._inputs.settle_s, self._inputs.keep_journal = settings.settle_s, settings.keep_journal
        self._mind.fills.stale_s = INTERVALS_FRESH * settings.update_fill_level_s
        now = self.monotonic()
        self._mind.change(settings.plan(self._oss_of), now)
        self._gauge.look_now(now)
        self._tell_at = min(self._tell_at, now + settings.print_caches_s)
        self._shut_since = None
        self._doubt()

    def _on_exclude(self, arguments: Mapping[str, str]) -> object:
        osts = _osts_of(arguments)
        return self._exclude(self.settings.excluded | osts, self._orders.standing.excluded | osts)

    def _on_include(self, arguments: Mapping[str, str]) -> object:
        osts = _osts_of(arguments)
        # What the ini file excludes is included until that is read again.
        return self._exclude(self.settings.excluded - osts, self._orders.standing.excluded - osts)

    def _exclude(self, osts: frozenset[int], ordered: frozenset[int]) -> object:
        # Whatever has become of the other keys of the ini file: an order that is told to hold has to take effect.
        self._go_by(replace(self.settings, excluded=osts), changed(self._ini, {"ost_exclude": _osts(osts)}))
        self._orders.change(excluded=ordered)
        return {"excluded": sorted(osts)}

    def _feed_back(self, state: FileState) -> object:
        if self.settings.dry_run:
            raise ValueError("this is a dry run, in which no list is made")
        try:
            made = self._inputs.feed_back(state)
        except OSError as error:
            raise ValueError(f"a list cannot be renamed: {error}") from None
        self._intake.look_now()
        return {"lists": [file.name for file in made]}

    # Signals.

    @contextmanager
    def _hang_up_as_reload(self) -> Iterator[None]:
        """SIGHUP reads the ini file and the directory again, as `reload` does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGHUP, self._on_hang_up)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _on_hang_up(self, *_: object) -> None:
        self._is_reload_wanted = True

    def _reload_by_signal(self) -> None:
        self._is_reload_wanted = False
        try:
            self.on_command("reload", {})
        except ValueError as error:
            self.log.error("the ini file was not taken: %s", error)


def _osts_of(arguments: Mapping[str, str]) -> frozenset[int]:
    found = frozenset(indexes(arguments.get("osts", ""), "osts"))
    if not found:
        raise ValueError("osts is missing, expected indexes such as osts=0-9,12")
    return found


def _osts(osts: frozenset[int]) -> str:
    return ",".join(str(ost) for ost in sorted(osts))


def _raise_descriptor_limit() -> None:
    """A journal is open for each list that is being worked on."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


#: Other names by which ini files may know it.
LustreOstMigrateGenerator = LustreOstMigrationTaskGenerator
LustreOstMigrateTaskGenerator = LustreOstMigrationTaskGenerator
