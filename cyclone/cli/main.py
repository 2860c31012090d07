"""The entry of the `cyclone` command: parses, runs one command, and turns every expected error into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclone.cli.commands import COMMANDS, make_parser
from cyclone.cli.page import visible, write_safely
from cyclone.errors import EXIT_OK, CycloneError

#: What a shell reports of a command that ended by SIGINT.
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. argv: without the name of the program; None: that of the process.

    Raises SystemExit, as argparse does, for `--help`, `--version` and a wrong usage.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    write_safely()
    command = next((word for word in words if word in COMMANDS), None)
    options = make_parser([command] if command is not None else []).parse_args(words)
    try:
        code = int(options.run(options))
        # Here and not at the exit of the interpreter, or a reader that has gone would be told of in a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this has seen enough. What is still buffered has to go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except CycloneError as error:
        print(f"cyclone: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
