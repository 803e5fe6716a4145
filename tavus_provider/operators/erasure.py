"""
Plan the erasure of one person, and carry the plan out.

Without Airflow's scheduler, call the operators one after the other, as tests do: ``execute`` of
``PlanErasureOperator`` with a context whose ``ti`` has ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and
``try_number``; then record an approval (``RunAuthority.record_shown`` and ``record_answer``) for the same
``dag_id`` and ``run_id``; then ``execute`` of ``ApplyErasureOperator`` and of
:class:`.CertifyErasureOperator` with ``plan`` set to what the first one returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from tavus_provider.exceptions import (
    PlanRejectedError,
    TavusError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.operators import base
from tavus_provider.operators.base import TavusOperator, push_xcom, task_identity, try_number
from tavus_provider.operators.reports import publish
from tavus_provider.sanitize import quote

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.execution.erasure import ErasureExecutor
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.planning.erasure import ErasureOptions, ErasurePlan, ErasureReference
    from tavus_provider.planning.erasure_report import ErasureReport
    from tavus_provider.planning.erasure_request import ErasureRequest
    from tavus_provider.retention.policy import LegalHolds
    from tavus_provider.storage.authority import RunAuthority
    from tavus_provider.storage.erasures import RequestHistory


class PlanErasureOperator(TavusOperator):
    """
    Read the whole account, and find everything of one person. Delete nothing.

    The person is named by replicas, videos and conversations. Videos and conversations that were made with
    one of the replicas belong to the request too, and so does what approved earlier runs of the same request
    were about. Protected ids, ``keep_last`` and the 72 hours of a policy do not hold against an erasure;
    legal holds do. Ids in the ledger's records of this request, and replicas that this package soft-deleted,
    are accepted even if Tavus does not know them any more.

    The plan has ids and no names. It is stored and recorded as that of :class:`.PlanRetentionOperator`, and
    from then on the request is open: its objects are kept from prune and purge (reason code
    ``erasure_open``), and :class:`.CheckErasuresOperator` watches the due date.

    The task pushes the XComs ``return_value`` (the plan, or its digest, counts and location) and ``summary``,
    and then fails if a persona names a replica of the request, or a limit is exceeded.

    :param request: reference of the request, such as ``DSR-2026-0142``; no name, no e-mail address; templated
    :param received_on: date on which it was received; templated
    :param due_on: date until which it must be answered; default: one calendar month later; templated
    :param ground: ``consent_withdrawn``, ``request``, ``purpose_met``, ``unlawful``, ``ccpa`` or ``bipa``;
        templated
    :param replica_ids: replicas that show the person; templated
    :param conversation_ids: conversations in which the person took part; templated
    :param video_ids: videos of the person; templated
    :param kinds: kinds of objects to erase: ``replica``, ``video``, ``conversation``; default: all; templated
    :param on_reference: ``fail`` if a persona names a replica of the request, or ``leave`` the persona as it
        is; default: ``fail``
    :param on_undetermined: whether rows of which it cannot be seen whose they are make the request
        ``incomplete``, or are left (``leave``); default: ``incomplete``
    :param hold_covers: ``related``: a legal hold on a video or conversation also holds its replica, and one
        on a replica what was made with it; ``item``: only what it names; default: ``related``
    :param max_replicas: maximum number of replicas in a plan; default: 5
    :param max_items: maximum number of objects in a plan; default: 10,000
    :param legal_holds: ``file`` and ``max_age`` of legal holds, as in a policy; they add to those of the
        deployment
    :param tavus_conn_id: id of the Airflow connection; templated
    :param strict_conf: fail, before anything is read, if the run was triggered with a conf key that is no
        param of the DAG; default: False; not templated
    :raises TavusValidationError: if an argument that is not templated is invalid
    """

    template_fields: Sequence[str] = (
        "request",
        "received_on",
        "due_on",
        "ground",
        "replica_ids",
        "conversation_ids",
        "video_ids",
        "kinds",
        "tavus_conn_id",
    )

    def __init__(
        self,
        *,
        request: str,
        received_on: str | date,
        ground: str,
        due_on: str | date | None = None,
        replica_ids: Any = (),
        conversation_ids: Any = (),
        video_ids: Any = (),
        kinds: Any = None,
        on_reference: str = "fail",
        on_undetermined: str = "incomplete",
        hold_covers: str = "related",
        max_replicas: int = 5,
        max_items: int = 10_000,
        legal_holds: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.request = request
        self.received_on = received_on
        self.due_on = due_on
        self.ground = ground
        self.replica_ids = replica_ids
        self.conversation_ids = conversation_ids
        self.video_ids = video_ids
        self.kinds = kinds
        self.on_reference = _check_choice("on_reference", on_reference, ("fail", "leave"))
        self.on_undetermined = _check_choice("on_undetermined", on_undetermined, ("incomplete", "leave"))
        self.hold_covers = _check_choice("hold_covers", hold_covers, ("related", "item"))
        self.max_replicas = _check_limit("max_replicas", max_replicas)
        self.max_items = _check_limit("max_items", max_items)
        self.legal_holds = legal_holds
        if legal_holds is not None:
            parse_holds(legal_holds)

    def execute(self, context: Context) -> ErasurePlan | ErasureReference:
        """Return the plan, or if it is too large for an XCom, its digest, counts and location."""
        from tavus_provider.execution.erasure_facts import read_erasure_facts
        from tavus_provider.planning.erasure import find_obstacle, make_erasure_plan
        from tavus_provider.planning.erasure_request import is_past
        from tavus_provider.rendering.erasure import erasure_lines, erasure_sentence
        from tavus_provider.storage.binding_holds import read_binding_holds
        from tavus_provider.storage.erasures import RequestHistory, record_request
        from tavus_provider.storage.history import soft_deleted
        from tavus_provider.storage.plan_store import erasure_to_xcom, store

        with self.running(context, label="{{ task.request }}"):
            request = self._parse_request()
            ledger = self.ledger
            ledger.require_shared("an erasure")
            history = RequestHistory(ledger, request.request)
            self._refuse_past_due_date(request, history)
            held = read_binding_holds(parse_holds(self.legal_holds), now=base.now())
            facts = read_erasure_facts(
                self.hook,
                request,
                earlier=history.approved,
                recorded=history.recorded,
                suspects=history.suspects,
                soft_deleted=soft_deleted(ledger),
                concurrency=self.hook.client.options.concurrency,
            )
            plan = make_erasure_plan(
                request,
                facts,
                options=self._options,
                held=held,
                legal_holds=self.legal_holds,
                now=base.now(),
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            for line in erasure_lines(plan):
                self.log.info("%s", line)
            if is_past(request.due_on, now=base.now()):
                self.log.warning("Request %s was due on %s.", request.request, request.due_on)
            summary = erasure_sentence(plan)
            self.log.info("%s", summary)
            push_xcom(context, "summary", summary)
            authority = self.authority(context)
            deleted = _find_erased(context, authority)
            plan_at = store(plan)
            authority.record_plan(plan)
            record_request(ledger, plan, task=task_identity(context))
            pushed = erasure_to_xcom(plan, plan_at=plan_at)
            if obstacle := find_obstacle(plan, deleted=deleted):
                push_xcom(context, "return_value", pushed)
                raise PlanRejectedError(obstacle)
            return pushed

    @property
    def _options(self) -> ErasureOptions:
        from tavus_provider.planning.erasure import ErasureOptions
        from tavus_provider.planning.erasure_holds import HoldScope

        return ErasureOptions(
            leave_references=self.on_reference == "leave",
            leave_undetermined=self.on_undetermined == "leave",
            hold_covers=HoldScope(self.hold_covers),
            max_replicas=self.max_replicas,
            max_items=self.max_items,
        )

    def _parse_request(self) -> ErasureRequest:
        from tavus_provider.keys import Kind
        from tavus_provider.planning.erasure_request import parse_request

        return parse_request(
            request=self.request,
            received_on=self.received_on,
            due_on=self.due_on,
            ground=self.ground,
            ids={kind: getattr(self, kind.ids_name) for kind in Kind},
            kinds=self.kinds,
            now=base.now(),
        )

    def _refuse_past_due_date(self, request: ErasureRequest, history: RequestHistory) -> None:
        from tavus_provider.planning.erasure_request import find_past_due_date

        if problem := find_past_due_date(request, known=history.due_dates, now=base.now()):
            raise TavusValidationError(problem)


class ApplyErasureOperator(TavusOperator):
    """
    Carry out the plan of an erasure: end, delete, and look again.

    First the active conversations of the plan are ended. Then its objects are deleted permanently: replicas,
    videos, conversations, in this order; one kind that fails does not stop the others. Legal holds are read
    again before each kind; an object that is held by now is not sent. Afterwards Tavus is asked for each
    object, and all lists are read: objects of the person that were made after the plan make the request
    ``incomplete``, and a second run completes it.

    Only the digest is taken from the XCom. The ledger must show that a plan task of the same run made the
    plan and, unless it deletes nothing, that a person approved it there
    (:class:`.ApproveRetentionOperator`). The intent is in the ledger before the first request that ends or
    deletes something. A retry continues from the ledger, also after the worker was killed.

    The XComs ``return_value`` (the report) and ``summary`` are pushed before the task fails. The task
    succeeds if nothing is open; objects under legal hold are not.

    :param plan: the output of a plan task; templated
    :param concurrency: maximum number of requests at the same time; default: that of the connection. If the
        connection sets a smaller one, that is used
    :param requests_per_second: maximum request rate; default: that of the connection. If the connection sets
        a smaller one, that is used
    :param tavus_conn_id: id of the Airflow connection, the same as in the plan; templated
    :raises TavusValidationError: if an argument is invalid
    """

    template_fields: Sequence[str] = ("plan", "tavus_conn_id")

    def __init__(
        self,
        *,
        plan: Any,
        concurrency: int | None = None,
        requests_per_second: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self._executor: ErasureExecutor | None = None
        given = {"concurrency": concurrency, "requests_per_second": requests_per_second}
        if any(value is not None for value in given.values()):
            from tavus_provider.client.config import check_option

            for name, value in given.items():
                if value is not None:
                    check_option(name, value)

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task, limited by the arguments of the operator and by the connection."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(
            self.tavus_conn_id, concurrency=self.concurrency, requests_per_second=self.requests_per_second
        )

    def execute(self, context: Context) -> ErasureReport:
        """Delete the objects of the plan, and return the report."""
        from tavus_provider.planning.erasure import check_erasure_plan
        from tavus_provider.storage.plan_store import erasure_from_xcom

        with self.running(context, label="{{ task.tavus_conn_id }}"):
            authority = self.authority(context)
            plan = check_erasure_plan(
                erasure_from_xcom(self.plan),
                now=base.now(),
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            authority.require_planned(plan)
            if plan["delete"]:
                authority.require_approval(plan)
            return self._run(context, plan, authority=authority)

    def on_kill(self) -> None:
        """Begin no further delete, end all waits, and send no further request."""
        if self._executor is not None:
            self._executor.stop("the task received a request to stop")
        super().on_kill()

    def _run(self, context: Context, plan: ErasurePlan, *, authority: RunAuthority) -> ErasureReport:
        from tavus_provider.planning.erasure import find_obstacle
        from tavus_provider.planning.erasure_report import State, open_sentences, unread_erasure_report
        from tavus_provider.planning.report import STOPPED_EARLY

        executor: ErasureExecutor | None = None
        reason = STOPPED_EARLY

        def make_report() -> ErasureReport:
            if executor is None:
                return unread_erasure_report(plan, reason, retried=try_number(context) > 1)
            return executor.report()

        try:
            if obstacle := find_obstacle(plan, deleted=_find_erased(context, authority)):
                raise PlanRejectedError(obstacle)
            executor = self._executor = self._make_executor(context, plan, authority=authority)
            if self._stop_requested:  # before the executor existed
                self.on_kill()
            executor.run()
        except TavusError as error:
            reason = str(error)
            raise
        finally:
            # The report is pushed first, whatever happens. Only then may recording it fail.
            try:
                report = self._publish(context, make_report)
            finally:
                if executor is not None:
                    executor.close()
        if report["state"] == State.INCOMPLETE:
            message = "; ".join(open_sentences(report["open"]))[:2_000]
            raise (
                TavusRetryableError(message) if executor.may_succeed_later else AirflowFailException(message)
            )
        return report

    def _publish(self, context: Context, make_report: Callable[[], ErasureReport]) -> ErasureReport:
        from tavus_provider.planning.erasure_report import truncate_erasure_report
        from tavus_provider.rendering.erasure import erasure_report_lines, erasure_report_sentence

        return publish(
            self,
            context,
            make_report,
            truncate=truncate_erasure_report,
            summarize=erasure_report_sentence,
            describe=erasure_report_lines,
        )

    def _make_executor(
        self, context: Context, plan: ErasurePlan, *, authority: RunAuthority
    ) -> ErasureExecutor:
        from tavus_provider.execution.erasure import ErasureExecutor
        from tavus_provider.planning.attempts import PriorAttempts
        from tavus_provider.storage.binding_holds import read_binding_holds
        from tavus_provider.storage.erasures import plan_keys
        from tavus_provider.storage.ledger import job_name

        ledger, task = self.ledger, task_identity(context)
        ledger.require_shared("an erasure")
        job = job_name("plan", plan["digest"])
        prior = PriorAttempts.from_ledger(
            ledger.attempts(job),
            task=task,
            replica_ids={row["key"] for row in plan["delete"]},
            batch=None,
            retried=try_number(context) > 1,
        )
        holds = parse_holds(plan["legal_holds"])
        return ErasureExecutor(
            plan,
            self.hook,
            concurrency=self.hook.client.options.concurrency,
            now=base.now,
            log=lambda line: self.log.info("%s", line),
            begin=lambda **fields: ledger.begin_attempt(
                job,
                **task,
                hard=True,
                triggered_by=base.find_trigger(context).user,
                request=plan["request"],
                plan_digest=plan["digest"],
                keys=plan_keys(plan),
                prior_attempts={**authority.heads, **prior.last_digests},
                **fields,
            ),
            held=lambda now: read_binding_holds(holds, now=now),
            prior=prior,
        )


def _find_erased(context: Context, authority: RunAuthority) -> frozenset[str]:
    """Return the keys that this run has erased already, or may have: limits count them too."""
    from tavus_provider.planning.attempts import find_deleted

    erasures = [attempt for attempt in authority.attempts() if "request" in attempt.begin_record]
    return find_deleted(erasures, task_identity(context))


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    raise TavusValidationError(f"{name}: must be {' or '.join(map(repr, choices))}, not {quote(value)}")


def _check_limit(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise TavusValidationError(f"{name}: must be a whole number of at least 0, not {quote(value)}")


def parse_holds(value: Mapping[str, Any] | None) -> LegalHolds | None:
    """
    Return the legal holds of an argument.

    :raises TavusValidationError: if they are not ``file`` and ``max_age``
    """
    if not value:
        return None
    from tavus_provider.retention.policy import Policy

    policy = Policy.parse({"expire": [{"older_than": "1d"}], "legal_holds": dict(value)})
    return policy.legal_holds
