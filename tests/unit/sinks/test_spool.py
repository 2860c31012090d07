from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from spools import without_index

from cyclone.errors import (
    AlreadyRunning,
    ConfigError,
    RuleBroken,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreVersionError,
)
from cyclone.messages import Entry
from cyclone.sinks.spool import Fill, Spool, size_of

NOON = 1_790_000_000.0


def entry(number: int, sink: str = "database", size: int = 20, **other: object) -> Entry:
    uid = number.to_bytes(16)
    return replace(
        Entry(uid, sink, "ost_perf", "watch", f"ost-{number}", NOON + number, bytes(size)), **other
    )


def taken_by(tmp_path: Path, entries: list[Entry]) -> int:
    """What the file of a spool takes that has just these."""
    spool = Spool(tmp_path / "measured")
    spool.append(entries)
    taken = spool._taken()
    spool.close()
    return taken


def entries_of(spool: Spool, sink: str = "database", after_seq: int = 0) -> list[Entry]:
    return [each for _, each in spool.read(sink, after_seq, 1_000_000)]


# First in, first out.


def test_what_was_appended_is_read_in_its_order_also_after_a_restart(tmp_path: Path) -> None:
    kept = [entry(number) for number in random.Random(1).sample(range(1000), 100)]
    spool = Spool(tmp_path / "spool")
    spool.append(kept[:60])
    spool.append(kept[60:])
    spool.close()

    again = Spool(tmp_path / "spool")

    assert entries_of(again) == kept
    again.close()


def test_sinks_do_not_see_one_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    spool.append([entry(1), entry(2, "pushgateway"), entry(3)])

    assert entries_of(spool) == [entry(1), entry(3)]
    assert entries_of(spool, "pushgateway") == [entry(2, "pushgateway")]
    assert entries_of(spool, "unheard of") == []
    spool.close()


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(number) for number in range(10)])

    first = spool.read("database", 0, 4)
    rest = spool.read("database", first[-1][0], 100)

    assert [each for _, each in first + rest] == [entry(number) for number in range(10)]
    assert len(first) == 4
    spool.close()


def test_reading_is_bounded_by_bytes_but_never_to_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(number, size=100) for number in range(10)])

    assert len(spool.read("database", 0, 100, 2 * size_of(entry(0, size=100)))) == 2
    assert len(spool.read("database", 0, 100, 99)) == 1
    spool.close()


def test_a_duplicate_is_ignored_while_the_first_is_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2)])

    new = spool.append([entry(2), entry(3), entry(3)])

    assert new == 1
    assert entries_of(spool) == [entry(1), entry(2), entry(3)]
    assert spool.fill()["database"].entries == 3
    spool.close()


def test_what_was_deleted_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(number) for number in range(6)])
    seqs = [seq for seq, _ in spool.read("database", 0, 6)]

    gone = spool.delete([seqs[0], seqs[3], seqs[3]])

    assert gone == 2
    assert entries_of(spool) == [entry(1), entry(2), entry(4), entry(5)]
    assert spool.delete(seqs) == 4
    assert spool.delete(seqs) == spool.delete([]) == 0
    assert spool.fill() == {}
    spool.close()


def test_deleting_up_to_a_number_leaves_other_sinks_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2, "pushgateway"), entry(3), entry(4)])
    seqs = [seq for seq, _ in spool.read("database", 0, 3)]

    gone = spool.delete_upto("database", seqs[1])

    assert gone == 2
    assert entries_of(spool) == [entry(4)]
    assert entries_of(spool, "pushgateway") == [entry(2, "pushgateway")]
    spool.close()


def test_a_number_is_never_used_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1)])
    [(first, _)] = spool.read("database", 0, 1)
    spool.delete([first])
    spool.close()
    spool = Spool(tmp_path / "spool")

    spool.append([entry(2)])

    assert entries_of(spool, after_seq=first) == [entry(2)]
    spool.close()


