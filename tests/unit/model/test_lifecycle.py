from __future__ import annotations

import pytest

from cyclone.model.lifecycle import ENDED, HELD, LIFECYCLE, Event, Outcome, State


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_end_has_no_way_out(state: State) -> None:
    assert state not in LIFECYCLE


@pytest.mark.parametrize("state", sorted(set(State) - ENDED))
def test_every_live_state_leads_to_an_end(state: State) -> None:
    reached, new = {state}, {state}
    while new:
        new = {after for each in new for after in LIFECYCLE.get(each, {}).values()} - reached
        reached |= new

    assert reached & ENDED


@pytest.mark.parametrize("state", sorted(set(State) - {State.WAITING}))
def test_every_state_is_reached(state: State) -> None:
    assert any(state in events.values() for events in LIFECYCLE.values())


@pytest.mark.parametrize("event", list(Event))
def test_every_event_happens_somewhere(event: Event) -> None:
    assert any(event in events for events in LIFECYCLE.values())


@pytest.mark.parametrize("state", sorted(set(State) - ENDED))
def test_every_live_task_can_be_cancelled(state: State) -> None:
    assert LIFECYCLE[state][Event.CANCELLED] is State.CANCELLED


@pytest.mark.parametrize("state", sorted(set(State) - HELD))
def test_only_what_is_held_can_succeed_or_fail(state: State) -> None:
    assert not {Event.SUCCEEDED, Event.FAILED, Event.QUARANTINED} & LIFECYCLE.get(state, {}).keys()


def test_only_what_waits_can_be_skipped() -> None:
    assert [state for state, events in LIFECYCLE.items() if Event.SKIPPED in events] == [State.WAITING]


@pytest.mark.parametrize("words", [State, Event, Outcome])
def test_a_word_is_hashed_like_its_text(words: type[State] | type[Event] | type[Outcome]) -> None:
    assert [hash(word) for word in words] == [hash(word.value) for word in words]
