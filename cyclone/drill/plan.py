"""What goes wrong, whom it befalls, and when: drawn from the seed alone.

The same seed, length and faults draw the same plan, on every machine. What the plan leads to is the kernel's: which
instruction a signal meets is not drawn.

One victim suffers one fault at a time, so that each fault is over before the next one is laid upon the same daemon;
different victims suffer at the same time. Kinds come in turns, shuffled anew each turn, so that none is left to chance.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

MASTER, DATABASE, PUSHGATEWAY = "master", "database", "pushgateway"
#: A controller behind a relay that reads messages, one behind a relay that sees bytes only, and one without any.
NORTH, SOUTH, WEST = "north", "south", "west"
NODES = (NORTH, SOUTH, WEST)
#: Who has something on disk that must not be forgotten, and all.
KEEPERS = (MASTER, *NODES, DATABASE)
DAEMONS = (*KEEPERS, PUSHGATEWAY)
#: The line between the task generator and the master, behind a relay of each kind.
GENERATOR = "generator"
EVERYBODY = "everybody"

#: The lease of the master under drill: how long a silent controller is waited for.
LEASE_S = 2.0

#: Nothing goes wrong before this: the daemons find each other, and tasks begin to flow.
_FIRST_S = 1.5
#: Between two faults, in the middle. Shorter ones overlap more and tell less of each.
_GAP_S = 1.4
_BREATH_S = 0.5  # between two faults of one victim


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    victims: whom it may befall. shortest_s, longest_s: how long it lasts; both 0 if it is over at once.
    rest_s: before the same one befalls the same victim again: what restarts what it has lost gives up if it happens
    too often, which is as it should be. ends_daemon: the daemon may end by itself for it, and is started again.
    """

    name: str
    what: str
    victims: tuple[str, ...]
    shortest_s: float = 0.0
    longest_s: float = 0.0
    rest_s: float = 0.0
    ends_daemon: bool = False


#: Restarts of a generator, whether it or its guard was killed, and of a reaper that are borne: five a minute.
_BORNE_S = 31.0
_DOWN = (0.0, 2.0)
_STOPPED = (1.2 * LEASE_S, 3.0 * LEASE_S)
_BAD_NETWORK = (1.0, 1.8 * LEASE_S)
_AWAY = (1.0, 4.0)
_MESSAGES = (NORTH, GENERATOR)
_BYTES = (SOUTH, GENERATOR, DATABASE)
_LINES = (NORTH, SOUTH, GENERATOR)

FAULTS = (
    Fault("kill-master", "kill -9, started again up to 2 s later", (MASTER,), *_DOWN),
    Fault("kill-controller", "kill -9, started again up to 2 s later", NODES, *_DOWN),
    Fault("kill-reaper", "kill -9 of the process between controller and workers", NODES, rest_s=_BORNE_S),
    Fault("kill-worker", "kill -9 of one worker", NODES),
    Fault("kill-generator", "kill -9 of the process of the task generator", (MASTER,), rest_s=_BORNE_S),
    Fault("kill-guard", "kill -9 of the process between master and generator", (MASTER,), rest_s=_BORNE_S),
    Fault("kill-proxy", "kill -9 of the database proxy, started again up to 2 s later", (DATABASE,), *_DOWN),
    Fault("kill-everything", "kill -9 of all daemons at once", (EVERYBODY,), *_DOWN),
    Fault("end-master", "SIGTERM, which takes the controllers along; then all are started", (EVERYBODY,), *_DOWN),
    Fault("end-controller", "SIGTERM; started when it has ended", NODES, *_DOWN),
    Fault("stop-master", "SIGSTOP for longer than the lease", (MASTER,), *_STOPPED),
    Fault("stop-controller", "SIGSTOP for longer than the lease", NODES, *_STOPPED),
    Fault("stop-reaper", "SIGSTOP of the process between controller and workers", NODES, *_STOPPED),
    Fault("stop-worker", "SIGSTOP of one worker", NODES, *_STOPPED),
    Fault("stop-generator", "SIGSTOP of the process of the task generator", (MASTER,), *_STOPPED),
    Fault("stop-proxy", "SIGSTOP of the database proxy", (DATABASE,), *_STOPPED),
    Fault("lose-messages", "a third of all messages, both ways", _MESSAGES, *_BAD_NETWORK),
    Fault("double-messages", "half of all messages come twice", _MESSAGES, *_BAD_NETWORK),
    Fault("delay-messages", "each by up to a second, in their order", _MESSAGES, *_BAD_NETWORK),
    Fault("reorder-messages", "each overtakes others", _MESSAGES, *_BAD_NETWORK),
    Fault("cut-connections", "closed, and closed again whenever they come", _BYTES, *_BAD_NETWORK),
    Fault("hold-bytes", "connections stay open, and nothing passes", _BYTES, *_STOPPED),
    Fault("halve-frames", "half of what is on its way passes, then the end", _BYTES, *_BAD_NETWORK),
    Fault("drip-bytes", "a few hundred bytes at a time", _BYTES, *_BAD_NETWORK),
    Fault("garble-bytes", "something else arrives than was sent", _BYTES, *_BAD_NETWORK),
    Fault("one-way-up", "what goes to the master passes, what comes from it does not", _LINES, *_STOPPED),
    Fault("one-way-down", "what comes from the master passes, what goes to it does not", _LINES, *_STOPPED),
    Fault("absent-sink", "the database proxy is told to end, and started again", (DATABASE,), *_AWAY),
    Fault("slow-sink", "the database is locked by somebody else", (DATABASE,), *_AWAY),
    Fault("kill-pushgateway", "kill -9 of the Pushgateway client, started again up to 2 s later", (PUSHGATEWAY,), *_DOWN),
    Fault("stop-pushgateway", "SIGSTOP of the Pushgateway client", (PUSHGATEWAY,), *_STOPPED),
    Fault("absent-pushgateway", "the Pushgateway client is told to end, and started again", (PUSHGATEWAY,), *_AWAY),
    Fault("broken-gateway", "the Pushgateway hangs, hangs up or fails", (PUSHGATEWAY,), *_AWAY),
    Fault("full-disk", "no byte of room", KEEPERS, 1.0, 3.0, ends_daemon=True),
    Fault("full-disk-restart", "kill -9, and started without room", KEEPERS, 1.0, 3.0, ends_daemon=True),
    Fault(
        "read-only-disk", "after kill -9; it is tried to start the daemon meanwhile", KEEPERS, 0.8, 2.0, ends_daemon=True
    ),
    Fault("clock-step", "the wall clock of a daemon jumps up to a day, and back", DAEMONS, 0.5, 3.0),
    Fault("clock-step-restart", "as before, and the daemon is killed and started meanwhile", DAEMONS, 1.0, 3.0),
    Fault("old-version", "a peer with a good key speaks another version", (MASTER, DATABASE), 0.3, 1.0),
    Fault("wrong-key", "peers with keys that nobody knows", (MASTER, DATABASE), 0.3, 1.0),
    Fault("garbage", "nonsense, as bytes and as frames of a peer with a good key", (MASTER, DATABASE), 0.3, 1.5),
    Fault("silent-connections", "a thousand connections that say nothing", (MASTER, DATABASE), 1.0, 6.0),
)  # fmt: skip

