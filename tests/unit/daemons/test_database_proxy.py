from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.daemons.database_proxy import kinds_of
from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.record import table
from cyclone.sinks.settings import DatabaseProxySettings


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


# Tables.


def test_the_table_of_ost_performance_may_have_another_name(tmp_path):
    kinds = kinds_of(settings(tmp_path, table="old_history"))

    assert table(kinds["ost_perf"]) == "old_history"


@pytest.mark.parametrize("name", ["migration_history", "file_creation"])
def test_the_table_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"found '{name}', which is the table of the kind") as raised:
        kinds_of(settings(tmp_path, table=name))

    assert (raised.value.section, raised.value.key) == ("db", "table")
