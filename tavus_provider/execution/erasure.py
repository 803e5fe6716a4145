"""
Carry out the plan of an erasure, in a fixed order, and look again afterwards.

1. End the active conversations. One that cannot be ended is not deleted by this attempt.
2. Delete the objects, one kind after the other, in the order of :class:`.Kind`.
3. Ask for every object, and read all lists (:mod:`.sweep`).

One kind that fails does not stop the others. Legal holds are read again before each step that deletes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from datetime import datetime
from typing import Final, Protocol

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import (
    ItemNotFoundError,
    TavusError,
    TavusRequestRejectedError,
)
from tavus_provider.execution.conversation_end import EndingClient, end_conversation, is_stale
from tavus_provider.execution.dispatch import run_deletes
from tavus_provider.execution.erasure_look import judge, look_again, may_lag
from tavus_provider.execution.executor import AttemptWriter, DeletionResult
from tavus_provider.execution.halting import Halt, InProgress, find_trouble
from tavus_provider.execution.hold_guard import HoldGuard
from tavus_provider.execution.progress import OutcomeRecorder
from tavus_provider.execution.sweep import SweepClient
from tavus_provider.keys import Kind
from tavus_provider.models import Replica
from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.erasure import ErasurePlan, ErasureRow
from tavus_provider.planning.erasure_holds import Hold
from tavus_provider.planning.erasure_report import (
    ErasureReport,
    Look,
    make_erasure_report,
    truncate_erasure_report,
)
from tavus_provider.planning.plan import format_time
from tavus_provider.planning.report import Result

BY_EARLIER_ATTEMPT: Final = "deleted by an earlier attempt of this task"


class ErasureClient(SweepClient, EndingClient, Protocol):
    """The client methods that end conversations, delete objects and read the account."""

    def delete_item(
        self, key: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> DeletionResult: ...


class ErasureExecutor:
    """
    Carry out the plan of an erasure. ``report()`` is correct at any time, also after an interruption.

    :param plan: a plan that :func:`.check_erasure_plan` accepted
    :param client: reads the account and deletes from it; used by ``concurrency`` threads at once
    :param concurrency: the maximum number of simultaneous requests
    :param now: returns the wall clock
    :param log: called with each line that is worth logging
    :param begin: opens the ledger record of this attempt; called with ``intent``, the keys that are about to
        be deleted, and with ``held`` and ``outcomes``
    :param held: returns the ids and keys under legal hold, given the current time
    :param prior: what earlier attempts recorded
    :param clock: monotonic time in seconds, for the age of what was read of legal holds
    """

    def __init__(
        self,
        plan: ErasurePlan,
        client: ErasureClient,
        *,
        concurrency: int,
        now: Callable[[], datetime],
        log: Callable[[str], None],
        begin: Callable[..., AttemptWriter],
        held: Callable[[datetime], frozenset[str]],
        prior: PriorAttempts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._client = client
        self._concurrency = concurrency
        self._now = now
        self._log = log
        self._begin = begin
        self._guard = HoldGuard(plan, read_held=held, now=now, clock=clock)
        self._prior = PriorAttempts() if prior is None else prior
        self._rows = {row["key"]: row for row in plan["delete"]}
        self._results: dict[str, Result] = {}
        self._holds: dict[str, Hold] = {}
        self._ended: dict[str, str] = {}
        self._halt = Halt()
        self._kind_halt = Halt()
        self._in_progress = InProgress()
        self._look: Look | None = None
        self._is_key_rejected = False
        self.writer: AttemptWriter | None = None
        self.may_succeed_later = False
        """Whether another attempt may do what this one could not."""

    def run(self) -> None:
        """
        End, delete, and look again.

        :raises LedgerUnavailableError: if the attempt cannot be recorded; nothing more is deleted
        :raises TavusValidationError: if it cannot be read what is under legal hold; nothing was deleted
        """
        try:
            self._read_holds()
            for key, outcome in self._prior.own.items():
                if key in self._rows and key not in self._holds and outcome in GONE and outcome is not None:
                    self._results[key] = Result(outcome, BY_EARLIER_ATTEMPT)
            self.writer = self._begin(
                intent=[row["key"] for kind in Kind for row in self._to_delete(kind)],
                held={key: hold.held_by for key, hold in self._holds.items()},
                outcomes={key: result.outcome.value for key, result in self._results.items()},
            )
        except TavusError as error:
            self._halt.set(str(error))
            raise
        self._end_conversations()
        for kind in Kind:
            if self._to_delete(kind) and not self._halt.is_set and self._may_go_on():
                self._delete(self._to_delete(kind))
        if not self._halt.is_stopped and not self._is_key_rejected:
            self._look_again()

    def stop(self, why: str) -> None:
        """
        Start no further delete, and end all waits of the client. Another attempt may continue.

        Can be called in a signal handler.
        """
        self.may_succeed_later = True
        self._halt.stop(why)
        self._kind_halt.stop(why)
        self._client.stop()

    def report(self) -> ErasureReport:
        """Return the outcome of every object; ``not_attempted`` for those that were not reached."""
        return make_erasure_report(
            self._plan,
            results=self._all_results(),
            held={key: hold.reason for key, hold in self._holds.items()},
            look=self._look,
            ledger=None if self.writer is None else self.writer.name,
        )

    def close(self) -> ErasureReport:
        """
        Record how the attempt ended, and return the report.

        :raises LedgerUnavailableError: if that cannot be recorded; ``report()`` is correct all the same
        """
        report = self.report()
        if self.writer is not None:
            self.writer.close(
                outcomes={key: result.outcome.value for key, result in self._all_results().items()},
                held={key: hold.held_by for key, hold in self._holds.items()},
                report_digest=canonical_digest(truncate_erasure_report(report)),
            )
        return report

    def _result(self, key: str) -> Result:
        return self._results.get(key) or Result(Outcome.NOT_ATTEMPTED, f"not attempted: {self._halt.reason}")

    def _all_results(self) -> dict[str, Result]:
        return {key: self._result(key) for key in self._rows if key not in self._holds}

    def _to_delete(self, kind: Kind) -> list[ErasureRow]:
        return [
            row
            for key, row in self._rows.items()
            if row["kind"] == kind and key not in self._holds and key not in self._results
        ]

    # -- legal holds

    def _read_holds(self) -> None:
        """Hold what is under legal hold by now. An object that was already sent stays what it is."""
        for key, hold in self._guard.read().items():
            if key in self._rows and key not in self._results and key not in self._holds:
                self._hold(key, hold)

    def _hold(self, key: str, hold: Hold) -> None:
        self._holds[key] = hold
        self._log(f"held: {key} ({hold.reason})")

    def _may_go_on(self) -> bool:
        """Read the legal holds again. If that fails, nothing more is deleted."""
        before = set(self._holds)
        try:
            self._read_holds()
        except TavusError as error:
            self._stop_for(f"the legal holds could not be read again: {error}")
            return False
        self._record_holds(before)
        return True

    def _record_holds(self, before: Set[str]) -> None:
        if new := {key: hold.held_by for key, hold in self._holds.items() if key not in before}:
            self._write("outcome", held=new)

    def _stop_for(self, reason: str) -> None:
        """Delete nothing more; another attempt may."""
        self.may_succeed_later = True
        self._halt.set(reason)
        self._kind_halt.set(reason)

    def _may_send(self, key: str) -> bool:
        """Return whether a delete may be sent now; the holds are read again if they are too old."""
        try:
            return self._guard.may_send(key)
        finally:
            if self._guard.failure is not None:
                self._stop_for(self._guard.failure)

    # -- end and delete

    def _end_conversations(self) -> None:
        for key in self._plan["end"]:
            if self._halt.is_set or key in self._holds or key in self._results:
                continue
            end = end_conversation(self._client, key)
            self._ended[key] = end.state
            if end.error is not None:
                self._note_rejected_key(end.error)
                if not is_stale(self._rows[key], now=self._now()):
                    # Deleted while it goes on, nobody could end it any more: Tavus would not know its id.
                    self._results[key] = Result(
                        Outcome.NOT_ATTEMPTED, f"not attempted: it could not be ended: {end.detail}"
                    )
                    self.may_succeed_later = True
            self._log(f"end of {key}: {end.state} ({end.detail})")
        if self._ended:
            self._write("outcome", ended=self._ended)

    def _delete(self, rows: Sequence[ErasureRow]) -> None:
        self._kind_halt = Halt()
        if self._halt.is_stopped:
            self._kind_halt.stop(self._halt.reason)
        recorder = OutcomeRecorder(len(rows), log=self._log, write=self._write_outcomes)
        before = set(self._holds)

        def done(row: ErasureRow) -> None:
            if row["key"] in self._holds:
                return
            if row["key"] not in self._results:
                halt = self._halt if self._halt.is_set else self._kind_halt
                self._results[row["key"]] = Result(Outcome.NOT_ATTEMPTED, f"not attempted: {halt.reason}")
            recorder.add(row["key"], self._results[row["key"]])

        try:
            run_deletes(
                rows,
                self._delete_one,
                concurrency=self._concurrency,
                halt=self._kind_halt,
                in_progress=self._in_progress,
                stop_client=self._client.stop,
                done=done,
            )
        finally:
            # Copies, so that a delete which was left alone changes no report.
            self._results, self._holds = dict(self._results), dict(self._holds)
        if not self._kind_halt.is_stopped:  # else the report comes first, then closing records them
            recorder.flush()
            self._record_holds(before)

    def _delete_one(self, row: ErasureRow) -> None:
        key, results, sent = row["key"], self._results, False
        if self._halt.is_set or self._kind_halt.is_set:
            return
        try:
            if row["kind"] == Kind.REPLICA and (changed := _find_change(self._client, row)):
                results[key] = Result(Outcome.SKIPPED, changed)
                return
            self._may_send(key)
            if self._halt.is_set or self._kind_halt.is_set:
                return
            sent = True
            # This stays if the process is stopped before the delete returns.
            results[key] = Result(Outcome.UNKNOWN, "the task was stopped while the delete was in progress")
            deletion = self._client.delete_item(key, hard=True, before_send=lambda: self._may_send(key))
        except ItemNotFoundError as error:
            results[key] = _not_found(row, error, prior=self._prior)
            trouble = None
        except TavusError as error:
            outcome = error.outcome if sent else Outcome.NOT_ATTEMPTED
            hold = self._guard.holds.get(key)
            if outcome is Outcome.NOT_ATTEMPTED and hold is not None:
                results.pop(key, None)
                self._hold(key, hold)
                return
            results[key] = Result(outcome, str(error))
            trouble = self._find_trouble(error, outcome)
        else:
            results[key] = result = _deleted(row, deletion)
            trouble = find_trouble(result.outcome)
        self._kind_halt.count(trouble)

    def _find_trouble(self, error: TavusError, outcome: Outcome) -> str | None:
        if not isinstance(error, TavusRequestRejectedError):
            self.may_succeed_later = True
        self._note_rejected_key(error)
        return find_trouble(outcome, error)

    def _note_rejected_key(self, error: TavusError) -> None:
        if error.key_rejected:
            self._is_key_rejected = True
            self._halt.set(f"Tavus rejected the API key ({error})")

    def _look_again(self) -> None:
        results = self._all_results()
        self._look = look_again(
            self._client, self._plan, results=results, concurrency=self._concurrency, log=self._log
        )
        judged = judge(results, self._look, plan=self._plan)
        self._results |= judged
        if may_lag(self._look, judged):
            self.may_succeed_later = True
        self._write(
            "verification",
            **self._look.to_record(),
            outcomes={key: result.outcome.value for key, result in judged.items()},
        )

    def _write_outcomes(self, outcomes: dict[str, str]) -> None:
        self._write("outcome", outcomes=outcomes)

    def _write(self, kind: str, **fields: object) -> None:
        if self.writer is not None:
            self.writer.write(kind, **fields)


def _find_change(client: ErasureClient, row: ErasureRow) -> str | None:
    """Return why a replica is not the one of the plan; an unknown one is deleted all the same."""
    try:
        item = client.get_item(row["key"])
    except ItemNotFoundError:
        return None
    if not isinstance(item, Replica) or item.replica_type != "user":
        return "it is not a replica of this account any more"
    if row["is_known"] and format_time(item.created_at) != row["created_at"]:
        return f"created_at was {row['created_at']} in the plan and is {format_time(item.created_at)} now"
    return None


def _deleted(row: ErasureRow, deletion: DeletionResult) -> Result:
    if deletion.outcome is Outcome.CONFIRMED and not row["is_known"]:
        return Result(
            Outcome.UNKNOWN,
            f"{deletion.detail}; Tavus did not know the id before either, so it cannot be confirmed that its "
            "training footage was deleted",
        )
    return Result(deletion.outcome, deletion.detail)


def _not_found(row: ErasureRow, error: ItemNotFoundError, *, prior: PriorAttempts) -> Result:
    if not row["is_known"]:
        return Result(
            Outcome.UNKNOWN,
            f"{error}; Tavus no longer knows the id, so it cannot be confirmed that its training footage was "
            "deleted",
        )
    by_us = prior.may_have_deleted(row["key"])
    suffix = "; possibly deleted by an earlier attempt of this task" if by_us else ""
    return Result(Outcome.ALREADY_GONE, f"{error}{suffix}")
