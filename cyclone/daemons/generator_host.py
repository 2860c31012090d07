"""The process in which a task generator lives: loads it, lets it check its ini file, runs it.

It is a client of the master like any other. What is in it may block, crash or be killed; the master goes on.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from pathlib import Path

import msgspec

from cyclone.daemons.desk import Desk
from cyclone.daemons.entry import new_life, spare_collector, start_log
from cyclone.daemons.generator_process import Errand, Go, Verdict
from cyclone.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, CycloneError, PluginError
from cyclone.ini import Ini
from cyclone.messages import Command, CommandDone
from cyclone.model.task import Seconds
from cyclone.plugins import load_class
from cyclone.process.guardian import go_on_guarded
from cyclone.task_generator import TaskGenerator
from cyclone.wire.keys import Role
from cyclone.wire.line import connect

log = logging.getLogger("generator")

_LETTER_BYTES_MAX = 1 << 16


def main(link: socket.socket) -> int:
    """Run one generator from its start to its end. Returns the exit code of the process."""
    # The master passes it on; a generator that can read its ini file again listens to it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    letter = link.recv(_LETTER_BYTES_MAX)
    if not letter:
        return EXIT_OK  # the master was told to stop meanwhile
    errand = msgspec.json.decode(letter, type=Errand)
    spare_collector()
    try:
        start_log(Path(errand.log_file) if errand.log_file else None, debug=errand.debug)
        generator = _load(errand)
        ready = msgspec.json.encode(Verdict.accepting(generator.explain_config()))
    except CycloneError as error:
        return _refuse(link, Verdict.refusing(str(error), error.exit_code))
    except (Exception, SystemExit) as error:  # the border to the code of a user
        log.exception("the task generator cannot be made ready")
        what = f"{errand.module}.{errand.class_name}: {type(error).__name__}: {error}"
        return _refuse(link, Verdict.refusing(what, EXIT_CONFIG))
    told = link.recv(_LETTER_BYTES_MAX) if _say(link, ready) else b""
    if not told:
        return EXIT_OK  # the master was only asked to check, or is gone
    return _run(generator, errand, msgspec.json.decode(told, type=Go))


def _load(errand: Errand) -> TaskGenerator:
    kind = load_class(
        errand.module,
        errand.class_name,
        TaskGenerator,
        errand.path,
        file=errand.master_file,
        section="task_generator",
    )
    ini = Ini.read(errand.config_file) if errand.config_file is not None else Ini({})
    generator = kind(ini)
    generator.validate_config()
    try:
        # The master would drop what is out of bounds, and nobody would hear of it.
        msgspec.convert(generator.remember_s, Seconds | None)
    except msgspec.ValidationError:
        raise PluginError(
            f"{errand.module}.{errand.class_name}: found remember_s = {generator.remember_s!r}, "
            "expected seconds from 0, or None"
        ) from None
    return generator


def _refuse(link: socket.socket, verdict: Verdict) -> int:
    _say(link, msgspec.json.encode(verdict))
    return verdict.exit_code


def _say(link: socket.socket, letter: bytes) -> bool:
    """Whether the master is there to hear it: it may have been killed while the generator was loaded."""
    try:
        link.send(letter)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _run(generator: TaskGenerator, errand: Errand, go: Go) -> int:
    key_dir = None if go.key_dir is None else Path(go.key_dir)
    line = connect(
        go.address, key_dir, "client", Role.CLIENT,
        instance=f"generator:{errand.job}", life=new_life(), ipv6="[" in go.address,
    )  # fmt: skip
    desk = Desk(line, errand.job, generator.remember_s)
    signal.signal(signal.SIGTERM, lambda *_: desk.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        desk.open()
        generator._attach(desk)
        desk.carry_out = lambda command: carry_out(generator, command)
        log.info("generator started class=%s job=%s", errand.class_name, errand.job)
        generator.run()
        desk.close()
    except CycloneError as error:
        log.error("the task generator broke down: %s", error)
        log.debug("where", exc_info=True)
        return _give_up(desk)
    except SystemExit as ending:
        # Its code does not count: 0 would tell the master that all tasks were handed in.
        log.error("the task generator broke down: it called sys.exit(%r), expected a return", ending.code)
        log.debug("where", exc_info=True)
        return _give_up(desk)
    except Exception:  # the border to the code of a user
        log.exception("the task generator broke down")
        return _give_up(desk)
    log.info("generator ended")
    return EXIT_OK


def carry_out(generator: TaskGenerator, command: Command) -> CommandDone:
    """Have the generator carry out a command; whatever its code does, the generator goes on."""
    try:
        if command.command == "help":
            return CommandDone(command.number, json.dumps(_help(generator)))
        if command.command not in generator.commands:
            known = ", ".join(["help", *generator.commands])
            problem = (
                f"{type(generator).__name__} knows no command {command.command!r}; expected one of: {known}"
            )
            return CommandDone(command.number, "", problem)
        log.info("command name=%s arguments=%s", command.command, command.arguments)
        answer = generator.on_command(command.command, command.arguments)
        return CommandDone(command.number, json.dumps(answer))
    except ValueError as error:
        return CommandDone(command.number, "", str(error))
    except (Exception, SystemExit) as error:  # the border to the code of a user
        log.exception("the command %s broke down", command.command)
        return CommandDone(command.number, "", f"the command broke down: {type(error).__name__}: {error}")


def _help(generator: TaskGenerator) -> str:
    width = max(map(len, generator.commands), default=0)
    lines = [f"{name:<{width}}  {line}" for name, line in generator.commands.items()]
    return "\n".join(lines) or f"{type(generator).__name__} has no commands"


def _give_up(desk: Desk) -> int:
    """The job stays open: what was not handed in is handed in by the next start."""
    desk.abandon()
    return EXIT_INTERNAL


if __name__ == "__main__":
    go_on_guarded()
    code = main(socket.socket(fileno=int(sys.argv[1])))
    logging.shutdown()
    sys.exit(code)
