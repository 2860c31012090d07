"""The alphabet: everything that daemons and clients may say to one another, by who speaks to whom.

A message may travel with an *enclosure*: a list of opaque byte strings (pickled tasks, pickled results)
that runs parallel to one list of the message. Minds see messages only; enclosures are carried past them,
so the master cannot be made to interpret what is inside.

Times named `at` are of the sender's own clock (`clock.py`) and only ever echoed back to it. Unix times are for
people; nothing is decided by them. Messages are arrays on the wire: new fields go to the end, with a default.
"""

from __future__ import annotations

from signal import SIGURG
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cyclone.model.lifecycle import State
from cyclone.model.resources import Amounts, Shape
from cyclone.model.task import Count, End, JobNumber, Name, Number, Policy, Seconds, Tid, Token, UnixTime

#: The first byte of every frame; a peer that speaks another version is refused by name.
PROTOCOL = 1

#: The signal that asks a worker, and nobody else, for what it keeps back: the ends that it has not told, and what it
#: has not begun. Ignored by default (signal(7)), so that it harms nobody, whenever it comes.
NUDGE = SIGURG

#: No payload and no value is larger: what is, belongs into a file. A frame may be twice as long.
VALUE_BYTES_MAX = 32 << 20


#: The key of a record; see `cyclone.record.uid`.
Uid = Annotated[bytes, Meta(min_length=16, max_length=16)]

#: Of one question about records.
RECORDS_ASKED_MAX = 5000


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One sentence. Immutable, complete, meaning the same whenever it arrives."""


# Controller to master.


class SpoolView(msgspec.Struct, frozen=True):
    """What waits for one sink, and how it does.

    entries, size_bytes: on the disk of the controller. oldest_s: how long the first has waited.
    trouble: why the sink does not take them, "" if it does. sink_entries, sink_trouble, sink_refused: what it says of
    itself; see `Stored`.
    """

    sink: str
    entries: Number
    size_bytes: Number
    oldest_s: Seconds
    trouble: str = ""
    sink_entries: Number = 0
    sink_trouble: str = ""
    sink_refused: Number = 0


class Report(Message, frozen=True):
    """I am alive, this big, and hold exactly this. The heartbeat, and the first word after any silence.

    room: what attempts may use, in ten-thousandths, `workers` among them.
    held: tokens of everything here: queued, running, or ended and not dropped yet.
    leaving: I finish what I hold and take nothing more.
    started: those of them that were announced; again in every report, because a `Started` may get lost.
    """

    at: float
    room: Shape
    held: list[Token]
    leaving: bool = False
    host: str = ""
    pid: Count = 0
    workers_busy: Count = 0
    workers_hung: Count = 0
    spools: list[SpoolView] = []
    started: list[Token] = []


class Started(Message, frozen=True):
    """These attempts have been running for a while. Short ones are never mentioned before they end."""

    tokens: list[Token]


class Ended(Message, frozen=True):
    """These attempts are over. Repeated until each was answered with `Drop`. Enclosure: a value for each."""

    ends: list[End]


class Goodbye(Message, frozen=True):
    """I hold nothing any more and end now."""

    reason: str = ""


# Master to controller; `Place` also goes on from the controller to its workers.


class Assignment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt to be made.

    job: its name; attempt: 1 for the first attempt at this task.
    policy: index into the message's policies.
    alone: one of its earlier attempts was near the death of a worker or host: announce it, then run it singly.
    job_key: tells its job from all others; names and numbers come again in other stores.
    """

    token: Token
    tid: str
    job: str
    attempt: int
    policy: int
    alone: bool = False
    job_key: int = 0


class Place(Message, frozen=True):
    """Make these attempts. A token is placed once; a second arrival is ignored. Enclosure: a payload for each.

    at: the `at` of the report that earned them; the lease of an exclusive attempt is counted from it.
    """

    at: float
    policies: list[Policy]
    assignments: list[Assignment]


class Drop(Message, frozen=True):
    """Hold these no more: the end is remembered, or the attempt is not wanted and is to be stopped.

    unless_started: take back only what has not started; each is answered with an `End` that says cancelled.
    """

    tokens: list[Token]
    unless_started: bool = False


class Agreed(Message, frozen=True):
    """The answer to a report.

    at: the report's own time; renewed: the exclusive attempts in it whose lease now runs from then.
    report_s: how often to report from now on.
    """

    at: float
    renewed: list[Token]
    report_s: float
    lease_s: float


class Leave(Message, frozen=True):
    """End. now: stop what runs instead of letting it finish."""

    reason: str = ""
    now: bool = False


