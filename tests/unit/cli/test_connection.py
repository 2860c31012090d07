from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cyclone.cli import connection
from cyclone.cli.connection import add_config_file, connect, read_settings
from cyclone.errors import ConfigError, KeyFileError
from cyclone.settings import ClientSettings
from cyclone.wire import keys


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config_file(parser)
    return parser.parse_args(words)


def test_a_named_ini_file_is_read(ini: str) -> None:
    settings = read_settings(options("-f", ini))

    assert (settings.target, settings.port, settings.curve) == ("127.0.0.1", 6001, True)


def test_the_first_default_file_that_is_there_is_read(
    ini: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DEFAULT_FILES", (tmp_path / "nope.conf", Path(ini)))

    settings = read_settings(options())

    assert settings.port == 6001


def test_without_any_file_it_says_which_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DEFAULT_FILES", (tmp_path / "a.conf", tmp_path / "b.conf"))

    with pytest.raises(ConfigError, match=r"neither .*a\.conf nor .*b\.conf; expected -f"):
        read_settings(options())


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("127.0.0.1", "tcp://127.0.0.1:6001"),
        ("::1", "tcp://[::1]:6001"),
        ("[::1]", "tcp://[::1]:6001"),
    ],
)
def test_a_client_knows_the_address(target: str, address: str, tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    with connect(ClientSettings(target=target, port=6001, key_dir=tmp_path, curve=True)) as client:
        assert client.line.address == address


def test_where_keys_are_switched_off_none_are_needed(tmp_path: Path) -> None:
    with connect(
        ClientSettings(target="127.0.0.1", port=6001, key_dir=tmp_path / "none", curve=False)
    ) as client:
        assert client.line.address == "tcp://127.0.0.1:6001"


def test_a_missing_key_is_told_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"client\.secret: no such file"):
        connect(ClientSettings(target="127.0.0.1", port=6001, key_dir=tmp_path, curve=True))


def test_two_clients_have_two_lives(tmp_path: Path) -> None:
    settings = ClientSettings(target="127.0.0.1", port=6001, key_dir=tmp_path, curve=False)

    with connect(settings) as one, connect(settings) as other:
        assert one.line.life != other.line.life
