"""Everything that reads bytes which somebody else has made, as one table.

A target is a function of bytes that may only raise what its readers promise to raise. Whatever else comes out of it is
a finding: an exception past a border, a broken invariant, a hang. The tests try each target for a moment; `fuzz.py`
tries one for as long as it is told to.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from core_builders import Master
from fuzz.mutation import packed

from cyclone.core import invariants
from cyclone.core.crew import Crew, worker_peer
from cyclone.daemons.answers import MasterFacts, answer
from cyclone.daemons.database_proxy import kinds_of
from cyclone.errors import ConfigError, CycloneError, KeyFileError, RecordError, TaskFileError, Undecodable
from cyclone.generators.benchmark import BenchmarkSettings
from cyclone.generators.checksum import ChecksumSettings
from cyclone.generators.task_list import TaskListSettings
from cyclone.ini import Ini
from cyclone.lustre import parsing
from cyclone.lustre.migration import journal
from cyclone.lustre.migration.index import Unreadable, index
from cyclone.lustre.migration.lines import Rules, read_record, trimmed
from cyclone.lustre.migration.list_sources import Trouble, from_lists, from_robinhood
from cyclone.lustre.migration.names import (
    RETRYABLE,
    ListFiles,
    fed_back,
    form_of,
    retryable_lists,
    taken_lists,
    waiting_lists,
)
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.monitoring_settings import MonitoringSettings
from cyclone.messages import (
    AskCluster,
    AskTask,
    AskTasks,
    Assignment,
    Close,
    Ended,
    Entry,
    Finished,
    FromClient,
    FromController,
    Message,
    Place,
    Results,
)
from cyclone.metrics.exposition import Exposition
from cyclone.metrics.legacy import LegacyChecks
from cyclone.metrics.series import CurrentSeries
from cyclone.model.changes import AttemptEnded, JobSealed, TaskEnded
from cyclone.model.peer import Peer
from cyclone.model.resources import shape
from cyclone.model.task import Policy
from cyclone.process.channel import Channel
from cyclone.record import decode
from cyclone.settings import ClientSettings, ControllerSettings, MasterSettings
from cyclone.sinks import legacy
from cyclone.sinks.dialects.sqlite import Sqlite
from cyclone.sinks.kinds import load_kinds
from cyclone.sinks.settings import DatabaseProxySettings, PushgatewayClientSettings
from cyclone.sinks.sql import Database, row_of, table_of
from cyclone.task_file import TaskFile
from cyclone.wire import codec, keys

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """Something that reads.

    read: must raise nothing but what is named in may_raise. separator: what the inputs that it takes are made of, to be
    cut and put together elsewhere.
    """

    name: str
    read: Callable[[bytes], None]
    may_raise: tuple[type[Exception], ...]

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    def seeds(self) -> list[bytes]:
        """What is known to be interesting, in the order of the names of the files."""
        return [file.read_bytes() for file in sorted(self.corpus.iterdir())]

    def try_one(self, data: bytes) -> bool:
        """Whether it could be read. Raises whatever must not come out."""
        try:
            self.read(data)
        except self.may_raise:
            return False
        return True


@cache
def _room() -> Path:
    """A directory in memory for readers of files; it goes away with the process."""
    place = tempfile.TemporaryDirectory(prefix="cyclone-fuzz-", dir="/dev/shm")
    _KEPT.append(place)
    return Path(place.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _written(name: str, data: bytes) -> Path:
    file = _room() / name
    file.write_bytes(data)
    return file


# The wire.

_frame_lists = msgspec.msgpack.Decoder(list[bytes])


def read_frame(data: bytes) -> None:
    """One byte for the decoder, then the frame of a message."""
    decoder = (codec.TO_MASTER, codec.TO_SINK, codec.FROM_SERVER)[data[0] % 3 if data else 0]
    envelope, parts = codec.unseal(memoryview(data)[1:])
    message, enclosure = decoder.decode(parts)
    # What was understood can be said again, and is understood in the same way.
    sealed = codec.seal(envelope.instance, envelope.life)
    again = codec.frame(sealed, message, enclosure)
    known, parts = codec.unseal(again)
    assert (known, codec.frame(sealed, *decoder.decode(parts))) == (envelope, again)


_said = msgspec.msgpack.Decoder(FromController | FromClient)
_rows = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw, float]])
_SPEAKERS = (Peer("node0", "1"), Peer("node1", "1"), Peer("client/0", "1"), Peer("other/1", "1"))
_FACTS = MasterFacts("3", 1, 1, "running", 1.0, "store", "tcp://127.0.0.1:5555")
_MESSAGES_MOST = 60
#: What is decided about longer lists is not told from these.
_LIST_MOST = 20_000


def read_conversation(data: bytes) -> None:
    """What controllers and clients say to a master, each in its role: nobody may change what is not theirs."""
    master = Master()
    placed: dict[int, str] = {}
    try:
        conversation = _rows.decode(data)
    except (ValueError, RecursionError, OverflowError, MemoryError):
        raise Undecodable("no conversation") from None
    for who, body, seconds in conversation[:_MESSAGES_MOST]:
        sender = _SPEAKERS[who % 4]
        try:
            message, _ = codec.TO_MASTER.decode([bytes(body)])
        except Undecodable:
            message = _with_enclosure(bytes(body))
            if message is None:
                continue
        if isinstance(message, FromController) != (who % 4 < 2) or len(bytes(body)) > _LIST_MOST:
            continue
        if isinstance(message, AskCluster | AskTasks | AskTask):
            _say(answer(message, master.mind, master.store, master.now, _FACTS))
            continue
        if type(message) not in master.mind._on and type(message).__name__ != "Submit":
            continue  # what the switchboard decides about
        clients = {number: job.client for number, job in master.mind.jobs.items()}
        changes = list(master.hear(sender, message).changes)
        for change in changes:
            match change:
                case AttemptEnded(end=end) | TaskEnded(end=msgspec.Struct(end=end)) if isinstance(
                    message, Ended
                ):
                    assert end is not None
                    assert placed[end.token] == sender.name, "an end of somebody else's"
                case JobSealed(number) if isinstance(message, Close):
                    assert clients.get(number) in (None, sender), "somebody else's job was closed"
        for letter in master.decision.letters:
            _say(letter.message)
        master.tick(seconds if 0 <= seconds <= 30 else 1.0)
        for letter in master.decision.letters:
            _say(letter.message)
        for peer, place in master.places:
            placed.update((each.token, peer.name) for each in place.assignments)
        master.places.clear()
    # What is remembered is enough to go on.
    master.start()
    master.tick(30.0)


def _say(message: Message) -> None:
    """Whoever hears what a master says understands it."""
    frames = [codec.encode(message)]
    if isinstance(message, Place | Results):
        many = message.assignments if isinstance(message, Place) else message.ends
        frames.append(packed([b""] * len(many)))
    codec.FROM_SERVER.decode(frames)


def _with_enclosure(body: bytes) -> Any:
    try:
        return _said.decode(body)
    except (ValueError, RecursionError, OverflowError, MemoryError):
        return None


# What is recorded.


@cache
def _kinds() -> dict[str, Any]:
    return load_kinds()


_ENTRIES_MOST = 10
_entries = msgspec.msgpack.Decoder(list[Entry])


@cache
def _database() -> Database:
    database = Database(Sqlite(_room() / "records.db"))
    database.create_tables(_kinds().values())
    return database


def read_entries(data: bytes) -> None:
    """What a controller delivers: it becomes rows and series, or is put aside."""
    kinds = _kinds()
    series = CurrentSeries(kinds.values(), stale_after_s=3600.0)
    try:
        entries = _entries.decode(data)
    except (ValueError, RecursionError, OverflowError, MemoryError):
        raise Undecodable("no entries") from None
    for entry in entries[:_ENTRIES_MOST]:
        kind = kinds.get(entry.kind)
        if kind is None:
            continue
        try:
            row = row_of(kind, entry)
            series.take(entry.uid, decode(kind, entry.body), entry.at, 1_760_000_000.0)
        except RecordError:
            continue
        _database().insert(table_of(kind), [row])
    exposition = Exposition()
    exposition.show("records", series.families())
    list(exposition.collect())


def read_record_of_each_kind(data: bytes) -> None:
    """The body of a record, as of each kind."""
    understood = False
    for kind in _kinds().values():
        try:
            record = decode(kind, data)
        except RecordError:
            continue
        understood = True
        assert decode(kind, msgspec.msgpack.encode(record)) == record
    if not understood:
        raise RecordError("no record of any kind")


def read_text_of_2(data: bytes) -> None:
    """What tasks of Cyclone 2.x push: to the database proxy, and to the Pushgateway client."""
    kinds = _kinds()
    checks = LegacyChecks(kinds)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    is_check = True
    try:
        record = checks.read(data, now)
        CurrentSeries([*kinds.values(), checks.kind], stale_after_s=60.0).take(None, record, 1.0, 2.0)
    except RecordError:
        is_check = False
    checks.end_interval()
    try:
        entry = legacy.entry(data, kinds[legacy.KIND], sink="database", fs="fs", zone=UTC, at=1e9, number=1)
    except RecordError:
        assert legacy.why_unread(data)
        legacy.unread(data, sink="database", at=1e9, number=1)
        if is_check:
            return
        raise
    row_of(kinds[legacy.KIND], entry)


# Files that people write.

_SETTINGS = (
    MasterSettings, ControllerSettings, DatabaseProxySettings, PushgatewayClientSettings, MonitoringSettings,
    MigrationSettings, BenchmarkSettings, ChecksumSettings, TaskListSettings,
)  # fmt: skip


def read_ini(data: bytes) -> None:
    """An ini file, as that of each daemon and generator."""
    file = _written("fuzz.conf", data)
    ini = Ini.read(file)
    understood = False
    for settings in _SETTINGS:
        try:
            found = settings.of(ini)
            settings.explain(ini)
        except ConfigError:
            continue
        understood = True
        if isinstance(found, DatabaseProxySettings) and not found.kind_modules:
            kinds_of(found)
    try:
        ClientSettings.read(file)
    except ConfigError:
        if not understood:
            raise


def read_task_file(data: bytes) -> None:
    """An XML task file, of which only classes of Cyclone are loaded."""
    found = TaskFile.read(_written("tasks.xml", data), packages=("cyclone",))
    for preset in found.presets.values():
        try:
            preset.arguments()
        except TaskFileError:
            continue


def read_key_file(data: bytes) -> None:
    """A key file in each of its places."""
    place = _room() / "keys"
    authorized = place / "authorized"
    authorized.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.chmod(0o700)
    understood = False
    for file, mode, read in (
        (place / "client.secret", 0o600, lambda: keys.load_pair(place, "client")),
        (place / "client.public", 0o644, lambda: keys.load_public(place, "client")),
        (authorized / "client.public", 0o644, lambda: keys.KeyRing(place)),
    ):
        file.write_bytes(data)
        file.chmod(mode)
        try:
            read()
            understood = True
        except KeyFileError:
            file.unlink()
    keys.listing(place)
    if not understood:
        raise KeyFileError("no key")


# Lists of files, and what is noted of them.

_LISTS = ("a.input", "b.input0", "c.input.gz", "d.input0.gz", "e.input.busy.2", "f.input0.gz.failed")
_RULES = Rules(b"/lustre")


def read_list(data: bytes) -> None:
    """One byte that chooses how a list is called, then what stands in it."""
    place = _room() / "lists"
    place.mkdir(exist_ok=True)
    name = _LISTS[data[0] % len(_LISTS) if data else 0]
    base = place / name
    base.write_bytes(data[1:])
    try:
        if name.endswith((".input", ".input0", ".gz")):
            files = ListFiles.new(base)
            found = index(files, _RULES)
            taken = 0
            for ost in list(found.lengths()):
                descriptor = os.open(found.content, os.O_RDONLY)
                try:
                    for _, offset in found.take(ost, 1000):
                        record = trimmed(read_record(descriptor, offset, files.separator), files.separator)
                        assert _RULES.parse(record)[0] == ost, "an entry is not where the index says"
                        taken += 1
                finally:
                    os.close(descriptor)
            assert taken == found.entries or found.entries > 1000, "entries are missing"
            assert index(files, _RULES).records == found.records, "the second reading found another index"
        trouble = Trouble()
        for each in itertools.islice(from_lists([base], (), trouble), 100_000):
            assert each.path.startswith(b"/")
    finally:
        for file in place.iterdir():
            file.unlink()


def read_names(data: bytes) -> None:
    """Names of files in a directory of lists, with slashes between them."""
    place = _room() / "names"
    place.mkdir(exist_ok=True)
    names = [each for each in data.split(b"/")[:20] if each not in (b"", b".", b"..") and b"\0" not in each]
    try:
        for name in names:
            Path(os.fsdecode(bytes(place) + b"/" + name[:200])).touch()
        waiting, false = waiting_lists(place)
        assert not false
        for file in waiting:
            files = ListFiles.new(file)
            assert files.separator in (b"\n", b"\0")
        for file in place.iterdir():
            form_of(file)
        taken_lists(place)
        for state in RETRYABLE:
            for file in retryable_lists(place, state):
                again = fed_back(file)
                assert not again.exists(), "a list that is there would be replaced"
                assert form_of(again).separator == form_of(file).separator
    finally:
        for file in place.iterdir():
            file.unlink()


def read_robinhood(data: bytes) -> None:
    """A report of Robinhood: with an OST that was asked for, and without."""
    for osts in ((), (3,), (1, 2)):
        trouble = Trouble()
        for found in from_robinhood(io.BytesIO(data), osts, trouble):
            assert found.path.startswith(b"/")
            assert not osts or found.ost in osts


def read_journal(data: bytes) -> None:
    """The journal of a list of 100 records, cut off as a crash leaves it."""
    file = _written("list.journal", data)
    journal.Journal.resume(file).close()
    assert file.read_bytes() == data[: data.rfind(b"\n") + 1]
    journal.read_head(file)
    past = journal.Past(100)
    finals: list[journal.Final] = []
    for line in journal.read_lines(file):
        past.add(line, finals.append, lambda _: None)
    assert len(finals) == past.finals.count == sum(past.results.values())
    assert not past.flights.keys() & {final.number for final in finals}
    journal.flights_of(file)


# What programs of Lustre print.

_PARSERS: tuple[Callable[[str], Any], ...] = (
    parsing.version,
    lambda text: parsing.osts(text, "", "lustre"),
    lambda text: parsing.osts("", text, "lustre"),
    parsing.usage,
    lambda text: parsing.connections(text, "lustre"),
    lambda text: parsing.deactivated(text, "lustre"),
    parsing.pool_members,
    parsing.file_system,
    lambda text: parsing.layout(text, "/lustre/file"),
    parsing.hsm_state,
    parsing.fid,
    parsing.mdt,
    parsing.told,
)


def read_lustre_output(data: bytes) -> None:
    """What `lfs` and `lctl` print, to each of those who read some of it."""
    text = data.decode("utf-8", "surrogateescape")
    understood = False
    for parse in _PARSERS:
        try:
            parse(text)
            understood = understood or parse is not parsing.told
        except ValueError:
            continue
    shown = parsing.shown(text)
    assert shown.isprintable() or "\n" not in shown
    shown.encode()
    if not understood:
        raise ValueError("nobody can make anything of it")


# Between a controller and its worker.

_SLOT = 0


def read_channel(data: bytes) -> None:
    """Bytes from a worker that has three attempts in hand: what it says goes to the crew."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    channel: Channel[Finished] = Channel(ours, Finished, blocking=False)
    try:
        crew = _crew()
        rest = memoryview(data)
        while rest and not channel.closed:
            rest = rest[theirs.send(rest) :]
            for message, enclosure in channel.receive():
                if len(message.ends) != len(enclosure) or not crew.may_tell(
                    _SLOT, message.ends, message.unbegun
                ):
                    raise Undecodable("not what the worker was given")
                crew.finished(_SLOT, message.ends, 2.0, message.unbegun)
                invariants.check_crew(crew)
                crew.tick(2.5)
    finally:
        channel.close()
        theirs.close()


