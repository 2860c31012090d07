import os
import pickle
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import task_zoo
from kindergarten import Kindergarten, pid_in
from task_zoo import Call, CannotBeUnpickled, Frozen

from cyclone.daemons import worker
from cyclone.model.lifecycle import Outcome
from cyclone.process.reaper import NUDGE, Died


@pytest.fixture
def busy(garden):
    """A garden with a worker in slot 1."""
    garden.employ(1)
    return garden


# What comes back.


def test_what_a_task_returns_is_its_value(busy):
    end, value = busy.result(Call(task_zoo.echo, {"a": [1, None]}))

    assert value == {"a": [1, None]}
    assert (end.outcome, end.code, end.died, end.error) == (Outcome.SUCCEEDED, 0, False, "")


def test_nothing_returned_is_nothing_enclosed(busy):
    end, value = busy.result(Call(task_zoo.nothing))

    assert (end.outcome, value) == (Outcome.SUCCEEDED, None)


def test_many_tasks_in_one_message_end_in_their_order(busy):
    pairs = busy.result(*(Call(task_zoo.echo, number) for number in range(2000)))

    assert [value for _, value in pairs] == list(range(2000))
    assert [end.token for end, _ in pairs] == list(range(1, 2001))


def test_durations_and_starts_are_measured(busy):
    before = time.time()

    end, _ = busy.result(Call(task_zoo.nap, 0.05))

    assert 0.05 <= end.duration_s < 10
    assert before - 1 <= end.started_at <= time.time()


def test_a_task_knows_its_attempt(busy):
    _, value = busy.result(Call(task_zoo.attempt))

    assert value == ("job", "tid-1", 1, 1)


def test_a_frozen_dataclass_may_be_a_task(busy):
    _, value = busy.result(Frozen(21))

    assert value == (42, "tid-1")


def test_a_result_of_many_megabytes_arrives_whole(busy):
    end, value = busy.result(Call(task_zoo.large, 30 << 20))

    assert end.outcome is Outcome.SUCCEEDED
    assert value == b"x" * (30 << 20)


def test_a_payload_of_many_megabytes_arrives_whole(busy):
    _, value = busy.result(Call(task_zoo.echo, b"y" * (30 << 20)))

    assert value == b"y" * (30 << 20)


# How it fails.


def test_an_exception_ends_the_attempt_with_its_traceback(busy):
    end, value = busy.result(Call(task_zoo.fail, "no luck"))

    assert (end.outcome, end.died, value) == (Outcome.RAISED, False, None)
    summary, *trace = end.error.splitlines()
    assert summary == "ValueError: no luck"
    assert trace[0].startswith("Traceback")
    assert "daemons/worker.py" not in end.error


def test_the_worker_survives_an_exception(busy):
    pairs = busy.result(Call(task_zoo.fail, "no luck"), Call(task_zoo.echo, 7))

    assert [value for _, value in pairs] == [None, 7]


@pytest.mark.parametrize(
    ("task", "summary"),
    [
        (Call(task_zoo.leave, 3), "SystemExit: 3"),
        (Call(task_zoo.interrupt), "KeyboardInterrupt"),
        (Call(task_zoo.fail_rudely), "RudeError: (its text cannot be had: RuntimeError)"),
        (Call(task_zoo.fail, "a\nb"), "ValueError: a b"),
        (Call(task_zoo.fail, "\udcff"), "ValueError: \\udcff"),
    ],
)
def test_whatever_is_raised_is_an_outcome(busy, task, summary):
    end, _ = busy.result(task)

    assert end.outcome is Outcome.RAISED
    assert end.error.splitlines()[0] == summary


def test_a_task_error_has_no_traceback(busy):
    end, _ = busy.result(Call(task_zoo.fail_quietly, "disk is full"))

    assert (end.outcome, end.error) == (Outcome.RAISED, "disk is full")


@pytest.mark.parametrize(
    ("returncode", "outcome", "code"),
    [(3, Outcome.EXITED, 3), (-9, Outcome.SIGNALLED, 9), (0, Outcome.RAISED, 0)],
)
def test_a_command_that_failed_says_how(busy, returncode, outcome, code):
    end, _ = busy.result(Call(task_zoo.command, returncode))

    assert (end.outcome, end.code, end.died) == (outcome, code, False)
    assert end.error == f"it said {returncode}"


def test_a_long_error_is_cut_and_keeps_its_end(busy):
    end, _ = busy.result(Call(task_zoo.fail_deeply, 50))

    assert len(end.error.encode()) <= 16 * 1024
    assert end.error.startswith("ValueError: xxx")
    assert end.error.endswith("xxx")


def test_a_missing_module_is_named(busy):
    payload = pickle.dumps(Call(task_zoo.nothing)).replace(b"task_zoo", b"task_xoo")

    end, _ = busy.result(payload)

    assert end.outcome is Outcome.RAISED
    assert end.error.startswith(
        "the task cannot be unpickled here: ModuleNotFoundError: No module named 'task_xoo'"
    )


def test_a_missing_class_is_named(busy):
    payload = pickle.dumps(Frozen(1)).replace(b"Frozen", b"Fr0zen")

    end, _ = busy.result(payload)

    assert end.error.startswith("the task cannot be unpickled here: AttributeError: ")
    assert "Fr0zen" in end.error


