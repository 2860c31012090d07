"""What is shown, pushed as a whole to one group of a Pushgateway, again and again.

A PUT of the complete set is the only request without surprises: a POST replaces single metrics and leaves what is no
longer sent for ever. So the state stays here; a gateway that was started anew has all of it after one interval, and
a push that fails loses nothing.

A gateway refuses a body as a whole if it dislikes one metric (400). Then the metrics that it does take are looked for,
by POSTs, which take nothing away, and the PUT is made of them; the others are left out for a while.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from cyclone.clock import monotonic
from cyclone.metrics.exposition import Exposition, render
from cyclone.metrics.family import Family
from cyclone.metrics.figures import PushFigures
from cyclone.process.replace import replace_content

log = logging.getLogger(__name__)

#: After failures it is tried ever more seldom, down to this if the interval is shorter.
BACKOFF_MOST_S = 60.0

#: What a gateway has refused is tried again after this time: another group may have been in the way.
REJECTED_S = 600.0

#: So much of an answer is read, and so much of it goes into the log.
_ANSWER_BYTES = 4096
_ANSWER_SHOWN = 500

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z", re.ASCII)
_GROUP = re.compile(r"(.*)/metrics/(job(?:@base64)?/.+?)/*\Z")

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def group_url(address: str, job: str = "", grouping: Mapping[str, str] | None = None) -> str:
    """Where the metrics of one group are put.

    address: of a gateway (`http://host:9091`), or of a group in it (`…/metrics/job/NAME{/LABEL/VALUE}`), which is
    taken as it is.
    grouping: further labels, `instance` among them; two clients must not share a group.
    Raises ValueError with what was found and what was expected.
    """
    found = f"found {_without_password(address)!r}"
    expected = "expected http://HOST:PORT, or http://HOST:PORT/metrics/job/NAME and pairs of /LABEL/VALUE"
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        # What the library refuses before it asks, and as it looks a name up: a label has 1 to 63 characters (RFC 1034, 3.1).
        requests.Request("PUT", address).prepare()
        (parts.hostname or "").encode("idna")
    except ValueError:  # also of the port, or of an address of IPv6
        is_whole = None
    if not is_whole or parts.query or parts.fragment:
        # Where its parts cannot be told apart, a password may go on as far as the last @.
        masked = re.sub(r"//.*@", "//", address)
        raise ValueError(f"found {masked!r}, {expected}")
    if group := _GROUP.match(parts.path):
        if len(group[2].split("/")) % 2:
            raise ValueError(f"{found}, where a label has no value; {expected}")
        return urlunsplit((parts.scheme, parts.netloc, f"{group[1]}/metrics/{group[2]}", "", ""))
    if "metrics" in parts.path.split("/"):
        raise ValueError(f"{found}, a path within a gateway that names no group; {expected}")
    if not job:
        raise ValueError(f"{found}, which names no group, and no job; expected a job")
    path = parts.path.rstrip("/") + "/metrics"
    for label, value in {"job": job, **(grouping or {})}.items():
        if not _LABEL_NAME.match(label) or label.startswith("__"):
            raise ValueError(
                f"found {label!r} as a label of the group, expected letters, digits and underscores"
            )
        path += f"/{_pair(label, value)}"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _pair(label: str, value: str) -> str:
    """One label of a group in a path. What a path might take for something else travels in base64."""
    if value and value not in (".", "..") and quote(value, safe="") == value:
        return f"{label}/{value}"
    # The gateway expects a lone "=" where there is nothing (its README, "URL").
    return f"{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)


class Answer(NamedTuple):
    """What a gateway said. status: of HTTP, 0 if there was no answer; text: escaped, and not all of it."""

    status: int
    text: str

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_rejection(self) -> bool:
        return self.status == 400


class Group:
    """One group of one gateway: the only place that speaks HTTP to it. For one thread."""

    def __init__(self, url: str, timeout_s: float, ca_file: Path | None = None) -> None:
        """url: of `group_url`. timeout_s: of each step of a request. ca_file: who may vouch for the gateway."""
        self.name = _without_password(url)
        self._url, self._timeout_s = url, timeout_s
        self._session = requests.Session()
        # Neither proxies nor passwords from the environment: what is to be used stands in the ini file.
        self._session.trust_env = False
        self._session.verify = True if ca_file is None else str(ca_file)
        # One push an interval: a connection kept open would only be found broken after a restart of the gateway.
        self._session.headers.update({"Content-Type": _CONTENT_TYPE, "Connection": "close"})

    def put(self, body: bytes) -> Answer:
        """Let the group hold this and nothing else."""
        return self._ask("PUT", body)

    def post(self, body: bytes) -> Answer:
        """Let the group hold this beside whatever it has of other metrics."""
        return self._ask("POST", body)

    def delete(self) -> Answer:
        """Remove the group. The gateway does so a little after it has answered."""
        return self._ask("DELETE", b"")

    def close(self) -> None:
        self._session.close()

    def _ask(self, method: str, body: bytes) -> Answer:
        try:
            with closing(
                self._session.request(
                    method, self._url, data=body, timeout=self._timeout_s, allow_redirects=False, stream=True
                )
            ) as response:
                text = next(response.iter_content(_ANSWER_BYTES), b"")
                return Answer(response.status_code, _shown(text.decode("utf-8", "replace")))
        except requests.RequestException as error:
            return Answer(0, _shown(_innermost(error)))


def _innermost(error: BaseException) -> str:
    """What the system said, without the layers around it, which name the URL and addresses of objects."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__


