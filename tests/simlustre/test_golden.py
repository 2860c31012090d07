"""What the programs print, byte for byte, in the dialects of several versions.

A golden file is a transcript: `$ command`, what it said on stdout, `! ` before what it said on stderr, and
the exit status when it is not 0. `pytest --rewrite` writes what is said now; review the difference.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated_lustre import SimulatedLustre, install

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("2.15.5", "2.17.0")
INSTANCES = {"lustre": "ffff8ea7b7a28000", "scratch": "ffff97dd43959000"}


def _world(version: str, **settings: Any) -> dict[str, Any]:
    """Two file systems. The first has the sizes of the example in Lustre's manual."""
    used_kib = (3113851290, 3328599654, 2013265920, 3865470566)
    lustre = install.description(
        name="lustre", osts=4, mdts=2, oss=2, pools={"hdd": [0, 1, 3], "ssd": [2]}, display="/lustre"
    )
    for ost, used in zip(lustre["osts"], used_kib, strict=True):
        ost |= {"kib": 3865470566, "base_used_kib": used, "inodes": 60000000}
    scratch = install.description(
        name="scratch", osts=1, first_index=10000, mdts=1, oss=1, display="/a b/50%"
    )
    for fs in (lustre, scratch):
        fs["instance"] = INSTANCES[fs["name"]]
    scratch["osts"][0] |= {"kib": 1000000, "base_used_kib": 1, "flash": True}
    settings = {"time_scale": 0, "down_block_s": 0.0, **settings}
    return install.world([lustre, scratch], lustre_version=version, **settings)


def _make_room(sim: SimulatedLustre) -> None:
    """Let OST 3 take objects. The last OST is full in the manual's example, and would take no objects."""
    sim.ost(3, base_used_kib=2013265920)


Scene = Callable[[SimulatedLustre], list[str]]


def _check(sim: SimulatedLustre) -> list[str]:
    sim.ost(1, state="down", code=0)
    sim.ost(2, state="down", code=110)
    sim.ost(3, state="deactivated")
    return [
        "lfs check osts", "lfs check mdts", "lfs check mgts", "lfs check servers", "lfs check all",
        "lfs check osts .",
        "lfs check", "lfs check disks", "lfs osts", "lfs osts .", "lfs mdts .", "lfs osts /nowhere",
    ]  # fmt: skip


def _df_healthy(_: SimulatedLustre) -> list[str]:
    return [
        "lfs df", "lfs df -v", "lfs df -h .", "lfs df -H .", "lfs df -i .", "lfs df -ih .",
        "lfs df --lazy -p hdd .",
        "lfs df --pool=lustre.ssd .", "lfs df ../scratch .", "lfs df /nowhere", "lfs df /usr",
        "lfs df --no-header -o .",
        "lfs df --wrong",
    ]  # fmt: skip


def _df_in_trouble(sim: SimulatedLustre) -> list[str]:
    sim.ost(0, state="readonly")
    sim.ost(1, state="error")
    sim.ost(2, state="deactivated")
    sim.ost(3, state="readonly")
    return ["lfs df .", "lfs df -v .", "lfs df -l ."]


def _df_down(sim: SimulatedLustre) -> list[str]:
    sim.ost(0, state="degraded")
    sim.ost(1, state="nocreate")
    sim.ost(2, state="down")
    sim.ost(3, state="enoino")
    return ["lfs df .", "lfs df -l .", "lfs df -lv ."]


def _getstripe_plain(sim: SimulatedLustre) -> list[str]:
    _make_room(sim)
    sim.ost(3, next_object=33)
    sim.file("f", 10, "-i", "3", "-p", "hdd")
    sim.file("wide", 10, "-c", "3", "-i", "1", "-S", "4M")
    (sim.mount / "link").symlink_to("f")
    return [
        "lfs getstripe f", "lfs getstripe -v f", "lfs getstripe -c f", "lfs getstripe -i f",
        "lfs getstripe -S f",
        "lfs getstripe -p f", "lfs getstripe -L f", "lfs getstripe -F f", "lfs getstripe -m f",
        "lfs getstripe -c -i f", "lfs getstripe -c -i -y f", "lfs getstripe -y f",
        "lfs getstripe --comp-count f",
        "lfs getstripe wide", "lfs getstripe -y wide", "lfs getstripe -ci wide f", "lfs getstripe -c link",
        "lfs getstripe missing", "lfs getstripe missing f", "lfs getstripe /usr", "lfs getstripe -Z f",
    ]  # fmt: skip