# Controllers and sinks.


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record on its way to a sink.

    uid: its key, the same for each attempt at its task. at: Unix time. body: a `Record` of this kind in msgpack,
    which only its sink looks into.
    """

    uid: Uid
    sink: str
    kind: str
    job: str
    tid: str
    at: UnixTime
    body: bytes


class Deliver(Message, frozen=True):
    """To a sink: keep these. Repeated until `Stored` says the same serial; none at all asks how it does."""

    serial: Number
    entries: list[Entry]


class Stored(Message, frozen=True):
    """From a sink: what came under this serial is safe with me.

    entries: what waits here for its database or gateway. trouble: why that does not take them, "" if it does.
    refused: records of this life that it never will.
    """

    serial: Number
    entries: Number = 0
    trouble: str = ""
    refused: Number = 0


# Clients and sinks.


class AskRecords(Message, frozen=True):
    """To a sink: what has become of the records of these keys? Answered with `RecordsKnown`."""

    request: Number
    uids: Annotated[list[Uid], Meta(max_length=RECORDS_ASKED_MAX)]


class RecordView(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a sink knows of one record; nothing, if all of it is nothing.

    rows: how many its database has, which is one at most. waiting: it is in the spool of the sink.
    refused: it is a dead letter. A record that waits may be a row already, when the spool is about to forget it.
    """

    rows: Number = 0
    waiting: bool = False
    refused: bool = False


class RecordsKnown(Message, frozen=True):
    """The answer to `AskRecords`, in its order.

    trouble: why the database cannot be asked now: what neither waits nor was refused may be there; "" if it was asked.
    keeps: false: this sink does not keep records at all, and has no answer.
    """

    request: Number
    records: list[RecordView]
    trouble: str = ""
    keeps: bool = True


# Controller to the processes that it owns, and back; these never leave the node.


class Finished(Message, frozen=True):
    """From a worker: these attempts are over, and this is what those among them recorded that succeeded.

    Enclosure: a value for each end.
    unbegun: what came after the one that it executes now, given back for others to do.
    """

    ends: list[End]
    entries: list[Entry] = []
    unbegun: list[Token] = []


class Hire(Message, frozen=True):
    """To the reaper: fork a worker for this slot.

    Two descriptors travel with it: its end of the channel, and its progress page.
    """

    slot: int


class Kill(Message, frozen=True):
    """To the reaper: send this signal to the worker of this slot.

    SIGKILL goes to all that it has started, a nudge (SIGURG) to the worker alone, any other to its process group.
    """

    slot: int
    signal: int


class Guard(Message, frozen=True):
    """To the reaper: kill the worker and what it started at this moment, whatever becomes of its controller.

    until: by the clock of the node (`clock.py`); a later word replaces an earlier one. None: not any more.
    """

    slot: int
    until: float | None


class Reconnect(Message, frozen=True):
    """To the line: the master does not answer; connect anew."""


# Client to master. A task generator is a client like any other.


class Open(Message, frozen=True):
    """Let me work on the open job of this name, or on a new one.

    number: 0 at first, which takes the job over; that of the job from then on, when it is the client's heartbeat.
    remember_s: for how long after its end a task has to be remembered; None: for as long as the job is open.
    """

    job: Name
    number: JobNumber = 0
    remember_s: Seconds | None = None


