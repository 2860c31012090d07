"""Writes the parts of the manual that are made from the code: `python Documentation/generate.py`.

A part stands between `<!-- NAME: generated -->` and `<!-- NAME: end -->` in one of the pages. A house test says
when a page is not what this script would write.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from cyclone import messages
from cyclone.generators.benchmark import BenchmarkSettings
from cyclone.generators.checksum import ChecksumSettings
from cyclone.generators.task_list import TaskListSettings
from cyclone.lustre.migration.settings import MigrationSettings
from cyclone.lustre.monitoring_settings import MonitoringSettings
from cyclone.messages import Message
from cyclone.model import task as task_model
from cyclone.model.audit import RULES, Rule
from cyclone.model.lifecycle import ENDED, LIFECYCLE, Event, State
from cyclone.settings import ANY_KEY, ControllerSettings, MasterSettings, Setting, Settings
from cyclone.sinks.settings import DatabaseProxySettings, PushgatewayClientSettings
from cyclone.wire.door import MASTER, SINK
from cyclone.wire.keys import Role

HERE = Path(__file__).parent


def lifecycle() -> str:
    """The states of a task and what leads from one to the other, as a picture."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> waiting", "    [*] --> ready"]
    for state, ways in LIFECYCLE.items():
        by_target: dict[State, list[Event]] = {}
        for event, target in ways.items():
            by_target.setdefault(target, []).append(event)
        lines += [f"    {state} --> {target}: {', '.join(events)}" for target, events in by_target.items()]
    lines += [f"    {state} --> [*]" for state in State if state in ENDED]
    return "\n".join([*lines, "```"])


def alphabet() -> str:
    """Every message, by who says it to whom, and what messages are made of."""
    groups: dict[str, list[type[msgspec.Struct]]] = {
        "Controller to master": [*typing.get_args(messages.FromController)],
        "Master to controller": [*typing.get_args(messages.ToController)],
        "Client to master": [*typing.get_args(messages.FromClient)],
        "Master to client": [*typing.get_args(messages.ToClient)],
        "Controller to sink": [messages.Deliver],
        "Sink to controller": [messages.Stored, messages.Refused],
        "Client to sink": [messages.AskRecords],
        "Sink to client": [messages.RecordsKnown, messages.Refused],
    }
    spoken = {each for group in groups.values() for each in group}
    here = _structs(messages)
    groups["Within a controller, never over the network"] = [
        each for each in here if issubclass(each, Message) and each not in spoken and each is not Message
    ]
    groups["What they are made of"] = [
        *(each for each in here if not issubclass(each, Message)),
        *(each for each in _structs(task_model)),
    ]
    return "\n\n".join(f"### {title}\n\n{_table(group)}" for title, group in groups.items())


def audit_rules() -> str:
    """What `cyclone audit` demands of a store."""
    rows = [f"| `{rule}` | {RULES[rule]} |" for rule in Rule]
    return "\n".join(["| rule | what must be true |", "| --- | --- |", *rows])


def _structs(module: types.ModuleType) -> list[type[msgspec.Struct]]:
    return [
        each
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, msgspec.Struct) and each.__module__ == module.__name__
    ]


def _table(structs: Iterable[type[msgspec.Struct]]) -> str:
    rows = ["| name | fields | meaning |", "| --- | --- | --- |"]
    for struct in structs:
        meaning = inspect.cleandoc(struct.__doc__ or "").split("\n\n")
        paragraphs = [" ".join(paragraph.split()) for paragraph in meaning]
        rows.append(f"| `{struct.__name__}` | {_fields(struct)} | {' <br> '.join(paragraphs)} |")
    return "\n".join(rows)


def _fields(struct: type[msgspec.Struct]) -> str:
    # As they are written in the code, where `Token` says more than what it is made of.
    written = {
        name: text
        for each in reversed(struct.__mro__)
        for name, text in inspect.get_annotations(each).items()
    }
    # A bar would end the cell of the table.
    named = [f"`{name}: {written[name]}`".replace(" | ", " or ") for name in struct.__struct_fields__]
    return ", ".join(named) or "none"


def configuration() -> str:
    """Every key of every ini file."""
    files: dict[str, type[Settings]] = {
        "Master: `cyclone-master`, sample `Configuration/master.conf`": MasterSettings,
        "Controller: `cyclone-controller`, sample `Configuration/controller.conf`": ControllerSettings,
        "Database proxy: `cyclone-database-proxy`, sample `Configuration/database-proxy.conf`": DatabaseProxySettings,
        "Pushgateway client: `cyclone-pushgateway-client`, sample `Configuration/pushgateway-client.conf`": (
            PushgatewayClientSettings
        ),
        "`LustreOstMonitoringTaskGenerator`, sample `Configuration/LustreOstMonitoringTaskGenerator.conf`": (
            MonitoringSettings
        ),
        "`LustreOstMigrationTaskGenerator`, sample `Configuration/LustreOstMigrationTaskGenerator.conf`": (
            MigrationSettings
        ),
        "`ChecksumTaskGenerator`, sample `Configuration/checksum.conf`": ChecksumSettings,
        "`TaskListGenerator`, sample `Configuration/task-list.conf`": TaskListSettings,
        "`BenchmarkTaskGenerator`, sample `Configuration/benchmark.conf`": BenchmarkSettings,
    }
    return "\n\n".join(f"## {title}\n\n{_keys(kind)}" for title, kind in files.items())


def _keys(kind: type[Settings]) -> str:
    lines: list[str] = []
    section = None
    for setting in kind.schema():
        if setting.section != section:
            section = setting.section
            lines += [*([""] if lines else []), f"### `[{section}]`", ""]
        lines.append(_key(setting))
    return "\n".join(lines)


def _key(setting: Setting) -> str:
    name = "any name" if setting.key == ANY_KEY else f"`{setting.key}`"
    return f"* **{name}**: {_escaped(setting.meaning)} *{_escaped(setting.facts())}*"


def _escaped(text: str) -> str:
    return text.replace("*", "\\*")


#: `{page: {name of the part: what writes it}}`
def roles() -> str:
    """Who may say what where, as the doors have it."""
    rows = ["| role of the key | to the master | to a sink |", "| --- | --- | --- |"]
    for role in Role:
        said = (
            sorted(f"`{kind.__name__}`" for kind in house.may_say.get(role, ())) for house in (MASTER, SINK)
        )
        rows.append(f"| `{role}` | {' | '.join(', '.join(kinds) or 'nothing' for kinds in said)} |")
    return "\n".join(rows)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "architecture.md": {"lifecycle": lifecycle},
    "protocol.md": {"alphabet": alphabet},
    "configuration.md": {"configuration": configuration},
    "operating.md": {"rules of an audit": audit_rules},
    "../SECURITY.md": {"roles": roles},
}


def current(page: str) -> str:
    """The page as it should be. Raises ValueError when it has no place for one of its parts."""
    text = (HERE / page).read_text(encoding="utf-8")
    for name, write in PARTS[page].items():
        start, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not found_start or not found_end:
            raise ValueError(f"{page} has no place for {name}")
        text = f"{before}{start}\n\n{write()}\n\n{end}{after}"
    return text


def main() -> None:
    """Bring every page up to date."""
    for page in PARTS:
        (HERE / page).write_text(current(page), encoding="utf-8")


if __name__ == "__main__":
    main()
