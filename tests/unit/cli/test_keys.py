from __future__ import annotations

from pathlib import Path

import pytest

from cyclone.cli.main import main
from cyclone.wire import keys


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    keys.ensure(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.mark.parametrize("action", [[], ["list"]])
def test_keys_are_listed_with_their_standing_and_fingerprint(
    action: list[str], key_dir: Path, capsys
) -> None:
    keys.make(key_dir, "node1", keys.Role.CONTROLLER)
    keys.revoke(key_dir, "client")

    code = main(["keys", *action, "--key-dir", str(key_dir)])

    told = capsys.readouterr().out
    rows = {line.split()[0]: line for line in told.splitlines()}
    assert code == 0
    assert "authorized" in rows["controller"]
    assert "revoked" in rows["client"]
    assert "not authorized" in rows["node1"]
    assert rows["master"].endswith(keys.load_public(key_dir, "master").fingerprint)


@pytest.mark.parametrize("before", [True, False])
def test_the_directory_may_be_named_by_an_ini_file_before_or_after_the_action(
    before: bool, key_dir: Path, ini: str, capsys
) -> None:
    place = ["-f", ini]

    code = main(["keys", *place, "fingerprint"] if before else ["keys", "fingerprint", *place])

    assert code == 0
    assert capsys.readouterr().out.startswith("SHA256:")


def test_a_made_key_is_not_let_in_before_it_is_authorized(key_dir: Path, capsys) -> None:
    place = ["--key-dir", str(key_dir)]

    made = main(["keys", "make", "node1", "--role", "controller", *place])
    before = {key.name for key in keys.KeyRing(key_dir).keys.values()}
    authorized = main(["keys", "authorize", str(key_dir / "node1.public"), *place])
    after = {key.name for key in keys.KeyRing(key_dir).keys.values()}

    told = capsys.readouterr().out
    assert (made, authorized) == (0, 0)
    assert after - before == {"node1"}
    assert "cyclone keys authorize" in told
    assert "node1 (controller) is authorized" in told


def test_who_revokes_is_told_when_it_is_effective(key_dir: Path, capsys) -> None:
    code = main(["keys", "revoke", "client", "--key-dir", str(key_dir)])

    assert code == 0
    assert "notice within seconds" in capsys.readouterr().out
    assert "client" not in {key.name for key in keys.KeyRing(key_dir).keys.values()}


@pytest.mark.parametrize(("words", "name"), [([], "master"), (["client"], "client")])
def test_a_fingerprint_is_of_the_master_or_of_whom_is_named(
    words: list[str], name: str, key_dir: Path, capsys
) -> None:
    main(["keys", "fingerprint", *words, "--key-dir", str(key_dir)])

    assert keys.load_public(key_dir, name).fingerprint in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["make", "client", "--role", "client"], ["revoke", "nobody"], ["fingerprint", "nobody"]]
)
def test_what_the_key_files_forbid_is_one_line_and_exit_code_3(
    words: list[str], key_dir: Path, capsys
) -> None:
    code = main(["keys", *words, "--key-dir", str(key_dir)])

    assert code == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_directory_that_is_not_there_is_no_empty_one(tmp_path: Path, capsys) -> None:
    code = main(["keys", "--key-dir", str(tmp_path / "nope")])

    assert code == 3
    assert "no such directory" in capsys.readouterr().err


def test_a_key_has_a_role_of_the_list(key_dir: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "make", "x", "--role", "king", "--key-dir", str(key_dir)])

    assert ended.value.code == 2
    assert "controller" in capsys.readouterr().err
