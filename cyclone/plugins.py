"""Finds the classes that ini files and task files name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import re
import stat
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from cyclone.errors import PluginError

log = logging.getLogger(__name__)

#: What Cyclone 2.x called its modules, so that ini and task files written for it go on working.
ALIASES = {
    "task.empty_task": "cyclone.tasks.empty",
    "task.benchmark_task": "cyclone.tasks.benchmark",
    "task.lustre_alert_io_task": "cyclone.lustre.alert_io_task",
    "task.lustre_file_creation_check_task": "cyclone.lustre.creation_check_task",
    "task.lustre_io_task": "cyclone.lustre.io_task",
    "task.lustre_ost_migrate_task": "cyclone.lustre.migrate_task",
    "task.generator.benchmark_task_generator": "cyclone.generators.benchmark",
    "task.generator.lustre_ost_migration_task_generator": "cyclone.lustre.migration.generator",
    "task.generator.lustre_ost_monitoring_task_generator": "cyclone.lustre.monitoring",
}

#: `{package: the extra of ours that brings it}`
_EXTRAS = {
    "ClusterShell": "lustre",
    "lfsutils": "lustre",
    "mysql": "mysql",
    "prometheus_client": "prometheus",
    "requests": "prometheus",
}

_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")

_Plugin = TypeVar("_Plugin")


def load_class(
    module: str, name: str, expected: type[_Plugin], search_path: Iterable[str | Path] = (),
    *, packages: Collection[str] = (), file: str | Path | None = None, section: str | None = None,
) -> type[_Plugin]:  # fmt: skip
    """The class of this name in this module, which must be an `expected` that can be instantiated.

    search_path: directories to look in after PYTHONPATH and the working directory.
    packages: the module must be one of these or in one of them, or one of Cyclone's own; if there are any.
    file, section: where module and class were named, for the error.
    Raises PluginError: module not allowed or not found, or it raised while imported (its traceback is logged), no
    such class, of the wrong kind, or with methods missing.
    """
    module = ALIASES.get(module, module)
    make_importable(search_path)
    try:
        _allow(module, packages)
        loaded = _import(module)
        return _pick(loaded, name, expected)
    except _Unusable as problem:
        raise PluginError(str(problem), file=file, section=section, key=problem.key) from None


def make_importable(search_path: Iterable[str | Path]) -> None:
    """Let modules in the working directory and in these directories be imported by this process.

    They go to the end, so that a file of the user's that happens to be called like a module of the standard
    library cannot take its place. One that everybody can write to, such as /tmp, is passed over: modules that others
    miss and go on without are imported by name as well, and anybody could put one there.
    """
    for directory in (Path.cwd(), *search_path):
        if _is_for_everybody(directory):
            continue
        place = str(Path(directory).absolute())
        if place not in sys.path:
            sys.path.append(place)
    importlib.invalidate_caches()


def _is_for_everybody(directory: str | Path) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError:
        return False  # nothing is found there anyway


class _Unusable(Exception):
    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        super().__init__(problem)


def _allow(module: str, packages: Collection[str]) -> None:
    """Before it is imported, for that executes it."""
    if packages and not any(f"{module}.".startswith(f"{package}.") for package in ("cyclone", *packages)):
        raise _Unusable(
            "module", f"found {module!r}, expected one of the packages cyclone, {', '.join(packages)}"
        )


def _import(module: str) -> ModuleType:
    if not _DOTTED_NAME.match(module):
        raise _Unusable("module", f"found {module!r}, expected the dotted name of a module")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            places = ", ".join(place or "." for place in sys.path)
            problem = f"no module {error.name!r} (for {module!r}); looked in: {places}"
            if _is_for_everybody(here := Path.cwd()):
                problem += f"; not in {here}, for everybody can write to it"
            raise _Unusable("module", problem) from None
        if module.startswith("cyclone.") and missing_extra(error):
            raise _Unusable("module", f"{module!r} {not_installed(error)}") from None
        raise _raised(module, error) from error
    except (Exception, SystemExit) as error:  # A plug-in may raise anything.
        raise _raised(module, error) from error


def missing_extra(error: ModuleNotFoundError) -> str:
    """The extra of ours that brings the package which was not found; "" if it is in none."""
    return _EXTRAS.get((error.name or "").partition(".")[0], "")


def not_installed(error: ModuleNotFoundError) -> str:
    """What to tell whoever uses something of ours without the extra that it needs."""
    extra = missing_extra(error) or "all"
    return f"needs {error.name}, which is not installed; expected: pip install 'cyclone[{extra}]'"


def _raised(module: str, error: BaseException) -> _Unusable:
    log.error("module raised while it was imported module=%s", module, exc_info=error)
    return _Unusable("module", f"{module!r} raised while it was imported: {type(error).__name__}: {error}")


def _pick(module: ModuleType, name: str, expected: type[_Plugin]) -> type[_Plugin]:
    kind = f"subclass of {expected.__name__}"
    found = getattr(module, name, None)
    if found is None:
        fitting = [
            key for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, expected) and value is not expected
        ]  # fmt: skip
        close = difflib.get_close_matches(name, fitting, n=1) or fitting
        hint = f"; it has: {', '.join(close)}" if close else f"; it has no {kind} either"
        raise _Unusable("class", f"module {module.__name__!r} has no class {name!r}{hint}")
    if not isinstance(found, type) or not issubclass(found, expected) or found is expected:
        raise _Unusable("class", f"{name!r} in module {module.__name__!r} is not a {kind}")
    if inspect.isabstract(found):
        missing = ", ".join(f"{method}()" for method in sorted(vars(found)["__abstractmethods__"]))
        raise _Unusable("class", f"{name!r} in module {module.__name__!r} does not define {missing}")
    return found
