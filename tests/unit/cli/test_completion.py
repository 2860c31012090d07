from __future__ import annotations

import builtins
import sys
from types import ModuleType

import pytest

from cyclone.cli.main import main


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that is quick to load stands in for the one that is measured with."""
    module = ModuleType("cyclone.cli.bench", "Measure.")
    module.add_arguments = lambda parser: None
    module.run = lambda options: 0
    monkeypatch.setitem(sys.modules, "cyclone.cli.bench", module)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_gets_the_commands_and_their_options(shell: str, capsys) -> None:
    code = main(["completion", shell])

    told = capsys.readouterr().out
    assert code == 0
    assert all(word in told for word in ("info", "explain", "watch", "authorize", "key-dir"))


def test_arguments_that_are_files_are_completed_as_such(capsys) -> None:
    main(["completion", "bash"])

    told = capsys.readouterr().out
    assert "_shtab_cyclone_info__f_COMPGEN=_shtab_compgen_files" in told
    assert "_shtab_cyclone_keys_revoke___key_dir_COMPGEN=_shtab_compgen_dirs" in told


def test_another_shell_is_a_wrong_usage(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "fish"])

    assert ended.value.code == 2


def test_without_shtab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    really_import = builtins.__import__

    def without_shtab(name, *rest):
        if name == "shtab":
            raise ImportError(name)
        return really_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_shtab)

    assert main(["completion", "bash"]) == 3
    assert "cyclone[cli]" in capsys.readouterr().err
