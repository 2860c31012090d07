from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.errors import TaskFileError
from cyclone.task_file import TaskFile

MODULE = """
from __future__ import annotations
from pathlib import Path
from typing import TYPE_CHECKING, Optional
from cyclone import BaseTask
if TYPE_CHECKING:
    from nowhere import Unseen

class Typed(BaseTask):
    def __init__(self, count: int, share: float, sync: bool, name: str, place: Path,
                 limit: int | None, plain, delay: Optional[float] = None):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})
    def execute(self): ...

class Small(BaseTask):
    def __init__(self, size: int, label: str = "x", depth: int = 2):
        self.size, self.label, self.depth = size, label, depth
    def execute(self): ...

class Open(BaseTask):
    def __init__(self, **properties):
        self.properties = properties
    def execute(self): ...

class Puzzling(BaseTask):
    def __init__(self, thing: Unseen, really: bool = True, other: Path.nothing = "", odd: 1 | 2 = 1):
        self.thing, self.really, self.other = thing, really, other
    def execute(self): ...
"""


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xml_tasks.py").write_text(MODULE)
    yield
    sys.modules.pop("xml_tasks", None)


def read(text: str) -> TaskFile:
    Path("tasks.xml").write_text(text)
    return TaskFile.read("tasks.xml")


def task(name: str = "t", kind: str = "Small", properties: str = "<size>1</size>") -> str:
    return (
        f'<task name="{name}">\n<class module="xml_tasks" name="{kind}"/>\n'
        f"<property>{properties}</property>\n</task>\n"
    )


def problem(text: str) -> str:
    with pytest.raises(TaskFileError) as caught:
        read(text)
    assert caught.value.file == Path("tasks.xml")
    return caught.value.problem


TYPED = (
    "<plain> as it is </plain><place>/a/b</place><name>Ann</name><sync>on</sync>"
    "<share>0.5</share><count>-3</count><limit>7</limit><delay>1</delay>"
)


# What is read.


def test_properties_have_the_types_that_the_constructor_asks_for() -> None:
    made = read(f"<tasks>{task(kind='Typed', properties=TYPED)}</tasks>").make("t")

    assert vars(made) == {
        "count": -3, "share": 0.5, "sync": True, "name": "Ann", "place": Path("/a/b"),
        "limit": 7, "plain": "as it is", "delay": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spelling", "value"), [("yes", True), ("On", True), ("1", True), ("False", False), ("no", False)]
)
def test_yes_and_no_have_many_spellings(spelling: str, value: bool) -> None:
    properties = TYPED.replace("<sync>on", f"<sync>{spelling}")

    made = read(f"<tasks>{task(kind='Typed', properties=properties)}</tasks>").make("t")

    assert vars(made)["sync"] is value


def test_an_empty_element_is_filled_in_at_run_time() -> None:
    file = read(f"<tasks>{task(properties='<size/>')}</tasks>")

    assert vars(file.make("t", size=4)) == {"size": 4, "label": "x", "depth": 2}


def test_an_empty_element_that_is_not_filled_in_is_empty_text() -> None:
    made = read(f"<tasks>{task(properties='<size>1</size><label/>')}</tasks>").make("t")

    assert vars(made)["label"] == ""


def test_an_empty_element_that_is_not_filled_in_is_none_where_none_will_do() -> None:
    properties = TYPED.replace("<limit>7</limit>", "<limit></limit>")

    made = read(f"<tasks>{task(kind='Typed', properties=properties)}</tasks>").make("t")

    assert vars(made)["limit"] is None


def test_an_empty_element_that_is_not_filled_in_has_the_default_of_a_number() -> None:
    made = read(f"<tasks>{task(properties='<size>1</size><depth/>')}</tasks>").make("t")

    assert vars(made)["depth"] == 2


def test_an_empty_number_that_is_not_filled_in_is_refused() -> None:
    file = read(f"<tasks>{task(properties='<size/>')}</tasks>")

    with pytest.raises(TaskFileError, match="'size' is empty and was not filled in"):
        file.make("t")


def test_a_value_given_at_run_time_wins() -> None:
    assert vars(read(f"<tasks>{task()}</tasks>").make("t", size=9))["size"] == 9


def test_a_value_that_the_constructor_does_not_know_is_refused_at_run_time() -> None:
    with pytest.raises(TaskFileError, match="has no property 'colour'"):
        read(f"<tasks>{task()}</tasks>").make("t", colour="red")


def test_a_constructor_that_takes_anything_gets_anything() -> None:
    made = read(f"<tasks>{task(kind='Open', properties='<a>1</a><b/>')}</tasks>").make("t", c=3)

    assert vars(made)["properties"] == {"a": "1", "b": "", "c": 3}


def test_an_annotation_that_only_type_checkers_see_counts_as_text() -> None:
    made = read(f"<tasks>{task(kind='Puzzling', properties='<thing>1</thing>')}</tasks>").make("t")

    assert vars(made)["thing"] == "1"


