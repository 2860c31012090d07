"""Records wait on the disk of a controller until their sink has said that it has them."""

import time
from contextlib import closing

import pytest

from cyclone.daemons.delivery import Delivery
from cyclone.errors import StoreFull
from cyclone.ini import Ini
from cyclone.loop import Loop
from cyclone.messages import Deliver, Entry, Refused, Stored
from cyclone.settings import ControllerSettings
from cyclone.sinks.spool import Spool
from cyclone.wire import keys
from cyclone.wire.door import SINK, Door

DEADLINE_S = 30.0


def entry(number, sink="database", size=4):
    return Entry(number.to_bytes(16), sink, "measured", "job", f"tid-{number}", 1e9 + number, bytes(size))


class Place:
    """A controller with a sink beside it."""

    def __init__(self, directory):
        self.directory = directory
        self.key_dir = directory / "keys"
        keys.ensure(self.key_dir)
        (directory / "state").mkdir()
        self.loop = Loop()
        self.door = None
        self.port = 0
        self.heard = []
        self.delivery = None
        self.open_door()

    def open_door(self):
        own, ring = keys.load_pair(self.key_dir, "sink"), keys.KeyRing(self.key_dir)
        self.door = Door(own, ring, SINK)
        self.port = self.door.bind(f"tcp://127.0.0.1:{self.port}")

    def close_door(self):
        self.door.close()
        self.door = None

    def open_delivery(self, **spool):
        ini = {
            "control": {"state_dir": str(self.directory / "state")},
            "sinks": {"database": f"127.0.0.1:{self.port}"},
            "spool": {key: str(value) for key, value in spool.items()},
            "security": {"key_dir": str(self.key_dir)},
        }
        settings = ControllerSettings.of(Ini(ini))
        self.delivery = Delivery(settings, "node", "life-1", self.loop)
        self.delivery.start()
        return self.delivery

    def turn(self, answer=True):
        """Both sides once; the sink says Stored for all that it hears."""
        self.delivery.tick()
        self.loop.wait(0.01)
        for heard in self.door.receive() if self.door else ():
            self.heard.append(heard.message)
            if callable(answer):
                self.door.say(heard.peer, answer(heard.message))
            elif answer:
                self.door.say(heard.peer, Stored(heard.message.serial))

    def until(self, question, answer=True):
        deadline = time.monotonic() + DEADLINE_S
        while not question():
            assert time.monotonic() < deadline, "it did not come about"
            self.turn(answer)

    @property
    def delivered(self):
        return [entry for message in self.heard for entry in message.entries]

    @property
    def view(self):
        [view] = self.delivery.views()
        return view


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    if place.delivery is not None:
        place.delivery.close()
    if place.door is not None:
        place.door.close()
    place.loop.close()


def test_what_is_kept_arrives_and_is_forgotten(place):
    delivery = place.open_delivery()
    delivery.keep([entry(number) for number in range(5)])

    place.until(lambda: place.delivered and place.view.entries == 0)

    assert place.delivered == [entry(number) for number in range(5)]
    assert place.view.trouble == ""


def test_what_the_sink_has_not_confirmed_is_sent_again_over_a_new_connection(place):
    delivery = place.open_delivery()
    delivery.keep([entry(1)])
    place.until(lambda: place.delivered, answer=False)
    place.close_door()
    place.heard.clear()
    place.open_door()

    place.until(lambda: place.delivered and place.view.entries == 0)

    assert entry(1) in place.delivered


def test_a_sink_that_is_away_is_named_as_the_trouble(place):
    place.close_door()
    delivery = place.open_delivery()
    delivery.keep([entry(1)])

    place.until(lambda: place.view.entries == 1)

    assert f"nobody answers at tcp://127.0.0.1:{place.port}" in place.view.trouble
    assert place.view.oldest_s > 0


def test_what_a_sink_says_of_itself_is_shown(place):
    delivery = place.open_delivery()
    delivery.keep([entry(1)])

    place.until(
        lambda: place.view.sink_entries == 12,
        answer=lambda message: Stored(message.serial, 12, "no connection to the server"),
    )

    assert place.view.sink_trouble == "no connection to the server"


def test_a_sink_that_refuses_gets_the_records_later(place):
    delivery = place.open_delivery()
    delivery.keep([entry(1)])
    place.until(
        lambda: "no room" in place.view.trouble,
        answer=lambda message: Refused("the sink has no room", message.serial),
    )
    assert place.view.entries == 1

    place.until(lambda: place.view.entries == 0)


def test_what_was_kept_is_delivered_by_the_next_life(place):
    place.close_door()
    place.open_delivery().keep([entry(1)])
    place.delivery.close()
    place.open_door()
    place.open_delivery()

    place.until(lambda: place.delivered == [entry(1)])


