"""Make, admit, revoke and compare the keys that daemons and clients prove themselves with. Needs no master.

    cyclone keys                            list the keys of the directory
    cyclone keys make NAME --role ROLE      make a key pair: NAME.secret and NAME.public
    cyclone keys authorize FILE             let the owner of this public key in
    cyclone keys revoke NAME                let the owner of this key in no more
    cyclone keys fingerprint [NAME]         what to compare over the telephone; of the master if none is named

The directory is that of [security] key_dir in the ini file, or --key-dir. A controller on another node needs its
own NAME.secret and a copy of master.public, which can be read by anybody but must come from the right master:
compare the fingerprints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from cyclone.cli.connection import add_config_file, read_settings
from cyclone.cli.page import Table
from cyclone.errors import EXIT_OK, KeyFileError
from cyclone.wire import keys

_NOTICED = "A master and sinks that read this directory notice within seconds."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_places(parser)
    parser.set_defaults(act=_list)
    actions = parser.add_subparsers(metavar="ACTION")

    def action(name: str, line: str, act: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=line, description=f"{line.capitalize()}.", allow_abbrev=False)
        _add_places(added)
        added.set_defaults(act=act)
        return added

    action("list", "list the keys of the directory", _list)
    make = action("make", "make a key pair", _make)
    make.add_argument("name", metavar="NAME", help="of the key: letters, digits, dots, dashes, underscores")
    make.add_argument("--role", required=True, choices=[role.value for role in keys.Role], metavar="ROLE",
                      help=f"what its owner is: {', '.join(keys.Role)}")  # fmt: skip
    authorize = action("authorize", "let the owner of this public key in", _authorize)
    authorize.add_argument("file", metavar="FILE", type=Path, help="NAME.public, as it was made")
    revoke = action("revoke", "let the owner of this key in no more", _revoke)
    revoke.add_argument("name", metavar="NAME", help="of the key")
    fingerprint = action("fingerprint", "print the fingerprint of a public key", _fingerprint)
    fingerprint.add_argument("name", metavar="NAME", nargs="?", default="master", help="of the key (master)")


def _add_places(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument("--key-dir", type=Path, metavar="DIRECTORY", default=argparse.SUPPRESS,
                        help="of the keys, instead of the one in the ini file")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    options.act(options)
    return EXIT_OK


def _key_dir(options: argparse.Namespace) -> Path:
    given: Path | None = getattr(options, "key_dir", None)
    return given if given is not None else read_settings(options).key_dir


def _list(options: argparse.Namespace) -> None:
    key_dir = _key_dir(options)
    if not key_dir.is_dir():
        raise KeyFileError("no such directory; the first start of a master makes it", file=key_dir)
    table = Table(("NAME", "ROLE", "STANDING", "SECRET", "FINGERPRINT"))
    for listed in keys.listing(key_dir):
        secret = "here" if listed.has_secret else "elsewhere"
        table.add(listed.name, listed.role, _standing(listed), secret, listed.fingerprint)
    table.print()


def _standing(listed: keys.Listed) -> str:
    if listed.authorized:
        return "authorized"
    if listed.revoked:
        return "revoked"
    return "-" if listed.role is keys.Role.MASTER else "not authorized"


def _make(options: argparse.Namespace) -> None:
    key_dir = _key_dir(options)
    pair = keys.make(key_dir, options.name, keys.Role(options.role))
    print(f"{pair.public_key.fingerprint}  {pair.name} ({pair.role}) in {key_dir}")
    if pair.role in keys.ADMISSIBLE:
        print(f"To let it in, at its master: cyclone keys authorize {key_dir / pair.name}.public")


def _authorize(options: argparse.Namespace) -> None:
    key = keys.authorize(_key_dir(options), options.file)
    print(f"{key.fingerprint}  {key.name} ({key.role}) is authorized. {_NOTICED}")


def _revoke(options: argparse.Namespace) -> None:
    keys.revoke(_key_dir(options), options.name)
    print(f"{options.name} is revoked. {_NOTICED}")


def _fingerprint(options: argparse.Namespace) -> None:
    key = keys.load_public(_key_dir(options), options.name)
    print(f"{key.fingerprint}  {key.name} ({key.role})")
