"""What needs no server. What does is in tests/acceptance/test_database.py."""

from __future__ import annotations

import sys

import pytest
from mysql.connector import errors

from cyclone.errors import ConfigError
from cyclone.sinks.dialects.mysql import Mysql, MysqlSettings
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
        (1054, "42S22", Failure.CONFIGURATION),
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
        (ValueError("cannot be written down"), Failure.ROW),
    ],
)
def test_what_has_no_number_is_told_apart_too(mysql, error, failure):
    assert mysql.failure(error) is failure


@pytest.mark.parametrize("charset", ["gbk", "sjis", "big5", "utf8mb4'; --", ""])
def test_a_character_set_in_which_escaping_is_not_safe_is_refused(charset):
    with pytest.raises(ConfigError, match="expected one of utf8mb4"):
        MysqlSettings(database="cyclone", user="me", charset=charset)


# Passwords.


def test_a_password_is_never_shown():
    assert "geheim" not in repr(MysqlSettings(database="cyclone", user="me", password="geheim"))


def test_the_environment_comes_before_the_ini_file_and_a_file_before_both(tmp_path):
    file = tmp_path / "password"
    file.write_text("from file\n")
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


def test_a_connector_that_is_not_installed_is_told(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "mysql"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mysql", None)

    with pytest.raises(ConfigError, match="expected the extra mysql"):
        Mysql(MysqlSettings(database="cyclone", user="me"), {})
