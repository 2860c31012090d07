"""Cyclone runs very many tasks over the nodes of a cluster and loses none of them."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older one would only say that it cannot import a name
    raise ImportError(f"Cyclone needs Python 3.11 or newer, this is {sys.version.split()[0]}")

from cyclone.base_task import Attempt, BaseTask
from cyclone.errors import CommandFailed, ConfigError, CycloneError, RecordError, TaskError
from cyclone.ini import Ini
from cyclone.model.task import Retry
from cyclone.record import Metric, Record
from cyclone.task_generator import Result, TaskGenerator

__version__ = "3.0.0"

__all__ = [
    "Attempt",
    "BaseTask",
    "CommandFailed",
    "ConfigError",
    "CycloneError",
    "Ini",
    "Metric",
    "Record",
    "RecordError",
    "Result",
    "Retry",
    "TaskError",
    "TaskGenerator",
    "__version__",
]
