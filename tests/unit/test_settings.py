from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.model.resources import UNIT
from cyclone.settings import ClientSettings, ControllerSettings, MasterSettings, Settings, is_loopback


def ini(**sections: Mapping[str, str]) -> Ini:
    return Ini(sections, "some.conf")


def refused(kind: type[Settings], **sections: Mapping[str, str]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        kind.of(ini(**sections))
    return caught.value


# What is read.


def test_an_empty_file_gives_the_defaults_of_a_master() -> None:
    settings = MasterSettings.of(ini())

    assert settings.pid_file == Path("/run/cyclone/master.pid")
    assert settings.controller_timeout_s == 20
    assert settings.controller_wait_duration_s == 1
    assert settings.task_resend_timeout_s == 28800
    assert (settings.target, settings.port, settings.port_file) == ("*", 5555, None)
    assert settings.max_message_bytes == 64 * 2**20
    assert settings.log_file is None
    assert settings.store_max_bytes is None
    assert settings.curve is True


def test_an_empty_file_gives_the_defaults_of_a_controller() -> None:
    settings = ControllerSettings.of(ini())

    assert settings.pid_file == Path("/run/cyclone/controller.pid")
    assert settings.state_dir == Path("/run/cyclone/controller.state")
    assert (settings.request_retry_wait_duration_s, settings.max_num_request_retries) == (5, 3)
    assert (settings.target, settings.port, settings.poll_timeout_s) == ("127.0.0.1", 5555, 2)
    assert (settings.worker_count, settings.stop_grace_s, settings.hung_after_s) == (8, 10, 60)
    assert settings.key == "controller"


def test_a_file_is_read_with_its_values(tmp_path: Path) -> None:
    file = tmp_path / "master.conf"
    file.write_text("[comm]\ntarget = 10.0.0.1\nport = 6000\n[store]\nmax_bytes = 2097152\n")

    settings = MasterSettings.read(file)

    assert (settings.target, settings.port, settings.store_max_bytes) == ("10.0.0.1", 6000, 2097152)


def test_a_directory_for_modules_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)

    error = refused(
        MasterSettings, task_generator={"module": "m", "class": "Tasks", "path": f"/a:{tmp_path}"}
    )

    assert (error.section, error.key) == ("task_generator", "path")
    assert f"{tmp_path}: found mode 1777: everybody can write to it" in str(error)


def test_people_who_work_together_may_share_a_directory_for_modules(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)

    settings = MasterSettings.of(ini(task_generator={"module": "m", "class": "Tasks", "path": str(tmp_path)}))

    assert settings.plugin_path == (tmp_path,)


def test_a_master_without_a_generator_waits_for_clients() -> None:
    settings = MasterSettings.of(ini(control={"when_finished": "stop"}))

    assert not settings.has_generator
    assert not settings.stops_when_finished


def test_a_master_with_a_generator_stops_when_it_has_finished() -> None:
    settings = MasterSettings.of(ini(task_generator={"module": "m", "class": "Tasks", "path": "/a:b"}))

    assert settings.stops_when_finished
    assert settings.job_name == "Tasks"
    assert settings.plugin_path == (Path("/a"), Path("b"))


def test_a_job_may_have_a_name_of_its_own() -> None:
    settings = MasterSettings.of(ini(task_generator={"module": "m", "class": "Tasks", "job": "nightly"}))

    assert settings.job_name == "nightly"


@pytest.mark.parametrize(("written", "lease_s"), [("0", 1), ("0.5", 1), ("20", 20)])
def test_a_lease_is_a_second_at_least(written: str, lease_s: float) -> None:
    assert MasterSettings.of(ini(control={"controller_timeout": written})).lease_s == lease_s


def test_a_controller_has_as_many_cpus_as_workers() -> None:
    settings = ControllerSettings.of(ini(processing={"worker_count": "3"}))

    assert settings.room == (("cpus", 3 * UNIT), ("workers", 3 * UNIT))


def test_a_controller_has_the_resources_that_are_named() -> None:
    settings = ControllerSettings.of(
        ini(processing={"worker_count": "3"}, resources={"cpus": "2", "memory": "1k"})
    )

    assert settings.room == (("cpus", 2 * UNIT), ("memory", 1024 * UNIT), ("workers", 3 * UNIT))


