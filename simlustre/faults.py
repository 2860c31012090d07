"""Faults on order: rules that say which call goes wrong, and how.

A rule is a JSON object. What it matches (all that is named must fit; nothing named fits every call):

    program, cmd      `lfs`, `migrate` (a list for several)
    path              glob on an operand of the command line
    ost               the file is on this OST, or the call asks for it
    source, target    the file is on this OST / the call asks for it (-i, -o)
    argv              regular expression on the arguments, joined by blanks
    host              glob on CYCLONE_SIMLUSTRE_HOST, else on the name of this machine
    attempts          [first, last]: the calls of this command for this path, counted from 1; last may be null
    probability       0…1, decided by the seed, the path and the attempt: the same in every run
    count             how many calls at most

What happens (several may be combined):

    errno, where      the call fails with this errno (name or number) and Lustre's text (where: at which step)
    exit, stderr      the call fails with this status and this text
    delay             seconds to wait first
    hang              true: it never ends
    kill              true: it kills itself with SIGKILL midway
    displace          a new layout goes to this OST
    corrupt           true: one byte of the data is changed, and success reported
    touch             true: the file is modified during the copy
    truncate_stdout   bytes of stdout that are left (true: half)
    garbage_stdout    true: stdout becomes noise
    no_stderr         true: nothing is said on stderr
    lose_ost_line     the line of this OST is missing in what is said
    stale_getstripe   true: the layout before the last migration is shown
    not_found         true: as if the file did not exist
"""

from __future__ import annotations

import errno
import os

from simlustre import compact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simlustre.call import Call
    from simlustre.state import State

MATCHES = {
    "program",
    "cmd",
    "path",
    "ost",
    "source",
    "target",
    "argv",
    "host",
    "attempts",
    "probability",
    "count",
}
ACTIONS = {
    "errno", "where", "exit", "stderr", "delay", "hang", "kill", "displace", "corrupt", "touch",
    "truncate_stdout",
    "garbage_stdout", "no_stderr", "lose_ost_line", "stale_getstripe", "not_found",
}  # fmt: skip

# Where a migration fails when a rule names only the errno.
_STEPS = {
    errno.EBUSY: "cannot get lease", errno.EAGAIN: "source file changed",
    errno.ENOSPC: "cannot create volatile file",
    errno.EDQUOT: "cannot create volatile file", errno.EREMOTEIO: "cannot create volatile file",
    errno.ENODEV: "cannot create volatile file", errno.EINVAL: "cannot create volatile file",
    errno.EIO: "data copy failed", errno.ENOTCONN: "data copy failed", errno.ESHUTDOWN: "data copy failed",
    errno.ETIMEDOUT: "data copy failed", errno.ESTALE: "cannot get data version",
}  # fmt: skip


