"""The store on disk: one SQLite file with a write-ahead log.

How it is fast: the facts of many decisions go into one transaction, grouped by kind. What an accepted task
consists of travels in parcels of some dozens; a task has rows of its own only for what must be unique, its
tid and its end, and these are narrow and go in by the hundred a statement.
How it is safe: a transaction is in the log when its COMMIT returns, where no death of this process takes it back, and
the log is synced before anybody is promised anything. What happens at most once is a key of a table.

Tids and names are kept as text: the alphabet cannot carry anything but valid Unicode. What is not searched
for is kept as msgpack, as on the wire.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclone.clock import monotonic
from cyclone.errors import RuleBroken, StoreFull
from cyclone.messages import JobView, TaskEnd, TaskView
from cyclone.model.changes import (
    AttemptEnded,
    Change,
    JobClosed,
    JobOpened,
    JobRemembers,
    JobSealed,
    LiveTask,
    PlacementOver,
    Remembered,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import JobState, State
from cyclone.model.peer import Peer
from cyclone.model.task import Cause, JobNumber, Policy, TaskNumber, Token
from cyclone.store.blocks import LiveBlocks, ranges
from cyclone.store.database import VERSION, Database, damaged
from cyclone.store.forgetting import SLICE_S, Forgetting
from cyclone.store.promise import StoredTask
from cyclone.store.rows import (
    Meta,
    Parcel,
    Row,
    encode,
    end_of,
    numbers_of,
    parcel_of,
    parcels,
    payloads_in,
    policy_of,
    story_of,
)

#: Rows of one statement: their values stay below 999, the bound of SQLite before 3.32
#: (sqlite.org/limits.html), and more rows gain nothing.
_ROWS = 100
_INSERT_TASK = "INSERT INTO task VALUES ", "(?,?,?)"
_INSERT_ENDED = "INSERT INTO ended VALUES ", "(?,?)"

#: A parcel is as large as it may be for one payload in it to be read without much regret for the others.
_PARCEL_TASKS = 64
_PARCEL_BYTES = 64 * 1024
_NEARBY_BYTES = 4 * 2**20

#: How many tids one question lists. Spare places stay NULL, which is equal to nothing: two forms to compile.
_LIST = 100
_ONE, _MANY = "(?)", "(" + ",".join("?" * _LIST) + ")"

#: The order of the join is given, or SQLite might begin with what has ended, which is most of it.
_RECALL = """SELECT tid, story FROM task CROSS JOIN ended ON ended.task = task.number
    WHERE job = ? AND tid IN """

#: The question for ended tasks, newest first: any, or only those that did not succeed.
_LISTING = (
    "SELECT task, story FROM ended WHERE task BETWEEN ? AND ? ORDER BY task DESC",
    """SELECT ended.task, story FROM ended_badly CROSS JOIN ended ON ended.task = ended_badly.task
    WHERE ended_badly.task BETWEEN ? AND ? ORDER BY ended_badly.task DESC""",
)

#: What follows the last row: a number above every task's.
_NONE = (2**63 - 1,)

_LOOK_S = 1.0
_POLICIES_KEPT = 10_000

#: What a cached payload costs beside its bytes: the head of the object, its number, its place in the dict.
_ENTRY_BYTES = 160

_OK = State.SUCCEEDED.value


class SqliteStore:
    """The `Store` on disk. It owns its file for as long as it is open; others may read the file meanwhile.

    Besides the connection it keeps what spares questions: payloads not placed yet, policies and their
    numbers, how many tasks of each open job have ended, and where live tasks are. All of it changes after COMMIT only,
    so that a transaction that failed leaves no trace.
    """

    def __init__(
        self,
        path: str | Path,
        durability: str = "full",
        *,
        max_bytes: int = 0,
        payload_cache_bytes: int = 16 * 2**20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store, or create an empty one.

        durability: `full` loses nothing when the power fails; `normal` may lose the last transactions then,
        but nothing when the process is killed, and nothing before the last checkpoint.
        max_bytes: from which size on the store says that it is full; it goes on to remember what it is given. 0: never.
        clock: Unix time, for what people read and for how long a task has waited.

        Raises ConfigError (place), AlreadyRunning, StoreVersionError, StoreCorrupt, StoreFull, StoreError.
        """
        assert durability in ("full", "normal"), durability
        self._db = Database(path, durability, clock)
        self._max_bytes = max_bytes
        self.path = self._db.path
        self._clock = clock
        self._waking = False
        self._awake = False
        self._last_number: TaskNumber = 0
        self._blocks = LiveBlocks()
        self._forgetting = Forgetting(self._db)
        self._ended: dict[JobNumber, int] = {}
        self._policy_numbers: dict[Policy, int] = {}
        self._payloads: dict[TaskNumber, bytes] = {}
        self._payload_bytes = 0
        self._payload_bytes_max = payload_cache_bytes
        self._nearby: dict[TaskNumber, bytes] = {}  # payloads from parcels that were opened for another
        self._nearby_bytes = 0
        self._policies: dict[int, Policy] = {}

    @property
    def beginning(self) -> str:
        """What was done to the file when it was opened, in a line for people; "" if nothing was."""
        done = []
        if self._db.was_backup:
            done.append("a back-up was made a store")
        if self._db.upgraded_from is not None:
            done.append(f"it was upgraded from version {self._db.upgraded_from} to version {VERSION}")
        return "; ".join(done)

    @property
    def is_full(self) -> bool:
        """Whether it is larger than it should be, so that no new tasks are to be taken."""
        return bool(self._max_bytes) and self._db.taken_bytes > self._max_bytes

    def close(self) -> None:
        """Let go of the file. The last one who closes it copies the log into it and removes the log."""
        try:
            if self._awake and self._blocks.stale:
                # Without it only the next start is slower: a full disk must not keep anybody from ending.
                with contextlib.suppress(StoreFull), self._db.transaction():
                    self._list_blocks()
                    self._blocks.written()
        finally:
            self._db.close()

    # Waking up.

    def wake(self) -> Remembered:
        if self._waking:
            raise RuleBroken("a store wakes up once")
        # An epoch that a power cut takes back would be given out twice, and its tokens with it.
        with self._db.durable_transaction():
            self._meta()  # of a damaged epoch SQLite would make one that may have been used
            self._db.next_epoch()
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (secrets.token_hex(8),))
            meta = self._meta()
        self._waking = True
        self._last_number = self._last()
        self._forgetting.wake()
        [(last_job,)] = self._db.facts(tuple[JobNumber], "SELECT coalesce(max(number), 0) FROM job")
        standing = list(
            self._db.facts(
                tuple[JobNumber, str, JobState, float | None],
                "SELECT number, name, state, remember_s FROM job WHERE last_task IS NULL ORDER BY number",
            )
        )
        jobs = {number: name for number, name, _, _ in standing}
        ended = dict(
            self._db.facts(tuple[JobNumber, int], "SELECT job, sum(tasks) FROM job_count GROUP BY job")
        )
        self._ended = {number: ended.get(number, 0) for number in jobs}
        where = ranges(meta.live_blocks)
        return Remembered(
            epoch=meta.epoch,
            last_job=max(last_job, meta.last_job),
            last_number=self._last_number,
            jobs=jobs,
            live=self._live(where),
            placements=[
                TasksPlaced(first, Peer(name, life), numbers_of(numbers))
                for first, name, life, numbers in self._db.facts(
                    tuple[Token, str, str, bytes], "SELECT * FROM placement ORDER BY first"
                )
            ],
            attempts=[attempt for span in where for attempt in self._attempts(*span, live_only=True)],
            marred=frozenset(
                job
                for job, state in self._db.read("SELECT job, state FROM job_count")
                if job in jobs and state != _OK
            ),
            store=meta.identity,
            sealed={number: state for number, _, state, _ in standing if state is not JobState.OPEN},
            remember_s={
                number: remember_s for number, _, _, remember_s in standing if remember_s is not None
            },
        )

    def _meta(self) -> Meta:
        return Meta.of(self.path, self._db.rows("SELECT key, value FROM meta"))

    def _live(self, where: list[tuple[TaskNumber, TaskNumber]]) -> Iterator[LiveTask]:
        now = self._clock()
        before = 0
        for first, last in where:
            ended = self._db.rows(
                "SELECT task FROM ended WHERE task BETWEEN ? AND ? ORDER BY task", (first, last)
            )
            [gone] = next(ended, _NONE)
            for parcel in parcels(self._db, first, last):
                live: list[LiveTask] = []
                waited_s = max(0.0, now - parcel.accepted_at)
                for number, job, tid, policy, after in parcel.tasks:
                    # Both come in the order of their numbers.
                    while gone < number:
                        [gone] = next(ended, _NONE)
                    if first <= number <= last and number != gone:
                        if number <= before:
                            raise damaged(self.path, f"task {number} ({tid}) comes after task {before}")
                        if job not in self._ended:
                            raise damaged(self.path, f"task {number} ({tid}) is open, its job {job} is not")
                        before = number
                        live.append(LiveTask(number, job, tid, self._policy(policy), after, waited_s))
                self._blocks.accepted([task.number for task in live])
                yield from live
        self._awake = True

    # Remembering.

    def remember(
        self,
        changes: Sequence[Change],
        payloads: Mapping[tuple[JobNumber, str], bytes],
        values: Mapping[Token, bytes],
    ) -> None:
        if not self._awake:
            raise RuleBroken(
                "the store has to wake up, and its live tasks to be read, before it can remember"
            )
        if not changes:
            return
        kinds: defaultdict[type[Change], list[Any]] = defaultdict(list)
        for change in changes:
            kinds[type(change)].append(change)
        accepted: list[TaskAccepted] = kinds[TaskAccepted]
        ended: list[TaskEnded] = kinds[TaskEnded]
        # In ascending order, or a block that was given up as empty could hold a live task again.
        numbers = [task.number for task in accepted]
        if any(later <= earlier for earlier, later in itertools.pairwise([self._last_number, *numbers])):
            raise RuleBroken("task numbers have to ascend")
        if ended and max(end.number for end in ended) > (numbers[-1] if numbers else self._last_number):
            raise RuleBroken("a task is to end that was never accepted")
        if not {task.job for task in accepted} <= {*self._ended, *(job.number for job in kinds[JobOpened])}:
            raise RuleBroken("a task is to be accepted into a job that is not open")
        counts = Counter([(end.job, end.end.state) for end in ended])
        with self._db.transaction():
            # Whatever order facts of several kinds came in, each is written after what it is about.
            self._open_jobs(kinds[JobOpened])
            self._declare(kinds[JobRemembers])
            interned = self._intern(accepted)
            self._accept(accepted, interned, payloads)
            self._place(kinds[TasksPlaced])
            self._end_attempts(kinds[AttemptEnded])
            self._end(ended, values)
            self._end_placements(kinds[PlacementOver])
            self._count(counts)
            self._seal_jobs(kinds[JobSealed])
            self._close_jobs(kinds[JobClosed], numbers[-1] if numbers else self._last_number)
            listing = self._blocks.stale
            if listing:
                self._list_blocks()
        self._keep(kinds, numbers, interned, payloads, counts, listed=listing)

    def sync(self) -> None:
        self._db.sync()

    def _open_jobs(self, jobs: list[JobOpened]) -> None:
        now, first = self._clock(), self._last_number + 1
        self._db.executemany(
            "INSERT INTO job (number, name, state, opened_at, first_task) VALUES (?,?,'open',?,?)",
            [(job.number, job.name, now, first) for job in jobs],
        )

    def _declare(self, jobs: list[JobRemembers]) -> None:
        for job, remember_s in jobs:
            if not self._forgetting.declare(job, remember_s):
                raise RuleBroken(f"job {job} is told what to remember and is not open")

    def _seal_jobs(self, jobs: list[JobSealed]) -> None:
        sealed = self._db.executemany(
            "UPDATE job SET state = ? WHERE number = ? AND last_task IS NULL",
            [(str(job.state), job.number) for job in jobs],
        )
        if sealed != len(jobs):
            raise RuleBroken("a job is to be sealed and is not open")

    def _close_jobs(self, jobs: list[JobClosed], last: TaskNumber) -> None:
        now = self._clock()
        for job in jobs:
            found = self._db.execute(
                """UPDATE job SET state = ?, closed_at = ?, last_task = ?
                WHERE number = ? AND last_task IS NULL""",
                (str(job.state), now, last, job.number),
            )
            if found.rowcount != 1:
                raise RuleBroken(f"job {job.number} is to be closed and is not open")

    def _intern(self, accepted: list[TaskAccepted]) -> dict[Policy, int]:
        """The number of each policy of these tasks, in the store from now on."""
        interned: dict[Policy, int] = {}
        for policy in (task.policy for task in _distinct(accepted)):
            number = self._policy_numbers.get(policy)
            if number is None:
                body = encode(policy)
                self._db.execute(
                    "INSERT OR IGNORE INTO policy (kind, body) VALUES (?,?)", (policy.kind, body)
                )
                [(number,)] = self._db.execute("SELECT number FROM policy WHERE body = ?", (body,))
            interned[policy] = number
        return interned

    def _accept(
        self,
        accepted: list[TaskAccepted],
        interned: dict[Policy, int],
        payloads: Mapping[tuple[JobNumber, str], bytes],
    ) -> None:
        if not accepted:
            return
        now = self._clock()
        policies = {id(task.policy): interned[task.policy] for task in _distinct(accepted)}
        known: list[object] = []
        parcels: list[tuple[object, ...]] = []
        tasks: list[Row] = []
        bodies: list[bytes] = []
        size = 0

        def wrap() -> None:
            parcels.append((tasks[0][0], tasks[-1][0], now, encode(tasks), encode(bodies)))

        for task in accepted:
            number, job, tid = task.number, task.job, task.tid
            payload = payloads.get((job, tid))
            if payload is None:
                raise RuleBroken(f"task {number} ({tid}) is accepted without a payload")
            size += len(payload)
            if tasks and (size > _PARCEL_BYTES or len(tasks) == _PARCEL_TASKS):
                wrap()
                tasks, bodies, size = [], [], len(payload)
            tasks.append((number, job, tid, policies[id(task.policy)], task.after))
            bodies.append(payload)
            known += (job, tid, number)
        wrap()
        self._insert(*_INSERT_TASK, known)
        self._db.executemany("INSERT INTO parcel VALUES (?,?,?,?,?)", parcels)

    def _end(self, ended: list[TaskEnded], values: Mapping[Token, bytes]) -> None:
        if not ended:
            return
        now = self._clock()
        found: list[object] = []
        badly: list[tuple[TaskNumber, str]] = []
        for task in ended:
            number, how = task.number, task.end
            end, state = how.end, how.state
            value = None if end is None else values.get(end.token)
            if state is not State.SUCCEEDED:
                badly.append((number, state.value))
            elif value is None:
                raise RuleBroken(f"task {number} ({how.tid}) succeeded without a value")
            found += number, encode((state, how.attempts, task.peer, end, how.reason, value or b"", now))
        self._insert(*_INSERT_ENDED, found)
        self._forgetting.note_late(ended, now)
        self._db.executemany("INSERT INTO ended_badly VALUES (?,?)", badly)

    def _insert(self, statement: str, row: str, values: list[object]) -> None:
        """Insert rows whose values are given one after the other."""
        width = row.count("?")
        size = _ROWS * width
        cut = len(values) - len(values) % size
        if cut:
            many = statement + ",".join([row] * _ROWS)
            for start in range(0, cut, size):
                self._db.execute(many, values[start : start + size])
        if cut < len(values):
            rest = iter(values[cut:])
            self._db.executemany(statement + row, list(zip(*[rest] * width, strict=True)))

    def _place(self, placements: list[TasksPlaced]) -> None:
        self._db.executemany(
            "INSERT INTO placement VALUES (?,?,?,?)",
            [(first, peer.name, peer.life, encode(numbers)) for first, peer, numbers in placements],
        )

    def _end_placements(self, over: list[PlacementOver]) -> None:
        if self._db.executemany("DELETE FROM placement WHERE first = ?", over) != len(over):
            raise RuleBroken("a placement is to be over and is not there")

    def _end_attempts(self, attempts: list[AttemptEnded]) -> None:
        self._db.executemany(
            "INSERT INTO attempt VALUES (?,?,?,?,?,?)",
            [
                (number, end.token, attempt, peer, cause.value, encode(end))
                for number, attempt, peer, cause, end in attempts
            ],
        )

    def _count(self, counts: Counter[tuple[JobNumber, State]]) -> None:
        self._db.executemany(
            """INSERT INTO job_count VALUES (?,?,?)
            ON CONFLICT (job, state) DO UPDATE SET tasks = tasks + excluded.tasks""",
            [(job, state.value, tasks) for (job, state), tasks in counts.items()],
        )

    def _list_blocks(self) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO meta VALUES ('live_blocks', ?)", (self._blocks.listed(self._last_number),)
        )

    def _keep(
        self,
        kinds: Mapping[type[Change], list[Any]],
        numbers: list[TaskNumber],
        interned: dict[Policy, int],
        payloads: Mapping[tuple[JobNumber, str], bytes],
        counts: Counter[tuple[JobNumber, State]],
        *,
        listed: bool,
    ) -> None:
        """Bring up to date what is kept in memory: the facts are on disk now."""
        if listed:
            self._blocks.written()
        if numbers:
            self._last_number = numbers[-1]
            self._blocks.accepted(numbers)
        if len(self._policy_numbers) + len(interned) > _POLICIES_KEPT:
            self._policy_numbers.clear()
        self._policy_numbers.update(interned)
        self._ended.update((job.number, 0) for job in kinds[JobOpened])
        for (job, _), tasks in counts.items():
            if job in self._ended:
                self._ended[job] += tasks
        for declared in kinds[JobRemembers]:
            self._forgetting.declared(declared.number)
        for closed in kinds[JobClosed]:
            self._ended.pop(closed.number, None)
            self._forgetting.closed(closed.number)
        # Who is in stays in until it is placed: the oldest are placed first, so to make room for the newest
        # would be to throw out the ones that are asked for next.
        room = self._payload_bytes_max - self._payload_bytes
        for task in kinds[TaskAccepted]:
            payload = payloads[task.job, task.tid]
            size = len(payload) + _ENTRY_BYTES
            if size > room:
                break
            self._payloads[task.number] = payload
            room -= size
        self._payload_bytes = self._payload_bytes_max - room
        over = [end.number for end in kinds[TaskEnded]]
        self._blocks.ended(over)
        if self._payloads:
            for number in over:
                self._forget_payload(number)

    # Forgetting.

    def forget(self, keep_s: float | None, slice_s: float = SLICE_S) -> bool:
        if not self._awake:
            raise RuleBroken("the store has to wake up, and its live tasks to be read, before it can forget")
        # Not synced: what a power cut brings back is forgotten again.
        with self._db.transaction():
            more = self._forgetting.go_on(keep_s, self._clock(), self._last_number, slice_s)
        self._forgetting.settle()
        return more

    # Being asked.

    def payloads(self, numbers: Sequence[TaskNumber]) -> list[bytes]:
        found = []
        for number in numbers:
            payload = self._forget_payload(number)
            if payload is None and (payload := self._nearby.get(number)) is None:
                self._open_parcel(number)
                payload = self._nearby.get(number)
                if payload is None:
                    raise RuleBroken(f"task {number} was never accepted")
            found.append(payload)
        return found

    def _open_parcel(self, number: TaskNumber) -> None:
        """Put the payload of a task, and of those that travelled with it, where it is looked for."""
        if self._nearby_bytes > _NEARBY_BYTES:
            self._nearby.clear()
            self._nearby_bytes = 0
        for parcel in parcels(self._db, number, number):
            payloads = payloads_in(self._db, parcel)
            self._nearby.update(zip((row[0] for row in parcel.tasks), payloads, strict=True))
            self._nearby_bytes += sum(map(len, payloads)) + _ENTRY_BYTES * len(payloads)

    def _forget_payload(self, number: TaskNumber) -> bytes | None:
        payload = self._payloads.pop(number, None)
        if payload is not None:
            self._payload_bytes -= len(payload) + _ENTRY_BYTES
        return payload

    def recall(self, job: JobNumber, tids: Collection[str]) -> dict[str, tuple[TaskEnd, bytes]]:
        if self._ended.get(job) == 0:
            return {}
        found = {}
        wanted = list(tids)
        for start in range(0, len(wanted), _LIST):
            some = wanted[start : start + _LIST]
            spare = _LIST - len(some) if len(some) > 1 else 0
            rows = self._db.rows(_RECALL + (_MANY if len(some) > 1 else _ONE), (job, *some, *[None] * spare))
            for tid, story in rows:
                how = story_of(story)
                found[tid] = TaskEnd(tid, how.state, how.attempts, how.end, how.reason), how.value
        return found

    def tasks(
        self, job: str = "", states: Collection[State] = (), kind: str = "", limit: int = 1000
    ) -> tuple[list[TaskView], bool]:
        # A kind that is rare among a hundred million would be looked for until every lease has run out. What
        # was found by then is told, and that there may be more.
        deadline = monotonic() + _LOOK_S
        found: list[TaskView] = []
        parcel = Parcel(0, 0, 0.0, [])
        for number, name, first, last in self._spans(job):
            for ended, story in self._db.rows(
                _LISTING[bool(states) and State.SUCCEEDED not in states], (first, last)
            ):
                if len(found) == limit or monotonic() > deadline:
                    return found, True
                if not parcel.first <= ended <= parcel.last:
                    parcel = parcel_of(self._db, ended)
                _, of, tid, policy_number, _ = parcel.row(ended)
                how = story_of(story)
                policy = self._policy(policy_number)
                if of == number and (not states or how.state in states) and kind in ("", policy.kind):
                    found.append(
                        TaskView(
                            ended,
                            name,
                            tid,
                            policy.kind,
                            how.state,
                            how.attempts,
                            how.peer,
                            how.end,
                            how.reason,
                        )
                    )
        return found, False

    def _spans(self, job: str) -> list[tuple[JobNumber, str, TaskNumber, TaskNumber]]:
        """Where the tasks of the jobs of this name are: `[(job, name, first, last), …]`, newest first."""
        return list(
            self._db.facts(
                tuple[JobNumber, str, TaskNumber, TaskNumber],
                """SELECT number, name, first_task, coalesce(last_task, ?) FROM job WHERE name = ? OR ?
                ORDER BY number DESC""",
                (self._last(), job, not job),
            )
        )

    def task(self, tid: str, job: str = "") -> StoredTask | None:
        rows = self._db.facts(
            tuple[TaskNumber, str, bytes | None],
            """SELECT task.number, job.name, story FROM job
            CROSS JOIN task ON task.job = job.number AND tid = ?
            LEFT JOIN ended ON ended.task = task.number
            WHERE job.name = ? OR ? ORDER BY job.number DESC LIMIT 1""",
            (tid, job, not job),
        )
        for number, name, story in rows:
            parcel = parcel_of(self._db, number)
            _, _, _, policy, after = parcel.row(number)
            attempts = self._attempts(number, number, live_only=False)
            end, peer = None, ""
            if story is not None:
                how = story_of(story)
                end, peer = TaskEnd(tid, how.state, how.attempts, how.end, how.reason), how.peer
            return StoredTask(
                number, name, tid, self._policy(policy), after, parcel.accepted_at, attempts, end, peer
            )
        return None

    def _policy(self, number: int) -> Policy:
        policy = self._policies.get(number)
        if policy is None:
            if len(self._policies) >= _POLICIES_KEPT:
                self._policies.clear()
            for (body,) in self._db.rows("SELECT body FROM policy WHERE number = ?", (number,)):
                policy = self._policies[number] = policy_of(body)
        if policy is None:
            raise damaged(self.path, f"policy {number} is not there")
        return policy

    def _last(self) -> TaskNumber:
        """The largest number that a task has had, also of those that are forgotten."""
        [(last,)] = self._db.facts(
            tuple[TaskNumber],
            """SELECT max(coalesce(max(last), 0), coalesce((SELECT value FROM meta WHERE key = 'last_task'), 0))
            FROM (SELECT last FROM parcel ORDER BY first DESC LIMIT 1)""",
        )
        return last

    def _attempts(self, first: TaskNumber, last: TaskNumber, *, live_only: bool) -> list[AttemptEnded]:
        rows = self._db.facts(
            tuple[TaskNumber, int, str, Cause, bytes],
            """SELECT task, attempt, peer, cause, "end" FROM attempt WHERE task BETWEEN ? AND ?
            AND NOT (? AND EXISTS (SELECT 1 FROM ended WHERE ended.task = attempt.task))
            ORDER BY task, token""",
            (first, last, live_only),
        )
        return [
            AttemptEnded(number, attempt, peer, cause, end_of(end))
            for number, attempt, peer, cause, end in rows
        ]

    def jobs(self, limit: int = 1000) -> list[JobView]:
        rows = self._db.facts(
            tuple[JobNumber, str, str, float, float, int],
            """SELECT number, name, CASE WHEN last_task IS NULL THEN 'open' ELSE state END, opened_at, closed_at,
            forgotten FROM job ORDER BY number DESC LIMIT ?""",
            (limit,),
        )
        return [
            JobView(number, name, state, opened_at, closed_at, self._counts(number), forgotten=forgotten)
            for number, name, state, opened_at, closed_at, forgotten in rows
        ]

    def _counts(self, job: JobNumber) -> dict[str, int]:
        return dict(
            self._db.facts(tuple[str, int], "SELECT state, tasks FROM job_count WHERE job = ?", (job,))
        )


def _distinct(accepted: list[TaskAccepted]) -> Iterable[TaskAccepted]:
    """One task for each policy object: those of one submission share theirs, so this spares hashing them."""
    return {id(task.policy): task for task in accepted}.values()
