"""Measures one OST, and mails as long as it is slow, not only afterwards: what hangs never gets to an afterwards."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from cyclone.lustre.alerts import degradation_body, degradation_subject
from cyclone.lustre.claims import Claim, Claims, default_directory
from cyclone.lustre.io_task import Look, LustreIOTask
from cyclone.lustre.mail import MailError, Mailing, MailServer
from cyclone.lustre.ost_task import REACH, Fault, OstState, host
from cyclone.lustre.properties import STEP_S_MAX, seconds, whole, words

_log = logging.getLogger(__name__)

#: How long a mail that is under way is waited for when its phase has ended, and how long it may be under way.
_PATIENCE_S = 30.0


class LustreAlertIOTask(LustreIOTask):
    """Measures as `LustreIOTask` does; mails once for each phase that takes longer than `mail_threshold` seconds.

    mail_server: HOST or HOST:PORT. mail_receiver: addresses, separated by commas or blanks.
    mail_security: none, starttls or tls. mail_ca_file: certificates to trust instead of those of the system.
    mail_credentials: file on each node and where the generator runs, lines `user = …` and `password = …`.
    mail_repeat: seconds after which people are told again of what still lasts; 0 is never.
    mail_digest: how many mails may be about one round, of each node that counts by itself; what is beyond is told in
    one digest.
    mail_claims: directory in which tasks see how many mails there were; one of its own on each node if empty.

    Filled in by the generator, which keeps the incidents: mail_round names the round, mail_quiet the phases that
    people know of already. Whoever makes tasks by other means gets a mail for each phase that is slow.

    A fault SLOW in the result says whether it was mailed for sure; the generator mails what was not, as the same mail.
    """

    #: Each of creating, writing and reading may wait for its mail.
    spare_s = LustreIOTask.spare_s + 3 * _PATIENCE_S

    def __init__(
        self,
        mail_server: str,
        mail_sender: str,
        mail_receiver: str,
        mail_threshold: float | str,
        ost_idx: int | str,
        block_size_bytes: str | int,
        total_size_bytes: str | int,
        write_file_sync: bool | str,
        target_dir: str,
        lfs_bin: str,
        lfs_target: str,
        db_proxy_target: str = "",
        db_proxy_port: str | int = "",
        *,
        pushgateway: bool | str = False,
        phase_timeout: float | str = 120.0,
        ost_list: bool | str = True,
        direct_read: bool | str = True,
        lctl_bin: str = "lctl",
        use_sudo: bool | str = False,
        mail_security: str = "none",
        mail_credentials: str = "",
        mail_ca_file: str = "",
        mail_repeat: float | str = 14_400.0,
        mail_digest: int | str = 10,
        mail_claims: str = "",
        mail_round: str = "",
        mail_quiet: str = "",
    ) -> None:
        super().__init__(
            ost_idx, block_size_bytes, total_size_bytes, write_file_sync, target_dir, lfs_bin, lfs_target,
            db_proxy_target, db_proxy_port, pushgateway=pushgateway, phase_timeout=phase_timeout,
            ost_list=ost_list, direct_read=direct_read, lctl_bin=lctl_bin, use_sudo=use_sudo,
        )  # fmt: skip
        self.mail_server = MailServer.at(mail_server, mail_security, mail_credentials, mail_ca_file)
        self.mailing = Mailing(mail_sender.strip(), words(mail_receiver))
        self.mail_threshold_s = seconds("mail_threshold", mail_threshold, maximum=STEP_S_MAX)
        self.mail_repeat_s = seconds("mail_repeat", mail_repeat, zero=True)
        self.mail_digest = whole("mail_digest", mail_digest, minimum=1)
        self.mail_claims = mail_claims
        self.mail_round = mail_round
        self.mail_quiet = frozenset(words(mail_quiet))

    def watch(self, look: Look, phase: str) -> AbstractContextManager[object]:
        return _Watch(self, look, phase)

    def mail_key(self, phase: str) -> str:
        """Of the mail that this phase is slow; a repetition of this attempt elsewhere writes the same mail."""
        return f"{self.ost_idx}/{phase}/{self.attempt.job}/{self.attempt.tid}"

    def mail(self, phase: str, begun: datetime) -> bool:
        """Mail that a phase is slow; False if that could not be done, or was not ours to do."""
        claims = Claims(Path(self.mail_claims) if self.mail_claims else default_directory())
        claimed = (f"{self.lfs_target}/{self.mail_round}", f"{self.lfs_target}/{self.ost_idx}/{phase}")
        try:
            if self.mail_round and (claim := claims.take(*claimed, self.mail_digest)) is not Claim.MINE:
                return claim is Claim.DONE
        except OSError as error:
            # Rather a mail too many than none.
            _log.warning("mails of this round cannot be counted reason=%s", error)
        mail = self.mailing.compose(
            degradation_subject(self.lfs_target, self.ost_idx, phase),
            degradation_body(
                self.lfs_target,
                self.ost_idx,
                phase,
                begun,
                self.mail_threshold_s,
                f"{host()}:{self.target_dir}",
            ),
            f"{self.lfs_target}/{self.mail_key(phase)}",
            datetime.now(UTC),
        )
        # A mail that the server does not have when the task has lost its patience must not get there any more.
        server = replace(self.mail_server, talk_s=_PATIENCE_S, answer_s=_PATIENCE_S)
        try:
            server.send(mail)
        except MailError as error:
            _log.warning("a mail was not sent ost=%d phase=%s reason=%s", self.ost_idx, phase, error)
            if self.mail_round:
                claims.give_back(*claimed)
            return False
        if self.mail_round:
            try:
                claims.done(*claimed)
            except OSError as error:
                _log.warning("it cannot be told that a mail was sent reason=%s", error)
        return True


class _Watch:
    """Has the task mail when a phase takes too long, from a thread: the one of the task may be stuck in the kernel."""

    def __init__(self, task: LustreAlertIOTask, look: Look, phase: str) -> None:
        self._task, self._look, self._phase = task, look, phase
        self._mailed = False
        self._timer = threading.Timer(task.mail_threshold_s, self._on_threshold)
        # A worker must be able to end while a mail server hangs.
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._begun, self._begin = datetime.now(UTC), perf_counter()
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        elapsed = perf_counter() - self._begin
        if kind is not None and not issubclass(kind, Exception):
            self._timer.cancel()
            return  # the attempt is stopped, and has little time left
        if elapsed <= self._task.mail_threshold_s:
            self._timer.cancel()  # otherwise it has gone off or is about to: on a busy node it may be late
        self._timer.join(_PATIENCE_S)
        if self._mailed or elapsed > self._task.mail_threshold_s:
            text = f"it took {elapsed:.3f} s, more than {self._task.mail_threshold_s:g} s"
            key = self._task.mail_key(self._phase)
            self._look.faults.append(Fault(self._phase, OstState.SLOW, text, self._mailed, key))

    def _on_threshold(self) -> None:
        # Who knows that an OST does not answer need not be told that its phases take long.
        if not {self._phase, REACH} & self._task.mail_quiet:
            self._mailed = self._task.mail(self._phase, self._begun)