def test_the_fill_tells_sizes_and_the_oldest_of_each_sink(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    short = size_of(entry(6))
    some = [entry(5, size=3000 - size_of(entry(5, size=0))), entry(6), entry(7, "pushgateway")]
    spool.append(some)

    taken = taken_by(tmp_path, some)
    assert spool.fill() == {
        "database": Fill(2, taken * (3000 + short) // (3000 + 2 * short), NOON + 5),
        "pushgateway": Fill(1, taken * short // (3000 + 2 * short), NOON + 7),
    }
    spool.close()


def test_a_size_that_is_left_when_all_is_gone_is_forgotten(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1)])
    spool._connection.execute("UPDATE sink SET size = size + (1 << 50)")

    spool.delete_upto("database", 2**62)

    assert spool.fill() == {}
    assert spool._rows("SELECT entries, size FROM sink") == [(0, 0)]
    spool.close()


def test_strange_texts_come_out_as_they_went_in(tmp_path: Path) -> None:
    odd = entry(1, tid="'; DROP TABLE entry; --\0\U0001f300\n", job="ж" * 5000, body=bytes(range(256)))
    spool = Spool(tmp_path / "spool")

    spool.append([odd])

    assert entries_of(spool) == [odd]
    spool.close()


# The bound.


def test_a_full_spool_refuses_all_of_what_does_not_fit(tmp_path: Path) -> None:
    some = [entry(number, size=3000) for number in range(9)]
    spool = Spool(tmp_path / "spool", taken_by(tmp_path, some[:7]))
    spool.append(some[:6])

    with pytest.raises(StoreFull, match="are allowed"):
        spool.append(some[6:8])

    assert entries_of(spool) == some[:6]
    assert spool.append(some[:7]) == 1
    spool.close()


@pytest.mark.parametrize(
    ("size", "tid"), [(60, "t"), (2500, "t"), (5000, "t"), (100, "ü" * 2048), (10, "\U0001f300" * 999)]
)
def test_the_bound_is_that_of_the_file_whatever_lies_in_it(tmp_path: Path, size: int, tid: str) -> None:
    bound = 2**20
    spool = Spool(tmp_path / "spool", bound)

    def fill_up() -> None:
        for number in itertools.count(step=20):
            spool.append([entry(each, size=size, tid=tid) for each in range(number, number + 20)])

    with pytest.raises(StoreFull):
        fill_up()
    spool.close()

    assert bound * 0.8 < (tmp_path / "spool").stat().st_size <= bound


def test_there_is_room_again_when_something_was_deleted(tmp_path: Path) -> None:
    some = [entry(number, size=3000) for number in range(9)]
    spool = Spool(tmp_path / "spool", taken_by(tmp_path, some[:8]))
    spool.append(some[:8])

    spool.delete([seq for seq, _ in spool.read("database", 0, 1)])

    assert spool.append(some[8:]) == 1
    spool.close()


def test_the_bound_counts_what_all_sinks_keep(tmp_path: Path) -> None:
    some = [entry(number, ("database", "pushgateway")[number % 2], size=3000) for number in range(9)]
    spool = Spool(tmp_path / "spool", taken_by(tmp_path, some[:8]))
    spool.append(some[:8])

    with pytest.raises(StoreFull):
        spool.append(some[8:])
    spool.close()


def test_what_is_oldest_can_be_dropped_to_make_room(tmp_path: Path) -> None:
    some = [entry(0, "pushgateway", size=3000), *(entry(number, size=3000) for number in range(1, 9))]
    spool = Spool(tmp_path / "spool")
    spool.append(some)

    dropped = spool.drop_oldest(6000)

    assert dropped == 2
    assert entries_of(spool) == some[2:]
    assert list(spool.fill()) == ["database"]
    assert sum(each.size for each in spool.fill().values()) == taken_by(tmp_path, some) - 2 * 4096
    spool.close()


def test_short_entries_are_dropped_until_the_file_has_given_up_enough(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    # In no order, so that their keys lie among those that stay.
    spool.append([entry(number) for number in random.Random(1).sample(range(9999), 5000)])
    before = spool.fill()["database"].size

    dropped = spool.drop_oldest(100_000)

    assert before - spool.fill()["database"].size >= 100_000
    assert 0 < dropped < 2000
    spool.close()


def test_a_full_disk_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1)])
    # As SQLite says it when write(2) finds no room.
    pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
    spool._connection.execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(StoreFull, match="full"):
        spool.append([entry(number, size=1000) for number in range(2, 100)])

    assert entries_of(spool) == [entry(1)]
    spool.close()


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_once(spool: Spool) -> None:
    """The disk is full the next time that something is to be forgotten, as long as the reserve is there."""
    delete, reserve = spool._delete, spool.path.with_name("spool.reserve")

    def find_no_room(seqs: object) -> int:
        if reserve.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return delete(seqs)

    spool._delete = find_no_room


