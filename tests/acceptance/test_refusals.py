"""What bad input gets: one line that names it, an exit code of 3, and nothing left behind."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.cluster import Cluster, Sections, free_port, ini

from cyclone.errors import EXIT_ALREADY_RUNNING, EXIT_CONFIG
from cyclone.wire import keys

MASTER: Sections = {
    "control": {"pid_file": "master.pid"},
    "comm": {"target": "127.0.0.1", "port": 0},
    "task_generator": {"module": "jobs", "class": "Job"},
    "store": {"path": "store.db"},
    "security": {"key_dir": "keys"},
}

CONTROLLER: Sections = {
    # Not long: a controller waits for keys that are not there.
    "control": {
        "pid_file": "controller.pid",
        "request_retry_wait_duration": 0.1,
        "max_num_request_retries": 2,
    },
    "comm": {"target": "127.0.0.1", "port": 20_000},
    "processing": {"worker_count": 1},
    "security": {"key_dir": "keys"},
}

PLUGINS = {
    "jobs.py": """
from cyclone import BaseTask, TaskGenerator

class Job(TaskGenerator):
    def generate(self):
        return []

class NoGenerator:
    pass
""",
    "raising.py": "raise RuntimeError('I do not want to be imported')\n",
    "no_syntax.py": "class Job(:\n",
    "picky.py": """
from cyclone import TaskGenerator

class Job(TaskGenerator):
    def validate_config(self):
        self.config.integer("control", "num_tasks", minimum=1, maximum=10)

class Failing(TaskGenerator):
    def validate_config(self):
        raise ZeroDivisionError("while it was checked")

class Dying(TaskGenerator):
    def validate_config(self):
        import os
        os._exit(9)
""",
    "from_xml.py": """
from cyclone import TaskGenerator
from cyclone.task_file import TaskFile

class Job(TaskGenerator):
    def validate_config(self):
        TaskFile.read(self.config["task"]["task_file"])
""",
    "eleven.ini": "[control]\nnum_tasks = 11\n",
    "no-section.ini": "num_tasks = 1\n",
    "no-xml.ini": "[task]\ntask_file = nowhere.xml\n",
    "bad-xml.ini": "[task]\ntask_file = bad.xml\n",
    "bad.xml": "<tasks><task name='a'></tasks>\n",
    "empty-xml.ini": "[task]\ntask_file = empty.xml\n",
    "empty.xml": "<tasks></tasks>\n",
    "a-file": "",
}


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file below, with what is in it; but for what a refused start may leave.

    That is keys, which are made once and for all, and the lock beside a store: if it were removed, two processes
    could hold locks on two files of the same name.
    """
    found: dict[str, bytes | None] = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if name.split("/")[0] != "keys" and path.suffix != ".lock":
            found[name] = path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def place(cluster: Cluster) -> Cluster:
    """A directory with plug-ins, good and bad."""
    for name, text in PLUGINS.items():
        cluster.write(name, text)
    (cluster.directory / "a-directory").mkdir()
    return cluster


