"""Rows in MySQL or MariaDB, through mysql-connector-python in pure Python.

Pure, because the C extension of some of its wheels cannot be loaded on the distributions in use, and the two differ
in their errors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mysql.connector import connect, constants, errors
from mysql.connector.conversion import MySQLConverter

from cyclone.errors import ConfigError
from cyclone.record import Field
from cyclone.sinks.settings import PASSWORD_VARIABLE
from cyclone.sinks.sql import DatabaseFailure, Definition, Failure, Row, Table, index_name, utc

# It tells of its plug-ins with each connection.
logging.getLogger("mysql").setLevel(logging.WARNING)

#: All of UTF-8. In others a backslash may be the second byte of something else, and not all texts can be written.
CHARSET = "utf8mb4"

#: A column of its own is not searched for by more than this.
_INDEX_PREFIX = 191

#: Longer texts are kept beside the row, which may not be longer than 65535 bytes.
_VARCHAR_MAX = 1024

#: What a value takes in a statement beside itself: quotes, commas, a number, a moment, a key.
_VALUE_BYTES = 40

# Numbers of errors, from mariadb.com/kb/en/mariadb-error-code-reference and the reference manual of MySQL.
_TRANSIENT = frozenset(
    {
        1021,  # disk full
        1040,  # too many connections
        1053,  # server shutdown in progress
        1114,  # table is full
        1129,  # host is blocked
        1158, 1159, 1160, 1161,  # packets that came late or broken
        1203, 1226,  # the user has as many connections as he may
        1205,  # lock wait timeout
        1206,  # as many locks as there may be
        1213,  # deadlock
        1290,  # read-only
        1317,  # the query was interrupted
        1836,  # read-only
        1927,  # the connection was killed
        1969,  # max_statement_time
        2002, 2003, 2005, 2006, 2013, 2055,  # no connection
        3024,  # a time-out; of the connector too
        3100,  # the commit was refused by the replication
        4031,  # idle for too long
    }
)  # fmt: skip
_ROW = frozenset(
    {
        1048,  # NULL; also for what another unique key than that of the uid has already, see `passing_over`
        1062,  # the same, of what a trigger writes
        1118,  # the row is too large
        1153,  # the packet is too large
        1264,  # out of range
        1265,  # truncated
        1292,  # no date
        1366,  # no such number or character
        1406,  # too long
        1411,  # no such moment
        1452,  # foreign key
        1526,  # no partition for it
        1644,  # refused by a trigger
        1690,  # out of range
        3819, 4025,  # CHECK
    }
)  # fmt: skip
_CONFIGURATION = frozenset(
    {
        1044, 1045, 1049,  # this user, this password, this database
        1052, 1054, 1364,  # this column is in two tables, that one in none, or it needs a value
        1136, 1222, 1241,  # so many columns; of a trigger, say
        1347,  # this is a table where a view should be, or the other way round
        1064,  # syntax
        1115, 1273,  # this character set, this collation
        1130, 1251, 1698, 1820, 1862, 2059, 2061,  # this user does not get in from here, or in this way
        1142, 1143, 1146,  # this table
        2026,  # TLS
    }
)  # fmt: skip

#: What `MySQLConverter.escape` escapes. In UTF-8 no other character has one of these bytes in it.
_SPECIAL = re.compile(rb"[\\\n\r'\"\x1a]")
_escaped = MySQLConverter.escape

#: The width that older servers show of whole numbers; nothing but tinyint(1) means anything by it.
_WIDTH = re.compile(r"\b(smallint|mediumint|int|bigint)\(\d+\)")


@dataclass(frozen=True)
class MysqlSettings:
    """How to get in.

    unix_socket: instead of host and port. ssl: `required` refuses a server without TLS; ssl_ca: a file, checks the
    certificate and the name of the server; ssl_cert, ssl_key: files, both or none, that tell the server who we are.
    collation: "" for that of the server, which is right on both products.
    password_file: its first line is the password; it is read for each connection, so that it may change at any time.
    """

    database: str
    user: str
    password: str = field(default="", repr=False)
    password_file: str = ""
    host: str = "127.0.0.1"
    port: int = 3306
    unix_socket: str = ""
    ssl: Literal["disabled", "preferred", "required"] = "preferred"
    ssl_ca: str = ""
    ssl_cert: str = ""
    ssl_key: str = ""
    charset: str = "utf8mb4"
    collation: str = ""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        """Raises ConfigError for a character set that is not safe, and for two passwords."""
        if self.charset != CHARSET:
            raise ConfigError(f"found {self.charset!r}, expected {CHARSET}", section="db", key="charset")
        if self.password and self.password_file:
            raise ConfigError(
                "found also a password, expected one or the other", section="db", key="password_file"
            )

    def current_password(self, environment: Mapping[str, str]) -> str:
        """That of the file, else that of the environment, else that of the ini file.

        Raises ConfigError: the file cannot be read, or by more than its owner.
        """
        if not self.password_file:
            return environment.get(PASSWORD_VARIABLE, self.password)
        path = Path(self.password_file)
        try:
            with path.open(encoding="utf-8") as text:
                if os.fstat(text.fileno()).st_mode & 0o077:
                    raise ConfigError(
                        f"found mode {path.stat().st_mode & 0o777:04o}, expected 0600: others can read the password",
                        file=path,
                    )
                return text.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the password cannot be read: {error}", file=path) from error


class Mysql:
    """The dialect of both products."""

    def __init__(self, settings: MysqlSettings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = environment

    @property
    def place(self) -> str:
        settings = self._settings
        server = settings.unix_socket or f"{settings.host}:{settings.port}"
        return f"database {settings.database} at {server}"

    def connect(self) -> MysqlConnection:
        settings = self._settings
        try:
            password = settings.current_password(self._environment)
        except ConfigError as error:
            raise DatabaseFailure(Failure.CONFIGURATION, str(error)) from error
        wanted: dict[str, Any] = {
            "database": settings.database,
            "user": settings.user,
            "password": password,
            "charset": settings.charset,
            "use_unicode": True,
            "use_pure": True,
            "converter_class": Literals,
            "autocommit": False,
            "time_zone": "+00:00",
            # Whatever the server is set to: what does not fit is an error, and a backslash escapes.
            "sql_mode": "TRADITIONAL",
            "client_flags": [-constants.ClientFlag.MULTI_STATEMENTS],
            "allow_local_infile": False,
            # In whole seconds, and never none, which would be for ever.
            "connection_timeout": max(1, round(settings.connect_timeout_s)),
            "read_timeout": max(1, round(settings.read_timeout_s)),
            "write_timeout": max(1, round(settings.write_timeout_s)),
            "ssl_disabled": settings.ssl == "disabled",
        }
        if settings.unix_socket:
            wanted["unix_socket"] = settings.unix_socket
        else:
            wanted |= {"host": settings.host, "port": settings.port}
        if settings.collation:
            wanted["collation"] = settings.collation
        if settings.ssl_ca:
            wanted |= {"ssl_ca": settings.ssl_ca, "ssl_verify_cert": True, "ssl_verify_identity": True}
        if settings.ssl_cert:
            wanted |= {"ssl_cert": settings.ssl_cert, "ssl_key": settings.ssl_key}
        try:
            connection = connect(**wanted)
        except errors.Error as error:
            # Without a number it is the connector itself that refuses: a collation that it does not know, or the file of
            # a certificate that it cannot read.
            is_refused = isinstance(error, errors.ProgrammingError) or isinstance(error.__cause__, OSError)
            if error.errno != -1 or not is_refused:
                raise
            raise DatabaseFailure(Failure.CONFIGURATION, f"{type(error).__name__}: {error}") from error
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            # Not even tried: a host such as a..b, say.
            raise DatabaseFailure(Failure.CONFIGURATION, f"{type(error).__name__}: {error}") from error
        return MysqlConnection(connection, encrypted=settings.ssl == "required")

    def failure(self, error: Exception) -> Failure:
        if not isinstance(error, errors.Error):
            # Not the connector's own: the network, or a fault of the connector. It writes down all that rows hold.
            return Failure.TRANSIENT
        # The connector tells of it as of a connection that was lost.
        if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
            return Failure.CONFIGURATION
        for numbers, failure in (
            (_TRANSIENT, Failure.TRANSIENT),
            (_ROW, Failure.ROW),
            (_CONFIGURATION, Failure.CONFIGURATION),
        ):
            if error.errno in numbers:
                return failure
        if isinstance(error, errors.DataError | errors.IntegrityError):
            return Failure.ROW
        if isinstance(error, errors.ProgrammingError | errors.NotSupportedError) and error.errno != -1:
            return Failure.CONFIGURATION
        # Unheard of. To wait loses nothing, and tells on it.
        return Failure.TRANSIENT

    def statements(self, table: Table) -> Sequence[str]:
        columns = [
            f"{quoted(each.name)} {_described(_type(each), None, not each.optional).upper()}"
            for each in table.columns
        ]
        bounds = {each.name: _index_bound(each) for each in table.columns}
        indexes = [
            f"KEY {quoted(index_name(number, index))} ({', '.join(quoted(each) + bounds[each] for each in index)})"
            for number, index in enumerate(table.indexes, 1)
        ]
        lines = ",\n  ".join(
            [
                "`id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY",
                *columns,
                "UNIQUE KEY `uk_uid` (`uid`)",
                *indexes,
            ]
        )
        # No collation: the default of the server is right on both products.
        return [
            f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} (\n  {lines}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        ]

    def definition(self, table: Table) -> Definition:
        return {
            f"column {each.name}": _described(
                _type(each), CHARSET if each.type is str else None, not each.optional
            )
            for each in table.columns
        } | {
            f"index ({', '.join(index)})": "" for index in table.indexes
        } | {"unique (uid)": ""}  # fmt: skip


class MysqlConnection:
    """See `Connection`."""

    def __init__(self, connection: Any, *, encrypted: bool) -> None:
        self._connection = connection
        try:
            if encrypted and not self.ask("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]:
                raise DatabaseFailure(
                    Failure.CONFIGURATION, "found a server without TLS, expected one with it"
                )
            [(packet_bytes, wait_s, mode)] = self.ask(
                "SELECT @@max_allowed_packet, @@wait_timeout, @@sql_mode"
            )
            if "NO_BACKSLASH_ESCAPES" in mode:
                raise DatabaseFailure(
                    Failure.CONFIGURATION,
                    "found the sql_mode NO_BACKSLASH_ESCAPES, which was switched off for us",
                )
        except BaseException:
            self.drop()
            raise
        self._packet_bytes = int(packet_bytes)
        # Escaped, a text is at most twice as long: entries take a quarter of what is allowed. Should it be too much for
        # once, `insert` refuses it, and it is tried again in halves.
        self.batch_bytes_max = self._packet_bytes // 8
        self.idle_s_max = int(wait_s) / 2

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        size = sum(map(_size, rows))
        if size > self._packet_bytes:
            # Some servers hang up without a word if it is sent, which would look like a fault of the network.
            raise DatabaseFailure(
                Failure.ROW,
                f"up to {size} bytes, and max_allowed_packet of the server is {self._packet_bytes}",
            )
        columns = ", ".join(quoted(each.name) for each in table.columns)
        statement = (
            f"INSERT INTO {quoted(table.name)} ({columns}) "  # noqa: S608 - names of kinds, checked
            f"VALUES {','.join(['%s'] * len(rows))} {passing_over(table.name)}"
        )
        return self.change(statement, *rows)

    def holds(self, table: Table, uids: Sequence[bytes]) -> Counter[bytes]:
        if not self.ask(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
            table.name,
        ):
            return Counter()
        places = ",".join(["%s"] * len(uids))
        rows = self.ask(
            f"SELECT HEX(`uid`) FROM {quoted(table.name)} WHERE `uid` IN ({places})",  # noqa: S608 - quoted
            *uids,
        )
        return Counter(bytes.fromhex(digits) for (digits,) in rows)

    def execute(self, statement: str) -> None:
        self.change(statement)

    def change(self, statement: str, *values: object) -> int:
        """Execute a statement with values for its places, and commit. Returns how many rows are new."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, values)
            new = cursor.rowcount
        self._connection.commit()
        return int(new)

    def definition(self, table: Table) -> Definition:
        known = {each.name for each in table.columns}
        found: dict[str, str] = {}
        for column, kind, charset, nullable, default, extra in self.ask(
            """SELECT column_name, column_type, character_set_name, is_nullable, column_default, extra
            FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position""",
            table.name,
        ):
            not_null = nullable == "NO"
            if column in known or (not_null and default is None and "auto_increment" not in extra.lower()):
                found[f"column {column}"] = _described(_WIDTH.sub(r"\1", kind.lower()), charset, not_null)
        indexes: dict[str, list[str]] = {}
        unique: dict[str, bool] = {}
        for index, column, not_unique in self.ask(
            """SELECT index_name, column_name, non_unique FROM information_schema.statistics
            WHERE table_schema = DATABASE() AND table_name = %s ORDER BY index_name, seq_in_index""",
            table.name,
        ):
            indexes.setdefault(index, []).append(column)
            unique[index] = not int(not_unique)
        for index, columns in indexes.items():
            if unique[index] and columns == ["uid"]:
                found["unique (uid)"] = ""
            elif tuple(columns) in table.indexes:
                found[f"index ({', '.join(columns)})"] = ""
        return found

    def undo(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()

    def drop(self) -> None:
        # `close` alone would first say goodbye, and wait for a frozen server to hear it; `shutdown` alone leaves
        # the socket open if the other side has gone.
        with contextlib.suppress(Exception):
            self._connection.shutdown()
            self._connection.close()

    def ask(self, question: str, *values: str | int | bytes) -> list[Any]:
        """The rows of the answer; text is `str`."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(question, values)
            rows = [[_text(each) for each in row] for row in cursor.fetchall()]
        # Or what is asked next would be answered as of now.
        self._connection.rollback()
        return rows


class Literals(MySQLConverter):
    """Values as they stand in a statement, for connections in UTF-8 on which a backslash escapes.

    The connector takes three steps for each value, which is most of its time (measured); this takes one for each row.
    """

    def to_mysql(self, value: Any) -> Any:
        """A literal, of a tuple the list of a row. Raises TypeError for what is neither a value of a row nor such a tuple:
        nothing is written as it happens to print.
        """
        kind = type(value)
        if kind is tuple:
            return b"(%s)" % b",".join(map(self.to_mysql, value))
        if value is None:
            return b"NULL"
        if kind is str:
            text = value.encode()
            return b"'%s'" % (_escaped(text) if _SPECIAL.search(text) else text)
        if kind is int or kind is bool:
            return b"%d" % value
        if kind is float:
            return repr(value).encode()
        if kind is datetime:
            return b"'%s'" % utc(value).isoformat(" ").encode()
        if kind is bytes:
            # A key is no text, and would be none in the character set of the connection.
            return b"X'%s'" % value.hex().encode()
        raise TypeError(f"found {kind.__name__}, expected the value of a row")

    # The two steps that are left have nothing to do.

    @staticmethod
    def escape(value: Any, sql_mode: Any = None) -> Any:
        return value

    @staticmethod
    def quote(buf: Any) -> Any:
        return buf


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def passing_over(table: str) -> str:
    """The end of an INSERT: a row whose uid is there already is passed over.

    One that is there only by another unique key, of the site, is refused (1048): it would vanish without a word.
    """
    uid = f"{quoted(table)}.`uid`"
    return f"ON DUPLICATE KEY UPDATE {uid} = IF({uid} = VALUES({uid}), {uid}, NULL)"


def _described(type_: str, charset: str | None, is_needed: bool) -> str:
    """A column in the words of SQL. charset: of texts, None if it is that of the table."""
    return type_ + (f" character set {charset}" if charset else "") + (" not null" if is_needed else "")


def _type(field: Field) -> str:
    if field.type is bytes:
        return f"binary({field.bound})"
    if field.type is str:
        # A character takes up to 4 bytes.
        bound = field.bound if field.bound is not None else 2**30
        if bound <= _VARCHAR_MAX:
            return f"varchar({bound})"
        return "text" if bound * 4 < 2**16 else "mediumtext" if bound * 4 < 2**24 else "longtext"
    if field.type is bool:
        return "tinyint(1)"
    if field.type is int:
        return "bigint unsigned" if field.unsigned else "bigint"
    return "double" if field.type is float else "datetime(3)"


def _index_bound(field: Field) -> str:
    """How much of a column is in an index: keys are short, and texts that are kept beside the row need a bound."""
    long = field.type is str and (field.bound is None or field.bound > _INDEX_PREFIX)
    return f"({_INDEX_PREFIX})" if long else ""


def _size(row: Row) -> int:
    """No statement takes more for this row, in bytes: each character of a text may be escaped by another."""
    size = _VALUE_BYTES * len(row)
    for value in row:
        if isinstance(value, str):
            size += 2 * len(value if value.isascii() else value.encode())
    return size


def _text(value: object) -> Any:
    """Some columns of the information schema are of binary types with one product and of text with the other."""
    return value.decode() if isinstance(value, bytes | bytearray) else value
