"""What the daemons of the sinks can be told by their ini files."""

# Each call below makes a field of its own; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclone.ini import Ini
from cyclone.settings import (
    Settings,
    check_curve,
    choice,
    curve_of_server,
    directories,
    host_and_port,
    key_dir,
    listening_target,
    log_file,
    metrics_port,
    metrics_target,
    names,
    path,
    port,
    port_file,
    seconds,
    secret,
    special,
    switch,
    text,
    whole,
)
from cyclone.sinks.batch import AGE_MAX_S, AGE_MIN_S, COUNT_MAX

#: Where the password of the database may stand in the environment.
PASSWORD_VARIABLE = "CYCLONE_DB_PASSWORD"  # noqa: S105 - the name of the variable


def _addresses(ini: Ini, section: str, key: str) -> tuple[str, ...]:
    found = names(ini, section, key)
    for address in found:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ini.wrong(section, key, f"found {address!r}, expected an IP address") from None
    return found


_PID_FILE = "Locked as long as this daemon lives; a second one on the same file is refused."
#: A controller delivers up to 2,000 records of 4 MiB together, with a job and a tid each: they must fit at once.
_SPOOL_LEAST_MB = 16
_PORT = "TCP port to listen on. 0 takes any free one."


@dataclass(frozen=True, kw_only=True)
class SinkSettings(Settings):
    """What every sink is told, whatever it does with records. pid_file, port: each has defaults of its own."""

    pid_file: Path = path("control", "pid_file", None, _PID_FILE)
    target: str = listening_target()
    poll_timeout_s: float = seconds(
        "comm", "poll_timeout", "2",
        "The longest sleep of the main loop while nothing happens. Nothing that comes in waits for it.",
    )  # fmt: skip
    port: int = port("comm", "port", None, _PORT)
    port_file: Path | None = port_file()
    log_file: Path | None = log_file()
    key_dir: Path = key_dir()
    curve: bool = curve_of_server()
    kind_modules: tuple[str, ...] = special(
        "records", "modules", "",
        "Modules with kinds of records besides Cyclone's own, separated by commas.", "dotted names, or nothing",
        names,
    )  # fmt: skip
    kind_path: tuple[Path, ...] = special(
        "records", "path", "",
        "More directories to look for these modules in, separated by colons, after PYTHONPATH and the working "
        "directory.",
        "paths, or nothing", directories,
    )  # fmt: skip
    legacy_port: int | None = whole(
        "legacy", "port", "",
        "TCP port for what tasks of Cyclone 2.x push, without keys, as long as some of them still run. Empty: none.",
        minimum=1024, maximum=65535,
    )  # fmt: skip
    legacy_target: str = text(
        "legacy", "target", "127.0.0.1", "Address of the interface for that.", "an IP address or *"
    )
    legacy_allow: tuple[str, ...] = special(
        "legacy", "allow", "",
        "Addresses of hosts that may push there, besides loopback addresses, separated by commas.",
        "IP addresses, or nothing", _addresses,
    )  # fmt: skip
    metrics_port: int | None = metrics_port()
    metrics_target: str = metrics_target()

    def check(self, ini: Ini) -> None:
        check_curve(ini, self.curve, {"[comm] target": self.target})


