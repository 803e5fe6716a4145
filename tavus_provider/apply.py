"""
Carries out a plan: what is still so is deleted, everything else is skipped with its reason.

May only make a plan smaller. Every id of the plan ends with one outcome, and no outcome says more
than what was seen. Knows no Airflow; talks to Tavus through a hook.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from tavus_provider.exceptions import (
    PlanRefused,
    ReplicaNotFound,
    TavusError,
)
from tavus_provider.plan import Plan, as_name, as_text
from tavus_provider.replica import Activity, Persona, Replica
from tavus_provider.retention import Decision, RetentionPolicy, Use, Verdict

OUTCOMES = ("deleted", "confirmed", "already_gone", "refused", "unknown", "not_attempted", "skipped")
RED = ("refused", "unknown", "not_attempted")
"""Outcomes with which a task is not green: the replica may still be there although it was to go."""

MAX_CLOCK_SKEW = 300.0
"""Seconds by which Tavus's clock and the worker's may differ before an age means nothing."""

MAX_UNKNOWN_IN_A_ROW = 5
PROGRESS_EVERY = 5.0
"""Seconds between two lines of progress."""

Report = dict[str, Any]


BY_HAND = RetentionPolicy.read(
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
    def list_replicas(self) -> list[Replica]: ...
    def list_personas(self) -> list[Persona]: ...
    def list_conversations(self) -> list[Activity]: ...
    def list_videos(self) -> list[Activity]: ...
    def get_replica(self, replica_id: str) -> Replica: ...
    def delete_replica(self, replica_id: str, *, hard: bool = False) -> Any: ...


def read_and_decide(tavus: Tavus, policy: RetentionPolicy, *, now: Callable[[], datetime]) -> Decision:
    """
    Read the account completely and decide.

    :param now: called once, after everything was read
    :raises TavusError: if a list that the policy needs cannot be read completely
    """
    replicas = tavus.list_replicas()
    use = _use(tavus, policy)
    skew = tavus.clock_skew
    if skew is not None and abs(skew) > MAX_CLOCK_SKEW:
        raise PlanRefused(
            f"Tavus's clock and this worker's differ by {abs(skew):.0f} s, so no age can be told: "
            "set the worker's clock; nothing was deleted"
        )
    return policy.decide(replicas, use, now=now())


def decide_one(
    tavus: Tavus, replica_id: str, *, now: Callable[[], datetime], ignore_if_missing: bool = False
) -> Verdict:
    """
    Read one replica, chosen by a person, and what uses it.

    :param ignore_if_missing: let an id that Tavus does not know pass; it may be soft-deleted
    :raises PlanRefused: if it is not the account's own or is in use
    :raises ReplicaNotFound: if Tavus does not know it
    """
    missing = None
    try:
        replica = tavus.get_replica(replica_id)
    except ReplicaNotFound as error:
        if not ignore_if_missing:
            raise
        missing = str(error)
    if missing:
        reason = f"chosen by hand although {missing}; it may be soft-deleted already"
        return Verdict(Replica(replica_id), "expired", "by_hand", reason, "by hand", None, None)
    verdict = BY_HAND.decide([replica], _use(tavus, BY_HAND), now=now()).verdicts[0]
    if verdict.word in ("not_user", "in_use"):
        raise PlanRefused(
            f"replica {replica_id} is not deleted by hand: {verdict.reason}; nothing was deleted"
        )
    doubt = "" if verdict.rung == "expired" else f" although {verdict.reason}"
    return replace(verdict, rung="expired", rule="by hand", reason=f"chosen by hand{doubt}")


def _use(tavus: Tavus, policy: RetentionPolicy) -> Use:
    return Use(
        personas=tavus.list_personas() if "personas" in policy.needs else (),
        conversations=tavus.list_conversations() if "conversations" in policy.needs else (),
        videos=tavus.list_videos() if "videos" in policy.needs else (),
    )


@dataclass
class Application:
    """
    One plan being carried out; ``report()`` is true at any moment, also after an interruption.

    :param plan: a plan that ``check_plan`` has let through
    :param log: called with each line worth reading
    :param earlier_tries: whether an earlier try of the same task may have deleted something
    """

    plan: Plan
    tavus: Tavus
    concurrency: int
    now: Callable[[], datetime]
    log: Callable[[str], None]
    earlier_tries: bool = False
    items: dict[str, tuple[str, str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _stopped_by: str = "the run was stopped"
    _unknown_in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self) -> Report:
        """Return the outcome of every id of the plan; what was not reached is ``not_attempted``."""
        items = []
        for row in self.plan["delete"]:
            outcome, detail = self.items.get(row["replica_id"], ("not_attempted", self._stopped_by))
            items.append({"replica_id": row["replica_id"], "outcome": outcome, "detail": detail})
        counts = Counter(item["outcome"] for item in items)
        return {
            "plan_digest": self.plan["digest"],
            "hard": self.plan["hard"],
            "dry_run": False,
            "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
            "items": items,
        }

    def run(self) -> None:
        """
        Read everything again, delete what is still so, and read once more what is left.

        :raises PlanRefused: if a limit forbids it now; nothing was deleted
        :raises TavusError: if the account cannot be read completely; nothing was deleted
        """
        try:
            todo = self._still_so()
        except TavusError as error:
            self._stopped_by = f"not attempted: {error}"
            raise
        if not todo:
            return
        self._delete(todo)
        self._look_afterwards(todo)

    def _still_so(self) -> list[Mapping[str, Any]]:
        policy = RetentionPolicy.read(self.plan["policy"])
        decision = read_and_decide(self.tavus, policy, now=self.now)
        fresh = {verdict.replica.replica_id: verdict for verdict in decision.verdicts}
        todo = []
        for row in self.plan["delete"]:
            verdict = fresh.get(row["replica_id"])
            if verdict is None:
                self._end(row["replica_id"], "already_gone", self._gone("is no longer listed"))
            elif changed := _changed(row, verdict.replica):
                self._end(row["replica_id"], "skipped", changed)
            elif verdict.rung != "expired":
                self._end(row["replica_id"], "skipped", f"no longer to go: {verdict.reason}")
            else:
                todo.append(row)
        if breach := policy.limits.breach(delete=len(todo), listed=decision.listed):
            raise PlanRefused(breach)
        return todo

    def _delete(self, todo: list[Mapping[str, Any]]) -> None:
        started, told = time.monotonic(), time.monotonic()
        pool = ThreadPoolExecutor(max_workers=min(self.concurrency, len(todo)), thread_name_prefix="tavus")
        try:
            futures: dict[Future[None], str] = {
                pool.submit(self._delete_one, row): row["replica_id"] for row in todo
            }
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
        finally:
            # Also on SIGTERM and execution_timeout: no new delete starts, those under way are waited for.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _delete_one(self, row: Mapping[str, Any]) -> None:
        replica_id, hard = row["replica_id"], self.plan["hard"]
        if self._stop.is_set():
            return
        # Should the process be stopped while this one is under way, nobody knows what came of it.
        sent = False
        try:
            if hard:
                current = self.tavus.get_replica(replica_id)
                if changed := _changed(row, current):
                    self._end(replica_id, "skipped", changed)
                    return
            if self._stop.is_set():
                return
            sent = True
            self._end(replica_id, "unknown", "the run was stopped while its delete was under way")
            done = self.tavus.delete_replica(replica_id, hard=hard)
            self._end(replica_id, done.outcome, done.detail)
        except ReplicaNotFound as error:
            self._end(replica_id, "already_gone", self._gone(str(error)))
        except TavusError as error:
            self._end(replica_id, error.outcome if sent else "not_attempted", str(error))
            if error.status in (401, 403):
                self._halt(f"not attempted: Tavus refused the key before ({error})")
        with self._lock:
            unknown = self.items.get(replica_id, ("", ""))[0] == "unknown"
            self._unknown_in_a_row = self._unknown_in_a_row + 1 if unknown else 0
            if self._unknown_in_a_row >= MAX_UNKNOWN_IN_A_ROW:
                self._halt(f"not attempted: {MAX_UNKNOWN_IN_A_ROW} deletes in a row were left in doubt")

    def _look_afterwards(self, todo: list[Mapping[str, Any]]) -> None:
        """What is still listed after a hard delete is not deleted, whatever the server said."""
        sent = {i for i, (outcome, _) in self.items.items() if outcome in ("deleted", "confirmed", "unknown")}
        ended = {row["replica_id"]: self.items.get(row["replica_id"], ("", ""))[0] for row in todo}
        gone = {replica_id for replica_id, outcome in ended.items() if outcome == "already_gone"}
        if not sent | gone:
            return
        try:
            listed = {replica.replica_id for replica in self.tavus.list_replicas()}
        except TavusError as error:
            self.log(f"What is left could not be read afterwards, so absence was not seen: {error}")
            for replica_id in sent:
                outcome, detail = self.items[replica_id]
                self._end(replica_id, outcome, f"{detail}; absence was not seen")
            return
        shows_soft_deleted = not self.plan["hard"] and sent <= listed
        # "Not found" about what is listed settles nothing either.
        for replica_id in sent | (set() if shows_soft_deleted else gone & listed):
            outcome, detail = self.items[replica_id]
            if replica_id not in listed:
                if outcome == "unknown":
                    self._end(replica_id, "confirmed", f"{detail}; it is no longer listed")
                else:
                    self._end(replica_id, outcome, f"{detail}; it is no longer listed")
            elif shows_soft_deleted and outcome != "unknown":
                self._end(replica_id, outcome, f"{detail}; this account lists what is soft-deleted: unseen")
            else:
                self._end(replica_id, "unknown", f"{detail}; it is still listed")

    def _halt(self, why: str) -> None:
        self._stopped_by = why
        self._stop.set()

    def _end(self, replica_id: str, outcome: str, detail: str) -> None:
        self.items[replica_id] = (outcome, detail)

    def _gone(self, detail: str) -> str:
        return f"{detail}; gone, perhaps by an earlier try of this task" if self.earlier_tries else detail


def dry_report(plan: Plan) -> Report:
    """Return the report of a dry run: every id skipped, nothing sent."""
    items = [
        {"replica_id": row["replica_id"], "outcome": "skipped", "detail": "dry run"} for row in plan["delete"]
    ]
    counts = dict.fromkeys(OUTCOMES, 0) | {"skipped": len(items)}
    return {
        "plan_digest": plan["digest"],
        "hard": plan["hard"],
        "dry_run": True,
        "counts": counts,
        "items": items,
    }


def _changed(row: Mapping[str, Any], current: Replica) -> str | None:
    """Say how a replica differs from the one that was planned; an id may have been given to another."""
    if current.replica_type != "user":
        return f"its type is now {ascii(current.replica_type)[:40]}"
    if as_name(current.replica_name) != row["replica_name"]:
        return "its name is another since the plan was made"
    if as_text(current.created_at) != row["created_at"]:
        return "its created_at is another since the plan was made"
    return None
