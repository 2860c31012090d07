from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclone.base_task import BaseTask
from cyclone.errors import PluginError
from cyclone.plugins import load_class, make_importable
from cyclone.task_generator import TaskGenerator

GENERATOR = "from cyclone import TaskGenerator\nclass Mine(TaskGenerator):\n    pass\n"


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(module: str, name: str = "Mine") -> PluginError:
    with pytest.raises(PluginError) as caught:
        load_class(module, name, TaskGenerator, file="master.conf", section="task_generator")
    return caught.value


def test_a_class_in_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "in_working_directory.py").write_text(GENERATOR)

    found = load_class("in_working_directory", "Mine", TaskGenerator)

    assert issubclass(found, TaskGenerator)


def test_a_class_on_the_search_path_is_found(tmp_path: Path) -> None:
    place = tmp_path / "plugins"
    place.mkdir()
    (place / "on_search_path.py").write_text(GENERATOR)

    found = load_class("on_search_path", "Mine", TaskGenerator, [place])

    assert found.__name__ == "Mine"


def test_a_file_of_the_user_does_not_hide_a_module_of_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text(GENERATOR)

    assert "has no class 'Mine'" in refused("wave").problem


def test_no_module_is_looked_for_where_everybody_can_write(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(GENERATOR)
    tmp_path.chmod(0o1777)

    problem = refused("planted").problem

    assert problem.endswith(f"; not in {tmp_path}, for everybody can write to it")


def test_no_module_is_looked_for_in_a_named_directory_where_everybody_can_write(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)

    make_importable([place, tmp_path / "nowhere"])

    assert str(place) not in sys.path


def test_directories_are_added_once(tmp_path: Path) -> None:
    make_importable([tmp_path])
    make_importable([tmp_path])

    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("task.generator.benchmark_task_generator", "BenchmarkTaskGenerator"),
        ("cyclone.generators.benchmark", "BenchmarkTaskGenerator"),
    ],
)
def test_modules_are_found_by_their_old_names_too(module: str, name: str) -> None:
    assert load_class(module, name, TaskGenerator).__module__ == "cyclone.generators.benchmark"


def test_a_missing_module_is_refused_with_the_places_that_were_looked_in(tmp_path: Path) -> None:
    error = refused("nowhere.to.be.found")

    assert (error.file, error.section, error.key) == ("master.conf", "task_generator", "module")
    assert "no module 'nowhere'" in error.problem
    assert str(tmp_path) in error.problem


def test_a_module_that_misses_another_one_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "misses_another.py").write_text("import surely_not_installed\n")

    problem = refused("misses_another").problem

    assert "raised while it was imported: ModuleNotFoundError" in problem
    assert "surely_not_installed" in problem


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(3)", "def broken("])
def test_a_module_that_raises_is_refused_and_its_traceback_logged(
    tmp_path: Path, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "raises.py").write_text(f"{statement}\n")

    with caplog.at_level(logging.ERROR):
        problem = refused("raises").problem

    assert "'raises' raised while it was imported" in problem
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("module", ["", "a b", ".relative", "a..b", "a/b", "1a"])
def test_what_is_no_dotted_name_is_refused(module: str) -> None:
    assert "expected the dotted name" in refused(module).problem


def test_a_misspelt_class_is_refused_and_the_right_one_suggested(tmp_path: Path) -> None:
    (tmp_path / "misspelt.py").write_text(GENERATOR)

    error = refused("misspelt", "Mien")

    assert error.key == "class"
    assert error.problem == "module 'misspelt' has no class 'Mien'; it has: Mine"


def test_a_module_without_any_fitting_class_is_told_of() -> None:
    assert "it has no subclass of TaskGenerator either" in refused("json").problem


@pytest.mark.parametrize("name", ["TaskGenerator", "dumps", "JSONDecoder"])
def test_what_is_no_subclass_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "no_subclass.py").write_text(GENERATOR + "from json import dumps, JSONDecoder\n")

    assert "is not a subclass of TaskGenerator" in refused("no_subclass", name).problem


def test_a_class_with_methods_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unfinished.py").write_text("from cyclone import BaseTask\nclass Mine(BaseTask):\n    pass\n")

    with pytest.raises(PluginError, match=r"does not define execute\(\)"):
        load_class("unfinished", "Mine", BaseTask)  # type: ignore[type-abstract]


@pytest.mark.parametrize("packages", [["site_tasks"], ["other", "site_tasks.lustre"]])
def test_a_module_of_an_allowed_package_is_loaded(tmp_path, monkeypatch, packages):
    (tmp_path / "site_tasks").mkdir()
    (tmp_path / "site_tasks" / "__init__.py").touch()
    (tmp_path / "site_tasks" / "lustre.py").write_text(
        "from cyclone import BaseTask\nclass Mine(BaseTask):\n    def execute(self): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert load_class("site_tasks.lustre", "Mine", BaseTask, packages=packages).__name__ == "Mine"
    assert load_class("task.empty_task", "EmptyTask", BaseTask, packages=packages).__name__ == "EmptyTask"


def test_a_module_of_another_package_is_refused_before_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "site_tasks_too.py").write_text("raise AssertionError\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        PluginError, match="'site_tasks_too', expected one of the packages cyclone, site_tasks"
    ):
        load_class("site_tasks_too", "Mine", BaseTask, packages=["site_tasks"])


def test_a_module_of_ours_without_its_extra_says_which_one_it_needs() -> None:
    # In a process of its own, for it has to be one that has not imported the module yet.
    code = (
        "import sys; sys.modules['lfsutils'] = None\n"
        "from cyclone.base_task import BaseTask; from cyclone.errors import PluginError\n"
        "from cyclone.plugins import load_class\n"
        "try: load_class('task.lustre_ost_migrate_task', 'LustreOstMigrateTask', BaseTask)\n"
        "except PluginError as error: print(error)"
    )

    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert "needs lfsutils" in said.stdout
    assert "expected: pip install 'cyclone[lustre]'" in said.stdout
    assert said.stderr == ""
