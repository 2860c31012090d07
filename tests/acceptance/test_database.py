"""Records on their way into a real MariaDB, which is stopped, frozen, filled up and set wrong meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mysql.connector
import pytest
from acceptance.cluster import TESTS, wait_for
from msgspec.structs import replace
from servers import MariaDb

from cyclone.lustre.records import OstPerformance
from cyclone.messages import Entry
from cyclone.record import encode, uid
from cyclone.sinks.batch import BatchRule, Health
from cyclone.sinks.dead_letters import DeadLetters
from cyclone.sinks.dialects.mysql import Mysql, MysqlSettings
from cyclone.sinks.kinds import load_kinds
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import Database, DatabaseFailure, Failure, print_sql, row_of, table_of
from cyclone.sinks.writer import Writer

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TABLE = table_of(OstPerformance)
KINDS = {"ost_perf": OstPerformance}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """One server for all tests: as it is set up when each of them begins."""
    with MariaDb(tmp_path_factory.mktemp("db") / "maria") as server:
        yield server


@pytest.fixture
def maria(server: MariaDb) -> Iterator[MariaDb]:
    """The server with an empty table; however a test leaves it, the next one finds it in good order."""
    server.ask("DROP TABLE IF EXISTS ost_perf_history")
    server.ask(print_sql(dialect(server), [OstPerformance]).rstrip(";\n"))
    yield server
    server.stop()
    server.start(max_connections=50)
    server.ask(f"ALTER USER {server.user}@'127.0.0.1' IDENTIFIED BY '{server.password}'")


def settings(server: MariaDb, **other: Any) -> MysqlSettings:
    return MysqlSettings(
        **{
            "database": server.database, "user": server.user, "password": server.password,
            "host": server.host, "port": server.port, "ssl": "disabled", **other,
        }
    )  # fmt: skip


def dialect(server: MariaDb, **other: Any) -> Mysql:
    return Mysql(settings(server, **other), {})


def entry(number: int, **values: Any) -> Entry:
    fields = {
        "fs": "lustre", "ost": number % 1000, "state": "OK", "size": 1 << 30, "write_timestamp": NOON,
        "read_timestamp": NOON + timedelta(seconds=1.5), "write_throughput": 1_000_000_000 + number,
        "read_throughput": 2_000_000_000, "write_duration": 1.073741824, "read_duration": 0.536870912,
        "host": "node0001.example.org", "read_mode": "direct", **values,
    }  # fmt: skip
    return Entry(
        uid(7, "watch", number), "database", "ost_perf", "watch", f"ost-{number}@2026-11-20T12:00", NOON.timestamp(),
        encode(OstPerformance, fields),
    )  # fmt: skip


class Site:
    """A spool and a writer in front of the server."""

    def __init__(self, directory: Path, maria: MariaDb) -> None:
        self.directory = directory
        self.maria = maria
        self.spool = Spool(directory / "spool")
        self.dead = directory / "dead.jsonl"
        self.writers: list[Writer] = []

    def writer(self, **other: Any) -> Writer:
        writer = Writer(
            self.spool,
            "database",
            KINDS,
            dialect(self.maria, **other),
            DeadLetters(self.dead),
            BatchRule(1000, 0.2),
        )
        self.writers.append(writer)
        writer.start()
        return writer

    def stop(self) -> None:
        for writer in self.writers:
            assert writer.stop(60.0)
        self.spool.close()

    def rows(self) -> int:
        [(rows,)] = self.maria.ask("SELECT count(*) FROM ost_perf_history")
        return int(rows)

    def buried(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.dead.read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path, maria: MariaDb) -> Iterator[Site]:
    site = Site(tmp_path, maria)
    yield site
    maria.thaw()
    site.stop()


def fails_with(writer: Writer, number: int, health: Health) -> None:
    """Wait until the writer is in this health for an error of this number."""
    wait_for(
        f"error {number}",
        lambda: writer.figures.health is health and writer.figures.reason.find(str(number)) >= 0,
    )


# Tables.


def test_a_row_reads_as_it_was_recorded(maria: MariaDb) -> None:
    berlin = timezone(timedelta(hours=1))
    sent = entry(
        3, write_timestamp=datetime(2026, 11, 20, 13, 0, 0, 123999, berlin), read_timestamp=None, read_throughput=None,
        write_duration=0.1, error="can't: \\ \0 \U0001f300 \"%s\"",
    )  # fmt: skip

    with closing(Database(dialect(maria))) as database:
        assert database.insert(TABLE, [row_of(OstPerformance, sent)]) == 1

    [row] = maria.ask("SELECT * FROM ost_perf_history")
    assert row == (
        1, sent.uid, datetime(2026, 11, 20, 12), "watch", sent.tid, "lustre", 3, "OK", 1 << 30,  # noqa: DTZ001
        datetime(2026, 11, 20, 12, 0, 0, 123000), None, 1_000_000_003, None, 0.1, 0.536870912,  # noqa: DTZ001
        "node0001.example.org", "can't: \\ \0 \U0001f300 \"%s\"", "direct",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["", "TRADITIONAL,ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ORACLE"])
def test_tables_are_created_twice_and_filled_however_the_server_is_set(server: MariaDb, mode: str) -> None:
    kinds = load_kinds()
    table = table_of(kinds["ost_perf"])
    text = "\\'; DROP TABLE ost_perf_history; -- \" \\"
    with ExitStack() as stack:
        stack.callback(server.ask, f"SET GLOBAL sql_mode = '{server.ask('SELECT @@global.sql_mode')[0][0]}'")
        for kind in kinds.values():
            server.ask(f"DROP TABLE IF EXISTS {table_of(kind).name}")
            stack.callback(server.ask, f"DROP TABLE {table_of(kind).name}")
        server.ask(f"SET GLOBAL sql_mode = '{mode}'")
        database = stack.enter_context(closing(Database(dialect(server))))

        assert database.create_tables(kinds.values()) == ""
        assert database.create_tables(kinds.values()) == ""
        assert database.insert(table, [row_of(OstPerformance, entry(1, error=text))]) == 1

        assert server.ask("SELECT error FROM ost_perf_history") == [(text,)]


def test_a_table_that_is_not_as_expected_is_told_by_its_differences(maria: MariaDb) -> None:
    maria.ask(
        "ALTER TABLE ost_perf_history MODIFY ost INT UNSIGNED NOT NULL, DROP COLUMN host, "
        "MODIFY error TEXT CHARACTER SET latin1, DROP INDEX uk_uid, "
        "ADD COLUMN wanted INT NOT NULL, ADD COLUMN spare INT, ADD COLUMN given INT NOT NULL DEFAULT 5"
    )

    with closing(Database(dialect(maria))) as database:
        assert database.create_tables([OstPerformance]) == (
            "table ost_perf_history\n"
            "- column ost int unsigned not null\n"
            "+ column ost bigint unsigned not null\n"
            "+ column host varchar(255) character set utf8mb4 not null\n"
            "- column error text character set latin1\n"
            "+ column error varchar(1024) character set utf8mb4\n"
            "+ unique (uid)\n"
            "- column wanted int not null\n"
        )


def test_a_server_that_sets_up_connections_in_its_own_way_does_not_get_at_ours(maria: MariaDb) -> None:
    maria.ask("SET GLOBAL init_connect = \"SET sql_mode='NO_BACKSLASH_ESCAPES', time_zone='+05:00'\"")
    sent = entry(1, error="\\'), (1")

    with closing(Database(dialect(maria))) as database:
        database.insert(TABLE, [row_of(OstPerformance, sent)])

    assert maria.ask("SELECT error, recorded_at FROM ost_perf_history") == [
        ("\\'), (1", datetime(2026, 11, 20, 12))  # noqa: DTZ001
    ]


@pytest.mark.parametrize(
    "text",
    [
        "'); DROP TABLE ost_perf_history; --",
        "\\'); DELETE FROM ost_perf_history; --",
        "%s%(x)s ?",
        "\0\x1a\n\r\"'`",
    ],
)
def test_text_is_stored_and_never_executed(maria: MariaDb, text: str) -> None:
    sent = replace(entry(1, error=text, host=text), job=text, tid=text)

    with closing(Database(dialect(maria))) as database:
        database.insert(TABLE, [row_of(OstPerformance, sent), row_of(OstPerformance, entry(2))])

    assert maria.ask("SELECT job, tid, host, error FROM ost_perf_history WHERE ost = 1") == [(text,) * 4]
    assert maria.ask("SELECT count(*) FROM ost_perf_history") == [(2,)]


def test_duplicates_are_counted_and_not_stored(site: Site) -> None:
    site.spool.append([entry(number) for number in range(1000)])
    writer = site.writer()
    wait_for("the first", lambda: writer.figures.stored == 1000)

    site.spool.append([entry(number) for number in range(500, 1500)])
    writer.flush()

    wait_for("the second", lambda: writer.figures.duplicates == 500)
    assert writer.figures.stored == 1500
    assert site.rows() == 1500


def test_a_row_that_another_unique_key_has_already_goes_to_the_dead_letters(site: Site) -> None:
    site.maria.ask("ALTER TABLE ost_perf_history ADD UNIQUE (ost)")
    site.spool.append([entry(number) for number in (1, 2, 1001, 3)])

    writer = site.writer()

    wait_for("the verdict", lambda: writer.figures.stored + writer.figures.dead_letters == 4)
    assert site.maria.ask("SELECT ost FROM ost_perf_history ORDER BY ost") == [(1,), (2,), (3,)]
    assert [letter["tid"] for letter in site.buried()] == [entry(1001).tid]
    assert "1048" in site.buried()[0]["reason"]
    site.spool.append([entry(number) for number in (1, 2, 4)])
    writer.flush()
    wait_for("the rest", lambda: writer.figures.stored == 4)
    assert (writer.figures.duplicates, writer.figures.dead_letters) == (2, 1)


def test_rows_that_are_refused_cost_no_connections(site: Site) -> None:
    site.maria.ask("ALTER TABLE ost_perf_history ADD CHECK (ost % 2 = 0)")
    site.spool.append([entry(number) for number in range(300)])
    before = connections(site.maria)

    writer = site.writer()

    wait_for("the verdict", lambda: writer.figures.stored + writer.figures.dead_letters == 300)
    # Those who ask are counted as well.
    assert connections(site.maria) - before <= 3
    assert site.rows() == writer.figures.dead_letters == 150


def connections(maria: MariaDb) -> int:
    [(_, count)] = maria.ask("SHOW GLOBAL STATUS LIKE 'Connections'")
    return int(count)


def test_a_local_account_gets_in_by_the_socket(maria: MariaDb) -> None:
    assert len(str(maria.socket)) < 108
    maria.ask("CREATE USER IF NOT EXISTS cyclone@localhost IDENTIFIED BY 'local'")
    maria.ask("GRANT ALL ON cyclone.* TO cyclone@localhost")

    with closing(Database(dialect(maria, unix_socket=str(maria.socket), password="local"))) as database:
        assert database.insert(TABLE, [row_of(OstPerformance, entry(1))]) == 1


def test_a_password_may_change_while_the_writer_runs(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    file.chmod(0o600)
    writer = site.writer(password="", password_file=str(file))
    site.spool.append([entry(1)])
    writer.flush()
    fails_with(writer, 1045, Health.FAILED)

    file.write_text(f"{site.maria.password}\n")
    writer.flush()

    wait_for("the row", lambda: writer.figures.stored == 1)


# Outages.


def test_a_server_that_is_stopped_and_started_while_rows_pass_gets_each_of_them_once(site: Site) -> None:
    writer, batch = site.writer(), 500
    for first in range(0, 20_000, batch):
        site.spool.append([entry(number) for number in range(first, first + batch)])
        writer.wake()
        if first in (4000, 8000, 12_000):
            wait_for("rows on their way", lambda: writer.figures.stored > 0)
            (site.maria.kill if first == 8000 else site.maria.stop)()
        if first in (6000, 10_000, 14_000):
            wait_for(
                "the outage was noticed", lambda: writer.flush() or writer.figures.health is Health.RETRYING
            )
            site.maria.start()

    wait_for("all rows", lambda: writer.flush() or not site.spool.fill(), 60)

    assert site.rows() == 20_000
    wait_for("health", lambda: writer.figures.health is Health.OK)
    assert writer.figures.dead_letters == 0
    assert not site.dead.read_text()


def test_a_frozen_server_is_left_after_the_time_out_and_gets_no_row_twice(site: Site) -> None:
    site.spool.append([entry(number) for number in range(5000)])
    writer = site.writer(read_timeout_s=1, write_timeout_s=1, connect_timeout_s=1)
    wait_for("rows on their way", lambda: writer.figures.stored > 0)

    site.maria.freeze()
    site.spool.append([entry(number) for number in range(5000, 10_000)])
    writer.flush()
    wait_for("the time-out", lambda: writer.figures.health is Health.RETRYING)
    assert site.spool.fill()["database"].entries > 0
    site.maria.thaw()
    writer.flush()

    wait_for("all rows", lambda: writer.flush() or not site.spool.fill(), 60)
    assert site.rows() == 10_000
    assert writer.figures.stored + writer.figures.duplicates == 10_000


def test_an_insert_whose_answer_came_too_late_is_not_repeated(maria: MariaDb) -> None:
    """What is asked may be done though nobody heard of it."""
    lock = connect(maria)
    cursor = lock.cursor()
    cursor.execute("LOCK TABLES ost_perf_history READ")
    database = Database(dialect(maria, read_timeout_s=1))
    rows = [row_of(OstPerformance, entry(number)) for number in range(10)]
    with pytest.raises(DatabaseFailure) as raised:
        database.insert(TABLE, rows)
    assert raised.value.failure is Failure.TRANSIENT
    cursor.execute("UNLOCK TABLES")
    lock.close()

    assert 0 <= database.insert(TABLE, rows) <= 10

    assert maria.ask("SELECT count(*) FROM ost_perf_history") == [(10,)]
    database.close()


def test_a_read_only_server_passes(site: Site) -> None:
    site.maria.ask("SET GLOBAL read_only = 1")
    site.spool.append([entry(1)])
    writer = site.writer()
    fails_with(writer, 1290, Health.RETRYING)

    site.maria.ask("SET GLOBAL read_only = 0")
    writer.flush()

    wait_for("the row", lambda: writer.figures.stored == 1)


def test_a_server_with_too_many_connections_passes(site: Site) -> None:
    site.maria.ask("SET GLOBAL max_connections = 10")
    with ExitStack() as others:
        for _ in range(10):
            others.enter_context(closing(connect(site.maria)))
        site.spool.append([entry(1)])
        writer = site.writer()
        fails_with(writer, 1040, Health.RETRYING)

    wait_for("the row", lambda: writer.flush() or writer.figures.stored == 1)


def test_a_connection_that_was_killed_is_made_anew(site: Site) -> None:
    writer = site.writer()
    site.spool.append([entry(1)])
    writer.flush()
    wait_for("the first row", lambda: writer.figures.stored == 1)
    [(number,)] = site.maria.ask("SELECT id FROM information_schema.processlist WHERE user = 'cyclone'")
    site.maria.ask(f"KILL {number}")

    site.spool.append([entry(2)])

    wait_for("the second row", lambda: writer.flush() or writer.figures.stored == 2)
    assert site.rows() == 2


def test_a_connection_that_the_server_finds_idle_is_made_anew_without_a_failure(maria: MariaDb) -> None:
    maria.ask("SET GLOBAL wait_timeout = 2")
    now = time.monotonic()
    database = Database(dialect(maria), lambda: now)
    database.insert(TABLE, [row_of(OstPerformance, entry(1))])
    first = maria.ask("SELECT id FROM information_schema.processlist WHERE user = 'cyclone'")
    now += 1.1

    assert database.insert(TABLE, [row_of(OstPerformance, entry(2))]) == 1

    assert maria.ask("SELECT max(id) FROM information_schema.processlist WHERE user = 'cyclone'") != first
    database.close()
    maria.ask("SET GLOBAL wait_timeout = 28800")


# What somebody has to mend.


def test_a_wrong_password_keeps_everything_and_is_loud(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.spool.append([entry(1)])
    writer = site.writer(password="wrong")

    fails_with(writer, 1045, Health.FAILED)

    assert site.spool.fill()["database"].entries == 1
    [told] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "entries are kept until somebody mends it" in told.getMessage()
    site.maria.ask("ALTER USER cyclone@'127.0.0.1' IDENTIFIED BY 'wrong'")
    writer.flush()
    wait_for("the row", lambda: writer.figures.stored == 1)


@pytest.mark.parametrize(
    ("breaking", "number", "mending"),
    [
        ("RENAME TABLE ost_perf_history TO elsewhere", 1146, "RENAME TABLE elsewhere TO ost_perf_history"),
        (
            "ALTER TABLE ost_perf_history CHANGE host gone VARCHAR(255) NOT NULL",
            1054,
            "ALTER TABLE ost_perf_history CHANGE gone host VARCHAR(255) NOT NULL",
        ),
        ("ALTER TABLE ost_perf_history ADD wanted INT NOT NULL", 1364, "ALTER TABLE ost_perf_history DROP wanted"),
        (
            "REVOKE INSERT, UPDATE ON cyclone.* FROM cyclone@'127.0.0.1'",
            1142,
            "GRANT ALL ON cyclone.* TO cyclone@'127.0.0.1'",
        ),
    ],
)  # fmt: skip
def test_a_table_that_is_not_as_it_must_be_holds_its_rows(
    site: Site, breaking: str, number: int, mending: str
) -> None:
    site.maria.ask(breaking)
    site.spool.append([entry(number) for number in range(100)])
    writer = site.writer()
    fails_with(writer, number, Health.FAILED)
    assert site.spool.fill()["database"].entries == 100

    site.maria.ask(mending)
    writer.flush()

    wait_for("the rows", lambda: writer.figures.stored == 100)
    wait_for("health", lambda: writer.figures.health is Health.OK)
    assert not site.dead.read_text()


@pytest.mark.parametrize(
    ("other", "number"),
    [({"database": "nowhere"}, 1044), ({"user": "root", "password": "", "database": "nowhere"}, 1049)],
)
def test_a_database_that_is_not_there_is_for_somebody_to_mend(
    maria: MariaDb, other: dict[str, Any], number: int
) -> None:
    with pytest.raises(DatabaseFailure, match=str(number)) as raised:
        Database(dialect(maria, **other)).open()

    assert raised.value.failure is Failure.CONFIGURATION


def test_a_collation_that_is_none_is_for_somebody_to_mend(maria: MariaDb) -> None:
    with pytest.raises(DatabaseFailure, match="nope") as raised:
        Database(dialect(maria, collation="nope")).open()

    assert raised.value.failure is Failure.CONFIGURATION


@pytest.mark.parametrize("other", [{"ssl": "required"}, {"ssl_ca": "/no/such/file"}])
def test_a_server_without_tls_is_refused_where_it_is_required(maria: MariaDb, other: dict[str, Any]) -> None:
    with pytest.raises(DatabaseFailure) as raised:
        Database(dialect(maria, **{"ssl": "preferred", **other})).open()

    assert raised.value.failure is Failure.CONFIGURATION


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for the loopback that vouches for itself, and its key."""
    pem, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-out", pem, "-keyout", key,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return pem, key


