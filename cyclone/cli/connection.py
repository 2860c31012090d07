"""How a command finds its master: the ini file of the master or of one of its controllers tells it."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from cyclone.client import Client
from cyclone.errors import ConfigError
from cyclone.settings import ClientSettings, endpoint, is_ipv6
from cyclone.wire import keys

DEFAULT_FILES = (Path("/etc/cyclone/master.conf"), Path("/etc/cyclone/controller.conf"))


def add_config_file(parser: argparse.ArgumentParser, *, of_master: bool = False) -> None:
    """The option `-f`, which may stand before and after the name of an action.

    of_master: the file of a controller does not tell what is wanted.
    """
    whose = "of the master" if of_master else "of the master or of one of its controllers"
    files = DEFAULT_FILES[:1] if of_master else DEFAULT_FILES
    parser.add_argument(
        "-f",
        "--config-file",
        type=Path,
        metavar="INI",
        default=argparse.SUPPRESS,
        help=f"{whose}; default: {' or '.join(map(str, files))}",
    )


def config_file(options: argparse.Namespace) -> Path:
    """The file that `-f` names, or the first default one that is there. Raises ConfigError."""
    given: Path | None = getattr(options, "config_file", None)
    if given is not None:
        return given
    for file in DEFAULT_FILES:
        if file.exists():
            return file
    found = " nor ".join(map(str, DEFAULT_FILES))
    raise ConfigError(f"there is neither {found}; expected -f INI")


def read_settings(options: argparse.Namespace) -> ClientSettings:
    """Read the file that `-f` names, or the first default one that is there. Raises ConfigError."""
    return ClientSettings.read(config_file(options))


def connect(settings: ClientSettings) -> Client:
    """A client of this master, to be closed by the caller, with the key that the first start of a master made.

    Raises KeyFileError when that key or the public one of the master is not there or not as it must be.
    """
    own = keys.load_pair(settings.key_dir, keys.Role.CLIENT) if settings.curve else None
    master = keys.load_public(settings.key_dir, keys.Role.MASTER) if settings.curve else None
    # A life of its own for each command, or the answers to two of them at the same time might be mixed up.
    address = endpoint(settings.target, settings.port)
    return Client(address, own, master, life=secrets.token_hex(8), ipv6=is_ipv6(settings.target))
