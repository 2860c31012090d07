"""What an earlier life of this daemon left behind, when it and its reaper were killed in the same instant.

Everything below a controller carries the controller's life in its environment, and is in a control group with this name
where we may make one. The lives stand in a file next to the PID file. The next life reads the file, kills what still
belongs to one of them, and writes itself down. A life is struck out when nobody belongs to it any more.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cyclone.errors import ConfigError
from cyclone.process import control_group
from cyclone.process.control_group import ControlGroup
from cyclone.process.lineage import has_variable, processes, slay_and_wait
from cyclone.process.replace import replace_content

#: The environment variable that everything below a controller carries.
LIFE_VARIABLE = "CYCLONE_LIFE"

_LIFE = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")


def sweep_former_lives(file: str | Path, life: str, within_s: float = 5.0) -> set[int]:
    """Kill all processes of ours that carry a life written in the file; then write `life` there.

    Call it while the PID file is held: then nobody who carries such a life has a controller any more.
    Returns the pids of who could not be killed; their lives stay in the file for the next time.
    Raises ConfigError when the file cannot be read or written.
    """
    file = Path(file)
    kept, left = [], set()
    for former in _read(file):
        groups = control_group.named(group_name(former))
        for group in groups:
            group.kill()
        survivors = slay_and_wait(lambda: _all_of(former, groups), within_s)  # noqa: B023 - called at once
        if survivors:
            kept.append(former)
            left |= survivors
        else:
            remove_groups(former)
    _write(file, [*kept, life])
    return left


def forget_lives(file: str | Path) -> set[int]:
    """Strike out the lives that nobody carries any more, as when this one ends in order. Without lives, no file.

    Returns the pids of who could not be killed; their lives stay in the file for the next time.
    Raises ConfigError when the file cannot be read or written.
    """
    file = Path(file)
    left = {}
    for life in _read(file):
        if pids := _all_of(life, control_group.named(group_name(life))):
            left[life] = pids
        else:
            remove_groups(life)
    if left:
        _write(file, list(left))
    else:
        file.unlink(missing_ok=True)
    return set().union(*left.values())


def group_name(life: str) -> str:
    """The control group of everything below a controller in this life."""
    return f"cyclone-{life}"


def remove_groups(life: str) -> None:
    """The control groups of a life to which nobody belongs any more."""
    for group in control_group.named(group_name(life)):
        group.remove()


def _all_of(life: str, groups: list[ControlGroup]) -> set[int]:
    alive = processes()
    return carriers(life).union(*(group.members() & alive.keys() for group in groups))


def carriers(life: str) -> set[int]:
    """Every process but us that was started with this life in its environment, as far as we may look into it.

    Whoever may is root, or of the same user: what root has started may have become somebody else since.
    """
    variable = f"{LIFE_VARIABLE}={life}".encode()
    everybody = map(int, filter(str.isdecimal, os.listdir("/proc")))
    return {pid for pid in everybody if pid != os.getpid() and has_variable(pid, variable)}


def _read(file: Path) -> list[str]:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from None
    with open(fd, encoding="ascii", errors="replace") as lines:
        # A line that was cut short by a crash names nobody, and must not be taken for a life.
        return [line.strip() for line in lines if _LIFE.match(line.strip())]


def _write(file: Path, lives: list[str]) -> None:
    try:
        replace_content(file, "".join(f"{life}\n" for life in lives).encode("ascii"))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=file) from None
