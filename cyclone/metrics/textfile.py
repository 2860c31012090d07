"""What is shown, written to a file that a node exporter reads with its textfile collector.

For sites with neither a gateway nor a Prometheus that may ask this host at another port.
"""

from __future__ import annotations

import logging
from pathlib import Path

from prometheus_client import generate_latest

from cyclone.metrics.exposition import Exposition
from cyclone.process.replace import replace_content

log = logging.getLogger(__name__)


class Textfile:
    """Owns one file, which holds all that was shown at one moment.

    trouble: why it cannot be written, or removed; "" if it can.
    """

    def __init__(self, exposition: Exposition, file: Path) -> None:
        self._exposition, self._file = exposition, file
        self.trouble = ""

    def write(self) -> None:
        """Replace it by what is shown now; where that fails, the former one stays."""
        try:
            replace_content(self._file, generate_latest(self._exposition), mode=0o644)
        except OSError as error:
            self._tell(f"{self._file} cannot be written: {error.strerror}")
        else:
            self._tell("")

    def remove(self) -> None:
        """Take it away: a node exporter shows the last numbers of a file for as long as it is there."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            self._tell(f"{self._file} cannot be removed: {error.strerror}")

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("%s", trouble)
        elif self.trouble and not trouble:
            log.info("%s can be written again", self._file)
        self.trouble = trouble
