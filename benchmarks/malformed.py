"""How a working cluster gets on while what is malformed is thrown at it: a million messages, a thousand strangers.

    python benchmarks/malformed.py [--frames N] [--strangers N] [--garbage N] [--share CORE] [--round TASKS]

Real daemons: a master, two controllers, the database proxy and the Pushgateway client, keys on. An honest client hands in
tasks that return their number, round after round, and looks at every value. The attacker is one process with two
authorised keys, one of a controller and one of a client; its messages are mutated, forged, for other roles, or no messages
at all. It begins a new session from a new address of this host after some of them, or its key would be suspended there,
and waits for the answer to a last one that is right, so that all were heard.

First its share of a core is bounded, its own encryption included. On a host with few cores it takes processor time from
the cluster by merely running, and over a network it would not. So each round under fire is compared with the one before
it, in which the same process makes the same messages with the same share of a core, and says nothing. The ratio is that of
the medians. Then it is bounded by nothing, until all was thrown, while the honest client goes on.

After that strangers knock at all doors, and connections that speak almost ZMTP. In the end every daemon must live, every
task that was accepted have exactly one end with its own value, nobody have been let in, and the memory of each daemon is
told. It ends with an error if anything of this is not so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from acceptance.cluster import Cluster
from fuzz.siege import MALLORY, Siege
from report import parser_of, report

GOAL_FRAMES, GOAL_STRANGERS, GOAL_RATIO = 1_000_000, 1000, 0.8


def run(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="cyclone-malformed-") as place:
        cluster = Cluster(Path(place))
        try:
            figures = measure(Siege(cluster, workers=1, lease_s=20), options)
            cluster.assert_nothing_is_left()
        finally:
            cluster.kill_all()
    return figures


def measure(siege: Siege, options: argparse.Namespace) -> dict[str, object]:
    said = ["--keys", ",".join(MALLORY), "--frames", options.frames]
    bounded = [*said, "--share", options.share]
    siege.work(options.round)  # so that the pace is known and caches are full
    quiet = [rate(siege, options.round) for _ in range(3)]
    beside: list[float] = []
    under_fire: list[float] = []
    thrown: Counter[str] = Counter()
    fire_s = 0.0
    for seed in range(options.rounds):
        siege.attack("session", "master", *bounded, "--seed", seed, "--aside")
        beside.append(rate(siege, options.round))
        siege.reports(at_once=True)
        siege.attack("session", "master", *bounded, "--seed", seed)
        began = time.monotonic()
        under_fire.append(rate(siege, options.round))
        fire_s += time.monotonic() - began
        thrown.update(counted(siege.reports(at_once=True)))
    bounded_frames = thrown["frames"]
    # What the first rounds fill is not what grows for ever.
    before = siege.memory_bytes()
    flooded: list[float] = []
    flood_s = 0.0
    while thrown["frames"] < options.frames:
        began = time.monotonic()
        attack = [*said, "--seed", 1000 + thrown["frames"], "--seconds", options.seconds]
        attacker = siege.attack("session", "master", *attack)
        while attacker.poll() is None:
            flooded.append(rate(siege, options.round // 10))
        thrown.update(counted(siege.reports()))
        flood_s += time.monotonic() - began
        print(f"{thrown['frames']:,} of {options.frames:,}", file=sys.stderr)
    knocks: Counter[str] = Counter()
    for number, door in enumerate(siege.doors):
        siege.attack("strangers", door, "--connections", options.strangers // 3 + 1, "--seed", number)
        siege.attack("garbage", door, "--connections", options.garbage // 3 + 1, "--seed", number)
        siege.attack(
            "session",
            door,
            "--keys",
            "mallory-controller",
            "--frames",
            options.frames // 50,
            "--seed",
            number,
        )
        siege.work(options.round)
        knocks.update(counted(siege.reports()))
    siege.work(options.round, records=True)
    siege.assert_everybody_lives()
    siege.assert_every_task_has_one_end()
    siege.assert_every_record_is_there_once(options.round)
    after = siege.memory_bytes()
    assert not knocks["admitted"], f"{knocks['admitted']} strangers were let in"
    siege.end()
    strangers = 3 * (options.strangers // 3 + 1)
    return {
        "frames": thrown["frames"] + knocks["frames"],
        "frames_goal": GOAL_FRAMES,
        "frames_a_second_bounded": round(bounded_frames / fire_s),
        "frames_a_second_unbounded": round((thrown["frames"] - bounded_frames) / max(flood_s, 1e-9)),
        "sessions": thrown["sessions"] + knocks["sessions"],
        "sessions_without_an_answer": thrown["sessions without an answer"]
        + knocks["sessions without an answer"],
        "kinds": {kind: thrown[kind] for kind in ("mutated", "forged", "wrong role", "any kind")},
        "strangers": strangers,
        "strangers_goal": GOAL_STRANGERS,
        "strangers_admitted": knocks["admitted"],
        "garbage_connections": knocks["connections"] - strangers,
        "share_of_a_core": options.share,
        "tasks": siege.accepted,
        "tasks_with_another_end_or_value": 0,
        "tasks_per_s_quiet": round(median(quiet)),
        "tasks_per_s_beside_an_attacker_that_says_nothing": round(median(beside)),
        "tasks_per_s_under_fire": round(median(under_fire)),
        "ratio": round(median(under_fire) / median(beside), 3),
        "ratio_goal": GOAL_RATIO,
        "tasks_per_s_under_unbounded_fire": round(median(flooded)) if flooded else None,
        "memory_mib_before": mib(before),
        "memory_mib_after": mib(after),
    }


def counted(reports: list[dict[str, Any]]) -> Counter[str]:
    return Counter(
        {
            key: sum(report.get(key, 0) for report in reports)
            for report in reports
            for key, value in report.items()
            if isinstance(value, int)
        }
    )


def rate(siege: Siege, tasks: int) -> float:
    """Tasks a second."""
    return tasks / siege.work(tasks)


def mib(memory: dict[str, int]) -> dict[str, float]:
    return {name: round(size / 2**20, 1) for name, size in memory.items()}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, default=GOAL_FRAMES)
    parser.add_argument("--strangers", type=int, default=GOAL_STRANGERS)
    parser.add_argument("--garbage", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.05, help="of a core, for the bounded attacker")
    parser.add_argument("--round", type=int, default=50_000, help="tasks")
    parser.add_argument("--rounds", type=int, default=5, help="with an attacker that is bounded")
    parser.add_argument("--seconds", type=float, default=60, help="of one attack that is not bounded")
    options = parser.parse_args()
    return report(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
