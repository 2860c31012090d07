"""A private Pushgateway on a free port of the loopback device, started and ended as often as a test wants.

It keeps nothing on disk, so one that is started anew is empty. `bin/prepare-servers` installs the program.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acceptance.cluster import free_port, wait_for
from prometheus_client.parser import text_string_to_metric_families

PROGRAM = "prometheus-pushgateway"

#: Another program may take the port between its choice and its use.
_STARTS = 5

#: `(("label", "value"), …)` by name of the label.
Labels = tuple[tuple[str, str], ...]


class Pushgateway:
    """Owns one process, and `log` in its directory."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "pushgateway.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it is ready. On the first start another port is taken if this one is in use."""
        for _ in range(_STARTS):
            if self._launch():
                return
            self.port = free_port()
        raise AssertionError(f"{PROGRAM} does not start: {self.log.read_text()}")

    def restart(self) -> None:
        """On the same port, and empty."""
        self.stop()
        assert self._launch(), self.log.read_text()

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """It answers nobody any more, and connections to it stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # A thread goes on until it notices, and might answer meanwhile.
        threads = Path(f"/proc/{self._process.pid}/task")
        wait_for("every thread is stopped", lambda: all(map(_is_stopped, threads.glob("*/stat"))))

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        """Status and text of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def series(self, name: str) -> dict[Labels, float]:
        """What a Prometheus would see of one metric; the labels of the group stand among the others."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200, text
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def _launch(self) -> bool:
        program = shutil.which(PROGRAM)
        assert program is not None, f"found no {PROGRAM}; expected bin/prepare-servers to have installed it"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--persistence.file=",
                    "--web.enable-admin-api",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )
        process = self._process
        wait_for(f"{PROGRAM} is ready or has ended", lambda: process.poll() is not None or self._is_ready())
        return process.poll() is None

    def _is_ready(self) -> bool:
        try:
            return self.ask("GET", "/-/ready")[0] == 200
        except OSError:
            return False


def _is_stopped(stat: Path) -> bool:
    # proc(5): the state follows the name, which stands in parentheses.
    return stat.read_text().rpartition(") ")[2].startswith("T")


@contextmanager
def running_pushgateway(directory: Path) -> Iterator[Pushgateway]:
    gateway = Pushgateway(directory)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
