"""What keeps Cyclone from harm, one defence at a time, and the test that fails when it is taken out.

A defence that nobody tests is gone after some years, and nobody notices. Each one here is a small change to a copy of the
checkout that takes the defence away; the test that is named has to fail then. `simulation/faults.py` is the same for the
minds, with a simulator in the place of a test: what they decide is not repeated here.

    python tests/defences.py                all of them, which takes some minutes; the exit code is 0 if all were noticed
    python tests/defences.py revoked        those with this word in their name, point, file or test

A defence may be behind another one. Where that is so, the test has to look at this one alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cyclone.process.lineage import adopt_orphans, slay_descendants

ROOT = Path(__file__).resolve().parents[1]

#: A test that hangs without its defence has noticed it, but not for ever.
TEST_S = 60
_PROCESS_S = 180.0
_BURIAL_S = 5.0

#: Exit codes of pytest: docs.pytest.org/en/stable/reference/exit-codes.html
_PASSED, _FAILED = 0, 1


class Verdict(NamedTuple):
    """reason: what failed in the test, or why nothing did."""

    is_noticed: bool
    reason: str


class Defence(NamedTuple):
    """point: what it is good for. right: a text that stands once in the file, wrong: what takes its place.

    test: the id of one that fails then, from `tests` on.
    """

    name: str
    point: str
    file: str
    right: str
    wrong: str
    test: str


DEFENCES = [
    Defence(
        "no more tasks are taken than the window holds",
        "a client that hands in tasks without end fills neither the memory nor the disk of the master",
        "core/scheduler.py",
        "        if why := self._why_not_now(job, message, recalled, full):\n",
        "        if why := str():\n",
        "unit/core/test_scheduler.py::test_more_than_the_window_holds_is_refused_for_now",
    ),
    Defence(
        "a store that is too large takes no new tasks",
        "what was taken can still end, so that there may be room again",
        "daemons/master.py",
        "recalled, full = self._recall(message), self._why_full()",
        'recalled, full = self._recall(message), ""',
        "acceptance/test_full_disk.py::test_a_store_that_has_reached_its_bound_goes_on_with_the_room_of_what_is_forgotten",
    ),
    Defence(
        "what there is no room for is handed in later",
        "a generator that is started again with other tasks waits for those of its former life",
        "daemons/desk.py",
        "if request is not None and message.later:",
        "if request is not None and not message.reason:",
        "unit/daemons/test_desk.py::test_what_there_is_no_room_for_is_handed_in_again",
    ),
    Defence(
        "a host where workers die whatever they execute is excluded",
        "a broken host, which is done with everything at once, does not get the most",
        "core/live.py",
        "return self.is_present and self.excluded_until is None",
        "return self.is_present",
        "unit/core/test_exclusion.py::test_what_is_ready_goes_to_others",
    ),
    Defence(
        "where most hosts are in the same plight it is the tasks",
        "tasks that kill their workers do not empty a cluster",
        "core/exclusion.py",
        "if 2 * len(ill) > sum(controller.is_present for controller in controllers):",
        "if not controllers:",
        "unit/core/test_exclusion.py::test_where_most_are_in_the_same_plight_it_is_the_tasks",
    ),
    Defence(
        "what failed together does not come back together",
        "a server that could not bear so many at once is not asked by all of them in one moment again",
        "model/task.py",
        "return least * (1 + SPREAD * _fraction(token))",
        "return least",
        "unit/model/test_task.py::test_those_that_failed_together_come_back_apart",
    ),
    # Nothing is lost: the order of things, and what is on disk.
    Defence(
        "a master remembers before it says",
        "what was answered for is on disk, so that a kill at any moment takes nothing back",
        "daemons/master.py",
        "        if changes:\n            self._remember(changes)\n        for decision in decisions:",
        "        for decision in decisions:",
        "unit/daemons/test_master.py::test_what_was_decided_is_remembered_before_anything_is_said",
    ),
    Defence(
        "a disk that fails ends the master",
        "after a failed write nobody knows what is on disk; the next life reads it anew",
        "daemons/master.py",
        "            except StoreFull as error:\n                if self._forget():",
        "            except CycloneError as error:\n                if self._forget():",
        "unit/daemons/test_master.py::test_a_disk_that_fails_ends_the_master_and_nothing_is_said",
    ),
    Defence(
        "a full disk is waited for",
        "nothing is promised while there is no room, and nothing ends because of that",
        "daemons/master.py",
        "            except StoreFull as error:\n                if self._forget():",
        "            except ConfigError as error:\n                if self._forget():",
        "unit/daemons/test_master.py::test_while_the_disk_is_full_nothing_is_said_and_then_everything",
    ),
    Defence(
        "a failed fsync is no full disk",
        "to try again after it would be to believe pages that the kernel may have thrown away",
        "store/database.py",
        "_NO_ROOM = (sqlite3.SQLITE_IOERR_WRITE, ",
        "_NO_ROOM = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, ",
        "unit/store/test_sqlite.py::test_a_failed_fsync_is_never_a_lack_of_room",
    ),
    Defence(
        "a store is as durable as it was asked to be",
        "what was synced survives a power cut",
        "store/database.py",
        "            os.fdatasync(self._log_fd)",
        "            pass",
        "unit/store/test_sqlite.py::test_what_was_remembered_is_synced_when_the_caller_says_so_and_durability_was_asked_for",
    ),
    Defence(
        "what was committed since the last sync is not on disk",
        "each promise waits for everything that was remembered before it",
        "store/database.py",
        "            self._is_synced = False\n",
        "",
        "unit/store/test_sqlite.py::test_what_was_remembered_is_synced_when_the_caller_says_so_and_durability_was_asked_for",
    ),
    Defence(
        "a master syncs before it promises",
        "who was told that something is accepted, or has ended, may rely on it after a power cut",
        "daemons/master.py",
        "        self._store.sync()\n        for letter in letters:",
        "        for letter in letters:",
        "unit/daemons/test_master.py::test_what_promises_something_is_said_when_it_is_on_disk_and_the_rest_before",
    ),
    Defence(
        "an exclusive attempt is on disk before anybody hears of it",
        "after a power cut the master knows who may be executing it",
        "core/placement.py",
        "binding = any(policy.exclusive for policy in letter.policies)",
        "binding = False",
        "unit/core/test_placement.py::test_only_what_is_exclusive_has_to_be_on_disk_before_it_is_placed",
    ),
    Defence(
        "an epoch is always durable",
        "one that a power cut takes back would be given out twice, and all its tokens with it",
        "store/sqlite.py",
        "with self._db.durable_transaction():\n            self._meta()",
        "with self._db.transaction():\n            self._meta()",
        "unit/store/test_sqlite.py::test_an_epoch_is_always_synced",
    ),
    Defence(
        "each start has an epoch of its own",
        "tokens of two lives are never the same",
        "store/database.py",
        "SET value = max(value + 1, ?)",
        "SET value = max(value, ?)",
        "unit/store/test_promise.py::test_each_start_has_a_larger_epoch",
    ),
    Defence(
        "a transaction is all or nothing",
        "half of what belongs together is never remembered",
        "store/database.py",
        'self._connection.execute("ROLLBACK")',
        'self._connection.execute("COMMIT")',
        "unit/store/test_promise.py::test_what_breaks_a_rule_is_refused_with_all_that_came_with_it",
    ),
    Defence(
        "a tid is unique within its job",
        "what is handed in twice is one task",
        "store/database.py",
        "PRIMARY KEY (job, tid)) WITHOUT ROWID",
        "PRIMARY KEY (job, tid, number)) WITHOUT ROWID",
        "unit/store/test_promise.py::test_what_breaks_a_rule_is_refused_with_all_that_came_with_it",
    ),
    Defence(
        "a task has one end",
        "an end is recorded once and never changed",
        "store/database.py",
        "CREATE TABLE ended (task INTEGER PRIMARY KEY,",
        "CREATE TABLE ended (task INTEGER,",
        "unit/store/test_promise.py::test_a_second_end_in_the_same_batch_is_refused",
    ),
    Defence(
        "an attempt has one end",
        "no two attempts share a token",
        "store/database.py",
        "PRIMARY KEY (task, token)) WITHOUT ROWID",
        "CHECK (token > 0))",
        "unit/store/test_promise.py::test_what_breaks_a_rule_is_refused_with_all_that_came_with_it",
    ),
    Defence(
        "numbers of forgotten tasks are not used again",
        "a number, and what is made of it, means one task for ever",
        "store/forgetting.py",
        "INSERT OR REPLACE INTO meta VALUES ('last_task', ?)",
        "INSERT OR REPLACE INTO meta VALUES ('last_task_of_all', ?)",
        "unit/store/test_promise.py::test_numbers_of_what_was_forgotten_are_not_used_again",
    ),
    Defence(
        "an open job is never forgotten",
        "what still lives is not taken out of the store, however old it is",
        "store/forgetting.py",
        '            FROM job WHERE last_task IS NOT NULL AND closed_at <= ? ORDER BY closed_at LIMIT 1""",',
        "            FROM (SELECT number, first_task, 1 AS last_task, forgotten, closed_at FROM job)\n"
        '            WHERE closed_at <= ? ORDER BY closed_at LIMIT 1""",',
        "unit/store/test_promise.py::test_an_open_job_remembers_everything_unless_it_says_otherwise",
    ),
    Defence(
        "only what has ended is forgotten of an open job",
        "a task lives until it has an end",
        "store/forgetting.py",
        "            self._take_out(parcel, doomed)\n            self._delete_tids(doomed)\n            standing",
        "            doomed = list(ours.values())\n            self._take_out(parcel, doomed)\n"
        "            self._delete_tids(doomed)\n            standing",
        "unit/store/test_promise.py::test_a_task_of_an_open_job_is_remembered_from_its_end_on_and_not_from_its_beginning",
    ),
    Defence(
        "a store is open in one place",
        "two masters never write to one store",
        "store/file.py",
        "fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "unit/store/test_sqlite.py::test_a_store_is_open_in_one_place_by_whatever_name",
    ),
    Defence(
        "a store is on a local disk",
        "the log of SQLite does not work over a network",
        "store/file.py",
        "if network is not None:",
        "if network is None:",
        "unit/store/test_file.py::test_a_store_on_a_network_file_system_is_refused",
    ),
    Defence(
        "a spool is on a local disk",
        "the log of SQLite does not work over a network",
        "sinks/spool.py",
        'file.claim(self.path, "spool") if',
        "file.lock(self.path) if",
        "unit/sinks/test_spool.py::test_a_disk_over_the_network_is_refused",
    ),
    Defence(
        "a spool belongs to one process",
        "what one daemon sends, another does not send as well, or forget",
        "sinks/spool.py",
        'file.claim(self.path, "spool") if beside is None else None',
        "None",
        "unit/sinks/test_spool.py::test_a_spool_that_is_in_use_is_refused_by_name_until_its_holder_is_gone",
    ),
    Defence(
        "a state directory belongs to one controller",
        "what one controller has kept, another does not remove",
        "daemons/controller.py",
        "self._lock = file.lock(self.file)",
        'self._lock = open(os.devnull, "rb")',
        "unit/daemons/test_controller.py::test_a_second_controller_gets_no_state_directory_of_another",
    ),
    Defence(
        "only what was a spool is set aside",
        "who has mistyped the path of a spool does not lose the file that lies there",
        "sinks/spool.py",
        "if not (self._was_spool or self._has_left_signs()):",
        "if False:",
        "unit/sinks/test_spool.py::test_a_file_that_never_was_a_spool_is_left_alone",
    ),
    Defence(
        "a full disk keeps nobody from a spool",
        "to empty it is what makes room",
        "store/file.py",
        "        if error.errno not in NO_ROOM:\n            raise\n",
        "        raise\n",
        "unit/store/test_file.py::test_a_lock_needs_no_room_for_the_name_of_its_holder",
    ),
    Defence(
        "a store of another version is refused",
        "an older program does not damage what a newer one has written",
        "store/database.py",
        "if not oldest <= version <= VERSION:",
        "if version < 0:",
        "unit/store/test_sqlite.py::test_a_store_of_another_version_is_refused_and_left_alone",
    ),
    Defence(
        "the database of somebody else is refused",
        "a wrong path in an ini file costs nobody his data",
        "store/database.py",
        "if application not in (APPLICATION_ID, BACKUP_ID):",
        "if application == BACKUP_ID - 1:",
        "unit/store/test_sqlite.py::test_the_database_of_somebody_else_is_refused_and_left_alone",
    ),
    Defence(
        "a back-up is marked as one",
        "what its store did after it is not done again under the same tokens and numbers",
        "store/backup.py",
        "            _mark(part, copy, minute(clock()))\n            expect_whole(part, BACKUP_ID)",
        "",
        "unit/store/test_backup.py::test_a_store_from_a_back_up_uses_no_epoch_and_no_job_number_that_was_used_since",
    ),
    Defence(
        "a back-up is not mixed with the log of another store",
        "what is put back is what was saved",
        "store/database.py",
        "            self._refuse_foreign_log()\n",
        "",
        "unit/store/test_backup.py::test_a_back_up_beside_the_log_of_the_store_that_lay_there_is_refused",
    ),
    Defence(
        "a back-up leaves the master its room",
        "whoever saves a store does not stop it",
        "store/backup.py",
        "if file.room_bytes(path.parent) < reserve:",
        "if file.room_bytes(path.parent) < 0:",
        "unit/store/test_backup.py::test_a_back_up_is_given_up_before_the_disk_of_the_store_is_full",
    ),
    Defence(
        "an audit looks at tokens",
        "a store that breaks a promise says so, also one that a hand has been at",
        "core/audit.py",
        "if token >= self._epoch_over:",
        "if token < 0:",
        "unit/store/test_audit.py::test_a_token_that_cannot_be_is_named",
    ),
    Defence(
        "an audit compares ends with attempts",
        "an end that is not that of the newest attempt is found",
        "core/audit.py",
        "if failed and end.token <= failed[-1].token:",
        "if failed and end.token < 0:",
        "unit/store/test_audit.py::test_an_end_by_an_older_token_than_that_of_an_attempt_is_named",
    ),
    Defence(
        "an audit writes nothing",
        "a store is looked at where one may not write, and does not change by it",
        "store/audit.py",
        'how = "immutable=1" if self.is_at_rest else "mode=ro"',
        'how = "mode=rw"',
        "unit/store/test_audit.py::test_a_store_that_one_may_not_write_is_read",
    ),
    Defence(
        "a file gets its name when it is on disk",
        "after a crash there is the old content or the new one, and nothing in between",
        "process/replace.py",
        "            os.fsync(fd)\n        new.replace(file)",
        "        new.replace(file)",
        "unit/process/test_replace.py::test_the_content_is_on_disk_before_it_has_the_name",
    ),
    Defence(
        "a value comes with the message that counted",
        "nobody puts anything in the place of the result of somebody else's attempt",
        "daemons/enclosures.py",
        "                if end.token in ended:\n",
        "                if end.token:\n",
        "unit/daemons/test_enclosures.py::test_a_value_for_an_attempt_of_somebody_else_takes_no_place",
    ),
    Defence(
        "a payload comes with the message that counted",
        "who hands in a tid that is live changes nothing of it",
        "daemons/enclosures.py",
        "                if task.tid in accepted:",
        "                if task.tid:",
        "unit/daemons/test_enclosures.py::test_the_payload_of_a_task_that_was_refused_takes_no_place",
    ),
    Defence(
        "results that nobody took are kept on disk",
        "a controller that has to end while its master is away loses none of its work",
        "daemons/controller.py",
        "        replace_content(self.file, content)\n",
        "        assert content\n",
        "unit/daemons/test_controller.py::test_results_that_nobody_took_are_there_for_the_next_life",
    ),
    Defence(
        "a worker tells of what it was given",
        "a task that writes to the channel of its worker ends no other task",
        "daemons/controller.py",
        "if len(values) != len(message.ends) or not self._crew.may_tell(slot, message.ends, message.unbegun):",
        "if len(values) != len(message.ends):",
        "unit/daemons/test_controller.py::test_what_a_worker_was_not_given_is_not_believed",
    ),
    Defence(
        "a damaged store says so",
        "what cannot be read is not taken for nothing",
        "store/database.py",
        "if code == sqlite3.SQLITE_CORRUPT or",
        "if",
        "unit/store/test_sqlite.py::test_a_damaged_page_is_told_as_damage",
    ),
    Defence(
        "a row is what it has to be",
        "a damaged value is told as damage, and is not reckoned with",
        "store/database.py",
        "yield checked(self.path, row, kind)",
        "yield row",
        "unit/store/test_sqlite.py::test_what_is_damaged_is_told_as_damage_by_who_touches_it",
    ),
    Defence(
        "a log that is not copied is noticed",
        "a failing disk ends the master before its log has filled it",
        "store/database.py",
        "if os.stat(self._log).st_size > 2 * _LOG_PAGES * PAGE_BYTES:",
        "if os.stat(self._log).st_size < 0:",
        "unit/store/test_sqlite.py::test_a_log_that_cannot_be_copied_into_the_store_ends_it_before_it_fills_the_disk",
    ),
    Defence(
        "a back-up is looked through before it is made a store",
        "one that was damaged on its way is refused",
        "store/database.py",
        'for (problem,) in self.read("PRAGMA integrity_check(1)"):',
        "for problem in ():",
        "unit/store/test_backup.py::test_a_back_up_that_was_damaged_on_its_way_is_not_made_a_store",
    ),
    Defence(
        "jobs of a restored store have numbers of their own",
        "records of new jobs have keys that no database knows, however often a back-up is restored",
        "store/database.py",
        "(epoch * _JOBS_SINCE,)",
        "(_JOBS_SINCE,)",
        "unit/store/test_backup.py::test_what_is_made_of_the_same_back_up_twice_uses_nothing_of_one_another",
    ),
    Defence(
        "a back-up spares the files of its store",
        "who mistypes a name does not lose the log of a master that works",
        "store/backup.py",
        "for own in file.names(path):",
        "for own in [path]:",
        "unit/store/test_backup.py::test_the_store_is_not_copied_over_what_lies_beside_it",
    ),
    Defence(
        "an audit sees a change that was not ended",
        "what is still to be undone is not taken for the store",
        "store/audit.py",
        'for kind in ("wal", "journal"):',
        'for kind in ("wal",):',
        "unit/store/test_audit.py::test_a_change_that_was_not_ended_is_not_taken_for_the_store",
    ),
    Defence(
        "a store has a log",
        "a disk that cannot keep one keeps no promise either",
        "store/database.py",
        'if mode != "wal":',
        "if not mode:",
        "unit/store/test_sqlite.py::test_a_disk_that_cannot_keep_a_log_is_refused",
    ),
    Defence(
        "a store is for its owner alone",
        "payloads and results are nobody else's business",
        "store/file.py",
        "        os.fchmod(descriptor, 0o600)\n",
        "        os.fchmod(descriptor, 0o644)\n",
        "unit/store/test_file.py::test_a_new_file_may_be_read_by_its_owner_alone_whatever_the_umask",
    ),
    Defence(
        "a store is not where everybody can exchange it",
        "payloads run on the nodes: who can write to the store can do what the controllers can",
        "store/file.py",
        "    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:\n",
        "    if not status.st_mode:\n",
        "unit/store/test_file.py::test_a_directory_that_everybody_can_write_to_is_refused_unless_it_is_sticky",
    ),
    Defence(
        "a spool is not where everybody can exchange it",
        "nobody puts records there that no task has made",
        "store/file.py",
        "        refuse_exchangeable(directory)\n    except",
        "    except",
        "unit/sinks/test_spool.py::test_a_directory_that_everybody_can_write_to_is_refused",
    ),
    Defence(
        "results of a former life are not where everybody can exchange them",
        "nobody tells the master ends that no task had",
        "daemons/controller.py",
        "            file.refuse_exchangeable(directory)\n",
        "",
        "unit/daemons/test_controller.py::test_results_are_not_read_where_everybody_can_write",
    ),
    Defence(
        "a link of somebody else is no store",
        "nobody has a master of root write where he likes",
        "store/file.py",
        "if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):",
        "if not status.st_mode:",
        "unit/store/test_file.py::test_a_link_of_somebody_else_is_not_followed_to_a_store",
    ),
    # Records: at least once on their way, exactly once in the database.
    Defence(
        "what a failed attempt has recorded is dropped",
        "a row belongs to an attempt that succeeded",
        "daemons/worker.py",
        '                self._values.append(b"")\n            started = ended',
        '                self._values.append(b"")\n                self._entries += recorder.entries\n            started = ended',
        "unit/daemons/test_recording.py::test_what_a_failed_attempt_has_recorded_is_dropped",
    ),
    Defence(
        "a record has a key of its own",
        "what is delivered again is known again, and nothing else is taken for it",
        "record.py",
        'f"{job_key}/{number}/{tid}".encode()',
        'f"{job_key}/{tid}".encode()',
        "unit/test_record.py::test_a_key_is_the_same_for_each_attempt_and_differs_for_everything_else",
    ),
    Defence(
        "an end is heard of when its records are on disk",
        "no record is lost with a controller that is killed",
        "daemons/controller.py",
        "if message.entries or self._unkept:",
        "if self._unkept:",
        "unit/daemons/test_controller.py::test_an_end_is_heard_of_when_what_it_has_recorded_is_on_disk",
    ),
    Defence(
        "a sink says that it has what is on its disk",
        "a controller forgets a record when somebody else keeps it, and not before",
        "daemons/sink.py",
        "            if refusal:\n",
        "            if not delivery:\n",
        "unit/daemons/test_sink.py::test_a_delivery_is_acknowledged_after_it_was_kept_and_refused_if_it_was_not",
    ),
    Defence(
        "a spool is synced",
        "what a sink has acknowledged survives a power cut",
        "sinks/spool.py",
        '"PRAGMA synchronous=FULL",',
        '"PRAGMA synchronous=OFF",',
        "unit/sinks/test_spool.py::test_what_is_kept_is_synced",
    ),
    Defence(
        "a spool keeps a record once",
        "what is delivered twice is one entry",
        "sinks/spool.py",
        "uid BLOB NOT NULL UNIQUE,",
        "uid BLOB NOT NULL,",
        "unit/sinks/test_spool.py::test_a_duplicate_is_ignored_while_the_first_is_there",
    ),
    Defence(
        "a number of a spool is never used again",
        "nobody deletes what he has not read",
        "sinks/spool.py",
        "seq INTEGER PRIMARY KEY AUTOINCREMENT,",
        "seq INTEGER PRIMARY KEY,",
        "unit/sinks/test_spool.py::test_a_number_is_never_used_again",
    ),
    Defence(
        "a spool has a bound",
        "a sink that is away for weeks does not fill the disk",
        "sinks/spool.py",
        "if self.max_bytes and added and (taken := self._taken()) > self.max_bytes:",
        "if added and (taken := self._taken()) > 2**60:",
        "unit/sinks/test_spool.py::test_a_full_spool_refuses_all_of_what_does_not_fit",
    ),
    Defence(
        "a spool has a reserve",
        "on a full disk there is room for forgetting what was delivered",
        "sinks/spool.py",
        "            if not self._spend_reserve():\n                raise",
        "            if self._reserve:\n                raise",
        "unit/sinks/test_spool.py::test_what_was_delivered_can_be_forgotten_on_a_full_disk",
    ),
    Defence(
        "a spool is for its owner alone",
        "what tasks have recorded is nobody else's business",
        "store/file.py",
        "        os.fchmod(descriptor, 0o600)\n",
        "        os.fchmod(descriptor, 0o644)\n",
        "unit/sinks/test_spool.py::test_its_owner_alone_may_read_it_whatever_the_umask",
    ),
    Defence(
        "an entry leaves the spool after its commit",
        "a database that fails loses nothing",
        "sinks/writer.py",
        "        left = len(group)\n",
        "        left = len(group)\n        self._spool.delete(each.seq for each in group)\n",
        "unit/sinks/test_writer.py::test_nothing_is_lost_and_nothing_doubled_while_the_database_fails_at_random",
    ),
    Defence(
        "a dead letter is written before its entry is forgotten",
        "what a database will never take is not lost either",
        "sinks/writer.py",
        "        self._dead_letters.append([(each.entry, reason) for each, reason in dead], time.time())\n"
        "        self._spool.delete(each.seq for each, _ in dead)\n",
        "        self._spool.delete(each.seq for each, _ in dead)\n"
        "        self._dead_letters.append([(each.entry, reason) for each, reason in dead], time.time())\n",
        "unit/sinks/test_writer.py::test_dead_letters_that_cannot_be_written_stay_in_the_spool",
    ),
    Defence(
        "a row is in a table once",
        "a commit whose answer was lost makes no second row",
        "sinks/dialects/sqlite.py",
        """*columns, 'unique ("uid")'])""",
        "*columns])",
        "unit/sinks/test_writer.py::test_a_commit_whose_answer_was_lost_makes_no_second_row",
    ),
    Defence(
        "one bad row keeps no other from its table",
        "what a database refuses is found among what it takes",
        "sinks/dead_letters.py",
        "if len(some) == 1:",
        "if some:",
        "unit/sinks/test_dead_letters.py::test_good_rows_go_in_and_each_bad_one_is_told_with_its_reason",
    ),
    Defence(
        "a dead letter is written whole",
        "half a line does not take the next one with it",
        "sinks/dead_letters.py",
        'text = b"\\n" + text',
        "text = text + b''",
        "unit/sinks/test_dead_letters.py::test_half_a_line_does_not_take_the_next_one_with_it",
    ),
    # Nobody gets in.
    Defence(
        "without keys nobody listens to a network",
        "who switches keys off is reached by his own host only",
        "wire/door.py",
        "if self._own is None and not _is_loopback(bound):",
        "if self._own is None and not bound:",
        "unit/wire/test_door.py::test_without_keys_the_network_is_not_listened_on",
    ),
    Defence(
        "keys are switched off on one host only",
        "an ini file that says otherwise is refused before anything is started",
        "settings.py",
        "if not curve and not is_loopback(host):",
        "if not curve and not host:",
        "unit/test_settings.py::test_no_keys_are_refused_on_a_network",
    ),
    Defence(
        "without an answer nobody is let in",
        "libzmq admits any key as soon as nobody answers its questions, unless it is told not to",
        "wire/door.py",
        "self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)",
        "self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)",
        "unit/wire/test_door.py::test_while_nobody_answers_for_keys_nobody_is_let_in",
    ),
    Defence(
        "a question about a key is exactly as it must be",
        "whatever is asked in another way is refused",
        "wire/zap.py",
        'b"CURVE", raw] if domain == DOMAIN:',
        "_, raw]:",
        "unit/wire/test_zap.py::test_a_listed_key_in_a_wrong_question_is_refused",
    ),
    Defence(
        "a door tries itself with a strange key",
        "a door that lets strangers in, for whatever reason, does not open",
        "wire/door.py",
        "        if admitted:\n",
        "        if admitted is None and self._zap is None:\n",
        "unit/wire/test_door.py::test_a_door_that_lets_strangers_in_does_not_open",
    ),
    Defence(
        "a line notices that libzmq has given it up",
        "after bytes that make no sense libzmq never connects again, and the line would wait for ever",
        "wire/line.py",
        "            self._gone_at = self._clock() if event == zmq.EVENT_DISCONNECTED else None\n",
        "",
        "unit/wire/test_line.py::test_after_nonsense_the_line_has_to_begin_anew_and_says_so",
    ),
    Defence(
        "a generator comes again when it was refused",
        "connections that are cut in the midst of a handshake look like a refusal, and the master would stop for it",
        "daemons/desk.py",
        "patience_s = REFUSED_S if self._connections else REFUSED_FIRST_S",
        "patience_s = -1.0",
        "unit/daemons/test_desk.py::test_whoever_was_let_in_once_comes_again_when_he_was_refused",
    ),
    Defence(
        "a child looks whether its parent is still there",
        "the kernel tells of the death of a parent only if it comes after the child has asked for that",
        "process/lineage.py",
        "    if os.getppid() != parent:\n",
        "    if os.getppid() == -1:\n",
        "unit/process/test_lineage.py::test_a_child_whose_parent_has_ended_already_does_not_begin",
    ),
    Defence(
        "a revoked key is not heard any more",
        "the list is asked for each message, for libzmq does not ask again about an open connection",
        "wire/door.py",
        """            raise _Unwelcome("revoked", user_id, "their key is not on the list any more")""",
        """            role, name, _ = user_id.split(":", 2)\n            return _Speaker(name, Role(role), user_id)""",
        "unit/wire/test_door.py::test_a_key_that_is_revoked_is_neither_heard_nor_told_over_its_open_connection",
    ),
    Defence(
        "a revoked key is not told anything any more",
        "what is said to a peer is for its key as well",
        "wire/door.py",
        "if self._ring is not None and self._ring.still_admitted(route.user_id) is None:",
        "if self._ring is None and route.user_id:",
        "unit/wire/test_door.py::test_a_key_that_is_revoked_is_neither_heard_nor_told_over_its_open_connection",
    ),
    Defence(
        "a changed list of keys is noticed",
        "a revocation counts within seconds, and nobody has to be told",
        "wire/door.py",
        "if self._ring.refresh():",
        "if not self._ring:",
        "unit/wire/test_door.py::test_a_door_notices_a_revoked_key_by_itself",
    ),
    Defence(
        "an ini file that others can write to is refused",
        "who may choose what a daemon executes may do what it may",
        "ini.py",
        "if (others := others_who_may(status, stat.S_IWOTH)) and stat.S_ISREG(status.st_mode):",
        "if (others := others_who_may(status, stat.S_IWOTH)) and stat.S_ISDIR(status.st_mode):",
        "unit/test_ini.py::test_a_file_that_others_can_write_to_is_refused_with_the_command_that_mends_it",
    ),
    Defence(
        "an ini file with a password that others can read is refused",
        "a warning in a log is read when it is too late",
        "settings.py",
        "        cls._keep_secrets(ini)\n",
        "",
        "acceptance/test_secrets.py::test_who_lets_others_read_a_password_or_write_the_file_is_refused",
    ),
    Defence(
        "no module is looked for where everybody can write",
        "what somebody has planted in /tmp is not executed",
        "plugins.py",
        "        if _is_for_everybody(directory):\n            continue\n",
        "",
        "unit/test_plugins.py::test_no_module_is_looked_for_in_a_named_directory_where_everybody_can_write",
    ),
    Defence(
        "the password of the database is for its proxy alone",
        "daemons may be started from one environment, and a task may print its own",
        "daemons/entry.py",
        "        os.environ.pop(PASSWORD_VARIABLE, None)\n",
        "        pass\n",
        "acceptance/test_secrets.py::test_programs_of_tasks_get_the_environment_of_their_controller_and_no_secret",
    ),
    Defence(
        "a directory for modules that everybody can write to is refused",
        "what somebody has planted there is not executed",
        "settings.py",
        "if (status := os.stat(directory)).st_mode & stat.S_IWOTH:",
        "if (status := os.stat(directory)).st_mode & stat.S_ISVTX == 1:",
        "unit/test_settings.py::test_a_directory_for_modules_that_everybody_can_write_to_is_refused",
    ),
    Defence(
        "a worker looks for modules in its working directory last",
        "a file that happens to be called like a module of Python does not take its place",
        "daemons/worker.py",
        "    make_importable(())\n",
        "    sys.path.insert(0, os.getcwd())\n",
        "unit/daemons/test_worker.py::test_modules_in_the_working_directory_hide_no_others",
    ),
    Defence(
        "a link in the place of the directory of the keys is not followed",
        "where everybody can write, somebody may have been there first",
        "wire/keys.py",
        "    if stat.S_ISLNK(place.st_mode) and place.st_uid not in owners:",
        "    if stat.S_ISLNK(place.st_mode) and not owners:",
        "unit/wire/test_keys.py::test_a_link_of_somebody_else_in_the_place_of_the_directory_is_not_followed",
    ),
    Defence(
        "a key in a directory that others can write to is refused",
        "on a node as well, which makes no keys there",
        "wire/keys.py",
        "    _check_directory(key_dir)\n    return key",
        "    return key",
        "unit/wire/test_keys.py::test_a_key_in_a_directory_that_others_may_write_to_is_refused",
    ),
    Defence(
        "a file of the list with an error changes nothing",
        "a mistake of a hand neither locks anybody out nor lets anybody in",
        "wire/keys.py",
        "                key = former.get(file.stem)\n",
        "                key = None\n",
        "unit/wire/test_keys.py::test_a_bad_file_leaves_the_old_list_in_force",
    ),
    Defence(
        "a file of the list with an error concerns no other",
        "a key that was stolen can be revoked whatever state the rest of the list is in",
        "wire/keys.py",
        "        self._by_raw, self._by_user_id = by_raw,",
        "        if problem is None:\n            self._by_raw, self._by_user_id = by_raw,",
        "unit/wire/test_keys.py::test_a_bad_file_keeps_no_other_key_from_being_revoked_or_exchanged",
    ),
    Defence(
        "a key of a new owner is another key",
        "who had the name before does not come back with it",
        "wire/keys.py",
        'return f"{self.role}:{self.name}:{self.fingerprint}"',
        'return f"{self.role}:{self.name}"',
        "unit/wire/test_keys.py::test_a_new_key_under_a_revoked_name_does_not_let_the_old_one_back_in",
    ),
    Defence(
        "each role has words of its own",
        "a controller hands in no tasks, and a client tells of no ends",
        "wire/door.py",
        "Role.CONTROLLER: frozenset(get_args(FromController)),",
        "Role.CONTROLLER: frozenset(get_args(FromController) + get_args(FromClient)),",
        "unit/wire/test_door.py::test_a_message_of_another_role_is_dropped",
    ),
    Defence(
        "what a role may not say is not even decoded",
        "as little as possible is made of bytes of others",
        "wire/door.py",
        "decoder = self._decoders.get(role)",
        "decoder = self._decoders[None]",
        "unit/wire/test_door.py::test_what_a_role_may_not_say_is_not_decoded",
    ),
    Defence(
        "only a server is believed to be one",
        "a controller takes tasks from the key of a master",
        "wire/line.py",
        "if server is not None and server.role not in (Role.MASTER, Role.SINK):",
        "if server is None and own is not None:",
        "unit/wire/test_line.py::test_only_the_key_of_a_master_is_believed",
    ),
    Defence(
        "who has no key proves his address",
        "texts of Cyclone 2.x come from this host, or from those that are named",
        "wire/text_inbox.py",
        "if mapped.is_loopback or mapped in self._allowed:",
        "if mapped:",
        "unit/wire/test_text_inbox.py::test_nobody_else_is_let_in",
    ),
    Defence(
        "metrics are shown to this host",
        "who wants others to ask says so",
        "metrics/endpoint.py",
        'host: str = "127.0.0.1", port: int = 0',
        'host: str = "0.0.0.0", port: int = 0',
        "unit/metrics/test_endpoint.py::test_only_this_machine_can_ask_unless_told_otherwise",
    ),
    Defence(
        "a secret is for its owner alone",
        "whoever can read it can pass for its owner",
        "wire/keys.py",
        "            if _create(secret_file, _text(pair, pair.secret), 0o600):",
        "            if _create(secret_file, _text(pair, pair.secret), 0o644):",
        "unit/wire/test_keys.py::test_the_first_start_makes_files_that_others_cannot_read",
    ),
    Defence(
        "a secret that others can read is refused",
        "it may be known to somebody by now",
        "wire/keys.py",
        "_read(file, forbidden=0o077,",
        "_read(file, forbidden=0,",
        "unit/wire/test_keys.py::test_a_secret_that_is_open_to_others_is_refused_with_the_cure",
    ),
    Defence(
        "a secret of somebody else is refused",
        "he knows it, and may change it",
        "wire/keys.py",
        "forbidden=0o077, owners={os.geteuid()})",
        "forbidden=0o077, owners=None)",
        "unit/wire/test_keys.py::test_a_secret_of_somebody_else_is_refused",
    ),
    Defence(
        "a list that others may write to is refused",
        "whoever may write to it decides who gets in",
        "wire/keys.py",
        "_check_access(directory, status, 0o022, owners)",
        "_check_access(directory, status, 0, owners)",
        "unit/wire/test_keys.py::test_a_directory_that_others_may_write_to_is_refused",
    ),
    Defence(
        "a planted link is not written through",
        "in a directory of others a key is not written to a place of their choice",
        "wire/keys.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)",
        "os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)",
        "unit/wire/test_keys.py::test_a_draft_that_somebody_has_planted_is_not_written_through",
    ),
    Defence(
        "an old libzmq is refused",
        "its known holes let peers without a key crash a server",
        "wire/sockets.py",
        'if version < _LIBZMQ_MIN or not zmq.has("curve"):',
        "if version < (0,):",
        "unit/wire/test_door.py::test_a_library_that_is_too_old_is_refused",
    ),
    Defence(
        "another version is refused by its number",
        "two releases that do not understand one another say so",
        "wire/codec.py",
        "if frame[0] != PROTOCOL:",
        "if frame[0] > 255:",
        "unit/wire/test_codec.py::test_another_version_is_told_by_its_number",
    ),
    Defence(
        "whatever the bytes, they are undecodable at most",
        "no message ends a daemon",
        "wire/codec.py",
        "_SENSELESS = (ValueError, RecursionError, OverflowError, MemoryError)",
        "_SENSELESS = (ValueError, OverflowError, MemoryError)",
        "unit/wire/test_codec.py::test_hostile_bodies_are_undecodable",
    ),
    Defence(
        "names of lives are of plain letters",
        "what stands in logs, files and routes is not what somebody has made up",
        "wire/codec.py",
        'life: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}\\Z")]',
        "life: str",
        "unit/wire/test_codec.py::test_a_bad_life_is_neither_understood_nor_said",
    ),
    Defence(
        "an enclosure is as long as its list",
        "no payload ends up with another task",
        "wire/codec.py",
        "        if len(enclosure) != expected:\n            raise Undecodable(",
        "        if len(enclosure) < 0:\n            raise Undecodable(",
        "unit/wire/test_codec.py::test_an_enclosure_of_another_length_is_undecodable",
    ),
    Defence(
        "a letter for a former life is dropped",
        "what was meant for a daemon that is dead is not done by the next one",
        "wire/line.py",
        "if envelope.life != self.life:",
        "if not envelope.life:",
        "unit/wire/test_line.py::test_what_is_for_a_former_life_is_dropped",
    ),
    # Nobody stalls others, nor takes all the memory.
    Defence(
        "a frame has a largest size",
        "nobody makes a daemon hold more than it wants to, by libzmq any size is taken",
        "wire/sockets.py",
        "socket.maxmsgsize = max_message_bytes",
        "socket.maxmsgsize = -1",
        "unit/wire/test_door.py::test_a_frame_over_the_limit_ends_its_connection_only",
    ),
    Defence(
        "queues of sockets have a bound",
        "who does not read takes no more memory than that",
        "wire/sockets.py",
        "socket.sndhwm = socket.rcvhwm = _HIGH_WATER",
        "socket.sndhwm = socket.rcvhwm = 0",
        "unit/wire/test_door.py::test_a_peer_that_does_not_read_is_an_answer_and_others_are_served",
    ),
    Defence(
        "a handshake takes seconds at most",
        "who connects and says nothing gives the descriptor back",
        "wire/sockets.py",
        "socket.handshake_ivl = _HANDSHAKE_MS",
        "socket.handshake_ivl = 0",
        "unit/wire/test_connections.py::test_who_says_nothing_at_all_is_hung_up_on",
    ),
    Defence(
        "silence is noticed by libzmq as well",
        "a connection over a network that was cut ends",
        "wire/sockets.py",
        "socket.heartbeat_ivl = _HEARTBEAT_MS",
        "socket.heartbeat_ivl = 0",
        "unit/wire/test_door.py::test_every_limit_of_a_socket_is_set",
    ),
    Defence(
        "nothing is queued for a server that is away",
        "it would be said late and out of order",
        "wire/sockets.py",
        "self.socket.immediate = True",
        "self.socket.immediate = False",
        "unit/wire/test_line.py::test_nothing_is_said_while_the_master_is_away",
    ),
    Defence(
        "a letter to somebody who is gone is known to be lost",
        "libzmq drops it without a word, unless it is told not to",
        "wire/door.py",
        "self._socket.router_mandatory = True",
        "self._socket.router_mandatory = False",
        "unit/wire/test_door.py::test_a_peer_that_has_gone_is_an_answer_not_an_error",
    ),
    Defence(
        "nobody takes over the connection of another peer",
        "letters for one are not read by another",
        "wire/door.py",
        "self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)",
        "self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)",
        "unit/wire/test_door.py::test_a_routing_id_that_is_taken_is_not_taken_over",
    ),
    Defence(
        "a message of many parts is dropped",
        "what is not a message of ours is not looked at",
        "wire/door.py",
        "            if more:\n                raise _Unwelcome",
        "            if not frames:\n                raise _Unwelcome",
        "unit/wire/test_door.py::test_a_message_of_very_many_parts_does_not_hold_up_others",
    ),
    Defence(
        "parts of a message have a bound",
        "a message of a million parts takes no more memory than one of four",
        "wire/sockets.py",
        "if len(self._parts) <= self._parts_max:",
        "if part:",
        "unit/wire/test_sockets.py::test_of_a_message_with_too_many_parts_the_first_few_are_kept",
    ),
    Defence(
        "a message without an end ends its connection",
        "libzmq bounds neither its parts nor their sum",
        "wire/connections.py",
        "elif received - before > self._unfinished_bytes_max:",
        "elif received < 0:",
        "unit/wire/test_connections.py::test_a_message_without_an_end_ends_its_connection_and_no_other",
    ),
    Defence(
        "connections have a bound",
        "strangers by the thousand leave descriptors for those who work",
        "wire/connections.py",
        "        if excess <= 0:\n            return []",
        "        if excess <= 0 or most:\n            return []",
        "unit/wire/test_connections.py::test_beyond_the_bound_the_oldest_silent_ones_are_cut_off",
    ),
    Defence(
        "connections that are heard have a bound of their own",
        "who has one key cannot keep out those who have another",
        "wire/connections.py",
        "        if len(self._heard) <= most:\n",
        "        if most:\n",
        "unit/wire/test_connections.py::test_who_holds_all_connections_leaves_room_for_others",
    ),
    Defence(
        "a connection that is one too many is not heard",
        "nothing is placed on a controller that is about to be cut off",
        "wire/door.py",
        "if not self._connections.hear(frames[0]):",
        "if self._connections.hear(frames[0]) is None:",
        "unit/wire/test_connections.py::test_a_connection_that_is_one_too_many_is_not_heard",
    ),
    Defence(
        "who talks nonsense is not read for a while",
        "a key that was stolen, or a daemon gone mad, takes no time of others",
        "wire/strikes.py",
        "if strikes + 1 >= STRIKES_MOST:",
        "if strikes + 1 < 0:",
        "unit/wire/test_door.py::test_whoever_talks_nonsense_for_long_is_not_read_for_a_while_and_others_are",
    ),
    Defence(
        "the log cannot be filled by strangers",
        "who knocks a million times leaves a hundred lines",
        "wire/complaints.py",
        "if self._lines > _LINES_MOST:",
        "if self._lines < 0:",
        "unit/wire/test_complaints.py::test_peers_without_number_cannot_fill_the_log",
    ),
    Defence(
        "peers that are made up are forgotten first",
        "the memory of who is where has a bound",
        "wire/door.py",
        "if len(self._routes) > _ROUTES_MAX:",
        "if not self._routes:",
        "unit/wire/test_door.py::test_the_least_recently_heard_is_forgotten_beyond_the_bound",
    ),
    Defence(
        "of one key only so many questions wait",
        "who asks without end keeps nobody else waiting",
        "daemons/questions.py",
        "if len(waiting) >= WAITING_MOST:",
        "if len(waiting) < 0:",
        "unit/daemons/test_questions.py::test_of_one_key_only_so_many_wait",
    ),
    Defence(
        "a frame of a worker has a largest size",
        "a task that writes to the channel of its worker does not end the controller",
        "process/channel.py",
        "if (rest > FRAME_BYTES_MAX and not self._is_worker) or body + 4 * pieces > rest:",
        "if body + 4 * pieces > rest:",
        "unit/process/test_channel.py::test_what_is_no_frame_is_refused",
    ),
    Defence(
        "what is only announced takes no memory",
        "a length is believed as far as its bytes have come in",
        "process/channel.py",
        "size = max(_READ_BYTES, min(needed, 2 * left))",
        "size = max(_READ_BYTES, needed)",
        "unit/process/test_channel.py::test_a_frame_that_is_only_announced_takes_no_memory",
    ),
    Defence(
        "the page of a worker cannot be made smaller",
        "a task that truncates all it finds does not end the controller with SIGBUS",
        "process/progress.py",
        "fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW",
        "fcntl.F_SEAL_GROW",
        "unit/process/test_progress.py::test_a_page_cannot_be_made_smaller",
    ),
    Defence(
        "a program writes so much and no more",
        "the output of a program gone mad does not take all memory",
        "lustre/program.py",
        "elif len(outputs[stream]) + len(chunk) > OUTPUT_BYTES_MAX:",
        "elif len(chunk) < 0:",
        "unit/lustre/test_lfs.py::test_output_without_end_is_an_error",
    ),
    Defence(
        "series have a bound",
        "a label with a new value each time does not take all memory",
        "metrics/series.py",
        "if self._counts[declaration.kind] >= self._series_most:",
        "if self._series_most < 0:",
        "unit/metrics/test_series.py::test_there_is_a_bound_for_series_and_those_that_are_known_go_on_beyond_it",
    ),
    Defence(
        "scrapes have a bound",
        "a crowd of silent clients keeps no Prometheus away",
        "metrics/endpoint.py",
        "crowd = list(self._clients)[:-CLIENTS_MOST]",
        "crowd = []",
        "unit/metrics/test_endpoint.py::test_one_client_more_than_sixteen_costs_the_oldest_its_place_and_no_other",
    ),
    Defence(
        "a silent scrape is cut off",
        "no thread waits for ever",
        "metrics/endpoint.py",
        "    timeout = SILENCE_S\n",
        "",
        "unit/metrics/test_endpoint.py::test_a_client_that_is_silent_for_too_long_is_cut_off",
    ),
    Defence(
        "no wall clock decides",
        "who sets a clock neither ends a lease nor makes anything wait",
        "daemons/master.py",
        "from cyclone.clock import monotonic\n",
        "from time import time as monotonic\n",
        "house/test_constructs.py::test_the_wall_clock_is_asked_for_what_people_read_only",
    ),
    Defence(
        "a host that sleeps knows how long",
        "what was exclusive is somebody else's when a lease has run out, also if nobody was awake",
        "clock.py",
        'getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)',
        "time.CLOCK_MONOTONIC",
        "unit/test_clock.py::test_the_time_for_which_the_host_slept_counts",
    ),
    Defence(
        "a guard wakes with its host",
        "a lease that ran out while the host slept is enforced at once",
        "process/reaper.py",
        "            self._timer.set(self._next_guard())\n            poll.poll()\n",
        "            poll.poll(100)\n",
        "unit/process/test_nursery.py::test_a_guard_is_not_forgotten_while_the_host_sleeps",
    ),
    Defence(
        "one clock for all that is waited for",
        "moments that are told from one process to another mean the same in both",
        "daemons/worker.py",
        "from cyclone.clock import monotonic_ns\n",
        "from time import monotonic_ns\n",
        "house/test_constructs.py::test_whatever_is_waited_for_is_on_one_clock",
    ),
    Defence(
        "nobody but workers and generators unpickles",
        "bytes of others are never code in a master, a controller or a sink",
        "daemons/master.py",
        "import logging\n",
        "import logging\nimport pickle\n",
        "house/test_constructs.py::test_only_those_who_run_the_code_of_users_unpickle",
    ),
    Defence(
        "no program is started by a shell",
        "a name of a file is never a command",
        "lustre/program.py",
        "process_group=0,\n",
        "process_group=0, shell=True,\n",
        "house/test_constructs.py::test_nothing_becomes_code",
    ),
    # One daemon, and nothing of it is left behind.
    Defence(
        "a PID file has one holder",
        "two daemons never share a store, a port or a state directory",
        "process/pid_file.py",
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "unit/process/test_pid_file.py::test_a_second_holder_is_refused_and_told_the_first",
    ),
    Defence(
        "no program inherits the lock of a PID file",
        "what a killed daemon had started keeps the next one out",
        "process/pid_file.py",
        '            raise ConfigError("is not a regular file", file=self.path)\n',
        '            raise ConfigError("is not a regular file", file=self.path)\n        os.set_inheritable(fd, True)\n',
        "unit/process/test_pid_file.py::test_a_program_that_the_holder_started_does_not_keep_the_lock",
    ),
    Defence(
        "a link in the place of a PID file is not followed",
        "nobody has a daemon of root overwrite a file of his choice",
        "process/pid_file.py",
        "os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_CLOEXEC | os.O_NONBLOCK",
        "unit/process/test_pid_file.py::test_a_link_in_its_place_is_not_followed",
    ),
    Defence(
        "a lock on a file that is gone guards nothing",
        "between opening and locking its former holder may have removed it",
        "process/pid_file.py",
        "                if self._is_ours(fd):\n",
        "                if fd:\n",
        "unit/process/test_pid_file.py::test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_again",
    ),
    Defence(
        "a worker dies with its reaper",
        "also when both the reaper and the controller are killed, nobody works on for nobody",
        "process/reaper.py",
        "            on_death_of_parent(signal.SIGKILL)\n",
        "",
        "unit/process/test_nursery.py::test_a_worker_dies_with_its_reaper_although_nobody_is_left_to_kill_it",
    ),
    Defence(
        "a reaper ends with its controller",
        "the end of its link is the end of all below it",
        "process/reaper.py",
        "        slay_descendants()\n        if self._group is not None:",
        "        if self._group is not None:",
        "unit/process/test_nursery.py::test_a_killed_controller_leaves_nobody",
    ),
    Defence(
        "a reaper adopts whoever loses his parent",
        "nobody escapes by outliving the one who started him",
        "process/reaper.py",
        "        adopt_orphans()\n        self._posted.setblocking(False)",
        "        self._posted.setblocking(False)",
        "unit/process/test_nursery.py::test_a_killed_controller_leaves_nobody",
    ),
    Defence(
        "what a dead worker has started dies before its death is told",
        "who hears of it may start the same work anew",
        "process/reaper.py",
        "            self._slay_family(pid)\n            # Only now",
        "            # Only now",
        "unit/process/test_nursery.py::test_the_death_of_a_worker_takes_all_that_it_has_started",
    ),
    Defence(
        "a lease is enforced although its controller is frozen",
        "an exclusive task is over before anybody else may have it",
        "process/reaper.py",
        "                worker.until = None\n                self._kill(slot, signal.SIGKILL)",
        "                worker.until = None",
        "unit/process/test_nursery.py::test_a_guarded_worker_dies_at_its_moment_without_another_word",
    ),
    Defence(
        "a dead worker keeps its pid until its family is dead",
        "a stranger who gets the pid of a worker is not taken for it",
        "process/reaper.py",
        "            self._slay_family(pid)\n            # Only now",
        "            self._slay_family(collect(pid) and pid)\n            # Only now",
        "unit/process/test_reaper.py::test_the_pid_of_a_dead_worker_is_nobody_elses_while_its_family_is_looked_for",
    ),
    Defence(
        "the kernel kills whom we may not",
        "what a task has started with sudo ends with it",
        "process/reaper.py",
        "            self._group.below(str(worker)).kill()\n",
        "            pass\n",
        "unit/process/test_reaper.py::test_who_has_become_another_user_is_killed_with_the_worker",
    ),
    Defence(
        "the kernel kills whom we may not, also of a former life",
        "what a task has started with sudo ends with its node",
        "process/former_lives.py",
        "            group.kill()\n",
        "            pass\n",
        "unit/process/test_former_lives.py::test_the_kernel_is_asked_to_kill_whom_we_may_not",
    ),
    Defence(
        "a controller that was stopped itself blames nobody",
        "a host that has slept does not lose its work because of it",
        "process/nursery.py",
        "self._looks > LOOKS_MOST",
        "self._looks >= LOOKS_MOST",
        "unit/process/test_nursery.py::test_a_reaper_is_not_ended_because_its_controller_was_stopped_or_its_host_slept",
    ),
    Defence(
        "what is forked meanwhile is killed as well",
        "who multiplies faster than he is killed is stopped first",
        "process/lineage.py",
        "            send(pid, signal.SIGSTOP)\n        frozen |= new",
        "            send(pid, signal.SIGCONT)\n        frozen |= new\n        break",
        "unit/process/test_lineage.py::test_what_is_forked_while_we_look_is_found",
    ),
    Defence(
        "what a former life has left is killed by the next",
        "also when a whole node was killed at once, nobody works on",
        "process/former_lives.py",
        "survivors = slay_and_wait(lambda: _all_of(former, groups), within_s)",
        "survivors = set[int]()",
        "unit/process/test_former_lives.py::test_what_a_former_life_left_is_killed",
    ),
    Defence(
        "a generator ends with its master",
        "a master that is started again finds its port and its store free",
        "process/guardian.py",
        "    on_death_of_parent(_PARENT_DIED)\n",
        "",
        "acceptance/test_orphans.py::test_of_a_master_that_is_killed",
    ),
    Defence(
        "a reaper that is stuck is replaced",
        "without it nobody can be killed",
        "process/nursery.py",
        "                    self._reaper.kill()\n        return self._look_at",
        "                    pass\n        return self._look_at",
        "unit/process/test_nursery.py::test_a_reaper_that_is_stopped_is_ended_in_the_end",
    ),
    Defence(
        "tasks cannot speak for their daemon",
        "what systemd hears of a daemon is from itself",
        "process/service_manager.py",
        'address = environment.pop(_SOCKET, "")',
        'address = environment.get(_SOCKET, "")',
        "unit/process/test_service_manager.py::test_nobody_who_is_started_later_can_speak_for_the_daemon",
    ),
    Defence(
        "a program is killed with its whole group",
        "what runs out of time leaves nothing behind",
        "lustre/program.py",
        "os.killpg(self.pid, signal.SIGKILL)",
        "os.kill(self.pid, signal.SIGKILL)",
        "unit/lustre/test_lfs.py::test_a_program_out_of_time_is_killed_with_its_whole_group",
    ),
    # What others have written does not become syntax.
    Defence(
        "an ini file says what stands in it",
        "a percent sign is one, also in a password",
        "ini.py",
        "interpolation=None, strict=True",
        "interpolation=configparser.BasicInterpolation(), strict=True",
        "unit/test_ini.py::test_what_stands_in_the_file_is_what_is_meant",
    ),
    Defence(
        "no section leaks into others",
        "a section called DEFAULT is one like any other",
        "ini.py",
        'default_section=""',
        'default_section="DEFAULT"',
        "unit/test_ini.py::test_a_section_called_default_is_a_section",
    ),
    Defence(
        "an ini file that is refused is not quoted",
        "a line may be a password",
        "ini.py",
        """        return f"found something else in line {', '.join(str(number) for number, _ in error.errors)}\"""",
        """        return f"found something else: {error.errors}\"""",
        "unit/test_ini.py::test_a_file_that_is_refused_is_not_quoted",
    ),
    Defence(
        "an unknown key is refused",
        "a setting that was misspelt is not taken for its default",
        "settings.py",
        'raise ini.wrong(section, key, f"unknown key{_did_you_mean(key, known[section])}")',
        "continue",
        "unit/test_settings.py::test_an_unknown_key_is_refused_and_the_right_one_suggested",
    ),
    Defence(
        "names in SQL are of small letters",
        "a kind of record cannot carry a statement",
        "record.py",
        "if not _NAME.match(kind.kind) or not _TABLE_NAME.match(table(kind)):",
        "if not kind.kind or not table(kind):",
        "unit/test_record.py::test_a_declaration_that_is_not_sound_is_refused",
    ),
    Defence(
        "names in SQL are quoted all the same",
        "a name that got through is a name",
        "sinks/dialects/mysql.py",
        """return f"`{name.replace('`', '``')}`\"""",
        'return f"`{name}`"',
        "unit/sinks/dialects/test_mysql.py::test_a_name_is_quoted_whatever_it_is",
    ),
    Defence(
        "names for SQLite are quoted as well",
        "a name that got through is a name",
        "sinks/dialects/sqlite.py",
        """return '"' + name.replace('"', '""') + '"'""",
        """return '"' + name + '"'""",
        "unit/sinks/dialects/test_sqlite.py::test_a_name_is_quoted_whatever_it_is",
    ),
    Defence(
        "a value in a statement is escaped",
        "no text of a task ends its quotes",
        "sinks/dialects/mysql.py",
        """return b"'%s'" % (_escaped(text) if _SPECIAL.search(text) else text)""",
        """return b"'%s'" % text""",
        "unit/sinks/dialects/test_mysql.py::test_a_value_is_written_so_that_it_cannot_be_anything_else",
    ),
    Defence(
        "a database may not read our files",
        "a server that was taken over asks for them, unless that is switched off",
        "sinks/dialects/mysql.py",
        '"allow_local_infile": False,',
        '"allow_local_infile": True,',
        "unit/sinks/dialects/test_mysql.py::test_a_server_may_ask_for_nothing_but_what_it_is_given",
    ),
    Defence(
        "a database proves its name",
        "where a site vouches for it, a certificate of another server is none",
        "sinks/dialects/mysql.py",
        '"ssl_verify_identity": True',
        '"ssl_verify_identity": False',
        "unit/sinks/dialects/test_mysql.py::test_a_server_has_to_prove_its_name_where_somebody_vouches_for_it",
    ),
    Defence(
        "a statement is one statement",
        "nothing that got into one begins another",
        "sinks/dialects/mysql.py",
        '"client_flags": [-constants.ClientFlag.MULTI_STATEMENTS],',
        '"client_flags": [],',
        "unit/sinks/dialects/test_mysql.py::test_a_server_may_ask_for_nothing_but_what_it_is_given",
    ),
    Defence(
        "the password of a database is not shown",
        "neither a log nor a traceback tells it",
        "sinks/dialects/mysql.py",
        'password: str = field(default="", repr=False)',
        'password: str = field(default="")',
        "unit/sinks/dialects/test_mysql.py::test_a_password_is_never_shown",
    ),
    Defence(
        "a password that others can read is refused",
        "it may be known to somebody by now",
        "sinks/dialects/mysql.py",
        "if os.fstat(text.fileno()).st_mode & 0o077:",
        "if os.fstat(text.fileno()).st_mode < 0:",
        "unit/sinks/dialects/test_mysql.py::test_a_password_that_others_can_read_is_refused",
    ),
    Defence(
        "a secret key is not shown",
        "neither a log nor a traceback tells it",
        "wire/keys.py",
        "secret: bytes = field(repr=False)",
        "secret: bytes = field()",
        "unit/wire/test_keys.py::test_a_secret_does_not_show_when_the_pair_is_printed",
    ),
    Defence(
        "settings that are secrets are not shown",
        "neither a traceback nor `--check` tells them",
        "settings.py",
        "return field(repr=False, metadata=",
        "return field(metadata=",
        "unit/sinks/test_settings.py::test_passwords_are_neither_shown_nor_explained",
    ),
    Defence(
        "the password of a gateway is masked",
        "an address in a log tells nothing that is not for everybody",
        "metrics/push.py",
        "self.name = _without_password(url)",
        "self.name = url",
        "unit/metrics/test_push.py::test_a_password_is_sent_and_not_shown",
    ),
    Defence(
        "a redirection is not followed",
        "metrics and passwords go where the ini file says",
        "metrics/push.py",
        "allow_redirects=False",
        "allow_redirects=True",
        "unit/metrics/test_push.py::test_a_redirection_is_not_followed",
    ),
    Defence(
        "names of metrics are those of Prometheus",
        "one bad name does not cost a site all metrics of the scrape",
        "metrics/family.py",
        "if not _METRIC_NAME.match(name):",
        "if not name:",
        "unit/metrics/test_family.py::test_a_declaration_that_prometheus_would_misread_is_complained_of",
    ),
    Defence(
        "what stands in a label is escaped",
        "a text of a task makes no line of the exposition",
        "metrics/exposition.py",
        "return generate_latest(_Chosen(families))",
        """return generate_latest(_Chosen(families)).replace(b"\\\\n", b"\\n")""",
        "unit/metrics/test_exposition.py::test_whatever_stands_in_a_label_is_read_again_as_it_was",
    ),
    Defence(
        "text of peers makes no line of a log",
        "nobody can forge what an operator reads",
        "wire/complaints.py",
        'detail[:_TEXT_MAX].encode("unicode_escape").decode("ascii")',
        "detail[:_TEXT_MAX]",
        "unit/wire/test_complaints.py::test_what_a_peer_sent_cannot_forge_a_line_of_the_log",
    ),
    Defence(
        "a message is one line of the log",
        "text of tasks holds no control characters by the time that it is there",
        "daemons/entry.py",
        "if not text.isprintable():",
        "if not text:",
        "unit/daemons/test_entry.py::test_a_message_is_one_line_whatever_is_in_it",
    ),
    Defence(
        "a log is not written through a planted link",
        "nobody has a daemon of root write to a file of his choice",
        "daemons/entry.py",
        "if error.errno != errno.ELOOP or os.lstat(path).st_uid not in (0, os.geteuid()):",
        "if error.errno != errno.ELOOP:",
        "unit/daemons/test_entry.py::test_a_link_of_somebody_else_is_no_log",
    ),
    Defence(
        "nobody else writes into a log",
        "what an operator reads is what a daemon has written, whatever the umask is",
        "daemons/entry.py",
        "return os.open(path, flags | os.O_NOFOLLOW, 0o644)",
        "return os.open(path, flags | os.O_NOFOLLOW, 0o666)",
        "unit/daemons/test_entry.py::test_nobody_else_may_write_into_a_log_whatever_the_umask",
    ),
    Defence(
        "a daemon can open what it has made",
        "also where somebody has started it with a umask that forbids everything",
        "daemons/entry.py",
        "    os.umask(os.umask(0o077) & 0o077)\n",
        "",
        "acceptance/test_files.py::test_nobody_else_may_write_to_what_daemons_make_nor_read_most_of_it",
    ),
    Defence(
        "a terminal is shown text and not commanded",
        "control characters in an error of a task are shown and not obeyed",
        "cli/page.py",
        "    if text.isprintable():\n        return text",
        "    if text:\n        return text",
        "unit/cli/test_page.py::test_control_characters_are_shown_and_not_obeyed",
    ),
    Defence(
        "a document type is refused",
        "no entity of XML is ever defined, let alone expanded",
        "task_file.py",
        "parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = on_text, on_doctype",
        "parser.CharacterDataHandler = on_text",
        "unit/test_task_file.py::test_a_document_type_is_refused",
    ),
    Defence(
        "tasks come from packages that are allowed",
        "a task file names classes, and to import one is to execute it",
        "plugins.py",
        "        _allow(module, packages)\n",
        "",
        "unit/test_plugins.py::test_a_module_of_another_package_is_refused_before_it_is_imported",
    ),
    Defence(
        "a file of a user does not hide a module of Python",
        "the working directory is looked at last",
        "plugins.py",
        "sys.path.append(place)",
        "sys.path.insert(0, place)",
        "unit/test_plugins.py::test_a_file_of_the_user_does_not_hide_a_module_of_the_standard_library",
    ),
    Defence(
        "a tid leads no output elsewhere",
        "what cannot be the name of a file is hashed",
        "tasks/command.py",
        "if not _FILE_NAME.match(tid):",
        "if not tid:",
        "unit/tasks/test_command.py::test_a_tid_cannot_lead_the_output_elsewhere",
    ),
    Defence(
        "a name of a file is no option",
        "a file called -o is moved like any other",
        "lustre/lfs.py",
        'self._lfs("path2fid", "--", path)',
        'self._lfs("path2fid", path)',
        "unit/lustre/test_lfs.py::test_a_fid",
    ),
    Defence(
        "a relative name is no option either",
        "where a program does not know `--`, it is given the whole path",
        "lustre/lfs.py",
        'self._lfs("hsm_state", _absolute(path))',
        'self._lfs("hsm_state", path)',
        "unit/lustre/test_lfs.py::test_a_relative_path_is_no_option_of_a_program_that_does_not_know_the_end_of_them",
    ),
    # Lists, claims and mails.
    Defence(
        "half a line of a journal is cut off",
        "a kill at any byte leaves a journal that can be gone on with",
        "lustre/migration/journal.py",
        "        os.ftruncate(descriptor, _end_of_lines(descriptor))\n",
        "",
        "unit/lustre/migration/test_journal.py::test_cut_at_any_byte_it_tells_the_lines_that_are_whole_and_can_be_gone_on_with",
    ),
    Defence(
        "an entry has one result",
        "of two lines about it the first counts",
        "lustre/migration/journal.py",
        "if self._is_ours(final.number) and self.finals.add(final.number):",
        "if self._is_ours(final.number) and self.finals.add(final.number) is not None:",
        "unit/lustre/migration/test_journal.py::test_the_first_result_of_an_entry_counts",
    ),
    Defence(
        "a journal leads nowhere else",
        "what stands in its first line is no path",
        "lustre/migration/journal.py",
        r'suffix: Annotated[str, msgspec.Meta(pattern=r"^(\.[0-9]+)?$")]',
        "suffix: str",
        "unit/lustre/migration/test_journal.py::test_a_suffix_cannot_lead_anywhere_else",
    ),
    Defence(
        "a claim is done in two steps",
        "what was claimed by somebody who was killed can be had again",
        "lustre/claims.py",
        "return Claim.DONE if file.stat().st_size else Claim.MINE",
        "return Claim.DONE",
        "unit/lustre/test_claims.py::test_what_somebody_has_begun_and_not_done_can_be_had_again",
    ),
    Defence(
        "there are only so many claims",
        "a thousand OSTs that fail at once are not a thousand mails",
        "lustre/claims.py",
        "if len(os.listdir(place)) > most:",
        "if most < 0:",
        "unit/lustre/test_claims.py::test_of_many_processes_no_more_than_allowed_get_theirs",
    ),
    Defence(
        "a private directory is one's own",
        "in a directory for everybody nobody prepares a place for us",
        "lustre/mail.py",
        "if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:",
        "if not stat.S_ISDIR(status.st_mode):",
        "unit/lustre/test_mail.py::test_a_spool_that_others_may_write_into_is_refused",
    ),
    Defence(
        "a mail has a name of its own",
        "who gets it twice sees it once",
        "lustre/mail.py",
        'name = f"<{_hash(key)}@{domain}>"',
        'name = f"<{os.urandom(8).hex()}@{domain}>"',
        "unit/lustre/test_mail.py::test_mails_of_one_key_are_one_mail_to_those_who_receive_them",
    ),
    Defence(
        "a password never travels in clear",
        "without TLS nobody logs in",
        "lustre/mail.py",
        'if credentials_file and security == "none":',
        "if credentials_file and not security:",
        "unit/lustre/test_mail.py::test_a_password_never_travels_in_clear",
    ),
    Defence(
        "a mail server proves who it is",
        "a certificate that nobody vouches for gets no mail",
        "lustre/mail.py",
        "return ssl.create_default_context(cafile=self.ca_file or None)",
        "return ssl._create_unverified_context(cafile=self.ca_file or None)",
        "unit/lustre/test_mail.py::test_a_server_that_cannot_prove_who_it_is_gets_no_mail",
    ),
]

