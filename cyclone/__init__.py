"""Cyclone runs very many tasks over the nodes of a cluster and loses none of them."""

from cyclone.base_task import Attempt, BaseTask
from cyclone.errors import CommandFailed, ConfigError, CycloneError, TaskError
from cyclone.ini import Ini
from cyclone.model.task import Retry
from cyclone.task_generator import Result, TaskGenerator

__version__ = "3.0.0"

__all__ = [
    "Attempt",
    "BaseTask",
    "CommandFailed",
    "ConfigError",
    "CycloneError",
    "Ini",
    "Result",
    "Retry",
    "TaskError",
    "TaskGenerator",
    "__version__",
]
