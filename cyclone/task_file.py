"""XML task files: tasks that wait under a name, with their properties preset.

    <tasks>
        <task name="creation-check">
            <class module="site_tasks.creation" name="CreationCheck"/>
            <property>
                <target_dir>/lustre/check</target_dir>
                <retries>3</retries>
                <ost/>
            </property>
        </task>
    </tasks>

Properties are parameters of the constructor, matched by name in any order and converted to the types that the
constructor's annotations ask for. An empty element keeps a place for a value that is known only at run time.
Everything wrong with a file is told at once, each with its line.

A document type declaration is refused where it begins, so no entity is ever defined, let alone expanded.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from xml.parsers import expat

from cyclone.base_task import BaseTask
from cyclone.errors import ConfigError, PluginError, TaskFileError
from cyclone.ini import Ini
from cyclone.plugins import load_class

_BYTES_MAX = 2**20

_FILLED_LATER = object()


@dataclass
class _Element:
    """One element of the document. line: where its start tag begins."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[_Element] = field(default_factory=list)
    content: str = ""


@dataclass(frozen=True)
class Preset:
    """One task of the file: its class, and the values of its constructor's parameters.

    values: `{parameter: value}`; later: the parameters that are to be filled in at run time.
    """

    name: str
    kind: type[BaseTask]
    values: Mapping[str, Any]
    later: Mapping[str, inspect.Parameter]

    def make(self, **filled: Any) -> BaseTask:
        """A new task of this kind. See `arguments`."""
        return self.kind(**self.arguments(**filled))

    def arguments(self, **filled: Any) -> dict[str, Any]:
        """What the constructor of such a task is given. filled: more values; they win over those of the file.

        Raises TaskFileError when a value is unknown, or when one is still missing.
        """
        parameters = _parameters(self.kind)
        unknown = [] if _takes_any(self.kind) else sorted(filled.keys() - parameters.keys())
        if unknown:
            raise TaskFileError(f"task {self.name!r}: {self.kind.__name__} has no property {unknown[0]!r}")
        values = {**self.values, **filled}
        for name, parameter in self.later.items():
            if name not in values:
                values[name] = self._nothing(name, parameter)
        return values

    def _nothing(self, name: str, parameter: inspect.Parameter) -> Any:
        wanted, optional = _wanted(self.kind, name)
        if optional:
            return None
        if wanted is str:
            return ""
        if parameter.default is not parameter.empty:
            return parameter.default
        raise TaskFileError(f"task {self.name!r}: property {name!r} is empty and was not filled in")


class TaskFile:
    """The tasks of one file, by name."""

    def __init__(self, presets: Mapping[str, Preset], file: Path) -> None:
        self.presets = presets
        self.file = file

    @classmethod
    def read(
        cls, file: str | Path, search_path: Iterable[str | Path] = (), packages: Collection[str] = ()
    ) -> Self:
        """Read and check a file; the classes it names are imported.

        search_path: directories to look for modules in, besides PYTHONPATH and the working directory.
        packages: see `load_class`.
        Raises TaskFileError that tells of everything wrong, one problem a line, each with its line number.
        """
        file = Path(file)
        root = _parse(file)
        reader = _Reader(file, tuple(search_path), packages)
        reader.read(root)
        reader.complain()
        return cls(reader.presets, file)

    def make(self, name: str, **filled: Any) -> BaseTask:
        """A new task as preset under this name. Raises TaskFileError, as `Preset.make` and for unknown names."""
        try:
            preset = self.presets[name]
        except KeyError:
            known = ", ".join(self.presets)
            raise TaskFileError(f"no task {name!r}; expected one of: {known}", file=self.file) from None
        return preset.make(**filled)


# The document.


def _parse(file: Path) -> _Element:
    try:
        if file.stat().st_size > _BYTES_MAX:
            raise TaskFileError(f"is larger than {_BYTES_MAX} bytes", file=file)
        content = file.read_bytes()
    except FileNotFoundError:
        raise TaskFileError("no such file; expected an XML task file", file=file) from None
    except OSError as error:
        raise TaskFileError(f"cannot be read: {error.strerror}", file=file) from None
    top = _Element("", {}, 0)
    path = [top]
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def on_start(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag, attributes, parser.CurrentLineNumber)
        path[-1].children.append(element)
        path.append(element)

    def on_end(tag: str) -> None:
        path.pop()

    def on_text(content: str) -> None:
        path[-1].content += content

    def on_doctype(*declaration: object) -> None:
        line = parser.CurrentLineNumber
        raise TaskFileError(f"line {line}: a document type declaration is not allowed", file=file)

    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = on_text, on_doctype
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        # Of an encoding that is not known, or has several bytes for a character, Python tells by errors of its own.
        raise TaskFileError(f"is not XML: {error}", file=file) from None
    return top.children[0]