def _getstripe_composite(sim: SimulatedLustre) -> list[str]:
    _make_room(sim)
    pfl = ("-E", "1M", "-c", "1", "-i", "3", "-E", "4M", "-c", "2", "-i", "1", "-E", "-1", "-c", "4")
    sim.file("small", 10, *pfl)
    sim.file("large", 2 << 20, *pfl)
    sim.file("dom", 100_000, "-E", "64K", "-L", "mdt", "-E", "EOF", "-c", "1", "-i", "2")
    return [
        "lfs getstripe small", "lfs getstripe -y small", "lfs getstripe -c -i -y small",
        "lfs getstripe -i small",
        "lfs getstripe large", "lfs getstripe -y large", "lfs getstripe -c -i -y large",
        "lfs getstripe -c large",
        "lfs getstripe --comp-count large", "lfs getstripe -v large", "lfs getstripe dom",
        "lfs getstripe -y dom",
        "lfs getstripe -c -i -y dom",
    ]  # fmt: skip


def _getstripe_directory(sim: SimulatedLustre) -> list[str]:
    for name in ("plain", "default", "composite"):
        (sim.mount / name).mkdir()
    sim.said("setstripe", "-c", "2", "-S", "4M", "-p", "hdd", "default")
    sim.said("setstripe", "-E", "1M", "-c", "1", "-E", "-1", "-c", "-1", "composite")
    sim.file("default/inside")
    return [
        "lfs getstripe -d plain", "lfs getstripe -d default", "lfs getstripe -d -y default",
        "lfs getstripe -dc default",
        "lfs getstripe -d -c -i default", "lfs getstripe default", "lfs getstripe -d composite",
        "lfs getstripe -d -y composite", "lfs getstripe -m plain",
    ]  # fmt: skip


def _setstripe(sim: SimulatedLustre) -> list[str]:
    _make_room(sim)
    (sim.mount / "there").write_bytes(b"x")
    sim.ost(2, state="down")
    return [
        "lfs setstripe -i 1 new", "lfs setstripe -i 1 new", "lfs setstripe -i 1 there",
        "lfs setstripe -o 2 exact",
        "lfs setstripe -o 0,2 exact", "lfs setstripe -i 2 fallen", "lfs getstripe -i fallen",
        "lfs setstripe -o 9 exact",
        "lfs setstripe -i 9 exact", "lfs setstripe -o 1,1 exact", "lfs setstripe -p hdd -i 2 exact",
        "lfs setstripe -S 1000 exact", "lfs setstripe no/such/directory", "lfs setstripe /usr/file",
        "lfs setstripe",
        "lfs setstripe -c x exact", "lfs setstripe -o 0 -c 2 exact",
        "lfs setstripe --stripe-index=0 --pool hdd pooled",
        "lfs getstripe -p pooled",
    ]  # fmt: skip


def _migrate(sim: SimulatedLustre) -> list[str]:
    _make_room(sim)
    sim.file("f", 10, "-i", "0")
    sim.file("pooled", 10, "-i", "0", "-p", "hdd", "-S", "4M")
    sim.ost(2, state="down")
    sim.ost(3, state="readonly")
    return [
        "lfs migrate -n -c 1 -o 1 f", "lfs migrate -v -c 1 -i 0 f", "lfs getstripe -c -i -y f",
        "lfs migrate -c 1 -i 1 pooled", "lfs getstripe pooled", "lfs migrate -o 2 f", "lfs migrate -o 3 f",
        "lfs migrate -o 7 f", "lfs migrate -i 7 f", "lfs migrate -i 2 f", "lfs getstripe -i f",
        "lfs migrate -c 1 missing", "lfs migrate -v -c 1 missing f", "lfs migrate -c 1 /etc/hostname",
        "lfs migrate",
        "lfs migrate -n -b f", "lfs migrate -W 0.000001 --stats --stats-interval 3 -o 1 f",
        "lfs migrate --files-from /dev/null",
    ]  # fmt: skip


def _names(sim: SimulatedLustre) -> list[str]:
    sim.file("f", 10, "-i", "0")
    sim.file("g", 10, "-i", "0")
    os.link(sim.mount / "f", sim.mount / "h")
    os.utime(sim.mount / "f", (1_600_000_000, 1_600_000_000))
    return [
        "lfs path2fid f", "lfs path2fid f g", "lfs path2fid missing",
        "lfs fid2path lustre [0x200000401:0x1:0x0]",
        "lfs fid2path . 0x200000401:0x2:0x0", "lfs fid2path lustre 0x200000401:0x99:0x0",
        "lfs data_version -n f",
        "lfs data_version missing", "lfs mkdir -i 1 d1", "lfs setdirstripe -i 0 d0", "lfs mkdir d1/sub",
        "lfs mkdir -i 5 d5", "lfs mkdir -i 1 d1", "lfs getdirstripe -m d1", "lfs getdirstripe -i d0",
        "lfs getdirstripe -m d1/sub", "lfs getdirstripe d1", "lfs getdirstripe -m missing",
        "lfs getdirstripe -m f",
    ]  # fmt: skip


