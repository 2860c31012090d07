from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from cyclone.wire.sockets import Inbox, Socket


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    context = zmq.Context()
    with context.socket(zmq.PAIR) as ours, context.socket(zmq.PAIR) as theirs:
        ours.bind("inproc://parts")
        theirs.connect("inproc://parts")
        yield ours, theirs
    context.term()


def test_of_a_message_with_too_many_parts_the_first_few_are_kept(pair: tuple[Socket, Socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours, parts_max=3)
    theirs.send_multipart([b"part"] * 100)
    theirs.send_multipart([b"next"])

    heard = [parts for _ in range(50) for parts in inbox.take(1)]

    assert [[part.bytes for part in parts] for parts in heard] == [[b"part"] * 4, [b"next"]]
