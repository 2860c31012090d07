from __future__ import annotations

import inspect
import typing
from enum import Enum

import msgspec
import pytest

from cyclone import messages
from cyclone.messages import Agreed, AnyMessage, FromController, Message, Place, Report, Submit
from cyclone.model.task import Policy

KINDS = sorted(
    (
        kind
        for _, kind in inspect.getmembers(messages, inspect.isclass)
        if issubclass(kind, Message) and kind is not Message
    ),
    key=lambda kind: kind.__name__,
)
#: These go from a controller to its own processes and never travel between nodes.
WITHIN_A_NODE = {"Hire", "Kill", "Guard", "Finished", "Reconnect"}


def _example(kind: type) -> object:
    """Some value of a type: the smallest that decodes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _example(arguments[0])
    if origin in (list, tuple, dict):
        return origin()
    if arguments:
        return None if type(None) in arguments else _example(arguments[0])
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        needed = len(kind.__struct_fields__) - len(kind.__struct_defaults__)
        return kind(**{name: _example(hints[name]) for name in kind.__struct_fields__[:needed]})
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return next(iter(kind))
    return kind()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_is_the_same_on_the_other_side(kind: type[Message]) -> None:
    said = _example(kind)

    heard = msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=kind)

    assert heard == said


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_does_not_change(kind: type[Message]) -> None:
    said = _example(kind)

    for field in kind.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(said, field, None)


def test_every_message_between_daemons_is_in_the_alphabet() -> None:
    alphabet = {kind.__name__ for kind in typing.get_args(AnyMessage)}

    assert {kind.__name__ for kind in KINDS} - alphabet == WITHIN_A_NODE


def test_a_message_is_known_by_its_name() -> None:
    encoded = msgspec.msgpack.encode(Agreed(1.0, [], 3.0, 10.0))

    assert msgspec.msgpack.decode(encoded)[0] == "Agreed"
    assert isinstance(msgspec.msgpack.decode(encoded, type=AnyMessage), Agreed)


def test_a_controller_cannot_say_what_is_for_the_master_to_say() -> None:
    encoded = msgspec.msgpack.encode(Place(0.0, [], []))

    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=FromController)


def test_an_older_peer_may_leave_out_what_has_a_default() -> None:
    encoded = msgspec.msgpack.encode(["Report", 1.0, [], [5]])

    assert msgspec.msgpack.decode(encoded, type=FromController) == Report(1.0, (), [5])


def test_a_newer_peer_may_say_more() -> None:
    encoded = msgspec.msgpack.encode(["Drop", [1], False, "what this version does not know"])

    assert msgspec.msgpack.decode(encoded, type=AnyMessage) == messages.Drop([1])


@pytest.mark.parametrize(
    "wrong",
    [
        ["Report", "now", [], []],
        ["Report", 1.0, [["cpus", -1]], []],
        ["Report", 1.0, [], [-1]],
        ["Report", 1.0, [], ["one"]],
        ["Submit", 1, 1, [], [["t", "first"]]],
        ["Nonsense"],
        [],
        {"type": "Report"},
        7,
    ],
)
def test_what_is_no_message_does_not_decode(wrong: object) -> None:
    encoded = msgspec.msgpack.encode(wrong)

    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=AnyMessage)


def test_a_policy_travels_once_for_all_tasks_that_share_it() -> None:
    policy = Policy("kind")
    tasks = [messages.Submission(str(number), 0) for number in range(3)]

    said = Submit(1, 1, [policy], tasks)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Submit) == said


@pytest.mark.parametrize(
    "message",
    [
        Submit(1, 1, [Policy(resources=(("cpus", 0),))], []),
        Submit(1, 1, [Policy(resources=(("x" * 65, 1),))], []),
        Submit(1, 1, [Policy(resources=tuple((f"r{number:03}", 1) for number in range(101)))], []),
        Submit(1, 1, [Policy("k" * 1025)], []),
        Submit(1, 1, [Policy()], [messages.Submission("", 0)]),
        Submit(1, 1, [Policy()], [messages.Submission("t" * 4097, 0)]),
        messages.Open("j" * 1025),
        messages.Report(1.0, (("workers", -1),), []),
        messages.Report(1.0, (), [], pid=-1),
        messages.Report(1.0, (), [], spools=[messages.SpoolView("s", 1, 1, float("nan"))]),
        messages.Report(1.0, (), [], spools=[messages.SpoolView("s", -1, 1, 1.0)]),
    ],
    ids=lambda message: msgspec.json.encode(message).decode()[:60],
)
def test_what_nobody_could_count_with_is_no_message(message: messages.Message) -> None:
    encoded = msgspec.msgpack.encode(message)

    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=AnyMessage)
