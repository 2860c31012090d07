"""Who gets in: the answers to libzmq's question about every key that knocks (ZAP, ZeroMQ RFC 27).

libzmq asks over an inproc socket of the same context and lets nobody in until it has an answer, so a daemon that
hangs admits nobody. The daemon's own loop answers; there is no thread that could die unnoticed.
"""

from __future__ import annotations

import zmq

from cyclone.wire.complaints import Complaints
from cyclone.wire.keys import KeyRing, fingerprint
from cyclone.wire.sockets import is_readable

#: The name that the question must carry; set together with ZAP_ENFORCE_DOMAIN.
DOMAIN = b"cyclone"

#: Where libzmq asks (RFC 27: "inproc://zeromq.zap.01").
_ENDPOINT = "inproc://zeromq.zap.01"

_ADMITTED, _REFUSED = b"200", b"400"


class Zap:
    """Answers from the key ring. Must be there before the socket that it guards is bound."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], ring: KeyRing, complaints: Complaints
    ) -> None:
        self.refused = 0
        self._ring = ring
        self._complaints = complaints
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(_ENDPOINT)

    def serve(self, *, expected: bytes | None = None) -> None:
        """Answer every question that is waiting.

        expected: a raw key that is neither counted nor complained about when it is refused.
        """
        while is_readable(self.socket):
            question = self.socket.recv_multipart(zmq.NOBLOCK)
            # RFC 27: route, empty, version, request, domain, address, routing id, mechanism, credentials.
            route, rest, request = question[:1], question[1:], question[3:4]
            user_id = self._user_id(rest, expected)
            code, text = (_REFUSED, b"refused") if user_id is None else (_ADMITTED, b"OK")
            answer = [*route, b"", b"1.0", *request, code, text, (user_id or "").encode("ascii"), b""]
            self.socket.send_multipart(answer, zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close()

    def _user_id(self, question: list[bytes], expected: bytes | None) -> str | None:
        """Whom the question is about if they may come in, else None: whatever is not exactly right is refused."""
        match question:
            case [b"", b"1.0", _, domain, address, _, b"CURVE", raw] if domain == DOMAIN:
                key = self._ring.admitted(raw)
                if key is not None:
                    return key.user_id
                if raw == expected:
                    return None
                detail = f"the key {fingerprint(raw)} is not authorized"
            case [_, _, _, _, address, *_]:
                detail = "not a question about a key in the domain of Cyclone"
            case _:
                address, detail = b"", "not a question as RFC 27 has it"
        self.refused += 1
        self._complaints.add("refused", address.decode("ascii", "backslashreplace") or "unknown", detail)
        return None
