"""The entry of the `cyclone` command: parses, runs one command, and turns every expected error into one line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from cyclone.cli.commands import COMMANDS, make_parser
from cyclone.cli.page import visible, write_safely
from cyclone.errors import EXIT_OK, CycloneError

#: What a shell reports of a command that ended by SIGINT.
EXIT_INTERRUPTED = 130


class OutputLost(CycloneError):
    """What was asked for could not be written to standard output."""


class _Output:
    """Standard output, whose errors can be told from those of any other file. A closed pipe is not one of them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._telling():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._telling():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"standard output: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. argv: without the name of the program; None: that of the process.

    Raises SystemExit, as argparse does, for `--help`, `--version` and a wrong usage.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    write_safely()
    try:
        with contextlib.redirect_stdout(cast(IO[str], _Output(sys.stdout))):
            try:
                return _run(words)
            finally:
                # Here and not at the exit of the interpreter, or whatever is wrong would be told of in a traceback.
                sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this has seen enough.
        _let_go_of_output()
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except CycloneError as error:
        print(f"cyclone: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        if isinstance(error, OutputLost):
            _let_go_of_output()
        return error.exit_code


def _run(words: Sequence[str]) -> int:
    command = next((word for word in words if word in COMMANDS), None)
    options = make_parser([command] if command is not None else []).parse_args(words)
    return int(options.run(options))


def _let_go_of_output() -> None:
    """What is still buffered has to go somewhere when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
