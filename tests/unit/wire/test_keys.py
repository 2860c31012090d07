"""Claims about key files: who can read them, who believes them, and that none is ever overwritten."""

from __future__ import annotations

import os
import re
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from cyclone.errors import KeyFileError
from cyclone.wire import keys
from cyclone.wire.keys import Role


@pytest.fixture
def no_umask():
    former = os.umask(0)
    yield
    os.umask(former)


@pytest.fixture
def tight_umask():
    former = os.umask(0o077)
    yield
    os.umask(former)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


def rewritten(file: Path, pattern: str, replacement: str) -> None:
    file.write_text(re.sub(pattern, lambda _: replacement, file.read_text(), flags=re.MULTILINE))


FIRST_FILES = {
    "master.secret", "master.public", "controller.secret", "controller.public", "client.secret",
    "client.public", "sink.secret", "sink.public", "authorized/controller.public", "authorized/client.public",
}  # fmt: skip


# The first start of a master.


@pytest.mark.usefixtures("no_umask")
def test_the_first_start_makes_files_that_others_cannot_read(tmp_path):
    key_dir = tmp_path / "deep" / "keys"

    made = keys.ensure(key_dir)

    assert made == ["master", "controller", "client", "sink"]
    assert set(contents(key_dir)) == FIRST_FILES
    assert mode(key_dir) == 0o700
    assert {mode(file) for file in key_dir.rglob("*.secret")} == {0o600}
    assert {mode(file) for file in key_dir.rglob("*.public")} == {0o644}


@pytest.mark.usefixtures("tight_umask")
def test_public_files_can_be_read_by_others_under_any_umask(tmp_path):
    key_dir = tmp_path / "keys"

    keys.ensure(key_dir)

    assert {mode(file) for file in key_dir.rglob("*.public")} == {0o644}


def test_the_second_start_changes_nothing(key_dir):
    before = contents(key_dir)

    made = keys.ensure(key_dir)

    assert made == []
    assert contents(key_dir) == before


@pytest.mark.parametrize("missing", sorted(FIRST_FILES - {name for name in FIRST_FILES if "secret" in name}))
def test_a_public_half_that_is_missing_is_made_again(key_dir, missing):
    before = contents(key_dir)
    (key_dir / missing).unlink()

    keys.ensure(key_dir)

    assert contents(key_dir) == before


def test_a_directory_that_holds_the_masters_pair_only_gets_the_rest(key_dir):
    before = contents(key_dir)
    for name in FIRST_FILES - {"master.secret"}:
        (key_dir / name).unlink()

    keys.ensure(key_dir)

    after = contents(key_dir)
    assert set(after) == FIRST_FILES
    assert after["master.secret"] == before["master.secret"]
    assert after["master.public"] == before["master.public"]


def test_a_secret_that_lives_elsewhere_is_not_replaced(key_dir):
    (key_dir / "client.secret").unlink()
    before = contents(key_dir)

    made = keys.ensure(key_dir)

    assert made == []
    assert contents(key_dir) == before


def test_a_revoked_key_stays_revoked_at_the_next_start(key_dir):
    keys.revoke(key_dir, "controller")

    keys.ensure(key_dir)

    assert {key.name for key in keys.KeyRing(key_dir).keys.values()} == {"client"}


def test_masters_that_start_at_the_same_time_agree(tmp_path):
    key_dir = tmp_path / "keys"

    with ThreadPoolExecutor(8) as pool:
        made = [name for names in pool.map(lambda _: keys.ensure(key_dir), range(8)) for name in names]

    assert sorted(made) == ["client", "controller", "master", "sink"]
    assert set(contents(key_dir)) == FIRST_FILES
    for name in ("controller", "client"):
        assert keys.load_pair(key_dir, name).public_key in keys.KeyRing(key_dir).keys.values()
        assert keys.load_pair(key_dir, name).public_key == keys.load_public(key_dir, name)


def test_a_directory_that_others_may_write_to_is_refused(key_dir):
    key_dir.chmod(0o770)

    with pytest.raises(KeyFileError, match="found mode 0770, expected 0750; run: chmod go-w"):
        keys.ensure(key_dir)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "keys").write_text("")

    with pytest.raises(KeyFileError, match="keys"):
        keys.ensure(tmp_path / "keys")


# Pairs.


