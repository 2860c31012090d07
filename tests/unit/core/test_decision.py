from __future__ import annotations

from cyclone.core.decision import Decision, Letter
from cyclone.messages import Drop
from cyclone.model.changes import PlacementOver
from cyclone.model.peer import Peer

NODE = Peer("node", "1")


def test_letters_keep_their_order_and_what_is_enclosed() -> None:
    decision = Decision()

    decision.say(NODE, Drop([1]), [7])
    decision.say(NODE, Drop([2]))

    assert decision.letters == [Letter(NODE, Drop([1]), [7]), Letter(NODE, Drop([2]), ())]


def test_a_decision_takes_over_what_others_decided_in_their_order() -> None:
    decision, other = Decision(), Decision()
    decision.remember(PlacementOver(1))
    decision.note("first")
    other.remember(PlacementOver(2))
    other.say(NODE, Drop([2]))
    other.note("second")

    decision.extend(other)

    assert decision.changes == [PlacementOver(1), PlacementOver(2)]
    assert decision.letters == [Letter(NODE, Drop([2]))]
    assert decision.notes == ["first", "second"]
