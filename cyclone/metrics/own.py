"""What Cyclone tells Prometheus of itself: of the cluster, of one controller, of the sinks.

Each function makes every family of its subject anew from what it is given, so what has vanished there vanishes here.

No label is called `job`, which Prometheus keeps for itself: Cyclone's jobs are `job_name`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from cyclone.messages import Cluster, ControllerView, JobView, SpoolView
from cyclone.metrics.family import Declaration, Family, Labels
from cyclone.metrics.figures import ClientFigures, ControllerFigures, DatabaseFigures
from cyclone.model.lifecycle import ENDED, State
from cyclone.model.resources import plain

# Of the cluster, as the master sees it.

MASTER_UP = Declaration("cyclone_master_up", "Whether the master answers: 1 if it does.")
MASTER_INFO = Declaration(
    "cyclone_master_info", "The master, its version and its address. Always 1.", ("version", "address")
)
MASTER_STATE = Declaration("cyclone_master_state", "1 for the state that the master is in.", ("state",))
MASTER_UPTIME = Declaration("cyclone_master_uptime_seconds", "How long ago the master was started.")
MASTER_EPOCH = Declaration("cyclone_master_epoch", "Grows with every start of the master.")

JOB_STATE = Declaration(
    "cyclone_job_state",
    "1 for the state of the newest job of each name: open, succeeded or failed.",
    ("job_name", "state"),
)
JOB_OPENED = Declaration(
    "cyclone_job_opened_timestamp_seconds", "When the newest job of each name was opened.", ("job_name",)
)
JOB_OLDEST = Declaration(
    "cyclone_job_oldest_task_timestamp_seconds",
    "When the oldest task of the newest job of each name was accepted that has not ended.",
    ("job_name",),
)
TASKS = Declaration(
    "cyclone_tasks",
    "Tasks of an open job that have not ended, by the state that they are in. All but placed and running ones wait.",
    ("job_name", "state"),
)
TASKS_ENDED = Declaration(
    "cyclone_tasks_ended_total",
    "Tasks that have ended, by how, of the newest job of each name; begins anew with the next job of that name.",
    ("job_name", "state"),
    "counter",
)

CONTROLLERS = Declaration("cyclone_controllers", "How many controllers are in each state.", ("state",))
CONTROLLER_STATE = Declaration(
    "cyclone_controller_state",
    "1 for the state of each controller: up, awaited, silent or leaving.",
    ("controller", "state"),
)
CONTROLLER_SILENT = Declaration(
    "cyclone_controller_silent_seconds", "How long ago a controller was heard.", ("controller",)
)
CONTROLLER_ROOM = Declaration(
    "cyclone_controller_room", "What a controller has of each resource.", ("controller", "resource")
)
CONTROLLER_FREE = Declaration(
    "cyclone_controller_free", "How much of each resource no task has taken.", ("controller", "resource")
)
CONTROLLER_WORKERS = Declaration(
    "cyclone_controller_workers", "Workers of a controller that can execute tasks.", ("controller",)
)
CONTROLLER_BUSY = Declaration(
    "cyclone_controller_workers_busy", "Workers of a controller that execute a task.", ("controller",)
)
CONTROLLER_HUNG = Declaration(
    "cyclone_controller_workers_hung",
    "Workers of a controller that are stuck in the kernel and do nothing more.",
    ("controller",),
)
CONTROLLER_ATTEMPTS = Declaration(
    "cyclone_controller_attempts",
    "Attempts that a controller holds. Short ones are never announced before they end: they are placed.",
    ("controller", "state"),
)
CONTROLLER_SPOOL = Declaration(
    "cyclone_controller_spool_records",
    "Records that wait on a controller for a sink.",
    ("controller", "sink"),
)
CONTROLLER_SPOOL_BYTES = Declaration(
    "cyclone_controller_spool_bytes", "Bytes of the records that wait for a sink.", ("controller", "sink")
)
CONTROLLER_SPOOL_OLDEST = Declaration(
    "cyclone_controller_spool_oldest_seconds",
    "How long the first of the records that wait for a sink has waited.",
    ("controller", "sink"),
)
CONTROLLER_SINK_UP = Declaration(
    "cyclone_controller_sink_up", "Whether a sink takes what a controller has for it.", ("controller", "sink")
)
SINK_WAITING = Declaration(
    "cyclone_controller_sink_waiting_records",
    "Records that wait at a sink for its database or gateway, as a controller was told last.",
    ("controller", "sink"),
)
SINK_DELIVERS = Declaration(
    "cyclone_controller_sink_delivers",
    "Whether a sink can pass on what it has, as a controller was told last.",
    ("controller", "sink"),
)

# Of one controller, by itself. Which one is told by the target that is scraped.

WORKERS = Declaration("cyclone_workers", "Workers of this controller.")
WORKERS_BUSY = Declaration(
    "cyclone_workers_busy", "Workers that execute a task, also those that hang in one."
)
WORKERS_HUNG = Declaration("cyclone_workers_hung", "Workers that are stuck in the kernel.")
QUEUED = Declaration("cyclone_attempts_queued", "Attempts that no worker has started.")
KEPT = Declaration("cyclone_values_kept", "Values of ended attempts that the master has not taken over.")
KEPT_BYTES = Declaration("cyclone_values_kept_bytes", "Bytes of the values that are kept for the master.")
SINK_UP = Declaration("cyclone_sink_up", "Whether a sink takes what this controller has for it.", ("sink",))
DROPPED = Declaration(
    "cyclone_records_dropped_total",
    "Records that were dropped, the oldest first, because the spool was full.",
    kind="counter",
)

# Of a spool: of a controller for each of its sinks, of the database proxy for its database.

SPOOL = Declaration("cyclone_spool_records", "Records that wait on the disk of this daemon.", ("sink",))
SPOOL_BYTES = Declaration("cyclone_spool_bytes", "Bytes of the records that wait.", ("sink",))
SPOOL_OLDEST = Declaration(
    "cyclone_spool_oldest_seconds", "How long the first of the records that wait has waited.", ("sink",)
)
SPOOL_LIMIT = Declaration("cyclone_spool_limit_bytes", "What the spool of this daemon may take on the disk.")

# Of the database proxy.

DATABASE_RECEIVED = Declaration(
    "cyclone_database_records_received_total",
    "Records that have arrived, also those that came again.",
    kind="counter",
)
DATABASE_STORED = Declaration("cyclone_database_rows_stored_total", "Rows that were stored.", kind="counter")
DATABASE_DUPLICATES = Declaration(
    "cyclone_database_duplicates_total", "Rows that the database had already.", kind="counter"
)
DATABASE_DEAD = Declaration(
    "cyclone_database_dead_letters_total", "Records that the database will never take.", kind="counter"
)
DATABASE_UNWRITTEN = Declaration(
    "cyclone_database_dead_letters_unwritten_total",
    "Texts of Cyclone 2.x among them that are not in the file of dead letters, which is full of such.",
    kind="counter",
)
DATABASE_UP = Declaration("cyclone_database_up", "Whether the database takes rows.")
DATABASE_LAST = Declaration("cyclone_database_last_stored_timestamp_seconds", "When rows were stored last.")
DATABASE_BATCH = Declaration("cyclone_database_batch_seconds", "How long the last transaction took.")

# Of the Pushgateway client.

CLIENT_RECEIVED = Declaration(
    "cyclone_pushgateway_records_received_total",
    "Records that have arrived, also those that came again.",
    kind="counter",
)
CLIENT_INVALID = Declaration(
    "cyclone_pushgateway_records_invalid_total", "What arrived and was no record.", kind="counter"
)
CLIENT_REPEATED = Declaration(
    "cyclone_pushgateway_records_repeated_total", "Records that had come before.", kind="counter"
)
CLIENT_SERIES = Declaration(
    "cyclone_pushgateway_series", "Series that are kept in memory, also those that a record has removed."
)
CLIENT_STALE = Declaration(
    "cyclone_pushgateway_series_stale_total",
    "Series that were removed because nothing was heard of them any more.",
    kind="counter",
)
CLIENT_REFUSED = Declaration(
    "cyclone_pushgateway_series_refused_total", "Series for which there was no room.", kind="counter"
)
CLIENT_PUSHES = Declaration("cyclone_pushgateway_pushes_total", "Pushes that were tried.", kind="counter")
CLIENT_FAILURES = Declaration(
    "cyclone_pushgateway_push_failures_total", "Pushes that failed.", kind="counter"
)
CLIENT_LAST = Declaration(
    "cyclone_pushgateway_last_push_timestamp_seconds", "When the last push but this one succeeded."
)
CLIENT_REJECTED = Declaration(
    "cyclone_pushgateway_rejected_families",
    "Metrics that the gateway does not take; its answer is in the log.",
)

#: Every one of the above.
OWN: tuple[Declaration, ...] = tuple(each for each in globals().values() if isinstance(each, Declaration))

_LIVE = [state for state in State if state not in ENDED]
_ENDED = [state for state in State if state in ENDED]
_CONTROLLER_STATES = ("up", "awaited", "silent", "leaving", "excluded")


def cluster_families(cluster: Cluster | None) -> list[Family]:
    """The cluster as the master has answered. None: it does not answer."""
    if cluster is None:
        return [_one(MASTER_UP, 0)]
    return [
        _one(MASTER_UP, 1),
        Family(MASTER_INFO, {(cluster.version, cluster.address): 1}),
        Family(MASTER_STATE, {(cluster.state,): 1}),
        _one(MASTER_UPTIME, cluster.up_s),
        _one(MASTER_EPOCH, cluster.epoch),
        *_job_families(cluster.jobs),
        *_controller_views(cluster.controllers),
    ]


def controller_families(figures: ControllerFigures) -> list[Family]:
    """One controller, by itself."""
    return [
        _one(WORKERS, figures.workers),
        _one(WORKERS_BUSY, figures.workers_busy),
        _one(WORKERS_HUNG, figures.workers_hung),
        _one(QUEUED, figures.queued),
        _one(KEPT, figures.values_kept),
        _one(KEPT_BYTES, figures.values_kept_bytes),
        *_present(
            Family(SPOOL, {(view.sink,): view.entries for view in figures.spools}),
            Family(SPOOL_BYTES, {(view.sink,): view.size_bytes for view in figures.spools}),
            Family(SPOOL_OLDEST, {(view.sink,): view.oldest_s for view in figures.spools}),
            Family(SINK_UP, {(view.sink,): not view.trouble for view in figures.spools}),
        ),
        _one(DROPPED, figures.dropped),
        *_limit(figures.spool_max_bytes),
    ]


def database_families(figures: DatabaseFigures, sink: str = "database") -> list[Family]:
    """The database proxy. sink: its own name."""
    return [
        _one(DATABASE_RECEIVED, figures.received),
        _one(DATABASE_STORED, figures.stored),
        _one(DATABASE_DUPLICATES, figures.duplicates),
        _one(DATABASE_DEAD, figures.dead_letters),
        _one(DATABASE_UNWRITTEN, figures.unwritten),
        _one(DATABASE_UP, not figures.trouble),
        _one(DATABASE_BATCH, figures.batch_s),
        *_moment(DATABASE_LAST, figures.last_success_at),
        Family(SPOOL, {(sink,): figures.waiting}),
        Family(SPOOL_BYTES, {(sink,): figures.waiting_bytes}),
        Family(SPOOL_OLDEST, {(sink,): figures.waiting_oldest_s}),
        *_limit(figures.spool_max_bytes),
    ]


def client_families(figures: ClientFigures) -> list[Family]:
    """The Pushgateway client."""
    return [
        _one(CLIENT_RECEIVED, figures.received),
        _one(CLIENT_INVALID, figures.invalid),
        _one(CLIENT_REPEATED, figures.series.repeated),
        _one(CLIENT_SERIES, figures.series.series),
        _one(CLIENT_STALE, figures.series.stale),
        _one(CLIENT_REFUSED, figures.series.refused),
        _one(CLIENT_PUSHES, figures.push.pushes),
        _one(CLIENT_FAILURES, figures.push.failures),
        _one(CLIENT_REJECTED, len(figures.push.rejected)),
        *_moment(CLIENT_LAST, figures.push.last_success_at),
    ]


def _job_families(jobs: Iterable[JobView]) -> list[Family]:
    # Of one name at most one is open, and no newer one has ended.
    newest: dict[str, JobView] = {}
    for job in sorted(jobs, key=lambda job: job.number):
        newest[job.name] = job
    # States without tasks are told as well: a line that falls to 0, and a counter whose first step is seen.
    live: dict[Labels, float] = {
        (name, state.value): job.counts.get(state, 0)
        for name, job in newest.items() if job.state == "open" for state in _LIVE
    }  # fmt: skip
    ended: dict[Labels, float] = {
        (name, state.value): job.counts.get(state, 0) for name, job in newest.items() for state in _ENDED
    }
    return _present(
        Family(JOB_STATE, {(name, job.state): 1 for name, job in newest.items()}),
        Family(JOB_OPENED, {(name,): job.opened_at for name, job in newest.items() if job.opened_at}),
        Family(JOB_OLDEST, {(name,): job.oldest_at for name, job in newest.items() if job.oldest_at}),
        Family(TASKS, live),
        Family(TASKS_ENDED, ended),
    )


def _controller_views(views: Iterable[ControllerView]) -> list[Family]:
    views = list(views)
    by_state = Counter(dict.fromkeys(_CONTROLLER_STATES, 0))
    by_state.update(view.state for view in views)
    attempts: dict[Labels, float] = {(view.name, State.PLACED.value): view.placed for view in views}
    attempts |= {(view.name, State.RUNNING.value): view.running for view in views}

    def each(amounts: Mapping[str, Mapping[str, float]]) -> dict[Labels, float]:
        return {(name, resource): amount for name, of in amounts.items() for resource, amount in of.items()}

    return [
        Family(CONTROLLERS, {(state,): count for state, count in by_state.items()}),
        *_present(
            Family(CONTROLLER_STATE, {(view.name, view.state): 1 for view in views}),
            Family(CONTROLLER_SILENT, {(view.name,): view.silent_s for view in views}),
            Family(CONTROLLER_ROOM, each({view.name: plain(view.room) for view in views})),
            Family(CONTROLLER_FREE, each({view.name: plain(view.free) for view in views})),
            Family(CONTROLLER_WORKERS, {(view.name,): view.workers for view in views}),
            Family(CONTROLLER_BUSY, {(view.name,): view.workers_busy for view in views}),
            Family(CONTROLLER_HUNG, {(view.name,): view.workers_hung for view in views}),
            Family(CONTROLLER_ATTEMPTS, attempts),
        ),
        *_spool_views({(view.name, spool.sink): spool for view in views for spool in view.spools}),
    ]


def _spool_views(spools: Mapping[Labels, SpoolView]) -> list[Family]:
    """spools: `{(controller, sink): what waits}`."""
    return _present(
        Family(CONTROLLER_SPOOL, {place: spool.entries for place, spool in spools.items()}),
        Family(CONTROLLER_SPOOL_BYTES, {place: spool.size_bytes for place, spool in spools.items()}),
        Family(CONTROLLER_SPOOL_OLDEST, {place: spool.oldest_s for place, spool in spools.items()}),
        Family(CONTROLLER_SINK_UP, {place: not spool.trouble for place, spool in spools.items()}),
        Family(SINK_WAITING, {place: spool.sink_entries for place, spool in spools.items()}),
        Family(SINK_DELIVERS, {place: not spool.sink_trouble for place, spool in spools.items()}),
    )


def _one(declaration: Declaration, value: float) -> Family:
    return Family(declaration, {(): value})


def _moment(declaration: Declaration, at: float) -> list[Family]:
    """Nothing while there was no such moment."""
    return [_one(declaration, at)] if at else []


def _limit(max_bytes: int) -> list[Family]:
    return [_one(SPOOL_LIMIT, max_bytes)] if max_bytes else []


def _present(*families: Family) -> list[Family]:
    """Those that have something to show."""
    return [family for family in families if family.samples]