@pytest.mark.usefixtures("no_umask")
def test_a_pair_that_was_made_can_be_loaded(tmp_path):
    pair = keys.make(tmp_path / "keys", "node-017", Role.CONTROLLER)

    loaded = keys.load_pair(tmp_path / "keys", "node-017")

    assert loaded == pair
    assert loaded.role is Role.CONTROLLER
    assert loaded.public_key == keys.load_public(tmp_path / "keys", "node-017")
    assert mode(tmp_path / "keys" / "node-017.secret") == 0o600


def test_a_pair_is_never_overwritten(key_dir):
    before = contents(key_dir)

    with pytest.raises(KeyFileError, match="exists already"):
        keys.make(key_dir, "controller", Role.CONTROLLER)

    assert contents(key_dir) == before


def test_a_pair_whose_making_was_cut_short_is_completed(key_dir):
    before = contents(key_dir)
    (key_dir / "controller.public").unlink()

    keys.make(key_dir, "controller", Role.CONTROLLER)

    assert contents(key_dir) == before


def test_a_pair_is_not_completed_in_another_role(key_dir):
    (key_dir / "controller.public").unlink()

    with pytest.raises(KeyFileError, match="in the role controller"):
        keys.make(key_dir, "controller", Role.CLIENT)


def test_a_draft_in_the_way_is_not_followed(key_dir, tmp_path):
    (key_dir / "new.secret").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(KeyFileError):
        keys.make(key_dir, "new", Role.CLIENT)

    assert not (tmp_path / "elsewhere").exists()


def test_a_draft_that_somebody_has_planted_is_not_written_through(key_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(keys.secrets, "token_hex", lambda _: "guessed")
    (key_dir / ".new.secret.guessed.new").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(KeyFileError):
        keys.make(key_dir, "new", Role.CLIENT)

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name", ["", "a/b", "../up", ".", "..", ".hidden", "-f", "a b", "a\n", "x" * 65, "ü"]
)
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(KeyFileError, match="not a name"):
        keys.make(tmp_path / "keys", name, Role.CLIENT)


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_secret_that_is_open_to_others_is_refused_with_the_cure(key_dir, loose):
    file = key_dir / "controller.secret"
    file.chmod(loose)

    with pytest.raises(KeyFileError) as raised:
        keys.load_pair(key_dir, "controller")

    assert raised.value.file == file
    assert f"found mode {loose:04o}, expected 0600; run: chmod 600 {file}" in str(raised.value)