def test_a_server_with_tls_is_used_if_its_certificate_is_the_right_one(
    tmp_path: Path, maria: MariaDb
) -> None:
    theirs, key = certificate(tmp_path, "theirs")
    other, _ = certificate(tmp_path, "other")
    maria.stop()
    maria.start(ssl_cert=theirs, ssl_key=key)

    with closing(Database(dialect(maria, ssl="required", ssl_ca=str(theirs)))) as database:
        assert database.insert(TABLE, [row_of(OstPerformance, entry(1))]) == 1
    with closing(Database(dialect(maria, ssl="required"))) as database:
        assert database.insert(TABLE, [row_of(OstPerformance, entry(2))]) == 1
    with pytest.raises(DatabaseFailure) as raised:
        Database(dialect(maria, ssl="required", ssl_ca=str(other))).open()

    assert raised.value.failure is Failure.CONFIGURATION


def test_a_server_that_asks_for_a_certificate_gets_ours(tmp_path: Path, maria: MariaDb) -> None:
    theirs, key = certificate(tmp_path, "theirs")
    ours, our_key = certificate(tmp_path, "ours")
    maria.stop()
    maria.start(ssl_cert=theirs, ssl_key=key, ssl_ca=ours)
    maria.ask(f"ALTER USER {maria.user}@'127.0.0.1' REQUIRE X509")
    try:
        with pytest.raises(DatabaseFailure, match="1045"):
            Database(dialect(maria, ssl="required")).open()

        with closing(
            Database(dialect(maria, ssl="required", ssl_cert=str(ours), ssl_key=str(our_key)))
        ) as database:
            assert database.insert(TABLE, [row_of(OstPerformance, entry(1))]) == 1
    finally:
        maria.ask(f"ALTER USER {maria.user}@'127.0.0.1' REQUIRE NONE")