def test_a_full_spool_has_no_room_until_some_of_it_was_delivered(place):
    place.close_door()
    delivery = place.open_delivery(max_mb=1)
    for start in range(0, 12_000, 1000):
        delivery.keep([entry(number) for number in range(start, start + 1000)])
    place.until(lambda: not delivery.has_room)
    place.open_door()

    place.until(lambda: delivery.has_room)

    assert place.delivered


def test_the_oldest_are_dropped_where_that_was_asked_for(place):
    place.close_door()
    delivery = place.open_delivery(max_mb=1, when_full="drop_oldest")
    for start in range(0, 12_000, 1000):
        delivery.keep([entry(number) for number in range(start, start + 1000)])
        delivery.tick()

    assert delivery.has_room
    with closing(delivery._spool.another()) as spool:
        left = [each for _, each in spool.read("database", 0, 20_000)]
    assert left[-1] == entry(11_999)
    assert 0 < len(left) < 12_000
    assert delivery.dropped == 12_000 - len(left)


def test_a_spool_that_is_just_full_drops_what_is_oldest(place):
    delivery = place.open_delivery(when_full="drop_oldest")
    delivery.keep([entry(number) for number in range(1000)])
    delivery._max_bytes = sum(fill.size for fill in delivery._spool.fill().values())

    delivery.tick()

    assert delivery.has_room


def test_a_spool_that_could_not_drop_anything_tries_again(place, monkeypatch):
    place.close_door()
    delivery = place.open_delivery(when_full="drop_oldest")
    delivery.keep([entry(number, size=3000) for number in range(1000)])
    delivery._max_bytes = sum(fill.size for fill in delivery._spool.fill().values())
    with monkeypatch.context() as patch:
        patch.setattr(delivery._spool, "drop_oldest", no_room)
        delivery.tick()
        assert not delivery.has_room

    delivery.tick()

    assert delivery.has_room
    assert 0 < delivery.dropped < 20


def no_room(*_):
    raise StoreFull("spool: the disk is full")


def test_what_cannot_be_forgotten_is_delivered_again_and_ends_nobody(place, monkeypatch):
    delivery = place.open_delivery()
    delivery.keep([entry(0)])

    monkeypatch.setattr(delivery._spool, "delete_upto", no_room)
    place.until(lambda: "cannot be forgotten" in place.view.trouble)
    monkeypatch.undo()
    place.until(lambda: place.view.entries == 0)

    assert [each.tid for each in place.delivered] == ["tid-0"] * 2


def test_a_spool_that_was_set_aside_leaves_nothing_to_deliver(place):
    delivery = place.open_delivery()
    delivery.keep([entry(0)])
    delivery.tick()
    with closing(delivery._spool.another()) as spool:
        spool.delete([seq for seq, _ in spool.read("database", 0, 10)])

    place.until(lambda: place.heard and place.view.entries == 0)

    assert [len(message.entries) for message in place.heard] == [0]


def test_a_bit_that_has_flipped_holds_up_no_other_record(place):
    with closing(Spool(place.directory / "state" / "records.db")) as spool:
        spool.append([entry(number) for number in range(500)])
    content = bytearray(spool.path.read_bytes())
    content[content.index(b"tid-250")] |= 0x80
    spool.path.write_bytes(content)
    place.open_delivery()

    place.until(lambda: place.delivered and place.view.entries == 0)

    assert [each.tid for each in place.delivered][249:252] == ["tid-249", "\ufffdid-250", "tid-251"]
    assert len(place.delivered) == 500


def test_records_that_are_counted_and_not_there_are_not_waited_for(place):
    delivery = place.open_delivery()
    delivery.keep([entry(0)])
    delivery._spool._connection.execute("UPDATE sink SET entries = 9")

    place.until(lambda: place.delivered and place.view.entries == 0)

    assert place.delivered == [entry(0)]


def test_records_for_a_sink_that_is_not_named_any_more_are_shown(place):
    with closing(Spool(place.directory / "state" / "records.db")) as spool:
        spool.append([entry(1, "former")])
    place.open_delivery()

    place.until(lambda: len(place.delivery.views()) == 2)

    assert [(view.sink, view.entries, bool(view.trouble)) for view in place.delivery.views()][1] == (
        "former",
        1,
        True,
    )


def test_a_quiet_sink_is_asked_how_it_does(place):
    place.open_delivery()

    place.until(lambda: place.heard)

    assert place.heard == [Deliver(1, [])]


def test_finishing_delivers_what_is_left(place):
    delivery = place.open_delivery()
    place.until(lambda: place.view.trouble == "")
    delivery.keep([entry(number) for number in range(3)])
    delivery.tick()
    original = place.loop.wait

    def wait_and_answer(timeout_s):
        original(timeout_s)
        for heard in place.door.receive():
            place.heard.append(heard.message)
            place.door.say(heard.peer, Stored(heard.message.serial))

    place.loop.wait = wait_and_answer
    delivery.finish()

    assert place.view.entries == 0
    assert [entry.tid for entry in place.delivered] == ["tid-0", "tid-1", "tid-2"]
