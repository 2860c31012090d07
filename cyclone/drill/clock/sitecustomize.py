"""Lets a drill set the wall clock of one daemon, and of whatever it starts, without touching that of the machine.

Python imports this module by its name at every start when its directory is on PYTHONPATH. `time.time` and `time.time_ns`
then add what stands in a file of the drill; all wall-clock time that Cyclone decides, orders or records by comes from
these two. All other clocks are left alone, as a step of the real wall clock leaves them alone.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_SECONDS = struct.Struct("=d")


def _step(file: str) -> None:
    with open(file, "rb") as stream:
        page = mmap.mmap(stream.fileno(), _SECONDS.size, prot=mmap.PROT_READ)
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + _SECONDS.unpack_from(page)[0]
    time.time_ns = lambda: wall_ns() + int(_SECONDS.unpack_from(page)[0] * 1e9)


_file = os.path.join(os.environ.get("CYCLONE_DRILL", ""), os.environ.get("CYCLONE_DAEMON", "") + ".clock")
if os.path.exists(_file):
    _step(_file)
