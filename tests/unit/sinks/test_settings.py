from __future__ import annotations

import os
import stat

import pytest

from cyclone import settings as settings_module
from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.sinks.settings import DatabaseProxySettings, PushgatewayClientSettings


def proxy(**sections: dict[str, str]) -> DatabaseProxySettings:
    return DatabaseProxySettings.of(Ini(sections, "some.conf"))


def test_a_certificate_comes_with_its_key():
    settings = proxy(db={"ssl_cert": "our.pem", "ssl_key": "our.key"})

    assert (str(settings.ssl_cert), str(settings.ssl_key)) == ("our.pem", "our.key")


@pytest.mark.parametrize(("given", "missing"), [("ssl_cert", "ssl_key"), ("ssl_key", "ssl_cert")])
def test_a_certificate_without_its_key_is_refused(given, missing):
    with pytest.raises(ConfigError, match="go together") as raised:
        proxy(db={given: "our.pem"})

    assert (raised.value.section, raised.value.key) == ("db", missing)


@pytest.mark.parametrize(
    ("kind", "section", "key", "now"),
    [
        (DatabaseProxySettings, "db", "passwd", "password_file"),
        (PushgatewayClientSettings, "control", "push_interval", r"\[push\] interval"),
        (PushgatewayClientSettings, "control", "push_url", r"\[push\] url"),
    ],
)
def test_a_key_of_2_that_is_called_otherwise_is_refused_with_its_name(kind, section, key, now):
    with pytest.raises(ConfigError, match=now):
        kind.of(Ini({section: {key: "1"}}))


def test_the_address_of_a_master_is_checked_before_the_start():
    with pytest.raises(ConfigError) as raised:
        PushgatewayClientSettings.of(
            Ini({"master": {"address": "nonsense"}, "push": {"url": "http://gateway"}})
        )

    assert (raised.value.section, raised.value.key) == ("master", "address")


def test_passwords_are_neither_shown_nor_explained():
    ini = {"db": {"dialect": "mysql", "database": "rows", "user": "us", "password": "open sesame"}}
    gateway = {"push": {"url": "http://us:sesame@gateway:9091"}}

    told = [
        repr(proxy(**ini)), DatabaseProxySettings.explain(Ini(ini)),
        repr(PushgatewayClientSettings.of(Ini(gateway))), PushgatewayClientSettings.explain(Ini(gateway)),
    ]  # fmt: skip

    assert [text for text in told if "sesame" in text] == []


US, SOMEBODY, ROOT = 1000, 1001, 0


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "found"),
    [
        (0o600, US, US, ""),
        (0o640, ROOT, US, ""),
        (0o640, SOMEBODY, US, ""),
        (0o640, ROOT, ROOT, ""),
        (0o640, US, US, "the group 4711 can read [db] password; run: chmod go-rwx proxy.conf"),
        (0o644, US, US, "everybody can read [db] password; run: chmod go-rwx proxy.conf"),
        (0o644, ROOT, US, "everybody can read [db] password; run: chmod o-rwx proxy.conf"),
        (0o604, ROOT, ROOT, "everybody can read [db] password; run: chmod o-rwx proxy.conf"),
    ],
)
def test_a_file_with_a_password_is_refused_when_others_can_read_it(monkeypatch, mode, owner, reader, found):
    monkeypatch.setattr(os, "geteuid", lambda: reader)
    monkeypatch.setattr(
        settings_module, "others_who_may",
        lambda status, what: "everybody" if status.st_mode & what else "the group 4711" * bool(status.st_mode & what << 3),
    )  # fmt: skip
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 4711, 0, 0, 0, 0))
    file = Ini({"db": {"password": "sesame"}}, "proxy.conf", status)
    problem = ""

    try:
        DatabaseProxySettings._keep_secrets(file)
    except ConfigError as error:
        problem = str(error)

    assert problem == (f"proxy.conf: found mode {mode:04o}: {found}" if found else "")


def test_a_file_without_a_password_is_for_everybody_to_read():
    status = os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 4711, 0, 0, 0, 0))

    assert DatabaseProxySettings.of(Ini({"db": {"user": "us"}}, "proxy.conf", status)).user == "us"