def assert_refused(
    place: Cluster, settings: Sections | str, *named: str, program: str = "master", code: int = EXIT_CONFIG
) -> str:
    """It says so in one line, ends with this code, and leaves the directory as it was. Return the line."""
    text = (
        settings
        if isinstance(settings, str)
        else ini(MASTER if program == "master" else CONTROLLER, settings)
    )
    config = place.write("bad.conf", text)
    before = contents(place.directory)

    ended = place.run("-f", config, program=program, within_s=15)

    # A plug-in that raised has its traceback told as well, in the log, which is the terminal here.
    lines = [line for line in ended.stderr.splitlines() if line.startswith(f"cyclone-{program}: ")]
    assert (ended.returncode, len(lines)) == (code, 1), ended.stderr
    assert all(name in lines[0] for name in named), lines[0]
    assert ended.stdout == ""
    assert contents(place.directory) == before
    assert place.processes() == {}
    return lines[0]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("control", "pid_file", "nowhere/master.pid"),
        ("control", "pid_file", "a-file/master.pid"),
        ("control", "controller_timeout", "-1"),
        ("control", "controller_timeout", "soon"),
        ("control", "controller_timeout", "nan"),
        ("control", "controller_wait_duration", "0.5"),
        ("control", "task_resend_timeout", "-1"),
        ("control", "when_finished", "maybe"),
        ("comm", "port", "1023"),
        ("comm", "port", "65536"),
        ("comm", "port", "http"),
        ("comm", "target", "999.1.1.1"),
        ("comm", "target", ""),
        ("comm", "poll_timeout", "-1"),
        ("comm", "port_file", "nowhere/port"),
        ("comm", "max_message_mb", "0"),
        ("log", "filename", "nowhere/master.log"),
        ("log", "filename", "a-file/master.log"),
        ("task_generator", "module", "nowhere"),
        ("task_generator", "module", "jobs.nowhere"),
        ("task_generator", "module", "raising"),
        ("task_generator", "module", "no_syntax"),
        ("task_generator", "module", ""),
        ("task_generator", "class", "Jab"),
        ("task_generator", "class", "NoGenerator"),
        ("task_generator", "class", "BaseTask"),
        ("task_generator", "class", ""),
        ("task_generator", "config_file", "nowhere.ini"),
        ("task_generator", "window", "0"),
        ("store", "path", "nowhere/store.db"),
        ("store", "path", "a-file/store.db"),
        ("store", "path", "a-directory"),
        ("store", "path", ""),
        ("store", "durability", "hardly"),
        ("store", "max_bytes", "1"),
        ("security", "key_dir", "a-file"),
        ("security", "curve", "perhaps"),
        ("security", "colour", "blue"),
        ("securety", "curve", "on"),
    ],
)
def test_a_master_names_the_setting_that_is_wrong(place: Cluster, section: str, key: str, value: str) -> None:
    line = assert_refused(place, {section: {key: value}})

    # The setting is named, or what it says: a path tells more than the key it stands under.
    assert f"[{section}] {key}" in line or (value or "\n") in line or section == "securety"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("control", "pid_file", "nowhere/controller.pid"),
        ("control", "name", "not a name"),
        ("control", "request_retry_wait_duration", "-1"),
        ("control", "max_num_request_retries", "often"),
        ("control", "state_dir", "nowhere/state"),
        ("control", "state_dir", "a-file"),
        ("comm", "port", "0"),
        ("comm", "port", "1023"),
        ("comm", "port", "65536"),
        ("comm", "target", "not a host"),
        ("comm", "poll_timeout", "0"),
        ("log", "filename", "nowhere/controller.log"),
        ("processing", "worker_count", "0"),
        ("processing", "worker_count", "1001"),
        ("processing", "stop_grace", "-1"),
        ("resources", "cpus", "many"),
        ("resources", "workers", "3"),
        ("security", "key_dir", "nowhere"),
        ("security", "key", "nobody"),
        ("security", "curve", "perhaps"),
        ("store", "path", "store.db"),
    ],
)
def test_a_controller_names_the_setting_that_is_wrong(
    place: Cluster, section: str, key: str, value: str
) -> None:
    keys.ensure(place.directory / "keys")

    line = assert_refused(place, {section: {key: value}}, program="controller")

    assert f"[{section}] {key}" in line or value in line or section == "store"


def test_the_line_says_file_section_key_found_and_expected(place: Cluster) -> None:
    assert_refused(
        place, {"comm": {"port": 1023}}, "bad.conf", "[comm] port", "found 1023", "expected", "1024 to 65535"
    )


def test_an_unknown_key_is_answered_with_the_one_that_was_meant(place: Cluster) -> None:
    assert_refused(place, {"comm": {"prot": 5555}}, "[comm] prot", "did you mean port?")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[control\npid_file = master.pid\n", "bad.conf"),
        ("pid_file = master.pid\n", "bad.conf"),
        ("[control]\npid_file = a\npid_file = b\n", "pid_file"),
        ("[control]\n[control]\n", "control"),
        ("\x00\x01", "bad.conf"),
    ],
)
def test_what_is_no_ini_file_is_refused(place: Cluster, text: str, named: str) -> None:
    assert_refused(place, text, named)


def test_a_missing_ini_file_is_named(place: Cluster) -> None:
    ended = place.run("-f", "nowhere.conf")

    assert (ended.returncode, ended.stderr.splitlines()) == (
        EXIT_CONFIG, ["cyclone-master: nowhere.conf: no such file; expected an ini file"]
    )  # fmt: skip


