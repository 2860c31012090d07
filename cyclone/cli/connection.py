"""How a command finds its master: the ini file of the master or of one of its controllers tells it."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclone.errors import ConfigError
from cyclone.settings import ClientSettings

DEFAULT_FILES = (Path("/etc/cyclone/master.conf"), Path("/etc/cyclone/controller.conf"))


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """The option `-f`, which may stand before and after the name of an action."""
    parser.add_argument(
        "-f",
        "--config-file",
        type=Path,
        metavar="INI",
        default=argparse.SUPPRESS,
        help=f"of the master or of one of its controllers; default: {' or '.join(map(str, DEFAULT_FILES))}",
    )


def read_settings(options: argparse.Namespace) -> ClientSettings:
    """Read the file that `-f` names, or the first default one that is there. Raises ConfigError."""
    given: Path | None = getattr(options, "config_file", None)
    if given is not None:
        return ClientSettings.read(given)
    for file in DEFAULT_FILES:
        if file.exists():
            return ClientSettings.read(file)
    found = " nor ".join(map(str, DEFAULT_FILES))
    raise ConfigError(f"there is neither {found}; expected -f INI")