def test_nobody_who_listens_is_for_waiting(maria: MariaDb) -> None:
    maria.stop()

    with pytest.raises(DatabaseFailure, match="2003") as raised:
        Database(dialect(maria)).open()

    assert raised.value.failure is Failure.TRANSIENT


# Rows that are refused.


def test_rows_that_do_not_fit_are_found_among_the_good_ones(site: Site) -> None:
    site.maria.ask(
        "ALTER TABLE ost_perf_history MODIFY state VARCHAR(9) NOT NULL, MODIFY ost SMALLINT NOT NULL"
    )
    bad = {7: {"state": "DISPLACED!"}, 400: {"ost": 40_000}, 999: {"state": "x" * 16}}
    site.spool.append([entry(number, **bad.get(number, {})) for number in range(2000)])

    writer = site.writer()

    wait_for("all", lambda: not site.spool.fill())
    assert site.rows() == 1997
    assert [(each["tid"].partition("@")[0], each["reason"][:15]) for each in site.buried()] == [
        ("ost-7", "DataError: 1406"), ("ost-400", "DataError: 1264"), ("ost-999", "DataError: 1406")
    ]  # fmt: skip
    assert (writer.figures.stored, writer.figures.dead_letters) == (1997, 3)
    assert writer.figures.health is Health.OK


