"""Looks at every OST of a file system, round after round, for years.

The generator is plumbing around three minds: the inventory knows which OSTs there are, the rounds know whose turn it is
and who hangs, the incidents know what people have to be told. What they remember is one file, written before a task
is handed in, a command answered or a mail posted, so that a generator that was killed goes on where it was.

Every OST that is expected is heard of in every round: by its task, by a row that says why there was nothing to be
heard, or in the count of those that were skipped.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from cyclone.base_task import BaseTask
from cyclone.clock import monotonic
from cyclone.ini import Ini
from cyclone.lustre.alerts import body, subject
from cyclone.lustre.incidents import Incidents, Notice
from cyclone.lustre.inventory import Inventory, Survey, select
from cyclone.lustre.leftovers import RemoveLeftoversTask
from cyclone.lustre.mail import Outbox, Postman
from cyclone.lustre.monitoring_memory import Memory, OpenTask, Selected, recall, remember
from cyclone.lustre.monitoring_settings import MonitoringSettings
from cyclone.lustre.monitoring_task import MonitoringTask
from cyclone.lustre.ost_state_task import OstStateTask
from cyclone.lustre.ost_task import REACH, Fault, OstResult, OstState, Row
from cyclone.lustre.rangeset import indexes
from cyclone.lustre.rounds import Due, FixedRate, Hung, Outcome, Rounds, next_start
from cyclone.lustre.surveyor import Surveyor
from cyclone.task_generator import Result, TaskGenerator

#: The phase of a fault that is not one of the OST: the task itself could not do its work.
_TASK = "task"

_LOOK_FOR_SURVEY_S = 0.05
_PAUSE_MOST_S = 1.0
_LEFTOVERS_EVERY_S = 3600.0
_ROWS_MOST = 1000

#: What is to be recorded waits so many rounds for a worker, and is then dropped, which is logged.
_OWN_KEPT_ROUNDS = 10

#: While no round is under way, what ends late is collected for so long before one more digest tells of it.
_DIGEST_EVERY_S = 60.0

#: At the end, for what is under way in other threads: a generator that stops has ten seconds in all.
_PATIENCE_S = 4.0


@dataclass
class _Findings:
    """Of one round: what its tasks have found, rows about what none could tell, and the faults of each part of an OST."""

    results: list[OstResult] = field(default_factory=list)
    known_rows: list[Row] = field(default_factory=list)
    faults: dict[tuple[int, str], Sequence[Fault]] = field(default_factory=dict)


class LustreOstMonitoringTaskGenerator(TaskGenerator):
    """Hands in one task for each OST, each `measure_interval`.

    The task may be of any class; one that looks at OSTs (`OstTask`) also gets rows for OSTs that are down or hung, and
    one that mails (`LustreAlertIOTask`) also mails about these, about what has failed, and about what is over.
    """

    commands: ClassVar[Mapping[str, str]] = {
        "status": "the newest round, what hangs, what is down, open incidents",
        "select": "look at these OSTs from the next round on, and forget the others now: osts=0-9,12; empty is all",
        "retire": "expect these OSTs no more: osts=3",
        "run-now": "begin a round now, besides the regular ones",
    }

    #: A tid names a round, and what was handed in before a restart is all that is asked for again.
    remember_s = 86_400.0

    def __init__(self, config: Ini) -> None:
        super().__init__(config)
        self._monotonic, self._unix = monotonic, time.time
        self._begun = self._missed = 0
        self._is_wanted_now = self._has_changed = False
        self._surveyor: Surveyor | None = None
        self._newest = Survey()
        self._found = _Findings()  # of the newest round
        self._own: set[str] = set()
        self._leftovers = ""
        self._retired: list[int] = []
        self._untold: list[Notice] = []
        self._number = self._told = 0
        self._begun_at = self._own_until = self._leftovers_at = self._digest_at = self._jitter_s = 0.0

    def validate_config(self) -> None:
        MonitoringTask(MonitoringSettings.of(self.config)).check()

    def explain_config(self) -> str:
        task = MonitoringTask(MonitoringSettings.of(self.config))
        return f"{MonitoringSettings.explain(self.config)}\n\n{task.explain()}"

    def run(self) -> None:
        self._start()
        try:
            while not self.stopping and not self._is_finished():
                self._advance()
                for result in self._ends():
                    self._on_end(result)
        finally:
            self._stop()

    # From its beginning to its end.

    def _start(self) -> None:
        settings = self.settings = MonitoringSettings.of(self.config)
        self._task = MonitoringTask(settings)
        self._mails = self._task.mails()
        self._fs = "" if settings.local_mode else settings.target
        memory = recall(settings.state_file, self._fs)
        self._selection = self._remembered_selection(memory)
        # What is only pretended vanishes as soon as nobody pretends it.
        self._inventory = Inventory(() if settings.local_mode else memory.known)
        self._rounds = Rounds(
            hung_after_s=settings.hung_after_s,
            parts=self._task.parts,
            server_most=settings.server_most,
            tasks_most=settings.tasks_most,
        )
        self._incidents = Incidents(
            memory.incidents,
            repeat_s=self._mails.mail_repeat_s if self._mails else 0.0,
            digest_most=self._mails.mail_digest if self._mails else 1,
        )
        self._postman = Postman(Outbox(settings.mail_spool, self._mails.mail_server)) if self._mails else None
        self._untold = list(memory.untold)
        self._post()
        self._number = self._told = memory.round
        self._schedule = FixedRate(self._first_due(memory), settings.measure_interval_s)
        self._reopen(memory)
        self._forget_unexpected()

    def _remembered_selection(self, memory: Memory) -> Sequence[int]:
        """What was selected by a command, unless the ini file says something else by now."""
        chosen = memory.selected
        if chosen is None or chosen.configured != self.settings.selection:
            return self.settings.selection
        return chosen.osts

    def _first_due(self, memory: Memory) -> float:
        """When to begin the first round, on the monotonic clock."""
        settings, now = self.settings, self._monotonic()
        self._jitter_s = random.uniform(0, settings.start_jitter_s)
        if settings.at is not None:
            return self._due_by_day(self._unix())
        # A restart in the middle of an interval is no reason for a round more; of so many rounds somebody else decides
        # when they begin.
        if memory.round and settings.cycles is None:
            left_s = memory.round + settings.measure_interval_s - self._unix()
            if 0 < left_s <= settings.measure_interval_s:
                return now + left_s
        return now + self._jitter_s

    def _due_by_day(self, after: float) -> float:
        """The next round of those that follow the time of day, on the monotonic clock. after: Unix time."""
        assert self.settings.at is not None
        begin = next_start(self.settings.at, self.settings.measure_interval_s, after - self._jitter_s)
        return self._monotonic() + begin + self._jitter_s - self._unix()

    def _reopen(self, memory: Memory) -> None:
        """Hand in again what a former life had handed in: the master knows whether it runs, or how it ended."""
        now, unix = self._monotonic(), self._unix()
        # Of another task, or of parts that it no longer has, nobody could make it again.
        ours = [each for each in memory.open if each.part in self._task.parts]
        if memory.task != self.settings.task_name:
            ours = []
        if len(ours) < len(memory.open):
            self.log.warning(
                "tasks of another kind are left to themselves count=%d", len(memory.open) - len(ours)
            )
        opened = [(Due(task.tid, task.ost, task.part), max(0.0, unix - task.since)) for task in ours]
        # All of them before the first is handed in: what saves in between must not forget the others.
        for due, age_s in opened:
            self._rounds.reopen(due, self._inventory.server_of(due.ost), age_s, now)
        for due, _ in opened:
            self.submit(self._made(due))

    def _is_finished(self) -> bool:
        if not self._has_had_all or self._told != self._number:
            return False
        # What hangs is left to the master. Rows about it are worth waiting for, but not for ever.
        return not self._own or self._monotonic() >= self._own_until

    def _stop(self) -> None:
        try:
            self._tell_retired()
            # Also of a round that is interrupted: what it has found is known.
            self._end_round()
            self._tell_digest()
        finally:
            self._save()
            if self._surveyor is not None:
                self._surveyor.abandon(_PATIENCE_S)
            if self._postman is not None:
                self._postman.stop(_PATIENCE_S)

    def _ends(self) -> Iterator[Result]:
        """Wait for the first end, then take all that are here: the next round must not wait for the last."""
        first = next(iter(self.results(timeout=self._pause_s())), None)
        if first is not None:
            yield first
            yield from self.results(timeout=0)

    # What time does.

    def _advance(self) -> None:
        now = self._monotonic()
        if self._surveyor is not None:
            if self._surveyor.is_over:
                found, self._surveyor = self._surveyor.found(), None
                self._begin_round(found)
        elif self._is_time(now):
            if self.settings.local_mode:
                self._begin_round(Survey(dict.fromkeys(range(self.settings.osts_in_local_mode), "")))
            else:
                self._surveyor = self._survey()
        self._tell_hung(self._rounds.look_for_hung(now))
        self._tell_retired()
        self._hand_in()
        if self._has_had_all and self._rounds.is_stuck:
            self._rounds.skip_waiting(now)
        if self._rounds.is_over:
            self._end_round()
            if now >= self._digest_at:
                self._tell_digest()
        if self._has_changed:
            self._save()

    def _is_time(self, now: float) -> bool:
        return not self._has_had_all and (self._is_wanted_now or now >= self._schedule.due)

    @property
    def _has_had_all(self) -> bool:
        """Have all rounds begun that there shall be?"""
        return self.settings.cycles is not None and self._begun >= self.settings.cycles

    def _pause_s(self) -> float:
        if self._surveyor is not None:
            return _LOOK_FOR_SURVEY_S
        moments = [self._rounds.next_moment()]
        if not self._has_had_all:
            moments.append(self._schedule.due)
        left_s = [moment - self._monotonic() for moment in moments if moment is not None]
        return max(0.0, min([*left_s, _PAUSE_MOST_S]))

    def _survey(self) -> Surveyor:
        settings = self.settings
        return Surveyor(
            settings.lfs_bin,
            settings.lctl_bin,
            settings.target,
            fs_path=settings.fs_path,
            sudo=settings.use_sudo,
            timeout_s=settings.lfs_timeout_s,
            left_behind=self._newest.left_behind,
        )

    # A round.

    def _begin_round(self, survey: Survey) -> None:
        self._end_round()
        self._tell_digest()
        self._incidents.begin_round()
        now, unix = self._monotonic(), self._unix()
        self._is_wanted_now = False
        if now >= self._schedule.due:
            interval_s = self.settings.measure_interval_s
            # Since it was due: a survey may take longer than half an interval.
            late_s = (now - self._schedule.due) % interval_s
            if missed := self._schedule.begin(now):
                self._missed += missed
                self.log.warning(
                    "rounds missed count=%d total=%d: what is asked before a round took longer than measure_interval",
                    missed, self._missed,
                )  # fmt: skip
            if self.settings.at is not None:
                # Not this one again, should the clock have been set back a little.
                self._schedule.due = self._due_by_day(unix - late_s + interval_s / 2)
        # Never used twice, also when the clock was set back.
        self._number = max(self._number + 1, int(unix))
        self._begun += 1
        self._begun_at = unix
        self._found = _Findings()
        for ost in self._inventory.hear(survey, unix):
            self.log.info("OST was retired and is active, it is expected again ost=%d", ost)
        self._tell_unanswered(self._newest.unanswered, survey.unanswered)
        self._newest = survey
        targets = self._inventory.targets(self._selection)
        if self.settings.probe_down:
            targets = [
                target._replace(state=None) if target.state is OstState.DOWN else target for target in targets
            ]
        begun = self._rounds.begin(self._number, targets, now)
        # Also those that this round does not look at.
        late = {due.ost for due, _ in self._rounds.open(now)}
        self.log.info(
            "round begins number=%d expected=%d down=%d late=%d",
            self._number, len(targets), len(begun.down), len(late),
        )  # fmt: skip
        if not targets:
            self.log.error("no OST is known, there is nothing to look at")
        # That this round has begun: its number must not be used again for rows that are about another one.
        self._save()
        rows: list[Row] = []
        for target in begun.down:
            assert target.state is not None
            self.log.warning(
                "not looked at ost=%d state=%s reason=%s", target.ost, target.state, target.reason
            )
            for part in self._task.parts:
                rows += self._known_state(target.ost, part, Fault(REACH, target.state, target.reason))
        self._record(rows, f"mon-{self._number}-states")
        # After those, since of a part that hangs more is known than that its OST is down.
        self._tell_hung(begun.hung)
        self._remove_leftovers({*self._inventory.not_active(), *late})

    def _hand_in(self) -> None:
        due = self._rounds.due(self._monotonic())
        if not due:
            return
        # Before they are handed in: a task that nobody remembers could get a second one beside it.
        self._save()
        for each in due:
            self.submit(self._made(each))

    def _end_round(self) -> None:
        """Tell of the newest round, once."""
        if self._told == self._number:
            return
        self._told = self._number
        summary = self._rounds.summary(self._monotonic())
        self.log.info(
            "round ended number=%d expected=%d ok=%d failed=%d down=%d hung=%d skipped=%d seconds=%.3f missed=%d",
            summary.number, summary.expected, summary.ok, summary.failed, summary.down, summary.hung, summary.skipped,
            summary.duration_s, self._missed,
        )  # fmt: skip
        self._tell_digest()
        started_at = datetime.fromtimestamp(self._begun_at, UTC)
        rows = self._task.round_rows(summary, self._found.results, self._found.known_rows, started_at)
        self._record(rows, f"mon-{self._number}-round")

    def _tell_unanswered(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Of programs of Lustre that do not answer: once, not in each round."""
        for program in sorted(now.keys() - before.keys()):
            self.log.warning("survey is not complete program=%s reason=%s", program, now[program])
        for program in sorted(before.keys() - now.keys()):
            self.log.info("survey is complete again program=%s", program)

    def _tell_hung(self, found: Sequence[Hung]) -> None:
        """Of tasks that have become hung, or still are in a new round."""
        told = [hung for hung in found if self._inventory.is_expected(hung.ost, self._selection)]
        rows: list[Row] = []
        for hung in told:
            reason = f"its task {hung.tid} was handed in {hung.age_s:.0f} s ago, and has not ended"
            self.log.warning("hung ost=%d reason=%s", hung.ost, reason)
            rows += self._known_state(hung.ost, hung.part, Fault(REACH, OstState.HUNG, reason))
        if told:
            # With the first of them, since there may be two such tasks at one moment.
            self._record(rows, f"mon-{self._number}-hung-{self._unix():.3f}-{told[0].tid}")

    def _tell_retired(self) -> None:
        """Record that nobody expects these OSTs any more, so that nothing is shown of them."""
        retired, self._retired = self._retired, []
        moment = datetime.fromtimestamp(self._unix(), UTC)
        rows: list[Row] = []
        for ost in retired:
            for part in self._task.parts:
                rows += self._task.state_rows(ost, part, OstState.RETIRED, "it is expected no more", moment)
        self._record(rows, f"mon-{self._number}-retired-{self._unix():.3f}")

    def _known_state(self, ost: int, part: str, fault: Fault, *, is_of_this_round: bool = True) -> list[Row]:
        """Tell the incidents of a fault of which no task has told, and return the rows for it."""
        self._hear(ost, [fault], ())
        moment = datetime.fromtimestamp(self._unix(), UTC)
        rows = self._task.state_rows(ost, part, fault.state, fault.text, moment)
        if is_of_this_round:
            self._found.known_rows += rows
            self._found.faults[ost, part] = [fault]
        return rows

    # Ends of tasks.

    def _on_end(self, result: Result) -> None:
        if result.tid in self._own:
            self._own.discard(result.tid)
            if not result.ok:
                self.log.error("not recorded tid=%s reason=%s", result.tid, _first_line(result))
            return
        faults, fine, outcome = self._judged(result)
        end = self._rounds.ended(result.tid, outcome, self._monotonic())
        if end is None or not self._inventory.is_expected(end.ost, self._selection):
            return
        for fault in faults:
            self.log.warning(
                "fault found ost=%d phase=%s state=%s reason=%s", end.ost, fault.phase, fault.state, fault.text
            )  # fmt: skip
        if end.is_of_this_round:
            self._found.faults[end.ost, end.part] = faults
            if isinstance(result.value, OstResult):
                self._found.results.append(result.value)
        if result.ok or outcome is Outcome.SKIPPED:
            self._hear(end.ost, faults, fine)
        else:
            (fault,) = faults
            rows = self._known_state(end.ost, end.part, fault, is_of_this_round=end.is_of_this_round)
            self._record(rows, f"{result.tid}-{fault.state.lower()}")

    def _judged(self, result: Result) -> tuple[Sequence[Fault], Sequence[str], Outcome]:
        """What an end says of the OST: its faults, the phases in order, and what counts in the round."""
        if not result.ok:
            if result.state == "cancelled" and result.attempts == 0:
                return (), (), Outcome.SKIPPED  # nobody was free to begin it
            if result.outcome == "timed_out":
                return (Fault(REACH, OstState.TIMEOUT, _first_line(result)),), (), Outcome.FAILED
            return (Fault(_TASK, OstState.FAILED, _first_line(result)),), (), Outcome.FAILED
        if isinstance(found := result.value, OstResult):
            outcome = Outcome.FAILED if found.faults else Outcome.OK
            if found.state is OstState.DOWN:
                outcome = Outcome.DOWN
            return found.faults, (_TASK, *found.fine), outcome
        if self._task.tells_of_osts:
            # Of another version of Cyclone on that node, for instance. What it has found, nobody knows.
            text = result.error.partition("\n")[0] or f"found a {type(found).__name__}, expected an OstResult"
            return (Fault(_TASK, OstState.FAILED, text),), (), Outcome.FAILED
        return (), (_TASK, REACH), Outcome.OK

    # Telling people.

    def _hear(self, ost: int, faults: Sequence[Fault], fine: Sequence[str]) -> None:
        if self._mails is not None and (faults or fine):
            self._mail(self._incidents.hear(ost, faults, fine, self._unix()))
            self._has_changed = True

    def _tell_digest(self) -> None:
        """Of what a round has found, and of what ends after it was over: a server that comes back lets many tasks end."""
        self._digest_at = self._monotonic() + _DIGEST_EVERY_S
        self._mail(self._incidents.digest(self._unix()))

    def _mail(self, notices: Sequence[Notice]) -> None:
        if self._mails is None or not notices:
            return
        self._untold += notices
        # That it is to be told counts as told: a next life tells it once more, as the same mail, or that it is over.
        self._save()
        self._post()

    def _post(self) -> None:
        """Post what is to be told, all of which is remembered."""
        if self._mails is not None and self._postman is not None:
            fs = self._mails.lfs_target
            for notice in self._untold:
                at = datetime.fromtimestamp(self._unix(), UTC)
                self._postman.post(
                    self._mails.mailing.compose(
                        subject(fs, notice), body(fs, notice), f"{fs}/{notice.key}", at
                    )
                )
        self._untold = []
        self._has_changed = True

    # Tasks.

    def _made(self, due: Due) -> BaseTask:
        quiet = self._incidents.quiet(due.ost, self._unix())
        task = self._task.make(due.ost, due.part, str(self._number), quiet)
        task.tid = due.tid
        # Of a task that is begun later it could not be told whether it hangs.
        task.expires = self.settings.hung_after_s / 2
        return task

    def _record(self, rows: Sequence[Row], tid: str) -> None:
        """Have these rows recorded by a task, or by several."""
        for start in range(0, len(rows), _ROWS_MOST):
            task = OstStateTask(rows[start : start + _ROWS_MOST], self._unix())
            task.tid = f"{tid}-{start // _ROWS_MOST}" if start else tid
            self._hand_in_own(task)

    def _remove_leftovers(self, avoided: Collection[int]) -> None:
        """avoided: OSTs of which a task could hang by only asking for the age of a file."""
        workplaces = self._task.workplaces()
        if not workplaces or self._monotonic() < self._leftovers_at or self._leftovers in self._own:
            return
        self._leftovers_at = self._monotonic() + _LEFTOVERS_EVERY_S
        task = RemoveLeftoversTask(workplaces, osts_avoided=avoided)
        self._leftovers = task.tid = f"mon-{self._number}-leftovers"
        self._hand_in_own(task)

    def _hand_in_own(self, task: BaseTask) -> None:
        assert task.tid is not None
        self._own.add(task.tid)
        self._own_until = self._monotonic() + self.settings.hung_after_s
        # While no worker is free they must not pile up without end, nor fill the window before tasks for OSTs.
        task.expires = _OWN_KEPT_ROUNDS * self.settings.measure_interval_s
        self.submit(task)

    # What outlives this process.

    def _save(self) -> None:
        self._has_changed = False
        now, unix = self._monotonic(), self._unix()
        opened = [OpenTask(due.tid, due.ost, due.part, unix - age_s) for due, age_s in self._rounds.open(now)]
        incidents = self._incidents.unsettled() if self._mails is not None else []
        memory = Memory(
            fs=self._fs, task=self.settings.task_name, round=self._number, known=self._inventory.known(), open=opened,
            incidents=incidents, untold=self._untold, selected=Selected(self.settings.selection, tuple(self._selection)),
        )  # fmt: skip
        try:
            remember(self.settings.state_file, memory)
        except OSError as error:
            # A monitor that stops since a disk is full would be missed most.
            self.log.error("not remembered file=%s reason=%s", self.settings.state_file, error)

    # Commands.

    def on_command(self, name: str, arguments: Mapping[str, str]) -> object:
        """Answer a command of `commands`. Raises ValueError with the reason for a refusal."""
        if name == "status":
            _expect(arguments)
            return self._status()
        if name == "select":
            _expect(arguments, "osts")
            wanted = indexes(arguments["osts"], "osts")
            chosen = select(self._inventory.available(), wanted)
            self._selection = wanted
            self._forget_unexpected()
            self._save()
            return {"osts": chosen}
        if name == "retire":
            _expect(arguments, "osts")
            retired = indexes(arguments["osts"], "osts")
            self._inventory.retire(retired)
            self._retired += retired
            self._forget_unexpected()
            self._save()
            return {"retired": list(retired)}
        if name == "run-now":
            _expect(arguments)
            if self._has_had_all:
                raise ValueError(f"there are no more than {self.settings.cycles} rounds, and all have begun")
            if self._surveyor is not None:
                raise ValueError("a round is just about to begin")
            self._is_wanted_now = True
            return {"round": "begins"}
        raise ValueError(f"no such command: {name}")

    def _forget_unexpected(self) -> None:
        """Of OSTs that nobody looks at any more nobody could say that they are in order again."""
        for ost in {incident.ost for incident in self._incidents.open()}:
            if not self._inventory.is_expected(ost, self._selection):
                self._incidents.forget(ost)
                self._has_changed = True

    def _status(self) -> dict[str, Any]:
        now = self._monotonic()
        summary = self._rounds.summary(now)
        return {
            "round": summary._asdict(),
            "is_over": self._rounds.is_over,
            "next_round_s": round(max(0.0, self._schedule.due - now), 3),
            "rounds": self._begun,
            "missed": self._missed,
            "selection": list(self._selection),
            "retired": [each.index for each in self._inventory.known() if each.retired],
            "open": [{"tid": due.tid, "ost": due.ost, "age_s": round(age_s, 3)} for due, age_s in self._rounds.open(now)],
            "not_looked_at": {
                target.ost: {"state": target.state, "reason": target.reason}
                for target in self._inventory.targets(self._selection)
                if target.state is not None
            },
            "unanswered": dict(self._newest.unanswered),
            "mails_waiting": 0 if self._postman is None else self._postman.waiting,
            "faults": self._told_faults(),
            "incidents": [
                {"ost": each.ost, "phase": each.phase, "state": each.state, "since": each.since, "reason": each.text}
                for each in self._incidents.open()
            ],
        }  # fmt: skip

    def _told_faults(self) -> dict[int, list[dict[str, str]]]:
        """`{OST: what is wrong with it}`, as far as the newest round knows. What all parts have in common is told once."""
        by_ost: dict[int, dict[Fault, None]] = {}
        for (ost, _), faults in self._found.faults.items():
            if faults:
                by_ost.setdefault(ost, {}).update(dict.fromkeys(faults))
        return {
            ost: [{"phase": each.phase, "state": each.state, "reason": each.text} for each in faults]
            for ost, faults in by_ost.items()
        }


def _first_line(result: Result) -> str:
    return result.error.partition("\n")[0] or result.outcome


def _expect(arguments: Mapping[str, str], *names: str) -> None:
    """Raises ValueError."""
    if set(arguments) != set(names):
        found = ", ".join(sorted(arguments)) or "none"
        raise ValueError(f"found the arguments {found}, expected {', '.join(names) or 'none'}")
