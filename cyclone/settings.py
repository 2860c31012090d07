"""What each daemon can be told by its ini file: one list of keys, from which everything else comes.

A settings class is a frozen dataclass whose fields carry the key they are read from, its default, its unit,
its range and its meaning. Reading, the refusal of unknown keys, `--check` and the comments of the sample
files are made from these fields; nothing about a key is said twice. Generators describe their own ini files
in the same way. Reading creates nothing and changes nothing.
"""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import stat
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from cyclone.errors import ConfigError
from cyclone.ini import Ini, others_who_may, too_open
from cyclone.model.resources import Shape, shape

#: Stands for the key of a section whose keys are free.
ANY_KEY = "*"

Reader = Callable[[Ini, str, str], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of an ini file.

    default: as it would be written in the file; None if the key must be there.
    expected: what a value may be, in words. unit: in words, "" if it has none.
    reader: makes the value from `(ini, section, key)` and raises ConfigError.
    shown: what `--check` tells of a value that holds a secret.
    """

    section: str
    key: str
    default: str | None
    meaning: str
    expected: str
    reader: Reader
    unit: str = ""
    shown: Callable[[str], str] = str

    def facts(self) -> str:
        """Unit, expectation and default, in one line."""
        unit = f"Unit: {self.unit}. " if self.unit else ""
        default = "none, it must be given" if self.default is None else self.default or "(empty)"
        return f"{unit}Expected: {self.expected}. Default: {default}"

    def comment(self) -> list[str]:
        """The lines that stand above the key in a sample file."""
        wrapped = [line for text in (self.meaning, self.facts()) for line in textwrap.wrap(text, 98)]
        return [f"# {line}" for line in wrapped]


# Fields. Each declares one key; the type of the field says what comes out of it.


def text(section: str, key: str, default: str | None, meaning: str, expected: str = "text") -> Any:
    """Any text; it must not be empty unless the default is."""

    def read(ini: Ini, section: str, key: str) -> str:
        value = ini.text(section, key)
        if not value and default != "":
            raise ini.wrong(section, key, f"is empty, expected {expected}")
        return value

    return special(section, key, default, meaning, expected, read)


def path(section: str, key: str, default: str | None, meaning: str, expected: str = "a path") -> Any:
    """A path as it was written; None if it is empty, which it may be only if the default is."""

    def read(ini: Ini, section: str, key: str) -> Path | None:
        value = ini.text(section, key)
        if not value and default != "":
            raise ini.wrong(section, key, f"is empty, expected {expected}")
        return Path(value) if value else None

    return special(section, key, default, meaning, expected, read)


def directory(section: str, key: str, default: str, meaning: str) -> Any:
    """The path of a directory, which may still have to be made."""
    return special(section, key, default, meaning, "a path", _directory)


def choice(section: str, key: str, default: str, meaning: str, choices: tuple[str, ...]) -> Any:
    """One of a few words."""

    def read(ini: Ini, section: str, key: str) -> str:
        return ini.text(section, key, choices=choices)

    return special(section, key, default, meaning, " or ".join(choices), read)


def switch(section: str, key: str, default: str, meaning: str) -> Any:
    """On or off, in any of the usual spellings."""

    def read(ini: Ini, section: str, key: str) -> bool:
        return ini.boolean(section, key)

    return special(section, key, default, meaning, "on or off", read)


def whole(
    section: str, key: str, default: str | None, meaning: str,
    *, minimum: int = 0, maximum: int | None = None, unit: str = "",
) -> Any:  # fmt: skip
    """A whole number; None if it is empty, which it may be only if the default is."""

    def read(ini: Ini, section: str, key: str) -> int | None:
        if default == "" and not ini.text(section, key):
            return None
        return ini.integer(section, key, minimum=minimum, maximum=maximum)

    expected = "a whole number " + _range(minimum, maximum) + (", or nothing" if default == "" else "")
    return special(section, key, default, meaning, expected, read, unit)


def seconds(
    section: str, key: str, default: str, meaning: str, *, minimum: float = 0, maximum: float | None = None
) -> Any:
    """A duration; None if it is empty, which it may be only if the default is."""

    def read(ini: Ini, section: str, key: str) -> float | None:
        if default == "" and not ini.text(section, key):
            return None
        return ini.seconds(section, key, minimum=minimum, maximum=maximum)

    expected = "a number " + _range(minimum, maximum) + (", or nothing" if default == "" else "")
    return special(section, key, default, meaning, expected, read, "seconds")


_PORT = "0 or a whole number from 1024 to 65535"


def port(section: str, key: str, default: str | None, meaning: str) -> Any:
    """A TCP port to listen on."""
    return special(section, key, default, meaning, _PORT, _port)


def special(
    section: str, key: str, default: str | None, meaning: str, expected: str, reader: Reader, unit: str = ""
) -> Any:
    """A value with a reader of its own."""
    return field(metadata={"setting": Setting(section, key, default, meaning, expected, reader, unit)})


def secret(
    section: str, key: str, default: str | None, meaning: str, expected: str, shown: Callable[[str], str]
) -> Any:
    """Text that is, or holds, a secret: neither a log nor a traceback nor `--check` tells it."""
    setting = Setting(section, key, default, meaning, expected, Ini.text, shown=shown)
    return field(repr=False, metadata={"setting": setting})


def _port(ini: Ini, section: str, key: str) -> int:
    text = ini.text(section, key)
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
    if number != 0 and not 1024 <= number <= 65535:
        raise ini.wrong(section, key, f"found {text or 'nothing'}, expected {_PORT}")
    return number


def _range(minimum: float, maximum: float | None) -> str:
    return f"from {minimum}" if maximum is None else f"from {minimum} to {maximum}"


# Reading them.


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one ini file says, checked and complete. ini_file: that one, to name it in errors."""

    ini_file: str | Path | None = None

    #: `{(section, key) of Cyclone 2.x: what says it now}`, where nobody would guess it.
    RENAMED: ClassVar[Mapping[tuple[str, str], str]] = {}

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Raises ConfigError with file, section, key, what was found and what was expected."""
        return cls.of(Ini.read(file))

    @classmethod
    def of(cls, ini: Ini) -> Self:
        """As `read`, from what was read already."""
        cls._refuse_unknown(ini)
        cls._keep_secrets(ini)
        complete = cls._with_defaults(ini)
        settings = cls(ini_file=ini.file, **{
            name: setting.reader(complete, setting.section, setting.key)
            for name, setting in cls._by_field().items()
        })  # fmt: skip
        settings.check(ini)
        return settings

    @classmethod
    def schema(cls) -> list[Setting]:
        """Every key, in the order in which it is told of: section by section."""
        settings = cls._by_field().values()
        sections = list(dict.fromkeys(setting.section for setting in settings))
        return sorted(settings, key=lambda setting: sections.index(setting.section))

    @classmethod
    def explain(cls, ini: Ini) -> str:
        """What each setting is, where its value came from, and what it means: the answer to `--check`."""
        cls.of(ini)
        lines: list[str] = []
        section = None
        for setting in cls.schema():
            if setting.section != section:
                section = setting.section
                lines += [*([""] if lines else []), f"[{section}]"]
            given = ini.sections().get(section, {})
            if setting.key == ANY_KEY:
                told = [f"{key} = {value.strip()}  (file)" for key, value in given.items()]
                told = told or ["nothing named  (default)"]
            else:
                source = "file" if setting.key in given else "default"
                value = setting.shown(given.get(setting.key, setting.default or "").strip()) or "(empty)"
                told = [f"{setting.key} = {value}{' ' * bool(setting.unit)}{setting.unit}  ({source})"]
            lines += [f"  {line}" for line in told]
            for meaning in (setting.meaning, setting.facts()):
                lines += textwrap.wrap(meaning, 98, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return "\n".join(lines)

    def check(self, ini: Ini) -> None:
        """Rules that concern more than one key. Raises ConfigError."""

    @classmethod
    def _by_field(cls) -> dict[str, Setting]:
        return {one.name: one.metadata["setting"] for one in fields(cls) if "setting" in one.metadata}

    @classmethod
    def _with_defaults(cls, ini: Ini) -> Ini:
        complete = {section: dict(keys) for section, keys in ini.sections().items()}
        for setting in cls.schema():
            keys = complete.setdefault(setting.section, {})
            if setting.default is not None and setting.key != ANY_KEY:
                keys.setdefault(setting.key, setting.default)
        return Ini(complete, ini.file)

    @classmethod
    def _keep_secrets(cls, ini: Ini) -> None:
        """Refuse a file that holds a secret and that others can read. The group may, if somebody has chosen it: where
        the file belongs to the daemon, nobody has, for it would need no group to read it."""
        found = ini.sections()
        secrets = [
            f"[{setting.section}] {setting.key}"
            for setting in cls.schema()
            if (value := found.get(setting.section, {}).get(setting.key, "")) != setting.shown(value)
        ]
        if not secrets or ini.status is None or ini.file is None:
            return
        is_ours = ini.status.st_uid == os.geteuid() != 0
        others = others_who_may(ini.status, stat.S_IROTH)
        if others == "everybody" or (others and is_ours):
            problem = f"{others} can read {' and '.join(secrets)}"
            change = "go-rwx" if is_ours else "o-rwx"
            raise ConfigError(too_open(ini.status, problem, change, ini.file), file=ini.file)

    @classmethod
    def _refuse_unknown(cls, ini: Ini) -> None:
        known: dict[str, list[str]] = {}
        for setting in cls.schema():
            known.setdefault(setting.section, []).append(setting.key)
        for section, keys in ini.sections().items():
            if section not in known:
                raise ConfigError(
                    f"unknown section{_did_you_mean(section, known)}", file=ini.file, section=section
                )
            for key in keys:
                if key in known[section] or ANY_KEY in known[section]:
                    continue
                if renamed := cls.RENAMED.get((section, key)):
                    raise ini.wrong(section, key, f"is a key of Cyclone 2.x, now it is {renamed}")
                raise ini.wrong(section, key, f"unknown key{_did_you_mean(key, known[section])}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of: {', '.join(known)}"


def is_loopback(host: str) -> bool:
    """Does this address or name never leave this host?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_ipv6(target: str) -> bool:
    return ":" in target


def endpoint(target: str, port: int) -> str:
    """The address as ZeroMQ writes it."""
    return f"tcp://[{target.strip('[]')}]:{port}" if is_ipv6(target) else f"tcp://{target}:{port}"


def reachable(target: str) -> str:
    """Where this host reaches itself, if it listens there."""
    return {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(target, target)  # noqa: S104


# Readers for values of a special kind.


def directories(ini: Ini, section: str, key: str) -> tuple[Path, ...]:
    """Where modules are looked for; separated by colons, as in PATH. What everybody could put there is refused."""
    found = tuple(Path(part) for part in ini.text(section, key).split(":") if part)
    for directory in filter(os.path.isdir, found):
        # The group may: people who work together share such directories.
        if (status := os.stat(directory)).st_mode & stat.S_IWOTH:
            problem = too_open(status, "everybody can write to it", "o-w", directory)
            raise ini.wrong(section, key, f"{directory}: {problem}")
    return found


def _directory(ini: Ini, section: str, key: str) -> Path:
    value = ini.text(section, key)
    if not value:
        raise ini.wrong(section, key, "is empty, expected a path")
    if os.path.exists(value) and not os.path.isdir(value):
        raise ini.wrong(section, key, f"{value}: found a file, expected a directory")
    return Path(value)


def names(ini: Ini, section: str, key: str) -> tuple[str, ...]:
    """Separated by commas."""
    return tuple(part.strip() for part in ini.text(section, key).split(",") if part.strip())


def _workers(ini: Ini, section: str, key: str) -> int:
    if ini.text(section, key) == "cores":
        return min(len(os.sched_getaffinity(0)), 1000)
    return ini.integer(section, key, minimum=1, maximum=1000)


def _days(ini: Ini, section: str, key: str) -> float | None:
    value = ini.text(section, key)
    if value == "forever":
        return None
    try:
        days = float(value)
    except ValueError:
        days = math.nan
    if not 0 < days <= 100_000:
        raise ini.wrong(section, key, f"found {value!r}, expected a number of days above 0, or forever")
    return days


def _amounts(ini: Ini, section: str, key: str) -> Shape:
    amounts = ini.sections().get(section, {})
    for name, value in amounts.items():
        if name == "workers":
            raise ini.wrong(section, name, "is counted by [processing] worker_count; expected another name")
        try:
            shape({name: value})
        except ValueError as error:
            raise ini.wrong(section, name, f"{error}") from None
    return shape(amounts)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def _name(ini: Ini, section: str, key: str) -> str:
    value = ini.text(section, key)
    if value and not _NAME.match(value):
        raise ini.wrong(section, key, f"found {value!r}, expected {_NAME_EXPECTED}")
    return value


class SinkAddress(NamedTuple):
    """Where the daemon of a sink listens, and the name by which tasks know it."""

    name: str
    host: str
    port: int


_SINK = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>\d{1,5})\Z")


def host_and_port(value: str, file: str | Path | None, section: str, key: str) -> tuple[str, int]:
    """The parts of `HOST:PORT`; an IPv6 address stands in brackets. Raises ConfigError."""
    address = _HOST_AND_PORT.match(value.strip())
    if address is None or not 1024 <= int(address["port"]) <= 65535:
        problem = f"found {value!r}, expected HOST:PORT with a port from 1024 to 65535"
        raise ConfigError(problem, file=file, section=section, key=key)
    return address["host"].strip("[]"), int(address["port"])


def _sinks(ini: Ini, section: str, key: str) -> tuple[SinkAddress, ...]:
    found = []
    for name, value in ini.sections().get(section, {}).items():
        if not _SINK.match(name):
            raise ini.wrong(section, name, "is no name for a sink, expected small letters, digits, - and _")
        found.append(SinkAddress(name, *host_and_port(value, ini.file, section, name)))
    return tuple(found)


_NAME_EXPECTED = "up to 64 letters, digits, dots, dashes and underscores"


# Keys that several daemons have. Each call makes a field, as above.


def listening_target() -> Any:
    """Where a server listens."""
    return text(
        "comm", "target", "*",
        "Address of the interface to listen on; * is all of them.", "an IP address, a host name or *",
    )  # fmt: skip


def port_file() -> Any:
    return path(
        "comm", "port_file", "",
        "File that the number of the port is written to once it is open. Empty: none.", "a path, or nothing",
    )  # fmt: skip


def log_file() -> Any:
    return path(
        "log", "filename", "", "The log. Empty: standard error. It is reopened when somebody has moved it away.",
        "a path, or nothing",
    )  # fmt: skip


def key_dir() -> Any:
    """Of a server."""
    return directory(
        "security", "key_dir", "/var/lib/cyclone/keys",
        "Directory of the keys. The first start of a master makes it, readable by its owner alone.",
    )  # fmt: skip


def curve_of_server() -> Any:
    """See `check_curve`."""
    return switch(
        "security", "curve", "on",
        "Encryption, and proof of identity by keys, of every connection. off is refused unless target is "
        "a loopback address.",
    )  # fmt: skip


def metrics_port() -> Any:
    return whole(
        "metrics", "port", "", "TCP port on which Prometheus can ask this daemon for its metrics. Empty: none.",
        minimum=1024, maximum=65535,
    )  # fmt: skip


def metrics_target() -> Any:
    return text(
        "metrics", "target", "127.0.0.1",
        "Address of the interface for metrics. There are no keys there: whoever reaches it can read them.",
        "an IP address or a host name",
    )  # fmt: skip


def task_packages() -> Any:
    return special(
        "task", "packages", "",
        "The packages that tasks of task_file may come from, separated by commas; Cyclone's own may always be used. "
        "Empty: any.",
        "dotted names, or nothing", names,
    )  # fmt: skip


def check_curve(ini: Ini, curve: bool, hosts: Mapping[str, str]) -> None:
    """Keys may be switched off only where nobody else is. hosts: `{section and key: address}`. Raises ConfigError."""
    for key, host in hosts.items():
        if not curve and not is_loopback(host):
            problem = f"is off while {key} is {host}; expected on, or a loopback address"
            raise ini.wrong("security", "curve", problem)


@dataclass(frozen=True, kw_only=True)
class MasterSettings(Settings):
    """What a master is told. Durations in seconds; relative paths are relative to the working directory."""

    pid_file: Path = path(
        "control", "pid_file", "/run/cyclone/master.pid",
        "Locked as long as this master lives; a second master on the same file is refused.",
    )  # fmt: skip
    controller_timeout_s: float = seconds(
        "control", "controller_timeout", "20",
        "How long a silent controller is waited for before its tasks are given to others; also how long a "
        "restarted master waits for its controllers. Anything below 1 counts as 1: controllers report "
        "at a third of it, and a shorter one would take every pause for a loss.",
    )  # fmt: skip
    controller_wait_duration_s: int = whole(
        "control", "controller_wait_duration", "1",
        "Kept so that ini files of Cyclone 2.x go on working; controllers report instead of asking, so nothing "
        "waits for it.",
        unit="seconds",
    )  # fmt: skip
    task_resend_timeout_s: int = whole(
        "control", "task_resend_timeout", "28800",
        "How long an attempt's controller may be silent before the attempt is given to another one, where this "
        "is shorter than controller_timeout; attempts that the controller reports are never given out again. "
        "0: controller_timeout alone decides.",
        unit="seconds",
    )  # fmt: skip
    when_finished: str = choice(
        "control", "when_finished", "stop",
        "What to do when the generator and all its tasks have ended: stop, and take the controllers along, "
        "or wait for clients. A master without [task_generator] always waits.",
        ("stop", "wait"),
    )  # fmt: skip
    target: str = listening_target()
    port: int = port(
        "comm", "port", "5555",
        "TCP port to listen on. 0 takes any free one; it is written to the log and to port_file.",
    )  # fmt: skip
    port_file: Path | None = port_file()
    poll_timeout_s: float = seconds(
        "comm", "poll_timeout", "1",
        "The longest sleep of the main loop while nothing happens. Nothing that comes in waits for it.",
    )  # fmt: skip
    max_message_mb: int = whole(
        "comm", "max_message_mb", "64",
        "A peer that sends more in one frame is disconnected. One task or one result may have 32 MiB and "
        "travels with others, so less than 64 would not do.",
        minimum=64, maximum=1024, unit="MiB",
    )  # fmt: skip
    log_file: Path | None = log_file()
    generator_module: str = text(
        "task_generator", "module", "",
        "Module of the task generator, by its dotted name. The whole section may be missing: such a "
        "master serves clients only.",
    )  # fmt: skip
    generator_class: str = text("task_generator", "class", "", "Class of the task generator.")
    generator_config_file: Path | None = path(
        "task_generator", "config_file", "",
        "The ini file of the task generator. Empty: it needs none.", "a path, or nothing",
    )  # fmt: skip
    plugin_path: tuple[Path, ...] = special(
        "task_generator", "path", "",
        "More directories to look for modules in, separated by colons, after PYTHONPATH and the working "
        "directory.",
        "paths, or nothing", directories,
    )  # fmt: skip
    job: str = special(
        "task_generator", "job", "",
        "Name of the job that the tasks belong to. Empty: the name of the class. A job that was cut short is "
        "resumed by its name.",
        f"{_NAME_EXPECTED}, or nothing", _name,
    )  # fmt: skip
    window: int = whole(
        "task_generator", "window", "100000",
        "How many tasks of a job may be handed in and not ended at any time; the generator waits when there are "
        "so many.",
        minimum=1, maximum=10_000_000, unit="tasks",
    )  # fmt: skip
    store_path: Path = path(
        "store", "path", "/var/lib/cyclone/store.db",
        "The file that remembers every task, on a local disk (not NFS or Lustre). Two more files with "
        "the same beginning stand next to it.",
    )  # fmt: skip
    durability: str = choice(
        "store", "durability", "full",
        "full: what was accepted survives a loss of power. normal: it survives the death of the master "
        "but perhaps not a loss of power, and is faster on slow disks.",
        ("full", "normal"),
    )  # fmt: skip
    store_max_bytes: int | None = whole(
        "store", "max_bytes", "",
        "No new tasks are taken while the store is larger than this, and generators wait. What was taken goes on, "
        "so it may grow somewhat more. Empty: the disk is the bound.",
        minimum=1_048_576, unit="bytes",
    )  # fmt: skip
    keep_finished_days: float | None = special(
        "store", "keep_finished", "30",
        "For how long a job and its tasks are remembered after the job was closed. Then nothing knows them any more, "
        "and their room is used again. forever: the store grows with every task.",
        "a number above 0, or forever", _days, "days",
    )  # fmt: skip
    key_dir: Path = key_dir()
    curve: bool = curve_of_server()
    metrics_port: int | None = metrics_port()
    metrics_target: str = metrics_target()

    @property
    def keep_s(self) -> float | None:
        """How long closed jobs are remembered; None: for ever."""
        return None if self.keep_finished_days is None else self.keep_finished_days * 86_400

    @property
    def lease_s(self) -> float:
        """How long a silent controller's attempts stay its own."""
        bounds = [self.controller_timeout_s]
        if self.task_resend_timeout_s:
            bounds.append(self.task_resend_timeout_s)
        return max(1.0, min(bounds))

    @property
    def max_message_bytes(self) -> int:
        return self.max_message_mb * 2**20

    @property
    def has_generator(self) -> bool:
        return bool(self.generator_module)

    @property
    def stops_when_finished(self) -> bool:
        return self.has_generator and self.when_finished == "stop"

    @property
    def job_name(self) -> str:
        """The name of the generator's job."""
        return self.job or self.generator_class

    def check(self, ini: Ini) -> None:
        if self.generator_module or self.generator_class or self.generator_config_file:
            for key, value in (("module", self.generator_module), ("class", self.generator_class)):
                if not value:
                    raise ini.wrong("task_generator", key, "is missing; the name of a Python " + key)
        if self.generator_config_file is not None and not os.path.isfile(self.generator_config_file):
            problem = f"found {str(self.generator_config_file)!r}, expected a file that exists"
            raise ini.wrong("task_generator", "config_file", problem)
        check_curve(ini, self.curve, {"[comm] target": self.target})


@dataclass(frozen=True, kw_only=True)
class ControllerSettings(Settings):
    """What a controller is told. Durations in seconds; relative paths are relative to the working directory."""

    pid_file: Path = path(
        "control", "pid_file", "/run/cyclone/controller.pid",
        "Locked as long as this controller lives; a second controller on the same file is refused.",
    )  # fmt: skip
    name: str = special(
        "control", "name", "",
        "Tells this controller from others that use the same key; no two may have the same. Empty: the name of "
        "the host and that of the PID file, so several on one host need PID files of different names.",
        f"{_NAME_EXPECTED}, or nothing", _name,
    )  # fmt: skip
    request_retry_wait_duration_s: float = seconds(
        "control", "request_retry_wait_duration", "5",
        "How long to wait between two tries to reach the master.",
    )  # fmt: skip
    max_num_request_retries: int = whole(
        "control", "max_num_request_retries", "3",
        "How often to try again to reach a master that does not answer, or to find the keys that it makes. Then the "
        "controller ends with an error as soon as what it runs has ended, and keeps the results for its next start.",
        unit="tries",
    )  # fmt: skip
    given_state_dir: Path | None = path(
        "control", "state_dir", "",
        "Directory for results that the master has not taken yet, and for records that their sinks have not "
        "taken yet; on a local disk. Empty: next to the PID file, with the ending .state.",
        "a path, or nothing",
    )  # fmt: skip
    target: str = text(
        "comm", "target", "127.0.0.1", "Address of the master.", "an IP address or a host name"
    )
    port: int = whole("comm", "port", "5555", "TCP port of the master.", minimum=1024, maximum=65535)
    poll_timeout_s: float = seconds(
        "comm", "poll_timeout", "2",
        "The longest sleep of the main loop while nothing happens. Nothing that comes in waits for it.",
        minimum=0.001,
    )  # fmt: skip
    log_file: Path | None = log_file()
    worker_count: int = special(
        "processing", "worker_count", "8",
        "How many tasks may run at the same time, each in a process of its own. cores: one for each core "
        "that this controller may use.",
        "a whole number from 1 to 1000, or cores", _workers, "processes",
    )  # fmt: skip
    stop_grace_s: float = seconds(
        "processing", "stop_grace", "10",
        "How long a task that must stop may take after SIGTERM before it gets SIGKILL.",
    )  # fmt: skip
    hung_after_s: float = seconds(
        "processing", "hung_after", "60",
        "How long a worker may survive SIGKILL (stuck in the kernel, say) before it is declared hung and "
        "its place is lost.",
    )  # fmt: skip
    resources: Shape = special(
        "resources", ANY_KEY, "",
        "Amounts that tasks can ask for: any name = an amount. Without cpus there are as many cpus as "
        "workers.",
        "amounts such as 2, 0.5 or 64GiB", _amounts,
    )  # fmt: skip
    sinks: tuple[SinkAddress, ...] = special(
        "sinks", ANY_KEY, "",
        "Where records of tasks go: the name that tasks use = the address of the sink's daemon, such as "
        "database = 127.0.0.1:5777 and pushgateway = 127.0.0.1:5888.",
        "HOST:PORT", _sinks,
    )  # fmt: skip
    spool_max_mb: int = whole(
        "spool", "max_mb", "1024",
        "Records are kept on disk, in state_dir, until their sink has them. This is how much may wait there.",
        minimum=1, unit="MiB",
    )  # fmt: skip
    spool_when_full: str = choice(
        "spool", "when_full", "wait",
        "What to do when so much waits: wait (no task is begun until some of it was delivered) or drop_oldest "
        "(the oldest records are lost, which is logged).",
        ("wait", "drop_oldest"),
    )  # fmt: skip
    key_dir: Path = directory(
        "security", "key_dir", "/var/lib/cyclone/keys",
        "Directory of the keys: the public one of the master, that of the sinks if there are any, and the secret "
        "one of this controller.",
    )  # fmt: skip
    key: str = special(
        "security", "key", "controller",
        "Which secret in key_dir to use, by the name of its file without the ending.",
        _NAME_EXPECTED, _name,
    )  # fmt: skip
    curve: bool = switch(
        "security", "curve", "on",
        "Encryption, and proof of identity by keys; as the master has it. off is refused unless target is a "
        "loopback address.",
    )  # fmt: skip

    metrics_port: int | None = metrics_port()
    metrics_target: str = metrics_target()

    @property
    def keys(self) -> Path | None:
        """The directory of the keys; None if they are switched off."""
        return self.key_dir if self.curve else None

    @property
    def state_dir(self) -> Path:
        """Where results wait that the master has not taken yet, and records that no sink has taken yet."""
        return self.given_state_dir or self.pid_file.with_suffix(".state")

    @property
    def room(self) -> Shape:
        """What the attempts here may use together, `workers` among it."""
        amounts = dict(self.resources)
        workers = dict(shape({"workers": self.worker_count}))["workers"]
        return tuple(sorted({"cpus": workers, **amounts, "workers": workers}.items()))

    def check(self, ini: Ini) -> None:
        if not self.key:
            raise ini.wrong("security", "key", f"is empty, expected {_NAME_EXPECTED}")
        sinks = {f"[sinks] {sink.name}": sink.host for sink in self.sinks}
        check_curve(ini, self.curve, {"[comm] target": self.target, **sinks})


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How a client reaches the master, as the ini file of that master or of one of its controllers tells it."""

    target: str
    port: int
    key_dir: Path
    curve: bool

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Raises ConfigError; also when the port is any free one and the master has not written which."""
        ini = Ini.read(file)
        # The two kinds of file differ in sections that the other one must not have.
        kind = ControllerSettings if "processing" in ini else MasterSettings
        known = {setting.section for setting in kind.schema()} & {"comm", "security"}
        part = kind._with_defaults(Ini({s: k for s, k in ini.sections().items() if s in known}, ini.file))
        target = part.text("comm", "target")
        return cls(
            target=reachable(target),
            port=_port(part, "comm", "port") or _written_port(part),
            key_dir=_directory(part, "security", "key_dir"),
            curve=part.boolean("security", "curve"),
        )


def _written_port(ini: Ini) -> int:
    file = ini.text("comm", "port_file", "")
    try:
        return int(Path(file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        problem = "found 0, expected the number of a port, or a port_file that a running master has written"
        raise ini.wrong("comm", "port", problem) from None