def _shown(text: str) -> str:
    """Text of a peer, made harmless for a log."""
    return "".join(each if each.isprintable() else " " for each in text).strip()[:_ANSWER_SHOWN]


class Sifted(NamedTuple):
    """What became of a set that was refused as a whole.

    accepted: what the gateway takes. rejected: each family that it does not take, and its answer.
    failure: the answer that ended the search early, None if it came to its end.
    """

    accepted: list[Family]
    rejected: list[tuple[Family, Answer]]
    failure: Answer | None = None


def sift(families: Sequence[Family], refusal: Answer, post: Callable[[Sequence[Family]], Answer]) -> Sifted:
    """Find what of a set that was refused as a whole is accepted, in about `2 log2(n)` requests for each bad family.

    refusal: of the whole. post: renews these families and leaves the others of the group as they were. So whoever
    looks at the group meanwhile misses none of those that it held.
    """
    if len(families) == 1:
        return Sifted([], [(families[0], refusal)])
    accepted: list[Family] = []
    rejected: list[tuple[Family, Answer]] = []
    pending = _halves(families)
    while pending:
        candidates = pending.pop(0)
        answer = post(candidates)
        if answer.is_good:
            accepted += candidates
        elif not answer.is_rejection:
            return Sifted(accepted, rejected, answer)
        elif len(candidates) == 1:
            rejected.append((candidates[0], answer))
        else:
            pending[:0] = _halves(candidates)
    return Sifted(accepted, rejected)


def _halves(families: Sequence[Family]) -> list[Sequence[Family]]:
    middle = len(families) // 2
    return [half for half in (families[:middle], families[middle:]) if half]


def wait_s(interval_s: float, failures_in_a_row: int) -> float:
    """How long to wait for the next push: longer after each failure, but never much longer than usual or a minute."""
    return max(interval_s, min(interval_s * 2.0 ** min(failures_in_a_row, 10), BACKOFF_MOST_S))


