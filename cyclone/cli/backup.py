"""Copy the store of a master to a file, while the master runs or at rest.

The copy is the store of one moment, whole or not at all, and was looked through before it is said to be there. A file
that exists is left alone unless --replace is given. Run it on the host of the master, as its user or as root.

While the copy is made, the log of the store grows by what the master writes. If less than 256 MiB would be left on its
disk, the back-up is given up.

To restore: stop the master, move all files of the store away (also those that end in -wal and -shm), copy the back-up to the
place of the store, start the master. What was accepted since is not known in it, and what ended since is executed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclone.cli.connection import add_config_file, config_file
from cyclone.cli.page import visible
from cyclone.errors import EXIT_OK
from cyclone.settings import MasterSettings
from cyclone.store.backup import back_up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--replace", action="store_true", help="replace the file if it exists")
    parser.add_argument("file", metavar="FILE", type=Path, help="to copy the store to")


def run(options: argparse.Namespace) -> int:
    store = MasterSettings.read(config_file(options)).store_path
    size_bytes = back_up(store, options.file, replace=options.replace)
    print(f"{visible(str(options.file))}: {size_bytes / 2**20:.1f} MiB, looked through")
    return EXIT_OK
