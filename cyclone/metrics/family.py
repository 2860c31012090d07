"""A metric family: declared once, then a number for each set of labels.

Pure, and without the packages of the extra `[prometheus]`: only `exposition` makes text of families.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple

#: `(value of each label, in the order of the declaration)`.
Labels = tuple[str, ...]

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*\Z", re.ASCII)
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]*\Z", re.ASCII)

#: Prometheus and the Pushgateway write their own values into these, over what is sent; or they mean a bucket.
RESERVED_LABELS = frozenset({"job", "instance", "le", "quantile"})

#: What a histogram or a summary is made of. A name that ends so is taken for a part of one.
_RESERVED_ENDINGS = ("_bucket", "_count", "_sum", "_created")


class Declaration(NamedTuple):
    """What a family is called and what it means. kind: as of `record.Metric`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


class Family(NamedTuple):
    """A declaration and what is known of it. samples: `{labels: number}`, never empty."""

    declaration: Declaration
    samples: Mapping[Labels, float]


def complaint(declaration: Declaration) -> str:
    """What Prometheus would make of the declaration that was not meant; "" if nothing.

    The rules are those of prometheus.io/docs/practices/naming and of its data model.
    """
    name, help_, labels, kind = declaration
    if not _METRIC_NAME.match(name):
        return f"found {name!r} as the name of a metric, expected lower-case letters, digits and underscores"
    if not help_.strip():
        return f"{name}: found no help, expected a sentence"
    if name.endswith(_RESERVED_ENDINGS):
        return f"{name}: found the ending of a histogram"
    if (kind == "counter") != name.endswith("_total"):
        return f"{name}: found a {kind}, expected a counter to end with _total, and nothing else to"
    if len(set(labels)) != len(labels):
        return f"{name}: a label stands twice"
    for label in labels:
        if not _LABEL_NAME.match(label) or label in RESERVED_LABELS:
            return f"{name}: found {label!r} as a label, which Prometheus keeps for itself or does not take"
    return ""


def label_text(value: str | int | float | bool | datetime | None) -> str:
    """A value as a label: nothing where there is none."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
