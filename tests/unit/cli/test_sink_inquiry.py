from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from cyclone.cli import sink_inquiry
from cyclone.cli.sink_inquiry import SinkInquiry
from cyclone.core.audit import Findings, Sent
from cyclone.core.trail import BATCH
from cyclone.errors import MasterUnreachable, RuleBroken
from cyclone.messages import AskRecords, Message, RecordsKnown, RecordView, Stored
from cyclone.model.audit import Audit, JobSum, RecordSum
from cyclone.record import uid
from cyclone.settings import SinkAddress

HERE, THERE = SinkAddress("database", "here", 5777), SinkAddress("database", "there", 5777)
JOB = JobSum(1, "day", "open")


class FakeSink:
    """Has the records of these keys, and what is added later."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = set(keys)
        self.asked: list[int] = []
        self.away = False
        self.closed = False

    def ask(self, message: Message, timeout_s: float) -> Message:
        assert isinstance(message, AskRecords)
        if self.away:
            raise MasterUnreachable("no sink can be reached")
        if message.uids:
            self.asked.append(len(message.uids))
        return RecordsKnown(1, [RecordView(int(key in self.keys)) for key in message.uids])

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(sink_inquiry.time, "sleep", sleep)
    monkeypatch.setattr(sink_inquiry.time, "monotonic", lambda: now)


def key(place: int, tid: str = "t") -> bytes:
    return uid(7, tid, place)


def inquired(
    sinks: dict[SinkAddress, FakeSink],
    count: int,
    spools: Callable[[], Mapping[str, int] | None] = dict,
    runs: tuple[tuple[str, int], ...] = (),
) -> tuple[RecordSum, Findings]:
    """What became of so many records of one task for the sink `database`."""
    findings = Findings()
    inquiry = SinkInquiry({"database": list(sinks)}, sinks.__getitem__, spools, 10.0)  # type: ignore[arg-type]
    inquiry.begin(findings)
    inquiry.recorded(Sent(JOB, 7, 5, "t", runs or (("database", count),)))
    audit = Audit("store", 1, records=[RecordSum("database", sent=count)])
    inquiry.settle(audit)
    inquiry.close()
    assert all(sink.closed for sink in sinks.values() if sink.asked)
    [sums] = audit.records
    return sums, findings


def test_all_records_are_asked_for_in_batches() -> None:
    count = 2 * BATCH + 5
    sink = FakeSink(*map(key, range(count)))

    sums, findings = inquired({HERE: sink}, count)

    assert sink.asked == [BATCH, BATCH, 5]
    assert (sums.sent, sums.asked, sums.stored, findings.violations) == (count, count, count, {})


def test_records_for_other_sinks_in_between_have_numbers_as_well() -> None:
    sink = FakeSink(key(0), key(3))

    findings = Findings()
    inquiry = SinkInquiry({"database": [HERE]}, {HERE: sink}.__getitem__, dict, 10.0)  # type: ignore[arg-type]
    inquiry.begin(findings)
    inquiry.recorded(Sent(JOB, 7, 5, "t", (("database", 1), ("gateway", 2), ("database", 1))))
    audit = Audit("store", 1, records=[RecordSum("database", sent=2), RecordSum("gateway", sent=2)])
    inquiry.settle(audit)

    assert [sums.stored for sums in audit.records] == [2, 0]
    assert findings.violations == {}
    assert "no sink 'gateway' in [sinks]" in audit.records[1].trouble


def test_what_comes_while_it_is_asked_for_again_is_not_missing() -> None:
    sink = FakeSink(key(0))
    looks = 0

    def spools() -> Mapping[str, int]:
        nonlocal looks
        looks += 1
        if looks == 3:
            sink.keys.add(key(1))
        return {}

    sums, findings = inquired({HERE: sink}, 2, spools)

    assert (sums.stored, sums.missing, findings.violations) == (2, 0, {})
    assert sink.asked == [2, 1, 1]


def test_after_a_while_what_waits_at_controllers_is_underway_and_the_rest_missing() -> None:
    sums, findings = inquired({HERE: FakeSink(key(0))}, 3, lambda: {"database": 1, "other": 9})

    assert (sums.stored, sums.underway, sums.missing, findings.violations) == (1, 1, 1, {"record": 1})


def test_without_a_master_it_is_not_waited_for_anything() -> None:
    sink = FakeSink()

    sums, findings = inquired({HERE: sink}, 2, lambda: None)

    assert sink.asked == [2]
    assert (sums.missing, findings.violations) == (2, {"record": 2})
    assert "no master tells" in findings.first[0].found


def test_a_record_may_be_at_any_sink_of_its_name() -> None:
    sums, findings = inquired({HERE: FakeSink(key(0)), THERE: FakeSink(key(1))}, 2)

    assert (sums.stored, findings.violations) == (2, {})


def test_a_sink_that_is_away_is_tried_once_and_nothing_is_called_missing() -> None:
    sink = FakeSink()
    sink.away = True

    sums, findings = inquired({HERE: sink}, 3 * BATCH)

    assert (sums.untold, sums.trouble, findings.violations) == (3 * BATCH, "no sink can be reached", {})


def test_an_answer_that_is_none_is_no_proof() -> None:
    class Odd(FakeSink):
        def ask(self, message: Message, timeout_s: float) -> Message:
            return Stored(1)

    with pytest.raises(RuleBroken, match="database answered with Stored"):
        inquired({HERE: Odd()}, 1)
