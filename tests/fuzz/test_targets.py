"""Each target for a moment: everything in its corpus, what is almost that, and what hypothesis makes up.

`fuzz.py` does the same for as long as it is told to, led by what the code does with the bytes.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from fuzz import samples
from fuzz.mutation import mutated_bytes, mutated_value, packed
from fuzz.targets import TARGETS, Target, corpus_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyclone import messages
from cyclone.messages import Message

#: Inputs for each target: some seconds for all of them.
MUTATED = 2000
MADE_UP = 200

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)


@pytest.mark.parametrize(("target", "file"), corpus_files(), ids=lambda part: getattr(part, "name", None))
def test_nothing_in_a_corpus_gets_past_its_border(target: Target, file: object) -> None:
    target.try_one(file.read_bytes())  # type: ignore[attr-defined]


@every_target
def test_a_corpus_holds_something_that_is_understood(target: Target) -> None:
    assert any(target.try_one(seed) for seed in target.seeds())


@every_target
def test_what_is_almost_right_gets_past_no_border(target: Target) -> None:
    drawn, seeds = random.Random(target.name), target.seeds()

    for _ in range(MUTATED):
        target.try_one(almost(drawn, drawn.choice(seeds)))


@every_target
@settings(max_examples=MADE_UP, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_made_up_gets_past_no_border(target: Target, data: st.DataObject) -> None:
    seeds = target.seeds()
    pieces = st.one_of(st.binary(max_size=200), st.sampled_from(seeds), st.sampled_from(seeds).map(halved))

    target.try_one(b"".join(data.draw(st.lists(pieces, max_size=4))))


def test_there_is_a_sample_of_every_message_that_travels() -> None:
    kinds = {
        kind.__name__
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    groups = (samples.FROM_CONTROLLER, samples.FROM_CLIENT, samples.FROM_SERVER, samples.TO_SINK)

    there = {type(message).__name__ for group in groups for message, _ in group}

    within_a_node = {"Hire", "Kill", "Guard", "Finished", "Reconnect"}
    assert there == kinds - within_a_node


def almost(drawn: random.Random, seed: bytes) -> bytes:
    """Other bytes, or where it is msgpack, often other values in it."""
    try:
        tree = msgspec.msgpack.decode(seed)
    except ValueError:
        tree = None
    if isinstance(tree, list | dict) and drawn.random() < 0.7:
        return packed(mutated_value(drawn, tree, drawn.choice((1, 1, 2, 4))))
    return mutated_bytes(drawn, seed)


def halved(data: bytes) -> bytes:
    return data[len(data) // 2 :]
