from __future__ import annotations

import msgspec
import pytest
from msgspec import structs

from cyclone.messages import Cluster, ControllerView, JobView, SpoolView
from cyclone.metrics import own
from cyclone.metrics.family import Declaration, Family, Labels, complaint
from cyclone.metrics.figures import (
    ClientFigures,
    ControllerFigures,
    DatabaseFigures,
    PushFigures,
    SeriesFigures,
)
from cyclone.metrics.own import OWN, client_families, cluster_families, controller_families, database_families
from cyclone.model.lifecycle import ENDED, State
from cyclone.model.resources import UNIT, shape

SPOOL = SpoolView("database", entries=7, size_bytes=900, oldest_s=3.5, trouble="refused", sink_entries=40)

NODE = ControllerView(
    name="node1", life="l1", host="host1", pid=42, state="up", silent_s=1.5,
    room=shape({"cpus": 8, "memory": "64GiB", "workers": 8}),
    free=(("cpus", 2 * UNIT), ("memory", 2**35 * UNIT), ("workers", UNIT // 2)),
    placed=3, running=6, workers=8, workers_busy=6, workers_hung=1, spools=[SPOOL],
)  # fmt: skip


def cluster(
    controllers: tuple[ControllerView, ...] = (NODE,), jobs: tuple[JobView, ...] = ()
) -> list[Family]:
    return cluster_families(
        Cluster(1, "3.0.0", 7, 4, "running", 7500.0, "/var/store.db", "tcp://*:5555", [*controllers], [*jobs])
    )


def job(number: int, name: str, state: str = "open", **counts: int) -> JobView:
    return JobView(number, name, state, 1e9 + number, 0.0, counts)


def samples(families: list[Family], declaration: Declaration) -> dict[Labels, float]:
    return next((dict(family.samples) for family in families if family.declaration == declaration), {})


# The cluster.


def test_a_master_that_answers_is_told_of() -> None:
    families = cluster()

    assert samples(families, own.MASTER_UP) == {(): 1}
    assert samples(families, own.MASTER_INFO) == {("3.0.0", "tcp://*:5555"): 1}
    assert samples(families, own.MASTER_STATE) == {("running",): 1}
    assert samples(families, own.MASTER_UPTIME) == {(): 7500.0}
    assert samples(families, own.MASTER_EPOCH) == {(): 4}


def test_of_a_master_that_does_not_answer_nothing_else_is_told() -> None:
    assert cluster_families(None) == [Family(own.MASTER_UP, {(): 0})]


def test_an_open_job_tells_of_every_state_also_without_tasks_in_it() -> None:
    families = cluster(jobs=(job(1, "moves", ready=10, running=2, succeeded=5),))

    tasks, ended = samples(families, own.TASKS), samples(families, own.TASKS_ENDED)
    assert tasks.keys() | ended.keys() == {("moves", state) for state in State}
    assert {state for _, state in ended} == ENDED
    assert tasks["moves", "ready"] == 10
    assert tasks["moves", "running"] == 2
    assert tasks["moves", "resting"] == 0
    assert ended["moves", "succeeded"] == 5
    assert ended["moves", "failed"] == 0


def test_a_closed_job_keeps_what_has_ended_and_has_no_queue() -> None:
    families = cluster(jobs=(job(1, "moves", "failed", failed=1, succeeded=5),))

    assert samples(families, own.JOB_STATE) == {("moves", "failed"): 1}
    assert samples(families, own.TASKS) == {}
    assert samples(families, own.TASKS_ENDED)["moves", "failed"] == 1


def test_a_job_without_live_tasks_has_no_oldest_one() -> None:
    waiting = structs.replace(job(1, "moves", ready=1), oldest_at=5e8)

    families = cluster(jobs=(waiting, job(2, "other")))

    assert samples(families, own.JOB_OLDEST) == {("moves",): 5e8}


@pytest.mark.parametrize("backwards", [False, True])
def test_of_jobs_of_one_name_the_newest_is_told_of(backwards: bool) -> None:
    jobs = (job(1, "moves", "failed", failed=9), job(2, "moves", succeeded=1), job(3, "other"))

    families = cluster(jobs=jobs[::-1] if backwards else jobs)

    assert samples(families, own.JOB_STATE) == {("moves", "open"): 1, ("other", "open"): 1}
    assert samples(families, own.JOB_OPENED) == {("moves",): 1e9 + 2, ("other",): 1e9 + 3}
    assert samples(families, own.TASKS_ENDED)["moves", "failed"] == 0
    assert samples(families, own.TASKS_ENDED)["moves", "succeeded"] == 1


def test_controllers_are_counted_by_state() -> None:
    silent = msgspec.structs.replace(NODE, name="node2", state="silent")

    families = cluster((NODE, silent))

    counts = {("up",): 1, ("silent",): 1, ("awaited",): 0, ("leaving",): 0, ("excluded",): 0}
    assert samples(families, own.CONTROLLERS) == counts
    assert samples(families, own.CONTROLLER_STATE) == {("node1", "up"): 1, ("node2", "silent"): 1}


def test_a_controller_tells_of_its_workers_and_what_it_holds() -> None:
    families = cluster()

    assert samples(families, own.CONTROLLER_SILENT) == {("node1",): 1.5}
    assert samples(families, own.CONTROLLER_WORKERS) == {("node1",): 8}
    assert samples(families, own.CONTROLLER_BUSY) == {("node1",): 6}
    assert samples(families, own.CONTROLLER_HUNG) == {("node1",): 1}
    held = {("node1", "placed"): 3, ("node1", "running"): 6}
    assert samples(families, own.CONTROLLER_ATTEMPTS) == held


def test_amounts_of_resources_are_as_people_write_them() -> None:
    families = cluster()

    room = {("node1", "cpus"): 8, ("node1", "memory"): 2**36, ("node1", "workers"): 8}
    assert samples(families, own.CONTROLLER_ROOM) == room
    free = {("node1", "cpus"): 2, ("node1", "memory"): 2**35, ("node1", "workers"): 0.5}
    assert samples(families, own.CONTROLLER_FREE) == free


def test_what_waits_for_sinks_is_told_by_controller_and_sink() -> None:
    families = cluster()

    place = ("node1", "database")
    assert samples(families, own.CONTROLLER_SPOOL) == {place: 7}
    assert samples(families, own.CONTROLLER_SPOOL_BYTES) == {place: 900}
    assert samples(families, own.CONTROLLER_SPOOL_OLDEST) == {place: 3.5}
    assert samples(families, own.CONTROLLER_SINK_UP) == {place: 0}
    assert samples(families, own.SINK_WAITING) == {place: 40}
    assert samples(families, own.SINK_DELIVERS) == {place: 1}


def test_what_has_vanished_from_the_cluster_vanishes() -> None:
    assert any("node1" in labels for family in cluster() for labels in family.samples)

    without = cluster((), ())

    assert not any("node1" in labels for family in without for labels in family.samples)
    assert samples(without, own.CONTROLLERS)["up",] == 0


# The daemons.


def test_a_controller_tells_of_itself() -> None:
    figures = ControllerFigures(8, 6, 1, queued=12, values_kept=3, values_kept_bytes=99, spools=[SPOOL])

    families = controller_families(figures._replace(dropped=5, spool_max_bytes=10_000))

    assert samples(families, own.WORKERS) == {(): 8}
    assert samples(families, own.WORKERS_BUSY) == {(): 6}
    assert samples(families, own.WORKERS_HUNG) == {(): 1}
    assert samples(families, own.QUEUED) == {(): 12}
    assert samples(families, own.KEPT) == {(): 3}
    assert samples(families, own.KEPT_BYTES) == {(): 99}
    assert samples(families, own.SPOOL) == {("database",): 7}
    assert samples(families, own.SPOOL_BYTES) == {("database",): 900}
    assert samples(families, own.SPOOL_OLDEST) == {("database",): 3.5}
    assert samples(families, own.SINK_UP) == {("database",): 0}
    assert samples(families, own.DROPPED) == {(): 5}
    assert samples(families, own.SPOOL_LIMIT) == {(): 10_000}


def test_a_controller_without_sinks_does_not_speak_of_spools() -> None:
    families = controller_families(ControllerFigures(8, 6, 1, queued=12, values_kept=3))

    assert not [family for family in families if "spool" in family.declaration.name]


def test_a_database_proxy_tells_of_itself() -> None:
    figures = DatabaseFigures(
        received=9, stored=5, duplicates=2, dead_letters=4, unwritten=3, waiting=1, waiting_bytes=70, waiting_oldest_s=30.0,
        spool_max_bytes=1000, last_success_at=1e9, batch_s=0.25, trouble="gone away",
    )  # fmt: skip

    families = database_families(figures)

    assert samples(families, own.DATABASE_RECEIVED) == {(): 9}
    assert samples(families, own.DATABASE_STORED) == {(): 5}
    assert samples(families, own.DATABASE_DUPLICATES) == {(): 2}
    assert samples(families, own.DATABASE_DEAD) == {(): 4}
    assert samples(families, own.DATABASE_UNWRITTEN) == {(): 3}
    assert samples(families, own.DATABASE_UP) == {(): 0}
    assert samples(families, own.DATABASE_LAST) == {(): 1e9}
    assert samples(families, own.DATABASE_BATCH) == {(): 0.25}
    assert samples(families, own.SPOOL) == {("database",): 1}
    assert samples(families, own.SPOOL_BYTES) == {("database",): 70}
    assert samples(families, own.SPOOL_OLDEST) == {("database",): 30.0}
    assert samples(families, own.SPOOL_LIMIT) == {(): 1000}


def test_a_pushgateway_client_tells_of_itself() -> None:
    push = PushFigures(pushes=8, failures=3, last_success_at=1e9, rejected=("bad",))
    figures = ClientFigures(20, 2, SeriesFigures(series=5, repeated=4, stale=1, refused=6), push)

    families = client_families(figures)

    told = {family.declaration: dict(family.samples)[()] for family in families}
    assert told == {
        own.CLIENT_RECEIVED: 20, own.CLIENT_INVALID: 2, own.CLIENT_REPEATED: 4, own.CLIENT_SERIES: 5,
        own.CLIENT_STALE: 1, own.CLIENT_REFUSED: 6, own.CLIENT_PUSHES: 8, own.CLIENT_FAILURES: 3,
        own.CLIENT_REJECTED: 1, own.CLIENT_LAST: 1e9,
    }  # fmt: skip


def test_a_moment_that_has_not_come_is_not_told() -> None:
    told = [family.declaration for family in client_families(ClientFigures())]
    told += [family.declaration for family in database_families(DatabaseFigures())]

    assert own.CLIENT_LAST not in told
    assert own.DATABASE_LAST not in told


# All of them.


@pytest.mark.parametrize("declaration", OWN, ids=lambda declaration: declaration.name)
def test_prometheus_understands_every_declaration_as_it_is_meant(declaration: Declaration) -> None:
    assert complaint(declaration) == ""


def everything() -> list[list[Family]]:
    return [
        cluster(jobs=(structs.replace(job(1, "moves"), oldest_at=1.0),)),
        controller_families(ControllerFigures(8, 6, 1, 12, 3, spools=[SPOOL], spool_max_bytes=1)),
        database_families(DatabaseFigures(spool_max_bytes=1, last_success_at=1.0)),
        client_families(ClientFigures(push=PushFigures(last_success_at=1.0))),
    ]


def test_everything_that_is_declared_is_told_by_some_daemon() -> None:
    told = {family.declaration for families in everything() for family in families}

    assert told == set(OWN)


def test_every_sample_has_a_value_for_each_label_and_no_family_is_told_twice() -> None:
    for families in everything():
        names = [family.declaration.name for family in families]
        assert len(set(names)) == len(names)
        for declaration, values in families:
            assert values
            assert {len(labels) for labels in values} == {len(declaration.labels)}
