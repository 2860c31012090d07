from __future__ import annotations

from dataclasses import replace

import pytest

from cyclone.lustre.inventory import Inventory, KnownOst, Survey, Target, select
from cyclone.lustre.ost_task import OstState


def heard(*surveys: Survey) -> Inventory:
    inventory = Inventory()
    for number, survey in enumerate(surveys):
        inventory.hear(survey, 100.0 + number)
    return inventory


def test_all_that_a_survey_tells_of_are_expected() -> None:
    inventory = heard(Survey({2: "", 0: ""}, frozenset({5})))

    assert [target.ost for target in inventory.targets(())] == [0, 2, 5]


def test_an_ost_that_does_not_answer_is_down_with_its_reason() -> None:
    inventory = heard(Survey({0: "", 1: "Cannot send after transport endpoint shutdown (108)"}))

    assert inventory.targets(())[1] == Target(
        1, "", OstState.DOWN, "Cannot send after transport endpoint shutdown (108)"
    )


def test_an_ost_that_was_switched_off_is_inactive() -> None:
    assert heard(Survey({1: "deactivated"})).targets(())[0].state is OstState.INACTIVE


@pytest.mark.parametrize(
    "survey", [Survey(is_whole=False), Survey({0: "", 1: ""}), Survey({0: "", 1: "no answer"})]
)
def test_what_lctl_knows_to_be_switched_off_is_inactive_whatever_lfs_check_tells(survey: Survey) -> None:
    inventory = heard(Survey({0: ""}), replace(survey, deactivated=frozenset({1})))

    assert [target.state for target in inventory.targets(())] == [None, OstState.INACTIVE]


def test_a_retired_ost_that_is_switched_off_does_not_come_back() -> None:
    survey = Survey({0: "", 1: ""}, deactivated=frozenset({1}))
    inventory = heard(survey)
    inventory.retire([1])

    inventory.hear(survey, 300.0)

    assert inventory.available() == [0]


def test_an_ost_that_has_vanished_from_every_list_is_down() -> None:
    inventory = heard(Survey({0: "", 1: ""}), Survey({0: ""}))

    (_, missing) = inventory.targets(())
    assert missing.state is OstState.DOWN
    assert "last seen 1970-01-01 00:01:40 UTC" in missing.reason


def test_an_ost_that_one_list_lacks_and_the_other_has_is_tried() -> None:
    inventory = heard(Survey({0: "", 1: ""}), Survey({0: ""}, frozenset({0, 1})))

    assert inventory.targets(())[1].state is None


def test_when_nothing_could_be_learned_everything_known_is_tried() -> None:
    inventory = heard(Survey({0: "", 1: "no answer"}), Survey(is_whole=False))

    assert [(target.ost, target.state) for target in inventory.targets(())] == [(0, None), (1, None)]


def test_one_that_was_retired_and_is_active_again_is_told_once() -> None:
    inventory = heard(Survey({0: "", 1: "no answer"}))
    inventory.retire([1])
    back = Survey({0: "", 1: ""})

    assert [inventory.hear(back, 200.0), inventory.hear(back, 260.0)] == [[1], []]


def test_what_was_known_outlives_a_process() -> None:
    inventory = Inventory(heard(Survey({0: "", 1: ""}, servers={1: "10.0.0.1"})).known())
    inventory.hear(Survey({0: ""}), 200.0)

    assert [(target.ost, target.server, target.state) for target in inventory.targets(())] == [
        (0, "", None),
        (1, "10.0.0.1", OstState.DOWN),
    ]


def test_only_selected_osts_are_looked_at() -> None:
    inventory = heard(Survey({0: "", 1: "", 2: ""}))

    assert [target.ost for target in inventory.targets((2, 0))] == [2, 0]


def test_a_selected_ost_that_does_not_exist_is_told_of_and_stops_nothing() -> None:
    inventory = heard(Survey({0: ""}))

    assert [target.state for target in inventory.targets((0, 9))] == [None, OstState.UNKNOWN]


def test_a_selected_ost_is_tried_when_nobody_could_tell_whether_it_exists() -> None:
    assert Inventory().targets((9,)) == [Target(9)]


def test_a_retired_ost_is_expected_no_more() -> None:
    inventory = heard(Survey({0: "", 1: "deactivated"}))

    inventory.retire([1])

    assert inventory.available() == [0]
    inventory.hear(Survey({0: "", 1: "deactivated"}), 300.0)
    assert inventory.available() == [0]


def test_a_retired_ost_that_comes_back_is_expected_again() -> None:
    inventory = heard(Survey({0: "", 1: "deactivated"}))
    inventory.retire([1])

    inventory.hear(Survey({0: "", 1: ""}), 300.0)

    assert inventory.available() == [0, 1]


@pytest.mark.parametrize("wrong", [[0], [9], [1, 0], [1, 9]])
def test_an_active_or_unknown_ost_cannot_be_retired_and_then_none_is(wrong: list[int]) -> None:
    inventory = heard(Survey({0: "", 1: "no answer"}))

    with pytest.raises(ValueError, match="OST"):
        inventory.retire(wrong)

    assert inventory.available() == [0, 1]


def test_the_server_of_an_ost_is_remembered_while_nobody_can_tell() -> None:
    inventory = heard(Survey({0: ""}, servers={0: "10.0.0.1"}), Survey({0: ""}))

    assert inventory.known() == [KnownOst(0, 101.0, "10.0.0.1")]


# The selection as Cyclone 2.x had it.


def test_without_a_selection_all_are_taken() -> None:
    assert select([3, 1, 2], ()) == [1, 2, 3]


def test_a_selection_is_taken_as_it_is() -> None:
    assert select([0, 1, 2, 3], (3, 1)) == [1, 3]


@pytest.mark.parametrize(
    ("available", "selection", "reason"),
    [
        ([], (), "no OST is known"),
        ([], (1,), "no OST is known"),
        ([0, 1], (0, 1, 2), "3 OSTs are selected, 2 are known"),
        ([0, 1], (5,), "no such OST: 5"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(
    available: list[int], selection: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        select(available, selection)


def test_what_is_retired_is_not_expected_though_it_is_selected() -> None:
    inventory = Inventory()
    inventory.hear(Survey({0: "", 1: "no answer"}), 100.0)

    inventory.retire([1])

    assert [target.ost for target in inventory.targets([0, 1, 9])] == [0, 9]
    assert [inventory.is_expected(index, [0, 1, 9]) for index in (0, 1, 2, 9)] == [True, False, False, True]


def test_it_knows_what_is_not_active_whether_that_is_expected_or_not() -> None:
    inventory = Inventory()
    inventory.hear(Survey({0: "", 1: "no answer", 2: "no answer"}, servers={0: "a"}), 100.0)
    inventory.retire([1])

    assert inventory.not_active() == [1, 2]
    assert (inventory.server_of(0), inventory.server_of(1), inventory.server_of(9)) == ("a", "", "")