def test_a_secret_of_somebody_else_is_refused(key_dir, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(KeyFileError, match=r"is owned by .*; run: chown"):
        keys.load_pair(key_dir, "controller")


def test_a_missing_secret_is_named(key_dir):
    with pytest.raises(KeyFileError, match=r"other\.secret: no such file"):
        keys.load_pair(key_dir, "other")


def test_a_pipe_in_the_place_of_a_secret_is_refused(key_dir):
    (key_dir / "controller.secret").unlink()
    os.mkfifo(key_dir / "controller.secret", 0o600)

    with pytest.raises(KeyFileError, match="not a regular file"):
        keys.load_pair(key_dir, "controller")


def test_a_secret_does_not_show_when_the_pair_is_printed(key_dir):
    pair = keys.load_pair(key_dir, "controller")

    assert pair.secret.decode() not in repr(pair)


@pytest.mark.parametrize(
    ("pattern", "replacement", "problem"),
    [
        (r"^secret = .*$", "secret = short", "secret key is not one"),
        (r"^secret = .*$", "secret = " + "#" * 40, "secret key is not one"),
        (r"^secret = .*$", "secret = " + "~" * 40, "secret key is not one"),
        (r"^public = .*$", "public = " + "0" * 41, "public key is not one"),
        (r"^public = .*$", "public = " + "0" * 40, "does not belong to"),
        (r"^role = .*$", "role = king", "found the role 'king'"),
        (r"^name = .*$", "name = other", "holds the key of 'other'"),
        (r"^name = .*$", "name = a/b", "found the name 'a/b'"),
        (r"^name = .*$", "", "is not a key file"),
        (r"^name = .*$", "name = controller\nname = controller", "is not a key file"),
        (r"^name = .*$", "name = controller\ncolour = red", "is not a key file"),
        (r"^name = .*$", "name = ü", "not ASCII"),
    ],
)
def test_a_malformed_secret_is_refused_without_being_shown(key_dir, pattern, replacement, problem):
    secret = keys.load_pair(key_dir, "controller").secret.decode()
    rewritten(key_dir / "controller.secret", pattern, replacement)

    with pytest.raises(KeyFileError, match=re.escape(problem)) as raised:
        keys.load_pair(key_dir, "controller")

    assert secret not in str(raised.value)


def test_a_huge_file_is_no_key(key_dir):
    with (key_dir / "controller.secret").open("a") as stream:
        stream.write("x" * 1_000_000)

    with pytest.raises(KeyFileError):
        keys.load_pair(key_dir, "controller")


def test_a_controller_on_another_node_needs_two_files_only(key_dir, tmp_path):
    node = tmp_path / "node"
    node.mkdir(mode=0o700)
    for name in ("controller.secret", "master.public"):
        shutil.copy2(key_dir / name, node / name)

    pair, master = keys.load_pair(node, "controller"), keys.load_public(node, "master")

    assert (pair.role, master.role) == (Role.CONTROLLER, Role.MASTER)


def test_a_pinned_key_that_others_may_write_is_refused(key_dir):
    (key_dir / "master.public").chmod(0o664)

    with pytest.raises(KeyFileError, match="run: chmod go-w"):
        keys.load_public(key_dir, "master")


@pytest.mark.parametrize("use", [keys.ensure, lambda key_dir: keys.load_public(key_dir, "master")])
def test_a_link_of_somebody_else_in_the_place_of_the_directory_is_not_followed(
    key_dir, tmp_path, monkeypatch, use
):
    link = tmp_path / "link"
    link.symlink_to(key_dir)
    of_link, lstat = link.lstat(), Path.lstat
    theirs = os.stat_result((*of_link[:4], os.geteuid() + 1, *of_link[5:]))
    monkeypatch.setattr(Path, "lstat", lambda path: theirs if path == link else lstat(path))

    with pytest.raises(KeyFileError, match="is a symbolic link of"):
        use(link)


def test_a_link_of_our_own_in_the_place_of_the_directory_is_followed(key_dir, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(key_dir)

    assert keys.load_public(link, "master") == keys.load_public(key_dir, "master")


@pytest.mark.parametrize("load", [keys.load_pair, keys.load_public])
def test_a_key_in_a_directory_that_others_may_write_to_is_refused(key_dir, load):
    key_dir.chmod(0o1777)

    with pytest.raises(KeyFileError, match="found mode 1777"):
        load(key_dir, "controller")


# The allow-list.


def test_the_list_finds_a_key_by_what_travels(key_dir):
    ring = keys.KeyRing(key_dir)
    key = keys.load_public(key_dir, "controller")

    assert ring.admitted(key.raw) == key
    assert len(key.raw) == 32
    assert ring.still_admitted(key.user_id) == key
    assert key.user_id.startswith("controller:controller:SHA256:")


def test_the_masters_own_key_is_not_admitted(key_dir):
    ring = keys.KeyRing(key_dir)

    assert ring.admitted(keys.load_public(key_dir, "master").raw) is None


def test_a_new_key_is_admitted_after_a_reload(key_dir, tmp_path):
    ring = keys.KeyRing(key_dir)
    pair = keys.make(tmp_path / "node", "node-017", Role.CONTROLLER)

    keys.authorize(key_dir, tmp_path / "node" / "node-017.public")
    ring.reload()

    assert ring.admitted(pair.public_key.raw) == pair.public_key


def test_a_revoked_key_is_gone_after_a_reload(key_dir):
    ring = keys.KeyRing(key_dir)
    key = keys.load_public(key_dir, "controller")

    keys.revoke(key_dir, "controller")
    ring.reload()

    assert ring.admitted(key.raw) is None
    assert ring.still_admitted(key.user_id) is None


def test_a_new_key_under_a_revoked_name_does_not_let_the_old_one_back_in(key_dir, tmp_path):
    ring = keys.KeyRing(key_dir)
    old = keys.load_public(key_dir, "controller")
    keys.make(tmp_path / "new", "controller", Role.CONTROLLER)

    keys.revoke(key_dir, "controller")
    keys.authorize(key_dir, tmp_path / "new" / "controller.public")
    ring.reload()

    assert ring.still_admitted(old.user_id) is None


def test_a_list_is_read_again_only_when_it_has_changed(key_dir):
    ring = keys.KeyRing(key_dir)
    answers = [ring.refresh()]
    keys.revoke(key_dir, "controller")
    answers += [ring.refresh(), ring.refresh()]
    keys.authorize(key_dir, key_dir / "controller.public")
    answers += [ring.refresh(), ring.refresh()]

    assert answers == [False, True, False, True, False]


def test_a_file_that_is_written_over_is_a_change(key_dir, tmp_path):
    ring = keys.KeyRing(key_dir)
    new = keys.make(tmp_path / "new", "controller", Role.CONTROLLER)
    listed = key_dir / "authorized" / "controller.public"

    listed.write_text((tmp_path / "new" / "controller.public").read_text())

    assert ring.refresh()
    assert ring.admitted(new.public_key.raw) == new.public_key


def test_a_list_in_disorder_is_told_of_until_it_is_in_order(key_dir):
    ring = keys.KeyRing(key_dir)
    listed = key_dir / "authorized" / "controller.public"
    listed.chmod(0o666)
    for _ in range(2):
        with pytest.raises(KeyFileError, match="0666"):
            ring.refresh()

    listed.chmod(0o644)

    assert ring.refresh()


def test_a_bad_file_of_the_list_is_told_of_with_what_it_means(key_dir):
    ring = keys.KeyRing(key_dir)
    new = key_dir / "authorized" / "new.public"
    new.write_text("name = half")
    with pytest.raises(KeyFileError, match=r"new\.public: is not a key file: .*; it lets nobody in$"):
        ring.reload()
    new.unlink()

    (key_dir / "authorized" / "controller.public").write_text("name = half")
    with pytest.raises(
        KeyFileError, match=r"controller\.public: is not .*; what it said before stays in force$"
    ):
        ring.reload()


def test_a_key_that_is_revoked_while_the_list_is_read_is_not_on_it(key_dir, monkeypatch):
    ring = keys.KeyRing(key_dir)
    gone = key_dir / "authorized" / "gone.public"
    find = Path.glob
    monkeypatch.setattr(Path, "glob", lambda directory, pattern: [*find(directory, pattern), gone])

    ring.reload()

    assert {key.name for key in ring.keys.values()} == {"controller", "client"}


def test_a_link_on_the_list_that_leads_nowhere_is_told_of(key_dir):
    ring = keys.KeyRing(key_dir)
    (key_dir / "authorized" / "node.public").symlink_to("nowhere")

    with pytest.raises(KeyFileError, match=r"node\.public"):
        ring.reload()


@pytest.mark.parametrize("harm", ["loose", "malformed", "copied", "master", "double", "double before it"])
def test_a_bad_file_leaves_the_old_list_in_force(key_dir, harm):
    ring = keys.KeyRing(key_dir)
    before = dict(ring.keys)
    file = key_dir / "authorized" / "controller.public"
    match harm:
        case "loose":
            file.chmod(0o666)
        case "malformed":
            file.write_text("nonsense\n")
        case "copied":
            shutil.copy2(file, file.with_name("other.public"))
        case "master":
            shutil.copy2(key_dir / "master.public", key_dir / "authorized" / "master.public")
        case _:
            name = "other" if harm == "double" else "before"
            other = file.with_name(f"{name}.public")
            shutil.copy2(file, other)
            rewritten(other, "^name = .*$", f"name = {name}")

    with pytest.raises(KeyFileError, match="authorized"):
        ring.reload()

    assert ring.keys == before


@pytest.mark.parametrize("harm", ["loose", "malformed", "a link to nowhere"])
def test_a_bad_file_keeps_no_other_key_from_being_revoked_or_exchanged(key_dir, tmp_path, harm):
    ring = keys.KeyRing(key_dir)
    revoked, exchanged = keys.load_public(key_dir, "controller"), keys.load_public(key_dir, "client")
    new = keys.make(tmp_path / "new", "client", Role.CLIENT).public_key
    keys.revoke(key_dir, "client")
    keys.authorize(key_dir, tmp_path / "new" / "client.public")
    keys.revoke(key_dir, "controller")
    bad = key_dir / "authorized" / "bad.public"
    match harm:
        case "loose":
            shutil.copy2(key_dir / "sink.public", bad)
            bad.chmod(0o666)
        case "malformed":
            bad.write_text("name = ba")
        case _:
            bad.symlink_to("nowhere")

    with pytest.raises(KeyFileError, match=r"bad\.public"):
        ring.refresh()

    assert ring.still_admitted(revoked.user_id) is None
    assert ring.still_admitted(exchanged.user_id) is None
    assert [*ring.keys.values()] == [new]


def test_a_list_of_somebody_else_is_refused(key_dir, monkeypatch):
    if os.getuid() == 0:
        os.chown(key_dir / "authorized" / "client.public", 1, 1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(KeyFileError, match="is owned by"):
        keys.KeyRing(key_dir)


def test_a_directory_without_a_list_admits_nobody(tmp_path):
    with pytest.raises(KeyFileError, match="authorized"):
        keys.KeyRing(tmp_path)


def test_authorizing_twice_is_the_same_as_once(key_dir):
    before = contents(key_dir)

    keys.authorize(key_dir, key_dir / "controller.public")

    assert contents(key_dir) == before


def test_authorizing_brings_a_revoked_key_back_for_good(key_dir):
    keys.revoke(key_dir, "controller")

    keys.authorize(key_dir, key_dir / "controller.public")

    assert set(contents(key_dir)) == FIRST_FILES


def test_another_key_of_an_authorized_name_is_refused(key_dir, tmp_path):
    keys.make(tmp_path / "evil", "controller", Role.CONTROLLER)
    before = contents(key_dir)

    with pytest.raises(KeyFileError, match="another key of controller is authorized already"):
        keys.authorize(key_dir, tmp_path / "evil" / "controller.public")

    assert contents(key_dir) == before


def test_the_same_key_under_a_second_name_is_refused(key_dir, tmp_path):
    file = tmp_path / "second.public"
    shutil.copy2(key_dir / "controller.public", file)
    rewritten(file, "^name = .*$", "name = second")

    with pytest.raises(KeyFileError, match="same key as that of controller"):
        keys.authorize(key_dir, file)


def test_the_key_of_a_master_cannot_be_authorized(key_dir):
    with pytest.raises(KeyFileError, match="found the role master"):
        keys.authorize(key_dir, key_dir / "master.public")


def test_a_secret_cannot_be_authorized_by_mistake(key_dir):
    with pytest.raises(KeyFileError, match="is not a key file"):
        keys.authorize(key_dir, key_dir / "client.secret")


def test_revoking_who_is_not_on_the_list_is_refused(key_dir):
    with pytest.raises(KeyFileError, match="no such file"):
        keys.revoke(key_dir, "nobody")


def test_the_listing_says_who_is_what(key_dir, tmp_path):
    keys.make(tmp_path / "node", "node-017", Role.CONTROLLER)
    keys.authorize(key_dir, tmp_path / "node" / "node-017.public")
    keys.revoke(key_dir, "client")

    listed = {one.name: one for one in keys.listing(key_dir)}

    assert list(listed) == ["client", "controller", "master", "node-017", "sink"]
    assert listed["master"].has_secret
    assert not listed["master"].authorized
    assert listed["node-017"].authorized
    assert not listed["node-017"].has_secret
    assert listed["client"].revoked
    assert not listed["client"].authorized
    assert listed["controller"].fingerprint == keys.load_public(key_dir, "controller").fingerprint


def test_a_disk_that_cannot_be_written_is_told(key_dir, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)

    with pytest.raises(KeyFileError, match="No space left"):
        keys.make(key_dir, "other", Role.CLIENT)

    assert not [file for file in key_dir.iterdir() if file.name.startswith(".")]


def test_a_file_in_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyFileError, match="file: found a file, expected a directory"):
        keys.make(tmp_path / "file", "node", Role.CONTROLLER)


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyFileError, match="cannot be made"):
        keys.ensure(tmp_path / "file" / "keys")


def test_a_list_that_cannot_be_changed_is_told(key_dir, monkeypatch):
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)

    with pytest.raises(KeyFileError, match="Read-only"):
        keys.revoke(key_dir, "controller")


def test_a_directory_in_the_place_of_a_key_is_told(key_dir):
    (key_dir / "controller.secret").unlink()
    (key_dir / "controller.secret").mkdir(mode=0o700)

    with pytest.raises(KeyFileError, match=r"controller\.secret"):
        keys.load_pair(key_dir, "controller")


def test_keys_are_those_of_the_library(key_dir):
    pair = keys.load_pair(key_dir, "master")

    assert zmq.curve_public(pair.secret) == pair.public