def test_bytes_that_are_no_pickle_are_an_outcome(busy):
    end, _ = busy.result(b"garbage")

    assert end.error.startswith("the task cannot be unpickled here: ")


def test_an_exception_while_unpickling_is_an_outcome(busy):
    end, _ = busy.result(CannotBeUnpickled())

    assert end.error.startswith("the task cannot be unpickled here: ValueError: no way back")


def test_what_is_no_task_is_refused(busy):
    end, _ = busy.result(pickle.dumps(42))

    assert (end.outcome, end.error) == (Outcome.RAISED, "a int was submitted, which is not a task")


def test_a_result_that_cannot_be_pickled_is_an_outcome(busy):
    end, value = busy.result(Call(task_zoo.unpicklable))

    assert (end.outcome, value) == (Outcome.RAISED, None)
    assert end.error.startswith("the result, a function, cannot be pickled: ")


# Signals and forks.


def test_on_sigterm_finally_runs_and_the_worker_dies_of_it(busy, tmp_path):
    file = tmp_path / "note"
    busy.place(1, Call(task_zoo.echo, 1), Call(task_zoo.clean_up_when_stopped, str(file)))
    pid_in(file)

    busy.nursery.kill(1, signal.SIGTERM)

    assert busy.expect(Died, 1).status == -signal.SIGTERM
    assert file.read_text() == "cleaned up"
    assert [end.token for end in busy.ends[1]] == [1]


def test_an_attempt_that_swallows_the_stop_is_not_reported(busy, tmp_path):
    file = tmp_path / "note"
    busy.place(1, Call(task_zoo.swallow_the_stop, str(file)), Call(task_zoo.echo, 1))
    pid_in(file)

    busy.nursery.kill(1, signal.SIGTERM)

    assert busy.expect(Died, 1).status == -signal.SIGTERM
    assert busy.ends[1] == []


def test_an_idle_worker_dies_of_sigterm(busy):
    busy.result(Call(task_zoo.nothing))

    busy.nursery.kill(1, signal.SIGTERM)

    assert busy.expect(Died, 1).status == -signal.SIGTERM


def test_a_nudge_brings_the_ends_that_are_kept_back(busy, tmp_path):
    file = tmp_path / "note"
    busy.place(1, Call(task_zoo.echo, 5), Call(task_zoo.mark_and_nap, str(file)))
    pid_in(file)

    def nudged():
        busy.nursery.kill(1, NUDGE)
        return busy.values[1] == [5]

    busy.until(nudged, "the end that was kept back")


def test_a_nudge_brings_back_what_comes_after_and_it_is_not_executed(busy, tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    busy.place(
        1, Call(task_zoo.mark_and_nap, str(first), 1), *[Call(task_zoo.mark_and_nap, str(last), 0)] * 2
    )
    pid_in(first)

    busy.nursery.kill(1, NUDGE)

    busy.until(lambda: busy.unbegun[1] == [2, 3], "what was not begun")
    busy.until(lambda: [end.token for end in busy.ends[1]] == [1], "the end of the first")
    busy.result(Call(task_zoo.nothing))
    assert not last.exists()


def test_a_nudge_harms_nobody(busy):
    for _ in range(20):
        busy.nursery.kill(1, NUDGE)
        _, value = busy.result(Call(task_zoo.echo, 5))
        assert value == 5


def test_a_task_that_forks_and_returns_twice_ends_once(busy, tmp_path):
    file = tmp_path / "note"

    pairs = busy.result(Call(task_zoo.fork_and_return, str(file)), Call(task_zoo.echo, 1))

    assert [value for _, value in pairs] == ["from the parent", 1]
    assert pid_in(file) != os.getpid()


def test_a_worker_ends_without_a_word_when_its_channel_does(busy):
    busy.result(Call(task_zoo.nothing))

    busy.hired[1].channel.close()

    assert busy.expect(Died, 1).status == 0


def test_a_worker_without_its_channel_dies(busy):
    busy.place(1, Call(task_zoo.close_all_descriptors))

    assert busy.expect(Died, 1).status != 0


# Where it works.


def test_modules_in_the_working_directory_hide_no_others(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(worker, "Reaper", lambda *_: SimpleNamespace(run=lambda: None))

    worker.main(0)

    assert sys.path[-1] == str(tmp_path)


def test_a_worker_has_only_what_it_needs(busy):
    _, there = busy.result(Call(task_zoo.surroundings))

    assert there.pop("stdin") == "/dev/null"
    # The channel, the page as mapped, and the listing itself.
    assert len(there.pop("descriptors")) <= 3 + 3
    assert there.pop("mask") == set()
    assert all(there.values()), there


def test_programs_of_tasks_are_marked(busy):
    _, environment = busy.result(Call(task_zoo.environment))

    assert environment["CYCLONE_LIFE"] == busy.life
    assert environment["CYCLONE_SLOT"] == "1"
    assert int(environment["CYCLONE_WORKER"]) > 1


def test_what_tasks_print_is_not_lost_with_the_worker(capfd):
    # Started here and not by a fixture, so that the output goes to where capfd looks for it.
    garden = Kindergarten()
    garden.employ(1)
    garden.place(1, Call(task_zoo.last_words, 9))

    status = garden.expect(Died, 1).status
    garden.close()

    assert status == 9
    assert "last words\n" in capfd.readouterr().out
