"""Make the file of a store as small as what is in it. No master may run on it.

Room of what was forgotten is used again by itself, so this is for a file that was once much larger than it has to be.
What is in it is copied beside it, which takes as much room again as there is in it, and the copy takes its place when it
was looked through. Whoever kills it loses nothing.

The exit code is 6 while a master runs, and 5 while somebody else reads the store, such as a back-up.
"""

from __future__ import annotations

import argparse

from cyclone.cli.connection import add_config_file, config_file
from cyclone.cli.page import visible
from cyclone.errors import EXIT_OK
from cyclone.settings import MasterSettings
from cyclone.store.compaction import compact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)


def run(options: argparse.Namespace) -> int:
    store = MasterSettings.read(config_file(options)).store_path
    before_bytes, after_bytes = compact(store)
    print(f"{visible(str(store))}: {before_bytes / 2**20:.1f} MiB before, {after_bytes / 2**20:.1f} MiB now")
    return EXIT_OK
