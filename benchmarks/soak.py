"""Hours of steady work: does any daemon grow?

    python benchmarks/soak.py [--minutes N] [--tasks-per-s N]

A master, two controllers and a database proxy with an embedded database; tasks of some milliseconds, each with a record,
some that fail. Memory and open files of each daemon, and of all that it has started, are looked at every ten seconds.
Before that, many tasks that do nothing fill up the caches, above all that of the store; and the first fifth of the time
does not count. Growth is the slope of a line through the rest.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from report import parser_of, report

from cyclone.cli.audit import audit_store
from cyclone.cli.bench import Load, Progress, run_through
from cyclone.drill import database
from cyclone.drill.plan import DATABASE
from cyclone.drill.work import Work
from cyclone.drill.work import __name__ as kinds
from cyclone.private_cluster import PrivateCluster, free_port
from cyclone.process.lineage import descendants, processes
from cyclone.tasks.empty import EmptyTask

CONTROLLERS = ("controller-1", "controller-2")
DAEMONS = ("master", *CONTROLLERS, "database")
LOOK_S = 10.0
OPEN_MOST = 1000
FILLING = 300_000
_MIB = 2**20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def run(minutes: float, tasks_per_s: float) -> dict[str, object]:
    looks: list[tuple[float, dict[str, tuple[int, int]]]] = []
    with PrivateCluster(lambda line: print(line, file=sys.stderr), name="soak") as cluster:
        start(cluster)
        fill_up = cluster.open_desk("filling-up")
        run_through(cluster, fill_up, Load("no-op", lambda _: EmptyTask(), 0), FILLING, Progress(None))
        cluster.hang_up(fill_up)
        desk = cluster.open_desk("soak")
        began = time.monotonic()
        submitted = ended = failed = records = 0
        look_at = began
        while (now := time.monotonic()) < began + minutes * 60 or ended < submitted:
            if now < began + minutes * 60 and submitted - ended < OPEN_MOST:
                while submitted < (now - began) * tasks_per_s:
                    submitted += 1
                    desk.submit(Work(submitted, 0.002, records=submitted % 3, fails=submitted % 50 == 0))
                    records += submitted % 3
            for result in desk.results(0.05):
                ended += 1
                failed += not result.ok
            if now >= look_at:
                look_at = now + LOOK_S
                looks.append((now - began, {name: size_of(cluster.pid(name)) for name in DAEMONS}))
            cluster.check()
        rows = await_rows(cluster, records)
        cluster.kill_master()
        report = audit_store(cluster.directory / "store.db")
    return {
        "minutes": round(minutes, 1),
        "tasks": ended,
        "failed": failed,
        "records": records,
        "rows": rows,
        "audit": "sound" if report.is_sound else f"{report.violations}",
        **dict(growth(looks, minutes * 60)),
    }


def start(cluster: PrivateCluster) -> None:
    port = free_port()
    cluster.start_master()
    files = cluster.directory
    cluster.write("database", {
        "control": {"pid_file": files / "database.pid"},
        "comm": {"target": "127.0.0.1", "port": port},
        "db": {"dialect": "sqlite", "file": files / "rows.sqlite", "store_timeout": 5},
        "spool": {"file": files / "spool", "dead_letters": files / "dead"},
        "records": {"modules": kinds},
        "security": {"key_dir": cluster.key_dir},
    })  # fmt: skip
    cluster.call("cyclone.daemons.database_proxy", "database", "--create-table")
    cluster.start("database", "cyclone.daemons.database_proxy")
    for name in CONTROLLERS:
        cluster.start_controller(name, 1, {"sinks": {DATABASE: f"127.0.0.1:{port}"}})
    cluster.await_controllers(len(CONTROLLERS))


def size_of(pid: int) -> tuple[int, int]:
    """Resident bytes of a daemon and all that is below it, and open files of the daemon itself."""
    family = {pid, *descendants(pid, processes())}
    resident = 0
    for each in family:
        try:
            resident += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (FileNotFoundError, ProcessLookupError):
            continue  # a worker that was replaced at this moment
    return resident, len(os.listdir(f"/proc/{pid}/fd"))


def await_rows(cluster: PrivateCluster, records: int) -> int:
    deadline = time.monotonic() + 60
    while (rows := sum(database.rows(cluster.directory / "rows.sqlite").values())) < records:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return rows


def growth(
    looks: list[tuple[float, dict[str, tuple[int, int]]]], seconds: float
) -> Iterator[tuple[str, str]]:
    counted = [(moment, sizes) for moment, sizes in looks if moment >= seconds / 5]
    for name in DAEMONS:
        moments = [moment / 3600 for moment, _ in counted]
        resident = [sizes[name][0] / _MIB for _, sizes in counted]
        files = [sizes[name][1] for _, sizes in counted]
        slope = statistics.linear_regression(moments, resident).slope
        yield (
            name,
            f"{resident[0]:.1f} to {resident[-1]:.1f} MiB, {slope:+.2f} MiB an hour; "
            f"{min(files)} to {max(files)} open files",
        )


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--tasks-per-s", type=float, default=50.0)
    options = parser.parse_args()
    return report(lambda: run(options.minutes, options.tasks_per_s))


if __name__ == "__main__":
    sys.exit(main())
