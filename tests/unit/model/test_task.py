from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from cyclone.model.lifecycle import Event, Outcome
from cyclone.model.task import Cause, End, Policy, Retry, cause, first_token, token_text

# Tokens.


def test_tokens_of_a_later_epoch_are_larger() -> None:
    assert first_token(2) > first_token(1) + 2**38 - 1


def test_a_token_is_told_as_epoch_and_sequence() -> None:
    assert token_text(first_token(3) + 17) == "3.17"


# What an attempt is billed to.


@pytest.mark.parametrize(
    ("end", "billed_to"),
    [
        (End(1, outcome=Outcome.RAISED), Cause.ERROR),
        (End(1, outcome=Outcome.EXITED, code=3), Cause.ERROR),
        (End(1, outcome=Outcome.SIGNALLED, code=9), Cause.ERROR),
        (End(1, outcome=Outcome.SIGNALLED, code=9, died=True), Cause.CRASH),
        (End(1, outcome=Outcome.EXITED, code=1, died=True), Cause.CRASH),
        (End(1, outcome=Outcome.TIMED_OUT), Cause.TIMEOUT),
        (End(1, outcome=Outcome.EVICTED), Cause.EVICTION),
        (End(1, outcome=Outcome.LOST), Cause.LOSS),
        (End(1, outcome=Outcome.CANCELLED), Cause.NOBODY),
    ],
)
def test_each_outcome_is_billed_to_its_cause(end: End, billed_to: Cause) -> None:
    assert cause(end) is billed_to


def test_the_loss_of_what_never_started_is_billed_to_nobody() -> None:
    assert cause(End(1, outcome=Outcome.LOST), started=False) is Cause.NOBODY


# What follows an attempt that did not succeed.


@pytest.mark.parametrize(
    ("billed_to", "retry", "within", "beyond"),
    [
        (Cause.ERROR, Retry(errors=2), Event.RESTED, Event.FAILED),
        (Cause.TIMEOUT, Retry(timeouts=2), Event.RESTED, Event.FAILED),
        (Cause.CRASH, Retry(crashes=2), Event.RETURNED, Event.QUARANTINED),
        (Cause.LOSS, Retry(losses=2), Event.RETURNED, Event.QUARANTINED),
        (Cause.EVICTION, Retry(evictions=2), Event.RETURNED, Event.FAILED),
    ],
)
def test_each_cause_has_its_own_budget(billed_to: Cause, retry: Retry, within: Event, beyond: Event) -> None:
    assert [retry.verdict(billed_to, billed) for billed in (1, 2, 3)] == [within, within, beyond]


def test_what_is_billed_to_nobody_is_never_given_up() -> None:
    assert Retry(errors=0, losses=0).verdict(Cause.NOBODY, 10_000) is Event.RETURNED


def test_evictions_are_without_bound_by_default() -> None:
    assert Retry().verdict(Cause.EVICTION, 10_000) is Event.RETURNED


def test_an_error_is_not_retried_by_default() -> None:
    assert Retry().verdict(Cause.ERROR, 1) is Event.FAILED


# Rests.


def test_rests_grow_by_the_factor() -> None:
    retry = Retry(delay_s=1.0, backoff=3.0)

    assert [retry.rest_s(billed, 0) for billed in (1, 2, 3)] == [1.0, 3.0, 9.0]


def test_rests_have_a_bound() -> None:
    assert Retry(delay_s=1.0, backoff=2.0, delay_max_s=5.0).rest_s(10, 0) == 5.0


def test_a_rest_after_very_many_failures_is_still_a_number() -> None:
    assert Retry(backoff=1000.0).rest_s(10_000, 0) == 300.0


def test_those_that_failed_together_come_back_apart() -> None:
    retry = Retry(delay_s=100.0)

    rests = sorted(retry.rest_s(1, first_token(3) + number) for number in range(100))

    assert 100 <= rests[0] < rests[-1] < 125
    assert max(after - before for before, after in pairwise(rests)) < 1


# Bounds on what comes from outside.


@pytest.mark.parametrize(
    "policy",
    [
        Policy(timeout_s=-1.0),
        Policy(expires_s=float("nan")),
        Policy(priority=2**40),
        Policy(retry=Retry(errors=-1)),
        Policy(retry=Retry(backoff=0.5)),
        Policy(resources=(("cpus", -1),)),
    ],
)
def test_a_policy_out_of_bounds_does_not_decode(policy: Policy) -> None:
    encoded = msgspec.msgpack.encode(policy)

    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=Policy)


def test_a_policy_is_the_same_on_the_other_side() -> None:
    policy = Policy("kind", 3, (("gpu", 1),), 1.5, Retry(errors=2), 9.0, True)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=Policy) == policy


def test_equal_policies_are_one_key() -> None:
    assert len({Policy("a"), Policy("a"), Policy("b")}) == 2
