"""What a task records reaches the controller with its end, and only if it succeeded."""

import os
import pickle

import msgspec
import pytest
import task_zoo
from kindergarten import Kindergarten
from task_zoo import Call

from cyclone.messages import Assignment, Place
from cyclone.model.lifecycle import Outcome
from cyclone.record import SINKS_VARIABLE, uid


@pytest.fixture
def recording(monkeypatch):
    """A garden with a worker in slot 1, on a node with two sinks."""
    monkeypatch.setenv(SINKS_VARIABLE, "database,pushgateway")
    garden = Kindergarten()
    garden.employ(1)
    yield garden
    garden.close()


def test_what_was_recorded_comes_with_the_end(recording):
    end, _ = recording.result(Call(task_zoo.measure, 3))

    entries = recording.entries[1]
    assert end.outcome is Outcome.SUCCEEDED
    assert [(entry.sink, entry.kind, entry.job, entry.tid) for entry in entries] == [
        ("database", "measured", "job", "tid-1")
    ] * 3
    assert [msgspec.msgpack.decode(entry.body) for entry in entries] == [
        {"place": "here", "count": count, "text": ""} for count in range(3)
    ]


def test_the_key_is_made_of_job_tid_and_number(recording):
    assignment = Assignment(7, "tid-7", "job", 2, 0, job_key=77)
    recording.hired[1].channel.send(Place(0.0, [], [assignment]), [pickle.dumps(Call(task_zoo.measure, 2))])

    recording.until(lambda: recording.ends[1], "an end")

    assert [entry.uid for entry in recording.entries[1]] == [uid(77, "tid-7", 0), uid(77, "tid-7", 1)]


def test_the_end_tells_how_many_records_went_to_which_sink_in_their_order(recording):
    end, _ = recording.result(Call(task_zoo.measure, 3))
    mixed, _ = recording.result(Call(task_zoo.measure_for, "database", "database", "pushgateway", "database"))
    none, _ = recording.result(Call(int))
    failed, _ = recording.result(Call(task_zoo.measure_and_fail))

    assert end.records == (("database", 3),)
    assert mixed.records == (("database", 2), ("pushgateway", 1), ("database", 1))
    assert (none.records, failed.records) == ((), ())


def test_a_record_may_be_of_what_was_known_at_an_earlier_moment(recording):
    recording.result(Call(task_zoo.measure_what_was_known, 1_000_000_000.0))

    earlier, now = (entry.at for entry in recording.entries[1])
    assert earlier == 1_000_000_000.0
    assert now > 1_700_000_000.0


def test_what_a_failed_attempt_has_recorded_is_dropped(recording):
    end, _ = recording.result(Call(task_zoo.measure_and_fail))

    assert end.outcome is Outcome.RAISED
    assert recording.entries[1] == []


def test_the_names_of_records_count_as_well(recording):
    assignment = Assignment(7, "x" * 4000, "job", 2, 0, job_key=77)
    task = pickle.dumps(Call(task_zoo.measure_little_under_a_long_name))
    recording.hired[1].channel.send(Place(0.0, [], [assignment]), [task])

    recording.until(lambda: recording.ends[1], "an end")

    assert "more than 67108864 bytes of records" in recording.ends[1][0].error


def test_an_attempt_whose_result_is_too_large_fails_and_records_nothing(recording):
    end, _ = recording.result(Call(task_zoo.measure_and_return_too_much))

    assert end.outcome is Outcome.RAISED
    assert "33554432 may be sent; write it to a file" in end.error
    assert recording.entries[1] == []


def test_threads_of_one_task_record_under_keys_of_their_own(recording):
    recording.result(Call(task_zoo.measure_in_threads, 4, 2000))

    assert len({entry.uid for entry in recording.entries[1]}) == 8000


def test_each_of_many_tasks_has_records_of_its_own(recording):
    recording.result(*(Call(task_zoo.measure, 1) for _ in range(100)))

    assert len({entry.uid for entry in recording.entries[1]}) == 100


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (task_zoo.measure_nonsense, "colour"),
        (task_zoo.measure_for_nobody, "no sink 'nobody'"),
        (task_zoo.measure_no_kind, "kind of record"),
        (task_zoo.measure_for_no_name, "no sink ''"),
        (task_zoo.measure_too_much, "65536 are allowed"),
        (task_zoo.measure_without_end, "more than 67108864 bytes of records"),
    ],
)
def test_a_wrong_record_fails_the_attempt_with_the_reason(recording, how, problem):
    end, _ = recording.result(Call(how))

    assert end.outcome is Outcome.RAISED
    assert problem in end.error
    assert "Traceback" not in end.error


def test_a_thread_that_a_task_left_behind_records_for_nobody(recording):
    recording.result(Call(task_zoo.leave_a_recording_thread))
    recording.result(Call(task_zoo.let_it_record))

    assert recording.entries[1] == []


def test_a_node_without_sinks_says_so(garden):
    assert SINKS_VARIABLE not in os.environ
    garden.employ(1)

    end, _ = garden.result(Call(task_zoo.measure, 1))

    assert "there: none" in end.error
