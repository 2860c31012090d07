"""Claims about what is counted and what is told."""

from __future__ import annotations

from cyclone.wire.complaints import Complaints


def test_everything_is_counted_but_told_once_a_minute(caplog):
    now = [0.0]
    complaints = Complaints(lambda: now[0])

    for second in (0, 1, 59, 60, 61):
        now[0] = float(second)
        complaints.add("undecodable", "node-1", "noise")

    assert complaints.counts == {"undecodable": 5}
    assert [record.getMessage() for record in caplog.records] == [
        "undecodable: noise peer=node-1 count=1",
        "undecodable: noise peer=node-1 count=4",
    ]


def test_one_peer_does_not_silence_another(caplog):
    complaints = Complaints(lambda: 0.0)

    complaints.add("undecodable", "node-1")
    complaints.add("undecodable", "node-2")

    assert len(caplog.records) == 2


def test_what_a_peer_sent_cannot_forge_a_line_of_the_log(caplog):
    complaints = Complaints(lambda: 0.0)

    complaints.add("undecodable", "node-1", "a\nERROR all is lost\x1b[2J" + "x" * 10_000)

    message = caplog.records[0].getMessage()
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 1000


def test_memory_of_who_was_told_of_is_bounded():
    complaints = Complaints(lambda: 0.0)

    for number in range(3000):
        complaints.add("refused", f"10.0.{number // 256}.{number % 256}")

    assert len(complaints._told) == 1000


def test_peers_without_number_cannot_fill_the_log(caplog):
    now = [0.0]
    complaints = Complaints(lambda: now[0])

    for number in range(1000):
        complaints.add("gone", f"client/invented-{number}")
    told = len(caplog.records)
    now[0] = 60.0
    complaints.add("gone", "client/invented-1000")

    assert complaints.counts == {"gone": 1001}
    assert told == 101
    assert "more than that is counted" in caplog.records[100].getMessage()
    assert len(caplog.records) == 102
