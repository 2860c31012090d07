from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cyclone.daemons.database_proxy import Proxy, check, dialect_of, kinds_of
from cyclone.errors import ConfigError, StoreCorrupt, StoreError, StoreFull
from cyclone.ini import Ini
from cyclone.private_cluster import free_ports
from cyclone.record import table
from cyclone.sinks.settings import DatabaseProxySettings
from cyclone.sinks.sql import Database

LINE = b"'2026-11-20 12:00:00','2026-11-20 12:00:01','OST000a',1000000,250000000,125000000,4,8"


def settings(directory: Path, **db: str) -> DatabaseProxySettings:
    return DatabaseProxySettings.of(
        Ini(
            {
                "db": {"dialect": "sqlite", "file": str(directory / "rows.db"), **db},
                "spool": {"file": str(directory / "spool"), "dead_letters": str(directory / "dead.jsonl")},
            },
            "some.conf",
        )
    )


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy whose database has its table."""
    told = settings(tmp_path)
    with closing(Database(dialect_of(told))) as database:
        assert database.create_tables(kinds_of(told).values()) == ""
    proxy = Proxy(told)
    yield proxy
    proxy.finish()


def rows(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "rows.db")) as connection:
        [(rows,)] = connection.execute("SELECT count(*) FROM ost_perf_history")
        return int(rows)


def buried(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "dead.jsonl").read_text().splitlines()]


# Texts of tasks of Cyclone 2.x.


def test_texts_that_are_alike_are_rows_of_their_own(proxy, tmp_path):
    proxy.keep_texts([LINE] * 1000)
    proxy.keep_texts([LINE] * 1000)

    proxy.finish()

    assert rows(tmp_path) == 2000


def test_a_text_that_is_none_goes_to_the_dead_letters_with_the_reason(proxy, tmp_path):
    proxy.keep_texts([b"\xff nonsense", LINE, b"1"])
    proxy.finish()

    assert [b64decode(letter["body"]) for letter in buried(tmp_path)] == [b"\xff nonsense", b"1"]
    assert "expected a line of 8 values" in buried(tmp_path)[0]["reason"]


def test_texts_that_come_again_because_of_a_failure_are_kept_once(proxy, tmp_path, monkeypatch):
    """Also where only some of the texts of a batch make rows, and the file of the others cannot be written."""
    dead = tmp_path / "dead.jsonl"
    dead.unlink()
    dead.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(proxy._spool, "append", full)
        with pytest.raises(StoreError):
            proxy.keep_texts([LINE, b"nonsense"])

    proxy.keep_texts([LINE, b"nonsense"])
    dead.rmdir()

    proxy.finish()
    assert rows(tmp_path) == 1
    assert len(buried(tmp_path)) == 1


def full(_):
    raise StoreFull("the disk is full")


# A start that is refused.


@pytest.mark.parametrize("wrong", ["modules", "dead letters", "table"])
def test_a_start_that_is_refused_leaves_nothing_behind(tmp_path, wrong):
    sections = {
        "db": {"dialect": "sqlite", "table": "no table" if wrong == "table" else ""},
        "spool": {"file": str(tmp_path / "spool"), "dead_letters": str(tmp_path / "dead.jsonl")},
    }
    if wrong == "modules":
        sections["records"] = {"modules": "nosuch.module"}
    elif wrong == "dead letters":
        sections["spool"]["dead_letters"] = str(tmp_path / "none" / "dead.jsonl")

    with pytest.raises(ConfigError):
        Proxy(DatabaseProxySettings.of(Ini(sections, "some.conf")))

    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_is_refused_gives_the_port_of_metrics_back(tmp_path):
    told = replace(settings(tmp_path), metrics_port=free_ports(1)[0])
    (tmp_path / "spool").write_text("Keep me.")

    with pytest.raises(StoreCorrupt):
        Proxy(told)

    (tmp_path / "spool").unlink()
    Proxy(told).finish()


# Tables.


def test_the_table_of_ost_performance_may_have_another_name(tmp_path):
    kinds = kinds_of(settings(tmp_path, table="old_history"))

    assert table(kinds["ost_perf"]) == "old_history"


@pytest.mark.parametrize("name", ["migration_history", "file_creation", "File_Creation"])
def test_the_table_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"found '{name}', which is the table of the kind") as raised:
        kinds_of(settings(tmp_path, table=name))

    assert (raised.value.section, raised.value.key) == ("db", "table")


@pytest.mark.parametrize("action", [[], ["--check"], ["--create-table"], ["--print-sql"], ["--import-table"]])
def test_a_module_that_is_none_is_one_line_with_its_place_in_the_ini_file(tmp_path, action):
    ini, ended = run_with_a_broken_module(tmp_path, action)

    assert ended.returncode == 3
    [line] = ended.stderr.splitlines()
    assert line.startswith(
        f"cyclone-database-proxy: {ini}: [records] modules: the kinds of 'site_kinds' cannot be loaded: SyntaxError"
    )


def test_who_debugs_gets_the_traceback_of_a_module_that_is_none(tmp_path):
    _, ended = run_with_a_broken_module(tmp_path, ["--debug", "--print-sql"])

    assert "Traceback" in ended.stderr


def run_with_a_broken_module(
    tmp_path: Path, arguments: list[str]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    (tmp_path / "site_kinds.py").write_text("class Broken(\n")
    ini = tmp_path / "proxy.conf"
    ini.write_text(
        f"[control]\npid_file = {tmp_path / 'pid'}\n[comm]\nport = 0\n[security]\nkey_dir = {tmp_path / 'keys'}\n"
        f"[records]\nmodules = site_kinds\npath = {tmp_path}\n[legacy]\ntable = old\n"
        "[db]\ndialect = mysql\n"
        f"[spool]\nfile = {tmp_path / 'spool'}\ndead_letters = {tmp_path / 'dead'}\n"
        f"[log]\nfilename = {tmp_path / 'log'}\n"
    )

    ended = subprocess.run(
        [sys.executable, "-m", "cyclone.daemons.database_proxy", "-f", ini, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ini, ended


# What `--check` finds.


def test_a_check_finds_a_module_that_a_start_would_refuse(tmp_path):
    told = DatabaseProxySettings.of(
        Ini({"db": {"dialect": "sqlite"}, "records": {"modules": "nosuch.module"}})
    )

    with pytest.raises(ConfigError, match=r"nosuch\.module"):
        check(told)


@pytest.mark.parametrize("view", ["ost_perf_history", "old_table", "Old_Table"])
def test_a_view_cannot_have_the_name_of_a_table(tmp_path, view):
    mysql = Ini({"db": {"dialect": "mysql"}, "legacy": {"view": view, "table": "old_table"}})

    with pytest.raises(ConfigError, match="which is the name of a table"):
        check(DatabaseProxySettings.of(mysql))