def test_worker_count_may_follow_the_cores() -> None:
    settings = ControllerSettings.of(ini(processing={"worker_count": "cores"}))

    assert settings.worker_count >= 1


def test_a_state_directory_may_be_given() -> None:
    settings = ControllerSettings.of(ini(control={"state_dir": "elsewhere"}))

    assert settings.state_dir == Path("elsewhere")


# What is refused.


@pytest.mark.parametrize(
    "sections", [{}, {"processing": {"worker_count": "1"}}], ids=["master", "controller"]
)
def test_a_file_in_place_of_the_keys_is_refused_with_its_key(tmp_path: Path, sections) -> None:
    kind = ControllerSettings if sections else MasterSettings
    wrong = tmp_path / "a file"
    wrong.touch()
    found = {"security": {"key_dir": str(wrong)}, **sections}
    if kind is MasterSettings:
        found["task_generator"] = {"module": "m", "class": "C"}
    told = tmp_path / "some.conf"
    told.write_text(
        "".join(f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for s, keys in found.items())
    )

    for read in (kind.read, ClientSettings.read):
        with pytest.raises(ConfigError) as refused:
            read(told)
        assert (
            str(refused.value) == f"{told}: [security] key_dir: {wrong}: found a file, expected a directory"
        )


@pytest.mark.parametrize("port", ["1", "1023", "65536", "-1", "http", ""])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    error = refused(MasterSettings, comm={"port": port})

    assert (error.file, error.section, error.key) == ("some.conf", "comm", "port")
    assert "65535" in error.problem


@pytest.mark.parametrize("port", ["0", "1024", "65535"])
def test_a_port_within_range_is_taken(port: str) -> None:
    assert MasterSettings.of(ini(comm={"port": port})).port == int(port)


def test_a_controller_needs_the_real_port() -> None:
    assert "from 1024 to 65535" in refused(ControllerSettings, comm={"port": "0"}).problem


