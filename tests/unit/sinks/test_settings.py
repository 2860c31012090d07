from __future__ import annotations

import pytest

from cyclone.errors import ConfigError
from cyclone.ini import Ini
from cyclone.sinks.settings import DatabaseProxySettings


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
