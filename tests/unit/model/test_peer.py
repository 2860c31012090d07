from __future__ import annotations

from cyclone.model.peer import Peer


def test_two_lives_of_one_name_are_two_peers() -> None:
    assert Peer("node", "1") != Peer("node", "2")


def test_a_peer_is_told_by_name_and_life() -> None:
    assert str(Peer("node", "1")) == "node#1"