def _hsm(sim: SimulatedLustre) -> list[str]:
    sim.file("f", 10, "-i", "0")
    sim.file("g", 10, "-i", "0")
    return [
        "lfs hsm_state f", "lfs hsm_set --exists --archived --archive-id 1 f", "lfs hsm_state f g",
        "lfs hsm_action f",
        "lfs hsm_set --norelease --noarchive --lost --dirty f", "lfs hsm_state f",
        "lfs hsm_clear --dirty --lost f",
        "lfs hsm_state f", "lfs hsm_state missing", "lfs hsm_action missing", "lfs hsm_set --exists missing",
    ]  # fmt: skip


def _find(sim: SimulatedLustre) -> list[str]:
    _make_room(sim)
    # One file to a directory: the order within one is the kernel's.
    sim.file("a/on0", 10, "-i", "0")
    sim.file("a/b/on1", 5000, "-i", "1", "-p", "hdd")
    sim.file("a/b/c/wide", 3 << 20, "-c", "3", "-i", "1")
    sim.file("a/b/c/d/pfl", 10, "-E", "1M", "-c", "1", "-i", "3", "-E", "-1", "-c", "2")
    return [
        "lfs find a/b/c/d --type f", "lfs find a/b/c/d --ost 3", "lfs find a/b/c/d --ost 0-2",
        "lfs find a/b/c/d --ost=0,3",
        "lfs find a/b/c/d -type f --print0", "lfs find a/b/c/d --comp-count 2",
        "lfs find a/b/c/wide --ost 3 --size +2M",
        "lfs find a/b/c/wide --size -3M", "lfs find a/b/c/wide --stripe-count 3 ! --pool hdd",
        "lfs find --pool hdd -- a/b/on1",
        "lfs find a/b/on1 -L raid0 --mtime -1", "lfs find a/on0 --ost lustre-OST0000_UUID",
        "lfs find missing --ost 1",
        "lfs find a/on0 --type f --printf '%p %s\\n'", "lfs find", "lfs find a --ost x", "lfs find a --wrong",
    ]  # fmt: skip


def _lctl(sim: SimulatedLustre) -> list[str]:
    sim.ost(1, state="deactivated")
    sim.ost(2, state="down")
    return [
        "lctl get_param osc.lustre-OST0001-osc-*.ost_conn_uuid",
        "lctl get_param osc.lustre-OST*-osc-*.ost_conn_uuid",
        "lctl get_param osc.*.active", "lctl get_param -n osc.lustre-OST0000-*.active",
        "lctl get_param -N osc.*.active",
        "lctl get_param osc.lustre-OST0002-*.import", "lctl get_param osc.nothing.active", "lctl dl",
        "lctl set_param ldlm.namespaces.*OST0001*.lru_size=clear",
        "lctl set_param -n ldlm.namespaces.*.lru_size=clear",
        "lctl set_param osc.*.max_rpcs=1", "lctl get_param", "lctl wrong",
    ]  # fmt: skip


def _programs(_: SimulatedLustre) -> list[str]:
    return [
        "lfs --version", "lfs", "lfs wrong", "lfs pool_list lustre", "lfs pool_list lustre.hdd",
        "lfs pool_list lustre.none", "lfs pool_list .", "sudo lfs --version",
        "sudo -n -u root lfs --version", "sudo",
        "sudo no-such-program",
    ]  # fmt: skip


SCENES: dict[str, Scene] = {
    scene.__name__[1:]: scene
    for scene in (
        _check, _df_healthy, _df_in_trouble, _df_down, _getstripe_plain, _getstripe_composite,
        _getstripe_directory,
        _setstripe, _migrate, _names, _hsm, _find, _lctl, _programs,
    )
}  # fmt: skip


# Versions between and before differ only here.
OTHERS = [("2.12.9", "find"), ("2.12.9", "migrate"), ("2.16.1", "getstripe_composite"), ("2.16.1", "migrate")]


@pytest.mark.parametrize(("version", "scene"), [*itertools.product(VERSIONS, SCENES), *OTHERS])
def test_the_programs_print_what_the_golden_files_hold(
    version: str, scene: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sim = SimulatedLustre(tmp_path / "sim", _world(version))

    transcript = "".join(_told(sim, command) for command in SCENES[scene](sim))

    golden = GOLDEN / version / f"{scene}.txt"
    if request.config.getoption("--rewrite"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(transcript, encoding="utf-8")
    assert transcript == golden.read_text(encoding="utf-8")


def _told(sim: SimulatedLustre, command: str) -> str:
    program, *arguments = shlex.split(command)
    result = sim.run(program, *arguments)
    lines = [f"$ {command}\n", result.stdout.replace("\0", "\\0")]
    lines += [f"! {line}\n" for line in result.stderr.splitlines()]
    if result.returncode:
        lines.append(f"exit {result.returncode}\n")
    return "".join(lines)
