"""What is asked for (`Policy`, `Retry`), and what became of one attempt (`End`)."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from signal import Signals
from typing import Annotated

import msgspec
from msgspec import Meta

from cyclone.model.lifecycle import Event, Outcome
from cyclone.model.resources import UNIT, Shape

# Bounds are checked when a message is decoded: what comes from outside must fit into the store, and a NaN among
# the moments of alarms would put them out of order.

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
#: What tasks of a job are told apart by. A million of them are in memory, and each may be shown to people.
Tid = Annotated[str, Meta(min_length=1, max_length=4096)]
#: Of a job, or of a class.
Name = Annotated[str, Meta(max_length=1024)]
#: A duration. Longer than a lifetime is without bound.
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
UnixTime = Annotated[float, Meta(ge=0, le=1e12)]

#: The fencing token of one attempt: the master's epoch and a sequence within it, never used twice,
#: always growing. An end counts only if its token is the newest of a task that has not ended.
Token = Number

#: The number that a task gets when it is accepted; grows with age.
TaskNumber = Number

JobNumber = Number

SinkName = Annotated[str, Meta(max_length=32)]

_SEQUENCE_BITS = 38

#: By so much of itself a rest may be longer.
SPREAD = 0.25

#: One life of a master; grows.
Epoch = Annotated[int, Meta(ge=0, lt=2 ** (63 - _SEQUENCE_BITS))]


def first_token(epoch: int) -> Token:
    """The smallest token of an epoch: room for 2^38 attempts in each of 2^25 lives of a master."""
    return epoch << _SEQUENCE_BITS


def job_key(store: str, number: JobNumber) -> int:
    """Tells a job from the jobs of all stores, in 63 bits. store: the identity of the one that numbers it."""
    return int.from_bytes(blake2b(f"{store}/{number}".encode(), digest_size=8).digest()) >> 1


def token_text(token: Token) -> str:
    """`EPOCH.SEQUENCE`, as tasks and logs show it."""
    return f"{token >> _SEQUENCE_BITS}.{token & ((1 << _SEQUENCE_BITS) - 1)}"


def _fraction(token: Token) -> float:
    """From 0 to 1, not included; of tokens that follow one another, evenly spread (multiples of the golden ratio)."""
    return ((token * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 11) / 2**53


class Cause(StrEnum):
    """What an attempt that did not succeed is billed to. Each has a budget of its own."""

    ERROR = "error"  # it raised, or its program exited badly
    TIMEOUT = "timeout"
    CRASH = "crash"  # its worker died under it
    LOSS = "loss"  # its controller or host vanished under it
    EVICTION = "eviction"
    UNKNOWN = "unknown"  # its controller or host vanished, and it may have been running there
    NOBODY = "nobody"  # it never started, or was called back


class Retry(msgspec.Struct, frozen=True, array_like=True):
    """How many attempts beyond the first are allowed, for each cause by itself, and when.

    errors, timeouts: retries after an attempt that raised, exited badly, or ran out of time.
    crashes, losses: retries after its worker or its host died; beyond them the task is quarantined.
    evictions: retries after its controller stopped it; `None` is without bound.
    delay_s, backoff, delay_max_s: an attempt billed to an error or time-out is followed by a rest of
    `delay_s * backoff ** (number of such attempts - 1)` seconds, at most `delay_max_s`, and up to a quarter more.
    """

    errors: Count = 0
    timeouts: Count = 0
    crashes: Count = 2
    losses: Count = 5
    evictions: Count | None = None
    delay_s: Seconds = 1.0
    backoff: Annotated[float, Meta(ge=1, le=1000)] = 2.0
    delay_max_s: Seconds = 300.0

    def verdict(self, cause: Cause, billed: int) -> Event:
        """What follows an attempt that did not succeed.

        billed: the attempts of this task billed to this cause so far, this one included.
        """
        if cause in (Cause.NOBODY, Cause.UNKNOWN):
            return Event.RETURNED
        if cause is Cause.EVICTION:
            within = self.evictions is None or billed <= self.evictions
            return Event.RETURNED if within else Event.FAILED
        if cause is Cause.CRASH:
            return Event.RETURNED if billed <= self.crashes else Event.QUARANTINED
        if cause is Cause.LOSS:
            return Event.RETURNED if billed <= self.losses else Event.QUARANTINED
        allowed = self.errors if cause is Cause.ERROR else self.timeouts
        return Event.RESTED if billed <= allowed else Event.FAILED

    def rest_s(self, billed: int, token: Token) -> float:
        """Seconds to rest after the given number of failed attempts (at least one).

        token: of the last of them. Those of attempts that failed together differ, and so do their rests: else they
        would all come back in one moment, again and again, to whatever could not bear them before.
        """
        # The exponent is bounded, or a float overflows long before the cap is applied.
        least = min(self.delay_max_s, self.delay_s * self.backoff ** min(billed - 1, 64))
        return least * (1 + SPREAD * _fraction(token))


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """How a task is to be treated. Shared by all tasks that are to be treated alike.

    kind: the qualified name of the task's class; durations are measured by kind.
    priority: higher first.
    resources: what one attempt takes for as long as it runs, besides one worker.
    timeout_s: bound of one attempt, from its start; None is without bound.
    expires_s: bound from acceptance to the first start; None is without bound.
    exclusive: two attempts must never run at the same time, not even when a network is cut.
    """

    kind: Name = ""
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] = 0
    resources: Shape = (("cpus", UNIT),)
    timeout_s: Seconds | None = None
    retry: Retry = Retry()
    expires_s: Seconds | None = None
    exclusive: bool = False


class End(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one attempt ended.

    duration_s: from its start to its end; 0 if it never started.
    started_at: Unix time, for people; 0 if it never started. Nothing is decided by it.
    code: exit code (`exited`) or number of the signal (`signalled`), else 0.
    died: its worker died with it, which is billed to another budget than an error.
    error: one line for people, then a traceback where there is one; "" on success.
    records: what it sent to sinks if it succeeded, `((sink, how many), …)` in the order in which it recorded: their
    numbers, from 0, are in this order, and so are their keys known (`record.uid`).
    """

    token: Token
    duration_s: Seconds = 0.0
    started_at: UnixTime = 0.0
    outcome: Outcome = Outcome.SUCCEEDED
    code: Count = 0
    died: bool = False
    error: str = ""
    records: tuple[tuple[SinkName, Count], ...] = ()


def cause(end: End, *, started: bool = True) -> Cause:
    """Whom an attempt that did not succeed is billed to.

    started: whether it is known to have run; one that never ran is billed to nobody when it is lost.
    """
    match end.outcome:
        case Outcome.LOST:
            return Cause.LOSS if started else Cause.NOBODY
        case Outcome.CANCELLED:
            return Cause.NOBODY
        case Outcome.EVICTED:
            return Cause.EVICTION
        case Outcome.TIMED_OUT:
            return Cause.TIMEOUT
        case _:
            return Cause.CRASH if end.died else Cause.ERROR


def signal_name(number: int) -> str:
    """`SIGKILL`; `signal 99` for a number that has no name here."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
