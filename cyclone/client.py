"""Ask the master something and wait for the answer: for command lines, and for generators that hand in tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from cyclone.clock import monotonic
from cyclone.errors import MasterUnreachable, Refusal
from cyclone.messages import Accepted, Message, Open, Opened, Refused
from cyclone.wire.keys import KeyPair, PublicKey
from cyclone.wire.line import Line
from cyclone.wire.sockets import MAX_MESSAGE_BYTES

#: How long to wait before trying to speak again while the connection is clogged.
_RETRY_S = 0.1


class Client:
    """One line to the master, or to a sink, and whose turn it is on it.

    own, master: both None where keys are switched off. server: what errors call the other side.
    line: may be spoken over as well by whoever must not wait; what came in while an answer was waited for is
    handed out by `receive` first.
    """

    def __init__(
        self, address: str, own: KeyPair | None, master: PublicKey | None, *, instance: str = "", life: str,
        max_message_bytes: int = MAX_MESSAGE_BYTES, ipv6: bool = False, server: str = "master",
    ) -> None:  # fmt: skip
        self._server = server
        self.line = Line(
            address, own, master, instance=instance, life=life, max_message_bytes=max_message_bytes, ipv6=ipv6
        )
        self._request = 0
        self._overheard: list[tuple[Message, list[bytes]]] = []

    def ask(
        self,
        message: Message,
        enclosure: Sequence[bytes] | None = None,
        timeout_s: float = 10.0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> Message:
        """The master's answer. The number of the request is given here, whatever the message says.

        Asked again if the connection was lost before the answer, which is safe: every request means the same
        however often it arrives.
        given_up: asked some times a second; true if nobody wants the answer any more.
        Raises MasterUnreachable when there is no answer in time, or it was given up, or at once when the master does
        not let us in; Refusal when the answer is no.
        """
        self._request += 1
        if _is_numbered(message):
            message = msgspec.structs.replace(message, request=self._request)
        deadline = monotonic() + timeout_s
        asked_over = 0
        while True:
            line = self.line
            if line.connected and line.connections != asked_over and line.say(message, enclosure):
                asked_over = line.connections
            answer = self._answer(message)
            if isinstance(answer, Refused):
                raise Refusal(answer.reason)
            if answer is not None:
                return answer
            if line.refused_reason is not None:
                raise MasterUnreachable(line.refused_reason)
            left_s = deadline - monotonic()
            if given_up():
                raise MasterUnreachable(f"the question to the {self._server} at {line.address} was given up")
            if left_s <= 0:
                asked = "answers" if asked_over else "can be reached"
                raise MasterUnreachable(f"no {self._server} {asked} at {line.address} within {timeout_s:g} s")
            line.wait(min(left_s, _RETRY_S))

    def receive(self) -> list[tuple[Message, list[bytes]]]:
        """Whatever else the master has said, oldest first, with what was enclosed. Never blocks."""
        overheard, self._overheard = self._overheard, []
        return overheard + self.line.receive()

    def close(self) -> None:
        self.line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, question: Message) -> Message | None:
        """The answer to it if that is there; everything else is kept for `receive`."""
        answer = None
        for message, enclosure in self.line.receive():
            if answer is None and _answers(message, question):
                answer = message
            else:
                self._overheard.append((message, enclosure))
        return answer


def _is_numbered(message: Any) -> bool:
    return hasattr(message, "request")


def _answers(message: Any, question: Any) -> bool:
    # A refusal without a number is about whoever speaks, whatever it was they said.
    if isinstance(message, Refused) and message.request == 0:
        return True
    if isinstance(question, Open):
        return isinstance(message, Opened) and message.name == question.job
    if isinstance(message, Accepted):
        return _is_numbered(question) and question.request in message.requests
    return _is_numbered(message) and bool(message.request == question.request)
