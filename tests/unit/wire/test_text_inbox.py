"""Claims about the one place that hears without a key: from whom, and what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from cyclone.wire.text_inbox import TextInbox

OTHER_HOST = "192.0.2.7"


@pytest.fixture
def inbox() -> Iterator[TextInbox]:
    inbox = TextInbox([OTHER_HOST])
    yield inbox
    inbox.close()


def asked(inbox: TextInbox, address: str, *, domain: bytes = b"cyclone-2") -> bytes:
    """The code that libzmq is answered when somebody connects from there; "" if it is not answered."""
    with inbox._context.socket(zmq.DEALER) as asker:
        asker.connect("inproc://zeromq.zap.01")
        asker.send_multipart([b"", b"1.0", b"7", domain, address.encode(), b"", b"NULL"])
        assert inbox.sockets[2].poll(5000)
        inbox.receive(1)
        return asker.recv_multipart()[3] if asker.poll(200) else b""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", OTHER_HOST, f"::ffff:{OTHER_HOST}"])
def test_this_host_and_those_that_are_named_are_let_in(inbox: TextInbox, address: str) -> None:
    assert asked(inbox, address) == b"200"


@pytest.mark.parametrize("address", ["192.0.2.8", "::ffff:192.0.2.8", "nonsense", ""])
def test_nobody_else_is_let_in(inbox: TextInbox, address: str) -> None:
    assert asked(inbox, address) == b"400"


def test_a_question_of_another_domain_is_not_answered(inbox: TextInbox) -> None:
    assert asked(inbox, "127.0.0.1", domain=b"other") == b""
