"""Which commands there are, and the parser that knows them.

A command is a module of its name with a docstring, which is its manual page, with `add_arguments(parser)` and
`run(options)`, which returns the exit code. Only the modules that are asked for are loaded: nobody who wants a
list of tasks waits for the rest.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Collection
from importlib import import_module

from cyclone import __version__

#: `{command: what it does, in a line}`, in the order of the manual.
COMMANDS = {
    "info": "the master, its controllers and its jobs",
    "tasks": "list tasks, live and ended",
    "explain": "why a task stands where it stands, or how it ended",
    "audit": "prove that every accepted task has one end or is open",
    "command": "ask the generator of a job to carry out one of its commands",
    "migration": "look after a migration of files between Lustre OSTs",
    "make-input": "make lists of files for a migration",
    "matrix": "pairs of MDT and OST on which no file can be made",
    "keys": "make, admit, revoke and compare keys",
    "backup": "copy the store of a master, also while it runs",
    "compact": "make the file of a store as small as what is in it",
    "bench": "measure how fast Cyclone is on this host",
    "drill": "make faults on purpose, and see that no task is lost",
    "completion": "print the completion of this command for a shell",
}


def make_parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """The parser of the whole command line; only the wanted commands know their arguments."""
    parser = argparse.ArgumentParser(
        prog="cyclone", description="Ask a running master, and look after its keys.", allow_abbrev=False
    )
    parser.add_argument("-v", "--version", action="version", version=f"cyclone {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        command = commands.add_parser(
            name, help=line, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in wanted:
            module = import_module(f"cyclone.cli.{name.replace('-', '_')}")
            command.description = inspect.cleandoc(module.__doc__ or line)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
