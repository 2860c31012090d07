"""Tasks that may be placed, in lanes of equal shape; in each lane by priority, then age.

Placing looks at the head of each lane, so it costs the number of lanes, not of tasks.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from itertools import groupby
from operator import attrgetter

from cyclone.core.live import Task, with_worker
from cyclone.model.lifecycle import State
from cyclone.model.resources import Shape


class Lane:
    """Ready tasks of one shape.

    shape: with the worker that each attempt takes. passed_over_since: when a task here was first found not
    to fit anywhere although it was its turn; None if that is not so.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.size = 0
        self.passed_over_since: float | None = None
        self._levels: dict[int, deque[Task]] = {}
        self._priorities: list[int] = []  # negated, so that the highest comes first

    def push(self, task: Task, *, returned: bool) -> None:
        level = self._level(task.policy.priority)
        if returned:
            level.appendleft(task)
        else:
            level.append(task)
        self.size += 1

    def extend(self, priority: int, tasks: list[Task]) -> None:
        self._level(priority).extend(tasks)
        self.size += len(tasks)

    def _level(self, priority: int) -> deque[Task]:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = deque()
            insort(self._priorities, -priority)
        return level

    def head(self) -> Task | None:
        """The next task, left in its place. Tasks that ended while they were queued are swept out here."""
        while self._priorities:
            level = self._levels[-self._priorities[0]]
            while level:
                if level[0].state is State.READY:
                    return level[0]
                level.popleft()
            del self._levels[-self._priorities.pop(0)]
        return None

    def take(self, most: int, *, alone: bool) -> list[Task]:
        """Take out the head and up to so many in all that follow it and share its policy.

        alone: whether the head is suspect; those behind it must not differ in that.
        """
        head = self.head()
        if head is None:
            return []
        level = self._levels[-self._priorities[0]]
        policy = head.policy
        tasks = [level.popleft()]
        while level and len(tasks) < most:
            task = level[0]
            if task.state is not State.READY:
                level.popleft()
                continue
            if task.policy is not policy or (task.history is not None and task.is_suspect is not alone):
                break
            tasks.append(level.popleft())
        self.size -= len(tasks)
        return tasks


class ReadyQueue:
    """All lanes."""

    def __init__(self) -> None:
        self._lanes: dict[Shape, Lane] = {}

    def __len__(self) -> int:
        return sum(lane.size for lane in self._lanes.values())

    def push(self, task: Task, *, returned: bool = False) -> None:
        """returned: it was placed before, so it is older than those that were not."""
        self._lane(task.policy.resources).push(task, returned=returned)

    def extend(self, tasks: list[Task]) -> None:
        """Push many that were never placed."""
        for policy, alike in groupby(tasks, key=attrgetter("policy")):
            self._lane(policy.resources).extend(policy.priority, list(alike))

    def _lane(self, shape: Shape) -> Lane:
        lane = self._lanes.get(shape)
        if lane is None:
            lane = self._lanes[shape] = Lane(with_worker(shape))
        return lane

    def forget(self, task: Task) -> None:
        """It was queued and has ended."""
        self._lanes[task.policy.resources].size -= 1

    def lane_of(self, task: Task) -> Lane | None:
        return self._lanes.get(task.policy.resources)

    def in_turn(self) -> list[Lane]:
        """Lanes that hold something, the one whose turn it is first: by priority, then age, of their heads."""
        turns = []
        for shape in [shape for shape, lane in self._lanes.items() if lane.size == 0]:
            del self._lanes[shape]
        for lane in self._lanes.values():
            head = lane.head()
            if head is not None:
                turns.append((-head.policy.priority, head.number, lane))
        turns.sort(key=lambda turn: turn[:2])
        return [lane for _, _, lane in turns]
