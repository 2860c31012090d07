"""Claims about patience with those who were let in and talk nonsense."""

from __future__ import annotations

from cyclone.wire.strikes import OUT_S, STRIKES_MOST, WITHIN_S, Offender, Strikes

NODE = Offender("controller:node-1:SHA256:x", "10.0.0.1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def struck(count: int = STRIKES_MOST) -> tuple[Strikes, Clock]:
    clock = Clock()
    strikes = Strikes(clock)
    for _ in range(count):
        strikes.add(NODE)
    return strikes, clock


def test_the_last_straw_is_told_and_not_those_before():
    strikes = Strikes(Clock())

    told = [strikes.add(NODE) for _ in range(STRIKES_MOST)]

    assert told == [False] * (STRIKES_MOST - 1) + [True]


def test_one_less_is_forgiven():
    strikes, _ = struck(STRIKES_MOST - 1)

    assert not strikes.is_out(NODE)
    assert not strikes.anybody_out


def test_somebody_is_out_for_a_while_and_begins_anew_after_it():
    strikes, clock = struck()
    out = []
    for clock.now in (0.0, OUT_S - 0.1, OUT_S):
        out.append(strikes.is_out(NODE))

    assert out == [True, True, False]
    assert not strikes.add(NODE)
    assert not strikes.anybody_out


def test_strikes_of_long_ago_do_not_count():
    strikes, clock = struck(STRIKES_MOST - 1)

    clock.now = WITHIN_S

    assert not strikes.add(NODE)


def test_the_same_key_at_another_host_has_done_nothing():
    strikes, _ = struck()

    assert not strikes.is_out(NODE._replace(address="10.0.0.2"))


def test_memory_of_offenders_is_bounded():
    strikes = Strikes(Clock())

    for number in range(3000):
        strikes.add(NODE._replace(address=str(number)))
    for number in range(1100):
        for _ in range(STRIKES_MOST):
            strikes.add(NODE._replace(address=f"other {number}"))

    assert len(strikes._counts) <= 1000
    assert len(strikes._out_until) == 1000
    assert strikes.is_out(NODE._replace(address="other 1099"))
