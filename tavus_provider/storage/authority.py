"""
What the ledger shows about the plans of one DAG run: which were made, shown, approved and carried out.

XComs are for people: users of Airflow can write them. A task therefore takes only the digest of a plan from
an XCom. The plan itself comes from the plan store, and that it was made and approved in this run comes from
the records here, in the job ``run`` of the account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

from airflow.configuration import conf

from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.planning.attempts import find_deleted
from tavus_provider.storage.attempts import Attempt
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.plan_store import AnyPlan, store_text

APPROVE: Final = "approve"
REJECT: Final = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """
    Who started a DAG run.

    :param user: the user name, if Airflow knows it
    :param is_manual: whether a person or a program triggered it, not a schedule
    """

    user: str | None = None
    is_manual: bool = True


class RunAuthority:
    """
    The records of one DAG run about its plans.

    :param ledger: the ledger of the account
    :param task: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and ``try_number`` of this task
    """

    def __init__(self, ledger: Ledger, *, task: Mapping[str, Any]) -> None:
        self._ledger = ledger
        self._task = task
        self._job = job_name("run", task["dag_id"], task["run_id"])
        self._read: list[Attempt] | None = None

    def record_plan(
        self,
        plan: AnyPlan,
        *,
        dry_run: bool = False,
        holds: Set[str] | None = None,
        beside: Mapping[str, str] | None = None,
    ) -> None:
        """
        Record that this run made a plan.

        :param dry_run: whether the plan is only to be looked at
        :param holds: the ids under legal hold, for the next plan under this policy to compare
        :param beside: the SHA-256 of each file that is stored beside the plan, by the end of its name
        :raises LedgerUnavailableError: if it cannot be recorded
        """
        document: Mapping[str, Any] = plan
        names = ("policy_digest", "request")  # by kind
        self._record(
            "planned",
            plan_digest=plan["digest"],
            limits=plan["limits"],
            hard=plan["hard"],
            dry_run=dry_run,
            **({} if holds is None else {"holds": sorted(holds), "policy": document["policy"]["name"]}),
            **({"beside": dict(beside)} if beside else {}),
            **{name: document[name] for name in names if name in document},
        )

    def record_shown(self, plan: AnyPlan, *, subject: str, body: str) -> None:
        """
        Store the text that a person is about to see, and record its digest.

        :raises LedgerUnavailableError: if it cannot be stored or recorded
        """
        text = f"{subject}\n\n{body}".encode()
        shown = sha256(text).hexdigest()
        store_text(text, plan_digest=plan["digest"], shown_digest=shown)
        self._record("shown", plan_digest=plan["digest"], shown_digest=shown)

    def record_answer(
        self, answer: str, *, person: Mapping[str, Any], answered_at: str, trigger: Trigger
    ) -> tuple[str, str | None]:
        """
        Record the answer of a person to what this task has shown.

        :param answer: ``APPROVE`` or ``REJECT``
        :param person: ``id`` and ``name`` of the user
        :param answered_at: ISO 8601 time with a time zone
        :returns: the digest of the plan that was shown, and why the answer is not valid, if it is not
        :raises PlanRejectedError: if this task has shown nothing
        :raises LedgerUnavailableError: if it cannot be recorded
        """
        shown = [
            attempt.begin_record
            for attempt in self._of_kind("shown")
            if all(attempt.begin_record.get(key) == self._task[key] for key in ("task_id", "map_index"))
        ]
        if not shown:
            raise PlanRejectedError(
                "the ledger has no record that this task has shown a plan. Nothing was deleted; trigger a "
                "new run"
            )
        digest = cast("str", shown[-1]["plan_digest"])
        names = {str(person.get("id")), str(person.get("name"))}
        differs = trigger.user not in names if trigger.user is not None else not trigger.is_manual
        fields = {
            "plan_digest": digest,
            "shown_digest": shown[-1]["shown_digest"],
            "answer": answer,
            "answered_by": str(person.get("id")),
            "answered_at": answered_at,
            "triggered_by_other": differs,
        }
        self._record("answered", **fields)
        return digest, _find_objection(fields)

    def require_planned(self, plan: AnyPlan) -> None:
        """
        Check that this run made a plan.

        :raises PlanRejectedError: if the ledger has no record of it
        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        if plan["digest"] not in self._planned():
            raise PlanRejectedError(
                f"the ledger has no record that a plan task of this run made the plan {plan['digest'][:12]}: "
                "the XCom was changed, the plan is from another run, or the tasks use different ledgers. "
                "Nothing was deleted; trigger a new run"
            )

    def is_dry_run(self, plan: AnyPlan) -> bool:
        """
        Return whether this run made a plan only for dry runs.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        made = [one.begin_record for one in self._of_kind("planned")]
        purposes = [one.get("dry_run") for one in made if one["plan_digest"] == plan["digest"]]
        return bool(purposes) and all(purpose is True for purpose in purposes)

    def find_beside(self, plan: AnyPlan, name: str) -> str | None:
        """
        Return the SHA-256 of a file that this run stored beside a plan, if it was recorded.

        :param name: the end of its name, such as ``use.json``
        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        made = [one.begin_record for one in self._of_kind("planned")]
        digests = [one.get("beside", {}).get(name) for one in made if one["plan_digest"] == plan["digest"]]
        return digests[-1] if digests else None

    def require_approval(self, plan: AnyPlan) -> None:
        """
        Check that a person who may do so has approved a plan in this run, and that nobody has rejected it.

        :raises PlanRejectedError: if the ledger has no record of it
        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        digest = plan["digest"]
        shown = {
            attempt.begin_record["shown_digest"]
            for attempt in self._of_kind("shown")
            if attempt.begin_record["plan_digest"] == digest
        }
        answers = [
            attempt.begin_record
            for attempt in self._of_kind("answered")
            if attempt.begin_record["plan_digest"] == digest and attempt.begin_record["shown_digest"] in shown
        ]
        fault = "the ledger has no record of an approval of this plan in this run: use a task with "
        fault += "ApproveRetentionOperator upstream, and have it answered"
        if rejected := [one for one in answers if one["answer"] != APPROVE]:
            fault = f"the plan was rejected by {ascii(rejected[0]['answered_by'])[:80]}"
        elif answers:
            objections = [_find_objection(answer) for answer in answers]
            if None in objections:
                return
            fault = objections[0] or fault
        raise PlanRejectedError(f"{fault}. Nothing was deleted; trigger a new run")

    def find_answer(self, plan_digest: str) -> Mapping[str, Any] | None:
        """
        Return the record of the answer to a plan in this run; the rejection, if it was approved and rejected.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        answers = [
            attempt.begin_record
            for attempt in self._of_kind("answered")
            if attempt.begin_record["plan_digest"] == plan_digest
        ]
        rejected = [answer for answer in answers if answer["answer"] != APPROVE]
        return next(iter(rejected or answers), None)

    def record_deleting(self, plan: AnyPlan, replica_id: str) -> None:
        """
        Record that a task of this run is about to delete one replica of a plan.

        :raises LedgerUnavailableError: if it cannot be recorded
        """
        self._record("deleting", plan_digest=plan["digest"], intent=[replica_id])

    def begun_deletes(self) -> frozenset[str]:
        """
        Return the ids that this run has deleted, or may have, with any plan.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        return find_deleted(self.attempts(), self._task) | self.single_deletes()

    def single_deletes(self) -> frozenset[str]:
        """
        Return the ids that tasks of this run have deleted one by one with a plan, or may have.

        An id does not count if every attempt of the task to delete it has recorded that it did not.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        by_job: dict[str, set[str]] = {}
        for attempt in self._of_kind("deleting"):
            record = attempt.begin_record
            names = (record[name] for name in ("dag_id", "run_id", "task_id", "map_index"))
            by_job.setdefault(job_name("delete", *names), set()).update(record["intent"])
        deleted: set[str] = set()
        for job, ids in by_job.items():
            attempts = self._ledger.attempts(job)
            settled: set[str] = set()
            if all(attempt.records for attempt in attempts):
                intended = {i for attempt in attempts for i in attempt.intended}
                settled = intended - find_deleted(attempts, self._task)
            deleted |= ids - settled
        return frozenset(deleted)

    def attempts_of_other_plans(self, plan: AnyPlan) -> list[Attempt]:
        """
        Return the attempts at the other plans of this run. A run whose plan task was cleared has several.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        others = self._planned() - {plan["digest"]}
        return [attempt for one in sorted(others) for attempt in self._ledger.attempts(job_name("plan", one))]

    def attempts(self) -> list[Attempt]:
        """
        Return the attempts at all plans of this run.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        plans = sorted(self._planned())
        return [attempt for one in plans for attempt in self._ledger.attempts(job_name("plan", one))]

    @property
    def heads(self) -> dict[str, str | None]:
        """The name of each record of this run about a plan, and the digest of its end."""
        return {attempt.name: attempt.last_digest for attempt in self._attempts()}

    def _planned(self) -> set[str]:
        return {attempt.begin_record["plan_digest"] for attempt in self._of_kind("planned")}

    def _of_kind(self, kind: str) -> Iterable[Attempt]:
        """Return the attempts of this run that are of a kind and undamaged."""
        return [
            attempt
            for attempt in self._attempts()
            if attempt.records
            and not attempt.flaws
            and attempt.records[0]["kind"] == kind
            and all(attempt.begin_record.get(key) == self._task[key] for key in ("dag_id", "run_id"))
        ]

    def _attempts(self) -> list[Attempt]:
        if self._read is None:
            self._read = self._ledger.attempts(self._job)
        return self._read

    def _record(self, kind: str, **fields: Any) -> None:
        heads, self._read = self.heads, None
        writer = self._ledger.begin_attempt(
            self._job, kind=kind, **self._task, prior_attempts=heads, **fields
        )
        writer.close()


def approvers() -> list[str]:
    """Return the ids of the users who may approve: ``[tavus] approvers``; empty if every user may."""
    return [name.strip() for name in conf.get("tavus", "approvers", fallback="").split(",") if name.strip()]


def approver_must_differ() -> bool:
    """Return ``[tavus] approver_must_differ``: whether who triggered a run may not approve it."""
    return conf.getboolean("tavus", "approver_must_differ", fallback=False)


def _find_objection(answer: Mapping[str, Any]) -> str | None:
    """Return why an approval does not count under the configuration of this worker, if it does not."""
    allowed, person = approvers(), answer["answered_by"]
    if allowed and person not in allowed:
        return f"{ascii(person)[:80]} answered, who is not in approvers in section [tavus]"
    if approver_must_differ() and not answer["triggered_by_other"]:
        return (
            f"{ascii(person)[:80]} answered, who triggered the run or may have; approver_must_differ in "
            "section [tavus] requires another person"
        )
    return None