def test_a_row_that_is_larger_than_a_packet_may_be_does_not_hold_up_the_others(site: Site) -> None:
    site.maria.ask("ALTER TABLE ost_perf_history MODIFY error TEXT")
    site.maria.ask("SET GLOBAL max_allowed_packet = 4096")
    site.spool.append([entry(number, error="'" * (1024 if number == 5 else 3)) for number in range(10)])
    with closing(connect(site.maria)) as connection:
        assert connection is not None

    writer = site.writer()

    wait_for("all", lambda: not site.spool.fill())
    site.maria.ask("SET GLOBAL max_allowed_packet = 16777216")
    assert site.rows() + writer.figures.dead_letters == 10


# The process.


def test_a_writer_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, maria: MariaDb
) -> None:
    site = Site(tmp_path, maria)
    site.spool.append([entry(number) for number in range(20_000)])
    site.stop()
    dice = random.Random(3)
    script = (
        "import sys; from pathlib import Path; import acceptance.test_database as t\n"
        "from servers import MariaDb; m = MariaDb(Path(sys.argv[1])); m.port = int(sys.argv[2])\n"
        "writer = t.Site(Path(sys.argv[1]), m).writer(); print('up', flush=True)\n"
        "import time; time.sleep(60)"
    )

    def is_over() -> bool:
        with closing(Spool(tmp_path / "spool")) as spool:
            return not spool.fill()

    kills = 0
    while not is_over():
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(maria.port)],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"up\n"
            # Longer each time, so that there is an end of it on a busy machine too.
            time.sleep(dice.uniform(0.0, 0.1 * (kills + 1)))
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -9
        kills += 1

    assert kills > 1
    assert site.rows() == 20_000


