"""Tasks of Cyclone 2.x that still run may go on pushing their texts to the sinks of today."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import zmq
from acceptance.cluster import Cluster, free_port, wait_for
from acceptance.test_scraped_sink import scraped

from cyclone.errors import EXIT_OK

LINE = b"'2026-11-20 12:00:00','2026-11-20 12:00:01','OST000a',1000000,250000000,125000000,4,8"


def push(port: int, *texts: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 40_000
        socket.connect(f"tcp://127.0.0.1:{port}")
        for text in texts:
            socket.send(text)


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.execute("SELECT fs, ost, state, read_duration FROM ost_perf_history"))


def settings_of(cluster: Cluster, port: int) -> dict[str, dict[str, object]]:
    cluster.write(
        "kinds.py", "from cyclone import Record\nclass Any(Record):\n    kind = 'any'\n    n: int\n"
    )
    return {
        "db": {"dialect": "sqlite", "file": "rows.sqlite", "store_timeout": 0.1},
        "spool": {"file": "proxy.spool", "dead_letters": "proxy.dead"},
        "legacy": {"port": port, "fs": "hebe"},
    }


def create_table(cluster: Cluster) -> None:
    done = cluster.run("-f", "database-proxy.conf", "--create-table", program="database-proxy")
    assert done.returncode == EXIT_OK, done


def test_a_line_becomes_a_row_and_what_is_none_a_dead_letter(cluster: Cluster) -> None:
    port, metrics = free_port(), free_port()
    settings = {**settings_of(cluster, port), "metrics": {"port": metrics}}
    proxy = cluster.start_sink("database-proxy", settings)
    proxy.wait_for_log("Started")
    create_table(cluster)

    push(port, LINE, b"1); DROP TABLE ost_perf_history; --", b"\xff\x00", LINE)

    wait_for("two rows", lambda: len(rows(cluster.directory / "rows.sqlite")) == 2)
    assert rows(cluster.directory / "rows.sqlite") == [("hebe", 10, "OK", 4.0)] * 2
    proxy.wait_for_log("invalid text")
    assert len((cluster.directory / "proxy.dead").read_text().splitlines()) == 2
    wait_for("the count", lambda: "cyclone_database_dead_letters_total 2.0" in scraped(metrics))
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == EXIT_OK


def test_texts_for_which_there_is_no_room_wait_with_those_who_push_them(cluster: Cluster) -> None:
    port, place = free_port(), cluster.directory / "later"
    settings = settings_of(cluster, port)
    settings["db"]["file"] = place / "rows.sqlite"
    settings["spool"]["max_mb"] = 16
    proxy = cluster.start_sink("database-proxy", settings)
    proxy.wait_for_log("Started")
    with ThreadPoolExecutor() as threads:
        pushing = threads.submit(push, port, *[b"no row" * 200] * 15_000, *[LINE] * 100)
        proxy.wait_for_log("wait until they can be kept")
        assert "lost" not in proxy.log

        place.mkdir()
        create_table(cluster)
        proxy.signal(signal.SIGUSR1)

        wait_for("all rows", lambda: len(rows(place / "rows.sqlite")) == 100)
        pushing.result()
    proxy.wait_for_log("kept again")
    wait_for("all others", lambda: (cluster.directory / "proxy.dead").read_bytes().count(b"\n") == 15_000)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == EXIT_OK


def test_a_check_becomes_a_metric(cluster: Cluster) -> None:
    port, metrics = free_port(), free_port()
    cluster.write(
        "kinds.py", "from cyclone import Record\nclass Any(Record):\n    kind = 'any'\n    n: int\n"
    )
    settings = {
        "push": {"url": "", "interval": 0.1},
        "metrics": {"port": metrics},
        "legacy": {"port": port},
    }
    client = cluster.start_sink("pushgateway-client", settings)
    client.wait_for_log("Started")

    push(port, b"hebe|OK|0|12", b"hebe|FAILED|1|12", b"hebe|ERROR", b"nonsense")

    wanted = 'cyclone_lustre_file_creation_check{mdt_index="1",ost_index="12",target="hebe"} 0.0'
    wait_for("the check", lambda: wanted in scraped(metrics) or _in_another_order(scraped(metrics)))
    over = 'cyclone_lustre_file_creation_error{target="hebe"} 0.0'
    wait_for("an interval without an error", lambda: over in scraped(metrics))


def _in_another_order(text: str) -> bool:
    return any(
        line.startswith("cyclone_lustre_file_creation_check{")
        and 'mdt_index="1"' in line
        and line.endswith(" 0.0")
        for line in text.splitlines()
    )
