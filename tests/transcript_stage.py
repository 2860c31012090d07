"""Plays transcripts: words of the world in, what a mind decides out, both as lines of text.

A transcript is prose, and blocks of commands, a line `----`, and what was decided because of them. Tasks are
named by tid; a token (`1.3`) stands for one attempt. Numbers that tell how a task is to be treated are fields of
its policy.

    submit TID … [after=TID,TID] [FIELD=VALUE …]     open             cancel TID …
    join NAME [life=N] [workers=N] [RESOURCE=N …]    close [failed]   tick SECONDS
    report NAME [held=all|nothing|TID,TID] [leaving] restart          states
    started NAME TID …                               stop [now]
    ended NAME TID|TOKEN … [outcome=WORD] [died]     goodbye NAME

A transcript that begins with `crew` is about a controller's mind:

    crew [workers=N] [RESOURCE=N …]      place TID … [FIELD=VALUE …] [alone]     agree [TID …]
    run SLOT PLACE                       finish SLOT TID …                       give_back SLOT TID …
    die SLOT STATUS RUNNING|-            drop TID … [unless_started]             leave [now]
    tick SECONDS
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from core_builders import CLIENT, Master, Node, a_policy

from cyclone.core.decision import Decision
from cyclone.messages import (
    Accepted,
    Agreed,
    Assignment,
    Cancel,
    Close,
    Drop,
    Ended,
    Goodbye,
    Guard,
    Hire,
    Kill,
    Leave,
    Message,
    Open,
    Opened,
    Place,
    Report,
    Results,
    Started,
)
from cyclone.model.changes import (
    AttemptEnded,
    Change,
    JobClosed,
    JobOpened,
    JobSealed,
    PlacementOver,
    TaskAccepted,
    TaskEnded,
    TasksPlaced,
)
from cyclone.model.lifecycle import Outcome, State
from cyclone.model.peer import Peer
from cyclone.model.task import End, Retry, Token, first_token, token_text

SEPARATOR = "----"


def replay(transcript: str) -> str:
    """The same transcript with what the minds decide now."""
    stage: MasterStage | CrewStage | None = None
    blocks = []
    for block in transcript.strip().split("\n\n"):
        commands, separator, _ = block.partition(SEPARATOR)
        if not separator:
            blocks.append(block)
            continue
        lines = commands.strip().splitlines()
        if stage is None:
            stage = CrewStage() if lines[0].startswith("crew") else MasterStage()
        said: list[str] = []
        for command in lines:
            if len(lines) > 1:
                said.append(f"> {command}")
            said += stage.play(command)
        blocks.append("\n".join([*lines, SEPARATOR, *(said or ["(nothing)"])]))
    return "\n\n".join(blocks) + "\n"


class Words:
    """One command: a verb, words, and `name=value` pairs."""

    def __init__(self, line: str) -> None:
        self.verb, *rest = line.split()
        self.plain = [word for word in rest if "=" not in word]
        self.named = dict(word.split("=", 1) for word in rest if "=" in word)

    def flag(self, name: str) -> bool:
        """Take out a word that is there or not."""
        there = name in self.plain
        if there:
            self.plain.remove(name)
        return there

    def policy(self) -> dict[str, Any]:
        """What is left of the pairs, as fields of a policy."""
        fields: dict[str, Any] = {}
        for name, value in self.named.items():
            if name in Retry.__struct_fields__:
                retry = fields.get("retry", Retry())
                fields["retry"] = msgspec.structs.replace(retry, **{name: float(value)})
            elif name == "resources":
                fields[name] = {part.split(":")[0]: part.split(":")[1] for part in value.split(",")}
            elif name == "kind":
                fields[name] = value
            else:
                fields[name] = {"exclusive": bool, "priority": int}.get(name, float)(value)
        return fields


class MasterStage:
    """A master with one client."""

    def __init__(self) -> None:
        self._master = Master()
        self._began = self._master.now
        self._peers: dict[str, Peer] = {}
        self._tokens: dict[str, str] = {}  # of tasks that have ended: by tid, the newest

    def play(self, line: str) -> Iterator[str]:
        words = Words(line)
        play: Callable[[Words], Decision | list[str]] = getattr(self, f"_{words.verb}")
        done = play(words)
        if isinstance(done, list):
            return iter(done)
        return _told(done, self._began)

    def _open(self, words: Words) -> Decision:
        return self._master.hear(CLIENT, Open("job"))

    def _submit(self, words: Words) -> Decision:
        after = tuple(words.named.pop("after", "").split(",")) if "after" in words.named else ()
        job = next(iter(self._master.mind.jobs), None) or self._master.open()
        return self._master.submit(*words.plain, after=after, job=job, **words.policy())

    def _join(self, words: Words) -> Decision:
        [name] = words.plain
        life = words.named.pop("life", "1")
        workers = int(words.named.pop("workers", "1"))
        self._peers[name] = self._master.join(name, life, workers, **words.named)
        return self._master.decision

    def _report(self, words: Words) -> Decision:
        leaving = words.flag("leaving")
        [name] = words.plain
        held = words.named.get("held", "all")
        listed = None if held == "all" else [] if held == "nothing" else self._tokens_of(held.split(","))
        return self._master.report(self._peers[name], listed, leaving=leaving)

    def _started(self, words: Words) -> Decision:
        name, *tids = words.plain
        return self._master.started(self._peers[name], *self._tokens_of(tids))

    def _ended(self, words: Words) -> Decision:
        died = words.flag("died")
        name, *tids = words.plain
        outcome = Outcome(words.named.get("outcome", "succeeded"))
        duration_s = float(words.named.get("duration_s", 5))
        tokens = self._tokens_of(tids)
        return self._master.ended(
            self._peers[name], *tokens, outcome=outcome, died=died, duration_s=duration_s
        )

    def _tokens_of(self, names: list[str]) -> list[Token]:
        return [_token(name) if name[0].isdigit() else self._master.token(name) for name in names]

    def _cancel(self, words: Words) -> Decision:
        return self._master.hear(CLIENT, Cancel(0, 1, words.plain))

    def _close(self, words: Words) -> Decision:
        return self._master.hear(CLIENT, Close(0, 1, words.flag("failed")))

    def _goodbye(self, words: Words) -> Decision:
        return self._master.hear(self._peers[words.plain[0]], Goodbye())

    def _tick(self, words: Words) -> Decision:
        return self._master.tick(float(words.plain[0]))

    def _stop(self, words: Words) -> Decision:
        return self._master.stop(at_once=words.flag("now"))

    def _restart(self, words: Words) -> list[str]:
        self._master.start()
        return self._states(words)

    def _states(self, words: Words) -> list[str]:
        tids: dict[State, list[str]] = {}
        for job in self._master.mind.jobs.values():
            for task in job.tasks.values():
                tids.setdefault(task.state, []).append(task.tid)
        return [f"{state}: {' '.join(named)}" for state, named in tids.items()] or ["no task lives"]


class CrewStage:
    """A controller's mind, its reaper and its workers."""

    def __init__(self) -> None:
        self._node = Node()
        self._began = self._node.now
        self._tokens: dict[str, Token] = {}

    def play(self, line: str) -> Iterator[str]:
        words = Words(line)
        play: Callable[[Words], Decision] = getattr(self, f"_{words.verb}")
        return _told(play(words), self._began)

    def _crew(self, words: Words) -> Decision:
        workers = int(words.named.pop("workers", "1"))
        resources = {"cpus": workers, **{name: float(value) for name, value in words.named.items()}}
        self._node = Node(workers, resources=resources, started=False)
        return self._node.tick()

    def _place(self, words: Words) -> Decision:
        alone = words.flag("alone")
        first = max(self._tokens.values(), default=first_token(1)) + 1
        assignments = [
            Assignment(token, tid, "job", 1, 0, alone) for token, tid in enumerate(words.plain, first)
        ]
        self._tokens.update({assignment.tid: assignment.token for assignment in assignments})
        return self._node.hear(Place(self._node.now, [a_policy(**words.policy())], assignments))

    def _run(self, words: Words) -> Decision:
        slot, place = map(int, words.plain)
        self._node.run(slot, place)
        return Decision()

    def _finish(self, words: Words) -> Decision:
        slot, *tids = words.plain
        duration_s = float(words.named.get("duration_s", 1))
        return self._node.finish(int(slot), *[self._tokens[tid] for tid in tids], duration_s=duration_s)

    def _give_back(self, words: Words) -> Decision:
        slot, *tids = words.plain
        return self._node.give_back(int(slot), *[self._tokens[tid] for tid in tids])

    def _die(self, words: Words) -> Decision:
        slot, status, running = words.plain
        return self._node.die(int(slot), int(status), None if running == "-" else int(running))

    def _drop(self, words: Words) -> Decision:
        unless_started = words.flag("unless_started")
        return self._node.hear(Drop([self._tokens[tid] for tid in words.plain], unless_started))

    def _agree(self, words: Words) -> Decision:
        return self._node.agree(renewed=[self._tokens[tid] for tid in words.plain])

    def _tick(self, words: Words) -> Decision:
        return self._node.tick(float(words.plain[0]))

    def _leave(self, words: Words) -> Decision:
        return self._node.leave(at_once=words.flag("now"))