@pytest.mark.parametrize(
    ("kind", "section", "key", "value", "expected"),
    [
        (MasterSettings, "control", "controller_timeout", "-1", "from 0"),
        (MasterSettings, "control", "task_resend_timeout", "1.5", "a whole number"),
        (MasterSettings, "control", "when_finished", "later", "stop, wait"),
        (MasterSettings, "control", "pid_file", "", "a path"),
        (MasterSettings, "comm", "target", "", "an IP address"),
        (MasterSettings, "comm", "max_message_mb", "0", "from 64 to 1024"),
        (MasterSettings, "store", "durability", "none", "full, normal"),
        (MasterSettings, "store", "keep_finished", "0", "a number of days above 0, or forever"),
        (MasterSettings, "store", "keep_finished", "nan", "a number of days above 0, or forever"),
        (MasterSettings, "store", "keep_finished", "never", "a number of days above 0, or forever"),
        (MasterSettings, "security", "curve", "maybe", "on"),
        (ControllerSettings, "comm", "poll_timeout", "0", "from 0.001"),
        (ControllerSettings, "processing", "worker_count", "0", "from 1 to 1000"),
        (ControllerSettings, "processing", "worker_count", "1001", "from 1 to 1000"),
        (ControllerSettings, "processing", "worker_count", "many", "a whole number"),
        (ControllerSettings, "control", "name", "a/b", "letters, digits"),
        (ControllerSettings, "control", "max_num_request_retries", "-1", "from 0"),
        (ControllerSettings, "resources", "memory", "much", "an amount"),
        (ControllerSettings, "resources", "workers", "3", "worker_count"),
        (ControllerSettings, "security", "key", "", "letters, digits"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(
    kind: type[Settings], section: str, key: str, value: str, expected: str
) -> None:
    error = refused(kind, **{section: {key: value}})

    assert (error.section, error.key) == (section, key)
    assert expected in error.problem


def test_an_unknown_key_is_refused_and_the_right_one_suggested() -> None:
    error = refused(MasterSettings, comm={"prot": "5555"})

    assert (error.section, error.key) == ("comm", "prot")
    assert error.problem == "unknown key; did you mean port?"


def test_an_unknown_key_that_resembles_nothing_is_answered_with_the_list() -> None:
    assert "expected one of: filename" in refused(MasterSettings, log={"zzz": "1"}).problem


def test_an_unknown_section_is_refused_and_the_right_one_suggested() -> None:
    error = refused(ControllerSettings, procesing={})

    assert str(error) == "some.conf: [procesing]: unknown section; did you mean processing?"


@pytest.mark.parametrize("missing", ["module", "class"])
def test_half_a_generator_is_refused(missing: str) -> None:
    given = {"module": "m", "class": "C"}
    del given[missing]

    error = refused(MasterSettings, task_generator=given)

    assert (error.section, error.key) == ("task_generator", missing)


def test_a_missing_ini_file_of_the_generator_is_refused(tmp_path: Path) -> None:
    error = refused(
        MasterSettings, task_generator={"module": "m", "class": "C", "config_file": f"{tmp_path}/none"}
    )

    assert error.key == "config_file"
    assert "a file that exists" in error.problem


@pytest.mark.parametrize("kind", [MasterSettings, ControllerSettings])
def test_no_keys_are_refused_on_a_network(kind: type[Settings]) -> None:
    error = refused(kind, comm={"target": "10.0.0.1"}, security={"curve": "off"})

    assert error.key == "curve"


@pytest.mark.parametrize("kind", [MasterSettings, ControllerSettings])
def test_no_keys_are_allowed_on_one_host(kind: type[Settings]) -> None:
    kind.of(ini(comm={"target": "127.0.0.1"}, security={"curve": "off"}))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("*", False),
        ("node1", False),
    ],
)
def test_loopback_is_told_from_a_network(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# What is explained.


def test_every_setting_is_explained_with_value_source_and_meaning() -> None:
    told = MasterSettings.explain(ini(comm={"port": "6000"}))

    assert "  port = 6000  (file)" in told
    assert "  poll_timeout = 1 seconds  (default)" in told
    assert "  filename = (empty)  (default)" in told
    assert all(setting.meaning.split()[0] in told for setting in MasterSettings.schema())


def test_free_names_are_explained_too() -> None:
    assert "memory = 64GiB  (file)" in ControllerSettings.explain(ini(resources={"memory": "64GiB"}))
    assert "nothing named  (default)" in ControllerSettings.explain(ini())


def test_a_wrong_file_is_not_explained() -> None:
    with pytest.raises(ConfigError):
        MasterSettings.explain(ini(comm={"port": "1"}))


# What a client reads.


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "some.conf"
    file.write_text(text)
    return file


def test_a_client_finds_the_master_of_a_masters_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[comm]\ntarget = *\nport = 6000\n[security]\nkey_dir = keys\n")

    assert ClientSettings.read(file) == ClientSettings(
        target="127.0.0.1", port=6000, key_dir=Path("keys"), curve=True
    )


def test_a_client_finds_the_master_of_a_controllers_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[comm]\ntarget = head\nport = 6000\n[processing]\nworker_count = 2\n")

    settings = ClientSettings.read(file)

    assert (settings.target, settings.port) == ("head", 6000)


def test_a_client_reads_a_free_port_where_the_master_has_written_it(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("41234\n")
    file = written(tmp_path, f"[comm]\nport = 0\nport_file = {tmp_path}/port\n")

    assert ClientSettings.read(file).port == 41234


def test_a_free_port_that_nobody_has_written_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "[comm]\nport = 0\n")

    with pytest.raises(ConfigError, match="port_file"):
        ClientSettings.read(file)


@pytest.mark.parametrize(("value", "keep_s"), [("30", 2_592_000.0), ("0.5", 43_200.0), ("forever", None)])
def test_finished_jobs_are_kept_for_days_or_for_ever(value: str, keep_s: float | None) -> None:
    settings = MasterSettings.of(Ini({"store": {"keep_finished": value}}))

    assert settings.keep_s == keep_s


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000, "a\0b"])
def test_a_path_that_can_be_none_is_refused_like_one_that_is_not_there(name: str) -> None:
    ini = Ini({"task_generator": {"module": "jobs", "class": "Job", "config_file": name}})

    with pytest.raises(ConfigError, match="expected a file that exists"):
        MasterSettings.of(ini)
