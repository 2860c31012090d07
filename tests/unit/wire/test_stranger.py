"""A peer that says what it likes: it gets to know whether it is let in, and what it is answered."""

from __future__ import annotations

from threading import Event, Thread

from cyclone.messages import Refused, Report
from cyclone.wire.keys import Role, load_pair, new_pair
from cyclone.wire.stranger import Stranger, of_version


class Served:
    """A door that is looked after while the stranger, who blocks, knocks."""

    def __init__(self, network) -> None:  # type: ignore[no-untyped-def]
        self.network, self.over, self.heard = network, Event(), []
        self.thread = Thread(target=self.serve)

    def serve(self) -> None:
        while not self.over.is_set():
            self.heard += self.network.poll()

    def __enter__(self):  # type: ignore[no-untyped-def]
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def test_a_key_that_is_on_no_list_is_not_let_in(network) -> None:  # type: ignore[no-untyped-def]
    with (
        Served(network),
        Stranger(network.address, new_pair("stranger", Role.CONTROLLER), network.master) as stranger,
    ):
        assert stranger.knock(5.0) is False


def test_another_version_is_refused_by_name(network) -> None:  # type: ignore[no-untyped-def]
    own = load_pair(network.key_dir, "controller")
    with Served(network) as served, Stranger(network.address, own, network.master) as stranger:
        assert stranger.knock(5.0) is True
        stranger.say(of_version(0, Report(0.0, (), []), "a", "b"))
        [answer] = stranger.hear(5.0)

    assert isinstance(answer, Refused)
    assert "version 0 was spoken, version 1 is understood" in answer.reason
    assert served.heard == []


def test_nonsense_is_dropped(network) -> None:  # type: ignore[no-untyped-def]
    own = load_pair(network.key_dir, "controller")
    with Served(network) as served, Stranger(network.address, own, network.master) as stranger:
        assert stranger.knock(5.0) is True
        assert stranger.say(b"", b"nonsense")
        assert stranger.hear(0.2) == []

    assert served.heard == []
    assert network.door.dropped["undecodable"] == 1
