"""
Carries out a plan: what is still so is deleted, everything else is skipped with its reason.

May only make a plan smaller. Every id of the plan ends with one outcome, and no outcome says more
than what was seen. Knows no Airflow; talks to Tavus through a hook.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusError,
    TavusRequestRejectedError,
)
from tavus_provider.models import Conversation, Persona, Replica, Video
from tavus_provider.planning.plan import MAX_BYTES, Plan, fits_xcom, format_time, shorten_name
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import Verdict

OUTCOMES = ("deleted", "confirmed", "already_gone", "failed", "unknown", "not_attempted", "skipped")
RED = ("failed", "unknown", "not_attempted")
"""Outcomes with which a task is not green: the replica may still be there although it was to go."""

MAX_CLOCK_SKEW = 300.0
"""Seconds by which Tavus's clock and the worker's may differ before an age means nothing."""

MAX_IN_A_ROW = 5
"""Deletes in a row that are left in doubt, or put off by 429 for as long as one waits, and end a batch."""

MANY = 5
"""From so many on, more than half of a plan missing looks like another account and not like chance."""

RECORD_EVERY = 100
"""Outcomes that are recorded together; those of a try that is killed before are found out by its rerun."""

_SAID_GONE = ("deleted", "confirmed")
PROGRESS_EVERY = 5.0
"""Seconds between two lines of progress."""

Report = dict[str, Any]


BY_HAND = Policy.parse(
    {
        "name": "by hand",
        "expire": [{"rule": "by hand", "older_than": "1m", "status": ["started", "completed", "error"]}],
        "limits": {"max_deletions": 1, "max_deletion_percent": 100},
    }
)
"""What is asked of one replica that a person has chosen: is it the account's own, and is it in use?"""


class Tavus(Protocol):
    """What is needed of a hook."""

    @property
    def clock_skew(self) -> float | None: ...
    def list_replicas(self, *, while_deleting: bool = False) -> list[Replica]: ...
    def list_personas(self) -> list[Persona]: ...
    def list_conversations(self, *, latest_only: bool = ...) -> list[Conversation]: ...
    def list_videos(self, *, latest_only: bool = ...) -> list[Video]: ...
    def get_replica(self, replica_id: str) -> Replica: ...
    def delete_replica(self, replica_id: str, *, hard: bool = False) -> Any: ...


class Record(Protocol):
    """What is needed of the ledger: a try that is being recorded."""

    name: str

    def write(self, kind: str, **fields: Any) -> None: ...
    def close(self, **fields: Any) -> None: ...


def read_account(
    tavus: Tavus,
    policy: Policy,
    *,
    now: Callable[[], datetime],
    history: Callable[[datetime], History] = lambda now: History(),
    held: Callable[[datetime], frozenset[str]] = lambda now: frozenset(),
    shrinking: bool = False,
) -> Inventory:
    """
    Read all that a policy needs of an account.

    :param now: called once, after everything else was read
    :param history: told that time, returns what earlier runs did
    :param held: told that time, returns the ids under legal hold
    :param shrinking: whether replicas are being deleted meanwhile, by other batches of a plan
    :raises TavusError: if a list that the policy needs cannot be read completely
    """
    inventory = _use(tavus, policy, tavus.list_replicas(while_deleting=shrinking))
    skew = tavus.clock_skew
    if skew is not None and abs(skew) > MAX_CLOCK_SKEW:
        raise PlanRejectedError(
            f"Tavus's clock and this worker's differ by {abs(skew):.0f} s, so no age can be told: "
            "set the worker's clock; nothing was deleted"
        )
    read_at = now()
    return replace(inventory, held=held(read_at), history=history(read_at), read_at=read_at)