class Fault:
    """What shall go wrong in one call. number: of the rule, from 1."""

    def __init__(self, number: int, rule: dict[str, Any], seed: int) -> None:
        self.number = number
        self.rule = rule
        self.seed = seed

    def get(self, action: str) -> Any:
        return self.rule.get(action)

    def failure(self, call: Call, paths: list[str]) -> int | None:
        """Say what the rule wants said, and return the exit status; None when the call goes on."""
        if self.get("not_found"):
            code: int = errno.ENOENT
        elif "errno" in self.rule:
            code = errno_of(self.rule["errno"])
        elif "exit" in self.rule or "stderr" in self.rule:
            if self.get("stderr"):
                call.complain(self.rule["stderr"].rstrip("\n"))
            return int(self.rule.get("exit", 1))
        else:
            return None
        path = paths[0] if paths else ""
        text = os.strerror(code)
        if "stderr" in self.rule:
            call.complain(self.rule["stderr"].rstrip("\n"))
        elif call.command == "migrate":
            step = self.get("where") or _STEPS.get(code, "cannot open source file")
            call.complain(f"error: lfs migrate: {path}: {step}: {text}")
        elif call.command == "getstripe":
            call.complain(f"error: getstripe failed for {path}.")
        elif call.command == "setstripe":
            call.complain(f"lfs setstripe: setstripe error for '{path}': {text}")
        elif call.command == "path2fid":
            call.complain(f"lfs path2fid: cannot get fid for '{path}': {text}")
        elif call.command.startswith("hsm"):
            call.complain(f"can't get hsm state for {path}: {text}")
        else:
            call.complain(f"{call.program} {call.command}: {path or 'failed'}: {text} ({code})")
        return code

    def tamper(self, out: bytes, error: bytes) -> tuple[bytes, bytes]:
        lost = self.get("lose_ost_line")
        if lost is not None:
            marks = (b"OST%04x" % lost, b"[OST:%d]" % lost)
            out = _without(out, marks)
            error = _without(error, marks)
        if self.get("garbage_stdout"):
            from random import Random

            out = Random(f"{self.seed}/{len(out)}").randbytes(max(len(out), 64))
        kept = self.get("truncate_stdout")
        if kept is not None and kept is not False:
            out = out[: len(out) // 2 if kept is True else kept]
        return out, b"" if self.get("no_stderr") else error


def _without(text: bytes, marks: tuple[bytes, ...]) -> bytes:
    return b"".join(
        line for line in text.splitlines(keepends=True) if not any(mark in line for mark in marks)
    )


def errno_of(name: str | int) -> int:
    """Raises ValueError for a name that is no errno."""
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    code = getattr(errno, name.upper(), None)
    if not isinstance(code, int):
        raise ValueError(f"unknown errno {name!r}")
    return code


def check_rule(rule: dict[str, Any]) -> None:
    """Raises ValueError naming what is wrong with a rule."""
    if not isinstance(rule, dict):
        raise ValueError(f"a fault rule is a JSON object, not {rule!r}")
    unknown = rule.keys() - MATCHES - ACTIONS
    if unknown:
        raise ValueError(f"unknown in a fault rule: {', '.join(sorted(unknown))}")
    if not rule.keys() & ACTIONS:
        raise ValueError(f"a fault rule needs one of: {', '.join(sorted(ACTIONS))}")
    if "errno" in rule:
        errno_of(rule["errno"])


def fault_for(state: State, call: Call, paths: list[str]) -> Fault | None:
    """The first rule that fits the call, counted as used. paths: the operands of the command line."""
    rules = state.db.execute("SELECT id, rule, remaining FROM fault ORDER BY id").fetchall()
    if not rules:
        return None
    seed = int(state.setting("seed"))
    attempt = _count_attempt(state, call, paths)
    for number, text, remaining in rules:
        rule = compact.loads(text)
        if remaining == 0 or not _fits(state, rule, call, paths, attempt, seed):
            continue
        if remaining is None:
            return Fault(number, rule, seed)
        with state.writing():
            taken = state.db.execute(
                "UPDATE fault SET remaining = remaining - 1 WHERE id=? AND remaining > 0", (number,)
            )
        if taken.rowcount:
            return Fault(number, rule, seed)
    return None


def _count_attempt(state: State, call: Call, paths: list[str]) -> int:
    key = (call.command, os.fsencode(paths[0] if paths else ""))
    with state.writing():
        (number,) = state.db.execute(
            "INSERT INTO attempt VALUES (?,?,1) ON CONFLICT(cmd, path)"
            " DO UPDATE SET number = number + 1 RETURNING number",
            key,
        ).fetchone()
    return int(number)


def _fits(state: State, rule: dict[str, Any], call: Call, paths: list[str], attempt: int, seed: int) -> bool:
    if not _one_of(call.command, rule.get("cmd")) or not _one_of(call.program, rule.get("program")):
        return False
    first, last = rule.get("attempts", (1, None))
    if attempt < first or (last is not None and attempt > last):
        return False
    if "path" in rule and not _any_glob(paths, rule["path"]):
        return False
    if "host" in rule and not _any_glob([host_label()], rule["host"]):
        return False
    if "argv" in rule:
        import re

        if re.search(rule["argv"], " ".join([call.command, *call.arguments])) is None:
            return False
    if rule.keys() & {"ost", "source", "target"} and not _concerns(state, rule, call, paths):
        return False
    return _falls_due(rule.get("probability", 1.0), seed, paths, attempt)


def _one_of(word: str, wanted: Any) -> bool:
    return wanted is None or word == wanted or (isinstance(wanted, list) and word in wanted)


def _any_glob(words: list[str], pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(word, pattern) for word in words)


def _concerns(state: State, rule: dict[str, Any], call: Call, paths: list[str]) -> bool:
    from simlustre.files import stored

    held: set[int] = set()
    for path in paths:
        if os.path.isfile(path):
            layout = stored(state, path)
            held.update(layout.osts() if layout is not None else ())
    asked = _asked_osts(call.arguments)
    return (
        ("ost" not in rule or rule["ost"] in held | asked)
        and ("source" not in rule or rule["source"] in held)
        and ("target" not in rule or rule["target"] in asked)
    )


def _asked_osts(arguments: list[str]) -> set[int]:
    from simlustre.options import indices

    asked: set[int] = set()
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("-i", "-o", "--stripe-index", "--index", "--ost", "--ost-list"):
            value = value if equals else "".join(arguments[place + 1 : place + 2])
        elif argument.startswith(("-i", "-o")):
            value = argument[2:]
        else:
            continue
        try:
            asked.update(indices(value))
        except ValueError:
            continue  # the command itself will complain about it
    return asked


def _falls_due(probability: float, seed: int, paths: list[str], attempt: int) -> bool:
    if probability >= 1.0:
        return True
    from zlib import crc32

    # The name alone: the same files fall due wherever SIMROOT is.
    name = os.path.basename(paths[0]) if paths else ""
    return crc32(os.fsencode(f"{seed}/{name}/{attempt}/fault")) / 2**32 < probability


def host_label() -> str:
    return os.environ.get("CYCLONE_SIMLUSTRE_HOST") or os.uname().nodename