class _Reader:
    """Turns the document into presets and collects what is wrong with it. Owned by one call of `TaskFile.read`."""

    def __init__(self, file: Path, search_path: tuple[str | Path, ...], packages: Collection[str]) -> None:
        self.file, self.search_path, self.packages = file, search_path, packages
        self.presets: dict[str, Preset] = {}
        self.problems: list[str] = []

    def complain(self) -> None:
        """Raise TaskFileError if anything was wrong."""
        if self.problems:
            count = f"{len(self.problems)} problems:\n" if len(self.problems) > 1 else ""
            raise TaskFileError(count + "\n".join(self.problems), file=self.file)

    def read(self, root: _Element) -> None:
        if root.tag != "tasks":
            return self._problem(root, f"found <{root.tag}> as root, expected <tasks>")
        if not root.children:
            return self._problem(root, "<tasks> holds no <task>")
        lines: dict[str, int] = {}
        for element in root.children:
            name = element.attributes.get("name", "").strip()
            if element.tag != "task":
                self._problem(element, f"found <{element.tag}> in <tasks>, expected <task>")
            elif not name:
                self._problem(element, '<task> has no name; expected <task name="…">')
            elif name in lines:
                self._problem(element, f"task {name!r} stands twice, first in line {lines[name]}")
            else:
                lines[name] = element.line
                self._read_task(element, name)
        return None

    def _read_task(self, task: _Element, name: str) -> None:
        parts: dict[str, _Element] = {}
        for child in task.children:
            if child.tag not in ("class", "property"):
                problem = f"task {name!r}: found <{child.tag}>, expected <class> or <property>"
                self._problem(child, problem)
            elif child.tag in parts:
                self._problem(child, f"task {name!r}: <{child.tag}> stands twice")
            else:
                parts[child.tag] = child
        if "class" not in parts:
            return self._problem(task, f"task {name!r} has no <class>")
        kind = self._load(parts["class"], name)
        if kind is not None:
            self._read_properties(task, name, kind, parts.get("property"))
        return None

    def _load(self, element: _Element, task: str) -> type[BaseTask] | None:
        wanted = {key: element.attributes.get(key, "").strip() for key in ("module", "name")}
        missing = [key for key, value in wanted.items() if not value]
        for key in missing:
            self._problem(element, f"task {task!r}: <class> has no {key}")
        if missing:
            return None
        try:
            return load_class(
                wanted["module"], wanted["name"], BaseTask,  # type: ignore[type-abstract]
                self.search_path, packages=self.packages,
            )  # fmt: skip
        except PluginError as error:
            self._problem(element, f"task {task!r}: {error.problem}")
            return None

    def _read_properties(
        self, task: _Element, name: str, kind: type[BaseTask], properties: _Element | None
    ) -> None:
        parameters = _parameters(kind)
        values: dict[str, Any] = {}
        for element in properties.children if properties is not None else []:
            if element.tag in values:
                self._problem(element, f"task {name!r}: property {element.tag!r} stands twice")
            elif element.tag not in parameters and not _takes_any(kind):
                expected = ", ".join(parameters) or "none"
                problem = f"task {name!r}: unknown property {element.tag!r}; expected: {expected}"
                self._problem(element, problem)
            else:
                values[element.tag] = self._value(element, name, kind)
        for parameter in parameters.values():
            if parameter.name not in values and parameter.default is parameter.empty:
                problem = f"task {name!r}: property {parameter.name!r} is missing"
                self._problem(properties or task, problem)
        later = {key: parameters[key] for key, value in values.items() if value is _FILLED_LATER}
        known = {key: value for key, value in values.items() if value is not _FILLED_LATER}
        self.presets[name] = Preset(name, kind, known, later)

    def _value(self, element: _Element, task: str, kind: type[BaseTask]) -> Any:
        content = element.content.strip()
        if element.children:
            self._problem(element, f"task {task!r}: property {element.tag!r} holds elements, expected text")
            return None
        if not content:
            return _FILLED_LATER if element.tag in _parameters(kind) else ""
        wanted, _ = _wanted(kind, element.tag)
        try:
            return _CONVERSIONS.get(wanted, str)(content)
        except (ValueError, ConfigError) as error:
            problem = error.problem if isinstance(error, ConfigError) else str(error)
            self._problem(element, f"task {task!r}: property {element.tag!r}: {problem}")
            return None

    def _problem(self, element: _Element, text: str) -> None:
        self.problems.append(f"line {element.line}: {text}")


# Constructors and their types.


def _parameters(kind: type[BaseTask]) -> dict[str, inspect.Parameter]:
    """What the constructor takes by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: parameter
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind in by_name
    }


def _takes_any(kind: type[BaseTask]) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _wanted(kind: type[BaseTask], parameter: str) -> tuple[Any, bool]:
    """The type that is asked for, and whether None will do as well; text where there is no annotation.

    Of several types, the first that text can be made into counts.
    """
    hint = _hint(kind, parameter)
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if union else (hint,)
    convertible = [option for option in options if option in _CONVERSIONS]
    return (convertible or [str])[0], types.NoneType in options


def _hint(kind: type[BaseTask], parameter: str) -> Any:
    """What the annotation of a parameter means; text where there is none."""
    found = _parameters(kind).get(parameter)
    if found is None or found.annotation is found.empty:
        return str

    def alone() -> None: ...

    # By itself, so that one that makes no sense here says nothing of the others.
    alone.__annotations__ = {parameter: found.annotation}
    constructor = inspect.unwrap(kind.__init__)
    try:
        return typing.get_type_hints(alone, getattr(constructor, "__globals__", {}))[parameter]
    except (NameError, AttributeError, TypeError, SyntaxError):
        # An annotation that only type checkers can see. What it names can be no type of ours.
        return str


def _integer(content: str) -> int:
    try:
        return int(content)
    except ValueError:
        raise ValueError(f"found {content!r}, expected a whole number") from None


def _number(content: str) -> float:
    try:
        return float(content)
    except ValueError:
        raise ValueError(f"found {content!r}, expected a number") from None


def _truth(content: str) -> bool:
    return Ini({"property": {"value": content}}).boolean("property", "value")


_CONVERSIONS: Mapping[Any, Callable[[str], Any]] = {
    bool: _truth, int: _integer, float: _number, str: str, Path: Path,
}  # fmt: skip