#: The fastest ones, which `bin/test` takes out for real.
QUICKEST = (
    "no section leaks into others",
    "the log cannot be filled by strangers",
    "a claim is done in two steps",
)


def copied(to: Path) -> Path:
    """A copy of the checkout, for one mutation at a time; without what was built, and what begins with a dot."""
    return Path(
        shutil.copytree(
            ROOT, to / "checkout", ignore=shutil.ignore_patterns(".*", "__pycache__", "dist", "build")
        )
    )


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Run tests of the copy against it. Returns the exit code, None if they took too long, and what was said."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    command += ["--timeout", str(TEST_S), *(f"tests/{test}" for test in tests)]
    with subprocess.Popen(
        command, cwd=copy, env=_environment(copy), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=_PROCESS_S + TEST_S * (len(tests) - 1))
            return process.returncode, said
        except subprocess.TimeoutExpired:
            return None, "it took too long"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def take_out(defence: Defence, copy: Path) -> Verdict:
    """What the test says of the copy without the defence, which is put back afterwards."""
    file = copy / "cyclone" / defence.file
    source = file.read_text(encoding="utf-8")
    found = source.count(defence.right)
    if found != 1:
        return Verdict(False, f"{defence.file} holds {found} times what is to be replaced, expected once")
    file.write_text(source.replace(defence.right, defence.wrong), encoding="utf-8")
    try:
        code, said = run_tests(copy, [defence.test])
    finally:
        file.write_text(source, encoding="utf-8")
    if code == _FAILED:
        # What is raised and not caught stands behind an E; the first is what came about first.
        errors = [line[1:].strip() for line in said.splitlines() if line.startswith("E ")]
        return Verdict(True, errors[0] if errors else said[-1500:])
    if code == _PASSED:
        return Verdict(False, "the test passes without it")
    return Verdict(False, f"the test could not be run (exit code {code}): {said[-1500:]}")