def connect(maria: MariaDb) -> Any:
    return mysql.connector.connect(
        host=maria.host, port=maria.port, user=maria.user, password=maria.password, database=maria.database,
        use_pure=True,
    )  # fmt: skip


#: As the proxy of Cyclone 2.x made it.
TABLE_OF_2 = """CREATE TABLE old_history (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  read_timestamp TIMESTAMP NOT NULL DEFAULT '0000-00-00 00:00:00',
  write_timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  ost CHAR(7) NOT NULL, size BIGINT UNSIGNED, read_throughput BIGINT, write_throughput BIGINT,
  read_duration INT, write_duration INT) ENGINE=MyISAM DEFAULT CHARSET=latin1"""

ROWS_OF_2 = [
    (1, "2026-11-20 13:00:04", "2026-11-20 13:00:00", "OST000a", 1_000_000, 250_000, 500_000, 4, 2),
    (2, "0000-00-00 00:00:00", "2026-11-20 13:01:00", "OST000b", 1_000_000, 0, 0, 0, 0),
    (3, "0000-00-00 00:00:00", "2026-11-20 13:02:00", "OST00ff", 1_000_000, -1, 500_000, -1, 2),
    (4, "0000-00-00 00:00:00", "2026-11-20 13:03:00", "OST0000", 1_000_000, -1, -1, -1, -1),
    (5, "2026-11-20 13:00:04", "2026-11-20 13:00:00", "'; DROP", 1, 1, 1, 1, 1),
    (25_001, "2026-11-20 13:00:04", "2026-11-20 13:00:00", "OST0001", 8, 8, 8, 1, 1),
]