# Plug-ins.


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"module": "raising"}, "I do not want to be imported"),
        ({"module": "no_syntax"}, "SyntaxError"),
        ({"class": "Jab"}, "'Jab'; it has: Job"),
        ({"class": "NoGenerator"}, "is not a subclass of TaskGenerator"),
        ({"module": "picky", "config_file": "eleven.ini"}, "found 11, expected a whole number from 1 to 10"),
        ({"module": "picky", "config_file": "no-section.ini"}, "no-section.ini"),
        ({"module": "picky"}, "num_tasks"),
        ({"module": "picky", "class": "Failing"}, "while it was checked"),
        ({"module": "picky", "class": "Dying"}, "died before it was checked"),
        ({"module": "from_xml", "config_file": "no-xml.ini"}, "nowhere.xml"),
        ({"module": "from_xml", "config_file": "bad-xml.ini"}, "bad.xml: is not XML"),
        ({"module": "from_xml", "config_file": "empty-xml.ini"}, "empty.xml"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused(
    place: Cluster, section: dict[str, object], named: str
) -> None:
    assert_refused(place, {"task_generator": section}, named)


def test_a_plug_in_that_is_not_there_is_refused_with_the_place_where_it_is_named(place: Cluster) -> None:
    section = {"module": "nowhere", "class": "Job"}

    assert_refused(place, {"task_generator": section}, "bad.conf: [task_generator] module: ")


# Ports.


@pytest.mark.parametrize("target", ["127.0.0.1", "*"])
def test_a_port_that_is_taken_is_named(place: Cluster, target: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]

        assert_refused(place, {"comm": {"target": target, "port": port}}, str(port), "in use")


@pytest.mark.parametrize("target", ["*", "0.0.0.0", "192.0.2.1"])
def test_without_keys_nobody_listens_to_a_network(place: Cluster, target: str) -> None:
    settings = {"comm": {"target": target}, "security": {"curve": "off"}}

    assert_refused(place, settings, "[security] curve", target)


def test_without_keys_a_controller_speaks_to_no_network(place: Cluster) -> None:
    settings = {"comm": {"target": "192.0.2.1"}, "security": {"curve": "off"}}

    assert_refused(place, settings, "[security] curve", "192.0.2.1", program="controller")


# The store.


def other_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE task (number)")
        connection.execute("PRAGMA application_id = 0x43796353")
        connection.execute("PRAGMA user_version = 999")


def other_application(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE songs (title)")


def garbage(file: Path) -> None:
    file.write_bytes(b"This is no database. " * 1000)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (other_version, "found a store of version 999"),
        (other_application, "expected a store of Cyclone"),
        (garbage, "no database"),
    ],
)
def test_a_file_that_is_no_store_of_ours_is_left_alone(
    place: Cluster, make: Callable[[Path], None], named: str
) -> None:
    make(place.directory / "store.db")

    assert_refused(place, {}, "store.db", named)


def test_a_store_that_another_master_has_open_is_refused(place: Cluster) -> None:
    place.start_master({"task_generator": {"when_finished": None}, "control": {"when_finished": "wait"}})
    config = place.write("second.conf", ini(MASTER, {"control": {"pid_file": "second.pid"}}))

    second = place.run("-f", config)

    assert second.returncode == EXIT_ALREADY_RUNNING
    assert len(second.stderr.splitlines()) == 1
    assert "store.db: already running" in second.stderr
    assert not (place.directory / "second.pid").exists()


# Keys.


def readable_by_others(directory: Path) -> None:
    (directory / "master.secret").chmod(0o644)


def writable_by_others(directory: Path) -> None:
    directory.chmod(0o777)


def cut_short(directory: Path) -> None:
    os.truncate(directory / "master.secret", 20)


def exchanged(directory: Path) -> None:
    (directory / "controller.secret").replace(directory / "master.secret")


def list_writable_by_others(directory: Path) -> None:
    (directory / "authorized" / "client.public").chmod(0o666)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (readable_by_others, "master.secret: found mode 0644, expected 0600; run: chmod 600"),
        (writable_by_others, "keys: found mode 0777"),
        (cut_short, "master.secret: is not a key file"),
        (exchanged, "master.secret"),
        (list_writable_by_others, "client.public: found mode 0666"),
    ],
)
def test_keys_that_cannot_be_trusted_are_refused(
    place: Cluster, spoil: Callable[[Path], None], named: str
) -> None:
    keys.ensure(place.directory / "keys")
    spoil(place.directory / "keys")

    assert_refused(place, {}, named)


def test_a_controller_that_finds_no_keys_for_long_is_refused(place: Cluster) -> None:
    line = assert_refused(place, {}, "controller.secret: no such file", program="controller")

    assert "cyclone keys" in line


def test_a_key_of_a_controller_that_others_can_read_is_refused(place: Cluster) -> None:
    keys.ensure(place.directory / "keys")
    (place.directory / "keys" / "controller.secret").chmod(0o640)

    assert_refused(place, {}, "controller.secret: found mode 0640", program="controller")
