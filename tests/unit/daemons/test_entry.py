"""The log of a daemon, in a process of its own: it is that of the whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cyclone.daemons import entry

LOG = """
import logging, sys
from pathlib import Path
from cyclone.daemons.entry import start_log

start_log(Path(sys.argv[1]), debug=False)
logging.getLogger("test").warning("said %s", sys.argv[2])
"""


def test_a_message_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    said = "this\n2026-11-20 12:00:00,000 - INFO: that\r\x1b[2J\u2028"

    subprocess.run([sys.executable, "-c", LOG, tmp_path / "log", said], check=True)

    [line] = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert line.endswith(r" - WARNING: said this\n2026-11-20 12:00:00,000 - INFO: that\r\x1b[2J\u2028")


def test_nobody_else_may_write_into_a_log_whatever_the_umask(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LOG, tmp_path / "log", "it"], check=True, umask=0)

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644


def test_a_link_of_somebody_else_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link = tmp_path / "target", tmp_path / "log"
    target.touch()
    link.symlink_to(target)
    monkeypatch.setattr(entry.os, "lstat", lambda _: SimpleNamespace(st_uid=4242))

    with pytest.raises(OSError, match="symbolic links"):
        entry._for_log(str(link), os.O_WRONLY | os.O_APPEND)


def test_a_link_of_our_own_is_followed_to_the_log(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "log"
    target.touch()
    link.symlink_to(target)

    opened = entry._for_log(str(link), os.O_WRONLY | os.O_APPEND)

    try:
        assert os.path.samestat(os.fstat(opened), target.stat())
    finally:
        os.close(opened)