def test_what_was_delivered_can_be_forgotten_on_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2)])
    [first, second] = [seq for seq, _ in spool.read("database", 0, 2)]
    full_once(spool)

    assert spool.delete([first]) == 1

    assert entries_of(spool) == [entry(2)]
    assert "has spent its reserve" in caplog.text
    assert not (tmp_path / "spool.reserve").exists()
    assert spool.delete([second]) == 1
    assert (tmp_path / "spool.reserve").stat().st_blocks > 0
    spool.close()


@pytest.mark.parametrize("left", [None, b""])
def test_a_reserve_that_a_former_life_spent_is_renewed(tmp_path: Path, left: bytes | None) -> None:
    Spool(tmp_path / "spool").close()
    reserve = tmp_path / "spool.reserve"
    reserve.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        spool = Spool(tmp_path / "spool")
    if left is not None:
        reserve.write_bytes(left)
    spool.append([entry(1)])

    spool.delete([seq for seq, _ in spool.read("database", 0, 1)])

    assert reserve.stat().st_blocks > 0
    spool.close()


def test_a_full_disk_without_a_reserve_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1)])
    full_once(spool)
    spool._spend_reserve = lambda: False

    with pytest.raises(StoreFull):
        spool.delete([seq for seq, _ in spool.read("database", 0, 1)])

    assert entries_of(spool) == [entry(1)]
    spool.close()


def test_a_disk_that_has_no_room_for_a_reserve_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)

    spool = Spool(tmp_path / "spool")

    assert spool.append([entry(1)]) == 1
    assert not (tmp_path / "spool.reserve").exists()
    spool.close()


# Faults.


def test_an_entry_that_cannot_be_written_takes_nothing_with_it_into_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    for wrong in (entry(2, tid="\udcff"), entry(2, uid=None)):
        with pytest.raises(RuleBroken):
            spool.append([entry(1), wrong])

    assert entries_of(spool) == []
    assert spool.append([entry(1)]) == 1
    spool.close()


