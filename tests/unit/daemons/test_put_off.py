from __future__ import annotations

from cyclone.core.decision import Letter
from cyclone.daemons.put_off import PATIENCE_S, PutOff
from cyclone.messages import Accepted, Agreed, Drop
from cyclone.model.peer import Peer

NODE, OTHER, CLIENT = Peer("node", "life"), Peer("node", "later life"), Peer("client", "life")


def test_what_somebody_waits_for_is_not_put_off() -> None:
    put_off = PutOff()

    assert not put_off.add(Letter(NODE, Agreed(1.0, [], 5.0, 20.0)), 100.0)

    assert put_off.moment is None
    assert put_off.take() == []


def test_letters_of_a_kind_for_one_peer_become_one_and_lose_nothing() -> None:
    put_off = PutOff()
    letters = [
        Letter(NODE, Drop([3])),
        Letter(CLIENT, Accepted([1])),
        Letter(NODE, Drop([7], unless_started=True)),
        Letter(OTHER, Drop([5])),
        Letter(NODE, Drop([1, 2])),
        Letter(CLIENT, Accepted([2])),
    ]

    for letter in letters:
        assert put_off.add(letter, 100.0)

    assert put_off.take() == [
        Letter(NODE, Drop([3, 1, 2])),
        Letter(NODE, Drop([7], unless_started=True)),
        Letter(OTHER, Drop([5])),
        Letter(CLIENT, Accepted([1, 2])),
    ]
    assert put_off.take() == []


def test_what_came_first_does_not_wait_for_longer_because_of_what_came_later() -> None:
    put_off = PutOff()
    put_off.add(Letter(NODE, Drop([3])), 100.0)
    put_off.add(Letter(NODE, Drop([4])), 100.0 + PATIENCE_S / 2)

    assert put_off.moment == 100.0 + PATIENCE_S

    put_off.take()
    put_off.add(Letter(NODE, Drop([5])), 200.0)

    assert put_off.moment == 200.0 + PATIENCE_S


def test_what_was_remembered_is_synced_soon_though_there_is_nothing_to_be_said() -> None:
    put_off = PutOff()

    put_off.begin(100.0)
    put_off.begin(200.0)

    assert put_off.moment == 100.0 + PATIENCE_S
    assert put_off.take() == []
    assert put_off.moment is None
