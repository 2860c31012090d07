"""One of every message that may come in over a network, and conversations that a master may have heard.

They are what mutations begin with. A kind of message that is new has to be added here: a test tells.
"""

from __future__ import annotations

from typing import Any

from cyclone.messages import (
    Accepted,
    Agreed,
    AskCluster,
    AskGenerator,
    AskRecords,
    AskTask,
    AskTasks,
    Assignment,
    AttemptView,
    Cancel,
    Close,
    Cluster,
    Command,
    CommandDone,
    ControllerView,
    Deliver,
    Drop,
    Ended,
    Entry,
    GeneratorAnswer,
    Goodbye,
    JobView,
    Leave,
    Message,
    Open,
    Opened,
    Place,
    RecordsKnown,
    RecordView,
    Refused,
    Report,
    Results,
    SpoolView,
    Started,
    Stored,
    Submission,
    Submit,
    TaskEnd,
    Tasks,
    TaskStory,
    TaskView,
)  # fmt: skip
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.resources import shape
from cyclone.model.task import End, Policy, Retry, first_token

#: The first token of the first life of a master.
TOKEN = first_token(1) + 1

ROOM = shape({"cpus": 2, "memory": "4GiB", "workers": 2})
POLICY = Policy(
    "jobs.Move", 1, shape({"cpus": 1, "gpu": 0.5}), 60.0, Retry(errors=1, evictions=3), 3600.0, True
)
PLAIN = Policy("jobs.Plain")
SPOOL = SpoolView("database", 3, 4096, 1.5, "no answer", 7, "is away", 1)
ENDS = [
    End(TOKEN, 0.5, 1_760_000_000.0),
    End(TOKEN + 1, 0.5, 1_760_000_000.0, Outcome.RAISED, 0, False, "ValueError: no\nTraceback"),
    End(TOKEN + 2, 0.5, 1_760_000_000.0, Outcome.SIGNALLED, 11, True, "killed by SIGSEGV"),
]
ENTRY = Entry(
    b"0123456789abcdef",
    "database",
    "file_creation",
    "job",
    "tid",
    1_760_000_000.0,
    b"\x81\xa6target\xa2fs",
)
_VIEW = TaskView(1, "job", "tid", "jobs.Plain", State.FAILED, 2, "node", ENDS[1], "given up")

#: `[(message, its enclosure)]`
FROM_CONTROLLER: list[tuple[Message, list[bytes]]] = [
    (Report(12.5, ROOM, [TOKEN, TOKEN + 1], False, "node17", 4711, 1, 0, [SPOOL], [TOKEN]), []),
    (Started([TOKEN, TOKEN + 1]), []),
    (Ended(ENDS), [b"value", b"", b""]),
    (Goodbye("told to"), []),
]
FROM_CLIENT: list[tuple[Message, list[bytes]]] = [
    (Open("job"), []),
    (Open("job", 1), []),
    (
        Submit(1, 1, [PLAIN, POLICY], [Submission("a", 0), Submission("b", 1, ("a",))]),
        [b"payload", b"payload"],
    ),
    (Close(2, 1), []),
    (Cancel(3, 1, ["a", "b"]), []),
    (AskCluster(4), []),
    (AskTasks(5, "job", [State.READY, State.FAILED], "jobs.Plain", 10), []),
    (AskTask(6, "a", "job"), []),
    (AskGenerator(7, "job", "pause", {"ost": "3"}), []),
    (CommandDone(1, '{"ok": true}'), []),
]
FROM_SERVER: list[tuple[Message, list[bytes]]] = [
    (Place(12.5, [PLAIN], [Assignment(TOKEN, "a", "job", 1, 0, False, 77)]), [b"payload"]),
    (Drop([TOKEN], True), []),
    (Agreed(12.5, [TOKEN], 5.0, 20.0), []),
    (Leave("finished", True), []),
    (Opened("job", 1, 1, 0, 1000), []),
    (Accepted([1]), []),
    (Refused("no", 1), []),
    (Results(1, 1, [TaskEnd("a", State.SUCCEEDED, 1, ENDS[0]), TaskEnd("b", State.SKIPPED, 0, None, "why")]), [b"v", b""]),
    (
        Cluster(
            1, "3.0", 1, 1, "running", 1.0, "store.db", "tcp://127.0.0.1:5555",
            [ControllerView("node", "1", "node17", 1, "up", 0.5, ROOM, ROOM, 1, 1, 2, 1, 0, [SPOOL])],
            [JobView(1, "job", "open", 1.0, 0.0, {"ready": 1}, 1.0)],
        ),
        [],
    ),
    (Tasks(1, [_VIEW], True), []),
    (TaskStory(1, _VIEW, POLICY, ["a"], "because", [AttemptView(1, "node", "error", ENDS[1])]), []),
    (Command(1, "pause", {"ost": "3"}), []),
    (GeneratorAnswer(1, "{}"), []),
    (Stored(1, 2, "is away", 3), []),
    (RecordsKnown(3, [RecordView(1), RecordView(0, True)], "is away"), []),
]  # fmt: skip
TO_SINK: list[tuple[Message, list[bytes]]] = [
    (Deliver(1, [ENTRY, ENTRY]), []),
    (Deliver(2, []), []),
    (AskRecords(3, [ENTRY.uid, b"fedcba9876543210"]), []),
]

#: What a master may hear, as the target `master` reads it: `[[who, message, seconds since the last one], …]`.
#: who: 0 and 1 are controllers, 2 and 3 clients.
CONVERSATIONS: list[list[list[Any]]] = [
    [
        [2, Open("job"), 0.0],
        [2, Submit(1, 1, [PLAIN], [Submission("a", 0), Submission("b", 0), Submission("c", 0, ("a",))]), 0.0],
        [0, Report(1.0, ROOM, []), 0.1],
        [0, Started([TOKEN]), 0.1],
        [1, Report(1.0, ROOM, []), 0.1],
        [1, Ended([End(TOKEN)]), 0.1],
        [0, Ended([End(TOKEN, 0.5, 1.0), End(TOKEN + 1, 0.5, 1.0, Outcome.RAISED)]), 0.1],
        [0, Report(2.0, ROOM, []), 5.0],
        [2, Close(2, 1), 1.0],
        [0, Goodbye("told to"), 1.0],
    ],
    [
        [2, Open("job"), 0.0],
        [3, Open("other"), 0.0],
        [2, Submit(1, 1, [POLICY], [Submission("a", 0)]), 0.0],
        [3, Submit(1, 2, [PLAIN], [Submission("a", 0), Submission("b", 0)]), 0.0],
        [3, Close(1, 1), 0.0],
        [3, Cancel(1, 1, ["a"]), 0.0],
        [0, Report(1.0, ROOM, [TOKEN]), 0.1],
        [1, Report(1.0, ROOM, [TOKEN + 7], True), 20.0],
        [2, AskTask(1, "a"), 0.0],
        [2, AskTasks(1), 0.0],
        [3, AskCluster(1), 20.0],
        [3, Close(2, 2, True), 0.0],
    ],
]
