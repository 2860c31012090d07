"""An ini file as typed values: every wrong one is refused with file, section, key, found and expected."""

from __future__ import annotations

import configparser
import difflib
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from cyclone.errors import ConfigError

_WORDS = {
    "yes": True, "no": False, "on": True, "off": False,
    "true": True, "false": False, "1": True, "0": False,
}  # fmt: skip

_Number = TypeVar("_Number", int, float)


class Ini:
    """One ini file, read once. `ini["section"]["key"]` is the text; the getters check and convert.

    No interpolation (a password may hold `%`), no default section, `=` as the only delimiter, so that
    what stands in the file is what is meant.
    """

    def __init__(
        self, sections: Mapping[str, Mapping[str, str]], file: str | Path | None = None,
        status: os.stat_result | None = None,
    ) -> None:  # fmt: skip
        """file, status: where it was read, and whose that was; to be named in errors, and asked who else can read it."""
        self.file = file
        self.status = status
        self._sections = {name: dict(keys) for name, keys in sections.items()}

    @classmethod
    def read(cls, file: str | Path) -> Ini:
        """Raises ConfigError when the file is missing, unreadable, not UTF-8, not an ini file, or one that others can write.

        It names programs and modules: who can write to it can do what its reader can.
        """
        parser = configparser.ConfigParser(
            interpolation=None, strict=True, delimiters=("=",), default_section="",
            inline_comment_prefixes=None, comment_prefixes=("#", ";"),
        )  # fmt: skip
        parser.optionxform = str  # type: ignore[assignment, method-assign]  # `GPU` is not `gpu`
        try:
            with open(file, encoding="utf-8") as stream:
                status = os.fstat(stream.fileno())
                text = stream.read()
        except FileNotFoundError:
            raise ConfigError("no such file; expected an ini file", file=file) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", file=file) from None
        if (others := others_who_may(status, stat.S_IWOTH)) and stat.S_ISREG(status.st_mode):
            raise ConfigError(too_open(status, f"{others} can write to it", "go-w", file), file=file)
        try:
            parser.read_string(text, source=str(file))
        except configparser.Error as error:
            problem = f"{_problem(error)}; expected lines KEY = VALUE below lines [SECTION], each once"
            raise ConfigError(problem, file=file) from None
        return cls({name: parser[name] for name in parser.sections()}, file, status)

    def __getitem__(self, section: str) -> Mapping[str, str]:
        try:
            return self._sections[section]
        except KeyError:
            raise ConfigError("section is missing", file=self.file, section=section) from None

    def __contains__(self, section: str) -> bool:
        return section in self._sections

    def sections(self) -> Mapping[str, Mapping[str, str]]:
        return self._sections

    # Getters. Each takes a default; without one the key must be there.

    def text(
        self, section: str, key: str, default: str | None = None, *, choices: tuple[str, ...] = ()
    ) -> str:
        value = self._raw(section, key)
        if value is None:
            if default is None:
                raise self.wrong(section, key, f"is missing; a value is expected{self._like(section, key)}")
            return default
        if choices and value not in choices:
            raise self.wrong(section, key, f"found {value!r}, expected one of: {', '.join(choices)}")
        return value

    def integer(
        self, section: str, key: str, default: int | None = None,
        *, minimum: int | None = None, maximum: int | None = None,
    ) -> int:  # fmt: skip
        return self._number(section, key, default, minimum, maximum, int, "a whole number")

    def number(
        self, section: str, key: str, default: float | None = None,
        *, minimum: float = 0, maximum: float | None = None,
    ) -> float:  # fmt: skip
        return self._number(section, key, default, minimum, maximum, float, "a number")

    def seconds(
        self, section: str, key: str, default: float | None = None,
        *, minimum: float = 0, maximum: float | None = None,
    ) -> float:  # fmt: skip
        return self._number(section, key, default, minimum, maximum, float, "a number of seconds")

    def boolean(self, section: str, key: str, default: bool | None = None) -> bool:
        value = self.text(section, key, None if default is None else str(default)).lower()
        if value not in _WORDS:
            raise self.wrong(section, key, f"found {value!r}, expected one of: {', '.join(_WORDS)}")
        return _WORDS[value]

    def wrong(self, section: str, key: str, problem: str) -> ConfigError:
        """The error for a value that a check of one's own has found wrong."""
        return ConfigError(problem, file=self.file, section=section, key=key)

    def _like(self, section: str, key: str) -> str:
        """What may be meant instead: keys are misspelt more often than forgotten."""
        alike = difflib.get_close_matches(key, self._sections.get(section, {}), 1)
        return f", found {alike[0]!r}" if alike else ""

    def _raw(self, section: str, key: str) -> str | None:
        value = self._sections.get(section, {}).get(key)
        return None if value is None else value.strip()

    def _number(
        self, section: str, key: str, default: _Number | None, minimum: _Number | None,
        maximum: _Number | None, convert: type[_Number], what: str,
    ) -> _Number:  # fmt: skip
        text = self.text(section, key, None if default is None else str(default))
        low = "" if minimum is None else f" from {minimum}"
        high = "" if maximum is None else f" to {maximum}"
        expected = f"expected {what}{low}{high}"
        try:
            # Python also reads 9_0 and the digits of other scripts, which are slips here.
            value = convert(text if text.isascii() and "_" not in text else "")
        except ValueError:
            raise self.wrong(section, key, f"found {text!r}, {expected}") from None
        # NaN is neither below nor above anything, so it is asked for what it must be.
        if not (minimum is None or value >= minimum) or not (maximum is None or value <= maximum):
            raise self.wrong(section, key, f"found {text}, {expected}")
        if value != value or value in (float("inf"), float("-inf")):
            raise self.wrong(section, key, f"found {text}, {expected}")
        return value


def others_who_may(status: os.stat_result, what: int) -> str:
    """Who may do that with a file besides its owner and root, in words; "" if nobody may.

    what: S_IROTH or S_IWOTH of `stat`. A group that is there for the owner alone does not count: with such groups goes
    a umask of 002 (Debian and Red Hat call them user private groups).
    """
    if status.st_mode & what:
        return "everybody"
    if not status.st_mode & what << 3:
        return ""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return f"the group {status.st_gid}"
    is_private = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return "" if is_private and {*group.gr_mem} <= {owner.pw_name} else f"the group {group.gr_name}"


def too_open(status: os.stat_result, problem: str, change: str, file: str | Path) -> str:
    """What is wrong with a file or directory that others may use, and the command that mends it."""
    mode = stat.S_IMODE(status.st_mode)
    return f"found mode {mode:04o}: {problem}; run: chmod {change} {shlex.quote(str(file))}"


def _problem(error: configparser.Error) -> str:
    """Without the lines themselves: one of them may hold a password."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands below no section"
    if isinstance(error, configparser.ParsingError):
        return f"found something else in line {', '.join(str(number) for number, _ in error.errors)}"
    return " ".join(str(error).split())
