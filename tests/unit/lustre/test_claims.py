from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cyclone.lustre.claims import Claim, Claims


def test_what_is_done_cannot_be_had_again(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    assert claims.take("round 1", "ost 3", most=5) is Claim.MINE

    claims.done("round 1", "ost 3")

    assert claims.take("round 1", "ost 3", most=5) is Claim.DONE


def test_what_somebody_has_begun_and_not_done_can_be_had_again(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    claims.take("round 1", "ost 3", most=1)

    assert claims.take("round 1", "ost 3", most=1) is Claim.MINE
    assert claims.take("round 1", "ost 4", most=1) is Claim.TOO_MANY


def test_there_are_only_so_many_in_a_group(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")

    taken = [claims.take("round 1", f"ost {ost}", most=3) for ost in range(5)]

    assert taken == [Claim.MINE] * 3 + [Claim.TOO_MANY] * 2


def test_each_group_counts_for_itself(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    claims.take("round 1", "ost 3", most=1)

    assert claims.take("round 2", "ost 3", most=1) is Claim.MINE


def test_what_was_given_back_can_be_had_again(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    claims.take("round 1", "ost 3", most=1)

    claims.give_back("round 1", "ost 3")

    assert claims.take("round 1", "ost 4", most=1) is Claim.MINE


def test_old_groups_are_forgotten(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.take("round 1", "ost 3", most=1)
    (old,) = tmp_path.iterdir()
    os.utime(old, (0, 0))

    claims.take("round 2", "ost 3", most=1)

    assert not old.exists()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("goes_after", [False, True])
def test_an_old_group_may_be_forgotten_by_two_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_after: bool
) -> None:
    claims = Claims(tmp_path)
    claims.take("round 1", "ost 3", most=1)
    (old,) = tmp_path.iterdir()
    os.utime(old, (0, 0))
    really = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self == old and not goes_after:
            shutil.rmtree(old, ignore_errors=True)
        found = really(self, follow_symlinks=follow_symlinks)
        if self == old:
            shutil.rmtree(old, ignore_errors=True)
        return found

    monkeypatch.setattr(Path, "stat", stat)

    assert claims.take("round 2", "ost 3", most=1) is Claim.MINE
    assert not os.path.exists(old)


def test_a_directory_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims").chmod(0o777)

    with pytest.raises(PermissionError):
        Claims(tmp_path / "claims").take("round 1", "ost 3", most=1)


def test_of_many_processes_no_more_than_allowed_get_theirs(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from cyclone.lustre.claims import Claim, Claims;"
        "claims = Claims(pathlib.Path(sys.argv[1]));"
        "print(sum(claims.take('r', f'{sys.argv[2]}-{n}', 10) is Claim.MINE for n in range(50)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "claims")]

    all_of_them = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    had = sum(int(process.communicate()[0]) for process in all_of_them)

    assert 0 < had <= 10
