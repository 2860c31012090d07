"""`cyclone-database-proxy`: stores what tasks record in MySQL, MariaDB, SQLite or text files."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cyclone.clock import monotonic
from cyclone.daemons.entry import Action, run_daemon
from cyclone.daemons.scraping import Scraping
from cyclone.daemons.sink import Sink, Standing
from cyclone.errors import EXIT_CONFIG, EXIT_OK, ConfigError, PluginError, RecordError
from cyclone.messages import Entry
from cyclone.plugins import not_installed
from cyclone.process.service_manager import ServiceManager
from cyclone.record import Record, table
from cyclone.sinks import legacy
from cyclone.sinks.batch import BatchRule
from cyclone.sinks.dead_letters import DeadLetters
from cyclone.sinks.dialects.csv_files import Csv
from cyclone.sinks.dialects.sqlite import Sqlite
from cyclone.sinks.inquiry import Answer, Inquiry
from cyclone.sinks.kinds import load_kinds, with_table
from cyclone.sinks.settings import DatabaseProxySettings
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import Database, Dialect, print_sql
from cyclone.sinks.writer import Writer
from cyclone.wire.complaints import Complaints

if TYPE_CHECKING:
    from cyclone.metrics.family import Family

#: Under which everything is in the spool of this daemon, whatever controllers call it.
NAME = "database"

#: When the daemon ends, so long may the database take for what is left; the rest stays in the spool.
LAST_S = 30.0

#: As much again for what was asked last.
LAST_ANSWER_S = 2.0


class Proxy:
    """A `Keeper`: records lie in the spool, and a thread moves them into the database."""

    def __init__(self, settings: DatabaseProxySettings) -> None:
        """Raises ConfigError, PluginError, StoreError."""
        self._settings = settings
        self._max_bytes = settings.spool_max_mb * 2**20
        self._received = 0
        # Of the next text. Those of former lives had others, for texts come in slower than one a nanosecond.
        self._text_number = time.time_ns()
        self._complaints = Complaints()
        # First what may be refused, and the spool after it, so that none is left behind then.
        self._kinds = kinds_of(settings)
        dialect = dialect_of(settings)
        rule = BatchRule(settings.store_max_count, settings.store_timeout_s)
        with contextlib.ExitStack() as opened:
            self._scraping = opened.enter_context(contextlib.closing(Scraping(settings)))
            dead_letters = DeadLetters(settings.dead_letters)
            self._spool = opened.enter_context(
                contextlib.closing(Spool(settings.spool_file, self._max_bytes))
            )
            self._writer = Writer(self._spool, NAME, self._kinds, dialect, dead_letters, rule)
            self._inquiry = Inquiry(self._spool, self._kinds.values(), dialect, settings.dead_letters)
            opened.pop_all()
        self._writer.start()

    def keep(self, entries: Sequence[Entry]) -> None:
        ours = [
            Entry(entry.uid, NAME, entry.kind, entry.job, entry.tid, entry.at, entry.body)
            for entry in entries
        ]
        self._spool.append(ours)
        self._received += len(ours)
        self._writer.wake()

    def keep_texts(self, texts: Sequence[bytes]) -> None:
        entries: list[Entry] = []
        kind, fs, at = self._kinds[legacy.KIND], self._settings.legacy_fs, time.time()
        for number, line in enumerate(texts, self._text_number):
            try:
                entries.append(legacy.entry(line, kind, sink=NAME, fs=fs, zone=None, at=at, number=number))
            except RecordError as error:
                # The writer puts it where people can look at it.
                entries.append(legacy.unread(line, sink=NAME, at=at, number=number))
                self._complaints.add("invalid text", "a task of Cyclone 2.x", str(error))
        self._spool.append(entries)
        self._text_number += len(texts)
        self._received += len(texts)
        self._writer.wake()

    def trace(self, uids: Sequence[bytes], answer: Answer) -> None:
        self._inquiry.ask(uids, answer)

    def tick(self) -> None:
        self._scraping.show(monotonic(), self._families)

    def flush(self) -> None:
        self._writer.flush()

    def standing(self) -> Standing:
        figures = self._writer.figures
        return Standing(figures.spool_entries, figures.reason, figures.dead_letters)

    def finish(self) -> None:
        self._writer.stop(LAST_S)
        self._inquiry.stop(LAST_ANSWER_S)
        self._scraping.close()
        self._spool.close()

    def _families(self) -> list[Family]:
        from cyclone.metrics.figures import DatabaseFigures
        from cyclone.metrics.own import database_families

        figures = self._writer.figures
        return database_families(
            DatabaseFigures(
                received=self._received,
                stored=figures.stored,
                duplicates=figures.duplicates,
                dead_letters=figures.dead_letters,
                unwritten=figures.unwritten,
                waiting=figures.spool_entries,
                waiting_bytes=figures.spool_bytes,
                waiting_oldest_s=max(0.0, time.time() - figures.oldest_at) if figures.oldest_at else 0.0,
                spool_max_bytes=self._max_bytes,
                last_success_at=figures.last_success,
                batch_s=figures.batch_s,
                trouble=figures.reason,
            )
        )


def kinds_of(settings: DatabaseProxySettings) -> dict[str, type[Record]]:
    """`{name: kind}` of all that this proxy stores. Raises PluginError, ConfigError."""
    kinds = load_kinds(settings.kind_modules, settings.kind_path, file=settings.ini_file)
    if settings.table:
        try:
            kinds[legacy.KIND] = with_table(kinds[legacy.KIND], settings.table)
        except PluginError:
            problem = f"found {settings.table!r}, expected letters, digits and underscores"
            raise ConfigError(problem, file=settings.ini_file, section="db", key="table") from None
        for name, kind in kinds.items():
            # SQLite and some servers do not tell capital letters from small ones in names.
            if name != legacy.KIND and table(kind).lower() == settings.table.lower():
                problem = (
                    f"found {settings.table!r}, which is the table of the kind {name!r}, expected another one"
                )
                raise ConfigError(problem, file=settings.ini_file, section="db", key="table")
    return kinds


def dialect_of(settings: DatabaseProxySettings) -> Dialect:
    """Raises ConfigError."""
    if settings.dialect == "sqlite":
        return Sqlite(settings.file)
    if settings.dialect == "csv":
        return Csv(settings.directory)
    try:
        # Only here, so that nobody needs the connector who has no such server.
        from cyclone.sinks.dialects.mysql import Mysql, MysqlSettings
    except ModuleNotFoundError as error:
        raise ConfigError(not_installed(error), file=settings.ini_file, section="db", key="dialect") from None
    return Mysql(
        MysqlSettings(
            database=settings.database,
            user=settings.user,
            password=settings.password,
            password_file=str(settings.password_file or ""),
            host=settings.host,
            port=settings.db_port,
            unix_socket=str(settings.unix_socket or ""),
            ssl=settings.ssl,
            ssl_ca=str(settings.ssl_ca or ""),
            ssl_cert=str(settings.ssl_cert or ""),
            ssl_key=str(settings.ssl_key or ""),
            charset=settings.charset,
            collation=settings.collation,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.answer_timeout_s,
            write_timeout_s=settings.answer_timeout_s,
        )
    )


def serve(settings: DatabaseProxySettings, manager: ServiceManager) -> int:
    sink = Sink(settings, settings.port)
    try:
        proxy = Proxy(settings)
    except BaseException:
        sink.close()
        raise
    return sink.serve(proxy, manager)


def check(settings: DatabaseProxySettings) -> None:
    """For `--check`: what a start would find wrong with the settings. Raises ConfigError, PluginError."""
    dialect_of(settings)
    _view(settings, kinds_of(settings))


def create_tables(settings: DatabaseProxySettings) -> int:
    """Make the tables that are not there, and say how those that are differ from what is expected."""
    database = Database(dialect_of(settings))
    try:
        kinds = kinds_of(settings)
        differences = database.create_tables(kinds.values())
        if not differences and (statement := _view(settings, kinds)):
            database.ask(lambda connection: connection.execute(statement))
    finally:
        database.close()
    if not differences:
        return EXIT_OK
    print(differences, end="")  # noqa: T201 - this is what was asked for
    return EXIT_CONFIG


def show_sql(settings: DatabaseProxySettings) -> int:
    """Print what `create_tables` would execute."""
    kinds = kinds_of(settings)
    print(print_sql(dialect_of(settings), kinds.values()))  # noqa: T201 - this is what was asked for
    if statement := _view(settings, kinds):
        print(f"{statement};\n")  # noqa: T201 - as above
    return EXIT_OK


def import_table(settings: DatabaseProxySettings) -> int:
    """Copy the rows of a table of Cyclone 2.x into that of the kind `legacy.KIND`, and say how many there were."""
    old = settings.legacy_table
    if not old:
        raise ConfigError(
            "is empty, expected the name of a table of Cyclone 2.x",
            file=settings.ini_file, section="legacy", key="table",
        )  # fmt: skip
    from cyclone.sinks.dialects import table_of_2

    new = table(kinds_of(settings)[legacy.KIND])
    database = Database(dialect_of(settings))
    copied = left_out = 0

    def copy(connection: Any) -> None:
        nonlocal copied, left_out
        for step in table_of_2.copy(connection, old, new, settings.legacy_fs):
            copied += step.new
            left_out += step.left_out

    try:
        database.ask(copy)
    finally:
        database.close()
        left = f", {left_out} left out, without a size or a name such as OST000a" if left_out else ""
        print(f"{copied} rows of {old} copied to {new}{left}")  # noqa: T201 - this is what was asked for
    return EXIT_OK


def _view(settings: DatabaseProxySettings, kinds: Mapping[str, type[Record]]) -> str:
    """The statement of the view that looks like the table of Cyclone 2.x, or "" if none is wanted."""
    view = settings.legacy_view
    if not view:
        return ""
    if view.lower() in {name.lower() for name in (settings.legacy_table, *map(table, kinds.values()))}:
        problem = f"found {view!r}, which is the name of a table, expected another one"
        raise ConfigError(problem, file=settings.ini_file, section="legacy", key="view")
    from cyclone.sinks.dialects import table_of_2

    return table_of_2.view(view, table(kinds[legacy.KIND]))


def main() -> int:
    """Entry point of `cyclone-database-proxy`."""
    what = "Store what tasks record in a database: MySQL, MariaDB, a file of SQLite, or text files."
    actions = (
        Action(
            "--create-table",
            "create the tables that are not there, compare the others, and end",
            create_tables,
        ),
        Action(
            "--import-table",
            "copy the rows of [legacy] table, which is one of Cyclone 2.x, and end; may be repeated",
            import_table,
        ),
        Action("--print-sql", "print the statements of --create-table, and end", show_sql),
    )
    return run_daemon("database-proxy", what, DatabaseProxySettings, serve, check, actions=actions)


if __name__ == "__main__":
    sys.exit(main())
