"""Which kinds of records a sink knows: those that come with Cyclone, and those of the plug-in modules of a site."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from cyclone.errors import PluginError, RuleBroken
from cyclone.plugins import make_importable
from cyclone.record import Record, fields, table

log = logging.getLogger(__name__)

#: The modules with the kinds of Cyclone itself.
BUILT_IN = ("cyclone.lustre.records", "cyclone.lustre.migration_record")


def load_kinds(
    modules: Iterable[str] = (), search_path: Iterable[str | Path] = (), built_in: Iterable[str] = BUILT_IN,
    *, file: str | Path | None = None,
) -> dict[str, type[Record]]:  # fmt: skip
    """`{name: kind}`: the built-in kinds, then those that are found in these modules.

    modules: dotted names; search_path: directories to look in after PYTHONPATH and the working directory.
    file: the ini file that names them, for the error.
    A class without a name is the common ground of others, and no kind.
    Raises PluginError: a module that cannot be imported (its traceback is logged for who debugs) or has no kinds, an
    unsound declaration, a name or a table that another kind has already.
    """
    make_importable(search_path)
    try:
        return _load([*built_in, *modules])
    except PluginError as error:
        raise PluginError(error.problem, file=file, section="records", key="modules") from error


def _load(modules: Iterable[str]) -> dict[str, type[Record]]:
    kinds: dict[str, type[Record]] = {}
    tables: dict[str, type[Record]] = {}
    for name in dict.fromkeys(modules):
        found = _kinds_of(_import(name))
        if not found:
            raise PluginError(f"found no kinds in module {name!r}, expected subclasses of Record")
        for kind in found:
            _check(kind)
            # Whether a database tells capital letters from small ones in names depends on which it is.
            for taken, what, its in ((kinds, "kind", kind.kind), (tables, "table", table(kind).lower())):
                if taken.setdefault(its, kind) is not kind:
                    raise PluginError(
                        f"found the {what} {its!r} in {_place(taken[its])} and in {_place(kind)}, expected it once"
                    )
    return kinds


def _kinds_of(module: ModuleType) -> list[type[Record]]:
    """In the order of their definition; also what it has imported, which is the same kind then."""
    return [
        each for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Record) and each is not Record and each.kind
    ]  # fmt: skip


def _check(kind: type[Record]) -> None:
    try:
        fields(kind)
    except (RuleBroken, NameError) as error:
        raise PluginError(f"{_place(kind)}: {error}") from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # A plug-in may raise anything.
        if not (isinstance(error, ModuleNotFoundError) and error.name is not None):
            log.debug("module raised while it was imported module=%s", name, exc_info=error)
        raise PluginError(
            f"the kinds of {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def _place(kind: type[Record]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def with_table(kind: type[Record], name: str) -> type[Record]:
    """The same kind, whose rows go to another table. Raises PluginError when the name is none."""
    other = type(kind.__name__, (kind,), {"table": name, "__module__": kind.__module__})
    _check(other)
    return other