@dataclass(frozen=True, kw_only=True)
class DatabaseProxySettings(SinkSettings):
    """What the database proxy is told."""

    RENAMED = {("db", "passwd"): "password_file, password or the environment"}  # noqa: RUF012 - of Settings

    pid_file: Path = path("control", "pid_file", "/run/cyclone/database-proxy.pid", _PID_FILE)
    port: int = port("comm", "port", "5777", _PORT)
    dialect: str = choice(
        "db", "dialect", "mysql",
        "Which kind of database: mysql (also MariaDB), sqlite, which is a file and needs no server, or csv, which is "
        "a text file for each table.",
        ("mysql", "sqlite", "csv"),
    )  # fmt: skip
    legacy_fs: str = text(
        "legacy", "fs", "lustre", "The file system that such rows are about; they do not tell."
    )
    legacy_table: str = text(
        "legacy", "table", "",
        "The table of Cyclone 2.x whose rows --import-table copies; it is in the same database of a MySQL or MariaDB server.",
        "a name, or nothing",
    )  # fmt: skip
    legacy_view: str = text(
        "legacy", "view", "",
        "Name of a view that --create-table makes in such a server: records of the kind ost_perf, as the table of "
        "Cyclone 2.x showed them, for scripts that ask for its columns.",
        "a name, or nothing",
    )  # fmt: skip
    file: Path = path("db", "file", "/var/lib/cyclone/records.sqlite", "The file of an SQLite database.")
    directory: Path = path(
        "db", "directory", "/var/lib/cyclone/records", "The directory of the text files of csv."
    )
    host: str = text("db", "host", "localhost", "Host of the server.", "an IP address or a host name")
    db_port: int = whole("db", "port", "3306", "TCP port of the server.", minimum=1, maximum=65535)
    unix_socket: Path | None = path(
        "db", "unix_socket", "", "Socket of a server on this host, in the place of host and port.",
        "a path, or nothing",
    )  # fmt: skip
    user: str = text("db", "user", "cyclone", "Account to log in with.")
    password: str = secret(
        "db", "password", "",
        f"Its password; better in password_file, or in the environment as {PASSWORD_VARIABLE}.",
        "text", lambda password: "***" if password else "",
    )  # fmt: skip
    password_file: Path | None = path(
        "db", "password_file", "",
        "File whose first line is the password. Nobody but its owner may read it.", "a path, or nothing",
    )  # fmt: skip
    database: str = text("db", "database", "cyclone", "Name of the database.")
    table: str = text(
        "db", "table", "",
        "Table for records of the kind ost_perf, as Cyclone 2.x had it. Empty: the one of the kind, which is "
        "ost_perf_history. Other kinds have tables of their own.",
        "a name, or nothing",
    )  # fmt: skip
    ssl: Literal["disabled", "preferred", "required"] = choice(
        "db", "ssl", "preferred", "Whether the connection to the server is encrypted.",
        ("disabled", "preferred", "required"),
    )  # fmt: skip
    ssl_ca: Path | None = path(
        "db", "ssl_ca", "",
        "Certificate of the authority that must have signed that of the server, whose name is checked then, too.",
        "a path, or nothing",
    )  # fmt: skip
    ssl_cert: Path | None = path(
        "db", "ssl_cert", "", "Certificate of this client, for a server that asks for one.", "a path, or nothing"
    )  # fmt: skip
    ssl_key: Path | None = path("db", "ssl_key", "", "Its key.", "a path, or nothing")
    charset: str = choice(
        "db", "charset", "utf8mb4", "Character set of the connection. No other can write all texts.", ("utf8mb4",)
    )  # fmt: skip
    collation: str = text(
        "db", "collation", "", "Its collation. Empty: that of the server.", "a name, or nothing"
    )
    connect_timeout_s: float = seconds(
        "db", "connect_timeout", "10", "How long to wait for a connection.", minimum=1
    )
    answer_timeout_s: float = seconds(
        "db", "answer_timeout", "30",
        "How long the server may take for one batch before the connection is given up.", minimum=1,
    )  # fmt: skip
    store_timeout_s: float = seconds(
        "db", "store_timeout", "300", "The longest that a row waits for others to be stored with.",
        minimum=AGE_MIN_S, maximum=AGE_MAX_S,
    )  # fmt: skip
    store_max_count: int = whole(
        "db", "store_max_count", "1000",
        "So many rows are stored at once, without waiting for more. A backlog is stored in portions of up to so many, and "
        "up to 1000; smaller ones after a batch that was too slow for answer_timeout.",
        minimum=1, maximum=COUNT_MAX, unit="rows",
    )  # fmt: skip
    spool_file: Path = path(
        "spool", "file", "/var/lib/cyclone/database-proxy.spool",
        "Where rows wait, on a local disk, until the database has them.",
    )  # fmt: skip
    spool_max_mb: int = whole(
        "spool", "max_mb", "4096",
        "How much may wait there. Beyond it nothing more is taken, and controllers keep it.",
        minimum=_SPOOL_LEAST_MB, unit="MiB",
    )  # fmt: skip
    dead_letters: Path = path(
        "spool", "dead_letters", "/var/lib/cyclone/database-proxy.dead",
        "Where records go, with the reason, that no database would take.",
    )  # fmt: skip

    def check(self, ini: Ini) -> None:
        super().check(ini)
        for key, value in (("table", self.legacy_table), ("view", self.legacy_view)):
            if value and self.dialect != "mysql":
                raise ini.wrong("legacy", key, f"is for [db] dialect = mysql, found {self.dialect}")
        if (self.ssl_cert is None) != (self.ssl_key is None):
            missing = "ssl_cert" if self.ssl_cert is None else "ssl_key"
            raise ini.wrong("db", missing, "is empty, expected a path: ssl_cert and ssl_key go together")


