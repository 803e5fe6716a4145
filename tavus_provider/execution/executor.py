"""
Carry out a plan: delete the replicas that are still valid, skip the others with a reason.

Every replica of the plan ends with one outcome, and no outcome claims more than was observed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import (
    ReplicaNotFoundError,
    TavusError,
    TavusRequestRejectedError,
    TavusRetryableError,
)
from tavus_provider.execution.current_account import AccountClient, CurrentAccount
from tavus_provider.execution.dispatch import run_deletes
from tavus_provider.execution.halting import Halt, InProgress, find_trouble
from tavus_provider.execution.progress import OutcomeRecorder
from tavus_provider.execution.revalidation import (
    BY_EARLIER_ATTEMPT,
    describe_absence,
    difference,
)
from tavus_provider.execution.verification import verify_absence
from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import Plan, PlanRow
from tavus_provider.planning.report import Report, Result, make_report, truncate_report
from tavus_provider.retention.context import History
from tavus_provider.retention.known_use import KnownUse


class DeletionResult(Protocol):
    """What a delete returns."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def detail(self) -> str: ...


class DeletingClient(AccountClient, Protocol):
    """The client methods that read the account, delete from it, wait, and end all waits."""

    def delete_replica(
        self, replica_id: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> DeletionResult: ...


class AttemptWriter(Protocol):
    """The ledger record of this attempt."""

    @property
    def name(self) -> str: ...
    @property
    def last_digest(self) -> str | None: ...
    def write(self, kind: str, **fields: Any) -> None: ...
    def close(self, **fields: Any) -> None: ...


class PlanExecutor:
    """
    Carry out a plan, or a batch of it.

    ``report()`` is correct at any time, also after an interruption.

    :param plan: a plan that :func:`.check_plan` accepted
    :param client: reads the account and deletes from it; used by ``concurrency`` threads at once
    :param concurrency: the maximum number of simultaneous deletes
    :param now: returns the wall clock
    :param log: called with each line that is worth logging
    :param begin: opens the ledger record of this attempt; called with the ids that are about to be deleted as
        ``intent``, and with the ``outcomes`` that are known without a delete
    :param history: returns what earlier runs did, given the current time
    :param held: returns the ids under legal hold, given the current time
    :param known_use: what the plan read of past conversations, if it is known
    :param prior: what earlier attempts recorded
    :param reread_prior: returns ``prior`` as it is by now; called after the account was read if replicas are
        missing, which other tasks with the same plan may have deleted meanwhile
    :param deleted_before: returns the ids that any run deleted; called if replicas are missing
    :param rows: the rows of a batch; the whole plan if omitted. Limits are always those of the whole plan
    :param clock: monotonic time in seconds, for the age of what is known of holds and use
    """

    def __init__(
        self,
        plan: Plan,
        client: DeletingClient,
        *,
        concurrency: int,
        now: Callable[[], datetime],
        log: Callable[[str], None],
        begin: Callable[..., AttemptWriter],
        history: Callable[[datetime], History] = lambda now: History(),
        held: Callable[[datetime], frozenset[str]] = lambda now: frozenset(),
        known_use: KnownUse | None = None,
        prior: PriorAttempts | None = None,
        reread_prior: Callable[[], PriorAttempts] | None = None,
        deleted_before: Callable[[], frozenset[str]] = frozenset,
        rows: Sequence[PlanRow] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._client = client
        self._concurrency = concurrency
        self._log = log
        self._begin = begin
        self._prior = PriorAttempts() if prior is None else prior
        self._rows = plan["delete"] if rows is None else rows
        self._account = CurrentAccount(
            plan,
            client,
            rows=self._rows,
            concurrency=concurrency,
            now=now,
            clock=clock,
            history=history,
            held=held,
            known_use=known_use,
            prior=self._prior,
            reread_prior=reread_prior,
            deleted_before=deleted_before,
        )
        self._is_batch = len(self._rows) < len(plan["delete"])
        self._results: dict[str, Result] = {}
        self._deleted_ids: set[str] = set()
        self._unconfirmable: set[str] = set()
        self._halt = Halt()
        self._in_progress = InProgress()
        self.writer: AttemptWriter | None = None
        self.may_succeed_later = False
        """Whether another attempt may do what this one could not."""

    @property
    def listed(self) -> frozenset[str] | None:
        """The ids that were listed before the deletes; ``None`` before they were read."""
        return self._account.listed

    @property
    def held(self) -> frozenset[str]:
        """The ids under legal hold, as read last."""
        return self._account.held

    def run(self) -> None:
        """
        Read the account again, delete what is still valid, and verify that it is gone.

        :raises PlanRejectedError: if a limit is exceeded by now, or it seems to be another account; nothing
            was deleted
        :raises LedgerUnavailableError: if the attempt cannot be recorded; nothing more is deleted
        :raises TavusError: if the account cannot be read completely; nothing was deleted
        """
        try:
            to_delete = self._read_account()
            self.writer = self._begin(
                intent=[row["replica_id"] for row in to_delete],
                outcomes={replica_id: result.outcome.value for replica_id, result in self._results.items()},
            )
        except TavusError as error:
            self._halt.set(str(error))
            raise
        if to_delete:
            self._delete(to_delete)
        if to_delete or self._prior.own:
            self._verify_absence()

    def stop(self, why: str) -> None:
        """
        Start no further delete, and end all waits of the client. Another attempt may continue.

        Requests in progress have three seconds left. The list is not read again after the deletes. Can be
        called in a signal handler.
        """
        self.may_succeed_later = True
        self._halt.stop(why)
        self._client.stop()

    def report(self) -> Report:
        """Return the outcome of every replica; ``not_attempted`` for those that were not reached."""
        results = {row["replica_id"]: self._result(row["replica_id"]) for row in self._rows}
        name, head = (None, None) if self.writer is None else (self.writer.name, self.writer.last_digest)
        return make_report(self._plan, self._rows, results, dry_run=False, ledger=name, ledger_head=head)

    def close(self) -> Report:
        """
        Record how the attempt ended, and return the report.

        :raises LedgerUnavailableError: if that cannot be recorded; ``report()`` is correct all the same
        """
        report = self.report()
        if self.writer is not None:
            self.writer.close(
                outcomes={item["replica_id"]: item["outcome"] for item in report["items"]},
                report_digest=canonical_digest(truncate_report(report)),
            )
        return report

    def _result(self, replica_id: str) -> Result:
        if (result := self._results.get(replica_id)) is not None:
            return result
        done = self._prior.own.get(replica_id)
        if done is not None and done in GONE:
            return Result(done, BY_EARLIER_ATTEMPT)
        return Result(Outcome.NOT_ATTEMPTED, f"not attempted: {self._halt.reason}")

    def _read_account(self) -> Sequence[PlanRow]:
        try:
            return self._account.read()
        finally:
            self._results.update(self._account.settled)
            self.may_succeed_later |= self._account.may_change

    def _may_send(self, replica_id: str) -> bool:
        """Return whether a delete may be sent now; see :meth:`.Freshness.confirm`."""
        freshness = self._account.freshness
        if freshness is None:
            return True
        try:
            return freshness.confirm(replica_id)
        finally:
            if freshness.failure is not None:
                self._halt.set(freshness.failure)

    def _delete(self, rows: Sequence[PlanRow]) -> None:
        recorder = OutcomeRecorder(len(rows), log=self._log, write=self._write_outcomes)

        try:
            run_deletes(
                rows,
                self._delete_one,
                concurrency=self._concurrency,
                halt=self._halt,
                in_progress=self._in_progress,
                stop_client=self._client.stop,
                done=lambda row: recorder.add(row["replica_id"], self._result(row["replica_id"])),
            )
        finally:
            self._results = dict(self._results)  # so that a delete which was left alone changes no report
        if not self._halt.is_stopped:  # else the report comes first, then closing records them
            recorder.flush()

    def _delete_one(self, row: PlanRow) -> None:
        replica_id, hard = row["replica_id"], self._plan["hard"]
        results, sent = self._results, False
        if self._halt.is_set:
            return
        try:
            if (
                hard
                and row["source"] != "soft_deleted"
                and not (replica_id in self._account.soft_deleted and replica_id in self._account.unlisted)
                and (changed := difference(row, self._client.get_replica(replica_id)))
            ):
                results[replica_id] = Result(Outcome.SKIPPED, changed)
                return
            self._may_send(replica_id)
            if self._halt.is_set:
                return
            sent = True
            # This stays if the process is stopped before the delete returns.
            results[replica_id] = Result(
                Outcome.UNKNOWN, "the task was stopped while the delete was in progress"
            )
            deletion = self._client.delete_replica(
                replica_id, hard=hard, before_send=lambda: self._may_send(replica_id)
            )
        except ReplicaNotFoundError as error:
            soft_deleted = row["source"] == "soft_deleted" or (
                hard and replica_id in self._account.soft_deleted
            )
            results[replica_id] = result = _not_found(
                row, error, prior=self._prior, soft_deleted=soft_deleted
            )
            if result.outcome is Outcome.UNKNOWN:
                self._unconfirmable.add(replica_id)
            trouble = None  # even if the outcome is unknown: the service itself works
        except TavusError as error:
            outcome = error.outcome if sent else Outcome.NOT_ATTEMPTED
            freshness = self._account.freshness
            objection = None if freshness is None else freshness.objections.get(replica_id)
            is_certain = outcome is Outcome.NOT_ATTEMPTED or isinstance(error, TavusRetryableError)
            if is_certain and objection is not None:
                results[replica_id] = Result(Outcome.SKIPPED, objection)
                return
            results[replica_id] = Result(outcome, self._describe(error))
            trouble = self._trouble(error, outcome)
        else:
            results[replica_id] = result = self._deleted(replica_id, deletion)
            self._deleted_ids.add(replica_id)
            trouble = find_trouble(result.outcome)
        self._halt.count(trouble)

    def _deleted(self, replica_id: str, deletion: DeletionResult) -> Result:
        if deletion.outcome is Outcome.CONFIRMED and replica_id in self._account.unlisted:
            self.may_succeed_later = True
            return Result(
                Outcome.UNKNOWN, f"{deletion.detail}; it was not listed before either, so this proves nothing"
            )
        return Result(deletion.outcome, deletion.detail)

    def _describe(self, error: TavusError) -> str:
        """Return the message of an error; if the key was rejected, also for how many deletes it worked."""
        if not error.key_rejected:
            return str(error)
        return f"{error}; {len(self._deleted_ids)} deletes with this key had worked before"

    def _trouble(self, error: TavusError, outcome: Outcome) -> str | None:
        if not isinstance(error, TavusRequestRejectedError):
            self.may_succeed_later = True
        if error.key_rejected:
            self._halt.set(f"Tavus rejected the API key earlier ({self._describe(error)})")
        return find_trouble(outcome, error)

    def _verify_absence(self) -> None:
        verification = verify_absence(
            self._client,
            self._results,
            hard=self._plan["hard"],
            unlisted=self._account.unlisted,
            prior=self._prior,
            while_deleting=self._is_batch,
            concurrency=self._concurrency,
            log=self._log,
        )
        if verification is not None:
            if verification.may_change - self._unconfirmable:
                self.may_succeed_later = True
            self._results.update(verification.results)
            if not self._halt.is_stopped:  # the report comes first
                self._write("verification", **verification.record)

    def _write_outcomes(self, outcomes: dict[str, str]) -> None:
        self._write("outcome", outcomes=outcomes)

    def _write(self, kind: str, **fields: Any) -> None:
        if self.writer is not None:
            self.writer.write(kind, **fields)


def _not_found(
    row: PlanRow, error: ReplicaNotFoundError, *, prior: PriorAttempts, soft_deleted: bool
) -> Result:
    if soft_deleted:
        return Result(
            Outcome.UNKNOWN,
            f"{error}; Tavus no longer knows the id, so it cannot be confirmed that its training footage was "
            "deleted",
        )
    return Result(Outcome.ALREADY_GONE, describe_absence(row["replica_id"], str(error), prior=prior))
