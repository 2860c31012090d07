"""How every daemon starts: arguments, ini file, log, PID file; and how every error becomes an exit code."""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import logging.handlers
import os
import resource
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import cyclone
from cyclone.errors import EXIT_INTERNAL, EXIT_OK, ConfigError, CycloneError
from cyclone.ini import Ini
from cyclone.loop import Loop
from cyclone.process.pid_file import PidFile
from cyclone.process.service_manager import ServiceManager
from cyclone.settings import ControllerSettings, MasterSettings
from cyclone.sinks.settings import PASSWORD_VARIABLE, DatabaseProxySettings, PushgatewayClientSettings

log = logging.getLogger(__name__)

#: With less, strangers who connect and say nothing may leave no room for controllers (`wire/connections.py`).
_DESCRIPTORS_ENOUGH = 4096

_Settings = TypeVar(
    "_Settings", MasterSettings, ControllerSettings, DatabaseProxySettings, PushgatewayClientSettings
)


class Action(NamedTuple, Generic[_Settings]):
    """Something that a daemon can do instead of serving, and what `--help` says of it. run: returns the exit code."""

    flag: str
    help: str
    run: Callable[[_Settings], int]


def run_daemon(
    name: str,
    what: str,
    settings_type: type[_Settings],
    serve: Callable[[_Settings, ServiceManager], int],
    check: Callable[[_Settings], None] | None = None,
    arguments: Sequence[str] | None = None,
    actions: Sequence[Action[_Settings]] = (),
) -> int:
    """Run one daemon in the foreground and return its exit code.

    name: of the daemon without `cyclone-`; what: one sentence for `--help`.
    serve: does the work while the PID file is held. check: more that `--check` looks at.
    actions: they work beside a running daemon, too.
    """
    program = f"cyclone-{name}"
    parser = _parser(program, name, what)
    for action in actions:
        parser.add_argument(action.flag, dest="action", action="store_const", const=action, help=action.help)
    parser.set_defaults(action=None)
    options = parser.parse_args(arguments)
    if settings_type is not DatabaseProxySettings:
        # Where all daemons are started from one environment, tasks and generators need not know it.
        os.environ.pop(PASSWORD_VARIABLE, None)
    try:
        ini = Ini.read(options.config_file)
        settings = settings_type.of(ini)
        if options.debug:
            # What does not serve has no log, and says in one line what is wrong; who asks for more gets it here.
            start_log(None, debug=True)
        if options.check:
            print(settings_type.explain(ini))  # noqa: T201 - this is what was asked for
            if check is not None:
                check(settings)
            return EXIT_OK
        if options.action is not None:
            return int(options.action.run(settings))
        return _serve(settings, serve, options.debug)
    except CycloneError as error:
        return _tell(program, error)
    except Exception:  # the outermost border of the process: a traceback for us, a line for the operator
        log.exception("internal error: please report this")
        return EXIT_INTERNAL
    finally:
        logging.shutdown()


def spare_collector() -> None:
    """Let the garbage collector look seldom: what daemons make by the thousand is freed by counting.

    Its full passes walk over every live task; by default they took over a quarter of a busy master's time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def new_life() -> str:
    """For a daemon that starts now; see `Peer.life`."""
    return f"{time.time_ns():016x}{secrets.token_hex(6)}"


def report_ready(loop: Loop, manager: ServiceManager, status: str) -> None:
    """The daemon serves from now on, and is alive for as long as its loop turns."""
    if manager.alive_every_s is not None:
        loop.pulse(manager.alive_every_s, manager.alive)
    manager.ready(status)


def raise_descriptor_limit() -> None:
    """As many descriptors as the administrator allows: a connection of each controller, two for each worker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < _DESCRIPTORS_ENOUGH:
        log.warning("found a limit of %d open files, expected %d or more", most, _DESCRIPTORS_ENOUGH)


def _serve(settings: _Settings, serve: Callable[[_Settings, ServiceManager], int], debug: bool) -> int:
    spare_collector()
    # What a daemon makes it must be able to open again, whoever has started it.
    os.umask(os.umask(0o077) & 0o077)
    start_log(settings.log_file, debug=debug)
    pid_file = PidFile(settings.pid_file)
    pid_file.acquire()
    manager = ServiceManager.take(os.environ)
    try:
        return serve(settings, manager)
    finally:
        manager.close()
        pid_file.release()


def start_log(file: Path | None, *, debug: bool) -> None:
    """`time - LEVEL: text` to a file that may be moved away at any time, or to standard error."""
    handler: logging.Handler
    try:
        handler = (
            logging.StreamHandler()
            if file is None
            else _LogFile(file, encoding="utf-8", errors="backslashreplace")
        )
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", file=file, section="log", key="filename"
        ) from None
    handler.setFormatter(_OneLine("%(asctime)s - %(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a full disk under the log must not end a daemon


class _LogFile(logging.handlers.WatchedFileHandler):
    """Nobody else may write into it, whatever the umask allows, nor choose by a link what is written to."""

    def _open(self) -> TextIOWrapper:
        stream = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_for_log
        )
        assert isinstance(stream, TextIOWrapper)
        return stream


def _for_log(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        # One that an administrator has put there, or /dev/stderr, is meant to be followed.
        if error.errno != errno.ELOOP or os.lstat(path).st_uid not in (0, os.geteuid()):
            raise
        return os.open(path, flags, 0o644)


class _OneLine(logging.Formatter):
    """Text from peers and tasks may hold control characters; only a traceback may begin a new line."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if not text.isprintable():
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        record = logging.makeLogRecord({**record.__dict__, "msg": text, "args": None})
        return super().format(record)


def _parser(program: str, name: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=what)
    parser.add_argument(
        "-f", "--config-file", type=Path, default=Path(f"/etc/cyclone/{name}.conf"), metavar="INI",
        help="ini file to read (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("-D", "--debug", action="store_true", help="log every message as well")
    parser.add_argument("-v", "--version", action="version", version=f"{program} {cyclone.__version__}")
    parser.add_argument("--check", action="store_true", help="check the ini file, say what it means, and end")
    return parser


def _tell(program: str, error: CycloneError) -> int:
    line = " ".join(str(error).split())
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201 - the operator who started it looks here first
    # Where the log is the terminal, one line is enough.
    if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
        log.error("%s", line)
    return error.exit_code
