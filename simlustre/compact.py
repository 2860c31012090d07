"""Compact JSON without the `json` package, whose import takes as long as the start of the interpreter.

The scanner and the encoder are the ones that `json` itself uses; where an interpreter has none, `json` steps
in.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json as accelerator
except ImportError:
    accelerator = None  # type: ignore[assignment]


class _Reading:
    """How the scanner reads: what `json.JSONDecoder` would tell it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012  # the scanner asks for it by this name


def loads(text: str) -> Any:
    """The value of a compact JSON text (no blanks around it). Raises ValueError for anything else."""
    if accelerator is None:
        import json

        return json.loads(text)
    try:
        value, end = accelerator.make_scanner(_Reading)(text, 0)  # type: ignore[arg-type]
    except StopIteration:
        raise ValueError(f"not JSON: {text[:80]!r}") from None
    if end != len(text):
        raise ValueError(f"text after JSON: {text[end : end + 80]!r}")
    return value


def dumps(value: Any) -> str:
    if accelerator is None:
        import json

        return json.dumps(value, separators=(",", ":"))
    escape = accelerator.encode_basestring_ascii
    make = accelerator.make_encoder
    encode = make(None, None, escape, None, ":", ",", False, False, True)  # type: ignore[arg-type]
    return "".join(encode(value, 0))
