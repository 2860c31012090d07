from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyclone.generators.files import SortedLines, replacing, write_json


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "made" / "file"

    with replacing(file) as stream:
        stream.write(b"new")
        assert not file.exists()

    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_stays_as_it_was_when_the_block_raises(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    with pytest.raises(ZeroDivisionError), replacing(file) as stream:
        stream.write(b"%d" % (1 // 0))

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_json_can_be_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": [1, None]})

    assert json.loads((tmp_path / "file").read_text()) == {"a": [1, None]}


@pytest.mark.parametrize("lines_in_memory", [1, 2, 3, 100])
def test_lines_come_back_in_order_however_few_fit_into_memory(lines_in_memory: int) -> None:
    lines = [b"%d\n" % (number * 7 % 10) for number in range(10)]

    with SortedLines(bytes, lines_in_memory) as store:
        for line in lines:
            store.add(line)
        ordered = list(store)

    assert ordered == sorted(lines)
    assert store.count == 10