def decide_one(
    tavus: Tavus,
    replica_id: str,
    *,
    now: Callable[[], datetime],
    ignore_if_missing: bool = False,
) -> Verdict:
    """
    Read one replica, chosen by a person, and what uses it.

    :param ignore_if_missing: let an id that Tavus does not know pass; it may be soft-deleted
    :raises PlanRejectedError: if it is not the account's own, or is in use
    :raises ReplicaNotFoundError: if Tavus does not know it
    """
    missing = None
    try:
        replica = tavus.get_replica(replica_id)
    except ReplicaNotFoundError as error:
        if not ignore_if_missing:
            raise
        missing = str(error)
    if missing:
        reason = f"chosen by hand although {missing}; it may be soft-deleted already"
        return Verdict(Replica(replica_id), "expired", "by_hand", reason, rule="by hand", listed=False)
    verdict = evaluate(BY_HAND, _use(tavus, BY_HAND, [replica]), now=now()).verdicts[0]
    if verdict.reason_code in ("not_user", "in_use"):
        raise PlanRejectedError(
            f"replica {replica_id} is not deleted by hand: {verdict.reason}; nothing was deleted"
        )
    doubt = "" if verdict.status == "expired" else f" although {verdict.reason}"
    return verdict._replace(status="expired", rule="by hand", reason=f"chosen by hand{doubt}")


def _use(tavus: Tavus, policy: Policy, replicas: Sequence[Replica]) -> Inventory:
    return Inventory(
        replicas,
        personas=tavus.list_personas() if "personas" in policy.needs else (),
        conversations=tavus.list_conversations(latest_only=True) if "conversations" in policy.needs else (),
        videos=tavus.list_videos(latest_only=True) if "videos" in policy.needs else (),
    )


