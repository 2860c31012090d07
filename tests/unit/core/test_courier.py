import itertools

import pytest

from cyclone.core.courier import AGAIN_MOST_S, AGAIN_S, ASK_S, REFUSED_S, Courier
from cyclone.messages import Stored


@pytest.fixture
def courier():
    courier = Courier(100.0)
    courier.connected(100.0)
    return courier


def test_nothing_is_sent_without_a_connection():
    courier = Courier(100.0)

    assert not courier.is_due(1000.0, waiting=True)
    assert courier.trouble
    assert courier.next_moment(waiting=True) is None


def test_what_waits_is_sent_at_once(courier):
    assert courier.is_due(100.0, waiting=True)
    assert courier.next_moment(waiting=True) <= 100.0


def test_one_batch_is_on_its_way_at_a_time(courier):
    courier.sent(7, 100.0)

    assert not courier.is_due(100.0 + AGAIN_S / 2, waiting=True)


def test_an_answer_lets_the_spool_forget_and_the_next_batch_go(courier):
    serial = courier.sent(7, 100.0)

    through = courier.stored(Stored(serial, 3, "no connection"), 101.0)

    assert through == 7
    assert courier.is_due(101.0, waiting=True)
    assert not courier.is_due(101.0, waiting=False)
    assert (courier.sink_entries, courier.sink_trouble) == (3, "no connection")


def test_a_batch_without_an_answer_is_sent_again(courier):
    courier.sent(7, 100.0)

    assert courier.is_due(100.0 + AGAIN_S, waiting=True)
    assert courier.next_moment(waiting=True) == 100.0 + AGAIN_S


def test_a_late_answer_to_a_batch_that_was_sent_again_counts(courier):
    late = courier.sent(7, 100.0)
    again = courier.sent(9, 110.0)

    assert courier.stored(Stored(late), 111.0) == 7
    assert not courier.is_due(112.0, waiting=True)
    assert courier.stored(Stored(again), 113.0) == 9
    assert courier.is_due(113.0, waiting=True)


def test_a_slow_sink_is_believed_and_not_pressed(courier):
    """Each answer takes 12 s; what lies before the sink is worked off one after the other."""
    now, free_at, answers, forgotten, sent = 100.0, 100.0, [], 0, 0
    while forgotten < 50 and now < 3000.0:
        if answers and answers[0][0] <= now:
            forgotten += bool(courier.stored(Stored(answers.pop(0)[1]), now))
        if courier.is_due(now, waiting=True):
            free_at = max(free_at, now) + 12.0
            answers.append((free_at, courier.sent(7, now)))
            sent += 1
        now += 0.5

    assert forgotten == 50
    assert sent < 55


def test_a_sink_that_is_silent_is_asked_less_and_less_often(courier):
    moments = []
    now = 100.0
    while len(moments) < 8:
        courier.sent(7, now)
        now = courier.next_moment(waiting=True)
        moments.append(now)

    waits = [later - earlier for earlier, later in itertools.pairwise([100.0, *moments])]
    assert waits == [AGAIN_S * 2**power for power in range(6)] + [AGAIN_MOST_S] * 2


def test_an_answer_that_comes_twice_lets_nothing_more_go(courier):
    serial = courier.sent(7, 100.0)
    courier.stored(Stored(serial), 101.0)

    assert courier.stored(Stored(serial), 101.0) == 0


def test_a_new_connection_sends_again_what_was_on_its_way(courier):
    courier.sent(7, 100.0)
    courier.disconnected("gone")
    assert not courier.is_due(100.5, waiting=True)

    courier.connected(101.0)

    assert courier.is_due(101.0, waiting=True)


def test_an_answer_from_before_the_cut_lets_nothing_go(courier):
    serial = courier.sent(7, 100.0)
    courier.connected(101.0)

    assert courier.stored(Stored(serial), 101.0) == 0


def test_a_new_connection_is_not_met_with_the_patience_of_a_former_one(courier):
    for moment in (100.0, 110.0, 130.0, 170.0):
        courier.sent(7, moment)

    courier.connected(200.0)
    courier.sent(7, 200.0)

    assert courier.is_due(200.0 + AGAIN_S, waiting=True)


def test_a_refusal_is_told_and_tried_again_later(courier):
    courier.sent(7, 100.0)

    courier.refused("no room", 101.0)

    assert courier.trouble == "no room"
    assert not courier.is_due(101.0, waiting=True)
    assert courier.is_due(101.0 + REFUSED_S, waiting=True)


def test_a_sink_without_work_is_asked_now_and_then(courier):
    serial = courier.sent(7, 100.0)
    courier.stored(Stored(serial), 101.0)

    assert not courier.is_due(101.0 + ASK_S / 2, waiting=False)
    assert courier.is_due(101.0 + ASK_S, waiting=False)