def _environment(copy: Path) -> dict[str, str]:
    # Before the checkout that is installed; also for daemons and whatever else the tests start.
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def _expect_the_copy(copy: Path) -> None:
    """Raises RuntimeError when it is not the copy that programs of ours import."""
    asked = [sys.executable, "-P", "-c", "import cyclone; print(cyclone.__file__)"]
    found = subprocess.run(
        asked, env=_environment(copy), capture_output=True, text=True, check=True
    ).stdout.strip()
    if Path(found) != copy / "cyclone" / "__init__.py":
        raise RuntimeError(f"found {found}, expected the package in {copy}")


def main(arguments: Sequence[str]) -> int:
    """Take out one after the other, and tell what was noticed."""
    word = arguments[0] if arguments else ""
    chosen = [
        each
        for each in DEFENCES
        if any(word in text for text in (each.name, each.point, each.file, each.test))
    ]
    if not chosen:
        print(f"no defence has the word {word!r}", file=sys.stderr)
        return 2
    # A defence against orphans that is taken out leaves some.
    adopt_orphans()
    unnoticed = 0
    with TemporaryDirectory(prefix="cyclone-defences-") as directory:
        copy = copied(Path(directory))
        _expect_the_copy(copy)
        code, said = run_tests(copy, sorted({each.test for each in chosen}))
        slay_descendants(_BURIAL_S)
        if code != _PASSED:
            print(f"with all defences in place, these tests must pass:\n{said}", file=sys.stderr)
            return 2
        for defence in chosen:
            is_noticed, reason = take_out(defence, copy)
            slay_descendants(_BURIAL_S)
            unnoticed += not is_noticed
            print(f"{defence.name}: {'noticed' if is_noticed else 'NOT NOTICED'}, {reason}", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