def test_a_time_that_is_no_number_does_no_harm(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    spool.append([entry(1, at=float("nan"))])

    [(_, found)] = spool.read("database", 0, 1)
    assert found.at != found.at
    assert spool.fill()["database"].oldest_at == 0.0
    spool.close()


@pytest.mark.parametrize("damage", ["head", "whole", "text", "middle"])
def test_a_damaged_file_is_set_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "spool"
    spool = Spool(path)
    spool.append([entry(number, size=500) for number in range(200)])
    spool.close()
    was = bytearray(path.read_bytes())
    if damage == "text":
        was = bytearray(b"This is no database at all.\n" * 1000)
    else:
        first, last = {"head": (0, 100), "whole": (0, len(was)), "middle": (4096, len(was))}[damage]
        was[first:last] = random.Random(1).randbytes(last - first)
    path.write_bytes(was)

    again = Spool(path)
    again.append([entry(1000)])

    assert entries_of(again) == [entry(1000)]
    [aside] = [each for each in tmp_path.glob("spool.damaged-*") if each.name[-4:] not in ("-wal", "-shm")]
    assert aside.read_bytes() == was
    assert "spool set aside" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


@pytest.mark.parametrize("column", ["tid", "kind", "job"])
def test_a_text_in_which_a_bit_has_flipped_holds_up_no_other_entry(tmp_path: Path, column: str) -> None:
    kept = [entry(number, **{column: f"{column}-{number:03}"}) for number in range(200)]
    spool = Spool(tmp_path / "spool")
    spool.append(kept)
    spool.close()
    content = bytearray((tmp_path / "spool").read_bytes())
    content[content.index(f"{column}-100".encode())] |= 0x80
    (tmp_path / "spool").write_bytes(content)
    spool = Spool(tmp_path / "spool")

    found = entries_of(spool)

    assert found[:100] + found[101:] == kept[:100] + kept[101:]
    assert getattr(found[100], column) == "\ufffd" + f"{column}-100"[1:]
    spool.close()


def test_what_a_damaged_row_holds_comes_out_as_what_its_columns_hold(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2)])
    spool._connection.execute(
        "UPDATE entry SET uid = 'ü', kind = x'80', tid = 7, at = 'noon', size = 'much', body = 'text' WHERE seq % 2"
    )

    odd, other = sorted(entries_of(spool), key=lambda each: len(each.uid))

    assert odd == Entry("ü".encode(), "database", "\ufffd", "watch", "7", 0.0, b"text")
    assert other in (entry(1), entry(2))
    spool.drop_oldest(1)
    spool.delete_upto("database", 2**62)
    assert spool.fill() == {}
    spool.close()


def test_entries_that_an_index_does_not_know_are_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(number) for number in range(5)])
    without_index(spool, "entry_of_sink", lambda: spool.append([entry(number) for number in range(5, 9)]))
    [*_, (last, _)] = known = spool.read("database", 0, 100)

    spool.delete_upto("database", last)

    assert [each for _, each in known] == [entry(number) for number in range(5)]
    assert spool.fill()["database"].entries == 4
    assert entries_of(spool) == [entry(number) for number in range(5, 9)]
    assert "made anew" in caplog.text
    assert not list(tmp_path.glob("spool.damaged-*"))
    spool.close()


def test_a_reader_who_has_come_to_the_end_too_early_is_told_of_the_rest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1)])
    [(first, _)] = spool.read("database", 0, 1)
    without_index(spool, "entry_of_sink", lambda: spool.append([entry(2)]))

    assert entries_of(spool, after_seq=first) == [entry(2)]
    spool.close()


@pytest.mark.parametrize(
    "wrong", ["entries = 0", "entries = 'x'", "entries = -1", "entries = 7", "size = -1"]
)
def test_counts_that_contradict_the_entries_are_made_anew(tmp_path: Path, wrong: str) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2)])
    spool._connection.execute(f"UPDATE sink SET {wrong}")

    assert entries_of(spool) == [entry(1), entry(2)]
    assert entries_of(spool, after_seq=2**60) == []
    assert spool.fill() == {"database": Fill(2, taken_by(tmp_path, [entry(1), entry(2)]), NOON + 1)}
    spool.close()


def test_an_entry_of_a_sink_that_there_is_not_goes_to_another_that_may_refuse_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([entry(1), entry(2)])
    spool._connection.execute("UPDATE entry SET sink = 513")

    assert entries_of(spool) == [entry(1), entry(2)]
    spool.close()


def test_a_file_that_was_set_aside_is_not_written_to_through_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    first = Spool(path)
    one, other = first.another(), first.another()
    one.append([entry(1)])
    [(old, _)] = other.read("database", 0, 1)
    one.close()
    path.rename(tmp_path / "spool.damaged-1")
    one = first.another()

    other.append([entry(2)])

    [(new, found)] = one.read("database", 0, 9)
    assert found == entry(2)
    assert new > old
    assert other.delete([old]) == 0
    one.close()
    other.close()
    first.close()


