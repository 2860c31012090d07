from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cyclone.errors import ConfigError
from cyclone.generators.checksum import ChecksumTaskGenerator
from cyclone.ini import Ini
from cyclone.tasks.checksum import ChecksumTask

NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"car\rriage",
    b"back\\slash",
    b"\xff raw",
    b"\\n",
    b"sub/deep",
]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files" / "sub").mkdir(parents=True)
    for name in NAMES:
        with open(b"files/" + name, "wb") as file:
            file.write(b"content of " + name)
    return tmp_path


def generator(desk: Any, **manifest: str) -> ChecksumTaskGenerator:
    given = {"file": "out/manifest", **manifest}
    made = ChecksumTaskGenerator(Ini({"files": {"directory": "files"}, "manifest": given}))
    made.validate_config()
    made._attach(desk)
    return made


@pytest.mark.usefixtures("tree")
def test_the_manifest_is_what_sha256sum_writes(desk: Any) -> None:
    generator(desk).run()

    found = subprocess.run(
        ["sha256sum", *[b"files/" + name for name in NAMES]], stdout=subprocess.PIPE, check=True
    )
    manifest = Path("out/manifest").read_bytes()
    assert sorted(manifest.splitlines(True)) == sorted(found.stdout.splitlines(True))


@pytest.mark.usefixtures("tree")
def test_the_manifest_is_accepted_by_sha256sum(desk: Any) -> None:
    generator(desk).run()

    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "out/manifest"], check=True)


@pytest.mark.usefixtures("tree")
def test_the_manifest_is_ordered_by_name(desk: Any) -> None:
    generator(desk).run()

    names = [line.split(b"  ", 1)[1] for line in Path("out/manifest").read_bytes().splitlines()]
    assert names == sorted(names)


@pytest.mark.usefixtures("tree")
def test_only_plain_files_are_read_and_links_are_not_followed(desk: Any) -> None:
    os.mkfifo("files/pipe")
    Path("files/link").symlink_to("plain")
    Path("files/loop").symlink_to(".")

    generator(desk).run()

    assert len(desk.executed) == len(NAMES)


@pytest.mark.usefixtures("tree")
def test_tasks_find_their_files_from_anywhere(desk: Any) -> None:
    generator(desk).run()

    assert all(os.path.isabs(task.path) for task in desk.submitted)


@pytest.mark.usefixtures("tree")
def test_its_own_files_are_not_read(desk: Any) -> None:
    own = {"file": "files/m", "failures": "files/f", "summary": "files/s", "progress": "files/sub/p"}
    generator(desk, **own).run()
    desk.ended.clear()
    desk.executed.clear()

    generator(desk, **own).run()

    assert len(desk.executed) == len(NAMES)
    assert {Path(name).exists() for name in own.values()} == {True}


@pytest.mark.usefixtures("tree")
def test_a_run_that_was_cut_short_writes_no_manifest(desk: Any) -> None:
    desk.stop_after = 3

    generator(desk, progress="progress").run()

    assert not Path("out/manifest").exists()
    assert json.loads(Path("progress").read_text())["state"] == "stopped"


@pytest.mark.usefixtures("tree")
def test_a_resumed_run_has_a_whole_manifest_and_reads_nothing_again(desk: Any) -> None:
    desk.stop_after = 3
    generator(desk).run()
    desk.restart()

    generator(desk).run()

    assert len(Path("out/manifest").read_bytes().splitlines()) == len(NAMES)
    assert len(desk.executed) == len(set(desk.executed)) == len(NAMES)


@pytest.mark.usefixtures("tree")
def test_what_cannot_be_read_is_listed_with_its_reason(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ChecksumTask.execute

    def fail_once(task: ChecksumTask) -> str:
        if task.path.endswith(b"new\nline"):
            task.path += b".none"
        return read(task)

    monkeypatch.setattr(ChecksumTask, "execute", fail_once)

    generator(desk, failures="failures", summary="summary").run()

    assert Path("failures").read_bytes() == b"files/new\\nline\tNo such file or directory\n"
    summary = json.loads(Path("summary").read_text())
    assert (summary["found"], summary["done"], summary["failed"]) == (len(NAMES), len(NAMES) - 1, 1)


@pytest.mark.usefixtures("tree")
def test_a_directory_that_cannot_be_read_is_listed_and_the_rest_goes_on(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: bytes) -> Any:
        if path.endswith(b"sub"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)

    generator(desk, failures="failures", summary="summary").run()

    assert Path("failures").read_bytes() == b"files/sub\tPermission denied\n"
    summary = json.loads(Path("summary").read_text())
    assert (summary["failed"], summary["directories_failed"]) == (0, 1)
    assert summary["done"] == len(NAMES) - 1


@pytest.mark.usefixtures("tree")
def test_progress_knows_the_total_at_the_end(desk: Any) -> None:
    generator(desk, progress="progress").run()

    progress = json.loads(Path("progress").read_text())
    assert (progress["state"], progress["total"], progress["done"]) == ("finished", len(NAMES), len(NAMES))


@pytest.mark.usefixtures("tree")
def test_progress_does_not_know_the_total_while_it_walks(desk: Any) -> None:
    made = generator(desk, progress="progress")
    desk.stop_after = 1

    made.run()

    assert json.loads(Path("progress").read_text())["total"] is None


@pytest.mark.usefixtures("tree")
def test_an_empty_directory_has_an_empty_manifest(desk: Any) -> None:
    Path("nothing").mkdir()
    made = ChecksumTaskGenerator(Ini({"files": {"directory": "nothing"}, "manifest": {"file": "m"}}))
    made._attach(desk)

    made.run()

    assert Path("m").read_bytes() == b""


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("files", "directory", "/no/such/directory"), ("files", "directory", ""), ("manifest", "file", "/"),
        ("manifest", "file", ""), ("manifest", "summery", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_starts(section: str, key: str, value: str) -> None:
    sections = {"files": {"directory": "/"}, "manifest": {"file": "manifest"}}
    sections[section][key] = value

    with pytest.raises(ConfigError) as caught:
        ChecksumTaskGenerator(Ini(sections)).validate_config()

    assert (caught.value.section, caught.value.key) == (section, key)


def test_what_must_be_given_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="is missing"):
        ChecksumTaskGenerator(Ini({})).validate_config()