def _crew() -> Crew:
    crew = Crew(
        1.0, workers=1, resources=shape({"cpus": 1}), host="node", pid=1, retry_wait_s=1.0, jitter=1.0
    )
    crew.connected(1.0)
    crew.tick(1.0)
    crew.born(_SLOT, 100)
    policy = Policy("jobs.Plain")
    crew.pace.learn(policy.kind, [0.0001] * 500)
    tasks = [Assignment(number, f"t{number}", "job", 1, 0) for number in (11, 12, 13)]
    crew.receive(Place(1.0, [policy], tasks), 1.0)
    crew.tick(1.0)
    assert worker_peer(_SLOT)
    return crew


#: By name. What each may raise is what the docstrings of its readers say.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("frame", read_frame, (Undecodable,)),
        Target("master", read_conversation, (Undecodable,)),
        Target("entries", read_entries, (Undecodable,)),
        Target("record", read_record_of_each_kind, (RecordError,)),
        Target("text-of-2", read_text_of_2, (RecordError,)),
        Target("ini", read_ini, (ConfigError,)),
        Target("task-file", read_task_file, (TaskFileError,)),
        Target("key-file", read_key_file, (KeyFileError,)),
        Target("list", read_list, (Unreadable, ConfigError)),
        Target("list-names", read_names, ()),
        Target("robinhood", read_robinhood, ()),
        Target("migration-journal", read_journal, (journal.JournalDamaged,)),
        Target("lustre-output", read_lustre_output, (ValueError,)),
        Target("channel", read_channel, (Undecodable,)),
    )
}


def corpus_files() -> list[tuple[Target, Path]]:
    """Every input that is kept, with what reads it."""
    return [(target, file) for target in TARGETS.values() for file in sorted(target.corpus.iterdir())]


assert all(
    issubclass(each, CycloneError | ValueError) for target in TARGETS.values() for each in target.may_raise
)
