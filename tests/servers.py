"""A private MariaDB in one directory, as whoever runs the tests: started, stopped, frozen and killed at will."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
from acceptance.cluster import PATIENCE_S, free_port

#: Servers are in a directory that the PATH of an ordinary user lacks.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

#: Somebody else may take a port between the search for it and its use.
_STARTS = 5


class MariaDb:
    """A server on a port of its own on the loopback. What is in it survives `stop`, `kill` and `start`.

    Enter it to have it started, leave it to have it ended and its directory removed. It dies with the thread that
    started it, so that it is not left behind when the tests are killed.
    """

    host = "127.0.0.1"
    database = "cyclone"
    user = "cyclone"
    password = "secret"

    def __init__(self, directory: Path) -> None:
        """directory: is made. With a long path, a client cannot use the socket in it."""
        self.directory = directory
        self.port = 0
        self._data = directory / "data"
        # Not that of everybody: each server that starts removes all temporary tables that it finds there.
        self._temporary = directory / "tmp"
        self.socket = self._data / "s"
        self._process: subprocess.Popen[bytes] | None = None
        self._options: Mapping[str, object] = {}

    def __enter__(self) -> MariaDb:
        try:
            self._install()
            self.start()
            self.ask(f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4", database="")
            self.ask(f"CREATE USER {self.user}@'127.0.0.1' IDENTIFIED BY '{self.password}'")
            self.ask(f"GRANT ALL ON {self.database}.* TO {self.user}@'127.0.0.1'")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, **options: object) -> None:
        """Start it on the port that it had before, and return when it answers. options: of mariadbd, with `_` for `-`."""
        self._options = options or self._options
        for _ in range(_STARTS):
            self.port = self.port or free_port()
            if self._start():
                return
            self.port = 0
        raise AssertionError(f"mariadbd does not start:\n{self.log[-4000:]}")

    def stop(self) -> None:
        """End it in good order, as an administrator does; frozen or not."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._wait()

    def kill(self) -> None:
        """As the kernel does it when memory is short."""
        if self._process is not None:
            self._process.kill()
            self._wait()

    def freeze(self) -> None:
        """Keep all connections open, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, statement: str, database: str | None = None) -> list[Any]:
        """What the administrator of the database gets to see; committed."""
        with closing(self._connect(self.database if database is None else database)) as connection:
            with closing(connection.cursor()) as cursor:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.with_rows else []
            connection.commit()
            return rows

    @property
    def log(self) -> str:
        path = self.directory / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _install(self) -> None:
        self._temporary.mkdir(parents=True, exist_ok=True)
        said = subprocess.run(
            [
                _program("mariadb-install-db"), "--no-defaults", f"--user={_user()}", f"--datadir={self._data}",
                f"--tmpdir={self._temporary}", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr

    def _start(self) -> bool:
        """Returns whether it answers; if not, it has ended."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()]
        self._process = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", _program("mariadbd"),
                "--no-defaults", f"--user={_user()}", f"--datadir={self._data}", f"--socket={self.socket.name}",
                f"--tmpdir={self._temporary}",
                f"--pid-file={self.directory / 'pid'}", f"--log-error={self.directory / 'error.log'}",
                f"--bind-address={self.host}", f"--port={self.port}", "--skip-name-resolve", "--skip-log-bin",
                "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=32M", "--innodb-doublewrite=0", *options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None:
            try:
                self._connect("").close()
                return True
            except mysql.connector.Error:
                if time.monotonic() > deadline:
                    self.kill()
                    raise
                time.sleep(0.02)
        self._process = None
        return False

    def _connect(self, database: str) -> Any:
        return mysql.connector.connect(
            host=self.host, port=self.port, user="root", database=database, use_pure=True, connection_timeout=5,
            autocommit=True,
        )  # fmt: skip

    def _wait(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found, f"found no {name}, expected the server of MariaDB: bin/prepare-servers"
    return found


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
