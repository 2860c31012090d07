"""Who comes after whom. Edges exist only between tasks of one job and only while both are live."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from cyclone.core.live import TEXT_MOST, Task
from cyclone.messages import Submission
from cyclone.model.task import TaskNumber

#: Of a circle of tasks that come after one another, so many are named.
CYCLE_NAMED = 10


class Graph:
    """For each task that others come after: those others. For each waiting task: how many it waits for."""

    def __init__(self) -> None:
        self._followers: dict[TaskNumber, list[Task]] = {}
        self._missing: dict[TaskNumber, int] = {}

    def add(self, task: Task, predecessors: Sequence[Task]) -> None:
        """The task waits for these live tasks (at least one, each once)."""
        self._missing[task.number] = len(predecessors)
        for predecessor in predecessors:
            self._followers.setdefault(predecessor.number, []).append(task)

    def succeeded(self, task: Task) -> list[Task]:
        """The task has succeeded: those that wait for nobody any more, oldest edge first."""
        free = []
        for follower in self._followers.pop(task.number, ()):
            left = self._missing.get(follower.number)
            if left is None:
                continue  # it ended while it waited
            if left > 1:
                self._missing[follower.number] = left - 1
            else:
                del self._missing[follower.number]
                free.append(follower)
        return free

    def failed(self, task: Task) -> list[Task]:
        """The task has ended without success: those that wait for it in vain."""
        followers = self._followers.pop(task.number, [])
        return [follower for follower in followers if self._missing.pop(follower.number, None) is not None]

    def forget(self, task: Task) -> None:
        """The waiting task has ended by itself."""
        self._missing.pop(task.number, None)

    def waits_for(self, task: Task) -> int:
        return self._missing.get(task.number, 0)


def predecessors(tasks: Sequence[Submission]) -> dict[str, tuple[str, ...]]:
    """What each task that comes after others comes after. Of a tid that stands there twice, the first counts."""
    if not any(task.after for task in tasks):
        return {}
    first: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        first.setdefault(task.tid, task.after)
    return {tid: after for tid, after in first.items() if after}


def problem_with(after: Mapping[str, tuple[str, ...]], *known: Container[str]) -> str:
    """Why tasks cannot come after one another like this; "" if they can.

    after: as `predecessors` tells it; known: where the tids that they may come after are.
    """
    for tid, names in after.items():
        for name in names:
            if not any(name in tids for tids in known):
                return f"task {tid!r} comes after {name[:TEXT_MOST]!r}, which this job does not know"
    if cycle := find_cycle(after):
        named = cycle
        if len(cycle) > CYCLE_NAMED:
            named = [*cycle[:CYCLE_NAMED], f"… ({len(cycle) - 1} tasks)"]
        return f"tasks come after one another in a circle: {' after '.join(named)}"
    return ""


def find_cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """One cycle among these tids, each followed by one that it comes after, the first repeated at the end.

    after: `{tid: tids that it comes after}`; tids that are no keys are ended or older and lead nowhere.
    Returns [] if there is none. Depth-first with its own stack: a chain may be as long as a submission.
    """
    done: set[str] = set()
    for start in after:
        if start in done:
            continue
        path, on_path = [start], {start}
        branches = [iter(after[start])]
        while branches:
            following = next(branches[-1], None)
            if following is None:
                branches.pop()
                done.add(path[-1])
                on_path.discard(path.pop())
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following in after and following not in done:
                path.append(following)
                on_path.add(following)
                branches.append(iter(after[following]))
    return []