def test_an_annotation_that_makes_no_sense_says_nothing_of_the_others() -> None:
    properties = "<thing>1</thing><really>no</really><other>2</other><odd>3</odd>"

    made = read(f"<tasks>{task(kind='Puzzling', properties=properties)}</tasks>").make("t")

    assert (vars(made)["really"], vars(made)["other"]) == (False, "2")


def test_each_task_is_a_new_one() -> None:
    file = read(f"<tasks>{task()}</tasks>")

    assert file.make("t") is not file.make("t")


def test_comments_and_markup_in_text_are_read_as_xml_has_them() -> None:
    made = read(
        f"<tasks><!-- c -->{task(properties='<size>1</size><label>a &lt;<!-- c --> b</label>')}</tasks>"
    )

    assert vars(made.make("t"))["label"] == "a < b"


def test_old_module_names_are_understood() -> None:
    made = read('<tasks><task name="e"><class module="task.empty_task" name="EmptyTask"/></task></tasks>')

    assert type(made.make("e")).__module__ == "cyclone.tasks.empty"


# What is refused.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<jobs/>", "line 1: found <jobs> as root, expected <tasks>"),
        ("<tasks>\n</tasks>", "line 1: <tasks> holds no <task>"),
        ("<tasks>\n<job/></tasks>", "line 2: found <job> in <tasks>, expected <task>"),
        ("<tasks>\n\n<task/></tasks>", 'line 3: <task> has no name; expected <task name="…">'),
        (f"<tasks>{task()}{task()}</tasks>", "line 5: task 't' stands twice, first in line 1"),
        ('<tasks>\n<task name="t"/></tasks>', "line 2: task 't' has no <class>"),
        (
            '<tasks><task name="t">\n<class name="A"/></task></tasks>',
            "line 2: task 't': <class> has no module",
        ),
        (
            '<tasks><task name="t">\n<class module="a"/></task></tasks>',
            "line 2: task 't': <class> has no name",
        ),
        (
            f"<tasks>{task().replace('</task>', '<extra/></task>')}</tasks>",
            "line 4: task 't': found <extra>, expected <class> or <property>",
        ),
        (
            f"<tasks>{task().replace('</task>', '<property/></task>')}</tasks>",
            "line 4: task 't': <property> stands twice",
        ),
        (
            f"<tasks>{task(properties='<size>1</size><sise>2</sise>')}</tasks>",
            "line 3: task 't': unknown property 'sise'; expected: size, label, depth",
        ),
        (
            f"<tasks>{task(properties='<size>1</size><size>2</size>')}</tasks>",
            "line 3: task 't': property 'size' stands twice",
        ),
        (f"<tasks>{task(properties='')}</tasks>", "line 3: task 't': property 'size' is missing"),
        (
            f"<tasks>{task(properties='<size>big</size>')}</tasks>",
            "line 3: task 't': property 'size': found 'big', expected a whole number",
        ),
        (
            f"<tasks>{task(properties='<size><b/></size>')}</tasks>",
            "line 3: task 't': property 'size' holds elements, expected text",
        ),
    ],
)
def test_a_broken_rule_is_told_with_its_line(text: str, expected: str) -> None:
    assert problem(text) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<share>0.5", "<share>half", "'share': found 'half', expected a number"),
        ("<sync>on", "<sync>maybe", "'sync': found 'maybe', expected one of: yes, no"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(old: str, new: str, expected: str) -> None:
    text = f"<tasks>{task(kind='Typed', properties=TYPED.replace(old, new))}</tasks>"

    assert expected in problem(text)


def test_a_class_that_cannot_be_had_is_told() -> None:
    assert "line 2: task 't': module 'xml_tasks' has no class 'Smal'" in problem(
        f"<tasks>{task(kind='Smal')}</tasks>"
    )


def test_everything_wrong_is_told_at_once() -> None:
    told = problem(f"<tasks>{task(properties='<size>big</size><sise/>')}<job/></tasks>")

    assert told.splitlines()[0] == "3 problems:"
    assert len(told.splitlines()) == 4


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(TaskFileError, match="no task 'u'; expected one of: t"):
        read(f"<tasks>{task()}</tasks>").make("u")


def test_a_document_type_is_refused() -> None:
    entity = '<!DOCTYPE tasks [<!ENTITY a "b">]>'

    assert problem(f"{entity}<tasks>{task()}</tasks>") == (
        "line 1: a document type declaration is not allowed"
    )


def test_what_is_not_xml_is_refused_with_its_line() -> None:
    assert "line 2" in problem("<tasks>\n<task></tasks>")


@pytest.mark.parametrize("encoding", ["foo", "shift_jis"])
def test_an_encoding_that_cannot_be_read_is_refused(encoding: str) -> None:
    assert "is not XML" in problem(f'<?xml version="1.0" encoding="{encoding}"?><tasks>{task()}</tasks>')


def test_an_empty_file_is_refused() -> None:
    assert "is not XML" in problem("")


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "larger than 1048576 bytes" in problem(f"<tasks>{' ' * 2**20}</tasks>")


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(TaskFileError, match="no such file"):
        TaskFile.read("none.xml")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="cannot be read"):
        TaskFile.read(tmp_path)
