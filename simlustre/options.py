"""Command line options as GNU getopt_long reads them."""

from __future__ import annotations

from simlustre.errors import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Options:
    """What a command line said, in its order: `pairs` of (letter, value), and the `operands`."""

    def __init__(self, pairs: list[tuple[str, str]], operands: list[str]) -> None:
        self.pairs = pairs
        self.operands = operands

    def __contains__(self, name: str) -> bool:
        return any(name == given for given, _ in self.pairs)

    def last(self, name: str) -> str | None:
        """The value given last, None when the option was not given."""
        for given, value in reversed(self.pairs):
            if given == name:
                return value
        return None


def parse(arguments: Sequence[str], letters: str, words: Mapping[str, str]) -> Options:
    """letters: as getopt's (`c:y`, a colon for a value, two for a value that may be attached).
    words: long option -> the letter or word that stands for it; a word that is not in `letters` takes a value
    when it ends in `=`. Options and operands may be mixed; `--` ends the options; words may be shortened.
    Raises Usage.
    """
    pairs: list[tuple[str, str]] = []
    operands: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return Options(pairs, operands + rest)
        if argument.startswith("--"):
            pairs.append(_word(argument[2:], rest, letters, words))
        elif argument.startswith("-") and argument != "-":
            pairs.extend(_bundle(argument[1:], rest, letters))
        else:
            operands.append(argument)
    return Options(pairs, operands)


def _word(argument: str, rest: list[str], letters: str, words: Mapping[str, str]) -> tuple[str, str]:
    word, equals, value = argument.partition("=")
    fitting = [word] if word in words else [known for known in words if known.startswith(word)]
    if not fitting:
        raise Usage(f"unrecognized option '--{word}'")
    if len({words[known] for known in fitting}) > 1:
        raise Usage(f"option '--{word}' is ambiguous")
    name = words[fitting[0]]
    takes = _takes(name, letters)
    name = name.rstrip("=")
    if takes == 0:
        if equals:
            raise Usage(f"option '--{word}' doesn't allow an argument")
        return name, ""
    if equals or takes == 2:
        return name, value
    if not rest:
        raise Usage(f"option '--{word}' requires an argument")
    return name, rest.pop(0)


def _bundle(bundle: str, rest: list[str], letters: str) -> list[tuple[str, str]]:
    pairs = []
    while bundle:
        letter, bundle = bundle[0], bundle[1:]
        if letter == ":" or letter not in letters:
            raise Usage(f"invalid option -- '{letter}'")
        takes = _takes(letter, letters)
        if takes == 0:
            pairs.append((letter, ""))
            continue
        if not bundle and takes == 1:
            if not rest:
                raise Usage(f"option requires an argument -- '{letter}'")
            bundle = rest.pop(0)
        pairs.append((letter, bundle))
        bundle = ""
    return pairs


def _takes(name: str, letters: str) -> int:
    """0: no value, 1: a value, 2: perhaps an attached one."""
    if len(name) > 1:
        return 1 if name.endswith("=") else 0
    after = letters[letters.index(name) + 1 :]
    return 2 if after.startswith("::") else 1 if after.startswith(":") else 0


def size(text: str) -> int:
    """`64K`, `1M`, `4g`, plain bytes, `-1` and `EOF` (both -1). Raises ValueError."""
    if text.upper() in ("EOF", "-1"):
        return -1
    suffix = "KMGTPE".find(text[-1:].upper()) if text[-1:].isalpha() else -1
    if text[-1:].isalpha() and suffix < 0:
        raise ValueError(f"bad size {text!r}")
    return int(text[:-1] if suffix >= 0 else text) << 10 * (suffix + 1)


def indices(text: str) -> list[int]:
    """`3,5-7` -> [3, 5, 6, 7]. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and first:
            found.extend(range(int(first), int(last) + 1))
        else:
            found.append(int(part, 16) if part.lower().startswith("0x") else int(part))
    return found
