import os
import signal
import threading

import pytest

from cyclone.process.progress import Progress, Standing, create_page


@pytest.fixture
def both():
    """Writer and reader of one page."""
    fd = create_page()
    writer, reader = Progress(fd), Progress(fd)
    os.close(fd)
    yield writer, reader
    writer.close()
    reader.close()


def test_a_new_page_says_that_nothing_was_begun(both):
    _, reader = both

    assert reader.read() == Standing(0, None, 0)


def test_what_was_marked_is_read(both):
    writer, reader = both

    writer.mark(3, 17, 123_456_789)

    assert reader.read() == Standing(3, 17, 123_456_789)


def test_the_first_assignment_is_not_taken_for_none(both):
    writer, reader = both

    writer.mark(1, 0, 5)

    assert reader.read() == Standing(1, 0, 5)


def test_between_two_messages_there_is_no_assignment(both):
    writer, reader = both
    writer.mark(1, 0, 5)

    writer.mark(1, -1, 6)

    assert reader.read() == Standing(1, None, 6)


@pytest.mark.parametrize("word", [0, 1, 2])
def test_a_half_written_page_is_not_believed(both, word):
    writer, reader = both
    writer.mark(1, 0, 5)

    writer._words[word] ^= 1

    assert reader.read() is None


def test_what_is_read_belongs_together_while_it_is_being_written(both):
    writer, reader = both
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number = (number + 1) % 1_000_000
            writer.mark(number, number, number * 7)

    thread = threading.Thread(target=write)
    thread.start()
    seen = [reader.read() for _ in range(5000)]
    stop.set()
    thread.join()

    assert all(standing.started_ns == standing.place * 7 for standing in seen if standing is not None)


def test_another_process_writes_the_same_page(both):
    writer, reader = both

    pid = os.fork()
    if pid == 0:
        writer.mark(2, 3, 4)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

    assert reader.read() == Standing(2, 3, 4)


def test_a_page_cannot_be_made_smaller():
    fd = create_page()

    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)

    os.close(fd)
