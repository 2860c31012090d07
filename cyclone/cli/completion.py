"""Print the completion of this command for a shell, to be put where that shell looks for it.

bash  cyclone completion bash > ~/.local/share/bash-completion/completions/cyclone
zsh   cyclone completion zsh > DIRECTORY/_cyclone      with DIRECTORY in $fpath
tcsh  cyclone completion tcsh > ~/.cyclone.csh         and `source` that in ~/.tcshrc
"""

from __future__ import annotations

import argparse

from cyclone.cli.commands import COMMANDS, make_parser
from cyclone.errors import EXIT_OK, ConfigError

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise ConfigError(
            "the Python package shtab is missing; expected: pip install 'cyclone[cli]'"
        ) from None
    parser = make_parser(COMMANDS)
    _complete_files(parser, {"INI": shtab.FILE, "FILE": shtab.FILE, "DIRECTORY": shtab.DIRECTORY})
    print(shtab.complete(parser, shell=options.shell))
    return EXIT_OK


def _complete_files(parser: argparse.ArgumentParser, by_metavar: dict[str, object]) -> None:
    """Tell shtab, which looks for an attribute, what arguments are files; here and below."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below, by_metavar)
        elif action.metavar in by_metavar:
            action.complete = by_metavar[str(action.metavar)]  # type: ignore[attr-defined]
