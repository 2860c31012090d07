"""The programs of SIMROOT/bin: which one was started, and what becomes of it.

A call ends by `os._exit`: nothing of the interpreter needs tidying, and SQLite then leaves its write-ahead
log to the next one instead of writing it back each time.
"""

from __future__ import annotations

import errno
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simlustre.call import Call

# command -> (module, function)
LFS = {
    "check": ("targets", "check"), "df": ("targets", "df"), "osts": ("targets", "osts"), "mdts": ("targets",
    "mdts"),
    "pool_list": ("targets", "pool_list"), "getstripe": ("getstripe", "getstripe"),
    "setstripe": ("setstripe", "setstripe"), "migrate": ("migrate", "migrate"), "find": ("find", "find"),
    "path2fid": ("names", "path2fid"), "fid2path": ("names", "fid2path"),
    "getdirstripe": ("names", "getdirstripe"), "setdirstripe": ("names", "setdirstripe"),
    "mkdir": ("names", "setdirstripe"), "data_version": ("names", "data_version"),
    "hsm_state": ("hsm", "hsm_state"), "hsm_set": ("hsm", "hsm_set"), "hsm_clear": ("hsm", "hsm_clear"),
    "hsm_action": ("hsm", "hsm_action"),
}  # fmt: skip
LCTL = {
    "get_param": ("lctl", "get_param"), "set_param": ("lctl", "set_param"), "dl": ("lctl", "device_list"),
    "device_list": ("lctl", "device_list"),
}  # fmt: skip


def main() -> None:
    """Run the program named by `sys.argv[0]`; does not return."""
    program = os.path.basename(sys.argv[0])
    if program == "sudo":
        _sudo(sys.argv[1:])
    root = simulation_root(sys.argv[0])
    if program == "simctl":
        from simlustre.simctl import main as simctl

        os._exit(simctl(sys.argv[1:], root))
    os._exit(_run(program, sys.argv[1:], root))


def simulation_root(executable: str) -> str | None:
    """SIMROOT: what the environment says, else the directory above that of the executable.

    None when there is no simulation.
    """
    root = os.environ.get("CYCLONE_SIMLUSTRE") or os.path.dirname(
        os.path.dirname(os.path.realpath(executable))
    )
    return root if os.path.exists(f"{root}/state.db") else None


def _sudo(arguments: list[str]) -> None:
    """Become the program behind sudo's own options."""
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "--":
            break
        if option in ("-u", "-g", "-h", "-p", "-C", "-D", "-T"):
            del arguments[:1]
    if not arguments:
        os.write(2, b"usage: sudo [options] command [arguments]\n")
        os._exit(1)
    from simlustre.call import SUDO_VARIABLE

    here = os.path.dirname(os.path.realpath(sys.argv[0]))
    os.environ[SUDO_VARIABLE] = "yes"
    os.environ["PATH"] = here + ":" + os.environ.get("PATH", os.defpath)
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606  # to become another program is what sudo is for
    except OSError as error:
        os.write(2, f"sudo: {arguments[0]}: {error.strerror}\n".encode("utf-8", "surrogateescape"))
        os._exit(1)


def _run(program: str, argv: list[str], root: str | None) -> int:
    began = time.time()
    command = argv[0] if argv else ""
    if root is None:
        text = f"{program} {command}: cannot find mounted Lustre filesystem: No such device\n"
        os.write(2, text.encode("utf-8", "surrogateescape"))
        return errno.ENODEV
    from simlustre.call import Call
    from simlustre.state import State

    state = State(root)
    state.apply_changes(calls=1)
    call = Call(state, program, command, argv[1:])
    code = _execute(call)
    try:
        call.flush(last=True)
    except BrokenPipeError:
        code = 141  # as after SIGPIPE, which Python ignores
    log_call(call, argv, began, code)
    return code


def _execute(call: Call) -> int:
    from simlustre.errors import Usage

    commands = {"lfs": LFS, "lctl": LCTL}.get(call.program, LFS)
    if call.command in ("--version", "-V", "version"):
        call.say(f"{call.program} {call.state.setting('lustre_version')}")
        return 0
    if call.command not in commands:
        complain_usage(call, commands, f"unknown command '{call.command}'" if call.command else "")
        return 4
    paths = _operands(call.arguments)
    code = _suffer(call, paths)
    if code is not None:
        return code
    module, name = commands[call.command]
    function: Callable[[Call], int] = getattr(__import__(f"simlustre.{module}", fromlist=[name]), name)
    try:
        return function(call)
    except Usage as error:
        complain_usage(call, commands, str(error))
        return 4


def _operands(arguments: list[str]) -> list[str]:
    """What looks like paths, for the rules of faults: good enough without the options of each command."""
    end = arguments.index("--") if "--" in arguments else None
    if end is not None:
        return arguments[end + 1 :]
    return [word for word in arguments if not word.startswith("-") and ("/" in word or os.path.lexists(word))]


def _suffer(call: Call, paths: list[str]) -> int | None:
    """Put the fault upon the call that the rules want; the exit status when that is the end of it."""
    from simlustre.faults import fault_for

    call.fault = fault_for(call.state, call, paths)
    if call.fault is None:
        return None
    time.sleep(float(call.fault.get("delay") or 0))
    while call.fault.get("hang"):
        time.sleep(3600)
    if call.fault.get("kill") and call.command != "migrate":
        os.kill(os.getpid(), 9)
    return call.fault.failure(call, paths)


def complain_usage(call: Call, commands: dict[str, tuple[str, str]], text: str) -> None:
    if text:
        call.complain(f"{call.program}: {text}")
    if call.command in commands:
        call.complain(f"usage: {call.program} {call.command} [options] [path ...]")
    else:
        call.complain(f"usage: {call.program} COMMAND [options] [path ...]")
        call.complain(f"commands: {' '.join(commands)}")


def log_call(call: Call, argv: list[str], began: float, code: int) -> None:
    """One line in calls.jsonl. Appended in one piece, so that callers do not mix."""
    from simlustre import compact
    from simlustre.faults import host_label

    line = compact.dumps({
        "time": round(began, 6), "program": call.program, "argv": argv, "exit": code,
        "seconds": round(time.time() - began, 6),
        "fault": call.fault.number if call.fault is not None else None,
        "pid": os.getpid(), "host": host_label(),
    })  # fmt: skip
    descriptor = os.open(f"{call.state.root}/calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)
