"""Real daemons at work while what is malformed is thrown at every door: none dies, none is disturbed, nothing is forged.

`benchmarks/malformed.py` does the same a hundred times longer, and measures.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from acceptance.cluster import Cluster
from fuzz.siege import MALLORY, Siege

from cyclone.errors import EXIT_OK, EXIT_TASK_FAILED
from cyclone.messages import Finished
from cyclone.model.task import End

#: What a daemon may grow by: caches that were empty, and what the allocator keeps.
GROWTH_BYTES = 64 * 2**20


@pytest.fixture
def siege(cluster: Cluster) -> Iterator[Siege]:
    besieged = Siege(cluster)
    yield besieged
    besieged.end()


def test_nothing_malformed_ends_a_daemon_or_disturbs_anybody(siege: Siege) -> None:
    siege.work(2000, records=True)
    before = siege.memory_bytes()

    for number, door in enumerate(siege.doors):
        siege.attack("garbage", door, "--connections", 300, "--seed", number)
        siege.attack("strangers", door, "--connections", 100, "--seed", number)
        siege.attack("session", door, "--frames", 4000, "--keys", ",".join(MALLORY), "--seed", number)
    for _ in range(3):
        siege.work(1000, records=True)
    reports = siege.reports()
    siege.work(1000, records=True)

    siege.assert_everybody_lives()
    siege.assert_every_task_has_one_end()
    siege.assert_every_record_is_there_once(siege.accepted)
    assert sum(report.get("frames", 0) for report in reports) == 12_000
    assert sum(report.get("connections", 0) for report in reports) == 1200
    assert sum(report.get("admitted", 0) for report in reports) == 0
    after = siege.memory_bytes()
    assert {
        name: after[name] - before[name] for name in after if after[name] - before[name] > GROWTH_BYTES
    } == {}


FORGER = """
FRAME = bytes.fromhex({frame!r})

class Forge(BaseTask):
    def execute(self):
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{{name}}").startswith("socket:"):
                    os.write(int(name), FRAME)
            except OSError:
                continue
        time.sleep(60)

class Honest(BaseTask):
    def execute(self):
        time.sleep(0.01)

class Job(Telling, TaskGenerator):
    def run(self):
        self.submit(Forge())
        for number in range(100):
            self.submit(Honest())
        for result in self.results():
            self.on_result(result)
"""


def test_a_task_that_speaks_for_its_worker_is_believed_nothing(cluster: Cluster) -> None:
    body = msgspec.msgpack.encode(Finished([End(1, 0.1, 1.0), End(2, 0.1, 1.0)]))
    frame = struct.pack("<QII", len(body) + 8, len(body), 2) + body + bytes(8)
    cluster.write_job(FORGER.format(frame=frame.hex()))
    master = cluster.start_master()
    controller = cluster.start_controller(workers=2)

    assert master.wait() == EXIT_TASK_FAILED
    assert controller.wait() == EXIT_OK

    assert "worker said nonsense" in controller.log
    outcomes = Counter(result["outcome"] for result in cluster.told())
    assert outcomes == {"succeeded": 100, "signalled": 1}
