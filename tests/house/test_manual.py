"""The manual and the code say the same: generated parts, links, names of files, and the example of the README."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cyclone import TaskGenerator
from cyclone.ini import Ini
from cyclone.messages import Message
from cyclone.model.lifecycle import LIFECYCLE, Outcome, State
from cyclone.model.task import Retry
from cyclone.plugins import load_class
from cyclone.settings import MasterSettings
from cyclone.task_generator import Result

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "Documentation"
PAGES = [*ROOT.glob("*.md"), *MANUAL.rglob("*.md")]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load(MANUAL / "generate.py")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


# What is generated.


@pytest.mark.parametrize("page", GENERATE.PARTS)
def test_a_generated_part_is_current(page: str) -> None:
    assert (MANUAL / page).read_text() == GENERATE.current(page), "run: python Documentation/generate.py"


def test_the_picture_of_the_lifecycle_shows_every_way_and_no_other() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (.+)$", GENERATE.lifecycle(), re.MULTILINE))

    ways = {
        (state.value, target.value, event.value)
        for state, events in LIFECYCLE.items()
        for event, target in events.items()
    }
    assert {(state, target, event) for state, target, events in drawn for event in events.split(", ")} == ways


def test_every_message_is_told_of() -> None:
    told = GENERATE.alphabet()

    ours = [kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__]
    assert [kind.__name__ for kind in ours if f"| `{kind.__name__}` |" not in told] == []


# What is written by hand.


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_in_the_list() -> None:
    listed = (MANUAL / "decisions" / "README.md").read_text()

    decisions = [page.name for page in (MANUAL / "decisions").glob("[0-9]*.md")]
    assert [name for name in decisions if f"({name})" not in listed] == []


@pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:Configuration|bin|tests)/[\w./-]+)`", page.read_text())

    places = (ROOT, ROOT / "cyclone", MANUAL)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_manual_knows_the_defaults_of_retry() -> None:
    written = re.search(r"`Retry\((errors=.*?)\)`", (MANUAL / "writing-tasks.md").read_text())

    assert written is not None
    assert repr(Retry()) == f"Retry({written[1]})"


def test_the_manual_names_every_state_and_outcome() -> None:
    text = (MANUAL / "architecture.md").read_text()

    assert [word.value for word in (*State, *Outcome) if word.value not in text] == []


@pytest.mark.parametrize("page", ["README.md", "Documentation/writing-tasks.md"])
def test_every_example_is_python(page: str) -> None:
    for block in blocks(ROOT / page, "python"):
        compile(block.replace("    return size", "    pass"), page, "exec")


# The first task of a newcomer.


@pytest.fixture
def in_a_directory_with_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The blocks of the README, each in the file that its first line names."""
    for language in ("python", "ini"):
        for block in blocks(ROOT / "README.md", language):
            if block.startswith("# "):
                (tmp_path / block.split("\n", 1)[0].removeprefix("# ")).write_text(block)
    (tmp_path / "Documentation").mkdir()
    (tmp_path / "Documentation" / "page.md").write_text("three short words\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("word_count", None)


def test_the_example_of_the_readme_works(
    in_a_directory_with_the_example: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (named,) = (block for block in blocks(ROOT / "README.md", "ini") if "[task_generator]" in block)
    (in_a_directory_with_the_example / "master.conf").write_text(named)
    settings = MasterSettings.read("master.conf")
    kind = load_class(settings.generator_module, settings.generator_class, TaskGenerator)
    assert settings.generator_config_file is not None
    generator = kind(Ini.read(settings.generator_config_file))

    generator.validate_config()
    tasks = [pickle.loads(pickle.dumps(task)) for task in generator.generate()]
    values = [task.execute() for task in tasks]
    with caplog.at_level("INFO"):
        for task, value in zip(tasks, values, strict=True):
            generator.on_result(Result(task.tid, "succeeded", "succeeded", 0, value, "", 1, 0.1))

    assert values == [3]
    assert "Documentation/page.md: 3" in caplog.text
