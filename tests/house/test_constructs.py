"""What must not stand in the package, whatever it is for, and what stands in few places only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "cyclone"

#: Those in whose process the code of users runs anyway.
UNPICKLES = {"daemons/worker.py", "daemons/desk.py"}

#: They tell people when something was, or how old it is that outlives a process. Whatever is waited for is on another clock.
KNOWS_WALL_CLOCK = {
    # When it was: in rows, mails, logs and names.
    "daemons/database_proxy.py", "daemons/delivery.py", "daemons/entry.py", "daemons/gateway.py", "daemons/worker.py",
    "lustre/alert_io_task.py", "lustre/creation_check_task.py", "lustre/io_task.py", "lustre/migrate_task.py",
    "metrics/push.py", "sinks/writer.py", "store/backup.py", "store/database.py", "store/file.py",
    # Hours of the day at which files may be moved, and at which OSTs are looked at.
    "lustre/migration/generator.py", "lustre/monitoring.py",
    # How old it is, also if it is of a former life.
    "cli/matrix.py", "lustre/claims.py", "lustre/leftovers.py", "lustre/mail.py", "sinks/spool.py",
    "store/memory.py", "store/sqlite.py",
    # It sets that of a drill.
    "drill/clock/sitecustomize.py",
}  # fmt: skip

#: They measure. What a task stops by itself by this clock, the controller stops by the other one.
MEASURES = {
    "cli/bench.py", "generators/benchmark.py",
    "lustre/alert_io_task.py", "lustre/creation_check_task.py", "lustre/io_task.py",
}  # fmt: skip

#: `process/timer.py` has the kernel wait by it; the witness of a drill relies on nothing of what it bears witness to.
KNOWS_CLOCKS = {"clock.py", "drill/witness.py"}

_CODE = {"eval", "exec", "compile", "__import__", "execfile"}
_SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_OTHER_PICKLES = {"marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
_WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}

_CLOCKS = {
    "time.monotonic",
    "time.monotonic_ns",
    "time.clock_gettime",
    "time.clock_gettime_ns",
    "time.CLOCK_MONOTONIC",
    "time.CLOCK_MONOTONIC_RAW",
    "time.CLOCK_BOOTTIME",
}
_STOP_WATCHES = {"time.perf_counter", "time.perf_counter_ns"}


@cache
def trees() -> dict[str, ast.Module]:
    """`{file of the package: what stands in it}`."""
    return {
        file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def names(tree: ast.Module) -> Iterator[str]:
    """What is named: variables by their name, attributes with what stands before, what is imported with its module."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                yield f"{owner}.{name}"
            case ast.Import(names=imported):
                yield from (each.name for each in imported)
            case ast.ImportFrom(module=module, names=imported):
                yield module or ""
                yield from (f"{module}.{each.name}" for each in imported)


def files_naming(*wanted: str) -> set[str]:
    return {file for file, tree in trees().items() if set(names(tree)) & set(wanted)}


def test_nothing_becomes_code() -> None:
    shells = {
        file
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) == "True"
    }

    assert files_naming(*_CODE) == set()
    assert files_naming(*_SHELLS) | shells == set()


def test_only_those_who_run_the_code_of_users_unpickle() -> None:
    loading = files_naming("pickle.loads", "pickle.load", "pickle.Unpickler")

    assert loading == UNPICKLES
    # `drill/clerk.py` hands tasks in.
    assert files_naming("pickle") == UNPICKLES | {"drill/clerk.py"}
    assert files_naming(*_OTHER_PICKLES) == set()


def test_the_wall_clock_is_asked_for_what_people_read_only() -> None:
    assert files_naming(*_WALL_CLOCKS) == KNOWS_WALL_CLOCK


def test_whatever_is_waited_for_is_on_one_clock() -> None:
    assert files_naming(*_CLOCKS) == KNOWS_CLOCKS
    assert files_naming(*_STOP_WATCHES) == MEASURES