BY_NAME = {fault.name: fault for fault in FAULTS}
#: What takes a disk of the drill's own, and what takes a Pushgateway client.
NEED_DISKS = frozenset(name for name in BY_NAME if "-disk" in name)
NEED_GATEWAY = frozenset(fault.name for fault in FAULTS if fault.victims == (PUSHGATEWAY,))


@dataclass(frozen=True)
class Stroke:
    """One fault that befalls somebody. at_s: from the beginning of the run. dice: for what is drawn within it."""

    at_s: float
    fault: str
    victim: str
    lasts_s: float
    dice: int

    @property
    def over_s(self) -> float:
        return self.at_s + self.lasts_s


def draw(seed: int, length_s: float, faults: Collection[str]) -> list[Stroke]:
    """The plan of one run, by time. length_s: when the last one is over. faults: which kinds; all are known ones."""
    dice = random.Random(seed)
    kinds = [fault for fault in FAULTS if fault.name in faults]
    deck: list[Fault] = []
    plan: list[Stroke] = []
    now = _FIRST_S
    while now < length_s and kinds:
        if len(deck) < len(kinds):
            turn = kinds[:]
            dice.shuffle(turn)
            deck += turn
        found = next(_possible(deck, plan, now, length_s, dice), None)
        if found is None:
            now += _BREATH_S
            continue
        place, stroke = found
        del deck[place]
        plan.append(stroke)
        now += dice.uniform(0.4 * _GAP_S, 1.6 * _GAP_S)
    return plan


def _possible(
    deck: Sequence[Fault], plan: Sequence[Stroke], now: float, length_s: float, dice: random.Random
) -> Iterator[tuple[int, Stroke]]:
    for place, fault in enumerate(deck):
        lasts_s = round(dice.uniform(fault.shortest_s, fault.longest_s), 3)
        if now + lasts_s > length_s:
            continue
        for victim in dice.sample(fault.victims, len(fault.victims)):
            if not any(_in_the_way(earlier, fault, victim, now) for earlier in plan):
                yield place, Stroke(round(now, 3), fault.name, victim, lasts_s, dice.getrandbits(32))


def _in_the_way(earlier: Stroke, fault: Fault, victim: str, now: float) -> bool:
    if victim == earlier.victim and earlier.fault == fault.name and now < earlier.over_s + fault.rest_s:
        return True
    return _same(victim, earlier.victim) and now < earlier.over_s + _BREATH_S


def same_victim(one: Stroke, other: Stroke) -> bool:
    """Do both befall the same daemon?"""
    return _same(one.victim, other.victim)


def _same(one: str, other: str) -> bool:
    return one == other or EVERYBODY in (one, other)