def test_the_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE recipes (name TEXT)")
    theirs.close()
    before = path.read_bytes()

    with pytest.raises(ConfigError, match="expected a spool of Cyclone"):
        Spool(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("text", [b"Keep me.\n", b"This is no database at all.\n" * 1000])
def test_a_file_that_never_was_a_spool_is_left_alone(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "precious.txt"
    path.write_bytes(text)

    for _ in range(2):
        with pytest.raises(
            StoreCorrupt, match=f"{path}: found something that is no database, expected a spool"
        ):
            Spool(path)

    assert path.read_bytes() == text
    assert {each.name for each in tmp_path.iterdir()} == {"precious.txt", "precious.txt.lock"}


@pytest.mark.parametrize("sign", ["the reserve", "the head"])
def test_a_damaged_file_was_a_spool_if_either_its_head_or_the_reserve_says_so(
    tmp_path: Path, sign: str
) -> None:
    path = tmp_path / "spool"
    Spool(path).close()
    was = path.read_bytes()
    if sign == "the head":
        tmp_path.joinpath("spool.reserve").unlink()
        path.write_bytes(was[:100] + b"\xff" * (len(was) - 100))
    else:
        path.write_bytes(b"\xff" * len(was))

    Spool(path).close()

    assert list(tmp_path.glob("spool.damaged-*"))


def test_a_spool_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    Spool(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version=77")
    newer.close()

    with pytest.raises(StoreVersionError, match="found a spool of version 77, expected version 1"):
        Spool(path)


@pytest.mark.parametrize("place", ["none/spool", "directory"])
def test_a_place_that_cannot_be_used_is_refused_by_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises(ConfigError, match=f"{place}: cannot be used"):
        Spool(tmp_path / place)


def test_a_file_that_cannot_be_opened_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        # As for a file of root, for anybody else.
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)

    with pytest.raises(ConfigError, match="spool: cannot be used: unable to open"):
        Spool(tmp_path / "spool")


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_its_owner_alone_may_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        spool = Spool(tmp_path / "spool")
        spool.append([entry(1)])
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
        spool.close()
    finally:
        os.umask(old)

    assert {
        name: mode for name, mode in modes.items() if "spool" in name and name[6:] not in ("lock", "reserve")
    } == {
        "spool": 0o600,
        "spool-wal": 0o600,
        "spool-shm": 0o600,
    }
    assert (modes["spool.lock"] | modes["spool.reserve"]) & 0o077 == 0


# Two at the same time.


def test_two_threads_append_and_delete_without_losing_anything(tmp_path: Path) -> None:
    shared = Spool(tmp_path / "spool")
    rounds, size = 40, 50
    taken: list[Entry] = []

    def take() -> None:
        spool, after = shared.another(), 0
        while len(taken) < 2 * rounds * size:
            rows = spool.read("database", after, 70)
            if rows:
                after = rows[-1][0]
                taken.extend(each for _, each in rows)
                spool.delete(seq for seq, _ in rows)
        spool.close()

    def give(first: int) -> None:
        spool = shared.another()
        for number in range(first, first + rounds * size, size):
            spool.append([entry(each) for each in range(number, number + size)])
        spool.close()

    threads = [threading.Thread(target=give, args=(n * rounds * size,)) for n in (0, 1)]
    threads.append(threading.Thread(target=take))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(each.uid for each in taken) == [n.to_bytes(16) for n in range(2 * rounds * size)]
    assert shared.fill() == {}
    shared.close()


def test_a_spool_that_is_in_use_is_refused_by_name_until_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    script = (
        "import subprocess, sys, time; from cyclone.sinks.spool import Spool\n"
        "spool = Spool(sys.argv[1])\n"
        # Programs that it starts do not keep the spool from the next one.
        "print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as holder:
        program = int(holder.stdout.readline())
        with pytest.raises(AlreadyRunning, match=str(path)) as refused:
            Spool(path)
        holder.kill()
    os.kill(program, 0)

    Spool(path).close()

    os.kill(program, signal.SIGKILL)
    assert refused.value.owner.startswith(f"{holder.pid};")


def test_a_connection_that_was_made_beside_it_does_not_give_the_spool_away(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool")) as spool:
        spool.another().close()

        with pytest.raises(AlreadyRunning):
            Spool(tmp_path / "spool")


def test_what_was_appended_survives_the_kill_of_its_process(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from cyclone.messages import Entry; from cyclone.sinks.spool import Spool\n"
        "spool = Spool(sys.argv[1])\n"
        "spool.append([Entry(n.to_bytes(16), 'database', 'k', 'j', 't', 1.0, b'') for n in range(100)])\n"
        "spool._connection.execute('BEGIN IMMEDIATE')\n"
        "spool._connection.execute('DELETE FROM entry')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "spool")], check=False)

    spool = Spool(tmp_path / "spool")

    assert died.returncode == -9
    assert [each.uid for each in entries_of(spool)] == [n.to_bytes(16) for n in range(100)]
    spool.close()


def test_a_spool_that_is_damaged_while_it_is_used_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = Spool(path)
    spool.append([entry(number, size=500) for number in range(200)])
    spool.close()
    spool = Spool(path)
    # After it was opened, and past the pages that opening looks at.
    with path.open("r+b") as pages:
        pages.seek(4096)
        pages.write(random.Random(1).randbytes(path.stat().st_size - 4096))

    spool.append([entry(1000)])

    assert entries_of(spool) == [entry(1000)]
    spool.close()


def test_a_spool_that_is_locked_for_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclone.sinks.spool._BUSY_S", 0.01)
    spool = Spool(tmp_path / "spool")
    other = sqlite3.connect(tmp_path / "spool", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="locked"):
        spool.append([entry(1)])

    other.close()
    assert spool.append([entry(1)]) == 1
    spool.close()


def test_a_disk_over_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclone.store.file.filesystem_kind", lambda _: 0x6969)

    with pytest.raises(ConfigError, match="found a spool on NFS, expected one on a local disk"):
        Spool(tmp_path / "spool")


def test_a_directory_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="found mode 0777: everybody can write to it; run: chmod o-w "):
        Spool(tmp_path / "spool")


def test_a_quota_that_is_used_up_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    refused = sqlite3.OperationalError("disk I/O error")
    refused.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE

    for has_room, expected in ((False, StoreFull), (True, StoreError)):
        monkeypatch.setattr("cyclone.store.file.has_room", lambda _, found=has_room: found)
        explained = spool._explained(refused)
        assert type(explained) is expected
        # What SQLite says of it would send people to look for a broken disk.
        assert ("no room on the disk" in str(explained)) is not has_room
    spool.close()


def test_a_spool_that_is_moved_away_under_every_try_gives_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    def move_away() -> None:
        spool.path.unlink()

    with pytest.raises(StoreError, match="again and again"):
        spool._on_the_file(move_away)
    spool.close()


def test_which_of_some_records_are_here_is_known_whoever_they_are_for(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool")) as spool:
        spool.append([entry(1), entry(2, "pushgateway"), entry(3)])
        spool.delete_upto("pushgateway", 2**62)

        found = spool.holds([entry(number).uid for number in (1, 2, 3, 4)])

    assert found == {entry(1).uid, entry(3).uid}


def test_what_is_kept_is_synced(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool")) as spool:
        # 2 is FULL (sqlite.org/pragma.html#pragma_synchronous).
        assert spool._rows("PRAGMA synchronous") == [(2,)]
        assert spool._rows("PRAGMA journal_mode") == [("wal",)]
