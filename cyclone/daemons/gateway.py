"""What the Pushgateway client does with records: it shows the newest number of each series, in up to three ways."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from cyclone.clock import monotonic
from cyclone.daemons.master_watch import MasterWatch, master_client
from cyclone.daemons.sink import Standing
from cyclone.errors import ConfigError, RecordError
from cyclone.messages import Entry
from cyclone.metrics.endpoint import ScrapeEndpoint
from cyclone.metrics.exposition import Exposition
from cyclone.metrics.figures import ClientFigures, PushFigures
from cyclone.metrics.legacy import LegacyChecks
from cyclone.metrics.own import client_families, cluster_families
from cyclone.metrics.push import Group, Pusher, group_url
from cyclone.metrics.series import CurrentSeries
from cyclone.metrics.textfile import Textfile
from cyclone.record import decode
from cyclone.sinks.inquiry import Answer, Traced
from cyclone.sinks.kinds import load_kinds
from cyclone.sinks.settings import PushgatewayClientSettings
from cyclone.wire.complaints import Complaints

log = logging.getLogger("pushgateway-client")

#: What is shown is at most so old.
SHOW_S = 1.0


class Gateway:
    """A `Keeper`: what it keeps is the newest number of each series, in memory; the gateway gets all of them."""

    def __init__(self, settings: PushgatewayClientSettings) -> None:
        """Raises ConfigError, PluginError."""
        self._settings = settings
        self._kinds = load_kinds(settings.kind_modules, settings.kind_path, file=settings.ini_file)
        self._checks = LegacyChecks(self._kinds)
        kinds = [*self._kinds.values(), self._checks.kind]
        self._series = CurrentSeries(kinds, stale_after_s=settings.stale_after_s)
        self._exposition = Exposition()
        self._complaints = Complaints()
        self._received = self._invalid = 0
        self._shown_at = 0.0
        self._interval_began = monotonic()
        self._pusher = self._make_pusher()
        self._textfile = Textfile(self._exposition, settings.textfile) if settings.textfile else None
        self._endpoint: ScrapeEndpoint | None = None
        self._watch = MasterWatch(master_client(settings), settings.interval_s) if settings.master else None

    def start(self) -> None:
        """Raises AddressError when the port for metrics cannot be listened on."""
        if self._settings.metrics_port is not None:
            self._endpoint = ScrapeEndpoint(
                self._exposition, self._settings.metrics_target, self._settings.metrics_port
            )
            log.info("metrics port=%d", self._endpoint.port)
        self._show()
        if self._pusher is not None:
            self._pusher.start()
        if self._watch is not None:
            self._watch.start()

    def keep(self, entries: Sequence[Entry]) -> None:
        now = time.time()
        for entry in entries:
            self._received += 1
            try:
                kind = self._kinds.get(entry.kind)
                if kind is None:
                    raise RecordError(f"unknown kind {entry.kind!r}")
                self._series.take(entry.uid, decode(kind, entry.body), entry.at, now)
            except RecordError as error:
                self._invalid += 1
                self._complaints.add("invalid record", f"task {entry.tid!r} of job {entry.job!r}", str(error))

    def keep_texts(self, texts: Sequence[bytes]) -> None:
        now = datetime.now(UTC)
        for text in texts:
            self._received += 1
            try:
                self._series.take(None, self._checks.read(text, now), now.timestamp(), now.timestamp())
            except RecordError as error:
                self._invalid += 1
                self._complaints.add("invalid text", "a task of Cyclone 2.x", str(error))

    def trace(self, uids: Sequence[bytes], answer: Answer) -> None:
        # What it has is the newest number of each series, and nothing of where that came from.
        answer(Traced([], keeps=False))

    def tick(self) -> None:
        if monotonic() - self._interval_began >= self._settings.interval_s:
            self._end_interval()
        if monotonic() - self._shown_at >= SHOW_S:
            self._show()

    def flush(self) -> None:
        self._show()
        self._write()
        if self._pusher is not None:
            self._pusher.push_soon()

    def standing(self) -> Standing:
        textfile_trouble = "" if self._textfile is None else self._textfile.trouble
        return Standing(0, self._push_figures.trouble or textfile_trouble, self._invalid)

    def finish(self) -> None:
        self._show()
        if self._textfile is not None and self._settings.delete_on_exit:
            self._textfile.remove()
        else:
            self._write()
        if self._pusher is not None and not self._pusher.stop(self._settings.timeout_s + 1):
            log.warning("the last push did not end in time")
        if self._endpoint is not None:
            self._endpoint.close()
        if self._watch is not None:
            self._watch.stop()

    def _make_pusher(self) -> Pusher | None:
        settings = self._settings
        if not settings.url:
            return None
        return Pusher(
            self._exposition,
            Group(_group_url(settings), settings.timeout_s),
            interval_s=settings.interval_s,
            rejected_file=settings.pid_file.with_suffix(".rejected"),
            delete_at_end=settings.delete_on_exit,
        )

    @property
    def _push_figures(self) -> PushFigures:
        return PushFigures() if self._pusher is None else self._pusher.figures

    def _end_interval(self) -> None:
        self._interval_began = monotonic()
        now = time.time()
        for record in self._checks.end_interval():
            self._series.take(None, record, now, now)
        self._show()
        self._write()

    def _write(self) -> None:
        if self._textfile is not None:
            self._textfile.write()

    def _show(self) -> None:
        self._shown_at = monotonic()
        self._series.expire(time.time())
        self._exposition.show("records", self._series.families())
        figures = ClientFigures(self._received, self._invalid, self._series.figures, self._push_figures)
        self._exposition.show("client", client_families(figures))
        if self._watch is not None:
            self._exposition.show("cluster", cluster_families(self._watch.cluster))


def check(settings: PushgatewayClientSettings) -> None:
    """For `--check`: what a start would find wrong with the settings. Raises ConfigError, PluginError."""
    load_kinds(settings.kind_modules, settings.kind_path, file=settings.ini_file)
    if settings.url:
        _group_url(settings)


def _group_url(settings: PushgatewayClientSettings) -> str:
    instance = settings.instance or socket.gethostname()
    try:
        return group_url(settings.url, settings.job, {"instance": instance})
    except ValueError as error:
        raise ConfigError(str(error), file=settings.ini_file, section="push", key="url") from None
