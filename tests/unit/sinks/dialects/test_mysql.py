"""What needs no server. What does is in tests/acceptance/test_database.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mysql.connector import constants, errors
from mysql.connector.conversion import MySQLConverter

from cyclone.errors import ConfigError
from cyclone.sinks.dialects import mysql as mysql_module
from cyclone.sinks.dialects.mysql import Literals, Mysql, MysqlSettings, quoted
from cyclone.sinks.sql import Database, DatabaseFailure, Failure, print_sql


@pytest.fixture
def mysql() -> Mysql:
    return Mysql(MysqlSettings(database="cyclone", user="me"), {})


def test_the_statement_of_a_kind(mysql, reading):
    assert print_sql(mysql, [reading]) == (
        "CREATE TABLE IF NOT EXISTS `readings` (\n"
        "  `id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,\n"
        "  `uid` BINARY(16) NOT NULL,\n"
        "  `recorded_at` DATETIME(3) NOT NULL,\n"
        "  `job` VARCHAR(255) NOT NULL,\n"
        "  `tid` TEXT NOT NULL,\n"
        "  `place` VARCHAR(16) NOT NULL,\n"
        "  `order` BIGINT UNSIGNED NOT NULL,\n"
        "  `at` DATETIME(3) NOT NULL,\n"
        "  `change` BIGINT,\n"
        "  `seconds` DOUBLE,\n"
        "  `fine` TINYINT(1) NOT NULL,\n"
        "  `seen` TINYINT(1),\n"
        "  `note` LONGTEXT,\n"
        "  UNIQUE KEY `uk_uid` (`uid`),\n"
        "  KEY `k_1_place_at` (`place`, `at`),\n"
        "  KEY `k_2_note` (`note`(191))\n"
        ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;\n"
    )


@pytest.mark.parametrize(
    ("number", "state", "failure"),
    [
        (1045, "28000", Failure.CONFIGURATION),
        (1044, "42000", Failure.CONFIGURATION),
        (1049, "42000", Failure.CONFIGURATION),
        (1052, "23000", Failure.CONFIGURATION),
        (1054, "42S22", Failure.CONFIGURATION),
        (1136, "21S01", Failure.CONFIGURATION),
        (1222, "21000", Failure.CONFIGURATION),
        (1241, "21000", Failure.CONFIGURATION),
        (1064, "42000", Failure.CONFIGURATION),
        (1142, "42000", Failure.CONFIGURATION),
        (1146, "42S02", Failure.CONFIGURATION),
        (1364, "HY000", Failure.CONFIGURATION),
        (2003, None, Failure.TRANSIENT),
        (2006, None, Failure.TRANSIENT),
        (2013, None, Failure.TRANSIENT),
        (2055, None, Failure.TRANSIENT),
        (3024, None, Failure.TRANSIENT),
        (1040, "08004", Failure.TRANSIENT),
        (1053, "08S01", Failure.TRANSIENT),
        (1129, "HY000", Failure.TRANSIENT),
        (1203, "42000", Failure.TRANSIENT),
        (1205, "HY000", Failure.TRANSIENT),
        (1213, "40001", Failure.TRANSIENT),
        (1290, "HY000", Failure.TRANSIENT),
        (1836, "HY000", Failure.TRANSIENT),
        (1927, "70100", Failure.TRANSIENT),
        (1264, "22003", Failure.ROW),
        (1292, "22007", Failure.ROW),
        (1366, "22007", Failure.ROW),
        (1406, "22001", Failure.ROW),
        (1048, "23000", Failure.ROW),
        (1118, "42000", Failure.ROW),
        (1452, "23000", Failure.ROW),
        (4025, "23000", Failure.ROW),
        # Unheard of: by their class.
        (9999, "22000", Failure.ROW),
        (9999, "23000", Failure.ROW),
        (9999, "42000", Failure.CONFIGURATION),
        (9999, "HY000", Failure.TRANSIENT),
        (9999, "08000", Failure.TRANSIENT),
    ],
)
def test_a_number_tells_what_a_failure_is_about(mysql, number, state, failure):
    error = errors.get_mysql_exception(number, "of this number", state)

    assert mysql.failure(error) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (errors.OperationalError("MySQL Connection not available", errno=-1), Failure.TRANSIENT),
        (errors.ReadTimeoutError(errno=3024), Failure.TRANSIENT),
        (errors.InterfaceError("no cursor"), Failure.TRANSIENT),
        (errors.ProgrammingError("Cursor is not connected", errno=-1), Failure.TRANSIENT),
        (ConnectionResetError(), Failure.TRANSIENT),
        # Of the connector, when it is confused; the rows are in order.
        (IndexError("bytearray index out of range"), Failure.TRANSIENT),
        (MemoryError(), Failure.TRANSIENT),
    ],
)
def test_what_has_no_number_is_told_apart_too(mysql, error, failure):
    assert mysql.failure(error) is failure


@pytest.mark.parametrize(
    ("error", "cause", "failure"),
    [
        (errors.ProgrammingError("Collation 'nope' unknown", errno=-1), None, Failure.CONFIGURATION),
        (errors.InterfaceError("Invalid Key", errno=-1), FileNotFoundError(), Failure.CONFIGURATION),
        (errors.InterfaceError("Empty response", errno=-1), None, Failure.TRANSIENT),
        (errors.InterfaceError("Lost connection", errno=2055), ConnectionResetError(), Failure.TRANSIENT),
    ],
)
def test_what_the_connector_itself_refuses_while_connecting_is_for_somebody_to_mend(
    mysql, monkeypatch, error, cause, failure
):
    def refuse(**_):
        raise error from cause

    monkeypatch.setattr("cyclone.sinks.dialects.mysql.connect", refuse)

    with pytest.raises(DatabaseFailure) as raised:
        Database(mysql).open()

    assert raised.value.failure is failure


@pytest.mark.parametrize("charset", ["gbk", "sjis", "big5", "utf8mb4'; --", "", "utf8mb3", "utf8"])
def test_a_character_set_in_which_not_every_text_can_be_written_safely_is_refused(charset):
    with pytest.raises(ConfigError, match="expected utf8mb4"):
        MysqlSettings(database="cyclone", user="me", charset=charset)


# Passwords.


def test_a_password_is_never_shown():
    assert "geheim" not in repr(MysqlSettings(database="cyclone", user="me", password="geheim"))


def test_the_environment_comes_before_the_ini_file_and_a_file_before_both(tmp_path):
    file = tmp_path / "password"
    file.write_text("from file\nand nothing else\n")
    file.chmod(0o600)
    environment = {"CYCLONE_DB_PASSWORD": "from environment"}

    def password(environment, **settings):
        return MysqlSettings(database="cyclone", user="me", **settings).current_password(environment)

    assert password({}, password="from ini") == "from ini"
    assert password(environment, password="from ini") == "from environment"
    assert password(environment, password_file=str(file)) == "from file"
    assert password({}) == ""


def test_two_passwords_are_refused():
    with pytest.raises(ConfigError, match="expected one or the other"):
        MysqlSettings(database="cyclone", user="me", password="a", password_file="b")


def test_a_password_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "password"
    file.write_text("secret")
    file.chmod(0o640)

    with pytest.raises(ConfigError, match="found mode 0640, expected 0600"):
        MysqlSettings(database="cyclone", user="me", password_file=str(file)).current_password({})


def test_a_password_that_is_not_there_is_for_somebody_to_mend(tmp_path):
    settings = MysqlSettings(database="cyclone", user="me", password_file=str(tmp_path / "none"))

    with pytest.raises(DatabaseFailure, match="No such file") as raised:
        Database(Mysql(settings, {})).open()

    assert raised.value.failure is Failure.CONFIGURATION


# Values in a statement.


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (None, b"NULL"),
        ("plain", b"'plain'"),
        ("", b"''"),
        ("\u017c\U0001f300", "'\u017c\U0001f300'".encode()),
        ("it's", b"'it\\'s'"),
        ('a "b"', b"'a \\\"b\\\"'"),
        ("\\", b"'\\\\'"),
        ("\\'; --", b"'\\\\\\'; --'"),
        ("\r\n\x1a", b"'\\r\\n\\\x1a'"),
        ("\u2019 OR 1=1", "'\u2019 OR 1=1'".encode()),
        (-5, b"-5"),
        (2**63, b"9223372036854775808"),
        (True, b"1"),
        (False, b"0"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (datetime(2026, 11, 20, 12, tzinfo=UTC), b"'2026-11-20 12:00:00'"),
        (datetime(2026, 11, 20, 12, 0, 0, 5999, tzinfo=UTC), b"'2026-11-20 12:00:00.005000'"),
        (datetime(2026, 11, 20, 13, tzinfo=timezone(timedelta(hours=1))), b"'2026-11-20 12:00:00'"),
        (b"\x00\xff'", b"X'00ff27'"),
        (("it's", 7, None, b"\x01"), b"('it\\'s',7,NULL,X'01')"),
    ],
)
def test_a_value_is_written_so_that_it_cannot_be_anything_else(value, literal):
    converter = Literals("utf8mb4")

    assert converter.quote(converter.escape(converter.to_mysql(value))) == literal


@settings(deadline=None)
@given(
    st.text()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
def test_literals_are_those_of_the_connector(value):
    ours, theirs = Literals("utf8mb4"), MySQLConverter("utf8mb4")

    assert ours.to_mysql(value) == theirs.quote(theirs.escape(theirs.to_mysql(value)))


@pytest.mark.parametrize("value", [object(), [1], (1, [2]), bytearray(b"x"), type("Text", (str,), {})("x")])
def test_what_is_no_value_is_not_written_at_all(value):
    with pytest.raises(TypeError, match="expected the value of a row"):
        Literals("utf8mb4").to_mysql(value)


def test_a_name_is_quoted_whatever_it_is():
    assert quoted("odd`; DROP TABLE readings; --") == "`odd``; DROP TABLE readings; --`"


def wanted_of_a_server(monkeypatch, **settings):
    """With what options it is connected to."""
    asked = {}

    def refuse(**wanted):
        asked.update(wanted)
        raise errors.InterfaceError(errno=2003)

    monkeypatch.setattr(mysql_module, "connect", refuse)
    with pytest.raises(errors.InterfaceError):
        Mysql(MysqlSettings(database="cyclone", user="me", **settings), {}).connect()
    return asked


def test_a_server_may_ask_for_nothing_but_what_it_is_given(monkeypatch):
    asked = wanted_of_a_server(monkeypatch)

    assert asked["allow_local_infile"] is False
    assert asked["client_flags"] == [-constants.ClientFlag.MULTI_STATEMENTS]
    assert asked["sql_mode"] == "TRADITIONAL"
    assert min(asked[each] for each in ("connection_timeout", "read_timeout", "write_timeout")) > 0


def test_a_server_has_to_prove_its_name_where_somebody_vouches_for_it(monkeypatch):
    asked = wanted_of_a_server(monkeypatch, ssl_ca="site.pem")

    assert (asked["ssl_ca"], asked["ssl_verify_cert"], asked["ssl_verify_identity"]) == (
        "site.pem",
        True,
        True,
    )
