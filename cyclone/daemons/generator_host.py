"""The process in which a task generator lives: loads it, lets it check its ini file, runs it.

It is a client of the master like any other. What is in it may block, crash or be killed; the master goes on.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import sys
from pathlib import Path

import msgspec

from cyclone.daemons.desk import Desk
from cyclone.daemons.entry import spare_collector, start_log
from cyclone.daemons.generator_process import Errand, Go, Verdict
from cyclone.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, CycloneError
from cyclone.ini import Ini
from cyclone.plugins import load_class
from cyclone.process.lineage import on_death_of_parent
from cyclone.task_generator import TaskGenerator
from cyclone.wire.keys import load_pair, load_public
from cyclone.wire.line import Line

log = logging.getLogger("generator")

_LETTER_BYTES_MAX = 1 << 16


def main(link: socket.socket) -> int:
    """Run one generator from its start to its end. Returns the exit code of the process."""
    on_death_of_parent(signal.SIGKILL)
    errand = msgspec.json.decode(link.recv(_LETTER_BYTES_MAX), type=Errand)
    spare_collector()
    try:
        start_log(Path(errand.log_file) if errand.log_file else None, debug=errand.debug)
        generator = _load(errand)
    except CycloneError as error:
        return _refuse(link, Verdict(str(error), error.exit_code))
    except Exception as error:
        log.exception("the task generator cannot be made ready")
        what = f"{errand.module}.{errand.class_name}: {type(error).__name__}: {error}"
        return _refuse(link, Verdict(what, EXIT_CONFIG))
    link.send(msgspec.json.encode(Verdict()))
    told = link.recv(_LETTER_BYTES_MAX)
    if not told:
        return EXIT_OK  # the master was only asked to check
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
    return generator


def _refuse(link: socket.socket, verdict: Verdict) -> int:
    link.send(msgspec.json.encode(verdict))
    return verdict.exit_code


def _run(generator: TaskGenerator, errand: Errand, go: Go) -> int:
    own = master = None
    if go.key_dir is not None:
        own, master = load_pair(Path(go.key_dir), "client"), load_public(Path(go.key_dir), "master")
    line = Line(
        go.address,
        own,
        master,
        instance=f"generator:{errand.job}",
        life=secrets.token_hex(8),
        ipv6="[" in go.address,
    )
    desk = Desk(line, errand.job)
    signal.signal(signal.SIGTERM, lambda *_: desk.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk.open()
    generator._attach(desk)
    log.info("generator started class=%s job=%s", errand.class_name, errand.job)
    try:
        generator.run()
    except CycloneError as error:
        log.error("the task generator broke down: %s", error)
        log.debug("where", exc_info=True)
        return _give_up(desk)
    except Exception:  # the border to the code of a user
        log.exception("the task generator broke down")
        return _give_up(desk)
    desk.close()
    log.info("generator ended")
    return EXIT_OK


def _give_up(desk: Desk) -> int:
    """The job stays open: what was not handed in is handed in by the next start."""
    desk.abandon()
    return EXIT_INTERNAL


if __name__ == "__main__":
    code = main(socket.socket(fileno=int(sys.argv[1])))
    logging.shutdown()
    sys.exit(code)
