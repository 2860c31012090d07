"""Why `cyclone.lustre` does some things itself that `lfsutils` offers.

Each test shows the package being wrong and ours being right. One that fails because the package has been mended says
that an override can go.
"""

import os
import subprocess
import time
from datetime import timedelta
from inspect import signature
from pathlib import Path

import pytest
from lfsutils.lib import LfsUtils, LfsUtilsError, MigrateResult, MigrateState

from cyclone.base_task import Attempt
from cyclone.lustre.lfs import Lfs, LfsError, LfsMissing, LfsTimedOut, result_line
from cyclone.lustre.migrate_task import LustreOstMigrateTask
from cyclone.lustre.migration.verdict import FileState

COMPOSITE = """\
  lcm_layout_gen:    2
  lcm_mirror_count:  1
  lcm_entry_count:   1
  component0:
    lcme_id:             1
    lcme_flags:          init
    sub_layout:
      lmm_stripe_count:  1
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 7
      lmm_objects:
      - 0: { l_ost_idx: 7, l_fid: [0x100070000:0x2:0x0] }

"""
PLAIN = """\
lmm_stripe_count:  1
lmm_stripe_size:   4194304
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 3
lmm_pool:          hdd
lmm_objects:
      - l_ost_idx: 3
        l_fid:     0x100030000:0x22:0x0

"""