# Decisions as lines.


def _told(decision: Decision, began: float) -> Iterator[str]:
    for change in decision.changes:
        yield f"remember {_change(change)}"
    for letter in decision.letters:
        yield f"say {letter.to.name}{f'#{letter.to.life}' if letter.to.life else ''}: {_message(letter.message, began)}"
    for note in decision.notes:
        yield f"note {note}"


def _change(change: Change) -> str:
    match change:
        case JobOpened(number, name):
            return f"job {number} ({name}) is open"
        case JobSealed(number, state):
            return f"job {number} is {state}"
        case JobClosed(number, state):
            return f"job {number} is closed: {state}"
        case TaskAccepted():
            after = f" after {' '.join(change.after)}" if change.after else ""
            return f"task {change.number} ({change.tid}) is accepted{after}"
        case TasksPlaced(first, peer, numbers):
            return f"{_tokens(range(first, first + len(numbers)))} went to {peer} for tasks {numbers}"
        case PlacementOver(first):
            return f"the placement of {token_text(first)} is over"
        case AttemptEnded(number, attempt, peer, cause, end):
            return f"attempt {attempt} of task {number} ended on {peer}, billed to {cause}: {_end(end)}"
        case TaskEnded():
            over = change.end
            last = f", {_end(over.end)}" if over.end else ""
            reason = f" ({over.reason})" if over.reason else ""
            return f"{over.tid} is {over.state} after {over.attempts} attempts{last}{reason}"