def proxy(directory: Path, maria: MariaDb, option: str, **legacy: str) -> subprocess.CompletedProcess[str]:
    """What `cyclone-database-proxy` says when it is asked for one thing."""
    lines = [
        "[db]", f"host = {maria.host}", f"port = {maria.port}", f"database = {maria.database}",
        f"user = {maria.user}", f"password = {maria.password}",
        "[legacy]", "fs = hebe", *(f"{key} = {value}" for key, value in legacy.items()),
    ]  # fmt: skip
    (directory / "proxy.conf").touch(0o600)
    (directory / "proxy.conf").write_text("\n".join(lines) + "\n")
    program = Path(sys.executable).parent / "cyclone-database-proxy"
    return subprocess.run(
        [program, "-f", directory / "proxy.conf", option],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def old_table(maria: MariaDb) -> Iterator[str]:
    with connect(maria) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SET sql_mode = '', time_zone = '+01:00'")
        cursor.execute("DROP TABLE IF EXISTS old_history")
        cursor.execute(TABLE_OF_2)
        places = ", ".join(["%s"] * 9)
        cursor.executemany(f"INSERT INTO old_history VALUES ({places})", ROWS_OF_2)
        connection.commit()
    yield "old_history"
    maria.ask("DROP TABLE old_history")


def test_the_table_of_2_is_copied_once_however_often(maria: MariaDb, old_table: str, tmp_path: Path) -> None:
    first = proxy(tmp_path, maria, "--import-table", table=old_table)
    again = proxy(tmp_path, maria, "--import-table", table=old_table)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert first.stdout.startswith("5 rows of old_history copied to ost_perf_history, 1 left out"), (
        first.stdout
    )
    assert again.stdout.startswith("0 rows of old_history copied")
    noon = NOON.replace(tzinfo=None)
    assert maria.ask(
        """SELECT fs, ost, state, size, write_timestamp, read_timestamp, write_throughput, read_throughput,
        write_duration, read_duration, recorded_at, job, tid, host FROM ost_perf_history ORDER BY recorded_at, ost"""
    ) == [
        ("hebe", 1, "OK", 8, noon, noon + timedelta(seconds=4), 8, 8, 1.0, 1.0, noon, "legacy", "ost-1", ""),
        ("hebe", 10, "OK", 1_000_000, noon, noon + timedelta(seconds=4), 500_000, 250_000, 2.0, 4.0, noon, "legacy",
         "ost-10", ""),
        ("hebe", 11, "DOWN", 1_000_000, noon + timedelta(minutes=1), None, None, None, None, None,
         noon + timedelta(minutes=1), "legacy", "ost-11", ""),
        ("hebe", 255, "READ_FAILED", 1_000_000, noon + timedelta(minutes=2), None, 500_000, None, 2.0, None,
         noon + timedelta(minutes=2), "legacy", "ost-255", ""),
        ("hebe", 0, "WRITE_FAILED", 1_000_000, noon + timedelta(minutes=3), None, None, None, None, None,
         noon + timedelta(minutes=3), "legacy", "ost-0", ""),
    ]  # fmt: skip


def test_a_view_shows_records_as_the_table_of_2_did(maria: MariaDb, old_table: str, tmp_path: Path) -> None:
    proxy(tmp_path, maria, "--import-table", table=old_table)
    for _ in range(2):
        made = proxy(tmp_path, maria, "--create-table", view="shown")
        assert made.returncode == 0, made.stdout + made.stderr

    with connect(maria) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SET time_zone = '+01:00'")
        columns = "CAST(write_timestamp AS CHAR), ost, size, read_throughput, write_throughput, read_duration, write_duration"
        cursor.execute(f"SELECT {columns} FROM shown ORDER BY write_timestamp, ost")
        shown = cursor.fetchall()

    assert [(row[0][:19], *row[1:]) for row in shown] == [
        (row[2], *row[3:]) for row in sorted(ROWS_OF_2, key=lambda row: row[2:4]) if row[3] != "'; DROP"
    ]
    maria.ask("DROP VIEW shown")


def test_no_table_of_2_is_one_clear_line(maria: MariaDb, tmp_path: Path) -> None:
    none = proxy(tmp_path, maria, "--import-table")
    missing = proxy(tmp_path, maria, "--import-table", table="nowhere")

    assert none.returncode == missing.returncode == 3
    assert "[legacy] table" in none.stderr
    assert "nowhere" in missing.stderr
    assert missing.stderr.count("\n") == 1


def test_the_rows_of_some_keys_are_found_and_a_table_that_is_not_there_has_none(maria: MariaDb) -> None:
    table = table_of(OstPerformance)
    with closing(Database(dialect(maria))) as database:
        before = database.ask(lambda connection: connection.holds(table, [entry(0).uid]))
        database.create_tables([OstPerformance])
        database.insert(table, [row_of(OstPerformance, entry(number)) for number in range(0, 1000, 2)])

        found = database.ask(
            lambda connection: connection.holds(table, [entry(number).uid for number in range(500)])
        )

    assert before == {}
    assert found == {entry(number).uid: 1 for number in range(0, 500, 2)}
