"""How fast records get from a spool on disk into a private MariaDB, each with its durable commit.

    python benchmarks/database.py [rows [directory]]

Needs the server: bin/prepare-servers. Prints, as JSON, how fast records are appended to the spool (on disk each thousand), and
how fast a single writer moves them from there into the table of `ost_perf`, in batches of 1000.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers import MariaDb

from cyclone.lustre.records import OstPerformance
from cyclone.messages import Entry
from cyclone.record import encode, uid
from cyclone.sinks.batch import BatchRule
from cyclone.sinks.dead_letters import DeadLetters
from cyclone.sinks.dialects.mysql import Mysql, MysqlSettings
from cyclone.sinks.spool import Spool
from cyclone.sinks.sql import Database
from cyclone.sinks.writer import Writer

BATCH = 1000
BEGIN = datetime(2026, 11, 20, 3, tzinfo=UTC)


def entry(number: int) -> Entry:
    moment = BEGIN + timedelta(milliseconds=number)
    body = encode(
        OstPerformance,
        {
            "fs": "lustre", "ost": number % 700, "state": "OK", "size": 1 << 30, "host": "node0001.example.org",
            "write_timestamp": moment, "read_timestamp": moment, "read_mode": "direct",
            "write_throughput": 1_000_000_000 + number, "read_throughput": 2_000_000_000 + number,
            "write_duration": 1.0737418 + number * 1e-6, "read_duration": 0.5368709 + number * 1e-6,
        },
    )  # fmt: skip
    tid = f"ost-{number % 700:04d}@{moment:%Y-%m-%dT%H:%M}"
    return Entry(uid(1, tid, number), "database", "ost_perf", "monitoring", tid, moment.timestamp(), body)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        directory = Path(name)
        entries = [entry(number) for number in range(rows)]
        with MariaDb(directory / "maria") as maria:
            dialect = Mysql(
                MysqlSettings(
                    database=maria.database, user=maria.user, password=maria.password, host=maria.host,
                    port=maria.port, ssl="disabled",
                ),
                {},
            )  # fmt: skip
            database = Database(dialect)
            assert database.create_tables([OstPerformance]) == ""
            database.close()
            spool = Spool(directory / "spool")
            began = time.perf_counter()
            for first in range(0, rows, BATCH):
                spool.append(entries[first : first + BATCH])
            appended_s = time.perf_counter() - began
            writer = Writer(
                spool, "database", {"ost_perf": OstPerformance}, dialect, DeadLetters(directory / "dead"),
                BatchRule(BATCH, 1.0),
            )  # fmt: skip
            began, cpu = time.perf_counter(), time.process_time()
            writer.start()
            assert writer.stop(3600.0)
            wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
            assert writer.figures.stored == rows, writer.figures
            assert maria.ask("SELECT count(*) FROM ost_perf_history") == [(rows,)]
            report = {
                "rows": rows,
                "appended_per_s": round(rows / appended_s),
                "moved_per_s": round(rows / wall_s),
                "moved_per_s_goal": 20_000,
                "processor_us_per_row": round(cpu_s / rows * 1e6, 1),
            }
            print(json.dumps(report))
            spool.close()


if __name__ == "__main__":
    main()
