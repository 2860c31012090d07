from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from cyclone.errors import ConfigError
from cyclone.ini import Ini, others_who_may


def ini(**keys: str) -> Ini:
    return Ini({"section": keys}, "x.conf")


def written(directory: Path, text: str) -> Path:
    file = directory / "x.conf"
    file.write_text(text, encoding="utf-8")
    return file


# Reading.


def test_what_stands_in_the_file_is_what_is_meant(tmp_path: Path) -> None:
    file = written(tmp_path, "[db]\npassword = 50%off:a=b # not a comment\nGPU = 1\n")

    read = Ini.read(file)

    assert read["db"]["password"] == "50%off:a=b # not a comment"
    assert read["db"]["GPU"] == "1"
    assert read.file == file


def test_a_section_called_default_is_a_section(tmp_path: Path) -> None:
    read = Ini.read(written(tmp_path, "[DEFAULT]\na = 1\n[other]\nb = 2\n"))

    assert dict(read["other"]) == {"b": "2"}
    assert "DEFAULT" in read


def test_comments_are_whole_lines(tmp_path: Path) -> None:
    read = Ini.read(written(tmp_path, "# one\n; two\n[a]\nb = 1\n"))

    assert read.sections() == {"a": {"b": "1"}}


@pytest.mark.parametrize(
    "text",
    ["[a]\nb = 1\nb = 2\n", "[a]\n[a]\n", "b = 1\n", "[a]\nwithout a value\n"],
    ids=["key twice", "section twice", "no section", "no delimiter"],
)
def test_what_is_no_ini_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)

    with pytest.raises(ConfigError) as raised:
        Ini.read(file)

    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Ini.read(tmp_path / "nothing.conf")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Ini.read(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_bytes(b"[a]\nb = \xff\n")

    with pytest.raises(ConfigError, match="cannot be read"):
        Ini.read(file)


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        ini()["other"]

    assert str(raised.value) == "x.conf: [other]: section is missing"


# Text.


def test_a_text_is_stripped() -> None:
    assert ini(key="  a b ").text("section", "key") == "a b"


def test_a_missing_text_has_its_default() -> None:
    assert ini().text("section", "key", "else") == "else"


def test_a_missing_text_without_default_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x.conf: \[section\] key: is missing"):
        ini().text("section", "key")


def test_a_text_must_be_one_of_its_choices() -> None:
    with pytest.raises(ConfigError, match="found 'maybe', expected one of: yes, no"):
        ini(key="maybe").text("section", "key", choices=("yes", "no"))


# Numbers.


def test_a_whole_number_is_read() -> None:
    assert ini(key="42").integer("section", "key") == 42


def test_a_missing_number_has_its_default() -> None:
    assert ini().integer("section", "key", 7) == 7


@pytest.mark.parametrize("text", ["1.5", "many", "", "0x10", "9_0", "\uff19"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        ini(key=text).integer("section", "key")


@pytest.mark.parametrize(("text", "good"), [("1", True), ("9", True), ("0", False), ("10", False)])
def test_a_range_includes_its_bounds(text: str, good: bool) -> None:
    settings = ini(key=text)
    if good:
        assert settings.integer("section", "key", minimum=1, maximum=9) == int(text)
    else:
        with pytest.raises(ConfigError, match=f"found {text}, expected a whole number from 1 to 9"):
            settings.integer("section", "key", minimum=1, maximum=9)


def test_seconds_may_have_fractions() -> None:
    assert ini(key="1.5").seconds("section", "key") == 1.5


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "-inf", "9_0", "\uff19"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a number of seconds from 0"):
        ini(key=text).seconds("section", "key")


# Words.


@pytest.mark.parametrize("word", ["yes", "on", "true", "1", "YES", "True"])
def test_words_that_mean_yes(word: str) -> None:
    assert ini(key=word).boolean("section", "key") is True


@pytest.mark.parametrize("word", ["no", "off", "false", "0"])
def test_words_that_mean_no(word: str) -> None:
    assert ini(key=word).boolean("section", "key") is False


@pytest.mark.parametrize("default", [True, False])
def test_a_missing_word_has_its_default(default: bool) -> None:
    assert ini().boolean("section", "key", default) is default


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 'maybe'"):
        ini(key="maybe").boolean("section", "key")


def test_a_check_of_one_s_own_raises_the_same_kind_of_error() -> None:
    error = ini().wrong("section", "key", "found 3, expected an even number")

    assert str(error) == "x.conf: [section] key: found 3, expected an even number"


def test_a_key_that_is_missing_may_be_misspelt() -> None:
    ini = Ini({"files": {"directry": "/data", "pattern": "*"}}, "x.conf")

    with pytest.raises(ConfigError, match=r"\[files\] directory: is missing; .* expected, found 'directry'$"):
        ini.text("files", "directory")
    with pytest.raises(ConfigError, match=r"\[files\] depth: is missing; a value is expected$"):
        ini.text("files", "depth")


def test_a_file_that_is_refused_is_not_quoted(tmp_path):
    file = tmp_path / "proxy.conf"
    file.write_text("[db]\nuser = us\npassword: sesame\n")

    with pytest.raises(ConfigError, match="found something else") as raised:
        Ini.read(file)

    assert "sesame" not in str(raised.value)


# Who else may.

ALICE, HER_OWN, PROJECT = 1000, 1000, 2000


@pytest.fixture
def people(monkeypatch):
    """Alice has a group of her own and is in a project, of whose members nobody else is told here."""
    users = {ALICE: ("alice", "x", ALICE, HER_OWN, "", "/", "/bin/sh")}
    groups = {HER_OWN: ("alice", "x", HER_OWN, []), PROJECT: ("project", "x", PROJECT, [])}
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(users[uid]))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(groups[gid]))
    return groups


def status(mode: int, uid: int = ALICE, gid: int = HER_OWN) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "gid", "others"),
    [
        (0o644, PROJECT, ""),
        (0o664, PROJECT, "the group project"),
        (0o664, 4711, "the group 4711"),
        (0o664, HER_OWN, ""),
        (0o666, HER_OWN, "everybody"),
        (0o602, PROJECT, "everybody"),
    ],
)
def test_who_may_write_besides_the_owner(people, mode, gid, others):
    assert others_who_may(status(mode, gid=gid), stat.S_IWOTH) == others


@pytest.mark.parametrize(
    ("mode", "gid", "others"),
    [
        (0o600, PROJECT, ""),
        (0o640, PROJECT, "the group project"),
        (0o640, HER_OWN, ""),
        (0o604, HER_OWN, "everybody"),
    ],
)
def test_who_may_read_besides_the_owner(people, mode, gid, others):
    assert others_who_may(status(mode, gid=gid), stat.S_IROTH) == others


def test_a_group_is_not_private_when_somebody_else_is_in_it(people):
    people[HER_OWN][3].append("mallory")

    assert others_who_may(status(0o664), stat.S_IWOTH) == "the group alice"


def test_the_owner_in_a_group_of_her_own_is_nobody_else(people):
    people[HER_OWN][3].append("alice")

    assert others_who_may(status(0o664), stat.S_IWOTH) == ""


def test_a_file_that_others_can_write_to_is_refused_with_the_command_that_mends_it(tmp_path):
    file = tmp_path / "master.conf"
    file.write_text("[comm]\n")
    file.chmod(0o646)

    with pytest.raises(ConfigError) as raised:
        Ini.read(file)

    assert str(raised.value) == f"{file}: found mode 0646: everybody can write to it; run: chmod go-w {file}"


def test_what_is_no_file_may_be_written_to_by_others():
    assert Ini.read("/dev/null").sections() == {}
