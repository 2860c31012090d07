from __future__ import annotations

import pytest
from core_builders import CLIENT, Master, a_policy

from cyclone.daemons.enclosures import SPLIT_BYTES, Enclosures, split
from cyclone.messages import Ended, Results, Submission, Submit, TaskEnd
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import End
from cyclone.wire import codec

OTHER_CLIENT = Peer("another", "c2")


@pytest.fixture
def master() -> Master:
    return Master()


def hand_in(
    master: Master,
    kept: Enclosures,
    job: int,
    payloads: list[bytes],
    *,
    client: Peer = CLIENT,
    policy: int = 0,
) -> None:
    """So many tasks of the tid `a`."""
    message = Submit(1, job, [a_policy()], [Submission("a", policy)] * len(payloads))
    kept.keep(message, payloads, master.hear(client, message))


def test_another_payload_for_a_task_that_is_live_takes_no_place(master: Master) -> None:
    job, kept = master.open(), Enclosures()

    hand_in(master, kept, job, [b"theirs"])
    hand_in(master, kept, job, [b"mine"], client=OTHER_CLIENT)

    assert kept.payloads == {(job, "a"): b"theirs"}


def test_the_payload_of_a_task_that_was_refused_takes_no_place(master: Master) -> None:
    job, kept = master.open(), Enclosures()

    hand_in(master, kept, job, [b"mine"], client=OTHER_CLIENT, policy=7)
    hand_in(master, kept, job, [b"theirs"])

    assert kept.payloads == {(job, "a"): b"theirs"}


def test_of_a_task_that_stands_in_a_message_twice_the_first_payload_counts(master: Master) -> None:
    job, kept = master.open(), Enclosures()

    hand_in(master, kept, job, [b"first", b"second"])

    assert kept.payloads == {(job, "a"): b"first"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_value_for_an_attempt_of_somebody_else_takes_no_place(master: Master, order: int) -> None:
    kept = Enclosures()
    node = master.join("node")
    master.submit("a")
    master.tick()
    liar = master.join("liar")
    [(_, place)] = master.places
    message = Ended([End(place.assignments[0].token, 0.1, 1.0)])

    for sender, value in [(node, b"right"), (liar, b"forged")][::order]:
        kept.keep(message, [value], master.hear(sender, message))

    assert list(kept.values.values()) == [b"right"]


def test_of_an_end_that_is_told_twice_the_first_value_counts(master: Master) -> None:
    kept = Enclosures()
    node = master.join("node")
    master.submit("a")
    master.tick()
    [(_, place)] = master.places
    end = End(place.assignments[0].token, 0.1, 1.0)
    message = Ended([end, end])

    kept.keep(message, [b"first", b"second"], master.hear(node, message))

    assert kept.values == {end.token: b"first"}


def test_a_large_message_is_cut_and_says_the_same() -> None:
    ends = [TaskEnd(str(number), State.SUCCEEDED, 1, End(number)) for number in range(3)]
    value = bytes(SPLIT_BYTES - 1)

    parts = split(Results(1, 7, ends), [value, value, b"x"])

    assert [(part.ends, part.parts, len(enclosed)) for part, enclosed in parts] == [
        (ends[:1], 2, 1),
        (ends[1:], 2, 2),
    ]


@pytest.mark.parametrize("kind", [Ended, Results])
def test_a_message_of_thousands_of_errors_is_cut_as_well(kind: type) -> None:
    """A controller has these to tell when its master was away while everything failed."""
    error = "x" * 16_384
    ends = [End(number, 0.1, 1.0, Outcome.RAISED, error=error) for number in range(1, 5001)]
    told = [TaskEnd(str(end.token), State.FAILED, 1, end) for end in ends]
    whole = Ended(ends) if kind is Ended else Results(1, 7, told)

    parts = split(whole, [b""] * len(ends))

    smallest_bound = 64 * 2**20  # [comm] max_message_mb
    assert max(len(codec.frame(codec.seal("", "life"), *part)) for part in parts) < smallest_bound
    assert [end for part, _ in parts for end in part.ends] == whole.ends
    assert all(len(part.ends) == len(enclosed) for part, enclosed in parts)


def test_a_message_of_small_ends_stays_one() -> None:
    ends = [End(number) for number in range(20_000)]

    assert len(split(Ended(ends), [b"value"] * len(ends))) == 1