class Submission(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task. policy: index into the message's policies; after: tids of the same job."""

    tid: Tid
    policy: int
    after: tuple[str, ...] = ()


class Submit(Message, frozen=True):
    """Take these tasks; all or none. Enclosure: a payload for each.

    A tid that is live changes nothing; one that has ended is answered with its recorded end, unless that is forgotten.
    """

    request: int
    job: JobNumber
    policies: Annotated[list[Policy], Meta(max_length=10_000)]
    tasks: Annotated[list[Submission], Meta(max_length=100_000)]


class Close(Message, frozen=True):
    """No more tasks will come for this job. failed: because whoever made them broke down."""

    request: int
    job: JobNumber
    failed: bool = False


class Cancel(Message, frozen=True):
    """End these tasks, whether or not they run."""

    request: int
    job: JobNumber
    tids: list[str]


class AskCluster(Message, frozen=True):
    """Tell me of the master, its controllers and its jobs."""

    request: int


class AskTasks(Message, frozen=True):
    """List tasks: of this job ("" for all), in these states (none for all), the newest jobs first."""

    request: int
    job: str = ""
    states: list[State] = []
    kind: str = ""
    limit: int = 1000


class AskTask(Message, frozen=True):
    """Explain one task: of this job, or of the newest job that knows the tid if "" is given."""

    request: int
    tid: str
    job: str = ""


class AskGenerator(Message, frozen=True):
    """Ask the client that works on this job to carry out one of its commands; "" is the only job that has a client.

    The answer is `GeneratorAnswer`, or `Refused` with the reason.
    """

    request: int
    job: str
    command: str
    arguments: dict[str, str]


class CommandDone(Message, frozen=True):
    """The answer to `Command`. answer: JSON; problem: why it was not carried out, "" if it was."""

    number: int
    answer: str
    problem: str = ""


# Master to client.


class Opened(Message, frozen=True):
    """The job is open. window: how many of its tasks may be submitted and not yet ended at any time.

    What would make them more is refused as a whole, to be submitted again later.
    epoch: grows with every start of the master; serial: of the last `Results` about this job.
    A client that sees a new epoch, or another serial than it has heard last, submits its open tasks again.
    """

    name: str
    job: JobNumber
    epoch: int
    serial: int
    window: int


class Accepted(Message, frozen=True):
    """What was submitted, cancelled or closed with these requests is on disk."""

    requests: list[int]


class Refused(Message, frozen=True):
    """No, and why. request: 0 if it was not about one.

    later: only for now, so that the same may be asked again after a while.
    """

    reason: str
    request: int = 0
    later: bool = False


class TaskEnd(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a task ended.

    attempts: how many there were; end: how the last one ended, None if there was none.
    reason: why, where the last attempt does not tell ("expired", "`x` before it failed").
    """

    tid: str
    state: State
    attempts: int
    end: End | None = None
    reason: str = ""


class Results(Message, frozen=True):
    """These tasks have ended. Enclosure: a value for each.

    serial: counts these messages about one job from 1, and leaves one out when another client takes the job over.
    parts: a large one comes in so many, with one serial.
    """

    job: JobNumber
    serial: int
    ends: list[TaskEnd]
    parts: int = 1


class ControllerView(msgspec.Struct, frozen=True):
    """One controller as the master sees it. Amounts are in ten-thousandths, durations in seconds."""

    name: str
    life: str
    host: str
    pid: int
    state: str
    silent_s: float
    room: Amounts
    free: Amounts
    placed: int
    running: int
    workers: int
    workers_busy: int
    workers_hung: int
    spools: list[SpoolView] = []


class JobView(msgspec.Struct, frozen=True):
    """One job. counts: tasks by state; opened_at, closed_at: Unix times, 0 if not yet.

    oldest_at: when the oldest of its tasks was accepted that has not ended, Unix time; 0 if there is none.
    forgotten: how many of the tasks that are counted have ended so long ago that nothing else is known of them.
    """

    number: JobNumber
    name: str
    state: str
    opened_at: float
    closed_at: float
    counts: dict[str, int]
    oldest_at: float = 0.0
    forgotten: int = 0


class Cluster(Message, frozen=True):
    """The answer to `AskCluster`."""

    request: int
    version: str
    pid: int
    epoch: int
    state: str
    up_s: float
    store: str
    address: str
    controllers: list[ControllerView]
    jobs: list[JobView]


class TaskView(msgspec.Struct, frozen=True):
    """One task, in a line. end: of its last ended attempt; controller: who holds it or held it last."""

    number: int
    job: str
    tid: str
    kind: str
    state: State
    attempts: int
    controller: str = ""
    end: End | None = None
    reason: str = ""


class Tasks(Message, frozen=True):
    """The answer to `AskTasks`. more: the limit cut the list."""

    request: int
    tasks: list[TaskView]
    more: bool = False


class AttemptView(msgspec.Struct, frozen=True):
    """One attempt that has ended. cause: what it was billed to, "" for a success."""

    attempt: int
    controller: str
    cause: str
    end: End


class Command(Message, frozen=True):
    """Somebody asks for a command of the job's generator. Answered with `CommandDone`; may come twice."""

    number: int
    command: str
    arguments: dict[str, str]


class GeneratorAnswer(Message, frozen=True):
    """The answer to `AskGenerator`. answer: JSON."""

    request: int
    answer: str


class TaskStory(Message, frozen=True):
    """The answer to `AskTask`: the task, its policy, why it stands where it stands, and every attempt."""

    request: int
    task: TaskView
    policy: Policy
    after: list[str]
    why: str
    attempts: list[AttemptView]


FromController: TypeAlias = Report | Started | Ended | Goodbye
ToController: TypeAlias = Place | Drop | Agreed | Leave | Refused
FromClient: TypeAlias = (
    Open | Submit | Close | Cancel | AskCluster | AskTasks | AskTask | AskGenerator | CommandDone
)
ToClient: TypeAlias = (
    Opened | Accepted | Refused | Results | Cluster | Tasks | TaskStory | Leave | Command | GeneratorAnswer
)
ToSink: TypeAlias = Deliver | AskRecords
FromSink: TypeAlias = Stored | Refused | RecordsKnown
AnyMessage: TypeAlias = FromController | ToController | FromClient | ToClient | ToSink | FromSink