@dataclass(frozen=True, kw_only=True)
class PushgatewayClientSettings(SinkSettings):
    """What the Pushgateway client is told."""

    RENAMED = {  # noqa: RUF012 - of Settings
        ("control", "push_interval"): "[push] interval",
        ("control", "push_url"): "[push] url",
    }

    pid_file: Path = path("control", "pid_file", "/run/cyclone/pushgateway-client.pid", _PID_FILE)
    port: int = port("comm", "port", "5888", _PORT)
    interval_s: float = seconds("push", "interval", "60", "How often everything is pushed.", minimum=0.1)
    url: str = secret(
        "push", "url", None,
        "The Pushgateway, such as http://gateway:9091; with a path such as /metrics/job/cyclone, that is the group, "
        "or else job and instance are. Empty: nothing is pushed, and Prometheus asks this daemon itself, at "
        "[metrics] port, or a node exporter reads textfile.",
        # A password may go on as far as the last @.
        "an URL, or nothing", lambda url: re.sub(r"//.*@", "//***@", url),
    )  # fmt: skip
    textfile: Path | None = path(
        "push", "textfile", "",
        "File that everything is written to as well, in the directory of a node exporter's textfile collector. "
        "Empty: none.",
        "a path that ends with .prom, or nothing",
    )  # fmt: skip
    job: str = text("push", "job", "cyclone", "The job of the group.")
    instance: str = text(
        "push", "instance", "", "The instance of the group. Empty: the name of this host.", "text, or nothing"
    )
    timeout_s: float = seconds("push", "timeout", "15", "How long one push may take.", minimum=0.1)
    delete_on_exit: bool = switch(
        "push",
        "delete_on_exit",
        "off",
        "Take the group out of the gateway, and the textfile away, when this client ends.",
    )
    stale_after_s: float = seconds(
        "push", "stale_after", "3600",
        "A series that no record has renewed for so long is left out of the next push.", minimum=1,
    )  # fmt: skip
    master: str = text(
        "master", "address", "",
        "The master, as HOST:PORT, whose own metrics are to be pushed along. Empty: none.",
        "HOST:PORT, or nothing",
    )  # fmt: skip

    def check(self, ini: Ini) -> None:
        super().check(ini)
        if not self.url and self.metrics_port is None and self.textfile is None:
            problem = "is empty, expected an URL, or a [metrics] port to be asked at, or a textfile"
            raise ini.wrong("push", "url", problem)
        if self.master:
            host_and_port(self.master, ini.file, "master", "address")
        if self.textfile is not None and self.textfile.suffix != ".prom":
            raise ini.wrong(
                "push",
                "textfile",
                f"found {self.textfile}, expected a name that ends with .prom: others are not read",
            )
