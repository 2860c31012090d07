"""A client that was told what to answer, in place of the one that would need a master."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from cyclone.cli import explain, info, tasks
from cyclone.errors import CycloneError
from cyclone.messages import Message
from cyclone.settings import ClientSettings


@dataclass
class FakeClient:
    """Answers with what stands next in `replies`, and fails when it is asked more often than that."""

    replies: list[Message | CycloneError] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)
    settings: ClientSettings | None = None
    closed: bool = False

    def ask(self, message: Message) -> Message:
        self.asked.append(message)
        reply = self.replies.pop(0)
        if isinstance(reply, CycloneError):
            raise reply
        return reply

    def connect(self, settings: ClientSettings) -> Self:
        self.settings, self.closed = settings, False
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    for command in (explain, info, tasks):
        monkeypatch.setattr(command, "connect", fake.connect)
    return fake


@pytest.fixture
def ini(tmp_path: Path) -> str:
    """The ini file of a master that listens on port 6001."""
    file = tmp_path / "master.conf"
    file.write_text(f"[comm]\nport = 6001\n[security]\nkey_dir = {tmp_path / 'keys'}\n", encoding="utf-8")
    return str(file)