def _message(message: Message, began: float) -> str:
    match message:
        case Place():
            given = [
                f"{each.tid} as {token_text(each.token)}{f' attempt {each.attempt}' if each.attempt > 1 else ''}"
                f"{' alone' if each.alone else ''}"
                for each in message.assignments
            ]
            return f"Place {', '.join(given)}"
        case Drop():
            return f"Drop {_tokens(message.tokens)}{' unless started' if message.unless_started else ''}"
        case Agreed():
            renewed = f", renewed {_tokens(message.renewed)}" if message.renewed else ""
            return f"Agreed to the report of second {message.at - began:g}{renewed}"
        case Report():
            leaving = ", leaving" if message.leaving else ""
            return f"Report holds {_tokens(message.held) or 'nothing'}{leaving}"
        case Started():
            return f"Started {_tokens(message.tokens)}"
        case Ended():
            return f"Ended {', '.join(_end(end) for end in message.ends)}"
        case Results():
            ends = ", ".join(f"{end.tid} {end.state}" for end in message.ends)
            return f"Results {message.serial}: {ends}"
        case Opened():
            return f"Opened job {message.job}, epoch {message.epoch}, serial {message.serial}"
        case Accepted():
            return "Accepted"
        case Leave():
            return f"Leave{' now' if message.now else ''} ({message.reason})"
        case Hire():
            return f"Hire for slot {message.slot}"
        case Kill():
            return f"Kill slot {message.slot} with signal {int(message.signal)}"
        case Guard():
            until = "no more" if message.until is None else f"until second {message.until - began:g}"
            return f"Guard slot {message.slot} {until}"
        case _:
            return str(message)


def _end(end: End) -> str:
    code = f" {end.code}" if end.code else ""
    error = f" [{end.error}]" if end.error else ""
    return f"{token_text(end.token)} {end.outcome}{code}{' and died' if end.died else ''}{error}"


def _tokens(tokens: Any) -> str:
    return " ".join(map(token_text, tokens))


def _token(text: str) -> Token:
    epoch, _, sequence = text.partition(".")
    return first_token(int(epoch)) + int(sequence)
