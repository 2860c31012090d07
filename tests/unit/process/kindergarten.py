"""A nursery with somebody who looks after it: the least that a controller does, for tests."""

import os
import pickle
import select
import signal
import time
import uuid

from cyclone.messages import Assignment, Place
from cyclone.process.former_lives import carriers
from cyclone.process.nursery import Nursery
from cyclone.process.reaper import Born, Died

DEADLINE_S = 30.0


def until(question, what="it"):
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.005)
    return answer


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b")", 1)[1].split()[0] not in b"ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_in(file):
    """The pid that a task writes into a file, as soon as it is there."""
    return int(until(lambda: file.exists() and file.read_text().strip(), f"a pid in {file}"))


class Kindergarten:
    def __init__(self, program="cyclone.daemons.worker"):
        self.life = uuid.uuid4().hex
        self.nursery = Nursery(program)
        self.nursery.start(self.life)
        self.hired = {}
        self.pids = {}
        self.events = []
        self.ends = {}
        self.values = {}
        self.entries = {}
        self.unbegun = {}
        self.tokens = 0

    def employ(self, slot=1):
        self.hire(slot)
        return self.expect(Born, slot).pid

    def hire(self, slot):
        """Do not wait for its birth."""
        self.dismiss(slot)
        self.hired[slot] = self.nursery.hire(slot)
        self.ends[slot], self.values[slot], self.entries[slot], self.unbegun[slot] = [], [], [], []

    def dismiss(self, slot):
        """Let go of what we hold of a worker."""
        if hired := self.hired.pop(slot, None):
            hired.channel.close()
            hired.progress.close()

    def place(self, slot, *tasks):
        payloads = [task if isinstance(task, bytes) else pickle.dumps(task) for task in tasks]
        assignments = []
        for _ in tasks:
            self.tokens += 1
            assignments.append(Assignment(self.tokens, f"tid-{self.tokens}", "job", 1, 0))
        self.hired[slot].channel.send(Place(0.0, [], assignments), payloads)

    def turn(self, timeout_s=0.02):
        """Once around: hear whoever has something to say."""
        open_channels = {
            slot: hired.channel for slot, hired in self.hired.items() if not hired.channel.closed
        }
        poll = select.poll()
        poll.register(self.nursery, select.POLLIN)
        for channel in open_channels.values():
            poll.register(channel, select.POLLIN | (select.POLLOUT if channel.has_unsent else 0))
        poll.poll(timeout_s * 1000)
        for slot, channel in open_channels.items():
            channel.flush()
            self._keep(slot, channel.receive())
        for event in self.nursery.receive():
            if isinstance(event, Died):
                self._keep(event.slot, self.hired[event.slot].channel.drain())
            self.events.append(event)

    def until(self, question, what="it"):
        return until(lambda: (self.turn(), question())[1], what)

    def expect(self, kind, slot=None):
        """The next event of this kind."""

        def found():
            for event in self.events:
                if isinstance(event, kind) and slot in (None, getattr(event, "slot", None)):
                    self.events.remove(event)
                    return event
            return None

        return self.until(found, kind.__name__)

    def result(self, *tasks, slot=1):
        """Have tasks executed: `[(end, value), …]`, the only pair if there is one task."""
        before = len(self.ends[slot])
        self.place(slot, *tasks)
        self.until(lambda: len(self.ends[slot]) == before + len(tasks), "ends")
        pairs = list(zip(self.ends[slot], self.values[slot], strict=True))[before:]
        return pairs[0] if len(tasks) == 1 else pairs

    def close(self):
        left = self.nursery.close()
        for slot in list(self.hired):
            self.dismiss(slot)
        try:
            assert left == frozenset()
            assert carriers(self.life) == set()
        finally:
            for pid in carriers(self.life):
                os.kill(pid, signal.SIGKILL)

    def _keep(self, slot, messages):
        for ended, values in messages:
            self.ends[slot] += ended.ends
            self.values[slot] += [pickle.loads(value) if value else None for value in values]
            self.entries[slot] += ended.entries
            self.unbegun[slot] += ended.unbegun
