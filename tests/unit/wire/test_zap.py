"""Claims about the answers at the door: whatever is not exactly right is refused."""

from __future__ import annotations

import pytest
import zmq

from cyclone.wire import keys
from cyclone.wire.complaints import Complaints
from cyclone.wire.zap import DOMAIN, Zap


@pytest.fixture
def asked(key_dir):
    """Puts a question to a fresh Zap as libzmq would, and returns its answer, None if there is none."""
    context = zmq.Context()
    zap = Zap(context, keys.KeyRing(key_dir), Complaints(lambda: 0.0))
    asker = context.socket(zmq.DEALER)
    asker.linger = 0
    asker.connect("inproc://zeromq.zap.01")

    def ask(*question: bytes) -> list[bytes] | None:
        asker.send_multipart(question)
        assert zap.socket.poll(5000)
        zap.serve()
        return asker.recv_multipart() if asker.poll(1000) else None

    ask.zap = zap
    yield ask
    asker.close()
    zap.close()
    context.term()


def question(raw: bytes, *, version=b"1.0", domain=DOMAIN, mechanism=b"CURVE") -> list[bytes]:
    return [b"", version, b"7", domain, b"10.0.0.1", b"", mechanism, raw]


def test_a_listed_key_is_admitted_under_its_name(asked, key_dir):
    key = keys.load_public(key_dir, "controller")

    answer = asked(*question(key.raw))

    assert answer == [b"", b"1.0", b"7", b"200", b"OK", key.user_id.encode(), b""]
    assert asked.zap.refused == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"version": b"2.0"},
        {"domain": b""},
        {"domain": b"other"},
        {"mechanism": b"NULL"},
        {"mechanism": b"PLAIN"},
    ],
)
def test_a_listed_key_in_a_wrong_question_is_refused(asked, key_dir, changes):
    key = keys.load_public(key_dir, "controller")

    answer = asked(*question(key.raw, **changes))

    assert answer == [b"", b"1.0", b"7", b"400", b"refused", b"", b""]
    assert asked.zap.refused == 1


@pytest.mark.parametrize("raw", [b"", b"\0" * 32, b"short", b"x" * 33])
def test_a_key_of_no_list_is_refused_and_its_fingerprint_logged(asked, raw, caplog):
    answer = asked(*question(raw))

    assert answer[3] == b"400"
    assert keys.fingerprint(raw) in caplog.text
    assert "peer=10.0.0.1" in caplog.text


@pytest.mark.parametrize(
    "frames", [[b""], [b"", b"1.0", b"7"], [b"x"] * 20, [b"", b"1.0", b"7", DOMAIN, b"\xff"]]
)
def test_a_malformed_question_is_refused_and_the_next_one_answered(asked, key_dir, frames):
    malformed = asked(*frames)

    answer = asked(*question(keys.load_public(key_dir, "client").raw))

    assert malformed is None or b"400" in malformed
    assert answer[3] == b"200"