@dataclass
class Application:
    """
    One plan, or a batch of it, being carried out; ``report()`` is true at any moment, also after an
    interruption.

    :param plan: a plan that ``check_plan`` has let through
    :param log: called with each line worth reading
    :param begin: opens the record of this try, with the ids that are about to be deleted as ``intent`` and
        the ``outcomes`` that are certain without a delete
    :param history: told the time, returns what earlier runs did
    :param held: told the time, returns the ids under legal hold
    :param earlier: what earlier tries of this task left in the ledger: an outcome for each id, or
        ``None`` where only the intent was recorded
    :param earlier_tries: whether there was an earlier try, of which perhaps no record survived
    :param begun_before: whether any task has begun to carry out what this one is to carry out
    :param rows: the rows of the plan that are to be carried out, if not all; limits are those of the whole
    :param carried: called when the account was read, returns what all tries of all batches of this plan have
        left in the ledger by then, as ``earlier``
    """

    plan: Plan
    tavus: Tavus
    concurrency: int
    now: Callable[[], datetime]
    log: Callable[[str], None]
    begin: Callable[..., Record]
    history: Callable[[datetime], History] = lambda now: History()
    held: Callable[[datetime], frozenset[str]] = lambda now: frozenset()
    earlier: Mapping[str, str | None] = field(default_factory=dict)
    earlier_tries: bool = False
    begun_before: bool = False
    rows: Sequence[Mapping[str, Any]] | None = None
    carried: Callable[[], Mapping[str, str | None]] = dict
    record: Record | None = None
    may_heal: bool = False
    """Whether another try may do what this one could not."""
    items: dict[str, tuple[str, str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _stopped_by: str = "the run was stopped"
    _unlisted: set[str] = field(default_factory=set)
    """What is to go although it was not listed before: of these, absence proves nothing."""
    _in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self) -> Report:
        """Return the outcome of every id of the plan; what was not reached is ``not_attempted``."""
        items = {row["replica_id"]: self._end_of(row["replica_id"]) for row in self._rows}
        name = None if self.record is None else self.record.name
        return report_of(self.plan, self._rows, items, dry_run=False, ledger=name)

    def _end_of(self, replica_id: str) -> tuple[str, str]:
        done = self.earlier.get(replica_id)
        if replica_id not in self.items and done is not None and done in _SAID_GONE:
            return done, "by an earlier try of this task"
        return self.items.get(replica_id, ("not_attempted", self._stopped_by))

    def run(self) -> None:
        """
        Read everything again, delete what is still so, and read once more what is left.

        :raises PlanRejectedError: if a limit forbids it now; nothing was deleted
        :raises LedgerUnavailableError: if what is done cannot be recorded; nothing more is deleted
        :raises TavusError: if the account cannot be read completely; nothing was deleted
        """
        try:
            todo = self._revalidate()
            self.record = self.begin(
                intent=[row["replica_id"] for row in todo],
                outcomes={replica_id: outcome for replica_id, (outcome, _) in self.items.items()},
            )
        except TavusError as error:
            self._stopped_by = f"not attempted: {error}"
            raise
        if todo:
            self._delete(todo)
        if todo or self.earlier:
            self.verify_absence()

    def stop(self, why: str) -> None:
        """Start no further delete, for another try to go on; those under way are waited for."""
        self.may_heal = True
        self._halt(f"not attempted: {why}")

    def close(self) -> Report:
        """
        Record how it ended, and return the report.

        :raises LedgerUnavailableError: if it could not be recorded; ``report()`` is true all the same
        """
        report = self.report()
        if self.record is not None:
            self.record.close(
                outcomes={item["replica_id"]: item["outcome"] for item in report["items"]},
                report_digest=canonical_digest(fitted(report)),
            )
        return report

    @property
    def _rows(self) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self.plan["delete"] if self.rows is None else self.rows
        return rows

    def _revalidate(self) -> list[Mapping[str, Any]]:
        policy = Policy.parse(self.plan["policy"])
        mine = {row["replica_id"] for row in self._rows}
        others = [row for row in self.plan["delete"] if row["replica_id"] not in mine]
        account = read_account(
            self.tavus, policy, now=self.now, history=self.history, held=self.held, shrinking=bool(others)
        )
        replicas = account.replicas
        # What other batches are deleting does not keep the place of what is left, so they are not looked at:
        # with fewer beside it a replica is rather kept.
        theirs = {row["replica_id"] for row in others}
        account = replace(account, replicas=[r for r in replicas if r.replica_id not in theirs])
        decision = evaluate(policy, account, now=account.read_at, hard=self.plan["hard"])
        fresh = {verdict.replica.replica_id: verdict for verdict in decision.verdicts}
        todo = []
        for row in self._rows:
            replica_id = row["replica_id"]
            verdict = fresh.get(replica_id)
            done = self.earlier.get(replica_id)
            soft = not self.plan["hard"]
            # A soft delete is not sent twice; if it is listed still, the look afterwards tells.
            if done in _SAID_GONE and (verdict is None or soft):
                self._end(replica_id, done, "by an earlier try of this task")
            elif done == "already_gone" and soft:
                self._end(replica_id, done, self._gone(replica_id, "Tavus did not know it"))
            elif verdict is None:
                self._end(replica_id, "already_gone", self._gone(replica_id, "is no longer listed"))
            elif why := _why_not(row, verdict):
                self._end(replica_id, "skipped", why)
            else:
                todo.append(row)
                if not verdict.listed:
                    self._unlisted.add(replica_id)
        self._refuse_another_account({replica.replica_id for replica in replicas})
        self._refuse_beyond_limits(policy, decision, todo, others)
        return todo

    def _refuse_another_account(self, listed: Set[str]) -> None:
        """Refuse a plan of which more than half is gone although no run has begun to delete it."""
        if self.begun_before:
            return
        seen = listed | self.carried().keys()
        for rows in (self._rows, self.plan["delete"]):
            missing = sum(row["replica_id"] not in seen and row["source"] != "soft_deleted" for row in rows)
            if missing >= MANY and 2 * missing > len(rows):
                self.items.clear()
                raise PlanRejectedError(
                    f"{missing} of {len(rows)} planned replicas are no longer listed, and no run has begun "
                    "to delete them: is it the wrong account, or was somebody else at work? Nothing was "
                    "deleted; make a new plan"
                )

    def _refuse_beyond_limits(
        self,
        policy: Policy,
        decision: Decision,
        todo: Sequence[Mapping[str, Any]],
        others: Sequence[Mapping[str, Any]],
    ) -> None:
        """
        Hold what is to go against the limits of the whole plan.

        What earlier tries have deleted, and all of the other batches, counts as if it were still there to go.
        """
        fresh = {verdict.replica.replica_id for verdict in decision.verdicts}
        gone = {i for i, done in self.earlier.items() if i not in fresh or done in _SAID_GONE}
        gone -= {row["replica_id"] for row in todo}
        before = [row for row in self._rows if row["replica_id"] in gone]
        unlisted = [
            row
            for row in (*others, *before)
            if row["replica_id"] not in fresh and row["source"] != "soft_deleted"
        ]
        if breach := policy.limits.exceeded(
            delete=len(todo) + len(before) + len(others),
            listed=decision.listed + len(unlisted),
            undetermined=len(decision.undetermined),
        ):
            raise PlanRejectedError(breach)

    def _delete(self, todo: list[Mapping[str, Any]]) -> None:
        started = told = written = time.monotonic()
        pool = ThreadPoolExecutor(max_workers=min(self.concurrency, len(todo)), thread_name_prefix="tavus")
        try:
            futures: dict[Future[None], str] = {
                pool.submit(self._delete_one, row): row["replica_id"] for row in todo
            }
            recorded: dict[str, str] = {}
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                replica_id = futures[future]
                outcome, detail = self.items.get(replica_id, ("not_attempted", self._stopped_by))
                seconds = max(time.monotonic() - started, 1e-6)
                rate = done / seconds
                progress = f"{done} of {len(todo)} done, {rate:.1f}/s, {(len(todo) - done) / rate:.0f} s left"
                if len(todo) <= 50 or outcome in RED:
                    self.log(f"{outcome}: {replica_id} ({detail}); {progress}")
                elif time.monotonic() - told >= PROGRESS_EVERY or done == len(todo):
                    told = time.monotonic()
                    self.log(progress)
                recorded[replica_id] = outcome
                if len(recorded) >= RECORD_EVERY or time.monotonic() - written >= 1.0:
                    self._write("outcome", outcomes=recorded)
                    recorded, written = {}, time.monotonic()
            if recorded:
                self._write("outcome", outcomes=recorded)
        finally:
            # Also on SIGTERM and execution_timeout: no new delete starts, those under way are waited for.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _delete_one(self, row: Mapping[str, Any]) -> None:
        replica_id, hard = row["replica_id"], self.plan["hard"]
        if self._stop.is_set():
            return
        # Should the process be stopped while this one is under way, nobody knows what came of it.
        sent = in_doubt = put_off = False
        for_good = row["source"] == "soft_deleted"
        try:
            if hard and not for_good:
                current = self.tavus.get_replica(replica_id)
                if changed := changed_since(row, current):
                    self._end(replica_id, "skipped", changed)
                    return
            if self._stop.is_set():
                return
            sent = True
            self._end(replica_id, "unknown", "the run was stopped while its delete was under way")
            done = self.tavus.delete_replica(replica_id, hard=hard)
            if done.outcome == "confirmed" and replica_id in self._unlisted:
                in_doubt = self.may_heal = True
                self._end(replica_id, "unknown", f"{done.detail}; it was not to be seen before either")
            else:
                self._end(replica_id, done.outcome, done.detail)
        except ReplicaNotFoundError as error:
            if for_good:
                self._end(
                    replica_id,
                    "unknown",
                    f"{error}; Tavus no longer knows the id, so that its footage is "
                    "gone too could not be seen",
                )
            else:
                self._end(replica_id, "already_gone", self._gone(replica_id, str(error)))
        except TavusError as error:
            in_doubt = sent and error.outcome == "unknown"
            put_off = error.status == 429
            self._end(replica_id, error.outcome if sent else "not_attempted", str(error))
            self.may_heal = self.may_heal or not isinstance(error, TavusRequestRejectedError)
            if error.status in (401, 403):
                self._halt(f"not attempted: Tavus refused the key before ({error})")
        with self._lock:
            # An id that Tavus no longer knows is unknown as well, but Tavus is well and says so.
            self._in_a_row = self._in_a_row + 1 if in_doubt or put_off else 0
            if self._in_a_row >= MAX_IN_A_ROW:
                how = "left in doubt" if in_doubt else "put off by Tavus's rate limit"
                self._halt(f"not attempted: {MAX_IN_A_ROW} deletes in a row were {how}")

    def verify_absence(self) -> None:
        """What is still listed after a hard delete is not deleted, whatever the server said."""
        sent = {i for i, (outcome, _) in self.items.items() if outcome in (*_SAID_GONE, "unknown")}
        gone = {i for i, (outcome, _) in self.items.items() if outcome == "already_gone"}
        if not sent | gone:
            return
        try:
            batched = len(self._rows) < len(self.plan["delete"])
            left = self.tavus.list_replicas(while_deleting=batched)
            listed = {replica.replica_id for replica in left}
        except TavusError as error:
            self.log(f"What is left could not be read afterwards, so absence was not seen: {error}")
            for replica_id in sent:
                outcome, detail = self.items[replica_id]
                self._end(replica_id, outcome, f"{detail}; absence was not seen")
            self._write("verification", listed=None)
            return
        # What Tavus said it deleted softly is listed still, all of it: so this account lists such ones.
        said = {i for i in sent if self.items[i][0] in _SAID_GONE}
        shows_soft_deleted = not self.plan["hard"] and bool(said) and sent <= listed
        # "Not found" about what is listed settles nothing either.
        for replica_id in sent | (gone & listed):
            outcome, detail = self.items[replica_id]
            if replica_id not in listed:
                if outcome == "unknown" and replica_id not in self._unlisted:
                    outcome = "confirmed"
                self._end(replica_id, outcome, f"{detail}; it is no longer listed")
            elif (shows_soft_deleted or self._perhaps_done(replica_id)) and outcome != "unknown":
                self._end(replica_id, outcome, f"{detail}; this account lists what is soft-deleted: unseen")
            else:
                self._end(replica_id, "unknown", f"{detail}; it is still listed")
        self._write("verification", listed=len(listed), still_listed=sorted((sent | gone) & listed))

    def _perhaps_done(self, replica_id: str) -> bool:
        """Whether a try that was killed began to delete it softly, or a later one has found that so."""
        return not self.plan["hard"] and self.earlier.get(replica_id, "nothing") in (None, "already_gone")

    def _write(self, kind: str, **fields: Any) -> None:
        if self.record is not None:
            self.record.write(kind, **fields)

    def _halt(self, why: str) -> None:
        self._stopped_by = why
        self._stop.set()

    def _end(self, replica_id: str, outcome: str, detail: str) -> None:
        self.items[replica_id] = (outcome, detail)

    def _gone(self, replica_id: str, detail: str) -> str:
        if replica_id in self.earlier or self.earlier_tries:
            return f"{detail}; gone, perhaps by an earlier try of this task"
        return detail


def report_of(
    plan: Plan,
    rows: Iterable[Mapping[str, Any]],
    items: Mapping[str, tuple[str, str]],
    *,
    dry_run: bool,
    ledger: str | None,
) -> Report:
    """
    Return the report about some rows of a plan.

    :param items: outcome and detail of each of their ids
    :param ledger: the try or the folder of tries where it is recorded
    """
    listed = [
        {"replica_id": row["replica_id"], "outcome": outcome, "detail": detail}
        for row in rows
        for outcome, detail in (items[row["replica_id"]],)
    ]
    counts = Counter(item["outcome"] for item in listed)
    return {
        "plan_digest": plan["digest"],
        "hard": plan["hard"],
        "dry_run": dry_run,
        "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
        "items": listed,
        "ledger": ledger,
    }


def dry_report(plan: Plan, rows: Sequence[Mapping[str, Any]] | None = None) -> Report:
    """Return the report of a dry run of a plan, or of some of its rows: every id skipped, nothing sent."""
    rows = plan["delete"] if rows is None else rows
    items = {row["replica_id"]: ("skipped", "dry run") for row in rows}
    return report_of(plan, rows, items, dry_run=True, ledger=None)


def fitted(report: Report) -> Report:
    """
    Return a report as it fits into an XCom: of a very long one, as many items as fit, what is red first.

    ``counts`` stay those of all; ``items_left_out`` says how many items are in the ledger only.
    """
    if fits_xcom(report):
        return report
    items = sorted(report["items"], key=lambda item: item["outcome"] not in RED)
    sizes = itertools.accumulate(len(json.dumps(item)) + 2 for item in items)
    room = MAX_BYTES - len(json.dumps({**report, "items": [], "items_left_out": len(items)}))
    kept = sum(size <= room for size in sizes)
    return {**report, "items": items[:kept], "items_left_out": len(items) - kept}


def _why_not(row: Mapping[str, Any], verdict: Verdict) -> str | None:
    """Say why a planned replica is no longer to go, if it is not."""
    if verdict.listed and (changed := changed_since(row, verdict.replica)):
        return changed
    return None if verdict.status == "expired" else f"no longer to go: {verdict.reason}"


def changed_since(row: Mapping[str, Any], current: Replica) -> str | None:
    """Say how a replica differs from the one that was planned; an id may have been given to another."""
    if current.replica_type != "user":
        return f"its type is now {ascii(current.replica_type)[:40]}"
    if shorten_name(current.replica_name) != row["replica_name"]:
        return "its name is another since the plan was made"
    if format_time(current.created_at) != row["created_at"]:
        return "its created_at is another since the plan was made"
    return None
