from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cyclone.lustre.migration import queues
from cyclone.lustre.migration.queues import OstQueues


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    with open(tmp_path / "queues", "w+b") as file:
        yield file


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_CHUNK_NUMBERS", 8)
    monkeypatch.setattr(queues, "_GATHERED_MOST", 40)


def test_an_element_that_is_refused_is_not_in_the_queue(
    file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = OstQueues(file, width=2)
    for number in range(4):
        found.put(7, number, number)

    with monkeypatch.context() as patched, open("/dev/full", "wb", buffering=0) as full:
        patched.setattr(found, "_file", full)
        with pytest.raises(OSError, match="No space left"):
            found.put(7, 4, 4)
    found.put(7, 5, 5)

    assert found.take(7, 9, file.fileno()) == [(number, number) for number in (0, 1, 2, 3, 5)]


def test_each_ost_has_its_own_order(file: IO[bytes]) -> None:
    found = OstQueues(file, width=2)
    for number in range(100):
        found.put(number % 3, number, number * 10)

    taken = {ost: found.take(ost, 1000, file.fileno()) for ost in range(3)}

    assert taken == {ost: [(number, number * 10) for number in range(ost, 100, 3)] for ost in range(3)}


@pytest.mark.parametrize("most", [1, 3, 4, 7, 1000])
def test_elements_may_be_taken_while_others_come(file: IO[bytes], most: int) -> None:
    found = OstQueues(file, width=2)
    taken: list[tuple[int, ...]] = []

    for number in range(50):
        found.put(7, number, 0)
        if number % 5 == 0:
            taken += found.take(7, most, file.fileno())
    while found.length(7):
        taken += found.take(7, most, file.fileno())

    assert [number for number, _ in taken] == list(range(50))
    assert found.take(7, most, file.fileno()) == []


def test_an_ost_without_elements_has_none(file: IO[bytes]) -> None:
    found = OstQueues(file, width=2)

    assert found.take(5, 10, file.fileno()) == []
    assert found.length(5) == 0


def test_what_many_osts_have_together_is_bounded(file: IO[bytes]) -> None:
    found = OstQueues(file, width=2)

    for ost in range(1000):
        found.put(ost, ost, ost)

    assert file.seek(0, 2) > 900 * 16
    assert found.take(999, 1, file.fileno()) == [(999, 999)]


def test_they_can_be_restored_from_their_directory(file: IO[bytes]) -> None:
    before = OstQueues(file, width=2)
    for number in range(30):
        before.put(number % 2, number, number)
    before.write_all()

    after = OstQueues(None, width=2)
    after.restore(before.directory(), before.end())

    assert after.lengths() == {0: 15, 1: 15}
    assert after.take(1, 99, file.fileno()) == [(number, number) for number in range(1, 30, 2)]


def test_a_file_that_was_cut_is_noticed(file: IO[bytes]) -> None:
    found = OstQueues(file, width=2)
    for number in range(30):
        found.put(0, number, number)
    found.write_all()
    file.truncate(100)

    with pytest.raises(OSError, match="ends at"):
        found.take(0, 99, file.fileno())


def test_a_directory_that_promises_too_much_is_noticed(file: IO[bytes]) -> None:
    found = OstQueues(file, width=2)
    found.put(0, 1, 1)
    found._queues[0].length = 5

    with pytest.raises(OSError, match="fewer elements"):
        found.take(0, 5, file.fileno())