class Pusher:
    """Owns the thread that pushes, and what it remembers of the gateway. Nobody who shows something waits for it."""

    def __init__(
        self,
        exposition: Exposition,
        group: Group,
        *,
        interval_s: float,
        rejected_file: Path | None = None,
        delete_at_end: bool = False,
    ) -> None:
        """group: from now on the pusher's, which closes it.

        rejected_file: where a body that the gateway refused is kept for whoever looks into it.
        delete_at_end: remove the group at the end. Otherwise it keeps the last values, and nothing ever removes them.
        """
        self._exposition, self._group = exposition, group
        self._interval_s, self._rejected_file = interval_s, rejected_file
        self._delete_at_end = delete_at_end
        self._figures = PushFigures()
        self._rejected: dict[str, float] = {}  # {name of a family: until when it is left out}
        self._hopeless_until = float("-inf")
        self._complaints: set[tuple[str, str]] = set()
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)

    def start(self) -> None:
        """The first push comes after one interval: until then the group keeps what a former life has put there."""
        self._thread.start()

    def push_soon(self) -> None:
        """Do not wait for the interval to end. Returns at once."""
        self._woken.set()

    def stop(self, timeout_s: float) -> bool:
        """Push what is shown now, or delete the group, and end. False if that takes longer than so many seconds.

        The thread does not keep the process from ending then.
        """
        self._stopping = True
        self._woken.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def figures(self) -> PushFigures:
        return self._figures

    def push(self, now: float, at: float) -> None:
        """Push once; done by the thread. now: monotonic; at: the same moment as Unix time."""
        self._rejected = {name: until for name, until in self._rejected.items() if until > now}
        families = [
            each for each in self._exposition.families() if each.declaration.name not in self._rejected
        ]
        body = render(families)
        answer = self._group.put(body)
        if answer.is_rejection and now >= self._hopeless_until:
            self._keep_body(body)
            answer = self._push_what_is_accepted(families, answer, now)
        if answer.is_good:
            self._succeeded(at)
        else:
            self._failed(f"{answer.status} {answer.text}" if answer.status else answer.text)

    def end(self) -> None:
        """The last request; done by the thread."""
        if not self._delete_at_end:
            self.push(monotonic(), time.time())
        elif not (answer := self._group.delete()).is_good:
            log.warning("group not deleted url=%s status=%d reason=%s", self._group.name, *answer)

    def _run(self) -> None:
        with closing(self._group):
            while True:
                self._woken.wait(wait_s(self._interval_s, self._figures.failures_in_a_row))
                self._woken.clear()
                try:
                    if self._stopping:
                        return self.end()
                    self.push(monotonic(), time.time())
                except Exception as error:
                    # A bug here must not end the pushing for as long as the daemon lives.
                    log.exception("push failed url=%s", self._group.name)
                    self._failed(repr(error))

    def _push_what_is_accepted(self, families: Sequence[Family], refusal: Answer, now: float) -> Answer:
        """The answer to what was pushed in the end."""
        sifted = sift(families, refusal, lambda some: self._group.post(render(some)))
        if not sifted.accepted and sifted.failure is None:
            # It is not about single metrics, so there is nothing to leave out, and no point in searching again soon.
            self._hopeless_until = now + REJECTED_S
            self._complain("everything", refusal)
            return refusal
        # Also when the gateway went away before the end: the next search need not find these again.
        for family, answer in sifted.rejected:
            self._rejected[family.declaration.name] = now + REJECTED_S
            self._complain(family.declaration.name, answer)
        return sifted.failure or self._group.put(render(sifted.accepted))

    def _complain(self, what: str, answer: Answer) -> None:
        """Once for each answer: it comes again as long as nobody has looked into it."""
        if (what, answer.text) not in self._complaints:
            self._complaints.add((what, answer.text))
            log.error(
                "gateway refuses metric=%s url=%s answer=%s body=%s",
                what, self._group.name, answer.text, self._rejected_file or "not kept",
            )  # fmt: skip

    def _keep_body(self, body: bytes) -> None:
        if self._rejected_file is None:
            return
        try:
            replace_content(self._rejected_file, body)
        except OSError as error:
            log.error("refused body cannot be kept file=%s reason=%s", self._rejected_file, error.strerror)

    def _succeeded(self, at: float) -> None:
        former = self._figures
        if former.trouble:
            log.info("pushes succeed again url=%s failures=%d", self._group.name, former.failures_in_a_row)
        self._figures = former._replace(
            pushes=former.pushes + 1, failures_in_a_row=0, last_success_at=at,
            rejected=tuple(sorted(self._rejected)), trouble="",
        )  # fmt: skip

    def _failed(self, trouble: str) -> None:
        former = self._figures
        if trouble != former.trouble:
            log.warning("push failed, it is tried again url=%s reason=%s", self._group.name, trouble)
        self._figures = former._replace(
            pushes=former.pushes + 1, failures=former.failures + 1,
            failures_in_a_row=former.failures_in_a_row + 1, rejected=tuple(sorted(self._rejected)), trouble=trouble,
        )  # fmt: skip
