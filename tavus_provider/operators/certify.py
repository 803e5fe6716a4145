"""Certify the erasure of a person, and watch the requests that are open."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import BaseOperator

from tavus_provider import __version__
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.operators import base
from tavus_provider.operators.assets import ERASED, emit_event, with_outlet
from tavus_provider.operators.base import TavusOperator, fail_without_retry, push_xcom, task_identity
from tavus_provider.operators.metrics import send_requests

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.planning.certificate import Certificate, CertificateReference
    from tavus_provider.planning.erasure import ErasurePlan
    from tavus_provider.storage.certificates import StoredCertificate
    from tavus_provider.storage.erasures import RequestStatus


class CertifyErasureOperator(BaseOperator):
    """
    Write the certificate of an erasure: what is known, what is open, and what is out of reach.

    It is made from the plan and the ledger alone; no request is sent. JSON and a printable page lie in
    ``_certificates/<request>`` in the root of the ledger, where no file is ever written twice. The ledger
    records the digests of both. ``python -m tavus_provider erasure verify FILE`` compares them later.

    Use it with ``trigger_rule="all_done_min_one_success"`` and the plan task as an upstream, so that it also
    runs after an apply task that failed. If a person rejected the plan, it is skipped.

    The XComs ``return_value`` (the certificate; if it is too large, its location, digest and state) and
    ``summary`` are pushed, and then the task fails if the request is ``incomplete``. A successful task emits
    an event of the asset ``tavus_person_erased`` with ``request``, ``state``, ``keys`` and ``certificate``,
    so that a downstream DAG can delete copies elsewhere.

    :param plan: the output of the plan task; templated
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(self, *, plan: Any, **kwargs: Any) -> None:
        super().__init__(**with_outlet(ERASED, kwargs))
        self.plan = plan

    def execute(self, context: Context) -> Certificate | CertificateReference:
        """Return the certificate."""
        from tavus_provider.planning.certificate import certificate_xcom
        from tavus_provider.planning.erasure_report import State, open_sentences
        from tavus_provider.rendering.erasure import STATES

        with fail_without_retry(context):
            plan = self._load(context)
            stored = self._certify(context, plan)
            certificate = stored.certificate
            for line in open_sentences(certificate["open"]):
                self.log.info("open: %s", line)
            summary = (
                f"Erasure {certificate['request']}: {STATES[State(certificate['state'])]}; certificate "
                f"{certificate['number']} is at {stored.location}"
            )
            self.log.info("%s", summary)
            push_xcom(context, "summary", summary)
            pushed = certificate_xcom(certificate, certificate_at=stored.location)
            push_xcom(context, "return_value", pushed)
            if certificate["state"] == State.INCOMPLETE:
                raise AirflowFailException("; ".join(open_sentences(certificate["open"]))[:2_000])
            self._emit(context, certificate)
            return pushed

    def _load(self, context: Context) -> ErasurePlan:
        from tavus_provider.storage.authority import APPROVE, RunAuthority
        from tavus_provider.storage.ledger import Ledger
        from tavus_provider.storage.plan_store import erasure_from_xcom

        plan = erasure_from_xcom(self.plan)
        ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
        authority = RunAuthority(ledger, task=task_identity(context))
        authority.require_planned(plan)
        answer = authority.find_answer(plan["digest"])
        if answer is not None and answer["answer"] != APPROVE:
            raise AirflowSkipException(
                f"The plan was rejected, so nothing is certified. Request {plan['request']} stays open."
            )
        return plan

    def _certify(self, context: Context, plan: ErasurePlan) -> StoredCertificate:
        from tavus_provider.planning.certificate import erased_keys, make_certificate
        from tavus_provider.rendering.certificate import certificate_page
        from tavus_provider.storage.certificates import gather_evidence, store_certificate
        from tavus_provider.storage.erasures import record_certificate
        from tavus_provider.storage.ledger import Ledger, job_name

        ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
        if not any("intent" in one.begin_record for one in ledger.attempts(job_name("plan", plan["digest"]))):
            raise PlanRejectedError(
                "the ledger has no record that an apply task has begun with this plan, so there is nothing "
                "to certify: see the log of the apply task"
            )
        evidence = gather_evidence(ledger, plan)
        task = task_identity(context)
        stored = store_certificate(
            lambda number: make_certificate(
                plan, evidence, number=number, run=task, versions=_versions(), made_at=base.now()
            ),
            request=plan["request"],
            render=certificate_page,
        )
        record_certificate(
            ledger,
            stored.certificate,
            page_digest=stored.page_digest,
            held={row["key"]: row["held_by"] for row in plan["held"]} | dict(evidence.held),
            suspects=evidence.look.undetermined if evidence.look else (),
            erased=erased_keys(stored.certificate),
            task=task,
        )
        return stored

    def _emit(self, context: Context, certificate: Certificate) -> None:
        from tavus_provider.planning.certificate import erased_keys
        from tavus_provider.planning.plan import MAX_XCOM_BYTES

        keys = erased_keys(certificate)
        fitting = keys[: MAX_XCOM_BYTES // 100]
        extra: dict[str, Any] = {
            "request": certificate["request"],
            "state": certificate["state"],
            "keys": fitting,
            "count": len(keys),
            "certificate": certificate["number"],
            "digest": certificate["digest"],
        }
        emit_event(context, ERASED, extra)


class CheckErasuresOperator(TavusOperator):
    """
    Fail if a request for an erasure needs somebody. Use it in a daily DAG.

    It fails, after it looked at everything, if

    - an open request is due within ``warn_days`` or overdue, or its last certificate is ``incomplete``;
    - a legal hold has ended because of which a request was partly refused;
    - an object that was erased is listed again, or something made with an erased replica is;
    - records of a request in the ledger were changed.

    Otherwise it succeeds with a line for each open request. A request is open until its certificate is
    ``complete``, or ``[tavus] closed_erasures`` names it. The XCom has one entry for each request that is not
    complete or has a problem; ``summary`` is one sentence.

    :param warn_days: number of days before the due date from which a request fails the task; default: 7
    :param legal_holds: ``file`` and ``max_age`` of legal holds, as for :class:`.PlanErasureOperator`
    :param tavus_conn_id: id of the Airflow connection; templated
    :raises TavusValidationError: if an argument is invalid
    """

    template_fields: Sequence[str] = ("tavus_conn_id",)

    def __init__(
        self, *, warn_days: int = 7, legal_holds: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(warn_days, bool) or not isinstance(warn_days, int) or not 0 <= warn_days <= 365:
            raise TavusValidationError(
                f"warn_days: must be a whole number from 0 to 365, not {warn_days!r:.40}"
            )
        self.warn_days = warn_days
        self.legal_holds = legal_holds
        if legal_holds is not None:
            from tavus_provider.operators.erasure import parse_holds

            parse_holds(legal_holds)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return where each request stands that is open or has a problem."""
        from tavus_provider.storage.erasures import read_statuses

        with self.running(context, label="{{ task.tavus_conn_id }}"):
            statuses = read_statuses(self.ledger)
            returned = self._find_returned(statuses)
            ended = self._find_ended_holds(statuses)
            rows = []
            for status in statuses:
                problems = self._find_problems(
                    status, now=base.now(), returned=returned.get(status.request, ()), ended=ended
                )
                if not status.is_open and not problems:
                    continue
                rows.append(_to_json(status, problems, now=base.now()))
                line = _describe(status, now=base.now())
                self.log.info("%s", line)
                for problem in problems:
                    self.log.error("%s: %s", status.request, problem)
            failed = [row for row in rows if row["problems"]]
            days_left = [_days_left(status, now=base.now()) for status in statuses if status.is_open]
            send_requests(
                open_count=len(days_left),
                overdue=sum(days is not None and days < 0 for days in days_left),
                failing=len(failed),
                tavus_conn_id=self.tavus_conn_id,
            )
            summary = f"requests that are open or need somebody: {len(rows):,}; now: {len(failed):,}"
            self.log.info("%s", summary)
            push_xcom(context, "summary", summary)
            push_xcom(context, "return_value", rows)
            if failed:
                named = "; ".join(f"{row['request']}: {', '.join(row['problems'])}" for row in failed)
                raise AirflowFailException(named[:2_000])
            return rows

    def _find_problems(
        self, status: RequestStatus, *, now: datetime, returned: Sequence[str], ended: frozenset[str]
    ) -> list[str]:
        from tavus_provider.planning.erasure_report import State

        problems = []
        if returned:
            shown = ", ".join(returned[:5]) + (f" and {len(returned) - 5} more" if len(returned) > 5 else "")
            problems.append(f"erased, and listed again: {shown}")
        if status.is_closed:
            return problems
        problems += [f"the ledger was changed: {flaw}" for flaw in status.flaws]
        days = _days_left(status, now=now)
        if days is not None and status.state in (None, State.INCOMPLETE):
            if days < 0:
                problems.append(f"{-days} days overdue (due on {status.due_on})")
            elif days <= self.warn_days:
                problems.append(f"due in {days} days, on {status.due_on}")
        if status.state is State.INCOMPLETE:
            problems.append("its last certificate is incomplete: trigger a new run of the request")
        if free := sorted(key for key, held_by in status.held.items() if held_by in ended):
            shown = ", ".join(free[:5]) + (f" and {len(free) - 5} more" if len(free) > 5 else "")
            problems.append(f"the legal hold has ended that kept {shown}: trigger a new run of the request")
        return problems

    def _find_ended_holds(self, statuses: Sequence[RequestStatus]) -> frozenset[str]:
        """Return what holds of these requests named and no hold names any more."""
        from tavus_provider.operators.erasure import parse_holds
        from tavus_provider.planning.erasure_holds import is_held
        from tavus_provider.storage.binding_holds import read_binding_holds

        causes = {held_by for status in statuses if status.is_open for held_by in status.held.values()}
        if not causes:
            return frozenset()
        held = read_binding_holds(parse_holds(self.legal_holds), now=base.now())
        return frozenset(cause for cause in causes if not is_held(cause, held))

    def _find_returned(self, statuses: Sequence[RequestStatus]) -> dict[str, list[str]]:
        """Return the objects of each request that are listed although they were erased."""
        from tavus_provider.execution.sweep import Sweep
        from tavus_provider.keys import Kind, parse_key

        erased = frozenset(key for status in statuses for key in status.erased)
        if not erased:
            return {}
        replicas = frozenset(key for key in erased if parse_key(key)[0] is Kind.REPLICA)
        sweep = Sweep.of(self.hook, keys=erased, replica_ids=replicas)
        for error in sweep.errors.values():
            raise error
        returned: dict[str, list[str]] = {}
        for status in statuses:
            again = [
                key
                for key, item in sweep.items.items()
                if key in status.erased
                or (getattr(item, "replica_id", None) in status.erased and key not in status.keys)
            ]
            if status.state is not None and again:
                returned[status.request] = sorted(again)
        return returned


def _versions() -> dict[str, str]:
    from airflow import __version__ as airflow_version

    return {
        "airflow-provider-tavus": __version__,
        "apache-airflow": airflow_version,
        "python": platform.python_version(),
    }


def _days_left(status: RequestStatus, *, now: datetime) -> int | None:
    return None if status.due_on is None else (status.due_on - now.date()).days


def _describe(status: RequestStatus, *, now: datetime) -> str:
    days = _days_left(status, now=now)
    if days is None:
        return f"{status.request}: has no readable record"
    left = f"{days} days left" if days >= 0 else f"{-days} days overdue"
    state = "no certificate yet" if status.state is None else status.state.value.replace("_", " ")
    closed = ", closed by [tavus] closed_erasures" if status.is_closed else ""
    dates = f"received on {status.received_on}, due on {status.due_on} ({left})"
    return f"{status.request}: {dates}, {state}{closed}"


def _to_json(status: RequestStatus, problems: Sequence[str], *, now: datetime) -> dict[str, Any]:
    return {
        "request": status.request,
        "received_on": None if status.received_on is None else status.received_on.isoformat(),
        "due_on": None if status.due_on is None else status.due_on.isoformat(),
        "days_left": _days_left(status, now=now),
        "state": None if status.state is None else status.state.value,
        "problems": list(problems),
    }
