"""`lctl get_param`, `set_param`, `dl`."""

from __future__ import annotations

import errno
from fnmatch import fnmatchcase

from simlustre.call import reason
from simlustre.errors import Usage
from simlustre.options import parse
from simlustre.state import DEACTIVATED, DOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from simlustre.call import Call
    from simlustre.state import Filesystem, Ost


def get_param(call: Call) -> int:
    options = parse(call.arguments, "nNFR", {})
    if not options.operands:
        raise Usage("get_param wants a parameter")
    code = 0
    for pattern in options.operands:
        found = False
        for name, value in _parameters(call):
            if fnmatchcase(name, pattern):
                found = True
                if "N" in options:
                    call.say(name)
                elif not call.may_administer:
                    _refuse(call, name)
                    code = code or errno.EACCES
                elif "n" in options:
                    call.say(value)
                else:
                    call.say(f"{name}={value}" if "\n" not in value else f"{name}=\n{value}")
        if not found:
            text = reason(errno.ENOENT)
            call.complain(f"error: get_param: param_path '{pattern.replace('.', '/')}': {text}")
            code = code or errno.ENOENT
    return code


def _parameters(call: Call) -> Iterator[tuple[str, str]]:
    for fs in call.state.filesystems():
        for ost in call.state.osts(fs):
            device = f"osc.{fs.name}-{ost.name}-osc-{fs.instance}"
            yield f"{device}.active", "0" if ost.state == DEACTIVATED else "1"
            yield f"{device}.import", _import_text(fs, ost)
            yield f"{device}.ost_conn_uuid", ost.nid


def _import_text(fs: Filesystem, ost: Ost) -> str:
    state = {DOWN: "DISCONN", DEACTIVATED: "CLOSED"}.get(ost.state, "FULL")
    return "\n".join([
        "import:",
        f"    name: {fs.name}-{ost.name}-osc-{fs.instance}",
        f"    target: {fs.name}-{ost.name}_UUID",
        f"    state: {state}",
        "    connection:",
        f"       failover_nids: [ {ost.nid} ]",
        f"       current_connection: {ost.nid}",
    ])  # fmt: skip


def set_param(call: Call) -> int:
    """Dropping the locks of a name space is accepted and changes nothing; the call log shows it."""
    options = parse(call.arguments, "nPd", {})
    if not options.operands:
        raise Usage("set_param wants NAME=VALUE")
    code = 0
    for operand in options.operands:
        name, equals, value = operand.partition("=")
        if not equals:
            raise Usage(f"set_param wants NAME=VALUE, not '{operand}'")
        if not fnmatchcase(name, "ldlm.namespaces.*.lru_size"):
            text = reason(errno.ENOENT)
            call.complain(f"error: set_param: param_path '{name.replace('.', '/')}': {text}")
            code = code or errno.ENOENT
        elif not call.may_administer:
            _refuse(call, name)
            code = code or errno.EACCES
        elif "n" not in options:
            call.say(f"{name}={value}")
    return code


def _refuse(call: Call, name: str) -> None:
    """Say that a parameter is for root only."""
    text = reason(errno.EACCES)
    call.complain(f"error: {call.command}: opening '/sys/fs/lustre/{name.replace('.', '/')}': {text}")


def device_list(call: Call) -> int:
    number = 0
    for fs in call.state.filesystems():
        uuid = f"{fs.instance[-8:]}-0000-4000-8000-{fs.instance[:12]}"
        mgs = call.state.mdts(fs)[0][3]
        devices = [("mgc", f"MGC{mgs}", 4)]
        devices += [("mdc", f"{fs.name}-MDT{row[0]:04x}-mdc-{fs.instance}", 5) for row in call.state.mdts(fs)]
        devices += [("osc", f"{fs.name}-{ost.name}-osc-{fs.instance}", 4) for ost in call.state.osts(fs)]
        for kind, name, references in devices:
            call.say(f"{number:3d} UP {kind} {name} {uuid} {references}")
            number += 1
    return 0