class Stub:
    """A program of Lustre's that says what it is told to, and notes its words; `sudo` executes what it is given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lfs, self.lctl = str(directory / "lfs"), str(directory / "lctl")
        self.script("sudo", 'while [ "$1" = -n ]; do shift; done; exec "$@"')
        self.theirs = LfsUtils(self.lfs, self.lctl)
        self.ours = Lfs(self.lfs, self.lctl, timeout_s=20)

    def script(self, name: str, script: str) -> None:
        file = self.directory / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o700)

    def says(self, stdout: str | bytes, *, stderr: str = "", exit_code: int = 0, name: str = "lfs") -> None:
        text = stdout.encode() if isinstance(stdout, str) else stdout
        (self.directory / "stdout").write_bytes(text)
        (self.directory / "stderr").write_text(stderr)
        there = self.directory
        self.script(
            name, f'echo "$*" >> {there}/words; cat {there}/stdout; cat {there}/stderr >&2; exit {exit_code}'
        )

    def moves(self, migrate: str = "exit 0") -> None:
        """A file that lies on OST 3. migrate: what happens when it is to be moved."""
        (self.directory / "layout").write_text(PLAIN)
        there = self.directory
        self.script(
            "lfs",
            f'echo "$*" >> {there}/words; case "$1" in migrate) {migrate};; getstripe) cat {there}/layout;; '
            "path2fid) echo '[0x200000403:0x1:0x0]';; osts) printf 'OBDS:\\n0: lustre-OST0000_UUID ACTIVE\\n';; "
            "pool_list) printf 'Pool: lustre.hdd\\nlustre-OST0005_UUID\\n';; esac",
        )

    def words(self, command: str) -> list[str]:
        lines = (self.directory / "words").read_text().splitlines()
        return next(line for line in reversed(lines) if line.startswith(command)).split()

    @property
    def file(self) -> str:
        file = self.directory / "file"
        file.touch()
        return str(file)

    def task(self, **options):
        given = {"source_ost": 3, "target_ost": 5, "verify": "none", "lfs_bin": self.lfs, **options}
        task = LustreOstMigrateTask(self.file, **given)
        task._attempt = Attempt("job", "t", 1, 1)
        return task.execute()


@pytest.fixture
def stub(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Stub(tmp_path)


# Where files lie.


def test_a_composite_file_has_no_stripes_for_lfsutils(stub):
    stub.says(COMPOSITE)

    with pytest.raises(LfsUtilsError, match="lmm_stripe_count not found"):
        stub.theirs.stripe_info(stub.file)
    assert stub.ours.layout(stub.file).osts == (7,)


def test_a_composite_file_puts_newlines_into_a_result_of_lfsutils(stub):
    stub.says(COMPOSITE)

    theirs = str(stub.theirs.migrate_file(stub.file, 7, 5))
    ours = result_line("FAILED", stub.file, 0, 7, 5, COMPOSITE)

    assert theirs.startswith("FAILED|")
    assert "\n" in theirs
    assert "\n" not in ours


def test_no_output_is_a_type_error_of_lfsutils(stub):
    stub.says("")

    with pytest.raises(TypeError):
        stub.theirs.stripe_info(stub.file)
    with pytest.raises(LfsError, match="expected the layout of a file"):
        stub.ours.layout(stub.file)


def test_a_file_without_layout_is_a_wrong_answer_to_lfsutils(stub):
    stub.says(f"{stub.file} has no stripe info\n")

    with pytest.raises(LfsUtilsError):
        stub.theirs.stripe_info(stub.file)
    assert not stub.ours.layout(stub.file).exists


def test_output_that_is_not_utf_8_breaks_lfsutils(stub):
    stub.says(b"\xff\n" + PLAIN.encode())

    with pytest.raises(UnicodeDecodeError):
        stub.theirs.migrate_file(stub.file, 3, 5)
    assert stub.ours.layout(stub.file).osts == (3,)


def test_a_name_with_a_dash_in_front_is_an_option_to_lfsutils(stub):
    stub.says(PLAIN)

    stub.theirs.set_ost_file_stripe("-x", 3)
    theirs = stub.words("setstripe")
    stub.ours.create("-x", 3)
    ours = stub.words("setstripe")

    assert "--" not in theirs
    assert ours[-2:] == ["--", "-x"]


# OSTs.


def test_an_ost_that_is_down_is_a_key_error_of_lfsutils(stub):
    stub.says(
        "lustre-OST0000-osc-ffff8ea7b7a28000 active.\n",
        stderr="lfs check: error: check 'lustre-OST0001-osc-ffff8ea7b7a28000': Connection timed out (110)\n",
    )

    with pytest.raises(KeyError):
        stub.theirs.is_ost_idx_active("lustre", 1)
    assert stub.ours.osts("lustre").found[1].reason == "Connection timed out (110)"


def test_of_two_mounts_the_last_line_counts_for_lfsutils(stub):
    stub.says("lustre-OST0000-osc-ffff000000000001 inactive.\nlustre-OST0000-osc-ffff000000000002 active.\n")

    assert stub.theirs.is_ost_idx_active("lustre", 0)
    assert not stub.ours.osts("lustre").found[0].active


def test_upper_case_in_an_index_is_not_understood_by_lfsutils(stub):
    stub.says("lustre-OST00AF-osc-ffff8ea7b7a28000 active.\n")

    assert stub.theirs.retrieve_component_states() == {}
    assert list(stub.ours.osts("lustre").found) == [0xAF]


ROW = "lustre-OST0000_UUID 71145271296 35572635648 35572635648 50% /lustre[OST:{index}]\n"


def test_one_ost_with_an_error_takes_all_levels_from_lfsutils(stub):
    stub.says(ROW.format(index=0) + "OST0001             : Input/output error\n", exit_code=5)

    with pytest.raises(subprocess.CalledProcessError):
        stub.theirs.retrieve_ost_disk_usage("/lustre")
    assert list(stub.ours.usage("/lustre")) == [0]


def test_an_index_of_five_digits_is_not_understood_by_lfsutils(stub):
    stub.says(ROW.format(index=0) + ROW.format(index=10000))

    assert list(stub.theirs.retrieve_ost_disk_usage("/lustre")) == [0]
    assert list(stub.ours.usage("/lustre")) == [0, 10000]


def test_lfsutils_knows_a_level_to_the_percent_only_and_no_sizes(stub):
    stub.says(ROW.format(index=0).replace("50%", "51%"))  # rounded up

    assert stub.theirs.retrieve_ost_disk_usage("/lustre") == {0: 51}
    found = stub.ours.usage("/lustre")[0]
    assert found.fill == 50.0
    assert found.available_kib == 35572635648


def test_lfsutils_waits_for_osts_that_are_down(stub):
    stub.says(ROW.format(index=0))

    stub.theirs.retrieve_ost_disk_usage("/lustre")
    theirs = stub.words("df")
    stub.ours.usage("/lustre")
    ours = stub.words("df")

    assert "--lazy" not in theirs
    assert "--lazy" in ours


@pytest.mark.parametrize("host", ["oss-7.site.example", "fe80::21"])
def test_servers_that_are_no_ipv4_addresses_are_not_understood_by_lfsutils(stub, host):
    line = f"osc.lustre-OST0007-osc-ffff8ea7b7a28000.ost_conn_uuid={host}@tcp\n"
    stub.says(line, name="lctl")

    with pytest.raises(LfsUtilsError):
        stub.theirs.ost_conn_uuid_map("lustre")
    assert stub.ours.oss_of("lustre") == {7: host}


# How programs are run.


def test_lfsutils_needs_sudo_and_ours_does_not(stub):
    stub.says(ROW.format(index=0))
    stub.script("sudo", "exit 1")

    with pytest.raises(subprocess.CalledProcessError):
        stub.theirs.retrieve_ost_disk_usage("/lustre")
    assert list(stub.ours.usage("/lustre")) == [0]


def test_lfsutils_waits_for_ever(stub):
    stub.script("lfs", "sleep 1.5")
    stub.ours.timeout_s = 0.2

    begun = time.monotonic()
    with pytest.raises(LfsUtilsError):  # An end comes only because the program ends, with no output.
        stub.theirs.retrieve_ost_disk_usage("/lustre")
    assert time.monotonic() - begun >= 1.5
    with pytest.raises(LfsTimedOut):
        stub.ours.usage("/lustre")


def test_lfsutils_lets_programs_speak_any_tongue(stub, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    stub.script("lfs", f"echo $LC_ALL >> {stub.directory}/tongues; echo '{ROW.format(index=0).strip()}'")

    stub.theirs.retrieve_ost_disk_usage("/lustre")
    stub.ours.usage("/lustre")

    assert (stub.directory / "tongues").read_text().split() == ["de_DE.UTF-8", "C"]


def test_a_missing_program_gets_out_of_a_migration_of_lfsutils(stub):
    missing = str(stub.directory / "nothing")

    with pytest.raises(FileNotFoundError):
        LfsUtils(missing).migrate_file(stub.file, 3, 5)
    with pytest.raises(LfsMissing):
        Lfs(missing).layout(stub.file)
    assert stub.task(lfs_bin=missing).reason == "no-program"


# Migrations.


def test_a_failure_without_a_word_gets_out_of_a_migration_of_lfsutils(stub):
    stub.moves("exit 28")

    with pytest.raises(LfsUtilsError, match="requires error_msg"):
        stub.theirs.migrate_file(stub.file, 3, 5)
    assert stub.task().state is FileState.FAILED


def test_a_target_out_of_bounds_is_asked_for_by_lfsutils(stub):
    stub.moves()

    stub.theirs.migrate_file(stub.file, 3, 70000)

    assert "70000" in stub.words("migrate")
    with pytest.raises(ValueError, match="from 0 to 65535"):
        stub.task(target_ost=70000)
    with pytest.raises(LfsError, match="expected 0 to 65535"):
        stub.ours.migrate(stub.file, 70000)


def test_without_a_source_lfsutils_ignores_each_file(stub):
    stub.moves()

    assert str(stub.theirs.migrate_file(stub.file, None, 5)).startswith("IGNORED|")
    with pytest.raises(ValueError, match="source_ost: found None"):
        stub.task(source_ost=None)


def test_without_a_target_lfsutils_calls_it_a_success_that_a_file_stayed(stub):
    stub.moves()

    assert str(stub.theirs.migrate_file(stub.file, 3)).endswith("|3|3")
    assert stub.task(verify="layout").state is FileState.DISPLACED
    with pytest.raises(ValueError, match="target_ost: found None"):
        stub.task(target_ost=None)


def test_lfsutils_lets_lustre_take_another_target(stub):
    stub.moves()

    stub.theirs.migrate_file(stub.file, 3, 5)
    theirs = stub.words("migrate")
    stub.task()
    ours = stub.words("migrate")

    assert theirs[theirs.index("5") - 1] == "-i"
    assert ours[ours.index("5") - 1] == "-o"


def test_lfsutils_loses_the_stripe_size_and_the_pool(stub):
    stub.moves()

    stub.theirs.migrate_file(stub.file, 3, 5)
    theirs = stub.words("migrate")
    stub.task()
    ours = stub.words("migrate")

    assert "-S" not in theirs
    assert "-p" not in theirs
    assert ours[ours.index("-S") + 1] == "4194304"
    assert ours[ours.index("-p") + 1] == "hdd"


def test_lfsutils_has_no_state_for_a_file_that_is_busy(stub):
    stub.moves("echo 'error: lfs migrate: f: cannot get lease: Device or resource busy' >&2; exit 16")

    assert "BUSY" not in MigrateState.__members__
    assert str(stub.theirs.migrate_file(stub.file, 3, 5)).startswith("FAILED|")
    assert stub.task().state is FileState.BUSY


def test_a_result_of_lfsutils_is_text_only():
    result = MigrateResult(MigrateState.SUCCESS, "/l/a|b", timedelta(seconds=1), 3, 5)

    assert not {"state", "filename", "source_idx"} & vars(result).keys()
    assert str(result).split("|")[1] != "/l/a|b"


# The rest of the adapter.


def test_a_file_that_landed_elsewhere_is_left_behind_by_lfsutils(stub):
    there = stub.directory / "probe"
    stub.script(
        "lfs",
        f"case $1 in setstripe) : > {there};; *) printf 'lmm_stripe_count: 1\\nlmm_stripe_offset: 4\\n';; esac",
    )

    assert not stub.theirs.is_ost_writable(3, str(there))
    assert there.exists()
    there.unlink()

    stub.ours.create(str(there), 3)
    assert stub.ours.layout(str(there)).osts == (4,)


def test_the_mdt_of_a_directory_cannot_be_asked_of_lfsutils(stub):
    stub.says("2\n")

    with pytest.raises(TypeError):
        stub.theirs.retrieve_mdt_idx(str(stub.directory))
    assert stub.ours.mdt_of_directory(str(stub.directory)) == 2


def test_a_directory_is_not_made_by_lfsutils(stub):
    stub.script("lfs", f"echo $* >> {stub.directory}/words; mkdir $5")
    wanted = stub.directory / "mdt2"

    stub.theirs.create_dir_on_mdt(2, str(wanted))
    assert not wanted.exists()

    stub.ours.make_directory(str(wanted), 2)
    assert wanted.is_dir()


def test_lfsutils_knows_no_bandwidth_no_time_and_no_dry_run():
    assert (
        not {"bandwidth_mb", "timeout", "dry_run", "verify"}
        & signature(LfsUtils.migrate_file).parameters.keys()
    )
    assert {"bandwidth_mb", "timeout", "dry_run", "verify"} <= signature(
        LustreOstMigrateTask
    ).parameters.keys()
