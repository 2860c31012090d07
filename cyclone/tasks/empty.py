"""The task that does nothing, for trying things out."""

from __future__ import annotations

from cyclone.base_task import BaseTask


class EmptyTask(BaseTask):
    """Does nothing and succeeds."""

    def execute(self) -> None:
        pass
